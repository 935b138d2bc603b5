//! The repair scan: when pages of metadata are damaged beyond what RAID can repair, it reads
//! every written stripe, finds what is stored by what it says of itself, and puts the trees
//! together again (R-META-09, `design.md` 11.3).
//!
//! ```text
//!   drives ──survey──► objects ┐
//!   root ──► pages ──leaves──► rows, gaps ├──judge──► books ──► report
//!   root ──► deltas ──► log ──────────────┘              └────► new trees + journal ──► checkpoint
//! ```
//!
//! The scan itself changes nothing. Making its outcome true is one checkpoint of an engine whose
//! trees were filled from the books: everything goes to stripes that nothing of the old root
//! needs, and the root is swung by compare-and-set when all of it is stable. Until then the old
//! root and the journal are as they were; a crash leaves one or the other, and the scan may be
//! started again at any time.
//!
//! It needs the root: the registers that hold it stand on every drive. Memory grows with the
//! number of objects and mappings, a few hundred bytes for each.

mod books;
mod leaves;
mod restore;
mod survey;

use std::collections::{BTreeMap, BTreeSet};

use base::FileId;
use raid::{Group, StripeId};

use self::books::{Books, Log, Sources, judge};
use self::leaves::{Leaves, Rows, read_object};
use self::survey::Survey;
use crate::delta::Entry;
use crate::format::{ObjectKind, Place};
use crate::losses::LostRange;
use crate::open::OpenFault;
use crate::root::{ROOT_REGISTER, Root};
use crate::state::{BLOCKS, HEADS, LAYERS, LOST, OBJECTS, RECLAIM};
use crate::store::{BLOCK_BYTES, Row, Table};
use crate::tree::Tree;
use crate::usage::read_index;

/// What the scan says of a file or snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SalvagedFile {
    /// Which.
    pub file: FileId,
    /// It is a snapshot.
    pub is_snapshot: bool,
    /// How long it is.
    pub size_bytes: u64,
    /// Its size and times are as they were; otherwise the size is what its blocks suggest.
    pub is_head_right: bool,
    /// Ranges that are refused from now on, in whole blocks.
    pub lost: Vec<LostRange>,
}

/// What the scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SalvageReport {
    /// Stripes read.
    pub stripes: u64,
    /// Of these, with too few good units left.
    pub stripes_lost: u64,
    /// Data objects that are there and right.
    pub objects: u64,
    /// Metadata pages that cannot be read, as far as they are known.
    pub pages_lost: u64,
    /// The rows of the stripe table can be read.
    pub stripe_table_read: bool,
    /// The log of mapping deltas says everything; otherwise what it does not say is proven by
    /// content sums or refused.
    pub log_says_all: bool,
    /// All files and snapshots.
    pub files: Vec<SalvagedFile>,
    /// Some files may be gone without a trace.
    pub files_may_be_missing: bool,
    /// Tables of the layer above in which rows may be missing.
    pub tables_incomplete: Vec<Table>,
}

impl SalvageReport {
    /// Whether anything at all is damaged.
    pub fn is_needed(&self) -> bool {
        self.pages_lost > 0 || !self.stripe_table_read
    }

    /// Whether everything is restored.
    pub fn is_complete(&self) -> bool {
        let is_whole = |file: &SalvagedFile| file.is_head_right && file.lost.is_empty();
        self.files.iter().all(is_whole) && !self.files_may_be_missing && self.tables_incomplete.is_empty()
    }
}

/// The outcome of a scan, before it is made true.
pub struct Salvage {
    root: Root,
    root_version: u64,
    survey: Survey,
    books: Books,
    /// Stripes that the old root needs, as far as that is known.
    needed: BTreeSet<StripeId>,
    report: SalvageReport,
}

impl Salvage {
    /// Scans everything. Nothing on the drives is changed.
    pub async fn scan(group: &Group) -> Result<Salvage, OpenFault> {
        let found = group.register_read(ROOT_REGISTER).await;
        if found.version == 0 {
            return Err(OpenFault::Empty);
        }
        let root = Root::decode(&found.bytes)?;
        let mut survey = Survey::take(group, &root.content_key, root.checkpoint).await;
        let mut leaves = Leaves::new(group.clone(), root.table);
        let mut trees = BTreeMap::new();
        let numbers = [HEADS, BLOCKS, OBJECTS, RECLAIM, LOST, LAYERS];
        let above = root.trees.iter().map(|tree| tree.number);
        for number in numbers.into_iter().chain(above).collect::<BTreeSet<u8>>() {
            let tree = root.trees.iter().find(|tree| tree.number == number).copied();
            trees.insert(number, leaves.rows(tree.unwrap_or(Tree::new(number))).await);
        }
        if trees.values().any(|rows| !rows.gaps.is_empty()) {
            leaves.fill_gaps(&mut trees, root.next_page, &survey.pages).await;
        }
        survey.pages.clear();
        leaves.name_all(root.next_page).await;
        let log = read_log(group, &root).await;
        let sources = Sources { trees: &trees, log: &log, survey: &survey, content_key: root.content_key };
        let books = judge(&sources);
        let (table, stripe_table_read) = stripe_table(group, &root).await;
        // A scan that is started again after a crash is to find all that this one found.
        let named = leaves.named.iter().chain(&table).chain(&root.deltas).map(|place| place.stripe);
        let needed = named.chain(trees.get(&OBJECTS).into_iter().flat_map(objects_of)).collect();
        let report = SalvageReport {
            stripes: survey.stripes,
            stripes_lost: (survey.unproven.len() as u64).saturating_sub(survey.blank),
            objects: survey.objects.len() as u64,
            pages_lost: leaves.lost.len() as u64,
            stripe_table_read,
            log_says_all: log.says_all(),
            files: files_of(&books),
            files_may_be_missing: books.heads_incomplete,
            tables_incomplete: books
                .tables_incomplete
                .iter()
                .map(|tree| Table(tree - crate::state::FIRST_TABLE))
                .collect(),
        };
        Ok(Salvage { root, root_version: found.version, survey, books, needed, report })
    }

    /// What was found.
    pub fn report(&self) -> &SalvageReport {
        &self.report
    }

    /// The rows of a table as far as they are known, in the order of keys.
    pub fn table(&self, table: Table) -> Vec<Row> {
        let rows = self.books.tables.get(&crate::state::table_tree(table));
        rows.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone().into())).collect()
    }
}

fn files_of(books: &Books) -> Vec<SalvagedFile> {
    let files = books.heads.iter().map(|(&file, head)| {
        let mut lost: Vec<LostRange> = Vec::new();
        for block in books.refused(&head.open) {
            let offset_bytes = block * BLOCK_BYTES;
            match lost.last_mut().filter(|last| last.offset_bytes + last.len_bytes == offset_bytes) {
                Some(last) => last.len_bytes += BLOCK_BYTES,
                None => lost.push(LostRange { file, offset_bytes, len_bytes: BLOCK_BYTES }),
            }
        }
        let (is_snapshot, is_head_right) = (head.open.frozen, head.is_right);
        SalvagedFile { file, is_snapshot, size_bytes: head.open.head.size_bytes, is_head_right, lost }
    });
    files.collect()
}

async fn read_log(group: &Group, root: &Root) -> Log {
    let mut log = Log { objects: Vec::new(), is_whole: root.log_is_whole };
    for place in &root.deltas {
        let payload = read_object(group, *place, |found| found.kind == ObjectKind::Delta).await;
        log.objects.push(payload.and_then(|payload| Entry::decode_all(&payload).ok()));
    }
    log
}

/// Stripes of the objects that rows of the tree of objects name.
fn objects_of(rows: &Rows) -> impl Iterator<Item = StripeId> {
    let values = rows.rows.values().chain(rows.unproven.values());
    values.filter_map(|value| Place::decode(value).ok()).map(|place| place.stripe)
}

/// Where the stripe table and its index stand, as far as the index can be read; and whether all
/// of it can.
async fn stripe_table(group: &Group, root: &Root) -> (Vec<Place>, bool) {
    let indexed = read_index(group, root).await;
    let mut is_read = indexed.is_ok();
    let usage: Vec<Place> = indexed.unwrap_or_default().into_iter().chain(root.usage.iter().copied()).collect();
    for place in &usage {
        is_read &= read_object(group, *place, |found| found.kind == ObjectKind::Usage).await.is_some();
    }
    (usage.into_iter().chain(root.usage_index.iter().copied()).collect(), is_read)
}

//! Making an engine on an empty group, and opening one after a stop or a crash.
//!
//! Opening reads the root, the stripe table's objects and the journal, and nothing else:
//! no scan of the pool. Everything is verified before it is used; what the journal holds
//! beyond the root is applied again in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use base::port::{Leg, World};
use base::{FileId, Incarnation, ObjectId, Osn};
use journal::{Blocked, Journal, JournalRoot, Sequence};
use raid::Group;

use crate::delta::DeltaLog;
use crate::engine::Engine;
use crate::files::Files;
use crate::fingerprint::FingerprintIndex;
use crate::format::{DESCRIPTOR_BYTES, FormatError};
use crate::hash::FixedMap;
use crate::inner::Inner;
use crate::layers::Layers;
use crate::mover::{Mover, Stream};
use crate::options::Options;
use crate::pages::{PageStore, TableRoot};
use crate::relog::Reader;
use crate::root::{ROOT_REGISTER, Root};
use crate::staged::{BlockId, Staged};
use crate::state::{LAYERS, RECLAIM, RECLAIM_TRIMS, State};
use crate::store::StoreRefusal;
use crate::stripes::StripeTable;
use crate::usage::{STRIPE_TABLE_DAMAGED, read_index, read_stripes};

/// Why an engine was not made or opened. Nothing that was stored has changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// The group holds an engine already.
    #[error("the pool holds data already")]
    NotEmpty,
    /// The group holds no engine, or none of its drives has a whole copy of the root.
    #[error("no drive holds a root: the pool was never set up, or every copy of its root is damaged")]
    Empty,
    /// The journal could not be made.
    #[error("the journal cannot be set up: {0}")]
    JournalFormat(#[from] journal::open::FormatRefused),
    /// The journal could not be opened.
    #[error("the journal cannot be opened: {0}")]
    Journal(#[from] journal::OpenRefused),
    /// The root or the stripe table is damaged or newer than this program.
    #[error("the pool cannot be opened: {0}")]
    Format(#[from] FormatError),
    /// No majority of the drives takes the root.
    #[error("the pool cannot be opened: no majority of the drives takes its root")]
    NoMajority,
    /// What the journal holds could not be applied.
    #[error("the journal cannot be replayed: {0}")]
    Replay(StoreRefusal),
}

impl OpenFault {
    /// Metadata is damaged beyond repair, and a repair scan may make it anew.
    pub fn asks_for_repair_scan(&self) -> bool {
        match self {
            OpenFault::Replay(refusal) => matches!(refusal, StoreRefusal::Unreadable { .. }),
            OpenFault::Format(error) => *error == STRIPE_TABLE_DAMAGED,
            _ => false,
        }
    }
}

/// What opening found.
#[derive(Debug, Default)]
pub struct Opened {
    /// Records applied from the journal.
    pub replayed: usize,
    /// Ranges whose newest content no leg holds whole.
    pub blocked: Vec<Blocked>,
    /// What each leg turned out to be.
    pub legs: Vec<journal::LegVerdict>,
}

impl Engine {
    /// Makes an empty engine on a group that has none, with a journal on `legs`, and
    /// leaves it closed: [`Engine::open`] opens it.
    pub async fn format(group: &Group, legs: &[Rc<dyn Leg>], world: &World) -> Result<(), OpenFault> {
        let mut content_key = [0; 32];
        world.chance.fill(&mut content_key);
        Self::format_as_twin(group, legs, world, content_key).await
    }

    /// As [`Engine::format`], with the key of another engine: content sums of both can be
    /// compared (`design.md` 11.8).
    pub async fn format_as_twin(
        group: &Group,
        legs: &[Rc<dyn Leg>],
        world: &World,
        content_key: [u8; 32],
    ) -> Result<(), OpenFault> {
        if group.register_read(ROOT_REGISTER).await.version != 0 {
            return Err(OpenFault::NotEmpty);
        }
        let incarnations: Vec<Incarnation> = legs
            .iter()
            .map(|_| {
                let mut id = Incarnation::default();
                world.chance.fill(&mut id.0);
                id
            })
            .collect();
        let journal = Journal::format(legs, group.id(), &incarnations, Sequence(1)).await?;
        let root = Root {
            checkpoint: 0,
            opening: 0,
            last_osn: Osn(0),
            last_file: 0,
            next_page: 1,
            epoch: 1,
            content_key,
            incarnations,
            trim: journal.trim,
            through: Sequence(1),
            table: TableRoot::default(),
            trees: Vec::new(),
            usage_index: Vec::new(),
            usage: Vec::new(),
            usage_base: 0,
            own_usage: Vec::new(),
            deltas: Vec::new(),
            applied: Sequence(1),
            log_is_whole: true,
        };
        let set = group.register_cas(ROOT_REGISTER, 0, &root.encode()).await;
        set.map(drop).map_err(|_| OpenFault::NoMajority)
    }

    /// Opens the engine on `group`. Every acknowledged operation is there when it returns.
    pub async fn open(
        group: Group,
        legs: Vec<Rc<dyn Leg>>,
        world: World,
        options: Options,
    ) -> Result<(Engine, Opened), OpenFault> {
        let found = group.register_read(ROOT_REGISTER).await;
        if found.version == 0 {
            return Err(OpenFault::Empty);
        }
        let mut root = Root::decode(&found.bytes)?;
        let journal_root = JournalRoot { pool: group.id(), trim: root.trim, incarnations: root.incarnations.clone() };
        let (journal, recovered) = Journal::open(legs.clone(), &journal_root, world.clone(), options.journal).await?;
        // Generations and object ids of this life must differ from those of any other,
        // also of one that crashed before its first checkpoint.
        root.opening += 1;
        let set = group.register_cas(ROOT_REGISTER, found.version, &root.encode()).await;
        let root_version = set.map_err(|_| OpenFault::NoMajority)?;
        let indexed_usage = read_index(&group, &root).await?;
        let stripes = read_stripes(&group, &root, &indexed_usage).await?;
        let state = state_of(&group, &root, stripes, &options);
        let mover = Mover {
            data: Stream::default(),
            meta: Stream::of_metadata(),
            deltas: root.deltas.clone(),
            log: Reader::of_found(root.deltas.len(), &options),
            root,
            root_version,
            indexed_usage,
            touched_tables: BTreeSet::new(),
            dump_usage: false,
            table_left: Vec::new(),
            stuck: BTreeSet::new(),
            last_checkpoint: world.clock.now(),
            busy_through: 0,
            busy_at: world.clock.now(),
        };
        let opened = Opened { replayed: recovered.records.len(), blocked: recovered.blocked, legs: recovered.legs };
        let engine = Engine::assemble(group, journal, world, options, (state, mover));
        let floor = engine.inner.state.borrow_mut().next_generation();
        engine.inner.group.stripes_are_whole_below(floor);
        engine.inner.resume_expansion().await;
        engine.inner.resume_rebuild().await;
        engine.inner.resume_scrub().await;
        engine.inner.load_layers().await.map_err(OpenFault::Replay)?;
        engine.inner.remember_lost().await.map_err(OpenFault::Replay)?;
        engine.inner.replay(recovered.records, &opened.blocked).await.map_err(OpenFault::Replay)?;
        engine.inner.state.borrow_mut().replaying = false;
        engine.run();
        engine.take_in_returned(&legs, &opened.legs);
        Ok((engine, opened))
    }
}

pub(crate) fn state_of(group: &Group, root: &Root, stripes: StripeTable, options: &Options) -> State {
    let delta_bytes = (group.unit_payload_bytes() as usize - DESCRIPTOR_BYTES).min(60 << 10) / 8 * 8;
    State {
        pages: PageStore::new(root.table, root.next_page, options.cached_pages),
        trees: root.trees.iter().map(|tree| (tree.number, *tree)).collect::<BTreeMap<_, _>>(),
        files: Files::default(),
        staged: Staged::default(),
        stripes,
        fingerprints: FingerprintIndex::new(options.fingerprints),
        pending: FixedMap::<ObjectId, _>::default(),
        content_key: root.content_key,
        layers: Layers::default(),
        opening: root.opening,
        last_osn: root.last_osn,
        last_file: root.last_file,
        ids_told: root.last_file,
        last_object: 0,
        last_generation: 0,
        applied_through: root.applied.0,
        merge_at: None,
        delta: DeltaLog::new(delta_bytes),
        lost: BTreeSet::new(),
        gone_objects: Vec::new(),
        changed: false,
        replaying: true,
        settled_through: root.through.0,
        redo_through: root.applied.0,
    }
}

impl Inner {
    /// Lost blocks of before.
    pub(crate) async fn remember_lost(&self) -> Result<(), StoreRefusal> {
        const CHUNK: usize = 256;
        let mut from = BlockId { map: FileId(0), block: 0, epoch: 1 };
        loop {
            let known = self.resident(|state| state.known_lost(from, CHUNK)).await?;
            let last = known.last().copied().filter(|_| known.len() == CHUNK);
            self.state.borrow_mut().lost.extend(known);
            let Some(last) = last else { return Ok(()) };
            from = BlockId { epoch: last.epoch + 1, ..last };
        }
    }

    /// What is known of layers; and the cut ranges that version 1 kept in heads.
    pub(crate) async fn load_layers(&self) -> Result<(), StoreRefusal> {
        const CHUNK: usize = 512;
        let mut from = Vec::new();
        loop {
            let rows = self.resident(|state| state.tree(LAYERS).scan(&state.pages, &from, CHUNK, |_| true)).await?;
            for (key, value) in &rows {
                let loaded = self.state.borrow_mut().layers.load(key, value);
                loaded.map_err(|_| StoreRefusal::Unreadable { file: FileId(0), offset_bytes: 0 })?;
            }
            let Some((last, _)) = rows.last().filter(|_| rows.len() == CHUNK) else { break };
            from = [last, &[0][..]].concat();
        }
        let left = self.resident(|state| state.tree(RECLAIM).scan(&state.pages, &[], usize::MAX, |_| true)).await?;
        for (key, _) in left.iter().filter(|(_, what)| what == RECLAIM_TRIMS) {
            let file = FileId(u64::from_be_bytes(key[..].try_into().expect("the key is a file id")));
            self.resident(|state| {
                state.file(file)?;
                state.remove(RECLAIM, key)
            })
            .await?;
        }
        Ok(())
    }
}

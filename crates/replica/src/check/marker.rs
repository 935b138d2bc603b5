//! What there was at the point, while it is being changed.
//!
//! Whoever appends looks here before: what a row was is remembered, and of a file that is about to be changed
//! or dropped a *stand-in* is made by a record of its own right before. A file that nobody changes stands for
//! itself. What was compared already is not looked after any more.

use std::collections::{BTreeMap, BTreeSet};

use base::{FileId, Osn, WallNanos};
use engine::store::{Change as Put, StoreRefusal};
use engine::{Listed, decode_changes};
use mirror::{Form, Record};
use tokio::sync::oneshot;

use super::evidence::EvidenceRows;
use super::{Evidence, STAND_INS, stand_in_of};
use crate::replica::{Inner, form_of};
use crate::resync::ask::{Digest, Key, Row};
use crate::resync::{digest, rows};

/// Rows that are remembered; beyond, the check ends.
const OLD_ROWS_MAX: usize = 1 << 16;
/// Files of one record that can be stood in for; beyond, the check ends.
const FILES_OF_RECORD_MAX: usize = 512;
/// Stand-ins that are dropped at a time.
const DROPS_AT_A_TIME: usize = 64;

/// What stands for a file that was changed since the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StandIn {
    pub file: FileId,
    pub frozen: bool,
    pub form: Form,
    /// Its record.
    pub ticket: u64,
}

/// What was compared so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    pub digest: Digest,
}

impl Tally {
    /// The digest covers what comes in the order in which it comes.
    pub fn add(&mut self, part: &[u8]) {
        self.digest = digest(&[&self.digest[..], part].concat());
    }
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Marker {
    pub osn: Osn,
    /// The link over which it was agreed.
    pub link: u64,
    pub reads_data: bool,
    pub tally: Tally,
    /// Files after this one are newer.
    last_file: FileId,
    /// Rows before this one are compared; none: all are.
    rows_from: Option<Key>,
    old_rows: BTreeMap<Key, Option<Vec<u8>>>,
    files_done: FileId,
    stand_ins: BTreeMap<FileId, StandIn>,
    /// Made since, under an id that was given out before.
    born: BTreeSet<FileId>,
    numbered: u64,
    /// More was changed than can be remembered.
    pub overflowed: bool,
}

/// The first key of all rows that are no files.
pub(crate) fn first_row() -> Key {
    vec![rows::FILES + 1]
}

impl Marker {
    pub fn new((osn, link, reads_data): (Osn, u64, bool), last_file: FileId) -> Marker {
        Marker {
            osn,
            link,
            reads_data,
            tally: Tally::default(),
            last_file,
            rows_from: Some(first_row()),
            old_rows: BTreeMap::new(),
            files_done: FileId(0),
            stand_ins: BTreeMap::new(),
            born: BTreeSet::new(),
            numbered: 0,
            overflowed: false,
        }
    }

    fn wants_row(&self, key: &Key) -> bool {
        self.rows_from.as_ref().is_some_and(|from| key >= from) && !self.old_rows.contains_key(key)
    }

    fn wants_file(&self, file: FileId) -> bool {
        self.was_there(file) && file > self.files_done && !self.stand_ins.contains_key(&file)
    }

    fn was_there(&self, file: FileId) -> bool {
        file <= self.last_file && !self.born.contains(&file)
    }

    pub fn stand_in(&self, file: FileId) -> Option<StandIn> {
        self.stand_ins.get(&file).copied()
    }

    /// The rows of a range as they were.
    pub fn rows_then(&self, (from, to): (&Key, Option<&Key>), now: Vec<Row>) -> Vec<Row> {
        let mut then: BTreeMap<Key, Vec<u8>> = now.into_iter().collect();
        for (key, old) in self.old_rows.range(from.clone()..).take_while(|(key, _)| to.is_none_or(|to| *key < to)) {
            match old {
                Some(value) => then.insert(key.clone(), value.clone()),
                None => then.remove(key),
            };
        }
        then.into_iter().collect()
    }

    /// Rows before `next` are compared, or all.
    pub fn rows_are_done(&mut self, next: Option<Key>) {
        self.old_rows = next.as_ref().map_or_else(BTreeMap::new, |next| self.old_rows.split_off(next));
        self.rows_from = next;
    }

    /// The files of a range as they were, those there now being `now`.
    pub fn files_then(&self, (from, through): (FileId, FileId), now: impl Iterator<Item = FileId>) -> BTreeSet<FileId> {
        let gone = self.stand_ins.range(from..=through).map(|(file, _)| *file);
        now.chain(gone).filter(|file| *file >= from && *file <= through && self.was_there(*file)).collect()
    }

    /// A number for a stand-in that is made beside operations.
    fn next_id(&mut self, taken: &BTreeMap<FileId, Evidence>) -> FileId {
        loop {
            self.numbered += 1;
            let id = FileId(STAND_INS.start.0 | 1 << 60 | (self.osn.0 & ((1 << 34) - 1)) << 26 | self.numbered);
            if !taken.contains_key(&id) {
                return id;
            }
        }
    }
}

/// What a record is about.
#[derive(Default)]
struct Touched {
    osn: Osn,
    files: Vec<FileId>,
    rows: Vec<Key>,
    born: Vec<FileId>,
}

impl Touched {
    fn by(record: &Record) -> Touched {
        match record {
            Record::Write { osn, write, .. } => Touched { osn: *osn, files: vec![write.file], ..Touched::default() },
            Record::Restore { osn, span, .. } => Touched { osn: *osn, files: vec![span.file], ..Touched::default() },
            Record::Committed { osn, change, .. } => {
                let mut touched = Touched { osn: *osn, ..Touched::default() };
                // What does not decode is refused by whoever makes it.
                decode_changes(&change.body).unwrap_or_default().iter().for_each(|change| touched.note(change));
                touched
            }
            _ => Touched::default(),
        }
    }

    fn note(&mut self, change: &Put) {
        match change {
            Put::Put { table, key, .. } | Put::Delete { table, key } => self.rows.push([&[table.0][..], key].concat()),
            Put::SetSize { file, .. }
            | Put::SetTimes { file, .. }
            | Put::DropFile { file }
            | Put::Rollback { file, .. } => self.files.push(*file),
            Put::CreateFile { file, .. } | Put::Clone { file, .. } => self.born.push(*file),
            Put::Snapshot { snapshot, .. } => self.born.push(*snapshot),
            Put::Ids { .. } => {}
        }
    }
}

/// Makes a stand-in of a file as it is.
fn make(listed: &Listed, id: FileId) -> Put {
    match listed.frozen {
        // Only a snapshot can be cloned, and nothing but a file snapshotted.
        true => Put::Clone { snapshot: listed.file, file: id, at: WallNanos(0) },
        false => Put::Snapshot { file: listed.file, snapshot: id },
    }
}

/// What has to be placed before `record`, so that what was at the point stays known.
pub(crate) async fn preserve(site: &Inner, ticket: u64, record: &Record) -> Result<Vec<Put>, StoreRefusal> {
    drop_stale(site);
    if site.marker.borrow().is_none() {
        return Ok(Vec::new());
    }
    let touched = Touched::by(record);
    for key in touched.rows {
        if site.at_point(|marker| marker.wants_row(&key)).unwrap_or(false) {
            let old = rows::value_of(&site.engine, &key).await?;
            site.at_point(|marker| {
                marker.overflowed |= marker.old_rows.len() >= OLD_ROWS_MAX;
                if !marker.overflowed {
                    marker.old_rows.insert(key, old);
                }
            });
        }
    }
    let mut makes = Vec::new();
    for (number, file) in touched.files.into_iter().enumerate() {
        if !site.at_point(|marker| marker.wants_file(file)).unwrap_or(false) {
            continue;
        }
        let Some(listed) = site.listed(file).await? else { continue };
        let id = stand_in_of(touched.osn, number);
        site.at_point(|marker| {
            marker.overflowed |= number >= FILES_OF_RECORD_MAX;
            if !marker.overflowed {
                let stand_in = StandIn { file: id, frozen: listed.frozen, form: form_of(&listed.head), ticket };
                marker.stand_ins.insert(file, stand_in);
                makes.push(make(&listed, id));
            }
        });
    }
    site.at_point(|marker| {
        let last = marker.last_file;
        let before = |file: &FileId| *file <= last && !marker.stand_ins.contains_key(file);
        let born: Vec<FileId> = touched.born.into_iter().filter(before).collect();
        marker.born.extend(born);
    });
    if !makes.is_empty() {
        site.has_stand_ins.set(true);
    }
    Ok(makes)
}

/// The point, as it comes in the order of records.
pub(crate) struct Point {
    pub osn: Osn,
    pub link: u64,
    pub reads_data: bool,
    /// Records through this one were before it.
    pub after: u64,
}

/// Notes what is there. All of it is applied before anything else is placed.
pub(crate) async fn begin(site: &Inner, point: Point) {
    site.caught_up(point.after).await;
    let marker = Marker::new((point.osn, point.link, point.reads_data), site.engine.last_file_id());
    *site.marker.borrow_mut() = Some(marker);
    site.settled.notify_waiters();
}

/// Files that somebody wants kept as they were at the point.
pub(crate) struct Keep {
    pub files: Vec<FileId>,
    /// They stay when the check is over.
    pub as_evidence: bool,
    pub tell: oneshot::Sender<()>,
}

/// Keeps them, in the order of records.
pub(crate) async fn keep(site: &Inner, wanted: Keep) -> Result<(), StoreRefusal> {
    for file in wanted.files {
        let stand_in = match site.at_point(|marker| marker.stand_in(file)) {
            None => break,
            Some(Some(stand_in)) => {
                site.caught_up(stand_in.ticket).await;
                Some((stand_in.file, Vec::new()))
            }
            Some(None) => match site.listed(file).await? {
                Some(listed) if wanted.as_evidence || !listed.frozen => {
                    let id = site.at_point(|marker| marker.next_id(&site.evidence.borrow().0));
                    let Some(id) = id else { break };
                    let stand_in = StandIn { file: id, frozen: listed.frozen, form: form_of(&listed.head), ticket: 0 };
                    site.at_point(|marker| marker.stand_ins.insert(file, stand_in));
                    Some((id, vec![make(&listed, id)]))
                }
                _ => None,
            },
        };
        let Some((kept, mut changes)) = stand_in else { continue };
        site.has_stand_ins.set(true);
        if let (true, Some(osn)) = (wanted.as_evidence, site.at_point(|marker| marker.osn)) {
            let evidence = Evidence { kept, file, osn };
            changes.push(EvidenceRows::row(&evidence));
            site.evidence.borrow_mut().0.insert(kept, evidence);
        }
        site.commit(changes).await?;
    }
    // Whoever asked may be gone.
    let _ = wanted.tell.send(());
    Ok(())
}

/// What was agreed over a link that is gone is of no use.
fn drop_stale(site: &Inner) {
    let is_stale = site.at_point(|marker| marker.link).is_some_and(|link| site.mirror_link() != Some(link));
    if is_stale {
        site.marker.borrow_mut().take();
    }
}

/// Drops stand-ins that nobody needs any more; whether there may be more.
pub(crate) async fn drop_stand_ins(site: &Inner) -> Result<bool, StoreRefusal> {
    drop_stale(site);
    if site.marker.borrow().is_some() || !site.has_stand_ins.get() {
        return Ok(false);
    }
    let mut from = STAND_INS.start;
    loop {
        let all = site.engine.files(from, DROPS_AT_A_TIME).await?;
        let Some(last) = all.last().map(|listed| listed.file) else { break };
        from = FileId(last.0 + 1);
        let goes = |file: &FileId| *file < STAND_INS.end && !site.evidence.borrow().0.contains_key(file);
        let drops: Vec<FileId> = all.iter().map(|listed| listed.file).filter(goes).collect();
        if !drops.is_empty() {
            site.commit(drops.into_iter().map(|file| Put::DropFile { file }).collect()).await?;
            return Ok(true);
        }
        if last >= STAND_INS.end {
            break;
        }
    }
    site.has_stand_ins.set(false);
    Ok(false)
}

impl Inner {
    /// What there was at the point, if there is one.
    pub fn at_point<T>(&self, look: impl FnOnce(&mut Marker) -> T) -> Option<T> {
        self.marker.borrow_mut().as_mut().map(look)
    }

    pub async fn listed(&self, file: FileId) -> Result<Option<Listed>, StoreRefusal> {
        let found = self.engine.files(file, 1).await?;
        Ok(found.first().copied().filter(|listed| listed.file == file))
    }

    /// Files through this one are compared: what stood in for them goes, unless it is evidence.
    pub async fn files_are_done(&self, through: FileId) -> Result<(), StoreRefusal> {
        let gone: Vec<FileId> = self
            .at_point(|marker| {
                let after = marker.stand_ins.split_off(&through.next());
                let gone = std::mem::replace(&mut marker.stand_ins, after);
                marker.files_done = marker.files_done.max(through);
                gone.into_values().map(|stand_in| stand_in.file).collect()
            })
            .unwrap_or_default();
        let goes: Vec<FileId> = gone.into_iter().filter(|file| !self.evidence.borrow().0.contains_key(file)).collect();
        for some in goes.chunks(DROPS_AT_A_TIME) {
            self.commit(some.iter().map(|file| Put::DropFile { file: *file }).collect()).await?;
        }
        Ok(())
    }
}

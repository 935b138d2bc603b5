//! The primary's end: what may differ is compared and what differs is sent.
//!
//! One task from the first question to the last. Whatever ends the resync drops the channels it waits
//! on, and it ends with them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use base::{Buf, FileId};
use engine::store::{BLOCK_BYTES, Change as Put, Extent, StoreRefusal};
use engine::{Listed, Store};
use futures_util::stream::{self, TryStreamExt};
use mirror::locks::{Use, Want};
use mirror::{Input, Progress};
use tokio::sync::oneshot;

use super::ask::{Ask, Digest, Key, Reply, Row, Run};
use super::rows::{self, Page};
use super::{PIECE_BLOCKS, PIECES, base_of, digest, of_base};
use crate::replica::{Inner, flat, form_of};

/// Rows that are remembered as changed while rows are compared; beyond, they are compared again.
const TOUCHED_MAX: usize = 1 << 16;
/// Rows of one message.
const ROWS_MAX: usize = 128;
const ROWS_BYTES_MAX: usize = 64 << 10;
/// Files that are listed at a time.
const FILES_LISTED: usize = 64;

/// Why it does not go on.
enum Stop {
    /// It is not wanted any more.
    Ended,
    /// It cannot be done now.
    Failed,
}

impl From<StoreRefusal> for Stop {
    fn from(refusal: StoreRefusal) -> Stop {
        if refusal == StoreRefusal::Stopped { Stop::Ended } else { Stop::Failed }
    }
}

/// A resync that runs, as the rest of the site sees it.
pub(crate) struct Course {
    number: u64,
    last: u64,
    told: BTreeMap<u64, oneshot::Sender<Buf>>,
    held: BTreeMap<u64, oneshot::Sender<()>>,
    /// Waits until no change is under way, or nothing at all.
    stands: Option<oneshot::Sender<()>>,
    touched: BTreeSet<Key>,
    touched_too_many: bool,
    catches: Option<Catches>,
}

/// Changes go to both, and files are compared in order.
struct Catches {
    /// The last file that may differ from of old.
    until: FileId,
    /// Through here they are equal.
    done: FileId,
    /// That are not, although they are new, or were done.
    late: BTreeSet<FileId>,
}

impl Catches {
    fn is_equal(&self, file: FileId) -> bool {
        (file <= self.done || file > self.until) && !self.late.contains(&file)
    }

    /// What comes of a file that is not equal is not equal either. One that is made now under an id given
    /// out before may be written to here only until it is reached, and may not be listed any more.
    fn note(&mut self, change: &Put) {
        if let Put::CreateFile { file, .. } | Put::Clone { file, .. } = change
            && !self.is_equal(*file)
        {
            self.late.insert(*file);
        }
        let (from, to) = match change {
            Put::Snapshot { file, snapshot } => (*file, *snapshot),
            Put::Clone { snapshot, file, .. } | Put::Rollback { file, snapshot, .. } => (*snapshot, *file),
            _ => return,
        };
        if !self.is_equal(from) {
            self.late.insert(to);
        }
    }
}

impl Course {
    pub fn new(number: u64) -> Course {
        Course {
            number,
            last: 0,
            told: BTreeMap::new(),
            held: BTreeMap::new(),
            stands: None,
            touched: BTreeSet::new(),
            touched_too_many: false,
            catches: None,
        }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub fn told(&mut self, query: u64, body: Buf) {
        // Whoever asked may have given up.
        let _ = self.told.remove(&query).map(|tell| tell.send(body));
    }

    pub fn is_held(&mut self, hold: u64) {
        let _ = self.held.remove(&hold).map(|tell| tell.send(()));
    }

    pub fn stands(&mut self) {
        let _ = self.stands.take().map(|tell| tell.send(()));
    }

    /// These are being made here.
    pub fn note(&mut self, changes: &[Put]) {
        for change in changes {
            if let Some(catches) = &mut self.catches {
                catches.note(change);
                continue;
            }
            let key = match change {
                Put::Put { table, key, .. } | Put::Delete { table, key } => [&[table.0][..], key].concat(),
                Put::CreateFile { file, .. } | Put::DropFile { file } | Put::Clone { file, .. } => {
                    rows::file_key(*file)
                }
                Put::Snapshot { snapshot, .. } => rows::file_key(*snapshot),
                Put::SetSize { .. } | Put::SetTimes { .. } | Put::Rollback { .. } | Put::Ids { .. } => continue,
            };
            self.touched_too_many |= self.touched.len() >= TOUCHED_MAX;
            if !self.touched_too_many {
                self.touched.insert(key);
            }
        }
    }
}

/// Makes the other site equal, or gives up.
pub(crate) async fn run(site: Rc<Inner>, number: u64) {
    site.count(|counters| counters.begun += 1);
    let run = Errand { site: site.clone(), number, stands_still: Cell::new(false) };
    match run.all().await {
        Ok(()) => {
            site.end_course(number);
            site.tell(Input::Levelled(number));
        }
        Err(Stop::Failed) => site.tell(Input::Resync(number, Progress::Failed)),
        Err(Stop::Ended) => {}
    }
}

/// What the other site said of itself.
#[derive(Clone, Copy)]
struct Terms {
    /// Outside of what either has written since its snapshot both hold the same.
    is_whole: bool,
    wrote_alone: bool,
    /// Files through this one were there when this site became alone.
    snapshot_through: FileId,
}

/// A file and where it may differ.
struct Visit {
    file: FileId,
    frozen: bool,
}

struct Errand {
    site: Rc<Inner>,
    number: u64,
    /// Nobody writes until it is over.
    stands_still: Cell<bool>,
}

impl Errand {
    async fn all(&self) -> Result<(), Stop> {
        let terms = self.begin().await?;
        loop {
            self.course(|course| {
                course.touched.clear();
                course.touched_too_many = false;
            })?;
            // What was placed before anybody noted it is read.
            self.site.caught_up_now().await;
            self.rows().await?;
            if !self.course(|course| course.touched_too_many)? {
                break;
            }
        }
        self.stand(Progress::Halt).await?;
        self.rest().await?;
        self.files(terms).await?;
        self.stand(Progress::Drain).await?;
        // What came with the last changes. Nothing else is under way, and who waits may have what is looked at.
        self.stands_still.set(true);
        self.visit_late(terms).await?;
        self.site.count(|counters| counters.done += 1);
        Ok(())
    }

    fn course<T>(&self, look: impl FnOnce(&mut Course) -> T) -> Result<T, Stop> {
        let mut course = self.site.course.borrow_mut();
        course.as_mut().filter(|course| course.number == self.number).map(look).ok_or(Stop::Ended)
    }

    async fn ask(&self, ask: Ask) -> Result<Reply, Stop> {
        let (tell, told) = oneshot::channel();
        let query = self.course(|course| {
            let query = course.next();
            course.told.insert(query, tell);
            query
        })?;
        let body = ask.encode();
        self.site.tell(Input::Query(self.number, query, body.into()));
        let body = told.await.map_err(|_| Stop::Ended)?;
        match Reply::decode(&body).ok_or(Stop::Failed)? {
            Reply::Refused => {
                self.site.count(|counters| counters.refused += 1);
                Err(Stop::Failed)
            }
            reply => Ok(reply),
        }
    }

    async fn hold(&self, want: Want) -> Result<u64, Stop> {
        if self.stands_still.get() {
            return Ok(0);
        }
        let (tell, held) = oneshot::channel();
        let hold = self.course(|course| {
            let hold = course.next();
            course.held.insert(hold, tell);
            hold
        })?;
        self.site.tell(Input::Hold(self.number, hold, vec![want]));
        held.await.map_err(|_| Stop::Ended)?;
        Ok(hold)
    }

    fn release(&self, hold: u64) {
        self.site.tell(Input::Release(hold));
    }

    /// Waits until all that is to end has ended.
    async fn stand(&self, progress: Progress) -> Result<(), Stop> {
        let (tell, stands) = oneshot::channel();
        self.course(|course| course.stands = Some(tell))?;
        self.site.tell(Input::Resync(self.number, progress));
        stands.await.map_err(|_| Stop::Ended)
    }

    async fn begin(&self) -> Result<Terms, Stop> {
        let reply = self.ask(Ask::Begin { pair: self.site.config.pair }).await?;
        let Reply::Begun { whole_with, wrote_alone, ids_through } = reply else {
            self.site.count(|counters| counters.foreign += 1);
            return Err(Stop::Failed);
        };
        if ids_through > self.site.engine.last_file_id() {
            // Given out by the other site when it was alone: what it made of them is not to be met again.
            self.site.commit(vec![Put::Ids { through: ids_through }]).await?;
        }
        let mine = self.site.shelf.borrow().whole_with();
        let peer = self.site.mirror_peer();
        let is_whole = mine.is_some_and(|sites| {
            let has = |site| sites.contains(&site);
            whole_with == Some(sites) && has(self.site.config.me) && has(peer)
        });
        Ok(Terms { is_whole, wrote_alone, snapshot_through: self.snapshot_through().await? })
    }

    async fn snapshot_through(&self) -> Result<FileId, Stop> {
        let mut through = FileId(0);
        loop {
            let bases = self.site.engine.files(base_of(FileId(through.0 + 1)), FILES_LISTED).await?;
            let last = bases.iter().rev().find_map(|listed| of_base(listed.file));
            match last {
                Some(last) => through = last,
                None => return Ok(through),
            }
        }
    }

    // -- rows

    async fn rows(&self) -> Result<(), Stop> {
        let mut from = Key::new();
        loop {
            let Page { rows, next } = rows::page(&self.site.engine, &from, None).await?;
            self.page(from, next.as_ref(), &rows).await?;
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// Makes the rows from `from` to before `to` what they are here.
    async fn page(&self, mut from: Key, to: Option<&Key>, rows: &[Row]) -> Result<(), Stop> {
        loop {
            let mine = &rows[rows.partition_point(|(key, _)| *key < from)..];
            let ask = Ask::Page { from: from.clone(), to: to.cloned(), digest: rows::digest_of(mine) };
            let (until, theirs) = match self.ask(ask).await? {
                Reply::Done => return Ok(()),
                Reply::Rows { until, rows } => (until, rows),
                _ => return Err(Stop::Failed),
            };
            let is_told = |key: &Key| until.as_ref().is_none_or(|until| key < until);
            let mine: BTreeMap<&Key, &Row> =
                mine.iter().filter(|row| is_told(&row.0)).map(|row| (&row.0, row)).collect();
            let drops = theirs.iter().map(|(key, _)| key).filter(|key| !mine.contains_key(key)).cloned().collect();
            let theirs: BTreeMap<Key, Digest> = theirs.into_iter().collect();
            let differs = |row: &&&Row| theirs.get(&row.0) != Some(&rows::digest_of_row(row));
            let puts = mine.values().filter(differs).map(|row| (*row).clone()).collect();
            self.send_rows(drops, puts).await?;
            match until {
                Some(until) => from = until,
                None => return Ok(()),
            }
        }
    }

    async fn send_rows(&self, drops: Vec<Key>, puts: Vec<Row>) -> Result<(), Stop> {
        if drops.is_empty() && puts.is_empty() {
            return Ok(());
        }
        self.site.count(|counters| counters.rows += (drops.len() + puts.len()) as u64);
        match self.ask(Ask::Rows { drops, puts }).await? {
            Reply::Done => Ok(()),
            _ => Err(Stop::Failed),
        }
    }

    /// The rows that changed since they were compared. No change is under way.
    async fn rest(&self) -> Result<(), Stop> {
        let touched = self.course(|course| std::mem::take(&mut course.touched))?;
        self.site.caught_up_now().await;
        let (mut drops, mut puts, mut bytes) = (Vec::new(), Vec::new(), 0);
        for key in touched {
            match rows::value_of(&self.site.engine, &key).await? {
                Some(value) => {
                    bytes += value.len();
                    puts.push((key, value));
                }
                None => drops.push(key),
            }
            if drops.len() + puts.len() >= ROWS_MAX || bytes >= ROWS_BYTES_MAX {
                self.send_rows(std::mem::take(&mut drops), std::mem::take(&mut puts)).await?;
                bytes = 0;
            }
        }
        self.send_rows(drops, puts).await
    }

    // -- files

    async fn files(&self, terms: Terms) -> Result<(), Stop> {
        let until = self.site.engine.next_file_id();
        // Whoever takes over must not give out an id again that a client may know.
        self.ask(Ask::Ids { through: until }).await?;
        let catches = Catches { until, done: FileId(0), late: BTreeSet::new() };
        self.course(|course| course.catches = Some(catches))?;
        self.site.tell(Input::Resync(self.number, Progress::Files { until }));
        let mut from = FileId(0);
        'all: loop {
            let listed = self.site.engine.files(from, FILES_LISTED).await?;
            let Some(last) = listed.last() else { break };
            from = FileId(last.file.0 + 1);
            for one in listed {
                if one.file > until {
                    break 'all;
                }
                self.visit(one, terms, false).await?;
                self.done(one.file)?;
            }
        }
        self.site.tell(Input::Resync(self.number, Progress::Reached(until)));
        self.done(until)?;
        self.visit_late(terms).await
    }

    async fn visit_late(&self, terms: Terms) -> Result<(), Stop> {
        while let Some(file) = self.late()? {
            if let Some(listed) = self.listed(file).await? {
                self.visit(listed, terms, true).await?;
            }
            self.course(|course| course.catches.as_mut().map(|catches| catches.late.remove(&file)))?;
        }
        Ok(())
    }

    fn done(&self, file: FileId) -> Result<(), Stop> {
        self.course(|course| {
            if let Some(catches) = &mut course.catches {
                catches.done = catches.done.max(file);
            }
        })
    }

    fn late(&self) -> Result<Option<FileId>, Stop> {
        self.course(|course| course.catches.as_ref().and_then(|catches| catches.late.first().copied()))
    }

    async fn listed(&self, file: FileId) -> Result<Option<Listed>, Stop> {
        let found = self.site.engine.files(file, 1).await?;
        Ok(found.first().copied().filter(|listed| listed.file == file))
    }

    /// Compares a file, if it may differ.
    async fn visit(&self, listed: Listed, terms: Terms, late: bool) -> Result<(), Stop> {
        let Listed { file, frozen, .. } = listed;
        let hold = self.hold(Want::whole(file, Use::Writes)).await?;
        if !frozen {
            // What was begun before has ended, and what begins from here on goes to both.
            self.site.tell(Input::Resync(self.number, Progress::Reached(file)));
        }
        self.site.caught_up_now().await;
        let visit = Visit { file, frozen };
        if !late && !self.may_differ(&visit, terms).await? {
            self.release(hold);
            return Ok(());
        }
        let Some(extents) = self.open(&visit, terms).await? else {
            self.release(hold);
            return Ok(());
        };
        self.site.count(|counters| counters.files += 1);
        if !frozen {
            self.release(hold);
        }
        let pieces = stream::iter(pieces_of(&extents).map(Ok::<_, Stop>));
        pieces.map_ok(|piece| self.piece(&visit, piece)).try_buffered(PIECES).try_collect::<Vec<()>>().await?;
        let hold = if frozen { hold } else { self.hold(Want::whole(file, Use::Writes)).await? };
        self.close(&visit).await?;
        self.release(hold);
        Ok(())
    }

    async fn may_differ(&self, visit: &Visit, terms: Terms) -> Result<bool, Stop> {
        let engine = &self.site.engine;
        if !terms.is_whole || terms.wrote_alone {
            return Ok(true);
        }
        if visit.frozen {
            return Ok(visit.file > terms.snapshot_through);
        }
        let base = base_of(visit.file);
        let (Some(then), Some(now)) = (engine.head(base).await?, engine.head(visit.file).await?) else {
            return Ok(true);
        };
        let looks_same = form_of(&then) == form_of(&now) && engine.goes_on_from(visit.file, base).await?;
        Ok(!looks_same || !engine.differences(base, visit.file).await?.is_empty())
    }

    /// Where the file may differ; none if it is gone. It is held.
    async fn open(&self, visit: &Visit, terms: Terms) -> Result<Option<Vec<Extent>>, Stop> {
        let engine = &self.site.engine;
        let Some(head) = engine.head(visit.file).await? else { return Ok(None) };
        let origin = self.origin(visit).await?;
        let base = base_of(visit.file);
        // A resync that was cut off may have told the other site what was rolled back here since.
        let is_whole = terms.is_whole
            && (visit.frozen || engine.head(base).await?.is_some() && engine.goes_on_from(visit.file, base).await?);
        let open = |origin| Ask::Open {
            file: visit.file,
            frozen: visit.frozen,
            origin,
            whole: is_whole,
            size_bytes: head.size_bytes,
        };
        let (origin, reply) = match self.ask(open(origin)).await? {
            Reply::Gone if origin.is_some() => (None, self.ask(open(None)).await?),
            reply => (origin, reply),
        };
        let theirs = match reply {
            Reply::Extents(extents) => extents,
            Reply::Gone => return Err(Stop::Failed),
            _ => return Err(Stop::Failed),
        };
        // What the other site had when it was asked was begun here before.
        self.site.caught_up_now().await;
        let mine = match origin {
            Some(origin) => engine.differences(origin, visit.file).await?,
            None if !visit.frozen && is_whole => engine.differences(base, visit.file).await?,
            None => engine.written(visit.file).await?,
        };
        Ok(Some(joined(mine.into_iter().chain(theirs).collect(), head.size_bytes)))
    }

    /// The file that a snapshot was taken of, where both sites hold the same in it.
    async fn origin(&self, visit: &Visit) -> Result<Option<FileId>, Stop> {
        let known = self.site.origins.borrow().get(&visit.file).copied();
        let Some(origin) = known.filter(|_| visit.frozen) else { return Ok(None) };
        let is_equal = self.course(|course| course.catches.as_ref().is_some_and(|all| all.is_equal(origin)))?;
        let is_there = self.listed(origin).await?.is_some_and(|listed| !listed.frozen);
        Ok(Some(origin).filter(|_| is_equal && is_there))
    }

    /// Compares some blocks and sends those that differ; nobody writes to them meanwhile.
    async fn piece(&self, visit: &Visit, piece: Vec<u64>) -> Result<(), Stop> {
        let (Some(first), Some(last)) = (piece.first(), piece.last()) else { return Ok(()) };
        let (from, to) = (first * BLOCK_BYTES, (last + 1) * BLOCK_BYTES);
        let want = Want { file: visit.file, from, to, usage: Use::Reads };
        let hold = if visit.frozen { None } else { Some(self.hold(want).await?) };
        if let Some(blocks) = self.read(visit.file, &piece).await? {
            self.send_blocks(visit.file, &blocks).await?;
        }
        hold.into_iter().for_each(|hold| self.release(hold));
        Ok(())
    }

    /// The blocks as far as the file reaches; none if it is gone.
    async fn read(&self, file: FileId, piece: &[u64]) -> Result<Option<Vec<(u64, Vec<u8>)>>, Stop> {
        let mut blocks = Vec::with_capacity(piece.len());
        for run in piece.chunk_by(|one, next| one + 1 == *next) {
            let len = run.len() * BLOCK_BYTES as usize;
            let bytes = match self.site.engine.read(file, run[0] * BLOCK_BYTES, len).await {
                Ok(read) => flat(&read),
                Err(StoreRefusal::NoSuchFile) => return Ok(None),
                Err(refusal) => return Err(refusal.into()),
            };
            let mut parts = bytes.chunks(BLOCK_BYTES as usize);
            blocks.extend(run.iter().map(|block| (*block, parts.next().unwrap_or_default().to_vec())));
        }
        Ok(Some(blocks))
    }

    async fn send_blocks(&self, file: FileId, blocks: &[(u64, Vec<u8>)]) -> Result<(), Stop> {
        let named = blocks.iter().map(|(block, bytes)| (*block, digest_of_block(bytes))).collect();
        self.site.count(|counters| counters.compared_bytes += blocks.len() as u64 * BLOCK_BYTES);
        let places = match self.ask(Ask::Compare { file, blocks: named }).await? {
            Reply::Differ(places) => places,
            Reply::Gone => return Ok(()),
            _ => return Err(Stop::Failed),
        };
        let differ = places.iter().filter_map(|place| blocks.get(usize::from(*place)));
        let runs = runs_of(differ);
        if runs.is_empty() {
            return Ok(());
        }
        let bytes: usize =
            runs.iter().map(|run| if let Run::Bytes { bytes, .. } = run { bytes.len() } else { 0 }).sum();
        self.site.count(|counters| counters.data_bytes += bytes as u64);
        let at = self.site.engine.head(file).await?.unwrap_or_default().modified;
        match self.ask(Ask::Data { file, at, runs }).await? {
            Reply::Done | Reply::Gone => Ok(()),
            _ => Err(Stop::Failed),
        }
    }

    async fn close(&self, visit: &Visit) -> Result<(), Stop> {
        self.site.caught_up_now().await;
        let Some(head) = self.site.engine.head(visit.file).await? else { return Ok(()) };
        let close = Ask::Close { file: visit.file, frozen: visit.frozen, form: form_of(&head) };
        match self.ask(close).await? {
            Reply::Done => Ok(()),
            _ => Err(Stop::Failed),
        }
    }
}

/// A block is compared as it reads, zeros behind the end.
pub(super) fn digest_of_block(bytes: &[u8]) -> Digest {
    if bytes.len() == BLOCK_BYTES as usize {
        return digest(bytes);
    }
    let mut whole = bytes.to_vec();
    whole.resize(BLOCK_BYTES as usize, 0);
    digest(&whole)
}

fn runs_of<'a>(blocks: impl Iterator<Item = &'a (u64, Vec<u8>)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (block, content) in blocks.filter(|(_, content)| !content.is_empty()) {
        let at = block * BLOCK_BYTES;
        let is_zero = content.iter().all(|byte| *byte == 0);
        match runs.last_mut() {
            Some(Run::Bytes { offset_bytes, bytes }) if !is_zero && *offset_bytes + bytes.len() as u64 == at => {
                bytes.extend_from_slice(content);
            }
            Some(Run::Zeros { offset_bytes, length_bytes }) if is_zero && *offset_bytes + *length_bytes == at => {
                *length_bytes += content.len() as u64;
            }
            _ if is_zero => runs.push(Run::Zeros { offset_bytes: at, length_bytes: content.len() as u64 }),
            _ => runs.push(Run::Bytes { offset_bytes: at, bytes: content.clone() }),
        }
    }
    runs
}

/// In order and without overlap, up to the end of the file.
fn joined(mut extents: Vec<Extent>, size_bytes: u64) -> Vec<Extent> {
    extents.sort_unstable();
    let mut joined: Vec<Extent> = Vec::new();
    for extent in extents {
        let end = (extent.offset_bytes + extent.len_bytes).min(size_bytes.next_multiple_of(BLOCK_BYTES));
        if extent.offset_bytes >= end {
            continue;
        }
        match joined.last_mut() {
            Some(last) if extent.offset_bytes <= last.offset_bytes + last.len_bytes => {
                last.len_bytes = last.len_bytes.max(end - last.offset_bytes);
            }
            _ => joined.push(Extent { offset_bytes: extent.offset_bytes, len_bytes: end - extent.offset_bytes }),
        }
    }
    joined
}

/// Numbers of blocks, so many at a time.
fn pieces_of(extents: &[Extent]) -> impl Iterator<Item = Vec<u64>> {
    let mut ranges: Vec<(u64, u64)> = extents
        .iter()
        .map(|one| (one.offset_bytes / BLOCK_BYTES, (one.offset_bytes + one.len_bytes).div_ceil(BLOCK_BYTES)))
        .rev()
        .collect();
    std::iter::from_fn(move || {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BLOCKS
            && let Some((from, to)) = ranges.pop()
        {
            let end = to.min(from + (PIECE_BLOCKS - piece.len()) as u64);
            piece.extend(from..end);
            if end < to {
                ranges.push((end, to));
            }
        }
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset_bytes: u64, len_bytes: u64) -> Extent {
        Extent { offset_bytes, len_bytes }
    }

    #[test]
    fn ranges_of_both_are_joined_and_cut_into_pieces() {
        let block = BLOCK_BYTES;
        let all = joined(
            vec![extent(2 * block, block), extent(0, block), extent(block, block), extent(9 * block, 99 * block)],
            11 * block - 5,
        );
        assert_eq!(all, [extent(0, 3 * block), extent(9 * block, 2 * block)]);
        assert_eq!(pieces_of(&all).collect::<Vec<_>>(), [vec![0, 1, 2, 9, 10]]);
        let long = [extent(0, 70 * block)];
        assert_eq!(pieces_of(&long).map(|piece| piece.len()).collect::<Vec<_>>(), [16, 16, 16, 16, 6]);
    }

    #[test]
    fn zeros_are_told_and_not_sent() {
        let blocks = [(1, vec![0; 8192]), (2, vec![0; 8192]), (3, vec![7; 8192]), (4, vec![8; 100]), (9, Vec::new())];
        let bytes = [vec![7; 8192], vec![8; 100]].concat();
        let expected =
            [Run::Zeros { offset_bytes: 8192, length_bytes: 16_384 }, Run::Bytes { offset_bytes: 3 * 8192, bytes }];
        assert_eq!(runs_of(blocks.iter()), expected);
    }
}

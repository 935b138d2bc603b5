//! The secondary's end: answers what the primary's resync asks, in order, one at a time.
//!
//! An answer says that what was asked for is done and stable. The primary holds what it asks about, so
//! nothing else that comes over the link is about the same.

use std::rc::Rc;

use base::{Buf, FileId, Osn, WallNanos};
use engine::store::{BLOCK_BYTES, Change as Put, Extent, StoreRefusal, Table};
use engine::{Label, Listed, Store};
use mirror::{Form, Input};

use super::ask::{Ask, Digest, Key, Reply, Row, Run};
use super::primary::digest_of_block;
use super::rows::{self, Page};
use super::{base_of, scratch_of};
use crate::appender::snapshots_of_all;
use crate::check;
use crate::replica::{Inner, flat};

/// Rows of one answer.
const ROWS_MAX: usize = 1024;
/// Ranges of one answer; more are told wider than they are.
const EXTENTS_MAX: usize = 32_768;
/// Zeros that are written at a time.
static ZEROS: [u8; 1 << 18] = [0; 1 << 18];

/// A snapshot that is being made, and the file that it is made out of.
#[derive(Clone, Copy)]
struct Making {
    snapshot: FileId,
    scratch: FileId,
}

/// A question and how it is named.
pub(crate) struct Asked {
    pub link: u64,
    pub osn: Osn,
    pub body: Buf,
}

/// Answers for as long as the site lives.
pub(crate) async fn answer_all(site: Rc<Inner>) {
    let mut making = None;
    loop {
        let next = site.asked.borrow_mut().pop_front();
        let Some(asked) = next else {
            site.asks.notified().await;
            continue;
        };
        site.caught_up_now().await;
        // Of a link that is gone nothing more is done, nor by a site that has become primary.
        if !site.follows(asked.link) {
            continue;
        }
        if check::is_check(&asked.body) {
            match check::answer(&site, &asked).await {
                Ok(body) => site.tell(Input::Reply(asked.link, asked.osn, body.into())),
                Err(StoreRefusal::Stopped) => return site.stop(),
                // It cannot be looked at: the check ends.
                Err(_) => site.tell(Input::Reply(asked.link, asked.osn, Buf::new())),
            }
            continue;
        }
        // Whoever takes the snapshot of going alone waits for this one, and this one for no record.
        site.answers.set(true);
        let reply = match Ask::decode(&asked.body) {
            Some(ask) => answer(&site, asked.osn, ask, &mut making).await,
            None => Ok(Reply::Refused),
        };
        site.answers.set(false);
        site.settled.notify_waiters();
        let reply = match reply {
            Ok(reply) => reply,
            Err(StoreRefusal::NoSuchFile | StoreRefusal::Frozen) => Reply::Gone,
            Err(StoreRefusal::Stopped) => return site.stop(),
            Err(_) => Reply::Refused,
        };
        site.tell(Input::Reply(asked.link, asked.osn, reply.encode().into()));
    }
}

async fn answer(site: &Inner, osn: Osn, ask: Ask, making: &mut Option<Making>) -> Result<Reply, StoreRefusal> {
    match ask {
        Ask::Begin { pair } if pair == site.config.pair => begin(site).await,
        Ask::Begin { .. } => Ok(Reply::Foreign),
        Ask::Page { from, to, digest } => page(site, &from, to.as_ref(), digest).await,
        Ask::Rows { drops, puts } => put_rows(site, osn, &drops, puts).await,
        Ask::Ids { through } => {
            site.commit(vec![Put::Ids { through }]).await?;
            Ok(Reply::Done)
        }
        Ask::Open { file, frozen: true, origin, size_bytes, .. } => {
            let scratch = scratch_of(osn, 0);
            let extents = open_snapshot(site, (file, size_bytes), origin, [scratch, scratch_of(osn, 1)]).await?;
            *making = Some(Making { snapshot: file, scratch });
            Ok(Reply::Extents(extents))
        }
        Ask::Open { file, whole, size_bytes, .. } => open(site, file, whole, size_bytes).await,
        Ask::Compare { file, blocks } => compare(site, target(*making, file), &blocks).await,
        Ask::Data { file, at, runs } => write(site, target(*making, file), at, runs).await,
        Ask::Close { file, frozen, form } => close(site, file, making.take_if(|_| frozen), form).await,
    }
}

fn target(making: Option<Making>, file: FileId) -> FileId {
    making.filter(|making| making.snapshot == file).map_or(file, |making| making.scratch)
}

/// A site that holds something that is not of the pair is not written over.
async fn begin(site: &Inner) -> Result<Reply, StoreRefusal> {
    let known = site.shelf.borrow().pair();
    if known != Some(site.config.pair) {
        if known.is_some() || !rows::is_blank(&site.engine).await? {
            return Ok(Reply::Foreign);
        }
        let joins = site.shelf.borrow_mut().join(site.config.pair);
        site.commit(vec![joins]).await?;
    }
    let is_told = site.shelf.borrow().is_told();
    if !is_told && !site.wrote_alone() {
        // What this one is told and the primary takes back after a cut is found by what this site had.
        for changes in snapshots_of_all(site).await? {
            site.commit(changes).await?;
        }
        let begins = site.shelf.borrow_mut().begin_to_be_told();
        site.commit(begins.into_iter().collect()).await?;
    }
    let shelf = site.shelf.borrow();
    Ok(Reply::Begun {
        whole_with: shelf.whole_with(),
        wrote_alone: is_told || shelf.kept().snapshot.is_some(),
        ids_through: site.engine.last_file_id(),
    })
}

async fn page(site: &Inner, from: &[u8], to: Option<&Key>, digest: Digest) -> Result<Reply, StoreRefusal> {
    let mut all: Vec<Row> = Vec::new();
    let mut next = Some(from.to_vec());
    while let Some(from) = next.take_if(|_| all.len() < ROWS_MAX) {
        let Page { rows, next: behind } = rows::page(&site.engine, &from, to).await?;
        all.extend(rows);
        next = behind;
    }
    if next.is_none() && rows::digest_of(&all) == digest {
        return Ok(Reply::Done);
    }
    let rows = all.iter().map(|row| (row.0.clone(), rows::digest_of_row(row))).collect();
    Ok(Reply::Rows { until: next, rows })
}

async fn put_rows(site: &Inner, osn: Osn, drops: &[Key], puts: Vec<Row>) -> Result<Reply, StoreRefusal> {
    let (mut drops, mut changes): (Vec<Put>, Vec<Put>) =
        (drops.iter().filter_map(|key| drop_of(key)).collect(), vec![]);
    let (mut is_reused, known) = (false, site.engine.last_file_id());
    for (number, (key, value)) in puts.into_iter().enumerate() {
        if let Some(file) = rows::file_of(&key) {
            let frozen = value == [1];
            match listed(site, file).await? {
                Some(there) if there.frozen == frozen => continue,
                Some(_) => drops.push(Put::DropFile { file }),
                None => {}
            }
            let may_be_known = site.wrote_alone() || file <= known;
            is_reused |= may_be_known;
            let scratch = [0, 1, 2].map(|part| scratch_of(osn, number as u16 * 4 + part));
            changes.extend(make(site, (file, frozen), may_be_known, scratch).await?);
        } else if let Some((table, key)) = rows::table_and_key(&key) {
            changes.push(Put::Put { table, key: key.to_vec(), value });
        }
    }
    site.commit(drops).await?;
    if is_reused {
        // This site may have dropped files of these ids itself, or lost them: nothing of them may be left.
        site.engine.settle().await?;
    }
    site.commit(changes).await?;
    Ok(Reply::Done)
}

fn drop_of(key: &[u8]) -> Option<Put> {
    if let Some(file) = rows::file_of(key) {
        return Some(Put::DropFile { file });
    }
    rows::table_and_key(key).map(|(table, key): (Table, &[u8])| Put::Delete { table, key: key.to_vec() })
}

async fn listed(site: &Inner, file: FileId) -> Result<Option<Listed>, StoreRefusal> {
    let found = site.engine.files(file, 1).await?;
    Ok(found.first().copied().filter(|listed| listed.file == file))
}

/// A file that is to be filled; a snapshot is made anew when it is.
async fn make(
    site: &Inner,
    (file, frozen): (FileId, bool),
    may_be_known: bool,
    [scratch, beside @ ..]: [FileId; 3],
) -> Result<Vec<Put>, StoreRefusal> {
    let at = WallNanos(0);
    if frozen {
        let made = Put::Snapshot { file: scratch, snapshot: file };
        return Ok(vec![Put::CreateFile { file: scratch, at }, made, Put::DropFile { file: scratch }]);
    }
    if !may_be_known {
        return Ok(vec![Put::CreateFile { file, at }]);
    }
    // This site may have given the id to something else, such as the blocks of a file that was rolled back, or
    // snapshots may show blocks of its name: it
    // gets blocks of another name. If it had the file when it became alone they start with those of then.
    let base = base_of(file);
    if site.engine.head(base).await?.is_some() {
        return Ok(vec![Put::CreateFile { file, at }, Put::Rollback { file, snapshot: base, map: scratch, at }]);
    }
    let [empty, snapshot] = beside;
    Ok(vec![
        Put::CreateFile { file: empty, at },
        Put::Snapshot { file: empty, snapshot },
        Put::CreateFile { file, at },
        Put::Rollback { file, snapshot, map: scratch, at },
        Put::DropFile { file: snapshot },
        Put::DropFile { file: empty },
    ])
}

async fn open(site: &Inner, file: FileId, whole: bool, size_bytes: u64) -> Result<Reply, StoreRefusal> {
    let Some(there) = listed(site, file).await?.filter(|there| !there.frozen) else { return Ok(Reply::Gone) };
    let engine = &site.engine;
    let extents = match whole {
        true if engine.head(base_of(file)).await?.is_some() => engine.differences(base_of(file), file).await?,
        _ => engine.written(file).await?,
    };
    if there.head.size_bytes > size_bytes {
        // What the primary's file has there when it grows again are zeros.
        site.commit(vec![Put::SetSize { file, size_bytes }]).await?;
    }
    Ok(Reply::Extents(fewer(extents)))
}

/// A file to make a snapshot out of: what its origin holds, or the snapshot as it is.
async fn open_snapshot(
    site: &Inner,
    (snapshot, size_bytes): (FileId, u64),
    origin: Option<FileId>,
    [scratch, beside]: [FileId; 2],
) -> Result<Vec<Extent>, StoreRefusal> {
    let at = WallNanos(0);
    let from = origin.map_or(snapshot, |_| beside);
    let mut changes = vec![Put::Clone { snapshot: from, file: scratch, at }];
    let expected = (origin.unwrap_or(snapshot), origin.is_none());
    if listed(site, expected.0).await?.is_none_or(|there| there.frozen != expected.1) {
        return Err(StoreRefusal::NoSuchFile);
    }
    if let Some(file) = origin {
        changes.insert(0, Put::Snapshot { file, snapshot: beside });
        changes.push(Put::DropFile { file: beside });
    }
    site.commit(changes).await?;
    if site.engine.head(scratch).await?.is_some_and(|head| head.size_bytes > size_bytes) {
        site.commit(vec![Put::SetSize { file: scratch, size_bytes }]).await?;
    }
    if origin.is_some() {
        return Ok(Vec::new());
    }
    Ok(fewer(site.engine.written(scratch).await?))
}

async fn compare(site: &Inner, file: FileId, blocks: &[(u64, Digest)]) -> Result<Reply, StoreRefusal> {
    let mut differ = Vec::new();
    let mut place = 0;
    for run in blocks.chunk_by(|one, next| one.0 + 1 == next.0) {
        let (Some((first, _)), len) = (run.first(), run.len() * BLOCK_BYTES as usize) else { continue };
        let Some(from) = first.checked_mul(BLOCK_BYTES) else { return Ok(Reply::Refused) };
        let bytes = flat(&site.engine.read(file, from, len).await?);
        let mut parts = bytes.chunks(BLOCK_BYTES as usize);
        for (_, theirs) in run {
            if digest_of_block(parts.next().unwrap_or_default()) != *theirs {
                differ.push(place);
            }
            place += 1;
        }
    }
    Ok(Reply::Differ(differ))
}

async fn write(site: &Inner, file: FileId, at: WallNanos, runs: Vec<Run>) -> Result<Reply, StoreRefusal> {
    for run in runs {
        match run {
            Run::Bytes { offset_bytes, bytes } => site.put(file, offset_bytes, &bytes.into(), at).await?,
            Run::Zeros { mut offset_bytes, mut length_bytes } => {
                while length_bytes > 0 {
                    let count = length_bytes.min(ZEROS.len() as u64);
                    site.put(file, offset_bytes, &Buf::from_static(&ZEROS[..count as usize]), at).await?;
                    (offset_bytes, length_bytes) = (offset_bytes + count, length_bytes - count);
                }
            }
        }
    }
    Ok(Reply::Done)
}

async fn close(site: &Inner, file: FileId, making: Option<Making>, form: Form) -> Result<Reply, StoreRefusal> {
    let is_making = making.is_some_and(|making| making.snapshot == file);
    let target = target(making, file);
    let Some(head) = site.engine.head(target).await? else { return Ok(Reply::Gone) };
    let mut changes = Vec::new();
    if head.size_bytes != form.size_bytes {
        changes.push(Put::SetSize { file: target, size_bytes: form.size_bytes });
    }
    changes.push(Put::SetTimes { file: target, modified: Some(form.modified), changed: form.changed });
    if is_making {
        changes.push(Put::DropFile { file });
        changes.push(Put::Snapshot { file: target, snapshot: file });
        changes.push(Put::DropFile { file: target });
    }
    site.commit(changes).await?;
    Ok(Reply::Done)
}

/// So few that they can be told: neighbours become one with what is between them.
fn fewer(mut extents: Vec<Extent>) -> Vec<Extent> {
    while extents.len() > EXTENTS_MAX {
        let join = |pair: &[Extent]| match pair {
            [one, other] => {
                let len_bytes = other.offset_bytes + other.len_bytes - one.offset_bytes;
                Extent { offset_bytes: one.offset_bytes, len_bytes }
            }
            _ => pair[0],
        };
        extents = extents.chunks(2).map(join).collect();
    }
    extents
}

impl Inner {
    /// Whether this site follows the other one over this link.
    fn follows(&self, link: u64) -> bool {
        let is_current = self.mirror_link() == Some(link);
        is_current && !self.is_primary()
    }

    fn wrote_alone(&self) -> bool {
        self.shelf.borrow().kept().snapshot.is_some()
    }

    fn beside(&self) -> Label {
        Label { stream: self.stream, osn: None, placed: Box::new(|| {}) }
    }

    pub(crate) async fn commit(&self, changes: Vec<Put>) -> Result<(), StoreRefusal> {
        if changes.is_empty() {
            return Ok(());
        }
        self.engine.commit_labelled(changes, self.beside()).await.map(drop)
    }

    async fn put(&self, file: FileId, offset_bytes: u64, bytes: &Buf, at: WallNanos) -> Result<(), StoreRefusal> {
        self.engine.write_labelled(file, offset_bytes, bytes, (at, self.beside())).await.map(drop)
    }
}

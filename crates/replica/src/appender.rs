//! Records of the mirror into the engine's journal, in order.
//!
//! A record may be several of the engine's: the rows of the in-flight map first, then the data.
//! Each has its place in the journal before the next is given to the engine; then all wait side by
//! side, so that many share a batch. The mirror is told how far everything is stable *and* applied,
//! in its own order.

use std::collections::BTreeMap;
use std::rc::Rc;

use base::{Buf, FileId, Osn, WallNanos};
use engine::store::{Change as Put, LOCAL_FILES, StoreRefusal};
use engine::{Label, Store, decode_changes};
use mirror::{Form, Input, Record, Span};
use tokio::sync::oneshot;

use crate::check::STAND_INS;
use crate::check::marker::{self, Keep, Point, drop_stand_ins, preserve};
use crate::replica::Inner;
use crate::resync::base_of;

/// Files that are dropped, or have a snapshot taken, in one record.
const FILES_AT_A_TIME: usize = 64;

/// Records that are under way: how many of the engine's are left of each.
#[derive(Default)]
pub(crate) struct Pending(BTreeMap<u64, usize>);

impl Pending {
    fn begin(&mut self, ticket: u64, parts: usize) {
        self.0.insert(ticket, parts);
    }

    /// One part is done; how far everything is, if that has changed.
    fn done(&mut self, ticket: u64) -> Option<u64> {
        if let Some(parts) = self.0.get_mut(&ticket) {
            *parts = parts.saturating_sub(1);
        }
        let mut through = None;
        while let Some(first) = self.0.first_entry().filter(|first| *first.get() == 0) {
            through = Some(first.remove_entry().0);
        }
        through
    }
}

/// What is done in one order.
pub(crate) enum Work {
    Record(u64, Record),
    /// A check's point.
    Point(Point),
    /// Files as they were at the point are kept.
    Keep(Keep),
}

/// One record of the engine.
enum Part {
    Rows(Option<Osn>, Vec<Put>),
    Data { osn: Osn, file: FileId, offset_bytes: u64, payload: Buf, at: WallNanos, answers: bool },
}

/// Appends for as long as it can.
pub(crate) async fn append_all(site: Rc<Inner>) {
    loop {
        let next = site.queue.borrow_mut().pop_front();
        let done = match next {
            Some(Work::Record(ticket, record)) => append(&site, ticket, record).await,
            Some(Work::Point(point)) => {
                marker::begin(&site, point).await;
                Ok(())
            }
            Some(Work::Keep(wanted)) => marker::keep(&site, wanted).await,
            None => tidy(&site).await,
        };
        if done.is_err() {
            return site.stop();
        }
    }
}

/// Nothing is to be appended: what nobody needs any more goes.
async fn tidy(site: &Rc<Inner>) -> Result<(), StoreRefusal> {
    if !drop_some_local(site).await? && !drop_stand_ins(site).await? {
        site.queued.notified().await;
    }
    Ok(())
}

async fn append(site: &Rc<Inner>, ticket: u64, record: Record) -> Result<(), StoreRefusal> {
    let before = preserve(site, ticket, &record).await?;
    let mut parts = parts_of(site, ticket, record).await?;
    if !before.is_empty() {
        let mut kept_first = Vec::new();
        push_rows(&mut kept_first, None, before);
        parts.splice(..0, kept_first);
    }
    site.pending.borrow_mut().begin(ticket, parts.len().max(1));
    if parts.is_empty() {
        done(site, ticket);
    }
    for part in parts {
        place(site, ticket, part).await.map_err(|_| StoreRefusal::Stopped)?;
    }
    Ok(())
}

/// Gives one part to the engine; returns when it has its place.
async fn place(site: &Rc<Inner>, ticket: u64, part: Part) -> Result<(), oneshot::error::RecvError> {
    let (tell, placed) = oneshot::channel();
    let placed_now = move || {
        // Nobody listens when the site has stopped.
        let _ = tell.send(());
    };
    let label = |osn| Label { stream: site.stream, osn, placed: Box::new(placed_now) };
    let owner = site.clone();
    let work: base::port::LocalFuture<'static, ()> = match part {
        Part::Rows(osn, rows) => {
            let label = label(osn);
            Box::pin(async move {
                let committed = owner.engine.commit_labelled(rows, label).await;
                finish(&owner, ticket, committed.map(drop));
            })
        }
        Part::Data { osn, file, offset_bytes, payload, at, answers } => {
            let label = label(Some(osn));
            Box::pin(async move {
                let wrote = owner.engine.write_labelled(file, offset_bytes, &payload, (at, label)).await;
                if let (Ok(wrote), true) = (&wrote, answers) {
                    let local_at = owner.world.clock.now();
                    owner.heads.borrow_mut().insert(osn, ((wrote.before, wrote.after), local_at));
                }
                finish(&owner, ticket, wrote.map(drop));
            })
        }
    };
    site.world.spawn.spawn("append", work);
    placed.await
}

fn finish(site: &Rc<Inner>, ticket: u64, outcome: Result<(), StoreRefusal>) {
    match outcome {
        Ok(()) => done(site, ticket),
        Err(_) => site.stop(),
    }
}

fn done(site: &Rc<Inner>, ticket: u64) {
    let through = site.pending.borrow_mut().done(ticket);
    if let Some(through) = through {
        site.through.set(through);
        site.settled.notify_waiters();
        site.tell(Input::Stable(through));
    }
}

async fn parts_of(site: &Rc<Inner>, ticket: u64, record: Record) -> Result<Vec<Part>, StoreRefusal> {
    let mut rows = site.shelf.borrow_mut().take(&record);
    let mut parts = Vec::new();
    match record {
        Record::Write { osn, write, .. } => {
            if site.engine.head(write.file).await?.is_none() {
                // What makes it has its place and may not be applied.
                site.caught_up(ticket - 1).await;
            }
            let payload = write.payload;
            let data = (!payload.is_empty()).then(|| Part::Data {
                osn,
                file: write.file,
                offset_bytes: write.offset_bytes,
                payload,
                at: write.at,
                answers: site.has_clients(),
            });
            push_rows(&mut parts, None, rows);
            parts.extend(data);
        }
        Record::Restore { osn, span, form, payload } => {
            site.caught_up(ticket - 1).await;
            parts = restore(site, (osn, span, form), payload, rows).await?;
        }
        Record::Committed { osn, change, .. } => {
            let mut changes = decode_changes(&change.body).map_err(|_| StoreRefusal::Stopped)?;
            note(site, &changes);
            changes.append(&mut rows);
            push_rows(&mut parts, Some(osn), changes);
        }
        Record::Snapshot(_) => parts = snapshots(site, ticket, rows).await?,
        Record::Seat(memory) => {
            site.has_local.set(site.has_local.get() || memory.known.is_some_and(|known| known.in_sync));
            push_rows(&mut parts, None, rows);
        }
        _ => push_rows(&mut parts, None, rows),
    }
    Ok(parts)
}

/// What a resync must know of changes that are made.
fn note(site: &Rc<Inner>, changes: &[Put]) {
    if let Some(course) = site.course.borrow_mut().as_mut() {
        course.note(changes);
    }
    if site.shelf.borrow().kept().snapshot.is_none() {
        return;
    }
    for change in changes {
        if let Put::Snapshot { file, snapshot } = change {
            site.origins.borrow_mut().insert(*snapshot, *file);
        }
    }
}

/// The snapshot of all files at this point of the order, in as many records as it takes: nothing is between
/// them, and only the last says that it is there.
async fn snapshots(site: &Rc<Inner>, ticket: u64, rows: Vec<Put>) -> Result<Vec<Part>, StoreRefusal> {
    while site.answers.get() {
        site.settled.notified().await;
    }
    site.caught_up(ticket - 1).await;
    let taken = snapshots_of_all(site).await?;
    let mut parts: Vec<Part> = taken.into_iter().map(|changes| Part::Rows(None, changes)).collect();
    push_rows(&mut parts, None, rows);
    Ok(parts)
}

/// What takes a snapshot of every file as it is, in several records.
pub(crate) async fn snapshots_of_all(site: &Inner) -> Result<Vec<Vec<Put>>, StoreRefusal> {
    // What an earlier one left is of another moment.
    while drop_local(site).await? {}
    site.origins.borrow_mut().clear();
    let (mut from, mut all) = (FileId(0), Vec::new());
    loop {
        let listed = site.engine.files(from, FILES_AT_A_TIME).await?;
        let Some(last) = listed.last().map(|one| one.file).filter(|_| listed[0].file < LOCAL_FILES) else { break };
        from = FileId(last.0 + 1);
        let own = listed.into_iter().filter(|one| !one.frozen && one.file < LOCAL_FILES);
        let taken: Vec<Put> = own.map(|one| Put::Snapshot { file: one.file, snapshot: base_of(one.file) }).collect();
        all.extend(Some(taken).filter(|taken| !taken.is_empty()));
    }
    Ok(all)
}

/// While both are in sync no resync needs anything.
async fn drop_some_local(site: &Rc<Inner>) -> Result<bool, StoreRefusal> {
    let (in_sync, alone) = {
        let shelf = site.shelf.borrow();
        let kept = shelf.kept();
        (kept.memory.known.is_some_and(|known| known.in_sync), kept.snapshot.is_some())
    };
    if !in_sync || alone || !site.has_local.get() {
        return Ok(false);
    }
    site.origins.borrow_mut().clear();
    let more = drop_local(site).await?;
    site.has_local.set(more);
    Ok(more)
}

async fn drop_local(site: &Inner) -> Result<bool, StoreRefusal> {
    for from in [LOCAL_FILES, STAND_INS.end] {
        // What a check keeps is not a resync's.
        let mut local = site.engine.files(from, FILES_AT_A_TIME).await?;
        local.retain(|one| !STAND_INS.contains(&one.file));
        if !local.is_empty() {
            site.commit(local.iter().map(|one| Put::DropFile { file: one.file }).collect()).await?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn push_rows(parts: &mut Vec<Part>, osn: Option<Osn>, rows: Vec<Put>) {
    if !rows.is_empty() {
        parts.push(Part::Rows(osn, rows));
    }
}

/// The authority's content of a range. What is before in the journal is applied: it may be what
/// makes the file.
async fn restore(
    site: &Rc<Inner>,
    (osn, span, form): (Osn, Span, Form),
    payload: Buf,
    mut rows: Vec<Put>,
) -> Result<Vec<Part>, StoreRefusal> {
    let mut parts = Vec::new();
    let Some(head) = site.engine.head(span.file).await? else {
        // Gone at the authority, too: its removal was settled before.
        push_rows(&mut parts, None, rows);
        return Ok(parts);
    };
    if head.size_bytes != form.size_bytes {
        rows.push(Put::SetSize { file: span.file, size_bytes: form.size_bytes });
    }
    push_rows(&mut parts, Some(osn), rows);
    if !payload.is_empty() {
        let at = form.modified;
        let (file, offset_bytes) = (span.file, span.offset_bytes);
        parts.push(Part::Data { osn, file, offset_bytes, payload, at, answers: false });
    }
    let times = Put::SetTimes { file: span.file, modified: Some(form.modified), changed: form.changed };
    parts.push(Part::Rows(Some(osn), vec![times]));
    Ok(parts)
}

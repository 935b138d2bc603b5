//! Records of the mirror into the engine's journal, in order.
//!
//! A record may be several of the engine's: the rows of the in-flight map first, then the data.
//! Each has its place in the journal before the next is given to the engine; then all wait side by
//! side, so that many share a batch. The mirror is told how far everything is stable *and* applied,
//! in its own order.

use std::collections::BTreeMap;
use std::rc::Rc;

use base::{Buf, FileId, Osn, WallNanos};
use engine::store::{Change as Put, StoreRefusal};
use engine::{Label, Store, decode_changes};
use mirror::{Form, Input, Record, Span};
use tokio::sync::oneshot;

use crate::replica::Inner;

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

/// One record of the engine.
enum Part {
    Rows(Option<Osn>, Vec<Put>),
    Data { osn: Osn, file: FileId, offset_bytes: u64, payload: Buf, at: WallNanos, answers: bool },
}

/// Appends for as long as it can.
pub(crate) async fn append_all(site: Rc<Inner>) {
    loop {
        let next = site.queue.borrow_mut().pop_front();
        let Some((ticket, record)) = next else {
            site.queued.notified().await;
            continue;
        };
        let Ok(parts) = parts_of(&site, ticket, record).await else { return site.stop() };
        site.pending.borrow_mut().begin(ticket, parts.len().max(1));
        if parts.is_empty() {
            done(&site, ticket);
        }
        for part in parts {
            if place(&site, ticket, part).await.is_err() {
                return site.stop();
            }
        }
    }
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
                    owner.heads.borrow_mut().insert(osn, (wrote.before, wrote.after));
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
            changes.append(&mut rows);
            push_rows(&mut parts, Some(osn), changes);
        }
        _ => push_rows(&mut parts, None, rows),
    }
    Ok(parts)
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

//! The engine as others see it: [`Store`], status, and the background work.
//!
//! What a write costs on its way to the acknowledgement: a look at the file's head, one
//! append to the journal (the only copy of the payload; none of a large one whose legs are
//! memory), one wait; then, in the order of
//! the journal, staging (no copy) and waking the writer. No drive is written, no tree is
//! changed, no thread is crossed; allocations: two small map entries.

use std::pin::pin;
use std::rc::Rc;

use base::meter::{Meter, Part};
use base::port::World;
use base::{Buf, Epoch, FileId, Osn, WallNanos};
use futures_util::future::{Either, select};
use journal::{Blocked, Journal, JournalStatus, Kind, NewRecord, Record, Scope, Tag};
use raid::Group;
use tokio::sync::oneshot;

use crate::inner::{Inner, Outcome};
use crate::memory::{check_limits, check_write};
use crate::mover::Mover;
use crate::options::{Counters, Event, Options};
use crate::rebuild::rebuild_for_ever;
use crate::record::{decode_changes, decode_write, encode_changes};
use crate::scrub::scrub_for_ever;
use crate::staged::Stamp;
use crate::state::{BLOCK_OBJECT_BYTES, State, table_tree};
use crate::store::{BLOCK_BYTES, Change, Extent, FileHead, ReadOut, Row, Space, Store, StoreRefusal, Table, Wrote};

/// An open engine. Clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Rc<Inner>,
}

/// Space and work of an engine, in bytes unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Payload of all stripes that exist or could be opened.
    pub total_bytes: u64,
    /// Of it, kept back for cleaning and checkpoints.
    pub reserved_bytes: u64,
    /// Live objects, metadata included.
    pub live_bytes: u64,
    /// Acknowledged blocks that are only in the journal, at their worst size.
    pub staged_bytes: u64,
    /// Stripes free to be filled.
    pub stripes_free: u64,
    /// Stripes that the next checkpoint frees.
    pub stripes_emptied: u64,
    /// Metadata pages that the next checkpoint writes.
    pub pages_dirty: u64,
    /// Number of the last checkpoint.
    pub checkpoint: u64,
    /// Nothing is acknowledged any more.
    pub stopped: bool,
}

/// How whoever counts operations over more than this store names a record (`mirror`).
pub struct Label {
    /// The ordered stream, not 0.
    pub stream: u32,
    /// The operation; none for what is noted beside operations. Numbers of one file rise.
    pub osn: Option<Osn>,
    /// Called when the record has its place in the order of the journal: whoever must have another
    /// one behind it may go on. Not called if the change is refused.
    pub placed: Box<dyn FnOnce()>,
}

impl Engine {
    /// An engine that does nothing yet.
    pub(crate) fn assemble(
        group: Group,
        journal: Journal,
        world: World,
        options: Options,
        memory: (State, Mover),
    ) -> Engine {
        let inner = Rc::new(Inner::new(group, journal, world, options, memory));
        inner.look_at_space();
        Engine { inner }
    }

    /// Starts the background work.
    pub(crate) fn run(&self) {
        let spawn = &self.inner.world.spawn;
        spawn.spawn("apply", Box::pin(apply_stable(self.inner.clone())));
        spawn.spawn("engine", Box::pin(background(self.inner.clone())));
        spawn.spawn("journal root", Box::pin(keep_root(self.inner.clone())));
        spawn.spawn("scrub", Box::pin(scrub_for_ever(self.inner.clone())));
        spawn.spawn("rebuild", Box::pin(rebuild_for_ever(self.inner.clone())));
    }

    /// Destages everything that is stable and makes a checkpoint. Goes on to its end also
    /// when nobody waits for it any more.
    pub async fn checkpoint(&self) -> Result<(), StoreRefusal> {
        self.to_its_end("checkpoint", async |inner| {
            let mut mover = inner.mover.lock().await;
            inner.destage(&mut mover, usize::MAX).await?;
            inner.checkpoint(&mut mover).await
        })
        .await
    }

    /// Runs what moves data as a task of its own: blocks it has taken and the stripe it is
    /// filling must not be dropped half way.
    pub(crate) async fn to_its_end(
        &self,
        name: &'static str,
        work: impl AsyncFnOnce(Rc<Inner>) -> Result<(), StoreRefusal> + 'static,
    ) -> Result<(), StoreRefusal> {
        let (tell, done) = oneshot::channel();
        let inner = self.inner.clone();
        let task = async move {
            let _ = tell.send(work(inner).await);
        };
        self.inner.world.spawn.spawn(name, Box::pin(task));
        done.await.unwrap_or(Err(StoreRefusal::Stopped))
    }

    /// Like [`checkpoint`](Engine::checkpoint), after everything removed or cut off has
    /// been given back: counts and sums are exact then.
    pub async fn settle(&self) -> Result<(), StoreRefusal> {
        self.to_its_end("settle", async |inner| inner.settle().await).await
    }

    /// The journal's state.
    pub fn journal_status(&self) -> JournalStatus {
        self.inner.journal.status()
    }

    /// The last id that [`Store::next_file_id`] gave out, or that a change named.
    pub fn last_file_id(&self) -> FileId {
        FileId(self.inner.state.borrow().last_file)
    }

    /// Key of the content sums: an engine with the same key has the same sums of the same content.
    pub fn content_key(&self) -> [u8; 32] {
        self.inner.state.borrow().content_key
    }

    /// The RAID group below.
    pub fn group(&self) -> &Group {
        &self.inner.group
    }

    /// What happened since opening.
    pub fn counters(&self) -> Counters {
        *self.inner.counters.borrow()
    }

    /// Bytes of blocks in the cache, and its limit.
    pub fn cache(&self) -> (u64, u64) {
        let blocks = self.inner.blocks.borrow();
        (blocks.len() as u64 * BLOCK_BYTES, blocks.capacity() * BLOCK_BYTES)
    }

    /// Events since the last call.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.inner.events.borrow_mut())
    }

    /// Space and work.
    pub fn status(&self) -> EngineStatus {
        let inner = &self.inner;
        let state = inner.state.borrow();
        EngineStatus {
            total_bytes: inner.total_bytes.get(),
            reserved_bytes: inner.reserved_bytes(),
            live_bytes: state.stripes.live_bytes(),
            staged_bytes: state.staged.block_count() as u64 * BLOCK_OBJECT_BYTES,
            stripes_free: state.stripes.free_count() as u64 + inner.group.space().stripes_free,
            stripes_emptied: state.stripes.emptied_count() as u64,
            pages_dirty: state.pages.dirty_count() as u64,
            checkpoint: inner.counters.borrow().checkpoints,
            stopped: inner.is_stopped(),
        }
    }

    /// Appends a record and waits until it is stable and applied.
    async fn append(
        &self,
        (kind, scope): (Kind, Scope),
        (body, payload): (&[&[u8]], &Buf),
        label: Option<Label>,
    ) -> Result<(Osn, FileHead, FileHead), StoreRefusal> {
        let inner = &self.inner;
        let (tag, placed) = self.tag(kind, scope, label);
        let osn = tag.osn;
        // Whoever makes room in the journal may stop meanwhile.
        let halted = pin!(inner.halted.notified());
        inner.refuse_if_stopped()?;
        let append = pin!(inner.journal.append_with(NewRecord { tag, body }, payload));
        let Either::Left((appended, _)) = select(append, halted).await else { return Err(StoreRefusal::Stopped) };
        let appended = appended.map_err(|refusal| match refusal {
            journal::Refusal::TooLong => StoreRefusal::TooBig,
            journal::Refusal::Full => StoreRefusal::NoSpace,
            journal::Refusal::Latched => StoreRefusal::Stopped,
        })?;
        if let Some(placed) = placed {
            placed();
        }
        let (before, after) = inner.applied(appended.sequence).await?;
        Ok((osn, before, after))
    }

    fn tag(&self, kind: Kind, scope: Scope, label: Option<Label>) -> (Tag, Option<Box<dyn FnOnce()>>) {
        let mut state = self.inner.state.borrow_mut();
        let Some(label) = label else {
            return (Tag { kind, stream: 0, epoch: Epoch(0), osn: state.next_osn(), scope }, None);
        };
        state.last_osn = state.last_osn.max(label.osn.unwrap_or_default());
        let osn = label.osn.unwrap_or(state.last_osn);
        (Tag { kind, stream: label.stream, epoch: osn.epoch(), osn, scope }, Some(label.placed))
    }

    /// As [`Store::write_buf`], for a file of a stream.
    pub async fn write_labelled(
        &self,
        file: FileId,
        offset_bytes: u64,
        data: &Buf,
        (at, label): (WallNanos, Label),
    ) -> Result<Wrote, StoreRefusal> {
        self.write_all(file, offset_bytes, (&[], data), (at, Some(label))).await
    }

    /// As [`Store::commit`], for a stream. What an operation notes beside what it does is small and
    /// may be what frees room: a full pool does not refuse it. [`Engine::check`] comes before.
    pub async fn commit_labelled(&self, changes: Vec<Change>, label: Label) -> Result<Osn, StoreRefusal> {
        self.commit_all(changes, Some(label)).await
    }

    /// Whether an id was given out of which no record says so. What has it may be a row and no file: without
    /// a word of it, it would be given out again after a crash.
    fn owes_ids(&self) -> bool {
        let state = self.inner.state.borrow();
        state.last_file > state.ids_told
    }

    /// The changes, and that the ids that were given out are.
    pub fn with_ids(&self, mut changes: Vec<Change>) -> Vec<Change> {
        changes.push(Change::Ids { through: self.last_file_id() });
        changes
    }

    /// Whether `changes` could be made now.
    pub async fn check(&self, changes: &[Change]) -> Result<(), StoreRefusal> {
        check_limits(changes)?;
        self.inner.refuse_if_stopped()?;
        self.inner.check_files(changes).await?;
        let gives_back = changes
            .iter()
            .any(|change| matches!(change, Change::DropFile { .. } | Change::Delete { .. } | Change::SetSize { .. }));
        if !gives_back && self.inner.promisable_bytes() == 0 {
            return Err(StoreRefusal::NoSpace);
        }
        Ok(())
    }

    async fn commit_all(&self, changes: Vec<Change>, label: Option<Label>) -> Result<Osn, StoreRefusal> {
        self.inner.refuse_if_stopped()?;
        self.wait_for_cuts(&changes).await?;
        let body = encode_changes(&changes);
        let (body, data) = ([&body[..]], Buf::new());
        let append = self.append((Kind::OPERATION, Scope::default()), (&body, &data), label);
        let (osn, _, _) = self.inner.meter.wait(Part::Journal, append).await?;
        Ok(osn)
    }

    /// Whether so much could be written to a file now.
    pub async fn check_write(&self, file: FileId, offset_bytes: u64, len_bytes: usize) -> Result<(), StoreRefusal> {
        check_write(offset_bytes, len_bytes)?;
        // Its time stands before it.
        if len_bytes + size_of::<WallNanos>() > self.inner.journal.body_bytes_max() {
            return Err(StoreRefusal::TooBig);
        }
        self.inner.refuse_if_stopped()?;
        if self.inner.head_of(file).await?.1 {
            return Err(StoreRefusal::Frozen);
        }
        let blocks = (offset_bytes + len_bytes as u64).div_ceil(BLOCK_BYTES) - offset_bytes / BLOCK_BYTES;
        drop(Promise::take(&self.inner, blocks).await?);
        Ok(())
    }

    /// Lets the reclaimer go first where `changes` cut a file that was cut very often.
    async fn wait_for_cuts(&self, changes: &[Change]) -> Result<(), StoreRefusal> {
        for change in changes {
            if self.inner.crowded_layer(change).await?.is_some() {
                let _mover = self.inner.mover.lock().await;
                return self.inner.make_way_for_cuts(changes).await;
            }
        }
        Ok(())
    }

    /// Writes the concatenation of `parts` and `payload`.
    async fn write_all(
        &self,
        file: FileId,
        offset_bytes: u64,
        (parts, payload): (&[&[u8]], &Buf),
        (at, label): (WallNanos, Option<Label>),
    ) -> Result<Wrote, StoreRefusal> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>() + payload.len();
        check_write(offset_bytes, len)?;
        let inner = &self.inner;
        inner.refuse_if_stopped()?;
        let (head, frozen) = inner.meter.wait(Part::Flash, inner.head_of(file)).await?;
        if frozen {
            return Err(StoreRefusal::Frozen);
        }
        if len == 0 {
            let osn = inner.state.borrow().last_osn;
            return Ok(Wrote { before: head, after: head, osn });
        }
        let end = offset_bytes + len as u64;
        let _promise = Promise::take(inner, end.div_ceil(BLOCK_BYTES) - offset_bytes / BLOCK_BYTES).await?;
        let scope = Scope { file, offset_bytes, length_bytes: len as u64 };
        let time = at.0.to_le_bytes();
        let mut body: smallvec::SmallVec<[&[u8]; 8]> = smallvec::smallvec![&time[..]];
        body.extend_from_slice(parts);
        let append = self.append((Kind::WRITE, scope), (&body, payload), label);
        let (osn, before, after) = inner.meter.wait(Part::Journal, append).await?;
        Ok(Wrote { before, after, osn })
    }
}

impl Inner {
    /// Head of a file, and whether it is a snapshot.
    async fn head_of(&self, file: FileId) -> Result<(FileHead, bool), StoreRefusal> {
        let found = self.resident(|state| Ok(state.file(file)?.map(|open| (open.head, open.frozen)))).await?;
        found.ok_or(StoreRefusal::NoSuchFile)
    }

    /// Refuses changes of snapshots, and of files that are not there, by what is known now.
    async fn check_files(&self, changes: &[Change]) -> Result<(), StoreRefusal> {
        for change in changes {
            let demands: &[(FileId, bool)] = match change {
                Change::Snapshot { file, .. } => &[(*file, false)],
                Change::Clone { snapshot, .. } => &[(*snapshot, true)],
                Change::Rollback { file, snapshot, .. } => &[(*file, false), (*snapshot, true)],
                _ => &[],
            };
            for (file, frozen) in demands {
                if self.head_of(*file).await?.1 != *frozen {
                    return Err(StoreRefusal::Frozen);
                }
            }
        }
        Ok(())
    }

    async fn settle(&self) -> Result<(), StoreRefusal> {
        let mut mover = self.mover.lock().await;
        let mut rounds_in_vain = 0;
        loop {
            let before = self.counters.borrow().blocks_destaged;
            self.destage(&mut mover, usize::MAX).await?;
            mover.data.drain(self).await?;
            // A block that was written over, or whose duplicate went, queues again.
            if self.state.borrow().staged.queued_count() == 0 {
                break;
            }
            self.reclaim(&mut mover, 4096).await?;
            self.make_room(&mut mover).await?;
            let gained = self.counters.borrow().blocks_destaged > before;
            rounds_in_vain = if gained { 0 } else { rounds_in_vain + 1 };
            if rounds_in_vain > 16 {
                return Err(StoreRefusal::NoSpace);
            }
        }
        while self.reclaim(&mut mover, 4096).await? {}
        self.checkpoint(&mut mover).await
    }

    /// Room kept back so that cleaning and checkpoints can always go on.
    pub fn reserved_bytes(&self) -> u64 {
        let stripe = u64::from(self.stripe_bytes());
        let floor = (self.stripes_kept_from_intake() * 2 + 8) * stripe;
        (self.total_bytes.get() / 12).max(floor).min(self.total_bytes.get())
    }

    /// Free stripes that only cleaning and checkpoints may use. The cleaner gains only
    /// what its victims lack, so it needs room to empty many at a time.
    pub fn stripes_kept_from_intake(&self) -> u64 {
        let total = self.total_bytes.get() / u64::from(self.stripe_bytes()).max(1);
        self.options.stripes_reserved().max(total / 24)
    }

    /// Looks how many bytes of stripes there are; changes with drives and segments.
    pub fn look_at_space(&self) {
        let space = self.group.space();
        // Blocks do not straddle units, so the end of each unit may stay unused.
        let unit = u64::from(self.group.unit_payload_bytes());
        let packed = unit / BLOCK_OBJECT_BYTES * BLOCK_OBJECT_BYTES;
        self.total_bytes.set((space.data_bytes_free + space.data_bytes_open) / unit * packed);
        let degraded: Vec<_> =
            self.state.borrow().stripes.segments().filter(|segment| self.group.is_degraded(*segment)).collect();
        self.state.borrow_mut().stripes.set_closed(degraded);
    }

    /// Bytes that may still be promised to writers. Everything staged counts at its
    /// worst: incompressible, without duplicates (`design.md` 11.5).
    pub fn promisable_bytes(&self) -> u64 {
        let state = self.state.borrow();
        let blocks = state.staged.block_count() as u64 + self.promised_blocks.get();
        let used = state.stripes.live_bytes() + blocks * (BLOCK_OBJECT_BYTES + BLOCK_METADATA_BYTES);
        self.total_bytes.get().saturating_sub(self.reserved_bytes() + used)
    }

    /// Whether `needed_bytes` would not fit even if nothing were staged.
    fn is_full_for(&self, needed_bytes: u64) -> bool {
        let live = self.state.borrow().stripes.live_bytes();
        self.total_bytes.get().saturating_sub(self.reserved_bytes() + live) < needed_bytes
    }

    async fn apply_record(&self, record: Record) -> Result<(), StoreRefusal> {
        let stamp = Stamp { sequence: record.sequence.0, osn: record.tag.osn };
        let outcome = if record.tag.kind == Kind::WRITE {
            self.apply_write(&record, stamp).await?
        } else {
            let changes = decode_changes(&record.body).map_err(|_| StoreRefusal::Stopped)?;
            self.resident(|state| state.apply_changes(&changes, stamp)).await?;
            Ok((FileHead::default(), FileHead::default()))
        };
        self.state.borrow_mut().applied_through = record.sequence.0;
        self.acknowledge(record.sequence, outcome);
        Ok(())
    }

    async fn apply_write(&self, record: &Record, stamp: Stamp) -> Result<Outcome, StoreRefusal> {
        let (at, data) = decode_write(&record.body, &record.payload).map_err(|_| StoreRefusal::Stopped)?;
        let scope = record.tag.scope;
        let applied = self.resident(|state| state.apply_write(scope.file, scope.offset_bytes, &data, (at, stamp)));
        Ok(applied.await?.ok_or(StoreRefusal::NoSuchFile))
    }

    /// Applies records that were read back when the journal was opened, and notes in their
    /// place those that are lost.
    pub async fn replay(&self, records: Vec<Record>, lost: &[Blocked]) -> Result<(), StoreRefusal> {
        let mut lost: Vec<&Blocked> = lost.iter().collect();
        lost.sort_unstable_by_key(|lost| std::cmp::Reverse(lost.sequence));
        let (settled, redo) = {
            let state = self.state.borrow();
            (state.settled_through, state.redo_through)
        };
        for record in records {
            while let Some(before) = lost.pop_if(|lost| lost.sequence < record.sequence) {
                self.lose_record(before).await?;
            }
            {
                let mut state = self.state.borrow_mut();
                state.last_osn = state.last_osn.max(record.tag.osn);
            }
            match record.sequence.0 {
                sequence if sequence <= settled => {}
                sequence if sequence <= redo => self.redo_record(record).await?,
                _ => self.apply_again(record).await?,
            }
        }
        while let Some(after) = lost.pop() {
            self.lose_record(after).await?;
        }
        Ok(())
    }

    /// A record that the root knows nothing of.
    async fn apply_again(&self, record: Record) -> Result<(), StoreRefusal> {
        if record.tag.kind == Kind::OPERATION {
            let changes = decode_changes(&record.body).map_err(|_| StoreRefusal::Stopped)?;
            self.make_way_for_cuts(&changes).await?;
        }
        self.apply_record(record).await
    }

    /// A record whose effects are in the root, but for data that was staged.
    async fn redo_record(&self, record: Record) -> Result<(), StoreRefusal> {
        self.state.borrow_mut().changed = true;
        let stamp = Stamp { sequence: record.sequence.0, osn: record.tag.osn };
        if record.tag.kind == Kind::WRITE {
            let (_, data) = decode_write(&record.body, &record.payload).map_err(|_| StoreRefusal::Stopped)?;
            let scope = record.tag.scope;
            return self.resident(|state| state.redo_write(scope.file, scope.offset_bytes, &data, stamp)).await;
        }
        let changes = decode_changes(&record.body).map_err(|_| StoreRefusal::Stopped)?;
        self.resident(|state| state.redo_changes(&changes, stamp)).await
    }

    async fn lose_record(&self, lost: &Blocked) -> Result<(), StoreRefusal> {
        let scope = lost.tag.scope;
        let (from, to) = (scope.offset_bytes, scope.offset_bytes.saturating_add(scope.length_bytes));
        for block in from / BLOCK_BYTES..to.div_ceil(BLOCK_BYTES) {
            self.resident(|state| state.lose_record(scope.file, block, lost.sequence.0)).await?;
        }
        Ok(())
    }

    /// A round of background work. The caller holds the mover lock.
    async fn tend(&self, mover: &mut Mover) -> Result<(), StoreRefusal> {
        self.look_at_space();
        let wanted = self.waiting_for_room.get() > 0;
        let destaged = self.counters.borrow().blocks_destaged;
        if self.destage_is_due(mover) {
            self.destage(mover, self.options.destage_blocks.min(DESTAGE_BLOCKS_AT_A_TIME)).await?;
            if wanted {
                mover.data.drain(self).await?;
            }
        }
        let gained = self.counters.borrow().blocks_destaged > destaged;
        let more = self.reclaim(mover, 4096).await?;
        self.make_room(mover).await?;
        if self.journal_is_short() && !self.trim_would_help() {
            // What keeps the journal may stand in a stripe that is not full yet.
            mover.data.drain(self).await?;
        }
        if self.checkpoint_is_due(mover) || (self.journal_is_filling() && self.trim_would_help()) {
            self.checkpoint(mover).await?;
        }
        if more || (gained && self.destage_is_due(mover)) {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Whether staged blocks should go to stripes now. Otherwise they are left where they
    /// are safe: what is written over meanwhile need never be destaged.
    fn destage_is_due(&self, mover: &mut Mover) -> bool {
        let (staged, through) = {
            let state = self.state.borrow();
            (state.staged.queued_count(), state.applied_through)
        };
        let now = self.world.clock.now();
        if mover.busy_through != through {
            (mover.busy_through, mover.busy_at) = (through, now);
        }
        let is_quiet = now.since(mover.busy_at) >= self.options.quiet_after;
        let is_pressed = self.waiting_for_room.get() > 0 || self.journal_is_filling();
        let is_larger = self.expansions.wants_data();
        staged > 0 && (is_quiet || is_pressed || is_larger || self.is_crowded() || self.checkpoint_is_due(mover))
    }

    fn is_crowded(&self) -> bool {
        self.state.borrow().staged.queued_count() >= self.options.destage_blocks
    }

    /// From half of the ring on staged blocks make way.
    fn journal_is_filling(&self) -> bool {
        let fill = self.journal.fill();
        fill.waiting > 0 || fill.used_bytes > fill.capacity_bytes / 2
    }

    /// Whether writers wait for the journal, or soon will.
    fn journal_is_short(&self) -> bool {
        let fill = self.journal.fill();
        fill.waiting > 0 || fill.used_bytes > fill.capacity_bytes / 4 * 3
    }

    /// Whether a checkpoint would let the journal forget a good part, or anything while
    /// writers wait.
    fn trim_would_help(&self) -> bool {
        let fill = self.journal.fill();
        let state = self.state.borrow();
        let through = state.staged.first_unsettled().map_or(state.applied_through, |first| first - 1);
        let all = fill.stable_through.0.saturating_sub(fill.trimmed_through.0).max(1);
        let forgotten = through.saturating_sub(fill.trimmed_through.0);
        forgotten * 3 >= all || (fill.waiting > 0 && forgotten > 0)
    }

    fn checkpoint_is_due(&self, mover: &Mover) -> bool {
        let age = self.world.clock.now().since(mover.last_checkpoint);
        let changed = self.state.borrow().changed;
        changed && (age >= self.options.checkpoint_every || self.world.chance.maybe("engine: early checkpoint"))
    }

    /// Cleans while few stripes are free. What is cleaned is free after a checkpoint.
    pub(crate) async fn make_room(&self, mover: &mut Mover) -> Result<(), StoreRefusal> {
        let low = self.stripes_kept_from_intake() * 2;
        let mut before = None;
        for _ in 0..64 {
            let (free, emptied) = {
                let state = self.state.borrow();
                (state.stripes.free_count() as u64 + self.group.space().stripes_free, state.stripes.emptied_count())
            };
            // A round that has not gained anything is not repeated at once.
            if free >= low || before.is_some_and(|before| free <= before) {
                return Ok(());
            }
            before = Some(free);
            let cleaned = if free > 2 { self.clean(mover).await? } else { 0 };
            if cleaned == 0 && emptied == 0 {
                return Ok(());
            }
            self.checkpoint(mover).await?;
        }
        Ok(())
    }
}

/// Blocks destaged before the background work looks around again.
const DESTAGE_BLOCKS_AT_A_TIME: usize = 1024;

/// Applies what becomes stable, in order, and wakes the writers.
async fn apply_stable(inner: Rc<Inner>) {
    let mut records = Vec::new();
    loop {
        if inner.journal.next_stable(&mut records).await.is_err() {
            return inner.stop("no journal leg is left");
        }
        for record in records.drain(..) {
            if inner.apply_record(record).await.is_err() {
                return inner.stop("a stable operation could not be applied");
            }
        }
        if inner.is_crowded() || inner.journal_is_filling() {
            inner.work.notify_one();
        }
    }
}

/// Destages, reclaims, cleans and makes checkpoints until the engine stops.
async fn background(inner: Rc<Inner>) {
    loop {
        let tick = inner.world.clock.sleep_until(inner.world.clock.now() + inner.options.tick);
        let work = std::pin::pin!(inner.work.notified());
        match select(work, tick).await {
            Either::Left(_) | Either::Right(_) => {}
        }
        if inner.is_stopped() {
            return;
        }
        let mut mover = inner.mover.lock().await;
        if let Err(refusal) = inner.tend(&mut mover).await
            && refusal != StoreRefusal::NoSpace
        {
            inner.stop("background work met damage that it cannot go around");
        }
    }
}

/// Names the journal legs that are left in the root whenever one is lost.
async fn keep_root(inner: Rc<Inner>) {
    loop {
        inner.journal.root_needed().await;
        let mut mover = inner.mover.lock().await;
        let root = crate::root::Root { incarnations: inner.journal.incarnations(), ..mover.root.clone() };
        if inner.is_stopped() || inner.swing_root(&mut mover, root).await.is_err() {
            return;
        }
    }
}

/// What a block adds to the trees: its mapping, its object's row, its share of the pages
/// above and of the delta, about.
const BLOCK_METADATA_BYTES: u64 = 160;

/// Keeps room for some blocks until the write is staged.
struct Promise<'a> {
    inner: &'a Inner,
    blocks: u64,
}

impl<'a> Promise<'a> {
    /// Takes room for `blocks`. Everything staged counts at its worst until it is
    /// destaged, overwrites too; while that alone stands in the way the writer waits for
    /// the destager instead of being told that the pool is full.
    async fn take(inner: &'a Inner, blocks: u64) -> Result<Promise<'a>, StoreRefusal> {
        let needed_bytes = blocks * (BLOCK_OBJECT_BYTES + BLOCK_METADATA_BYTES);
        let give_up = inner.world.clock.now() + inner.options.room_wait_max;
        let _waiting = WaitsForRoom::new(inner);
        loop {
            inner.refuse_if_stopped()?;
            if inner.promisable_bytes() >= needed_bytes {
                inner.promised_blocks.set(inner.promised_blocks.get() + blocks);
                return Ok(Promise { inner, blocks });
            }
            let now = inner.world.clock.now();
            if inner.is_full_for(needed_bytes) || now >= give_up {
                return Err(StoreRefusal::NoSpace);
            }
            inner.work.notify_one();
            let soon = inner.world.clock.sleep_until(now + inner.options.room_poll);
            select(pin!(inner.checkpointed.notified()), soon).await;
        }
    }
}

/// Counts a writer that waits for room, as long as it lives.
struct WaitsForRoom<'a>(&'a Inner);

impl<'a> WaitsForRoom<'a> {
    fn new(inner: &'a Inner) -> WaitsForRoom<'a> {
        inner.waiting_for_room.set(inner.waiting_for_room.get() + 1);
        WaitsForRoom(inner)
    }
}

impl Drop for WaitsForRoom<'_> {
    fn drop(&mut self) {
        self.0.waiting_for_room.set(self.0.waiting_for_room.get() - 1);
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.inner.promised_blocks.set(self.inner.promised_blocks.get() - self.blocks);
    }
}

impl Store for Engine {
    fn next_file_id(&self) -> FileId {
        let mut state = self.inner.state.borrow_mut();
        state.last_file += 1;
        FileId(state.last_file)
    }

    async fn head(&self, file: FileId) -> Result<Option<FileHead>, StoreRefusal> {
        self.inner.meter.wait(Part::Flash, self.inner.resident(|state| state.head(file))).await
    }

    async fn read(&self, file: FileId, offset_bytes: u64, len_bytes: usize) -> Result<ReadOut, StoreRefusal> {
        self.inner.meter.wait(Part::Flash, self.inner.read_file(file, offset_bytes, len_bytes)).await
    }

    async fn write(
        &self,
        file: FileId,
        offset_bytes: u64,
        parts: &[&[u8]],
        at: WallNanos,
    ) -> Result<Wrote, StoreRefusal> {
        self.write_all(file, offset_bytes, (parts, &Buf::new()), (at, None)).await
    }

    async fn write_buf(
        &self,
        file: FileId,
        offset_bytes: u64,
        data: &Buf,
        at: WallNanos,
    ) -> Result<Wrote, StoreRefusal> {
        self.write_all(file, offset_bytes, (&[], data), (at, None)).await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<Osn, StoreRefusal> {
        self.check(&changes).await?;
        let changes = if self.owes_ids() { self.with_ids(changes) } else { changes };
        self.commit_all(changes, None).await
    }

    async fn differences(&self, one: FileId, other: FileId) -> Result<Vec<Extent>, StoreRefusal> {
        self.inner.meter.wait(Part::Flash, self.inner.differences(one, other)).await
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Buf>, StoreRefusal> {
        let found =
            self.inner.resident(|state| state.tree(table_tree(table)).with(&state.pages, key, Buf::copy_from_slice));
        self.inner.meter.wait(Part::Flash, found).await
    }

    async fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreRefusal> {
        let scan = self.inner.resident(|state| state.tree(table_tree(table)).scan(&state.pages, from, limit, |_| true));
        let found = self.inner.meter.wait(Part::Flash, scan).await?;
        Ok(found.into_iter().map(|(key, value)| (key, value.into())).collect())
    }

    fn meter(&self) -> Option<&Meter> {
        Some(&self.inner.meter)
    }

    fn space(&self) -> Space {
        let inner = &self.inner;
        let total_bytes = inner.total_bytes.get().saturating_sub(inner.reserved_bytes());
        Space { total_bytes, free_bytes: inner.promisable_bytes().min(total_bytes) }
    }
}

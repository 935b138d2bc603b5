//! The driver over ports: one accelerated disk.
//!
//! One thread, no locks, no borrow over an await. Two background tasks share the state: the
//! destager and the transition of policies.
//!
//! # What an operation costs
//!
//! | operation | copies of the payload | waits for |
//! |---|---|---|
//! | write, *wb* | 1, into the log's batch | flow control; one durable write of flash, shared by all writes of the batch |
//! | write, *wt* | 0 | the backing store |
//! | flush, *wb* | - | nothing: what was acknowledged is on flash (D-23) |
//! | flush, *wt* | - | a flush of the backing store |
//! | read, dirty | 1, into the answer | nothing |
//! | read, not dirty | 0 | the backing store |
//! | destaging, per byte | 1, into an aligned buffer | - |

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use base::port::{Leg, MediaFault, World};
use base::{Buf, BufMut, Epoch, GroupId, Incarnation, Nanos, Osn};
use journal::{Blocked, Config, Journal, NewRecord, OpenRefused as LogRefused, Record, Refusal, Sequence};
use tokio::sync::{Notify, Semaphore};

use crate::backing::Backing;
use crate::batch::BatchCap;
use crate::flash::Window;
use crate::flow::{Flow, FlowSettings};
use crate::image::{DirtyImage, Pending};
use crate::latency::Latency;
use crate::op::Op;
use crate::ranges::{Content, Piece};
use crate::root::{DiskId, LogRoot, Policy, RING_AT_BYTES};

/// Smallest region a log fits in.
pub const LOG_BYTES_MIN: u64 = RING_AT_BYTES + 8192 + journal::open::RING_BYTES_MIN;

/// Limits and times of a disk.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How large batches are.
    pub batch: BatchCap,
    /// Requests of one batch at the backing store at a time.
    pub depth: usize,
    /// Dirty data younger than this may wait for more, while there is little of it.
    pub settle: Duration,
    /// When writes are slowed.
    pub flow: FlowSettings,
    /// Least and most time between attempts at a backing store that fails.
    pub retry: (Duration, Duration),
    /// Of the log.
    pub journal: Config,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            batch: BatchCap::default(),
            depth: 32,
            settle: Duration::from_millis(20),
            flow: FlowSettings::default(),
            retry: (Duration::from_millis(50), Duration::from_secs(2)),
            journal: Config::default(),
        }
    }
}

/// What a disk is made of.
pub struct Parts {
    /// The region of its log.
    pub log: Rc<dyn Leg>,
    /// What it stands in front of.
    pub backing: Rc<dyn Backing>,
    /// Turns at the backing store, one permit: disks of one store share it, so that each
    /// destages one batch at a time, one after the other (R-DST-07).
    pub turns: Rc<Semaphore>,
    /// Time, tasks, variation.
    pub world: World,
    /// Limits and times.
    pub options: Options,
}

/// Why a disk was not opened. Nothing was written, and nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum OpenRefused {
    /// The region holds no log, or both copies of its root are damaged.
    #[error("its log on flash says nothing about itself: both roots are blank or damaged")]
    NoRoot,
    /// The flash answers with a fault.
    #[error("its flash fails: {0}")]
    Flash(MediaFault),
    /// The log cannot be read back.
    #[error("its log on flash cannot be read back: {0}")]
    Log(#[from] LogRefused),
    /// Acknowledged writes in the middle of the log are damaged: what comes after them is
    /// whole, so this is not a torn tail.
    #[error("acknowledged writes in its log on flash are damaged: {blocked:?}")]
    Damaged {
        /// Ranges whose newest bytes are gone.
        blocked: Vec<Blocked>,
    },
    /// The log holds records that no disk's log holds.
    #[error("its log on flash holds records this version does not know")]
    Strange,
    /// The backing store is not as large as the disk.
    #[error("the backing store has {found_bytes} bytes, the disk {expected_bytes}")]
    Resized {
        /// Size now.
        found_bytes: u64,
        /// Size of the disk.
        expected_bytes: u64,
    },
}

/// Why a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoRefused {
    /// Beyond the end, or not aligned.
    #[error("the range is outside the disk or not aligned")]
    Range,
    /// The backing store cannot do it. Only reads, and writes and flushes under *wt*.
    #[error("the backing store answers: {0}")]
    Backing(MediaFault),
    /// The disk is being taken away.
    #[error("the disk is closed")]
    Closed,
}

/// What happened, for logs; each is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The backing store fails; writes are absorbed, then they wait.
    BackingFails {
        /// How.
        fault: MediaFault,
    },
    /// It works again.
    BackingWorks {
        /// How long it did not.
        after: Duration,
    },
    /// The flash of the log fails: no write is acknowledged under *wb* from here on; dirty
    /// data is destaged from memory.
    FlashFails,
    /// A policy is in force.
    Policy(Policy),
}

/// How writes are treated now. A policy that is on its way is not in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    WriteThrough,
    WriteBack,
    /// On the way from *wb* to *wt*: through the log, so that the order stays, and answered
    /// when destaged, so that *wt*'s promise holds already.
    Draining,
}

pub(crate) struct State {
    pub(crate) mode: Mode,
    pub(crate) wanted: Policy,
    pub(crate) image: DirtyImage,
    pub(crate) next_serial: Osn,
    pub(crate) root: LogRoot,
    pub(crate) flow: Flow,
    /// No write may enter while a policy changes hands.
    pub(crate) gate_closed: bool,
    pub(crate) inside: usize,
    pub(crate) failing: Option<(MediaFault, Nanos)>,
    pub(crate) flash_failing: bool,
    pub(crate) closed: bool,
    pub(crate) hurry: u32,
    pub(crate) events: Vec<Event>,
    pub(crate) counts: Counts,
}

/// Counts since the disk was opened.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Writes as the VM sees them, flow control included.
    pub write: Latency,
    /// Reads as the VM sees them.
    pub read: Latency,
    /// Writes at the backing store.
    pub backing_write: Latency,
    /// Reads at the backing store.
    pub backing_read: Latency,
    /// Reads answered without the backing store.
    pub read_hits: u64,
    /// Reads that needed it.
    pub read_misses: u64,
    /// Bytes written by the VM.
    pub written_bytes: u64,
    /// Bytes read by the VM.
    pub read_bytes: u64,
    /// Bytes written to the backing store by the destager.
    pub destaged_bytes: u64,
    /// Batches destaged.
    pub batches: u64,
}

/// A disk at a glance.
#[derive(Clone, Debug)]
pub struct DiskStatus {
    /// Its identity.
    pub disk: DiskId,
    /// Its name.
    pub name: String,
    /// Its backing store.
    pub backing: String,
    /// Size in bytes.
    pub capacity_bytes: u64,
    /// The policy in force.
    pub policy: Policy,
    /// The policy asked for; differs while dirty data is drained.
    pub wanted: Policy,
    /// Payload that only the log holds.
    pub dirty_bytes: u64,
    /// Writes that only the log holds.
    pub dirty_writes: u64,
    /// Age of the oldest of them.
    pub destage_lag: Option<Duration>,
    /// Bytes of the log in use.
    pub log_used_bytes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Last serial in the backing store.
    pub checkpoint: Osn,
    /// Last serial given.
    pub last_serial: Osn,
    /// What the destager achieves.
    pub destage_bytes_per_s: Option<f64>,
    /// Sum of the delays of flow control, and how many writes had one.
    pub delayed: (Duration, u64),
    /// Whether writes are being slowed now.
    pub slowed: bool,
    /// What the backing store answers, and for how long, while it fails.
    pub backing_fails: Option<(MediaFault, Duration)>,
    /// The flash of the log fails: writes under *wb* wait.
    pub flash_fails: bool,
    /// Counts since opening.
    pub counts: Counts,
}

pub(crate) struct Shared {
    pub(crate) state: RefCell<State>,
    pub(crate) journal: Journal,
    pub(crate) log: Rc<dyn Leg>,
    pub(crate) backing: Rc<dyn Backing>,
    pub(crate) turns: Rc<Semaphore>,
    pub(crate) world: World,
    pub(crate) options: Options,
    pub(crate) align_bytes: u64,
    /// The destager has something to do.
    pub(crate) pending: Notify,
    /// Something others wait for has changed: checkpoint, mode, gate, who is inside.
    pub(crate) changed: Notify,
}

/// Ends the background tasks when the last [`Disk`] goes.
struct Owner(Rc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.state.borrow_mut().closed = true;
        self.0.pending.notify_waiters();
        self.0.changed.notify_waiters();
    }
}

/// An accelerated disk; clones are the same disk. Dropping the last one stops its tasks;
/// what is dirty stays in the log.
#[derive(Clone)]
pub struct Disk {
    owner: Rc<Owner>,
}

/// A new disk.
#[derive(Clone, Debug)]
pub struct NewDisk {
    /// Identity.
    pub disk: DiskId,
    /// The flash it is on.
    pub flash: GroupId,
    /// A life of its log.
    pub incarnation: Incarnation,
    /// Name for people.
    pub name: String,
    /// Path or URI of the backing store.
    pub backing: String,
    /// Size in bytes.
    pub capacity_bytes: u64,
    /// First policy.
    pub policy: Policy,
}

impl Disk {
    /// Makes an empty log in the region `log`. The backing store is not touched.
    pub async fn format(log: &Rc<dyn Leg>, new: NewDisk) -> Result<(), MediaFault> {
        let ring = Window::after(log, RING_AT_BYTES);
        let journal = Journal::format(&[ring], new.flash, &[new.incarnation], Sequence(0)).await;
        let journal = journal.map_err(|refused| match refused {
            journal::open::FormatRefused::Fault(fault) => fault,
            other => unreachable!("the region was checked: {other}"),
        })?;
        let mut root = LogRoot {
            generation: 0,
            disk: new.disk,
            name: new.name,
            backing: new.backing,
            capacity_bytes: new.capacity_bytes,
            policy: new.policy,
            checkpoint: Osn(0),
            term: Epoch(1),
            journal,
        };
        for generation in 1..=2 {
            root.generation = generation;
            root.write(log.as_ref()).await?;
        }
        Ok(())
    }

    /// Opens a disk: reads its log back, takes what is dirty into the image, and serves. What
    /// was acknowledged before is read from the first moment on.
    pub async fn open(parts: Parts) -> Result<Disk, OpenRefused> {
        let Parts { log, backing, turns, world, options } = parts;
        let root = LogRoot::read(&log).await.map_err(OpenRefused::Flash)?.ok_or(OpenRefused::NoRoot)?;
        let info = backing.info();
        if info.capacity_bytes < root.capacity_bytes {
            let (found_bytes, expected_bytes) = (info.capacity_bytes, root.capacity_bytes);
            return Err(OpenRefused::Resized { found_bytes, expected_bytes });
        }
        let ring = Window::after(&log, RING_AT_BYTES);
        let (journal, found) = Journal::open(vec![ring], &root.journal, world.clone(), options.journal).await?;
        if !found.blocked.is_empty() {
            return Err(OpenRefused::Damaged { blocked: found.blocked });
        }
        let mut image = DirtyImage::default();
        let now = world.clock.now();
        for record in &found.records {
            let pending = pending_of(record, now).ok_or(OpenRefused::Strange)?;
            if pending.serial > root.checkpoint {
                image.push(pending);
            }
        }
        if root.policy == Policy::WriteThrough && !image.is_empty() {
            return Err(OpenRefused::Strange);
        }
        let disk = Disk::start(root, image, Parts { log, backing, turns, world, options }, journal, info.align_bytes);
        Ok(disk)
    }

    fn start(root: LogRoot, image: DirtyImage, parts: Parts, journal: Journal, align_bytes: u32) -> Disk {
        let Parts { log, backing, turns, world, options } = parts;
        let last = image.last().unwrap_or(root.checkpoint);
        let mode = if root.policy == Policy::WriteBack { Mode::WriteBack } else { Mode::WriteThrough };
        let state = State {
            mode,
            wanted: root.policy,
            image,
            next_serial: last.next(),
            root,
            flow: Flow::new(options.flow),
            gate_closed: false,
            inside: 0,
            failing: None,
            flash_failing: false,
            closed: false,
            hurry: 0,
            events: Vec::new(),
            counts: Counts::default(),
        };
        let shared = Rc::new(Shared {
            state: RefCell::new(state),
            journal,
            log,
            backing,
            turns,
            world,
            options,
            align_bytes: u64::from(align_bytes),
            pending: Notify::new(),
            changed: Notify::new(),
        });
        let weak = Rc::downgrade(&shared);
        shared.journal.set_on_stable(move |record| {
            if let Some(shared) = weak.upgrade() {
                shared.apply(&record);
            }
        });
        shared.world.spawn.spawn("destager", Box::pin(crate::destage::run(shared.clone())));
        shared.world.spawn.spawn("policy", Box::pin(crate::transition::run(shared.clone())));
        Disk { owner: Rc::new(Owner(shared)) }
    }

    fn shared(&self) -> &Rc<Shared> {
        &self.owner.0
    }

    /// Size in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.shared().state.borrow().root.capacity_bytes
    }

    /// Requests are aligned to this.
    pub fn align_bytes(&self) -> u64 {
        self.shared().align_bytes
    }

    /// Writes `data`. With `durable` it is on stable media of the place that the policy
    /// demands when this returns, without a later flush.
    pub async fn write(&self, offset_bytes: u64, data: Buf, durable: bool) -> Result<(), IoRefused> {
        self.check(offset_bytes, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        let started = self.shared().world.clock.now();
        let length = data.len() as u64;
        let piece_max = self.shared().journal.body_bytes_max() as u64 / self.align_bytes() * self.align_bytes();
        let mut done = 0;
        while done < length {
            let piece = piece_max.min(length - done);
            let op = Op::write(offset_bytes + done, data.slice(done as usize..(done + piece) as usize));
            self.shared().change(&op, durable).await?;
            done += piece;
        }
        let took = self.shared().world.clock.now().since(started);
        let mut state = self.shared().state.borrow_mut();
        state.counts.write.add(took);
        state.counts.written_bytes += length;
        Ok(())
    }

    /// Makes a range read as zeros. With `may_punch` its space below may be given back: a
    /// trim is this, too, so what was trimmed reads as zeros at once and after any crash.
    pub async fn zero(
        &self,
        offset_bytes: u64,
        length_bytes: u64,
        may_punch: bool,
        durable: bool,
    ) -> Result<(), IoRefused> {
        self.check(offset_bytes, length_bytes)?;
        if length_bytes == 0 {
            return Ok(());
        }
        let op = Op { offset_bytes, length_bytes, content: Content::Zeros { may_punch } };
        self.shared().change(&op, durable).await
    }

    /// Returns when every write answered before is on stable media of the place its policy
    /// demands (D-23): under *wb* they are already; under *wt* the backing store flushes.
    pub async fn flush(&self) -> Result<(), IoRefused> {
        let through = self.shared().state.borrow().mode == Mode::WriteThrough;
        if through { self.shared().backing.flush().await.map_err(IoRefused::Backing) } else { Ok(()) }
    }

    /// Fills `buf` from `offset_bytes`.
    pub async fn read(&self, offset_bytes: u64, buf: BufMut) -> Result<BufMut, IoRefused> {
        self.check(offset_bytes, buf.len() as u64)?;
        let shared = self.shared();
        let started = shared.world.clock.now();
        let range = offset_bytes..offset_bytes + buf.len() as u64;
        // Taken before the backing store is asked: what is destaged and evicted while it
        // answers may be missing in its answer, but not here.
        let dirty: Vec<Piece> = shared.state.borrow().image.overlapping(range.clone()).collect();
        let covered: u64 = dirty.iter().map(|piece| piece.length_bytes).sum();
        let hit = covered == buf.len() as u64;
        let mut buf = if hit { buf } else { shared.read_below(offset_bytes, buf).await? };
        for piece in dirty {
            let at = (piece.offset_bytes - offset_bytes) as usize;
            piece.content.copy_to(&mut buf[at..at + piece.length_bytes as usize]);
        }
        let mut state = shared.state.borrow_mut();
        let counts = &mut state.counts;
        counts.read.add(shared.world.clock.now().since(started));
        counts.read_bytes += buf.len() as u64;
        *(if hit { &mut counts.read_hits } else { &mut counts.read_misses }) += 1;
        Ok(buf)
    }

    fn check(&self, offset_bytes: u64, length_bytes: u64) -> Result<(), IoRefused> {
        let end = offset_bytes.checked_add(length_bytes);
        let inside = end.is_some_and(|end| end <= self.capacity_bytes());
        let aligned =
            offset_bytes.is_multiple_of(self.align_bytes()) && length_bytes.is_multiple_of(self.align_bytes());
        if inside && aligned { Ok(()) } else { Err(IoRefused::Range) }
    }

    /// Asks for a policy. It is in force when [`status`](Disk::status) says so: from *wb* to
    /// *wt* everything dirty is drained first.
    pub fn set_policy(&self, wanted: Policy) {
        self.shared().state.borrow_mut().wanted = wanted;
        self.shared().changed.notify_waiters();
        self.shared().pending.notify_waiters();
    }

    /// Returns when the policy asked for is in force.
    pub async fn policy_in_force(&self) -> Result<Policy, IoRefused> {
        let settled = |state: &State| {
            let now = state.mode.policy();
            (now == Some(state.wanted)).then_some(state.wanted)
        };
        self.shared().until(settled).await
    }

    /// Brings everything that is dirty now to the backing store; the policy stays.
    pub async fn drain(&self) -> Result<(), IoRefused> {
        let shared = self.shared();
        let last = shared.state.borrow().image.last();
        let Some(last) = last else { return Ok(()) };
        shared.state.borrow_mut().hurry += 1;
        shared.pending.notify_waiters();
        let drained = shared.until(|state| (state.root.checkpoint >= last).then_some(())).await;
        shared.state.borrow_mut().hurry -= 1;
        drained
    }

    /// Takes what happened since the last call.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.shared().state.borrow_mut().events)
    }

    /// The disk at a glance.
    pub fn status(&self) -> DiskStatus {
        let shared = self.shared();
        let log = shared.journal.status();
        let now = shared.world.clock.now();
        let state = shared.state.borrow();
        DiskStatus {
            disk: state.root.disk,
            name: state.root.name.clone(),
            backing: state.root.backing.clone(),
            capacity_bytes: state.root.capacity_bytes,
            policy: state.root.policy,
            wanted: state.wanted,
            dirty_bytes: state.image.payload_bytes(),
            dirty_writes: state.image.writes() as u64,
            destage_lag: state.image.oldest().map(|write| now.since(write.since)),
            log_used_bytes: log.fill_bytes,
            log_bytes: log.capacity_bytes,
            checkpoint: state.root.checkpoint,
            last_serial: Osn(state.next_serial.0 - 1),
            destage_bytes_per_s: state.flow.destage_bytes_per_s(),
            delayed: state.flow.delayed(),
            slowed: shared.fill() > state.flow.settings().low_mark && !state.image.is_empty(),
            backing_fails: state.failing.map(|(fault, since)| (fault, now.since(since))),
            flash_fails: state.flash_failing,
            counts: state.counts.clone(),
        }
    }
}

impl Mode {
    pub(crate) fn policy(self) -> Option<Policy> {
        match self {
            Mode::WriteThrough => Some(Policy::WriteThrough),
            Mode::WriteBack => Some(Policy::WriteBack),
            Mode::Draining => None,
        }
    }
}

fn pending_of(record: &Record, now: Nanos) -> Option<Pending> {
    let op = Op::of(record)?;
    Some(Pending { serial: record.tag.osn, sequence: record.sequence, since: now, op })
}

/// A write inside the gate.
struct Inside<'a>(&'a Shared);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().inside -= 1;
        self.0.changed.notify_waiters();
    }
}

/// Why a change was not made under the policy of the moment; it is tried again.
enum Again {
    /// The flash fails; something else must change first.
    FlashFails,
    /// Too many wait for room in the log.
    Crowded,
}

impl Shared {
    /// A record is stable: it is dirty from now on.
    fn apply(&self, record: &Record) {
        let pending = pending_of(record, self.world.clock.now()).expect("this log's own records");
        self.state.borrow_mut().image.push(pending);
        self.pending.notify_waiters();
    }

    /// Waits until `found` finds something in the state.
    pub(crate) async fn until<T>(&self, found: impl Fn(&State) -> Option<T>) -> Result<T, IoRefused> {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state.borrow();
                if let Some(value) = found(&state) {
                    return Ok(value);
                }
                if state.closed {
                    return Err(IoRefused::Closed);
                }
            }
            changed.await;
        }
    }

    async fn enter(&self) -> Result<(Inside<'_>, Mode), IoRefused> {
        self.until(|state| (!state.gate_closed && !state.closed).then_some(())).await?;
        let mut state = self.state.borrow_mut();
        state.inside += 1;
        Ok((Inside(self), state.mode))
    }

    /// Makes `op` under the policy in force.
    async fn change(&self, op: &Op, durable: bool) -> Result<(), IoRefused> {
        loop {
            let (inside, mode) = self.enter().await?;
            let done = match mode {
                Mode::WriteThrough => return self.write_through(op, durable).await,
                Mode::WriteBack => self.write_back(op).await.map(|_| ()),
                Mode::Draining => match self.write_back(op).await {
                    Ok(serial) => {
                        self.until(|state| (state.root.checkpoint >= serial).then_some(())).await?;
                        Ok(())
                    }
                    Err(again) => Err(again),
                },
            };
            drop(inside);
            match done {
                Ok(()) => return Ok(()),
                Err(Again::Crowded) => {
                    let now = self.state.borrow().root.generation;
                    self.until(|state| (state.root.generation != now).then_some(())).await?;
                }
                Err(Again::FlashFails) => {
                    self.until(|state| (!state.flash_failing).then_some(())).await?;
                }
            }
        }
    }

    /// Share of the log in use.
    fn fill(&self) -> f64 {
        self.journal.fill_bytes() as f64 / self.journal.capacity_bytes() as f64
    }

    async fn write_back(&self, op: &Op) -> Result<Osn, Again> {
        let now = self.world.clock.now();
        let admitted = self.state.borrow_mut().flow.admit(now, op.body().len() as u64, self.fill());
        if let Some(at) = admitted {
            self.pending.notify_waiters();
            self.world.clock.sleep_until(at).await;
        }
        let (serial, term) = {
            let mut state = self.state.borrow_mut();
            let serial = state.next_serial;
            state.next_serial = serial.next();
            (serial, state.root.term)
        };
        let record = NewRecord { tag: op.tag(serial, term), body: &[op.body()] };
        let appended = match self.journal.append(record).await {
            Ok(appended) => appended,
            Err(Refusal::Full) => return Err(Again::Crowded),
            Err(Refusal::Latched) => return Err(self.flash_fails()),
            Err(Refusal::TooLong) => unreachable!("writes are cut to what a record holds"),
        };
        match self.journal.stable(appended.sequence).await {
            Ok(_) => Ok(serial),
            Err(journal::Latched) => Err(self.flash_fails()),
        }
    }

    pub(crate) fn tell_flash_failing(&self) {
        let mut state = self.state.borrow_mut();
        if !state.flash_failing {
            state.flash_failing = true;
            state.events.push(Event::FlashFails);
        }
    }

    /// A root was written: the flash takes writes, unless the log has given up on it.
    pub(crate) fn flash_works(&self) {
        if !self.journal.status().latched {
            self.state.borrow_mut().flash_failing = false;
            self.changed.notify_waiters();
        }
    }

    fn flash_fails(&self) -> Again {
        self.tell_flash_failing();
        Again::FlashFails
    }

    async fn write_through(&self, op: &Op, durable: bool) -> Result<(), IoRefused> {
        let pauses = Cell::new(self.options.retry.0);
        loop {
            let started = self.world.clock.now();
            let done = match &op.content {
                Content::Data(data) => self.backing.write(op.offset_bytes, data.clone()).await,
                Content::Zeros { may_punch } => self.backing.zero(op.offset_bytes, op.length_bytes, *may_punch).await,
            };
            let done = match done {
                Ok(()) if durable => self.backing.flush().await,
                done => done,
            };
            match done {
                Ok(()) => {
                    self.backing_works();
                    self.state.borrow_mut().counts.backing_write.add(self.world.clock.now().since(started));
                    return Ok(());
                }
                // This range cannot be written: without the layer the VM would hear it, too.
                Err(MediaFault::Io) => return Err(IoRefused::Backing(MediaFault::Io)),
                Err(fault) => self.wait_for_backing(fault, &pauses).await?,
            }
        }
    }

    async fn read_below(&self, offset_bytes: u64, mut buf: BufMut) -> Result<BufMut, IoRefused> {
        let pauses = Cell::new(self.options.retry.0);
        loop {
            let started = self.world.clock.now();
            let (done, back) = self.backing.read(offset_bytes, buf).await;
            buf = back;
            match done {
                Ok(()) => {
                    self.state.borrow_mut().counts.backing_read.add(self.world.clock.now().since(started));
                    return Ok(buf);
                }
                Err(MediaFault::Io) => return Err(IoRefused::Backing(MediaFault::Io)),
                Err(fault) => self.wait_for_backing(fault, &pauses).await?,
            }
        }
    }

    /// The backing store answered with `fault`: tells it once, and waits a little longer
    /// each time.
    pub(crate) async fn wait_for_backing(&self, fault: MediaFault, pause: &Cell<Duration>) -> Result<(), IoRefused> {
        let now = self.world.clock.now();
        {
            let mut state = self.state.borrow_mut();
            if state.failing.is_none() {
                state.failing = Some((fault, now));
                state.events.push(Event::BackingFails { fault });
            }
            if state.closed {
                return Err(IoRefused::Closed);
            }
        }
        let wait = pause.get();
        pause.set((wait * 2).min(self.options.retry.1));
        self.world.clock.sleep_until(now + wait).await;
        Ok(())
    }

    pub(crate) fn backing_works(&self) {
        let mut state = self.state.borrow_mut();
        if let Some((_, since)) = state.failing.take() {
            let after = self.world.clock.now().since(since);
            state.events.push(Event::BackingWorks { after });
        }
    }
}

//! A simulated medium: the bytes behind a drive or a journal leg. It outlives nodes.
//!
//! Three layers of truth:
//! 1. `durable`: what a power cut cannot take.
//! 2. `current`: what a read sees: durable plus every completed write. The completed,
//!    not yet flushed writes are the *window*.
//! 3. faults laid over: flipped bits, unreadable ranges, armed one-shot faults, states
//!    of the whole medium. The bytes below stay as they are, so a fault can be counted,
//!    healed by a rewrite of its sectors, and lifted.
//!
//! At a power cut each 512-byte sector of the window, and of the writes in flight, ends
//! as any of: durable content, or any version written since. A leg has no window: a
//! completed write is durable; writes in flight tear the same way.
//!
//! `damaged` marks every range whose content is not what the writer was told: the union
//! of flips, unreadable, lost, torn and misdirected. [`Atlas`] counts it.

mod crash;
mod harm;
mod io;

use std::cell::{Ref, RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use base::Buf;

use crate::executor::Core;
use crate::fault::{Atlas, FaultRates};
use crate::pages::{PAGE_BYTES, Pages};
use crate::ranges::RangeSet;
use crate::rng::Rng;

/// Sectors are kept or lost as a whole.
pub const SECTOR_BYTES: u64 = 512;

/// Service times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Least time of a read, in nanoseconds.
    pub read_ns: u64,
    /// Least time of a write.
    pub write_ns: u64,
    /// Least time of a flush.
    pub flush_ns: u64,
    /// More time per 4 KiB moved.
    pub per_page_ns: u64,
    /// Up to this much is added, drawn evenly.
    pub jitter_ns: u64,
    /// Everything takes this many times as long.
    pub slow_factor: u64,
    /// Requests served at a time; more wait in the drive, in their order. 0: any number.
    pub channels: u32,
    /// How many of a million reads stall.
    pub read_stall_ppm: u32,
    /// How much longer such a read takes.
    pub read_stall_ns: u64,
    /// After this many written bytes the drive erases; 0: never.
    pub erase_every_bytes: u64,
    /// While it erases, for this long, nothing is served.
    pub erase_ns: u64,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency {
            read_ns: 60_000,
            write_ns: 20_000,
            flush_ns: 50_000,
            per_page_ns: 1_000,
            jitter_ns: 60_000,
            slow_factor: 1,
            channels: 0,
            read_stall_ppm: 0,
            read_stall_ns: 0,
            erase_every_bytes: 0,
            erase_ns: 0,
        }
    }
}

/// What the drive's inside is busy with.
#[derive(Debug, Default)]
struct Service {
    /// When each channel is free again.
    channels: Vec<u64>,
    written_since_erase: u64,
    erasing_until_ns: u64,
}

impl Service {
    /// When an I/O that arrives now and takes `service_ns` is served. A drive serves in the
    /// order of arrival, each request on the channel that is free first.
    fn done_at(&mut self, latency: &Latency, now_ns: u64, service_ns: u64, written_bytes: u64) -> u64 {
        self.channels.resize(latency.channels as usize, 0);
        let ready = now_ns.max(self.erasing_until_ns);
        let done = match self.channels.iter_mut().min() {
            Some(channel) => {
                *channel = ready.max(*channel) + service_ns;
                *channel
            }
            None => ready + service_ns,
        };
        self.written_since_erase += written_bytes;
        if latency.erase_every_bytes > 0 && self.written_since_erase >= latency.erase_every_bytes {
            self.written_since_erase %= latency.erase_every_bytes;
            self.erasing_until_ns = self.erasing_until_ns.max(done) + latency.erase_ns;
        }
        done
    }
}

/// What is asked of a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IoKind {
    Read,
    Write,
    Flush,
}

/// A fault that happens once, to the next I/O of its kind.
#[derive(Clone, Debug)]
pub enum OneShot {
    /// The next write is acknowledged and not done.
    LostWrite,
    /// The next write lands at this offset of this medium instead.
    MisdirectedWrite(SimMedia, u64),
    /// Only the sectors whose bit is set land (bit `i % 64` for sector `i`); the write is
    /// acknowledged.
    TornWrite(u64),
    /// The next write fails, with a random subset of its sectors on the medium.
    FailedWrite,
    /// The next read fails.
    FailedRead,
    /// The next read gets right bytes from this offset instead.
    MisdirectedRead(u64),
    /// One random bit of the next read's result is flipped; the medium is fine.
    FlipOnRead,
    /// The next flush fails.
    FailedFlush,
}

/// The bytes of a medium at an earlier instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pages: Pages,
}

struct WindowWrite {
    order: u64,
    offset_bytes: u64,
    data: Buf,
}

/// States of the whole medium.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Condition {
    pub(crate) gone: bool,
    pub(crate) hung: bool,
    pub(crate) read_only: bool,
    pub(crate) flush_lies: bool,
    /// Not what its group left on it: blank, restored, swapped.
    pub(crate) foreign: bool,
}

pub(crate) struct State {
    pub(crate) capacity_bytes: u64,
    pub(crate) align_bytes: u32,
    pub(crate) serial: String,
    durable: Pages,
    current: Pages,
    window: VecDeque<WindowWrite>,
    in_flight: BTreeMap<u64, WindowWrite>,
    parked: Vec<Box<dyn FnOnce()>>,
    next_order: u64,
    /// Writes up to this order were promised durable by a flush that lied.
    lied_order: u64,
    flips: BTreeMap<u64, u8>,
    unreadable: RangeSet,
    pub(crate) damaged: RangeSet,
    pub(crate) condition: Condition,
    one_shots: VecDeque<OneShot>,
    pub(crate) rates: FaultRates,
    pub(crate) atlas: Option<Atlas>,
    pub(crate) latency: Latency,
    pub(crate) model: String,
    pub(crate) turns: bool,
    service: Service,
    pub(crate) rng: Rng,
    counts: BTreeMap<&'static str, u64>,
}

pub(crate) struct Medium {
    pub(crate) core: Rc<Core>,
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) write_through: bool,
    state: RefCell<State>,
}

/// A medium; a handle, cheap to clone.
#[derive(Clone)]
pub struct SimMedia {
    pub(crate) medium: Rc<Medium>,
}

impl std::fmt::Debug for SimMedia {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimMedia({})", self.medium.name)
    }
}

impl SimMedia {
    pub(crate) fn new(core: Rc<Core>, name: &str, capacity_bytes: u64, write_through: bool) -> SimMedia {
        assert!(capacity_bytes.is_multiple_of(PAGE_BYTES), "capacity is a multiple of 4 KiB");
        let id = core.fresh_id();
        let rng = Rng::new(core.seed).fork(name).fork(&id.to_string());
        let state = State {
            capacity_bytes,
            align_bytes: SECTOR_BYTES as u32,
            serial: name.to_string(),
            durable: Pages::default(),
            current: Pages::default(),
            window: VecDeque::new(),
            in_flight: BTreeMap::new(),
            parked: Vec::new(),
            next_order: 0,
            lied_order: 0,
            flips: BTreeMap::new(),
            unreadable: RangeSet::default(),
            damaged: RangeSet::default(),
            condition: Condition::default(),
            one_shots: VecDeque::new(),
            rates: FaultRates::default(),
            atlas: None,
            latency: Latency::default(),
            model: "simulated".to_string(),
            turns: false,
            service: Service::default(),
            rng,
            counts: BTreeMap::new(),
        };
        let name = name.to_string();
        let medium = Rc::new(Medium { core, id, name, write_through, state: RefCell::new(state) });
        medium.core.media.borrow_mut().push(Rc::downgrade(&medium));
        SimMedia { medium }
    }

    pub(crate) fn state(&self) -> Ref<'_, State> {
        self.medium.state.borrow()
    }

    pub(crate) fn state_mut(&self) -> RefMut<'_, State> {
        self.medium.state.borrow_mut()
    }

    /// Drops everything that waits to happen; the bytes stay.
    pub(crate) fn forget_io(&self) {
        let mut state = self.state_mut();
        let parked = std::mem::take(&mut state.parked);
        let one_shots = std::mem::take(&mut state.one_shots);
        drop(state);
        drop((parked, one_shots));
    }

    pub(crate) fn note(&self, kind: &str, values: [u64; 3]) {
        self.medium.core.note(kind, [self.medium.id, values[0], values[1], values[2]]);
    }

    fn count(&self, fault: &'static str, offset_bytes: u64) {
        *self.state_mut().counts.entry(fault).or_default() += 1;
        self.note(fault, [offset_bytes, 0, 0]);
    }

    // ---- what the scenario sees ------------------------------------------------

    /// Its name, also its serial number at first.
    pub fn name(&self) -> &str {
        &self.medium.name
    }

    /// How often each fault really happened.
    pub fn fault_counts(&self) -> BTreeMap<&'static str, u64> {
        self.state().counts.clone()
    }

    /// What a reader without faults would see; neither time nor events pass.
    pub fn peek(&self, offset_bytes: u64, length_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; length_bytes];
        self.state().current.read(offset_bytes, &mut bytes);
        bytes
    }

    /// Changes bytes behind everybody's back, durably: an attacker, a test table.
    pub fn poke(&self, offset_bytes: u64, bytes: &[u8]) {
        let mut state = self.state_mut();
        let bytes = Buf::copy_from_slice(bytes);
        state.durable.write(offset_bytes, &bytes);
        state.current.write(offset_bytes, &bytes);
        drop(state);
        self.count("poke", offset_bytes);
    }

    /// Ranges that do not hold what their writer was told.
    pub fn damaged(&self) -> RangeSet {
        self.state().damaged.clone()
    }

    /// Whether the medium as a whole counts as lost: gone, hung, read-only, blank,
    /// foreign.
    pub fn is_lost(&self) -> bool {
        let condition = self.state().condition;
        condition.gone || condition.hung || condition.read_only || condition.foreign
    }

    /// Whether anything on it may be other than what was written.
    pub fn has_damage(&self) -> bool {
        self.is_untrustworthy() || self.damaged().iter().next().is_some()
    }

    /// Whether its damage has no place: lost, or its flushes lie.
    pub(crate) fn is_untrustworthy(&self) -> bool {
        self.is_lost() || self.state().condition.flush_lies
    }

    /// A sector that was written, drawn evenly over pages.
    pub(crate) fn random_written_sector(&self, rng: &mut Rng) -> Option<u64> {
        let pages: Vec<u64> = self.state().current.page_numbers().collect();
        let page = *pages.get(rng.index(pages.len().max(1)))?;
        Some(page * PAGE_BYTES + rng.below(PAGE_BYTES / SECTOR_BYTES) * SECTOR_BYTES)
    }

    /// Bytes of memory that its pages take, shared ones included.
    pub fn stored_bytes(&self) -> u64 {
        self.state().current.len_bytes()
    }

    /// Sets the service times.
    pub fn set_latency(&self, latency: Latency) {
        self.state_mut().latency = latency;
    }

    /// Sets the model it reports as a drive.
    pub fn set_model(&self, model: &str) {
        self.state_mut().model = model.to_string();
    }

    /// Sets whether it says that it is a disk that turns.
    pub fn set_turns(&self, turns: bool) {
        self.state_mut().turns = turns;
    }

    /// Whether its writes keep it from serving now.
    pub fn is_erasing(&self) -> bool {
        self.state().service.erasing_until_ns > self.medium.core.now_ns()
    }

    /// When an I/O is done that arrives now.
    pub(crate) fn served_at(&self, kind: IoKind, length_bytes: usize) -> u64 {
        let now_ns = self.medium.core.now_ns();
        let state = &mut *self.state_mut();
        let (latency, rates) = (state.latency, state.rates);
        let jitter_ns = state.rng.below(latency.jitter_ns.max(1));
        let stall_ns = rates.draw_stall_ns(&mut state.rng);
        // Who stalls holds up nobody else.
        let stalls = kind == IoKind::Read && state.rng.per_million(latency.read_stall_ppm);
        let read_stall_ns = if stalls { latency.read_stall_ns } else { 0 };
        let (least_ns, written_bytes) = match kind {
            IoKind::Read => (latency.read_ns, 0),
            IoKind::Write => (latency.write_ns, length_bytes as u64),
            IoKind::Flush => (latency.flush_ns, 0),
        };
        let moved_ns = latency.per_page_ns * (length_bytes as u64).div_ceil(4096);
        let service_ns = (least_ns + jitter_ns + moved_ns) * latency.slow_factor + stall_ns;
        state.service.done_at(&latency, now_ns, service_ns, written_bytes) + read_stall_ns
    }

    /// Sets how often drawn faults happen from now on, kept inside `atlas` if given.
    pub fn set_rates(&self, rates: FaultRates, atlas: Option<&Atlas>) {
        let mut state = self.state_mut();
        state.rates = rates;
        state.atlas = atlas.cloned();
    }
}

/// `range` grown to whole sectors.
pub(crate) fn sectors(range: Range<u64>) -> Range<u64> {
    range.start / SECTOR_BYTES * SECTOR_BYTES..range.end.next_multiple_of(SECTOR_BYTES)
}

fn sector_pieces(write: &WindowWrite) -> impl Iterator<Item = (u64, Buf)> {
    (0..write.data.len()).step_by(SECTOR_BYTES as usize).map(|at| {
        let end = (at + SECTOR_BYTES as usize).min(write.data.len());
        (write.offset_bytes + at as u64, write.data.slice(at..end))
    })
}

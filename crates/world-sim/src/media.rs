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

use std::cell::{Ref, RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use base::Buf;
use base::port::MediaFault;

use crate::executor::{Core, Event};
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
        }
    }
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
            rng,
            counts: BTreeMap::new(),
        };
        let name = name.to_string();
        SimMedia { medium: Rc::new(Medium { core, id, name, write_through, state: RefCell::new(state) }) }
    }

    pub(crate) fn state(&self) -> Ref<'_, State> {
        self.medium.state.borrow()
    }

    pub(crate) fn state_mut(&self) -> RefMut<'_, State> {
        self.medium.state.borrow_mut()
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
        state.durable.write(offset_bytes, bytes);
        state.current.write(offset_bytes, bytes);
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

    /// Sets how often drawn faults happen from now on, kept inside `atlas` if given.
    pub fn set_rates(&self, rates: FaultRates, atlas: Option<&Atlas>) {
        let mut state = self.state_mut();
        state.rates = rates;
        state.atlas = atlas.cloned();
    }

    // ---- faults at rest --------------------------------------------------------

    /// Flips the bits of `mask` in the byte at `offset_bytes` until its sector is
    /// rewritten.
    pub fn flip(&self, offset_bytes: u64, mask: u8) {
        let mut state = self.state_mut();
        let flipped = state.flips.entry(offset_bytes).or_insert(0);
        *flipped ^= mask;
        if *flipped == 0 {
            state.flips.remove(&offset_bytes);
        }
        let sector = offset_bytes / SECTOR_BYTES * SECTOR_BYTES;
        state.damaged.insert(sector..sector + SECTOR_BYTES);
        drop(state);
        self.count("flip", offset_bytes);
    }

    /// Makes the sectors of `range` answer with an I/O error until they are rewritten.
    pub fn make_unreadable(&self, range: Range<u64>) {
        let range = sectors(range);
        let mut state = self.state_mut();
        state.unreadable.insert(range.clone());
        state.damaged.insert(range.clone());
        drop(state);
        self.count("unreadable", range.start);
    }

    /// Arms a fault for the next I/O of its kind.
    pub fn arm(&self, fault: OneShot) {
        self.state_mut().one_shots.push_back(fault);
    }

    /// The bytes as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { pages: self.state().current.clone() }
    }

    /// Puts `range` back to what it was at `snapshot`: valid, but old (F03).
    pub fn restore(&self, snapshot: &Snapshot, range: Range<u64>) {
        let mut old = vec![0; SECTOR_BYTES as usize];
        let range = sectors(range);
        let mut state = self.state_mut();
        state.window.clear();
        state.durable = state.current.clone();
        for at in range.clone().step_by(SECTOR_BYTES as usize) {
            snapshot.pages.read(at, &mut old);
            let mut now = vec![0; SECTOR_BYTES as usize];
            state.current.read(at, &mut now);
            if now != old {
                state.durable.write(at, &old);
                state.current.write(at, &old);
                state.damaged.insert(at..at + SECTOR_BYTES);
            }
        }
        drop(state);
        self.count("restore", range.start);
    }

    /// Puts the whole medium back to what it was at `snapshot` (F09, F23).
    pub fn restore_all(&self, snapshot: &Snapshot) {
        let mut state = self.state_mut();
        state.window.clear();
        state.durable = snapshot.pages.clone();
        state.current = snapshot.pages.clone();
        state.condition.foreign = true;
        drop(state);
        self.count("restore-all", 0);
    }

    /// Makes the medium all zeros (F09, F23).
    pub fn blank(&self) {
        let mut state = self.state_mut();
        state.window.clear();
        state.durable.clear();
        state.current.clear();
        state.flips.clear();
        state.unreadable = RangeSet::default();
        state.condition.foreign = true;
        drop(state);
        self.count("blank", 0);
    }

    /// Exchanges the content of two media, as when two drives swap slots (F08). What
    /// they are called stays with the slot.
    pub fn swap_content(&self, other: &SimMedia) {
        let (mut a, mut b) = (self.state_mut(), other.state_mut());
        let (a, b) = (&mut *a, &mut *b);
        std::mem::swap(&mut a.durable, &mut b.durable);
        std::mem::swap(&mut a.current, &mut b.current);
        std::mem::swap(&mut a.window, &mut b.window);
        std::mem::swap(&mut a.flips, &mut b.flips);
        std::mem::swap(&mut a.unreadable, &mut b.unreadable);
        std::mem::swap(&mut a.damaged, &mut b.damaged);
    }

    /// Makes this medium a duplicate of `other` (F08).
    pub fn copy_content(&self, other: &SimMedia) {
        let source = other.snapshot();
        self.restore_all(&source);
    }

    /// Changes the size (F13).
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.state_mut().capacity_bytes = capacity_bytes;
    }

    /// Changes the alignment it demands (F13): 512 or 4,096.
    pub fn set_align(&self, align_bytes: u32) {
        self.state_mut().align_bytes = align_bytes;
    }

    /// Changes the serial number it reports (F13).
    pub fn set_serial(&self, serial: &str) {
        self.state_mut().serial = serial.to_string();
    }

    // ---- states of the whole medium --------------------------------------------

    /// Pulls it (`true`): every I/O answers [`MediaFault::Gone`]. Or pushes it back.
    pub fn set_gone(&self, gone: bool) {
        self.state_mut().condition.gone = gone;
        self.count(if gone { "gone" } else { "back" }, 0);
    }

    /// Makes it refuse writes.
    pub fn set_read_only(&self, read_only: bool) {
        self.state_mut().condition.read_only = read_only;
        self.count(if read_only { "read-only" } else { "writable" }, 0);
    }

    /// Makes flushes lie: acknowledged, nothing made durable (F07).
    pub fn set_flush_lies(&self, lies: bool) {
        self.state_mut().condition.flush_lies = lies;
        self.count(if lies { "flush-lies" } else { "flush-honest" }, 0);
    }

    /// Hangs it: I/O neither fails nor finishes. When lifted, everything that waited
    /// finishes.
    pub fn set_hung(&self, hung: bool) {
        self.state_mut().condition.hung = hung;
        self.count(if hung { "hung" } else { "unhung" }, 0);
        if !hung {
            let parked = std::mem::take(&mut self.state_mut().parked);
            for call in parked {
                self.medium.core.schedule(self.medium.core.now_ns(), Event::Call(call));
            }
        }
    }

    /// Makes everything take `factor` times as long; 1 is healthy (F12).
    pub fn set_slow(&self, factor: u64) {
        self.state_mut().latency.slow_factor = factor.max(1);
        self.count("slow", factor);
    }

    /// Lifts everything that can be lifted without knowing what was lost: states, rates,
    /// armed faults. Damage at rest stays, for scrub to find.
    pub fn heal(&self) {
        self.set_hung(false);
        let mut state = self.state_mut();
        let foreign = state.condition.foreign;
        state.condition = Condition { foreign, ..Condition::default() };
        state.rates = FaultRates::default();
        state.one_shots.clear();
        state.latency.slow_factor = 1;
    }

    /// Says that the layer above has taken a foreign medium in as a new one.
    pub fn accept_foreign(&self) {
        let mut state = self.state_mut();
        state.condition.foreign = false;
        state.damaged = RangeSet::default();
    }

    // ---- crashes ---------------------------------------------------------------

    /// Power fails: of the window and of the writes in flight, each sector ends as
    /// durable or as any later version. Then nothing is in flight.
    pub fn power_cut(&self) {
        let mut state = self.state_mut();
        let state = &mut *state;
        let style = state.rng.below(5);
        let mut candidates: Vec<WindowWrite> = state.window.drain(..).collect();
        candidates.extend(std::mem::take(&mut state.in_flight).into_values());
        let mut kept_sectors = 0;
        for write in &candidates {
            let keep_all = match style {
                0 => Some(true),
                1 => Some(false),
                2 => Some(state.rng.percent(50)),
                _ => None,
            };
            let share = if style == 3 { 50 } else { 90 };
            let promised = write.order > 0 && write.order <= state.lied_order;
            for (at, piece) in sector_pieces(write) {
                if keep_all.unwrap_or_else(|| state.rng.percent(share)) {
                    state.durable.write(at, &piece);
                    kept_sectors += 1;
                } else if promised {
                    state.damaged.insert(at..at + SECTOR_BYTES);
                }
            }
        }
        state.current = state.durable.clone();
        state.parked.clear();
        self.note("power-cut", [candidates.len() as u64, kept_sectors, style]);
    }

    /// The process dies, the machine lives: completed writes stay, each sector of the
    /// writes in flight lands or not. Then nothing is in flight.
    pub fn process_crash(&self) {
        let mut state = self.state_mut();
        let in_flight: Vec<_> = std::mem::take(&mut state.in_flight).into_values().collect();
        let style = state.rng.below(3);
        for write in &in_flight {
            for (at, piece) in sector_pieces(write) {
                let lands = style == 0 || (style == 1 && state.rng.percent(50));
                if lands {
                    let piece = WindowWrite { order: 0, offset_bytes: at, data: piece };
                    state.land(piece, self.medium.write_through);
                }
            }
        }
        state.parked.clear();
        drop(state);
        self.note("process-crash", [in_flight.len() as u64, style, 0]);
    }

    // ---- I/O, called by `drive` ------------------------------------------------

    pub(crate) fn park(&self, call: Box<dyn FnOnce()>) {
        self.state_mut().parked.push(call);
    }

    /// Registers a write as in flight, so that a crash can tear it.
    pub(crate) fn begin_write(&self, id: u64, offset_bytes: u64, data: Buf) {
        let write = WindowWrite { order: 0, offset_bytes, data };
        self.state_mut().in_flight.insert(id, write);
    }

    /// Completes a write, unless a crash settled it before (`None`).
    pub(crate) fn finish_write(&self, id: u64) -> Option<Result<(), MediaFault>> {
        let mut state = self.state_mut();
        let write = state.in_flight.remove(&id)?;
        if state.condition.gone {
            return Some(Err(MediaFault::Gone));
        }
        if state.condition.read_only {
            return Some(Err(MediaFault::ReadOnly));
        }
        let range = write.offset_bytes..write.offset_bytes + write.data.len() as u64;
        if range.end > state.capacity_bytes {
            return Some(Err(MediaFault::Io));
        }
        let Some(fault) = state.write_fault(self.medium.id, &range) else {
            state.land(write, self.medium.write_through);
            return Some(Ok(()));
        };
        drop(state);
        Some(self.land_faulty(write, range, fault))
    }

    fn land_faulty(&self, write: WindowWrite, range: Range<u64>, fault: OneShot) -> Result<(), MediaFault> {
        let through = self.medium.write_through;
        match fault {
            OneShot::MisdirectedWrite(victim, offset_bytes) => {
                self.count("misdirected-write", range.start);
                let length = range.end - range.start;
                victim.state_mut().land(WindowWrite { order: 0, offset_bytes, data: write.data }, through);
                victim.state_mut().damaged.insert(offset_bytes..offset_bytes + length);
                self.state_mut().damaged.insert(range);
                Ok(())
            }
            OneShot::TornWrite(mask) => {
                self.count("torn-write", range.start);
                self.land_some(&write, |sector| mask >> (sector % 64) & 1 == 1);
                self.state_mut().damaged.insert(range);
                Ok(())
            }
            OneShot::FailedWrite => {
                self.count("failed-write", range.start);
                let mask = self.state_mut().rng.next_u64();
                self.land_some(&write, |sector| mask >> (sector % 64) & 1 == 1);
                self.state_mut().damaged.insert(range);
                Err(MediaFault::Io)
            }
            _ => {
                self.count("lost-write", range.start);
                self.state_mut().damaged.insert(range);
                Ok(())
            }
        }
    }

    fn land_some(&self, write: &WindowWrite, keep: impl Fn(usize) -> bool) {
        let mut state = self.state_mut();
        for (sector, (at, data)) in sector_pieces(write).enumerate() {
            if keep(sector) {
                state.land(WindowWrite { order: 0, offset_bytes: at, data }, self.medium.write_through);
            }
        }
    }

    /// Fills `into` as a read at `offset_bytes` would.
    pub(crate) fn finish_read(&self, offset_bytes: u64, into: &mut [u8]) -> Result<(), MediaFault> {
        let mut state = self.state_mut();
        let range = offset_bytes..offset_bytes + into.len() as u64;
        if state.condition.gone {
            return Err(MediaFault::Gone);
        }
        if range.end > state.capacity_bytes {
            return Err(MediaFault::Io);
        }
        let fault = state.read_fault(self.medium.id, &range);
        if matches!(fault, Some(OneShot::FailedRead)) || state.unreadable.overlaps(range.clone()) {
            drop(state);
            self.count("read-error", offset_bytes);
            return Err(MediaFault::Io);
        }
        let from = match fault {
            Some(OneShot::MisdirectedRead(from)) => from,
            _ => offset_bytes,
        };
        state.current.read(from, into);
        for (&at, &mask) in state.flips.range(from..from + into.len() as u64) {
            into[(at - from) as usize] ^= mask;
        }
        if matches!(fault, Some(OneShot::FlipOnRead)) {
            let bit = state.rng.index(into.len() * 8);
            into[bit / 8] ^= 1 << (bit % 8);
            drop(state);
            self.count("flip-on-read", offset_bytes);
        } else if from != offset_bytes {
            drop(state);
            self.count("misdirected-read", offset_bytes);
        }
        Ok(())
    }

    /// Order of the last completed write: a flush that starts now covers up to here.
    pub(crate) fn flush_mark(&self) -> u64 {
        self.state().next_order
    }

    pub(crate) fn finish_flush(&self, mark: u64) -> Result<(), MediaFault> {
        let mut state = self.state_mut();
        if state.condition.gone {
            return Err(MediaFault::Gone);
        }
        if let Some(at) = state.one_shots.iter().position(|fault| matches!(fault, OneShot::FailedFlush)) {
            state.one_shots.remove(at);
            drop(state);
            self.count("failed-flush", 0);
            return Err(MediaFault::Io);
        }
        if state.condition.flush_lies {
            state.lied_order = mark;
        } else {
            state.settle_window(mark);
        }
        Ok(())
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

impl State {
    /// Completes `write` for readers, and durably for a leg; heals what it covers.
    fn land(&mut self, mut write: WindowWrite, write_through: bool) {
        let range = write.offset_bytes..write.offset_bytes + write.data.len() as u64;
        let healed: Vec<u64> = self.flips.range(range.clone()).map(|(&at, _)| at).collect();
        for at in healed {
            self.flips.remove(&at);
        }
        self.unreadable.remove(range.clone());
        self.damaged.remove(range);
        self.current.write(write.offset_bytes, &write.data);
        self.next_order += 1;
        if write_through {
            self.durable.adopt(&self.current, write.offset_bytes, write.data.len());
        } else {
            write.order = self.next_order;
            self.window.push_back(write);
        }
    }

    /// Makes the writes up to order `mark` durable.
    fn settle_window(&mut self, mark: u64) {
        let covered = self.window.iter().take_while(|write| write.order <= mark).count();
        let all = covered == self.window.len();
        for write in self.window.drain(..covered) {
            if all {
                self.durable.adopt(&self.current, write.offset_bytes, write.data.len());
            } else {
                self.durable.write(write.offset_bytes, &write.data);
            }
        }
    }

    fn take_one_shot(&mut self, wanted: fn(&OneShot) -> bool) -> Option<OneShot> {
        let at = self.one_shots.iter().position(wanted)?;
        self.one_shots.remove(at)
    }

    fn write_fault(&mut self, medium: u64, range: &Range<u64>) -> Option<OneShot> {
        let armed = self.take_one_shot(|fault| {
            matches!(
                fault,
                OneShot::LostWrite | OneShot::MisdirectedWrite(..) | OneShot::TornWrite(_) | OneShot::FailedWrite
            )
        });
        if armed.is_some() {
            return armed;
        }
        let fault = self.rates.draw_write(&mut self.rng)?;
        let admitted = self.atlas.as_ref().is_none_or(|atlas| atlas.admits_for(medium, range.clone()));
        admitted.then_some(fault)
    }

    fn read_fault(&mut self, medium: u64, range: &Range<u64>) -> Option<OneShot> {
        let armed = self.take_one_shot(|fault| {
            matches!(fault, OneShot::FailedRead | OneShot::MisdirectedRead(_) | OneShot::FlipOnRead)
        });
        if armed.is_some() {
            return armed;
        }
        let fault = self.rates.draw_read(&mut self.rng, range, self.capacity_bytes)?;
        let admitted = self.atlas.as_ref().is_none_or(|atlas| atlas.admits_for(medium, range.clone()));
        admitted.then_some(fault)
    }
}

//! The driver's memory: the batches being built, on their way and waiting to be stable,
//! and who waits for what. Only `journal.rs` and `pump.rs` use it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use base::port::{Leg, World};
use base::{Buf, Incarnation};
use zerocopy::IntoBytes;

use crate::arena::Arenas;
use crate::batch::{Batch, Records};
use crate::format::{BLOCK_BYTES, LINE_BYTES, LegLabel, RecordHeader, RingId, record_bytes};
use crate::journal::{Appended, Config, Refusal};
use crate::record::{Kind, NewRecord, Record, Sequence};
use crate::ring::{BatchMark, Ring};

pub(crate) struct LegSlot {
    pub(crate) leg: Rc<dyn Leg>,
    pub(crate) incarnation: Incarnation,
    pub(crate) active: bool,
}

/// What opening knows and the driver goes on with.
pub(crate) struct Start {
    pub(crate) ring: Ring,
    pub(crate) label: LegLabel,
    pub(crate) legs: Vec<LegSlot>,
    pub(crate) root: Vec<Incarnation>,
    /// Digest of the last record.
    pub(crate) digest: u64,
    /// What media proves to be stable already.
    pub(crate) proven: Sequence,
    /// Last record that is not a seal.
    pub(crate) last_payload: Sequence,
}

#[derive(Default)]
pub(crate) struct Wakers {
    pub(crate) pump: Option<Waker>,
    pub(crate) taker: Option<Waker>,
    pub(crate) root: Option<Waker>,
    pub(crate) stable: Vec<(Sequence, Waker)>,
    pub(crate) room: VecDeque<(u64, Option<Waker>)>,
    pub(crate) room_ticket: u64,
}

pub(crate) struct State {
    pub(crate) ring: Ring,
    pub(crate) arenas: Arenas,
    /// The batch being filled, as far as it was cut off the arena: up to the last payload
    /// that was not copied.
    pub(crate) open: Batch,
    /// Sealed, not yet on their way.
    pub(crate) sealed: VecDeque<Batch>,
    /// On their way or durable, not yet stable; the first has number `flying_from`.
    pub(crate) flying: VecDeque<Vec<Buf>>,
    pub(crate) pending_bytes: usize,
    pub(crate) legs: Vec<LegSlot>,
    pub(crate) root: Vec<Incarnation>,
    pub(crate) digest: u64,
    pub(crate) opening: u64,
    /// Highest claim that is on media or on its way there.
    pub(crate) claimed: Sequence,
    /// The highest claim that may be made.
    pub(crate) claimable: Sequence,
    pub(crate) last_payload: Sequence,
    pub(crate) latched: bool,
    pub(crate) closed: bool,
    /// While not 0, submitting waits (a leg is being taken in).
    pub(crate) pauses: u32,
    /// While not 0, trims wait in `held_trim`.
    pub(crate) holds: u32,
    pub(crate) held_trim: Sequence,
    pub(crate) taken: VecDeque<Record>,
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) wakers: Wakers,
}

pub(crate) type OnStable = Box<dyn FnMut(Record)>;

pub(crate) struct Shared {
    pub(crate) state: RefCell<State>,
    pub(crate) on_stable: Cell<Option<OnStable>>,
    pub(crate) world: World,
    pub(crate) config: Config,
    /// What the legs' headers say; the incarnation is that of one of them.
    pub(crate) label: LegLabel,
}

pub(crate) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// A place in the queue for room, left when dropped.
pub(crate) struct RoomTurn<'a> {
    shared: &'a Shared,
    pub(crate) ticket: u64,
}

impl<'a> RoomTurn<'a> {
    pub(crate) fn queue(shared: &'a Shared) -> Result<RoomTurn<'a>, Refusal> {
        let mut state = shared.state.borrow_mut();
        if state.wakers.room.len() >= shared.config.waiters_max {
            return Err(Refusal::Full);
        }
        state.wakers.room_ticket += 1;
        let ticket = state.wakers.room_ticket;
        state.wakers.room.push_back((ticket, None));
        Ok(RoomTurn { shared, ticket })
    }

    pub(crate) fn leave_waker(&self, state: &mut State, waker: &Waker) {
        if let Some(place) = state.wakers.room.iter_mut().find(|place| place.0 == self.ticket) {
            place.1 = Some(waker.clone());
        }
    }
}

impl Drop for RoomTurn<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.borrow_mut();
        state.wakers.room.retain(|place| place.0 != self.ticket);
        state.wake_room();
    }
}

impl State {
    pub(crate) fn new(start: Start, world: &World, config: &Config) -> State {
        let mut opening = [0; 8];
        world.chance.fill(&mut opening);
        let arena_bytes = config.batch_bytes_max.max(1 << 20) * 2;
        State {
            claimable: start.proven,
            arenas: Arenas::new(arena_bytes, start.ring.ring_bytes()),
            ring: start.ring,
            open: Batch::default(),
            sealed: VecDeque::new(),
            flying: VecDeque::new(),
            pending_bytes: 0,
            legs: start.legs,
            root: Vec::new(),
            digest: start.digest,
            opening: u64::from_le_bytes(opening),
            claimed: start.proven,
            last_payload: start.last_payload,
            latched: false,
            closed: false,
            pauses: 0,
            holds: 0,
            held_trim: Sequence(0),
            taken: VecDeque::new(),
            batches: 0,
            records: 0,
            wakers: Wakers::default(),
        }
    }

    /// Lets the first in the queue look again.
    pub(crate) fn wake_room(&mut self) {
        if let Some((_, waker)) = self.wakers.room.front_mut() {
            wake(waker);
        }
    }

    pub(crate) fn wake_pump(&mut self) {
        wake(&mut self.wakers.pump);
    }

    /// Does the trim that was asked for, unless a batch is in hand.
    pub(crate) fn trim_held(&mut self) {
        if self.holds == 0 {
            self.ring.trim(self.held_trim);
            self.wake_room();
            self.wake_pump();
        }
    }

    /// Accepts a record whose content is that of `record` and behind it `payload`.
    pub(crate) fn accept(
        &mut self,
        shared: &Shared,
        record: NewRecord<'_>,
        payload: &Buf,
    ) -> Result<Appended, Refusal> {
        let body_bytes = record.body.iter().map(|part| part.len()).sum::<usize>() + payload.len();
        let record_bytes = record_bytes(body_bytes);
        if self.latched {
            return Err(Refusal::Latched);
        }
        if record_bytes > shared.config.batch_bytes_max as u64 {
            return Err(Refusal::TooLong);
        }
        let pending = self.pending_bytes + record_bytes as usize;
        if pending > shared.config.pending_bytes_max && self.pending_bytes > 0 {
            return Err(Refusal::Full);
        }
        if !self.ring.has_room(record_bytes) {
            return Err(Refusal::Full);
        }
        let sequence = self.put(shared, record, payload, record_bytes);
        self.last_payload = sequence;
        if shared.world.chance.maybe("journal: tiny batch") {
            self.seal();
        }
        wake(&mut self.wakers.pump);
        Ok(Appended { sequence })
    }

    /// Copies the record to the end of the open batch, a new one if it does not fit. A large
    /// payload stays where it is if all legs can write it from there.
    fn put(&mut self, shared: &Shared, record: NewRecord<'_>, payload: &Buf, record_bytes: u64) -> Sequence {
        let gathers = payload.len() >= shared.config.gather_bytes
            && self.legs.iter().all(|slot| !slot.active || slot.leg.gathers());
        let built_bytes = record_bytes as usize - if gathers { payload.len() } else { 0 };
        let grown = self.ring.open_bytes() + record_bytes;
        let fits = grown <= shared.config.batch_bytes_max as u64 && self.arenas.has_room(built_bytes);
        if !fits {
            if self.ring.open_bytes() > 0 {
                self.seal();
            }
            if !self.arenas.has_room(built_bytes) {
                self.arenas.renew();
            }
        }
        let placed = self.ring.accept(record_bytes);
        debug_assert_eq!((self.open.len() + self.arenas.batch().len()) as u64, placed.batch_offset_bytes);
        let header = RecordHeader::new(placed.sequence, &record.tag, record.body, payload);
        let batch = self.arenas.batch();
        batch.extend_from_slice(header.as_bytes());
        record.body.iter().for_each(|part| batch.extend_from_slice(part));
        if gathers {
            self.open.build(self.arenas.cut_piece());
            self.open.share(payload.clone());
        } else {
            batch.extend_from_slice(payload);
        }
        let end = placed.batch_offset_bytes + record_bytes;
        let pad = end as usize - self.open.len();
        self.arenas.batch().resize(pad, 0);
        self.pending_bytes += record_bytes as usize;
        self.records += 1;
        placed.sequence
    }

    fn seal(&mut self) {
        self.ring.seal();
        let mut batch = std::mem::take(&mut self.open);
        batch.build(self.arenas.cut(batch.len()));
        self.sealed.push_back(batch);
    }

    /// The next batch to write, if the policy lets one go now.
    pub(crate) fn take_batch(&mut self, shared: &Shared) -> Option<(u64, BatchMark, Vec<Buf>)> {
        if self.latched || self.pauses > 0 {
            return None;
        }
        let in_flight = self.ring.in_flight();
        if self.sealed.is_empty() {
            let open_bytes = self.ring.open_bytes();
            let early = open_bytes >= shared.config.early_bytes as u64;
            if open_bytes == 0 || in_flight > 0 && !early && !shared.world.chance.maybe("journal: early batch") {
                return None;
            }
        }
        if in_flight >= shared.config.in_flight_max {
            return None;
        }
        if self.sealed.is_empty() {
            self.seal();
        }
        let mut batch = self.sealed.pop_front().expect("just sealed");
        let (number, mark) = self.ring.to_submit().expect("sealed batches are marked");
        let previous = self.digest;
        self.close(&mut batch, mark, shared.label.ring);
        self.ring.submitted(previous);
        let batch = batch.freeze();
        self.flying.push_back(batch.clone());
        self.batches += 1;
        Some((number, mark, batch))
    }

    /// Completes the headers of a batch: place, chain, claim.
    fn close(&mut self, batch: &mut Batch, mark: BatchMark, ring_id: RingId) {
        let records = u16::try_from(mark.last.0 - mark.first.0 + 1).expect("a batch has fewer records than lines");
        let blocks = u16::try_from(mark.length_bytes / BLOCK_BYTES).expect("a batch is bounded");
        self.claimed = self.claimable;
        batch.each_header(records, |index, at, header| {
            header.position_bytes.set(mark.position_bytes + at as u64);
            header.previous.set(self.digest);
            header.opening.set(self.opening);
            header.stable_through.set(self.claimed.0);
            header.batch_blocks.set(blocks);
            header.batch_line.set((at as u64 / LINE_BYTES) as u16);
            header.batch_records.set(records);
            header.batch_index.set(index);
            header.close(ring_id);
            self.digest = header.header_check.get();
        });
    }

    /// Whether a seal is due once it has been quiet for a while.
    pub(crate) fn wants_seal(&self) -> bool {
        !self.latched
            && self.ring.in_flight() == 0
            && self.ring.open_bytes() == 0
            && self.sealed.is_empty()
            && self.claimed < self.last_payload.min(self.claimable)
            && self.ring.free_for_seal_bytes() >= BLOCK_BYTES
    }

    /// Appends a seal.
    pub(crate) fn put_seal(&mut self, shared: &Shared) -> Sequence {
        let tag = crate::record::Tag {
            kind: Kind::SEAL,
            stream: 0,
            epoch: base::Epoch(0),
            osn: base::Osn(0),
            scope: crate::record::Scope::default(),
        };
        let sequence = self.put(shared, NewRecord { tag, body: &[] }, &Buf::new(), record_bytes(0));
        wake(&mut self.wakers.pump);
        sequence
    }

    pub(crate) fn set_pump_waker(&mut self, waker: &Waker) {
        match &mut self.wakers.pump {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
    }
}

impl Shared {
    /// A leg finished writing `batch`, or failed to.
    pub(crate) fn completed(&self, leg: usize, batch: u64, result: Result<(), base::port::MediaFault>) {
        let mut state = self.state.borrow_mut();
        let stable = match result {
            Ok(()) => state.ring.completed(leg, batch),
            Err(_) => {
                state.legs[leg].active = false;
                state.latched |= state.legs.iter().all(|slot| !slot.active);
                wake(&mut state.wakers.root);
                state.ring.lost(leg)
            }
        };
        drop(state);
        self.deliver(stable.end - stable.start);
        if result.is_err() {
            self.wake_all();
        }
    }

    /// The oldest `count` flying batches became stable: hand out their records, then
    /// wake who waits for them.
    pub(crate) fn deliver(&self, count: u64) {
        for _ in 0..count {
            let batch = self.state.borrow_mut().flying.pop_front().expect("stable batches were flying");
            self.deliver_batch(batch);
        }
        let mut state = self.state.borrow_mut();
        if state.ring.root_agrees() {
            state.claimable = state.ring.stable_through();
        }
        if count == 0 {
            return;
        }
        let through = state.ring.stable_through();
        let mut woken = Vec::new();
        state.wakers.stable.retain(|(sequence, waker)| {
            let keep = *sequence > through;
            if !keep {
                woken.push(waker.clone());
            }
            keep
        });
        if !state.taken.is_empty() {
            wake(&mut state.wakers.taker);
        }
        wake(&mut state.wakers.pump);
        state.wake_room();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    fn deliver_batch(&self, batch: Vec<Buf>) {
        let mut apply = self.on_stable.take();
        for (record, record_bytes) in Records::of(batch, self.label.ring) {
            self.state.borrow_mut().pending_bytes -= record_bytes;
            if record.tag.kind == Kind::SEAL {
                continue;
            }
            match &mut apply {
                Some(apply) => apply(record),
                None => self.state.borrow_mut().taken.push_back(record),
            }
        }
        if apply.is_some() {
            self.on_stable.set(apply);
        }
    }

    /// A leg is lost, perhaps the last: everyone who waits looks again.
    fn wake_all(&self) {
        let mut state = self.state.borrow_mut();
        let mut woken: Vec<Waker> = state.wakers.stable.drain(..).map(|(_, waker)| waker).collect();
        woken.extend(state.wakers.room.iter_mut().filter_map(|place| place.1.take()));
        woken.extend(state.wakers.taker.take());
        woken.extend(state.wakers.pump.take());
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

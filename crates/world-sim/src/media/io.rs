//! The moment at which an I/O happens.

use std::ops::Range;

use base::Buf;
use base::port::MediaFault;

use super::{OneShot, SimMedia, State, WindowWrite, sector_pieces};

impl SimMedia {
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
        let fault = state.draw_write_fault();
        drop(state);
        match fault {
            Some(fault) if self.budget_admits(&fault, &range) => Some(self.land_faulty(write, range, fault)),
            _ => {
                self.state_mut().land(write, self.medium.write_through);
                Some(Ok(()))
            }
        }
    }

    /// Whether the atlas, if one watches, has room for `fault` at `range`.
    fn budget_admits(&self, fault: &OneShot, range: &Range<u64>) -> bool {
        let Some(atlas) = self.state().atlas.clone() else { return true };
        let mut places = vec![(self.medium.id, range.clone())];
        if let OneShot::MisdirectedWrite(victim, at) = fault {
            places.push((victim.medium.id, *at..*at + (range.end - range.start)));
        }
        atlas.admits_places(&places)
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
        let fault = state.draw_read_fault(&range);
        drop(state);
        let fault = fault.filter(|fault| self.budget_admits(fault, &range));
        let mut state = self.state_mut();
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

impl State {
    /// Completes `write` for readers, and durably for a leg; heals what it covers.
    pub(super) fn land(&mut self, mut write: WindowWrite, write_through: bool) {
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
    pub(super) fn settle_window(&mut self, mark: u64) {
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

    fn draw_write_fault(&mut self) -> Option<OneShot> {
        let armed = self.take_one_shot(|fault| {
            matches!(
                fault,
                OneShot::LostWrite | OneShot::MisdirectedWrite(..) | OneShot::TornWrite(_) | OneShot::FailedWrite
            )
        });
        armed.or_else(|| self.rates.draw_write(&mut self.rng))
    }

    fn draw_read_fault(&mut self, range: &Range<u64>) -> Option<OneShot> {
        let armed = self.take_one_shot(|fault| {
            matches!(fault, OneShot::FailedRead | OneShot::MisdirectedRead(_) | OneShot::FlipOnRead)
        });
        armed.or_else(|| self.rates.draw_read(&mut self.rng, range, self.capacity_bytes))
    }
}

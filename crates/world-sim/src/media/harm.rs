//! Faults at rest and states of the whole medium.

use std::ops::Range;

use base::Buf;

use super::{Condition, OneShot, SECTOR_BYTES, SimMedia, Snapshot, sectors};
use crate::executor::Event;
use crate::fault::FaultRates;
use crate::ranges::RangeSet;

impl SimMedia {
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
                let old = Buf::copy_from_slice(&old);
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

    /// Makes flushes lie: acknowledged, nothing made durable (F07). A drive that turns
    /// honest again keeps what it promised.
    pub fn set_flush_lies(&self, lies: bool) {
        let mut state = self.state_mut();
        state.condition.flush_lies = lies;
        if !lies {
            let promised = state.lied_order;
            state.settle_window(promised);
        }
        drop(state);
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
        self.set_flush_lies(false);
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
}

//! Turns: who of a group's drives may be in its slow phase (R-IO-08). A pure state machine.
//!
//! Some flash drives answer reads late while they take in bulk writes. When all drives of
//! a group do that at the same moment, a late read cannot even be reconstructed from
//! the others. So drives whose profile says so (`write_pattern = "turns"`) write in bulk
//! one after the other: a drive holds the turn while its bulk writes are under way, until
//! it has written what a turn allows or has nothing more to write; then the drive that
//! has waited longest is next (Skourtis et al., Flash on Rails, ATC 2014; Purity keeps
//! the same rule, SIGMETRICS 2015). Two may hold the turn while a rebuild writes.
//!
//! Only throughput principals take turns. Destaging that a client waits for does not, so
//! a store under pressure has the rate of all its drives at once.

use std::collections::VecDeque;

/// A bulk write that wants the turn of its drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// Which drive of the group.
    pub drive: u64,
    /// Bytes to write.
    pub bytes: u64,
    /// Written to rebuild a drive.
    pub rebuild: bool,
}

struct Holder {
    drive: u64,
    in_flight: u32,
    bytes_left: u64,
}

/// See the module's head. `T` is what the caller wants back when its write may go.
pub struct Turns<T> {
    turn_bytes: u64,
    holders: Vec<Holder>,
    waiting: VecDeque<(Bulk, T)>,
    rebuild_writes: u32,
}

impl<T> Turns<T> {
    /// Nobody holds a turn; one lasts for `turn_bytes`.
    pub fn new(turn_bytes: u64) -> Turns<T> {
        Turns { turn_bytes, holders: Vec::new(), waiting: VecDeque::new(), rebuild_writes: 0 }
    }

    /// Turns of another length from the next one on.
    pub fn adjust(&mut self, turn_bytes: u64) {
        self.turn_bytes = turn_bytes;
    }

    /// Drives that may write in bulk now.
    #[cfg(test)]
    pub fn holders(&self) -> usize {
        self.holders.len()
    }

    /// Whether `drive` is among them.
    pub fn is_holder(&self, drive: u64) -> bool {
        self.holders.iter().any(|holder| holder.drive == drive)
    }

    /// Asks for the turn; what may go, this request or others, comes out.
    pub fn ask(&mut self, bulk: Bulk, ticket: T) -> Vec<T> {
        self.rebuild_writes += u32::from(bulk.rebuild);
        self.waiting.push_back((bulk, ticket));
        self.pass_on()
    }

    /// A bulk write that was let go is done, or is not wanted any more.
    pub fn done(&mut self, bulk: Bulk) -> Vec<T> {
        self.rebuild_writes -= u32::from(bulk.rebuild);
        if let Some(holder) = self.holders.iter_mut().find(|holder| holder.drive == bulk.drive) {
            holder.in_flight -= 1;
        }
        self.pass_on()
    }

    /// Takes requests that still wait back; those for which `wanted` says no.
    pub fn cancel(&mut self, mut wanted: impl FnMut(&T) -> bool) {
        let rebuild_writes = &mut self.rebuild_writes;
        self.waiting.retain(|(bulk, ticket)| {
            let keep = wanted(ticket);
            *rebuild_writes -= u32::from(!keep && bulk.rebuild);
            keep
        });
    }

    fn pass_on(&mut self) -> Vec<T> {
        let mut go = Vec::new();
        loop {
            let wants = |drive: u64, waiting: &VecDeque<(Bulk, T)>| waiting.iter().any(|(bulk, _)| bulk.drive == drive);
            let waiting = &self.waiting;
            self.holders
                .retain(|holder| holder.in_flight > 0 || (holder.bytes_left > 0 && wants(holder.drive, waiting)));
            let most = if self.rebuild_writes > 0 { 2 } else { 1 };
            let next = self.waiting.iter().map(|(bulk, _)| bulk.drive).find(|&drive| !self.is_holder(drive));
            if let Some(drive) = next
                && self.holders.len() < most
            {
                self.holders.push(Holder { drive, in_flight: 0, bytes_left: self.turn_bytes.max(1) });
            }
            let before = go.len();
            self.let_go(&mut go);
            if go.len() == before {
                return go;
            }
        }
    }

    /// Lets every waiting write of a holder go that its turn still covers.
    fn let_go(&mut self, go: &mut Vec<T>) {
        let mut rest = VecDeque::with_capacity(self.waiting.len());
        for (bulk, ticket) in self.waiting.drain(..) {
            let holder = self.holders.iter_mut().find(|holder| holder.drive == bulk.drive && holder.bytes_left > 0);
            match holder {
                Some(holder) => {
                    holder.bytes_left = holder.bytes_left.saturating_sub(bulk.bytes);
                    holder.in_flight += 1;
                    go.push(ticket);
                }
                None => rest.push_back((bulk, ticket)),
            }
        }
        self.waiting = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bulk(drive: u64) -> Bulk {
        Bulk { drive, bytes: 100, rebuild: false }
    }

    #[test]
    fn one_drive_at_a_time_for_as_long_as_its_turn_lasts() {
        let mut turns = Turns::new(200);
        assert_eq!(turns.ask(bulk(1), "1a"), ["1a"]);
        assert_eq!(turns.ask(bulk(2), "2a"), [""; 0]);
        assert_eq!(turns.ask(bulk(1), "1b"), ["1b"], "its turn goes on");
        assert_eq!(turns.ask(bulk(1), "1c"), [""; 0], "its turn is used up");
        assert_eq!(turns.done(bulk(1)), [""; 0], "it still writes");
        assert_eq!(turns.done(bulk(1)), ["2a"], "the next in line");
        assert_eq!(turns.done(bulk(2)), ["1c"]);
        assert_eq!(turns.done(bulk(1)), [""; 0]);
        assert_eq!(turns.holders(), 0);
    }

    #[test]
    fn two_while_a_rebuild_writes() {
        let mut turns = Turns::new(1000);
        let rebuild = Bulk { rebuild: true, ..bulk(3) };
        assert_eq!(turns.ask(bulk(1), 1), [1]);
        assert_eq!(turns.ask(rebuild, 3), [3], "beside the one that writes");
        assert_eq!(turns.ask(bulk(2), 2), [0; 0], "but no third");
        assert_eq!(turns.done(rebuild), [0; 0], "one again, and it is taken");
        assert_eq!(turns.done(bulk(1)), [2]);
    }

    proptest! {
        #[test]
        fn never_more_holders_than_allowed_and_nobody_waits_for_ever(
            steps in prop::collection::vec((0u64..6, 1u64..300, 0u8..3, any::<bool>()), 1..200)
        ) {
            let mut turns: Turns<(u32, Bulk)> = Turns::new(500);
            let (mut writing, mut waiting) = (Vec::new(), std::collections::BTreeSet::new());
            let mut number = 0;
            for (drive, bytes, what, rebuild) in steps {
                let bulk = Bulk { drive, bytes, rebuild };
                let go = match what {
                    0 if !writing.is_empty() => {
                        let done: (u32, Bulk) = writing.swap_remove(drive as usize % writing.len());
                        turns.done(done.1)
                    }
                    1 if !waiting.is_empty() => {
                        let gone = *waiting.iter().next().unwrap();
                        waiting.remove(&gone);
                        turns.cancel(|ticket| ticket.0 != gone);
                        Vec::new()
                    }
                    _ => {
                        number += 1;
                        waiting.insert(number);
                        turns.ask(bulk, (number, bulk))
                    }
                };
                for ticket in go {
                    prop_assert!(waiting.remove(&ticket.0));
                    writing.push(ticket);
                }
                prop_assert!(turns.holders() <= 2);
                let drives: std::collections::BTreeSet<u64> = writing.iter().map(|(_, bulk)| bulk.drive).collect();
                prop_assert!(drives.len() <= 2);
            }
            while let Some((_, bulk)) = writing.pop() {
                for ticket in turns.done(bulk) {
                    prop_assert!(waiting.remove(&ticket.0));
                    writing.push(ticket);
                }
            }
            prop_assert!(waiting.is_empty(), "{waiting:?} wait for ever");
        }
    }
}

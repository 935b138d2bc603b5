//! Locks on ranges of files: what may be under way at the same time.
//!
//! Both sites make a write stable in parallel, so two that overlap could end up in different
//! orders; and a read must not return what a failover could still take back. Therefore a
//! request waits for every earlier request that it conflicts with, and for no other
//! (`protocols.md` C.1 step 1). Conflict: the ranges overlap and not both only read.
//!
//! * *Fair.* An earlier request that still waits counts like one that holds. Nobody is
//!   overtaken by whom he conflicts with, so readers cannot starve a writer.
//! * *Free of deadlock.* A request names all its ranges at once and waits only for earlier
//!   ones; the order of tickets has no cycle.
//! * *Deterministic.* Whoever may go on after a release is told in order of tickets.
//! * *Cost.* Ranges of up to [`SHORT_BYTES_MAX`] lie in a tree by start: finding the conflicts
//!   of one costs O(log n) and the ranges that start at most that far before it. Longer
//!   ranges (whole files) lie apart and are looked at one by one: they come with operations
//!   that are one in a thousand. A release costs O(log n) and those it lets go on.

use std::collections::{BTreeMap, BTreeSet};

use base::FileId;

/// Longest range that is found by its place; a write of a client is never longer.
pub const SHORT_BYTES_MAX: u64 = 1 << 20;

/// A request's place in the order of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What a request does with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// Looks, beside others that look.
    Reads,
    /// Changes, alone.
    Writes,
}

/// A range of one file and what is wanted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Want {
    /// The file, or a directory for its names.
    pub file: FileId,
    /// First byte.
    pub from: u64,
    /// The byte after the last.
    pub to: u64,
    /// For what.
    pub usage: Use,
}

impl Want {
    /// All of a file, whatever its size.
    #[must_use]
    pub const fn whole(file: FileId, usage: Use) -> Self {
        Self { file, from: 0, to: u64::MAX, usage }
    }

    fn conflicts(&self, other: &Self) -> bool {
        let overlap = self.file == other.file && self.from < other.to && other.from < self.to;
        overlap && (self.usage == Use::Writes || other.usage == Use::Writes)
    }

    const fn is_long(&self) -> bool {
        self.to - self.from > SHORT_BYTES_MAX
    }
}

/// A range in its tree: by start, then by ticket.
type Place = (u64, Ticket, u64, Use);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Ranges {
    short: BTreeSet<Place>,
    long: BTreeSet<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    wants: Vec<Want>,
    waits_for: usize,
    keeps_waiting: Vec<Ticket>,
}

/// All that hold or wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Locks {
    last: u64,
    files: BTreeMap<FileId, Ranges>,
    requests: BTreeMap<Ticket, Request>,
}

impl Locks {
    /// Asks for all of `wants` at once; whether they are held already. `from <= to` each.
    pub fn ask(&mut self, wants: Vec<Want>) -> (Ticket, bool) {
        self.last += 1;
        let ticket = Ticket(self.last);
        let earlier: BTreeSet<Ticket> = wants.iter().flat_map(|want| self.conflicting(want)).collect();
        for other in &earlier {
            if let Some(request) = self.requests.get_mut(other) {
                request.keeps_waiting.push(ticket);
            }
        }
        for want in &wants {
            let ranges = self.files.entry(want.file).or_default();
            ranges.of(want).insert((want.from, ticket, want.to, want.usage));
        }
        let waits_for = earlier.len();
        self.requests.insert(ticket, Request { wants, waits_for, keeps_waiting: Vec::new() });
        (ticket, waits_for == 0)
    }

    /// Gives up all of a request, held or waited for; who holds theirs from now on, in order.
    pub fn release(&mut self, ticket: Ticket) -> Vec<Ticket> {
        let Some(gone) = self.requests.remove(&ticket) else { return Vec::new() };
        for want in &gone.wants {
            let Some(ranges) = self.files.get_mut(&want.file) else { continue };
            ranges.of(want).remove(&(want.from, ticket, want.to, want.usage));
            if ranges.short.is_empty() && ranges.long.is_empty() {
                self.files.remove(&want.file);
            }
        }
        let mut granted = Vec::new();
        for other in gone.keeps_waiting {
            let Some(request) = self.requests.get_mut(&other) else { continue };
            request.waits_for -= 1;
            if request.waits_for == 0 {
                granted.push(other);
            }
        }
        granted
    }

    /// Those that a new request for `want` would have to wait for.
    fn conflicting(&self, want: &Want) -> Vec<Ticket> {
        let Some(ranges) = self.files.get(&want.file) else { return Vec::new() };
        let near = (want.from.saturating_sub(SHORT_BYTES_MAX), Ticket(0), 0, Use::Reads);
        let short = ranges.short.range(near..).take_while(|(from, ..)| *from < want.to);
        let clashes = |(from, _, to, usage): &&Place| {
            want.conflicts(&Want { file: want.file, from: *from, to: *to, usage: *usage })
        };
        short.chain(&ranges.long).filter(clashes).map(|(_, ticket, ..)| *ticket).collect()
    }
}

impl Ranges {
    fn of(&mut self, want: &Want) -> &mut BTreeSet<Place> {
        if want.is_long() { &mut self.long } else { &mut self.short }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: FileId = FileId(1);

    fn want(from: u64, to: u64, usage: Use) -> Want {
        Want { file: FILE, from, to, usage }
    }

    #[test]
    fn a_reader_does_not_overtake_a_writer_that_waits() {
        let mut locks = Locks::default();
        let (first, held) = locks.ask(vec![want(0, 8, Use::Reads)]);
        assert!(held);
        let (writer, held) = locks.ask(vec![want(4, 12, Use::Writes)]);
        assert!(!held);
        let (late, held) = locks.ask(vec![want(0, 8, Use::Reads)]);
        assert!(!held, "it would starve the writer");
        let (beside, held) = locks.ask(vec![want(12, 20, Use::Writes)]);
        assert!(held, "it touches nobody");
        assert_eq!(locks.release(first), [writer]);
        assert_eq!(locks.release(writer), [late]);
        assert_eq!((locks.release(late), locks.release(beside)), (vec![], vec![]));
        assert_eq!(locks, Locks { last: 4, ..Locks::default() }, "nothing is left behind");
    }

    #[test]
    fn a_request_for_several_files_holds_all_or_none() {
        let mut locks = Locks::default();
        let other = Want::whole(FileId(2), Use::Writes);
        let (write, _) = locks.ask(vec![want(0, 8, Use::Writes)]);
        let (rename, held) = locks.ask(vec![Want::whole(FILE, Use::Writes), other]);
        assert!(!held);
        let (second, held) = locks.ask(vec![other]);
        assert!(!held, "an earlier request wants it");
        assert_eq!(locks.release(rename), [second], "who gives up while waiting lets others pass");
        assert!(locks.release(write).is_empty());
    }

    /// The same said plainly: a list of requests, each compared with each.
    #[derive(Default)]
    struct Plain(Vec<(Ticket, Vec<Want>)>);

    impl Plain {
        fn holds(&self, at: usize) -> bool {
            let (earlier, mine) = (&self.0[..at], &self.0[at].1);
            !earlier.iter().any(|(_, theirs)| theirs.iter().any(|one| mine.iter().any(|want| want.conflicts(one))))
        }

        fn holding(&self) -> BTreeSet<Ticket> {
            (0..self.0.len()).filter(|at| self.holds(*at)).map(|at| self.0[at].0).collect()
        }
    }

    fn any_want() -> impl Strategy<Value = Want> {
        let length = prop_oneof![4 => 0..100u64, 1 => Just(SHORT_BYTES_MAX), 1 => Just(SHORT_BYTES_MAX + 1)];
        (1..3u64, 0..200u64, length, any::<bool>()).prop_map(|(file, from, length, writes)| {
            let usage = if writes { Use::Writes } else { Use::Reads };
            Want { file: FileId(file), from, to: from + length, usage }
        })
    }

    proptest! {
        #[test]
        fn exactly_those_hold_that_no_earlier_request_is_in_the_way_of(
            steps in proptest::collection::vec((proptest::collection::vec(any_want(), 1..3), any::<u16>(), any::<bool>()), 1..60)
        ) {
            let (mut locks, mut plain) = (Locks::default(), Plain::default());
            for (wants, pick, releases) in steps {
                let before = plain.holding();
                if releases && !plain.0.is_empty() {
                    let (gone, _) = plain.0.remove(usize::from(pick) % plain.0.len());
                    let granted: Vec<Ticket> = plain.holding().difference(&before).copied().collect();
                    prop_assert_eq!(locks.release(gone), granted);
                } else {
                    let (ticket, held) = locks.ask(wants.clone());
                    plain.0.push((ticket, wants));
                    prop_assert_eq!(held, plain.holding().contains(&ticket));
                }
                for at in 0..plain.0.len() {
                    let holds = locks.requests[&plain.0[at].0].waits_for == 0;
                    prop_assert_eq!(holds, plain.holds(at));
                }
            }
        }
    }
}

//! Disk Paxos, the part that decides: ballots, rounds, and which value goes on. The drives of
//! the group are the acceptors, controllers the proposers (Gafni and Lamport, "Disk Paxos",
//! 2003; `protocols.md` C.6; R-RAID-07). No drive is touched here: `proposal.rs` does that.
//!
//! ```text
//!  on each drive       seat 0                        seat 1
//!  promise             highest ballot it took part   (same)           4 KiB, two copies in turn
//!  vote, by register   (ballot, version, value)      (same)           two slots in turn
//! ```
//!
//! Only the controller of a seat writes the blocks of the seat, so nobody's write can destroy
//! what another one wrote. A drive does nothing but keep and give back blocks; who proposes
//! does all the thinking, by one rule: *write your block on a drive, then read the others'
//! blocks on it; the drive is clear if no higher ballot stands there*.
//!
//! * Phase 1, once in an ownership: the promise is written; with a majority of clear drives
//!   the newest vote on these drives goes on ([`Prepare`]).
//! * Phase 2, once for each value: the vote is written; with a majority of clear drives it is
//!   chosen ([`Round`]). The owner keeps its ballot, so a value in the ordinary case is one
//!   write and one flush on each drive; the promises are read while the flush is under way.
//!
//! Why that is enough: let an owner of ballot a choose a value with the clear majority A, and
//! another prepare a ballot b > a with the clear majority B. Some drive is in both. The owner
//! found no b there, so it read before b was written, and had written its vote before that; the
//! other one read after it wrote b. So it sees the vote. Whatever it writes from then on carries
//! b and goes on from that vote, and votes are ordered by (ballot, version). A drive with a
//! higher ballot on it is merely not clear: a proposer that only tried deposes nobody.
//!
//! *Members.* The acceptors are the voting members of the newest header (register 0), which is
//! a value like any other. A header that takes one member in or puts one out is chosen by a
//! majority of the members it leaves. Majorities of sets that differ by one member share a
//! member of both, so the argument holds from one header to the next. Who prepares and finds a
//! header with other members prepares anew with these ([`Prepared::Again`]).
//!
//! *Contention.* Two proposers can depose each other for ever. Nobody here tries again: the
//! caller is told ([`Prepared::Lost`]) and waits, on its own clock, before it does.

use std::collections::{BTreeMap, BTreeSet};

use crate::register::Stamp;

/// One of the two controllers that may own a group. Whoever takes a seat has made sure that
/// no process that held it before still writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seat {
    /// The first controller, and the only one of a store with one.
    #[default]
    First,
    /// The second.
    Second,
}

impl Seat {
    /// Both.
    pub const ALL: [Seat; 2] = [Seat::First, Seat::Second];

    /// Its number, 0 or 1.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The lowest ballot above `highest` that nobody else uses: odd ones are the first
    /// seat's, even ones the second's.
    pub fn ballot_above(self, highest: u64) -> u64 {
        let mine = 1 - self.index() as u64;
        highest + if (highest + 1) % 2 == mine { 1 } else { 2 }
    }
}

/// A register's value as one seat left it on one drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vote<V> {
    /// Ballot and version.
    pub stamp: Stamp,
    /// The value.
    pub value: V,
}

/// How a round stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A majority of the acceptors is clear.
    Won,
    /// Not so, and another proposer has this higher ballot.
    Lost {
        /// The highest ballot seen.
        to: u64,
    },
    /// Too few have answered.
    Open,
}

/// One phase with one ballot: who has been written and was clear when it was read after that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round<A> {
    ballot: u64,
    acceptors: BTreeSet<A>,
    clear: BTreeSet<A>,
    highest: u64,
}

impl<A: Copy + Ord> Round<A> {
    /// Nobody has answered yet.
    pub fn new(ballot: u64, acceptors: impl IntoIterator<Item = A>) -> Round<A> {
        Round { ballot, acceptors: acceptors.into_iter().collect(), clear: BTreeSet::new(), highest: ballot }
    }

    /// `acceptor` holds the block durably, and `highest` is the highest ballot that was read
    /// from it after it was written. True if it is clear.
    pub fn heard(&mut self, acceptor: A, highest: u64) -> bool {
        self.highest = self.highest.max(highest);
        let is_clear = highest <= self.ballot && self.acceptors.contains(&acceptor);
        is_clear && {
            self.clear.insert(acceptor);
            true
        }
    }

    /// How it stands.
    pub fn verdict(&self) -> Verdict {
        if self.clear.len() > self.acceptors.len() / 2 {
            Verdict::Won
        } else if self.highest > self.ballot {
            Verdict::Lost { to: self.highest }
        } else {
            Verdict::Open
        }
    }

    /// Its ballot.
    pub fn ballot(&self) -> u64 {
        self.ballot
    }
}

/// What comes of phase 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared<V> {
    /// The ballot is the proposer's own. These are the votes that go on, by register: each has
    /// to be chosen under the new ballot before anything else is said about it.
    Ready(Vec<Option<Vote<V>>>),
    /// The newest header, this one, names other members: prepare with these.
    Again(Vote<V>),
    /// Another proposer has this higher ballot. Wait before you try again.
    Lost {
        /// The highest ballot seen.
        to: u64,
    },
    /// Too few drives answered.
    Open,
}

/// Phase 1: a ballot and what the clear drives hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prepare<A, V> {
    round: Round<A>,
    held: BTreeMap<A, Vec<Option<Vote<V>>>>,
}

impl<A: Copy + Ord, V: Clone> Prepare<A, V> {
    /// Nobody has answered yet.
    pub fn new(ballot: u64, acceptors: impl IntoIterator<Item = A>) -> Prepare<A, V> {
        Prepare { round: Round::new(ballot, acceptors), held: BTreeMap::new() }
    }

    /// `acceptor` holds the promise durably; after that the highest ballot on it was `highest`,
    /// and these were its newest votes by register, of whatever seat.
    pub fn heard(&mut self, acceptor: A, highest: u64, votes: Vec<Option<Vote<V>>>) {
        if self.round.heard(acceptor, highest) {
            self.held.insert(acceptor, votes);
        }
    }

    /// What comes of it. `members` tells the voting members of a header.
    pub fn outcome(&self, members: impl Fn(&V) -> Option<BTreeSet<A>>) -> Prepared<V> {
        match self.round.verdict() {
            Verdict::Lost { to } => return Prepared::Lost { to },
            Verdict::Open => return Prepared::Open,
            Verdict::Won => {}
        }
        let registers = self.held.values().map(Vec::len).max().unwrap_or(0);
        let newest: Vec<_> = (0..registers).map(|register| self.newest(register)).collect();
        let header = newest.first().and_then(Option::as_ref);
        match header.map(|header| (header, members(&header.value))) {
            Some((header, Some(acceptors))) if acceptors != self.round.acceptors => Prepared::Again(header.clone()),
            _ => Prepared::Ready(newest),
        }
    }

    fn newest(&self, register: usize) -> Option<Vote<V>> {
        let votes = self.held.values().filter_map(|votes| votes.get(register)?.as_ref());
        votes.max_by_key(|vote| vote.stamp).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballots_rise_and_no_two_seats_share_one() {
        assert_eq!([0, 1, 2, 3].map(|highest| Seat::First.ballot_above(highest)), [1, 3, 3, 5]);
        assert_eq!([0, 1, 2, 3].map(|highest| Seat::Second.ballot_above(highest)), [2, 2, 4, 4]);
    }

    #[test]
    fn a_majority_of_clear_acceptors_wins_and_strangers_do_not_count() {
        let mut round = Round::new(5, [0, 1, 2, 3]);
        assert!(round.heard(0, 5) && round.heard(1, 3) && !round.heard(9, 0));
        assert_eq!(round.verdict(), Verdict::Open, "two of four");
        assert!(!round.heard(2, 6));
        assert_eq!(round.verdict(), Verdict::Lost { to: 6 });
        assert!(round.heard(3, 5));
        assert_eq!(round.verdict(), Verdict::Won, "one that only tried deposes nobody");
    }

    #[test]
    fn the_newest_vote_goes_on_and_new_members_are_asked() {
        let vote = |session, version, value: u8| Some(Vote { stamp: Stamp { session, version }, value });
        let mut prepare = Prepare::new(9, [0, 1, 2]);
        prepare.heard(0, 9, vec![vote(3, 1, 1), vote(3, 8, 10)]);
        prepare.heard(1, 11, vec![vote(11, 9, 2), vote(11, 9, 11)]);
        prepare.heard(2, 9, vec![vote(3, 1, 1), vote(4, 7, 12)]);
        let same = |_: &u8| Some(BTreeSet::from([0, 1, 2]));
        let Prepared::Ready(votes) = prepare.outcome(same) else { panic!("a majority is clear") };
        assert_eq!(votes, [vote(3, 1, 1), vote(4, 7, 12)], "by ballot first; of clear drives only");
        let other = BTreeSet::from([0, 2]);
        assert_eq!(prepare.outcome(|_| Some(other.clone())), Prepared::Again(vote(3, 1, 1).unwrap()));
    }
}

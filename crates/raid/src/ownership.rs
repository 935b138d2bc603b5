//! Who owns the group: a record in the register `owner`, with an epoch that rises with each
//! owner and a lease that the owner renews (`design.md` section 6).
//!
//! Safety does not hang on it. Whoever opens the group takes its ballot, and from then on no
//! former owner decides anything (`paxos.rs`), however its clock goes. The record is there so
//! that one who wants to take the group knows whether somebody still works in it, and so that
//! an owner that is cut off from the drives knows when to stop by itself: *before* another one
//! may have started.
//!
//! * The owner counts its lease from before the renewal was written ([`Lease`]).
//! * The taker looks at the record, which changes with each renewal, and takes the group when
//!   it has stayed the same for the whole lease on the taker's own clock ([`Watch`]). No clock
//!   is compared with another one.

use std::rc::Rc;
use std::time::Duration;

use base::id::GroupId;
use base::port::{Drive, World};
use base::time::Nanos;

use crate::assemble::OpenRefused;
use crate::decide::{CasRefused, Versioned};
use crate::fields::{Reader, Writer};
use crate::group::Group;

/// Name of the register that holds the record.
const OWNER_REGISTER: &str = "owner";
const FORMAT: u16 = 1;

/// A controller, for as long as its process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControllerId(pub [u8; 16]);

/// The record of who owns the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Raised by one with each owner.
    pub epoch: u64,
    /// The owner.
    pub controller: ControllerId,
    /// How long it works without a renewal. Zero: it does not renew, and nobody takes the
    /// group by waiting.
    pub lease: Duration,
    /// Raised by one with each renewal.
    pub renewals: u64,
}

impl Ownership {
    /// The record as a register value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(FORMAT);
        out.u64(self.epoch);
        out.raw(&self.controller.0);
        out.u64(u64::try_from(self.lease.as_nanos()).unwrap_or(u64::MAX));
        out.u64(self.renewals);
        out.bytes
    }

    /// Reads a record. Never panics, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Option<Ownership> {
        let mut input = Reader::new(bytes);
        let known = input.u16()? == FORMAT;
        let (epoch, controller) = (input.u64()?, ControllerId(input.array()?));
        let (lease, renewals) = (Duration::from_nanos(input.u64()?), input.u64()?);
        known.then_some(Ownership { epoch, controller, lease, renewals })
    }
}

/// The owner's side of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// When the last renewal that succeeded was begun.
    pub since: Nanos,
    /// How long it lasts.
    pub length: Duration,
}

impl Lease {
    /// Whether the owner may still work: from the end on, another one may have taken over.
    pub fn is_held(&self, now: Nanos) -> bool {
        self.length.is_zero() || now.since(self.since) < self.length
    }
}

/// The side of one who wants to take the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    seen: Option<(Ownership, Nanos)>,
}

impl Watch {
    /// The record is `seen` at `now`: whether its owner has let its lease end.
    pub fn may_take(&mut self, seen: Ownership, now: Nanos) -> bool {
        match self.seen {
            Some((before, since)) if before == seen => !seen.lease.is_zero() && now.since(since) >= seen.lease,
            _ => {
                self.seen = Some((seen, now));
                false
            }
        }
    }
}

impl Group {
    /// Enters `controller` as the owner, with the next epoch. The group is open, so nobody else
    /// decides anything any more.
    pub async fn own(&self, controller: ControllerId, lease: Duration) -> Result<Ownership, CasRefused> {
        let found = self.register_read(OWNER_REGISTER).await;
        let epoch = Ownership::decode(&found.bytes).map_or(0, |before| before.epoch) + 1;
        self.enter(&found, Ownership { epoch, controller, lease, renewals: 0 }).await
    }

    /// Says that the owner of `epoch` still works. [`CasRefused::Fenced`] if it is not the
    /// owner any more.
    pub async fn renew_ownership(&self, epoch: u64) -> Result<Ownership, CasRefused> {
        let found = self.register_read(OWNER_REGISTER).await;
        match Ownership::decode(&found.bytes) {
            Some(own) if own.epoch == epoch => {
                self.enter(&found, Ownership { renewals: own.renewals + 1, ..own }).await
            }
            _ => Err(CasRefused::Fenced),
        }
    }

    async fn enter(&self, found: &Versioned, own: Ownership) -> Result<Ownership, CasRefused> {
        self.register_cas(OWNER_REGISTER, found.version, &own.encode()).await.map(|_| own)
    }

    /// The owner as the group was opened or as it was entered since.
    pub async fn ownership(&self) -> Option<Ownership> {
        Ownership::decode(&self.register_read(OWNER_REGISTER).await.bytes)
    }

    /// The epoch of the owner.
    pub fn owner_epoch(&self) -> Option<u64> {
        let index = self.register_index(OWNER_REGISTER)?;
        let values = self.inner.decided.values.borrow();
        Ownership::decode(&values.get(index)?.bytes).map(|own| own.epoch)
    }

    /// The owner of the group found on `drives`, for one who does not own it: reads, and writes
    /// nothing. What is seen may not be decided yet; that is enough to see life.
    pub async fn look_at_owner(
        drives: Vec<Rc<dyn Drive>>,
        wanted: Option<GroupId>,
        world: World,
    ) -> Result<Option<Ownership>, OpenRefused> {
        let found = Group::look_at(OWNER_REGISTER, drives, wanted, world).await?;
        Ok(found.and_then(|bytes| Ownership::decode(&bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ownership =
        Ownership { epoch: 3, controller: ControllerId([7; 16]), lease: Duration::from_secs(5), renewals: 9 };

    #[test]
    fn the_record_is_read_back_and_a_cut_one_is_none() {
        let bytes = OWN.encode();
        assert_eq!(Ownership::decode(&bytes), Some(OWN));
        assert!((0..bytes.len()).all(|cut| Ownership::decode(&bytes[..cut]).is_none()));
        let mut newer = bytes;
        newer[0] = 2;
        assert_eq!(Ownership::decode(&newer), None, "a newer format");
    }

    /// However the looks of the taker fall, it takes the group only after the owner stopped.
    #[test]
    fn the_owner_stops_before_another_may_start() {
        let second = |seconds: u64| Nanos(seconds * 1_000_000_000);
        for first_look in 0..20 {
            for every in 1..7 {
                // The owner renews at 0, 2, 4 and 6; the record is changed a second later.
                let renewals_at = |now: u64| [1, 3, 5, 7].iter().filter(|at| **at <= now).count() as u64;
                let lease = Lease { since: second(6), length: OWN.lease };
                let mut watch = Watch::default();
                let looks = (0..).map(|look| first_look + look * every);
                let seen = |now: &u64| Ownership { renewals: renewals_at(*now), ..OWN };
                let taken = looks.take(60).find(|now| watch.may_take(seen(now), second(*now)));
                assert!(!lease.is_held(second(taken.unwrap())), "taken at {taken:?}");
            }
        }
        let mut watch = Watch::default();
        let for_ever = Ownership { lease: Duration::ZERO, ..OWN };
        assert!((0..99).all(|now| !watch.may_take(for_ever, second(now))));
        assert!(Lease { since: second(0), length: Duration::ZERO }.is_held(second(99)));
    }
}

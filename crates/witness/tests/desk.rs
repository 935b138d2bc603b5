//! The witness at work on a ledger, and the record's bytes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base::{Epoch, Nanos, Osn, PairId, SiteId, WallNanos};
use proptest::prelude::*;
use witness::lease::{Grant, Tenure, held};
use witness::{
    Ask, AskKind, Lease, Ledger, LedgerFault, MemoryLedger, Refusal, Standing, Transition, TransitionKind, Verdict,
    Witness,
};

const PAIR: PairId = PairId([7; 16]);
const A: SiteId = SiteId([1; 16]);
const B: SiteId = SiteId([2; 16]);
const LEASE_MS: u32 = 6_000;

/// Nothing here waits for anything.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn at(ms: u64) -> Nanos {
    Nanos(ms * 1_000_000)
}

struct Desk<L> {
    witness: Witness<L>,
}

impl<L: Ledger> Desk<L> {
    fn open(ledger: L, ms: u64) -> Self {
        Self { witness: now_or_never(Witness::open(ledger, at(ms))).unwrap() }
    }

    fn ask(&self, ms: u64, from: SiteId, seen_version: u64, kind: AskKind) -> Verdict {
        let ask = Ask { pair: PAIR, from, seen_version, kind };
        now_or_never(self.witness.answer(&ask, at(ms), WallNanos(ms))).unwrap()
    }

    /// A and B in sync at version 3, A primary, its lease from `ms` on.
    fn pair(&self, ms: u64) {
        self.ask(ms, A, 0, AskKind::Found { lease_ms: LEASE_MS });
        self.ask(ms, A, 1, AskKind::Join { secondary: B });
        let verdict = self.ask(ms, A, 2, AskKind::InSync);
        assert!(verdict.standing.unwrap().in_sync);
    }
}

/// Shares its records with whoever opens it next, as a disk does.
#[derive(Clone, Default)]
struct Disk {
    ledger: std::rc::Rc<MemoryLedger>,
    full: std::rc::Rc<std::cell::Cell<bool>>,
    /// What is written stays, and neither that nor anything else is told.
    dumb: std::rc::Rc<std::cell::Cell<bool>>,
}

impl Ledger for Disk {
    async fn load(&self) -> Result<Vec<Standing>, LedgerFault> {
        if self.dumb.get() {
            return Err(LedgerFault::Unreachable("it says nothing".into()));
        }
        self.ledger.load().await
    }

    async fn replace(&self, before: u64, next: &Standing) -> Result<bool, LedgerFault> {
        if self.full.get() {
            return Err(LedgerFault::Unreachable("no space left".into()));
        }
        let kept = self.ledger.replace(before, next).await;
        if self.dumb.get() { Err(LedgerFault::Unreachable("it says nothing".into())) } else { kept }
    }
}

const TAKE_OVER: AskKind = AskKind::TakeOver { in_sync_through: Osn(5) };
const GO_ALONE: AskKind = AskKind::GoAlone { in_sync_through: Osn(5) };

#[test]
fn a_takeover_waits_for_the_lease_and_then_wins() {
    let desk = Desk::open(MemoryLedger::default(), 0);
    desk.pair(1_000);
    let early = desk.ask(6_999, B, 3, TAKE_OVER);
    assert_eq!(early.outcome, Err(Refusal::LeaseRuns(Duration::from_millis(1))));
    let won = desk.ask(7_000, B, 3, TAKE_OVER);
    assert_eq!(won.outcome, Ok(Lease::Runs));
    let standing = won.standing.unwrap();
    assert_eq!((standing.primary, standing.secondary, standing.epoch), (B, Some(A), Epoch(2)));
    assert!(!standing.in_sync);
    assert_eq!(desk.ask(7_001, A, 3, AskKind::Renew { epoch: Epoch(1) }).outcome, Err(Refusal::NotPrimary));
    assert_eq!(desk.ask(7_001, A, 3, GO_ALONE).outcome, Err(Refusal::Stale));
}

#[test]
fn who_goes_alone_first_cannot_be_taken_over_from() {
    let desk = Desk::open(MemoryLedger::default(), 0);
    desk.pair(0);
    assert_eq!(desk.ask(1, A, 3, GO_ALONE).outcome, Ok(Lease::Runs));
    assert_eq!(desk.ask(60_000, B, 3, TAKE_OVER).outcome, Err(Refusal::Stale));
    assert_eq!(desk.ask(60_000, B, 4, TAKE_OVER).outcome, Err(Refusal::NotInSync));
    let forced = desk.ask(60_000, B, 4, AskKind::Force { primary_is_off: false });
    assert_eq!(forced.standing.unwrap().last.kind, TransitionKind::Force);
}

#[test]
fn a_late_in_sync_does_not_land_on_a_later_record() {
    let desk = Desk::open(MemoryLedger::default(), 0);
    desk.pair(0);
    desk.ask(1, A, 3, GO_ALONE);
    // in sync is asked on version 4 and delayed; the primary gives it up
    assert_eq!(desk.ask(2, A, 4, GO_ALONE).standing.unwrap().version, 5);
    assert_eq!(desk.ask(3, A, 4, AskKind::InSync).outcome, Err(Refusal::Stale));
    assert_eq!(desk.witness.standing(PAIR).unwrap().in_sync_through, Osn(5));
}

#[test]
fn a_restarted_witness_believes_no_lease_to_be_over() {
    let disk = Disk::default();
    Desk::open(disk.clone(), 0).pair(0);
    let again = Desk::open(disk, 50_000);
    let early = again.ask(55_999, B, 3, TAKE_OVER);
    assert_eq!(early.outcome, Err(Refusal::LeaseRuns(Duration::from_millis(1))));
    assert_eq!(again.ask(56_000, B, 3, TAKE_OVER).outcome, Ok(Lease::Runs));
}

#[test]
fn what_is_not_durable_is_not_answered() {
    let disk = Disk::default();
    let desk = Desk::open(disk.clone(), 0);
    desk.pair(0);
    disk.full.set(true);
    let ask = Ask { pair: PAIR, from: A, seen_version: 3, kind: GO_ALONE };
    assert!(now_or_never(desk.witness.answer(&ask, at(1), WallNanos(1))).is_err());
    assert!(desk.witness.standing(PAIR).unwrap().in_sync);
    // a renewal needs no write
    assert_eq!(desk.ask(2, A, 3, AskKind::Renew { epoch: Epoch(1) }).outcome, Ok(Lease::Runs));
}

/// A takeover was written and nobody was told: from then on the old primary's lease is not renewed,
/// or both sites would hold one when the record is read again.
#[test]
fn a_takeover_in_doubt_ends_the_renewals_of_the_old_primary() {
    let disk = Disk::default();
    let desk = Desk::open(disk.clone(), 0);
    desk.pair(0);
    let put = |ms, from, seen_version, kind| {
        let ask = Ask { pair: PAIR, from, seen_version, kind };
        now_or_never(desk.witness.answer(&ask, at(ms), WallNanos(ms)))
    };
    disk.dumb.set(true);
    assert!(put(6_000, B, 3, TAKE_OVER).is_err());
    assert!(put(6_001, A, 3, AskKind::Renew { epoch: Epoch(1) }).is_err(), "in doubt");
    disk.dumb.set(false);
    let renewed = put(6_002, A, 3, AskKind::Renew { epoch: Epoch(1) }).unwrap();
    assert_eq!((renewed.outcome, renewed.standing.unwrap().primary), (Err(Refusal::NotPrimary), B));
    assert_eq!(desk.ask(6_003, B, 3, AskKind::Renew { epoch: Epoch(2) }).outcome, Ok(Lease::Runs));
}

/// Whoever is primary either way goes on: nobody takes over from it by that change.
#[test]
fn a_change_in_doubt_that_keeps_the_primary_keeps_its_lease() {
    let disk = Disk::default();
    let desk = Desk::open(disk.clone(), 0);
    desk.pair(0);
    disk.dumb.set(true);
    let put = |from, kind| {
        let ask = Ask { pair: PAIR, from, seen_version: 3, kind };
        now_or_never(desk.witness.answer(&ask, at(1), WallNanos(1)))
    };
    assert!(put(A, GO_ALONE).is_err());
    assert_eq!(put(A, AskKind::Renew { epoch: Epoch(1) }).unwrap().outcome, Ok(Lease::Runs));
    assert!(put(A, GO_ALONE).is_err() && put(B, AskKind::Look).is_err(), "nothing else is answered");
}

/// The connection that asked is gone while its change is being written.
#[test]
fn a_change_that_nobody_waits_for_is_read_again() {
    #[derive(Clone, Default)]
    struct Slow(Disk);
    impl Ledger for Slow {
        async fn load(&self) -> Result<Vec<Standing>, LedgerFault> {
            self.0.load().await
        }
        async fn replace(&self, before: u64, next: &Standing) -> Result<bool, LedgerFault> {
            let kept = self.0.replace(before, next).await;
            if self.0.full.get() { std::future::pending().await } else { kept }
        }
    }
    let disk = Disk::default();
    Desk::open(disk.clone(), 0).pair(0);
    let desk = Desk::open(Slow(disk.clone()), 0);
    let ask = Ask { pair: PAIR, from: A, seen_version: 3, kind: GO_ALONE };
    now_or_never(
        disk.ledger.replace(3, &Standing { version: 4, in_sync: false, ..desk.witness.standing(PAIR).unwrap() }),
    )
    .unwrap();
    disk.full.set(true);
    {
        let mut answer = pin!(desk.witness.answer(&ask, at(1), WallNanos(1)));
        assert!(answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(desk.ask(2, A, 3, AskKind::Renew { epoch: Epoch(1) }).standing.unwrap().version, 4);
}

#[test]
fn questions_that_make_no_record_leave_nothing_behind() {
    let desk = Desk::open(MemoryLedger::default(), 0);
    desk.ask(0, A, 0, AskKind::Found { lease_ms: 10 });
    desk.ask(0, A, 0, AskKind::Look);
    assert_eq!((desk.witness.count(), desk.witness.keeps(PAIR)), (0, false));
    desk.pair(0);
    assert_eq!((desk.witness.count(), desk.witness.keeps(PAIR)), (1, true));
}

#[test]
fn a_blank_witness_decides_nothing_until_both_sites_told_it_what_they_know() {
    let desk = Desk::open(MemoryLedger::default(), 0);
    desk.pair(0);
    let old = desk.witness.standing(PAIR).unwrap();
    let known = desk.ask(1, A, 3, GO_ALONE).standing.unwrap();
    let blank = Desk::open(MemoryLedger::default(), 100_000);
    assert_eq!(blank.ask(100_000, A, 4, AskKind::Found { lease_ms: LEASE_MS }).outcome, Err(Refusal::Amnesia));
    assert_eq!(blank.ask(100_000, B, 3, TAKE_OVER).outcome, Err(Refusal::Amnesia));
    let alone = blank.ask(100_000, B, 3, AskKind::Restore { known: old });
    assert_eq!(alone.outcome, Err(Refusal::WaitsForOther));
    let both = blank.ask(100_001, A, 4, AskKind::Restore { known }).standing.unwrap();
    assert_eq!((both.version, both.in_sync), (5, false), "the newer of the two records holds");
    // whatever lease the primary held with the forgotten witness may still run
    let forced = blank.ask(100_002, B, 5, AskKind::Force { primary_is_off: false });
    assert!(matches!(forced.outcome, Err(Refusal::LeaseRuns(_))));
}

#[test]
fn strangers_and_wrong_lengths_are_refused() {
    let desk = Desk::open(MemoryLedger::default(), 0);
    assert_eq!(desk.ask(0, A, 0, AskKind::Found { lease_ms: 10 }).outcome, Err(Refusal::LeaseLength));
    assert_eq!(desk.ask(0, A, 0, AskKind::Look).outcome, Err(Refusal::Unknown));
    desk.pair(0);
    let stranger = SiteId([9; 16]);
    assert_eq!(desk.ask(60_000, stranger, 3, TAKE_OVER).outcome, Err(Refusal::Stranger));
    assert_eq!(desk.ask(0, A, 3, AskKind::Join { secondary: stranger }).outcome, Err(Refusal::WrongSecondary));
}

#[test]
fn a_hand_over_keeps_the_pair_in_sync_and_ends_the_lease() {
    let desk = Desk::open(MemoryLedger::default(), 0);
    desk.pair(0);
    let verdict = desk.ask(1, A, 3, AskKind::HandOver);
    assert_eq!(verdict.outcome, Ok(Lease::Over));
    let standing = verdict.standing.unwrap();
    assert_eq!((standing.primary, standing.in_sync, standing.epoch), (B, true, Epoch(2)));
    assert_eq!(desk.ask(2, B, 4, AskKind::Renew { epoch: Epoch(2) }).outcome, Ok(Lease::Runs));
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_was_and_no_flipped_bit_is_believed(
        numbers in any::<[u64; 4]>(), lease_ms in any::<u32>(), in_sync in any::<bool>(),
        secondary in any::<Option<[u8; 16]>>(), bit in 0usize..112 * 8,
    ) {
        let standing = Standing {
            pair: PAIR,
            version: numbers[0],
            epoch: Epoch(numbers[1]),
            primary: A,
            secondary: secondary.map(SiteId),
            in_sync,
            in_sync_through: Osn(numbers[2]),
            lease_ms,
            last: Transition { kind: TransitionKind::GoAlone, by: B, at: WallNanos(numbers[3]) },
        };
        let mut bytes = standing.to_bytes();
        prop_assert_eq!(Standing::from_bytes(&bytes), Ok(standing));
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Standing::from_bytes(&bytes).is_err());
    }

    /// Rates of both clocks within a tenth of true time (F60), true time in nanoseconds.
    #[test]
    fn the_holder_is_over_before_the_granter_believes_it(
        holder_ppm in 900_000u64..=1_100_000, granter_ppm in 900_000u64..=1_100_000,
        lease_ms in 1_000u64..=120_000, travel_ms in 0u64..10_000, probe in 0u64..300_000_000_000,
    ) {
        let by = |ppm: u64, true_ns: u64| Nanos(u64::try_from(u128::from(true_ns) * u128::from(ppm) / 1_000_000).unwrap());
        let lease = Duration::from_millis(lease_ms);
        let mut tenure = Tenure::default();
        tenure.renewed(by(holder_ppm, 0), lease);
        let grant = Grant::from(by(granter_ppm, travel_ms * 1_000_000), lease);
        let holds = tenure.holds(by(holder_ppm, probe));
        prop_assert!(!(holds && grant.is_over(by(granter_ppm, probe))));
        prop_assert!(held(lease) > lease * 4 / 5, "little of the lease is given away");
    }
}

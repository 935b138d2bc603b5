//! One contract for every way to run a witness: in memory in simulated time, and as a process
//! would run it, with its folder, over TLS, restarted in between. What a site relies on is
//! asked here, and nothing of how it is kept.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use base::{Epoch, Nanos, Osn, PairId, SiteId, WallNanos};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use witness::{Ask, AskKind, Lease, Ledger, MemoryLedger, Refusal, Standing, TransitionKind, Verdict, Witness};
use witness_serve::client::WitnessClient;
use witness_serve::membership::Membership;
use witness_serve::records::Records;
use witness_serve::status::InvitationMade;
use witness_serve::{WitnessConfig, run};

const PAIR: PairId = PairId([7; 16]);
const LEASE: Duration = Duration::from_millis(1000);
const GO_ALONE: AskKind = AskKind::GoAlone { in_sync_through: Osn(5) };
const TAKE_OVER: AskKind = AskKind::TakeOver { in_sync_through: Osn(5) };
const FOUND: AskKind = AskKind::Found { lease_ms: 1000 };

/// A witness and two sites that ask it.
trait Bench {
    fn site(&self, of: usize) -> SiteId;
    async fn ask(&mut self, of: usize, seen_version: u64, kind: AskKind) -> Verdict;
    /// Both sites at once.
    async fn race(&mut self, seen_version: u64, kinds: [AskKind; 2]) -> [Verdict; 2];
    async fn pass(&mut self, time: Duration);
    /// The witness dies and comes back.
    async fn restart(&mut self);

    /// Both in sync at version 3, the first one primary, its lease from now on.
    async fn pair(&mut self) {
        let secondary = self.site(1);
        assert_eq!(self.ask(0, 0, FOUND).await.outcome, Ok(Lease::Runs));
        assert_eq!(self.ask(0, 1, AskKind::Join { secondary }).await.outcome, Ok(Lease::Runs));
        assert_eq!(self.ask(0, 2, AskKind::InSync).await.outcome, Ok(Lease::Runs));
    }
}

/// In memory, in simulated time; its records outlive it as a disk does.
struct Simulated {
    ledger: Rc<MemoryLedger>,
    witness: Witness<Shared>,
    now: Nanos,
}

struct Shared(Rc<MemoryLedger>);

impl Ledger for Shared {
    async fn load(&self) -> Result<Vec<Standing>, witness::LedgerFault> {
        self.0.load().await
    }
    async fn replace(&self, before: u64, next: &Standing) -> Result<bool, witness::LedgerFault> {
        self.0.replace(before, next).await
    }
}

impl Simulated {
    async fn new() -> Self {
        let ledger = Rc::new(MemoryLedger::default());
        let witness = Witness::open(Shared(ledger.clone()), Nanos(0)).await.unwrap();
        Self { ledger, witness, now: Nanos(0) }
    }
}

impl Bench for Simulated {
    fn site(&self, of: usize) -> SiteId {
        SiteId([of as u8 + 1; 16])
    }
    async fn ask(&mut self, of: usize, seen_version: u64, kind: AskKind) -> Verdict {
        let ask = Ask { pair: PAIR, from: self.site(of), seen_version, kind };
        self.witness.answer(&ask, self.now, WallNanos(0)).await.unwrap()
    }
    async fn race(&mut self, seen_version: u64, kinds: [AskKind; 2]) -> [Verdict; 2] {
        [self.ask(0, seen_version, kinds[0]).await, self.ask(1, seen_version, kinds[1]).await]
    }
    async fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }
    async fn restart(&mut self) {
        self.witness = Witness::open(Shared(self.ledger.clone()), self.now).await.unwrap();
    }
}

/// The real thing but for the process: its folder, its doors, two enrolled sites.
struct Served {
    dir: tempfile::TempDir,
    stop: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    sites: Vec<(SiteId, WitnessClient)>,
    clock: Rc<dyn base::port::Clock>,
}

impl Served {
    async fn new() -> Self {
        let clock = world_real::real_world().clock;
        let mut served = Self { dir: tempfile::tempdir().unwrap(), stop: None, sites: Vec::new(), clock };
        let address = served.start("127.0.0.1:0".to_owned()).await;
        for name in ["site-a", "site-b"] {
            let within = Duration::from_secs(5);
            let question = witness::wire::Question::Invite { name: name.to_owned() };
            let made: InvitationMade =
                WitnessClient::local(&served.witness_dir(), within).document(&question).await.unwrap();
            assert!(made.token.starts_with(&address), "{}", made.token);
            let site_dir = served.dir.path().join(name);
            let membership = Membership::join(&site_dir, &made.token.parse().unwrap(), within).await.unwrap();
            let client = WitnessClient::of_site(&Membership::of(&site_dir).unwrap(), within).unwrap();
            served.sites.push((membership.site().unwrap(), client));
        }
        served
    }

    fn witness_dir(&self) -> PathBuf {
        self.dir.path().join("w")
    }

    async fn start(&mut self, listen: String) -> String {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let config = WitnessConfig { dir: self.witness_dir(), listen: listen.parse().unwrap(), advertise: None };
        let task = spawn_local(async move {
            let ready = move |ready: &witness_serve::WitnessReady| tell.send(ready.listen.to_string()).unwrap();
            let end = async move {
                let _ = stopped.await;
            };
            run(config, ready, end).await.unwrap();
        });
        self.stop = Some((stop, task));
        told.await.unwrap()
    }
}

impl Bench for Served {
    fn site(&self, of: usize) -> SiteId {
        self.sites[of].0
    }
    async fn ask(&mut self, of: usize, seen_version: u64, kind: AskKind) -> Verdict {
        let (from, client) = &mut self.sites[of];
        let ask = Ask { pair: PAIR, from: *from, seen_version, kind };
        client.ask(&ask, &*self.clock).await.unwrap().1
    }
    async fn race(&mut self, seen_version: u64, kinds: [AskKind; 2]) -> [Verdict; 2] {
        let [a, b] = &mut self.sites[..] else { panic!("two sites") };
        let ask = |from, kind| Ask { pair: PAIR, from, seen_version, kind };
        let (first, second) = (ask(a.0, kinds[0]), ask(b.0, kinds[1]));
        let (first, second) = tokio::join!(a.1.ask(&first, &*self.clock), b.1.ask(&second, &*self.clock));
        [first.unwrap().1, second.unwrap().1]
    }
    async fn pass(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
    }
    async fn restart(&mut self) {
        let (stop, task) = self.stop.take().unwrap();
        stop.send(()).unwrap();
        task.await.unwrap();
        let old = self.sites[0].1.address();
        self.start(old).await;
    }
}

/// A scenario is asked of every bench.
macro_rules! contract {
    ($($scenario:ident)+) => {
        mod simulated {
            $(#[test] fn $scenario() { super::block_on(async { super::$scenario(super::Simulated::new().await).await }); })+
        }
        mod served {
            $(#[test] fn $scenario() { super::block_on(async { super::$scenario(super::Served::new().await).await }); })+
        }
    };
}

contract! {
    a_takeover_waits_for_the_lease_and_then_wins
    renewals_keep_a_takeover_away
    who_goes_alone_first_cannot_be_taken_over_from
    a_late_in_sync_does_not_land
    a_restart_forgets_no_record_and_believes_no_lease_to_be_over
    a_hand_over_needs_no_wait
    of_two_at_once_one_wins
    a_record_restored_from_nothing_needs_both
}

fn block_on(scenario: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, scenario);
}

async fn a_takeover_waits_for_the_lease_and_then_wins(mut bench: impl Bench) {
    bench.pair().await;
    let early = bench.ask(1, 3, TAKE_OVER).await;
    assert!(matches!(early.outcome, Err(Refusal::LeaseRuns(left)) if left <= LEASE), "{early:?}");
    bench.pass(LEASE).await;
    let won = bench.ask(1, 3, TAKE_OVER).await;
    assert_eq!(won.outcome, Ok(Lease::Runs));
    let standing = won.standing.unwrap();
    assert_eq!((standing.primary, standing.secondary), (bench.site(1), Some(bench.site(0))));
    assert_eq!((standing.version, standing.epoch, standing.in_sync), (4, Epoch(2), false));
    assert_eq!(bench.ask(0, 3, GO_ALONE).await.outcome, Err(Refusal::Stale));
    assert_eq!(bench.ask(0, 3, AskKind::Renew { epoch: Epoch(1) }).await.outcome, Err(Refusal::NotPrimary));
}

async fn renewals_keep_a_takeover_away(mut bench: impl Bench) {
    bench.pair().await;
    for _ in 0..4 {
        bench.pass(LEASE / 2).await;
        assert!(matches!(bench.ask(1, 3, TAKE_OVER).await.outcome, Err(Refusal::LeaseRuns(_))));
        assert_eq!(bench.ask(0, 3, AskKind::Renew { epoch: Epoch(1) }).await.outcome, Ok(Lease::Runs));
    }
}

async fn who_goes_alone_first_cannot_be_taken_over_from(mut bench: impl Bench) {
    bench.pair().await;
    assert_eq!(bench.ask(0, 3, GO_ALONE).await.outcome, Ok(Lease::Runs));
    bench.pass(LEASE).await;
    assert_eq!(bench.ask(1, 3, TAKE_OVER).await.outcome, Err(Refusal::Stale));
    assert_eq!(bench.ask(1, 4, TAKE_OVER).await.outcome, Err(Refusal::NotInSync));
    let forced = bench.ask(1, 4, AskKind::Force { primary_is_off: false }).await;
    assert_eq!(forced.standing.unwrap().last.kind, TransitionKind::Force);
}

async fn a_late_in_sync_does_not_land(mut bench: impl Bench) {
    bench.pair().await;
    bench.ask(0, 3, GO_ALONE).await;
    assert_eq!(bench.ask(0, 4, GO_ALONE).await.standing.unwrap().version, 5);
    assert_eq!(bench.ask(0, 4, AskKind::InSync).await.outcome, Err(Refusal::Stale));
    assert!(!bench.ask(1, 4, AskKind::Look).await.standing.unwrap().in_sync);
}

async fn a_restart_forgets_no_record_and_believes_no_lease_to_be_over(mut bench: impl Bench) {
    bench.pair().await;
    let before = bench.ask(0, 3, AskKind::Look).await.standing;
    bench.pass(LEASE).await;
    bench.restart().await;
    assert_eq!(bench.ask(1, 3, AskKind::Look).await.standing, before);
    let early = bench.ask(1, 3, TAKE_OVER).await;
    assert!(matches!(early.outcome, Err(Refusal::LeaseRuns(_))), "{early:?}");
    bench.pass(LEASE).await;
    assert_eq!(bench.ask(1, 3, TAKE_OVER).await.outcome, Ok(Lease::Runs));
}

async fn a_hand_over_needs_no_wait(mut bench: impl Bench) {
    bench.pair().await;
    let verdict = bench.ask(0, 3, AskKind::HandOver).await;
    assert_eq!(verdict.outcome, Ok(Lease::Over));
    let standing = verdict.standing.unwrap();
    assert_eq!((standing.primary, standing.in_sync, standing.epoch), (bench.site(1), true, Epoch(2)));
    assert_eq!(bench.ask(1, 4, AskKind::Renew { epoch: Epoch(2) }).await.outcome, Ok(Lease::Runs));
}

/// Going alone and taking over race for the record, again and again; nobody knows who wins,
/// and never do both.
async fn of_two_at_once_one_wins(mut bench: impl Bench) {
    bench.pair().await;
    for _ in 0..3 {
        bench.pass(LEASE).await;
        let seen = bench.ask(0, 0, AskKind::Look).await.standing.unwrap();
        let primary = usize::from(seen.primary != bench.site(0));
        let mut kinds = [GO_ALONE, GO_ALONE];
        kinds[1 - primary] = TAKE_OVER;
        let verdicts = bench.race(seen.version, kinds).await;
        let won: Vec<_> = verdicts.iter().filter(|verdict| verdict.outcome.is_ok()).collect();
        assert_eq!(won.len(), 1, "{verdicts:?}");
        let standing = won[0].standing.unwrap();
        assert_eq!(standing.version, seen.version + 1);
        let primary = usize::from(standing.primary != bench.site(0));
        assert!(bench.ask(primary, standing.version, AskKind::InSync).await.outcome.is_ok());
    }
}

async fn a_record_restored_from_nothing_needs_both(mut bench: impl Bench) {
    let (primary, secondary) = (bench.site(0), Some(bench.site(1)));
    let at = base::WallNanos(1);
    let last = witness::Transition { kind: TransitionKind::InSync, by: primary, at };
    let known = Standing {
        pair: PAIR,
        version: 9,
        epoch: Epoch(3),
        primary,
        secondary,
        in_sync: true,
        in_sync_through: Osn(0),
        lease_ms: 1000,
        last,
    };
    assert_eq!(bench.ask(0, 9, AskKind::Look).await.outcome, Err(Refusal::Amnesia));
    assert_eq!(bench.ask(1, 9, TAKE_OVER).await.outcome, Err(Refusal::Amnesia));
    assert_eq!(bench.ask(0, 9, AskKind::Restore { known }).await.outcome, Err(Refusal::WaitsForOther));
    assert!(bench.ask(1, 9, AskKind::Restore { known }).await.outcome.is_ok());
    bench.restart().await;
    let standing = bench.ask(0, 9, AskKind::Look).await.standing.unwrap();
    assert_eq!((standing.version, standing.epoch, standing.in_sync), (10, Epoch(3), true));
}

/// The folder says exactly what memory would, whatever is asked, with restarts in between.
#[test]
fn the_folder_is_as_good_as_memory() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let sites = [SiteId([1; 16]), SiteId([2; 16])];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let memory = Witness::open(MemoryLedger::default(), Nanos(0)).await.unwrap();
        let mut folder = Witness::open(Records::of(dir.path().to_owned()).unwrap(), Nanos(0)).await.unwrap();
        let (mut now, mut changes) = (Nanos(0), 0);
        for _ in 0..4000 {
            let pair = PairId([next(3) as u8; 16]);
            let from = sites[next(2) as usize];
            let known = memory.standing(pair).map_or(0, |standing| standing.version);
            let seen_version = if next(4) == 0 { next(known + 2) } else { known };
            let kind = match next(9) {
                0 => FOUND,
                1 => AskKind::Join { secondary: sites[next(2) as usize] },
                2 => AskKind::Leave,
                3 => AskKind::InSync,
                4 => AskKind::HandOver,
                5 => TAKE_OVER,
                6 => AskKind::Force { primary_is_off: next(2) == 0 },
                7 => AskKind::Renew { epoch: Epoch(next(5)) },
                _ => GO_ALONE,
            };
            let ask = Ask { pair, from, seen_version, kind };
            let expected = memory.answer(&ask, now, WallNanos(now.0)).await.unwrap();
            let answered = folder.answer(&ask, now, WallNanos(now.0)).await.unwrap();
            assert_eq!(answered, expected, "{ask:?}");
            changes += u64::from(expected.standing.is_some_and(|standing| standing.version > known));
            now = now + Duration::from_millis(next(700));
            if next(50) == 0 {
                folder = Witness::open(Records::of(dir.path().to_owned()).unwrap(), now).await.unwrap();
                // A restart counts every lease anew; long enough, and both say the same again.
                now = now + LEASE;
            }
        }
        assert!(changes > 300, "{changes}");
    });
}

#[test]
fn a_damaged_record_is_never_taken_for_none() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let records = || Records::of(dir.path().to_owned()).unwrap();
        let ask = Ask { pair: PAIR, from: SiteId([1; 16]), seen_version: 0, kind: FOUND };
        let witness = Witness::open(records(), Nanos(0)).await.unwrap();
        assert!(witness.answer(&ask, Nanos(0), WallNanos(0)).await.unwrap().outcome.is_ok());
        let path = dir.path().join(format!("{PAIR}.standing"));
        let good = std::fs::read(&path).unwrap();
        // A power cut in the middle of a change leaves this beside the record.
        std::fs::write(dir.path().join(format!("{PAIR}.standing.new")), &good[..50]).unwrap();
        assert!(Witness::open(records(), Nanos(0)).await.is_ok());
        for at in [0, 8, 60, 111] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert!(Witness::open(records(), Nanos(0)).await.is_err(), "byte {at}");
        }
        for bad in [&good[..0], &good[..111]] {
            std::fs::write(&path, bad).unwrap();
            assert!(Witness::open(records(), Nanos(0)).await.is_err(), "{} bytes", bad.len());
        }
        // Right in itself, under another's name.
        std::fs::write(&path, &good).unwrap();
        std::fs::rename(&path, dir.path().join(format!("{}.standing", PairId([8; 16])))).unwrap();
        assert!(Witness::open(records(), Nanos(0)).await.is_err());
    });
}

/// The disk is full, as far as the witness can see; then it is not.
#[test]
fn what_could_not_be_written_is_neither_answered_nor_lost() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("records");
        std::fs::create_dir(&folder).unwrap();
        let witness = Witness::open(Records::of(folder.clone()).unwrap(), Nanos(0)).await.unwrap();
        let ask = |seen_version, kind| Ask { pair: PAIR, from: SiteId([1; 16]), seen_version, kind };
        assert!(witness.answer(&ask(0, FOUND), Nanos(0), WallNanos(0)).await.unwrap().outcome.is_ok());
        // Something that is in the way of the new file, for root as well.
        let in_the_way = folder.join(format!("{PAIR}.standing.new"));
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(witness.answer(&ask(1, GO_ALONE), Nanos(0), WallNanos(0)).await.is_err());
        assert!(witness.answer(&ask(1, GO_ALONE), Nanos(0), WallNanos(0)).await.is_err());
        assert_eq!(witness.standing(PAIR).unwrap().version, 1);
        let renew = ask(1, AskKind::Renew { epoch: Epoch(1) });
        assert!(witness.answer(&renew, Nanos(0), WallNanos(0)).await.is_ok(), "a renewal needs no disk");
        std::fs::remove_dir(&in_the_way).unwrap();
        // The first one finds the earlier failure and has everything written anew.
        let _ = witness.answer(&ask(1, GO_ALONE), Nanos(0), WallNanos(0)).await;
        let again = witness.answer(&ask(1, GO_ALONE), Nanos(0), WallNanos(0)).await.unwrap();
        assert_eq!(again.standing.unwrap().version, 2);
    });
}

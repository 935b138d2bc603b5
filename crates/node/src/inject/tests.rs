use base::{Buf, BufMut};
use control::inject::FaultKind;
use world_sim::{SimNode, SimWorld};

use super::*;

const UNIT_BYTES: u64 = 16384;

/// A simulated drive that takes faults, and who orders them.
struct Bench {
    sim: SimWorld,
    node: SimNode,
    injector: Rc<Injector>,
    drive: Rc<dyn Drive>,
}

impl Bench {
    fn new() -> Bench {
        let sim = SimWorld::new(7);
        let (node, media) = (sim.node(), sim.drive_media("one", 1 << 20));
        let injector = Injector::new(node.world());
        let drive = injector.wrap(node.drive(&media));
        Bench { sim, node, injector, drive }
    }

    fn begin(&self, kind: FaultKind, percent: f64, seconds: u64) {
        let order = FaultOrder { slot: 1, kind, percent, delay_ms: Some(100), seconds };
        self.injector.begin(order, &self.drive.info().serial, "flash0/1".to_owned());
    }

    fn write(&self, at: u64, byte: u8) -> bool {
        self.sim.run_until(self.drive.write(at, vec![unit(byte)])).done().is_ok()
    }

    /// Every byte of a unit, if it can be read.
    fn read(&self, at: u64) -> Option<Vec<u8>> {
        let (outcome, bytes) = self.sim.run_until(self.drive.read(at, BufMut::zeroed(UNIT_BYTES as usize))).done();
        outcome.is_ok().then(|| bytes.to_vec())
    }

    fn is_all(&self, at: u64, byte: u8) -> bool {
        self.read(at).unwrap().iter().all(|&found| found == byte)
    }

    fn pass(&self, seconds: u64) {
        let world = self.node.world();
        self.sim.run_until(world.clock.sleep_until(after(world.clock.now(), Duration::from_secs(seconds)))).done();
    }
}

fn unit(byte: u8) -> Buf {
    let mut unit = BufMut::zeroed(UNIT_BYTES as usize);
    unit.fill(byte);
    unit.freeze()
}

#[test]
fn each_fault_does_what_it_is_called_and_ends_by_itself() {
    let bench = Bench::new();
    assert!(bench.write(0, 1) && bench.write(UNIT_BYTES, 2));
    bench.begin(FaultKind::LostWrite, 100.0, 10);
    assert!(bench.write(0, 3), "a lost write is acknowledged");
    assert!(bench.is_all(0, 1), "and is not there");
    bench.pass(11);
    assert!(bench.write(0, 4) && bench.is_all(0, 4), "its time is over");

    bench.begin(FaultKind::Misplaced, 100.0, 10);
    assert!(bench.write(0, 5));
    assert!(bench.is_all(0, 4) && bench.is_all(UNIT_BYTES, 5), "it went next door");
    bench.pass(11);

    bench.begin(FaultKind::Torn, 100.0, 10);
    assert!(bench.write(0, 6));
    let torn = bench.read(0).unwrap();
    assert_eq!(torn.last(), Some(&4), "its last sector is the old one");
    bench.pass(11);

    bench.begin(FaultKind::Eio, 100.0, 10);
    assert!(!bench.write(0, 7) && bench.read(0).is_none());
    bench.pass(11);

    assert!(bench.write(0, 8));
    bench.begin(FaultKind::Bits, 100.0, 10);
    let wrong = bench.read(0).unwrap().iter().map(|byte| (byte ^ 8).count_ones()).sum::<u32>();
    assert_eq!(wrong, 1);
    bench.pass(11);

    let world = bench.node.world();
    bench.begin(FaultKind::Slow, 100.0, 10);
    let before = world.clock.now();
    assert!(bench.is_all(0, 8), "late, and right");
    assert!(world.clock.now().since(before) >= Duration::from_millis(100));
    bench.pass(11);
    let before = world.clock.now();
    assert!(bench.is_all(0, 8));
    assert!(world.clock.now().since(before) < Duration::from_millis(100));
    assert!(bench.injector.on().is_empty());
    assert_eq!(bench.injector.list().len(), 6, "what was done is remembered");
}

#[test]
fn a_share_of_the_requests_is_hit_and_counted() {
    let bench = Bench::new();
    bench.begin(FaultKind::LostWrite, 25.0, 60);
    for round in 0..400 {
        assert!(bench.write(u64::from(round as u8 % 8) * UNIT_BYTES, 1));
    }
    assert!(bench.read(0).is_some());
    let fault = bench.injector.on().remove(0);
    assert_eq!(fault.requests, 400, "reads are not concerned");
    assert!((60..140).contains(&fault.hits), "{}", fault.hits);
    let ended = bench.injector.end();
    assert_eq!((ended.len(), ended[0].is_on, ended[0].awaits_scrub), (1, false, true));
}

fn judged(injector: &Injector, kind: FaultKind, serial: &str, (tolerated, members): (usize, usize)) -> bool {
    let order = FaultOrder { slot: 1, kind, percent: 10.0, delay_ms: Some(1), seconds: 10 };
    let standing = Standing { tolerated, members, in_use: ["a", "b", "c", "d"].map(str::to_owned).into() };
    let allowed = injector.judge(&order, serial, &standing);
    if let Err(problem) = &allowed {
        assert!([&codes::WOULD_LOSE_REDUNDANCY, &codes::CONFLICT].contains(&problem.code()), "{problem:?}");
    }
    if allowed.is_ok() {
        let began = injector.begin(order, serial, serial.to_owned());
        // As if it had struck.
        injector.entries.borrow_mut().iter_mut().for_each(|entry| entry.hits = 1);
        assert!(began.is_on);
    }
    allowed.is_ok()
}

#[test]
fn no_more_drives_are_hurt_than_the_pool_can_lose() {
    let bench = Bench::new();
    let injector = &bench.injector;
    assert!(judged(injector, FaultKind::LostWrite, "a", (2, 8)));
    assert!(!judged(injector, FaultKind::Eio, "a", (2, 8)), "one at a time on a drive");
    assert!(judged(injector, FaultKind::Slow, "b", (2, 8)));
    assert!(!judged(injector, FaultKind::Slow, "c", (2, 8)), "a third one");
    bench.pass(11);
    assert!(judged(injector, FaultKind::Torn, "b", (2, 8)), "slow has left nothing, a's lies are still there");
    bench.pass(11);
    assert!(!judged(injector, FaultKind::Bits, "c", (2, 8)), "both have left damage");
    injector.scrubbed(injector.wall());
    assert!(judged(injector, FaultKind::Bits, "c", (2, 8)), "a scrub has been over it");
    assert!(!judged(injector, FaultKind::Slow, "d", (1, 8)), "a degraded pool can stand less");
}

#[test]
fn a_majority_of_the_drives_never_lies() {
    let bench = Bench::new();
    assert!(!judged(&bench.injector, FaultKind::LostWrite, "a", (1, 2)), "one of two is no minority");
    assert!(judged(&bench.injector, FaultKind::Slow, "a", (1, 2)));
    let bench = Bench::new();
    assert!(judged(&bench.injector, FaultKind::Bits, "a", (2, 4)));
    assert!(!judged(&bench.injector, FaultKind::Bits, "b", (2, 4)), "two of four are no minority");
}

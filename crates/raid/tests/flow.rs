//! Latency while everything else works: figures of `design.md` 11.19 and R-IO in simulated
//! time, each next to the same run without what keeps it flat.
//!
//! `cargo test -p raid --test flow -- --nocapture` prints the tables.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use base::port::{Drive, DriveInfo, LocalFuture, MediaFault};
use base::{Buf, BufMut};
use raid::{
    DriveClass, FlowSettings, Group, GroupOptions, Principal, Profile, Profiles, Shares, StripeId, WritePattern,
};
use sim::{FLASH, Rig, flash_profile, quantile_us, settings, unscheduled};
use world_sim::node::sleep_for;
use world_sim::{Latency, SimWorld};

const DRIVES: usize = 12;
const STRIPES: usize = 24;
const READS: usize = 1000;
const GAP: Duration = Duration::from_micros(60);

/// p99 of clients' reads in microseconds, beside what `start` sets going.
fn p99_beside(flow: FlowSettings, lose: usize, start: impl FnOnce(&Rig) -> Vec<Rc<Cell<bool>>>) -> f64 {
    let rig = Rig::new(11, DRIVES, STRIPES, FLASH(), flow);
    for media in &rig.media[..lose] {
        media.set_gone(true);
    }
    let stops = start(&rig);
    let latencies = rig.sim.run_until(rig.clients(READS, GAP, |_, _| true)).done();
    stops.iter().for_each(|stop| stop.set(true));
    let lost = rig.group.status().drives.iter().filter(|drive| drive.state != raid::DriveState::Good).count();
    assert_eq!(lost, lose, "the drives that were pulled and no others are out");
    quantile_us(&latencies, 0.99)
}

/// Decides R-IO-03, R-SCR-06.
#[test]
fn clients_hardly_notice_what_the_pool_does_beside_them() {
    let idle = p99_beside(settings(flash_profile()), 0, |_| Vec::new());
    println!("| clients beside | p99 µs | of idle | without the scheduler | of idle | allowed |");
    println!("|---|---|---|---|---|---|");
    println!("| nothing | {idle:.0} | | | | |");
    type Start = fn(&Rig) -> Vec<Rc<Cell<bool>>>;
    let nothing: Start = |_| Vec::new();
    let scrub: Start = |rig| vec![rig.scrubbing(16)];
    let cleaner: Start = |rig| vec![rig.moving(8, Principal::CleanerRead)];
    let rebuild: Start = |rig| vec![rig.moving(12, Principal::Rebuild)];
    let all: Start =
        |rig| vec![rig.scrubbing(6), rig.moving(6, Principal::CleanerRead), rig.moving(6, Principal::Rebuild)];
    for (what, lose, start, most, worse) in [
        ("scrub", 0, scrub, 1.1, true),
        ("cleaner", 0, cleaner, 1.1, true),
        ("one drive lost", 1, nothing, 2.0, false),
        ("one drive lost, stripes redone", 1, rebuild, 2.0, true),
        ("two drives lost, stripes redone", 2, rebuild, 2.0, true),
        ("scrub, cleaner and rebuild", 0, all, 1.5, true),
    ] {
        let with = p99_beside(settings(flash_profile()), lose, start) / idle;
        let without = p99_beside(unscheduled(), lose, start) / idle;
        println!("| {what} | {:.0} | {with:.2} | {:.0} | {without:.2} | {most} |", with * idle, without * idle);
        assert!(with <= most, "{what}: {with:.2} of idle, allowed {most}");
        assert!(!worse || without > most.max(with * 1.2), "{what}: {without:.2} without the scheduler, {with:.2} with");
    }
}

/// One drive stalls for 100 ms on 1 % of its reads. Decides R-IO-07.
#[test]
fn a_late_read_is_answered_by_the_other_drives() {
    const TIMEOUT: Duration = Duration::from_millis(5);
    let profile = || Profile { user_read_timeout: TIMEOUT, ..flash_profile() };
    let run = |flow: FlowSettings| {
        let rig = Rig::new(5, DRIVES, STRIPES, FLASH(), flow);
        let stalls = Latency { read_stall_ppm: 10_000, read_stall_ns: 100_000_000, ..FLASH() };
        rig.media[3].set_latency(stalls);
        // Only blocks that this drive holds: found by asking where it reads.
        let on_drive = on_drive(&rig, 3);
        let latencies = rig.sim.run_until(rig.clients(20_000, GAP, on_drive)).done();
        (
            quantile_us(&latencies, 0.5),
            quantile_us(&latencies, 0.99),
            quantile_us(&latencies, 0.999),
            rig.group.hedges(),
        )
    };
    let (median, p99, p999, hedges) = run(settings(profile()));
    let off = FlowSettings { hedged_reads_ppm: 0, ..settings(profile()) };
    let (median_off, p99_off, p999_off, hedges_off) = run(off);
    println!("| reads of a drive that stalls 100 ms on 1 % of them | p50 µs | p99 µs | p99.9 µs |");
    println!("|---|---|---|---|");
    println!("| hedged after {} ms | {median:.0} | {p99:.0} | {p999:.0} |", TIMEOUT.as_millis());
    println!("| not hedged | {median_off:.0} | {p99_off:.0} | {p999_off:.0} |");
    println!("{hedges:?}");
    let reconstruction_us = 1000.0;
    assert!(p999 < TIMEOUT.as_micros() as f64 + reconstruction_us, "p99.9 {p999:.0} µs");
    assert!(p999_off > 100_000.0, "without hedging the stall shows: {p999_off:.0} µs");
    assert!(hedges.hedged >= 150 && hedges.won >= hedges.hedged * 9 / 10, "{hedges:?}");
    assert_eq!((hedges_off.hedged, hedges_off.won), (0, 0));
    assert_eq!(hedges.over_budget, 0, "1 % is within 3 %");
}

/// Whether a data unit lies on drive `slot`, by the drives' own traces.
fn on_drive(rig: &Rig, slot: usize) -> impl Fn(StripeId, u32) -> bool + use<> {
    let mut there = std::collections::BTreeSet::new();
    let requests = |group: &Group| -> u64 {
        group.lanes()[slot].as_ref().unwrap().usage.iter().map(|(_, usage)| usage.requests).sum()
    };
    for &(id, _) in &rig.stripes {
        for unit in 0..u32::from(rig.group.geometry(id.segment).unwrap().data) {
            let before = requests(&rig.group);
            let clock = rig.world.clock.clone();
            let asked = rig.group.acting_as(Principal::Scanner);
            rig.sim.run_until(Rig::read_block(&asked, &*clock, id, unit, 0)).done();
            if requests(&rig.group) > before {
                there.insert((id, unit));
            }
        }
    }
    move |id, unit| there.contains(&(id, unit))
}

/// A drive that is late all the time: the budget holds what hedging costs, and a stripe
/// without redundancy is not hedged at all.
#[test]
fn hedging_keeps_to_its_budget_and_stops_without_redundancy() {
    let profile = || Profile { user_read_timeout: Duration::from_millis(1), ..flash_profile() };
    let slow = Latency { slow_factor: 40, ..FLASH() };
    let rig = Rig::new(6, DRIVES, STRIPES, FLASH(), settings(profile()));
    (0..4).for_each(|slot| rig.media[slot].set_latency(slow));
    rig.sim.run_until(rig.clients(3000, Duration::from_micros(400), |_, _| true)).done();
    let hedges = rig.group.hedges();
    assert!(hedges.late > 600, "a third of the reads are late: {hedges:?}");
    assert!(hedges.hedged <= 3000 * 3 / 100 + 17, "{hedges:?}");
    assert_eq!(hedges.late, hedges.hedged + hedges.over_budget);
    let lateness = |slot: usize| rig.group.lanes()[slot].as_ref().unwrap().punctuality;
    assert!(lateness(0).late_ppm > 500_000 && lateness(9).late == 0, "it shows whose fault it is");

    let rig = Rig::new(7, DRIVES, STRIPES, FLASH(), settings(profile()));
    rig.media[0].set_gone(true);
    rig.media[1].set_gone(true);
    rig.sim.run_until(rig.clients(200, GAP, |_, _| true)).done();
    rig.media[2].set_latency(slow);
    let before = rig.group.hedges();
    rig.sim.run_until(rig.clients(500, GAP, |_, _| true)).done();
    let hedges = rig.group.hedges();
    assert!(hedges.no_redundancy > before.no_redundancy);
    assert_eq!(hedges.hedged, before.hedged, "nothing could be reconstructed");
}

/// Decides R-IO-05.
#[test]
fn a_drive_that_hangs_holds_up_nobody_else() {
    let rig = Rig::new(8, DRIVES, STRIPES, FLASH(), settings(flash_profile()));
    let healthy = rig.sim.run_until(rig.clients(2000, GAP, |_, _| true)).done();
    let others = on_drive(&rig, 5);
    let stop = rig.scrubbing(4);
    rig.media[5].set_hung(true);
    let beside = rig.sim.run_until(rig.clients(2000, GAP, |id, unit| !others(id, unit))).done();
    stop.set(true);
    let (before, during) = (quantile_us(&healthy, 0.999), quantile_us(&beside, 0.999));
    assert!(during < before * 1.5, "p99.9 of reads elsewhere {during:.0} µs, before {before:.0} µs");
    // The drive's own blocks come from the others, at once or after a while; then it is out.
    let own = rig.sim.run_until(rig.clients(100, Duration::from_millis(40), others)).done();
    assert!(quantile_us(&own, 1.0) < 2_100_000.0, "nobody waits longer than the limit of a read");
    assert_ne!(rig.group.status().drives[5].state, raid::DriveState::Good, "a drive that hangs is failed");
}

/// Drives that stop serving while they take in bulk writes. Decides R-IO-08, R-IO-09.
#[test]
fn at_most_one_drive_at_a_time_is_busy_with_bulk_writes() {
    let stalling = Latency { erase_every_bytes: 256 << 10, erase_ns: 1_500_000, ..FLASH() };
    let run = |pattern: WritePattern| {
        let profile = Profile {
            write_pattern: pattern,
            turn_bytes: 512 << 10,
            settle: Duration::from_millis(2),
            user_read_timeout: Duration::from_millis(2),
            ..flash_profile()
        };
        // The budget allows for what the pattern makes late on purpose.
        let rig =
            Rig::new(9, DRIVES, STRIPES, stalling, FlowSettings { hedged_reads_ppm: 200_000, ..settings(profile) });
        let stop = rig.moving(2, Principal::Destage);
        let samples: Rc<RefCell<Vec<usize>>> = Rc::default();
        let (media, clock, into, until) = (rig.media.clone(), rig.world.clock.clone(), samples.clone(), stop.clone());
        rig.world.spawn.spawn(
            "look",
            Box::pin(async move {
                while !until.get() {
                    sleep_for(&*clock, Duration::from_micros(100)).await;
                    into.borrow_mut().push(media.iter().filter(|media| media.is_erasing()).count());
                }
            }),
        );
        let latencies = rig.sim.run_until(rig.clients(3000, Duration::from_micros(100), |_, _| true)).done();
        stop.set(true);
        let samples = samples.take();
        let two = samples.iter().filter(|&&busy| busy >= 2).count() as f64 / samples.len() as f64;
        let one = samples.iter().filter(|&&busy| busy >= 1).count() as f64 / samples.len() as f64;
        (one, two, quantile_us(&latencies, 0.99))
    };
    let (one, two, p99) = run(WritePattern::Turns);
    let (one_free, two_free, p99_free) = run(WritePattern::Parallel);
    println!("| bulk writes | a drive is busy | two or more are | reads p99 µs |");
    println!("|---|---|---|---|");
    println!("| in turns | {:.0} % | {:.1} % | {p99:.0} |", one * 100.0, two * 100.0);
    println!("| as they come | {:.0} % | {:.1} % | {p99_free:.0} |", one_free * 100.0, two_free * 100.0);
    assert!(one > 0.2, "something is written all the time: {one}");
    assert!(two_free > 0.3 && two < two_free / 5.0, "{two:.3} in turns, {two_free:.3} as they come");
}

/// A drive that notes what it is given; takes `time` for each request.
struct Recorder {
    model: &'static str,
    inner: Rc<dyn Drive>,
    world: base::port::World,
    seen: RefCell<Vec<(bool, u64, usize)>>,
    at_once: Cell<usize>,
    at_once_max: Cell<usize>,
    /// When set, reads do not come back.
    hangs: Cell<bool>,
}

impl Recorder {
    async fn take(&self, write: bool, offset_bytes: u64, len_bytes: usize) {
        self.seen.borrow_mut().push((write, offset_bytes, len_bytes));
        self.at_once.set(self.at_once.get() + 1);
        self.at_once_max.set(self.at_once_max.get().max(self.at_once.get()));
        if self.hangs.get() {
            std::future::pending::<()>().await;
        }
        sleep_for(&*self.world.clock, Duration::from_micros(200)).await;
        self.at_once.set(self.at_once.get() - 1);
    }
}

impl Drive for Recorder {
    fn info(&self) -> DriveInfo {
        DriveInfo { model: self.model.to_owned(), ..self.inner.info() }
    }
    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        Box::pin(async move {
            self.take(false, offset_bytes, buf.len()).await;
            self.inner.read(offset_bytes, buf).await
        })
    }
    fn write(&self, offset_bytes: u64, data: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        Box::pin(async move {
            self.take(true, offset_bytes, data.iter().map(|piece| piece.len()).sum()).await;
            self.inner.write(offset_bytes, data).await
        })
    }
    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        self.inner.flush()
    }
}

/// Largest request, most requests at a drive of scrubs beside clients and of scrubs alone,
/// most drives that write at once, and time until a hung read is reconstructed and given up.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Traced {
    longest: usize,
    deepest_alone: usize,
    deepest_beside: usize,
    deepest_clients: usize,
    writing_at_once: usize,
    answered_ms: u64,
    failed_ms: u64,
}

/// Six recorded drives, the first of another model, with four stripes written for the
/// destager.
struct Traces {
    sim: SimWorld,
    world: base::port::World,
    recorders: Vec<Rc<Recorder>>,
    group: Group,
    ids: Vec<StripeId>,
}

impl Traces {
    fn new(profile: Profile) -> Traces {
        let sim = SimWorld::new(3);
        let node = sim.node();
        let world = node.world();
        let recorder = |number: usize| Recorder {
            model: if number == 0 { "other" } else { "traced" },
            inner: node.drive(&sim.drive_media(&format!("d{number}"), 48 << 20)),
            world: world.clone(),
            seen: RefCell::default(),
            at_once: Cell::default(),
            at_once_max: Cell::default(),
            hangs: Cell::default(),
        };
        let recorders: Vec<Rc<Recorder>> = (0..6).map(|number| Rc::new(recorder(number))).collect();
        let ports = recorders.iter().map(|recorder| recorder.clone() as Rc<dyn Drive>).collect();
        let group = sim.run_until(Group::create(ports, GroupOptions::default(), world.clone())).done().unwrap();
        let profile = Profile { models: vec!["traced".to_owned()], ..profile };
        let profiles = Profiles::new(vec![profile], Profile::unknown(DriveClass::Flash));
        group.set_flow(FlowSettings { profiles, ..FlowSettings::default() });
        let segment = sim.run_until(group.open_segment()).done().unwrap();
        let ids = (0..group.rows_per_segment().min(4)).map(|row| StripeId { segment, row }).collect();
        Traces { sim, world, recorders, group, ids }
    }

    fn watched(&self) -> &Recorder {
        &self.recorders[1]
    }

    /// Writes the stripes; most drives of the model that were writing at a time.
    fn write(&self) -> usize {
        let most = Rc::new(Cell::new(0));
        let (seen, all, clock) = (most.clone(), self.recorders.clone(), self.world.clock.clone());
        let look = async move {
            loop {
                sleep_for(&*clock, Duration::from_micros(20)).await;
                let busy = all[1..].iter().filter(|recorder| recorder.at_once.get() > 0).count();
                seen.set(seen.get().max(busy));
            }
        };
        self.world.spawn.spawn("look", Box::pin(look));
        let destage = self.group.acting_as(Principal::Destage);
        let write = async {
            for (generation, id) in (1..).zip(&self.ids) {
                let units = (0..4).map(|_| destage.take_unit()).collect();
                destage.write_stripe(*id, generation, units).await.unwrap();
            }
            destage.flush().await.unwrap();
        };
        self.sim.run_until(write).done();
        most.get()
    }

    /// A block that the watched drive holds.
    fn own_block(&self) -> (StripeId, u32) {
        let holds = |&(id, at): &(StripeId, u32)| {
            let before = self.watched().seen.borrow().len();
            self.sim.run_until(self.group.read(id, at, 4096, &|_| true)).done().unwrap();
            self.watched().seen.borrow().len() > before
        };
        let blocks = self.ids.iter().flat_map(|&id| (0..4).map(move |unit| (id, unit)));
        blocks.map(|(id, unit)| (id, unit * self.group.unit_payload_bytes())).find(holds).unwrap()
    }

    /// Most requests at the watched drive while `work` runs.
    fn deepest(&self, work: impl Future) -> usize {
        self.watched().at_once_max.set(0);
        self.sim.run_until(work).done();
        self.watched().at_once_max.get()
    }

    async fn scrubs(&self, count: usize) {
        let scrub = self.group.acting_as(Principal::Scrub);
        let one = |number: usize| {
            let (scrub, id) = (scrub.clone(), self.ids[number % self.ids.len()]);
            async move { drop(scrub.read_stripe(id, 1 + (number % 4) as u64).await) }
        };
        futures_util::future::join_all((0..count).map(one)).await;
    }

    /// Simulated milliseconds that `work` takes.
    fn ms(&self, work: impl Future) -> u64 {
        let start = self.world.clock.now();
        self.sim.run_until(work).done();
        self.world.clock.now().since(start).as_millis() as u64
    }
}

fn traced(profile: Profile) -> Traced {
    let traces = Traces::new(profile);
    let group = &traces.group;
    let writing_at_once = traces.write();
    let longest = traces.watched().seen.borrow().iter().map(|seen| seen.2).max().unwrap();
    let (id, at) = traces.own_block();
    sleep(&traces.sim, &traces.world, Duration::from_millis(100));
    let deepest_alone = traces.deepest(traces.scrubs(60));
    let clients = async {
        for _ in 0..40 {
            group.read(id, at, 4096, &|_| true).await.unwrap();
        }
    };
    let deepest_beside = traces.deepest(futures_util::future::join(clients, traces.scrubs(60)));
    let reads = (0..90).map(|_| group.read(id, at, 4096, &|_| true));
    let deepest_clients = traces.deepest(futures_util::future::join_all(reads));
    // A drive that hangs: when is its block answered by the others, when is it out?
    traces.watched().hangs.set(true);
    let answered_ms = traces.ms(group.read(id, at, 4096, &|_| true));
    let units = (0..4).map(|_| group.take_unit()).collect();
    let failed_ms = traces.ms(group.write_stripe(traces.ids[3], 100, units));
    Traced { longest, deepest_alone, deepest_beside, deepest_clients, writing_at_once, answered_ms, failed_ms }
}

fn sleep(sim: &SimWorld, world: &base::port::World, time: Duration) {
    sim.run_until(sleep_for(&*world.clock, time)).done();
}

/// Each field of a profile changes what the drives are given; a drive of another model in
/// the same group is treated by its own. Decides R-SSD-02, R-SSD-03.
#[test]
fn every_field_of_a_profile_changes_what_is_issued() {
    let base = || Profile {
        depth: 40,
        background_depth: 3,
        background_depth_idle: 9,
        user_read_timeout: Duration::from_millis(10),
        read_limit: Duration::from_secs(2),
        write_limit: Duration::from_secs(10),
        ..Profile::unknown(DriveClass::Flash)
    };
    let seen = traced(base());
    println!("{seen:?}");
    let unit = GroupOptions::default().unit_bytes as usize;
    assert_eq!((seen.longest, seen.deepest_alone, seen.deepest_clients), (unit, 9, 40));
    assert!(seen.deepest_beside <= 3 + 2, "three scrubs beside the client's own: {seen:?}");
    assert_eq!(seen.writing_at_once, 5);
    assert!((10..13).contains(&seen.answered_ms) && (10_000..10_100).contains(&seen.failed_ms), "{seen:?}");

    assert_eq!(traced(Profile { io_bytes_max: 64 << 10, ..base() }).longest, 64 << 10);
    assert_eq!(traced(Profile { depth: 12, ..base() }).deepest_clients, 12);
    assert!(traced(Profile { background_depth: 8, ..base() }).deepest_beside > seen.deepest_beside);
    assert_eq!(traced(Profile { background_depth_idle: 20, ..base() }).deepest_alone, 20);
    assert_eq!(traced(Profile { write_pattern: WritePattern::Turns, ..base() }).writing_at_once, 1);
    let late = traced(Profile { user_read_timeout: Duration::from_millis(30), ..base() });
    assert!((30..33).contains(&late.answered_ms), "{late:?}");
    let never = traced(Profile { user_read_timeout: Duration::ZERO, read_limit: Duration::from_secs(1), ..base() });
    assert!((1000..1100).contains(&never.answered_ms), "given up and reconstructed: {never:?}");
    let patient = traced(Profile { write_limit: Duration::from_secs(20), ..base() });
    assert!((20_000..20_100).contains(&patient.failed_ms), "{patient:?}");
}

/// What a request and a written byte cost decides who goes next.
#[test]
fn costs_decide_who_goes_next() {
    let run = |profile: Profile| {
        let flow = FlowSettings { shares: Shares::EQUAL, ..settings(profile) };
        let rig = Rig::new(4, 6, 12, FLASH(), flow);
        let stops = [rig.scrubbing(24), rig.moving(24, Principal::Destage)];
        sleep(&rig.sim, &rig.world, Duration::from_millis(300));
        stops.iter().for_each(|stop| stop.set(true));
        let bytes = |principal: Principal| -> u64 {
            rig.group.lanes().iter().flatten().map(|lane| lane.usage[principal.index()].1.bytes).sum()
        };
        bytes(Principal::Scrub) as f64 / bytes(Principal::Destage) as f64
    };
    let even = run(Profile { write_cost_percent: 100, ..flash_profile() });
    let dear = run(Profile { write_cost_percent: 600, ..flash_profile() });
    assert!(dear > even * 1.5, "writes that cost more leave more to reads: {even:.2} and {dear:.2}");
}

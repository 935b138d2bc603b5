//! One seed from its first format to its last judgement.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use base::{FileId, WallNanos};
use engine::store::Change;
use engine::{Engine, Store};
use world_sim::node::{MaybeSite, sleep_for};
use world_sim::{Oracle, Rng, RunEnd, SimNode, SimWorld};

use crate::client::Client;
use crate::faults::Faults;
use crate::pool::Pool;
use crate::shape::Shape;
use crate::stamped::{BLOCKS, Stamper, read};

/// A life that takes longer, in simulated time, is stuck.
const LIFE_NS_MAX: u64 = 600 * 1_000_000_000;
/// A life that takes more steps runs in circles.
const LIFE_STEPS_MAX: u64 = 5_000_000;
/// Drives that may be unsound at a time.
const UNSOUND_MAX: usize = 2;

/// What a seed did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Digest of every event: equal for equal seeds.
    pub digest: u128,
    /// Steps: polls and events.
    pub steps: u64,
    /// Times the pool was opened.
    pub lives: u64,
    /// Of these, ended at a crash point.
    pub crashes: u64,
    /// Changes acknowledged to private clients.
    pub acknowledged: u64,
    /// Changes refused for lack of room.
    pub refused: u64,
    /// Operations on shared blocks judged.
    pub judged: u64,
    /// Checkpoints of the last life.
    pub checkpoints: u64,
    /// Times a spare took the place of a lost drive.
    pub rebuilds: u64,
    /// Times a drive began to be retired.
    pub retirings: u64,
    /// Faults that happened.
    pub faults: BTreeMap<&'static str, u64>,
    /// Sites of legal variation.
    pub sites: BTreeMap<&'static str, MaybeSite>,
    /// More drives were unsound than the budget allows; judging ended there.
    pub outside: bool,
}

struct Seed {
    world: SimWorld,
    pool: Pool,
    rng: RefCell<Rng>,
    faults: RefCell<Faults>,
    clients: Vec<Rc<Client>>,
    stampers: Vec<Rc<Stamper>>,
    oracle: Rc<RefCell<Oracle>>,
    shared: Vec<FileId>,
    operations: u64,
    /// Chance, at a look around, that the spare takes the place of a lost drive.
    spare_percent: u32,
    /// Chance, at a look around, that a drive is retired behind the spare, and its draws.
    retire_percent: u32,
    retire_rng: RefCell<Rng>,
    report: RefCell<Report>,
    /// The engine of the present life, to say how it was when something went wrong.
    engine: RefCell<Option<Engine>>,
}

/// Takes the lines of a trace.
pub type Trace = Box<dyn FnMut(&str)>;

/// Runs a seed. Panics at the first thing that must not be.
pub fn run(seed: u64, trace: Option<Trace>) -> Report {
    let world = SimWorld::new(seed);
    if let Some(sink) = trace {
        world.trace_to(sink);
    }
    let mut rng = world.rng("swarm");
    let pool = Pool::new(&world, Shape::draw(&mut rng));
    let mut seed = Seed::draw(pool, rng);
    seed.found();
    let lives = seed.rng.borrow_mut().between(1, 5);
    for _ in 0..lives {
        if !seed.live() {
            return seed.into_report();
        }
    }
    seed.faults.borrow_mut().end(&seed.pool);
    let _ = seed.heal() && seed.heal();
    seed.into_report()
}

impl Seed {
    fn draw(pool: Pool, mut rng: Rng) -> Seed {
        let faults = Faults::draw(&pool, &mut rng);
        let oracle = Rc::new(RefCell::new(Oracle::new()));
        let clients = (0..rng.between(1, 4)).map(|n| Rc::new(Client::new(n as u8, rng.fork(&format!("client {n}")))));
        let clients = clients.collect();
        let stampers = (0..rng.between(0, 4))
            .map(|n| Rc::new(Stamper::new(n, rng.fork(&format!("stamper {n}")), oracle.clone())))
            .collect();
        let operations = rng.between(20, 120);
        let spare_percent = if rng.percent(60) { rng.between(5, 100) as u32 } else { 0 };
        let mut retire_rng = rng.fork("retire");
        let retire_percent = if retire_rng.percent(30) { retire_rng.between(5, 60) as u32 } else { 0 };
        Seed {
            world: pool.world.clone(),
            pool,
            faults: RefCell::new(faults),
            rng: RefCell::new(rng),
            clients,
            stampers,
            oracle,
            shared: Vec::new(),
            operations,
            spare_percent,
            retire_percent,
            retire_rng: RefCell::new(retire_rng),
            report: RefCell::default(),
            engine: RefCell::default(),
        }
    }

    /// Makes the pool and the shared files, without faults.
    fn found(&mut self) {
        let node = self.world.node();
        let count = self.rng.borrow_mut().between(1, 2);
        let shared = self.world.run_until(async {
            self.pool.format(&node).await;
            let (engine, _) = self.open(&node).await.expect("nothing was broken yet");
            let files: Vec<FileId> = (0..count).map(|_| engine.next_file_id()).collect();
            let create = |&file: &FileId| Change::CreateFile { file, at: WallNanos(1) };
            engine.commit(files.iter().map(create).collect()).await.expect("an empty pool has room");
            files
        });
        self.shared = self.done(shared);
        self.engine.take();
        self.pool.crash_process(&node);
        self.faults.borrow().begin(&self.pool);
    }

    /// A life with faults. False: outside the budget.
    fn live(&self) -> bool {
        let node = self.world.node();
        self.world.limit_time(LIFE_NS_MAX);
        let crashes = self.rng.borrow_mut().percent(80);
        let most = 1 << self.rng.borrow_mut().between(4, 12);
        let crash_after = self.rng.borrow_mut().between(1, most);
        self.world.crash_after(if crashes { crash_after } else { LIFE_STEPS_MAX });
        let end = self.world.run_until(self.life(&node));
        self.world.crash_never();
        let inside = match end {
            RunEnd::CrashPoint if crashes => {
                self.report.borrow_mut().crashes += 1;
                true
            }
            other => self.done(other),
        };
        self.engine.take();
        if self.rng.borrow_mut().percent(70) {
            self.pool.cut_power(&node);
        } else {
            self.pool.crash_process(&node);
        }
        inside
    }

    async fn life(&self, node: &SimNode) -> bool {
        let Some((engine, opened)) = self.open(node).await else { return false };
        assert!(opened.blocked.is_empty(), "acknowledged ranges are blocked: {:?}", opened.blocked);
        if self.pool.retire_unused(&engine) > UNSOUND_MAX {
            return self.is_outside();
        }
        self.judge(&engine).await;
        let running = self.start_clients(node, &engine);
        let clock = node.world().clock;
        while running.get() > 0 {
            let pause = self.rng.borrow_mut().between(50, 3000);
            sleep_for(clock.as_ref(), Duration::from_micros(pause)).await;
            self.pool.retire_unused(&engine);
            self.faults.borrow_mut().strike(&self.pool, &mut self.rng.borrow_mut());
            if self.pool.retire_unused(&engine) > UNSOUND_MAX {
                return self.is_outside();
            }
            if self.rng.borrow_mut().percent(self.spare_percent) && self.pool.use_spare(node, &engine).await {
                self.report.borrow_mut().rebuilds += 1;
            }
            if self.retire_percent > 0 {
                self.perhaps_retire(node, &engine).await;
            }
            self.refuse_stop(&engine);
        }
        self.oracle.borrow().verdict().unwrap_or_else(|violation| panic!("{violation:?}"));
        if self.rng.borrow_mut().percent(30) {
            engine.settle().await.unwrap_or_else(|refusal| self.panic_stopped(&engine, &format!("settle: {refusal}")));
            self.audit(&engine).await;
        }
        true
    }

    async fn perhaps_retire(&self, node: &SimNode, engine: &Engine) {
        let mut rng = self.retire_rng.borrow().clone();
        if rng.percent(self.retire_percent) && self.pool.retire(node, engine, &mut rng).await {
            self.report.borrow_mut().retirings += 1;
        }
        self.retire_rng.replace(rng);
    }

    fn is_outside(&self) -> bool {
        self.report.borrow_mut().outside = true;
        false
    }

    async fn open(&self, node: &SimNode) -> Option<(Engine, engine::Opened)> {
        self.report.borrow_mut().lives += 1;
        match self.pool.open(node).await {
            Ok(opened) => {
                self.engine.replace(Some(opened.0.clone()));
                Some(opened)
            }
            Err(refused) => panic!("not opened: {refused:?}"),
        }
    }

    /// The result of a run that must have finished.
    fn done<T>(&self, end: RunEnd<T>) -> T {
        if let RunEnd::Done(value) = end {
            return value;
        }
        let why = match end {
            RunEnd::Stuck => "stuck",
            RunEnd::CrashPoint => "running in circles",
            _ => "out of simulated time",
        };
        match self.engine.take() {
            Some(engine) => self.panic_stopped(&engine, why),
            None => panic!("{why} while the pool was being opened"),
        }
    }

    fn refuse_stop(&self, engine: &Engine) {
        if engine.status().stopped {
            self.panic_stopped(engine, "the store has stopped");
        }
    }

    fn panic_stopped(&self, engine: &Engine, what: &str) -> ! {
        let drives: Vec<_> = engine.group().status().drives.iter().map(|drive| drive.state).collect();
        panic!(
            "{what}: {:?}; {:?}; {:?}; drives {drives:?}; {:?}; {:?}",
            engine.take_events(),
            engine.status(),
            engine.group().space(),
            engine.journal_status(),
            engine.counters(),
        );
    }

    fn start_clients(&self, node: &SimNode, engine: &Engine) -> Rc<Cell<usize>> {
        let running = Rc::new(Cell::new(self.clients.len() + self.stampers.len()));
        let spawn = node.world().spawn;
        for client in &self.clients {
            let (client, engine, running, count) = (client.clone(), engine.clone(), running.clone(), self.operations);
            let work = async move {
                client.work(&engine, count).await;
                running.set(running.get() - 1);
            };
            spawn.spawn("client", Box::pin(work));
        }
        for stamper in &self.stampers {
            let (stamper, engine, running, count) = (stamper.clone(), engine.clone(), running.clone(), self.operations);
            let files = self.shared.clone();
            let work = async move {
                stamper.work(&engine, &files, count).await;
                running.set(running.get() - 1);
            };
            spawn.spawn("stamper", Box::pin(work));
        }
        running
    }

    /// Everything acknowledged is there, everything else is whole or absent.
    async fn judge(&self, engine: &Engine) {
        self.oracle.borrow_mut().settle();
        for client in &self.clients {
            client.judge(engine).await;
        }
        for &file in &self.shared {
            let found = read(engine, &self.oracle, file, 0..BLOCKS).await;
            found.unwrap_or_else(|refusal| panic!("{refusal}: shared file {file}"));
        }
        let judged = self.oracle.borrow().verdict().unwrap_or_else(|violation| panic!("{violation:?}"));
        self.report.borrow_mut().judged = judged as u64;
    }

    async fn audit(&self, engine: &Engine) {
        let audit = engine.audit(true).await.unwrap_or_else(|refusal| panic!("audit: {refusal}"));
        assert!(audit.findings.is_empty(), "audit: {:?}", audit.findings);
    }

    /// A life without faults: settles, repairs, and must then be perfect. False: outside the
    /// budget.
    fn heal(&self) -> bool {
        let node = self.world.node();
        self.world.limit_time(LIFE_NS_MAX);
        let healing = async {
            let (engine, _) = self.open(&node).await.expect("opening panics otherwise");
            if self.pool.drives_unsound(&engine) > UNSOUND_MAX {
                return self.is_outside();
            }
            self.judge(&engine).await;
            engine.settle().await.unwrap_or_else(|refusal| self.panic_stopped(&engine, &format!("settle: {refusal}")));
            while engine.rebuild_status().is_some() {
                sleep_for(node.world().clock.as_ref(), Duration::from_millis(5)).await;
                self.refuse_stop(&engine);
            }
            let scrub = engine.scrub().await.unwrap_or_else(|refusal| panic!("scrub: {refusal}"));
            assert!(scrub.stripes_lost == 0 && scrub.stripes_inconsistent == 0, "{scrub:?}");
            self.audit(&engine).await;
            for client in &self.clients {
                client.judge_settled(&engine).await;
            }
            self.judge(&engine).await;
            self.refuse_stop(&engine);
            self.report.borrow_mut().checkpoints += engine.counters().checkpoints;
            true
        };
        self.world.crash_after(LIFE_STEPS_MAX);
        let inside = self.done(self.world.run_until(healing));
        self.world.crash_never();
        self.engine.take();
        self.pool.cut_power(&node);
        inside
    }

    fn into_report(self) -> Report {
        let mut report = self.report.take();
        report.digest = self.world.digest().value();
        report.steps = self.world.steps();
        report.sites = self.world.sites();
        report.acknowledged = self.clients.iter().map(|client| client.acknowledged.get()).sum();
        report.refused = self.clients.iter().map(|client| client.refused.get()).sum();
        for media in self.pool.drives.iter().chain(&self.pool.legs) {
            for (fault, count) in media.fault_counts() {
                *report.faults.entry(fault).or_default() += count;
            }
        }
        report
    }
}

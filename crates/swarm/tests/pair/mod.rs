//! A pair of stores in one simulated world.
#![allow(dead_code, reason = "a test uses a part of it")]

pub mod files;
mod net;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use base::port::World;
use base::{Epoch, FileId, Nanos, Osn, PairId, SiteId, WallNanos};
use engine::store::{FileHead, LOCAL_FILES, Table};
use engine::{Engine, Options, Store};
use futures_util::future::{Either, join_all, select};
use mirror::{Command, Config, FlightsMax, Input, Mirror, Pace};
use net::Net;
use raid::{Group, GroupOptions};
use replica::{Replica, ResyncCounters};
use swarm::client::{Client, bytes_of};
use swarm::pool::Pool;
use swarm::shape::Shape;
use witness::{Standing, Transition, TransitionKind};
use world_sim::node::sleep_for;
use world_sim::{Latency, Rng, SimNode, SimWorld};

pub const PAIR: PairId = PairId([7; 16]);
pub const SITES: [SiteId; 2] = [SiteId([1; 16]), SiteId([2; 16])];
const CLIENTS: u8 = 3;
const STREAM: u32 = 1;
/// One piece at a time: what is lost with a link is small.
const PACE: Pace = Pace { in_flight_bytes: 64 << 10, per_second_bytes: 300 << 20 };
/// Simulated time that a scenario may take.
const LIMIT: Duration = Duration::from_secs(900);

pub fn founded() -> Standing {
    Standing {
        pair: PAIR,
        version: 1,
        epoch: Epoch(1),
        primary: SITES[0],
        secondary: Some(SITES[1]),
        in_sync: true,
        in_sync_through: Osn(0),
        lease_ms: 1000,
        last: Transition { kind: TransitionKind::InSync, by: SITES[0], at: WallNanos(0) },
    }
}

fn config(me: SiteId, peer: SiteId, patience: Duration, pace: Pace) -> Config {
    Config {
        resync: pace,
        out_of_sync_delay: patience,
        takeover_delay: patience,
        silence: Duration::from_millis(800),
        steady: Duration::from_millis(60),
        term_min: Duration::from_secs(1),
        answer_within: Duration::from_millis(500),
        beat: Duration::from_millis(50),
        flights_max: FlightsMax { count: 64, bytes: 4 << 20 },
        operations_max: 64,
        mark_step: 64,
        ..Config::new(me, peer, PAIR)
    }
}

/// What must have been seen over all seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub acknowledged: u64,
    pub crashes_of_primary: u64,
    pub crashes_of_secondary: u64,
    pub crashes_of_both: u64,
    pub links: u64,
    pub gone_alone: u64,
    pub taken_over: u64,
    pub in_sync_again: u64,
}

impl Seen {
    pub fn add(&mut self, other: &Seen) {
        self.acknowledged += other.acknowledged;
        self.crashes_of_primary += other.crashes_of_primary;
        self.crashes_of_secondary += other.crashes_of_secondary;
        self.crashes_of_both += other.crashes_of_both;
        self.links += other.links;
        self.gone_alone += other.gone_alone;
        self.taken_over += other.taken_over;
        self.in_sync_again += other.in_sync_again;
    }
}

/// One site's media and its present life.
struct Place {
    id: Cell<SiteId>,
    pool: RefCell<Rc<Pool>>,
    node: RefCell<SimNode>,
}

/// See the module's head.
pub struct Pair {
    pub world: SimWorld,
    net: Rc<Net>,
    places: Rc<[Place; 2]>,
    patience: Duration,
    pace: Pace,
}

fn shape() -> Shape {
    let options = Options {
        cache_bytes: 1 << 19,
        cached_pages: 64,
        destage_blocks: 32,
        checkpoint_every: Duration::from_millis(300),
        tick: Duration::from_millis(20),
        ..Options::default()
    };
    Shape {
        drives: 5,
        drive_bytes: 12 << 20,
        unit_bytes: 36 << 10,
        data_width_max: 3,
        extent_bytes: 0,
        legs: 1,
        leg_bytes: 3 << 20,
        options,
    }
}

/// Tasks hold what they work on, and that holds the world they run in: without an end to both
/// lives each pair would stay in memory for the rest of the tests.
impl Drop for Pair {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            (0..2).for_each(|site| self.net.is_down(site));
            self.places.iter().for_each(|place| place.node.borrow().kill());
        }
    }
}

impl Pair {
    /// A pair that would rather wait than go on alone.
    pub fn new(seed: u64) -> Pair {
        Pair::of(seed, Duration::from_secs(600), PACE)
    }

    /// One in which a site that hears nothing for two seconds wants to go on alone.
    pub fn hasty(seed: u64) -> Pair {
        Pair::of(seed, Duration::from_secs(2), PACE)
    }

    /// One such whose resyncs send so many bytes in a second.
    pub fn paced(seed: u64, per_second_bytes: u64) -> Pair {
        Pair::of(seed, Duration::from_secs(2), Pace { per_second_bytes, ..PACE })
    }

    fn of(seed: u64, patience: Duration, pace: Pace) -> Pair {
        let world = SimWorld::new(seed);
        let place = |world: &SimWorld, id: SiteId| Place {
            id: Cell::new(id),
            pool: RefCell::new(Rc::new(Pool::new(world, shape()))),
            node: RefCell::new(world.node()),
        };
        let places = Rc::new(SITES.map(|id| place(&world, id)));
        let pair = Pair { net: Net::new(&world), world, places, patience, pace };
        pair.until(async || {
            for site in 0..2 {
                pair.format(site).await;
                let (engine, _) = pair.open_engine(site).await;
                Replica::found(&engine, founded()).await.unwrap();
                pair.power_cut(site);
                pair.reopen(site).await;
            }
        });
        pair
    }

    fn pool(&self, site: usize) -> Rc<Pool> {
        self.places[site].pool.borrow().clone()
    }

    async fn format(&self, site: usize) {
        let (pool, node) = (self.pool(site), self.places[site].node.borrow().clone());
        let options = GroupOptions {
            unit_bytes: pool.shape.unit_bytes,
            data_width_max: pool.shape.data_width_max,
            ..GroupOptions::default()
        };
        let drives = pool.drives.iter().map(|media| node.drive(media)).collect();
        let group = Group::create(drives, options, node.world()).await.unwrap();
        let legs: Vec<_> = pool.legs.iter().map(|media| node.leg(media)).collect();
        Engine::format_as_twin(&group, &legs, &node.world(), [5; 32]).await.unwrap();
    }

    async fn open_engine(&self, site: usize) -> (Engine, SimNode) {
        let node = self.world.node();
        *self.places[site].node.borrow_mut() = node.clone();
        let (engine, _) = self.pool(site).open(&node).await.unwrap();
        (engine, node)
    }

    /// The other site's media are lost: blank ones in their place, and a store that knows nothing.
    pub async fn replace(&self, site: usize) {
        self.power_cut(site);
        *self.places[site].node.borrow_mut() = self.world.node();
        *self.places[site].pool.borrow_mut() = Rc::new(Pool::new(&self.world, shape()));
        self.format(site).await;
        self.power_cut(site);
    }

    /// The same, and whoever runs it is another site.
    pub async fn replace_by(&self, site: usize, id: SiteId) {
        self.replace(site).await;
        self.places[site].id.set(id);
    }

    /// What the witness has on record.
    pub fn standing(&self) -> Standing {
        self.net.standing()
    }

    /// A new life of a site.
    pub async fn reopen(&self, site: usize) {
        let (engine, node) = self.open_engine(site).await;
        let outside = Rc::new(self.net.end(site));
        let id = |site: usize| self.places[site].id.get();
        let config = (config(id(site), id(1 - site), self.patience, self.pace), STREAM);
        let replica = Replica::open(engine, node.world(), config, outside).await.unwrap();
        self.net.is_up(site, replica);
    }

    /// Runs a part of a scenario to its end.
    pub fn until<T>(&self, part: impl AsyncFnOnce() -> T) -> T {
        self.world.limit_time(LIMIT.as_nanos() as u64);
        self.world.run_until(part()).done()
    }

    pub async fn sleep(&self, time: Duration) {
        sleep_for(&*self.net.clock(), time).await;
    }

    /// Goes on beside everything else.
    pub fn beside(&self, task: impl Future<Output = ()> + 'static) {
        self.net.spawn(Box::pin(task));
    }

    pub fn replica(&self, site: usize) -> Option<Replica> {
        self.net.replica(site)
    }

    pub fn engine(&self, site: usize) -> Engine {
        self.replica(site).unwrap().engine().clone()
    }

    pub fn with<T>(&self, site: usize, look: impl FnOnce(&Mirror) -> T) -> T {
        self.replica(site).unwrap().with_mirror(look)
    }

    pub async fn head(&self, site: usize, file: FileId) -> FileHead {
        self.engine(site).head(file).await.unwrap().unwrap()
    }

    pub async fn first_byte(&self, site: usize, file: FileId, offset_bytes: u64) -> Option<u8> {
        bytes_of(&self.engine(site).read(file, offset_bytes, 1).await.unwrap()).first().copied()
    }

    fn serving(&self) -> Option<usize> {
        (0..2).find(|site| {
            let now = self.places[*site].node.borrow().world().clock.now();
            self.replica(*site).is_some_and(|replica| replica.with_mirror(|mirror| mirror.serves(now)))
        })
    }

    /// The site that serves, as soon as one does.
    pub async fn primary(&self) -> Replica {
        loop {
            if let Some(site) = self.serving() {
                return self.replica(site).unwrap();
            }
            self.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its number, once it serves.
    pub fn serving_site(&self) -> usize {
        self.serving().unwrap_or_default()
    }

    fn is_whole(&self) -> bool {
        (0..2).all(|site| self.replica(site).is_some_and(|one| one.with_mirror(Mirror::is_whole)))
    }

    /// What the site that serves stands on.
    pub fn world_of_primary(&self) -> World {
        let site = self.serving().unwrap();
        self.places[site].node.borrow().world()
    }

    /// Until both are linked and settled.
    pub async fn meet(&self) {
        while !self.is_whole() {
            self.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until nothing is in flight.
    pub async fn idle(&self) {
        let open = |mirror: &Mirror| mirror.kept().flights.count() + mirror.kept().prepared.len();
        while !self.is_whole() || (0..2).any(|site| self.with(site, open) > 0) {
            self.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until the record says that the primary is alone.
    pub async fn alone(&self) {
        while self.net.standing().in_sync {
            self.sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the primary's resyncs have done in its present life.
    pub fn resynced(&self, site: usize) -> ResyncCounters {
        self.replica(site).unwrap().resync_counters()
    }

    pub fn now(&self) -> Nanos {
        self.net.clock().now()
    }

    pub fn is_in_sync(&self) -> bool {
        self.net.standing().in_sync
    }

    /// An administrator's command.
    pub fn command(&self, site: usize, command: Command) {
        self.replica(site).unwrap().tell(Input::Command(command));
    }

    /// Local files that only a resync needs are gone from both sites.
    pub async fn tidy(&self) {
        for site in 0..2 {
            while !self.engine(site).files(LOCAL_FILES, 1).await.unwrap().is_empty() {
                self.sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// What both sites should have of files, as it is at one: whether each is a snapshot, and its content.
    pub async fn files(&self, site: usize) -> Vec<(FileId, bool, Vec<u8>)> {
        self.files_within(site, FileId(0)..LOCAL_FILES).await
    }

    /// Files that only this site has.
    pub async fn local(&self, site: usize) -> Vec<(FileId, bool, Vec<u8>)> {
        self.files_within(site, LOCAL_FILES..FileId(u64::MAX)).await
    }

    async fn files_within(&self, site: usize, range: Range<FileId>) -> Vec<(FileId, bool, Vec<u8>)> {
        let engine = self.engine(site);
        let mut files = Vec::new();
        for listed in engine.files(range.start, 9999).await.unwrap() {
            if listed.file < range.end {
                let bytes = bytes_of(&engine.read(listed.file, 0, 1 << 22).await.unwrap());
                files.push((listed.file, listed.frozen, bytes));
            }
        }
        files
    }

    /// Both sites have the same files, of the same content, and the same rows.
    pub async fn assert_same(&self) {
        self.idle().await;
        let [one, other] = [self.files(0).await, self.files(1).await];
        let list = |files: &[(FileId, bool, Vec<u8>)]| -> Vec<_> {
            files.iter().map(|(file, frozen, bytes)| (*file, *frozen, bytes.len())).collect()
        };
        assert_eq!(list(&one), list(&other));
        for (mine, theirs) in one.iter().zip(&other) {
            let at = mine.2.iter().zip(&theirs.2).position(|(mine, theirs)| mine != theirs);
            assert_eq!(at, None, "where file {}, a snapshot: {}, differs", mine.0, mine.1);
        }
        self.assert_equal(&one.iter().map(|(file, ..)| *file).collect::<Vec<_>>()).await;
    }

    pub fn cut(&self, lasts: Duration) {
        self.net.cut(lasts);
    }

    pub fn power_cut(&self, site: usize) {
        self.net.is_down(site);
        let node = self.places[site].node.borrow().clone();
        self.pool(site).cut_power(&node);
    }

    /// Does `work`; these sites lose power after so many steps, or when it is done. Whether it was done.
    pub fn crash_within(&self, steps: u64, sites: &[usize], work: impl AsyncFnOnce()) -> bool {
        self.world.limit_time(LIMIT.as_nanos() as u64);
        self.world.crash_after(steps);
        let end = self.world.run_until(work());
        self.world.crash_never();
        sites.iter().for_each(|site| self.power_cut(*site));
        matches!(end, world_sim::RunEnd::Done(()))
    }

    /// A store of a site that is off, without the pair.
    pub async fn engine_of(&self, site: usize) -> Engine {
        self.open_engine(site).await.0
    }

    /// Does `work` on the primary; both lose power after so many steps, unless it is done before.
    /// Whether it was done.
    pub fn crash_both_within(&self, steps: u64, work: impl AsyncFnOnce(Replica)) -> bool {
        let store = self.replica(0).unwrap();
        self.world.crash_after(steps);
        let end = self.world.run_until(work(store));
        self.world.crash_never();
        self.power_cut(0);
        self.power_cut(1);
        matches!(end, world_sim::RunEnd::Done(()))
    }

    /// The journal of a site takes so many times as long.
    pub fn slow_leg(&self, site: usize, factor: u64) {
        let latency = Latency { slow_factor: factor, ..Latency::default() };
        self.pool(site).legs.iter().for_each(|leg| leg.set_latency(latency));
    }

    /// Both sites have the same of `files`, and the same rows.
    pub async fn assert_equal(&self, files: &[FileId]) {
        let engines = [self.engine(0), self.engine(1)];
        for engine in &engines {
            engine.settle().await.unwrap();
            assert_eq!(engine.audit(true).await.unwrap().findings, []);
        }
        for file in files {
            let mut heads = Vec::new();
            let mut bytes = Vec::new();
            for engine in &engines {
                let head = engine.head(*file).await.unwrap();
                heads.push(head);
                if head.is_some() {
                    bytes.push(bytes_of(&engine.read(*file, 0, 1 << 20).await.unwrap()));
                }
            }
            assert_eq!(heads[0], heads[1], "file {file}");
            assert!(bytes.windows(2).all(|pair| pair[0] == pair[1]), "bytes of file {file}");
        }
        for table in (1..=CLIENTS).chain([9]) {
            let mut rows = Vec::new();
            for engine in &engines {
                rows.push(engine.scan(Table(table), &[], 9999).await.unwrap());
            }
            assert_eq!(rows[0], rows[1], "table {table}");
        }
    }
}

// -- one seed

/// What happens to a pair.
#[derive(Clone, Copy, Debug)]
enum Strike {
    Primary,
    Secondary,
    Both,
    Cut,
    Snap,
}

struct Run {
    pair: Pair,
    clients: Vec<Client>,
    rng: RefCell<Rng>,
    seen: Cell<Seen>,
}

impl Pair {
    /// A seed from its first life to its last judgement: what was seen, and the digest of all that happened.
    pub fn run(seed: u64) -> (Seen, u128) {
        let mut rng = Rng::new(seed).fork("pair");
        let patience = if rng.percent(40) { Duration::from_secs(600) } else { Duration::from_millis(600) };
        let pair = Pair::of(seed, patience, PACE);
        let clients = (1..=CLIENTS).map(|number| Client::new(number, rng.fork(&format!("client {number}")))).collect();
        let run = Run { pair, clients, rng: RefCell::new(rng), seen: Cell::default() };
        run.pair.until(async || {
            for _ in 0..5 {
                run.life().await;
            }
            run.end().await;
        });
        let mut seen = run.seen.get();
        seen.acknowledged = run.clients.iter().map(|client| client.acknowledged.get()).sum();
        seen.links = run.pair.net.links();
        let transitions = run.pair.net.transitions();
        let of = |kind| transitions.iter().filter(|one| **one == kind).count() as u64;
        seen.gone_alone = of(TransitionKind::GoAlone);
        seen.taken_over = of(TransitionKind::TakeOver);
        seen.in_sync_again = of(TransitionKind::InSync);
        (seen, run.pair.world.digest().value())
    }
}

impl Run {
    fn note(&self, what: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.get();
        what(&mut seen);
        self.seen.set(seen);
    }

    fn between(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.rng.borrow_mut().between(low, high))
    }

    fn strike(&self) -> Strike {
        match self.rng.borrow_mut().below(8) {
            0 | 1 => Strike::Primary,
            2 | 3 => Strike::Secondary,
            4 => Strike::Both,
            5 => Strike::Cut,
            _ => Strike::Snap,
        }
    }

    /// Clients at work on one life of the primary.
    async fn life(&self) {
        let store = self.pair.primary().await;
        for client in &self.clients {
            client.judge(&store).await;
        }
        let mut work = pin!(join_all(self.clients.iter().map(|client| client.work(&store, 40))));
        for _ in 0..3 {
            let soon = pin!(self.pair.sleep(self.between(1, 200)));
            if let Either::Left(_) = select(&mut work, soon).await {
                return;
            }
            if self.strikes(self.strike()).await {
                return;
            }
        }
        work.await;
    }

    /// Whether the primary's life has ended.
    async fn strikes(&self, strike: Strike) -> bool {
        let pair = &self.pair;
        let Some(primary) = pair.serving() else { return false };
        let down = self.between(1, 4000);
        match strike {
            Strike::Cut => pair.cut(self.between(1, 3000)),
            Strike::Snap => pair.net.snap(),
            Strike::Secondary => {
                self.note(|seen| seen.crashes_of_secondary += 1);
                pair.power_cut(1 - primary);
                pair.sleep(down).await;
                pair.reopen(1 - primary).await;
            }
            Strike::Primary => {
                self.note(|seen| seen.crashes_of_primary += 1);
                pair.power_cut(primary);
                pair.sleep(down).await;
                pair.reopen(primary).await;
                return true;
            }
            Strike::Both => {
                self.note(|seen| seen.crashes_of_both += 1);
                pair.power_cut(primary);
                pair.sleep(self.between(0, 300)).await;
                pair.power_cut(1 - primary);
                pair.sleep(down).await;
                pair.reopen(1 - primary).await;
                pair.sleep(self.between(0, 300)).await;
                pair.reopen(primary).await;
                return true;
            }
        }
        false
    }

    /// Nothing goes wrong any more: both sites hold the same in the end, whoever was away or has taken over.
    async fn end(&self) {
        let pair = &self.pair;
        pair.sleep(Duration::from_secs(8)).await;
        pair.meet().await;
        let store = pair.primary().await;
        for client in &self.clients {
            client.judge(&store).await;
        }
        pair.idle().await;
        let files: Vec<FileId> = self.clients.iter().flat_map(Client::all).collect();
        pair.assert_equal(&files).await;
    }
}

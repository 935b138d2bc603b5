//! A group on simulated drives with service times, clients that read at random moments, and
//! background work beside them. Latencies are simulated time: the same on every machine.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use base::port::{Clock, World};
use raid::{DriveClass, FlowSettings, Group, GroupOptions, Principal, Profile, Profiles, Shares, StripeId};
use world_sim::node::sleep_for;
use world_sim::{Latency, Rng, SimMedia, SimNode, SimWorld};

pub const BLOCK: u32 = 8192;
const DRIVE_BYTES: u64 = 48 << 20;

/// Flash that serves four requests at a time.
pub const FLASH: fn() -> Latency = || Latency {
    read_ns: 80_000,
    write_ns: 60_000,
    flush_ns: 50_000,
    per_page_ns: 2_000,
    jitter_ns: 40_000,
    channels: 4,
    ..Latency::default()
};

/// The profile that fits [`FLASH`].
pub fn flash_profile() -> Profile {
    Profile {
        name: "simulated flash".to_owned(),
        models: vec!["simulated".to_owned()],
        depth: 16,
        background_depth: 1,
        background_depth_idle: 4,
        ..Profile::unknown(DriveClass::Flash)
    }
}

pub fn settings(profile: Profile) -> FlowSettings {
    let profiles = Profiles::new(vec![profile], Profile::unknown(DriveClass::Flash));
    FlowSettings { profiles, ..FlowSettings::default() }
}

/// As if there were no scheduler: everyone equal, everything at the drive at once.
pub fn unscheduled() -> FlowSettings {
    let profile = Profile { depth: 1024, background_depth: 1024, background_depth_idle: 1024, ..flash_profile() };
    FlowSettings { shares: Shares::EQUAL, ..settings(profile) }
}

pub struct Rig {
    pub sim: SimWorld,
    pub node: SimNode,
    pub world: World,
    pub media: Vec<SimMedia>,
    pub group: Group,
    pub stripes: Vec<(StripeId, u64)>,
    generation: Cell<u64>,
    rng: RefCell<Rng>,
}

/// Stamp at the start of a block of a data unit.
fn stamp(stripe: StripeId, unit: u32, block: u32) -> [u8; 8] {
    let word = stripe.pack() ^ u64::from(unit) << 40 ^ u64::from(block) << 20;
    word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

impl Rig {
    /// `drives` drives with `stripes` written stripes.
    pub fn new(seed: u64, drives: usize, stripes: usize, latency: Latency, flow: FlowSettings) -> Rig {
        let sim = SimWorld::new(seed);
        let node = sim.node();
        let media: Vec<SimMedia> = (0..drives).map(|n| sim.drive_media(&format!("d{n}"), DRIVE_BYTES)).collect();
        media.iter().for_each(|media| media.set_latency(latency));
        let ports = media.iter().map(|media| node.drive(media)).collect();
        let group = sim.run_until(Group::create(ports, GroupOptions::default(), node.world())).done().unwrap();
        group.set_flow(flow);
        let rng = RefCell::new(sim.rng("clients"));
        let (world, generation) = (node.world(), Cell::new(0));
        let mut rig = Rig { sim, node, world, media, group, stripes: Vec::new(), generation, rng };
        let writer = rig.group.clone();
        rig.stripes = rig.sim.clone().run_until(rig.fill(&writer, stripes)).done();
        rig
    }

    pub fn next_generation(&self) -> u64 {
        self.generation.set(self.generation.get() + 1);
        self.generation.get()
    }

    /// Writes `count` new stripes, one after the other, and flushes.
    pub async fn fill(&self, group: &Group, count: usize) -> Vec<(StripeId, u64)> {
        let mut written = Vec::new();
        while written.len() < count {
            let segment = group.open_segment().await.unwrap();
            for row in 0..group.rows_per_segment().min((count - written.len()) as u32) {
                let (id, generation) = (StripeId { segment, row }, self.next_generation());
                group.write_stripe(id, generation, self.units(group, id)).await.unwrap();
                written.push((id, generation));
            }
        }
        group.flush().await.unwrap();
        written
    }

    pub fn units(&self, group: &Group, id: StripeId) -> Vec<base::BufMut> {
        let data = u32::from(group.geometry(id.segment).unwrap().data);
        let unit = |number: u32| {
            let mut unit = group.take_unit();
            unit.fill(0);
            for block in 0..group.unit_payload_bytes() / BLOCK {
                let at = raid::UNIT_HEADER_BYTES + (block * BLOCK) as usize;
                unit[at..at + 8].copy_from_slice(&stamp(id, number, block));
            }
            unit
        };
        (0..data).map(unit).collect()
    }

    /// Reads one block and says how long that took, in nanoseconds.
    pub async fn read_block(group: &Group, clock: &dyn Clock, id: StripeId, unit: u32, block: u32) -> u64 {
        let wanted = stamp(id, unit, block);
        let start = clock.now();
        let offset = unit * group.unit_payload_bytes() + block * BLOCK;
        group.read(id, offset, BLOCK, &|bytes| bytes[..8] == wanted).await.unwrap();
        clock.now().since(start).as_nanos() as u64
    }

    /// `count` reads of random blocks at random moments, `gap` apart on average; all those
    /// `of` allows. Latencies in nanoseconds, sorted.
    pub async fn clients(&self, count: usize, gap: Duration, of: impl Fn(StripeId, u32) -> bool) -> Vec<u64> {
        let latencies: Rc<RefCell<Vec<u64>>> = Rc::default();
        let mut asked = 0;
        while asked < count {
            let wait = self.rng.borrow_mut().below(2 * gap.as_nanos() as u64);
            sleep_for(&*self.world.clock, Duration::from_nanos(wait)).await;
            let (stripe, unit, block) = {
                let mut rng = self.rng.borrow_mut();
                let stripe = self.stripes[rng.index(self.stripes.len())].0;
                let units = usize::from(self.group.geometry(stripe.segment).unwrap().data);
                (stripe, rng.index(units) as u32, rng.below(u64::from(self.group.unit_payload_bytes() / BLOCK)) as u32)
            };
            if !of(stripe, unit) {
                continue;
            }
            asked += 1;
            let (group, clock, latencies) = (self.group.clone(), self.world.clock.clone(), latencies.clone());
            self.world.spawn.spawn(
                "client",
                Box::pin(async move {
                    let took = Rig::read_block(&group, &*clock, stripe, unit, block).await;
                    latencies.borrow_mut().push(took);
                }),
            );
        }
        while latencies.borrow().len() < count {
            sleep_for(&*self.world.clock, Duration::from_millis(1)).await;
        }
        let mut sorted = latencies.take();
        sorted.sort_unstable();
        sorted
    }

    /// Lets `workers` tasks do `work` on one stripe after the other until the flag is set.
    pub fn background<F>(&self, workers: usize, work: impl Fn(StripeId, u64) -> F + Clone + 'static) -> Rc<Cell<bool>>
    where
        F: Future<Output = ()> + 'static,
    {
        let stop = Rc::new(Cell::new(false));
        for worker in 0..workers {
            let (stop, work, stripes) = (stop.clone(), work.clone(), self.stripes.clone());
            self.world.spawn.spawn(
                "background",
                Box::pin(async move {
                    for (id, generation) in stripes.into_iter().cycle().skip(worker * 3) {
                        if stop.get() {
                            return;
                        }
                        work(id, generation).await;
                    }
                }),
            );
        }
        stop
    }

    /// Everything verified, over and over.
    pub fn scrubbing(&self, workers: usize) -> Rc<Cell<bool>> {
        let group = self.group.acting_as(Principal::Scrub);
        self.background(workers, move |id, generation| {
            let group = group.clone();
            async move {
                assert!(!group.scrub_stripe(id, generation).await.lost);
            }
        })
    }

    /// Stripes read whole for `principal` and written to a place of the worker's own.
    pub fn moving(&self, workers: usize, principal: Principal) -> Rc<Cell<bool>> {
        let group = self.group.acting_as(principal);
        let opener = group.clone();
        let rows = self.sim.run_until(async move { opener.open_segment().await.unwrap() }).done();
        let (count, generation) = (group.rows_per_segment(), Rc::new(Cell::new(1 << 40)));
        self.background(workers, move |id, of| {
            let (group, generation) = (group.clone(), generation.clone());
            generation.set(generation.get() + 1);
            let number = generation.get();
            async move {
                let payloads = group.read_stripe(id, of).await.unwrap();
                let data = usize::from(group.geometry(rows).unwrap().data);
                let units = payloads.iter().cycle().take(data).map(|payload| {
                    let mut unit = group.take_unit();
                    unit[raid::UNIT_HEADER_BYTES..].copy_from_slice(payload);
                    unit
                });
                let to = StripeId { segment: rows, row: (number % u64::from(count)) as u32 };
                group.write_stripe(to, number, units.collect()).await.unwrap();
            }
        })
    }
}

/// The `q` quantile of sorted latencies, in microseconds.
pub fn quantile_us(sorted: &[u64], q: f64) -> f64 {
    let index = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len()) - 1;
    sorted[index] as f64 / 1e3
}

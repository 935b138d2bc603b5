//! What a seed's pool looks like: small, so that wrap, eviction and full paths come soon.

use std::time::Duration;

use engine::{Options, ScrubPolicy};
use world_sim::Rng;

/// Sizes of a pool and settings of its engine.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Drives.
    pub drives: usize,
    /// Bytes of each.
    pub drive_bytes: u64,
    /// Bytes of a stripe unit, header included.
    pub unit_bytes: u32,
    /// Most data units of a stripe.
    pub data_width_max: u8,
    /// Bytes of an extent; 0 lets the group choose.
    pub extent_bytes: u64,
    /// Journal legs.
    pub legs: usize,
    /// Bytes of each.
    pub leg_bytes: u64,
    /// Settings of the engine.
    pub options: Options,
}

impl Shape {
    /// The shape of a seed.
    pub fn draw(rng: &mut Rng) -> Shape {
        let unit_bytes = 4096 * if rng.percent(30) { 33 } else { rng.between(4, 20) as u32 };
        let drives = rng.between(5, 12) as usize;
        let drive_bytes = (6 << 20) + rng.below(24) * (256 << 10) + u64::from(unit_bytes) * 64;
        Shape {
            drives,
            drive_bytes: drive_bytes.next_multiple_of(4096),
            unit_bytes,
            data_width_max: rng.between(2, 10) as u8,
            extent_bytes: if rng.percent(50) { 0 } else { u64::from(unit_bytes) * rng.between(2, 8) },
            legs: if rng.percent(75) { 2 } else { 1 },
            leg_bytes: rng.between(2, 6) << 19,
            options: draw_options(rng),
        }
    }
}

fn draw_options(rng: &mut Rng) -> Options {
    Options {
        cache_bytes: rng.between(16, 128) * 8192,
        cached_pages: rng.between(8, 200) as usize,
        fingerprints: 64 << rng.below(7),
        dedup: rng.percent(70),
        compress: rng.percent(70),
        destage_blocks: 1 << rng.below(8),
        stripes_in_flight: rng.between(1, 4) as usize,
        checkpoint_every: Duration::from_millis(20 << rng.below(7)),
        tick: Duration::from_millis(5 << rng.below(6)),
        deltas_kept: rng.between(1, 16) as usize,
        usage_places_max: 1 << rng.below(9),
        usage_object_bytes: 60 << rng.below(11),
        journal: journal::Config { gather_bytes: 1 << rng.between(9, 15), ..journal::Config::default() },
        rebuild_in_flight: rng.between(1, 5) as usize,
        scrub: Some(ScrubPolicy {
            full_pass: Duration::from_millis(100 << rng.below(8)),
            interval_min: Duration::from_millis(1 << rng.below(6)),
            read_back_after: rng.percent(30).then(|| Duration::from_millis(20 << rng.below(4))),
        }),
        ..Options::default()
    }
}

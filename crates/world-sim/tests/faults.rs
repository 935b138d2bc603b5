//! The atlas keeps its budget whatever a storm of drawn faults tries.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use base::BufMut;
use world_sim::fault::{FAULT_CLASSES, FaultClass};
use world_sim::{Atlas, FaultPlan, FaultRates, Rng, RunEnd, SimMedia, SimWorld};

const ROW_BYTES: u64 = 64 << 10;
const ROWS: u64 = 16;
const DRIVES: usize = 6;

fn page(byte: u8) -> base::Buf {
    let mut buf = BufMut::zeroed(4096);
    buf.fill(byte);
    buf.freeze()
}

fn drives(sim: &SimWorld) -> Vec<SimMedia> {
    (0..DRIVES).map(|index| sim.drive_media(&format!("d{index}"), ROWS * ROW_BYTES)).collect()
}

/// Damaged units of each row, counted by reading: a page whose bytes are not what was
/// last acknowledged, or that cannot be read.
fn wrong_units(sim: &SimWorld, media: &[SimMedia], truth: &[BTreeMap<u64, u8>]) -> BTreeMap<u64, BTreeSet<usize>> {
    let node = sim.node();
    let mut wrong: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
    for (index, media) in media.iter().enumerate() {
        media.set_rates(FaultRates::default(), None);
        media.set_slow(1);
        let drive = node.drive(media);
        for (&at, &byte) in &truth[index] {
            let end = sim.run_until(drive.read(at, BufMut::zeroed(4096)));
            let right = matches!(end, RunEnd::Done((Ok(()), buf)) if buf.iter().all(|&found| found == byte));
            if !right {
                wrong.entry(at / ROW_BYTES).or_default().insert(index);
            }
        }
    }
    wrong
}

/// Runs writes, reads, flushes and strikes; returns what was acknowledged and what struck.
fn storm(
    sim: &SimWorld,
    media: &[SimMedia],
    atlas: &Atlas,
    rng: &mut Rng,
) -> (Vec<BTreeMap<u64, u8>>, BTreeSet<FaultClass>) {
    let mut plan = FaultPlan::draw(rng);
    plan.apply_rates(media, atlas);
    let node = sim.node();
    let opened: Vec<_> = media.iter().map(|media| node.drive(media)).collect();
    let (mut truth, mut struck) = (vec![BTreeMap::new(); DRIVES], BTreeSet::new());
    for round in 0..600u64 {
        let index = rng.index(DRIVES);
        let at = rng.below(ROWS * ROW_BYTES / 4096) * 4096;
        if round > 100 && rng.percent(20) {
            struck.extend(plan.strike(media, atlas, rng).map(|(class, _)| class));
        } else if rng.percent(70) {
            let byte = rng.between(1, 255) as u8;
            match sim.run_until(opened[index].write(at, vec![page(byte)])) {
                RunEnd::Done(Ok(())) => drop(truth[index].insert(at, byte)),
                // Unknown until written again: not part of the truth.
                _ => drop(truth[index].remove(&at)),
            }
        } else {
            let _ = sim.run_until(opened[index].read(at, BufMut::zeroed(4096)));
            let _ = sim.run_until(opened[index].flush());
        }
    }
    (truth, struck)
}

#[test]
fn no_storm_damages_more_units_of_a_row_than_the_budget() {
    let (mut struck, mut rows_hurt, mut full_rows) = (BTreeSet::new(), 0, 0);
    for seed in 0..120 {
        let sim = SimWorld::new(seed);
        let media = drives(&sim);
        let atlas = Atlas::aligned_rows(&media, 2, ROW_BYTES);
        let mut rng = sim.rng("storm");
        let (truth, classes) = storm(&sim, &media, &atlas, &mut rng);
        struck.extend(classes);
        assert!(atlas.worst_row() <= 2, "seed {seed}: the atlas itself counts {}", atlas.worst_row());
        let wrong = wrong_units(&sim, &media, &truth);
        rows_hurt += wrong.len();
        full_rows += wrong.values().filter(|drives| drives.len() == 2).count();
        let worst = wrong.values().map(BTreeSet::len).max().unwrap_or(0);
        assert!(worst <= 2, "seed {seed}: {wrong:?}");
    }
    assert_eq!(struck.len(), FAULT_CLASSES.len(), "every class struck: {struck:?}");
    assert!(rows_hurt > 100 && full_rows > 20, "storms hurt: {rows_hurt} rows, {full_rows} to the limit");
}

#[test]
fn damage_that_was_rewritten_gives_room_for_more() {
    let sim = SimWorld::new(1);
    let media = drives(&sim);
    let atlas = Atlas::aligned_rows(&media, 2, ROW_BYTES);
    media[0].flip(100, 1);
    media[1].make_unreadable(4096..8192);
    assert!(!atlas.admits(2, 0..512), "two of row 0 are damaged");
    assert!(atlas.admits(2, ROW_BYTES..ROW_BYTES + 1), "row 1 is fine");
    assert!(atlas.admits(0, 8192..8193), "more damage to a damaged unit is no more");
    assert!(!atlas.admits_loss(2));
    let node = sim.node();
    sim.run_until(node.drive(&media[0]).write(0, vec![page(1)])).done().unwrap();
    assert!(atlas.admits(2, 0..512), "the rewrite healed it");
    media[3].set_gone(true);
    assert!(!atlas.admits(2, 0..512), "a lost drive counts in every row");
    let whole = Atlas::whole_drives(&media, 1);
    assert!(!whole.admits(5, 0..1));
}

#[test]
fn a_lying_flush_shows_at_the_power_cut() {
    let mut lost = 0;
    for seed in 0..40 {
        let sim = SimWorld::new(seed);
        let media = sim.drive_media("d", 1 << 20);
        let node = sim.node();
        let drive = node.drive(&media);
        media.set_flush_lies(true);
        sim.run_until(async {
            drive.write(0, vec![page(1)]).await.unwrap();
            drive.flush().await.unwrap();
        })
        .done();
        node.kill();
        media.power_cut();
        let wrong = media.peek(0, 4096).iter().any(|&byte| byte != 1);
        assert_eq!(wrong, !media.damaged().is_empty(), "what was promised and lost is damage");
        lost += usize::from(wrong);
    }
    assert!(lost > 10, "{lost} of 40");
}

#[test]
fn a_storm_with_crashes_has_one_digest_per_seed() {
    let digest = |seed: u64| {
        let sim = SimWorld::new(seed);
        let media = drives(&sim);
        let atlas = Atlas::aligned_rows(&media, 2, ROW_BYTES);
        let mut rng = sim.rng("storm");
        for _ in 0..2 {
            storm(&sim, &media, &atlas, &mut rng);
            for media in &media {
                if rng.percent(50) { media.power_cut() } else { media.process_crash() }
            }
        }
        for media in &media {
            sim.note("content", [base::media_check(0, &media.peek(0, (ROWS * ROW_BYTES) as usize)).0, 0, 0, 0]);
        }
        (sim.digest().value(), sim.digest().event_count())
    };
    for seed in 0..10 {
        let (first, second) = (digest(seed), digest(seed));
        assert_eq!(first, second, "seed {seed}");
        assert!(first.1 > 1000, "a storm is many events: {}", first.1);
    }
}

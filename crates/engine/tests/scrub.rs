//! The scrub at work by itself: nobody reads, and damage is found, repaired and told.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod pool;

use std::collections::BTreeMap;
use std::time::Duration;

use base::FileId;
use engine::{Event, ScrubPolicy, Store};
use pool::{Pool, bytes_of, content_in, write_blocks};
use raid::StripeId;
use raid::unit::UnitHeader;
use world_sim::node::sleep_for;
use world_sim::{OneShot, SimMedia, SimNode};

const MIB: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 3600);

const FAST: ScrubPolicy =
    ScrubPolicy { full_pass: Duration::from_secs(60), interval_min: Duration::from_millis(5), read_back_after: None };

/// A pool with a file of `blocks` blocks on media, closed again.
fn start(seed: u64, policy: ScrubPolicy, blocks: u64) -> (Pool, FileId) {
    let mut pool = Pool::new(seed, 6, 24 * MIB);
    let file = pool.format_with_file(blocks);
    pool.options.scrub = Some(policy);
    (pool, file)
}

/// Newest units on `media`, by stripe, with generation and offset.
fn units_on(media: &SimMedia) -> BTreeMap<StripeId, (u64, u64)> {
    let mut found = BTreeMap::new();
    for offset in (MIB..24 * MIB).step_by(4096) {
        if let Ok(header) = UnitHeader::decode(&media.peek(offset, 512)) {
            let newest = found.entry(header.stripe).or_insert((0, 0));
            *newest = (*newest).max((header.generation, offset));
        }
    }
    found
}

async fn sleep(node: &SimNode, time: Duration) {
    sleep_for(node.world().clock.as_ref(), time).await;
}

/// Decides R-SCR-01: errors in data that no client reads are found in one pass, repaired on
/// media, and counted.
#[test]
fn cold_damage_is_healed_without_a_read() {
    let (pool, _) = start(1, FAST, 400);
    let victims: Vec<(StripeId, u64)> =
        units_on(&pool.drives[1]).into_iter().map(|(id, (_, offset))| (id, offset)).collect();
    for (_, offset) in &victims {
        pool.drives[1].flip(offset + 512 + 3000, 0x10);
    }
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            engine.take_events();
            while engine.scrub_status().history.is_empty() {
                sleep(&node, Duration::from_millis(500)).await;
            }
            let pass = engine.scrub_status().history[0];
            assert_eq!(engine.counters().objects_read, 0, "nobody read");
            assert!(pass.found.units_repaired > 0, "{pass:?}");
            assert_eq!((pass.found.units_unrepaired, pass.found.stripes_lost), (0, 0));
            assert!(engine.take_events().contains(&Event::ScrubDone { found: pass.found }));
            let again = engine.scrub().await.unwrap();
            assert_eq!((again.units_repaired, again.units_unrepaired, again.objects_damaged), (0, 0, 0));
        })
        .done();
}

/// Decides R-SCR-04: stripes are read at a fixed interval, the pass takes the time it is
/// given, and says how long it took; a restart goes on where it was.
#[test]
fn stripes_are_read_at_fixed_intervals_and_the_pass_takes_its_time() {
    let (pool, _) = start(2, FAST, 400);
    let node = pool.world.node();
    let half = pool
        .world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            let clock = node.world().clock;
            let mut steps = vec![];
            while steps.len() < 12 {
                let before = engine.scrub_status().stripes_done;
                while engine.scrub_status().stripes_done == before {
                    sleep(&node, Duration::from_millis(1)).await;
                }
                steps.push(clock.now());
            }
            let gaps: Vec<Duration> = steps.windows(2).map(|pair| pair[1].since(pair[0])).collect();
            let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
            assert!(*most < *least + Duration::from_millis(60), "intervals jitter: {gaps:?}");
            let status = engine.scrub_status();
            let whole = *least * u32::try_from(status.stripes_total).unwrap();
            assert!(whole > FAST.full_pass / 2 && whole < FAST.full_pass * 11 / 10, "a pass would take {whole:?}");
            // Longer than the record is allowed to lag.
            sleep(&node, Duration::from_secs(32)).await;
            engine.scrub_status()
        })
        .done();
    pool.cut_power(&node);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            let resumed = engine.scrub_status();
            assert_eq!(resumed.pass.number, half.pass.number);
            assert!(resumed.stripes_done > 0, "it does not begin anew");
            while engine.scrub_status().history.is_empty() {
                assert!(!engine.scrub_status().overdue);
                sleep(&node, Duration::from_millis(500)).await;
            }
            let pass = engine.scrub_status().history[0];
            let took = Duration::from_nanos(pass.ended.0 - pass.started.0);
            assert!(took > FAST.full_pass / 2 && took <= FAST.full_pass * 11 / 10, "{took:?}");
        })
        .done();
}

/// Decides R-SCR-03: on disks a pass over everything is made each week by itself.
#[test]
fn disks_are_verified_each_week() {
    let (mut pool, _) = start(3, ScrubPolicy { read_back_after: None, ..ScrubPolicy::DISK }, 400);
    // A quiet pool over weeks: nothing else to simulate.
    pool.options.tick = DAY;
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            for week in 1..=3 {
                sleep(&node, 7 * DAY).await;
                let status = engine.scrub_status();
                assert!(status.history.len() >= week, "{week} weeks, {:?}", status.history);
                assert!(!status.overdue);
            }
            for pass in engine.scrub_status().history {
                assert!(Duration::from_nanos(pass.ended.0 - pass.started.0) <= 7 * DAY);
            }
        })
        .done();
}

/// Decides R-SCR-02: what is written is read back soon; an error of the write path is
/// healed before a client can meet it, and how late that may be is known.
#[test]
fn what_is_written_is_read_back_soon() {
    let after = Duration::from_millis(300);
    let policy = ScrubPolicy { full_pass: 7 * DAY, read_back_after: Some(after), ..FAST };
    let (pool, file) = start(4, policy, 200);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            engine.checkpoint().await.unwrap();
            sleep(&node, Duration::from_secs(2)).await;
            let before = engine.counters();
            write_blocks(&engine, file, 0..100, 1).await;
            pool.drives[2].arm(OneShot::LostWrite);
            pool.drives[4].arm(OneShot::TornWrite(0x55));
            engine.checkpoint().await.unwrap();
            let mut worst = Duration::ZERO;
            for _ in 0..400 {
                worst = worst.max(engine.scrub_status().fresh_lag);
                sleep(&node, Duration::from_millis(5)).await;
            }
            assert!(worst <= after * 3 / 2, "lag {worst:?}");
            let counters = engine.counters();
            assert!(counters.stripes_read_back > before.stripes_read_back);
            assert!(counters.units_repaired_on_read_back >= 1, "{counters:?}");
            assert_eq!(counters.objects_read, before.objects_read, "before any client read");
            for block in 0..100 {
                let read = engine.read(file, block * 8192, 8192).await.unwrap();
                assert!(bytes_of(&read) == content_in(file, block, 1));
            }
        })
        .done();
}

/// Decides R-SCR-02, R-SCR-03: one drive that is a disk is enough. What is written is read back within a minute and
/// all is verified each week, without anybody asking; flash alone has two weeks.
#[test]
fn a_pool_with_a_disk_is_read_back_and_verified_each_week() {
    for is_disk in [true, false] {
        let mut pool = Pool::new(7, 6, 24 * MIB);
        let file = pool.format_with_file(200);
        pool.drives[3].set_turns(is_disk);
        pool.options.tick = Duration::from_secs(1);
        let node = pool.world.node();
        pool.world
            .run_until(async {
                let (engine, _) = pool.open(&node).await;
                assert_eq!(engine.group().has_disks(), is_disk);
                write_blocks(&engine, file, 0..100, 1).await;
                engine.checkpoint().await.unwrap();
                let mut worst = Duration::ZERO;
                for _ in 0..60 {
                    sleep(&node, Duration::from_secs(1)).await;
                    worst = worst.max(engine.scrub_status().fresh_lag);
                }
                let read_back = engine.counters().stripes_read_back;
                assert_eq!((read_back > 0, engine.scrub_status().fresh), (is_disk, 0));
                assert!(worst <= Duration::from_secs(35), "lag {worst:?}");
                let status = engine.scrub_status();
                let planned = status.interval * (status.stripes_total - status.stripes_done) as u32;
                assert_eq!(planned <= 7 * DAY, is_disk, "{planned:?} for a pass");
                sleep(&node, 7 * DAY).await;
                assert!(!engine.scrub_status().history.is_empty() && !engine.scrub_status().overdue);
            })
            .done();
    }
}

/// Decides R-SCR-05: wrong bytes that were written with right unit checks and parity are
/// found by recomputing the objects.
#[test]
fn an_error_that_unit_checks_hide_is_found_by_the_objects() {
    let (pool, _) = start(5, FAST, 400);
    let stripes = units_on(&pool.drives[0]);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            assert_eq!(engine.scrub().await.unwrap().objects_damaged, 0);
            let group = engine.group();
            let (id, generation, mut units) = 'found: {
                for (&id, &(generation, _)) in &stripes {
                    if let Ok(units) = group.read_stripe(id, generation).await {
                        break 'found (id, generation, units);
                    }
                }
                panic!("no stripe is readable");
            };
            // The stripe again, as a whole and with checks that fit, but for one byte.
            let whole = units.drain(..).enumerate().map(|(index, payload)| {
                let mut unit = group.take_unit();
                unit[raid::UNIT_HEADER_BYTES..].copy_from_slice(&payload);
                if index == 0 {
                    unit[raid::UNIT_HEADER_BYTES + 200] ^= 1;
                }
                unit
            });
            group.write_stripe(id, generation, whole.collect()).await.unwrap();
            assert!(group.scrub_stripe(id, generation).await.is_clean(), "the units see nothing");
            let found = engine.scrub().await.unwrap();
            assert!(found.objects_damaged >= 1, "{found:?}");
            let told = |event: &Event| matches!(event, Event::ObjectDamaged { stripe, .. } if *stripe == id);
            assert!(engine.take_events().iter().any(told));
        })
        .done();
}

/// Pause holds, also over a restart; a pass that is asked for runs at the floor.
#[test]
fn it_can_be_paused_and_asked_for() {
    let slow = ScrubPolicy { full_pass: 7 * DAY, ..FAST };
    let (pool, _) = start(6, slow, 400);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            engine.scrub_pause(true).await;
            sleep(&node, Duration::from_secs(5)).await;
            assert_eq!(engine.scrub_status().stripes_done, 0);
        })
        .done();
    pool.cut_power(&node);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            assert!(engine.scrub_status().paused);
            let begun = node.world().clock.now();
            engine.scrub_start().await;
            let total = engine.scrub_status().stripes_total;
            let mut done = 0;
            while engine.scrub_status().history.is_empty() {
                let status = engine.scrub_status();
                assert!(status.stripes_done >= done, "never backwards");
                done = status.stripes_done;
                sleep(&node, Duration::from_millis(20)).await;
            }
            let took = node.world().clock.now().since(begun);
            assert!(took < Duration::from_secs(600), "at the floor, not in a week: {took:?}");
            assert!(engine.scrub_status().history[0].found.stripes >= total * 9 / 10);
        })
        .done();
}

/// Whoever asks for a pass because something may be wrong wants all of it looked at, and not the
/// rest of a pass that has been over it before.
#[test]
fn a_pass_that_is_asked_for_looks_at_everything_again() {
    let (pool, _) = start(7, FAST, 400);
    let node = pool.world.node();
    pool.world
        .run_until(async {
            let (engine, _) = pool.open(&node).await;
            while engine.scrub_status().stripes_done < 3 {
                sleep(&node, Duration::from_millis(2)).await;
            }
            let (_, (_, offset)) = units_on(&pool.drives[1]).into_iter().next().unwrap();
            pool.drives[1].flip(offset + 512 + 3000, 0x10);
            engine.scrub_start().await;
            let asked = engine.scrub_status().pass.number;
            engine.scrub_start().await;
            assert_eq!(engine.scrub_status().pass.number, asked, "it goes on");
            while engine.scrub_status().history.is_empty() {
                sleep(&node, Duration::from_millis(20)).await;
            }
            let done = engine.scrub_status().history[0];
            assert!(done.number == asked && done.asked_for && done.found.units_repaired == 1, "{done:?}");
        })
        .done();
}

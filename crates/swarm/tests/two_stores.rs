//! Two real stores of one pair: engines with drives and journals, `replica` over each, and between
//! them a link that loses frames, is cut and comes back. Power cuts of either or both, at any step.
//!
//! What must hold: an acknowledged operation is there, one without an answer happened whole or not
//! at all, and after everything is mended both sites hold the same: files, sizes, times, rows,
//! bytes and content sums.
#![allow(clippy::unwrap_used, reason = "tests")]

mod pair;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use base::WallNanos;
use engine::Store;
use engine::store::Change;
use pair::{Pair, Seen};

/// So many that each kind of crash is seen.
const SEEDS: u64 = 150;

fn seeds(usual: u64) -> u64 {
    std::env::var("VMHOLD_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(usual)
}

fn run(seed: u64) -> Seen {
    let judged = catch_unwind(AssertUnwindSafe(|| Pair::run(seed)));
    judged.unwrap_or_else(|_| {
        panic!("seed {seed}: see above; again: VMHOLD_SEED={seed} cargo test -p swarm --test two_stores one_seed")
    })
}

/// Decides R-REPL-06, R-REPL-11, R-REPL-12, R-REPL-14, R-REPL-18, R-2PC-01.
#[test]
fn nothing_acknowledged_is_lost_and_both_stores_end_equal() {
    let mut seen = Seen::default();
    for seed in 0..seeds(SEEDS) {
        seen.add(&run(seed));
    }
    println!("{seen:?}");
    let enough = [seen.crashes_of_primary, seen.crashes_of_secondary, seen.crashes_of_both, seen.links - SEEDS];
    assert!(enough.iter().all(|count| *count > 3), "{seen:?}");
    assert!(seen.compared > 8 && seen.acknowledged > 1000 && seen.left_alone > 0, "{seen:?}");
}

#[test]
fn one_seed() {
    let seed = std::env::var("VMHOLD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    println!("{:?}", run(seed));
}

/// What is in flight stays listed when its record has left the journal for the trees, over a
/// crash of both; what the other site lacks is sent when they meet. Decides R-REPL-13, R-REPL-15, R-REPL-16.
#[test]
fn the_map_survives_a_checkpoint_and_a_crash() {
    const WRITES: u64 = 40;
    let pair = Pair::new(7);
    pair.until(async || {
        pair.meet().await;
        let store = pair.primary().await;
        let file = store.next_file_id();
        let at = WallNanos(1);
        store.commit(vec![Change::CreateFile { file, at }]).await.unwrap();
        store.write(file, 0, &[&[1; 8192]], at).await.unwrap();
        pair.idle().await;
        // Frames to the other site are lost from here on.
        pair.cut(Duration::from_secs(3));
        for block in 0..WRITES {
            let (store, bytes) = (store.clone(), [block as u8 + 2; 8192]);
            pair.beside(async move {
                let _ = store.write(file, block * 8192, &[&bytes], WallNanos(9)).await;
            });
        }
        pair.sleep(Duration::from_millis(200)).await;
        pair.engine(0).checkpoint().await.unwrap();
        let listed = |pair: &Pair| pair.with(0, |mirror| mirror.kept().flights.count() as u64);
        assert_eq!(listed(&pair), WRITES);
        assert!(pair.head(1, file).await.size_bytes < WRITES * 8192, "the other site lacks them");
        drop(store);
        pair.power_cut(0);
        pair.power_cut(1);
        pair.reopen(0).await;
        assert_eq!(listed(&pair), WRITES, "from the trees: no entry was lost");
        pair.reopen(1).await;
        pair.meet().await;
        pair.idle().await;
        assert_eq!(listed(&pair), 0);
        assert_eq!(pair.head(1, file).await.size_bytes, WRITES * 8192, "sent");
        pair.assert_equal(&[file]).await;
    });
}

/// One write, and both lose power at each step of it. Decides R-REPL-17 on real stores.
#[test]
fn a_crash_of_both_at_each_step_of_a_write_and_of_a_commit() {
    let mut outcomes = [0; 2];
    for step in (0..).step_by(7) {
        let pair = Pair::new(3);
        let file = pair.until(async || {
            pair.meet().await;
            let store = pair.primary().await;
            let file = store.next_file_id();
            store.commit(vec![Change::CreateFile { file, at: WallNanos(1) }]).await.unwrap();
            store.write(file, 0, &[&[1; 20_000]], WallNanos(2)).await.unwrap();
            pair.idle().await;
            file
        });
        let is_done = pair.crash_both_within(step, async |store| {
            store.write(file, 5000, &[&[2; 9000]], WallNanos(3)).await.unwrap();
            let changes = vec![
                Change::SetSize { file, size_bytes: 12_345 },
                Change::Put { table: engine::store::Table(9), key: vec![1], value: vec![step as u8 | 1; 700] },
            ];
            store.commit(changes).await.unwrap();
        });
        pair.until(async || {
            pair.reopen(0).await;
            pair.reopen(1).await;
            pair.meet().await;
            pair.idle().await;
            let head = pair.head(0, file).await;
            let cut = head.size_bytes == 12_345;
            outcomes[usize::from(cut)] += 1;
            assert!(cut || !is_done, "what was acknowledged is there");
            pair.assert_equal(&[file]).await;
        });
        if is_done {
            break;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

//! A site of a pair of real stores was away, was taken over from, is blank, or holds something else; and
//! comes back while the other one serves.
#![allow(clippy::unwrap_used, reason = "tests")]

mod pair;

use std::time::Duration;

use base::{FileId, SiteId};
use engine::Store;
use engine::store::{Change, LOCAL_FILES};
use mirror::Command;
use pair::Pair;
use pair::files::{BLOCK, NAMES, at, content, create, name};
use replica::Replica;
use swarm::client::{Client, bytes_of};

/// A pair whose secondary is off, and the primary alone; with three files.
async fn alone(pair: &Pair) -> (Replica, [FileId; 3]) {
    pair.meet().await;
    let store = pair.primary().await;
    let files = [create(&store, 8).await, create(&store, 20).await, create(&store, 12).await];
    pair.idle().await;
    pair.power_cut(1);
    pair.alone().await;
    (store, files)
}

/// The secondary is back and both are in sync.
async fn back(pair: &Pair) {
    pair.reopen(1).await;
    pair.meet().await;
}

/// All kinds of things happen while the secondary is away: it has them all when it is back, what was
/// removed is removed, and after the loss of the primary it serves them. Decides R-RSYNC-02, R-RSYNC-05,
/// R-RSYNC-09.
#[test]
fn what_happened_while_a_site_was_away_is_there_when_it_is_back() {
    let pair = Pair::hasty(1);
    pair.until(async || {
        let (store, [one, other, third]) = alone(&pair).await;
        store.write(one, 3 * BLOCK as u64 + 11, &[&content(50, 2)], at(5)).await.unwrap();
        store.commit(vec![Change::SetSize { file: other, size_bytes: 5 * BLOCK as u64 + 3 }]).await.unwrap();
        store.write(other, 15 * BLOCK as u64, &[b"behind what was cut off"], at(6)).await.unwrap();
        let swap = vec![name(one.0 as u8, "the other's"), name(other.0 as u8, "the first's")];
        store.commit(swap).await.unwrap();
        let (snapshot, copy, map) = (store.next_file_id(), store.next_file_id(), store.next_file_id());
        store.commit(vec![Change::Snapshot { file: one, snapshot }]).await.unwrap();
        store.commit(vec![Change::Clone { snapshot, file: copy, at: at(8) }]).await.unwrap();
        store.write(copy, 0, &[b"the copy's own"], at(9)).await.unwrap();
        store.write(one, 0, &[b"written and rolled back"], at(10)).await.unwrap();
        store.commit(vec![Change::Rollback { file: one, snapshot, map, at: at(11) }]).await.unwrap();
        let gone = Change::Delete { table: NAMES, key: vec![third.0 as u8] };
        store.commit(vec![Change::DropFile { file: third }, gone]).await.unwrap();
        let new = create(&store, 30).await;
        back(&pair).await;
        pair.assert_same().await;
        let expected = pair.files(0).await;
        assert_eq!(expected.iter().map(|(file, ..)| *file).collect::<Vec<_>>(), [one, other, snapshot, copy, new]);
        pair.tidy().await;

        drop(store);
        pair.power_cut(0);
        let store = pair.primary().await;
        assert_eq!(pair.files(1).await, expected, "all that was acknowledged is served");
        assert!(store.next_file_id() > new, "ids go on rising");
        store.write(one, 0, &[b"the secondary's own"], at(20)).await.unwrap();
        create(&store, 3).await;
        pair.reopen(0).await;
        pair.meet().await;
        pair.assert_same().await;
    });
}

/// What is sent follows what was changed: blocks of two files of many, and not what is there.
/// Decides R-REPL-08, R-RSYNC-10, R-RSYNC-11 for one outage.
#[test]
fn only_what_was_changed_is_sent() {
    let pair = Pair::hasty(2);
    pair.until(async || {
        let (store, [one, other, _]) = alone(&pair).await;
        for block in [1, 2, 5] {
            store.write(one, block * BLOCK as u64, &[&content(60 + block, 1)], at(5)).await.unwrap();
        }
        store.write(other, 7 * BLOCK as u64, &[&content(70, 6)], at(6)).await.unwrap();
        // As it was: nobody has to be told.
        store.write(other, 0, &[&content(other.0, 20)[..BLOCK]], at(7)).await.unwrap();
        back(&pair).await;
        let counters = pair.resynced(0);
        let changed = 9 * BLOCK as u64;
        assert_eq!((counters.files, counters.data_bytes), (2, changed), "{counters:?}");
        assert_eq!(counters.compared_bytes, changed + BLOCK as u64);
        assert!(counters.sent_bytes < changed * 11 / 10, "{counters:?}");
        pair.assert_same().await;
    });
}

/// A snapshot of each file that can be written to, all of the moment of going alone, whatever is written
/// afterwards; none is left when both are in sync again. Decides R-RSYNC-04.
#[test]
fn going_alone_takes_one_snapshot_of_each_file() {
    let pair = Pair::hasty(10);
    pair.until(async || {
        pair.meet().await;
        let store = pair.primary().await;
        let files = [create(&store, 3).await, create(&store, 2).await];
        let user = store.next_file_id();
        store.commit(vec![Change::Snapshot { file: files[0], snapshot: user }]).await.unwrap();
        store.write(files[0], 0, &[&content(5, 1)], at(5)).await.unwrap();
        pair.idle().await;
        let then = pair.files(0).await;
        pair.power_cut(1);
        pair.alone().await;
        for file in files {
            store.write(file, 0, &[&content(6, 2)], at(6)).await.unwrap();
        }
        let later = create(&store, 1).await;
        let bases: Vec<_> = pair.local(0).await;
        let shown: Vec<_> = bases.iter().map(|(base, ..)| FileId(base.0 - LOCAL_FILES.0)).collect();
        assert_eq!(shown, files, "not of the snapshot, nor of file {later}, which is newer");
        for (file, (_, frozen, bytes)) in files.iter().zip(&bases) {
            let held = then.iter().find(|(known, ..)| known == file).unwrap();
            assert!(*frozen && *bytes == held.2, "as file {file} was then");
        }
        back(&pair).await;
        pair.assert_same().await;
        pair.tidy().await;
    });
}

/// A file of a terabyte, nearly all of it holes, of which a mebibyte was written: looking costs what was
/// written. Decides R-RSYNC-06.
#[test]
fn a_terabyte_of_holes_costs_nothing() {
    let pair = Pair::hasty(12);
    pair.until(async || {
        let (store, [file, ..]) = alone(&pair).await;
        store.commit(vec![Change::SetSize { file, size_bytes: 1 << 40 }]).await.unwrap();
        let far = 777 << 30;
        for part in 0..2 {
            store.write(file, far + part * 64 * BLOCK as u64, &[&content(7 + part, 64)], at(6)).await.unwrap();
        }
        back(&pair).await;
        let counters = pair.resynced(0);
        let written = 128 * BLOCK as u64;
        assert!(counters.compared_bytes <= written + BLOCK as u64 && counters.data_bytes == written, "{counters:?}");
        let [one, other] = [pair.engine(0), pair.engine(1)];
        let heads = [one.head(file).await.unwrap().unwrap(), other.head(file).await.unwrap().unwrap()];
        assert_eq!(heads[0].size_bytes, heads[1].size_bytes);
        let there = bytes_of(&other.read(file, far, 64 * BLOCK).await.unwrap());
        assert!(there == content(7, 64), "the far end is there");
    });
}

/// A resync that is cut off again and again, in all of its parts, sends nothing twice: in the end not a tenth
/// more than what was changed. Decides R-RSYNC-14 as far as decision 0053 goes: what a restart costs.
#[test]
fn a_resync_that_is_cut_off_sends_nothing_twice() {
    let pair = Pair::hasty(3);
    pair.until(async || {
        let (store, files) = alone(&pair).await;
        let mut changed = 0;
        for (number, file) in files.into_iter().cycle().take(12).enumerate() {
            store
                .write(file, number as u64 * 90 * BLOCK as u64, &[&content(80 + number as u64, 80)], at(5))
                .await
                .unwrap();
            changed += 80 * BLOCK as u64;
        }
        pair.reopen(1).await;
        let mut cut_off = 0;
        while !pair.is_in_sync() {
            let before = pair.resynced(0);
            while pair.resynced(0).sent_bytes < before.sent_bytes + changed / 4 && !pair.is_in_sync() {
                pair.sleep(Duration::from_micros(200)).await;
            }
            if !pair.is_in_sync() {
                cut_off += 1;
                pair.cut(Duration::from_millis(100));
                pair.sleep(Duration::from_millis(150)).await;
            }
        }
        let counters = pair.resynced(0);
        println!("cut off {cut_off} times, {changed} bytes changed: {counters:?}");
        assert!(cut_off >= 3 && counters.done == 1, "cut off {cut_off} times: {counters:?}");
        pair.meet().await;
        pair.assert_same().await;
        // What was on its way when the link was cut is the only thing sent again.
        assert!(counters.sent_bytes <= changed * 11 / 10, "{changed} bytes changed: {counters:?}");
    });
}

/// While a resync runs, changes are at both when they are acknowledged, as is what is written to files that it
/// has reached and to new ones. Files are reached in the order of their ids. Decides R-RSYNC-13, R-RSYNC-15,
/// R-RSYNC-17.
#[test]
fn clients_are_served_while_a_resync_runs_and_both_end_equal() {
    let pair = Pair::hasty(4);
    pair.until(async || {
        let (store, files) = alone(&pair).await;
        for (number, file) in files.into_iter().enumerate() {
            store.write(file, 0, &[&content(90 + number as u64, 80)], at(5)).await.unwrap();
        }
        pair.reopen(1).await;
        let (mut at_both, mut round, mut last) = (0, 0, None);
        while !pair.is_in_sync() {
            round += 1;
            let reached = pair.with(0, mirror::Mirror::resync_reached);
            assert!(reached >= last, "{reached:?} after {last:?}");
            last = reached;
            let file = files[round as usize % 3];
            store.write(file, round % 80 * BLOCK as u64, &[&content(1000 + round, 1)], at(round)).await.unwrap();
            let value = round.to_le_bytes().to_vec();
            let anew = Change::Put { table: NAMES, key: vec![200], value: value.clone() };
            // Somewhere among those that were compared, or will be.
            let key = [&[201][..], &(round * 7919 % 10_007).to_be_bytes()].concat();
            let changes = vec![anew, Change::Put { table: NAMES, key, value }];
            store.commit(changes).await.unwrap();
            let reached = pair.with(0, mirror::Mirror::resync_reached);
            if reached.is_some() && pair.replica(1).is_some() {
                at_both += 1;
                let is_there = pair.with(1, |mirror| mirror.kept().commits.len() + mirror.kept().prepared.len() > 0);
                let row = pair.engine(1).get(NAMES, &[200]).await.unwrap();
                assert!(is_there || row.unwrap() == round.to_le_bytes()[..], "round {round}");
                let new = create(&store, 1).await;
                let head = pair.engine(1).head(new).await.unwrap();
                assert_eq!(head.unwrap().size_bytes, BLOCK as u64, "a new file is at both");
            }
        }
        println!("{round} rounds, {at_both} while files were compared");
        assert!(at_both > 3, "{round} rounds, {at_both} while files were compared");
        pair.meet().await;
        pair.assert_same().await;
    });
}

/// A resync may take so much of the link, which it gets beside clients that write all the time, and no
/// more: it ends within twice the time that what was changed takes. Decides R-RSYNC-07.
#[test]
fn a_resync_ends_in_time_beside_clients_that_write() {
    const PER_SECOND: u64 = 2 << 20;
    let pair = Pair::paced(13, PER_SECOND);
    pair.until(async || {
        let (store, files) = alone(&pair).await;
        for (number, file) in files.into_iter().enumerate() {
            store.write(file, 0, &[&content(90 + number as u64, 80)], at(5)).await.unwrap();
            store.write(file, 80 * BLOCK as u64, &[&content(95 + number as u64, 80)], at(5)).await.unwrap();
        }
        let changed = 3 * 160 * BLOCK as u64;
        pair.reopen(1).await;
        while pair.resynced(0).begun == 0 {
            pair.sleep(Duration::from_millis(1)).await;
        }
        let (begun, mut round) = (pair.now(), 0);
        while !pair.is_in_sync() {
            round += 1;
            let file = files[round as usize % 3];
            store.write(file, round % 160 * BLOCK as u64, &[&content(1000 + round, 1)], at(round)).await.unwrap();
        }
        let (took, least) = (pair.now().since(begun), Duration::from_millis(changed * 1000 / PER_SECOND));
        let counters = pair.resynced(0);
        println!("{took:?} where {least:?} would do, {round} writes meanwhile: {counters:?}");
        assert!(took <= least * 2 && took >= least / 2 && round > 100, "{took:?}, {round} writes: {counters:?}");
        assert_eq!(counters.done, 1);
        pair.meet().await;
        pair.assert_same().await;
    });
}

/// Snapshots, clones and roll-backs in the middle of a resync: of files that it has not come to, too.
#[test]
fn snapshots_that_are_taken_while_a_resync_runs_are_the_same_at_both() {
    let pair = Pair::hasty(5);
    pair.until(async || {
        let (store, [one, other, third]) = alone(&pair).await;
        let early = store.next_file_id();
        for (number, file) in [one, other, third].into_iter().enumerate() {
            store.write(file, 0, &[&content(90 + number as u64, 60)], at(5)).await.unwrap();
        }
        store.commit(vec![Change::Snapshot { file: third, snapshot: early }]).await.unwrap();
        store.write(third, 9 * BLOCK as u64, &[&content(7, 4)], at(6)).await.unwrap();
        pair.reopen(1).await;
        let mut taken = 0;
        while !pair.is_in_sync() {
            if pair.with(0, mirror::Mirror::resync_reached).is_none() || taken == 4 {
                pair.sleep(Duration::from_micros(100)).await;
                continue;
            }
            taken += 1;
            let [snapshot, copy, map] = [(); 3].map(|()| store.next_file_id());
            store.commit(vec![Change::Snapshot { file: third, snapshot }]).await.unwrap();
            store.write(third, taken * BLOCK as u64, &[&content(400 + taken, 2)], at(6)).await.unwrap();
            store.commit(vec![Change::Clone { snapshot, file: copy, at: at(7) }]).await.unwrap();
            store.write(copy, 5, &[b"its own"], at(8)).await.unwrap();
            store.commit(vec![Change::Rollback { file: one, snapshot, map, at: at(9) }]).await.unwrap();
        }
        assert!(taken > 1, "{taken} while files were compared");
        pair.meet().await;
        pair.assert_same().await;
        pair.tidy().await;
    });
}

/// The first copy to a blank site is the same: all of it is sent, once. Decides R-RSYNC-05 for what both never
/// had.
#[test]
fn a_blank_site_is_given_everything() {
    let pair = Pair::hasty(6);
    pair.until(async || {
        let (store, files) = alone(&pair).await;
        let snapshot = store.next_file_id();
        store.commit(vec![Change::Snapshot { file: files[0], snapshot }]).await.unwrap();
        store.write(files[0], 0, &[&content(5, 2)], at(7)).await.unwrap();
        pair.replace(1).await;
        back(&pair).await;
        pair.assert_same().await;
        let counters = pair.resynced(0);
        assert_eq!((counters.files, counters.foreign), (4, 0), "{counters:?}");
        drop(store);
        pair.power_cut(0);
        pair.primary().await;
        assert_eq!(pair.files(1).await.len(), 4);
    });
}

/// A site is lost for good and another one takes its place, by an administrator's word: it is given everything,
/// serves when the first one is lost, and the lost one is nobody when it comes back. Before the record
/// names the new one it is not made equal: what the record says then would be believed of the old one.
#[test]
fn another_site_takes_the_place_of_one_that_is_lost() {
    const THIRD: SiteId = SiteId([3; 16]);
    let pair = Pair::hasty(9);
    pair.until(async || {
        let (store, files) = alone(&pair).await;
        store.write(files[1], 0, &[&content(9, 4)], at(7)).await.unwrap();
        pair.replace_by(1, THIRD).await;
        pair.reopen(1).await;
        pair.sleep(Duration::from_secs(5)).await;
        assert_eq!((pair.standing().secondary, pair.is_in_sync()), (Some(pair::SITES[1]), false));
        assert_eq!(pair.files(1).await.len(), 0, "nobody asked for it");

        pair.command(0, Command::Leave);
        pair.command(0, Command::Join { secondary: THIRD });
        pair.meet().await;
        assert_eq!(pair.standing().secondary, Some(THIRD));
        pair.assert_same().await;
        store.write(files[0], 0, &[&content(10, 1)], at(8)).await.unwrap();
        let epoch = pair.standing().epoch;
        drop(store);
        pair.power_cut(0);
        pair.primary().await;
        assert_eq!((pair.standing().primary, pair.standing().epoch), (THIRD, epoch.next()));
        assert_eq!(pair.files(1).await.len(), 3);
    });
}

/// A store that holds something else is not written over, but when it is named. (T: the guard of a join.)
#[test]
fn a_site_that_holds_something_else_is_refused() {
    let pair = Pair::hasty(7);
    pair.until(async || {
        let (store, _) = alone(&pair).await;
        pair.replace(1).await;
        let engine = pair.engine_of(1).await;
        let file = engine.next_file_id();
        engine.commit(vec![Change::CreateFile { file, at: at(1) }]).await.unwrap();
        engine.write(file, 0, &[b"somebody's"], at(2)).await.unwrap();
        drop(engine);
        pair.power_cut(1);
        pair.reopen(1).await;
        while pair.resynced(0).foreign < 3 {
            pair.sleep(Duration::from_millis(50)).await;
        }
        assert!(!pair.is_in_sync());
        assert_eq!(pair.files(1).await, [(file, false, b"somebody's".to_vec())], "as it was");
        store.commit(vec![name(1, "and the primary serves on")]).await.unwrap();

        pair.power_cut(1);
        let engine = pair.engine_of(1).await;
        Replica::give_up_for(&engine, pair::PAIR).await.unwrap();
        drop(engine);
        pair.power_cut(1);
        back(&pair).await;
        pair.assert_same().await;
    });
}

/// The secondary is made primary by force, without what the primary has acknowledged alone. When that
/// is back it is given the other's state: what it wrote, removed and made by itself is gone.
#[test]
fn a_site_that_was_replaced_by_force_takes_over_the_other_s_state() {
    let pair = Pair::hasty(8);
    pair.until(async || {
        let (store, [one, other, third]) = alone(&pair).await;
        store.write(one, 2 * BLOCK as u64, &[&content(31, 3)], at(5)).await.unwrap();
        store.write(other, 40 * BLOCK as u64, &[&content(32, 3)], at(5)).await.unwrap();
        store.commit(vec![Change::DropFile { file: third }, name(third.0 as u8, "gone")]).await.unwrap();
        create(&store, 4).await;
        pair.engine(0).checkpoint().await.unwrap();
        drop(store);
        pair.power_cut(0);
        pair.reopen(1).await;
        pair.command(1, Command::Force { primary_is_off: true });
        let store = pair.primary().await;
        let forced = pair.files(1).await;
        assert_eq!(forced.iter().map(|(file, ..)| *file).collect::<Vec<_>>(), [one, other, third]);
        store.write(one, 6 * BLOCK as u64, &[&content(33, 1)], at(9)).await.unwrap();
        store.write(third, 0, &[&content(34, 1)], at(9)).await.unwrap();
        pair.reopen(0).await;
        pair.meet().await;
        pair.assert_same().await;
        assert_eq!(pair.files(0).await.len(), 3);
    });
}

/// Both sites have worked alone, under the same ids of files, one of them by force: the one that was forced is
/// right, whatever the other one has made, dropped, cut, cloned and rolled back.
#[test]
fn what_two_sites_did_apart_ends_as_the_forced_one_has_it() {
    let seeds = std::env::var("VMHOLD_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(25);
    for seed in 0..seeds {
        let pair = Pair::hasty(seed);
        let rng = world_sim::Rng::new(seed).fork("apart");
        let clients = [1, 2, 3].map(|number| Client::new(number, rng.fork(&format!("client {number}"))));
        pair.until(async || {
            pair.meet().await;
            let store = pair.primary().await;
            clients[0].work(&store, 60).await;
            pair.idle().await;
            pair.power_cut(1);
            pair.alone().await;
            clients[0].work(&store, 40).await;
            clients[1].work(&store, 60).await;
            drop(store);
            pair.power_cut(0);
            pair.reopen(1).await;
            pair.command(1, Command::Force { primary_is_off: true });
            let store = pair.primary().await;
            clients[2].work(&store, 80).await;
            pair.reopen(0).await;
            clients[2].work(&store, 30).await;
            pair.meet().await;
            clients[2].judge(&store).await;
            pair.assert_same().await;
            drop(store);
            pair.power_cut(1);
            clients[2].judge(&pair.primary().await).await;
        });
    }
}

/// Both, and each alone, lose power at every so many steps of one resync. What was acknowledged before and meanwhile is there.
#[test]
fn a_crash_of_either_site_at_each_step_of_a_resync() {
    let mut ended = [0; 2];
    for sites in [&[0][..], &[1], &[0, 1]] {
        let pair = Pair::hasty(9);
        let (file, other) = pair.until(async || {
            let (store, [file, other, _]) = alone(&pair).await;
            drop(store);
            (file, other)
        });
        for step in (0u64..).map(|round| 40 * round) {
            pair.until(async || {
                let store = pair.primary().await;
                let number = 100 + step;
                store.write(file, step % 7 * BLOCK as u64, &[&content(number, 2)], at(number)).await.unwrap();
                store
                    .commit(vec![
                        name(77, &number.to_string()),
                        Change::SetSize { file: other, size_bytes: 9000 + step },
                    ])
                    .await
                    .unwrap();
                pair.sleep(Duration::from_millis(30)).await;
            });
            let is_whole = pair.crash_within(step, sites, async || back(&pair).await);
            ended[usize::from(is_whole)] += 1;
            pair.until(async || {
                for site in sites {
                    pair.reopen(*site).await;
                }
                if pair.replica(1).is_none() {
                    pair.reopen(1).await;
                }
                pair.meet().await;
                pair.assert_same().await;
                if !is_whole {
                    pair.idle().await;
                    pair.power_cut(1);
                    pair.alone().await;
                }
            });
            if is_whole {
                break;
            }
        }
    }
    println!("{ended:?} crashes before and after the end");
    assert!(ended[0] > 20 && ended[1] == 3, "{ended:?}");
}

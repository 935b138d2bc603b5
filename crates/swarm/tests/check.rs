//! The integrity check of a pair of real stores: what differs is found, located and kept; what does not is
//! never said to; and whatever ends a check in the middle, it is not called clean.
#![allow(clippy::unwrap_used, reason = "tests")]

mod pair;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use base::FileId;
use engine::store::{Change, LOCAL_FILES};
use engine::{Label, Store};
use futures_util::future::join3;
use mirror::Command;
use pair::Pair;
use pair::files::{BLOCK, NAMES, at, content, create, name};
use replica::{CheckOutcome, CheckRefused, CheckReport, CheckWanted, Differences, Replica};
use swarm::client::{Client, bytes_of};
use world_sim::Rng;

fn wanted(reads_data: bool) -> CheckWanted {
    CheckWanted { reads_data, about: "a pair of tests".to_owned() }
}

async fn check(store: &Replica, reads_data: bool) -> CheckReport {
    store.check(wanted(reads_data)).await.unwrap()
}

fn differences(report: &CheckReport) -> &Differences {
    match &report.outcome {
        CheckOutcome::Differs(differences) => differences,
        other => panic!("nothing was found: {other:?}"),
    }
}

fn assert_clean(report: &CheckReport) {
    assert!(matches!(report.outcome, CheckOutcome::Clean { .. }), "{report:?}");
}

/// Something happens to one site behind the mirror's back.
async fn behind_its_back(pair: &Pair, site: usize, changes: Vec<Change>) {
    let beside = Label { stream: 1, osn: None, placed: Box::new(|| {}) };
    pair.engine(site).commit_labelled(changes, beside).await.unwrap();
}

async fn overwrite(pair: &Pair, site: usize, file: FileId, offset_bytes: u64, bytes: &[u8]) {
    let beside = Label { stream: 1, osn: None, placed: Box::new(|| {}) };
    let head = pair.head(site, file).await;
    let data = bytes.to_vec().into();
    pair.engine(site).write_labelled(file, offset_bytes, &data, (head.modified, beside)).await.unwrap();
    behind_its_back(pair, site, vec![Change::SetTimes { file, modified: None, changed: head.changed }]).await;
}

/// A pair with files of all kinds, some of them built by a resync at the second site.
async fn pair_with_files(pair: &Pair) -> (Replica, [FileId; 4]) {
    pair.meet().await;
    let store = pair.primary().await;
    let (one, other) = (create(&store, 8).await, create(&store, 20).await);
    pair.idle().await;
    pair.power_cut(1);
    pair.alone().await;
    store.write(other, 3 * BLOCK as u64 + 11, &[&content(50, 2)], at(5)).await.unwrap();
    store.write(other, 900 * BLOCK as u64, &[b"far behind a hole"], at(5)).await.unwrap();
    let third = create(&store, 3).await;
    store.commit(vec![Change::SetSize { file: one, size_bytes: 5 * BLOCK as u64 + 3 }]).await.unwrap();
    store.commit(vec![Change::SetSize { file: one, size_bytes: 9 * BLOCK as u64 }]).await.unwrap();
    pair.reopen(1).await;
    pair.meet().await;
    let snapshot = store.next_file_id();
    store.commit(vec![Change::Snapshot { file: one, snapshot }]).await.unwrap();
    store.write(one, 0, &[&content(60, 1)], at(6)).await.unwrap();
    pair.idle().await;
    (store, [one, other, third, snapshot])
}

/// Two copies that were built in different ways are the same to the check, from sums as from data, while
/// clients write; nothing is in flight at either at the point, and nothing of it is left. Decides R-CHK-05, R-CHK-06.
#[test]
fn what_is_the_same_is_found_the_same_however_it_was_built() {
    let pair = Pair::hasty(31);
    pair.until(async || {
        let (store, [one, other, third, snapshot]) = pair_with_files(&pair).await;
        for reads_data in [false, true] {
            let report = check(&store, reads_data).await;
            assert_clean(&report);
            assert_eq!(report.files, 4);
            assert!(report.rows > 0 && report.osn.is_some());
        }
        // While everything that was there changes: what is compared is what was there at the point.
        let (writer, done) = (store.clone(), Rc::new(Cell::new(false)));
        let is_done = done.clone();
        pair.beside(async move {
            for turn in 0..40u64 {
                writer.write(one, turn * 3000, &[&content(turn, 1)], at(10 + turn)).await.unwrap();
                writer.commit(vec![name(one.0 as u8, &format!("turn {turn}"))]).await.unwrap();
                if turn == 2 {
                    writer.commit(vec![Change::DropFile { file: snapshot }]).await.unwrap();
                    writer.commit(vec![Change::DropFile { file: third }]).await.unwrap();
                    create(&writer, 2).await;
                }
                if turn == 3 {
                    writer.commit(vec![Change::SetSize { file: other, size_bytes: 11 }]).await.unwrap();
                }
            }
            is_done.set(true);
        });
        let mut checked = Vec::new();
        while !done.get() {
            let report = check(&store, checked.len() % 2 == 1).await;
            assert_clean(&report);
            checked.push(report.files);
        }
        assert!(checked.len() > 1, "it was checked meanwhile: {checked:?}");
        pair.idle().await;
        pair.tidy().await;
        pair.assert_same().await;
    });
}

/// A bit that is another one at the secondary alone is found and located; what differs is kept at both sites as it
/// was; the record says out of sync; a resync mends it, and the next check is clean. Decides R-CHK-07, R-CHK-08.
#[test]
fn what_differs_is_found_located_and_kept() {
    let pair = Pair::hasty(32);
    pair.until(async || {
        let (store, [_, other, ..]) = pair_with_files(&pair).await;
        let flipped = {
            let byte = pair.first_byte(1, other, 17 * BLOCK as u64 + 5).await.unwrap();
            overwrite(&pair, 1, other, 17 * BLOCK as u64 + 5, &[byte ^ 0x10]).await;
            byte ^ 0x10
        };
        let report = check(&store, false).await;
        let found = differences(&report);
        assert_eq!((found.files_in_all, found.rows_in_all), (1, 0));
        let difference = &found.files[0];
        assert_eq!((difference.file, difference.blocks.as_slice(), difference.more_blocks), (other, &[17][..], false));
        assert!(difference.primary.is_some() && difference.secondary.is_some());
        pair.alone().await;
        // Mended by the resync that follows by itself; what was there is kept.
        pair.meet().await;
        assert_eq!(pair.first_byte(1, other, 17 * BLOCK as u64 + 5).await.unwrap(), flipped ^ 0x10);
        for (site, expected) in [(0, flipped ^ 0x10), (1, flipped)] {
            let evidence = pair.replica(site).unwrap().evidence();
            assert_eq!(evidence.iter().map(|one| one.file).collect::<Vec<_>>(), [other]);
            let kept = pair.first_byte(site, evidence[0].kept, 17 * BLOCK as u64 + 5).await;
            assert_eq!(kept, Some(expected), "site {site} keeps what it had");
        }
        assert_clean(&check(&store, false).await);
    });
}

/// Length, times, a name, a file that is missing and one too many, all at once; a snapshot stays what it is. What
/// is kept outlives the site, and goes when somebody says so. Decides R-CHK-01.
#[test]
fn everything_that_differs_is_found_at_once() {
    let pair = Pair::hasty(38);
    pair.until(async || {
        let (store, [one, other, third, snapshot]) = pair_with_files(&pair).await;
        let size = pair.head(1, one).await.size_bytes;
        let extra = FileId(third.0 + 900);
        let changes = vec![
            Change::SetSize { file: one, size_bytes: size - 1 },
            Change::SetTimes { file: other, modified: None, changed: at(999) },
            Change::DropFile { file: third },
            Change::CreateFile { file: extra, at: at(1) },
            name(one.0 as u8, "another name"),
            Change::Delete { table: NAMES, key: vec![other.0 as u8] },
            name(200, "a name too many"),
        ];
        behind_its_back(&pair, 1, changes).await;
        let report = check(&store, false).await;
        let found = differences(&report);
        let mut files: Vec<FileId> = found.files.iter().map(|one| one.file).collect();
        files.sort_unstable();
        assert_eq!(files, [one, other, third, extra]);
        let missing = found.files.iter().find(|one| one.file == third).unwrap();
        assert!(missing.primary.is_some() && missing.secondary.is_none());
        let keys: Vec<u8> = found.rows.iter().map(|row| row.key[0]).collect();
        assert_eq!(keys, [one.0 as u8, other.0 as u8, 200]);
        assert_eq!(found.rows[0].secondary, Some(b"another name".to_vec()));
        pair.alone().await;
        pair.meet().await;
        pair.assert_same().await;
        assert_clean(&check(&store, true).await);
        assert!(pair.files(1).await.iter().find(|one| one.0 == snapshot).unwrap().1);

        // Evidence outlives the site, and goes when somebody says so.
        let kept = pair.replica(1).unwrap().evidence().len();
        assert!(kept >= 3, "{kept}");
        pair.power_cut(1);
        pair.alone().await;
        pair.reopen(1).await;
        pair.meet().await;
        assert_eq!(pair.replica(1).unwrap().evidence().len(), kept);
        for site in 0..2 {
            pair.replica(site).unwrap().forget_evidence().await.unwrap();
        }
        pair.tidy().await;
        pair.assert_same().await;
    });
}

/// The site that was primary when it was found goes on alone also where the link is cut at that moment, and
/// compares everything when the other one is back.
#[test]
fn what_was_found_is_not_forgotten_when_the_sites_part() {
    let pair = Pair::hasty(33);
    pair.until(async || {
        let (store, [_, other, ..]) = pair_with_files(&pair).await;
        overwrite(&pair, 1, other, 9 * BLOCK as u64, &content(5, 1)).await;
        let report = check(&store, false).await;
        assert_eq!(differences(&report).files[0].blocks, [9]);
        drop(store);
        pair.power_cut(0);
        pair.sleep(Duration::from_millis(100)).await;
        pair.reopen(0).await;
        pair.alone().await;
        pair.meet().await;
        pair.assert_same().await;
        assert_clean(&check(&pair.primary().await, false).await);
    });
}

/// Files that nobody has changed cost no reading of data, at either site, and clients no wait that grows with
/// their number. Decides R-CHK-02, R-CHK-04.
#[test]
fn ten_thousand_files_are_checked_without_reading_them() {
    let pair = Pair::new(34);
    pair.until(async || {
        pair.meet().await;
        let store = pair.primary().await;
        let mut files = Vec::new();
        for _ in 0..100 {
            let some: Vec<FileId> = (0..100).map(|_| store.next_file_id()).collect();
            let made = some.iter().map(|file| Change::CreateFile { file: *file, at: at(1) }).collect();
            store.commit(made).await.unwrap();
            files.extend(some);
        }
        for file in files.iter().step_by(25) {
            store.write(*file, 0, &[&content(file.0, 1)], at(2)).await.unwrap();
        }
        pair.idle().await;
        for site in 0..2 {
            pair.engine(site).settle().await.unwrap();
        }
        let read = |pair: &Pair| [0, 1].map(|site| pair.engine(site).counters().objects_read);
        let before = read(&pair);
        let report = check(&store, false).await;
        assert_clean(&report);
        assert_eq!(report.files, 10_000);
        assert_eq!(read(&pair), before, "objects read at either site");
        assert!(report.pause <= Duration::from_millis(100), "{:?} of simulated time", report.pause);
        let report = check(&store, true).await;
        assert_clean(&report);
        assert!(read(&pair).iter().zip(before).all(|(now, before)| *now >= before + 400), "it reads all of them");
    });
}

/// There is nothing to compare while the sites are known to differ, and one check at a time.
#[test]
fn no_check_begins_where_it_could_say_nothing() {
    let pair = Pair::hasty(35);
    pair.until(async || {
        let (store, _) = pair_with_files(&pair).await;
        let secondary = pair.replica(1).unwrap();
        assert_eq!(secondary.check(wanted(false)).await.unwrap_err(), CheckRefused::NotPrimary);
        let (beside, first) = (store.clone(), Rc::new(Cell::new(None)));
        let report = first.clone();
        pair.beside(async move { report.set(beside.check(wanted(false)).await.ok()) });
        while store.check_progress().is_none() {
            pair.sleep(Duration::from_micros(10)).await;
        }
        assert_eq!(store.check(wanted(false)).await.unwrap_err(), CheckRefused::Running);
        while store.check_progress().is_some() {
            pair.sleep(Duration::from_millis(1)).await;
        }
        assert_clean(&first.take().unwrap());
        pair.command(0, Command::Pause(true));
        pair.alone().await;
        assert_eq!(store.check(wanted(false)).await.unwrap_err(), CheckRefused::OutOfSync);
        pair.command(0, Command::Pause(false));
        pair.meet().await;
        assert_clean(&check(&store, false).await);
        drop(secondary);
    });
}

/// A check that is cut off in the middle has found nothing, and says so; nothing of it is left.
#[test]
fn a_check_that_is_cut_off_is_not_called_clean() {
    for after_us in [100, 1000, 3000, 6000, 9000] {
        let pair = Pair::hasty(36);
        pair.until(async || {
            let (store, [one, ..]) = pair_with_files(&pair).await;
            let (beside, report) = (store.clone(), Rc::new(Cell::new(None)));
            let told = report.clone();
            pair.beside(async move { told.set(Some(beside.check(wanted(true)).await)) });
            store.write(one, 0, &[b"while it runs"], at(50)).await.unwrap();
            pair.sleep(Duration::from_micros(after_us)).await;
            pair.cut(Duration::from_millis(500));
            let report = loop {
                match report.take() {
                    Some(report) => break report.unwrap(),
                    None => pair.sleep(Duration::from_millis(5)).await,
                }
            };
            assert!(!matches!(report.outcome, CheckOutcome::Differs(_)), "{report:?}");
            pair.meet().await;
            pair.tidy().await;
            assert_clean(&check(&store, false).await);
        });
    }
}

// -- seeds

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    clean: u64,
    found: u64,
    not_completed: u64,
    refused: u64,
}

/// What is done to the secondary; whether it can be told from what the primary has.
async fn plant(pair: &Pair, rng: &mut Rng, files: &[FileId]) -> bool {
    let site = 1 - pair.serving_site();
    let Some(file) = files.get(rng.below(files.len().max(1) as u64) as usize).copied() else { return false };
    let listed = pair.engine(site).files(file, 1).await.unwrap();
    let Some(listed) = listed.first().filter(|listed| listed.file == file).copied() else { return false };
    let head = listed.head;
    let blocks = head.size_bytes.div_ceil(BLOCK as u64).min(24);
    // A snapshot can only be lost.
    match if listed.frozen { 9 } else { rng.below(5) } {
        0 if blocks > 0 => {
            let offset = rng.below(head.size_bytes.min(24 * BLOCK as u64));
            let byte = bytes_of(&pair.engine(site).read(file, offset, 1).await.unwrap())[0];
            overwrite(pair, site, file, offset, &[byte ^ 1]).await;
        }
        1 => {
            let size_bytes = head.size_bytes + 1 + rng.below(9000);
            behind_its_back(pair, site, vec![Change::SetSize { file, size_bytes }]).await;
        }
        2 => {
            let changed = at(head.changed.0 + 1 + rng.below(9));
            behind_its_back(pair, site, vec![Change::SetTimes { file, modified: None, changed }]).await;
        }
        3 => behind_its_back(pair, site, vec![name(rng.below(256) as u8, "a name that only one site has")]).await,
        _ => behind_its_back(pair, site, vec![Change::DropFile { file }]).await,
    }
    true
}

/// What may happen to the link or the secondary meanwhile.
async fn strike(pair: &Pair, rng: &mut Rng) {
    if !rng.percent(40) {
        return;
    }
    pair.sleep(Duration::from_micros(rng.between(10, 20_000))).await;
    if rng.percent(50) {
        return pair.cut(Duration::from_millis(rng.between(1, 3000)));
    }
    let site = 1 - pair.serving_site();
    pair.power_cut(site);
    pair.sleep(Duration::from_millis(rng.between(1, 3000))).await;
    pair.reopen(site).await;
}

/// One seed: clients at work, checks in between, and sometimes something that only one site has.
fn run(seed: u64) -> (Seen, u128) {
    let pair = Pair::hasty(seed);
    let mut rng = Rng::new(seed).fork("checks");
    let clients: Vec<Client> =
        (1..=2).map(|number| Client::new(number, rng.fork(&format!("client {number}")))).collect();
    let mut seen = Seen::default();
    pair.until(async || {
        for _ in 0..4 {
            pair.meet().await;
            let store = pair.primary().await;
            for client in &clients {
                client.judge(&store).await;
            }
            let plants = rng.percent(40);
            if plants {
                pair.idle().await;
                for client in &clients {
                    client.work(&store, 8).await;
                }
                pair.idle().await;
            }
            let files: Vec<FileId> = clients.iter().flat_map(Client::all).collect();
            let planted = plants && plant(&pair, &mut rng, &files).await;
            let work = async {
                for client in &clients {
                    if !planted {
                        client.work(&store, 20).await;
                    }
                }
            };
            let checked = async { store.check(wanted(seed.is_multiple_of(3))).await };
            let ((), (), checked) = join3(work, strike(&pair, &mut rng), checked).await;
            match checked.map(|report| report.outcome) {
                Ok(CheckOutcome::Clean { .. }) => {
                    assert!(!planted, "seed {seed}: what was planted is called clean");
                    seen.clean += 1;
                }
                Ok(CheckOutcome::Differs(found)) => {
                    assert!(planted, "seed {seed}: a false alarm: {found:?}");
                    seen.found += 1;
                }
                Ok(CheckOutcome::NotCompleted(_)) => seen.not_completed += 1,
                Err(_) => seen.refused += 1,
            }
            if planted {
                // It was not found yet, or is being told: found by the next one, and then mended.
                mend(&pair).await;
            }
        }
        pair.meet().await;
        pair.idle().await;
        let store = pair.primary().await;
        for client in &clients {
            client.judge(&store).await;
        }
        assert_clean(&check(&store, true).await);
    });
    (seen, pair.world.digest().value())
}

/// Checks until what is planted is found, and waits until it is mended.
async fn mend(pair: &Pair) {
    loop {
        pair.meet().await;
        let store = pair.primary().await;
        match store.check(wanted(false)).await.map(|report| report.outcome) {
            Ok(CheckOutcome::Clean { .. }) => return,
            Ok(CheckOutcome::Differs(_)) => pair.alone().await,
            _ => pair.sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Whatever is cut off or loses power meanwhile: no false alarm, nothing that was planted is called clean, and
/// what was found is mended. The same seed gives the same run.
#[test]
fn seeds_find_what_is_planted_and_nothing_else() {
    let seeds = std::env::var("CHECK_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(24);
    let mut all = Seen::default();
    let first = std::env::var("CHECK_FIRST").ok().and_then(|first| first.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds {
        let (seen, _) = run(seed);
        all.clean += seen.clean;
        all.found += seen.found;
        all.not_completed += seen.not_completed;
        all.refused += seen.refused;
    }
    println!("{seeds} seeds: {all:?}");
    assert!(all.clean > 0 && all.found > 0 && all.not_completed > 0, "{all:?}");
    assert_eq!(run(3), run(3));
}

/// What a check leaves behind when its site loses power goes when the site is back.
#[test]
fn stand_ins_of_a_life_that_ended_go() {
    let pair = Pair::hasty(37);
    pair.until(async || {
        let (store, files) = pair_with_files(&pair).await;
        let beside = store.clone();
        pair.beside(async move { drop(beside.check(wanted(true)).await) });
        for file in files.iter().take(2) {
            store.write(*file, 0, &[b"while it runs"], at(50)).await.unwrap();
        }
        drop(store);
        pair.power_cut(1);
        pair.power_cut(0);
        pair.reopen(0).await;
        pair.reopen(1).await;
        pair.meet().await;
        pair.idle().await;
        pair.tidy().await;
        for site in 0..2 {
            assert!(pair.engine(site).files(LOCAL_FILES, 1).await.unwrap().is_empty());
        }
        assert_clean(&check(&pair.primary().await, false).await);
    });
}

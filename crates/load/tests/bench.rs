//! The load generator and checker against a server that misbehaves.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod fake;

use std::path::Path;

use clap::Parser;
use fake::{Fake, Manners};
use load::bench;
use load::command::{BenchArgs, BenchCommand, ConnectArgs, Console, VerifyArgs};
use load::expectation::Breach;
use load::failure::{Failure, Usage};
use load::report::{BenchReport, End, VerifyReport};
use tokio::task::LocalSet;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchCommand,
}

fn arguments(fake: &Fake, options: &str) -> BenchArgs {
    let target = fake.url("/export");
    let words = ["bench", "--target", &target].into_iter().chain(options.split_whitespace());
    Cli::try_parse_from(words).unwrap().bench.load
}

fn with_server<T>(manners: Manners, test: impl AsyncFnOnce(Fake) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { test(Fake::start(manners).await).await })
}

fn bench_against(manners: Manners, options: &str) -> (BenchReport, Fake) {
    with_server(manners, async |fake| {
        let report = bench::run_here(&arguments(&fake, options), Console::default()).await.unwrap();
        (report, fake)
    })
}

async fn verify(journal: &Path) -> VerifyReport {
    let connect = ConnectArgs::default();
    let arguments = VerifyArgs { journal: journal.into(), target: None, connect, depth: 4, remove: false };
    load::verify::run_here(&arguments, Console::default()).await.unwrap()
}

/// Decides R-SCOPE-02. End to end: the mix measured at the server's answers.
#[test]
fn a_good_server_passes_with_the_reference_mix_and_is_left_clean() {
    let options = "--mix 70/30/0.1 --ops 20000 --files 5 --file-size 2m --verify --verify-end --block-size 8k,64k";
    let (report, fake) = bench_against(Manners::default(), options);
    assert!(report.ok, "{report:?}");
    assert_eq!((report.operations, report.error_count, report.violation_count), (20_000, 0, 0));
    assert_eq!(report.mix_within_bounds, Some(true));
    let [read, write, other] = report.measured_mix_percent;
    assert!((69.0..71.0).contains(&read) && (29.0..31.0).contains(&write) && (0.05..0.2).contains(&other));
    assert!(report.units_checked > 14_000);
    assert_eq!(report.end, End::Operations);
    assert_eq!(fake.disk.borrow().nodes.len(), 1, "only the root is left");
    assert!(report.text().contains("as asked"));
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["schema"], "vmhold.bench/v1");
    assert_eq!(json["data"]["operations"], 20_000);
}

#[test]
fn a_rude_but_honest_server_passes() {
    let rude = Manners {
        cut_after_doing: 211,
        cut_before_doing: 173,
        reverse: true,
        twice: 7,
        fragment_bytes: 1000,
        short_bytes: 5000,
        jukebox: 1501,
        ..Manners::default()
    };
    let options = "--mix 50/50/1 --ops 4000 --files 3 --file-size 1m --verify --verify-end --connections 3";
    let (report, fake) = bench_against(rude, options);
    assert!(report.ok, "{:?} {:?}", report.errors, report.violations);
    assert_eq!(report.operations, 4000);
    assert!(report.outages.reconnects > 20 && report.outages.resent_calls > 20, "{:?}", report.outages);
    assert_eq!(fake.disk.borrow().nodes.len(), 1, "only the root is left");
}

#[test]
fn file_sets_of_virtual_machines_are_made_used_and_removed() {
    let options = "--vms 2 --vm-size 8m --mix vm --ops 3000 --verify --verify-end --compressible 40 --dedup 30";
    let (report, fake) = bench_against(Manners::default(), options);
    assert!(report.ok, "{report:?}");
    assert_eq!(report.file_count as u64, 2 * load::workload::FILES_PER_VM);
    assert_eq!(fake.disk.borrow().nodes.len(), 1);
}

#[test]
fn reads_catch_a_server_that_forgets_misplaces_or_damages() {
    let options = "--mix 50/50 --ops 20000 --files 2 --file-size 1m --verify";
    let caught = |manners, options: &str| {
        let (report, _) = bench_against(manners, options);
        assert!(!report.ok && report.end == End::Violation && report.violation_count > 0, "{report:?}");
        report.violations[0].breach
    };
    let forgetful = Manners { forget_write: 301, ..Manners::default() };
    assert!(matches!(caught(forgetful, options), Breach::Stale { .. }));
    let clumsy = Manners { misplace_write: 301, ..Manners::default() };
    assert!(matches!(caught(clumsy, options), Breach::Stale { .. } | Breach::Misplaced { .. }));
    let rotten = Manners { damage_write: 301, ..Manners::default() };
    assert!(matches!(caught(rotten, options), Breach::Damaged { .. }));
    let forgetful_from_the_start = Manners { forget_write: 1, ..Manners::default() };
    assert_eq!(caught(forgetful_from_the_start, options), Breach::Lost);
}

#[test]
fn a_failed_or_unstable_write_is_an_error() {
    let failing = Manners { fail_write: 100, ..Manners::default() };
    let (report, _) = bench_against(failing, "--ops 1000 --file-size 1m");
    assert_eq!((report.ok, report.end, report.error_count), (false, End::Errors, 1));
    assert!(report.errors[0].ends_with("NFS3ERR_IO"), "{:?}", report.errors);
    let (report, _) = bench_against(failing, "--ops 1000 --file-size 1m --max-errors 100 --verify-end");
    assert_eq!((report.end, report.error_count, report.violation_count), (End::Operations, 10, 0));
    let lying = Manners { lie_unstable: true, ..Manners::default() };
    let (report, _) = bench_against(lying, "--ops 1000 --file-size 1m");
    assert!(report.errors[0].contains("not stable"), "{:?}", report.errors);
}

#[test]
fn a_journal_proves_what_is_there_and_finds_what_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    with_server(Manners { cut_after_doing: 97, ..Manners::default() }, async |fake| {
        let options = format!("--mix 20/80 --ops 3000 --files 2 --file-size 1m --journal {}", path.display());
        let report = bench::run_here(&arguments(&fake, &options), Console::default()).await.unwrap();
        assert!(report.ok && report.outages.reconnects > 10, "{report:?}");
        fake.disk.borrow_mut().manners = Manners::default();
        let good = verify(&path).await;
        assert!(good.ok && good.journal_closed && good.units_checked == 256, "{good:?}");
        assert_eq!(good.unacknowledged_writes, 0);
        for (number, file) in fake.disk.borrow_mut().nodes.values_mut().filter_map(file_of).enumerate() {
            file[8192 * (number + 3)] ^= 1;
            let (head, tail) = file.split_at_mut(8192);
            head.swap_with_slice(&mut tail[..8192]);
            file[8192 * 10..8192 * 11].fill(0);
        }
        let bad = verify(&path).await;
        let found: Vec<_> =
            bad.violations.iter().map(|violation| (violation.offset_bytes / 8192, violation.breach)).collect();
        assert_eq!((bad.ok, bad.violation_count), (false, 8));
        for (number, file) in [(0, &found[..4]), (1, &found[4..])] {
            assert!(matches!(file[0], (0, Breach::Misplaced { .. })), "{file:?}");
            assert!(matches!(file[1], (1, Breach::Misplaced { .. })), "{file:?}");
            assert!(matches!(file[2], (unit, Breach::Damaged { .. }) if unit == number + 3), "{file:?}");
            assert_eq!(file[3], (10, Breach::Lost));
        }
        assert!(bad.text().contains("8 VIOLATIONS"));
    });
}

fn file_of(node: &mut fake::Node) -> Option<&mut Vec<u8>> {
    match node {
        fake::Node::File(bytes) => Some(bytes),
        fake::Node::Folder(_) => None,
    }
}

#[test]
fn a_server_that_goes_back_in_time_is_found_stale_and_a_vanished_one_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    with_server(Manners::default(), async |fake| {
        let options = format!("--ops 2000 --files 2 --file-size 1m --fill --journal {}", path.display());
        bench::run_here(&arguments(&fake, &options), Console::default()).await.unwrap();
        let later = fake.disk.borrow().nodes.clone();
        // The fill gave every unit version 1; put that back for one file.
        let journal = load::journal::Journal::read(&path).unwrap();
        let blocks = load::block::Blocks::new(journal.header.shape);
        let mut old = Vec::new();
        for unit in 0..128 {
            let stamp = load::block::Stamp { version: 1, sequence: 0, time_ns: 0 };
            blocks.append(&mut old, load::block::Place { file: 0, unit }, stamp);
        }
        *fake.disk.borrow_mut().nodes.values_mut().find_map(file_of).unwrap() = old;
        let stale = verify(&path).await;
        assert!(stale.violation_count > 100, "{stale:?}");
        assert!(stale.violations.iter().all(|one| one.breach == Breach::Stale { found_version: 1 }));
        fake.disk.borrow_mut().nodes = later;
        assert!(verify(&path).await.ok);
        fake.disk.borrow_mut().nodes.retain(|&id, _| id == 1);
        fake.disk.borrow_mut().nodes.insert(1, fake::Node::Folder(Default::default()));
        let lost = verify(&path).await;
        assert_eq!(lost.violation_count, 256);
        assert!(lost.violations.iter().all(|one| one.breach == Breach::Lost));
    });
}

#[test]
fn a_write_without_answer_may_be_there_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    with_server(Manners::default(), async |fake| {
        // From the 60th call on the server does what it is told but says nothing.
        let options = format!(
            "--duration 300ms --files 1 --file-size 1m --ride-out=false --silence-limit 100ms --journal {}",
            path.display()
        );
        fake.disk.borrow_mut().manners.cut_after_doing = 60;
        let report = bench::run_here(&arguments(&fake, &options), Console::default()).await.unwrap();
        assert_eq!((report.ok, report.end), (false, End::Errors));
        fake.disk.borrow_mut().manners = Manners::default();
        let checked = verify(&path).await;
        assert!(checked.ok, "{checked:?}");
        assert!(checked.unacknowledged_writes > 0);
        assert!(checked.units_newer_than_acknowledged > 0, "the cut write was done: {checked:?}");
    });
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_made() {
    with_server(Manners::default(), async |fake| {
        let refusal = async |options: &str| match bench::run_here(&arguments(&fake, options), Console::default()).await
        {
            Err(Failure::Usage(usage)) => usage,
            other => panic!("{other:?}"),
        };
        assert_eq!(refusal("--block-size 12k").await, Usage::BlockNotUnits { block_bytes: 12288, unit_bytes: 8192 });
        assert_eq!(refusal("--unit 100").await, Usage::Unit);
        assert_eq!(refusal("--depth 0").await, Usage::Zero);
        assert_eq!(refusal("--depth 2 --connections 3").await, Usage::Zero);
        assert_eq!(refusal("--files 1 --file-size 256k").await, Usage::TooFewBlocks { blocks: 32, depth: 16 });
        let limit_bytes = 1 << 20;
        assert_eq!(refusal("--block-size 2m").await, Usage::BlockAboveLimit { block_bytes: 2 << 20, limit_bytes });
        assert_eq!(fake.disk.borrow().nodes.len(), 1);
    });
    assert!(Cli::try_parse_from(["bench", "--target", "nonsense"]).is_err());
    assert!(Cli::try_parse_from(["bench", "verify"]).is_err(), "needs a journal");
}

#[test]
fn the_same_seed_gives_the_same_operations() {
    let contents = |seed: &str| {
        let options = format!("--mix write --ops 500 --depth 1 --files 2 --file-size 1m --keep --seed {seed}");
        let (report, fake) = bench_against(Manners::default(), &options);
        let blocks = |bytes: Vec<u8>| -> Vec<u32> {
            bytes.chunks(8192).map(|unit| u32::from_le_bytes(*unit[32..].first_chunk().unwrap())).collect()
        };
        let versions: Vec<_> = fake.files().into_iter().map(blocks).collect();
        assert_eq!(report.seed.to_string(), seed);
        versions
    };
    assert_eq!(contents("7"), contents("7"));
    assert_ne!(contents("7"), contents("8"));
}

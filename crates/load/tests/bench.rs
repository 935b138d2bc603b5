//! The load generator and checker against a server that misbehaves.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod fake;

use clap::Parser;
use fake::{Fake, Manners};
use load::bench;
use load::command::{BenchArgs, BenchCommand, Console};
use load::report::{BenchReport, End};
use tokio::task::LocalSet;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchCommand,
}

fn arguments(fake: &Fake, options: &str) -> BenchArgs {
    let target = fake.url("/export");
    let words = ["bench", "--target", &target].into_iter().chain(options.split_whitespace());
    Cli::parse_from(words).bench.load
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

#[test]
fn a_good_server_passes_and_is_left_clean() {
    let options = "--mix 70/30/0.1 --ops 20000 --files 5 --file-size 2m --verify --verify-end --block-size 8k,64k";
    let (report, fake) = bench_against(Manners::default(), options);
    assert!(report.ok, "{report:?}");
    assert_eq!((report.operations, report.error_count, report.violation_count), (20_000, 0, 0));
    assert_eq!(report.mix_within_bounds, Some(true));
    assert!(report.units_checked > 14_000);
    assert_eq!(report.end, End::Operations);
    assert_eq!(fake.disk.borrow().nodes.len(), 1, "only the root is left");
    assert!(report.text().contains("as asked"));
}

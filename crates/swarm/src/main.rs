//! `swarm --seeds N [--from S]` runs seeds; `swarm --seed S [--trace]` replays one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use swarm::seed::{Report, run};

/// Every so many seeds one is run twice, and both runs must be the same.
const TWICE_EVERY: u64 = 10;
/// Failing seeds after which no more are started.
const FAILURES_MAX: usize = 5;

struct Args {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    trace: bool,
}

fn parse() -> Result<Args, String> {
    let mut args = Args { seeds: 100, from: 0, seed: None, trace: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().ok_or(format!("{word} wants a number"))?;
            value.parse().map_err(|_| format!("{word} wants a number, not {value}"))
        };
        match word.as_str() {
            "--seeds" => args.seeds = number()?,
            "--from" => args.from = number()?,
            "--seed" => args.seed = Some(number()?),
            "--trace" => args.trace = true,
            other => return Err(format!("{other} is not known; there are --seeds N, --from S, --seed S, --trace")),
        }
    }
    Ok(args)
}

thread_local! {
    /// What this thread's last panic said, and where.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs a seed; what went wrong in words otherwise.
fn attempt(seed: u64, trace: bool) -> Result<Report, String> {
    let sink = trace.then(|| Box::new(|line: &str| println!("{line}")) as Box<dyn FnMut(&str)>);
    catch_unwind(AssertUnwindSafe(|| run(seed, sink))).map_err(|_| LAST_PANIC.take())
}

fn attempt_twice(seed: u64) -> Result<Report, String> {
    let report = attempt(seed, false)?;
    if seed.is_multiple_of(TWICE_EVERY) {
        let again = attempt(seed, false)?;
        if again != report {
            return Err(format!("two runs of this seed differ:\n  {report:?}\n  {again:?}"));
        }
    }
    Ok(report)
}

#[derive(Default)]
struct Totals {
    done: u64,
    outside: u64,
    sum: Report,
    failures: Vec<(u64, String)>,
}

impl Totals {
    fn add(&mut self, seed: u64, outcome: Result<Report, String>) {
        self.done += 1;
        let report = match outcome {
            Ok(report) => report,
            Err(why) => {
                println!("seed {seed}: {why}\n  replay: cargo run --release -p swarm -- --seed {seed} --trace");
                self.failures.push((seed, why));
                return;
            }
        };
        let sum = &mut self.sum;
        self.outside += u64::from(report.outside);
        sum.steps += report.steps;
        sum.lives += report.lives;
        sum.rebuilds += report.rebuilds;
        sum.retirings += report.retirings;
        sum.crashes += report.crashes;
        sum.acknowledged += report.acknowledged;
        sum.refused += report.refused;
        sum.judged += report.judged;
        sum.checkpoints += report.checkpoints;
        for (fault, count) in report.faults {
            *sum.faults.entry(fault).or_default() += count;
        }
        for (name, site) in report.sites {
            let entry = sum.sites.entry(name).or_default();
            entry.asked += site.asked;
            entry.fired += site.fired;
        }
    }

    fn print(&self, seconds: f64) {
        let sum = &self.sum;
        println!(
            "{} seeds in {seconds:.1} s ({:.1} per second): {} lives, {} crashes, {} rebuilds begun, {} drives to be retired, {} steps, {} changes acknowledged, \
             {} refused for room, {} shared operations judged; {} seeds left the budget",
            self.done,
            self.done as f64 / seconds,
            sum.lives,
            sum.crashes,
            sum.rebuilds,
            sum.retirings,
            sum.steps,
            sum.acknowledged,
            sum.refused,
            sum.judged,
            self.outside,
        );
        println!("faults: {}", listed(sum.faults.iter().map(|(name, count)| (*name, *count)).collect()));
        let sites: BTreeMap<&str, u64> = sum.sites.iter().map(|(name, site)| (*name, site.fired)).collect();
        println!("sites: {}", listed(sites));
    }
}

fn listed(counts: BTreeMap<&str, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn run_many(from: u64, count: u64) -> Totals {
    let next = AtomicU64::new(from);
    let totals = Mutex::new(Totals::default());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let stop = totals.lock().expect("no worker panics with it").failures.len() >= FAILURES_MAX;
                    if seed >= from + count || stop {
                        return;
                    }
                    let outcome = attempt_twice(seed);
                    totals.lock().expect("no worker panics with it").add(seed, outcome);
                }
            });
        }
    });
    totals.into_inner().expect("no worker panics with it")
}

fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(why) => {
            eprintln!("swarm: {why}");
            return ExitCode::from(2);
        }
    };
    if args.seed.is_none() {
        // Many seeds: keep what a panic says for the summary, without a backtrace each.
        std::panic::set_hook(Box::new(|info| LAST_PANIC.set(info.to_string())));
    }
    let started = Instant::now();
    let totals = match args.seed {
        Some(seed) => {
            let mut totals = Totals::default();
            totals.add(seed, attempt(seed, args.trace));
            totals
        }
        None => run_many(args.from, args.seeds),
    };
    totals.print(started.elapsed().as_secs_f64());
    if totals.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

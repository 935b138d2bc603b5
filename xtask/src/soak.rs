//! `cargo xtask soak`: the large counts of everything random or long, each recorded in
//! docs/SOAK.md with date, commit and verdict, failed ones too.

use std::fs;
use std::path::Path;
use std::time::Instant;

use clap::{Args, ValueEnum};

use crate::fuzz::{self, FuzzArgs};
use crate::run::Call;
use crate::sabotage::{self, SabotageArgs};
use crate::sim::{self, SimArgs};
use crate::suite;
use crate::tree::Tree;

const RECORD: &str = "docs/SOAK.md";

/// A part of the soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Seeds of the simulation
    Sim,
    /// Overwrites of many times the size of a nearly full pool
    Full,
    /// Planted bugs
    Sabotage,
    /// The model of two sites and a witness, looked into further
    Witness,
    /// Seeds of two sites and a witness
    Mirror,
    /// Two controllers on the drives, and drives pulled and mixed, looked into further
    Brains,
    /// Drives of two groups pulled, pushed, swapped and mixed for long, with crashes
    Assembly,
    /// Miri over the portable parts of base and parity
    Miri,
    /// Real processes killed under load, and every pair of ways to lose two drives
    Kills,
    /// Two sites and a witness hurt at random until roles have changed so often
    Roles,
    /// Guests that ride out kills
    Vm,
    /// Every fuzz target
    Fuzz,
}

/// Arguments of `soak`.
#[derive(Args)]
pub struct SoakArgs {
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Seeds of the simulation
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Seeds of `assembly`, 10,000 steps each
    #[arg(long, default_value_t = 1000)]
    walks: u64,
    /// Times the nearly full pool's size is overwritten
    #[arg(long, default_value_t = 40)]
    pool_sizes: u64,
    /// Kills of real servers, by the load generator and by the guest each
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Changes of roles of two real sites
    #[arg(long, default_value_t = 500)]
    role_changes: u64,
    /// Seconds for each fuzz target
    #[arg(long, default_value_t = 600)]
    fuzz_seconds: u64,
    /// Only fuzz targets of this crate, or whose name contains this
    #[arg(long)]
    fuzz_only: Option<String>,
}

/// `cargo xtask soak`.
pub fn soak(tree: &Tree, args: &SoakArgs) -> Result<(), String> {
    let mut failed = Vec::new();
    for part in Part::value_variants().iter().filter(|part| args.only.is_empty() || args.only.contains(part)) {
        let started = Instant::now();
        let (what, outcome) = run(tree, args, *part);
        record(tree, *part, &what, &outcome, started)?;
        failed.extend(outcome.err());
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

/// Runs a part. What was run in words, and how it ended.
fn run(tree: &Tree, args: &SoakArgs, part: Part) -> (String, Result<(), String>) {
    let cargo = || Call::cargo(tree.root());
    let kills = args.kills.to_string();
    match part {
        Part::Sim => {
            let outcome = sim::sim(tree, &SimArgs { seeds: args.seeds, from: args.from, seed: None });
            (format!("{} seeds from {}", args.seeds, args.from), outcome)
        }
        Part::Full => {
            let test = ["test", "--release", "-p", "swarm", "--test", "nearly_full"];
            let outcome = cargo().env("VMHOLD_POOL_SIZES", &args.pool_sizes.to_string()).args(test).run();
            (format!("{} times the pool's size", args.pool_sizes), outcome)
        }
        Part::Sabotage => match sabotage::sabotage(tree, &SabotageArgs { only: None, cheap: false }) {
            Ok(count) => (format!("{count} planted bugs, all found"), Ok(())),
            Err(why) => ("planted bugs".to_owned(), Err(why)),
        },
        Part::Witness => {
            let test = ["test", "--release", "-p", "witness", "--test", "one_winner", "--", "--test-threads=1"];
            let outcome = cargo().env("VMHOLD_MODEL_DEEP", "1").args(test).run();
            ("one second and one crash more than in CI".to_owned(), outcome)
        }
        Part::Mirror => {
            let test = ["test", "--release", "-p", "mirror", "--test", "two_sites"];
            let outcome = cargo().env("VMHOLD_SEEDS", &args.seeds.to_string()).args(test).run();
            (format!("{} seeds of two sites", args.seeds), outcome)
        }
        Part::Brains => {
            let test = ["test", "--release", "-p", "raid", "--test", "paxos", "--test", "brains"];
            let outcome = cargo().env("VMHOLD_MODEL_DEEP", "1").env("VMHOLD_BRAINS_STEPS", "6").args(test).run();
            (
                "one value, one takeover and one drive more than in CI; six steps of pulling and mixing".to_owned(),
                outcome,
            )
        }
        Part::Assembly => {
            let test = ["test", "--release", "-p", "raid", "--test", "two_groups"];
            let walks = cargo().env("VMHOLD_WALK_SEEDS", &args.walks.to_string());
            let walks = walks.env("VMHOLD_WALK_FROM", &args.from.to_string()).env("VMHOLD_WALK_STEPS", "10000");
            (format!("{} seeds from {}, 10,000 steps each", args.walks, args.from), walks.args(test).run())
        }
        Part::Miri => ("base and parity".to_owned(), miri(tree)),
        Part::Kills => {
            let script = tree.root().join("tests/e2e/10-kill-and-verify");
            let call = Call::new(&script.to_string_lossy(), tree.root());
            let outcome = call.env("KILLS", &kills).env("PAIRS", "all").run();
            (format!("{kills} kills, every pair of ways to lose two drives"), outcome)
        }
        Part::Roles => {
            let script = tree.root().join("tests/e2e/87-role-changes");
            let changes = args.role_changes.to_string();
            let outcome = Call::new(&script.to_string_lossy(), tree.root()).env("ROLE_CHANGES", &changes).run();
            (format!("{changes} changes of roles"), outcome)
        }
        Part::Vm => (format!("{kills} kills under fio in a guest"), suite::vm_test(tree, Some(args.kills))),
        Part::Fuzz => {
            let args = FuzzArgs { seconds: args.fuzz_seconds, only: args.fuzz_only.clone(), keep: true, random: false };
            match fuzz::fuzz(tree, &args) {
                Ok(what) => (what, Ok(())),
                Err(why) => (format!("{} s each", args.seconds), Err(why)),
            }
        }
    }
}

/// Miri over what has no system call in it: all of `base`, and `parity` with the rows
/// that need no vector instructions. Needs the nightly toolchain with Miri.
pub fn miri(tree: &Tree) -> Result<(), String> {
    let miri = || Call::new("cargo", tree.root()).args(["+nightly", "miri"]);
    if !miri().args(["--version"]).works() {
        return Err("Miri is not installed (rustup +nightly component add miri rust-src)".into());
    }
    let run = |arguments: &[&str]| {
        let call = miri().env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "4");
        call.args(["test"]).args(arguments).run()
    };
    run(&["-p", "base", "--lib"])?;
    run(&["-p", "parity", "--lib"])
}

fn record(tree: &Tree, part: Part, what: &str, outcome: &Result<(), String>, started: Instant) -> Result<(), String> {
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M").to_string();
    let first_line = |why: &String| why.lines().next().unwrap_or_default().replace('|', "/");
    let verdict = outcome.as_ref().map_or_else(|why| format!("FOUND: {}", first_line(why)), |()| "clean".to_owned());
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let name = part.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let line = format!("| {date} | {} | {name} | {what} | {minutes:.1} min | {verdict} |", tree.commit());
    println!("{line}");
    append(&tree.root().join(RECORD), &line).map_err(|why| format!("{RECORD}: {why}"))
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let head = "# Soak runs\n\nWritten by `cargo xtask soak`; times are UTC; `+` behind a commit: with local changes.\n\n\
                | when | commit | part | what | took | result |\n|---|---|---|---|---|---|\n";
    let before = fs::read_to_string(path).unwrap_or_else(|_| head.to_owned());
    fs::write(path, format!("{before}{line}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soak_line_is_added_below_a_table_head() {
        let path = std::env::temp_dir().join(format!("xtask-soak-{}", std::process::id()));
        append(&path, "| one |").unwrap();
        append(&path, "| two |").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(text.starts_with("# Soak runs"));
        assert!(text.ends_with("|---|---|---|---|---|---|\n| one |\n| two |\n"), "{text}");
    }
}

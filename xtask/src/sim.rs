//! `cargo xtask sim` and `cargo xtask soak`: wrappers around the one program that runs
//! the product in the simulated world.

use std::fs;
use std::path::Path;
use std::time::Instant;

use clap::Args;

use crate::fuzz::{self, FuzzArgs};
use crate::run::Call;
use crate::tree::Tree;

/// The package whose binary runs the simulation. The only place that names it. It takes
/// `--seeds N [--from SEED]` or `--seed S --trace`, and ends with 0 when nothing was found.
const SIMULATION: &str = "swarm";
const RECORD: &str = "docs/SOAK.md";

/// Arguments of `sim`.
#[derive(Args)]
pub struct SimArgs {
    /// How many seeds, counted from --from
    #[arg(long, default_value_t = 200, conflicts_with = "seed")]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    from: u64,
    /// Replay one seed with a readable trace
    #[arg(long)]
    seed: Option<u64>,
}

/// Arguments of `soak`.
#[derive(Args)]
pub struct SoakArgs {
    /// How many seeds
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// Seconds for each fuzz target
    #[arg(long, default_value_t = 600)]
    fuzz_seconds: u64,
    /// Leave the simulation out
    #[arg(long)]
    no_sim: bool,
    /// Leave the fuzz targets out
    #[arg(long)]
    no_fuzz: bool,
}

/// `cargo xtask sim`.
pub fn sim(tree: &Tree, args: &SimArgs) -> Result<(), String> {
    if !exists(tree)? {
        return Err(format!("there is no package `{SIMULATION}`: nothing to simulate"));
    }
    match args.seed {
        Some(seed) => launch(tree, &["--seed", &seed.to_string(), "--trace"]),
        None => launch(tree, &["--seeds", &args.seeds.to_string(), "--from", &args.from.to_string()]),
    }
}

/// The simulation as part of `test`; skipped loudly while there is none.
pub fn smoke(tree: &Tree, seeds: u64) -> Result<Option<String>, String> {
    if !exists(tree)? {
        return Ok(Some(format!("there is no package `{SIMULATION}`: NOTHING was simulated")));
    }
    launch(tree, &["--seeds", &seeds.to_string()]).map(|()| None)
}

fn exists(tree: &Tree) -> Result<bool, String> {
    Ok(tree.packages()?.iter().any(|package| package.name == SIMULATION))
}

fn launch(tree: &Tree, arguments: &[&str]) -> Result<(), String> {
    Call::cargo(tree.root()).args(["run", "--release", "--quiet", "-p", SIMULATION, "--"]).args(arguments).run()
}

/// `cargo xtask soak`: large counts, each recorded with date and commit, failed ones too.
pub fn soak(tree: &Tree, args: &SoakArgs) -> Result<(), String> {
    let mut failed = Vec::new();
    if !args.no_sim {
        let started = Instant::now();
        let outcome = sim(tree, &SimArgs { seeds: args.seeds, from: 0, seed: None });
        record(tree, "simulation", &format!("{} seeds", args.seeds), &outcome, started)?;
        failed.extend(outcome.err());
    }
    if !args.no_fuzz {
        let started = Instant::now();
        let outcome = fuzz::fuzz(tree, &FuzzArgs { seconds: args.fuzz_seconds, only: None });
        let what = match &outcome {
            Ok(targets) => format!("{targets} targets, {} s each", args.fuzz_seconds),
            Err(_) => format!("{} s each", args.fuzz_seconds),
        };
        record(tree, "fuzz", &what, &outcome, started)?;
        failed.extend(outcome.err());
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

fn record<T>(
    tree: &Tree,
    kind: &str,
    count: &str,
    outcome: &Result<T, String>,
    started: Instant,
) -> Result<(), String> {
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M").to_string();
    let verdict = outcome.as_ref().map_or_else(|why| format!("FOUND: {why}"), |_| "clean".to_owned());
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let line = format!("| {date} | {} | {kind} | {count} | {minutes:.1} min | {verdict} |", tree.commit());
    println!("{line}");
    append(&tree.root().join(RECORD), &line).map_err(|why| format!("{RECORD}: {why}"))
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let head = "# Soak runs\n\nWritten by `cargo xtask soak`; times are UTC; `+` behind a commit: with local changes.\n\n\
                | when | commit | what | count | took | result |\n|---|---|---|---|---|---|\n";
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

//! `cargo xtask sim`: a wrapper around the one program that runs the product in the
//! simulated world.

use clap::Args;

use crate::run::Call;
use crate::tree::Tree;

/// The package whose binary runs the simulation. The only place that names it. It takes
/// `--seeds N [--from SEED]` or `--seed S --trace`, and ends with 0 when nothing was found.
const SIMULATION: &str = "swarm";

/// Arguments of `sim`.
#[derive(Args)]
pub struct SimArgs {
    /// How many seeds, counted from --from
    #[arg(long, default_value_t = 200, conflicts_with = "seed")]
    pub seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    pub from: u64,
    /// Replay one seed with a readable trace
    #[arg(long)]
    pub seed: Option<u64>,
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

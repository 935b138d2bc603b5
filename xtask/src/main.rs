//! `cargo xtask`: every command a developer or the CI needs, in one place.
//!
//! Promises: a command either does what its help says or fails and says why; what is
//! skipped is said loudly. Product code is never built differently for these commands.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod bench;
mod corpus;
mod deb;
mod fuzz;
mod rows;
mod run;
mod sabotage;
mod sim;
mod soak;
mod suite;
mod tidy;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of vmhold", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Format, tidy, clippy, dependency rules, simulation smoke, end-to-end checks, all tests
    Test,
    /// Rules no compiler knows: layer walls, banned calls, requirement rows, sizes, unsafe ceilings
    Tidy,
    /// Write which test decides which requirement row into docs/REQUIREMENTS.md
    Rows,
    /// Run the deterministic simulation: many seeds, or one seed with a readable trace
    Sim(sim::SimArgs),
    /// The large counts of everything random, recorded in docs/SOAK.md
    Soak(soak::SoakArgs),
    /// Plant known bugs in a copy of the tree; the tests must find each of them
    Sabotage(sabotage::SabotageArgs),
    /// Run the benches and write docs/PERFORMANCE.md
    Bench(bench::BenchArgs),
    /// Run every fuzz target for a while
    Fuzz(fuzz::FuzzArgs),
    /// Run Miri over the portable parts of base and parity (needs nightly)
    Miri,
    /// Boot virtual machines whose disks are served by vmhold (needs qemu)
    VmTest,
    /// Make Debian packages (needs dpkg-dev)
    Deb(deb::DebArgs),
    /// What CI runs after the machine is prepared: the same as `test`
    Ci,
}

fn main() -> ExitCode {
    let outcome = tree::Tree::open().and_then(|tree| match Cli::parse().command {
        Command::Test | Command::Ci => suite::test(&tree),
        Command::Tidy => tidy::command(&tree),
        Command::Rows => rows::command(&tree),
        Command::Sim(args) => sim::sim(&tree, &args),
        Command::Soak(args) => soak::soak(&tree, &args),
        Command::Sabotage(args) => sabotage::sabotage(&tree, &args).map(|_| ()),
        Command::Bench(args) => bench::bench(&tree, &args),
        Command::Fuzz(args) => fuzz::fuzz(&tree, &args).map(|_| ()),
        Command::VmTest => suite::vm_test(&tree, None),
        Command::Deb(args) => deb::deb(&tree, &args),
        Command::Miri => soak::miri(&tree),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}

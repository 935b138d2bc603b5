//! `vmhold`, the program: one binary for the server, the demo and everything a person or
//! script asks of them.
//!
//! Promises: a command prints one document, or one problem that says what, why and what to
//! do; it ends with the exit code of that problem; it changes nothing it was not asked to.
//!
//! ```text
//!  cli                          what can be typed
//!  say   consent                what is printed, what is asked
//!  place   process   appliance  the folder of a store, its process, its API
//!  store_command  pool_command  datastore_command  load_command   one per noun
//!  inject_command               faults on purpose
//!  host_command  accel_command  the agent of a hypervisor host, and its disks
//!  witness_command              the third place of two sites
//!  vm_command  job_command  events_command  people_command
//!  serve   log_lines   signals  the server
//!  quickstart                   the demo: make, start, break, check, remove
//! ```
//!
//! Must not know: how anything is stored; it only asks `node` to serve and talks to the API.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod accel_command;
mod appliance;
mod cli;
mod consent;
mod daemon;
mod datastore_command;
mod events_command;
mod host_command;
mod inject_command;
mod integrity_command;
mod iostat_command;
mod job_command;
mod load_command;
mod log_lines;
mod manual;
mod panic_report;
mod people_command;
mod place;
mod pool_command;
mod process;
mod quickstart;
mod replication_command;
mod say;
mod serve;
mod signals;
mod store_command;
mod vm_command;
mod watch;
mod witness_command;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use control::{Exit, Problem, codes};

use crate::cli::{Cli, JournalAction, Noun};
use crate::say::Say;

fn main() -> ExitCode {
    panic_report::install();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return unusable(&error),
    };
    let say = Say::of(&cli.global);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&cli, &say)));
    match outcome {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(problem)) => {
            say.problem(&problem);
            problem.exit().into()
        }
        Err(_) => {
            // The hook has told it to people already.
            let problem = Problem::new(&codes::BUG, "vmhold stopped because a part of it panicked");
            say.problem_document(&problem);
            problem.exit().into()
        }
    }
}

fn run(cli: &Cli, say: &Say) -> Result<Exit, Problem> {
    let Some(interval) = cli.global.watch else { return once(cli, say) };
    watch::check(cli)?;
    watch::run(interval, say, || once(cli, say))
}

fn once(cli: &Cli, say: &Say) -> Result<Exit, Problem> {
    // Of a demo of two sites a command is about the one that serves, but for the demo's own.
    let dir = match &cli.noun {
        Noun::Quickstart(_) => cli.global.dir.clone(),
        _ => quickstart::pair::folder(&cli.global),
    };
    let global = &cli::Global { dir, ..cli.global.clone() };
    match &cli.noun {
        Noun::Serve(command) => serve::run(command, global, say),
        Noun::Host(command) => host_command::run(command, global, say),
        Noun::Witness(command) => witness_command::run(command, global, say),
        Noun::Replication(command) => replication_command::run(command, global, say),
        Noun::Site(command) => replication_command::sites(command, global, say),
        Noun::Accel(command) => accel_command::run(command, global, say),
        Noun::Quickstart(command) => quickstart::run(command, global, say),
        Noun::Status => store_command::status(global, say),
        Noun::Fsck(command) if command.repair_scan => store_command::repair_scan(global, say),
        Noun::Fsck(_) => store_command::fsck(global, say),
        Noun::Checkpoint => store_command::checkpoint(global, say),
        Noun::Journal(command) => match command.action {
            JournalAction::Resilver => store_command::resilver_journal(global, say),
        },
        Noun::Explain { code } => store_command::explain(code, say),
        Noun::Version => store_command::version(say),
        Noun::Pool(command) => pool_command::run(command, global, say),
        Noun::Drive(command) => pool_command::drives(command, global, say),
        Noun::Inject(command) => inject_command::run(command, global, say),
        Noun::Datastore(command) => datastore_command::run(command, global, say),
        Noun::Vm(command) => vm_command::run(command, global, say),
        Noun::Job(command) => job_command::run(command, global, say),
        Noun::Events(command) => events_command::run(command, global, say),
        Noun::Iostat(command) => iostat_command::run(command, global, say),
        Noun::Man { command, into } => manual::run(command, into.as_deref(), say),
        Noun::Token(command) => people_command::tokens(command, global, say),
        Noun::Audit(command) => people_command::audit(command, global, say),
        Noun::Ui => people_command::ui(global, say),
        Noun::Bench(command) => load_command::bench(command, global, say),
        Noun::Nfs(command) => load_command::nfs(command, say),
        Noun::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "vmhold", &mut script);
            say.raw(&script);
            Ok(Exit::Success)
        }
    }
}

/// A command line that says nothing sensible, or asks for help.
fn unusable(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell when the terminal is gone.
    let _ = error.print();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Exit::Success.into();
    }
    if std::env::args_os().any(|word| word == "--json") {
        let text = error.to_string();
        let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Say::json().problem_document(&Problem::new(&codes::BAD_INPUT, what));
    }
    Exit::Usage.into()
}

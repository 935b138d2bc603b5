//! `bench` and `nfs`: the load generator's commands in this program's manners.

use control::{Exit, Problem, codes};
use load::command::{BenchCommand, Console, NfsCommand, Output};
use load::failure::Failure;
use load::target::Target;

use crate::cli::Global;
use crate::place::{Announcement, Place};
use crate::say::Say;

/// Export of the demo.
pub const DEMO_DATASTORE: &str = "demo";

/// `bench`; without a target it drives the demo of the folder.
pub fn bench(command: &BenchCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let mut command = command.clone();
    if command.load.target.is_none() {
        command.load.target = Place::of(&global.dir).announced().map(|announced| target(&announced));
    }
    said(command.run(console(say)), say)
}

/// `nfs`.
pub fn nfs(command: &NfsCommand, say: &Say) -> Result<Exit, Problem> {
    said(command.run(console(say)), say)
}

/// What may be drawn.
pub fn console(say: &Say) -> Console {
    Console { progress: say.progress() }
}

/// The demo's datastore.
pub fn target(announced: &Announcement) -> Target {
    let ready = &announced.ready;
    Target {
        host: ready.nfs.ip().to_string(),
        port: Some(ready.nfs.port()),
        mount_port: Some(ready.mount.port()),
        path: format!("/{DEMO_DATASTORE}"),
    }
}

fn said(outcome: Result<Output, Failure>, say: &Say) -> Result<Exit, Problem> {
    let output = outcome.map_err(|failure| problem_of(&failure))?;
    let text = if say.is_json() { output.json + "\n" } else { output.text };
    say.raw(text.as_bytes());
    Ok(if output.ok { Exit::Success } else { Exit::Failed })
}

/// A failure as a problem that ends with the same exit code.
pub fn problem_of(failure: &Failure) -> Problem {
    let code = match failure.exit_code() {
        2 => &codes::BAD_INPUT,
        3 => &codes::NOT_FOUND,
        4 => &codes::EXPORT_DENIED,
        5 => &codes::CONFLICT,
        8 => &codes::SERVER_UNREACHABLE,
        _ => &codes::BENCH_TARGET,
    };
    Problem::new(code, failure.to_string()).step(failure.advice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_ends_with_the_exit_code_of_the_failure() {
        let failure = Failure::Usage(load::failure::Usage::Zero);
        assert_eq!(problem_of(&failure).exit().number(), failure.exit_code());
    }
}

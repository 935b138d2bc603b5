//! `--watch`: a command again and again, as a screen on a terminal and as one document per
//! line for programs.

use std::io::IsTerminal;
use std::time::Duration;

use control::{Exit, Problem, codes};

use crate::cli::{Cli, DatastoreAction, DriveAction, Noun, PoolAction, TokenAction, WitnessAction};
use crate::job_command::JobAction;
use crate::replication_command::ReplicationVerb;
use crate::say::Say;
use crate::vm_command::VmAction;

/// Cursor home, clear below: the screen does not flicker as it would with a full clear.
const HOME: &str = "\u{1b}[H\u{1b}[J";

/// Runs `once` every `interval` until Ctrl-C, or until it is refused for good.
pub fn run(interval: Duration, say: &Say, once: impl Fn() -> Result<Exit, Problem>) -> Result<Exit, Problem> {
    let is_screen = std::io::stdout().is_terminal() && !say.is_json();
    loop {
        if is_screen {
            say.raw(HOME.as_bytes());
        }
        match once() {
            Ok(_) => {}
            // A store that is away may come back; that is what is being watched.
            Err(problem) if matches!(problem.exit(), Exit::Unreachable | Exit::TimedOut) => say.problem(&problem),
            Err(problem) => return Err(problem),
        }
        std::thread::sleep(interval);
    }
}

/// Only what looks can be watched.
///
/// # Errors
/// `BAD_INPUT` for a command that changes something or has its own way to go on.
pub fn check(cli: &Cli) -> Result<(), Problem> {
    let looks = match &cli.noun {
        Noun::Status => true,
        Noun::Pool(pool) => matches!(pool.action, PoolAction::List | PoolAction::Show { .. }),
        Noun::Drive(drive) => matches!(drive.action, DriveAction::List | DriveAction::Show { .. }),
        Noun::Datastore(datastore) => {
            matches!(datastore.action, DatastoreAction::List | DatastoreAction::Show { .. })
        }
        Noun::Job(job) => matches!(job.action, JobAction::List | JobAction::Show { .. }),
        Noun::Replication(pair) => matches!(pair.action, ReplicationVerb::Status),
        Noun::Witness(witness) => matches!(witness.action, WitnessAction::Status),
        Noun::Vm(vm) => matches!(
            vm.action,
            VmAction::List { .. } | VmAction::Show { .. } | VmAction::Latency { .. } | VmAction::Contributors { .. }
        ),
        Noun::Token(token) => matches!(token.action, TokenAction::List),
        _ => false,
    };
    if looks {
        return Ok(());
    }
    Err(Problem::new(&codes::BAD_INPUT, "this command cannot be watched")
        .why("--watch runs a command that looks again and again; events and iostat go on by themselves")
        .step("vmhold status --watch")
        .step("vmhold events watch"))
}

//! `job`.

use clap::{Args, Subcommand};
use control::client::{Call, segment};
use control::jobs::{Job, JobList};
use control::{Envelope, Exit, Problem};

use crate::appliance::{self, change};
use crate::cli::Global;
use crate::say::{Say, width};

/// `job`.
#[derive(Debug, Args)]
pub struct JobCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: JobAction,
}

/// Verbs of `job`.
#[derive(Debug, Subcommand)]
pub enum JobAction {
    /// All jobs, newest first
    List,
    /// One job
    Show {
        /// Its id, as in J-7
        id: String,
    },
    /// Ask it to pause
    Pause {
        /// Its id, as in J-7
        id: String,
    },
    /// Ask it to go on
    Resume {
        /// Its id, as in J-7
        id: String,
    },
    /// Ask it to stop for good
    Cancel {
        /// Its id, as in J-7
        id: String,
    },
}

/// Runs a verb.
pub fn run(command: &JobCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let client = appliance::client(global)?;
    let (id, verb) = match &command.action {
        JobAction::List => {
            let list: Envelope<JobList> = client.get("/v1/jobs")?;
            say.envelope(&list, |list, _| list.human(width()));
            return Ok(Exit::Success);
        }
        JobAction::Show { id } => {
            let job: Envelope<Job> = client.get(&format!("/v1/jobs/{}", segment(id)))?;
            say.envelope(&job, |job, _| shown(job));
            return Ok(Exit::Success);
        }
        JobAction::Pause { id } => (id, "pause"),
        JobAction::Resume { id } => (id, "resume"),
        JobAction::Cancel { id } => (id, "cancel"),
    };
    let path = format!("/v1/jobs/{}/{verb}", segment(id));
    let asked = client.change::<Job>(&Call { method: "POST", path: &path, ..change(global) })?;
    Ok(say.changed(&asked, |job, _| format!("{} was asked to {verb}; follow it: vmhold job show {}\n", job.id, job.id)))
}

fn shown(job: &Job) -> String {
    let mut out = format!("{}  {} {}  {}\n", job.id, job.kind, job.object, job.progress());
    let time = |at: jiff::Timestamp| at.strftime("%Y-%m-%d %H:%M:%S UTC");
    out.push_str(&format!("  started {}", time(job.started_at)));
    if let Some(at) = job.ended_at {
        out.push_str(&format!("   ended {}", time(at)));
    }
    out.push_str(&format!("   pass {}   errors {}\n", job.pass, job.errors));
    for (label, said) in [("held back by", &job.limited_by), ("result:", &job.result)] {
        if let Some(said) = said {
            out.push_str(&format!("  {label} {said}\n"));
        }
    }
    out
}

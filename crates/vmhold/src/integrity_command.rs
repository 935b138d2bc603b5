//! `replication verify`, `receipt` and `evidence`: do both sites hold the same, and who says so?

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use control::client::{Call, segment};
use control::integrity::{IntegrityCheck, IntegrityOrder, IntegrityOutcome, KeptEvidence, LastIntegrityCheck, Receipt};
use control::{Envelope, Exit, Problem, codes};

use crate::appliance::{self, change};
use crate::cli::Global;
use crate::place::unusable;
use crate::say::Say;

/// How often the end of a check is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `replication verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The pool
    #[arg(required_unless_present = "receipt")]
    pub pool: Option<String>,
    /// Read all data at both sites instead of trusting the sums that are kept
    #[arg(long)]
    pub read_data: bool,
    /// Wait until it is done and say what came of it
    #[arg(long)]
    pub wait: bool,
    /// Check nothing now: say what the last check came to
    #[arg(long, conflicts_with_all = ["read_data", "wait"])]
    pub last: bool,
    /// Look at this receipt instead, without any store
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pool", "read_data", "wait", "last"])]
    pub receipt: Option<PathBuf>,
}

/// `replication receipt`.
#[derive(Debug, Args)]
pub struct ReceiptArgs {
    /// The pool
    pub pool: String,
    /// Write it into this file
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}

/// `replication evidence`.
#[derive(Debug, Args)]
pub struct EvidenceArgs {
    /// The pool
    pub pool: String,
    /// Let go of it, at this site
    #[arg(long)]
    pub forget: bool,
}

fn path_of(pool: &str) -> String {
    format!("/v1/replication/{}/verify", segment(pool))
}

fn exit_of(check: &IntegrityCheck) -> Exit {
    match check.outcome {
        IntegrityOutcome::Clean | IntegrityOutcome::Running => Exit::Success,
        IntegrityOutcome::Differs | IntegrityOutcome::NotCompleted => Exit::Failed,
    }
}

/// Runs `replication verify`.
pub fn verify(args: &VerifyArgs, global: &Global, say: &Say) -> Result<Exit, Problem> {
    if let Some(file) = &args.receipt {
        let text = std::fs::read_to_string(file).map_err(|error| unusable(file, &error))?;
        let verified = node::verify_receipt(&text)?;
        say.document(verified, |verified| verified.human());
        return Ok(Exit::Success);
    }
    let pool = args.pool.as_deref().unwrap_or_default();
    let client = appliance::client(global)?;
    if args.last {
        let last: Envelope<LastIntegrityCheck> = client.get(&path_of(pool))?;
        say.envelope(&last, |last, _| last.human());
        return Ok(last.into_result()?.check.as_ref().map_or(Exit::Success, exit_of));
    }
    let body = serde_json::to_string(&IntegrityOrder { read_data: args.read_data }).expect("an order is one flag");
    let path = path_of(pool);
    let call = Call { method: "POST", path: &path, body: Some(&body), ..change(global) };
    let begun = client.change::<LastIntegrityCheck>(&call)?;
    if !args.wait || global.dry_run {
        let watch = format!("{pool}: a check has begun; what came of it: vmhold replication verify {pool} --last\n");
        return Ok(say.changed(&begun, |_, _| watch));
    }
    loop {
        std::thread::sleep(LOOK_EVERY);
        let last: Envelope<LastIntegrityCheck> = appliance::client(global)?.get(&path)?;
        let is_over = last.clone().into_result()?;
        if let (None, Some(check)) = (&is_over.job, &is_over.check)
            && check.outcome != IntegrityOutcome::Running
        {
            say.envelope(&last, |last, _| last.human());
            return Ok(exit_of(check));
        }
    }
}

/// Runs `replication receipt`.
pub fn receipt(args: &ReceiptArgs, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let last: Envelope<LastIntegrityCheck> = appliance::client(global)?.get(&path_of(&args.pool))?;
    let receipt = last.into_result()?.check.and_then(|check| check.receipt).ok_or_else(|| {
        Problem::new(&codes::NOT_FOUND, format!("{} has no receipt here", args.pool))
            .why("the last check that this site made did not find both sites the same, or it made none")
            .step(format!("at the primary: vmhold replication verify {} --wait", args.pool))
    })?;
    if let Some(file) = &args.save {
        save(file, &receipt)?;
    }
    say.document(receipt, |receipt| match &args.save {
        None => receipt.statement.clone(),
        Some(file) => format!(
            "written to {}; look at it anywhere: vmhold replication verify --receipt {}\n",
            file.display(),
            file.display()
        ),
    });
    Ok(Exit::Success)
}

fn save(file: &Path, receipt: &Receipt) -> Result<(), Problem> {
    let text = serde_json::to_string_pretty(receipt).expect("a receipt holds only text");
    std::fs::write(file, format!("{text}\n")).map_err(|error| unusable(file, &error))
}

/// Runs `replication evidence`.
pub fn evidence(args: &EvidenceArgs, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let path = format!("/v1/replication/{}/evidence", segment(&args.pool));
    if !args.forget {
        let kept: Envelope<KeptEvidence> = appliance::client(global)?.get(&path)?;
        say.envelope(&kept, |kept, _| kept.human());
        return Ok(Exit::Success);
    }
    let call = Call { method: "DELETE", path: &path, ..change(global) };
    let done = appliance::patient_client(global)?.change::<KeptEvidence>(&call)?;
    Ok(say.changed(&done, |kept, _| kept.human()))
}

//! `status`, `fsck`, `checkpoint`, `journal`, `explain`, `version`.

use control::check::{CheckpointReport, FsckReport, ResilverReport};
use control::client::{Call, Changed};
use control::codes::{self, CodePage};
use control::repair_scan::RepairScanReport;
use control::server::Version;
use control::status::Status;
use control::{Envelope, Exit, Problem, text};
use node::StoreConfig;

use crate::appliance::{self, change};
use crate::cli::Global;
use crate::consent::confirmed;
use crate::place::{Place, lock};
use crate::say::Say;

/// One screen.
pub fn status(global: &Global, say: &Say) -> Result<Exit, Problem> {
    let status: Envelope<Status> = appliance::client(global)?.get("/v1/status")?;
    say.envelope(&status, Status::human);
    Ok(Exit::Success)
}

/// Checks the live store.
pub fn fsck(global: &Global, say: &Say) -> Result<Exit, Problem> {
    let call = Call { method: "POST", path: "/v1/fsck", ..change(global) };
    let report = appliance::patient_client(global)?.change::<FsckReport>(&call)?;
    say.changed(&report, |report, _| report.human());
    match report {
        Changed::Done(report) => Ok(report.into_result()?.exit()),
        Changed::Planned(_) => Ok(Exit::Success),
    }
}

/// Scans a store that is not served, and makes its metadata anew if that is damaged.
pub fn repair_scan(global: &Global, say: &Say) -> Result<Exit, Problem> {
    let path = Place::of(&global.dir).config();
    if !path.exists() {
        return Err(Problem::new(&codes::DEMO_NOT_FOUND, format!("there is no configuration {}", path.display()))
            .step("name the folder of the store: --dir DIR"));
    }
    let _sole_owner = lock(&path).map_err(|problem| problem.step("stop the server first"))?;
    let config = StoreConfig::load(&path)?;
    let agree = |report: &RepairScanReport| {
        if !global.dry_run && !report.is_complete() {
            say.note(&report.human());
            let effect = "What is not restored is refused from then on, also if a missing drive comes back later.";
            confirmed(global, &config.pool, effect)?;
        }
        Ok(!global.dry_run)
    };
    let report = node::repair_scan(&config, agree)?;
    let exit = report.exit();
    say.document(report, RepairScanReport::human);
    Ok(exit)
}

/// Makes a checkpoint.
pub fn checkpoint(global: &Global, say: &Say) -> Result<Exit, Problem> {
    let call = Call { method: "POST", path: "/v1/checkpoint", ..change(global) };
    let report = appliance::patient_client(global)?.change::<CheckpointReport>(&call)?;
    Ok(say.changed(&report, |report, _| {
        let (freed, seconds) = (text::bytes(report.journal_freed_bytes), text::duration(report.seconds));
        format!("checkpoint {} made in {seconds}; {freed} of the journal freed\n", report.root_version)
    }))
}

/// Takes lost journal legs in again.
pub fn resilver_journal(global: &Global, say: &Say) -> Result<Exit, Problem> {
    let call = Call { method: "POST", path: "/v1/journal/resilver", ..change(global) };
    let report = appliance::patient_client(global)?.change::<ResilverReport>(&call)?;
    say.changed(&report, |report, _| report.human());
    match report {
        Changed::Done(report) => Ok(report.into_result()?.exit()),
        Changed::Planned(_) => Ok(Exit::Success),
    }
}

/// What a code means.
pub fn explain(code: &str, say: &Say) -> Result<Exit, Problem> {
    let found = codes::find(code).ok_or_else(|| {
        Problem::new(&codes::NOT_FOUND, format!("no code {code:?}"))
            .step("codes look like VH1021; each message carries its own")
    })?;
    say.document(CodePage(found), |page| codes::explain(page.0));
    Ok(Exit::Success)
}

/// Which version this is.
pub fn version(say: &Say) -> Result<Exit, Problem> {
    say.document(Version::here(), |version| format!("{} {}, API {}\n", version.name, version.version, version.api));
    Ok(Exit::Success)
}

//! Calls about what VMs and disks do.

use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;

use crate::activity::{ActivityList, Contributors, VmLatency};
use crate::activity_book::By;
use crate::codes;
use crate::extract::{Asked, Parts2};
use crate::problem::Problem;
use crate::route::Route;
use crate::server::{Api, Reply, Shared, envelope};
use crate::vm_routes::find;

const HISTORY_SECONDS: u32 = 3600;
const HISTORY_SECONDS_MAX: u32 = 90 * 86_400;
const RECENT_SECONDS: u32 = 10;

/// Their rows.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/v1/activity", "What each VM or disk does, those with most work first.", activity)
            .answers::<ActivityList>()
            .parameter("by", "string", "vm or disk; VMs if left away.")
            .parameter("last_seconds", "integer", "Over how long, up to a minute; 10 s if left away."),
        Route::get("/v1/vms/{datastore}/{vm}/latency", "Latency of a VM by part, now and over time.", latency)
            .answers::<VmLatency>()
            .parameter("disk", "string", "Path of one disk of it.")
            .parameter("last_seconds", "integer", "How far back; an hour if left away, at most 90 days."),
        Route::get("/v1/contributors", "Which VMs did how much at a moment, beside the hour before.", contributors)
            .answers::<Contributors>()
            .parameter("at", "string", "The moment (RFC 3339); now if left away."),
    ]
}

/// Reads what is on disk beside the calls of others.
#[expect(clippy::disallowed_methods, reason = "files are read on a thread of the API, never of a store")]
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Problem::new(&codes::BUG, "the history could not be read").why(error.to_string()))
}

#[derive(Deserialize)]
struct ActivityQuery {
    by: Option<String>,
    last_seconds: Option<u32>,
}

async fn activity(State(api): Shared, Asked(query): Asked<ActivityQuery>) -> Reply {
    let by = match query.by.as_deref() {
        None | Some("vm") => By::Vm,
        Some("disk") => By::Disk,
        Some(other) => {
            let problem = Problem::new(&codes::BAD_INPUT, format!("activity is not told by {other:?}"));
            return Err(problem.field("by", "vm or disk".to_owned()).into());
        }
    };
    let seconds = query.last_seconds.unwrap_or(RECENT_SECONDS) as usize;
    Ok(envelope(None, api.activity().recent(by, seconds)))
}

#[derive(Deserialize)]
struct LatencyQuery {
    disk: Option<String>,
    last_seconds: Option<u32>,
}

async fn latency(State(api): Shared, Parts2(datastore, vm): Parts2, Asked(query): Asked<LatencyQuery>) -> Reply {
    let there = find(&api, &datastore, &vm).await?;
    if let Some(disk) = query.disk.as_deref().filter(|disk| there.files.iter().all(|file| file.path != **disk)) {
        let problem = Problem::new(&codes::NOT_FOUND, format!("VM {vm:?} has no file at {disk:?}"));
        let paths = there.files.iter().filter(|file| file.role == "disk").map(|file| file.path.clone());
        return Err(problem.step(format!("its disks: {}", paths.collect::<Vec<_>>().join(", "))).into());
    }
    let seconds = i64::from(query.last_seconds.unwrap_or(HISTORY_SECONDS).min(HISTORY_SECONDS_MAX));
    let found = of_vm(&api, (datastore, vm), query.disk, seconds).await?;
    Ok(envelope(None, found))
}

async fn of_vm(
    api: &Api,
    (datastore, vm): (String, String),
    disk: Option<String>,
    seconds: i64,
) -> Result<VmLatency, Problem> {
    let (book, now) = (api.activity().clone(), Timestamp::now());
    beside(move || book.latency((&datastore, &vm), disk.as_deref(), seconds, now)).await
}

#[derive(Deserialize)]
struct ContributorsQuery {
    at: Option<String>,
}

async fn contributors(State(api): Shared, Asked(query): Asked<ContributorsQuery>) -> Reply {
    let now = Timestamp::now();
    let at = match query.at.as_deref() {
        None => now,
        Some(text) => text.parse().map_err(|_| {
            Problem::new(&codes::BAD_INPUT, format!("{text:?} is no moment"))
                .field("at", "as in 2026-11-20T09:14:07Z".to_owned())
        })?,
    };
    let book = api.activity().clone();
    Ok(envelope(None, beside(move || book.contributors(at, now)).await?))
}

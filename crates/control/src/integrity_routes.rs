//! Calls about the integrity check of two sites.

use axum::extract::{Extension, State};

use crate::extract::{Named, Sent};
use crate::guard::DryRun;
use crate::integrity::{IntegrityOrder, KeptEvidence, LastIntegrityCheck};
use crate::plan::Plan;
use crate::route::Route;
use crate::server::{Reply, Shared, envelope, known_pool};

/// Their rows.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/replication/{name}/verify",
            "The last check whether both sites hold the same, and its receipt.",
            last,
        )
        .answers::<LastIntegrityCheck>(),
        Route::post(
            "/v1/replication/{name}/verify",
            "Checks as a job whether both sites hold the same; clients go on.",
            begin,
        )
        .takes::<IntegrityOrder>()
        .answers::<LastIntegrityCheck>()
        .plans(),
        Route::get(
            "/v1/replication/{name}/evidence",
            "What this site keeps of files as they were when they differed.",
            evidence,
        )
        .answers::<KeptEvidence>(),
        Route::delete("/v1/replication/{name}/evidence", "Lets go of it.", forget).answers::<KeptEvidence>().plans(),
    ]
}

async fn last(State(api): Shared, Named(name): Named) -> Reply {
    known_pool(&api, &name).await?;
    Ok(envelope(None, api.backend().last_check().await?))
}

async fn begin(
    State(api): Shared,
    Named(name): Named,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(order): Sent<IntegrityOrder>,
) -> Reply {
    known_pool(&api, &name).await?;
    api.backend().could_check().await?;
    if dry_run {
        let how = if order.read_data { "reading all data" } else { "from the sums that are kept, reading no data" };
        return Ok(envelope(None, Plan::would(format!("{name}: compare both sites, {how}; writes wait for a moment"))));
    }
    Ok(envelope(None, api.backend().begin_check(order).await?))
}

async fn evidence(State(api): Shared, Named(name): Named) -> Reply {
    known_pool(&api, &name).await?;
    Ok(envelope(None, api.backend().evidence(false).await?))
}

async fn forget(State(api): Shared, Named(name): Named, Extension(DryRun(dry_run)): Extension<DryRun>) -> Reply {
    known_pool(&api, &name).await?;
    if dry_run {
        let kept = api.backend().evidence(false).await?.kept.len();
        return Ok(envelope(None, Plan::would(format!("{name}: let go of {kept} files that are kept as evidence"))));
    }
    Ok(envelope(None, api.backend().evidence(true).await?))
}

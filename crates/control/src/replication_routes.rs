//! Calls about two sites that hold the same.

use axum::extract::{Extension, State};
use axum::http::HeaderMap;

use crate::codes;
use crate::extract::{Named, Sent, confirmed};
use crate::guard::DryRun;
use crate::plan::Plan;
use crate::problem::Problem;
use crate::replication::{Replication, ReplicationList, ReplicationOrder};
use crate::route::Route;
use crate::server::{Reply, Shared, envelope, known_pool};

/// Their rows.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/v1/replication", "How this store and its other half stand.", list).answers::<ReplicationList>(),
        Route::post(
            "/v1/replication/{name}",
            "Pauses, resumes, hands over, or makes this site primary; for the last, Confirm names the pool.",
            order,
        )
        .takes::<ReplicationOrder>()
        .answers::<Replication>()
        .plans()
        .confirms(),
    ]
}

async fn list(State(api): Shared) -> Reply {
    let facts = api.backend().facts().await?;
    Ok(envelope(None, ReplicationList(facts.replication.into_iter().collect())))
}

async fn order(
    State(api): Shared,
    Named(name): Named,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    headers: HeaderMap,
    Sent(order): Sent<ReplicationOrder>,
) -> Reply {
    known_pool(&api, &name).await?;
    let pair = api.backend().facts().await?.replication.ok_or_else(|| {
        Problem::new(&codes::NOT_FOUND, format!("{name} has no other site")).why("it was not made one of a pair")
    })?;
    let plan = Plan::would(order.action.effect(&pair));
    let plan = if order.action.is_severe() { plan.confirmed_by(&name) } else { plan };
    if dry_run {
        return Ok(envelope(None, plan));
    }
    if order.action.is_severe() {
        confirmed(&headers, &name, &plan.would[0])?;
    }
    Ok(envelope(None, api.backend().order_replication(order.action).await?))
}

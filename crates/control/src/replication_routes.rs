//! Calls about two sites that hold the same.

use axum::extract::{Extension, State};
use axum::http::HeaderMap;

use crate::codes;
use crate::extract::{Asked, Named, Sent, confirmed};
use crate::guard::DryRun;
use crate::plan::Plan;
use crate::problem::Problem;
use crate::replacement::{SiteReplaced, SiteReplacement};
use crate::replication::{Replication, ReplicationList, ReplicationOrder};
use crate::roles::RoleHistory;
use crate::route::Route;
use crate::server::{Api, LISTED, LISTED_MAX, ListQuery, Reply, Shared, envelope, known_pool};

/// Their rows.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/v1/replication", "How this store and its other half stand.", list).answers::<ReplicationList>(),
        Route::get("/v1/replication/{name}/history", "Changes of the pair that this site has seen.", history)
            .answers::<RoleHistory>()
            .parameter("limit", "integer", "At most the newest so many."),
        Route::post(
            "/v1/replication/{name}",
            "Pauses, resumes, hands over, or makes this site primary; for the last, Confirm names the pool.",
            order,
        )
        .takes::<ReplicationOrder>()
        .answers::<Replication>()
        .plans()
        .confirms(),
        Route::post(
            "/v1/replication/{name}/peer",
            "Makes another site the secondary, in place of one that is lost; Confirm names the pool.",
            replace_peer,
        )
        .takes::<SiteReplacement>()
        .answers::<SiteReplaced>()
        .secret()
        .plans()
        .confirms(),
    ]
}

async fn list(State(api): Shared) -> Reply {
    let facts = api.backend().facts().await?;
    Ok(envelope(None, ReplicationList(facts.replication.into_iter().collect())))
}

async fn history(State(api): Shared, Named(name): Named, Asked(query): Asked<ListQuery>) -> Reply {
    known_pair(&api, &name).await?;
    let site = api.backend().facts().await?.site;
    let changes = api.roles().newest(query.limit.unwrap_or(LISTED).min(LISTED_MAX));
    Ok(envelope(None, RoleHistory { site, changes }))
}

async fn order(
    State(api): Shared,
    Named(name): Named,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    headers: HeaderMap,
    Sent(order): Sent<ReplicationOrder>,
) -> Reply {
    let pair = known_pair(&api, &name).await?;
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

async fn replace_peer(
    State(api): Shared,
    Named(name): Named,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    headers: HeaderMap,
    Sent(replacement): Sent<SiteReplacement>,
) -> Reply {
    let pair = known_pair(&api, &name).await?;
    let plan = Plan::would(SiteReplacement::effect(&pair)).confirmed_by(&name);
    if dry_run {
        return Ok(envelope(None, plan));
    }
    confirmed(&headers, &name, &plan.would[0])?;
    Ok(envelope(None, api.backend().replace_peer(replacement).await?))
}

async fn known_pair(api: &Api, name: &str) -> Result<Replication, Problem> {
    known_pool(api, name).await?;
    let pair = api.backend().facts().await?.replication;
    pair.ok_or_else(|| {
        Problem::new(&codes::NOT_FOUND, format!("{name} has no other site")).why("it was not made one of a pair")
    })
}

//! Calls about faults on purpose.

use axum::extract::{Extension, State};
use axum::http::HeaderMap;

use crate::extract::{Named, Sent, confirmed};
use crate::guard::DryRun;
use crate::inject::{FaultList, FaultOrder, FlipOrder, FlippedByte, InjectedFault};
use crate::plan::Plan;
use crate::route::Route;
use crate::server::{Reply, Shared, envelope, known_pool};

/// Their rows.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/v1/pools/{name}/faults", "Faults on purpose, and what they may have left.", list)
            .answers::<FaultList>(),
        Route::post(
            "/v1/pools/{name}/faults",
            "Makes a drive of a lab pool do something wrong for a while; Confirm names the pool.",
            inject,
        )
        .takes::<FaultOrder>()
        .answers::<InjectedFault>()
        .plans()
        .confirms(),
        Route::post(
            "/v1/pools/{name}/faults/flip",
            "Flips a bit at one of two sites, in a lab pool; Confirm names the pool.",
            flip,
        )
        .takes::<FlipOrder>()
        .answers::<FlippedByte>()
        .plans()
        .confirms(),
        Route::post("/v1/pools/{name}/faults/stop", "Ends every fault on purpose now.", stop)
            .answers::<FaultList>()
            .plans(),
    ]
}

async fn list(State(api): Shared, Named(name): Named) -> Reply {
    known_pool(&api, &name).await?;
    Ok(envelope(None, FaultList(api.backend().faults().await?)))
}

async fn inject(
    State(api): Shared,
    Named(name): Named,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    headers: HeaderMap,
    Sent(order): Sent<FaultOrder>,
) -> Reply {
    known_pool(&api, &name).await?;
    order.check()?;
    let plan = order.plan(&name);
    api.backend().could_inject(order.clone()).await?;
    if dry_run {
        return Ok(envelope(None, plan));
    }
    confirmed(&headers, &name, &plan.would[0])?;
    Ok(envelope(None, api.backend().inject(order).await?))
}

async fn flip(
    State(api): Shared,
    Named(name): Named,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    headers: HeaderMap,
    Sent(order): Sent<FlipOrder>,
) -> Reply {
    known_pool(&api, &name).await?;
    let plan = order.plan(&name);
    api.backend().could_flip().await?;
    if dry_run {
        return Ok(envelope(None, plan));
    }
    confirmed(&headers, &name, &plan.would[0])?;
    Ok(envelope(None, api.backend().flip(order).await?))
}

async fn stop(State(api): Shared, Named(name): Named, Extension(DryRun(dry_run)): Extension<DryRun>) -> Reply {
    known_pool(&api, &name).await?;
    if dry_run {
        let faults = api.backend().faults().await?;
        let mut would: Vec<String> =
            faults.iter().filter(|fault| fault.is_on).map(|fault| format!("end {}", fault.drive)).collect();
        if would.is_empty() {
            would.push(format!("change nothing: no fault is injected into {name}"));
        }
        return Ok(envelope(None, Plan { would, confirm: None }));
    }
    Ok(envelope(None, FaultList(api.backend().end_faults().await?)))
}

//! Composes the roles of a node and owns its ports: configuration in, a serving store out.
//!
//! One shard is one thread: a single-threaded runtime with its own ring, on which sockets,
//! journal and drives of the store are served. The API runs on a thread of its own and
//! talks to the shard by messages, so that no request of a person ever stands in the way
//! of a write.
//!
//! Must not know: how anything below is done; it only puts the parts together.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod activity;
mod backend;
mod claims;
mod config;
mod damage;
mod events;
mod expand;
mod facts;
mod front;
mod healer;
mod inject;
mod io;
mod ledger;
mod metrics;
pub mod nfs_door;
mod pair;
mod pool;
mod progress;
mod ready;
mod records;
mod repair_scan;
mod retire;
mod sample;
mod schedules;
mod segments;
mod shard;
mod site_store;
mod upkeep;
mod vms;

use std::future::Future;
use std::sync::Arc;

use control::events::News;
use control::repair_scan::RepairScanReport;
use control::server::{Api, Books};
use control::tls::TlsConfig;
use control::{Code, Problem, codes};
use jiff::Timestamp;
use records::Records;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::LocalSet;

pub use config::{DEFAULT_STATE, IoConfig, StoreConfig};
pub use pair::{Founding, Introduction, PairConfig, PairInvitation, enable, found, join, verify_receipt};
pub use ready::Ready;
pub use records::{LOCAL_TOKEN, state_files};
pub use world_real::{create_sparse_file, create_zeroed_file};

fn runtime() -> Result<Runtime, Problem> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::new(&codes::BUG, "no runtime could be started").why(error.to_string()))
}

/// Makes a pool of the drives and journal legs that `config` names, which must exist and
/// be empty, and in it a datastore named `first_datastore`.
pub fn create(config: &StoreConfig, first_datastore: Option<&str>) -> Result<(), Problem> {
    let world = world_real::real_world();
    LocalSet::new().block_on(&runtime()?, pool::create(config, first_datastore, None, &world))
}

/// Makes the pool that `config` names one half of a pair. Its first datastore is made when the
/// pair serves for the first time.
pub fn create_paired(config: &StoreConfig, founding: &Founding) -> Result<(), Problem> {
    let world = world_real::real_world();
    LocalSet::new().block_on(&runtime()?, pool::create(config, None, Some(founding), &world))
}

/// Scans a store that is not served for everything that is stored in it. If metadata is damaged
/// beyond repair and `agree` says so to what was found, makes the metadata anew.
pub fn repair_scan(
    config: &StoreConfig,
    agree: impl FnOnce(&RepairScanReport) -> Result<bool, Problem>,
) -> Result<RepairScanReport, Problem> {
    let world = world_real::real_world();
    LocalSet::new().block_on(&runtime()?, repair_scan::run(config, &world, agree))
}

/// Serves the store that `config` describes until `stop` completes; then makes a
/// checkpoint and returns. `ready` is called once every door is open.
pub fn serve(
    config: StoreConfig,
    ready: impl FnOnce(&Ready) + 'static,
    stop: impl Future<Output = ()> + 'static,
) -> Result<(), Problem> {
    LocalSet::new().block_on(&runtime()?, run(config, ready, stop))
}

async fn run(config: StoreConfig, ready: impl FnOnce(&Ready), stop: impl Future<Output = ()>) -> Result<(), Problem> {
    let api = ready::bind(config.api, "the API").await?;
    let api =
        api.into_std().map_err(|error| Problem::new(&codes::BUG, "the API has no socket").why(error.to_string()))?;
    let api_at = api.local_addr().unwrap_or(config.api);
    let records = Records::open(&config, api_at)?;
    let shard = shard::Shard::start(config, records.books.clone()).await?;
    let (backend, jobs) = backend::backend();
    tokio::task::spawn_local(jobs.run(shard.clone()));
    let (stop_api, api_stopped) = watch::channel(false);
    let front = Api::new(backend, records.books.clone(), api_at.port(), Some(records.fingerprint));
    let thread = std::thread::Builder::new().name("api".into());
    let thread = thread.spawn(move || serve_api(api, records.tls, front, api_stopped));
    thread.map_err(|error| Problem::new(&codes::BUG, "no thread for the API").why(error.to_string()))?;
    if records.is_first_start {
        tracing::info!(fingerprint = %records.fingerprint, "a certificate for the API was made");
    }
    let started = format!("version {} serves NFS at {}", env!("CARGO_PKG_VERSION"), shard.ready.nfs);
    tell(&records.books, &codes::SERVER_STARTED, &shard.config.site, started);
    ready(&Ready { api: api_at, fingerprint: Some(records.fingerprint), ..shard.ready });
    let ended = tokio::select! {
        biased;
        why = shard.until_ended() => Some(why),
        () = stop => None,
    };
    stop_api.send_replace(true);
    if let Some(ended) = ended {
        // What is in memory is not to be trusted: no checkpoint; the journal has it all.
        let problem = match ended {
            shard::Ended::Defect => Problem::new(&codes::BUG, "the store stopped because a part of it panicked"),
            shard::Ended::Stopped(why) => {
                Problem::new(&codes::POOL_FAULTED, format!("pool \"{}\" stopped: {why}", shard.config.pool))
            }
        };
        return Err(problem.note("every acknowledged write is in the journal and is replayed at the next start"));
    }
    shard.stop().await?;
    tell(&records.books, &codes::SERVER_STOPPED, &shard.config.site, "everything is on the drives".to_owned());
    Ok(())
}

fn tell(books: &Books, code: &'static Code, site: &str, detail: String) {
    books.events.tell(News::happened(code, site, detail), Timestamp::now());
}

/// The API's thread.
fn serve_api(listener: std::net::TcpListener, tls: Arc<TlsConfig>, api: Api, mut stop: watch::Receiver<bool>) {
    let served = runtime().map(|runtime| {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let stopped = async move {
                // Either said or the sender is gone: both mean the end.
                let _ = stop.wait_for(|&stop| stop).await;
            };
            control::server::serve(listener, tls, api, stopped).await
        })
    });
    match served {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the API has stopped"),
        Err(problem) => tracing::error!("the API did not start: {problem:?}"),
    }
}

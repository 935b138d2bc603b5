//! Composes a host agent and owns its ports: a flash, the disks on it, the NBD door for VMs,
//! and the API for people.
//!
//! ```text
//!   VM ── NBD socket ──► nbd_door ──► cache::Disk ──► flash (log)        acknowledge
//!                                         │
//!                                         └─ destager ──► FileBacking    later, in batches
//!   vmhold accel ... ── API socket ──► api ──► Agent
//! ```
//!
//! One thread serves all of it, with its own ring. The flash says by itself which disks there
//! are, what they stand in front of and under which policy: nothing else needs to be kept for
//! a restart, and none of it can disagree with the data.
//!
//! Must not know: how a log or a batch works, how NBD is encoded.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod agent;
mod api;
mod backing;
pub mod client;
mod config;
mod events;
mod metrics;
mod nbd_door;
pub mod status;

use std::future::Future;
use std::rc::Rc;

use control::{Problem, codes};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

pub use config::{HostConfig, HostReady};
pub use world_real::create_zeroed_file;

/// Serves the host that `config` describes until `stop` completes. `ready` is called once
/// every door is open. What is dirty at the end stays on flash, and is served again at the
/// next start.
///
/// # Errors
/// When the flash, a disk on it, or a door cannot be opened. Nothing is served then.
pub fn serve(
    config: HostConfig,
    ready: impl FnOnce(&HostReady) + 'static,
    stop: impl Future<Output = ()> + 'static,
) -> Result<(), Problem> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Problem::new(&codes::BUG, "no runtime could be started").why(error.to_string()))?;
    LocalSet::new().block_on(&runtime, run(config, ready, stop))
}

async fn run(
    config: HostConfig,
    ready: impl FnOnce(&HostReady),
    stop: impl Future<Output = ()>,
) -> Result<(), Problem> {
    let agent = agent::Agent::open(config).await?;
    let doors = nbd_door::open(&agent).await?;
    let api = api::open(&agent)?;
    tokio::task::spawn_local(events::log_for_ever(Rc::downgrade(&agent)));
    ready(&HostReady {
        nbd_socket: agent.config.nbd_socket.clone(),
        nbd: doors.tcp,
        api_socket: agent.config.api_socket.clone(),
    });
    stop.await;
    drop(api);
    doors.stop().await;
    agent.stop();
    Ok(())
}

//! The witness as a process.
//!
//! ```text
//!   site ── TLS, own certificate ──► door ──► Desk ──► witness::Witness ──► Records (folder)
//!   people on this machine ── socket ──► door ──┘ │
//!                                                 └──► Roll: who may ask (sites, invitations)
//!   a site's side: Token ──► Membership ──► WitnessClient
//! ```
//!
//! `witness` decides; this crate owns the sockets, the folder and the clock. One thread does
//! all of it: a hundred pairs that renew every second are nothing, and a change waits for its
//! own datastore's disk write only.
//!
//! Promises:
//! * What was answered is on disk ([`records`]): written under a new name, flushed, renamed,
//!   the folder flushed. After a failed flush nothing is believed before it was written anew.
//! * A site is who its certificate says, and asks in its own name only. Others may do one
//!   thing: enrol, once, with a token that somebody on this machine made.
//! * Leases count on a monotonic clock that does not run while the machine sleeps: the
//!   witness then waits longer, which is the safe side.
//!
//! Must not know: what is replicated and how, what a site does with an answer.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod client;
mod desk;
mod door;
mod folder;
pub mod membership;
pub mod records;
mod roll;
pub mod status;
pub mod token;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use control::tls::Fingerprint;
use control::{Problem, codes};
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

pub use witness::wire::Question;

/// Name of the protocol in the TLS handshake.
pub(crate) const PROTOCOL: &str = "vmhold-witness/1";

/// Whether a witness is, or was, served from `dir`.
#[must_use]
pub fn is_in(dir: &Path) -> bool {
    folder::socket_in(dir).parent().is_some_and(Path::is_dir)
}

/// Settings of a witness.
#[derive(Clone, Debug)]
pub struct WitnessConfig {
    /// Where its folder `witness` is, or is made; readable by its owner only.
    pub dir: PathBuf,
    /// Where sites reach it.
    pub listen: SocketAddr,
    /// The address that join tokens name, where it is not `listen`: name or number, and port.
    pub advertise: Option<String>,
}

/// Where a witness answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessReady {
    /// For sites.
    pub listen: SocketAddr,
    /// For people on its machine.
    pub socket: PathBuf,
    /// Of its certificate.
    pub fingerprint: Fingerprint,
    /// Records it keeps.
    pub pairs: usize,
    /// Sites it knows.
    pub sites: usize,
}

/// Serves the witness that `config` describes until `stop` completes. `ready` is called once
/// every door is open.
///
/// # Errors
/// When its folder is unusable or served already, a record is damaged, or a door cannot be
/// opened. Nothing is answered then.
pub fn serve(
    config: WitnessConfig,
    ready: impl FnOnce(&WitnessReady) + 'static,
    stop: impl Future<Output = ()> + 'static,
) -> Result<(), Problem> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Problem::new(&codes::BUG, "no runtime could be started").why(error.to_string()))?;
    LocalSet::new().block_on(&runtime, run(config, ready, stop))
}

/// The same inside a `LocalSet` that is there.
///
/// # Errors
/// As [`serve`].
pub async fn run(
    config: WitnessConfig,
    ready: impl FnOnce(&WitnessReady),
    stop: impl Future<Output = ()>,
) -> Result<(), Problem> {
    let folder = folder::Folder::open(&config.dir)?;
    let (tls, fingerprint) = control::mutual::server(&folder.certificate(config.listen)?, PROTOCOL)?;
    let doors = door::Doors::open(&folder, config.listen, tls).await?;
    let address = match &config.advertise {
        Some(address) => Some(address.clone()),
        None => (!doors.listen.ip().is_unspecified()).then(|| doors.listen.to_string()),
    };
    let known = desk::Identity { fingerprint, address };
    let desk = desk::Desk::open(&folder, known, world_real::real_world().clock).await?;
    let (pairs, sites) = desk.counts();
    let told = WitnessReady { listen: doors.listen, socket: folder.socket(), fingerprint, pairs, sites };
    let desk = Rc::new(desk);
    let answering = doors.answer(&desk);
    ready(&told);
    stop.await;
    drop(answering);
    // Tasks that were stopped let go when it is their turn: nobody answers after this returns.
    while Rc::strong_count(&desk) > 1 {
        tokio::task::yield_now().await;
    }
    drop(desk);
    folder.close();
    Ok(())
}

//! Addresses: taking them before anything else happens, and telling them.

use std::io::ErrorKind;
use std::net::SocketAddr;

use control::tls::Fingerprint;
use control::{Problem, codes};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UdpSocket};

/// Where a store answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// NFS.
    pub nfs: SocketAddr,
    /// MOUNT, NLM and NSM.
    pub mount: SocketAddr,
    /// API.
    pub api: SocketAddr,
    /// What the certificate of the API is known by.
    #[serde(default)]
    pub fingerprint: Option<Fingerprint>,
}

/// Takes a TCP address for `what`.
pub(crate) async fn bind(address: SocketAddr, what: &str) -> Result<TcpListener, Problem> {
    TcpListener::bind(address).await.map_err(|error| taken(address, what, &error))
}

/// Takes a UDP address for `what`.
pub(crate) async fn bind_datagrams(address: SocketAddr, what: &str) -> Result<UdpSocket, Problem> {
    UdpSocket::bind(address).await.map_err(|error| taken(address, what, &error))
}

fn taken(address: SocketAddr, what: &str, error: &std::io::Error) -> Problem {
    let code = match error.kind() {
        ErrorKind::AddrInUse => &codes::PORT_IN_USE,
        ErrorKind::PermissionDenied => &codes::PORT_NOT_ALLOWED,
        _ => &codes::BAD_INPUT,
    };
    Problem::new(code, format!("{address} cannot be used for {what}")).why(error.to_string())
}

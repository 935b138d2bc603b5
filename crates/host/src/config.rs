//! What a host agent is made of and where it listens.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of a host agent.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Name of the host, for people.
    pub name: String,
    /// Its flash: a file or block device.
    pub flash: PathBuf,
    /// Format the flash if it is blank.
    pub format_blank: bool,
    /// Socket for VMs.
    pub nbd_socket: PathBuf,
    /// Address for VMs; loopback unless the network is the user's own.
    pub nbd: Option<SocketAddr>,
    /// Socket of the API.
    pub api_socket: PathBuf,
    /// Address of Prometheus metrics.
    pub metrics: Option<SocketAddr>,
}

/// Where a host agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReady {
    /// NBD for VMs of this host.
    pub nbd_socket: PathBuf,
    /// NBD by TCP.
    pub nbd: Option<SocketAddr>,
    /// API.
    pub api_socket: PathBuf,
}

//! Where to: `nfs://host[:port]/export[/path]` (or `host:/export[/path]`), and the
//! steps from there to a root handle: ports, MOUNT, the part of the path that is not
//! the export.

use std::io;
use std::net::SocketAddr;

use crate::connection::{Behaviour, Connection};
use crate::mount::{self, MountError};
use crate::nfs3::{FileHandle, NfsClient, NfsError};
use crate::rpc::{MOUNT3, NFS3, Program, RpcError};

const NFS_PORT: u16 = 2049;
const PORTMAPPER_PORT: u16 = 111;

/// The text is no NFS target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Neither `nfs://host[:port]/export` nor `host:/export`.
    #[error("expected nfs://host[:port]/export or host:/export, got \"{0}\"")]
    Form(String),
    /// A port that is not a number from 1 to 65535.
    #[error("\"{0}\" is not a port")]
    Port(String),
    /// A parameter behind `?` that is not `port`, `nfsport` or `mountport`.
    #[error("unknown parameter \"{0}\" (known: port, nfsport, mountport)")]
    Parameter(String),
}

/// An NFS server, an export of it, and a path below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// NFS port; asked of the port mapper if `None` (2049 if there is none).
    pub port: Option<u16>,
    /// MOUNT port; if `None`, the NFS port is tried, then the port mapper.
    pub mount_port: Option<u16>,
    /// Export and path below it, starting with `/`.
    pub path: String,
}

impl std::str::FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let form = || BadTarget::Form(text.into());
        let (address, path) = match text.strip_prefix("nfs://") {
            Some(rest) => rest.split_at(rest.find('/').ok_or_else(form)?),
            None => text.split_once(":/").map(|(host, _)| (host, &text[host.len() + 1..])).ok_or_else(form)?,
        };
        let (path, parameters) = path.split_once('?').unwrap_or((path, ""));
        let (host, port) = split_port(address).ok_or_else(form)?;
        let mut target =
            Target { host: host.into(), port: port.map(parse_port).transpose()?, mount_port: None, path: path.into() };
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("port" | "nfsport", value)) => target.port = Some(parse_port(value)?),
                Some(("mountport", value)) => target.mount_port = Some(parse_port(value)?),
                _ => return Err(BadTarget::Parameter(parameter.into())),
            }
        }
        Ok(target)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bracket = self.host.contains(':');
        write!(f, "nfs://{}{}{}", if bracket { "[" } else { "" }, self.host, if bracket { "]" } else { "" })?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.path)?;
        self.mount_port.map_or(Ok(()), |port| write!(f, "?mountport={port}"))
    }
}

fn split_port(address: &str) -> Option<(&str, Option<&str>)> {
    let (host, rest) = match address.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => address.split_at(address.find(':').unwrap_or(address.len())),
    };
    let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
    (!host.is_empty()).then_some((host, port))
}

fn parse_port(text: &str) -> Result<u16, BadTarget> {
    text.parse().ok().filter(|&port| port != 0).ok_or_else(|| BadTarget::Port(text.into()))
}

/// Why there is no way to the target.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Name does not resolve.
    #[error("cannot resolve \"{host}\": {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// Nothing listens there.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server has no MOUNT service at the NFS port or at the port mapper.
    #[error("no MOUNT service found at {0}; give its port with --mountport")]
    NoMountService(String),
    /// MOUNT refused.
    #[error("cannot mount {path}: {source}")]
    Mount {
        /// The path asked for.
        path: String,
        /// Why.
        source: MountError,
    },
    /// The path below the export.
    #[error("cannot reach {path}: {source}")]
    Path {
        /// The component that failed, with what is before it.
        path: String,
        /// Why.
        source: NfsError,
    },
}

impl ConnectError {
    /// Whether the server was not there, or went away: worth another try.
    pub fn is_absence(&self) -> bool {
        match self {
            ConnectError::Connect { .. } | ConnectError::NoMountService(_) => true,
            ConnectError::Mount { source, .. } => matches!(source, MountError::Rpc(_)),
            ConnectError::Resolve { .. } | ConnectError::Path { .. } => false,
        }
    }
}

/// A mounted export.
#[derive(Clone, Debug)]
pub struct Mounted {
    /// First connection.
    pub client: NfsClient,
    /// Handle of the export's root.
    pub root: FileHandle,
    /// Path of the export.
    pub export: String,
    /// Components of the target's path below the export.
    pub below: Vec<String>,
}

impl Mounted {
    /// One more connection to the same NFS service.
    pub async fn another_connection(&self, behaviour: &Behaviour) -> Result<NfsClient, ConnectError> {
        let address = self.client.connection().address();
        Ok(NfsClient::new(open(address, behaviour).await?))
    }

    /// Follows `components` from the root.
    pub async fn walk(&self, components: &[String]) -> Result<FileHandle, ConnectError> {
        let mut handle = self.root;
        let mut path = self.export.clone();
        for component in components {
            path = format!("{}/{component}", path.trim_end_matches('/'));
            let found = self.client.lookup(&handle, component.as_bytes()).await;
            handle = found.map_err(|source| ConnectError::Path { path: path.clone(), source })?.0;
        }
        Ok(handle)
    }
}

impl Target {
    /// Connects and mounts. Must run inside a `LocalSet`.
    pub async fn mount(&self, behaviour: &Behaviour) -> Result<Mounted, ConnectError> {
        let host = self.resolve().await?;
        let port = match self.port {
            Some(port) => port,
            None => ask_portmapper(host, NFS3, behaviour).await.unwrap_or(NFS_PORT),
        };
        let nfs = open(SocketAddr::new(host.ip(), port), behaviour).await?;
        let mountd = self.mount_service(host, port, behaviour).await?;
        let (export, root) = self.mount_longest(&mountd).await?;
        let below = self.path[export.len().min(self.path.len())..].split('/').filter(|part| !part.is_empty());
        Ok(Mounted { client: NfsClient::new(nfs), root, below: below.map(String::from).collect(), export })
    }

    /// The server's export list.
    pub async fn exports(&self, behaviour: &Behaviour) -> Result<Vec<mount::Export>, ConnectError> {
        let host = self.resolve().await?;
        let mountd = self.mount_service(host, self.port.unwrap_or(NFS_PORT), behaviour).await?;
        let failed = |source: RpcError| ConnectError::Mount { path: self.path.clone(), source: source.into() };
        mount::exports(&mountd).await.map_err(failed)
    }

    async fn resolve(&self) -> Result<SocketAddr, ConnectError> {
        let failed = |source| ConnectError::Resolve { host: self.host.clone(), source };
        let mut addresses = tokio::net::lookup_host((self.host.as_str(), 0)).await.map_err(failed)?;
        addresses.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
    }

    /// A connection that answers MOUNT NULL.
    async fn mount_service(
        &self,
        host: SocketAddr,
        nfs_port: u16,
        behaviour: &Behaviour,
    ) -> Result<Connection, ConnectError> {
        let behaviour = Behaviour { ride_out: false, ..behaviour.clone() };
        if let Some(port) = self.mount_port {
            return open(SocketAddr::new(host.ip(), port), &behaviour).await;
        }
        if let Ok(same) = open(SocketAddr::new(host.ip(), nfs_port), &behaviour).await
            && same.call(MOUNT3, 0, |_| {}).await.is_ok()
        {
            return Ok(same);
        }
        let port = ask_portmapper(host, MOUNT3, &behaviour)
            .await
            .ok_or_else(|| ConnectError::NoMountService(self.host.clone()))?;
        open(SocketAddr::new(host.ip(), port), &behaviour).await
    }

    /// Mounts the longest leading part of the path that is an export: first by the
    /// server's list, then by trying, whole path first.
    async fn mount_longest(&self, mountd: &Connection) -> Result<(String, FileHandle), ConnectError> {
        let listed = mount::exports(mountd).await.unwrap_or_default();
        let mut candidates: Vec<&str> =
            listed.iter().filter_map(|export| std::str::from_utf8(&export.path).ok()).collect();
        candidates.retain(|export| is_prefix(export, &self.path));
        candidates.sort_unstable_by_key(|export| std::cmp::Reverse(export.len()));
        let whole = if self.path.len() > 1 { self.path.trim_end_matches('/') } else { &self.path };
        let cuts = whole.match_indices('/').map(|(at, _)| if at == 0 { "/" } else { &whole[..at] });
        candidates.push(whole);
        candidates.extend(cuts.collect::<Vec<_>>().into_iter().rev());
        let mut first = None;
        for candidate in candidates {
            match mount::mount(mountd, candidate.as_bytes()).await {
                Ok(root) => return Ok((candidate.into(), root)),
                Err(source) => drop(first.get_or_insert(source)),
            }
        }
        let source = first.expect("the whole path was tried");
        Err(ConnectError::Mount { path: self.path.clone(), source })
    }
}

fn is_prefix(export: &str, path: &str) -> bool {
    let export = export.trim_end_matches('/');
    path.strip_prefix(export).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

async fn open(address: SocketAddr, behaviour: &Behaviour) -> Result<Connection, ConnectError> {
    Connection::open(address, behaviour.clone()).await.map_err(|source| ConnectError::Connect { address, source })
}

async fn ask_portmapper(host: SocketAddr, program: Program, behaviour: &Behaviour) -> Option<u16> {
    let behaviour = Behaviour { ride_out: false, ..behaviour.clone() };
    let portmapper = open(SocketAddr::new(host.ip(), PORTMAPPER_PORT), &behaviour).await.ok()?;
    mount::port_of(&portmapper, program).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_parse() {
        let target: Target = "nfs://10.20.100.5/tintri".parse().unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("10.20.100.5", None, "/tintri"));
        let target: Target = "nfs://[::1]:20049/a/b?mountport=20048".parse().unwrap();
        assert_eq!((target.host.as_str(), target.port, target.mount_port), ("::1", Some(20049), Some(20048)));
        assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        let target: Target = "127.0.0.50:/demo/vm9/".parse().unwrap();
        assert_eq!((target.host.as_str(), target.path.as_str()), ("127.0.0.50", "/demo/vm9/"));
        assert_eq!("nfs://h".parse::<Target>(), Err(BadTarget::Form("nfs://h".into())));
        assert_eq!("nfs://h:0/x".parse::<Target>(), Err(BadTarget::Port("0".into())));
        assert!(matches!("nfs://h/x?y=1".parse::<Target>(), Err(BadTarget::Parameter(_))));
    }

    #[test]
    fn exports_are_prefixes_by_component() {
        assert!(is_prefix("/demo", "/demo/vm9"));
        assert!(is_prefix("/", "/demo"));
        assert!(!is_prefix("/dem", "/demo"));
    }
}

//! NBD for VMs: a socket file for this host's, and an address where one is asked for.
//!
//! The socket is 0600: whoever may open it may write to the disks. By TCP there is no login
//! and no encryption in this version, so it is for loopback.

mod connection;

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use control::{Problem, codes};
use nbd::{Export, Exports};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::agent::Agent;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 256;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Requests at work get this long to be answered when the agent stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// The doors, open.
pub(crate) struct Doors {
    /// The address taken.
    pub tcp: Option<SocketAddr>,
    shared: Rc<Shared>,
}

/// What connections share.
pub(crate) struct Shared {
    pub agent: Rc<Agent>,
    open: Cell<usize>,
    stop: watch::Sender<bool>,
}

impl Exports for Shared {
    fn find(&self, name: &str) -> Option<Export> {
        let disks = self.agent.disks();
        let (name, disk) = match name {
            "" if disks.len() == 1 => disks.into_iter().next()?,
            name => disks.into_iter().find(|(known, _)| known == name)?,
        };
        if self.agent.find(&name).ok()?.leaving.get() {
            return None;
        }
        let least = u32::try_from(disk.align_bytes()).ok()?;
        Some(Export {
            name,
            size_bytes: disk.capacity_bytes(),
            read_only: false,
            block_bytes_min: least,
            block_bytes_preferred: least.max(4096),
        })
    }

    fn names(&self) -> Vec<String> {
        self.agent.disks().into_iter().map(|(name, _)| name).collect()
    }
}

/// Takes the socket at `path`. One that a dead process left is taken over; one that answers
/// is not.
pub(crate) fn bind_socket(path: &Path, what: &str) -> Result<UnixListener, Problem> {
    let refused = |why: String| {
        Problem::new(&codes::PATH_UNUSABLE, format!("{} cannot be used for {what}", path.display())).why(why)
    };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(refused("another process answers there".into()));
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()))
    {
        std::fs::remove_file(path).map_err(|error| refused(error.to_string()))?;
    }
    // Made under another name and renamed when its rights are right: nobody gets in between.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new).map_err(|error| refused(error.to_string()))?;
    let private = std::fs::Permissions::from_mode(0o600);
    let placed = std::fs::set_permissions(&new, private).and_then(|()| std::fs::rename(&new, path));
    placed.map_err(|error| refused(error.to_string()))?;
    Ok(listener)
}

/// Opens the doors that the configuration names.
pub(crate) async fn open(agent: &Rc<Agent>) -> Result<Doors, Problem> {
    let shared = Rc::new(Shared { agent: agent.clone(), open: Cell::new(0), stop: watch::channel(false).0 });
    let socket = bind_socket(&agent.config.nbd_socket, "NBD")?;
    let tcp = match agent.config.nbd {
        None => None,
        Some(address) => Some(TcpListener::bind(address).await.map_err(|error| {
            Problem::new(&codes::PORT_IN_USE, format!("{address} cannot be used for NBD")).why(error.to_string())
        })?),
    };
    let address = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
    let from_socket = shared.clone();
    tokio::task::spawn_local(async move {
        loop {
            match until_stop(&from_socket, socket.accept()).await {
                None => return,
                Some(Ok((stream, _))) => from_socket.admit(stream),
                Some(Err(_)) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    });
    if let Some(listener) = tcp {
        let from_tcp = shared.clone();
        tokio::task::spawn_local(async move {
            loop {
                match until_stop(&from_tcp, listener.accept()).await {
                    None => return,
                    Some(Ok((stream, _))) => {
                        // Without it replies are only slower.
                        let _ = stream.set_nodelay(true);
                        from_tcp.admit(stream);
                    }
                    Some(Err(_)) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
        });
    }
    Ok(Doors { tcp: address, shared })
}

async fn until_stop<T>(shared: &Shared, work: impl Future<Output = T>) -> Option<T> {
    let mut stop = shared.stop.subscribe();
    tokio::select! {
        biased;
        _ = stop.wait_for(|&stop| stop) => None,
        done = work => Some(done),
    }
}

impl Shared {
    fn admit(self: &Rc<Self>, stream: impl AsyncRead + AsyncWrite + 'static) {
        if self.open.get() >= CONNECTIONS_MAX {
            return tracing::warn!("too many NBD connections");
        }
        self.open.set(self.open.get() + 1);
        let shared = self.clone();
        tokio::task::spawn_local(async move {
            if let Err(ended) = connection::serve(&shared, stream, shared.stop.subscribe()).await {
                tracing::debug!(%ended, "an NBD connection ended");
            }
            shared.open.set(shared.open.get() - 1);
        });
    }
}

impl Doors {
    /// No new connections; requests at work are answered, if that takes no longer than a few
    /// seconds; sockets are closed.
    pub async fn stop(&self) {
        self.shared.stop.send_replace(true);
        let _ = std::fs::remove_file(&self.shared.agent.config.nbd_socket);
        let over = async {
            while self.shared.open.get() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(STOP_WITHIN, over).await.is_err() {
            tracing::warn!("some NBD requests were not answered; clients ask again when they are connected anew");
        }
    }
}

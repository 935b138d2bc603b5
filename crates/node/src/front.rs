//! What answers clients: a filesystem over the store, its NFS service, and the doors.
//!
//! A store alone has one front from start to stop. A site of a pair has one while it is primary: it
//! is opened when the site may serve, and cut off the moment the site may not any more. Cutting off
//! tells clients nothing: their connections end, they connect again and find whoever serves now, with
//! the same handles, locks and answers, since all of these are in the store.
//!
//! The whole write path at one glance: a connection's task reads a record from its socket
//! (`nfs_door`), the service decodes it in place (`nfs`), the filesystem checks rights and
//! ranges (`datastore`), the engine appends to the journal and waits (`engine`,
//! `journal`); when the batch is on every leg the record is applied and the reply goes
//! out with all others that became ready in the same turn.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use base::port::World;
use control::{Problem, codes};
use datastore::{Filesystem, Identity, OpenRefusal};
use engine::store::StoreRefusal;
use nfs::{Mapping, Portmap, Service, Transport, mount, nlm, nsm, v3};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::AbortHandle;

use crate::config::StoreConfig;
use crate::nfs_door::{Door, answer_datagrams, call_clients, register, unregister};
use crate::ready::{bind, bind_datagrams};
use crate::site_store::SiteStore;

const PORTMAP_PORT: u16 = 111;
/// Connections get this long to take their last replies.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// The addresses that clients connect to, taken.
pub(crate) struct Addresses {
    nfs: TcpListener,
    mount: Option<TcpListener>,
}

impl Addresses {
    /// Takes what the configuration names.
    pub async fn take(config: &StoreConfig) -> Result<Addresses, Problem> {
        let nfs = bind(config.nfs, "NFS").await?;
        let mount = match config.mount {
            Some(address) => Some(bind(address, "MOUNT").await?),
            None => None,
        };
        Ok(Addresses { nfs, mount })
    }

    /// Where NFS and MOUNT are answered.
    pub fn at(&self, config: &StoreConfig) -> (SocketAddr, SocketAddr) {
        let address = |listener: &TcpListener, wanted| listener.local_addr().unwrap_or(wanted);
        let nfs_at = address(&self.nfs, config.nfs);
        (nfs_at, self.mount.as_ref().map_or(nfs_at, |listener| address(listener, nfs_at)))
    }
}

/// See the module's head.
pub(crate) struct Front {
    pub fs: Rc<Filesystem<SiteStore>>,
    pub service: Rc<Service<SiteStore>>,
    pub door: Rc<Door>,
    mappings: Vec<Mapping>,
    rpcbind: bool,
    /// End with it.
    tasks: RefCell<Vec<AbortHandle>>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.tasks.borrow().iter().for_each(AbortHandle::abort);
    }
}

impl Front {
    /// Opens filesystem and service of `store`. Nobody is answered before [`Front::listen`].
    pub async fn open(
        store: SiteStore,
        (world, identity): (World, Identity),
        config: &StoreConfig,
        at: (SocketAddr, SocketAddr),
    ) -> Result<Rc<Front>, Problem> {
        let cannot = |why: String| {
            Problem::new(&codes::POOL_FAULTED, format!("pool \"{}\" cannot be served", config.pool)).why(why)
        };
        let fs = Filesystem::open(Rc::new(store), world.clone(), identity).await;
        let fs = fs.map_err(|refused| match refused {
            OpenRefusal::Store(StoreRefusal::Unreadable { .. }) => {
                Problem::new(&codes::METADATA_DAMAGED, format!("pool \"{}\" cannot be served", config.pool))
                    .why(refused.to_string())
            }
            _ => cannot(refused.to_string()),
        })?;
        let mappings = mappings(at.0.port(), at.1.port(), config.portmap);
        let service = Service::open(fs.clone(), world, Portmap { mappings: mappings.clone() }).await;
        let service = service.map_err(|refused| cannot(format!("{refused:?}")))?;
        let (door, rpcbind, tasks) = (Door::new(), config.rpcbind, RefCell::default());
        Ok(Rc::new(Front { fs, service, door, mappings, rpcbind, tasks }))
    }

    /// Answers at the addresses.
    pub async fn listen(&self, config: &StoreConfig, addresses: Addresses) -> Result<(), Problem> {
        let (nfs_at, mount_at) = addresses.at(config);
        for listener in [Some(addresses.nfs), addresses.mount].into_iter().flatten() {
            self.go_on(self.door.clone().listen(self.service.clone(), listener));
        }
        if config.portmap || config.rpcbind {
            // Clients announce their restarts (NSM) by UDP, to where a portmapper sends them.
            let datagrams = bind_datagrams(mount_at, "NSM").await?;
            self.go_on(answer_datagrams(self.service.clone(), datagrams));
        }
        if config.portmap {
            let address = (nfs_at.ip(), PORTMAP_PORT).into();
            let streams = bind(address, "the portmapper").await?;
            let datagrams: UdpSocket = bind_datagrams(address, "the portmapper").await?;
            self.go_on(self.door.clone().listen(self.service.clone(), streams));
            self.go_on(answer_datagrams(self.service.clone(), datagrams));
        }
        if self.rpcbind && !register(&self.mappings).await {
            tracing::warn!(code = "VH2042", "no rpcbind answers on this machine; clients need port= and mountport=");
        }
        self.go_on(call_clients(self.service.clone()));
        Ok(())
    }

    fn go_on(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().push(tokio::task::spawn_local(task).abort_handle());
    }

    /// Answers what is under way, then closes.
    pub async fn stop(&self) {
        if self.rpcbind {
            unregister(&self.mappings).await;
        }
        self.fs.let_all_go();
        if tokio::time::timeout(STOP_WITHIN, self.door.stop()).await.is_err() {
            tracing::warn!("some clients did not take their last replies; they will ask again");
        }
    }

    /// Ends every connection and says nothing more on any, from this moment on.
    pub fn cut_off(&self) {
        self.door.cut();
        self.tasks.borrow_mut().drain(..).for_each(|task| task.abort());
    }
}

fn mappings(nfs: u16, mounts: u16, portmap: bool) -> Vec<Mapping> {
    let programs = [
        (v3::PROGRAM, 3, nfs),
        (mount::PROGRAM, 3, mounts),
        (mount::PROGRAM, 1, mounts),
        (nlm::PROGRAM, 4, mounts),
        (nsm::PROGRAM, 1, mounts),
    ];
    let mapping = |(program, version, port)| Mapping { program, version, port, transport: Transport::Tcp };
    let mut all: Vec<Mapping> = programs.into_iter().map(mapping).collect();
    all.push(Mapping { transport: Transport::Udp, ..mapping((nsm::PROGRAM, 1, mounts)) });
    if portmap {
        all.push(mapping((100_000, 2, PORTMAP_PORT)));
    }
    all
}

//! A store at work: engine, filesystem and NFS service on one thread.
//!
//! The whole write path at one glance: a connection's task reads a record from its socket
//! (`nfs_door`), the service decodes it in place (`nfs`), the filesystem checks rights and
//! ranges (`datastore`), the engine appends to the journal and waits (`engine`,
//! `journal`); when the batch is on every leg the record is applied and the reply goes
//! out with all others that became ready in the same turn.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use control::Problem;
use control::server::Books;
use datastore::Filesystem;
use engine::{Engine, Opened};
use nfs::{Mapping, Portmap, Service, Transport, mount, nlm, nsm, v3};
use tokio::net::{TcpListener, UdpSocket};

use crate::config::StoreConfig;
use crate::events::log_until_stopped;
use crate::nfs_door::{Door, answer_datagrams, call_clients, register, unregister};
use crate::pool::{self, Media};
use crate::progress::Progress;
use crate::ready::{Ready, bind, bind_datagrams};
use crate::sample::Sample;
use crate::schedules::keep_schedules;

const PORTMAP_PORT: u16 = 111;
/// Connections get this long to take their last replies.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Why a shard cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A part of it panicked.
    Defect,
    /// Its media let it down: too many drives or every journal leg.
    Stopped(&'static str),
}

/// Everything that answers.
pub(crate) struct Shard {
    pub config: StoreConfig,
    pub books: Books,
    pub engine: Engine,
    pub opened: Opened,
    pub fs: Rc<Filesystem<Engine>>,
    pub service: Rc<Service<Engine>>,
    pub door: Rc<Door>,
    pub ready: Ready,
    pub started: Instant,
    /// Newest and the one before, a second apart.
    pub samples: RefCell<(Sample, Sample)>,
    /// Opens journal legs that come back.
    pub legs: pool::LegOpener,
    /// When `fsck` last began and ended to read every unit, as wall time in nanoseconds.
    pub last_fsck_ns: Cell<Option<(u64, u64)>>,
    /// Drives, spares, journal legs.
    pub media: Rc<Media>,
    /// Rebuild and scrub, as jobs.
    pub progress: Progress,
    mappings: Vec<Mapping>,
}

impl Shard {
    /// Opens the store and starts to serve NFS.
    pub async fn start(config: StoreConfig, books: Books) -> Result<Rc<Shard>, Problem> {
        let world = world_real::real_world();
        let nfs = bind(config.nfs, "NFS").await?;
        let mounts = match config.mount {
            Some(address) => Some(bind(address, "MOUNT").await?),
            None => None,
        };
        let (engine, opened, identity, media) = pool::open(&config, &world).await?;
        let cannot = |why: String| {
            Problem::new(&control::codes::POOL_FAULTED, format!("pool \"{}\" cannot be served", config.pool)).why(why)
        };
        let fs = Filesystem::open(Rc::new(engine.clone()), world.clone(), identity).await;
        let fs = fs.map_err(|refused| match refused {
            datastore::OpenRefusal::Store(engine::store::StoreRefusal::Unreadable { .. }) => {
                Problem::new(&control::codes::METADATA_DAMAGED, format!("pool \"{}\" cannot be served", config.pool))
                    .why(refused.to_string())
            }
            _ => cannot(refused.to_string()),
        })?;
        let address = |listener: &TcpListener, wanted| listener.local_addr().unwrap_or(wanted);
        let nfs_at = address(&nfs, config.nfs);
        let mount_at = mounts.as_ref().map_or(nfs_at, |listener| address(listener, nfs_at));
        let mappings = mappings(nfs_at.port(), mount_at.port(), config.portmap);
        let service = Service::open(fs.clone(), world, Portmap { mappings: mappings.clone() }).await;
        let service = service.map_err(|refused| cannot(format!("{refused:?}")))?;
        let ready = Ready { nfs: nfs_at, mount: mount_at, api: config.api, fingerprint: None };
        let legs = media.leg_opener();
        let media = Rc::new(media);
        tokio::task::spawn_local(media.clone().watch(engine.clone()));
        let shard = Rc::new(Shard {
            config,
            books,
            engine,
            opened,
            fs,
            service,
            door: Door::new(),
            ready,
            started: Instant::now(),
            samples: RefCell::default(),
            legs,
            last_fsck_ns: Cell::new(None),
            media,
            progress: Progress::default(),
            mappings,
        });
        shard.open_doors(nfs, mounts).await?;
        Ok(shard)
    }

    async fn open_doors(self: &Rc<Self>, nfs: TcpListener, mounts: Option<TcpListener>) -> Result<(), Problem> {
        for listener in [Some(nfs), mounts].into_iter().flatten() {
            tokio::task::spawn_local(self.door.clone().listen(self.service.clone(), listener));
        }
        if self.config.portmap || self.config.rpcbind {
            // Clients announce their restarts (NSM) by UDP, to where a portmapper sends them.
            let datagrams = bind_datagrams(self.ready.mount, "NSM").await?;
            tokio::task::spawn_local(answer_datagrams(self.service.clone(), datagrams));
        }
        if self.config.portmap {
            let address = (self.config.nfs.ip(), PORTMAP_PORT).into();
            let streams = bind(address, "the portmapper").await?;
            let datagrams: UdpSocket = bind_datagrams(address, "the portmapper").await?;
            tokio::task::spawn_local(self.door.clone().listen(self.service.clone(), streams));
            tokio::task::spawn_local(answer_datagrams(self.service.clone(), datagrams));
        }
        if self.config.rpcbind && !register(&self.mappings).await {
            tracing::warn!(code = "VH2042", "no rpcbind answers on this machine; clients need port= and mountport=");
        }
        tokio::task::spawn_local(call_clients(self.service.clone()));
        tokio::task::spawn_local(sample_for_ever(self.clone()));
        tokio::task::spawn_local(keep_schedules(self.clone()));
        Ok(())
    }

    /// Returns when the store must not go on: a panic outside a decoder, or an engine that
    /// has stopped and must be opened again.
    pub async fn until_ended(self: &Rc<Self>) -> Ended {
        tokio::select! {
            biased;
            () = self.door.until_defect() => Ended::Defect,
            why = log_until_stopped(self.clone()) => Ended::Stopped(why),
        }
    }

    /// Stops serving, then makes everything durable outside the journal.
    pub async fn stop(&self) -> Result<(), Problem> {
        if self.config.rpcbind {
            unregister(&self.mappings).await;
        }
        if tokio::time::timeout(STOP_WITHIN, self.door.stop()).await.is_err() {
            tracing::warn!("some clients did not take their last replies; they will ask again");
        }
        self.engine.checkpoint().await.map_err(|refused| {
            // Nothing is lost: the journal holds what the checkpoint would have moved.
            Problem::new(&control::codes::POOL_FAULTED, "the last checkpoint could not be made")
                .why(refused.to_string())
                .note("every acknowledged write is in the journal and is replayed at the next start")
        })
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

async fn sample_for_ever(shard: Rc<Shard>) {
    loop {
        let sample = Sample::of(&shard);
        shard.samples.replace_with(|(newest, _)| (sample, std::mem::take(newest)));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

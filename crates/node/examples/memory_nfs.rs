//! An NFS server whose content lives in memory and is gone when it ends: for trying
//! clients. All programs answer on one port.
//!
//! `cargo run -p node --example memory_nfs -- [ADDRESS:PORT] [DATASTORE]`
//! (default `127.0.0.1:20490` and `tank`), then for instance
//! `nfs-ls 'nfs://127.0.0.1/tank?nfsport=20490&mountport=20490'`.

use std::net::SocketAddr;
use std::rc::Rc;

use datastore::{DatastoreOptions, Filesystem, Identity};
use engine::memory::MemoryStore;
use nfs::{Mapping, Portmap, Service, Transport, mount, nlm, nsm, v3};
use node::nfs_door::{Door, call_clients};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let address: SocketAddr = words.next().unwrap_or("127.0.0.1:20490".into()).parse()?;
    let datastore = words.next().unwrap_or("tank".into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(address, &datastore))
}

async fn serve(address: SocketAddr, datastore: &str) -> Result<(), Failure> {
    let world = world_real::real_world();
    let store = Rc::new(MemoryStore::default());
    let identity = Identity { pool: 1, handle_key: [7; 16] };
    Filesystem::format(&*store, &world, &identity, DatastoreOptions::open()).await?;
    let fs = Filesystem::open(store, world.clone(), identity).await?;
    fs.create_datastore(datastore, DatastoreOptions::open()).await?;
    let service = Service::open(fs, world, portmap(address.port())).await?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("nfs://{}/{datastore}?nfsport={port}&mountport={port}", address.ip(), port = address.port());
    tokio::task::spawn_local(call_clients(service.clone()));
    Door::new().listen(service, listener).await;
    Ok(())
}

fn portmap(port: u16) -> Portmap {
    let programs = [(v3::PROGRAM, 3), (mount::PROGRAM, 3), (nlm::PROGRAM, 4), (nsm::PROGRAM, 1)];
    let mapping = |(program, version)| Mapping { program, version, port, transport: Transport::Tcp };
    Portmap { mappings: programs.map(mapping).to_vec() }
}

//! Making a demo: ports, folder, drive files, journal, pool, datastore.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use control::{Problem, codes};
use node::StoreConfig;

use crate::cli::Global;
use crate::load_command::DEMO_DATASTORE;
use crate::place::{Place, unusable, write_json};
use crate::quickstart::StartArgs;
use crate::quickstart::manifest::{MEMORY_PREFIX, MEMORY_ROOT, Manifest, Shape};
use crate::quickstart::remove;
use crate::quickstart::server::Server;

/// Name of the demo's pool.
pub const POOL: &str = "flash0";

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NFS_PORT: u16 = 20049;
const API_PORT: u16 = 8080;
/// Another demo may take a port between our look and our server's bind.
const PORT_TRIES: usize = 10;

/// Makes everything on media, or nothing.
pub fn make(args: &StartArgs, place: &Place, global: &Global) -> Result<Manifest, Problem> {
    check_folder(place, &global.dir)?;
    let (nfs, api) = ports(args.ports_from, global)?;
    let (drives, spares) = (args.drives, args.spares);
    let shape = Shape { drives, spares, drive_bytes: args.size, journal_bytes: args.journal_size };
    let memory_folder = args.memory.then(memory_folder).transpose()?;
    let manifest = Manifest::new(shape, memory_folder);
    std::fs::create_dir_all(place.dir()).map_err(|error| unusable(place.dir(), &error))?;
    write_json(&place.manifest(), &manifest)?;
    fill(&manifest, place, (nfs, api), args.return_wait.as_secs()).inspect_err(|_| {
        // The first problem is the one to report.
        let _ = remove::remove(&manifest, place);
    })?;
    Ok(manifest)
}

fn fill(
    manifest: &Manifest,
    place: &Place,
    at: (SocketAddr, SocketAddr),
    return_wait_seconds: u64,
) -> Result<(), Problem> {
    let config = media(manifest, place, at, return_wait_seconds)?;
    node::create(&config, Some(DEMO_DATASTORE))?;
    relative(manifest, config).save(&place.config())
}

/// Makes the files, and says what is served of them.
pub fn media(
    manifest: &Manifest,
    place: &Place,
    at: (SocketAddr, SocketAddr),
    return_wait_seconds: u64,
) -> Result<StoreConfig, Problem> {
    for folder in manifest.folders.iter().rev() {
        let folder = place.dir().join(folder);
        std::fs::create_dir_all(&folder).map_err(|error| unusable(&folder, &error))?;
    }
    let Shape { drives, drive_bytes, journal_bytes, .. } = manifest.shape;
    let (paths, spares, journal) = (manifest.drives(place), manifest.spares(place), manifest.journal(place));
    for path in paths.iter().chain(&spares) {
        node::create_sparse_file(path, drive_bytes).map_err(|error| unusable(path, &error))?;
    }
    node::create_zeroed_file(&journal, journal_bytes).map_err(|error| unusable(&journal, &error))?;
    let (data, _) = manifest.shape.geometry();
    Ok(StoreConfig {
        site: "demo".into(),
        pool: POOL.into(),
        lab: true,
        drives: paths,
        spares,
        return_wait_seconds: Some(return_wait_seconds),
        file: None,
        journal: vec![journal],
        unit_bytes: None,
        stripe_data: (drives >= 3).then_some(data),
        cache_bytes: None,
        nfs: at.0,
        mount: None,
        portmap: false,
        rpcbind: false,
        api: at.1,
        io: None,
        pair: None,
        state: node::DEFAULT_STATE.into(),
    })
}

/// The same with paths relative to the folder, as it is written there.
pub fn relative(manifest: &Manifest, config: StoreConfig) -> StoreConfig {
    let (members, rest) = manifest.files.split_at(usize::from(manifest.shape.drives));
    let (spares, rest) = rest.split_at(usize::from(manifest.shape.spares));
    StoreConfig { drives: members.to_vec(), spares: spares.to_vec(), journal: vec![rest[0].clone()], ..config }
}

/// Starts the server of a demo that was just made; takes other ports if others were faster.
pub fn first_start(place: &Place, global: &Global) -> Result<Server, Problem> {
    for _ in 1..PORT_TRIES {
        match Server::start(place, global) {
            Err(problem) if problem.code() == &codes::PORT_IN_USE => {
                let mut config = StoreConfig::load(&place.config())?;
                config.nfs = next_free(HERE, config.nfs.port(), &[])?;
                config.api = next_free(HERE, config.api.port(), &[config.nfs])?;
                config.save(&place.config())?;
            }
            outcome => return outcome,
        }
    }
    Server::start(place, global)
}

/// A demo only starts where removing it later can touch nothing else.
pub fn check_folder(place: &Place, shown: &Path) -> Result<(), Problem> {
    let shown = shown.display();
    if place.manifest().exists() {
        if let Some(announced) = place.announced() {
            return Err(Problem::new(&codes::DEMO_RUNNING, format!("the demo in {shown} is already running"))
                .why(format!("process {} serves it", announced.process.pid))
                .step(format!("vmhold status --dir {shown}"))
                .step(format!("vmhold quickstart destroy --dir {shown}")));
        }
        return Err(Problem::new(&codes::FOLDER_NOT_EMPTY, format!("there is a demo in {shown} already"))
            .why("it is stopped, and its data is still there")
            .step(format!("vmhold quickstart resume --dir {shown}"))
            .step(format!("vmhold quickstart destroy --dir {shown}")));
    }
    match std::fs::read_dir(place.dir()) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => {
                Err(Problem::new(&codes::FOLDER_NOT_EMPTY, format!("{shown} holds files that are not of a demo")))
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unusable(place.dir(), &error)),
    }
}

/// Addresses for NFS and the API, seen free before anything is made.
fn ports(from: Option<u16>, global: &Global) -> Result<(SocketAddr, SocketAddr), Problem> {
    let (nfs, api) = match from {
        None => (NFS_PORT, API_PORT),
        Some(0) => (0, 0),
        Some(from) => (from, from.saturating_add(1)),
    };
    if let Some(address) = global.api.filter(|address| !address.ip().is_loopback()) {
        return Err(Problem::new(&codes::INSECURE_BIND, format!("a demo must not listen on {address}")));
    }
    let nfs = next_free(HERE, nfs, &[])?;
    let api = match global.api {
        Some(address) => address,
        None => next_free(HERE, api, &[nfs])?,
    };
    Ok((nfs, api))
}

/// The next free port at `ip`, none of those taken.
pub fn next_free(ip: IpAddr, from: u16, taken: &[SocketAddr]) -> Result<SocketAddr, Problem> {
    let last = if from == 0 { 0 } else { u16::MAX };
    for port in from..=last {
        if port != 0 && taken.iter().any(|taken| taken.port() == port) {
            continue;
        }
        if let Ok(address) = TcpListener::bind((ip, port)).and_then(|free| free.local_addr()) {
            return Ok(address);
        }
    }
    Err(Problem::new(&codes::PORT_IN_USE, format!("no free port from {from} upwards")))
}

/// A folder in memory that nobody has.
pub fn memory_folder() -> Result<PathBuf, Problem> {
    let number = getrandom::u64().map_err(|error| {
        Problem::new(&codes::PATH_UNUSABLE, "the system gives no random numbers").why(error.to_string())
    })?;
    Ok(Path::new(MEMORY_ROOT).join(format!("{MEMORY_PREFIX}{number:016x}")))
}

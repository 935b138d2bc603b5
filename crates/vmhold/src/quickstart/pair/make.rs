//! Making a demo of two sites, and removing what is not a store's.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use control::{Problem, codes};
use jiff::Timestamp;
use node::{Founding, Introduction, PairConfig, StoreConfig};
use tokio::runtime::Builder;
use witness_serve::Question;
use witness_serve::client::WitnessClient;
use witness_serve::membership::Membership;
use witness_serve::status::InvitationMade;
use witness_serve::token::Token;

use super::{PairDemo, PairManifest, Running, SITES};
use crate::cli::Global;
use crate::load_command::DEMO_DATASTORE;
use crate::place::{Place, unusable, write_json};
use crate::quickstart::make::{self as store, next_free};
use crate::quickstart::manifest::{Manifest, Shape};
use crate::quickstart::server::Server;
use crate::quickstart::{StartArgs, remove};

/// The address that moves: any loopback address can be bound without being set up.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 50));
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NFS_PORT: u16 = 20049;
const API_PORT: u16 = 8080;
/// Another process may take a port between our look and our bind.
const PORT_TRIES: usize = 5;
const WITHIN: Duration = Duration::from_secs(10);

/// Addresses of a demo.
struct Ports {
    nfs: SocketAddr,
    api: [SocketAddr; 2],
    link: [SocketAddr; 2],
    witness: SocketAddr,
}

impl Ports {
    /// Free ones, seen before anything is made. With `--ports-from` all of them from there on.
    fn free(from: Option<u16>, api: Option<SocketAddr>) -> Result<Self, Problem> {
        if let Some(address) = api.filter(|address| !address.ip().is_loopback()) {
            return Err(Problem::new(&codes::INSECURE_BIND, format!("a demo must not listen on {address}")));
        }
        let nfs = next_free(ADDRESS, from.unwrap_or(NFS_PORT), &[])?;
        let mut taken = Vec::from_iter(api);
        let mut next = |from: u16| -> Result<SocketAddr, Problem> {
            let free = next_free(HERE, from, &taken)?;
            taken.push(free);
            Ok(free)
        };
        let first = from.map_or(API_PORT, |from| if from == 0 { 0 } else { from.saturating_add(1) });
        let apis = [api.map_or_else(|| next(first), Ok)?, next(first)?];
        Ok(Self { nfs, api: apis, link: [next(first)?, next(first)?], witness: next(first)? })
    }
}

/// Makes everything and starts it; with other ports if others were faster to take them.
pub fn make_anywhere(args: &StartArgs, global: &Global) -> Result<(PairDemo, Running), Problem> {
    for _ in 1..PORT_TRIES {
        match make(args, global) {
            Err(problem) if problem.code() == &codes::PORT_IN_USE => {}
            outcome => return outcome,
        }
    }
    make(args, global)
}

/// Makes everything and starts it, or leaves nothing.
fn make(args: &StartArgs, global: &Global) -> Result<(PairDemo, Running), Problem> {
    let ports = Ports::free(args.ports_from, global.api)?;
    let place = Place::of(&global.dir);
    let manifest = PairManifest {
        schema: "vmhold.pair/v1".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        created_at: Timestamp::now(),
        nfs: ports.nfs,
        witness: ports.witness,
    };
    let witness = place.dir().join("witness");
    std::fs::create_dir_all(&witness).map_err(|error| unusable(&witness, &error))?;
    write_json(&place.dir().join("pair.json"), &manifest)?;
    let demo = PairDemo { place, manifest, shown: global.dir.clone() };
    let running = fill(&demo, args, &ports, global).inspect_err(|_| {
        // The first problem is the one to report.
        let _ = demo.remove(global);
    })?;
    Ok((demo, running))
}

fn fill(demo: &PairDemo, args: &StartArgs, ports: &Ports, global: &Global) -> Result<Running, Problem> {
    let witness = Server::of_witness(&demo.witness(), ports.witness, global)?;
    enrol(demo, SITES[0])?;
    let second = enrol(demo, SITES[1])?;
    let introduction =
        Introduction { site: second.site()?, fingerprint: second.fingerprint()?, address: ports.link[1].to_string() };
    let own = ports.link[0].to_string();
    let [first_place, second_place] = SITES.map(|site| demo.site(site));
    let (founding, invitation) =
        node::found(first_place.dir(), introduction, (ports.link[0], &own), Some(DEMO_DATASTORE))?;
    pool(demo, (0, ports), args, &founding)?;
    let founding = node::join(second_place.dir(), &invitation, ports.link[1], Some(DEMO_DATASTORE))?;
    pool(demo, (1, ports), args, &founding)?;
    let mut sites = Vec::new();
    for site in SITES {
        sites.push(Server::start(&demo.site(site), &demo.global(site, global))?);
    }
    Ok(Running { witness: Some(witness), sites })
}

/// Makes a site known at the witness.
fn enrol(demo: &PairDemo, site: &str) -> Result<Membership, Problem> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| unusable(demo.place.dir(), &error))?;
    runtime.block_on(async {
        let mut witness = WitnessClient::local(demo.witness().dir(), WITHIN);
        let made: InvitationMade = witness.document(&Question::Invite { name: site.to_owned() }).await?;
        let token: Token = made.token.parse()?;
        Membership::join(demo.site(site).dir(), &token, WITHIN).await
    })
}

fn pool(demo: &PairDemo, (at, ports): (usize, &Ports), args: &StartArgs, founding: &Founding) -> Result<(), Problem> {
    let place = demo.site(SITES[at]);
    let (drives, spares) = (args.drives, args.spares);
    let shape = Shape { drives, spares, drive_bytes: args.size, journal_bytes: args.journal_size };
    let memory_folder = args.memory.then(store::memory_folder).transpose()?;
    let manifest = Manifest::new(shape, memory_folder);
    write_json(&place.manifest(), &manifest)?;
    let config = StoreConfig {
        site: SITES[at].into(),
        pair: Some(PairConfig { membership: ".".into(), ..founding.config.clone() }),
        ..store::media(&manifest, &place, (ports.nfs, ports.api[at]), args.return_wait.as_secs())?
    };
    node::create_paired(&config, founding)?;
    store::relative(&manifest, config).save(&place.config())
}

/// The witness's folder, which has no manifest since all in it is the witness's, and what lies beside.
pub fn remove_rest(demo: &PairDemo) -> Result<usize, Problem> {
    let mut removed = 0;
    let witness = demo.witness();
    match std::fs::remove_dir_all(witness.dir()) {
        Ok(()) => removed += 1,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(witness.dir(), &error)),
    }
    removed += remove::files(&[demo.place.acknowledged(), demo.place.dir().join("pair.json")])?;
    remove::empty_folders(&[demo.place.dir().to_owned()])?;
    Ok(removed)
}

//! A demo of two sites and a witness: three processes, each with a folder of its own, and one address
//! on which whichever site is primary answers.
//!
//! ```text
//!  DIR/pair.json          what the demo is
//!  DIR/site-a, site-b     a store each, with a manifest like that of a demo of one
//!  DIR/witness            the third place
//!  DIR/acknowledged.log   acknowledged writes of the sample, wherever they were answered
//! ```

mod hurt;
mod make;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use control::client::Call;
use control::demo::{DemoNfs, DemoSite, Quickstart};
use control::replication::{Replication, ReplicationAction, ReplicationList, ReplicationOrder, Role};
use control::{Document, Envelope, Exit, Problem, codes};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;

use crate::appliance;
use crate::cli::Global;
use crate::load_command::DEMO_DATASTORE;
use crate::people_command;
use crate::place::{Announcement, Place, read_json, unusable};
use crate::quickstart::manifest::Manifest;
use crate::quickstart::server::Server;
use crate::quickstart::{RunArgs, StartArgs, make as store, remove, sample};
use crate::say::Say;
use crate::signals::Signals;

pub use hurt::{Healed, Target, heal, hurt};

/// Names of the sites, and of their folders.
pub const SITES: [&str; 2] = ["site-a", "site-b"];
/// Opening, meeting and a lease are over well within this.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// A role changes within this: a lease, a term, and what is slow.
const CHANGES_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// `pair.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairManifest {
    schema: String,
    version: String,
    created_at: Timestamp,
    /// Where clients find whoever is primary.
    nfs: SocketAddr,
    /// Where the witness is.
    witness: SocketAddr,
}

/// The demo in a folder.
#[derive(Clone)]
pub struct PairDemo {
    place: Place,
    manifest: PairManifest,
    /// As the user called the folder.
    shown: PathBuf,
}

impl PairDemo {
    /// The one in a folder, if there is one.
    pub fn of(dir: &Path) -> Option<Self> {
        let place = Place::of(dir);
        let manifest = read_json(&place.dir().join("pair.json"))?;
        Some(Self { place, manifest, shown: dir.to_owned() })
    }

    /// A site's folder.
    fn site(&self, name: &str) -> Place {
        Place::of(&self.place.dir().join(name))
    }

    fn witness(&self) -> Place {
        Place::of(&self.place.dir().join("witness"))
    }

    /// What commands about one site are told, as the user would write it.
    fn global(&self, site: &str, global: &Global) -> Global {
        Global { dir: self.shown.join(site), api: None, ..global.clone() }
    }

    /// How the pair stands as a site sees it, if it runs.
    fn seen_by(&self, site: &str, global: &Global) -> Option<Replication> {
        self.site(site).announced()?;
        let list: Envelope<ReplicationList> =
            appliance::client(&self.global(site, global)).ok()?.get("/v1/replication").ok()?;
        list.into_result().ok()?.0.into_iter().next()
    }

    /// Asks something of a site about the pair.
    fn order(&self, site: &str, action: ReplicationAction, global: &Global) -> Result<(), Problem> {
        let body = serde_json::to_string(&ReplicationOrder { action }).expect("an order is one word");
        let path = format!("/v1/replication/{}", store::POOL);
        let own = Global { dry_run: false, ..self.global(site, global) };
        let call = Call { method: "POST", path: &path, body: Some(&body), ..appliance::change(&own) };
        appliance::patient_client(&own)?.change::<Replication>(&call).map(drop)
    }

    /// Why another demo is not made here.
    pub fn is_there(&self) -> Problem {
        let dir = self.shown.display();
        Problem::new(&codes::FOLDER_NOT_EMPTY, format!("there is a demo of two sites in {dir} already"))
            .step(format!("vmhold quickstart resume --dir {dir}"))
            .step(format!("vmhold quickstart destroy --dir {dir}"))
    }

    /// The site that serves now.
    fn serving(&self, global: &Global) -> Option<(&'static str, Replication)> {
        let seen = SITES.into_iter().filter_map(|site| Some((site, self.seen_by(site, global)?)));
        seen.into_iter().find(|(_, pair)| pair.serves)
    }

    /// The same; waited for where one may be about to: roles change within seconds.
    fn serving_soon(&self, global: &Global) -> Result<(&'static str, Replication), Problem> {
        let begun = Instant::now();
        loop {
            if let Some(serving) = self.serving(global) {
                return Ok(serving);
            }
            let is_any_alive = SITES.into_iter().any(|site| self.site(site).announced().is_some());
            if !is_any_alive || begun.elapsed() >= CHANGES_WITHIN {
                let dir = self.shown.display();
                return Err(Problem::new(&codes::DEMO_NOT_RUNNING, format!("no site of the demo in {dir} serves"))
                    .step(format!("vmhold quickstart heal --dir {dir}"))
                    .step(format!("vmhold replication status --dir {dir}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until `holds` of the site that serves.
    fn wait(
        &self,
        what: &str,
        global: &Global,
        holds: impl Fn(&str, &Replication) -> bool,
    ) -> Result<(&'static str, Replication), Problem> {
        let begun = Instant::now();
        let within = global.timeout.unwrap_or(READY_WITHIN);
        loop {
            let serving = self.serving(global);
            if let Some((site, pair)) = serving.filter(|(site, pair)| holds(site, pair)) {
                return Ok((site, pair));
            }
            if begun.elapsed() >= within {
                let dir = self.shown.display();
                return Err(Problem::new(&codes::TIMED_OUT, format!("{what} has not come true in time"))
                    .step(format!("vmhold replication status --dir {dir}/site-a"))
                    .step(format!("vmhold replication status --dir {dir}/site-b")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// The folder that a command is about: of a demo of two sites the one of the site that serves.
pub fn folder(global: &Global) -> PathBuf {
    let Some(demo) = PairDemo::of(&global.dir) else { return global.dir.clone() };
    let alive = || SITES.into_iter().find(|site| demo.site(site).announced().is_some());
    let site = demo.serving(global).map(|(site, _)| site).or_else(alive).unwrap_or(SITES[0]);
    demo.shown.join(site)
}

/// Makes a demo and runs it.
pub fn start(args: &StartArgs, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let begun = Instant::now();
    store::check_folder(&Place::of(&global.dir), &global.dir)?;
    let (demo, running) = make::make_anywhere(args, global)?;
    let (site, pair) = demo.wait("a pair in sync", global, |_, pair| pair.not_ready().is_empty())?;
    if !args.no_load {
        let announced = announced(&demo.site(site))?;
        sample::write(&demo.place, &announced, &demo.global(site, global))?;
    }
    demo.tell((site, &pair), begun, global, say)?;
    running.stay(args.run, &demo, (global, say))
}

/// Runs what does not run.
pub fn resume(demo: &PairDemo, run: RunArgs, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let begun = Instant::now();
    let running = Running::start(demo, global)?;
    if running.witness.is_none() && running.sites.is_empty() {
        let dir = demo.shown.display();
        return Err(Problem::new(&codes::DEMO_RUNNING, format!("the demo in {dir} is already running"))
            .step(format!("vmhold replication status --dir {dir}")));
    }
    let (site, pair) = demo.wait("a site that serves", global, |_, _| true)?;
    demo.tell((site, &pair), begun, global, say)?;
    running.stay(run, demo, (global, say))
}

fn announced(place: &Place) -> Result<Announcement, Problem> {
    place.announced().ok_or_else(|| {
        Problem::new(&codes::DEMO_NOT_RUNNING, format!("the site in {} is not running", place.dir().display()))
    })
}

impl PairDemo {
    fn tell(
        &self,
        (site, pair): (&str, &Replication),
        begun: Instant,
        global: &Global,
        say: &Say,
    ) -> Result<(), Problem> {
        let place = self.site(site);
        let (announced, own) = (announced(&place)?, self.global(site, global));
        let manifest = Manifest::load(&place, &own.dir)?;
        let shown = |dir: &Path| dir.display().to_string();
        let sites = SITES.into_iter().filter_map(|name| {
            let announced = self.site(name).announced()?;
            let role = if name == site { pair.role } else { self.seen_by(name, global)?.role };
            Some(DemoSite { name: name.to_owned(), api: format!("https://{}", announced.ready.api), role })
        });
        let mut warnings = manifest.warnings();
        warnings.push("both sites are on this machine: it is a trial of a failover, not a second site".to_owned());
        let document = Quickstart {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            dir: if say.is_json() { shown(self.place.dir()) } else { shown(&self.shown) },
            pids: self.processes(),
            nfs: DemoNfs {
                host: self.manifest.nfs.ip().to_string(),
                port: self.manifest.nfs.port(),
                mount_port: self.manifest.nfs.port(),
                export: format!("/{DEMO_DATASTORE}"),
            },
            api: format!("https://{}", announced.ready.api),
            ui: people_command::login_url(&own).ok().map(|(url, _)| url),
            fingerprint: announced.ready.fingerprint.map(|digits| digits.to_string()),
            log: if say.is_json() { shown(&place.log()) } else { shown(&own.dir.join("server.log")) },
            pool: store::POOL.to_owned(),
            drives: u32::from(manifest.shape.drives),
            drive_bytes: manifest.shape.drive_bytes,
            stripe: manifest.shape.stripe(),
            memory: manifest.memory_folder.is_some(),
            ready_after_seconds: begun.elapsed().as_secs_f64(),
            sites: sites.collect(),
            witness: Some(self.manifest.witness.to_string()),
            state: Some(pair.state),
            warnings,
        };
        say.done(document, Quickstart::human);
        Ok(())
    }

    fn processes(&self) -> Vec<u32> {
        let stores = SITES.into_iter().filter_map(|site| Some(self.site(site).announced()?.process.pid));
        stores.chain(remove::process_of(&self.witness()).map(|process| process.pid)).collect()
    }
}

/// Processes that end with this one unless they are let go.
pub struct Running {
    witness: Option<Server<crate::witness_command::WitnessAnnouncement>>,
    sites: Vec<Server>,
}

impl Running {
    /// Starts the processes of the demo that do not run. The witness first: a site that meets nobody
    /// waits.
    fn start(demo: &PairDemo, global: &Global) -> Result<Self, Problem> {
        let witness = match remove::process_of(&demo.witness()) {
            Some(_) => None,
            None => Some(Server::of_witness(&demo.witness(), demo.manifest.witness, global)?),
        };
        let mut sites = Vec::new();
        for site in SITES {
            if demo.site(site).announced().is_none() {
                sites.push(Server::start(&demo.site(site), &demo.global(site, global))?);
            }
        }
        Ok(Self { witness, sites })
    }

    /// Lets all go on without this process.
    fn let_go(mut self) -> Result<(), Problem> {
        self.witness.iter_mut().try_for_each(Server::let_go)?;
        self.sites.iter_mut().try_for_each(Server::let_go)
    }

    /// In the background: lets them go on. Else stays until a signal asks for their end.
    fn stay(self, run: RunArgs, demo: &PairDemo, (global, say): (&Global, &Say)) -> Result<Exit, Problem> {
        if run.background {
            self.let_go()?;
            return Ok(Exit::Success);
        }
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Problem::new(&codes::BUG, "no runtime could be started").why(error.to_string()))?;
        runtime.block_on(async {
            let mut signals = Signals::catch().map_err(|error| unusable(demo.place.dir(), &error))?;
            signals.next().await;
            Ok::<(), Problem>(())
        })?;
        say.note("stopping ...");
        demo.stop(global)?;
        say.note("stopped");
        Ok(Exit::Success)
    }
}

impl PairDemo {
    /// Stops whatever runs: the secondary first, so that nobody takes over from a primary that is
    /// stopped on purpose.
    fn stop(&self, global: &Global) -> Result<(), Problem> {
        let mut sites = SITES;
        sites.sort_by_key(|site| self.seen_by(site, global).is_some_and(|pair| pair.role == Role::Primary));
        sites.iter().try_for_each(|site| remove::stop(&self.site(site)))?;
        remove::stop(&self.witness())
    }
}

/// `quickstart stop`.
pub fn stop_only(demo: &PairDemo, global: &Global, say: &Say) -> Result<Exit, Problem> {
    demo.stop(global)?;
    let dir = demo.shown.display().to_string();
    let stopped = remove::Stopped { dir: demo.place.dir().display().to_string() };
    Ok(say.done(stopped, |_| format!("stopped; again: vmhold quickstart resume --dir {dir}\n")))
}

/// `quickstart destroy`: stops everything and removes exactly what the demo made.
pub fn destroy(demo: &PairDemo, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let removed_files = demo.remove(global)?;
    let destroyed =
        remove::Destroyed { dir: demo.place.dir().display().to_string(), removed_files, folder_removed: true };
    Ok(say.done(destroyed, |destroyed| format!("the demo is gone: {} files removed\n", destroyed.removed_files)))
}

impl PairDemo {
    /// Stops it and removes what it made; says how many files that was.
    fn remove(&self, global: &Global) -> Result<usize, Problem> {
        let manifests: Vec<(Place, Option<Manifest>)> = SITES
            .into_iter()
            .map(|name| self.site(name))
            .map(|place| (place.clone(), Manifest::load(&place, place.dir()).ok()))
            .collect();
        for (place, manifest) in &manifests {
            manifest.as_ref().map_or(Ok(()), |manifest| manifest.removable(place).map(drop))?;
        }
        self.stop(global)?;
        let mut removed_files = 0;
        for (place, manifest) in &manifests {
            if let Some(manifest) = manifest {
                removed_files += remove::remove(manifest, place)?;
            }
        }
        removed_files += make::remove_rest(self)?;
        let dir = self.shown.display();
        if self.place.dir().exists() {
            return Err(Problem::new(&codes::NOT_OURS_TO_REMOVE, format!("{dir} holds other files"))
                .why(format!("the {removed_files} files of the demo are gone, the others are not ours")));
        }
        Ok(removed_files)
    }
}

/// `quickstart check`: every acknowledged write by the one address, then every reference at the site
/// that serves.
pub fn check(demo: &PairDemo, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let (site, _) = demo.serving_soon(global)?;
    sample::check_at(&demo.place, &announced(&demo.site(site))?, &demo.global(site, global), say)
}

/// A change of what runs.
#[derive(Debug, Serialize)]
struct Changed {
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_seconds: Option<f64>,
}

impl Document for Changed {
    const SCHEMA: &'static str = "vmhold.quickstart.break/v1";
}

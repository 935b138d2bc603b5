//! `quickstart`: a store on this machine to try, to break and to remove without a trace.
//!
//! ```text
//!  manifest   what the demo made, so that exactly that can be removed
//!  make       files and pool
//!  server     its server: start, supervise, stop
//!  sample     checked data to prove later, and the proof
//!  break_it   lose a drive, flip bits, kill -9
//!  pair       the same with two sites and a witness
//!  remove     destroy
//! ```

mod break_it;
mod make;
mod manifest;
pub mod pair;
mod remove;
mod sample;
mod server;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Subcommand, ValueEnum};
use control::demo::{DemoNfs, Quickstart};
use control::{Exit, Problem, codes};
use load::workload::parse_bytes;

use crate::cli::Global;
use crate::load_command::DEMO_DATASTORE;
use crate::people_command;
use crate::place::{Announcement, Place};
use crate::quickstart::break_it::BreakCommand;
use crate::quickstart::manifest::Manifest;
use crate::quickstart::pair::PairDemo;
use crate::quickstart::server::Server;
use crate::say::Say;

/// `quickstart`.
#[derive(Debug, Args)]
pub struct QuickstartCommand {
    /// What to do, if not to make and run a demo.
    #[command(subcommand)]
    pub action: Option<Action>,
    /// The demo to make.
    #[command(flatten)]
    pub start: StartArgs,
}

/// Verbs of `quickstart`.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make a demo and run it, as without a verb
    Run(StartArgs),
    /// Run the demo of the folder again
    Resume(RunArgs),
    /// Stop its server; everything stays for `resume`
    Stop,
    /// Stop it and remove exactly the files it made
    Destroy,
    /// Prove that every acknowledged write is there, then check every reference
    Check,
    /// Hurt it and watch
    Break(BreakCommand),
    /// Make well again what was hurt of two sites, and wait until both hold the same
    Heal {
        /// Only this
        what: Option<pair::Healed>,
    },
}

/// What to make.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// Which demo
    #[arg(long, value_enum, default_value = "pair")]
    pub profile: Profile,
    /// Size of each drive; the files are sparse
    #[arg(long, default_value = "1GiB", value_parser = parse_bytes)]
    pub size: u64,
    /// Number of drives; with fewer than 5 the pool is for the lab only
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=24))]
    pub drives: u8,
    /// Number of spares: blank drives that take the place of failed ones
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=8))]
    pub spares: u8,
    /// How long a drive that went away is waited for before a spare takes its place
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME", default_value = "10s")]
    pub return_wait: std::time::Duration,
    /// Size of the journal
    #[arg(long, default_value = "128MiB", value_parser = parse_bytes, value_name = "SIZE")]
    pub journal_size: u64,
    /// Keep drives and journal in memory (/dev/shm)
    #[arg(long)]
    pub memory: bool,
    /// First port to try for NFS, and the next one for the API; 0 takes any that is free
    /// [default: 20049 and 8080]
    #[arg(long, value_name = "PORT")]
    pub ports_from: Option<u16>,
    /// Write no sample data
    #[arg(long)]
    pub no_load: bool,
    /// How it runs.
    #[command(flatten)]
    pub run: RunArgs,
}

/// How the server runs.
#[derive(Clone, Copy, Debug, Args)]
pub struct RunArgs {
    /// Return when it is ready; the server goes on
    #[arg(long, conflicts_with = "foreground")]
    pub background: bool,
    /// Stay until Ctrl-C, which stops the server (the default)
    #[arg(long)]
    pub foreground: bool,
}

/// Shapes of a demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// One store
    Single,
    /// Two sites that hold the same, and a witness
    Pair,
}

/// Runs a verb.
pub fn run(command: &QuickstartCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    if global.dry_run {
        return Err(Problem::new(&codes::NOT_SUPPORTED, "what quickstart does cannot be planned")
            .why("it makes, breaks and removes nothing but a demo of its own")
            .step("vmhold quickstart --help"));
    }
    if let Some(demo) = PairDemo::of(&global.dir) {
        return of_pair(&demo, command, global, say);
    }
    match &command.action {
        None => start(&command.start, global, say),
        Some(Action::Run(start)) => self::start(start, global, say),
        Some(Action::Resume(run)) => resume(*run, global, say),
        Some(Action::Stop) => remove::stop_only(global, say),
        Some(Action::Destroy) => remove::run(global, say),
        Some(Action::Check) => sample::check(global, say),
        Some(Action::Break(command)) => break_it::run(command, global, say),
        Some(Action::Heal { .. }) => Err(no_pair(global)),
    }
}

/// The same for a demo of two sites that is there.
fn of_pair(demo: &PairDemo, command: &QuickstartCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    match &command.action {
        // Refuses a folder that is not empty, with what to do.
        None | Some(Action::Run(_)) => Err(demo.is_there()),
        Some(Action::Resume(run)) => pair::resume(demo, *run, global, say),
        Some(Action::Stop) => pair::stop_only(demo, global, say),
        Some(Action::Destroy) => pair::destroy(demo, global, say),
        Some(Action::Check) => pair::check(demo, global, say),
        Some(Action::Heal { what }) => pair::heal(demo, *what, global, say),
        Some(Action::Break(command)) => match &command.what {
            break_it::What::Pair(target) => pair::hurt(demo, target, global, say),
            // Everything else is about one store: that of the site that serves.
            _ => break_it::run(command, &Global { dir: pair::folder(global), ..global.clone() }, say),
        },
    }
}

/// Only a demo of two sites has sites to lose.
fn no_pair(global: &Global) -> Problem {
    let dir = global.dir.display();
    Problem::new(&codes::DEMO_NOT_FOUND, format!("there is no demo of two sites in {dir}"))
        .step("make one: vmhold quickstart")
}

fn start(args: &StartArgs, global: &Global, say: &Say) -> Result<Exit, Problem> {
    if args.profile == Profile::Pair {
        return pair::start(args, global, say);
    }
    let begun = Instant::now();
    let place = Place::of(&global.dir);
    let manifest = make::make(args, &place, global)?;
    let mut server = make::first_start(&place, global)?;
    if !args.no_load {
        sample::write(&place, &server.announced, global)?;
    }
    tell(&(&place, &manifest, &server.announced), begun, global, say);
    server.stay(args.run.background, &place, say)
}

fn resume(run: RunArgs, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let begun = Instant::now();
    let place = Place::of(&global.dir);
    let manifest = Manifest::load(&place, &global.dir)?;
    let mut server = Server::start(&place, global)?;
    tell(&(&place, &manifest, &server.announced), begun, global, say);
    server.stay(run.background, &place, say)
}

fn tell(demo: &(&Place, &Manifest, &Announcement), begun: Instant, global: &Global, say: &Say) {
    let (place, manifest, announced) = *demo;
    let shown = |dir: &PathBuf| dir.display().to_string();
    let document = Quickstart {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        dir: if say.is_json() { place.dir().display().to_string() } else { shown(&global.dir) },
        pids: vec![announced.process.pid],
        nfs: DemoNfs {
            host: announced.ready.nfs.ip().to_string(),
            port: announced.ready.nfs.port(),
            mount_port: announced.ready.mount.port(),
            export: format!("/{DEMO_DATASTORE}"),
        },
        api: format!("https://{}", announced.ready.api),
        ui: people_command::login_url(global).ok().map(|(url, _)| url),
        fingerprint: announced.ready.fingerprint.map(|digits| digits.to_string()),
        log: if say.is_json() { shown(&place.log()) } else { shown(&global.dir.join("server.log")) },
        pool: make::POOL.to_owned(),
        drives: u32::from(manifest.shape.drives),
        drive_bytes: manifest.shape.drive_bytes,
        stripe: manifest.shape.stripe(),
        memory: manifest.memory_folder.is_some(),
        ready_after_seconds: begun.elapsed().as_secs_f64(),
        sites: Vec::new(),
        witness: None,
        state: None,
        warnings: manifest.warnings(),
    };
    say.done(document, Quickstart::human);
}

/// The demo of the folder, which must be running.
pub(crate) fn running(place: &Place, global: &Global) -> Result<(Manifest, Announcement), Problem> {
    let manifest = Manifest::load(place, &global.dir)?;
    let dir = global.dir.display();
    let announced = place.announced().ok_or_else(|| {
        Problem::new(&codes::DEMO_NOT_RUNNING, format!("the demo in {dir} is not running"))
            .step(format!("vmhold quickstart resume --dir {dir}"))
    })?;
    Ok((manifest, announced))
}

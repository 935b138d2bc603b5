//! Arguments of the commands, for the binary to embed with `clap`.
//!
//! `--json` belongs to the binary: `run` gives both forms in an [`Output`], and the
//! binary prints one of them. Only `nfs get` without a file prints by itself.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use crate::connection::Behaviour;
use crate::failure::Failure;
use crate::target::{ConnectError, Mounted, Target};
use crate::workload::{Mix, Pattern, parse_bytes};

/// What of the terminal a command may use while it runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Console {
    /// Progress may be drawn on standard error (it is only drawn on a terminal).
    pub progress: bool,
}

/// What a command has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code 0, else 1.
    pub ok: bool,
    /// One JSON document, without newline.
    pub json: String,
    /// Text for people, with newlines.
    pub text: String,
}

impl BenchCommand {
    /// Runs `bench` or its action, to the end.
    pub fn run(&self, console: Console) -> Result<Output, Failure> {
        match &self.action {
            None => crate::bench::run(&self.load, console).map(|report| Output {
                ok: report.ok,
                json: report.json(),
                text: report.text(),
            }),
            Some(BenchAction::Verify(arguments)) => crate::verify::run(arguments, console).map(|report| Output {
                ok: report.ok,
                json: report.json(),
                text: report.text(),
            }),
        }
    }
}

impl NfsCommand {
    /// Runs the action, to the end.
    pub fn run(&self, console: Console) -> Result<Output, Failure> {
        crate::nfs_command::run(self, console)
    }
}

/// How to reach a server and how patient to be.
#[derive(Clone, Debug, Args)]
pub struct ConnectArgs {
    /// NFS port [default: from the target, else port mapper, else 2049]
    #[arg(long)]
    pub port: Option<u16>,
    /// MOUNT port [default: NFS port if it answers MOUNT, else port mapper]
    #[arg(long, visible_alias = "mount-port")]
    pub mountport: Option<u16>,
    /// Reconnect and resend, like a hard mount, when the server goes away
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub ride_out: bool,
    /// Give up riding out after this long without a connection
    #[arg(long, default_value = "10min", value_parser = humantime::parse_duration)]
    pub ride_out_limit: Duration,
    /// Keep trying to connect and mount for this long
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub wait: Duration,
    /// Drop and reopen a connection that is silent for this long while calls wait
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub silence_limit: Duration,
    /// TCP congestion control of our side, such as reno or cubic [default: the system's]
    #[arg(long, value_name = "NAME")]
    pub tcp_congestion: Option<String>,
    /// Use source ports below 1024 (needs root; for servers that insist on them)
    #[arg(long)]
    pub reserved_port: bool,
}

impl Default for ConnectArgs {
    fn default() -> Self {
        let behaviour = Behaviour::default();
        ConnectArgs {
            port: None,
            mountport: None,
            ride_out: behaviour.ride_out,
            ride_out_limit: behaviour.ride_out_limit,
            wait: Duration::ZERO,
            silence_limit: behaviour.silence_limit,
            tcp_congestion: None,
            reserved_port: false,
        }
    }
}

impl ConnectArgs {
    /// Behaviour of the connections.
    pub fn behaviour(&self) -> Behaviour {
        Behaviour {
            ride_out: self.ride_out,
            ride_out_limit: self.ride_out_limit,
            silence_limit: self.silence_limit,
            congestion_control: self.tcp_congestion.clone(),
            reserved_port: self.reserved_port,
            ..Behaviour::default()
        }
    }

    /// Mounts `target` with the ports given here, trying again for as long as `wait`
    /// says while the server is away.
    pub async fn mount(&self, target: &Target) -> Result<Mounted, ConnectError> {
        let started = Instant::now();
        loop {
            match self.target(target).mount(&self.behaviour()).await {
                Err(error) if error.is_absence() && started.elapsed() < self.wait => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// `target` with the ports given here.
    pub fn target(&self, target: &Target) -> Target {
        let mut target = target.clone();
        target.port = self.port.or(target.port);
        target.mount_port = self.mountport.or(target.mount_port);
        target
    }
}

/// Drive an NFSv3 server and measure, or prove what was written
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchCommand {
    /// What follows `bench`.
    #[command(subcommand)]
    pub action: Option<BenchAction>,
    /// Without an action: the load.
    #[command(flatten)]
    pub load: BenchArgs,
}

/// Actions of `bench`.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchAction {
    /// Prove against the server that no acknowledged write of a journal is lost, stale, misplaced or damaged
    Verify(VerifyArgs),
}

/// The load of `bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// nfs://HOST[:PORT]/EXPORT[/DIRECTORY] (required unless an action is given)
    #[arg(long)]
    pub target: Option<Target>,
    /// How to reach it.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// read, write, randrw (50/50), vm (70/30/0.1), or READ/WRITE[/OTHER] in percent
    #[arg(long, default_value = "write")]
    pub mix: Mix,
    /// Size of reads and writes; several, separated by commas, are mixed evenly
    #[arg(long, default_value = "8k", value_delimiter = ',', value_parser = parse_bytes)]
    pub block_size: Vec<u64>,
    /// Size of the self-describing units; divides all block sizes
    #[arg(long, default_value = "8k", value_parser = parse_bytes)]
    pub unit: u64,
    /// Calls in flight, over all connections
    #[arg(long, default_value_t = 16)]
    pub depth: usize,
    /// TCP connections
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// Files
    #[arg(long, default_value_t = 4)]
    pub files: u64,
    /// Size of each file
    #[arg(long, default_value = "64m", value_parser = parse_bytes)]
    pub file_size: u64,
    /// Instead of --files: file sets of this many virtual machines, 36 files each
    #[arg(long, conflicts_with_all = ["files", "file_size"])]
    pub vms: Option<u64>,
    /// Bytes of each virtual machine
    #[arg(long, default_value = "256m", value_parser = parse_bytes)]
    pub vm_size: u64,
    /// Order of places
    #[arg(long, value_enum, default_value = "random")]
    pub pattern: Pattern,
    /// Measure for this long [default: 10s, or until --ops are done]
    #[arg(long, value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Measure this many operations
    #[arg(long)]
    pub ops: Option<u64>,
    /// Run this long before measuring
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub warmup: Duration,
    /// Repeat the same operations [default: different each time]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Percent of each unit that compresses away
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub compressible: u8,
    /// Percent of units that are duplicates of others
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub dedup: u8,
    /// Check every read against what was written
    #[arg(long)]
    pub verify: bool,
    /// Read everything back at the end and check it
    #[arg(long)]
    pub verify_end: bool,
    /// Write all files in full before measuring [default: if the mix reads]
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub fill: Option<bool>,
    /// Record every write and its acknowledgement here, for `bench verify`; implies --keep
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Leave the files on the server
    #[arg(long)]
    pub keep: bool,
    /// Go on after this many failed operations
    #[arg(long, default_value_t = 0)]
    pub max_errors: u64,
}

/// `bench verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Journal written by `bench --journal`
    #[arg(long, value_name = "FILE")]
    pub journal: PathBuf,
    /// Where the files are now [default: the target in the journal]
    #[arg(long)]
    pub target: Option<Target>,
    /// How to reach it.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Reads in flight
    #[arg(long, default_value_t = 16)]
    pub depth: usize,
    /// Remove the run's files from the server if all is well
    #[arg(long)]
    pub remove: bool,
}

/// A file access without mounting.
#[derive(Clone, Debug, Args)]
pub struct NfsCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: NfsAction,
}

/// Actions of `nfs`.
#[derive(Clone, Debug, Subcommand)]
pub enum NfsAction {
    /// List a directory, or one file
    Ls(PathArgs),
    /// Copy a file from the server (standard output without LOCAL or with -)
    Get(GetArgs),
    /// Copy a file to the server (standard input with -)
    Put(PutArgs),
    /// Remove a file, or with --recursive a directory
    Rm(RemoveArgs),
    /// Make a directory
    Mkdir(MkdirArgs),
    /// List the server's exports
    Exports(PathArgs),
}

/// A place on a server.
#[derive(Clone, Debug, Args)]
pub struct PathArgs {
    /// nfs://HOST[:PORT]/EXPORT/PATH or HOST:/EXPORT/PATH
    pub remote: Target,
    /// How to reach it.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// `nfs get`.
#[derive(Clone, Debug, Args)]
pub struct GetArgs {
    /// nfs://HOST[:PORT]/EXPORT/PATH or HOST:/EXPORT/PATH
    pub remote: Target,
    /// File to write
    pub local: Option<PathBuf>,
    /// How to reach it.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// `nfs put`.
#[derive(Clone, Debug, Args)]
pub struct PutArgs {
    /// File to read
    pub local: PathBuf,
    /// nfs://HOST[:PORT]/EXPORT/PATH; ending in / keeps the name
    pub remote: Target,
    /// How to reach it.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// `nfs rm`.
#[derive(Clone, Debug, Args)]
pub struct RemoveArgs {
    /// nfs://HOST[:PORT]/EXPORT/PATH or HOST:/EXPORT/PATH
    pub remote: Target,
    /// With everything in it
    #[arg(short, long)]
    pub recursive: bool,
    /// How to reach it.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// `nfs mkdir`.
#[derive(Clone, Debug, Args)]
pub struct MkdirArgs {
    /// nfs://HOST[:PORT]/EXPORT/PATH or HOST:/EXPORT/PATH
    pub remote: Target,
    /// Make what is missing above, and take it if it is there
    #[arg(short, long)]
    pub parents: bool,
    /// How to reach it.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

//! What can be typed: nouns, verbs, and the options that mean the same everywhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use control::demo::DEFAULT_DIR;
use load::command::{BenchCommand, NfsCommand};
use load::workload::parse_bytes;

use crate::job_command::JobCommand;
use crate::quickstart::QuickstartCommand;
use crate::replication_command::{PairArgs, ReplicationCommand, SiteCommand};
use crate::vm_command::VmCommand;

const EXAMPLES: &str = "\
Examples:
  vmhold quickstart --background          a store in ./vmhold-demo
  vmhold status                           health, what can be lost, load
  vmhold datastore mount-info demo --for proxmox
  vmhold explain VH1021

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 refused, 6 not
confirmed, 7 timed out, 8 unreachable, 130 interrupted.
Texts may change at any time; scripts use --json.";

/// Storage for virtual machines: NFS on a RAID-6 pool of its own
#[derive(Debug, Parser)]
#[command(name = "vmhold", version, after_help = EXAMPLES, max_term_width = 100, disable_help_subcommand = false)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What it is about.
    #[command(subcommand)]
    pub noun: Noun,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Folder of the store or demo
    #[arg(long, global = true, env = "VMHOLD_DIR", default_value = DEFAULT_DIR, value_name = "DIR")]
    pub dir: PathBuf,
    /// Address of the API, instead of the one in the folder
    #[arg(long, global = true, env = "VMHOLD_API", value_name = "ADDR")]
    pub api: Option<SocketAddr>,
    /// File with a token, instead of the one of this machine in the folder
    #[arg(long, global = true, env = "VMHOLD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Fingerprint the API must show, instead of the one in the folder
    #[arg(long, global = true, env = "VMHOLD_FINGERPRINT", value_name = "DIGITS")]
    pub fingerprint: Option<String>,
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// Look again every so often, until Ctrl-C [default: every 2s]
    #[arg(long, global = true, value_name = "TIME", num_args = 0..=1, require_equals = true,
          default_missing_value = "2s", value_parser = crate::iostat_command::parse_interval)]
    pub watch: Option<Duration>,
    /// Check everything and say what would happen; change nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Never ask
    #[arg(long, global = true)]
    pub no_input: bool,
    /// Confirm a severe step by the name of what it is about
    #[arg(long, global = true, value_name = "NAME")]
    pub confirm: Option<String>,
    /// Answer yes to questions (not to those that need a name)
    #[arg(long, global = true)]
    pub yes: bool,
    /// Say nothing when all is well
    #[arg(long, global = true)]
    pub quiet: bool,
    /// No colour, no progress bars
    #[arg(long, global = true, env = "NO_COLOR", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_color: bool,
    /// Wait this long for an answer [default: 10s; fsck and checkpoint 1h]
    #[arg(long, global = true, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub timeout: Option<Duration>,
}

/// Options of `fsck`.
#[derive(Debug, Args)]
pub struct FsckCommand {
    /// On a stopped store whose metadata is damaged beyond repair: read everything on the drives and
    /// make the metadata anew, out of what objects say of themselves
    #[arg(long)]
    pub repair_scan: bool,
}

/// Nouns, and verbs that need none.
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// A store on this machine to try and to break; run, resume, check, break, destroy
    Quickstart(Box<QuickstartCommand>),
    /// One screen: health, what can be lost, load
    Status,
    /// Pools
    Pool(PoolCommand),
    /// Drives
    Drive(DriveCommand),
    /// The journal: its lost legs
    Journal(JournalCommand),
    /// Faults on purpose, in a lab pool: slow, failing and lying drives
    Inject(InjectCommand),
    /// Datastores: exports that hold VMs
    Datastore(DatastoreCommand),
    /// VMs: the files recognised as one; snapshots, rollback, clones
    Vm(VmCommand),
    /// Work that goes on or went on
    Job(JobCommand),
    /// What happened
    Events(EventsCommand),
    /// Load and latency by part, a line per interval
    Iostat(IostatCommand),
    /// Tokens: how tools log in
    Token(TokenCommand),
    /// Who changed what
    Audit(AuditCommand),
    /// The address of the web UI, with a login that works once
    Ui,
    /// Check every reference and object of the live store
    Fsck(FsckCommand),
    /// Bring everything from the journal to the drives now
    Checkpoint,
    /// What a code means and what to do (offline)
    Explain {
        /// VH1021, 1021 or DRIVE_FAILED
        code: String,
    },
    /// Drive an NFSv3 server and measure, or prove what was written
    Bench(Box<BenchCommand>),
    /// Files on an NFSv3 server, without mounting it
    Nfs(Box<NfsCommand>),
    /// Write acceleration on this host: disks in front of slower ones
    Accel(AccelCommand),
    /// The agent of a hypervisor host
    Host(HostCommand),
    /// Two sites that hold the same: how they stand; pause, resume, failover
    Replication(ReplicationCommand),
    /// This site, as another one pairs with it
    Site(SiteCommand),
    /// The third place that lets one of two sites go on alone
    Witness(WitnessCommand),
    /// Run the server
    Serve(ServeCommand),
    /// A completion script for a shell
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// The manual page of a command: vmhold man pool create | man -l -
    Man {
        /// The command; without one, that of vmhold itself
        command: Vec<String>,
        /// Write the pages of all commands into this folder
        #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
        into: Option<PathBuf>,
    },
    /// Versions of program and API
    Version,
}

/// `serve`.
#[derive(Debug, Args)]
#[command(after_help = SERVE_HELP)]
pub struct ServeCommand {
    /// Configuration [default: vmhold.toml in the folder of --dir]
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    pub config: Option<PathBuf>,
    /// Stop when standard input ends, unless it said `detach`
    #[arg(long, hide = true)]
    pub until_eof: bool,
}

const SERVE_HELP: &str = "\
Stops on SIGTERM and SIGINT with a checkpoint. Log lines go to standard error, logfmt on a
terminal and else JSON; VMHOLD_LOG sets the level, as in VMHOLD_LOG=debug.

Keys of the configuration (TOML; paths are relative to the file):
  site, pool      names
  drives          drive files or block devices
  spares          blank drives that take the place of failed ones
  return_wait_seconds  how long a drive that went away is waited for first (10)
  lab             true: vmhold inject works, if the pool was made for it (--lab)
  journal         one or two journal legs
  nfs, api        addresses with port
  mount           address of MOUNT and NLM, if not that of NFS
  portmap         answer as portmapper on port 111 of the NFS address
  rpcbind         register with this machine's rpcbind
  cache_bytes     memory for blocks that were read
  [pair]          the other half of one of two sites; written by vmhold pool create
  state           folder for certificate, tokens, events, jobs, audit log [control]";

/// `pool`.
#[derive(Debug, Args)]
pub struct PoolCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: PoolAction,
}

/// Verbs of `pool`.
#[derive(Debug, Subcommand)]
pub enum PoolAction {
    /// All pools
    List,
    /// One pool
    Show {
        /// Its name
        name: String,
        /// With its drives side by side
        #[arg(long)]
        map: bool,
    },
    /// Verify everything in the background: start, pause, resume, status
    Scrub {
        /// What to do
        #[arg(value_enum)]
        action: ScrubVerb,
        /// The pool
        name: String,
    },
    /// Return when every drive of the pool is whole [--timeout, default 1h]
    Wait {
        /// The pool
        name: String,
    },
    /// What the scrubs of a pool found
    History {
        /// The pool
        name: String,
    },
    /// Make a pool of empty drives and write the configuration that serves it
    Create(Box<PoolCreate>),
    /// Add 1 to 12 blank drives to a pool that is served, at once
    Expand(PoolExpand),
}

/// `pool expand`.
#[derive(Debug, Args)]
pub struct PoolExpand {
    /// The pool
    pub name: String,
    /// Blank drive files or block devices; spares of the pool, too
    #[arg(long = "drive", required_unless_present = "stripe_data", num_args = 1..=12, value_name = "PATH")]
    pub drives: Vec<PathBuf>,
    /// Make drive files that do not exist, this large and sparse
    #[arg(long, value_parser = parse_bytes, value_name = "SIZE")]
    pub drive_size: Option<u64>,
    /// Most data units of new stripes from now on
    #[arg(long, value_name = "N")]
    pub stripe_data: Option<u8>,
}

/// Verbs of `pool scrub`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ScrubVerb {
    /// Begin a pass now, at full pace
    Start,
    /// Look at nothing until it is resumed
    Pause,
    /// Go on
    Resume,
    /// How far it is
    Status,
}

/// `pool create`.
#[derive(Debug, Args)]
pub struct PoolCreate {
    /// Name
    pub name: String,
    /// Drive files or block devices
    #[arg(long = "drive", required = true, num_args = 1.., value_name = "PATH")]
    pub drives: Vec<PathBuf>,
    /// Blank drives that take the place of failed ones
    #[arg(long = "spare", num_args = 1.., value_name = "PATH")]
    pub spares: Vec<PathBuf>,
    /// One or two journal legs: persistent memory, devices, files
    #[arg(long, required = true, num_args = 1..=2, value_name = "PATH")]
    pub journal: Vec<PathBuf>,
    /// Make drive files that do not exist, this large and sparse
    #[arg(long, value_parser = parse_bytes, value_name = "SIZE")]
    pub drive_size: Option<u64>,
    /// Make journal files that do not exist, this large
    #[arg(long, value_parser = parse_bytes, value_name = "SIZE")]
    pub journal_size: Option<u64>,
    /// Configuration to write [default: vmhold.toml in the folder of --dir]
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    pub config: Option<PathBuf>,
    /// First datastore
    #[arg(long, value_name = "NAME")]
    pub datastore: Option<String>,
    /// Name of the site
    #[arg(long, default_value = "site-a")]
    pub site: String,
    /// Address of NFS
    #[arg(long, default_value = "127.0.0.1:2049", value_name = "ADDR")]
    pub nfs: SocketAddr,
    /// Answer as portmapper on port 111 of the NFS address
    #[arg(long)]
    pub portmap: bool,
    /// Register with this machine's rpcbind
    #[arg(long)]
    pub rpcbind: bool,
    /// Most data units of a stripe
    #[arg(long, value_name = "N")]
    pub stripe_data: Option<u8>,
    /// For trying and breaking: faults can be injected into it, now and later (vmhold inject)
    #[arg(long)]
    pub lab: bool,
    /// Bytes of a stripe unit
    #[arg(long, value_parser = parse_bytes, value_name = "SIZE")]
    pub unit: Option<u64>,
    /// The other half.
    #[command(flatten)]
    pub pair: PairArgs,
}

/// `drive`.
#[derive(Debug, Args)]
pub struct DriveCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: DriveAction,
}

/// Verbs of `drive`.
#[derive(Debug, Subcommand)]
pub enum DriveAction {
    /// All drives
    List,
    /// One drive
    Show {
        /// POOL/SLOT, as in flash0/3
        id: String,
    },
    /// Fill the place of a drive that is out, from a spare or a drive that is given
    Replace {
        /// POOL/SLOT, as in flash0/3
        id: String,
        /// A blank drive [default: the smallest spare that fits]
        #[arg(long = "with", value_name = "PATH")]
        with: Option<PathBuf>,
    },
    /// Fill another drive from a good one and let it take the place; redundancy is never less
    Retire {
        /// POOL/SLOT, as in flash0/3
        id: String,
        /// A blank drive [default: the smallest spare that fits]
        #[arg(long = "with", value_name = "PATH")]
        with: Option<PathBuf>,
    },
    /// Spares: blank drives that take the place of failed ones
    #[command(subcommand)]
    Spare(SpareAction),
}

/// Verbs of `drive spare`.
#[derive(Debug, Subcommand)]
pub enum SpareAction {
    /// Give the pool a blank drive
    Add {
        /// File or block device
        path: PathBuf,
    },
}

/// `inject`.
#[derive(Debug, Args)]
#[command(after_help = INJECT_HELP)]
pub struct InjectCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: InjectAction,
}

const INJECT_HELP: &str = "\
Only pools that were marked when they were made take faults: vmhold quickstart, or
vmhold pool create --lab. Nothing stands in the way of any other pool's drives.

  vmhold inject lost-write flash0/3 --percent 20 --for 30s --confirm=flash0
  vmhold inject slow flash0/3 --delay 100ms --percent 1 --confirm=flash0
  vmhold inject list flash0
  vmhold inject stop flash0

A fault stays with the drive, ends by itself, and is shown by status and pool show while it
is on. No more drives are made to lie than the pool can lose, those counted whose damage no
scrub has been over yet.";

/// Verbs of `inject`.
#[derive(Debug, Subcommand)]
pub enum InjectAction {
    /// Reads and writes take longer
    Slow {
        /// Which and how much.
        #[command(flatten)]
        at: InjectAt,
        /// By how much
        #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME", default_value = "100ms")]
        delay: Duration,
    },
    /// Reads and writes end with an I/O error
    Eio(InjectAt),
    /// Writes are acknowledged and not done
    LostWrite(InjectAt),
    /// Writes go to the place behind their own, and are acknowledged
    Misplaced(InjectAt),
    /// Only the first part of a write is done, and all of it acknowledged
    Torn(InjectAt),
    /// One bit of what is written or read is another
    Bits(InjectAt),
    /// One bit of a file is another at this one of two sites, and the other one is told nothing
    Flip {
        /// The pool
        pool: String,
        /// Which byte
        #[arg(long, value_name = "BYTES")]
        offset: u64,
        /// Id of the file (what ls -i says of it); the largest one unless said
        #[arg(long, value_name = "ID")]
        file: Option<u64>,
    },
    /// Faults that are on, and those whose damage no scrub has been over yet
    List {
        /// The pool
        pool: String,
    },
    /// End every fault now
    Stop {
        /// The pool
        pool: String,
    },
}

/// Where a fault is, how often it strikes and for how long.
#[derive(Clone, Debug, Args)]
pub struct InjectAt {
    /// POOL/SLOT, as in flash0/3
    pub id: String,
    /// Share of the requests that are hit
    #[arg(long, default_value_t = 10.0, value_name = "PERCENT")]
    pub percent: f64,
    /// When it ends by itself, up to 1h
    #[arg(long = "for", value_parser = humantime::parse_duration, value_name = "TIME", default_value = "1m")]
    pub lasts: Duration,
}

/// `journal`.
#[derive(Debug, Args)]
pub struct JournalCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: JournalAction,
}

/// Verbs of `journal`.
#[derive(Debug, Subcommand)]
pub enum JournalAction {
    /// Fill lost legs anew from the working one, once their devices are mended
    Resilver,
}

/// `datastore`.
#[derive(Debug, Args)]
pub struct DatastoreCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: DatastoreAction,
}

/// Verbs of `datastore`.
#[derive(Debug, Subcommand)]
pub enum DatastoreAction {
    /// All datastores
    List,
    /// One datastore
    Show {
        /// Its name
        name: String,
    },
    /// Make one; hosts can mount it at once
    Create {
        /// Its name, which is also the export path
        name: String,
        /// Make root of clients nobody (hypervisors need root)
        #[arg(long)]
        root_squash: bool,
        /// Networks that may mount it, as in 10.0.0.0/8 [default: everyone]
        #[arg(long, value_name = "NETWORK", value_delimiter = ',')]
        allow: Vec<String>,
    },
    /// Delete one with everything in it
    Delete {
        /// Its name
        name: String,
    },
    /// The command that mounts it
    MountInfo {
        /// Its name
        name: String,
        /// proxmox, proxmox-plugin, esxi, xcp-ng, libvirt or linux
        #[arg(long = "for", default_value = "linux", value_name = "PLATFORM")]
        platform: String,
    },
}

/// `host`.
#[derive(Debug, Args)]
pub struct HostCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: HostAction,
}

/// Verbs of `host`.
#[derive(Debug, Subcommand)]
pub enum HostAction {
    /// Run the agent: disks on a flash, served to VMs of this host by NBD
    Serve(Box<HostServe>),
}

/// `host serve`.
#[derive(Debug, Args)]
#[command(after_help = HOST_HELP)]
pub struct HostServe {
    /// Flash: a file or block device for the logs of all disks
    #[arg(long, value_name = "PATH")]
    pub flash: PathBuf,
    /// Make the flash file if it does not exist, this large
    #[arg(long, value_parser = parse_bytes, value_name = "SIZE")]
    pub flash_size: Option<u64>,
    /// Make a blank device or file the flash of this host
    #[arg(long)]
    pub format: bool,
    /// Name of the host [default: that of this machine]
    #[arg(long)]
    pub name: Option<String>,
    /// Serve NBD at this address, too
    #[arg(long, value_name = "ADDR")]
    pub nbd: Option<SocketAddr>,
    /// Serve Prometheus metrics at this address
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,
    /// Let NBD or metrics, which have no login, listen where others can reach them
    #[arg(long)]
    pub i_understand_insecure: bool,
}

const HOST_HELP: &str = "\
The folder of --dir holds the sockets: nbd.sock for VMs, host.sock for vmhold accel. Both
may be opened by this user alone. Disks, their backing stores and policies are kept on the
flash: a restart needs nothing else.

  vmhold host serve --flash /srv/flash.img --flash-size 2GiB --dir /run/vmhold
  vmhold accel attach vm1 --backing /srv/vm1.img --policy wb --dir /run/vmhold
  qemu-system-x86_64 -drive file=nbd+unix:///vm1?socket=/run/vmhold/nbd.sock,format=raw,...

In QEMU, reconnect-delay lets a VM ride out a restart of the agent.";

/// `witness`.
#[derive(Debug, Args)]
pub struct WitnessCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: WitnessAction,
}

/// Verbs of `witness`.
#[derive(Debug, Subcommand)]
pub enum WitnessAction {
    /// Run a witness
    Serve(WitnessServe),
    /// Sites, records and leases: of the witness in the folder, or of the site's in it
    Status,
    /// Make a join token for a site, on the witness's machine
    Invite {
        /// Name of the site
        site: String,
    },
    /// Shut a site out, on the witness's machine
    Remove {
        /// Name of the site
        site: String,
    },
    /// Make a witness known to this site and this site to it
    Add {
        /// What `witness invite` has printed
        token: String,
    },
    /// Ask this site's witness and say how long an answer takes
    Test,
}

/// `witness serve`.
#[derive(Debug, Args)]
#[command(after_help = WITNESS_HELP)]
pub struct WitnessServe {
    /// Where sites reach it
    #[arg(long, default_value = "127.0.0.1:7440", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// What join tokens name instead, where sites know this machine by another address
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Stop when standard input ends, unless it said `detach`
    #[arg(long, hide = true)]
    pub until_eof: bool,
}

const WITNESS_HELP: &str = "\
The folder of --dir gets a folder `witness`, which this user alone may open: certificate,
sites, one small record per datastore. Nothing else needs to be kept. Losing the witness stops
nothing; it must be a third place, so that no site goes with it.

  vmhold witness serve --listen 10.0.0.3:7440 --dir /var/lib/vmhold      on the third machine
  vmhold witness invite site-a --dir /var/lib/vmhold                     there, for each site
  vmhold witness add TOKEN                                               on the site

Stops on SIGTERM and SIGINT. A service manager is told when it is ready (Type=notify).";

/// `accel`.
#[derive(Debug, Args)]
pub struct AccelCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: AccelAction,
}

/// Verbs of `accel`.
#[derive(Debug, Subcommand)]
pub enum AccelAction {
    /// Every disk: policy, dirty data, latency of VM and backing store, what can be lost
    Status,
    /// Put a disk in front of a backing store; what is there stays as it is
    Attach {
        /// Name of the disk, and of its NBD export
        name: String,
        /// File or block device it stands in front of
        #[arg(long, value_name = "PATH")]
        backing: PathBuf,
        /// wt: answered when the backing store has a write; wb: when own flash has it
        #[arg(long, default_value = "wt", value_name = "POLICY")]
        policy: String,
        /// Flash for its log: how much it can absorb
        #[arg(long, default_value = "256MiB", value_parser = parse_bytes, value_name = "SIZE")]
        log: u64,
    },
    /// Take the layer away: all dirty data goes to the backing store first
    Detach {
        /// Name of the disk
        name: String,
    },
    /// Change the policy while the VM runs
    Policy {
        /// Name of the disk
        name: String,
        /// wt or wb
        policy: String,
        /// Return when it is in force
        #[arg(long)]
        wait: bool,
    },
    /// Bring everything dirty to the backing store now
    Drain {
        /// Name of the disk
        name: String,
    },
    /// Which disks are slowed, and how fast they destage
    FlowControl,
}

/// `iostat`.
#[derive(Debug, Args)]
pub struct IostatCommand {
    /// Length of an interval, as in 5 or 1m
    #[arg(default_value = "1", value_parser = crate::iostat_command::parse_interval)]
    pub interval: Duration,
    /// Stop after so many lines, or tables
    #[arg(long, value_name = "N")]
    pub count: Option<u32>,
    /// A table of VMs or disks in each interval, instead of the store as a whole
    #[arg(long, value_enum)]
    pub by: Option<IostatBy>,
}

/// Rows of `iostat --by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IostatBy {
    /// A row for each VM that did something
    Vm,
    /// A row for each disk that did something
    Disk,
}

/// `events`.
#[derive(Debug, Args)]
pub struct EventsCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: EventsAction,
}

/// Verbs of `events`.
#[derive(Debug, Subcommand)]
pub enum EventsAction {
    /// The newest, oldest first
    List {
        /// Only those of the last so long, as in 30m
        #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
        last: Option<Duration>,
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u16,
    },
    /// Each as it happens, until Ctrl-C
    Watch {
        /// Also those after event number N
        #[arg(long, value_name = "N")]
        after: Option<u64>,
    },
}

/// `token`.
#[derive(Debug, Args)]
pub struct TokenCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: TokenAction,
}

/// Verbs of `token`.
#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// All tokens
    List,
    /// Make one; its secret is shown this once
    Create {
        /// Its name, also in the audit log
        name: String,
        /// viewer looks, operator makes daily changes, admin does everything
        #[arg(long, default_value = "viewer", value_name = "ROLE", value_parser = ["viewer", "operator", "admin"])]
        role: String,
        /// How long it lives [default: for ever]
        #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
        lifetime: Option<Duration>,
    },
    /// Delete one, and end its sessions
    Delete {
        /// Its name
        name: String,
    },
}

/// `audit`.
#[derive(Debug, Args)]
pub struct AuditCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: AuditAction,
}

/// Verbs of `audit`.
#[derive(Debug, Subcommand)]
pub enum AuditAction {
    /// The newest entries, oldest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u16,
    },
    /// Whether the log hangs together, and the hash to keep elsewhere
    Verify,
}

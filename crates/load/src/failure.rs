//! Why a command gave no result, and the exit code that says so.

use crate::journal::JournalError;
use crate::nfs3::NfsError;
use crate::target::{BadTarget, ConnectError};
use crate::transfer::TransferError;

/// Why a command ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No way to the server, the export or the path.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A call of the command itself (not of the load) failed.
    #[error("cannot {doing}: {source}")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// The answer.
        source: NfsError,
    },
    /// A copy failed on the server's side.
    #[error("cannot {doing}: {source}")]
    Transfer {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: TransferError,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A local file.
    #[error("{}: {source}", path.display())]
    Local {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Arguments that contradict each other or the server's limits.
    #[error("{0}")]
    Usage(Usage),
    /// The target in a journal.
    #[error(transparent)]
    Target(#[from] BadTarget),
    /// Threads, clocks, random numbers of the system.
    #[error("system: {0}")]
    System(#[from] std::io::Error),
}

/// Arguments that do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Usage {
    /// A block size is no multiple of the unit.
    #[error("block size {block_bytes} is not a multiple of --unit {unit_bytes}")]
    BlockNotUnits {
        /// The block size.
        block_bytes: u64,
        /// The unit.
        unit_bytes: u64,
    },
    /// The unit is unusable.
    #[error("--unit must be a multiple of 8 from 512 bytes to 1 MiB")]
    Unit,
    /// A block is larger than the server takes in one call.
    #[error("block size {block_bytes} is above the server's limit of {limit_bytes} per call")]
    BlockAboveLimit {
        /// The block size.
        block_bytes: u64,
        /// The server's limit.
        limit_bytes: u32,
    },
    /// Too few blocks to keep writes of one block apart.
    #[error("the file set has {blocks} blocks, too few for depth {depth}: at least four per call in flight")]
    TooFewBlocks {
        /// Blocks.
        blocks: u64,
        /// Depth.
        depth: usize,
    },
    /// Zero where at least one is needed.
    #[error("--depth, --connections, --files and --vms must be at least 1, --connections at most --depth")]
    Zero,
    /// Neither an action nor a load.
    #[error("give --target, or the action verify")]
    NothingToDo,
    /// The place has no name to use.
    #[error("the target must name something below the export")]
    NoName,
}

impl From<Usage> for Failure {
    fn from(usage: Usage) -> Self {
        Failure::Usage(usage)
    }
}

impl Failure {
    /// Process exit code (2 usage, 3 not found, 4 not allowed, 8 unreachable, 1 else).
    pub fn exit_code(&self) -> u8 {
        let of_status = |status: &NfsError| match status {
            NfsError::Status(2) => 3,
            NfsError::Status(1 | 13) => 4,
            NfsError::Status(17 | 20 | 21 | 66) => 5,
            NfsError::Status(_) => 1,
            NfsError::Rpc(crate::rpc::RpcError::Disconnected) => 8,
            NfsError::Rpc(_) => 1,
        };
        match self {
            Failure::Connect(ConnectError::Mount { source: crate::mount::MountError::Refused(2), .. }) => 3,
            Failure::Connect(ConnectError::Mount { source: crate::mount::MountError::Refused(1 | 13), .. }) => 4,
            Failure::Connect(ConnectError::Path { source, .. }) | Failure::Call { source, .. } => of_status(source),
            Failure::Transfer { source: TransferError::Nfs(source), .. } => of_status(source),
            Failure::Connect(_) => 8,
            Failure::Usage(_) | Failure::Target(_) => 2,
            Failure::Transfer { .. } | Failure::Journal(_) | Failure::Local { .. } | Failure::System(_) => 1,
        }
    }

    /// What to do about it, for the `try:` line of an error.
    pub fn advice(&self) -> &'static str {
        match self {
            Failure::Connect(ConnectError::Resolve { .. }) => "check the host name, or give an address",
            Failure::Connect(ConnectError::Connect { .. }) => "check that the server runs, and --port and --mountport",
            Failure::Connect(ConnectError::NoMountService(_)) => "give the MOUNT port with --mountport",
            Failure::Connect(ConnectError::Mount { .. }) => "list what the server offers: vmhold nfs exports TARGET",
            Failure::Connect(ConnectError::Path { .. }) => "list what is there: vmhold nfs ls TARGET",
            Failure::Call { .. } | Failure::Transfer { .. } => "look at the server's log for the reason",
            Failure::Journal(JournalError::Io(_)) => "check the path; an existing journal is never overwritten",
            Failure::Journal(_) => "use a file written by vmhold bench --journal",
            Failure::Local { .. } => "check the path and its permissions",
            Failure::Usage(_) | Failure::Target(_) => "see --help",
            Failure::System(_) => "check limits and permissions of this process",
        }
    }
}

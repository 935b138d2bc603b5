//! Who calls.

use core::net::IpAddr;

/// Most supplementary groups of AUTH_SYS.
pub const GROUPS_MAX: usize = 16;

/// Who calls, as AUTH_SYS says (AUTH_NONE callers are nobody: uid and gid 65534).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups; only the first [`GROUPS_MAX`] count.
    pub gids: Vec<u32>,
    /// Where the connection comes from; export lists go by it. IPv4 in IPv6 counts as IPv4.
    pub address: IpAddr,
    /// Machine name as AUTH_SYS gives it; for people, never for decisions.
    pub machine: String,
}

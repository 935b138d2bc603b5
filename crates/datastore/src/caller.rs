//! Who calls, and what that allows.

use core::net::IpAddr;

use crate::export::{DatastoreOptions, RootUser};
use crate::format::Inode;
use crate::refusal::Refusal;

/// Most supplementary groups of AUTH_SYS.
pub const GROUPS_MAX: usize = 16;
/// User and group "nobody".
pub const NOBODY: u32 = 65_534;

/// Who calls, as AUTH_SYS says (AUTH_NONE callers are nobody: uid and gid [`NOBODY`]).
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

/// What a caller is in one datastore, after squashing.
pub(crate) struct Rights<'a> {
    pub uid: u32,
    pub gid: u32,
    gids: &'a [u32],
    squashed: bool,
}

/// Permission bits of one class.
pub(crate) const READ: u32 = 4;
pub(crate) const WRITE: u32 = 2;
pub(crate) const EXECUTE: u32 = 1;
/// Set-user-id and set-group-id.
pub(crate) const SET_ID_BITS: u32 = 0o6000;
pub(crate) const SET_GID_BIT: u32 = 0o2000;
const STICKY_BIT: u32 = 0o1000;

/// Whether an address may use a datastore.
pub(crate) fn admits(options: &DatastoreOptions, address: IpAddr) -> bool {
    let address = address.to_canonical();
    options.clients.iter().any(|network| network.contains(&address))
}

impl<'a> Rights<'a> {
    pub fn of(caller: &'a Caller, options: &DatastoreOptions) -> Rights<'a> {
        let squashed = options.root == RootUser::Squashed;
        let map = |id: u32| if squashed && id == 0 { NOBODY } else { id };
        let gids = &caller.gids[..caller.gids.len().min(GROUPS_MAX)];
        Rights { uid: map(caller.uid), gid: map(caller.gid), gids, squashed }
    }

    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || (self.gids.contains(&gid) && !(self.squashed && gid == 0))
    }

    pub fn owns(&self, inode: &Inode) -> bool {
        self.is_root() || self.uid == inode.uid
    }

    /// Plain UNIX permission bits: owner, else group, else others. Root may do anything,
    /// except execute what nobody can.
    pub fn may(&self, inode: &Inode, wanted: u32) -> bool {
        if self.is_root() {
            let executable = inode.kind == crate::FileKind::Directory || inode.mode & 0o111 != 0;
            return wanted & EXECUTE == 0 || executable;
        }
        let class = if self.uid == inode.uid {
            inode.mode >> 6
        } else if self.in_group(inode.gid) {
            inode.mode >> 3
        } else {
            inode.mode
        };
        class & wanted == wanted
    }

    /// May it read content? An NFS server cannot tell reading from executing, and a client
    /// may have opened the file before its owner closed the mode: both may read.
    pub fn may_read(&self, inode: &Inode) -> bool {
        self.uid == inode.uid || self.may(inode, READ) || self.may(inode, EXECUTE)
    }

    /// May it change content? The owner always may, as above.
    pub fn may_write(&self, inode: &Inode) -> bool {
        self.uid == inode.uid || self.may(inode, WRITE)
    }

    /// May it add names to a directory?
    pub fn may_add(&self, dir: &Inode) -> Result<(), Refusal> {
        if self.may(dir, WRITE | EXECUTE) { Ok(()) } else { Err(Refusal::NotAllowed) }
    }

    /// May it take the name of `victim` out of `dir`? In a sticky directory only the owner
    /// of either may.
    pub fn may_take(&self, dir: &Inode, victim: &Inode) -> Result<(), Refusal> {
        self.may_add(dir)?;
        let sticky = dir.mode & STICKY_BIT != 0;
        if sticky && !self.owns(dir) && !self.owns(victim) { Err(Refusal::NotOwner) } else { Ok(()) }
    }
}

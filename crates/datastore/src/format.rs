//! Tables and rows: the only place that turns values into bytes. The same layouts stand in
//! `docs/formats/datastore.md`. All numbers are big-endian, so that key order is number order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base::{FileId, WallNanos};
use engine::store::Table;
use ipnet::IpNet;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::attr::FileKind;
use crate::export::{DatastoreOptions, RootUser};
use crate::handle::DatastoreId;
use crate::locks::{Lock, LockMode, LockOwner, LockRange};
use crate::qos::VmLimits;
use crate::reply::StoredReply;
use crate::vm::VmSnapshot;

/// Version of these layouts.
pub(crate) const FORMAT_VERSION: u16 = 1;

/// A few named rows.
pub(crate) const SUPER: Table = Table(1);
/// File id to [`Inode`].
pub(crate) const INODES: Table = Table(2);
/// Directory and cookie to target and name.
pub(crate) const ENTRIES: Table = Table(3);
/// Directory and name to cookie and target.
pub(crate) const NAMES: Table = Table(4);
/// File id and piece number to a piece of a symbolic link's text.
pub(crate) const SYMLINKS: Table = Table(5);
/// Datastore id to its settings.
pub(crate) const DATASTORES: Table = Table(6);
/// Sequence number to a kept answer.
pub(crate) const REPLIES: Table = Table(7);
/// File id and serial number to a held lock.
pub(crate) const LOCKS: Table = Table(8);
/// Client name to address.
pub(crate) const MONITORED: Table = Table(9);
/// Root directory of a deleted datastore whose content is still being removed, to its id.
pub(crate) const DOOMED: Table = Table(10);
/// What people set right about VMs: other names, and files assigned to one.
pub(crate) const VMS: Table = Table(11);
/// Number of a snapshot to [`SnapshotRow`].
pub(crate) const SNAPSHOTS: Table = Table(12);
/// Number of a snapshot and file id to [`FrozenRow`].
pub(crate) const FROZEN: Table = Table(13);

/// Key of [`SuperRow`] in [`SUPER`].
pub(crate) const SUPER_FORMAT: &[u8] = b"format";
/// Key in [`SUPER`] of the time below which every stamp ever given out lies.
pub(crate) const SUPER_STAMP: &[u8] = b"stamp";
/// Key in [`SUPER`] of the last datastore id given out.
pub(crate) const SUPER_DATASTORE: &[u8] = b"datastore";

/// Longest name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// Longest text of a symbolic link, in bytes.
pub(crate) const SYMLINK_BYTES_MAX: usize = 4095;
/// Bytes of text in one row of [`SYMLINKS`].
pub(crate) const SYMLINK_PIECE_BYTES: usize = 1024;
/// Most networks of a datastore's access list: what fits its row.
pub(crate) const NETWORKS_MAX: usize = 60;
/// Longest name of a datastore, in bytes.
pub(crate) const DATASTORE_NAME_BYTES_MAX: usize = 64;
/// Longest NLM client name or owner handle, in bytes.
pub(crate) const LOCK_NAME_BYTES_MAX: usize = 255;
/// Longest name of a VM or a snapshot, in bytes.
pub(crate) const VM_NAME_BYTES_MAX: usize = 128;
/// Longest path of a file that is frozen with a VM, in bytes.
pub(crate) const PATH_BYTES_MAX: usize = 1000;

// --- the filesystem ---

/// What the filesystem is.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct SuperRow {
    /// [`FORMAT_VERSION`].
    pub version: U16,
    /// The pool it belongs to.
    pub pool: U64,
    /// The pool's root directory.
    pub root: U64,
    /// The write verifier.
    pub write_verifier: [u8; 8],
}

// --- inodes ---

/// An inode. Size and times of a regular file are the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    pub kind: FileKind,
    /// Permission bits, 12.
    pub mode: u32,
    pub generation: u32,
    pub datastore: DatastoreId,
    /// Names; for a directory 2 plus its subdirectories.
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub device: (u32, u32),
    /// Directories: the directory above; a datastore's root and the pool's root have the
    /// pool's root.
    pub parent: FileId,
    pub accessed: WallNanos,
    /// Not for regular files.
    pub modified: WallNanos,
    /// Not for regular files.
    pub changed: WallNanos,
    /// Directories: the next name's cookie.
    pub next_cookie: u64,
    /// Directories: number of names. Symbolic links: length of the text.
    pub count: u64,
    /// Regular files made by an exclusive CREATE: its verifier.
    pub verifier: Option<[u8; 8]>,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct InodeRow {
    version: u8,
    kind: u8,
    mode: U16,
    generation: U32,
    datastore: U32,
    nlink: U32,
    uid: U32,
    gid: U32,
    device_major: U32,
    device_minor: U32,
    parent: U64,
    accessed: U64,
    modified: U64,
    changed: U64,
    next_cookie: U64,
    count: U64,
    has_verifier: u8,
    verifier: [u8; 8],
}

const KINDS: [FileKind; 7] = [
    FileKind::Regular,
    FileKind::Directory,
    FileKind::Symlink,
    FileKind::BlockDevice,
    FileKind::CharDevice,
    FileKind::Socket,
    FileKind::Fifo,
];

fn kind_code(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 0,
        FileKind::Directory => 1,
        FileKind::Symlink => 2,
        FileKind::BlockDevice => 3,
        FileKind::CharDevice => 4,
        FileKind::Socket => 5,
        FileKind::Fifo => 6,
    }
}

impl Inode {
    pub fn to_row(self) -> Vec<u8> {
        let row = InodeRow {
            version: FORMAT_VERSION as u8,
            kind: kind_code(self.kind),
            mode: U16::new(self.mode as u16 & 0o7777),
            generation: U32::new(self.generation),
            datastore: U32::new(self.datastore.0),
            nlink: U32::new(self.nlink),
            uid: U32::new(self.uid),
            gid: U32::new(self.gid),
            device_major: U32::new(self.device.0),
            device_minor: U32::new(self.device.1),
            parent: U64::new(self.parent.0),
            accessed: U64::new(self.accessed.0),
            modified: U64::new(self.modified.0),
            changed: U64::new(self.changed.0),
            next_cookie: U64::new(self.next_cookie),
            count: U64::new(self.count),
            has_verifier: u8::from(self.verifier.is_some()),
            verifier: self.verifier.unwrap_or_default(),
        };
        row.as_bytes().to_vec()
    }

    pub fn from_row(bytes: &[u8]) -> Option<Inode> {
        let row = InodeRow::read_from_bytes(bytes).ok()?;
        if row.version != FORMAT_VERSION as u8 || row.mode.get() & !0o7777 != 0 {
            return None;
        }
        Some(Inode {
            kind: *KINDS.get(usize::from(row.kind))?,
            mode: u32::from(row.mode.get()),
            generation: row.generation.get(),
            datastore: DatastoreId(row.datastore.get()),
            nlink: row.nlink.get(),
            uid: row.uid.get(),
            gid: row.gid.get(),
            device: (row.device_major.get(), row.device_minor.get()),
            parent: FileId(row.parent.get()),
            accessed: WallNanos(row.accessed.get()),
            modified: WallNanos(row.modified.get()),
            changed: WallNanos(row.changed.get()),
            next_cookie: row.next_cookie.get(),
            count: row.count.get(),
            verifier: (row.has_verifier != 0).then_some(row.verifier),
        })
    }
}

// --- keys ---

pub(crate) fn key_file(file: FileId) -> Vec<u8> {
    file.0.to_be_bytes().to_vec()
}

pub(crate) fn key_of_file(key: &[u8]) -> Option<FileId> {
    Some(FileId(u64::from_be_bytes(key.get(..8)?.try_into().ok()?)))
}

/// Key of [`ENTRIES`], and with a serial number of [`LOCKS`].
pub(crate) fn key_pair(file: FileId, number: u64) -> Vec<u8> {
    [file.0.to_be_bytes(), number.to_be_bytes()].concat()
}

pub(crate) fn key_of_pair(key: &[u8]) -> Option<(FileId, u64)> {
    let number = u64::from_be_bytes(key.get(8..)?.try_into().ok()?);
    Some((key_of_file(key)?, number))
}

pub(crate) fn key_name(dir: FileId, name: &[u8]) -> Vec<u8> {
    [&dir.0.to_be_bytes()[..], name].concat()
}

pub(crate) fn key_piece(file: FileId, piece: u16) -> Vec<u8> {
    [&file.0.to_be_bytes()[..], &piece.to_be_bytes()].concat()
}

// --- names ---

/// Row of [`ENTRIES`].
pub(crate) fn entry_to_row(target: FileId, name: &[u8]) -> Vec<u8> {
    [&target.0.to_be_bytes()[..], name].concat()
}

pub(crate) fn entry_from_row(bytes: &[u8]) -> Option<(FileId, &[u8])> {
    Some((key_of_file(bytes)?, bytes.get(8..)?))
}

/// Row of [`NAMES`].
pub(crate) fn name_to_row(cookie: u64, target: FileId) -> Vec<u8> {
    [cookie.to_be_bytes(), target.0.to_be_bytes()].concat()
}

pub(crate) fn name_from_row(bytes: &[u8]) -> Option<(u64, FileId)> {
    let (cookie, target) = key_of_pair(bytes)?;
    Some((cookie.0, FileId(target)))
}

// --- VMs ---

/// Key of [`VMS`]: the name that paths give a VM, to the one people gave it.
pub(crate) fn key_renamed(datastore: DatastoreId, name: &str) -> Vec<u8> {
    [&[1], &datastore.0.to_be_bytes()[..], name.as_bytes()].concat()
}

/// Key of [`VMS`]: a file that was assigned, to the name of its VM.
pub(crate) fn key_assigned(file: FileId) -> Vec<u8> {
    [&[2], &file.0.to_be_bytes()[..]].concat()
}

/// Key of [`VMS`]: a VM that is snapshotted by itself, to [`ScheduleRow`].
pub(crate) fn key_scheduled(datastore: DatastoreId, vm: &str) -> Vec<u8> {
    [&[3], &datastore.0.to_be_bytes()[..], vm.as_bytes()].concat()
}

/// How a VM is snapshotted by itself.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ScheduleRow {
    version: u8,
    pub every_seconds: U64,
    pub keep: U32,
}

impl ScheduleRow {
    pub fn new(every_seconds: u64, keep: u32) -> ScheduleRow {
        ScheduleRow { version: FORMAT_VERSION as u8, every_seconds: every_seconds.into(), keep: keep.into() }
    }

    pub fn to_row(self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    pub fn of(bytes: &[u8]) -> Option<ScheduleRow> {
        ScheduleRow::read_from_bytes(bytes).ok().filter(|row| row.version == FORMAT_VERSION as u8)
    }
}

/// Key of [`VMS`]: a VM with limits, to [`LimitsRow`].
pub(crate) fn key_limited(datastore: DatastoreId, vm: &str) -> Vec<u8> {
    [&[4], &datastore.0.to_be_bytes()[..], vm.as_bytes()].concat()
}

/// How much a VM may have and shall have in a second; 0 is none.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LimitsRow {
    version: u8,
    max_per_second: U64,
    min_per_second: U64,
}

impl LimitsRow {
    pub fn new(limits: VmLimits) -> LimitsRow {
        LimitsRow {
            version: FORMAT_VERSION as u8,
            max_per_second: limits.max_per_second.unwrap_or(0).into(),
            min_per_second: limits.min_per_second.unwrap_or(0).into(),
        }
    }

    pub fn to_row(self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    pub fn of(bytes: &[u8]) -> Option<LimitsRow> {
        LimitsRow::read_from_bytes(bytes).ok().filter(|row| row.version == FORMAT_VERSION as u8)
    }

    pub fn limits(&self) -> VmLimits {
        let some = |value: U64| Some(value.get()).filter(|value| *value > 0);
        VmLimits { max_per_second: some(self.max_per_second), min_per_second: some(self.min_per_second) }
    }
}

/// A snapshot of a VM as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotRow {
    pub datastore: DatastoreId,
    pub created: WallNanos,
    pub files: u32,
    pub vm: String,
    pub name: String,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SnapshotHead {
    version: u8,
    datastore: U32,
    created: U64,
    files: U32,
    vm_bytes: u8,
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

impl SnapshotRow {
    pub fn to_row(&self) -> Vec<u8> {
        let head = SnapshotHead {
            version: FORMAT_VERSION as u8,
            datastore: self.datastore.0.into(),
            created: self.created.0.into(),
            files: self.files.into(),
            vm_bytes: u8::try_from(self.vm.len()).expect("checked against VM_NAME_BYTES_MAX"),
        };
        [head.as_bytes(), self.vm.as_bytes(), self.name.as_bytes()].concat()
    }

    pub fn from_row(bytes: &[u8]) -> Option<SnapshotRow> {
        let (head, rest) = SnapshotHead::read_from_prefix(bytes).ok()?;
        if head.version != FORMAT_VERSION as u8 {
            return None;
        }
        let (vm, name) = rest.split_at_checked(usize::from(head.vm_bytes))?;
        Some(SnapshotRow {
            datastore: DatastoreId(head.datastore.get()),
            created: WallNanos(head.created.get()),
            files: head.files.get(),
            vm: text(vm)?,
            name: text(name)?,
        })
    }

    /// As people see it.
    pub fn shown(&self, datastore: &str) -> VmSnapshot {
        VmSnapshot {
            datastore: datastore.to_owned(),
            vm: self.vm.clone(),
            name: self.name.clone(),
            created: self.created,
            files: self.files,
        }
    }
}

/// What a snapshot keeps of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrozenRow {
    /// The store's snapshot of it.
    pub snapshot: FileId,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Path in the datastore.
    pub path: String,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FrozenHead {
    version: u8,
    snapshot: U64,
    mode: U16,
    uid: U32,
    gid: U32,
}

impl FrozenRow {
    pub fn to_row(&self) -> Vec<u8> {
        let head = FrozenHead {
            version: FORMAT_VERSION as u8,
            snapshot: self.snapshot.0.into(),
            mode: U16::new(self.mode as u16 & 0o7777),
            uid: self.uid.into(),
            gid: self.gid.into(),
        };
        [head.as_bytes(), self.path.as_bytes()].concat()
    }

    pub fn from_row(bytes: &[u8]) -> Option<FrozenRow> {
        let (head, path) = FrozenHead::read_from_prefix(bytes).ok()?;
        if head.version != FORMAT_VERSION as u8 || head.mode.get() & !0o7777 != 0 {
            return None;
        }
        Some(FrozenRow {
            snapshot: FileId(head.snapshot.get()),
            mode: u32::from(head.mode.get()),
            uid: head.uid.get(),
            gid: head.gid.get(),
            path: text(path)?,
        })
    }
}

// --- datastores ---

/// A datastore as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatastoreRow {
    pub root: FileId,
    pub name: String,
    pub options: DatastoreOptions,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct DatastoreHead {
    version: u8,
    flags: u8,
    root: U64,
    quota_bytes: U64,
    network_count: u8,
    name_bytes: u8,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct NetworkRow {
    family: u8,
    prefix_bits: u8,
    address: [u8; 16],
}

const FLAG_SQUASH: u8 = 1;
const FLAG_READ_ONLY: u8 = 2;
const FLAG_QUOTA: u8 = 4;

fn address_to_row(address: IpAddr) -> (u8, [u8; 16]) {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            (4, bytes)
        }
        IpAddr::V6(v6) => (6, v6.octets()),
    }
}

fn address_from_row(family: u8, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        4 => Some(IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))),
        6 => Some(IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => None,
    }
}

impl DatastoreRow {
    pub fn to_row(&self) -> Vec<u8> {
        let options = &self.options;
        let squash = if options.root == RootUser::Squashed { FLAG_SQUASH } else { 0 };
        let read_only = if options.read_only { FLAG_READ_ONLY } else { 0 };
        let quota = if options.quota_bytes.is_some() { FLAG_QUOTA } else { 0 };
        let head = DatastoreHead {
            version: FORMAT_VERSION as u8,
            flags: squash | read_only | quota,
            root: U64::new(self.root.0),
            quota_bytes: U64::new(options.quota_bytes.unwrap_or(0)),
            network_count: u8::try_from(options.clients.len()).expect("checked against NETWORKS_MAX"),
            name_bytes: u8::try_from(self.name.len()).expect("checked against DATASTORE_NAME_BYTES_MAX"),
        };
        let mut row = head.as_bytes().to_vec();
        row.extend_from_slice(self.name.as_bytes());
        for network in &options.clients {
            let (family, address) = address_to_row(network.addr());
            row.extend_from_slice(NetworkRow { family, prefix_bits: network.prefix_len(), address }.as_bytes());
        }
        row
    }

    pub fn from_row(bytes: &[u8]) -> Option<DatastoreRow> {
        let (head, rest) = DatastoreHead::read_from_prefix(bytes).ok()?;
        if head.version != FORMAT_VERSION as u8 {
            return None;
        }
        let (name, mut rest) = rest.split_at_checked(usize::from(head.name_bytes))?;
        let mut clients = Vec::new();
        for _ in 0..head.network_count {
            let (network, after) = NetworkRow::read_from_prefix(rest).ok()?;
            rest = after;
            clients.push(IpNet::new(address_from_row(network.family, network.address)?, network.prefix_bits).ok()?);
        }
        let options = DatastoreOptions {
            clients,
            root: if head.flags & FLAG_SQUASH != 0 { RootUser::Squashed } else { RootUser::Allowed },
            read_only: head.flags & FLAG_READ_ONLY != 0,
            quota_bytes: (head.flags & FLAG_QUOTA != 0).then_some(head.quota_bytes.get()),
        };
        let name = String::from_utf8(name.to_vec()).ok()?;
        Some(DatastoreRow { root: FileId(head.root.get()), name, options })
    }
}

// --- kept answers ---

pub(crate) fn reply_to_row(reply: &StoredReply) -> Vec<u8> {
    let key_bytes = u16::try_from(reply.key.len()).expect("checked against REPLY_BYTES_MAX");
    [&reply.at.0.to_be_bytes()[..], &key_bytes.to_be_bytes(), &reply.key, &reply.reply].concat()
}

pub(crate) fn reply_from_row(bytes: &[u8]) -> Option<StoredReply> {
    let at = WallNanos(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?));
    let key_bytes = u16::from_be_bytes(bytes.get(8..10)?.try_into().ok()?);
    let (key, reply) = bytes.get(10..)?.split_at_checked(usize::from(key_bytes))?;
    Some(StoredReply { key: key.to_vec(), reply: reply.to_vec(), at })
}

// --- locks ---

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LockHead {
    version: u8,
    exclusive: u8,
    offset_bytes: U64,
    len_bytes: U64,
    svid: U32,
    client_bytes: u8,
    handle_bytes: u8,
}

pub(crate) fn lock_to_row(lock: &Lock) -> Vec<u8> {
    let head = LockHead {
        version: FORMAT_VERSION as u8,
        exclusive: u8::from(lock.mode == LockMode::Exclusive),
        offset_bytes: U64::new(lock.range.offset_bytes),
        len_bytes: U64::new(lock.range.len_bytes),
        svid: U32::new(lock.owner.svid),
        client_bytes: u8::try_from(lock.owner.client.len()).expect("checked against LOCK_NAME_BYTES_MAX"),
        handle_bytes: u8::try_from(lock.owner.handle.len()).expect("checked against LOCK_NAME_BYTES_MAX"),
    };
    [head.as_bytes(), &lock.owner.client, &lock.owner.handle].concat()
}

pub(crate) fn lock_from_row(bytes: &[u8]) -> Option<Lock> {
    let (head, rest) = LockHead::read_from_prefix(bytes).ok()?;
    let (client, handle) = rest.split_at_checked(usize::from(head.client_bytes))?;
    if head.version != FORMAT_VERSION as u8 || handle.len() != usize::from(head.handle_bytes) {
        return None;
    }
    let owner = LockOwner { client: client.to_vec(), handle: handle.to_vec(), svid: head.svid.get() };
    let range = LockRange { offset_bytes: head.offset_bytes.get(), len_bytes: head.len_bytes.get() };
    let mode = if head.exclusive != 0 { LockMode::Exclusive } else { LockMode::Shared };
    Some(Lock { owner, range, mode })
}

/// Row of [`MONITORED`].
pub(crate) fn monitored_to_row(address: IpAddr) -> Vec<u8> {
    let (family, bytes) = address_to_row(address);
    [&[family][..], &bytes].concat()
}

pub(crate) fn monitored_from_row(bytes: &[u8]) -> Option<IpAddr> {
    let (family, address) = bytes.split_first()?;
    address_from_row(*family, address.try_into().ok()?)
}

/// A bare number.
pub(crate) fn number_from_row(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::store::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

    #[test]
    fn rows_come_back_and_the_largest_fit() {
        let inode = Inode {
            kind: FileKind::BlockDevice,
            mode: 0o4755,
            generation: 3,
            datastore: DatastoreId(9),
            nlink: 2,
            uid: 1000,
            gid: 1001,
            device: (8, 1),
            parent: FileId(5),
            accessed: WallNanos(1),
            modified: WallNanos(2),
            changed: WallNanos(3),
            next_cookie: 77,
            count: 4,
            verifier: Some([7; 8]),
        };
        assert_eq!(Inode::from_row(&inode.to_row()), Some(inode));
        assert_eq!(Inode::from_row(&inode.to_row()[1..]), None);
        let networks = (0..NETWORKS_MAX)
            .map(|n| if n % 2 == 0 { "10.1.2.0/24".parse().unwrap() } else { "fd00::/8".parse::<IpNet>().unwrap() });
        let options = DatastoreOptions {
            clients: networks.collect(),
            root: RootUser::Squashed,
            read_only: true,
            quota_bytes: Some(1 << 50),
        };
        let name = "x".repeat(DATASTORE_NAME_BYTES_MAX);
        let datastore = DatastoreRow { root: FileId(4), name, options };
        assert!(datastore.to_row().len() <= VALUE_BYTES_MAX);
        assert_eq!(DatastoreRow::from_row(&datastore.to_row()), Some(datastore));
        let owner = LockOwner { client: vec![1; LOCK_NAME_BYTES_MAX], handle: vec![2; LOCK_NAME_BYTES_MAX], svid: 9 };
        let lock = Lock { owner, range: LockRange { offset_bytes: 1, len_bytes: 0 }, mode: LockMode::Exclusive };
        assert!(lock_to_row(&lock).len() <= VALUE_BYTES_MAX);
        assert_eq!(lock_from_row(&lock_to_row(&lock)), Some(lock));
        assert!(key_name(FileId(1), &[b'a'; NAME_BYTES_MAX]).len() <= KEY_BYTES_MAX);
        let reply = StoredReply { key: vec![1; 40], reply: vec![2; 300], at: WallNanos(8) };
        assert_eq!(reply_from_row(&reply_to_row(&reply)), Some(reply));
    }
}

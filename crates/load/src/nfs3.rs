//! NFS version 3 (RFC 1813): all procedures a client needs, over a [`Connection`].
//!
//! Every method is one call. `NFS3ERR_JUKEBOX` (try later) is waited out when the
//! connection rides out outages; every other status is the caller's.

use std::time::Duration;

use bytes::Bytes;

use crate::connection::Connection;
use crate::rpc::{NFS3, RpcError};
use crate::xdr::{Decoder, Encoder, Malformed};

mod decode;

pub(crate) use decode::handle as decode_handle;
pub use decode::{Attributes, FileKind, FilesystemInfo, FilesystemSpace, PathLimits, Time};

/// Longest file handle of version 3, in bytes.
pub const HANDLE_BYTES_MAX: usize = 64;
/// Pause before a call answered with JUKEBOX is made again.
const JUKEBOX_PAUSE: Duration = Duration::from_millis(100);
const JUKEBOX: u32 = 10_008;

/// Why a call gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NfsError {
    /// The server answered with this status (RFC 1813 section 2.6).
    #[error("{}", status_name(*.0))]
    Status(u32),
    /// No usable answer.
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

impl From<Malformed> for NfsError {
    fn from(malformed: Malformed) -> Self {
        NfsError::Rpc(malformed.into())
    }
}

/// NFS3ERR_NOENT.
pub const NOENT: NfsError = NfsError::Status(2);
/// NFS3ERR_EXIST.
pub const EXIST: NfsError = NfsError::Status(17);

/// Name of a status as in RFC 1813.
pub fn status_name(status: u32) -> &'static str {
    match status {
        0 => "NFS3_OK",
        1 => "NFS3ERR_PERM",
        2 => "NFS3ERR_NOENT",
        5 => "NFS3ERR_IO",
        6 => "NFS3ERR_NXIO",
        13 => "NFS3ERR_ACCES",
        17 => "NFS3ERR_EXIST",
        18 => "NFS3ERR_XDEV",
        19 => "NFS3ERR_NODEV",
        20 => "NFS3ERR_NOTDIR",
        21 => "NFS3ERR_ISDIR",
        22 => "NFS3ERR_INVAL",
        27 => "NFS3ERR_FBIG",
        28 => "NFS3ERR_NOSPC",
        30 => "NFS3ERR_ROFS",
        31 => "NFS3ERR_MLINK",
        63 => "NFS3ERR_NAMETOOLONG",
        66 => "NFS3ERR_NOTEMPTY",
        69 => "NFS3ERR_DQUOT",
        70 => "NFS3ERR_STALE",
        71 => "NFS3ERR_REMOTE",
        10_001 => "NFS3ERR_BADHANDLE",
        10_002 => "NFS3ERR_NOT_SYNC",
        10_003 => "NFS3ERR_BAD_COOKIE",
        10_004 => "NFS3ERR_NOTSUPP",
        10_005 => "NFS3ERR_TOOSMALL",
        10_006 => "NFS3ERR_SERVERFAULT",
        10_007 => "NFS3ERR_BADTYPE",
        10_008 => "NFS3ERR_JUKEBOX",
        _ => "a status outside RFC 1813",
    }
}

/// A file handle: up to 64 opaque bytes, held inline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FileHandle {
    length: u8,
    bytes: [u8; HANDLE_BYTES_MAX],
}

impl FileHandle {
    /// From at most 64 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut handle = FileHandle { length: 0, bytes: [0; HANDLE_BYTES_MAX] };
        handle
            .bytes
            .get_mut(..bytes.len())
            .ok_or(Malformed("file handle longer than 64 bytes"))?
            .copy_from_slice(bytes);
        handle.length = bytes.len() as u8;
        Ok(handle)
    }

    /// The opaque bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length.into()]
    }
}

impl std::fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileHandle(")?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// How far a WRITE must be stable before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stable {
    /// A COMMIT will follow.
    Unstable = 0,
    /// Data stable.
    DataSync = 1,
    /// Data and metadata stable.
    FileSync = 2,
}

/// How CREATE treats an existing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateMode {
    /// Take it.
    Unchecked,
    /// Refuse with EXIST.
    Guarded,
    /// Refuse unless made by this very request; the verifier tells.
    Exclusive([u8; 8]),
}

/// Attributes to set; `None` leaves them alone. Times are not set by this client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Size in bytes.
    pub size_bytes: Option<u64>,
    /// Set the modification time to the server's clock.
    pub touch: bool,
}

impl SetAttributes {
    fn encode(&self, xdr: &mut Encoder<'_>) {
        xdr.bool(self.mode.is_some());
        if let Some(mode) = self.mode {
            xdr.u32(mode);
        }
        xdr.bool(false);
        xdr.bool(false);
        xdr.bool(self.size_bytes.is_some());
        if let Some(size) = self.size_bytes {
            xdr.u64(size);
        }
        xdr.u32(0);
        xdr.u32(self.touch.into());
    }
}

/// Data read.
#[derive(Clone, Debug)]
pub struct ReadReply {
    /// The bytes, still in the receive buffer.
    pub data: Bytes,
    /// Whether the end of the file was reached.
    pub eof: bool,
}

/// Answer to WRITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteReply {
    /// Bytes taken, at most what was sent.
    pub count: u32,
    /// How far they are stable (0, 1, 2 as in [`Stable`]).
    pub committed: u32,
    /// Changes when unstable data may have been lost.
    pub verifier: [u8; 8],
}

/// One directory entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// File id.
    pub file_id: u64,
    /// Attributes, if asked for (READDIRPLUS) and given.
    pub attributes: Option<Attributes>,
    /// Handle, if asked for (READDIRPLUS) and given.
    pub handle: Option<FileHandle>,
}

/// A page of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryPage {
    /// Entries in the server's order.
    pub entries: Vec<Entry>,
    /// Where the next page starts.
    pub cookie: u64,
    /// Goes with the cookie.
    pub verifier: [u8; 8],
    /// Whether this was the last page.
    pub eof: bool,
}

/// NFSv3 calls over one connection.
#[derive(Clone, Debug)]
pub struct NfsClient {
    connection: Connection,
}

impl NfsClient {
    /// Uses `connection`, which leads to an NFS service.
    pub fn new(connection: Connection) -> Self {
        NfsClient { connection }
    }

    /// The connection used.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// One call; gives the results behind an OK status.
    async fn ask(&self, procedure: u32, arguments: impl Fn(&mut Encoder<'_>)) -> Result<Bytes, NfsError> {
        loop {
            let results = self.connection.call(NFS3, procedure, &arguments).await?;
            match Decoder::new(&results).u32()? {
                0 => return Ok(results.slice(4..)),
                JUKEBOX if self.connection.rides_out() => tokio::time::sleep(JUKEBOX_PAUSE).await,
                status => return Err(NfsError::Status(status)),
            }
        }
    }

    /// NULL: is the service there?
    pub async fn null(&self) -> Result<(), NfsError> {
        self.connection.call(NFS3, 0, |_| {}).await?;
        Ok(())
    }

    /// GETATTR.
    pub async fn getattr(&self, file: &FileHandle) -> Result<Attributes, NfsError> {
        let results = self.ask(1, |xdr| xdr.opaque(file.as_bytes())).await?;
        Ok(Attributes::decode(&mut Decoder::new(&results))?)
    }

    /// SETATTR without guard.
    pub async fn setattr(&self, file: &FileHandle, set: &SetAttributes) -> Result<(), NfsError> {
        self.ask(2, |xdr| {
            xdr.opaque(file.as_bytes());
            set.encode(xdr);
            xdr.bool(false);
        })
        .await?;
        Ok(())
    }

    /// LOOKUP.
    pub async fn lookup(
        &self,
        directory: &FileHandle,
        name: &[u8],
    ) -> Result<(FileHandle, Option<Attributes>), NfsError> {
        let results = self.ask(3, |xdr| encode_place(xdr, directory, name)).await?;
        let xdr = &mut Decoder::new(&results);
        Ok((decode::handle(xdr)?, decode::optional_attributes(xdr)?))
    }

    /// ACCESS: which of the permission bits `wanted` the server would grant.
    pub async fn access(&self, file: &FileHandle, wanted: u32) -> Result<u32, NfsError> {
        let results = self
            .ask(4, |xdr| {
                xdr.opaque(file.as_bytes());
                xdr.u32(wanted);
            })
            .await?;
        let xdr = &mut Decoder::new(&results);
        decode::optional_attributes(xdr)?;
        Ok(xdr.u32()?)
    }

    /// READLINK.
    pub async fn readlink(&self, link: &FileHandle) -> Result<Vec<u8>, NfsError> {
        let results = self.ask(5, |xdr| xdr.opaque(link.as_bytes())).await?;
        let xdr = &mut Decoder::new(&results);
        decode::optional_attributes(xdr)?;
        Ok(xdr.opaque(4096)?.to_vec())
    }

    /// READ of up to `count` bytes; fewer may come, at the end of the file or not.
    pub async fn read(&self, file: &FileHandle, offset_bytes: u64, count: u32) -> Result<ReadReply, NfsError> {
        let results = self
            .ask(6, |xdr| {
                xdr.opaque(file.as_bytes());
                xdr.u64(offset_bytes);
                xdr.u32(count);
            })
            .await?;
        let xdr = &mut Decoder::new(&results);
        decode::optional_attributes(xdr)?;
        let announced = xdr.u32()?;
        let eof = xdr.bool()?;
        let data = xdr.opaque(count as usize)?;
        if data.len() != announced as usize {
            return Err(Malformed("READ count").into());
        }
        Ok(ReadReply { data: results.slice_ref(data), eof })
    }

    /// WRITE of `length` bytes that `fill` appends to the request (and appends again
    /// if the server says JUKEBOX).
    pub async fn write_with(
        &self,
        file: &FileHandle,
        (offset_bytes, length): (u64, u32),
        stable: Stable,
        fill: impl Fn(&mut Vec<u8>),
    ) -> Result<WriteReply, NfsError> {
        let results = self
            .ask(7, |xdr| {
                xdr.opaque(file.as_bytes());
                xdr.u64(offset_bytes);
                xdr.u32(length);
                xdr.u32(stable as u32);
                xdr.opaque_with(length as usize, &fill);
            })
            .await?;
        let xdr = &mut Decoder::new(&results);
        decode::skip_wcc(xdr)?;
        let reply = WriteReply { count: xdr.u32()?, committed: xdr.u32()?, verifier: xdr.fixed()? };
        if reply.count > length || reply.committed > 2 {
            return Err(Malformed("WRITE answer").into());
        }
        Ok(reply)
    }

    /// WRITE of `data`.
    pub async fn write(
        &self,
        file: &FileHandle,
        offset_bytes: u64,
        stable: Stable,
        data: &[u8],
    ) -> Result<WriteReply, NfsError> {
        let length = u32::try_from(data.len()).map_err(|_| NfsError::Status(22))?;
        self.write_with(file, (offset_bytes, length), stable, |out| out.extend_from_slice(data)).await
    }

    /// CREATE. Servers may leave the handle out; then it is looked up.
    pub async fn create(&self, directory: &FileHandle, name: &[u8], mode: CreateMode) -> Result<FileHandle, NfsError> {
        let arguments = |xdr: &mut Encoder<'_>| {
            encode_place(xdr, directory, name);
            match mode {
                CreateMode::Unchecked | CreateMode::Guarded => {
                    xdr.u32((mode == CreateMode::Guarded).into());
                    SetAttributes { mode: Some(0o644), ..SetAttributes::default() }.encode(xdr);
                }
                CreateMode::Exclusive(verifier) => {
                    xdr.u32(2);
                    xdr.fixed(&verifier);
                }
            }
        };
        self.make(8, (directory, name), arguments).await
    }

    /// MKDIR.
    pub async fn mkdir(&self, directory: &FileHandle, name: &[u8]) -> Result<FileHandle, NfsError> {
        let arguments = |xdr: &mut Encoder<'_>| {
            encode_place(xdr, directory, name);
            SetAttributes { mode: Some(0o755), ..SetAttributes::default() }.encode(xdr);
        };
        self.make(9, (directory, name), arguments).await
    }

    /// SYMLINK.
    pub async fn symlink(&self, directory: &FileHandle, name: &[u8], to: &[u8]) -> Result<FileHandle, NfsError> {
        let arguments = |xdr: &mut Encoder<'_>| {
            encode_place(xdr, directory, name);
            SetAttributes::default().encode(xdr);
            xdr.opaque(to);
        };
        self.make(10, (directory, name), arguments).await
    }

    async fn make(
        &self,
        procedure: u32,
        (directory, name): (&FileHandle, &[u8]),
        arguments: impl Fn(&mut Encoder<'_>),
    ) -> Result<FileHandle, NfsError> {
        let results = self.ask(procedure, arguments).await?;
        let xdr = &mut Decoder::new(&results);
        if xdr.bool()? { Ok(decode::handle(xdr)?) } else { Ok(self.lookup(directory, name).await?.0) }
    }

    /// REMOVE.
    pub async fn remove(&self, directory: &FileHandle, name: &[u8]) -> Result<(), NfsError> {
        self.ask(12, |xdr| encode_place(xdr, directory, name)).await?;
        Ok(())
    }

    /// RMDIR.
    pub async fn rmdir(&self, directory: &FileHandle, name: &[u8]) -> Result<(), NfsError> {
        self.ask(13, |xdr| encode_place(xdr, directory, name)).await?;
        Ok(())
    }

    /// RENAME.
    pub async fn rename(&self, from: (&FileHandle, &[u8]), to: (&FileHandle, &[u8])) -> Result<(), NfsError> {
        self.ask(14, |xdr| {
            encode_place(xdr, from.0, from.1);
            encode_place(xdr, to.0, to.1);
        })
        .await?;
        Ok(())
    }

    /// LINK.
    pub async fn link(&self, file: &FileHandle, to: (&FileHandle, &[u8])) -> Result<(), NfsError> {
        self.ask(15, |xdr| {
            xdr.opaque(file.as_bytes());
            encode_place(xdr, to.0, to.1);
        })
        .await?;
        Ok(())
    }

    /// READDIR: one page behind `after` (an empty page starts).
    pub async fn readdir(&self, directory: &FileHandle, after: &DirectoryPage) -> Result<DirectoryPage, NfsError> {
        let results = self
            .ask(16, |xdr| {
                xdr.opaque(directory.as_bytes());
                xdr.u64(after.cookie);
                xdr.fixed(&after.verifier);
                xdr.u32(32 << 10);
            })
            .await?;
        Ok(decode::directory_page(&mut Decoder::new(&results), false)?)
    }

    /// READDIRPLUS: one page behind `after` (an empty page starts).
    pub async fn readdirplus(&self, directory: &FileHandle, after: &DirectoryPage) -> Result<DirectoryPage, NfsError> {
        let results = self
            .ask(17, |xdr| {
                xdr.opaque(directory.as_bytes());
                xdr.u64(after.cookie);
                xdr.fixed(&after.verifier);
                xdr.u32(32 << 10);
                xdr.u32(128 << 10);
            })
            .await?;
        Ok(decode::directory_page(&mut Decoder::new(&results), true)?)
    }

    /// FSSTAT.
    pub async fn fsstat(&self, root: &FileHandle) -> Result<FilesystemSpace, NfsError> {
        let results = self.ask(18, |xdr| xdr.opaque(root.as_bytes())).await?;
        Ok(FilesystemSpace::decode(&mut Decoder::new(&results))?)
    }

    /// FSINFO.
    pub async fn fsinfo(&self, root: &FileHandle) -> Result<FilesystemInfo, NfsError> {
        let results = self.ask(19, |xdr| xdr.opaque(root.as_bytes())).await?;
        Ok(FilesystemInfo::decode(&mut Decoder::new(&results))?)
    }

    /// PATHCONF.
    pub async fn pathconf(&self, file: &FileHandle) -> Result<PathLimits, NfsError> {
        let results = self.ask(20, |xdr| xdr.opaque(file.as_bytes())).await?;
        Ok(PathLimits::decode(&mut Decoder::new(&results))?)
    }

    /// COMMIT of a range (`count` 0: to the end); gives the write verifier.
    pub async fn commit(&self, file: &FileHandle, offset_bytes: u64, count: u32) -> Result<[u8; 8], NfsError> {
        let results = self
            .ask(21, |xdr| {
                xdr.opaque(file.as_bytes());
                xdr.u64(offset_bytes);
                xdr.u32(count);
            })
            .await?;
        let xdr = &mut Decoder::new(&results);
        decode::skip_wcc(xdr)?;
        Ok(xdr.fixed()?)
    }
}

fn encode_place(xdr: &mut Encoder<'_>, directory: &FileHandle, name: &[u8]) {
    xdr.opaque(directory.as_bytes());
    xdr.opaque(name);
}

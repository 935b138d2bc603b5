//! MOUNT version 3 (RFC 1813 appendix I) and the port mapper (RFC 1833), as a client.

use crate::connection::Connection;
use crate::nfs3::FileHandle;
use crate::rpc::{MOUNT3, PORTMAP2, Program, RpcError};
use crate::xdr::{Decoder, Malformed};

/// Longest path and name of the protocol.
const PATH_BYTES_MAX: usize = 1024;

/// Why MOUNT gave no handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// `mountstat3` other than OK: 1 not owner, 2 no such export, 5 I/O error,
    /// 13 access denied, 20 not a directory, 22 invalid, 63 name too long.
    #[error("mount refused ({})", mount_status_name(*.0))]
    Refused(u32),
    /// No usable answer.
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

impl From<Malformed> for MountError {
    fn from(malformed: Malformed) -> Self {
        MountError::Rpc(malformed.into())
    }
}

fn mount_status_name(status: u32) -> &'static str {
    match status {
        1 => "MNT3ERR_PERM",
        2 => "MNT3ERR_NOENT",
        5 => "MNT3ERR_IO",
        13 => "MNT3ERR_ACCES",
        20 => "MNT3ERR_NOTDIR",
        22 => "MNT3ERR_INVAL",
        63 => "MNT3ERR_NAMETOOLONG",
        10_004 => "MNT3ERR_NOTSUPP",
        10_006 => "MNT3ERR_SERVERFAULT",
        _ => "a status outside RFC 1813",
    }
}

/// One export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Path to mount.
    pub path: Vec<u8>,
    /// Who may; empty: everyone.
    pub groups: Vec<Vec<u8>>,
}

/// MNT: the handle of an exported directory.
pub async fn mount(connection: &Connection, path: &[u8]) -> Result<FileHandle, MountError> {
    let results = connection.call(MOUNT3, 1, |xdr| xdr.opaque(path)).await?;
    let xdr = &mut Decoder::new(&results);
    match xdr.u32()? {
        0 => Ok(crate::nfs3::decode_handle(xdr)?),
        status => Err(MountError::Refused(status)),
    }
}

/// UMNT: takes this client off the server's list.
pub async fn unmount(connection: &Connection, path: &[u8]) -> Result<(), RpcError> {
    connection.call(MOUNT3, 3, |xdr| xdr.opaque(path)).await.map(drop)
}

/// EXPORT: what the server offers.
pub async fn exports(connection: &Connection) -> Result<Vec<Export>, RpcError> {
    let results = connection.call(MOUNT3, 5, |_| {}).await?;
    let xdr = &mut Decoder::new(&results);
    let mut exports = Vec::new();
    while xdr.bool()? {
        let path = xdr.opaque(PATH_BYTES_MAX)?.to_vec();
        let mut groups = Vec::new();
        while xdr.bool()? {
            groups.push(xdr.opaque(PATH_BYTES_MAX)?.to_vec());
        }
        exports.push(Export { path, groups });
    }
    Ok(exports)
}

/// DUMP: who has what mounted, as (host, path).
pub async fn mounted(connection: &Connection) -> Result<Vec<(Vec<u8>, Vec<u8>)>, RpcError> {
    let results = connection.call(MOUNT3, 2, |_| {}).await?;
    let xdr = &mut Decoder::new(&results);
    let mut mounts = Vec::new();
    while xdr.bool()? {
        mounts.push((xdr.opaque(PATH_BYTES_MAX)?.to_vec(), xdr.opaque(PATH_BYTES_MAX)?.to_vec()));
    }
    Ok(mounts)
}

/// GETPORT over TCP; `None` if the program is not registered.
pub async fn port_of(portmapper: &Connection, program: Program) -> Result<Option<u16>, RpcError> {
    let results = portmapper
        .call(PORTMAP2, 3, |xdr| {
            xdr.u32(program.number);
            xdr.u32(program.version);
            xdr.u32(6);
            xdr.u32(0);
        })
        .await?;
    let port = Decoder::new(&results).u32()?;
    let port = u16::try_from(port).map_err(|_| Malformed("port"))?;
    Ok((port != 0).then_some(port))
}

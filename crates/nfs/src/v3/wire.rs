//! The types that NFSv3 procedures share, as bytes (RFC 1813 sections 2.5 and 2.6).

use base::WallNanos;
use datastore::{Attr, FileKind, Handle, PreAttr, SetAttr, SetTime, Wcc};

use crate::xdr::{Decoder, Encoder, Malformed};

/// Longest handle that is looked at (`NFS3_FHSIZE`).
pub const HANDLE_BYTES_MAX: usize = 64;
/// Longest name that is looked at; longer ones than a file system allows are answered by
/// the datastore (`NAMETOOLONG`), absurd ones are malformed.
pub const NAME_BYTES_MAX: usize = 4096;
/// Longest text of a symbolic link that is looked at.
pub const PATH_BYTES_MAX: usize = 8192;
/// Bytes of `fattr3`.
pub const ATTR_BYTES: usize = 84;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// `nfs_fh3`, still unchecked.
pub fn handle_bytes<'a>(input: &mut Decoder<'a>) -> Result<&'a [u8], Malformed> {
    input.opaque(HANDLE_BYTES_MAX)
}

/// `filename3`: any bytes.
pub fn name<'a>(input: &mut Decoder<'a>) -> Result<&'a [u8], Malformed> {
    input.opaque(NAME_BYTES_MAX)
}

/// `nfstime3`.
pub fn time(input: &mut Decoder<'_>) -> Result<WallNanos, Malformed> {
    let (seconds, nanos) = (input.u32()?, input.u32()?);
    Ok(WallNanos(u64::from(seconds) * NANOS_PER_SECOND + u64::from(nanos)))
}

fn set_u32(input: &mut Decoder<'_>) -> Result<Option<u32>, Malformed> {
    Ok(if input.bool()? { Some(input.u32()?) } else { None })
}

fn set_time(input: &mut Decoder<'_>) -> Result<SetTime, Malformed> {
    match input.u32()? {
        0 => Ok(SetTime::Keep),
        1 => Ok(SetTime::Server),
        2 => Ok(SetTime::Client(time(input)?)),
        _ => Err(Malformed::BadValue),
    }
}

/// `sattr3`.
pub fn set_attr(input: &mut Decoder<'_>) -> Result<SetAttr, Malformed> {
    Ok(SetAttr {
        mode: set_u32(input)?,
        uid: set_u32(input)?,
        gid: set_u32(input)?,
        size_bytes: if input.bool()? { Some(input.u64()?) } else { None },
        accessed: set_time(input)?,
        modified: set_time(input)?,
    })
}

/// Writes `nfs_fh3`.
pub fn put_handle(out: &mut Encoder, handle: &Handle) {
    out.opaque(handle.as_bytes());
}

/// Writes `post_op_fh3`.
pub fn put_post_handle(out: &mut Encoder, handle: Option<&Handle>) {
    out.bool(handle.is_some());
    if let Some(handle) = handle {
        put_handle(out, handle);
    }
}

/// Seconds are 32 bits on this wire: times from 2106 on are shown as the last second.
fn put_time(out: &mut Encoder, at: WallNanos) {
    out.u32(u32::try_from(at.0 / NANOS_PER_SECOND).unwrap_or(u32::MAX));
    out.u32((at.0 % NANOS_PER_SECOND) as u32);
}

fn kind_number(kind: FileKind) -> u32 {
    match kind {
        FileKind::Regular => 1,
        FileKind::Directory => 2,
        FileKind::BlockDevice => 3,
        FileKind::CharDevice => 4,
        FileKind::Symlink => 5,
        FileKind::Socket => 6,
        FileKind::Fifo => 7,
    }
}

/// Writes `fattr3`: [`ATTR_BYTES`] bytes.
pub fn put_attr(out: &mut Encoder, attr: &Attr) {
    out.words(&[kind_number(attr.kind), attr.mode, attr.nlink, attr.uid, attr.gid]);
    out.u64(attr.size_bytes);
    out.u64(attr.used_bytes);
    out.u32(attr.device.0);
    out.u32(attr.device.1);
    out.u64(attr.fsid);
    out.u64(attr.file.0);
    [attr.accessed, attr.modified, attr.changed].into_iter().for_each(|at| put_time(out, at));
}

/// Writes `post_op_attr`.
pub fn put_post_attr(out: &mut Encoder, attr: Option<&Attr>) {
    out.bool(attr.is_some());
    if let Some(attr) = attr {
        put_attr(out, attr);
    }
}

fn put_pre_attr(out: &mut Encoder, attr: Option<&PreAttr>) {
    out.bool(attr.is_some());
    if let Some(attr) = attr {
        out.u64(attr.size_bytes);
        put_time(out, attr.modified);
        put_time(out, attr.changed);
    }
}

/// Writes `wcc_data`.
pub fn put_wcc(out: &mut Encoder, wcc: &Wcc) {
    put_pre_attr(out, wcc.before.as_ref());
    put_post_attr(out, wcc.after.as_ref());
}

/// Most bytes of `wcc_data`.
pub const WCC_BYTES_MAX: usize = 4 + 24 + 4 + ATTR_BYTES;

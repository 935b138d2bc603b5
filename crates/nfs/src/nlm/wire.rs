//! NLM values as bytes: `nlm4.x` (X/Open XNFS chapter 10) and, with 32-bit offsets, its
//! forebear of versions 1 to 3.

use datastore::locks::{Lock, LockMode, LockOwner, LockRange};

use crate::v3::wire::HANDLE_BYTES_MAX;
use crate::xdr::{Decoder, Encoder, Malformed};

/// Longest cookie taken; Linux sends 4 to 32 bytes. Short enough that every answer fits a
/// slot of the duplicate-request cache.
pub const COOKIE_BYTES_MAX: usize = 64;
/// Longest machine name taken: with an address behind it, it is a lock owner's client.
pub const NAME_BYTES_MAX: usize = 200;
/// Longest owner handle taken.
pub const OWNER_BYTES_MAX: usize = 255;

/// Width of offsets and lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Versions 1 to 3.
    Narrow,
    /// Version 4.
    Wide,
}

impl Width {
    fn get(self, input: &mut Decoder<'_>) -> Result<u64, Malformed> {
        match self {
            Width::Narrow => input.u32().map(u64::from),
            Width::Wide => input.u64(),
        }
    }

    /// What does not fit 32 bits is shown as "to the end".
    fn put(self, out: &mut Encoder, value: u64) {
        match self {
            Width::Narrow => out.u32(u32::try_from(value).unwrap_or(0)),
            Width::Wide => out.u64(value),
        }
    }
}

/// `nlm4_lock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockArgs<'a> {
    /// `caller_name`.
    pub name: &'a [u8],
    /// The file's handle, unchecked.
    pub file: &'a [u8],
    /// `oh`.
    pub owner: &'a [u8],
    /// `svid`.
    pub svid: u32,
    /// Which bytes.
    pub range: LockRange,
}

impl<'a> LockArgs<'a> {
    fn decode(input: &mut Decoder<'a>, width: Width) -> Result<LockArgs<'a>, Malformed> {
        let name = input.opaque(NAME_BYTES_MAX)?;
        let file = input.opaque(HANDLE_BYTES_MAX)?;
        let owner = input.opaque(OWNER_BYTES_MAX)?;
        let svid = input.u32()?;
        let range = LockRange { offset_bytes: width.get(input)?, len_bytes: width.get(input)? };
        Ok(LockArgs { name, file, owner, svid, range })
    }

    /// The owner, with `client` as the machine.
    pub fn owner(&self, client: Vec<u8>) -> LockOwner {
        LockOwner { client, handle: self.owner.to_vec(), svid: self.svid }
    }
}

/// Arguments of TEST, LOCK, CANCEL, UNLOCK and GRANTED, as far as each has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Args<'a> {
    /// Echoed in the answer.
    pub cookie: &'a [u8],
    /// LOCK, CANCEL: wait for it.
    pub block: bool,
    /// Nobody else, or readers too.
    pub mode: LockMode,
    /// The lock.
    pub lock: LockArgs<'a>,
}

/// Which fields stand before and after the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `nlm4_testargs`: cookie, exclusive, lock.
    Test,
    /// `nlm4_lockargs`: cookie, block, exclusive, lock, reclaim, state.
    Lock,
    /// `nlm4_cancargs`: cookie, block, exclusive, lock.
    Cancel,
    /// `nlm4_unlockargs`: cookie, lock.
    Unlock,
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>, shape: Shape, width: Width) -> Result<Args<'a>, Malformed> {
        let cookie = input.opaque(COOKIE_BYTES_MAX)?;
        let block = matches!(shape, Shape::Lock | Shape::Cancel) && input.bool()?;
        let exclusive = shape == Shape::Unlock || input.bool()?;
        let mode = if exclusive { LockMode::Exclusive } else { LockMode::Shared };
        let lock = LockArgs::decode(input, width)?;
        if shape == Shape::Lock {
            // A reclaim of a lock that is still held is granted like any other request.
            input.bool()?;
            input.u32()?;
        }
        Ok(Args { cookie, block, mode, lock })
    }
}

/// Arguments of SHARE and UNSHARE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareArgs<'a> {
    /// Echoed in the answer.
    pub cookie: &'a [u8],
    /// `caller_name`.
    pub name: &'a [u8],
    /// The file's handle, unchecked.
    pub file: &'a [u8],
    /// `oh`.
    pub owner: &'a [u8],
    /// What is denied to others: bit 0 reading, bit 1 writing.
    pub deny: u32,
    /// What is wanted: the same bits.
    pub access: u32,
}

impl<'a> ShareArgs<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<ShareArgs<'a>, Malformed> {
        let args = ShareArgs {
            cookie: input.opaque(COOKIE_BYTES_MAX)?,
            name: input.opaque(NAME_BYTES_MAX)?,
            file: input.opaque(HANDLE_BYTES_MAX)?,
            owner: input.opaque(OWNER_BYTES_MAX)?,
            deny: input.u32()?,
            access: input.u32()?,
        };
        input.bool()?;
        if args.deny > 3 || args.access > 3 { Err(Malformed::BadValue) } else { Ok(args) }
    }
}

/// Writes `nlm4_holder`.
pub fn put_holder(out: &mut Encoder, holder: &Lock, width: Width) {
    out.bool(holder.mode == LockMode::Exclusive);
    out.u32(holder.owner.svid);
    out.opaque(&holder.owner.handle);
    width.put(out, holder.range.offset_bytes);
    width.put(out, holder.range.len_bytes);
}

/// Writes `nlm4_testargs`, for GRANTED.
pub fn put_granted(out: &mut Encoder, (cookie, file): (&[u8], &[u8]), lock: (&Lock, &[u8]), width: Width) {
    let (lock, name) = lock;
    out.opaque(cookie);
    out.bool(lock.mode == LockMode::Exclusive);
    out.opaque(name);
    out.opaque(file);
    out.opaque(&lock.owner.handle);
    out.u32(lock.owner.svid);
    width.put(out, lock.range.offset_bytes);
    width.put(out, lock.range.len_bytes);
}

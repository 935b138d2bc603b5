//! Answers in the transmission phase.

use zerocopy::IntoBytes;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::Errno;

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668e_33ef;
const FLAG_DONE: u16 = 1;
const TYPE_NONE: u16 = 0;
const TYPE_OFFSET_DATA: u16 = 1;
const TYPE_ERROR: u16 = (1 << 15) + 1;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Simple {
    magic: U32,
    error: U32,
    cookie: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Chunk {
    magic: U32,
    flags: U16,
    kind: U16,
    cookie: U64,
    length_bytes: U32,
}

fn chunk(kind: u16, cookie: u64, length_bytes: usize) -> Vec<u8> {
    let chunk = Chunk {
        magic: U32::new(STRUCTURED_MAGIC),
        flags: U16::new(FLAG_DONE),
        kind: U16::new(kind),
        cookie: U64::new(cookie),
        length_bytes: U32::new(length_bytes as u32),
    };
    chunk.as_bytes().to_vec()
}

fn simple(cookie: u64, error: u32) -> Vec<u8> {
    Simple { magic: U32::new(SIMPLE_MAGIC), error: U32::new(error), cookie: U64::new(cookie) }.as_bytes().to_vec()
}

/// Everything that was asked for is done.
pub fn done(cookie: u64, structured: bool) -> Vec<u8> {
    if structured { chunk(TYPE_NONE, cookie, 0) } else { simple(cookie, 0) }
}

/// It is not.
pub fn failed(cookie: u64, structured: bool, errno: Errno) -> Vec<u8> {
    if !structured {
        return simple(cookie, errno as u32);
    }
    let mut bytes = chunk(TYPE_ERROR, cookie, 6);
    bytes.extend_from_slice(&(errno as u32).to_be_bytes());
    bytes.extend_from_slice(&0_u16.to_be_bytes());
    bytes
}

/// What comes before the `length_bytes` of a read that was done.
pub fn data(cookie: u64, structured: bool, offset_bytes: u64, length_bytes: usize) -> Vec<u8> {
    if !structured {
        return simple(cookie, 0);
    }
    let mut bytes = chunk(TYPE_OFFSET_DATA, cookie, 8 + length_bytes);
    bytes.extend_from_slice(&offset_bytes.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_as_the_protocol_writes_them() {
        assert_eq!(done(1, false), [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(failed(1, false, Errno::NoSpace)[4..8], [0, 0, 0, 28]);
        let structured = data(2, true, 3, 512);
        assert_eq!(structured[..8], [0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1]);
        assert_eq!(structured[16..20], 520_u32.to_be_bytes());
        assert_eq!(structured[20..28], 3_u64.to_be_bytes());
        assert_eq!(failed(2, true, Errno::Io)[6..8], [0x80, 1]);
        assert_eq!(done(2, true).len(), 20);
    }
}

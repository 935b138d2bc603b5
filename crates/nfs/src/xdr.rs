//! XDR (RFC 4506) without trust and without copies.
//!
//! [`Decoder`] walks a byte slice. Every length is compared with its own bound and with
//! what is left *before* it is used, and nothing is allocated because of a number found
//! in the input: variable data come back as slices of it, lists are read item by item.
//!
//! [`Encoder`] appends to a buffer that is used again and again. Both are big-endian in
//! units of four bytes; padding is written as zeros and not looked at when read, since
//! old clients leave garbage there.

/// Input that does not follow the protocol. It is answered with `GARBAGE_ARGS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The data ends before the value does.
    #[error("data ends inside a value")]
    Short,
    /// A length is above the bound that the protocol or this server sets.
    #[error("length above its bound")]
    TooLong,
    /// An enumeration, union or boolean has a value that it does not have.
    #[error("value outside its enumeration")]
    BadValue,
}

/// Bytes of padding that follow `len` bytes of data.
pub const fn pad_bytes(len: usize) -> usize {
    len.wrapping_neg() & 3
}

/// Reads values from the front of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// A decoder at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { rest: bytes }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(front)
    }

    /// An unsigned 32-bit number.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        let (front, rest) = self.rest.split_first_chunk().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*front))
    }

    /// An unsigned 64-bit number.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        let (front, rest) = self.rest.split_first_chunk().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*front))
    }

    /// A boolean: 0 or 1.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::BadValue),
        }
    }

    /// Fixed-length opaque data of `N` bytes.
    pub fn fixed<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let data = self.take(N)?;
        self.skip_padding(N)?;
        Ok(data.first_chunk().expect("N bytes were taken"))
    }

    /// Variable-length opaque data or a string of at most `most_bytes`.
    pub fn opaque(&mut self, most_bytes: usize) -> Result<&'a [u8], Malformed> {
        let len = self.u32()? as usize;
        if len > most_bytes {
            return Err(Malformed::TooLong);
        }
        let data = self.take(len)?;
        self.skip_padding(len)?;
        Ok(data)
    }

    /// Padding may be missing at the very end of a message: some clients do that.
    fn skip_padding(&mut self, len: usize) -> Result<(), Malformed> {
        let pad = pad_bytes(len).min(self.rest.len());
        self.take(pad).map(drop)
    }
}

/// Appends values to a reusable buffer.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An encoder that appends to `bytes`, which usually comes from a pool.
    pub fn on(bytes: Vec<u8>) -> Encoder {
        Encoder { bytes }
    }

    /// What has been written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The buffer, to be used again.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets everything after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// An unsigned 32-bit number.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Unsigned 32-bit numbers, one after another.
    pub fn words(&mut self, values: &[u32]) {
        values.iter().for_each(|&value| self.u32(value));
    }

    /// An unsigned 64-bit number.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// A boolean.
    pub fn bool(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    /// A length or count. What this server encodes is far below 4 GiB.
    pub fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).expect("encoded lengths are below 4 GiB"));
    }

    /// Fixed-length opaque data with its padding.
    pub fn fixed(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
        self.bytes.extend_from_slice(&[0; 3][..pad_bytes(data.len())]);
    }

    /// Variable-length opaque data or a string: length, data, padding.
    pub fn opaque(&mut self, data: &[u8]) {
        self.count(data.len());
        self.fixed(data);
    }

    /// Overwrites the number written at byte `at`.
    pub fn patch_u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let mut out = Encoder::default();
        out.u32(7);
        out.u64(1 << 40);
        out.bool(true);
        out.opaque(b"hello");
        out.fixed(b"abc");
        assert_eq!(out.len(), 4 + 8 + 4 + 4 + 8 + 4);
        let mut input = Decoder::new(out.bytes());
        assert_eq!(input.u32(), Ok(7));
        assert_eq!(input.u64(), Ok(1 << 40));
        assert_eq!(input.bool(), Ok(true));
        assert_eq!(input.opaque(5), Ok(&b"hello"[..]));
        assert_eq!(input.fixed(), Ok(b"abc"));
        assert_eq!(input.rest(), b"");
    }

    #[test]
    fn lengths_are_checked_before_they_are_used() {
        let huge = [0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
        assert_eq!(Decoder::new(&huge).opaque(1 << 20), Err(Malformed::TooLong));
        assert_eq!(Decoder::new(&huge).opaque(usize::MAX), Err(Malformed::Short));
        assert_eq!(Decoder::new(&huge).bool(), Err(Malformed::BadValue));
        assert_eq!(Decoder::new(&huge[..3]).u32(), Err(Malformed::Short));
        assert_eq!(Decoder::new(&[0, 0, 0, 3, 1, 2, 3]).opaque(3), Ok(&[1, 2, 3][..]), "padding may be missing");
    }
}

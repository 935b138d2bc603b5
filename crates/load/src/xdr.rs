//! XDR (RFC 4506), only what RPC, MOUNT and NFSv3 need. Encoding appends to a buffer
//! that is reused; decoding borrows, checks every length against what is there and
//! against a limit of the caller, and never allocates.

/// The server's bytes do not decode. Carries what was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

/// Appends XDR to a byte vector.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    /// Encodes behind whatever `out` holds.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Encoder { out }
    }

    /// Unsigned integer.
    pub fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// Unsigned hyper.
    pub fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// Boolean.
    pub fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    /// Bytes of a length both sides know, padded to four.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.pad(bytes.len());
    }

    /// Length, bytes, padding.
    pub fn opaque(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("requests stay far below 4 GiB"));
        self.fixed(bytes);
    }

    /// Variable opaque of `length` bytes, produced in place by `fill`, which appends
    /// exactly that many: the payload of a WRITE is made where it will be sent from.
    pub fn opaque_with(&mut self, length: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        self.u32(u32::try_from(length).expect("requests stay far below 4 GiB"));
        let start = self.out.len();
        fill(self.out);
        assert_eq!(self.out.len() - start, length, "fill appends exactly the announced length");
        self.pad(length);
    }

    fn pad(&mut self, length: usize) {
        let padding = length.wrapping_neg() & 3;
        self.out.extend_from_slice(&[0; 3][..padding]);
    }
}

/// Reads XDR from borrowed bytes.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Decodes from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Decoder { rest: bytes }
    }

    /// What has not been decoded yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Exactly `length` bytes, no padding.
    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed(what))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Unsigned integer.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<4>().ok_or(Malformed("integer"))?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*taken))
    }

    /// Unsigned hyper.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<8>().ok_or(Malformed("hyper"))?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*taken))
    }

    /// Boolean; anything but 0 and 1 is malformed.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("boolean")),
        }
    }

    /// Fixed bytes, padding included in what is consumed.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.take(N, "fixed opaque")?;
        self.take(N.wrapping_neg() & 3, "padding")?;
        Ok(bytes.try_into().expect("taken with that length"))
    }

    /// Variable opaque of at most `limit` bytes.
    pub fn opaque(&mut self, limit: usize) -> Result<&'a [u8], Malformed> {
        let length = self.u32()? as usize;
        if length > limit {
            return Err(Malformed("opaque longer than allowed"));
        }
        let bytes = self.take(length, "opaque")?;
        self.take(length.wrapping_neg() & 3, "padding")?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_decodes_and_stays_aligned(bytes in proptest::collection::vec(any::<u8>(), 0..70), n in any::<u64>(), flag in any::<bool>()) {
            let mut out = Vec::new();
            let mut encoder = Encoder::new(&mut out);
            encoder.opaque(&bytes);
            encoder.u64(n);
            encoder.bool(flag);
            encoder.opaque_with(bytes.len(), |out| out.extend_from_slice(&bytes));
            prop_assert_eq!(out.len() % 4, 0);
            let mut decoder = Decoder::new(&out);
            prop_assert_eq!(decoder.opaque(70).unwrap(), &bytes[..]);
            prop_assert_eq!(decoder.u64().unwrap(), n);
            prop_assert_eq!(decoder.bool().unwrap(), flag);
            prop_assert_eq!(decoder.opaque(70).unwrap(), &bytes[..]);
            prop_assert!(decoder.rest().is_empty());
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut decoder = Decoder::new(&bytes);
            while decoder.opaque(16).is_ok() && !decoder.rest().is_empty() {}
            prop_assert!(decoder.rest().len() <= bytes.len());
        }
    }

    #[test]
    fn lengths_beyond_the_limit_or_the_buffer_are_refused() {
        assert_eq!(Decoder::new(&[0, 0, 0, 9]).opaque(8), Err(Malformed("opaque longer than allowed")));
        assert_eq!(Decoder::new(&[0, 0, 0, 8, 1]).opaque(8), Err(Malformed("opaque")));
        assert_eq!(Decoder::new(&[0, 0, 0, 1, 1]).opaque(8), Err(Malformed("padding")));
        assert_eq!(Decoder::new(&[0, 0, 0, 2]).bool(), Err(Malformed("boolean")));
    }
}

//! Bytes of the engine on media: object descriptors, places, the root.
//! `docs/formats/engine.md` draws them.
//!
//! Whatever is stored is an *object*: a descriptor of [`DESCRIPTOR_BYTES`] that says what
//! it is and to whom it belongs, then its payload. One check covers both, so content
//! cannot be separated from its description (R-META-02, R-META-05). References repeat
//! that check and the identity, so a valid object that is not the one meant is caught
//! (R-INT-18, R-META-06).

use base::check::media_check_parts;
use base::{ContentCheck, MediaCheck};
use raid::StripeId;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes that do not form what they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged or foreign {0}")]
pub struct FormatError(pub &'static str);

/// Bytes of an object's descriptor.
pub const DESCRIPTOR_BYTES: usize = 72;
/// Objects start at multiples of this within a unit's payload.
pub const OBJECT_ALIGN_BYTES: usize = 8;
const OBJECT_MAGIC: u16 = 0x4f56;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectKind {
    /// A block of a file.
    Data = 1,
    /// A page of a tree or of the page table.
    Page = 2,
    /// Rows of the stripe table.
    Usage = 3,
    /// Mapping changes, for the repair scan.
    Delta = 4,
    /// Places of usage objects.
    Index = 5,
}

/// How the payload is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// LZ4 block format.
    Lz4 = 1,
}

/// Says what an object is, whose it is, and how its payload reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is.
    pub kind: ObjectKind,
    /// How the payload is encoded.
    pub codec: Codec,
    /// Bytes of payload as stored.
    pub stored_bytes: u32,
    /// Object id or page id; usage, index and delta objects: number of the checkpoint.
    pub id: u64,
    /// Data: the file that wrote it first. Page: its tree.
    pub owner: u64,
    /// Data: block number in that file.
    pub block: u64,
    /// Data: OSN of the write. Page: number of the checkpoint, its version. Delta: the last OSN in
    /// the checkpoint. Usage and index: how many were named before it.
    pub sequence: u64,
    /// Data: map epoch of the write.
    pub epoch: u32,
    /// Raised at each re-encoding of the same object.
    pub encoding: u16,
    /// Data: name of the content before encoding. Others: zero.
    pub content: ContentCheck,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct DescriptorBytes {
    magic: U16,
    kind: u8,
    codec: u8,
    stored_bytes: U32,
    id: U64,
    owner: U64,
    block: U64,
    sequence: U64,
    epoch: U32,
    encoding: U16,
    media_check_kind: u8,
    content_check_kind: u8,
    content: [u8; 16],
    check: U64,
}

const _: () = assert!(size_of::<DescriptorBytes>() == DESCRIPTOR_BYTES);
const CHECKED_BYTES: usize = DESCRIPTOR_BYTES - 8;

/// Room that an object with `stored_bytes` of payload takes in a unit.
pub fn object_bytes(stored_bytes: usize) -> usize {
    (DESCRIPTOR_BYTES + stored_bytes).next_multiple_of(OBJECT_ALIGN_BYTES)
}

impl Descriptor {
    /// Writes the descriptor before the payload that already stands in `object`, and
    /// returns the check over both.
    pub fn seal(&self, object: &mut [u8]) -> MediaCheck {
        let bytes = DescriptorBytes {
            magic: OBJECT_MAGIC.into(),
            kind: self.kind as u8,
            codec: self.codec as u8,
            stored_bytes: self.stored_bytes.into(),
            id: self.id.into(),
            owner: self.owner.into(),
            block: self.block.into(),
            sequence: self.sequence.into(),
            epoch: self.epoch.into(),
            encoding: self.encoding.into(),
            media_check_kind: base::check::MEDIA_CHECK_CRC64_NVME,
            content_check_kind: base::check::CONTENT_CHECK_BLAKE3_128,
            content: self.content.0,
            check: 0.into(),
        };
        object[..CHECKED_BYTES].copy_from_slice(&bytes.as_bytes()[..CHECKED_BYTES]);
        let end = DESCRIPTOR_BYTES + self.stored_bytes as usize;
        let check = check_of(object, end);
        object[CHECKED_BYTES..DESCRIPTOR_BYTES].copy_from_slice(&check.0.to_le_bytes());
        object[end..].fill(0);
        check
    }

    /// Reads the descriptor at the start of `bytes` and checks it together with its
    /// payload. `bytes` may be longer than the object.
    pub fn open(bytes: &[u8]) -> Result<(Descriptor, MediaCheck), FormatError> {
        let bad = FormatError("object");
        let (raw, payload) = DescriptorBytes::read_from_prefix(bytes).map_err(|_| bad)?;
        let stored_bytes = raw.stored_bytes.get();
        let sound = raw.magic.get() == OBJECT_MAGIC
            && raw.media_check_kind == base::check::MEDIA_CHECK_CRC64_NVME
            && stored_bytes as usize <= payload.len();
        if !sound || check_of(bytes, DESCRIPTOR_BYTES + stored_bytes as usize).0 != raw.check.get() {
            return Err(bad);
        }
        let kind = match raw.kind {
            1 => ObjectKind::Data,
            2 => ObjectKind::Page,
            3 => ObjectKind::Usage,
            4 => ObjectKind::Delta,
            5 => ObjectKind::Index,
            _ => return Err(bad),
        };
        let codec = match raw.codec {
            0 => Codec::Raw,
            1 => Codec::Lz4,
            _ => return Err(bad),
        };
        let descriptor = Descriptor {
            kind,
            codec,
            stored_bytes,
            id: raw.id.get(),
            owner: raw.owner.get(),
            block: raw.block.get(),
            sequence: raw.sequence.get(),
            epoch: raw.epoch.get(),
            encoding: raw.encoding.get(),
            content: ContentCheck(raw.content),
        };
        Ok((descriptor, MediaCheck(raw.check.get())))
    }
}

fn check_of(object: &[u8], end: usize) -> MediaCheck {
    media_check_parts(u64::from(OBJECT_MAGIC), &[&object[..CHECKED_BYTES], &object[DESCRIPTOR_BYTES..end]])
}

/// Where an object stands and what its check is: location and check in every reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Stripe.
    pub stripe: StripeId,
    /// Byte offset in the stripe's data space.
    pub offset_bytes: u32,
    /// Bytes of payload as stored, without the descriptor.
    pub stored_bytes: u32,
    /// The object's own check.
    pub check: MediaCheck,
}

/// Bytes of an encoded [`Place`].
pub const PLACE_BYTES: usize = 24;

impl Place {
    /// Room it takes.
    pub fn object_bytes(&self) -> u32 {
        object_bytes(self.stored_bytes as usize) as u32
    }

    /// As stored in tables.
    pub fn encode(&self) -> [u8; PLACE_BYTES] {
        let mut out = [0; PLACE_BYTES];
        out[..8].copy_from_slice(&self.stripe.pack().to_le_bytes());
        out[8..12].copy_from_slice(&self.offset_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.stored_bytes.to_le_bytes());
        out[16..].copy_from_slice(&self.check.0.to_le_bytes());
        out
    }

    /// Reads what [`Place::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Place, FormatError> {
        let mut take = Take(bytes);
        take.place()
    }
}

/// Reads little-endian fields off the front of some bytes.
pub struct Take<'a>(pub &'a [u8]);

impl<'a> Take<'a> {
    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(FormatError("length"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        Ok(self.bytes(N)?.try_into().expect("length was asked for"))
    }

    /// Next byte.
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    /// Next 16-bit number.
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Next 32-bit number.
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Next 64-bit number.
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Next 128-bit number.
    pub fn u128(&mut self) -> Result<u128, FormatError> {
        self.array().map(u128::from_le_bytes)
    }

    /// Next place.
    pub fn place(&mut self) -> Result<Place, FormatError> {
        Ok(Place {
            stripe: StripeId::unpack(self.u64()?),
            offset_bytes: self.u32()?,
            stored_bytes: self.u32()?,
            check: MediaCheck(self.u64()?),
        })
    }

    /// A count, then that many items; a count that cannot fit is refused before any
    /// memory is asked for.
    pub fn list<T>(
        &mut self,
        item_bytes: usize,
        mut item: impl FnMut(&mut Take<'a>) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        let count = self.u32()? as usize;
        if count.saturating_mul(item_bytes) > self.0.len() {
            return Err(FormatError("count"));
        }
        (0..count).map(|_| item(self)).collect()
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), FormatError> {
        if self.0.is_empty() { Ok(()) } else { Err(FormatError("trailing bytes")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Descriptor {
        Descriptor {
            kind: ObjectKind::Data,
            codec: Codec::Lz4,
            stored_bytes: 100,
            id: 7,
            owner: 9,
            block: 11,
            sequence: 13,
            epoch: 15,
            encoding: 17,
            content: ContentCheck([5; 16]),
        }
    }

    #[test]
    fn a_descriptor_reads_back_and_binds_its_payload() {
        let mut object = vec![0xab; object_bytes(100)];
        let check = sample().seal(&mut object);
        assert_eq!(Descriptor::open(&object), Ok((sample(), check)));
        for bit in 0..(DESCRIPTOR_BYTES + 100) * 8 {
            object[bit / 8] ^= 1 << (bit % 8);
            assert!(Descriptor::open(&object).is_err(), "flipped bit {bit} must show");
            object[bit / 8] ^= 1 << (bit % 8);
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Descriptor::open(&bytes).is_err());
            let _ = Place::decode(&bytes);
        }
    }
}

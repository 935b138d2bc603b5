//! What stands where on the drives of a simulated pool, found by nothing but what stripe
//! units and objects say of themselves; and ways to plant bytes that every check of the
//! layers below believes.
#![allow(dead_code, reason = "each test file uses a part")]

use engine::format::{DESCRIPTOR_BYTES, Descriptor, object_bytes};
use raid::unit::{UnitHeader, payload_check};
use raid::{Group, StripeId, UNIT_HEADER_BYTES};
use world_sim::SimNode;

use crate::pool::Pool;

/// A stripe unit on a drive.
#[derive(Clone, Debug)]
pub struct Unit {
    pub drive: usize,
    pub offset_bytes: u64,
    pub header: UnitHeader,
}

impl Unit {
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes + UNIT_HEADER_BYTES as u64 + u64::from(self.header.payload_bytes)
    }
}

/// An object in a unit.
#[derive(Clone, Debug)]
pub struct Object {
    pub unit: Unit,
    /// Where it starts in the unit's payload.
    pub at: usize,
    pub descriptor: Descriptor,
    /// Descriptor and payload.
    pub bytes: Vec<u8>,
}

impl Object {
    /// Where it starts on its drive.
    pub fn offset_bytes(&self) -> u64 {
        self.unit.offset_bytes + (UNIT_HEADER_BYTES + self.at) as u64
    }

    pub fn payload(&self) -> &[u8] {
        &self.bytes[DESCRIPTOR_BYTES..][..self.descriptor.stored_bytes as usize]
    }
}

/// Every whole unit on every drive, those of freed stripes included.
pub fn units(pool: &Pool) -> Vec<Unit> {
    const STEP: usize = 4096;
    let mut found = Vec::new();
    for (drive, media) in pool.drives.iter().enumerate() {
        let bytes = media.peek(0, pool.drive_bytes as usize);
        for at in (0..bytes.len() - STEP).step_by(STEP) {
            let Ok(header) = UnitHeader::decode(&bytes[at..]) else { continue };
            let payload = bytes[at + UNIT_HEADER_BYTES..].get(..header.payload_bytes as usize);
            let check = |bytes| payload_check(header.stripe, header.generation, header.role, bytes);
            if payload.map(check) == Some(header.payload_check) {
                found.push(Unit { drive, offset_bytes: at as u64, header });
            }
        }
    }
    found
}

/// Every object in every whole data unit.
pub fn objects(pool: &Pool) -> Vec<Object> {
    objects_in(pool, &units(pool))
}

/// Every object in those of `units` that hold data.
pub fn objects_in(pool: &Pool, units: &[Unit]) -> Vec<Object> {
    let mut found = Vec::new();
    for unit in units.iter().filter(|unit| unit.header.role < unit.header.geometry.data) {
        let payload_bytes = unit.header.payload_bytes as usize;
        let payload = pool.drives[unit.drive].peek(unit.offset_bytes + UNIT_HEADER_BYTES as u64, payload_bytes);
        let mut at = 0;
        while let Some((descriptor, _)) = payload.get(at..).and_then(|rest| Descriptor::open(rest).ok()) {
            let end = at + object_bytes(descriptor.stored_bytes as usize);
            found.push(Object { unit: unit.clone(), at, descriptor, bytes: payload[at..end].to_vec() });
            at = end;
        }
    }
    found
}

/// The other units of the same write of the same stripe.
pub fn siblings(units: &[Unit], unit: &Unit) -> Vec<Unit> {
    let same = |other: &Unit| {
        other.header.stripe == unit.header.stripe
            && other.header.generation == unit.header.generation
            && other.header.role != unit.header.role
    };
    units.iter().filter(|other| same(other)).cloned().collect()
}

/// Overwrites units with nonsense.
pub fn destroy<'a>(pool: &Pool, units: impl IntoIterator<Item = &'a Unit>) {
    for unit in units {
        let len = (unit.end_bytes() - unit.offset_bytes) as usize;
        pool.drives[unit.drive].poke(unit.offset_bytes, &vec![0xdb; len]);
    }
}

/// Bytes that may be laid over any others by exclusive or without changing their
/// CRC-64/NVME: its generator polynomial, `x^64` first. A forger's tool; chance would need
/// 2^64 tries for it.
pub fn unseen_change() -> [u8; 9] {
    const POLYNOMIAL_REFLECTED: u128 = 0x9a6c_9329_ac4b_c9b5;
    let bits = POLYNOMIAL_REFLECTED << 1 | 1;
    bits.to_le_bytes()[..9].try_into().unwrap()
}

/// Lays [`unseen_change`] over the object from byte `at` of it on.
pub fn change_unseen(pool: &Pool, object: &Object, at: usize) {
    let media = &pool.drives[object.unit.drive];
    let offset = object.offset_bytes() + at as u64;
    let mut bytes = media.peek(offset, 9);
    bytes.iter_mut().zip(unseen_change()).for_each(|(byte, change)| *byte ^= change);
    media.poke(offset, &bytes);
    let whole = media.peek(object.unit.offset_bytes, (object.unit.end_bytes() - object.unit.offset_bytes) as usize);
    let (header, payload) = whole.split_at(UNIT_HEADER_BYTES);
    let header = UnitHeader::decode(header).unwrap();
    assert_eq!(payload_check(header.stripe, header.generation, header.role, payload), header.payload_check);
    assert!(Descriptor::open(&payload[object.at..]).is_ok(), "nobody who looks at checks alone sees it");
}

/// Writes the stripe anew, whole and with all its checks, with `bytes` in the place of the
/// beginning of `object`: to the group below everything is right.
pub async fn forge(pool: &Pool, node: &SimNode, object: &Object, bytes: &[u8]) {
    let drives = pool.drives.iter().map(|media| node.drive(media)).collect();
    let group = Group::open(drives, None, node.world()).await.unwrap();
    let (id, generation): (StripeId, u64) = (object.unit.header.stripe, object.unit.header.generation);
    let payloads = group.read_stripe(id, generation).await.unwrap();
    let mut data = Vec::new();
    for (role, payload) in payloads.iter().enumerate() {
        let mut unit = group.take_unit();
        unit[UNIT_HEADER_BYTES..].copy_from_slice(payload);
        if role == usize::from(object.unit.header.role) {
            let len = bytes.len().min(object.bytes.len());
            unit[UNIT_HEADER_BYTES + object.at..][..len].copy_from_slice(&bytes[..len]);
        }
        data.push(unit);
    }
    group.write_stripe(id, generation, data).await.unwrap();
    group.flush().await.unwrap();
}

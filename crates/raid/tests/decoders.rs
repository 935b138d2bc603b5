//! Every decoder of media formats, on any bytes: an answer, never a panic; and on bytes
//! it wrote itself, the same value again (F104).

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::BTreeMap;
use std::rc::Rc;

use base::check::media_check;
use base::id::{DriveId, GroupId};
use raid::header::{GroupHeader, MemberRecord, Standing};
use raid::label::{Label, LabelState};
use raid::layout::{Place, Policy, Segment, Shape};
use raid::register::{SlotValue, Stamp, decode_session, decode_slot, encode_session, encode_slot};
use raid::unit::UnitHeader;
use raid::{Geometry, SegmentId, Slot, StripeId};

const GROUP: GroupId = GroupId([7; 16]);

fn shape() -> Shape {
    Shape::plan(16 << 10, 0, 64 << 20)
}

fn header() -> GroupHeader {
    let member = |index: u8| MemberRecord {
        drive: DriveId([index; 16]),
        standing: if index == 3 { Standing::Failed } else { Standing::Good },
        extents: 40,
        whole_below: 77 * u64::from(index),
        model: "a model".to_owned(),
        serial: format!("serial {index}"),
    };
    let places = (0..5).map(|slot| Place { slot: Slot(slot), extent: 9 }).collect();
    let segment = Segment { id: SegmentId(4), geometry: Geometry { data: 3, parity: 2 }, places };
    GroupHeader {
        group: GROUP,
        name: "pool".to_owned(),
        shape: shape(),
        policy: Policy { data_width_max: 10, parity: 2, founding_drives: 5, rows: shape().rows },
        membership: 3,
        members: (0..5).map(member).collect(),
        registers: vec!["root".to_owned(), "keys".to_owned()],
        next_segment: 5,
        segments: BTreeMap::from([(SegmentId(4), Rc::new(segment))]),
    }
}

fn label() -> Label {
    Label { group: GROUP, drive: DriveId([1; 16]), slot: Slot(2), shape: shape(), extents: 40, name: "pool".to_owned() }
}

fn unit_header() -> UnitHeader {
    UnitHeader {
        group: GROUP,
        drive: DriveId([3; 16]),
        stripe: StripeId { segment: SegmentId(4), row: 2 },
        generation: 77,
        role: 1,
        position: 4,
        geometry: Geometry { data: 3, parity: 2 },
        places: (0..5).map(|slot| Place { slot: Slot(slot), extent: 9 }).collect(),
        payload_bytes: 15872,
        payload_check: 1,
        stripe_digest: 2,
    }
}

#[test]
fn what_is_encoded_is_decoded() {
    assert_eq!(GroupHeader::decode(&header().encode()), Some(header()));
    assert_eq!(Label::decode(&label().encode()), LabelState::Good(label()));
    let value = SlotValue { stamp: Stamp { session: 3, version: 9 }, bytes: vec![5; 5000] };
    assert_eq!(decode_slot(GROUP, 2, &encode_slot(GROUP, 2, &value)), Some(value.clone()));
    assert_eq!(decode_slot(GROUP, 3, &encode_slot(GROUP, 2, &value)), None, "another register's");
    assert_eq!(decode_slot(GroupId([8; 16]), 2, &encode_slot(GROUP, 2, &value)), None, "another group's");
    assert_eq!(decode_session(GROUP, &encode_session(GROUP, 12)), Some(12));
    let mut unit = [0; 512];
    unit_header().encode_into(&mut unit);
    assert_eq!(UnitHeader::decode(&unit), Ok(unit_header()));
}

#[test]
fn damage_to_a_slot_or_label_never_passes() {
    let value = SlotValue { stamp: Stamp { session: 3, version: 9 }, bytes: vec![5; 300] };
    let mut slot = encode_slot(GROUP, 2, &value);
    for bit in 0..(128 + 300) * 8 {
        slot[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode_slot(GROUP, 2, &slot), None, "bit {bit}");
        slot[bit / 8] ^= 1 << (bit % 8);
    }
    let mut block = label().encode();
    for bit in (0..4096 * 8).step_by(7) {
        block[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Label::decode(&block), LabelState::Unknown, "bit {bit}");
        block[bit / 8] ^= 1 << (bit % 8);
    }
    assert_eq!(Label::decode(&[0; 4096]), LabelState::Blank);
}

/// A text that is longer than any that is written would not be the same when it is written again.
#[test]
fn a_header_whose_texts_are_too_long_is_refused() {
    let image = header().encode();
    let at = image.windows(8).position(|window| window == b"serial 0").unwrap();
    let with_serial_of = |len: u8| {
        let serial = vec![b's'; usize::from(len)];
        [&image[..at - 1], &[len], &serial, &image[at + 8..]].concat()
    };
    assert_eq!(GroupHeader::decode(&with_serial_of(96)).map(|header| header.members[0].serial.len()), Some(96));
    assert_eq!(GroupHeader::decode(&with_serial_of(97)), None);
}

/// Puts arbitrary edits into a good image.
fn edit(image: &mut [u8], edits: &[(u16, u8)]) {
    for &(at, byte) in edits {
        let len = image.len();
        image[usize::from(at) % len] = byte;
    }
}

/// Makes the check in the last 8 bytes of `block` fit, so that fuzzing gets past it.
fn reseal(block: &mut [u8]) {
    let at = block.len() - 8;
    let check = media_check(0, &block[..at]).0.to_le_bytes();
    block[at..].copy_from_slice(&check);
}

#[test]
fn decoders_survive_any_bytes() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes: &Vec<u8>| {
        let _ = GroupHeader::decode(bytes);
        let _ = Label::decode(bytes);
        let _ = decode_slot(GROUP, 1, bytes);
        let _ = decode_session(GROUP, bytes);
        let _ = UnitHeader::decode(bytes);
    });
}

#[test]
fn decoders_survive_edited_and_resealed_images() {
    bolero::check!().with_type::<Vec<(u16, u8)>>().for_each(|edits: &Vec<(u16, u8)>| {
        let mut unit = vec![0; 512];
        unit_header().encode_into(&mut unit);
        edit(&mut unit[..504], edits);
        reseal(&mut unit);
        if let Ok(header) = UnitHeader::decode(&unit) {
            assert_eq!(header.places.len(), header.geometry.width());
        }
        let mut block = label().encode();
        edit(&mut block[..4088], edits);
        reseal(&mut block);
        if let LabelState::Good(label) = Label::decode(&block) {
            assert!(label.shape.is_sane() && label.extents <= label.shape.extents_max());
        }
        let mut bytes = header().encode();
        edit(&mut bytes, edits);
        if let Some(header) = GroupHeader::decode(&bytes) {
            // Sane enough to be put on media and read again.
            assert_eq!(GroupHeader::decode(&header.encode()), Some(header));
        }
        let mut slot = encode_slot(GROUP, 1, &SlotValue { stamp: Stamp::default(), bytes: vec![1; 64] });
        edit(&mut slot[..120], edits);
        reseal(&mut slot[..128]);
        let _ = decode_slot(GROUP, 1, &slot);
    });
}

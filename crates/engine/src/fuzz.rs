//! Fuzz targets of everything that the engine reads back from media. Images are valid
//! ones with bytes changed, and the checks made to fit again, so that the fuzzer gets to
//! what lies behind them.

use base::{FileId, WallNanos, media_check};

use crate::format::{Descriptor, Place, object_bytes};
use crate::page::Page;
use crate::pages::TablePage;
use crate::record::{decode_changes, encode_changes};
use crate::root::Root;
use crate::root::tests::root;
use crate::store::{Change, Table};
use crate::stripes::Usage;

/// Where a byte of an image is changed, and to what.
type Edits = Vec<(u16, u8)>;

fn edit(image: &mut [u8], edits: &Edits) {
    for &(at, byte) in edits {
        let len = image.len();
        image[usize::from(at) % len] = byte;
    }
}

fn page() -> Page {
    let mut page = Page::new(3, 0);
    for n in 0..30u8 {
        page.put(&[n, 1], &vec![n; usize::from(n)]).unwrap();
    }
    page.remove(7);
    page
}

#[test]
fn engine_formats_survive_any_bytes() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let _ = Root::decode(bytes);
        let _ = Descriptor::open(bytes);
        let _ = Place::decode(bytes);
        let _ = TablePage::unpack(bytes);
        let _ = Usage::decode_all(bytes);
        if let Ok(page) = Page::unpack(bytes) {
            (0..page.count()).for_each(|index| drop((page.key(index).to_vec(), page.value(index).to_vec())));
        }
        if let Ok(changes) = decode_changes(bytes) {
            assert_eq!(decode_changes(&encode_changes(&changes)), Ok(changes));
        }
    });
}

#[test]
fn a_root_with_any_field_changed_is_read_or_refused() {
    bolero::check!().with_type::<Edits>().for_each(|edits: &Edits| {
        let mut image = root().encode();
        let body = image.len() - 8;
        edit(&mut image[..body], edits);
        let magic = u64::from_le_bytes(image[..8].try_into().unwrap());
        let check = media_check(magic, &image[..body]);
        image[body..].copy_from_slice(&check.0.to_le_bytes());
        // An older version that is read is written as the newest.
        let is_newest = image[8..10] == root().encode()[8..10];
        if let Some(read) = Root::decode(&image).ok().filter(|_| is_newest) {
            assert_eq!(read.encode(), image, "what is read is what was written");
        }
    });
}

#[test]
fn a_page_with_any_byte_changed_is_sound_or_refused() {
    bolero::check!().with_type::<Edits>().for_each(|edits: &Edits| {
        let mut image = Vec::new();
        page().pack(&mut image);
        edit(&mut image, edits);
        let Ok(mut page) = Page::unpack(&image) else { return };
        let keys: Vec<Vec<u8>> = (0..page.count()).map(|index| page.key(index).to_vec()).collect();
        assert!(keys.is_sorted() && keys.iter().all(|key| page.search(key).is_ok()));
        // It can be worked with, too.
        let _ = page.put(b"new", &[9; 40]);
        while page.count() > 0 {
            page.remove(0);
        }
    });
}

#[test]
fn an_object_with_any_field_changed_is_read_or_refused() {
    bolero::check!().with_type::<(Edits, u16)>().for_each(|(edits, len): &(Edits, u16)| {
        let stored = usize::from(*len) % 600;
        let mut object = vec![0x5a; object_bytes(stored)];
        let descriptor = Descriptor {
            kind: crate::format::ObjectKind::Data,
            codec: crate::format::Codec::Lz4,
            stored_bytes: stored as u32,
            id: 7,
            owner: 9,
            block: 11,
            sequence: 13,
            epoch: 15,
            encoding: 17,
            content: base::ContentCheck([5; 16]),
        };
        descriptor.seal(&mut object);
        edit(&mut object, edits);
        if let Ok((found, _)) = Descriptor::open(&object) {
            assert!(object_bytes(found.stored_bytes as usize) <= object.len());
            // A codec's own damage is an error, not a crash.
            let _ = crate::read::decode(&found, &object);
        }
    });
}

#[test]
fn changes_with_any_byte_changed_are_read_or_refused() {
    bolero::check!().with_type::<Edits>().for_each(|edits: &Edits| {
        let file = FileId(3);
        let mut image = encode_changes(&[
            Change::CreateFile { file, at: WallNanos(4) },
            Change::Put { table: Table(9), key: vec![1, 2], value: vec![3; 30] },
            Change::SetTimes { file, modified: Some(WallNanos(7)), changed: WallNanos(8) },
            Change::Delete { table: Table(9), key: vec![1] },
            Change::DropFile { file },
        ]);
        edit(&mut image, edits);
        if let Ok(changes) = decode_changes(&image) {
            assert_eq!(encode_changes(&changes), image);
        }
    });
}

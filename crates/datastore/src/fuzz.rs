//! Fuzz targets of everything that the filesystem reads back from tables, and of handles,
//! which come from clients.

use std::net::Ipv4Addr;

use base::{FileId, WallNanos};

use crate::attr::FileKind;
use crate::filesystem::Identity;
use crate::format::{
    DatastoreRow, FrozenRow, Inode, SnapshotRow, entry_from_row, entry_to_row, key_of_file, key_of_pair, lock_from_row,
    lock_to_row, monitored_from_row, monitored_to_row, name_from_row, name_to_row, number_from_row, reply_from_row,
    reply_to_row,
};
use crate::handle::{DatastoreId, Handle};

/// Where a byte of an image is changed, and to what.
type Edits = Vec<(u16, u8)>;

fn edit(image: &mut [u8], edits: &Edits) {
    for &(at, byte) in edits {
        let len = image.len();
        image[usize::from(at) % len] = byte;
    }
}

fn inode() -> Inode {
    Inode {
        kind: FileKind::Directory,
        mode: 0o755,
        generation: 3,
        datastore: DatastoreId(2),
        nlink: 4,
        uid: 5,
        gid: 6,
        device: (7, 8),
        parent: FileId(9),
        accessed: WallNanos(10),
        modified: WallNanos(11),
        changed: WallNanos(12),
        next_cookie: 13,
        count: 14,
        verifier: Some([15; 8]),
    }
}

/// What every row's reader promises: no panic, and what is read is written alike.
fn read_all(bytes: &[u8]) {
    if let Some(inode) = Inode::from_row(bytes) {
        assert_eq!(Inode::from_row(&inode.to_row()), Some(inode));
    }
    if let Some((file, name)) = entry_from_row(bytes) {
        assert_eq!(entry_to_row(file, name), bytes);
    }
    if let Some((cookie, file)) = name_from_row(bytes) {
        assert_eq!(name_to_row(cookie, file), bytes);
    }
    if let Some(row) = DatastoreRow::from_row(bytes) {
        assert!(DatastoreRow::from_row(&row.to_row()).is_some());
    }
    if let Some(row) = SnapshotRow::from_row(bytes) {
        assert_eq!(SnapshotRow::from_row(&row.to_row()), Some(row));
    }
    if let Some(row) = FrozenRow::from_row(bytes) {
        assert_eq!(FrozenRow::from_row(&row.to_row()), Some(row));
    }
    if let Some(reply) = reply_from_row(bytes) {
        assert!(reply_from_row(&reply_to_row(&reply)).is_some());
    }
    if let Some(lock) = lock_from_row(bytes) {
        assert_eq!(lock_from_row(&lock_to_row(&lock)), Some(lock));
    }
    if let Some(address) = monitored_from_row(bytes) {
        assert_eq!(monitored_from_row(&monitored_to_row(address)), Some(address));
    }
    let _ = (number_from_row(bytes), key_of_file(bytes), key_of_pair(bytes));
}

#[test]
fn table_rows_survive_any_bytes() {
    bolero::check!().for_each(|bytes: &[u8]| read_all(bytes));
}

#[test]
fn table_rows_survive_changed_rows() {
    bolero::check!().with_type::<Edits>().for_each(|edits: &Edits| {
        let rows = [
            inode().to_row(),
            entry_to_row(FileId(3), b"vm-1.qcow2"),
            name_to_row(77, FileId(3)),
            monitored_to_row(Ipv4Addr::new(10, 0, 0, 1).into()),
        ];
        for mut row in rows {
            edit(&mut row, edits);
            read_all(&row);
        }
    });
}

#[test]
fn any_handle_is_ours_or_refused() {
    let identity = Identity { pool: 7, handle_key: [3; 16] };
    bolero::check!().with_type::<Edits>().for_each(|edits: &Edits| {
        let sealed = Handle::new(&identity, DatastoreId(2), FileId(99), 1);
        let mut bytes = sealed.as_bytes().to_vec();
        edit(&mut bytes, edits);
        match Handle::parse(&identity, &bytes) {
            Ok(handle) => assert_eq!(handle, sealed, "nobody else can seal one"),
            Err(_) => assert_ne!(bytes, sealed.as_bytes()),
        }
        let _ = Handle::parse(&identity, &bytes[..bytes.len() / 2]);
    });
}

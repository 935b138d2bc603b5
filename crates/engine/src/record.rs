//! Bodies of the journal records that the engine writes.
//!
//! A write's record has the file, the offset and the length in its scope and a body of
//! `[time u64][payload]`. An operation's body is its list of changes. Both are absolute:
//! redoing them over a state that already has some of their effects ends in the same
//! state (see `store`).

use base::{Buf, FileId, WallNanos};

use crate::format::{FormatError, Take};
use crate::store::{Change, Table};

/// Bytes before the payload in the body of a write.
pub const WRITE_PREFIX_BYTES: usize = 8;

/// Splits the content of a write: all of it in `body`, or the payload apart.
pub fn decode_write(body: &Buf, payload: &Buf) -> Result<(WallNanos, Buf), FormatError> {
    let mut take = Take(body);
    let at = WallNanos(take.u64()?);
    let data = body.slice(WRITE_PREFIX_BYTES..);
    match (data.is_empty(), payload.is_empty()) {
        (_, true) => Ok((at, data)),
        (true, false) => Ok((at, payload.clone())),
        (false, false) => Err(FormatError("write: payload in two places")),
    }
}

/// The body of an operation.
pub fn encode_changes(changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 * changes.len());
    for change in changes {
        encode(change, &mut out);
    }
    out
}

fn encode(change: &Change, out: &mut Vec<u8>) {
    let words = |out: &mut Vec<u8>, tag: u8, words: &[u64]| {
        out.push(tag);
        words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    };
    match change {
        Change::CreateFile { file, at } => words(out, 1, &[file.0, at.0]),
        Change::DropFile { file } => words(out, 2, &[file.0]),
        Change::SetSize { file, size_bytes } => words(out, 3, &[file.0, *size_bytes]),
        Change::SetTimes { file, modified, changed } => match modified {
            Some(modified) => words(out, 4, &[file.0, changed.0, modified.0]),
            None => words(out, 5, &[file.0, changed.0]),
        },
        Change::Snapshot { file, snapshot } => words(out, 8, &[file.0, snapshot.0]),
        Change::Clone { snapshot, file, at } => words(out, 9, &[snapshot.0, file.0, at.0]),
        Change::Rollback { file, snapshot, map, at } => words(out, 10, &[file.0, snapshot.0, map.0, at.0]),
        Change::Ids { through } => words(out, 11, &[through.0]),
        Change::Put { table, key, value } => {
            out.extend_from_slice(&[6, table.0]);
            out.extend_from_slice(&(key.len() as u16).to_le_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(&(value.len() as u16).to_le_bytes());
            out.extend_from_slice(value);
        }
        Change::Delete { table, key } => {
            out.extend_from_slice(&[7, table.0]);
            out.extend_from_slice(&(key.len() as u16).to_le_bytes());
            out.extend_from_slice(key);
        }
    }
}

/// Reads what [`encode_changes`] wrote.
pub fn decode_changes(body: &[u8]) -> Result<Vec<Change>, FormatError> {
    let mut take = Take(body);
    let mut changes = Vec::new();
    while !take.0.is_empty() {
        changes.push(decode_change(&mut take)?);
    }
    Ok(changes)
}

/// Reads one change.
pub fn decode_change(take: &mut Take<'_>) -> Result<Change, FormatError> {
    let text = |take: &mut Take<'_>| {
        let len = take.u16()?;
        take.bytes(usize::from(len)).map(<[u8]>::to_vec)
    };
    Ok(match take.u8()? {
        1 => Change::CreateFile { file: FileId(take.u64()?), at: WallNanos(take.u64()?) },
        2 => Change::DropFile { file: FileId(take.u64()?) },
        3 => Change::SetSize { file: FileId(take.u64()?), size_bytes: take.u64()? },
        4 => Change::SetTimes {
            file: FileId(take.u64()?),
            changed: WallNanos(take.u64()?),
            modified: Some(WallNanos(take.u64()?)),
        },
        5 => Change::SetTimes { file: FileId(take.u64()?), changed: WallNanos(take.u64()?), modified: None },
        6 => Change::Put { table: Table(take.u8()?), key: text(take)?, value: text(take)? },
        7 => Change::Delete { table: Table(take.u8()?), key: text(take)? },
        8 => Change::Snapshot { file: FileId(take.u64()?), snapshot: FileId(take.u64()?) },
        9 => Change::Clone { snapshot: FileId(take.u64()?), file: FileId(take.u64()?), at: WallNanos(take.u64()?) },
        10 => Change::Rollback {
            file: FileId(take.u64()?),
            snapshot: FileId(take.u64()?),
            map: FileId(take.u64()?),
            at: WallNanos(take.u64()?),
        },
        11 => Change::Ids { through: FileId(take.u64()?) },
        _ => return Err(FormatError("change")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn changes_read_back() {
        let file = FileId(3);
        let changes = vec![
            Change::CreateFile { file, at: WallNanos(4) },
            Change::SetSize { file, size_bytes: 5 },
            Change::SetTimes { file, modified: None, changed: WallNanos(6) },
            Change::SetTimes { file, modified: Some(WallNanos(7)), changed: WallNanos(8) },
            Change::Put { table: Table(9), key: vec![1, 2], value: vec![3; 300] },
            Change::Delete { table: Table(9), key: vec![1] },
            Change::Snapshot { file, snapshot: FileId(10) },
            Change::Clone { snapshot: FileId(10), file: FileId(11), at: WallNanos(12) },
            Change::Rollback { file, snapshot: FileId(10), map: FileId(13), at: WallNanos(14) },
            Change::DropFile { file },
            Change::Ids { through: FileId(15) },
        ];
        assert_eq!(decode_changes(&encode_changes(&changes)), Ok(changes));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(changes) = decode_changes(&bytes) {
                prop_assert_eq!(decode_changes(&encode_changes(&changes)), Ok(changes));
            }
        }
    }
}

//! A change of a disk as a record of the log. Twin of `docs/formats/host.md`.
//!
//! A write is a record of kind `write` whose body is the payload and whose scope is the
//! range. Zeroes are a record of kind `operation` whose body is one byte. The record's OSN
//! is the serial.

use base::{Buf, Epoch, FileId, Osn};
use journal::{Kind, Record, Scope, Tag};

use crate::ranges::Content;

/// The file a host's log names in its scopes: a log belongs to one disk.
const DISK: FileId = FileId(1);
const ZEROS_KEPT: u8 = 1;
const ZEROS_PUNCHED: u8 = 2;

/// A change of a range of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// First byte.
    pub offset_bytes: u64,
    /// Length; that of the payload, if there is one.
    pub length_bytes: u64,
    /// What the range holds afterwards.
    pub content: Content,
}

impl Op {
    /// `data` at `offset_bytes`.
    pub fn write(offset_bytes: u64, data: Buf) -> Op {
        Op { offset_bytes, length_bytes: data.len() as u64, content: Content::Data(data) }
    }

    /// The names of its record.
    pub fn tag(&self, serial: Osn, term: Epoch) -> Tag {
        let kind = if matches!(self.content, Content::Data(_)) { Kind::WRITE } else { Kind::OPERATION };
        let scope = Scope { file: DISK, offset_bytes: self.offset_bytes, length_bytes: self.length_bytes };
        Tag { kind, stream: 0, epoch: term, osn: serial, scope }
    }

    /// The body of its record.
    pub fn body(&self) -> &[u8] {
        match &self.content {
            Content::Data(data) => data,
            Content::Zeros { may_punch: false } => &[ZEROS_KEPT],
            Content::Zeros { may_punch: true } => &[ZEROS_PUNCHED],
        }
    }

    /// What `record` says; `None` if it is not of a host's log, or of a later version.
    pub fn of(record: &Record) -> Option<Op> {
        let Scope { file, offset_bytes, length_bytes } = record.tag.scope;
        offset_bytes.checked_add(length_bytes)?;
        let content = match (record.tag.kind, &record.body[..]) {
            (Kind::WRITE, body) if body.len() as u64 == length_bytes => Content::Data(record.body.clone()),
            (Kind::OPERATION, [ZEROS_KEPT]) => Content::Zeros { may_punch: false },
            (Kind::OPERATION, [ZEROS_PUNCHED]) => Content::Zeros { may_punch: true },
            _ => return None,
        };
        (file == DISK && length_bytes > 0).then_some(Op { offset_bytes, length_bytes, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal::Sequence;

    fn back(op: &Op) -> Option<Op> {
        let tag = op.tag(Osn(7), Epoch(1));
        Op::of(&Record { sequence: Sequence(3), tag, body: Buf::copy_from_slice(op.body()), payload: Buf::new() })
    }

    #[test]
    fn what_goes_in_comes_back() {
        let zeros = |may_punch| Op { offset_bytes: 512, length_bytes: 1 << 40, content: Content::Zeros { may_punch } };
        for op in [Op::write(4096, Buf::from_static(b"abc")), zeros(false), zeros(true)] {
            assert_eq!(back(&op), Some(op));
        }
    }

    #[test]
    fn a_record_of_something_else_is_not_a_change() {
        let op = Op::write(0, Buf::from_static(b"abc"));
        let record = |tag, body: &'static [u8]| {
            let body = Buf::from_static(body);
            Record { sequence: Sequence(3), tag, body, payload: Buf::new() }
        };
        let tag = op.tag(Osn(1), Epoch(1));
        assert_eq!(Op::of(&record(tag, b"ab")), None, "a body of another length");
        assert_eq!(Op::of(&record(Tag { kind: Kind::COMMITTED, ..tag }, b"abc")), None);
        assert_eq!(Op::of(&record(Tag { kind: Kind::OPERATION, ..tag }, b"\x09")), None);
        let other = Scope { file: FileId(2), ..tag.scope };
        assert_eq!(Op::of(&record(Tag { scope: other, ..tag }, b"abc")), None);
    }
}

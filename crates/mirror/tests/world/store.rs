//! What a site holds: files of blocks, names, answers; by the records that are stable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Buf, FileId, Osn, WallNanos};
use mirror::{Form, Kept, Record, Span};

/// Bytes of a block; a block holds the number of the write that wrote it.
pub const BLOCK_BYTES: u64 = 8;

/// Content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    pub files: BTreeMap<FileId, Vec<u8>>,
    pub names: BTreeMap<u64, u64>,
    pub answers: BTreeMap<Buf, Buf>,
    pub modified: BTreeMap<FileId, WallNanos>,
}

impl Store {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::Write { write, .. } => {
                let file = self.files.entry(write.file).or_default();
                let (from, to) = (write.offset_bytes as usize, write.span().end_bytes() as usize);
                file.resize(file.len().max(to), 0);
                file[from..to].copy_from_slice(&write.payload);
                self.modified.insert(write.file, write.at);
            }
            Record::Restore { span, form, payload, .. } => {
                let file = self.files.entry(span.file).or_default();
                file.resize(form.size_bytes as usize, 0);
                self.modified.insert(span.file, form.modified);
                if !payload.is_empty() {
                    file[span.offset_bytes as usize..][..payload.len()].copy_from_slice(payload);
                }
            }
            Record::Committed { change, .. } => {
                let (name, value) = change.body.split_at(8);
                self.names.insert(number(name), number(value));
                self.answers.insert(change.request.clone(), change.reply.clone());
            }
            _ => {}
        }
    }

    /// What is there of a range, and what the file is.
    pub fn read(&self, span: &Span) -> (Buf, Form) {
        let file = self.files.get(&span.file).map_or(&[][..], Vec::as_slice);
        let (from, to) = (span.offset_bytes as usize, span.end_bytes() as usize);
        let there = &file[from.min(file.len())..to.min(file.len())];
        let modified = self.modified.get(&span.file).copied().unwrap_or_default();
        let form = Form { size_bytes: file.len() as u64, modified, changed: modified };
        (Buf::copy_from_slice(there), form)
    }

    /// The same but for files of no length, which nobody made.
    pub fn is_like(&self, other: &Store) -> bool {
        let files = |store: &Store| -> BTreeMap<FileId, (Vec<u8>, Option<WallNanos>)> {
            let with_times = |(id, bytes): (&FileId, &Vec<u8>)| (*id, (bytes.clone(), store.modified.get(id).copied()));
            store.files.iter().filter(|(_, bytes)| !bytes.is_empty()).map(with_times).collect()
        };
        files(self) == files(other) && self.names == other.names && self.answers == other.answers
    }
}

pub fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// A site's journal and what came of it.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub store: Store,
    pub kept: Kept,
    snapshot: Option<(Osn, Box<Store>)>,
    pending: VecDeque<(u64, Record)>,
    /// Changes that were done here.
    pub done: BTreeSet<Osn>,
}

impl Disk {
    pub fn append(&mut self, ticket: u64, record: Record) {
        self.pending.push_back((ticket, record));
    }

    pub fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }

    /// Records up to `ticket` are stable.
    pub fn stable(&mut self, ticket: u64) {
        while self.pending.front().is_some_and(|(at, _)| *at <= ticket) {
            let (_, record) = self.pending.pop_front().unwrap();
            self.apply(&record);
        }
    }

    fn apply(&mut self, record: &Record) {
        self.kept.apply(record);
        self.store.apply(record);
        if let Record::Committed { osn, .. } = record {
            assert!(self.done.insert(*osn), "{osn} is done twice");
        }
        match self.kept.snapshot {
            Some(at) if self.snapshot.is_none() => self.snapshot = Some((at, Box::new(self.store.clone()))),
            None => self.snapshot = None,
            Some(_) => {}
        }
    }

    /// A power cut: the first `keep` of what was not stable are there all the same.
    pub fn cut(&mut self, keep: usize) {
        for (_, record) in std::mem::take(&mut self.pending).into_iter().take(keep) {
            self.apply(&record);
        }
    }

    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    pub fn read(&self, span: &Span, at: Option<Osn>) -> (Buf, Form) {
        match at {
            None => self.store.read(span),
            Some(at) => {
                let (taken_at, store) = self.snapshot.as_ref().expect("a snapshot that is read was taken");
                assert_eq!(*taken_at, at, "the snapshot of that moment");
                store.read(span)
            }
        }
    }
}

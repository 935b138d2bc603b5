//! What is kept of differences: the files as they were, at each site its own; and the note of the last check.
//!
//! A row for each file that is kept, in one record with the snapshot that keeps it.

use std::collections::BTreeMap;

use base::{FileId, Osn};
use engine::Store;
use engine::store::{Change as Put, StoreRefusal, VALUE_BYTES_MAX};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::replica::{Inner, Replica};
use crate::shelf::PAIR;

/// Keys of the note of the last check, in pieces.
pub(crate) const NOTE: u8 = 6;
/// Keys of what is kept.
pub(crate) const KEPT: u8 = 7;
/// The longest note, in pieces.
const NOTE_PIECES_MAX: u16 = 128;
/// Files that are kept at most.
const KEPT_MAX: usize = 1 << 16;
/// Rows that are dropped at a time.
const AT_A_TIME: usize = 64;

/// A file of which this site keeps what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Where it is: a file that only this site has.
    pub kept: FileId,
    /// What it was.
    pub file: FileId,
    /// At which point.
    pub osn: Osn,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct KeptRow {
    file: U64,
    osn: U64,
}

/// All that is kept.
#[derive(Debug, Default)]
pub(crate) struct EvidenceRows(pub BTreeMap<FileId, Evidence>);

fn kept_key(kept: FileId) -> Vec<u8> {
    [&[KEPT][..], &kept.0.to_be_bytes()].concat()
}

impl EvidenceRows {
    pub async fn load(store: &impl Store) -> Result<EvidenceRows, StoreRefusal> {
        let mut all = BTreeMap::new();
        for (key, value) in store.scan(PAIR, &[KEPT], KEPT_MAX).await? {
            let id = key.strip_prefix(&[KEPT]).and_then(|rest| rest.try_into().ok()).map(u64::from_be_bytes);
            let (Some(id), Ok(row)) = (id, KeptRow::read_from_bytes(&value)) else { continue };
            let kept = FileId(id);
            all.insert(kept, Evidence { kept, file: FileId(row.file.get()), osn: Osn(row.osn.get()) });
        }
        Ok(EvidenceRows(all))
    }

    /// The row that says so.
    pub fn row(evidence: &Evidence) -> Put {
        let row = KeptRow { file: evidence.file.0.into(), osn: evidence.osn.0.into() };
        Put::Put { table: PAIR, key: kept_key(evidence.kept), value: row.as_bytes().to_vec() }
    }
}

impl Replica {
    /// What this site keeps of differences.
    #[must_use]
    pub fn evidence(&self) -> Vec<Evidence> {
        self.inner.evidence.borrow().0.values().copied().collect()
    }

    /// Lets all of it go.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_evidence(&self) -> Result<usize, StoreRefusal> {
        let all = std::mem::take(&mut self.inner.evidence.borrow_mut().0);
        let kept: Vec<FileId> = all.into_keys().collect();
        for some in kept.chunks(AT_A_TIME) {
            let row = |kept: &FileId| Put::Delete { table: PAIR, key: kept_key(*kept) };
            let file = |kept: &FileId| Put::DropFile { file: *kept };
            self.inner.commit(some.iter().map(row).chain(some.iter().map(file)).collect()).await?;
        }
        Ok(kept.len())
    }

    /// What was noted of the last check.
    ///
    /// # Errors
    /// The store's.
    pub async fn note(&self) -> Result<Option<Vec<u8>>, StoreRefusal> {
        let rows = self.inner.engine.scan(PAIR, &[NOTE], usize::from(NOTE_PIECES_MAX)).await?;
        let pieces: Vec<_> = rows.into_iter().filter(|(key, _)| key.first() == Some(&NOTE)).collect();
        let bytes = pieces.iter().flat_map(|(_, value)| value.iter().copied()).collect();
        Ok((!pieces.is_empty()).then_some(bytes))
    }

    /// Notes this instead, for good. It stays at this site.
    ///
    /// # Errors
    /// The store's; `TooBig` beyond 150 KiB.
    pub async fn keep_note(&self, note: &[u8]) -> Result<(), StoreRefusal> {
        self.inner.keep_note(note).await
    }
}

impl Inner {
    async fn keep_note(&self, note: &[u8]) -> Result<(), StoreRefusal> {
        let pieces: Vec<&[u8]> = note.chunks(VALUE_BYTES_MAX).collect();
        if pieces.len() > usize::from(NOTE_PIECES_MAX) {
            return Err(StoreRefusal::TooBig);
        }
        let key = |piece: u16| [&[NOTE][..], &piece.to_be_bytes()].concat();
        let put = |(piece, value): (u16, &[u8])| Put::Put { table: PAIR, key: key(piece), value: value.to_vec() };
        let mut changes: Vec<Put> = (0..).zip(pieces.iter().copied()).map(put).collect();
        let old = self.engine.scan(PAIR, &[NOTE], usize::from(NOTE_PIECES_MAX)).await?;
        let old = old.into_iter().map(|(key, _)| key).filter(|key| key.first() == Some(&NOTE)).skip(pieces.len());
        changes.extend(old.map(|key| Put::Delete { table: PAIR, key }));
        self.commit(changes).await
    }
}

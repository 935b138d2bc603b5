//! The store below the filesystem: an engine alone, or one of a pair of sites.
//!
//! Both are a [`Store`]; which of them is decided once, by the configuration, when it is opened. A
//! call costs one branch.

use base::meter::Meter;
use base::{Buf, FileId, Osn, WallNanos};
use engine::Engine;
use engine::store::{Change, Extent, FileHead, ReadOut, Row, Space, Store, StoreRefusal, Table, Wrote};
use replica::Replica;

/// See the module's head.
#[derive(Clone)]
pub(crate) enum SiteStore {
    /// Nobody else has what it holds.
    Alone(Engine),
    /// Another site holds the same.
    Pair(Replica),
}

/// The same call on whichever it is.
macro_rules! either {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            SiteStore::Alone($store) => $call,
            SiteStore::Pair($store) => $call,
        }
    };
}

impl Store for SiteStore {
    fn next_file_id(&self) -> FileId {
        either!(self, store => store.next_file_id())
    }

    async fn head(&self, file: FileId) -> Result<Option<FileHead>, StoreRefusal> {
        either!(self, store => store.head(file).await)
    }

    async fn read(&self, file: FileId, offset_bytes: u64, len_bytes: usize) -> Result<ReadOut, StoreRefusal> {
        either!(self, store => store.read(file, offset_bytes, len_bytes).await)
    }

    async fn write(
        &self,
        file: FileId,
        offset_bytes: u64,
        parts: &[&[u8]],
        at: WallNanos,
    ) -> Result<Wrote, StoreRefusal> {
        either!(self, store => store.write(file, offset_bytes, parts, at).await)
    }

    async fn write_buf(
        &self,
        file: FileId,
        offset_bytes: u64,
        data: &Buf,
        at: WallNanos,
    ) -> Result<Wrote, StoreRefusal> {
        either!(self, store => store.write_buf(file, offset_bytes, data, at).await)
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<Osn, StoreRefusal> {
        either!(self, store => store.commit(changes).await)
    }

    async fn differences(&self, one: FileId, other: FileId) -> Result<Vec<Extent>, StoreRefusal> {
        either!(self, store => store.differences(one, other).await)
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Buf>, StoreRefusal> {
        either!(self, store => store.get(table, key).await)
    }

    async fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreRefusal> {
        either!(self, store => store.scan(table, from, limit).await)
    }

    async fn may_tell(&self) -> Result<(), StoreRefusal> {
        either!(self, store => store.may_tell().await)
    }

    fn meter(&self) -> Option<&Meter> {
        either!(self, store => store.meter())
    }

    fn space(&self) -> Space {
        either!(self, store => store.space())
    }
}

//! The store as a model: plain maps in memory, every change at once "stable".
//!
//! It says in a page what [`Engine`](crate::Engine) must do; tests compare the two
//! operation by operation. Never used for data anybody needs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

use base::{Buf, Epoch, FileId, Osn, WallNanos};
use smallvec::smallvec;

use crate::store::{
    BLOCK_BYTES, Change, Extent, FILE_BYTES_MAX, FileHead, KEY_BYTES_MAX, Piece, ReadOut, Row, Space, Store,
    StoreRefusal, Table, VALUE_BYTES_MAX, WRITE_BYTES_MAX, Wrote,
};

/// The model. See the module's head.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: RefCell<State>,
}

#[derive(Clone, Default)]
struct State {
    files: BTreeMap<FileId, File>,
    tables: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
    last_file: u64,
    last_osn: u64,
}

#[derive(Clone, Default)]
struct File {
    head: FileHead,
    /// Blocks that are not holes, each [`BLOCK_BYTES`] long.
    blocks: BTreeMap<u64, Vec<u8>>,
    /// It is a snapshot.
    frozen: bool,
}

impl File {
    fn write(&mut self, offset_bytes: u64, data: &[u8]) {
        let mut at = offset_bytes;
        let mut rest = data;
        while !rest.is_empty() {
            let within = (at % BLOCK_BYTES) as usize;
            let take = rest.len().min(BLOCK_BYTES as usize - within);
            let block = self.blocks.entry(at / BLOCK_BYTES).or_insert_with(|| vec![0; BLOCK_BYTES as usize]);
            block[within..within + take].copy_from_slice(&rest[..take]);
            if block.iter().all(|&byte| byte == 0) {
                self.blocks.remove(&(at / BLOCK_BYTES));
            }
            at += take as u64;
            rest = &rest[take..];
        }
        self.head.size_bytes = self.head.size_bytes.max(at);
        self.count();
    }

    fn set_size(&mut self, size_bytes: u64) {
        if size_bytes < self.head.size_bytes {
            self.blocks.retain(|&block, _| block * BLOCK_BYTES < size_bytes);
            if let Some(last) = self.blocks.get_mut(&(size_bytes / BLOCK_BYTES)) {
                last[(size_bytes % BLOCK_BYTES) as usize..].fill(0);
            }
            self.blocks.retain(|_, block| block.iter().any(|&byte| byte != 0));
        }
        self.head.size_bytes = size_bytes;
        self.count();
    }

    fn count(&mut self) {
        self.head.used_bytes = self.blocks.len() as u64 * BLOCK_BYTES;
    }

    fn read(&self, offset_bytes: u64, len_bytes: usize) -> Vec<u8> {
        let end = self.head.size_bytes.min(offset_bytes.saturating_add(len_bytes as u64));
        let mut bytes = Vec::new();
        let mut at = offset_bytes;
        while at < end {
            let within = (at % BLOCK_BYTES) as usize;
            let take = (BLOCK_BYTES as usize - within).min((end - at) as usize);
            match self.blocks.get(&(at / BLOCK_BYTES)) {
                Some(block) => bytes.extend_from_slice(&block[within..within + take]),
                None => bytes.resize(bytes.len() + take, 0),
            }
            at += take as u64;
        }
        bytes
    }
}

impl State {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Ids { through } => self.last_file = self.last_file.max(through.0),
            Change::CreateFile { file, at } => {
                self.last_file = self.last_file.max(file.0);
                let head = FileHead { modified: at, changed: at, ..FileHead::default() };
                self.files.insert(file, File { head, ..File::default() });
            }
            Change::DropFile { file } => drop(self.files.remove(&file)),
            Change::SetSize { file, size_bytes } => {
                if let Some(file) = self.files.get_mut(&file) {
                    file.set_size(size_bytes);
                }
            }
            Change::SetTimes { file, modified, changed } => {
                if let Some(file) = self.files.get_mut(&file) {
                    file.head.modified = modified.unwrap_or(file.head.modified);
                    file.head.changed = changed;
                }
            }
            Change::Snapshot { file, snapshot } => {
                if let Some(file) = self.files.get(&file).filter(|file| !file.frozen) {
                    self.files.insert(snapshot, File { frozen: true, ..file.clone() });
                }
            }
            Change::Clone { snapshot, file, at } => self.restore(snapshot, file, at),
            Change::Rollback { file, snapshot, at, .. } => {
                if self.files.contains_key(&file) {
                    self.restore(snapshot, file, at);
                }
            }
            Change::Put { table, key, value } => drop(self.tables.entry(table).or_default().insert(key, value)),
            Change::Delete { table, key } => drop(self.tables.entry(table).or_default().remove(&key)),
        }
    }

    fn restore(&mut self, snapshot: FileId, file: FileId, at: WallNanos) {
        if let Some(from) = self.files.get(&snapshot).filter(|from| from.frozen) {
            let head = FileHead { modified: at, changed: at, ..from.head };
            self.files.insert(file, File { head, frozen: false, blocks: from.blocks.clone() });
        }
    }

    fn next_osn(&mut self) -> Osn {
        self.last_osn += 1;
        Osn(self.last_osn)
    }
}

/// Refuses what no store may accept; shared by both implementations.
pub(crate) fn check_limits(changes: &[Change]) -> Result<(), StoreRefusal> {
    let fits = changes.iter().all(|change| match change {
        Change::SetSize { size_bytes, .. } => *size_bytes <= FILE_BYTES_MAX,
        Change::Put { key, value, .. } => {
            !key.is_empty() && key.len() <= KEY_BYTES_MAX && value.len() <= VALUE_BYTES_MAX
        }
        Change::Delete { key, .. } => key.len() <= KEY_BYTES_MAX,
        Change::CreateFile { .. }
        | Change::DropFile { .. }
        | Change::SetTimes { .. }
        | Change::Snapshot { .. }
        | Change::Clone { .. }
        | Change::Rollback { .. }
        | Change::Ids { .. } => true,
    });
    if fits { Ok(()) } else { Err(StoreRefusal::TooBig) }
}

/// Refuses a write that no store may accept.
pub(crate) fn check_write(offset_bytes: u64, len_bytes: usize) -> Result<(), StoreRefusal> {
    let end = offset_bytes.checked_add(len_bytes as u64).ok_or(StoreRefusal::TooBig)?;
    if len_bytes > WRITE_BYTES_MAX || end > FILE_BYTES_MAX { Err(StoreRefusal::TooBig) } else { Ok(()) }
}

impl Store for MemoryStore {
    fn next_file_id(&self) -> FileId {
        let mut state = self.state.borrow_mut();
        state.last_file += 1;
        FileId::new(Epoch(0), state.last_file)
    }

    async fn head(&self, file: FileId) -> Result<Option<FileHead>, StoreRefusal> {
        Ok(self.state.borrow().files.get(&file).map(|file| file.head))
    }

    async fn read(&self, file: FileId, offset_bytes: u64, len_bytes: usize) -> Result<ReadOut, StoreRefusal> {
        let state = self.state.borrow();
        let file = state.files.get(&file).ok_or(StoreRefusal::NoSuchFile)?;
        let data = file.read(offset_bytes, len_bytes);
        let pieces = if data.is_empty() { smallvec![] } else { smallvec![Piece::Data(data.into())] };
        Ok(ReadOut { pieces, head: file.head })
    }

    async fn write(
        &self,
        file: FileId,
        offset_bytes: u64,
        parts: &[&[u8]],
        at: WallNanos,
    ) -> Result<Wrote, StoreRefusal> {
        let data = parts.concat();
        check_write(offset_bytes, data.len())?;
        let mut state = self.state.borrow_mut();
        let osn = state.next_osn();
        let file = state.files.get_mut(&file).ok_or(StoreRefusal::NoSuchFile)?;
        if file.frozen {
            return Err(StoreRefusal::Frozen);
        }
        let before = file.head;
        if !data.is_empty() {
            file.write(offset_bytes, &data);
            file.head.modified = at;
            file.head.changed = at;
        }
        Ok(Wrote { before, after: file.head, osn })
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<Osn, StoreRefusal> {
        check_limits(&changes)?;
        let mut state = self.state.borrow_mut();
        changes.into_iter().for_each(|change| state.apply(change));
        Ok(state.next_osn())
    }

    async fn differences(&self, one: FileId, other: FileId) -> Result<Vec<Extent>, StoreRefusal> {
        let state = self.state.borrow();
        let file = |id: FileId| state.files.get(&id).ok_or(StoreRefusal::NoSuchFile);
        let (one, other) = (&file(one)?.blocks, &file(other)?.blocks);
        let blocks: std::collections::BTreeSet<u64> = one.keys().chain(other.keys()).copied().collect();
        let differ = blocks.into_iter().filter(|block| one.get(block) != other.get(block));
        Ok(differ.map(|block| Extent { offset_bytes: block * BLOCK_BYTES, len_bytes: BLOCK_BYTES }).collect())
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Buf>, StoreRefusal> {
        let state = self.state.borrow();
        Ok(state.tables.get(&table).and_then(|rows| rows.get(key)).map(|value| value.clone().into()))
    }

    async fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreRefusal> {
        let state = self.state.borrow();
        let Some(rows) = state.tables.get(&table) else { return Ok(Vec::new()) };
        let range = rows.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        Ok(range.take(limit).map(|(key, value)| (key.clone(), value.clone().into())).collect())
    }

    fn space(&self) -> Space {
        Space { total_bytes: 1 << 40, free_bytes: 1 << 39 }
    }
}

//! A client with files and a table of its own, and a model of what they must hold.
//!
//! It does one operation at a time, so after a crash its part of the store equals the
//! model, or the model with the one operation applied that had no answer yet.

use std::cell::{Cell, RefCell};

use base::{Buf, FileId, WallNanos};
use engine::Store;
use engine::memory::MemoryStore;
use engine::store::{Change, Piece, ReadOut, StoreRefusal, Table};
use futures_util::FutureExt;
use world_sim::Rng;

/// Files a client has at a time.
const FILES: usize = 3;
/// Snapshots a client has at a time.
const SNAPSHOTS: usize = 3;
/// Bytes of a file that are written.
const SPAN_BYTES: u64 = 24 * 8192;
/// Some writes go this far out.
const FAR_BYTES: u64 = 1 << 42;

/// One change of the store.
#[derive(Clone, Debug)]
pub enum Op {
    /// Bytes are written.
    Write {
        /// To which file.
        file: FileId,
        /// Where in it.
        offset_bytes: u64,
        /// What.
        data: Vec<u8>,
        /// When.
        at: WallNanos,
    },
    /// Changes are committed.
    Commit(Vec<Change>),
}

impl Op {
    /// Does it.
    pub async fn perform(&self, store: &impl Store) -> Result<(), StoreRefusal> {
        match self {
            Op::Write { file, offset_bytes, data, at } => {
                if data.len() % 2 == 0 {
                    return store.write_buf(*file, *offset_bytes, &Buf::copy_from_slice(data), *at).await.map(drop);
                }
                let (a, b) = data.split_at(data.len() / 3);
                store.write(*file, *offset_bytes, &[a, b], *at).await.map(drop)
            }
            Op::Commit(changes) => store.commit(changes.clone()).await.map(drop),
        }
    }

    fn apply(&self, model: &MemoryStore) {
        let done = self.perform(model).now_or_never().expect("the model never waits");
        done.expect("the model takes whatever the store takes");
    }

    /// Whether it only gives back: such a change is never refused for lack of room.
    fn only_gives_back(&self) -> bool {
        let gives = |change: &Change| {
            matches!(change, Change::DropFile { .. } | Change::Delete { .. } | Change::SetSize { .. })
        };
        matches!(self, Op::Commit(changes) if changes.iter().any(gives))
    }
}

/// See the module's head.
pub struct Client {
    table: Table,
    rng: RefCell<Rng>,
    model: RefCell<MemoryStore>,
    pending: RefCell<Option<Op>>,
    files: RefCell<Vec<FileId>>,
    snapshots: RefCell<Vec<FileId>>,
    far: Cell<Option<u64>>,
    clock: Cell<u64>,
    /// Operations acknowledged.
    pub acknowledged: Cell<u64>,
    /// Operations refused for lack of room.
    pub refused: Cell<u64>,
}

impl Client {
    /// Client `number`, which has nothing yet.
    pub fn new(number: u8, mut rng: Rng) -> Client {
        let far = rng.percent(25).then(|| rng.below(FAR_BYTES));
        Client {
            table: Table(number),
            rng: RefCell::new(rng),
            model: RefCell::default(),
            pending: RefCell::default(),
            files: RefCell::default(),
            snapshots: RefCell::default(),
            far: Cell::new(far),
            clock: Cell::new(1),
            acknowledged: Cell::new(0),
            refused: Cell::new(0),
        }
    }

    /// Does `count` operations, or fewer if the store stops.
    pub async fn work(&self, engine: &impl Store, count: u64) {
        for _ in 0..count {
            if self.rng.borrow_mut().percent(25) {
                if !self.read_some(engine).await {
                    return;
                }
                continue;
            }
            let op = self.draw(engine);
            *self.pending.borrow_mut() = Some(op.clone());
            match op.perform(engine).await {
                Ok(()) => {
                    op.apply(&self.model.borrow());
                    self.acknowledged.set(self.acknowledged.get() + 1);
                }
                Err(StoreRefusal::NoSpace) => {
                    assert!(!op.only_gives_back(), "no room to give room back: {op:?}");
                    self.refused.set(self.refused.get() + 1);
                }
                Err(StoreRefusal::Stopped) => return,
                Err(other) => panic!("{other} for {}", summary(&op)),
            }
            *self.pending.borrow_mut() = None;
            self.note_files(&op);
        }
    }

    fn draw(&self, engine: &impl Store) -> Op {
        let mut rng = self.rng.borrow_mut();
        self.clock.set(self.clock.get() + 1);
        let at = WallNanos(self.clock.get());
        let files = self.files.borrow();
        if files.len() < FILES && rng.percent(if files.is_empty() { 100 } else { 10 }) {
            return Op::Commit(vec![Change::CreateFile { file: engine.next_file_id(), at }]);
        }
        let file = files[rng.index(files.len())];
        if rng.percent(8) {
            return Op::Commit(self.draw_snapshot(engine, &mut rng, file, at));
        }
        match rng.below(24) {
            0 => Op::Commit(vec![Change::DropFile { file }]),
            1 => {
                let new = engine.next_file_id();
                Op::Commit(vec![Change::DropFile { file }, Change::CreateFile { file: new, at }])
            }
            2 | 3 => Op::Commit(vec![Change::SetSize { file, size_bytes: rng.below(SPAN_BYTES) }]),
            4 => Op::Commit(vec![Change::SetTimes { file, modified: rng.percent(50).then_some(at), changed: at }]),
            5..=7 => Op::Commit((0..rng.between(1, 4)).map(|_| self.row_change(&mut rng)).collect()),
            _ => self.draw_write(&mut rng, file, at),
        }
    }

    /// Something with snapshots: one is taken of a file or of all, goes, is cloned, or a file
    /// is rolled back to it.
    fn draw_snapshot(&self, engine: &impl Store, rng: &mut Rng, file: FileId, at: WallNanos) -> Vec<Change> {
        let (files, snapshots) = (self.files.borrow(), self.snapshots.borrow());
        let taken = |file| Change::Snapshot { file, snapshot: engine.next_file_id() };
        if snapshots.is_empty() || (snapshots.len() < SNAPSHOTS && rng.percent(40)) {
            return if rng.percent(50) { vec![taken(file)] } else { files.iter().copied().map(taken).collect() };
        }
        let snapshot = snapshots[rng.index(snapshots.len())];
        match rng.below(4) {
            0 if files.len() < FILES => vec![Change::Clone { snapshot, file: engine.next_file_id(), at }],
            0 | 1 => vec![Change::Rollback { file, snapshot, map: engine.next_file_id(), at }],
            2 => vec![taken(file), Change::Rollback { file, snapshot, map: engine.next_file_id(), at }],
            _ => vec![Change::DropFile { file: snapshot }],
        }
    }

    fn row_change(&self, rng: &mut Rng) -> Change {
        let mut key = vec![rng.below(120) as u8];
        key.resize(1 + rng.below(40) as usize / 20 * 20, 7);
        if rng.percent(25) {
            return Change::Delete { table: self.table, key };
        }
        Change::Put { table: self.table, key, value: vec![rng.below(256) as u8; rng.below(900) as usize] }
    }

    fn draw_write(&self, rng: &mut Rng, file: FileId, at: WallNanos) -> Op {
        let base = self.far.get().filter(|_| rng.percent(10)).unwrap_or(0);
        let (offset, len) = match rng.below(8) {
            0..=3 => (rng.below(SPAN_BYTES / 8192) * 8192, rng.between(1, 6) * 8192),
            4 => (rng.below(SPAN_BYTES), 1),
            5 => (rng.below(SPAN_BYTES / 512) * 512, rng.between(1, 32) * 512),
            _ => (rng.below(SPAN_BYTES), rng.between(1, 24_000)),
        };
        let mut data = vec![0; len as usize];
        match rng.below(5) {
            0 => {}
            1 => data.fill(rng.between(1, 3) as u8),
            2 => {
                // The same blocks over and over: duplicates that do not compress.
                let mut same = Rng::new(rng.below(6));
                data.chunks_mut(8192).for_each(|block| same.fill(block));
            }
            _ => rng.fill(&mut data),
        }
        Op::Write { file, offset_bytes: base + offset, data, at }
    }

    /// Files come and go with operations that happened.
    fn note_files(&self, op: &Op) {
        let Op::Commit(changes) = op else { return };
        let model = self.model.borrow();
        let mut files = self.files.borrow_mut();
        files.extend(changes.iter().filter_map(|change| match change {
            Change::CreateFile { file, .. } | Change::Clone { file, .. } => Some(*file),
            _ => None,
        }));
        files.retain(|file| head(&model, *file).is_some());
        let mut snapshots = self.snapshots.borrow_mut();
        snapshots.extend(changes.iter().filter_map(snapshot_of));
        snapshots.retain(|file| head(&model, *file).is_some());
    }

    /// Files and snapshots that are there, and those that the operation under way may make.
    pub fn all(&self) -> Vec<FileId> {
        let mut all = [&self.files.borrow()[..], &self.snapshots.borrow()].concat();
        if let Some(Op::Commit(changes)) = &*self.pending.borrow() {
            all.extend(changes.iter().filter_map(|change| match change {
                Change::CreateFile { file, .. } | Change::Clone { file, .. } => Some(*file),
                change => snapshot_of(change),
            }));
        }
        all
    }

    /// Reads a range and compares; false: the store has stopped.
    async fn read_some(&self, engine: &impl Store) -> bool {
        let (file, offset, len) = {
            let mut rng = self.rng.borrow_mut();
            let files = self.all();
            if files.is_empty() {
                return true;
            }
            (files[rng.index(files.len())], rng.below(SPAN_BYTES), rng.below(40_000) as usize)
        };
        let ours = match engine.read(file, offset, len).await {
            Ok(read) => bytes_of(&read),
            Err(StoreRefusal::Stopped) => return false,
            Err(other) => panic!("{other}: reading file {file} at {offset}"),
        };
        let theirs = model_bytes(&self.model.borrow(), (file, offset, len));
        if let Some(at) = first_difference(&ours, &theirs) {
            let excerpt = excerpt(&ours, &theirs, at);
            panic!("file {file} differs at {} (read of {len} at {offset}): {excerpt}", offset + at);
        }
        true
    }

    /// After a crash: decides whether the operation without an answer happened, and
    /// checks everything else.
    pub async fn judge(&self, engine: &impl Store) {
        let without = self.difference(engine).await;
        let pending = self.pending.borrow_mut().take();
        match (without, pending) {
            (None, None) => {}
            (Some(difference), None) => panic!("client {}: {difference}", self.table.0),
            (None, Some(op)) => self.note_files(&op),
            (Some(difference), Some(op)) => {
                op.apply(&self.model.borrow());
                if let Some(with) = self.difference(engine).await {
                    panic!("client {}: neither before nor after {}: {difference}; {with}", self.table.0, summary(&op));
                }
                self.note_files(&op);
            }
        }
    }

    /// What is not as in the model, if anything.
    async fn difference(&self, engine: &impl Store) -> Option<String> {
        for file in self.all() {
            let ours = engine.head(file).await.unwrap_or_else(|refusal| panic!("{refusal}: head of file {file}"));
            let known = |found: Option<engine::store::FileHead>| {
                found.map(|head| (head.size_bytes, head.modified, head.changed))
            };
            let theirs = head(&self.model.borrow(), file);
            if known(ours) != known(theirs) {
                return Some(format!("file {file}: {:?}, expected {:?}", known(ours), known(theirs)));
            }
            let starts = [0].into_iter().chain(self.far.get());
            for start in starts.filter(|_| ours.is_some()) {
                let len = 4 * SPAN_BYTES as usize;
                let read = engine.read(file, start, len).await;
                let ours = bytes_of(&read.unwrap_or_else(|refusal| panic!("{refusal}: file {file}")));
                let theirs = model_bytes(&self.model.borrow(), (file, start, len));
                if let Some(at) = first_difference(&ours, &theirs) {
                    return Some(format!("file {file} differs at {}: {}", start + at, excerpt(&ours, &theirs, at)));
                }
            }
        }
        let ours = engine.scan(self.table, &[], 999).await.unwrap_or_else(|refusal| panic!("{refusal}: table"));
        let theirs = self.model.borrow().scan(self.table, &[], 999).now_or_never().expect("the model never waits");
        (Ok(&ours) != theirs.as_ref()).then(|| format!("table {} differs", self.table.0))
    }

    /// Everything is settled: used space must be exact, too.
    pub async fn judge_settled(&self, engine: &impl Store) {
        self.judge(engine).await;
        for file in self.all() {
            let used = |head: Option<engine::store::FileHead>| head.map(|head| head.used_bytes);
            let ours = engine.head(file).await.unwrap_or_else(|refusal| panic!("{refusal}: head of file {file}"));
            assert_eq!(used(ours), used(head(&self.model.borrow(), file)), "used space of file {file}");
        }
    }
}

fn snapshot_of(change: &Change) -> Option<FileId> {
    match change {
        Change::Snapshot { snapshot, .. } => Some(*snapshot),
        _ => None,
    }
}

fn head(model: &MemoryStore, file: FileId) -> Option<engine::store::FileHead> {
    model.head(file).now_or_never().expect("the model never waits").expect("the model does not fail")
}

fn model_bytes(model: &MemoryStore, (file, offset, len): (FileId, u64, usize)) -> Vec<u8> {
    let read = model.read(file, offset, len).now_or_never().expect("the model never waits");
    bytes_of(&read.expect("the model does not fail"))
}

/// A read in one piece.
pub fn bytes_of(read: &ReadOut) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in &read.pieces {
        match piece {
            Piece::Data(data) => bytes.extend_from_slice(data),
            Piece::Zeros(count) => bytes.resize(bytes.len() + count, 0),
        }
    }
    bytes
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<u64> {
    if a.len() != b.len() {
        return Some(a.len().min(b.len()) as u64);
    }
    a.iter().zip(b).position(|(a, b)| a != b).map(|at| at as u64)
}

fn excerpt(ours: &[u8], theirs: &[u8], at: u64) -> String {
    let few = |bytes: &[u8]| bytes.iter().skip(at as usize).take(8).copied().collect::<Vec<u8>>();
    let differing = ours.iter().zip(theirs).filter(|(a, b)| a != b).count();
    format!("{:?} instead of {:?}, {differing} bytes in all", few(ours), few(theirs))
}

fn summary(op: &Op) -> String {
    match op {
        Op::Write { file, offset_bytes, data, .. } => {
            format!("write of {} at {offset_bytes} of file {file}", data.len())
        }
        Op::Commit(changes) => {
            let mut text = format!("{changes:?}");
            text.truncate(200);
            text
        }
    }
}

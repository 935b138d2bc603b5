//! A small world for tests: an executor that polls woken tasks in a seeded order, a clock
//! set by hand, and a store that makes every call wait.

#![allow(dead_code, reason = "each test file uses its part")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use base::port::{Chance, Clock, LocalFuture, Spawn, World};
use base::{Buf, FileId, Nanos, Osn, WallNanos};
use datastore::{Caller, DatastoreOptions, Filesystem, Handle, Identity};
use engine::memory::MemoryStore;
use engine::store::{Change, Extent, FileHead, ReadOut, Row, Space, Store, StoreRefusal, Table, Wrote};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

pub type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs all tasks to their end, always polling a random one of those that were woken.
/// Panics when tasks are left and none is awake: a deadlock or a lost wake-up.
pub fn run_all(tasks: Vec<Task<'_>>, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut tasks: Vec<(Task<'_>, Arc<Flag>)> =
        tasks.into_iter().map(|task| (task, Arc::new(Flag(AtomicBool::new(true))))).collect();
    while !tasks.is_empty() {
        let awake: Vec<usize> = (0..tasks.len()).filter(|&n| tasks[n].1.0.load(Ordering::SeqCst)).collect();
        assert!(!awake.is_empty(), "{} tasks wait for each other", tasks.len());
        let chosen = awake[rng.random_range(0..awake.len())];
        let (task, flag) = &mut tasks[chosen];
        flag.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(flag.clone());
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            drop(tasks.swap_remove(chosen));
        }
    }
}

pub fn run<T>(future: impl Future<Output = T>) -> T {
    let out = RefCell::new(None);
    run_all(vec![Box::pin(async { *out.borrow_mut() = Some(future.await) })], 0);
    out.into_inner().unwrap()
}

/// Clock, spawner and chance in one.
pub struct Hand {
    pub wall: Cell<u64>,
    pub step_ns: Cell<u64>,
    pub tasks: RefCell<Vec<LocalFuture<'static, ()>>>,
}

impl Clock for Hand {
    fn now(&self) -> Nanos {
        Nanos(self.wall.get())
    }
    fn wall(&self) -> WallNanos {
        self.wall.set(self.wall.get() + self.step_ns.get());
        WallNanos(self.wall.get())
    }
    fn sleep_until(&self, _at: Nanos) -> LocalFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl Spawn for Hand {
    fn spawn(&self, _name: &'static str, task: LocalFuture<'static, ()>) {
        self.tasks.borrow_mut().push(task);
    }
}

impl Chance for Hand {
    fn maybe(&self, _site: &'static str) -> bool {
        false
    }
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0x5a);
    }
}

pub const SECOND: u64 = 1_000_000_000;
pub const START: u64 = 1_700_000_000 * SECOND;

pub fn hand() -> Rc<Hand> {
    Rc::new(Hand { wall: Cell::new(START), step_ns: Cell::new(1000), tasks: RefCell::default() })
}

pub fn world(hand: &Rc<Hand>) -> World {
    World { clock: hand.clone(), spawn: hand.clone(), chance: hand.clone() }
}

pub fn identity() -> Identity {
    Identity { pool: 0x1122_3344_5566_7788, handle_key: [9; 16] }
}

/// A filesystem with one datastore open to all.
pub struct Lab<S = MemoryStore> {
    pub hand: Rc<Hand>,
    pub store: Rc<S>,
    pub fs: Rc<Filesystem<S>>,
    pub root: Handle,
}

impl Lab {
    pub fn new() -> Lab {
        Lab::on(MemoryStore::default())
    }
}

impl<S: Store> Lab<S> {
    pub fn on(store: S) -> Lab<S> {
        let (store, hand) = (Rc::new(store), hand());
        let fs = run(async {
            Filesystem::format(&*store, &world(&hand), &identity(), DatastoreOptions::open()).await.unwrap();
            let fs = Filesystem::open(store.clone(), world(&hand), identity()).await.unwrap();
            fs.create_datastore("vms", DatastoreOptions::open()).await.unwrap();
            fs
        });
        let root = run(fs.mount(&user(0), b"/vms")).unwrap().handle;
        Lab { hand, store, fs, root }
    }

    /// Opens the same store again, as after a crash: nothing is carried over in memory.
    pub fn reopen(&mut self) {
        self.fs = run(Filesystem::open(self.store.clone(), world(&self.hand), identity())).unwrap();
        let tasks = std::mem::take(&mut *self.hand.tasks.borrow_mut());
        run_all(tasks, 1);
    }

    /// Every test may end with this: all tables agree.
    pub fn assert_clean(&self) {
        assert_eq!(run(self.fs.check()).unwrap(), vec![]);
    }
}

pub fn user(uid: u32) -> Caller {
    Caller { uid, gid: uid, gids: vec![], address: "10.0.0.1".parse().unwrap(), machine: "test".into() }
}

/// A store whose calls wait a random number of turns before and after they take effect.
pub struct Waiting {
    inner: MemoryStore,
    rng: RefCell<SmallRng>,
    pub turns_max: u32,
}

impl Waiting {
    pub fn new(seed: u64) -> Waiting {
        Waiting { inner: MemoryStore::default(), rng: RefCell::new(SmallRng::seed_from_u64(seed)), turns_max: 3 }
    }

    async fn turns(&self) {
        let turns = self.rng.borrow_mut().random_range(0..=self.turns_max);
        for _ in 0..turns {
            let mut yielded = false;
            std::future::poll_fn(|context| {
                if yielded {
                    return Poll::Ready(());
                }
                yielded = true;
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }
}

impl Store for Waiting {
    fn next_file_id(&self) -> FileId {
        self.inner.next_file_id()
    }
    async fn head(&self, file: FileId) -> Result<Option<FileHead>, StoreRefusal> {
        self.turns().await;
        let out = self.inner.head(file).await;
        self.turns().await;
        out
    }
    async fn read(&self, file: FileId, offset_bytes: u64, len_bytes: usize) -> Result<ReadOut, StoreRefusal> {
        self.turns().await;
        let out = self.inner.read(file, offset_bytes, len_bytes).await;
        self.turns().await;
        out
    }
    async fn write(
        &self,
        file: FileId,
        offset_bytes: u64,
        parts: &[&[u8]],
        at: WallNanos,
    ) -> Result<Wrote, StoreRefusal> {
        let out = self.inner.write(file, offset_bytes, parts, at).await;
        self.turns().await;
        out
    }
    async fn commit(&self, changes: Vec<Change>) -> Result<Osn, StoreRefusal> {
        self.turns().await;
        let out = self.inner.commit(changes).await;
        self.turns().await;
        out
    }
    async fn differences(&self, one: FileId, other: FileId) -> Result<Vec<Extent>, StoreRefusal> {
        self.turns().await;
        self.inner.differences(one, other).await
    }
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Buf>, StoreRefusal> {
        self.turns().await;
        let out = self.inner.get(table, key).await;
        self.turns().await;
        out
    }
    async fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreRefusal> {
        self.turns().await;
        let out = self.inner.scan(table, from, limit).await;
        self.turns().await;
        out
    }
    fn space(&self) -> Space {
        self.inner.space()
    }
}

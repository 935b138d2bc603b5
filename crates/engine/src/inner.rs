//! The engine's parts and what they share: loading pages, waiting for acknowledgements,
//! stopping.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use base::meter::Meter;
use base::port::World;
use base::{Buf, FileId, ObjectId};
use journal::{Journal, Sequence};
use quick_cache::UnitWeighter;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use raid::{Group, Principal};
use tokio::sync::{Mutex, Notify};

use crate::expand::Expansions;
use crate::format::{DESCRIPTOR_BYTES, Descriptor, FormatError, ObjectKind, Place};
use crate::hash::{FixedMap, FixedState};
use crate::mover::Mover;
use crate::options::{Counters, Event, Options};
use crate::page::Page;
use crate::pages::{PageEntry, TablePage};
use crate::rebuild::Rebuild;
use crate::scrub::Scrubber;
use crate::state::State;
use crate::store::{FileHead, StoreRefusal};
use crate::tree::{Missing, PageId, Pages};

pub(crate) type BlockCache = Cache<ObjectId, Buf, UnitWeighter, FixedState, DefaultLifecycle<ObjectId, Buf>>;

/// What an acknowledged operation found and left.
pub(crate) type Outcome = Result<(FileHead, FileHead), StoreRefusal>;

enum Ack {
    Waiting(Option<Waker>),
    Done(Outcome),
}

/// Everything an open engine has.
pub(crate) struct Inner {
    pub group: Group,
    pub journal: Journal,
    pub world: World,
    pub options: Options,
    pub state: RefCell<State>,
    pub blocks: RefCell<BlockCache>,
    /// Held by whatever moves data: destager, cleaner, reclaimer, checkpoint.
    pub mover: Mutex<Mover>,
    acks: RefCell<FixedMap<u64, Ack>>,
    /// Cloned by every read while it knows places; see [`Inner::new_era`].
    era: RefCell<Rc<()>>,
    stopped: Cell<bool>,
    /// There is background work.
    pub work: Notify,
    /// A checkpoint is done.
    pub checkpointed: Notify,
    /// Wakes those who wait for room in the journal when the engine stops.
    pub halted: Notify,
    /// Blocks promised to writers and not yet staged.
    pub promised_blocks: Cell<u64>,
    /// Writers that wait until staged blocks are destaged.
    pub waiting_for_room: Cell<u32>,
    /// Bytes of stripe payload in all, as of the last look.
    pub total_bytes: Cell<u64>,
    /// The pass that fills drives.
    pub rebuild: Rebuild,
    /// The background scrub.
    pub scrubber: Scrubber,
    /// When drives joined.
    pub expansions: Expansions,
    pub counters: RefCell<Counters>,
    pub events: RefCell<Vec<Event>>,
    /// Where the time of clients' operations goes.
    pub meter: Meter,
}

impl Inner {
    pub fn new(
        group: Group,
        journal: Journal,
        world: World,
        options: Options,
        (state, mover): (State, Mover),
    ) -> Inner {
        let blocks = (options.cache_bytes / 8192).max(16) as usize;
        let meter = Meter::new(world.clock.clone());
        Inner {
            meter,
            group,
            journal,
            world,
            options,
            state: RefCell::new(state),
            blocks: RefCell::new(Cache::with(
                blocks,
                blocks as u64,
                UnitWeighter,
                FixedState,
                DefaultLifecycle::default(),
            )),
            mover: Mutex::new(mover),
            acks: RefCell::default(),
            era: RefCell::default(),
            stopped: Cell::new(false),
            work: Notify::new(),
            checkpointed: Notify::new(),
            halted: Notify::new(),
            promised_blocks: Cell::new(0),
            waiting_for_room: Cell::new(0),
            total_bytes: Cell::new(0),
            rebuild: Rebuild::default(),
            scrubber: Scrubber::default(),
            expansions: Expansions::default(),
            counters: RefCell::default(),
            events: RefCell::default(),
        }
    }

    /// Nothing is acknowledged any more until the engine is opened again.
    pub fn stop(&self, why: &'static str) {
        if !self.stopped.replace(true) {
            self.event(Event::Stopped { why });
        }
        for ack in self.acks.borrow_mut().values_mut() {
            if let Ack::Waiting(waker) = std::mem::replace(ack, Ack::Done(Err(StoreRefusal::Stopped))) {
                waker.into_iter().for_each(Waker::wake);
            }
        }
        self.checkpointed.notify_waiters();
        self.halted.notify_waiters();
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    pub fn refuse_if_stopped(&self) -> Result<(), StoreRefusal> {
        if self.stopped.get() { Err(StoreRefusal::Stopped) } else { Ok(()) }
    }

    pub fn event(&self, event: Event) {
        let mut events = self.events.borrow_mut();
        if events.len() < self.options.events_max {
            events.push(event);
        }
    }

    /// Runs `attempt` until all the pages it needs are in memory.
    pub async fn resident<T>(
        &self,
        mut attempt: impl FnMut(&mut State) -> Result<T, Missing>,
    ) -> Result<T, StoreRefusal> {
        loop {
            let tried = attempt(&mut self.state.borrow_mut());
            match tried {
                Ok(done) => return Ok(done),
                Err(Missing(page)) => self.load(page).await?,
            }
        }
    }

    /// Reads page `id` from media, and before it whatever table pages lead to it. Returns
    /// without it if its tree let go of it meanwhile: whoever wants it has to look again.
    pub async fn load(&self, id: PageId) -> Result<(), StoreRefusal> {
        let mut has_waited = false;
        loop {
            let _era = self.era();
            // Somebody else may have brought it, and a checkpoint may be writing it: then what
            // its entry names is not on media yet.
            if has_waited && self.is_resident(id) {
                return Ok(());
            }
            let (target, entry) = match self.nearest(id) {
                Ok(found) => found,
                Err(_) if has_waited => return Ok(()),
                Err(target) => return Err(self.lost_page(target)),
            };
            has_waited = true;
            self.counters.borrow_mut().pages_read += 1;
            let read = self.read_object(Principal::MetadataRead, entry.place, |found| {
                found.kind == ObjectKind::Page && found.id == target.0 && found.sequence == entry.version
            });
            let Ok((_, object)) = read.await else { return Err(self.lost_page(target)) };
            let packed = &object[DESCRIPTOR_BYTES..DESCRIPTOR_BYTES + entry.place.stored_bytes as usize];
            let mut state = self.state.borrow_mut();
            if state.pages.entry(target) != Ok(entry) {
                continue; // Written anew meanwhile.
            }
            if target.level() == 0 {
                let page = Page::unpack(packed).map_err(|_| self.lost_page(target))?;
                state.pages.install(target, page);
            } else {
                let page = TablePage::unpack(packed).map_err(|_| self.lost_page(target))?;
                state.pages.install_table(target, page);
            }
            if target == id {
                return Ok(());
            }
        }
    }

    fn is_resident(&self, id: PageId) -> bool {
        let pages = &self.state.borrow().pages;
        if id.level() == 0 { pages.page(id).is_ok() } else { pages.table(id).is_ok() }
    }

    /// The first page on the way down to `id` that is not in memory, and its entry; a page that
    /// stands nowhere otherwise.
    fn nearest(&self, id: PageId) -> Result<(PageId, PageEntry), PageId> {
        let state = self.state.borrow();
        let mut target = id;
        loop {
            match state.pages.entry(target) {
                Ok(entry) if entry.is_some() => return Ok((target, entry)),
                Ok(_) => return Err(target),
                Err(Missing(table)) => target = table,
            }
        }
    }

    fn lost_page(&self, page: PageId) -> StoreRefusal {
        self.event(Event::PageLost { page: page.0 });
        StoreRefusal::Unreadable { file: FileId(0), offset_bytes: 0 }
    }

    /// Reads the object at `place`. It must be the one that `expected` describes and
    /// carry the place's check; otherwise the group rebuilds it from the other drives.
    pub async fn read_object(
        &self,
        principal: Principal,
        place: Place,
        expected: impl Fn(&Descriptor) -> bool,
    ) -> Result<(Descriptor, Buf), FormatError> {
        let verify =
            |bytes: &[u8]| Descriptor::open(bytes).is_ok_and(|(found, check)| check == place.check && expected(&found));
        let len = DESCRIPTOR_BYTES as u32 + place.stored_bytes;
        let object = self.group.acting_as(principal).read(place.stripe, place.offset_bytes, len, &verify).await;
        let object = object.map_err(|_| FormatError("object: damaged beyond repair"))?;
        let (descriptor, _) = Descriptor::open(&object)?;
        Ok((descriptor, object))
    }

    /// Held by whoever knows a place on media, so that the stripe is not written anew.
    pub fn era(&self) -> Rc<()> {
        self.era.borrow().clone()
    }

    /// Waits for all who may know places of before.
    pub async fn new_era(&self) {
        let before = self.era.replace(Rc::new(()));
        while Rc::strong_count(&before) > 1 {
            let soon = self.world.clock.now() + self.options.era_poll;
            self.world.clock.sleep_until(soon).await;
        }
    }

    /// The record with `sequence` is applied.
    pub fn acknowledge(&self, sequence: Sequence, outcome: Outcome) {
        if let Some(ack) = self.acks.borrow_mut().get_mut(&sequence.0)
            && let Ack::Waiting(waker) = std::mem::replace(ack, Ack::Done(outcome))
        {
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Waits until the record with `sequence` is stable and applied.
    pub async fn applied(&self, sequence: Sequence) -> Outcome {
        let turn = AckTurn { inner: self, sequence: sequence.0 };
        let start = if self.is_stopped() { Ack::Done(Err(StoreRefusal::Stopped)) } else { Ack::Waiting(None) };
        self.acks.borrow_mut().insert(turn.sequence, start);
        poll_fn(|context| match self.acks.borrow_mut().get_mut(&turn.sequence) {
            Some(Ack::Done(outcome)) => Poll::Ready(*outcome),
            Some(Ack::Waiting(waker)) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(Err(StoreRefusal::Stopped)),
        })
        .await
    }
}

/// Takes the slot away when the waiter is done or gone.
struct AckTurn<'a> {
    inner: &'a Inner,
    sequence: u64,
}

impl Drop for AckTurn<'_> {
    fn drop(&mut self) {
        self.inner.acks.borrow_mut().remove(&self.sequence);
    }
}

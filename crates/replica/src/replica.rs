//! One site of a pair at work: what happens goes to the mirror, what it wants is done.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use base::port::World;
use base::{Buf, FileId, Nanos, Osn, PairId, SiteId};
use engine::store::{Change as Put, FileHead, Piece, ReadOut, StoreRefusal};
use engine::{Engine, Store, decode_changes, encode_changes};
use mirror::wire::{Frame, Message};
use mirror::{Action, Answer, Change, Config, Form, Input, Mirror, OpId, Reader, Request, Span};
use tokio::sync::{Notify, oneshot};
use witness::{Ask, Standing};

use crate::appender::{Pending, Work, append_all};
use crate::check::marker::{Marker, Point};
use crate::check::{CheckCourse, EvidenceRows, ask as check};
use crate::resync::primary::{self, Course};
use crate::resync::secondary::{Asked, answer_all};
use crate::resync::{ResyncCounters, base_of};
use crate::shelf::{Shelf, ShelfFault};

/// Everything that a site reaches beyond itself. What comes from there is told by
/// [`Replica::tell`].
pub trait Outside {
    /// Sends a frame, in order and whole, or the link ends.
    fn send(&self, link: u64, frame: Frame);
    /// Ends a link and makes a new one.
    fn hang(&self, link: u64);
    /// Asks the witness; there may be no answer.
    fn ask(&self, number: u64, ask: Ask);
    /// The record has changed.
    fn notice(&self, standing: Standing);
    /// The certificate of this site, and the signature of `words` by its key. None where it cannot sign.
    fn sign(&self, words: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let _ = words;
        None
    }
}

/// Why a site of a pair is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// Its rows.
    #[error(transparent)]
    Shelf(#[from] ShelfFault),
    /// Its content is another pair's.
    #[error("this store is a site of another pair")]
    OtherPair(PairId),
}

/// What a write found and left.
pub(crate) type Heads = (FileHead, FileHead);

/// A client's operation that has no answer yet.
pub(crate) struct Waiting {
    pub changes: Option<Vec<Put>>,
    pub read: Option<Result<ReadOut, StoreRefusal>>,
    pub refusal: Option<StoreRefusal>,
    pub tell: oneshot::Sender<Told>,
}

/// What came of it.
pub(crate) struct Told {
    pub answer: Answer,
    pub heads: Option<(FileHead, FileHead)>,
    pub read: Option<Result<ReadOut, StoreRefusal>>,
    pub refusal: Option<StoreRefusal>,
    /// When a write was stable and applied at this site, if that is known.
    pub local_at: Option<Nanos>,
}

pub(crate) struct Inner {
    pub engine: Engine,
    pub world: World,
    pub stream: u32,
    pub config: Config,
    pub shelf: RefCell<Shelf>,
    pub queue: RefCell<VecDeque<Work>>,
    pub queued: Notify,
    pub pending: RefCell<Pending>,
    /// Ticket of the last record.
    appended: Cell<u64>,
    /// All through here are stable and applied.
    pub through: Cell<u64>,
    /// That has risen.
    pub settled: Notify,
    /// Heads that clients' writes found and left, and when they were stable here.
    pub heads: RefCell<BTreeMap<Osn, (Heads, Nanos)>>,
    pub changed: Notify,
    /// The resync that runs.
    pub course: RefCell<Option<Course>>,
    /// What the other site's resync asks.
    pub asked: RefCell<VecDeque<Asked>>,
    pub asks: Notify,
    /// One of these is being done.
    pub answers: Cell<bool>,
    /// There may be files that only a resync needs.
    pub has_local: Cell<bool>,
    /// The check that runs, where this site is primary.
    pub check_course: RefCell<Option<CheckCourse>>,
    /// What there was at its point.
    pub marker: RefCell<Option<Marker>>,
    /// How much was in flight here then.
    pub in_flight_at_point: Cell<u64>,
    /// There may be files that only a check needed.
    pub has_stand_ins: Cell<bool>,
    /// What is kept of differences.
    pub evidence: RefCell<EvidenceRows>,
    /// What snapshots were taken of since this site became alone.
    pub origins: RefCell<BTreeMap<FileId, FileId>>,
    counters: Cell<ResyncCounters>,
    pub outside: Rc<dyn Outside>,
    mirror: RefCell<Mirror>,
    inbox: RefCell<VecDeque<Input>>,
    is_busy: Cell<bool>,
    ops: RefCell<BTreeMap<OpId, Waiting>>,
    last_op: Cell<u64>,
    stopped: Cell<bool>,
}

/// A store at two sites. Clones are the same.
#[derive(Clone)]
pub struct Replica {
    pub(crate) inner: Rc<Inner>,
}

impl Replica {
    /// Makes a blank store a site of the pair that `standing` says. The other one is blank, too,
    /// so both hold the same and the record may say that they are in sync.
    ///
    /// # Errors
    /// The store's.
    pub async fn found(engine: &Engine, standing: Standing) -> Result<(), StoreRefusal> {
        engine.commit(Shelf::founded(standing)).await.map(drop)
    }

    /// Opens the site on an engine; `stream` is its number in the journal, not 0. It does nothing
    /// for clients before it has met the other site or the witness.
    ///
    /// # Errors
    /// [`NotOpened`]; a site that forgot what may differ must not go on.
    pub async fn open(
        engine: Engine,
        world: World,
        (config, stream): (Config, u32),
        outside: Rc<dyn Outside>,
    ) -> Result<Replica, NotOpened> {
        let shelf = Shelf::load(&engine).await?;
        if let Some(other) = shelf.pair().filter(|pair| *pair != config.pair) {
            return Err(NotOpened::OtherPair(other));
        }
        // Nobody here makes both equal again.
        let evidence = EvidenceRows::load(&engine).await.map_err(ShelfFault::Store)?;
        let mirror = Mirror::new(config, shelf.kept().clone(), world.clock.now());
        let inner = Rc::new(Inner {
            engine,
            world,
            stream,
            config,
            shelf: RefCell::new(shelf),
            queue: RefCell::default(),
            queued: Notify::new(),
            pending: RefCell::default(),
            appended: Cell::new(0),
            through: Cell::new(0),
            settled: Notify::new(),
            heads: RefCell::default(),
            changed: Notify::new(),
            course: RefCell::default(),
            asked: RefCell::default(),
            asks: Notify::new(),
            answers: Cell::new(false),
            has_local: Cell::new(true),
            check_course: RefCell::default(),
            marker: RefCell::default(),
            in_flight_at_point: Cell::new(0),
            has_stand_ins: Cell::new(true),
            evidence: RefCell::new(evidence),
            origins: RefCell::default(),
            counters: Cell::default(),
            outside,
            mirror: RefCell::new(mirror),
            inbox: RefCell::default(),
            is_busy: Cell::new(false),
            ops: RefCell::default(),
            last_op: Cell::new(0),
            stopped: Cell::new(false),
        });
        inner.world.spawn.spawn("replica", Box::pin(append_all(inner.clone())));
        inner.world.spawn.spawn("resync", Box::pin(answer_all(inner.clone())));
        inner.tell(Input::Tick);
        Ok(Replica { inner })
    }

    /// Something happened outside: a link, a frame, the witness's answer, a command.
    pub fn tell(&self, input: Input) {
        self.inner.tell(input);
    }

    /// The site's state, for status and tests.
    pub fn with_mirror<T>(&self, look: impl FnOnce(&Mirror) -> T) -> T {
        self.inner.with_mirror(look)
    }

    /// Waits until `look` finds what it looks for. It looks after every change of the site.
    pub async fn until<T>(&self, look: impl Fn(&Mirror) -> Option<T>) -> T {
        loop {
            let changed = self.inner.changed.notified();
            if let Some(found) = self.with_mirror(&look) {
                return found;
            }
            changed.await;
        }
    }

    /// Makes a store that holds something a site of a pair all the same: what it holds is given up
    /// when the pair's primary makes it equal. For an administrator who names both.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub async fn give_up_for(engine: &Engine, pair: PairId) -> Result<(), NotOpened> {
        let joins = Shelf::load(engine).await?.join(pair);
        engine.commit(vec![joins]).await.map_err(ShelfFault::Store)?;
        Ok(())
    }

    /// Whether this copy was ever complete. One that was not is nothing to go on with, whoever
    /// orders it.
    #[must_use]
    pub fn was_whole(&self) -> bool {
        self.inner.shelf.borrow().whole_with().is_some()
    }

    /// What resyncs of this life have done, as primary.
    #[must_use]
    pub fn resync_counters(&self) -> ResyncCounters {
        self.inner.counters.get()
    }

    /// The engine below.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Nothing is acknowledged any more until it is opened again.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.inner.stopped.get()
    }
}

impl Inner {
    pub fn tell(self: &Rc<Self>, input: Input) {
        if self.stopped.get() {
            return;
        }
        self.inbox.borrow_mut().push_back(input);
        if self.is_busy.replace(true) {
            return;
        }
        while let Some(input) = self.next_input() {
            let actions = self.mirror.borrow_mut().handle(self.world.clock.now(), input);
            actions.into_iter().for_each(|action| self.act(action));
        }
        self.is_busy.set(false);
        if self.marker.borrow().as_ref().is_some_and(|marker| self.mirror_link() != Some(marker.link)) {
            // What was agreed over a link that is gone is of no use.
            self.queued.notify_one();
        }
        self.changed.notify_waiters();
    }

    fn next_input(&self) -> Option<Input> {
        self.inbox.borrow_mut().pop_front()
    }

    /// What was appended could not be: this site holds less than the mirror believes.
    pub fn stop(&self) {
        if self.stopped.replace(true) {
            return;
        }
        self.ops.borrow_mut().clear();
        self.queue.borrow_mut().clear();
        self.course.borrow_mut().take();
        self.end_check();
        let link = self.mirror.borrow().link();
        if let Some(link) = link {
            self.outside.hang(link);
        }
        self.changed.notify_waiters();
        self.settled.notify_waiters();
    }

    fn act(self: &Rc<Self>, action: Action) {
        match action {
            Action::Append(ticket, record) => {
                self.appended.set(ticket);
                self.queue.borrow_mut().push_back(Work::Record(ticket, record));
                self.queued.notify_one();
            }
            Action::Send(link, frame) => {
                if let Message::Query { body, .. } = &frame.message {
                    self.count(|counters| counters.sent_bytes += body.len() as u64);
                }
                self.outside.send(link, frame);
            }
            Action::Hang(link) => self.outside.hang(link),
            Action::Ask(number, ask) => self.outside.ask(number, ask),
            Action::Notice(standing) => self.outside.notice(standing),
            Action::Read { reader, span, at } => self.spawn(async move |site| site.read(reader, span, at).await),
            Action::Resolve(op) => self.spawn(async move |site| site.resolve(op).await),
            Action::Check(osn, change) => self.spawn(async move |site| {
                let yes = site.can_make(&change).await;
                site.tell(Input::Checked(osn, yes));
            }),
            Action::Answer(op, answer) => self.answer(op, answer),
            Action::WakeAt(at) => self.spawn(async move |site| {
                site.world.clock.sleep_until(at).await;
                site.tell(Input::Tick);
            }),
            Action::Resync(number) => {
                *self.course.borrow_mut() = Some(Course::new(number));
                self.spawn(async move |site| primary::run(site, number).await);
            }
            Action::EndResync(number) => self.end_course(number),
            Action::Halted(_) | Action::Level(_) => self.on_course(Course::stands),
            Action::Held(hold) => self.on_course(|course| course.is_held(hold)),
            Action::Told(query, body) => {
                self.on_course(|course| course.told(query, body.clone()));
                if let Some(check) = self.check_course.borrow_mut().as_mut() {
                    check.told(query, body);
                }
            }
            Action::Asked(link, osn, body) => {
                if let Some(check::Ask::Point { reads_data, .. }) = check::Ask::decode(&body) {
                    let in_flight = self.with_mirror(Mirror::in_flight);
                    self.is_at_point((osn, link), reads_data, in_flight);
                }
                self.asked.borrow_mut().push_back(Asked { link, osn, body });
                self.asks.notify_one();
            }
            Action::Point { number, osn, in_flight } => self.begins_to_check(number, osn, in_flight),
            Action::NoCheck | Action::EndCheck(_) => self.end_check(),
            Action::NotAsked(_) => {}
        }
    }

    /// A check has its point here and now, in the order of what is appended.
    fn is_at_point(&self, (osn, link): (Osn, u64), reads_data: bool, in_flight: usize) {
        self.in_flight_at_point.set(in_flight as u64);
        let point = Point { osn, link, reads_data, after: self.appended.get() };
        self.queue.borrow_mut().push_back(Work::Point(point));
        self.queued.notify_one();
    }

    fn begins_to_check(&self, number: u64, osn: Osn, in_flight: usize) {
        let mut course = self.check_course.borrow_mut();
        let (Some(course), Some(link)) = (course.as_mut(), self.mirror_link()) else { return };
        self.is_at_point((osn, link), course.reads_data, in_flight);
        course.has_point(number, osn);
    }

    /// Who waits for it looks at once.
    fn end_check(&self) {
        if let Some(check) = self.check_course.borrow_mut().as_mut() {
            check.ends();
        }
    }

    pub fn with_mirror<T>(&self, look: impl FnOnce(&Mirror) -> T) -> T {
        look(&self.mirror.borrow())
    }

    pub fn is_gone(&self) -> bool {
        self.stopped.get()
    }

    fn on_course(&self, then: impl FnOnce(&mut Course)) {
        let mut course = self.course.borrow_mut();
        if let Some(course) = course.as_mut() {
            then(course);
        }
    }

    pub fn end_course(&self, number: u64) {
        let gone = self.course.borrow_mut().take_if(|course| course.number() == number);
        // Who waits for it looks at once.
        drop(gone);
    }

    pub fn count(&self, change: impl FnOnce(&mut ResyncCounters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    pub fn mirror_link(&self) -> Option<u64> {
        self.mirror.borrow().link()
    }

    pub fn mirror_peer(&self) -> SiteId {
        self.mirror.borrow().peer()
    }

    /// Whether this site is primary, as far as it knows.
    pub fn is_primary(&self) -> bool {
        let known = self.shelf.borrow().kept().memory.known;
        known.is_some_and(|known| known.primary == self.config.me)
    }

    fn spawn(self: &Rc<Self>, work: impl AsyncFnOnce(Rc<Inner>) + 'static) {
        let site = self.clone();
        self.world.spawn.spawn("site", Box::pin(async move { work(site).await }));
    }

    async fn read(self: &Rc<Self>, reader: Reader, span: Span, at: Option<Osn>) {
        // There is one snapshot of a file, of the moment that the mirror knows.
        let file = if at.is_some() { base_of(span.file) } else { span.file };
        let read = self.engine.read(file, span.offset_bytes, span.length_bytes as usize).await;
        let Reader::Client(op) = reader else {
            let (bytes, form) = match read {
                Ok(out) => (flat(&out), form_of(&out.head)),
                // Its removal is known to both, or is told apart.
                Err(StoreRefusal::NoSuchFile) => (Buf::new(), Form::default()),
                Err(_) => return self.stop(),
            };
            return self.tell(Input::Fetched(reader, bytes, form));
        };
        if let Some(waiting) = self.ops.borrow_mut().get_mut(&op) {
            waiting.read = Some(read);
        }
        self.tell(Input::Fetched(reader, Buf::new(), Form::default()));
    }

    async fn resolve(self: &Rc<Self>, op: OpId) {
        let changes = self.ops.borrow_mut().get_mut(&op).and_then(|waiting| waiting.changes.take());
        let worked_out = match changes {
            None => Err(StoreRefusal::Stopped),
            // Whoever takes over must not give out again what a client may know.
            Some(changes) => self.engine.check(&changes).await.map(|()| self.engine.with_ids(changes)),
        };
        let resolved = match worked_out {
            Ok(changes) => Ok(Change { request: Buf::new(), body: encode_changes(&changes).into(), reply: Buf::new() }),
            Err(refusal) => {
                if let Some(waiting) = self.ops.borrow_mut().get_mut(&op) {
                    waiting.refusal = Some(refusal);
                }
                Err(Buf::new())
            }
        };
        self.tell(Input::Resolved(op, resolved));
    }

    async fn can_make(&self, change: &Change) -> bool {
        let Ok(changes) = decode_changes(&change.body) else { return false };
        // What was committed before may still be on its way into the store.
        self.caught_up_now().await;
        self.engine.check(&changes).await.is_ok()
    }

    fn answer(&self, op: OpId, answer: Answer) {
        let Some(waiting) = self.ops.borrow_mut().remove(&op) else { return };
        let (heads, local_at) = match &answer {
            Answer::Written(osn) => self.heads.borrow_mut().remove(osn).unzip(),
            _ => (None, None),
        };
        if self.ops.borrow().is_empty() {
            self.heads.borrow_mut().clear();
        }
        // Whoever asked may have gone away.
        let _ = waiting.tell.send(Told { answer, heads, read: waiting.read, refusal: waiting.refusal, local_at });
    }

    /// Puts a client's operation to the mirror and waits for what comes of it.
    pub async fn run(self: &Rc<Self>, request: Request, changes: Option<Vec<Put>>) -> Result<Told, StoreRefusal> {
        if self.stopped.get() {
            return Err(StoreRefusal::Stopped);
        }
        self.last_op.set(self.last_op.get() + 1);
        let op = OpId(self.last_op.get());
        let (tell, told) = oneshot::channel();
        self.ops.borrow_mut().insert(op, Waiting { changes, read: None, refusal: None, tell });
        self.tell(Input::Client(op, request));
        told.await.map_err(|_| StoreRefusal::Stopped)
    }

    /// Whether anybody here waits for an answer.
    pub fn has_clients(&self) -> bool {
        !self.ops.borrow().is_empty()
    }

    /// Waits until all records that there are by now are applied.
    pub async fn caught_up_now(&self) {
        self.caught_up(self.appended.get()).await;
    }

    /// Waits until all records through this ticket are applied.
    pub async fn caught_up(&self, through: u64) {
        loop {
            let settled = self.settled.notified();
            if self.through.get() >= through || self.stopped.get() {
                return;
            }
            settled.await;
        }
    }

    /// Waits until this site may tell clients what it holds.
    pub async fn admitted(&self) -> Result<(), StoreRefusal> {
        loop {
            let changed = self.changed.notified();
            if self.stopped.get() {
                return Err(StoreRefusal::Stopped);
            }
            match self.mirror.borrow().tells(self.world.clock.now()) {
                Some(true) => return Ok(()),
                Some(false) => return Err(StoreRefusal::Stopped),
                None => {}
            }
            changed.await;
        }
    }
}

/// A read in one piece.
pub(crate) fn flat(read: &ReadOut) -> Buf {
    if let [Piece::Data(only)] = read.pieces.as_slice() {
        return only.clone();
    }
    let mut bytes = Vec::new();
    for piece in &read.pieces {
        match piece {
            Piece::Data(data) => bytes.extend_from_slice(data),
            Piece::Zeros(count) => bytes.resize(bytes.len() + count, 0),
        }
    }
    bytes.into()
}

pub(crate) fn form_of(head: &FileHead) -> Form {
    Form { size_bytes: head.size_bytes, modified: head.modified, changed: head.changed }
}

//! Where an operation's time goes, measured without a system call or an allocation for it.
//!
//! All operations of a shard are polled on one thread, one at a time. While one is polled,
//! its [`Spent`] lies in the meter; when it waits for a journal or a drive, [`Meter::wait`]
//! adds the time between "not yet" and "ready" to the part it waited for. What is left when
//! it is answered is *contention*: its turn on the thread, locks of other operations, room
//! that background work had to make. So the parts of an operation sum to its time, by
//! construction: waits of one operation follow each other (a wait within a wait counts as
//! the outer one), and the rest is the rest.
//!
//! Costs an operation that waits once: four readings of the clock, a few copies of eleven
//! words, one look into the map of files and two additions to histograms. Rows of files are
//! those of the files in use: each is given out and set to nothing by [`Meter::take`], once a
//! second, and one that was not used since the last time goes. What is beyond the bound is
//! summed up without its file. An allocation is made the first time a file is seen.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use crate::FileId;
use crate::port::Clock;
pub use crate::spread::{Counts, Spread};
use crate::time::Nanos;

/// Parts that time is spent in.
pub const PARTS: usize = 6;
/// Files that are told apart at a time.
const FILES_MAX: usize = 8192;
/// What a normalised request moves.
pub const COST_BYTES: u64 = 8192;

/// A part of an operation's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// From its last byte's arrival until work on it began.
    Queue = 0,
    /// Until its record was stable on every leg.
    Journal = 1,
    /// For the other site, after it was stable here.
    Mirror = 2,
    /// Drives: blocks and pages that were in no cache, reconstruction included.
    Flash = 3,
    /// The rest.
    Contention = 4,
    /// Held back, since its VM may not have more.
    Qos = 5,
}

impl Part {
    /// All, as they are counted.
    pub const ALL: [Part; PARTS] = [Part::Queue, Part::Journal, Part::Mirror, Part::Flash, Part::Contention, Part::Qos];
}

/// Kinds of operation that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// READ.
    Read = 0,
    /// WRITE.
    Write = 1,
    /// Everything else.
    Other = 2,
}

impl Kind {
    /// All, as they are counted.
    pub const ALL: [Kind; 3] = [Kind::Read, Kind::Write, Kind::Other];

    /// The normalised cost of an operation that moves so many bytes: reading up to 8 KiB is one,
    /// every further 8 KiB is one more, and writing is twice that (a write is taken in, and later
    /// stored). What moves nothing is one.
    #[must_use]
    pub const fn cost(self, bytes: u64) -> u64 {
        let blocks = bytes.div_ceil(COST_BYTES);
        let blocks = if blocks == 0 { 1 } else { blocks };
        match self {
            Kind::Read | Kind::Other => blocks,
            Kind::Write => 2 * blocks,
        }
    }
}

/// What one operation has spent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    parts_ns: [u64; PARTS],
    about: Option<(u32, FileId)>,
    bytes: u64,
    is_waiting: bool,
}

/// Sums over operations of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Operations.
    pub count: u64,
    /// Payload.
    pub bytes: u64,
    /// See [`Kind::cost`].
    pub cost: u64,
    /// Time in each [`Part`].
    pub parts_ns: [u64; PARTS],
}

impl Sums {
    fn add(&mut self, (bytes, cost): (u64, u64), parts_ns: &[u64; PARTS]) {
        self.count += 1;
        self.bytes += bytes;
        self.cost += cost;
        for (sum, part) in self.parts_ns.iter_mut().zip(parts_ns) {
            *sum += part;
        }
    }

    /// All their time: the sum of the parts, which is what it means.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.parts_ns.iter().sum()
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Sums) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.cost += other.cost;
        for (sum, part) in self.parts_ns.iter_mut().zip(&other.parts_ns) {
            *sum += part;
        }
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Sums) -> Sums {
        let mut sums = Sums {
            count: self.count.saturating_sub(earlier.count),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            cost: self.cost.saturating_sub(earlier.cost),
            ..Sums::default()
        };
        for (at, part) in sums.parts_ns.iter_mut().enumerate() {
            *part = self.parts_ns[at].saturating_sub(earlier.parts_ns[at]);
        }
        sums
    }
}

/// What was measured of a file in an [`Interval`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTimes {
    /// Number of its datastore.
    pub datastore: u32,
    /// The file.
    pub file: FileId,
    /// Sums by [`Kind`].
    pub kinds: [Sums; 3],
    /// Whole times of reads and of writes.
    pub spreads: [Counts; 2],
}

/// What was measured from one [`Meter::take`] to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// How long it was.
    pub length_ns: u64,
    /// Files that were used.
    pub files: Vec<FileTimes>,
    /// Operations about no file, or about one file too many, by [`Kind`].
    pub others: [Sums; 3],
}

/// Everything since start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sums by [`Kind`].
    pub kinds: [Sums; 3],
    /// Spread of whole times by [`Kind`].
    pub spreads: [Spread; 3],
}

/// A file since the last [`Meter::take`].
#[derive(Default)]
struct FileRow {
    datastore: u32,
    kinds: [Sums; 3],
    spreads: [Option<Spread>; 2],
}

#[derive(Default)]
struct Book {
    totals: Totals,
    files: BTreeMap<FileId, FileRow>,
    others: [Sums; 3],
    since: Nanos,
}

/// See the module's head.
pub struct Meter {
    clock: Rc<dyn Clock>,
    /// Of the operation that is polled now.
    now: Cell<Spent>,
    book: RefCell<Book>,
}

impl Meter {
    /// A meter with nothing measured.
    pub fn new(clock: Rc<dyn Clock>) -> Meter {
        let book = Book { since: clock.now(), ..Book::default() };
        Meter { clock, now: Cell::default(), book: RefCell::new(book) }
    }

    /// Runs an operation that arrived at `arrived` (now, if that is not known), and books it
    /// when it is done.
    pub async fn operation<F: Future>(&self, kind: Kind, arrived: Option<Nanos>, work: F) -> F::Output {
        let begun = self.clock.now();
        let mut spent = Spent::default();
        spent.parts_ns[Part::Queue as usize] = arrived.map_or(0, |arrived| nanos_between(arrived, begun));
        let mut work = pin!(work);
        let output = poll_fn(|context| {
            let outer = self.now.replace(spent);
            let polled = work.as_mut().poll(context);
            spent = self.now.replace(outer);
            polled
        })
        .await;
        self.book(kind, spent, nanos_between(begun, self.clock.now()));
        output
    }

    /// Waits for `work`, and adds the time it was not ready to `part` of the operation that
    /// waits.
    pub async fn wait<F: Future>(&self, part: Part, work: F) -> F::Output {
        let mut work = pin!(work);
        let mut since: Option<(Nanos, bool)> = None;
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Pending => {
                if since.is_none() {
                    let mut spent = self.now.get();
                    since = Some((self.clock.now(), !spent.is_waiting));
                    spent.is_waiting = true;
                    self.now.set(spent);
                }
                Poll::Pending
            }
            Poll::Ready(output) => {
                if let Some((since, true)) = since {
                    let mut spent = self.now.get();
                    spent.parts_ns[part as usize] += nanos_between(since, self.clock.now());
                    spent.is_waiting = false;
                    self.now.set(spent);
                }
                Poll::Ready(output)
            }
        })
        .await
    }

    /// Says which file the operation that is polled now is about.
    pub fn about(&self, datastore: u32, file: FileId) {
        let mut spent = self.now.get();
        spent.about = Some((datastore, file));
        self.now.set(spent);
    }

    /// Says how much payload the operation that is polled now moves.
    pub fn moves(&self, bytes: u64) {
        let mut spent = self.now.get();
        spent.bytes = bytes;
        self.now.set(spent);
    }

    /// What the clock shows.
    pub fn clock(&self) -> Nanos {
        self.clock.now()
    }

    /// Of the time that was added to `from` for the operation that is polled now, so much was
    /// spent in `to`.
    pub fn reassign(&self, from: Part, to: Part, time_ns: u64) {
        let mut spent = self.now.get();
        let moved_ns = time_ns.min(spent.parts_ns[from as usize]);
        spent.parts_ns[from as usize] -= moved_ns;
        spent.parts_ns[to as usize] += moved_ns;
        self.now.set(spent);
    }

    fn book(&self, kind: Kind, spent: Spent, served_ns: u64) {
        let mut parts_ns = spent.parts_ns;
        // The queue was before it was served.
        let known_ns = parts_ns.iter().sum::<u64>() - parts_ns[Part::Queue as usize];
        parts_ns[Part::Contention as usize] += served_ns.saturating_sub(known_ns);
        let time_ns = parts_ns.iter().sum();
        let size = (spent.bytes, kind.cost(spent.bytes));
        let mut book = self.book.borrow_mut();
        book.totals.kinds[kind as usize].add(size, &parts_ns);
        book.totals.spreads[kind as usize].add(time_ns);
        match spent.about.and_then(|(datastore, file)| book.row(datastore, file)) {
            Some(row) => {
                row.kinds[kind as usize].add(size, &parts_ns);
                if let Some(spread) = row.spreads.get_mut(kind as usize) {
                    spread.get_or_insert_default().add(time_ns);
                }
            }
            None => book.others[kind as usize].add(size, &parts_ns),
        }
    }

    /// Everything since start.
    pub fn totals(&self) -> Totals {
        self.book.borrow().totals.clone()
    }

    /// What was measured since this was called before.
    pub fn take(&self) -> Interval {
        let now = self.clock.now();
        let mut book = self.book.borrow_mut();
        let mut interval = Interval { length_ns: nanos_between(book.since, now), ..Interval::default() };
        book.since = now;
        interval.others = std::mem::take(&mut book.others);
        book.files.retain(|file, row| {
            let times = row.take(*file);
            let is_used = times.is_some();
            interval.files.extend(times);
            is_used
        });
        interval
    }
}

impl FileRow {
    /// What it has, if it was used; it has nothing then.
    fn take(&mut self, file: FileId) -> Option<FileTimes> {
        if self.kinds.iter().all(|sums| sums.count == 0) {
            return None;
        }
        let spreads = self.spreads.each_mut().map(|spread| spread.as_mut().map_or_else(Counts::default, Spread::take));
        Some(FileTimes { datastore: self.datastore, file, kinds: std::mem::take(&mut self.kinds), spreads })
    }
}

impl Book {
    /// The row of a file, unless it is one too many.
    fn row(&mut self, datastore: u32, file: FileId) -> Option<&mut FileRow> {
        if self.files.len() >= FILES_MAX && !self.files.contains_key(&file) {
            return None;
        }
        let row = self.files.entry(file).or_default();
        row.datastore = datastore;
        Some(row)
    }
}

fn nanos_between(from: Nanos, to: Nanos) -> u64 {
    u64::try_from(to.since(from).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::LocalFuture;
    use crate::time::WallNanos;
    use std::future::Future;
    use std::task::{Context, Waker};

    /// A clock that goes as it is told.
    #[derive(Default)]
    struct Told(Cell<u64>);

    impl Told {
        fn pass(&self, ns: u64) {
            self.0.set(self.0.get() + ns);
        }
    }

    impl Clock for Told {
        fn now(&self) -> Nanos {
            Nanos(self.0.get())
        }

        fn wall(&self) -> WallNanos {
            WallNanos(self.0.get())
        }

        fn sleep_until(&self, _: Nanos) -> LocalFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    /// Ready at the second poll; each poll takes time of its own.
    async fn once_pending(clock: &Told, own_ns: u64) {
        let mut asked = false;
        poll_fn(|_| {
            clock.pass(own_ns);
            if std::mem::replace(&mut asked, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn poll<F: Future + Unpin>(work: &mut F) -> Poll<F::Output> {
        std::pin::Pin::new(work).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn parts_sum_to_the_time_and_go_to_the_one_who_waited() {
        let clock = Rc::new(Told::default());
        let meter = Meter::new(clock.clone());
        clock.pass(100);
        let one = meter.operation(Kind::Write, Some(Nanos(60)), async {
            meter.about(7, FileId(1));
            meter.wait(Part::Journal, once_pending(&clock, 5)).await;
            clock.pass(3);
        });
        let other = meter.operation(Kind::Read, Some(Nanos(100)), async {
            meter.about(7, FileId(2));
            meter
                .wait(Part::Flash, async {
                    once_pending(&clock, 1).await;
                    meter.wait(Part::Journal, once_pending(&clock, 1)).await;
                })
                .await;
        });
        let (mut one, mut other) = (Box::pin(one), Box::pin(other));
        assert!(poll(&mut one).is_pending());
        clock.pass(1000);
        assert!(poll(&mut other).is_pending());
        clock.pass(10);
        assert!(poll(&mut one).is_ready());
        clock.pass(500);
        assert!(poll(&mut other).is_pending());
        clock.pass(20);
        assert!(poll(&mut other).is_ready());

        let totals = meter.totals();
        let write = &totals.kinds[Kind::Write as usize];
        // queue 40; journal: from its "not yet" over the thousand, the other's poll and the ten, and its own poll
        assert_eq!(write.parts_ns, [40, 1000 + 1 + 10 + 5, 0, 0, 5 + 3, 0]);
        assert_eq!(write.total_ns(), 40 + (clock_at_answer_of_write() - 100));
        let read = &totals.kinds[Kind::Read as usize];
        assert_eq!(read.parts_ns[Part::Journal as usize], 0, "a wait within a wait is the outer one's");
        assert_eq!(read.parts_ns[Part::Queue as usize], 1005);
        let files = meter.take().files;
        assert_eq!(files.len(), 2);
        assert_eq!(files[0].kinds[Kind::Write as usize], *write);
        assert_eq!(files[1].kinds[Kind::Read as usize].total_ns(), read.total_ns());
    }

    /// 100 at the start, 5 for the first poll, 1000, 1 for the other's poll, 10, 5, 3.
    const fn clock_at_answer_of_write() -> u64 {
        100 + 5 + 1000 + 1 + 10 + 5 + 3
    }

    #[test]
    fn what_is_taken_is_of_the_interval_and_bounded() {
        let clock = Rc::new(Told::default());
        let meter = Meter::new(clock.clone());
        let run = |file: u64, kind: Kind, bytes: u64| {
            let work = meter.operation(kind, None, async {
                meter.about(1, FileId(file));
                meter.moves(bytes);
                clock.pass(1000);
            });
            assert!(poll(&mut Box::pin(work)).is_ready());
        };
        for n in 0..FILES_MAX as u64 + 100 {
            run(n + 10, Kind::Other, 0);
        }
        let first = meter.take();
        assert_eq!((first.files.len(), first.others[Kind::Other as usize].count), (FILES_MAX, 100));
        assert_eq!(first.length_ns, 1000 * (FILES_MAX as u64 + 100));
        run(10, Kind::Write, 8193);
        run(7, Kind::Read, 4096);
        let second = meter.take();
        // The place of a file that was not used is free at the second taking.
        assert_eq!(second.files.len(), 1, "{second:?}");
        let written = &second.files[0];
        assert_eq!((written.file, written.kinds[Kind::Write as usize].bytes), (FileId(10), 8193));
        assert_eq!(written.kinds[Kind::Write as usize].cost, 4, "two blocks, written");
        assert_eq!(written.spreads[Kind::Write as usize].count(), 1);
        assert_eq!(second.others[Kind::Read as usize].bytes, 4096);
        run(7, Kind::Read, 4096);
        assert_eq!(meter.take().files[0].file, FileId(7));
        assert_eq!(meter.take().files, []);
    }

    #[test]
    fn a_wait_for_two_places_is_told_apart_afterwards() {
        let clock = Rc::new(Told::default());
        let meter = Meter::new(clock.clone());
        let work = meter.operation(Kind::Write, None, async {
            meter.wait(Part::Qos, once_pending(&clock, 0)).await;
            meter.wait(Part::Mirror, once_pending(&clock, 0)).await;
            meter.reassign(Part::Mirror, Part::Journal, 30);
            meter.reassign(Part::Flash, Part::Journal, 30);
        });
        let mut work = Box::pin(work);
        assert!(poll(&mut work).is_pending());
        clock.pass(10);
        assert!(poll(&mut work).is_pending());
        clock.pass(70);
        assert!(poll(&mut work).is_ready());
        assert_eq!(meter.totals().kinds[Kind::Write as usize].parts_ns, [0, 30, 40, 0, 0, 10]);
    }
}

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
//! Costs an operation that waits once: four readings of the clock and a few copies of five
//! words. Rows of files are bounded: two generations, as in a clock cache; a file that was
//! not used for a whole generation is forgotten.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use crate::FileId;
use crate::port::Clock;
use crate::time::Nanos;

/// Parts that time is spent in.
pub const PARTS: usize = 4;
/// Files in a generation.
const FILES_MAX: usize = 8192;
/// Steps per doubling of a [`Spread`].
const STEPS: u64 = 8;
/// Everything from about eighteen minutes on is one bucket.
const BUCKETS: usize = 34 * STEPS as usize;

/// A part of an operation's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// From its last byte's arrival until work on it began.
    Queue = 0,
    /// Until its record was stable on every leg.
    Journal = 1,
    /// Drives: blocks and pages that were in no cache, reconstruction included.
    Flash = 2,
    /// The rest.
    Contention = 3,
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

/// What one operation has spent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    parts_ns: [u64; PARTS],
    about: Option<(u32, FileId)>,
    is_waiting: bool,
}

/// How often an amount of time was seen: counts in buckets an eighth of a doubling wide, so
/// a percentile is right within 10 %.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    counts: Box<[u64; BUCKETS]>,
}

impl Default for Spread {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]) }
    }
}

const fn bucket_of(time_ns: u64) -> usize {
    let value = time_ns / 8 + STEPS;
    let doubling = (63 - value.leading_zeros()) as u64 - 3;
    let step = (value >> doubling) - STEPS;
    let bucket = (doubling * STEPS + step) as usize;
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

/// The upper end of a bucket.
const fn end_of(bucket: usize) -> u64 {
    let (doubling, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    (((step + STEPS + 1) << doubling) - STEPS) * 8
}

impl Spread {
    fn add(&mut self, time_ns: u64) {
        self.counts[bucket_of(time_ns)] += 1;
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Spread) -> Spread {
        let mut counts = Box::new([0; BUCKETS]);
        for (count, (now, then)) in counts.iter_mut().zip(self.counts.iter().zip(earlier.counts.iter())) {
            *count = now.saturating_sub(*then);
        }
        Spread { counts }
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Spread) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count += more;
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time that a share of all did not exceed, for instance 0.99; `None` without any.
    #[must_use]
    pub fn percentile_ns(&self, share: f64) -> Option<u64> {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return Some(end_of(bucket));
            }
        }
        None
    }
}

/// Sums over operations of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Operations.
    pub count: u64,
    /// Time in each [`Part`].
    pub parts_ns: [u64; PARTS],
}

impl Sums {
    fn add(&mut self, parts_ns: &[u64; PARTS]) {
        self.count += 1;
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
        for (sum, part) in self.parts_ns.iter_mut().zip(&other.parts_ns) {
            *sum += part;
        }
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Sums) -> Sums {
        let mut sums = Sums { count: self.count.saturating_sub(earlier.count), ..Sums::default() };
        for (at, part) in sums.parts_ns.iter_mut().enumerate() {
            *part = self.parts_ns[at].saturating_sub(earlier.parts_ns[at]);
        }
        sums
    }
}

/// What was measured of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileTimes {
    /// Number of its datastore.
    pub datastore: u32,
    /// Sums by [`Kind`].
    pub kinds: [Sums; 3],
}

/// Everything since start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sums by [`Kind`].
    pub kinds: [Sums; 3],
    /// Spread of whole times by [`Kind`].
    pub spreads: [Spread; 3],
}

#[derive(Default)]
struct Book {
    totals: Totals,
    young: BTreeMap<FileId, FileTimes>,
    old: BTreeMap<FileId, FileTimes>,
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
        Meter { clock, now: Cell::default(), book: RefCell::default() }
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

    fn book(&self, kind: Kind, spent: Spent, served_ns: u64) {
        let mut parts_ns = spent.parts_ns;
        let waited_ns = parts_ns[Part::Journal as usize] + parts_ns[Part::Flash as usize];
        parts_ns[Part::Contention as usize] +=
            served_ns.saturating_sub(waited_ns + parts_ns[Part::Contention as usize]);
        let mut book = self.book.borrow_mut();
        book.totals.kinds[kind as usize].add(&parts_ns);
        book.totals.spreads[kind as usize].add(parts_ns.iter().sum());
        if let Some((datastore, file)) = spent.about {
            book.row(datastore, file).kinds[kind as usize].add(&parts_ns);
        }
    }

    /// Everything since start.
    pub fn totals(&self) -> Totals {
        self.book.borrow().totals.clone()
    }

    /// Every file that is remembered, with what was measured of it.
    pub fn files(&self) -> Vec<(FileId, FileTimes)> {
        let book = self.book.borrow();
        book.old.iter().chain(&book.young).map(|(file, times)| (*file, times.clone())).collect()
    }
}

impl Book {
    /// The row of a file; it comes back from the old generation with what it had.
    fn row(&mut self, datastore: u32, file: FileId) -> &mut FileTimes {
        if self.young.len() >= FILES_MAX && !self.young.contains_key(&file) {
            self.old = std::mem::take(&mut self.young);
        }
        let old = &mut self.old;
        let row = self.young.entry(file).or_insert_with(|| old.remove(&file).unwrap_or_default());
        row.datastore = datastore;
        row
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
    use std::time::Duration;

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
        assert_eq!(write.parts_ns, [40, 1000 + 1 + 10 + 5, 0, 5 + 3]);
        assert_eq!(write.total_ns(), 40 + (clock_at_answer_of_write() - 100));
        let read = &totals.kinds[Kind::Read as usize];
        assert_eq!(read.parts_ns[Part::Journal as usize], 0, "a wait within a wait is the outer one's");
        assert_eq!(read.parts_ns[Part::Queue as usize], 1005);
        let files = meter.files();
        assert_eq!(files.len(), 2);
        assert_eq!(files[0].1.kinds[Kind::Write as usize], *write);
        assert_eq!(files[1].1.kinds[Kind::Read as usize].total_ns(), read.total_ns());
    }

    /// 100 at the start, 5 for the first poll, 1000, 1 for the other's poll, 10, 5, 3.
    const fn clock_at_answer_of_write() -> u64 {
        100 + 5 + 1000 + 1 + 10 + 5 + 3
    }

    #[test]
    fn percentiles_are_right_within_a_tenth() {
        let mut spread = Spread::default();
        (1..=10_000_u64).for_each(|n| spread.add(n * 1000));
        for (share, exact) in [(0.5, 5_000_000.0), (0.95, 9_500_000.0), (0.99, 9_900_000.0), (1.0, 10_000_000.0)] {
            let found = spread.percentile_ns(share).unwrap() as f64;
            assert!(found >= exact && found <= exact * 1.13, "{share}: {found} for {exact}");
        }
        assert_eq!(Spread::default().percentile_ns(0.5), None);
        assert_eq!(spread.since(&spread).count(), 0);
    }

    #[test]
    fn every_time_has_a_bucket_and_buckets_rise() {
        let mut last = 0;
        for exponent in 0..64 {
            let bucket = bucket_of(1 << exponent);
            assert!(bucket >= last && bucket < BUCKETS, "{exponent}");
            assert!(bucket == BUCKETS - 1 || end_of(bucket) > 1 << exponent, "{exponent}: {}", end_of(bucket));
            last = bucket;
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert!(Duration::from_nanos(end_of(BUCKETS - 1)) > Duration::from_secs(600));
    }

    #[test]
    fn files_are_bounded_and_those_in_use_stay() {
        let meter = Meter::new(Rc::new(Told::default()));
        for n in 0..FILES_MAX as u64 * 3 {
            for file in [FileId(n + 10), FileId(1)] {
                let mut work = Box::pin(meter.operation(Kind::Other, None, async { meter.about(1, file) }));
                assert!(poll(&mut work).is_ready());
            }
        }
        let files = meter.files();
        assert!(files.len() <= 2 * FILES_MAX);
        let busy: Vec<_> = files.iter().filter(|(file, _)| *file == FileId(1)).collect();
        assert_eq!((busy.len(), busy[0].1.kinds[Kind::Other as usize].count), (1, FILES_MAX as u64 * 3));
    }
}

//! Speed of every row beside plain memory copy and, where it is installed, ISA-L.
//!
//! `cargo bench -p parity` prints GB/s of stripe data for 10+2 at several unit sizes:
//! *hot* (one stripe again and again) and *cold* (64 stripes in turn, more than the
//! last-level cache at 64 KiB). All candidates take turns within a round, and time is
//! the thread's CPU time, so that a busy machine hurts them alike; printed are medians
//! of the rounds, and the median of the per-round ratios to ISA-L's `pq_gen`.
//!
//! Before anything is timed, ISA-L's parity is compared with ours, byte for byte.
//!
//! `cargo bench -p parity -- <rounds>` sets the number of rounds (default 15).
#![allow(unsafe_code, clippy::unwrap_used, missing_docs, reason = "a bench; ISA-L is called through its C interface")]

use std::ffi::{c_int, c_void};
use std::hint::black_box;

use parity::Row;
use rustix::time::{ClockId, clock_gettime};

const DATA_COUNT: usize = 10;
const UNIT_COUNT: usize = DATA_COUNT + 2;
const COLD_STRIPES: usize = 64;
const ALIGNMENT_BYTES: usize = 4096;
/// Stripe data handled per sample, at least.
const SAMPLE_BYTES: usize = 64 << 20;

/// Stripes laid out one after the other, each unit at a multiple of its size from a 4 KiB boundary.
struct Arena {
    bytes: Vec<u8>,
    start: usize,
    unit_bytes: usize,
}

impl Arena {
    fn new(unit_bytes: usize, stripe_count: usize) -> Self {
        let mut bytes = vec![0u8; unit_bytes * UNIT_COUNT * stripe_count + ALIGNMENT_BYTES];
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        for byte in &mut bytes {
            state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        let start = bytes.as_ptr().align_offset(ALIGNMENT_BYTES);
        Self { bytes, start, unit_bytes }
    }

    fn stripe(&mut self, index: usize) -> Vec<&mut [u8]> {
        let stripe_bytes = self.unit_bytes * UNIT_COUNT;
        self.bytes[self.start + index * stripe_bytes..][..stripe_bytes].chunks_exact_mut(self.unit_bytes).collect()
    }
}

/// What is measured: a name and one run over one stripe.
type Work<'a> = Box<dyn FnMut(&mut [&mut [u8]]) + 'a>;

struct Candidate<'a> {
    name: String,
    work: Work<'a>,
}

fn encoder(row: Row) -> Candidate<'static> {
    let work: Work<'_> = Box::new(move |units| {
        let [data @ .., p, q] = units else { unreachable!("a stripe has parity") };
        row.encode(&borrowed(data), p, q);
    });
    Candidate { name: format!("encode {}", row.name()), work }
}

fn borrowed<'a>(units: &'a [&mut [u8]]) -> Vec<&'a [u8]> {
    units.iter().map(|unit| &**unit).collect()
}

fn checker(row: Row) -> Candidate<'static> {
    let work: Work<'_> = Box::new(move |units| {
        let [data @ .., p, q] = units else { unreachable!("a stripe has parity") };
        assert!(row.check(&borrowed(data), p, q));
    });
    Candidate { name: format!("check {}", row.name()), work }
}

/// Rebuilds `lost` units in place.
fn rebuilder(row: Row, lost: &'static [usize], what: &str) -> Candidate<'static> {
    let work: Work<'_> = Box::new(move |units| {
        let mut present: Vec<Option<&[u8]>> = Vec::with_capacity(UNIT_COUNT);
        let mut targets: Vec<(usize, &mut [u8])> = Vec::with_capacity(2);
        for (index, unit) in units.iter_mut().enumerate() {
            if lost.contains(&index) {
                targets.push((index, unit));
                present.push(None);
            } else {
                present.push(Some(unit));
            }
        }
        row.reconstruct(DATA_COUNT, &present, &mut targets).unwrap();
    });
    Candidate { name: format!("rebuild {what} {}", row.name()), work }
}

/// Copies one half of the stripe's data over the other, twice: as many bytes as the stripe's data.
fn copier() -> Candidate<'static> {
    let work: Work<'_> = Box::new(|units| {
        let (from, to) = units[..DATA_COUNT].split_at_mut(DATA_COUNT / 2);
        for _ in 0..2 {
            for (from, to) in from.iter().zip(to.iter_mut()) {
                to.copy_from_slice(black_box(from));
            }
        }
    });
    Candidate { name: "memory copy".into(), work }
}

/// The entry points of ISA-L that do our work.
struct IsaL {
    pq_gen: unsafe extern "C" fn(c_int, c_int, *mut *mut c_void) -> c_int,
    ec_encode_data: unsafe extern "C" fn(c_int, c_int, c_int, *mut u8, *mut *mut u8, *mut *mut u8),
    /// 32 bytes per data unit and parity unit, as `ec_encode_data` wants them.
    tables: Vec<u8>,
    _library: libloading::Library,
}

impl IsaL {
    fn load() -> Option<Self> {
        // SAFETY: the library's initialisers are ordinary; the signatures are those of raid.h and erasure_code.h.
        unsafe {
            let library = libloading::Library::new("libisal.so.2").ok()?;
            let pq_gen = *library.get(b"pq_gen").ok()?;
            let ec_encode_data = *library.get(b"ec_encode_data").ok()?;
            let init: libloading::Symbol<'_, unsafe extern "C" fn(c_int, c_int, *mut u8, *mut u8)> =
                library.get(b"ec_init_tables").ok()?;
            let mut coefficients: Vec<u8> = vec![1; DATA_COUNT];
            coefficients.extend((0..DATA_COUNT).scan(1u8, |power, _| {
                let this = *power;
                *power = (this << 1) ^ if this & 0x80 == 0 { 0 } else { 0x1D };
                Some(this)
            }));
            let mut tables = vec![0; 32 * DATA_COUNT * 2];
            init(DATA_COUNT as c_int, 2, coefficients.as_mut_ptr(), tables.as_mut_ptr());
            Some(Self { pq_gen, ec_encode_data, tables, _library: library })
        }
    }

    fn pq_gen(&self) -> Candidate<'_> {
        let work: Work<'_> = Box::new(|units| {
            let mut pointers: Vec<*mut c_void> = units.iter_mut().map(|unit| unit.as_mut_ptr().cast()).collect();
            // SAFETY: twelve units of that length, 4 KiB aligned, the last two to be written.
            let failed = unsafe { (self.pq_gen)(UNIT_COUNT as c_int, units[0].len() as c_int, pointers.as_mut_ptr()) };
            assert_eq!(failed, 0);
        });
        Candidate { name: "ISA-L pq_gen".into(), work }
    }

    fn ec_encode_data(&self) -> Candidate<'_> {
        let work: Work<'_> = Box::new(|units| {
            let mut pointers: Vec<*mut u8> = units.iter_mut().map(|unit| unit.as_mut_ptr()).collect();
            let (data, parity) = pointers.split_at_mut(DATA_COUNT);
            let tables = self.tables.as_ptr().cast_mut();
            let length = units[0].len() as c_int;
            // SAFETY: ten units read, two written, all of that length; the tables are only read.
            unsafe {
                (self.ec_encode_data)(length, DATA_COUNT as c_int, 2, tables, data.as_mut_ptr(), parity.as_mut_ptr())
            }
        });
        Candidate { name: "ISA-L ec_encode_data".into(), work }
    }
}

/// Panics unless `peer` computes the parity that our best row does.
fn assert_agrees(mut peer: Candidate<'_>) {
    let mut arena = Arena::new(64 << 10, 1);
    let mut units = arena.stripe(0);
    (encoder(Row::best()).work)(&mut units);
    let ours: Vec<Vec<u8>> = units[DATA_COUNT..].iter().map(|unit| unit.to_vec()).collect();
    units[DATA_COUNT..].iter_mut().for_each(|unit| unit.fill(0));
    (peer.work)(&mut units);
    assert!(units[DATA_COUNT..].iter().zip(&ours).all(|(theirs, ours)| **theirs == **ours), "{} differs", peer.name);
    println!("{}: the same P and Q as ours", peer.name);
}

fn cpu_seconds() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

/// GB/s of stripe data over one sample.
fn sample(candidate: &mut Candidate<'_>, arena: &mut Arena, stripe_count: usize) -> f64 {
    let stripe_bytes = arena.unit_bytes * DATA_COUNT;
    // the slowest row need not be measured at the fastest one's length
    let effort = if candidate.name.contains("scalar") { 16 } else { 1 };
    let runs = (SAMPLE_BYTES / stripe_bytes / effort).max(1).next_multiple_of(stripe_count.min(8));
    let mut seconds = 0.0;
    for run in 0..runs {
        let mut units = arena.stripe(run % stripe_count);
        let before = if stripe_count > 1 || run == 0 { cpu_seconds() } else { 0.0 };
        (candidate.work)(&mut units);
        if stripe_count > 1 || run + 1 == runs {
            seconds += cpu_seconds();
        }
        seconds -= before;
    }
    (runs * stripe_bytes) as f64 / seconds / 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Rates of every candidate, one per round, taking turns.
fn measure(candidates: &mut [Candidate<'_>], unit_bytes: usize, stripe_count: usize, rounds: usize) -> Vec<Vec<f64>> {
    let mut arena = Arena::new(unit_bytes, stripe_count);
    for index in 0..stripe_count {
        encoder(Row::best()).work.as_mut()(&mut arena.stripe(index));
    }
    let mut rates = vec![Vec::new(); candidates.len()];
    for round in 0..=rounds {
        for (candidate, rates) in candidates.iter_mut().zip(&mut rates) {
            let rate = sample(candidate, &mut arena, stripe_count);
            if candidate.name == "memory copy" {
                // it overwrote data: give every stripe its parity again
                (0..stripe_count).for_each(|index| (encoder(Row::best()).work)(&mut arena.stripe(index)));
            }
            if round > 0 {
                rates.push(rate); // round 0 warms up
            }
        }
    }
    rates
}

/// Median over the rounds of `rates / reference`.
fn ratio(rates: &[f64], reference: &[f64]) -> f64 {
    median(rates.iter().zip(reference).map(|(rate, reference)| rate / reference).collect())
}

fn main() {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(15);
    let library = IsaL::load();
    if let Some(library) = &library {
        assert_agrees(library.pq_gen());
        assert_agrees(library.ec_encode_data());
    } else {
        println!("!! libisal.so.2 is NOT installed: NO comparison with ISA-L below (Debian: apt-get install libisal2)");
    }
    println!("{DATA_COUNT}+2, GB/s of stripe data on one core, median of {rounds} rounds; ratios to ISA-L's pq_gen");
    for unit_bytes in [16 << 10, 64 << 10, 132 << 10] {
        let mut candidates: Vec<Candidate<'_>> = vec![copier()];
        if let Some(library) = &library {
            candidates.extend([library.pq_gen(), library.ec_encode_data()]);
        }
        candidates.extend(Row::all().iter().rev().map(|&row| encoder(row)));
        candidates.push(checker(Row::best()));
        for (lost, what) in [(&[3][..], "data"), (&[3, 7], "data+data"), (&[3, 10], "data+P"), (&[3, 11], "data+Q")] {
            candidates.push(rebuilder(Row::best(), lost, what));
        }
        let hot = measure(&mut candidates, unit_bytes, 1, rounds);
        let cold = measure(&mut candidates, unit_bytes, COLD_STRIPES, rounds);
        println!("| units of {} KiB | hot GB/s | to ISA-L | cold GB/s | to ISA-L |", unit_bytes >> 10);
        println!("|---|---|---|---|---|");
        for (n, candidate) in candidates.iter().enumerate() {
            print!("| {} |", candidate.name);
            for rates in [&hot, &cold] {
                let to_isa_l =
                    library.as_ref().map_or("-".to_owned(), |_| format!("{:.2}", ratio(&rates[n], &rates[1])));
                print!(" {:.1} | {to_isa_l} |", median(rates[n].clone()));
            }
            println!();
        }
    }
}

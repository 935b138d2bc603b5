//! The vector rows of x86-64. Together with [`lanes`] the only unsafe code of the crate:
//! intrinsics that the CPU must have, and loads and stores through pointers so that the
//! inner loop has no bounds checks.
//!
//! One generic walk ([`walk`]) is compiled once per row. It takes a *strand* of a few
//! vectors' width at a time, goes down all data units with both sums in registers, and
//! writes each target once: every byte is loaded once and nothing but results is
//! stored. What differs between the rows is a vector type ([`Lanes`]).
//!
//! The 64-byte row leaves prefetching to the CPU, which was faster than any distance
//! tried; the 32-byte rows touch half as many lines per strand and gain up to a quarter
//! on stripes that come from memory by prefetching two strands ahead.
//!
//! Everything below the entry functions is `inline(always)`, and there are no closures:
//! code that is not inlined into an entry function is compiled without the row's
//! instructions, right but thirty times slower. The bench shows it.
//!
//! Safety, in one place. Every function here that is `unsafe` asks for one or both of:
//! * (S1) the CPU has the features of the row. A [`VectorRow`] is only made by
//!   [`VectorRow::detect`] once they were found, and only [`VectorRow::run`] calls the
//!   entry functions.
//! * (S2) `at` plus the bytes touched is within `length_bytes` of the pass. [`Pass::new`]
//!   checked that every unit has that length, [`Pass::admit`] that every target has;
//!   [`walk`] keeps `at` below it. Loads and stores are unaligned, so addresses do not
//!   matter.

#![allow(unsafe_code, reason = "vector intrinsics and unchecked loads; see the safety section above")]

mod lanes;

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use crate::pass::{Output, Pass, Weights};
use lanes::{Affine, Lanes, Plain, Wide};

/// Vectors per unit in a strand. Of 2, 3, 4, 6 and 8, four was the fastest on stripes
/// that come from memory; more only helps when the stripe is in the cache anyway.
const STRAND_VECTORS: usize = 4;

/// A row whose instructions this CPU was found to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VectorRow(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Avx2,
    Avx2Gfni,
    Avx512Gfni,
}

impl VectorRow {
    /// The rows this CPU can run, slowest first.
    pub(crate) fn detect() -> impl Iterator<Item = Self> {
        let avx2 = is_x86_feature_detected!("avx2");
        let gfni = avx2 && is_x86_feature_detected!("gfni");
        let avx512 = gfni && is_x86_feature_detected!("avx512f");
        let kinds = [(Kind::Avx2, avx2), (Kind::Avx2Gfni, gfni), (Kind::Avx512Gfni, avx512)];
        kinds.into_iter().filter(|(_, runs)| *runs).map(|(kind, _)| Self(kind))
    }

    /// Short name for reports.
    pub(crate) fn name(self) -> &'static str {
        match self.0 {
            Kind::Avx2 => "avx2",
            Kind::Avx2Gfni => "avx2+gfni",
            Kind::Avx512Gfni => "avx512+gfni",
        }
    }

    /// Runs a pass as far as whole vectors go; returns the byte position reached.
    pub(crate) fn run(self, pass: &Pass<'_>, output: &mut Output<'_, '_>) -> usize {
        // SAFETY: (S1): `detect` found the features of this kind.
        unsafe {
            match self.0 {
                Kind::Avx2 => run_avx2(pass, output),
                Kind::Avx2Gfni => run_avx2_gfni(pass, output),
                Kind::Avx512Gfni => run_avx512_gfni(pass, output),
            }
        }
    }
}

/// The sums at one strand, finished by a target's weights.
///
/// # Safety
/// (S1)
#[inline(always)]
unsafe fn finish<V: Lanes>(sum_p: V, sum_q: V, weights: Weights) -> V {
    match weights {
        Weights::P => sum_p,
        Weights::Q => sum_q,
        // SAFETY: (S1).
        Weights { p, q } => unsafe { sum_p.scale(p).add(sum_q.scale(q)) },
    }
}

/// The `N` vectors of `unit` at `at`.
///
/// # Safety
/// (S1) and (S2) for `N * V::BYTES` bytes.
#[inline(always)]
unsafe fn load<V: Lanes, const N: usize>(unit: &[u8], at: usize) -> [V; N] {
    // SAFETY: (S1).
    let mut vectors = unsafe { [V::zero(); N] };
    for (n, vector) in vectors.iter_mut().enumerate() {
        let offset = at + n * V::BYTES;
        // SAFETY: (S1), (S2).
        *vector = unsafe { V::load(unit.as_ptr().add(offset)) };
        if V::AHEAD_BYTES > 0 && (n * V::BYTES).is_multiple_of(64) {
            // SAFETY: (S1); a prefetch reads nothing, so its address may lie past the unit.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(unit.as_ptr().wrapping_add(offset + V::AHEAD_BYTES).cast()) };
        }
    }
    vectors
}

/// Adds vector by vector.
///
/// # Safety
/// (S1)
#[inline(always)]
unsafe fn add<V: Lanes, const N: usize>(sums: &mut [V; N], vectors: &[V; N]) {
    for n in 0..N {
        // SAFETY: (S1).
        sums[n] = unsafe { sums[n].add(vectors[n]) };
    }
}

/// Doubles every vector.
///
/// # Safety
/// (S1)
#[inline(always)]
unsafe fn double<V: Lanes, const N: usize>(sums: &mut [V; N]) {
    for sum in sums {
        // SAFETY: (S1).
        *sum = unsafe { sum.double() };
    }
}

/// Is every byte of every vector zero?
///
/// # Safety
/// (S1)
#[inline(always)]
unsafe fn vanish<V: Lanes, const N: usize>(sums: &[V; N]) -> bool {
    let mut vanish = true;
    for sum in sums {
        // SAFETY: (S1).
        vanish &= unsafe { sum.is_zero() };
    }
    vanish
}

/// Both sums over one strand: `N` vectors' width of every unit at `at`.
///
/// # Safety
/// (S1) and (S2) for `N * V::BYTES` bytes.
#[inline(always)]
unsafe fn sums<V: Lanes, const N: usize, const WITH_Q: bool>(pass: &Pass<'_>, at: usize) -> ([V; N], [V; N]) {
    // SAFETY: (S1), (S2).
    unsafe {
        let (mut sum_p, mut sum_q) = ([V::zero(); N], [V::zero(); N]);
        for unit in pass.data().iter().rev() {
            if WITH_Q {
                double(&mut sum_q);
            }
            let Some(unit) = unit else { continue };
            let vectors = load::<V, N>(unit, at);
            add(&mut sum_p, &vectors);
            if WITH_Q {
                add(&mut sum_q, &vectors);
            }
        }
        if let Some(p) = pass.p() {
            add(&mut sum_p, &load(p, at));
        }
        if let (Some(q), true) = (pass.q(), WITH_Q) {
            add(&mut sum_q, &load(q, at));
        }
        (sum_p, sum_q)
    }
}

/// One strand: sums, then whatever is to be made of them.
///
/// # Safety
/// (S1) and (S2) for `N * V::BYTES` bytes.
#[inline(always)]
unsafe fn strand<V: Lanes, const N: usize, const WITH_Q: bool>(
    pass: &Pass<'_>,
    at: usize,
    output: &mut Output<'_, '_>,
) {
    // SAFETY: (S1), (S2).
    unsafe {
        let (sum_p, sum_q) = sums::<V, N, WITH_Q>(pass, at);
        match output {
            Output::Targets(targets) => {
                for target in targets.iter_mut() {
                    for n in 0..N {
                        let to = target.unit.as_mut_ptr().add(at + n * V::BYTES);
                        finish(sum_p[n], sum_q[n], target.weights).store(to);
                    }
                }
            }
            Output::Vanish(holds) => **holds &= vanish(&sum_p) & vanish(&sum_q),
        }
    }
}

/// Runs a pass strand by strand as far as whole vectors go; returns the position reached.
///
/// # Safety
/// (S1)
#[inline(always)]
unsafe fn walk<V: Lanes, const WITH_Q: bool>(pass: &Pass<'_>, output: &mut Output<'_, '_>) -> usize {
    let mut at = 0;
    while pass.length_bytes() - at >= STRAND_VECTORS * V::BYTES {
        // SAFETY: (S1); (S2) by the condition above.
        unsafe { strand::<V, STRAND_VECTORS, WITH_Q>(pass, at, output) };
        at += STRAND_VECTORS * V::BYTES;
    }
    while pass.length_bytes() - at >= V::BYTES {
        // SAFETY: (S1); (S2) by the condition above.
        unsafe { strand::<V, 1, WITH_Q>(pass, at, output) };
        at += V::BYTES;
    }
    at
}

/// Admits the output, then walks with or without `sum_q`.
///
/// # Safety
/// (S1)
#[inline(always)]
unsafe fn run<V: Lanes>(pass: &Pass<'_>, output: &mut Output<'_, '_>) -> usize {
    pass.admit(output);
    // SAFETY: (S1).
    unsafe { if pass.needs_q(output) { walk::<V, true>(pass, output) } else { walk::<V, false>(pass, output) } }
}

/// [`run`] with vectors of 64 bytes.
///
/// # Safety
/// (S1) for `avx512f`, `avx2`, `gfni`.
#[target_feature(enable = "avx512f,avx2,gfni")]
unsafe fn run_avx512_gfni(pass: &Pass<'_>, output: &mut Output<'_, '_>) -> usize {
    // SAFETY: (S1) by the features enabled here.
    unsafe { run::<Wide>(pass, output) }
}

/// [`run`] with vectors of 32 bytes.
///
/// # Safety
/// (S1) for `avx2`, `gfni`.
#[target_feature(enable = "avx2,gfni")]
unsafe fn run_avx2_gfni(pass: &Pass<'_>, output: &mut Output<'_, '_>) -> usize {
    // SAFETY: (S1) by the features enabled here.
    unsafe { run::<Affine>(pass, output) }
}

/// [`run`] with vectors of 32 bytes.
///
/// # Safety
/// (S1) for `avx2`.
#[target_feature(enable = "avx2")]
unsafe fn run_avx2(pass: &Pass<'_>, output: &mut Output<'_, '_>) -> usize {
    // SAFETY: (S1) by the features enabled here.
    unsafe { run::<Plain>(pass, output) }
}

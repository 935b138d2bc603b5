//! The vector rows of x86-64. The only unsafe code of the crate: intrinsics that the
//! CPU must have, and loads and stores through pointers so that the inner loop has no
//! bounds checks.
//!
//! One generic walk ([`walk`]) is compiled once per row. It takes a *strand* of a few
//! vectors' width at a time, goes down all data units with both sums in registers, and
//! writes each target once: every byte is loaded once and nothing but results is
//! stored. What differs between the rows is a vector type ([`Lanes`]).
//!
//! * With GFNI a multiplication by any constant is one `gf2p8affineqb` by the 8x8 bit
//!   matrix of that constant. (`gf2p8mulb` is of no use: its polynomial is 0x11B.)
//! * Plain AVX2 doubles by add and conditional reduction, and multiplies by other
//!   constants by looking up the products of both nibbles.
//!
//! The 64-byte row leaves prefetching to the CPU, which was faster than any distance
//! tried; the 32-byte rows touch half as many lines per strand and gain up to a quarter
//! on stripes that come from memory by prefetching two strands ahead.
//!
//! Safety, in one place. Every function here that is `unsafe` asks for one or both of:
//! * (S1) the CPU has the features of the row. A [`crate::Row`] is only made after they
//!   were detected, and only `Row::run` calls the three entry functions.
//! * (S2) `at` plus the bytes touched is within `length_bytes` of the pass. [`Pass::new`] checked that
//!   every unit has that length, [`Pass::admit`] that every target has; [`walk`] keeps
//!   `at` below it. Loads and stores are unaligned, so addresses do not matter.

#![allow(unsafe_code, reason = "vector intrinsics and unchecked loads; see the safety section above")]

use std::arch::x86_64::*;

use crate::field::{REDUCTION, multiply};
use crate::pass::{Output, Pass, Weights};

/// Vectors per unit in a strand. Of 2, 3, 4, 6 and 8, four was the fastest on stripes
/// that come from memory; more only helps when the stripe is in the cache anyway.
const STRAND_VECTORS: usize = 4;

/// A vector of field elements.
///
/// # Safety
/// All functions need (S1); `load` and `store` need [`Lanes::BYTES`] bytes at the pointer.
trait Lanes: Copy {
    const BYTES: usize = size_of::<Self>();
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    unsafe fn add(self, other: Self) -> Self;
    /// `2 * self`.
    unsafe fn double(self) -> Self;
    /// `factor * self`.
    unsafe fn scale(self, factor: u8) -> Self;
    /// Is every byte zero?
    unsafe fn is_zero(self) -> bool;
    /// How far ahead in each unit to prefetch; 0 for not at all.
    const AHEAD_BYTES: usize;
}

/// `MATRIX[c]` is multiplication by `c` as `gf2p8affineqb` wants it: byte `7 - k` of the
/// matrix selects the input bits whose parity is output bit `k`.
static MATRIX: [u64; 256] = {
    let mut table = [0; 256];
    let mut factor = 0;
    while factor < 256 {
        let mut column = 0;
        while column < 8 {
            let product = multiply(factor as u8, 1 << column);
            let mut k = 0;
            while k < 8 {
                if product >> k & 1 == 1 {
                    table[factor] |= 1 << (8 * (7 - k) + column);
                }
                k += 1;
            }
            column += 1;
        }
        factor += 1;
    }
    table
};

/// `NIBBLES[c]` holds the products of `c` with `0..16` and with `0x00, 0x10 .. 0xF0`.
static NIBBLES: [[u8; 32]; 256] = {
    let mut table = [[0; 32]; 256];
    let mut factor = 0;
    while factor < 256 {
        let mut nibble = 0;
        while nibble < 16 {
            table[factor][nibble] = multiply(factor as u8, nibble as u8);
            table[factor][16 + nibble] = multiply(factor as u8, (nibble as u8) << 4);
            nibble += 1;
        }
        factor += 1;
    }
    table
};

/// 64 bytes, AVX-512 with GFNI.
#[derive(Clone, Copy)]
struct Wide(__m512i);

// SAFETY of all blocks: the trait's contract is the intrinsics' contract.
impl Lanes for Wide {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: (S1).
        Self(unsafe { _mm512_setzero_si512() })
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: (S1), and the caller vouches for 64 bytes.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: (S1), and the caller vouches for 64 bytes.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: (S1).
        Self(unsafe { _mm512_xor_si512(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn double(self) -> Self {
        // SAFETY: (S1).
        unsafe { self.scale(2) }
    }
    #[inline(always)]
    unsafe fn scale(self, factor: u8) -> Self {
        let matrix = MATRIX[usize::from(factor)].cast_signed();
        // SAFETY: (S1).
        Self(unsafe { _mm512_gf2p8affine_epi64_epi8::<0>(self.0, _mm512_set1_epi64(matrix)) })
    }
    #[inline(always)]
    unsafe fn is_zero(self) -> bool {
        // SAFETY: (S1).
        unsafe { _mm512_test_epi64_mask(self.0, self.0) == 0 }
    }
    const AHEAD_BYTES: usize = 0;
}

/// 32 bytes, AVX2 with GFNI.
#[derive(Clone, Copy)]
struct Affine(__m256i);

impl Lanes for Affine {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: (S1).
        Self(unsafe { _mm256_setzero_si256() })
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: (S1), and the caller vouches for 32 bytes.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: (S1), and the caller vouches for 32 bytes.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: (S1).
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn double(self) -> Self {
        // SAFETY: (S1).
        unsafe { self.scale(2) }
    }
    #[inline(always)]
    unsafe fn scale(self, factor: u8) -> Self {
        let matrix = MATRIX[usize::from(factor)].cast_signed();
        // SAFETY: (S1).
        Self(unsafe { _mm256_gf2p8affine_epi64_epi8::<0>(self.0, _mm256_set1_epi64x(matrix)) })
    }
    #[inline(always)]
    unsafe fn is_zero(self) -> bool {
        // SAFETY: (S1).
        unsafe { _mm256_testz_si256(self.0, self.0) == 1 }
    }
    const AHEAD_BYTES: usize = 256;
}

/// 32 bytes, AVX2 alone.
#[derive(Clone, Copy)]
struct Plain(__m256i);

impl Lanes for Plain {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: (S1).
        Self(unsafe { _mm256_setzero_si256() })
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: (S1), and the caller vouches for 32 bytes.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: (S1), and the caller vouches for 32 bytes.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: (S1).
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn double(self) -> Self {
        // SAFETY: (S1).
        Self(unsafe {
            let overflow = _mm256_cmpgt_epi8(_mm256_setzero_si256(), self.0); // all ones where the top bit is set
            let reduction = _mm256_and_si256(overflow, _mm256_set1_epi8(REDUCTION.cast_signed()));
            _mm256_xor_si256(_mm256_add_epi8(self.0, self.0), reduction)
        })
    }
    #[inline(always)]
    unsafe fn scale(self, factor: u8) -> Self {
        let table = NIBBLES[usize::from(factor)].as_ptr();
        // SAFETY: (S1); a table is 32 bytes, read as two halves of 16.
        Self(unsafe {
            let low_products = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.cast()));
            let high_products = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.add(16).cast()));
            let nibble = _mm256_set1_epi8(0x0F);
            let low = _mm256_and_si256(self.0, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(self.0), nibble);
            _mm256_xor_si256(_mm256_shuffle_epi8(low_products, low), _mm256_shuffle_epi8(high_products, high))
        })
    }
    #[inline(always)]
    unsafe fn is_zero(self) -> bool {
        // SAFETY: (S1).
        unsafe { _mm256_testz_si256(self.0, self.0) == 1 }
    }
    const AHEAD_BYTES: usize = 256;
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

/// Hands `into` the `N` vectors of `unit` at `at`, numbered.
///
/// # Safety
/// (S1) and (S2) for `N * V::BYTES` bytes.
#[inline(always)]
unsafe fn gather<V: Lanes, const N: usize>(unit: &[u8], at: usize, mut into: impl FnMut(usize, V)) {
    for n in 0..N {
        let offset = at + n * V::BYTES;
        // SAFETY: (S1), (S2).
        into(n, unsafe { V::load(unit.as_ptr().add(offset)) });
        if V::AHEAD_BYTES > 0 && (n * V::BYTES).is_multiple_of(64) {
            // SAFETY: (S1); a prefetch reads nothing, so its address may lie past the unit.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(unit.as_ptr().wrapping_add(offset + V::AHEAD_BYTES).cast()) };
        }
    }
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
                sum_q = sum_q.map(|sum| sum.double());
            }
            let Some(unit) = unit else { continue };
            gather::<V, N>(unit, at, |n, vector| {
                sum_p[n] = sum_p[n].add(vector);
                if WITH_Q {
                    sum_q[n] = sum_q[n].add(vector);
                }
            });
        }
        if let Some(p) = pass.p() {
            gather::<V, N>(p, at, |n, vector| sum_p[n] = sum_p[n].add(vector));
        }
        if let (Some(q), true) = (pass.q(), WITH_Q) {
            gather::<V, N>(q, at, |n, vector| sum_q[n] = sum_q[n].add(vector));
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
            Output::Vanish(holds) => **holds &= sum_p.into_iter().chain(sum_q).all(|sum| sum.is_zero()),
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

/// Runs a pass as far as whole vectors of 64 bytes go; returns the position reached.
///
/// # Safety
/// (S1) for `avx512f`, `avx2`, `gfni`.
#[target_feature(enable = "avx512f,avx2,gfni")]
pub(crate) unsafe fn run_avx512_gfni(pass: &Pass<'_>, output: &mut Output<'_, '_>) -> usize {
    // SAFETY: (S1) by the features enabled here.
    unsafe { run::<Wide>(pass, output) }
}

/// Runs a pass as far as whole vectors of 32 bytes go; returns the position reached.
///
/// # Safety
/// (S1) for `avx2`, `gfni`.
#[target_feature(enable = "avx2,gfni")]
pub(crate) unsafe fn run_avx2_gfni(pass: &Pass<'_>, output: &mut Output<'_, '_>) -> usize {
    // SAFETY: (S1) by the features enabled here.
    unsafe { run::<Affine>(pass, output) }
}

/// Runs a pass as far as whole vectors of 32 bytes go; returns the position reached.
///
/// # Safety
/// (S1) for `avx2`.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn run_avx2(pass: &Pass<'_>, output: &mut Output<'_, '_>) -> usize {
    // SAFETY: (S1) by the features enabled here.
    unsafe { run::<Plain>(pass, output) }
}

//! The vector types of the x86-64 rows and their field arithmetic.
//!
//! * With GFNI a multiplication by any constant is one `gf2p8affineqb` by the 8x8 bit
//!   matrix of that constant. (`gf2p8mulb` is of no use: its polynomial is 0x11B.)
//! * Plain AVX2 doubles by add and conditional reduction, and multiplies by other
//!   constants by looking up the products of both nibbles.

use std::arch::x86_64::*;

use crate::field::{REDUCTION, multiply};

/// A vector of field elements.
///
/// # Safety
/// All functions need (S1), see [`super`]; `load` and `store` need [`Lanes::BYTES`] bytes at the pointer.
pub(super) trait Lanes: Copy {
    const BYTES: usize = size_of::<Self>();
    /// How far ahead in each unit to prefetch; 0 for not at all.
    const AHEAD_BYTES: usize;
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
pub(super) struct Wide(__m512i);

impl Lanes for Wide {
    const AHEAD_BYTES: usize = 0;

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
}

/// 32 bytes, AVX2 with GFNI.
#[derive(Clone, Copy)]
pub(super) struct Affine(__m256i);

impl Lanes for Affine {
    const AHEAD_BYTES: usize = 256;

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
}

/// 32 bytes, AVX2 alone.
#[derive(Clone, Copy)]
pub(super) struct Plain(__m256i);

impl Lanes for Plain {
    const AHEAD_BYTES: usize = 256;

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
}

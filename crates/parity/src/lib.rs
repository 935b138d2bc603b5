//! P+Q parity over GF(2^8): encode, check, rebuild one or two lost units.
//!
//! ```text
//! units of a stripe:  D_0  D_1  ...  D_(d-1)   P    Q        1 <= d <= 253, all of one length
//!                      0    1          d-1     d   d+1       <- unit index
//!
//! P = D_0 + D_1 + ...                          "+" is exclusive or
//! Q = g^0 D_0 + g^1 D_1 + g^2 D_2 + ...        in GF(2^8), polynomial 0x11D, g = 2
//! ```
//!
//! This is the RAID-6 of Linux `md` (and of ISA-L's `pq_gen`), byte for byte. With
//! one data unit P and Q are both copies of it. Theory: `field` (the field), `pass`
//! (Horner's rule), `reconstruct` (the recovery formulas).
//!
//! Promises:
//! * Any two lost units are rebuilt exactly (R-RAID-03); any one, where the stripe has
//!   P alone. No unit is read that the rebuild does not need.
//! * Every [`Row`] gives the same bytes as the scalar truth, for every length and alignment.
//! * No state but the choice of row, no allocation for stripes of up to 24 data
//!   units, no input or output. Misuse (lengths that differ, a unit both given and
//!   wanted) is a defect of the caller and panics before anything is written.
//!
//! Must not know: what a drive, a unit header or a checksum is. Parity made from a
//! damaged unit is damaged parity: callers verify before they call.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod encode;
mod field;
mod pass;
mod reconstruct;
mod row;
mod scalar;
mod swar;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use reconstruct::Undecodable;
pub use row::Row;

/// Most data units a stripe can have: their powers of `g` differ, and units are still counted in a byte.
pub const MAX_DATA: usize = 253;

/// Computes both parity units of a stripe. `data` are its 1 to [`MAX_DATA`] data units
/// in stripe order; `p` and `q` are overwritten. All of one length, any alignment.
///
/// # Panics
/// When the lengths differ or the number of data units is out of range.
pub fn encode(data: &[&[u8]], p: &mut [u8], q: &mut [u8]) {
    Row::best().encode(data, p, q);
}

/// Computes the one parity unit of a stripe with single parity. `data` are its 1 to
/// [`MAX_DATA`] data units; `p` is overwritten.
///
/// # Panics
/// As [`encode()`].
pub fn encode_p(data: &[&[u8]], p: &mut [u8]) {
    Row::best().encode_p(data, p);
}

/// Do both parity units fit the data? Reads every unit once and writes nothing.
///
/// # Panics
/// As [`encode()`].
pub fn check(data: &[&[u8]], p: &[u8], q: &[u8]) -> bool {
    Row::best().check(data, p, q)
}

/// Does the one parity unit of a stripe with single parity fit the data?
///
/// # Panics
/// As [`encode()`].
pub fn check_p(data: &[&[u8]], p: &[u8]) -> bool {
    Row::best().check_p(data, p)
}

/// Rebuilds absent units of a stripe.
///
/// `present` lists the stripe's units by unit index: `data_count` data units, then P
/// and Q as far as the stripe has them, so `present.len() - data_count` (0, 1 or 2) is
/// its number of parity units. `None` is a unit that is lost, or was not read because
/// it is not needed. `targets` are the wanted units: unit index, and the buffer to
/// overwrite. An absent unit need not be wanted: with two units lost, the one that
/// is asked for is rebuilt without a buffer for the other.
///
/// To rebuild one data unit it is enough to give the other data units and P; to
/// rebuild P, the data.
///
/// # Errors
/// [`Undecodable`] when more data units are absent than parity units are at hand;
/// no target is touched.
///
/// # Panics
/// When lengths differ, an index is not in the stripe, or a target is wanted twice or
/// given as present.
pub fn reconstruct(
    data_count: usize,
    present: &[Option<&[u8]>],
    targets: &mut [(usize, &mut [u8])],
) -> Result<(), Undecodable> {
    Row::best().reconstruct(data_count, present, targets)
}

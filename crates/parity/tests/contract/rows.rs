//! Every row gives the bytes of the scalar truth, for every length and alignment, and
//! touches nothing outside its units.

use crate::stripe::{stripe, unit};
use parity::Row;

const GUARD: u8 = 0xC3;
const GUARD_BYTES: usize = 80;

/// A unit somewhere in a larger buffer, so that its address can be odd and its surroundings watched.
struct Placed {
    buffer: Vec<u8>,
    start: usize,
    length_bytes: usize,
}

impl Placed {
    fn new(content: &[u8], shift: usize) -> Self {
        let mut buffer = vec![GUARD; content.len() + 2 * GUARD_BYTES];
        let start = buffer.as_ptr().align_offset(64) % 64 + shift % 16;
        buffer[start..][..content.len()].copy_from_slice(content);
        Self { buffer, start, length_bytes: content.len() }
    }

    fn unit(&self) -> &[u8] {
        &self.buffer[self.start..][..self.length_bytes]
    }

    fn unit_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..][..self.length_bytes]
    }

    fn surroundings_are_whole(&self) -> bool {
        let (before, after) = (&self.buffer[..self.start], &self.buffer[self.start + self.length_bytes..]);
        before.iter().chain(after).all(|&byte| byte == GUARD)
    }
}

/// Encodes, checks and rebuilds one stripe with `row`, its units at differing odd addresses.
fn compare(row: Row, data_count: usize, length_bytes: usize, shift: usize) {
    let what = format!("{} {data_count}+2 of {length_bytes} bytes, shift {shift}", row.name());
    let truth = stripe(data_count, 2, length_bytes);
    let placed: Vec<Placed> = truth.iter().enumerate().map(|(n, unit)| Placed::new(unit, shift * (n + 1))).collect();
    let units: Vec<&[u8]> = placed.iter().map(Placed::unit).collect();
    let (data, parity) = units.split_at(data_count);

    let blank = vec![0x55; length_bytes];
    let [mut first, mut second] = [shift, shift + 5].map(|shift| Placed::new(&blank, shift));
    row.encode(data, first.unit_mut(), second.unit_mut());
    assert!(first.unit() == parity[0] && second.unit() == parity[1], "encode {what}");
    first.unit_mut().fill(0x55);
    row.encode_p(data, first.unit_mut());
    assert!(first.unit() == parity[0], "encode_p {what}");

    assert!(row.check(data, parity[0], parity[1]), "check {what}");
    assert!(row.check_p(data, parity[0]), "check_p {what}");

    let (x, y) = (data_count / 2, data_count + shift % 2);
    let lost = if data_count > 1 && shift.is_multiple_of(3) { [0, data_count - 1] } else { [x, y] };
    let present: Vec<Option<&[u8]>> =
        units.iter().enumerate().map(|(n, unit)| (!lost.contains(&n)).then_some(*unit)).collect();
    let mut targets = [(lost[0], first.unit_mut()), (lost[1], second.unit_mut())];
    row.reconstruct(data_count, &present, &mut targets).unwrap();
    assert!(first.unit() == truth[lost[0]] && second.unit() == truth[lost[1]], "rebuild {lost:?} {what}");

    assert!(first.surroundings_are_whole() && second.surroundings_are_whole(), "wrote outside its unit: {what}");
}

#[test]
fn every_length_up_to_300_bytes() {
    for &row in Row::all() {
        for length_bytes in 0..=300 {
            for (data_count, shift) in [(1, 0), (1, 1), (2, 3), (5, 0), (10, 7), (10, 6)] {
                compare(row, data_count, length_bytes, shift);
            }
        }
    }
}

#[test]
fn every_width_and_alignment_at_lengths_around_4_kib() {
    for &row in Row::all() {
        for data_count in 1..=22 {
            for (shift, length_bytes) in [4095, 4096, 4097, 4096 + 512, 4096 - 64, 4096 + 255].into_iter().enumerate() {
                compare(row, data_count, length_bytes, shift);
            }
        }
        for shift in 0..16 {
            compare(row, 3, 777, shift);
        }
        compare(row, parity::MAX_DATA, 333, 1);
    }
}

/// The free functions are the best row.
#[test]
fn the_crate_uses_a_row_that_agrees() {
    let truth = stripe(7, 2, 1000);
    let units: Vec<&[u8]> = truth.iter().map(Vec::as_slice).collect();
    let (data, parity) = units.split_at(7);
    let [mut p, mut q] = [vec![0; 1000], vec![0; 1000]];
    parity::encode(data, &mut p, &mut q);
    assert!(p == parity[0] && q == parity[1]);
    p.fill(0);
    parity::encode_p(data, &mut p);
    assert!(p == parity[0]);
    assert!(parity::check(data, parity[0], parity[1]) && parity::check_p(data, parity[0]));
    assert!(!parity::check(data, parity[1], parity[0]) && !parity::check_p(data, parity[1]));
    let present: Vec<Option<&[u8]>> = units.iter().enumerate().map(|(n, unit)| (n != 4).then_some(*unit)).collect();
    parity::reconstruct(7, &present, &mut [(4, &mut p)]).unwrap();
    assert!(p == truth[4]);
}

#[test]
fn the_list_of_rows_begins_with_the_truth_and_ends_with_the_best() {
    let rows = Row::all();
    assert_eq!(rows.first(), Some(&Row::scalar()));
    assert_eq!(rows.last(), Some(&Row::best()));
    let names: Vec<&str> = rows.iter().map(|row| row.name()).collect();
    assert!(names.starts_with(&["scalar", "u64"]), "{names:?}");
    let known = ["scalar", "u64", "avx2", "avx2+gfni", "avx512+gfni"];
    assert!(
        names.iter().all(|name| known.contains(name))
            && names.is_sorted_by_key(|name| known.iter().position(|k| k == name))
    );
}

#[test]
fn a_check_finds_every_flipped_bit() {
    const DATA_COUNT: usize = 4;
    for &row in Row::all() {
        for length_bytes in [1, 67, 4 * 64 + 32 + 9] {
            let mut units = stripe(DATA_COUNT, 2, length_bytes);
            for n in 0..units.len() {
                for bit in 0..8 * length_bytes {
                    units[n][bit / 8] ^= 1 << (bit % 8);
                    let data: Vec<&[u8]> = units[..DATA_COUNT].iter().map(Vec::as_slice).collect();
                    let (p, q) = (&units[DATA_COUNT], &units[DATA_COUNT + 1]);
                    assert!(!row.check(&data, p, q), "{} unit {n} bit {bit}", row.name());
                    assert_eq!(row.check_p(&data, p), n == DATA_COUNT + 1, "{} unit {n} bit {bit}", row.name());
                    units[n][bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
    }
}

/// Two units damaged alike cancel out in P; Q sees them.
#[test]
fn a_check_finds_damage_that_cancels_in_p() {
    for &row in Row::all() {
        let mut units = stripe(4, 2, 200);
        units[1][150] ^= 0x40;
        units[3][150] ^= 0x40;
        let data: Vec<&[u8]> = units[..4].iter().map(Vec::as_slice).collect();
        assert!(row.check_p(&data, &units[4]), "{}", row.name());
        assert!(!row.check(&data, &units[4], &units[5]), "{}", row.name());
    }
}

#[test]
fn the_seeded_units_differ() {
    assert!(unit(0, 64) != unit(1, 64), "or the other tests prove nothing");
}

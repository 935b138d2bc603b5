//! Stripes for the tests, with parity by the scalar truth.

use parity::{Row, Undecodable};

/// Bytes that look random and depend on `seed` and position only.
pub fn unit(seed: usize, length_bytes: usize) -> Vec<u8> {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..length_bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// The units of a stripe, by unit index, given its data.
pub fn with_parity(mut data: Vec<Vec<u8>>, parity_count: usize) -> Vec<Vec<u8>> {
    let length_bytes = data[0].len();
    let (mut p, mut q) = (vec![0xAA; length_bytes], vec![0xAA; length_bytes]);
    let units: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    match parity_count {
        0 => {}
        1 => Row::scalar().encode_p(&units, &mut p),
        _ => Row::scalar().encode(&units, &mut p, &mut q),
    }
    data.extend([p, q].into_iter().take(parity_count));
    data
}

/// The units of a stripe of pseudo-random data.
pub fn stripe(data_count: usize, parity_count: usize, length_bytes: usize) -> Vec<Vec<u8>> {
    with_parity((0..data_count).map(|n| unit(n, length_bytes)).collect(), parity_count)
}

/// Rebuilds `wanted` with `lost` absent, into buffers that held 0x55.
pub fn rebuild(
    row: Row,
    data_count: usize,
    units: &[Vec<u8>],
    lost: &[usize],
    wanted: &[usize],
) -> (Result<(), Undecodable>, Vec<Vec<u8>>) {
    let present: Vec<Option<&[u8]>> =
        units.iter().enumerate().map(|(n, unit)| (!lost.contains(&n)).then_some(&unit[..])).collect();
    let mut rebuilt = vec![vec![0x55; units[0].len()]; wanted.len()];
    let mut targets: Vec<(usize, &mut [u8])> =
        wanted.iter().copied().zip(rebuilt.iter_mut().map(Vec::as_mut_slice)).collect();
    let outcome = row.reconstruct(data_count, &present, &mut targets);
    (outcome, rebuilt)
}

/// Panics unless every row rebuilds `wanted` with `lost` absent.
pub fn assert_rebuilt(data_count: usize, units: &[Vec<u8>], lost: &[usize], wanted: &[usize]) {
    for &row in Row::all() {
        let (outcome, rebuilt) = rebuild(row, data_count, units, lost, wanted);
        assert_eq!(outcome, Ok(()), "{} lost {lost:?} of {data_count}+{}", row.name(), units.len() - data_count);
        for (unit, index) in rebuilt.iter().zip(wanted) {
            assert!(*unit == units[*index], "{} lost {lost:?} of {data_count}: unit {index}", row.name());
        }
    }
}

//! Every loss of up to two units, every row, judged by the scalar truth.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use parity::{Row, Undecodable};

/// Bytes that look random and depend on unit and position only.
fn unit(seed: usize, length_bytes: usize) -> Vec<u8> {
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

/// All units of a stripe, parity by the scalar truth.
fn stripe(data_count: usize, parity_count: usize, length_bytes: usize) -> Vec<Vec<u8>> {
    let mut units: Vec<Vec<u8>> = (0..data_count).map(|n| unit(n, length_bytes)).collect();
    let (mut p, mut q) = (vec![0xAA; length_bytes], vec![0xAA; length_bytes]);
    let data: Vec<&[u8]> = units.iter().map(Vec::as_slice).collect();
    match parity_count {
        0 => {}
        1 => Row::scalar().encode_p(&data, &mut p),
        _ => Row::scalar().encode(&data, &mut p, &mut q),
    }
    units.extend([p, q].into_iter().take(parity_count));
    units
}

/// Rebuilds `wanted` with `lost` absent; `None` if undecodable.
fn rebuild(
    row: Row,
    data_count: usize,
    units: &[Vec<u8>],
    lost: &[usize],
    wanted: &[usize],
) -> Result<Vec<Vec<u8>>, Undecodable> {
    let present: Vec<Option<&[u8]>> =
        units.iter().enumerate().map(|(n, unit)| (!lost.contains(&n)).then_some(&unit[..])).collect();
    let mut rebuilt = vec![vec![0x55; units[0].len()]; wanted.len()];
    let mut targets: Vec<(usize, &mut [u8])> =
        wanted.iter().copied().zip(rebuilt.iter_mut().map(Vec::as_mut_slice)).collect();
    row.reconstruct(data_count, &present, &mut targets)?;
    Ok(rebuilt)
}

/// All sets of one or two of `count` units.
fn losses(count: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..count).flat_map(move |x| (x..count).map(move |y| if x == y { vec![x] } else { vec![x, y] }))
}

/// Odd, so that every row meets its widest loop, its narrow one and its tail.
const LENGTH_BYTES: usize = 1024 + 64 + 32 + 13;

#[test]
fn every_loss_of_one_or_two_units_is_rebuilt_by_every_row() {
    for &row in Row::all() {
        for data_count in 1..=22 {
            let units = stripe(data_count, 2, LENGTH_BYTES);
            for lost in losses(data_count + 2) {
                let rebuilt = rebuild(row, data_count, &units, &lost, &lost).unwrap();
                for (unit, index) in rebuilt.iter().zip(&lost) {
                    assert!(*unit == units[*index], "{} {data_count}+2 lost {lost:?}: unit {index}", row.name());
                }
            }
        }
    }
}

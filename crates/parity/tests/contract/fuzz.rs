//! Fuzz target: any shape, content and loss. Runs as an ordinary test for a moment, and
//! under a fuzzer for as long as it is let (`cargo bolero test any_stripe`).

use crate::stripe::{rebuild, with_parity};
use parity::{Row, Undecodable};

/// Shape and loss from the first six bytes, content from the rest, cut evenly.
fn judge(input: &[u8]) {
    let Some((&[data_count, parity_count, loss_a, loss_b, loss_c, tail], content)) = input.split_first_chunk() else {
        return;
    };
    let data_count = 1 + usize::from(data_count) % 24;
    let parity_count = usize::from(parity_count) % 3;
    let length_bytes = content.len() / data_count;
    // a fuzzer's inputs are short: repeat the content so that vector loops are met too
    let length_bytes = length_bytes * (1 + usize::from(tail) % 64);
    let data = (0..data_count).map(|n| {
        let mut from_here = content.iter().cycle().skip(n);
        (0..length_bytes).map(|_| *from_here.next().expect("content is not empty where units are not")).collect()
    });
    let units = with_parity(data.collect(), parity_count);
    let mut lost: Vec<usize> = [loss_a, loss_b, loss_c].map(|n| usize::from(n) % (2 * units.len())).into();
    lost.retain(|&n| n < units.len());
    lost.sort_unstable();
    lost.dedup();

    let data_lost = lost.iter().filter(|&&n| n < data_count).count();
    let parity_left = parity_count - (lost.len() - data_lost);
    for &row in Row::all() {
        let (outcome, rebuilt) = rebuild(row, data_count, &units, &lost, &lost);
        if data_lost > parity_left {
            assert_eq!(outcome, Err(Undecodable { data_lost, parity_left }), "{}", row.name());
        } else {
            assert_eq!(outcome, Ok(()), "{}", row.name());
            assert!(rebuilt.iter().zip(&lost).all(|(unit, &n)| *unit == units[n]), "{} lost {lost:?}", row.name());
        }
    }
}

#[test]
fn any_stripe() {
    bolero::check!().for_each(|input: &[u8]| judge(input));
}

/// Guards the target itself: a typical input reaches the rebuild of two data units.
#[test]
fn the_target_digs_deep_enough() {
    let mut input = vec![9, 2, 3, 7, 255, 40];
    input.extend(0..200);
    judge(&input);
}

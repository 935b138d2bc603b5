//! Every loss a stripe must survive, and every one it must refuse, with every row.

use crate::stripe::{assert_rebuilt, rebuild, stripe};
use parity::{Row, Undecodable};

/// Odd, so that every row meets its widest loop, its narrow one and its tail.
const LENGTH_BYTES: usize = 1024 + 64 + 32 + 13;

/// All pairs `x < y` of `count` units.
fn pairs(count: usize) -> impl Iterator<Item = [usize; 2]> {
    (0..count).flat_map(move |x| (x + 1..count).map(move |y| [x, y]))
}

#[test]
fn every_loss_of_one_unit_is_rebuilt() {
    for data_count in 1..=22 {
        for parity_count in 1..=2 {
            let units = stripe(data_count, parity_count, LENGTH_BYTES);
            for x in 0..units.len() {
                assert_rebuilt(data_count, &units, &[x], &[x]);
            }
        }
    }
}

#[test]
fn every_loss_of_two_units_is_rebuilt_whole_or_in_part() {
    for data_count in 1..=22 {
        let units = stripe(data_count, 2, LENGTH_BYTES);
        for lost @ [x, y] in pairs(data_count + 2) {
            assert_rebuilt(data_count, &units, &lost, &[x, y]);
            assert_rebuilt(data_count, &units, &lost, &[y, x]);
            assert_rebuilt(data_count, &units, &lost, &[x]);
            assert_rebuilt(data_count, &units, &lost, &[y]);
        }
    }
}

#[test]
fn the_widest_stripe_is_rebuilt() {
    let data_count = parity::MAX_DATA;
    let units = stripe(data_count, 2, 100);
    for lost in [[0, 252], [251, 252], [0, 1], [127, 128], [252, 253], [252, 254], [253, 254]] {
        assert_rebuilt(data_count, &units, &lost, &lost);
    }
}

/// To rebuild data the other data and one parity unit are enough, whichever it is.
#[test]
fn a_parity_unit_that_is_not_needed_may_stay_unread() {
    let units = stripe(5, 2, LENGTH_BYTES);
    for x in 0..5 {
        assert_rebuilt(5, &units, &[x, 5], &[x]); // by Q
        assert_rebuilt(5, &units, &[x, 6], &[x]); // by P
    }
}

#[test]
fn one_loss_too_many_is_refused_and_nothing_is_written() {
    for data_count in 1..=6 {
        for parity_count in 0..=2 {
            let units = stripe(data_count, parity_count, 64);
            for mask in 0..1usize << units.len() {
                let lost: Vec<usize> = (0..units.len()).filter(|n| mask >> n & 1 == 1).collect();
                let data_lost = lost.iter().filter(|&&n| n < data_count).count();
                let parity_left = parity_count - (lost.len() - data_lost);
                for &row in Row::all() {
                    let (outcome, rebuilt) = rebuild(row, data_count, &units, &lost, &lost);
                    if data_lost > parity_left {
                        assert_eq!(outcome, Err(Undecodable { data_lost, parity_left }));
                        assert!(rebuilt.iter().flatten().all(|&byte| byte == 0x55), "written in spite of refusal");
                    } else {
                        assert_eq!(outcome, Ok(()));
                        assert!(rebuilt.iter().zip(&lost).all(|(unit, &index)| *unit == units[index]));
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_wanted_is_nothing_done() {
    let units = stripe(3, 2, 64);
    assert_rebuilt(3, &units, &[], &[]);
    assert_rebuilt(3, &units, &[1], &[]);
}

#[test]
fn the_refusal_says_what_is_absent() {
    let refusal = Undecodable { data_lost: 3, parity_left: 2 };
    assert_eq!(refusal.to_string(), "3 data units are absent and only 2 parity units are at hand");
}

//! Random stripes of any shape: what goes in comes out.

use crate::stripe::{assert_rebuilt, with_parity};
use parity::Row;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;

/// Data of 1 to 30 units of up to 700 random bytes, a number of parity units, and lost
/// units (by unit index) within what that parity covers.
fn cases() -> impl Strategy<Value = (Vec<Vec<u8>>, usize, Vec<usize>)> {
    (1usize..=30, 0usize..=700, 1usize..=2).prop_flat_map(|(data_count, length_bytes, parity_count)| {
        let units: Vec<usize> = (0..data_count + parity_count).collect();
        (vec(vec(any::<u8>(), length_bytes), data_count), Just(parity_count), subsequence(units, 0..=parity_count))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_lost_is_rebuilt((data, parity_count, lost) in cases()) {
        let data_count = data.len();
        assert_rebuilt(data_count, &with_parity(data, parity_count), &lost, &lost);
    }

    /// Parity is linear: that of a sum is the sum of the parities. All rows.
    #[test]
    fn parity_of_a_sum_is_the_sum_of_parities(
        (a, b) in (1usize..=30, 0usize..=400).prop_flat_map(|(data_count, length_bytes)| {
            let data = vec(vec(any::<u8>(), length_bytes), data_count);
            (data.clone(), data)
        })
    ) {
        let add = |a: &[u8], b: &[u8]| -> Vec<u8> { a.iter().zip(b).map(|(a, b)| a ^ b).collect() };
        let sum: Vec<Vec<u8>> = a.iter().zip(&b).map(|(a, b)| add(a, b)).collect();
        for &row in Row::all() {
            let [of_a, of_b, of_sum] = [&a, &b, &sum].map(|data| {
                let units: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
                let (mut p, mut q) = (vec![0; units[0].len()], vec![0; units[0].len()]);
                row.encode(&units, &mut p, &mut q);
                (p, q)
            });
            prop_assert_eq!(&of_sum.0, &add(&of_a.0, &of_b.0), "{} P", row.name());
            prop_assert_eq!(&of_sum.1, &add(&of_a.1, &of_b.1), "{} Q", row.name());
        }
    }
}

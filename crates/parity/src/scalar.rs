//! The truth: one byte at a time, straight from the definition of the two sums,
//! by logarithm tables and without Horner's rule. Slow on purpose, so that nothing
//! is shared with the rows it judges.

use crate::field::{multiply, power};
use crate::pass::{Pass, Target};

/// Runs a pass.
pub(crate) fn run(pass: &Pass<'_>, targets: &mut [Target<'_>]) {
    pass.admit(targets);
    for at in 0..pass.length_bytes() {
        let mut sum_p = pass.p().map_or(0, |p| p[at]);
        let mut sum_q = pass.q().map_or(0, |q| q[at]);
        for (index, unit) in pass.data().iter().enumerate() {
            let byte = unit.map_or(0, |unit| unit[at]);
            sum_p ^= byte;
            sum_q ^= multiply(power(index), byte);
        }
        for target in &mut *targets {
            target.unit[at] = multiply(target.weights.p, sum_p) ^ multiply(target.weights.q, sum_q);
        }
    }
}

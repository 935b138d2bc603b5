//! The truth: one byte at a time, straight from the definition of the two sums,
//! by logarithm tables and without Horner's rule. Slow on purpose, so that nothing
//! is shared with the rows it judges.

use crate::field::{multiply, power};
use crate::pass::{Output, Pass};

/// Runs a pass.
pub(crate) fn run(pass: &Pass<'_>, mut output: Output<'_, '_>) {
    pass.admit(&output);
    for at in 0..pass.length_bytes() {
        let mut sum_p = pass.p().map_or(0, |p| p[at]);
        let mut sum_q = pass.q().map_or(0, |q| q[at]);
        for (index, unit) in pass.data().iter().enumerate() {
            let byte = unit.map_or(0, |unit| unit[at]);
            sum_p ^= byte;
            sum_q ^= multiply(power(index), byte);
        }
        match &mut output {
            Output::Targets(targets) => {
                for target in targets.iter_mut() {
                    target.unit[at] = multiply(target.weights.p, sum_p) ^ multiply(target.weights.q, sum_q);
                }
            }
            Output::Vanish(holds) => **holds &= sum_p == 0 && (sum_q == 0 || pass.q().is_none()),
        }
    }
}

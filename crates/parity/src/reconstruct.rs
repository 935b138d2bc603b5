//! Rebuilding lost units.
//!
//! Write `sum_p` and `sum_q` for the two sums over the data units at hand, with the
//! parity units used for the rebuild folded in. What is missing from the sums is
//! exactly the lost data, so:
//!
//! * one data unit `x` lost, P used: `sum_p = D_x`. Plain exclusive or; Q is not read.
//!   Q, if lost too, is `sum_q + g^x D_x`.
//! * `x` lost, P lost too, Q used: `sum_q = g^x D_x`, so `D_x = g^-x sum_q`, and
//!   `P = sum_p + D_x`.
//! * `x` and `y` lost, P and Q used: `D_x + D_y = sum_p` and
//!   `g^x D_x + g^y D_y = sum_q`. The determinant `g^x + g^y` is not zero because the
//!   powers differ. With `e = 1 / (g^x + g^y)`:
//!   `D_x = e g^y sum_p + e sum_q` and, alike, `D_y = e g^x sum_p + e sum_q`.
//! * no data lost: P and Q are encoded anew.
//!
//! Each line is a pair of [`Weights`] per target, so one pass reads every unit once
//! and writes all targets.

use smallvec::SmallVec;
use thiserror::Error;

use crate::field::{invert, multiply, power};
use crate::pass::{Output, Pass, Target, Weights};
use crate::{MAX_DATA, Row};

/// Too little of the stripe is at hand to rebuild a wanted unit. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{data_lost} data units are absent and only {parity_left} parity units are at hand")]
pub struct Undecodable {
    /// Data units that are not at hand, wanted or not.
    pub data_lost: usize,
    /// Parity units at hand.
    pub parity_left: usize,
}

/// Which absent data units the sums are solved for, and by which parity.
#[derive(Clone, Copy)]
enum Solution {
    /// All data is at hand.
    Encode,
    /// `x` from P.
    ByP { x: usize },
    /// `x` from Q.
    ByQ { x: usize },
    /// `x` and `y` from both.
    ByBoth { x: usize, y: usize },
}

impl Solution {
    fn find(data: &[Option<&[u8]>], p: Option<&[u8]>, q: Option<&[u8]>) -> Result<Self, Undecodable> {
        let mut lost = data.iter().enumerate().filter(|(_, unit)| unit.is_none()).map(|(index, _)| index);
        match (lost.next(), lost.next(), lost.next()) {
            (None, ..) => Ok(Solution::Encode),
            (Some(x), None, _) if p.is_some() => Ok(Solution::ByP { x }),
            (Some(x), None, _) if q.is_some() => Ok(Solution::ByQ { x }),
            (Some(x), Some(y), None) if p.is_some() && q.is_some() => Ok(Solution::ByBoth { x, y }),
            _ => Err(Undecodable {
                data_lost: data.iter().filter(|unit| unit.is_none()).count(),
                parity_left: usize::from(p.is_some()) + usize::from(q.is_some()),
            }),
        }
    }

    /// How unit `index` of a stripe of `data_count` data units is made of the sums.
    fn weights(self, index: usize, data_count: usize) -> Weights {
        let is_p = index == data_count;
        match self {
            Solution::Encode if is_p => Weights::P,
            Solution::Encode => Weights::Q,
            Solution::ByP { x } if index == x => Weights::P,
            Solution::ByP { x } => Weights { p: power(x), q: 1 },
            Solution::ByQ { x } => Weights { p: u8::from(is_p), q: invert(power(x)) },
            Solution::ByBoth { x, y } => {
                let other = if index == x { y } else { x };
                let e = invert(power(x) ^ power(y));
                Weights { p: multiply(e, power(other)), q: e }
            }
        }
    }
}

impl Row {
    /// [`crate::reconstruct()`] by this row.
    pub fn reconstruct(
        self,
        data_count: usize,
        present: &[Option<&[u8]>],
        targets: &mut [(usize, &mut [u8])],
    ) -> Result<(), Undecodable> {
        assert!((1..=MAX_DATA).contains(&data_count), "a stripe has 1 to {MAX_DATA} data units");
        assert!(
            (data_count..=data_count + 2).contains(&present.len()),
            "a stripe has its data units and at most two of parity"
        );
        admit(present, targets);
        let (data, parity) = present.split_at(data_count);
        let p = parity.first().copied().flatten();
        let q = parity.get(1).copied().flatten();
        let solution = Solution::find(data, p, q)?;
        let Some(length_bytes) = targets.first().map(|(_, unit)| unit.len()) else { return Ok(()) };
        let (p, q) = match solution {
            Solution::Encode => (None, None),
            Solution::ByP { .. } => (p, None),
            Solution::ByQ { .. } => (None, q),
            Solution::ByBoth { .. } => (p, q),
        };
        let pass = Pass::new(data, p, q, length_bytes);
        let mut targets: SmallVec<[Target<'_>; 2]> = targets
            .iter_mut()
            .map(|(index, unit)| Target { weights: solution.weights(*index, data_count), unit })
            .collect();
        self.run(&pass, Output::Targets(&mut targets));
        Ok(())
    }
}

/// Panics unless every target is an absent unit of the stripe, named once, and all units
/// at hand, read or not, are as long as the first.
fn admit(present: &[Option<&[u8]>], targets: &[(usize, &mut [u8])]) {
    if let Some((_, first)) = targets.first() {
        let one_length = present.iter().flatten().all(|unit| unit.len() == first.len());
        assert!(one_length, "the units of a stripe have one length");
    }
    for (n, (index, _)) in targets.iter().enumerate() {
        let slot = present.get(*index).expect("a target is a unit of the stripe");
        assert!(slot.is_none(), "unit {index} is at hand and wanted at once");
        assert!(targets[..n].iter().all(|(earlier, _)| earlier != index), "unit {index} is wanted twice");
    }
}

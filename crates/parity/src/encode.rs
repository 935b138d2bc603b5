//! Making and checking parity.

use smallvec::SmallVec;

use crate::Row;
use crate::pass::{Pass, Target, Weights};

/// Units of a stripe in stripe order; the widest usual stripe (22+2) stays off the heap.
pub(crate) type Units<'a> = SmallVec<[Option<&'a [u8]>; 24]>;

/// Bytes of each unit looked at together by a check: both sums stay in the first-level cache.
const COLUMN_BYTES: usize = 4096;

impl Row {
    /// [`crate::encode`] by this row.
    pub fn encode(self, data: &[&[u8]], p: &mut [u8], q: &mut [u8]) {
        let units: Units<'_> = data.iter().copied().map(Some).collect();
        let pass = Pass::new(&units, None, None, p.len());
        self.run(&pass, &mut [Target { weights: Weights::P, unit: p }, Target { weights: Weights::Q, unit: q }]);
    }

    /// [`crate::encode_p`] by this row.
    pub fn encode_p(self, data: &[&[u8]], p: &mut [u8]) {
        let units: Units<'_> = data.iter().copied().map(Some).collect();
        let pass = Pass::new(&units, None, None, p.len());
        self.run(&pass, &mut [Target { weights: Weights::P, unit: p }]);
    }

    /// [`crate::check`] by this row.
    pub fn check(self, data: &[&[u8]], p: &[u8], q: &[u8]) -> bool {
        self.agrees(data, p, Some(q))
    }

    /// [`crate::check_p`] by this row.
    pub fn check_p(self, data: &[&[u8]], p: &[u8]) -> bool {
        self.agrees(data, p, None)
    }

    /// Folds the parity into the sums of the data, column by column: all must come to zero.
    fn agrees(self, data: &[&[u8]], p: &[u8], q: Option<&[u8]>) -> bool {
        let length_bytes = p.len();
        let whole: Units<'_> = data.iter().copied().map(Some).collect();
        Pass::new(&whole, Some(p), q, length_bytes); // all of one length, or panic
        let mut sums = [[0; COLUMN_BYTES]; 2];
        (0..length_bytes).step_by(COLUMN_BYTES).all(|from| {
            let column = from..length_bytes.min(from + COLUMN_BYTES);
            let units: Units<'_> = data.iter().map(|unit| Some(&unit[column.clone()])).collect();
            let pass = Pass::new(&units, Some(&p[column.clone()]), q.map(|q| &q[column.clone()]), column.len());
            let [sum_p, sum_q] = sums.each_mut().map(|sum| &mut sum[..column.len()]);
            let mut targets =
                [Target { weights: Weights::P, unit: sum_p }, Target { weights: Weights::Q, unit: sum_q }];
            let targets = if q.is_some() { &mut targets[..] } else { &mut targets[..1] };
            self.run(&pass, targets);
            targets.iter().all(|target| target.unit.iter().all(|&byte| byte == 0))
        })
    }
}

//! Making and checking parity.

use smallvec::SmallVec;

use crate::Row;
use crate::pass::{Output, Pass, Target, Weights};

/// Units of a stripe in stripe order; the widest usual stripe (22+2) stays off the heap.
pub(crate) type Units<'a> = SmallVec<[Option<&'a [u8]>; 24]>;

impl Row {
    /// [`crate::encode()`] by this row.
    pub fn encode(self, data: &[&[u8]], p: &mut [u8], q: &mut [u8]) {
        let units: Units<'_> = data.iter().copied().map(Some).collect();
        let pass = Pass::new(&units, None, None, p.len());
        let mut targets = [Target { weights: Weights::P, unit: p }, Target { weights: Weights::Q, unit: q }];
        self.run(&pass, Output::Targets(&mut targets));
    }

    /// [`crate::encode_p`] by this row.
    pub fn encode_p(self, data: &[&[u8]], p: &mut [u8]) {
        let units: Units<'_> = data.iter().copied().map(Some).collect();
        let pass = Pass::new(&units, None, None, p.len());
        self.run(&pass, Output::Targets(&mut [Target { weights: Weights::P, unit: p }]));
    }

    /// [`crate::check`] by this row.
    pub fn check(self, data: &[&[u8]], p: &[u8], q: &[u8]) -> bool {
        self.agrees(data, p, Some(q))
    }

    /// [`crate::check_p`] by this row.
    pub fn check_p(self, data: &[&[u8]], p: &[u8]) -> bool {
        self.agrees(data, p, None)
    }

    /// Folds the parity into the sums of the data: both must vanish.
    fn agrees(self, data: &[&[u8]], p: &[u8], q: Option<&[u8]>) -> bool {
        let units: Units<'_> = data.iter().copied().map(Some).collect();
        let mut holds = true;
        self.run(&Pass::new(&units, Some(p), q, p.len()), Output::Vanish(&mut holds));
        holds
    }
}

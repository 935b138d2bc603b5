//! One pass over a stripe: what every row of the maths must compute.
//!
//! Encoding, checking and rebuilding are the same walk. Over the data units at
//! hand, absent ones counting as zero, two sums are taken at each byte position:
//!
//! ```text
//! sum_p = D_0 + D_1 + ...                 (+ P where it is to be folded in)
//! sum_q = g^0 D_0 + g^1 D_1 + ...         (+ Q where it is to be folded in)
//! ```
//!
//! and each target is a weighted sum of the two: `target = w.p sum_p + w.q sum_q`.
//! The weights say what the pass is for (see `encode` and `reconstruct`). A check folds
//! both parity units in and looks whether the sums vanish.
//!
//! Horner's rule turns `sum_q` into doublings, from the last data unit down:
//! `sum_q = D_0 + g (D_1 + g (D_2 + ...))`. Multiplication by constants other than
//! two happens at most four times per position, when the sums are finished.

/// What goes into a pass. All units have the same length.
pub(crate) struct Pass<'a> {
    data: &'a [Option<&'a [u8]>],
    p: Option<&'a [u8]>,
    q: Option<&'a [u8]>,
    length_bytes: usize,
}

/// How one target is made of the two sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weights {
    pub(crate) p: u8,
    pub(crate) q: u8,
}

impl Weights {
    /// The plain sum.
    pub(crate) const P: Self = Self { p: 1, q: 0 };
    /// The powers' sum.
    pub(crate) const Q: Self = Self { p: 0, q: 1 };
}

/// Where one result of a pass goes.
pub(crate) struct Target<'a> {
    pub(crate) weights: Weights,
    pub(crate) unit: &'a mut [u8],
}

/// What is made of the sums.
pub(crate) enum Output<'a, 'b> {
    /// Each target is written.
    Targets(&'a mut [Target<'b>]),
    /// Nothing is written: the flag is cleared where a sum with folded-in parity is not zero.
    Vanish(&'a mut bool),
}

impl<'a> Pass<'a> {
    /// A pass over `data` (absent units are `None`), folding in `p` and `q`.
    ///
    /// Panics unless all lengths are `length_bytes`: the rows rely on it without looking again.
    pub(crate) fn new(
        data: &'a [Option<&'a [u8]>],
        p: Option<&'a [u8]>,
        q: Option<&'a [u8]>,
        length_bytes: usize,
    ) -> Self {
        assert!((1..=crate::MAX_DATA).contains(&data.len()), "a stripe has 1 to {} data units", crate::MAX_DATA);
        for unit in data.iter().chain([&p, &q]).flatten() {
            assert_eq!(unit.len(), length_bytes, "the units of a stripe have one length");
        }
        Self { data, p, q, length_bytes }
    }

    /// Data units in stripe order.
    pub(crate) fn data(&self) -> &'a [Option<&'a [u8]>] {
        self.data
    }

    /// The P unit to fold into `sum_p`.
    pub(crate) fn p(&self) -> Option<&'a [u8]> {
        self.p
    }

    /// The Q unit to fold into `sum_q`.
    pub(crate) fn q(&self) -> Option<&'a [u8]> {
        self.q
    }

    /// Length of every unit, in bytes.
    pub(crate) fn length_bytes(&self) -> usize {
        self.length_bytes
    }

    /// Panics unless the output fits the pass; each row calls it before it starts.
    pub(crate) fn admit(&self, output: &Output<'_, '_>) {
        let Output::Targets(targets) = output else { return };
        for target in targets.iter() {
            assert_eq!(target.unit.len(), self.length_bytes, "the units of a stripe have one length");
        }
    }

    /// Does the output depend on `sum_q`?
    pub(crate) fn needs_q(&self, output: &Output<'_, '_>) -> bool {
        match output {
            Output::Targets(targets) => targets.iter().any(|target| target.weights.q != 0),
            Output::Vanish(_) => self.q.is_some(),
        }
    }
}

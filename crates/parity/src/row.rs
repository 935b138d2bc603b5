//! The interchangeable implementations of a pass, and the choice among them.

use std::sync::OnceLock;

use crate::pass::{Pass, Target};
use crate::{scalar, swar};

/// One implementation of the maths. All rows give the same bytes; they differ in
/// speed. A `Row` in hand is the proof that this CPU can run it: rows come only from
/// [`Row::all`], [`Row::scalar`] and [`Row::best`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Scalar,
    Swar,
}

impl Row {
    /// The rows this CPU can run, slowest first: the scalar truth is the first, the best the last.
    pub fn all() -> &'static [Row] {
        static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
        ROWS.get_or_init(|| {
            let mut rows = vec![Row(Kind::Scalar), Row(Kind::Swar)];
            rows.shrink_to_fit();
            rows
        })
    }

    /// The byte-by-byte reference every other row is judged by.
    pub fn scalar() -> Row {
        Row(Kind::Scalar)
    }

    /// The fastest row this CPU can run; what the functions of the crate use.
    pub fn best() -> Row {
        *Self::all().last().expect("the scalar row always runs")
    }

    /// Short name for reports.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            Kind::Swar => "u64",
        }
    }

    pub(crate) fn run(self, pass: &Pass<'_>, targets: &mut [Target<'_>]) {
        match self.0 {
            Kind::Scalar => scalar::run(pass, 0, targets),
            Kind::Swar => swar::run(pass, 0, targets),
        }
    }
}

//! The interchangeable implementations of a pass, and the choice among them.

use std::sync::OnceLock;

use crate::pass::{Output, Pass};
#[cfg(target_arch = "x86_64")]
use crate::x86::VectorRow;
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
    #[cfg(target_arch = "x86_64")]
    Vector(VectorRow),
}

impl Row {
    /// The rows this CPU can run, slowest first: the scalar truth is the first, the best the last.
    pub fn all() -> &'static [Row] {
        static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
        ROWS.get_or_init(|| {
            let kinds = [Kind::Scalar, Kind::Swar].into_iter();
            #[cfg(target_arch = "x86_64")]
            let kinds = kinds.chain(VectorRow::detect().map(Kind::Vector));
            kinds.map(Row).collect()
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
            #[cfg(target_arch = "x86_64")]
            Kind::Vector(row) => row.name(),
        }
    }

    /// Runs a pass: vectors as far as they go, words for the rest.
    pub(crate) fn run(self, pass: &Pass<'_>, output: Output<'_, '_>) {
        match self.0 {
            Kind::Scalar => scalar::run(pass, output),
            Kind::Swar => swar::run(pass, 0, output),
            #[cfg(target_arch = "x86_64")]
            Kind::Vector(row) => {
                let mut output = output;
                let reached = row.run(pass, &mut output);
                swar::run(pass, reached, output);
            }
        }
    }
}

//! The interchangeable implementations of a pass, and the choice among them.

use std::sync::OnceLock;

use crate::pass::{Output, Pass};
#[cfg(target_arch = "x86_64")]
use crate::x86;
use crate::{scalar, swar};

/// One implementation of the maths. All rows give the same bytes; they differ in
/// speed. A `Row` in hand is the proof that this CPU can run it: rows come only from
/// [`Row::all`], [`Row::scalar`] and [`Row::best`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row(Kind);

/// Slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Scalar,
    Swar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx2Gfni,
    #[cfg(target_arch = "x86_64")]
    Avx512Gfni,
}

/// The kinds this CPU has the instructions for, slowest first.
fn detect() -> Vec<Row> {
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut, reason = "only x86-64 has vector rows"))]
    let mut rows = vec![Row(Kind::Scalar), Row(Kind::Swar)];
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2");
        let gfni = is_x86_feature_detected!("gfni");
        let avx512 = is_x86_feature_detected!("avx512f");
        let vector_rows =
            [(Kind::Avx2, avx2), (Kind::Avx2Gfni, avx2 && gfni), (Kind::Avx512Gfni, avx512 && avx2 && gfni)];
        rows.extend(vector_rows.into_iter().filter(|(_, runs)| *runs).map(|(kind, _)| Row(kind)));
    }
    rows
}

impl Row {
    /// The rows this CPU can run, slowest first: the scalar truth is the first, the best the last.
    pub fn all() -> &'static [Row] {
        static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
        ROWS.get_or_init(detect)
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
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2Gfni => "avx2+gfni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Gfni => "avx512+gfni",
        }
    }

    /// Runs a pass: vectors as far as they go, words for the rest.
    #[cfg_attr(target_arch = "x86_64", allow(unsafe_code, reason = "calls into the vector rows"))]
    pub(crate) fn run(self, pass: &Pass<'_>, mut output: Output<'_, '_>) {
        let reached = match self.0 {
            Kind::Scalar => return scalar::run(pass, output),
            Kind::Swar => 0,
            // SAFETY: a row of this kind was made by `detect`, after it found the features.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { x86::run_avx2(pass, &mut output) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2Gfni => unsafe { x86::run_avx2_gfni(pass, &mut output) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Gfni => unsafe { x86::run_avx512_gfni(pass, &mut output) },
        };
        swar::run(pass, reached, output);
    }
}

//! Expanding a pool: documents of `pool expand`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes;
use crate::envelope::Document;
use crate::plan::Plan;
use crate::problem::Problem;
use crate::text;

/// Drives that can be added at a time.
pub const DRIVES_AT_A_TIME: usize = 12;

/// Body of `POST /v1/pools/{name}/expand`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExpandOrder {
    /// Blank files or devices, absolute paths, 1 to 12; none to change only the stripes.
    #[serde(default)]
    pub drives: Vec<String>,
    /// Most data units of new stripes from now on; as before if left away.
    #[serde(default)]
    pub stripe_data: Option<u8>,
}

impl ExpandOrder {
    /// Refuses what makes no sense whatever the pool is.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self) -> Result<(), Problem> {
        let refused = |what: String| Err(Problem::new(&codes::BAD_INPUT, what));
        if self.drives.len() > DRIVES_AT_A_TIME {
            return refused(format!("a pool is expanded by 1 to {DRIVES_AT_A_TIME} drives at a time"));
        }
        if self.drives.is_empty() && self.stripe_data.is_none() {
            return refused("it names neither drives nor a stripe width".to_owned());
        }
        if let Some(path) = self.drives.iter().find(|path| !path.starts_with('/')) {
            return refused(format!("{path:?} is not an absolute path"));
        }
        if let Some((index, path)) =
            self.drives.iter().enumerate().find(|(index, path)| self.drives[..*index].contains(path))
        {
            return refused(format!("{path:?} is named twice (drive {})", index + 1));
        }
        if self.stripe_data.is_some_and(|data| !(1..=30).contains(&data)) {
            return refused("a stripe has 1 to 30 data units".to_owned());
        }
        Ok(())
    }

    /// What it would do to `pool`, which has `members` drives.
    #[must_use]
    pub fn plan(&self, pool: &str, members: usize) -> Plan {
        let now = members + self.drives.len();
        let widen = self.stripe_data.map(|data| format!("let new stripes have up to {data} data units"));
        if self.drives.is_empty() {
            return Plan::would(widen.unwrap_or_default());
        }
        let plan = Plan::would(format!("take {} as drives of {pool}", self.drives.join(", ")))
            .and(format!("write new stripes over {now} drives instead of {members}, from the next one on"))
            .and("leave old stripes where they are; space evens out as data is written over and cleaned");
        widen.into_iter().fold(plan, Plan::and)
    }
}

/// A pool that was expanded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolExpanded {
    /// The pool.
    pub pool: String,
    /// The drives that joined, as in `flash0/13`, with their paths.
    pub joined: Vec<JoinedDrive>,
    /// Drives it has now, spares not counted.
    pub drives: u32,
    /// Data units of the next stripe.
    pub stripe_data: u32,
    /// Parity units of it.
    pub stripe_parity: u32,
    /// Room for user data before.
    pub usable_before_bytes: u64,
    /// Room for user data now.
    pub usable_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// A drive that joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinedDrive {
    /// As in `flash0/13`.
    pub drive: String,
    /// Its path.
    pub path: String,
}

impl Document for PoolExpanded {
    const SCHEMA: &'static str = "vmhold.pool.expand/v1";
}

impl PoolExpanded {
    /// The text for a terminal.
    #[must_use]
    pub fn human(&self) -> String {
        let mut out = format!(
            "{} has {} drives, new stripes {}+{}: {} usable, {} before ({})\n",
            self.pool,
            self.drives,
            self.stripe_data,
            self.stripe_parity,
            text::bytes(self.usable_bytes),
            text::bytes(self.usable_before_bytes),
            text::duration(self.seconds),
        );
        for JoinedDrive { drive, path } in &self.joined {
            out.push_str(&format!("  {drive}  {path}\n"));
        }
        out.push_str(&format!("watch: vmhold pool show {} --map\n", self.pool));
        out
    }
}

/// An expansion of before, as `pool show` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PastExpansion {
    /// When.
    pub at: Option<Timestamp>,
    /// Place of the first drive that joined; the others follow.
    pub first_slot: u32,
    /// Drives that joined.
    pub drives: u32,
}

impl PastExpansion {
    /// One line of `pool show --map`.
    #[must_use]
    pub fn human(&self) -> String {
        let at = text::or_dash(self.at, |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
        let (first, last) = (self.first_slot, self.first_slot + self.drives.max(1) - 1);
        if first == last {
            return format!("expanded {at} by drive {first}\n");
        }
        format!("expanded {at} by drives {first} to {last}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(drives: &[&str]) -> ExpandOrder {
        ExpandOrder { drives: drives.iter().map(|&path| path.to_owned()).collect(), stripe_data: None }
    }

    #[test]
    fn one_to_twelve_different_absolute_paths_are_taken() {
        assert!(order(&["/a", "/b"]).check().is_ok());
        let many: Vec<String> = (0..13).map(|number| format!("/{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for wrong in [order(&[]), order(&many), order(&["/a", "b"]), order(&["/a", "/b", "/a"])] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        assert!(ExpandOrder { stripe_data: Some(31), ..order(&["/a"]) }.check().is_err());
        assert!(ExpandOrder { stripe_data: Some(20), ..order(&[]) }.check().is_ok());
    }

    #[test]
    fn the_texts_say_what_is_there_now() {
        let joined = vec![JoinedDrive { drive: "flash0/13".into(), path: "/d/13".into() }];
        let done = PoolExpanded {
            pool: "flash0".into(),
            joined,
            drives: 13,
            stripe_data: 10,
            stripe_parity: 2,
            usable_before_bytes: 10 << 30,
            usable_bytes: 11 << 30,
            seconds: 0.2,
        };
        let text = done.human();
        assert!(text.contains("13 drives") && text.contains("flash0/13  /d/13"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        let past = PastExpansion { at: None, first_slot: 13, drives: 12 };
        assert!(past.human().ends_with("by drives 13 to 24\n"), "{}", past.human());
    }
}

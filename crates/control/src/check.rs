//! `fsck`, `check` and `checkpoint`: documents and texts.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes::{self, Code};
use crate::envelope::Document;
use crate::exit::Exit;
use crate::text;

/// What kind of damage a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DamageKind {
    /// A file refers to a block that is not there.
    MissingObject,
    /// A block is there, but is not the one meant.
    WrongObject,
    /// A block cannot be read and cannot be reconstructed.
    Unreadable,
    /// A count of references does not agree with the references.
    ReferenceCount,
    /// Space accounting does not agree with what is stored.
    SpaceAccount,
    /// A metadata page is damaged or out of date.
    Page,
    /// A directory and its entries do not agree.
    Directory,
    /// The content sum of a file does not agree with its blocks.
    ContentSum,
}

/// One finding of `fsck`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Damage {
    /// What kind.
    pub kind: DamageKind,
    /// Where: file and range, page, or stripe.
    pub place: String,
    /// What was found, and what was expected.
    pub detail: String,
}

/// The document of `fsck`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FsckReport {
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// No damage was found.
    pub clean: bool,
    /// References from files to objects that were followed.
    pub references_checked: u64,
    /// Objects whose content was read and checked.
    pub objects_checked: u64,
    /// Metadata pages read and checked.
    pub pages_checked: u64,
    /// Files looked at.
    pub files_checked: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Objects nothing refers to; they waste space and harm nothing.
    pub orphans: u64,
    /// Units repaired on the way.
    pub repaired_units: u64,
    /// Damage that is left, at most the first thousand.
    pub damage: Vec<Damage>,
    /// How much damage there is in all.
    pub damage_count: u64,
}

impl Document for FsckReport {
    const SCHEMA: &'static str = "vmhold.fsck/v1";
}

impl FsckReport {
    /// What a command that printed it ends with.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        if self.clean { Exit::Success } else { Exit::Failed }
    }

    /// The code of its result, if it is not clean.
    #[must_use]
    pub fn code(&self) -> Option<&'static Code> {
        (!self.clean).then_some(&codes::REFERENCE_DAMAGED)
    }

    /// The text.
    #[must_use]
    pub fn human(&self) -> String {
        let mut out = format!(
            "checked {}, {} references, {} objects, {} pages; read {} in {}\n",
            text::files(self.files_checked),
            text::count(self.references_checked),
            text::count(self.objects_checked),
            text::count(self.pages_checked),
            text::bytes(self.bytes_read),
            text::duration(self.seconds)
        );
        if self.repaired_units > 0 {
            out.push_str(&format!("repaired {} damaged units on the way\n", text::count(self.repaired_units)));
        }
        if self.orphans > 0 {
            out.push_str(&format!("{} objects are referred to by nothing (space only)\n", text::count(self.orphans)));
        }
        if self.clean {
            out.push_str("clean: every reference holds\n");
            return out;
        }
        out.push_str(&format!("DAMAGED: {} findings   (vmhold explain VH1033)\n", text::count(self.damage_count)));
        for damage in &self.damage {
            out.push_str(&format!("  {}: {}\n", damage.place, damage.detail));
        }
        if self.damage_count > self.damage.len() as u64 {
            let more = self.damage_count - self.damage.len() as u64;
            out.push_str(&format!("  and {} more\n", text::count(more)));
        }
        out
    }
}

/// The document of a checkpoint made on request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointReport {
    /// Version of the root it chose.
    pub root_version: u64,
    /// How long it took.
    pub seconds: f64,
    /// Part of the journal it freed.
    pub journal_freed_bytes: u64,
}

impl Document for CheckpointReport {
    const SCHEMA: &'static str = "vmhold.checkpoint/v1";
}

/// What became of a journal leg that was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResilveredLeg {
    /// File or device.
    pub path: String,
    /// It holds everything again and every record goes to it.
    pub taken_in: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// The document of `journal resilver`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResilverReport {
    /// The legs that were lost; none if the journal is whole.
    pub legs: Vec<ResilveredLeg>,
    /// How long it took.
    pub seconds: f64,
}

impl Document for ResilverReport {
    const SCHEMA: &'static str = "vmhold.journal.resilver/v1";
}

impl ResilverReport {
    /// What a command that printed it ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if self.legs.iter().all(|leg| leg.taken_in) { Exit::Success } else { Exit::Failed }
    }

    /// The text.
    #[must_use]
    pub fn human(&self) -> String {
        if self.legs.is_empty() {
            return "no leg is lost: the journal is whole\n".to_owned();
        }
        let line = |leg: &ResilveredLeg| match &leg.reason {
            Some(reason) => format!("leg {} is still lost: {reason}\n", leg.path),
            None => format!("leg {} holds everything again\n", leg.path),
        };
        let lines: String = self.legs.iter().map(line).collect();
        format!("{lines}{}\n", text::duration(self.seconds))
    }
}

/// The document of `quickstart check`: what the server returned against what it acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WriteCheck {
    /// Acknowledged writes looked at.
    pub writes_checked: u64,
    /// Bytes read back.
    pub bytes_read: u64,
    /// Acknowledged, but not there.
    pub lost: u64,
    /// An older content is there.
    pub stale: u64,
    /// Content of another place is there.
    pub misplaced: u64,
    /// Content that was never written is there.
    pub damaged: u64,
}

impl Document for WriteCheck {
    const SCHEMA: &'static str = "vmhold.quickstart.check/v1";
}

impl WriteCheck {
    /// Everything acknowledged is there.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.lost == 0 && self.stale == 0 && self.misplaced == 0 && self.damaged == 0
    }

    /// The text.
    #[must_use]
    pub fn human(&self) -> String {
        let verdict =
            if self.is_clean() { "every acknowledged write is there" } else { "WRITES ARE NOT WHAT WAS ACKNOWLEDGED" };
        format!(
            "{verdict}: {} writes, {} read back; lost {}, stale {}, misplaced {}, damaged {}\n",
            text::count(self.writes_checked),
            text::bytes(self.bytes_read),
            text::count(self.lost),
            text::count(self.stale),
            text::count(self.misplaced),
            text::count(self.damaged)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> FsckReport {
        FsckReport {
            started_at: "2026-11-20T09:14:07Z".parse().unwrap(),
            seconds: 4.2,
            clean: true,
            references_checked: 65_536,
            objects_checked: 40_000,
            pages_checked: 900,
            files_checked: 12,
            bytes_read: 512 << 20,
            orphans: 0,
            repaired_units: 0,
            damage: Vec::new(),
            damage_count: 0,
        }
    }

    #[test]
    fn a_clean_check_says_what_it_looked_at() {
        assert_eq!(
            report().human(),
            "checked 12 files, 65,536 references, 40,000 objects, 900 pages; read 512 MiB in 4.2 s\n\
             clean: every reference holds\n"
        );
        assert_eq!(report().exit(), Exit::Success);
    }

    #[test]
    fn damage_is_listed_and_what_is_left_out_is_counted() {
        let mut report = report();
        report.clean = false;
        report.damage_count = 3;
        report.repaired_units = 1;
        report.damage.push(Damage {
            kind: DamageKind::Unreadable,
            place: "/demo/vm1/disk.raw at 8.00 KiB".into(),
            detail: "3 units of its stripe are gone".into(),
        });
        let text = report.human();
        assert!(text.contains("repaired 1 damaged units"), "{text}");
        assert!(
            text.ends_with("  /demo/vm1/disk.raw at 8.00 KiB: 3 units of its stripe are gone\n  and 2 more\n"),
            "{text}"
        );
        assert_eq!((report.exit(), report.code().map(|code| code.number)), (Exit::Failed, Some(1033)));
    }

    #[test]
    fn one_lost_write_is_enough_to_fail() {
        let mut check = WriteCheck { writes_checked: 9, bytes_read: 1, lost: 0, stale: 0, misplaced: 0, damaged: 0 };
        assert!(check.human().starts_with("every acknowledged write is there: 9 writes"));
        check.stale = 1;
        assert!(!check.is_clean() && check.human().starts_with("WRITES ARE NOT"));
    }
}

//! `fsck --repair-scan`: document and text.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes::{self, Code};
use crate::envelope::Document;
use crate::exit::Exit;
use crate::text;

/// Part of a file that is not restored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct NotRestored {
    /// The VM it belongs to, if it is known to belong to one.
    pub vm: Option<String>,
    /// The file by its path from the datastore on; `#` and its number if its name is gone. A
    /// snapshot's has `@` and the name of the snapshot behind it.
    pub path: String,
    /// Where the part starts.
    pub offset_bytes: u64,
    /// How long it is.
    pub length_bytes: u64,
}

/// The document of `fsck --repair-scan`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RepairScanReport {
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// The pool.
    pub pool: String,
    /// Metadata is damaged beyond repair; otherwise there is nothing to do.
    pub needed: bool,
    /// The metadata was made anew; otherwise nothing was changed.
    pub restored: bool,
    /// Drives that are missing or out: what they hold was not read.
    pub drives_absent: u64,
    /// Stripes read.
    pub stripes_read: u64,
    /// Of these, with too few good units left.
    pub stripes_lost: u64,
    /// Objects of files found.
    pub objects_found: u64,
    /// Metadata pages that cannot be read, as far as they are known.
    pub pages_lost: u64,
    /// The log that repeats the metadata was there and whole.
    pub log_whole: bool,
    /// Files and snapshots.
    pub files: u64,
    /// Of these, whole.
    pub files_whole: u64,
    /// Some files may be gone without a trace.
    pub files_may_be_missing: bool,
    /// Some names or attributes may be gone.
    pub names_may_be_missing: bool,
    /// Files whose size and times are a guess.
    pub sizes_guessed: Vec<String>,
    /// What is not restored, at most the first thousand parts.
    pub not_restored: Vec<NotRestored>,
    /// How many parts there are in all.
    pub not_restored_count: u64,
}

impl Document for RepairScanReport {
    const SCHEMA: &'static str = "vmhold.repair-scan/v1";
}

impl RepairScanReport {
    /// Everything comes back.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.not_restored_count == 0
            && self.sizes_guessed.is_empty()
            && !self.files_may_be_missing
            && !self.names_may_be_missing
    }

    /// What a command that printed it ends with.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        if self.is_complete() { Exit::Success } else { Exit::Failed }
    }

    /// The code of its result, if it is not complete.
    #[must_use]
    pub fn code(&self) -> Option<&'static Code> {
        (!self.is_complete()).then_some(&codes::REPAIR_SCAN_INCOMPLETE)
    }

    /// The text.
    #[must_use]
    pub fn human(&self) -> String {
        let mut out = format!(
            "read {} stripes of pool \"{}\" in {}: {} objects, {} stripes beyond repair, {} metadata pages lost\n",
            text::count(self.stripes_read),
            self.pool,
            text::duration(self.seconds),
            text::count(self.objects_found),
            text::count(self.stripes_lost),
            text::count(self.pages_lost),
        );
        if self.drives_absent > 0 {
            out.push_str(&format!("{} drives are missing: bring them back first if you can\n", self.drives_absent));
        }
        if !self.needed {
            out.push_str("the metadata is readable: nothing to do\n");
            return out;
        }
        let (tense, done) = match self.restored {
            true => ("are", "the metadata was made anew; start the store as usual\n"),
            false => ("would be", "nothing was changed\n"),
        };
        let (whole, files) = (text::count(self.files_whole), text::count(self.files));
        out.push_str(&format!("{whole} of {files} files and snapshots {tense} whole\n"));
        if !self.is_complete() {
            out.push_str("NOT EVERYTHING IS RESTORED   (vmhold explain VH1037)\n");
        }
        if self.files_may_be_missing {
            out.push_str("  files may be gone without a trace: some of the list of files is lost\n");
        }
        if self.names_may_be_missing {
            out.push_str("  names may be gone: some of the directories is lost\n");
        }
        for path in &self.sizes_guessed {
            out.push_str(&format!("  {path}: its size is a guess\n"));
        }
        for part in &self.not_restored {
            let vm = part.vm.as_ref().map(|vm| format!("VM {vm}, ")).unwrap_or_default();
            let (from, len) = (part.offset_bytes, text::bytes(part.length_bytes));
            out.push_str(&format!("  {vm}{}: {len} from byte {from} are refused\n", part.path));
        }
        if self.not_restored_count > self.not_restored.len() as u64 {
            let more = self.not_restored_count - self.not_restored.len() as u64;
            out.push_str(&format!("  and {} more\n", text::count(more)));
        }
        out.push_str(done);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_comes_back_and_names_what_does_not() {
        let mut report = RepairScanReport {
            pool: "flash0".into(),
            needed: true,
            stripes_read: 900,
            pages_lost: 3,
            files: 2,
            files_whole: 2,
            ..RepairScanReport::default()
        };
        let text = report.human();
        assert!(text.ends_with("2 of 2 files and snapshots would be whole\nnothing was changed\n"), "{text}");
        assert_eq!((report.exit(), report.code()), (Exit::Success, None));
        report.restored = true;
        report.files_whole = 1;
        report.not_restored_count = 2;
        report.not_restored.push(NotRestored {
            vm: Some("web-1".into()),
            path: "/vms/web-1/disk.raw".into(),
            offset_bytes: 8192,
            length_bytes: 16384,
        });
        let text = report.human();
        assert!(text.contains("  VM web-1, /vms/web-1/disk.raw: 16.0 KiB from byte 8192 are refused\n"), "{text}");
        assert!(text.contains("  and 1 more\nthe metadata was made anew"), "{text}");
        assert_eq!((report.exit(), report.code().map(|code| code.number)), (Exit::Failed, Some(1037)));
        let unneeded = RepairScanReport { needed: false, ..report };
        assert!(unneeded.human().ends_with("nothing to do\n"));
    }
}

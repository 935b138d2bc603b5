//! Lines that outlive the process: events, jobs, the audit log. One line is one JSON
//! document; what a power cut leaves of the last one is passed over by whoever reads.
//!
//! Bounded: a file that has grown to [`FILE_BYTES_MAX`] becomes the older one of two, and
//! the one that was older goes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use control::ledger::Ledger;

/// Size at which a file is set aside.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// When a line is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// As soon as the system writes it back; a power cut may take the last ones.
    Soon,
    /// Before `append` returns.
    Now,
}

/// See the module's head.
pub(crate) struct LedgerFile {
    path: PathBuf,
    keep: Keep,
    open: Mutex<(File, u64)>,
}

/// Names of the files of a ledger named `name`.
pub(crate) fn files_of(name: &str) -> [String; 2] {
    [format!("{name}.jsonl"), format!("{name}.older.jsonl")]
}

impl LedgerFile {
    /// The ledger `name` in `folder`, and the lines it holds, oldest first.
    pub fn open(folder: &Path, name: &str, keep: Keep) -> io::Result<(LedgerFile, Vec<String>)> {
        let [newer, older] = files_of(name).map(|file| folder.join(file));
        let mut lines = Vec::new();
        for path in [&older, &newer] {
            match std::fs::read(path) {
                Ok(bytes) => lines.extend(String::from_utf8_lossy(&bytes).lines().map(str::to_owned)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut file = append_to(&newer)?;
        let length = file.metadata()?.len();
        if length > 0 && !std::fs::read(&newer)?.ends_with(b"\n") {
            // A torn line must not swallow the next one.
            file.write_all(b"\n")?;
        }
        Ok((LedgerFile { path: newer, keep, open: Mutex::new((file, length)) }, lines))
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl Ledger for LedgerFile {
    fn append(&self, line: &str) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.1 >= FILE_BYTES_MAX {
            std::fs::rename(&self.path, self.path.with_extension("older.jsonl"))?;
            *open = (append_to(&self.path)?, 0);
        }
        open.0.write_all(format!("{line}\n").as_bytes())?;
        open.1 += line.len() as u64 + 1;
        if self.keep == Keep::Now { open.0.sync_data() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_outlive_the_process_and_a_torn_one_swallows_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, lines) = LedgerFile::open(folder.path(), "events", Keep::Now).unwrap();
        assert!(lines.is_empty());
        ledger.append("one").unwrap();
        drop(ledger);
        append_to(&folder.path().join("events.jsonl")).unwrap().write_all(b"tor").unwrap();
        let (ledger, lines) = LedgerFile::open(folder.path(), "events", Keep::Soon).unwrap();
        assert_eq!(lines, ["one", "tor"]);
        ledger.append("two").unwrap();
        assert_eq!(LedgerFile::open(folder.path(), "events", Keep::Soon).unwrap().1, ["one", "tor", "two"]);
    }

    #[test]
    fn two_files_are_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, _) = LedgerFile::open(folder.path(), "audit", Keep::Soon).unwrap();
        let line = "x".repeat(1 << 20);
        (0..20).for_each(|_| ledger.append(&line).unwrap());
        let sizes: u64 = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(sizes <= 2 * FILE_BYTES_MAX + 2 * (line.len() as u64 + 1), "{sizes}");
        let lines = LedgerFile::open(folder.path(), "audit", Keep::Soon).unwrap().1;
        assert!((5..10).contains(&lines.len()), "{}", lines.len());
    }
}

//! The media of a pool belong to one process at a time.
//!
//! Two that open the same drives would each replay the journal and write stripes of its own: acknowledged
//! writes would be gone. The configuration's lock keeps out a second server of the same file; this keeps out
//! whatever comes by another one, and commands that open a pool which is served.
//!
//! A claim is a lock on the file or device itself, on a handle of its own, and ends with the process
//! however it ends.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use control::{Problem, codes};

use crate::config::StoreConfig;

/// A process that was killed is given so long to be gone with all its threads; and whoever only looks at a
/// device, to have looked.
const LET_GO_WITHIN: Duration = Duration::from_secs(3);
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Claims on media; given up when dropped.
pub(crate) struct Claims(#[expect(dead_code, reason = "held, not used")] Vec<File>);

impl Claims {
    /// Claims every drive, spare and journal leg of the configuration that is there.
    ///
    /// # Errors
    /// `POOL_IN_USE` when another process has one of them.
    pub fn of(config: &StoreConfig) -> Result<Claims, Problem> {
        let begun = Instant::now();
        let media = config.drives.iter().chain(&config.spares).chain(&config.journal);
        // One that is not there, or cannot be opened, is told of by who needs it.
        let there = media.filter_map(|path| File::open(path).ok().map(|file| (path, file)));
        // A medium under two names, or named twice, is claimed once.
        let by_identity = there.filter_map(|(path, file)| {
            let meta = file.metadata().ok()?;
            Some(((meta.dev(), meta.ino(), meta.rdev()), (path, file)))
        });
        let each: BTreeMap<_, _> = by_identity.collect();
        each.into_values().map(|(path, file)| claim(path, file, begun)).collect::<Result<_, _>>().map(Claims)
    }
}

fn claim(path: &Path, file: File, begun: Instant) -> Result<File, Problem> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LET_GO_WITHIN => sleep(TRY_AGAIN),
            Err(TryLockError::WouldBlock) => {
                return Err(Problem::new(
                    &codes::POOL_IN_USE,
                    format!("{} is in use by another process", path.display()),
                ));
            }
            // A file system without locks: what the lock beside the configuration keeps out is kept out.
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "this medium cannot be claimed for one process");
                return Ok(file);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path) -> StoreConfig {
        let text = format!(
            "site = \"a\"\npool = \"p\"\ndrives = [\"{0}/d1\", \"{0}/gone\", \"{0}/d1\"]\njournal = [\"{0}/j\"]\nnfs = \"127.0.0.1:0\"\napi = \"127.0.0.1:0\"\n",
            folder.display()
        );
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn what_one_has_claimed_another_does_not_get() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["d1", "j"] {
            std::fs::write(folder.path().join(name), b"medium").unwrap();
        }
        let mine = Claims::of(&config(folder.path())).unwrap();
        let refused = Claims::of(&config(folder.path())).err().unwrap();
        assert_eq!(refused.code(), &codes::POOL_IN_USE);
        drop(mine);
        let other = StoreConfig { drives: Vec::new(), ..config(folder.path()) };
        let _leg_only = Claims::of(&other).unwrap();
        assert!(Claims::of(&config(folder.path())).is_err(), "one medium is enough");
    }
}

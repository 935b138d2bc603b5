//! The folder of a store: its files, and whether a server runs on them.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use control::{Document, Problem, codes};
use node::Ready;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::process::ProcessId;

/// A folder.
#[derive(Clone, Debug)]
pub struct Place {
    dir: PathBuf,
}

/// What a server tells when every door is open, and writes beside its configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Announcement {
    /// Its process.
    #[serde(flatten)]
    pub process: ProcessId,
    /// Where it answers.
    #[serde(flatten)]
    pub ready: Ready,
    /// Folder with the token of this machine's CLI.
    pub state: PathBuf,
}

impl Document for Announcement {
    const SCHEMA: &'static str = "vmhold.serve/v1";
}

/// Names of files that belong to a store and not to its user.
pub const OWN_FILES: [&str; 12] = [
    "vmhold.toml",
    "vmhold.lock",
    "manifest.json",
    "ready.json",
    "ready.json.new",
    "server.json",
    "server.log",
    "acknowledged.log",
    "flipped.json",
    "flipped.json.new",
    "witness.json",
    "witness.json.joining",
];

impl Place {
    /// The folder `dir`, as an absolute path.
    pub fn of(dir: &Path) -> Self {
        Self { dir: std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()) }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("vmhold.toml")
    }

    /// Files a demo made.
    pub fn manifest(&self) -> PathBuf {
        self.dir.join("manifest.json")
    }

    /// Announcement of the server.
    pub fn ready(&self) -> PathBuf {
        self.dir.join("ready.json")
    }

    /// Process of the server of a demo, known before it is ready.
    pub fn server(&self) -> PathBuf {
        self.dir.join("server.json")
    }

    /// Log of the server of a demo.
    pub fn log(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// Acknowledged writes of a demo.
    pub fn acknowledged(&self) -> PathBuf {
        self.dir.join("acknowledged.log")
    }

    /// Where bits were flipped in a demo.
    pub fn flipped(&self) -> PathBuf {
        self.dir.join("flipped.json")
    }

    /// What the server that runs on this folder announced.
    pub fn announced(&self) -> Option<Announcement> {
        let announced: Announcement = read_json(&self.ready())?;
        announced.process.is_alive().then_some(announced)
    }
}

/// A JSON file, if it is there and whole.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Writes a JSON file so that a reader sees the old one or the new one.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Problem> {
    let text = serde_json::to_string_pretty(value).expect("only strings as keys and finite numbers");
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = File::create(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&new, path));
    written.map_err(|error| unusable(path, &error))
}

/// The lock that makes a process the only one that serves a configuration, by whatever name it
/// is called. Held as long as the file is open; a process that dies gives it up. It is on a file
/// beside the configuration, which itself is replaced when drives join.
pub fn lock(config: &Path) -> Result<File, Problem> {
    let beside = std::fs::canonicalize(config).unwrap_or_else(|_| config.to_owned()).with_extension("lock");
    // Locking needs no right to write: who made the file may have been another user.
    let file = File::open(&beside).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => File::options().create(true).truncate(false).write(true).open(&beside),
        _ => Err(error),
    });
    let file = file.map_err(|error| {
        unusable(&beside, &error).step(format!("as one who may write there: touch {}", beside.display()))
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Problem::new(&codes::POOL_IN_USE, format!("{} is in use by a running server", config.display())))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(unusable(config, &error)),
    }
}

/// A path that cannot be used, with the system's words.
pub fn unusable(path: &Path, error: &std::io::Error) -> Problem {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => &codes::HOST_DISK_FULL,
        _ => &codes::PATH_UNUSABLE,
    };
    Problem::new(code, format!("{} cannot be used", path.display())).why(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_locked_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let (config, link) = (folder.path().join("vmhold.toml"), folder.path().join("elsewhere.toml"));
        std::fs::write(&config, "").unwrap();
        std::os::unix::fs::symlink(&config, &link).unwrap();
        let held = lock(&link).unwrap();
        assert_eq!(lock(&config).unwrap_err().code(), &codes::POOL_IN_USE);
        drop(held);
        let mut rights = std::fs::metadata(folder.path().join("vmhold.lock")).unwrap().permissions();
        rights.set_readonly(true);
        std::fs::set_permissions(folder.path().join("vmhold.lock"), rights).unwrap();
        let _held = lock(&config).unwrap();
        assert_eq!(lock(&link).unwrap_err().code(), &codes::POOL_IN_USE, "a lock that nobody may write to");
    }
}

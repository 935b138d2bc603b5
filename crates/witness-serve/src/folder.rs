//! The folder of a witness: who may open it, what lies in it, and how a file of it is written
//! so that a reader after a crash sees the old one or the new one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use control::tls::{self, Pem};
use control::{Problem, codes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::records::Records;

/// Ends of names of files that were being written. They are nobody's.
pub(crate) const UNFINISHED: &str = ".new";

/// Folder of the witness within the one it is given.
const OWN: &str = "witness";
const SOCKET: &str = "witness.sock";

/// A witness's folder; while this is there, nobody else serves it.
pub(crate) struct Folder {
    dir: PathBuf,
    lock: Arc<File>,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    certificate: String,
    key: String,
}

impl Folder {
    /// Opens or makes it.
    pub fn open(dir: &Path) -> Result<Self, Problem> {
        // Its own one within the given one, which may be open to others and stays as it is.
        let dir = std::path::absolute(dir).map_err(|error| unusable(dir, &error))?.join(OWN);
        for folder in [dir.clone(), dir.join("records"), dir.join("sites"), dir.join("invitations")] {
            private_dir(&folder).map_err(|error| unusable(&folder, &error))?;
        }
        let path = dir.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|error| unusable(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { dir, lock: Arc::new(file) }),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(Problem::new(&codes::DEMO_RUNNING, format!("{} is served by another witness", dir.display())))
            }
            Err(std::fs::TryLockError::Error(error)) => Err(unusable(&path, &error)),
        }
    }

    pub fn records(&self) -> Result<Records, Problem> {
        Records::locked(self.dir.join("records"), self.lock.clone())
            .map_err(|error| Problem::new(&codes::BUG, "no thread could be started").why(error.to_string()))
    }

    pub fn sites(&self) -> PathBuf {
        self.dir.join("sites")
    }

    pub fn invitations(&self) -> PathBuf {
        self.dir.join("invitations")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join(SOCKET)
    }

    /// The certificate sites know it by, made at the first start.
    pub fn certificate(&self, listen: SocketAddr) -> Result<Pem, Problem> {
        let path = self.dir.join("identity.json");
        if let Some(Identity { certificate, key }) = read(&path)? {
            return Ok(Pem { certificate, key });
        }
        let Pem { certificate, key } = tls::make("witness", listen.ip())?;
        let identity = Identity { certificate, key };
        write_json(&path, &identity)?;
        Ok(Pem { certificate: identity.certificate, key: identity.key })
    }

    /// Takes the socket away. The lock goes when the last write is done.
    pub fn close(self) {
        let _ = std::fs::remove_file(self.socket());
    }
}

/// Where people on its machine ask a witness that is served from `dir`.
#[must_use]
pub(crate) fn socket_in(dir: &Path) -> PathBuf {
    dir.join(OWN).join(SOCKET)
}

/// Makes a folder that only its owner may look into, or sees to that.
fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

/// Puts `bytes` in the place of `path`, durably: when this returns, no crash brings the old
/// ones back. On an error either may be there.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(UNFINISHED);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    sync_parent(path)
}

/// Takes a file away, durably. One that is not there is no error.
pub(crate) fn take_away(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_parent(path),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// A JSON file; none if it is not there.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Problem> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(path, &error)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|why| {
        Problem::new(&codes::CONFIG_UNREADABLE, format!("{} cannot be read", path.display())).why(why.to_string())
    })
}

/// A JSON file in the place of `path`, durably.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Problem> {
    let text = serde_json::to_string_pretty(value).expect("only strings as keys and finite numbers");
    put(path, text.as_bytes()).map_err(|error| unusable(path, &error))
}

/// Finished files of a folder, in order of their names.
pub(crate) fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if !path.as_os_str().to_string_lossy().ends_with(UNFINISHED) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

pub(crate) fn unusable(path: &Path, error: &io::Error) -> Problem {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => &codes::HOST_DISK_FULL,
        _ => &codes::PATH_UNUSABLE,
    };
    Problem::new(code, format!("{} cannot be used", path.display())).why(error.to_string())
}

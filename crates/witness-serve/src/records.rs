//! The witness's records in its folder: one file per datastore, named by it, 112 bytes with
//! their own check (`docs/formats/witness.md`).
//!
//! * A change is written under a new name, flushed, renamed over the old one, and the folder
//!   is flushed; then it counts.
//! * A flush that failed says nothing about what is on disk, and reading it back only tells
//!   what is in memory. So after a failure, and at each start (the process before may have
//!   had one), every record is written anew before it is believed.
//! * A damaged record is an error for all of them: a witness that forgot one datastore would
//!   be asked about it and could say something else than before.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base::PairId;
use witness::{Ledger, LedgerFault, Malformed, Standing};

use crate::folder::{files, put};

const END: &str = ".standing";

/// The records of a folder. One thread at a time is at the files: reading them all and writing
/// them anew must not fall over a change in between.
#[derive(Clone, Debug)]
pub struct Records(Arc<Mutex<Files>>);

#[derive(Debug)]
struct Files {
    dir: PathBuf,
    /// The folder's lock: a write that is still under way when the witness stops keeps others out.
    _sole_owner: Option<Arc<File>>,
    /// Whether everything in the folder is known to be durable.
    settled: bool,
}

impl Records {
    /// Those in `dir`, which must be there and have no other user.
    #[must_use]
    pub fn of(dir: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(Files { dir, _sole_owner: None, settled: false })))
    }

    /// The same; `lock` is held for as long as anything may be written.
    pub(crate) fn locked(dir: PathBuf, lock: Arc<File>) -> Self {
        Self(Arc::new(Mutex::new(Files { dir, _sole_owner: Some(lock), settled: false })))
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Files) -> Result<T, LedgerFault> + Send + 'static,
    ) -> Result<T, LedgerFault> {
        let files = self.0.clone();
        let job = move || work(&mut files.lock().unwrap_or_else(PoisonError::into_inner));
        let gone = |why: tokio::task::JoinError| LedgerFault::Unreachable(why.to_string());
        tokio::task::spawn_blocking(job).await.map_err(gone)?
    }
}

impl Ledger for Records {
    async fn load(&self) -> Result<Vec<Standing>, LedgerFault> {
        self.on_a_thread(Files::load).await
    }

    async fn replace(&self, before: u64, next: &Standing) -> Result<bool, LedgerFault> {
        let next = *next;
        self.on_a_thread(move |files| files.replace(before, &next)).await
    }
}

fn path_of(dir: &Path, pair: PairId) -> PathBuf {
    dir.join(format!("{pair}{END}"))
}

impl Files {
    fn load(&mut self) -> Result<Vec<Standing>, LedgerFault> {
        let mut records = Vec::new();
        for path in files(&self.dir).map_err(|error| unreachable(&self.dir, &error))? {
            let bytes = std::fs::read(&path).map_err(|error| unreachable(&path, &error))?;
            let standing = Standing::from_bytes(&bytes)?;
            if path_of(&self.dir, standing.pair) != path {
                // A record under another's name would stand for a datastore it says nothing about.
                return Err(Malformed::Damaged.into());
            }
            if !self.settled {
                put(&path, &bytes).map_err(|error| unreachable(&path, &error))?;
            }
            records.push(standing);
        }
        self.settled = true;
        Ok(records)
    }

    fn replace(&mut self, before: u64, next: &Standing) -> Result<bool, LedgerFault> {
        if !self.settled {
            return Err(LedgerFault::Unreachable("an earlier write failed and was not made good yet".into()));
        }
        let path = path_of(&self.dir, next.pair);
        let present = match std::fs::read(&path) {
            Ok(bytes) => Standing::from_bytes(&bytes)?.version,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(unreachable(&path, &error)),
        };
        if present != before {
            return Ok(false);
        }
        self.settled = false;
        put(&path, &next.to_bytes()).map_err(|error| unreachable(&path, &error))?;
        self.settled = true;
        Ok(true)
    }
}

fn unreachable(path: &Path, error: &io::Error) -> LedgerFault {
    LedgerFault::Unreachable(format!("{}: {error}", path.display()))
}

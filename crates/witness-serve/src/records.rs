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
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use base::PairId;
use tokio::sync::oneshot;
use witness::{Ledger, LedgerFault, Malformed, Standing};

use crate::folder::{files, put};

const END: &str = ".standing";

type Job = Box<dyn FnOnce(&mut Files) + Send>;

/// The records of a folder, with a thread of their own that alone is at the files: a slow disk
/// holds up no renewal, and reading them all and writing them anew falls over no change.
#[derive(Debug)]
pub struct Records {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

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
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn of(dir: PathBuf) -> io::Result<Self> {
        Self::start(Files { dir, _sole_owner: None, settled: false })
    }

    /// The same; `lock` is held for as long as anything may be written.
    pub(crate) fn locked(dir: PathBuf, lock: Arc<File>) -> io::Result<Self> {
        Self::start(Files { dir, _sole_owner: Some(lock), settled: false })
    }

    fn start(mut files: Files) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let work = move || queue.into_iter().for_each(|job| job(&mut files));
        let thread = std::thread::Builder::new().name("records".to_owned()).spawn(work)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Files) -> Result<T, LedgerFault> + Send + 'static,
    ) -> Result<T, LedgerFault> {
        let gone = || LedgerFault::Unreachable("the thread of the records has ended".to_owned());
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |files| {
            // Nobody listens when the asker has gone; the work was still done.
            let _ = tell.send(work(files));
        });
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

impl Drop for Records {
    /// Waits for a write that is under way: whoever opens the folder next finds it done.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Ledger for Records {
    async fn load(&self) -> Result<Vec<Standing>, LedgerFault> {
        self.ask(Files::load).await
    }

    async fn replace(&self, before: u64, next: &Standing) -> Result<bool, LedgerFault> {
        let next = *next;
        self.ask(move |files| files.replace(before, &next)).await
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

#[cfg(test)]
mod tests {
    use std::fs::create_dir;
    use std::os::unix::fs::MetadataExt;

    use base::{Epoch, Osn, SiteId, WallNanos};
    use witness::{Transition, TransitionKind};

    use super::*;

    fn standing(pair: u8, version: u64) -> Standing {
        let site = SiteId([1; 16]);
        Standing {
            pair: PairId([pair; 16]),
            version,
            epoch: Epoch(1),
            primary: site,
            secondary: None,
            in_sync: false,
            in_sync_through: Osn(0),
            lease_ms: 1000,
            last: Transition { kind: TransitionKind::Found, by: site, at: WallNanos(0) },
        }
    }

    /// A file written anew is another file, so its number tells.
    #[test]
    fn a_failed_write_has_everything_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files { dir: dir.path().to_owned(), _sole_owner: None, settled: false };
        assert!(files.load().unwrap().is_empty());
        assert!(files.replace(0, &standing(1, 1)).unwrap() && files.replace(0, &standing(2, 1)).unwrap());
        assert!(!files.replace(0, &standing(1, 2)).unwrap(), "compared with what is there");
        let number = |pair| std::fs::metadata(path_of(dir.path(), PairId([pair; 16]))).unwrap().ino();
        let before = number(2);
        files.load().unwrap();
        assert_eq!(number(2), before, "nothing has failed");
        let mut in_the_way = path_of(dir.path(), PairId([1; 16])).into_os_string();
        in_the_way.push(".new");
        create_dir(&in_the_way).unwrap();
        assert!(files.replace(1, &standing(1, 2)).is_err());
        assert!(files.replace(1, &standing(2, 2)).is_err(), "not before the failure is made good");
        std::fs::remove_dir(&in_the_way).unwrap();
        assert_eq!(files.load().unwrap(), [standing(1, 1), standing(2, 1)]);
        assert_ne!(number(2), before, "written anew");
        assert!(files.replace(1, &standing(1, 2)).unwrap());
    }
}

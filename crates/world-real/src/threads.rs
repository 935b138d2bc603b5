//! The fall-back: a few threads per file that do blocking I/O. Used where io_uring or
//! direct I/O is refused. Seven times the CPU of the ring (`crates.md` 2.2); two context
//! switches, two wake-ups and one allocation per I/O. Threads of one file never wait for
//! another's, so one hung drive does not stop the rest.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use base::{Buf, BufMut};
use tokio::sync::oneshot;

use crate::access::{read_whole, write_whole};

/// Threads per file, started when they are first needed.
const THREADS_MAX: usize = 4;

enum Work {
    Read(u64, BufMut),
    Write(u64, Vec<Buf>),
    Sync,
}

/// Result of a job; a read gives its buffer back.
pub(crate) type Finished = (io::Result<()>, Option<BufMut>);

struct Job {
    work: Work,
    answer: oneshot::Sender<Finished>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
    closed: bool,
}

struct Shared {
    file: File,
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads of one file.
pub(crate) struct Threads {
    shared: Arc<Shared>,
}

impl Threads {
    pub(crate) fn new(file: File) -> Threads {
        let shared = Shared { file, queue: Mutex::default(), wake: Condvar::new() };
        Threads { shared: Arc::new(shared) }
    }

    pub(crate) fn read(&self, offset_bytes: u64, buf: BufMut) -> oneshot::Receiver<Finished> {
        self.start(Work::Read(offset_bytes, buf))
    }

    pub(crate) fn write(&self, offset_bytes: u64, data: Vec<Buf>) -> oneshot::Receiver<Finished> {
        self.start(Work::Write(offset_bytes, data))
    }

    pub(crate) fn sync(&self) -> oneshot::Receiver<Finished> {
        self.start(Work::Sync)
    }

    fn start(&self, work: Work) -> oneshot::Receiver<Finished> {
        let (answer, receiver) = oneshot::channel();
        let mut queue = self.shared.queue();
        queue.jobs.push_back(Job { work, answer });
        if queue.idle < queue.jobs.len() && queue.threads < THREADS_MAX {
            let shared = self.shared.clone();
            let started = std::thread::Builder::new().name("drive-io".to_string()).spawn(move || serve(&shared));
            queue.threads += usize::from(started.is_ok());
            if started.is_err() && queue.threads == 0 {
                // Nobody will ever do it: dropping the job answers it as failed.
                queue.jobs.pop_back();
            }
        }
        drop(queue);
        self.shared.wake.notify_one();
        receiver
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.wake.notify_all();
    }
}

fn serve(shared: &Shared) {
    loop {
        let mut queue = shared.queue();
        let job = loop {
            if let Some(job) = queue.jobs.pop_front() {
                break job;
            }
            if queue.closed {
                return;
            }
            queue.idle += 1;
            queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        };
        drop(queue);
        let finished = perform(&shared.file, job.work);
        // Nobody listens if the future was dropped: the work was still done.
        let _ = job.answer.send(finished);
    }
}

fn perform(file: &File, work: Work) -> Finished {
    match work {
        Work::Read(offset_bytes, mut buf) => (read_whole(file, offset_bytes, &mut buf), Some(buf)),
        Work::Write(offset_bytes, data) => (write_whole(file, offset_bytes, &data), None),
        Work::Sync => (file.sync_data(), None),
    }
}

//! Threads for CPU work and for large copies, one set per process.
//!
//! One less than there are processors, since the shard has one; none on a machine with a
//! single one: jobs are then done in place. Idle threads sleep. A job costs one wake-up of
//! a thread, unless one is at work anyway, and one of the shard when it is done.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use base::port::{Job, LocalFuture};
use tokio::sync::oneshot;

use crate::world::AbortOnPanic;

/// More do not help one shard.
const THREADS_MAX: usize = 4;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(Job, oneshot::Sender<()>)>,
    idle: usize,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle on the process's worker threads.
#[derive(Clone)]
pub(crate) struct Workers {
    /// None without threads.
    shared: Option<Arc<Shared>>,
}

impl Workers {
    /// The threads of this process, started when they are first asked for.
    pub(crate) fn of_process() -> Workers {
        static WORKERS: OnceLock<Workers> = OnceLock::new();
        let wanted = || std::thread::available_parallelism().map_or(0, |count| count.get() - 1).min(THREADS_MAX);
        WORKERS.get_or_init(|| Workers::start(wanted())).clone()
    }

    fn start(threads: usize) -> Workers {
        let shared = Arc::new(Shared::default());
        let start = |_| {
            let shared = shared.clone();
            std::thread::Builder::new().name("worker".to_owned()).spawn(move || serve(&shared)).is_ok()
        };
        let started = (0..threads).map(start).filter(|&started| started).count();
        Workers { shared: (started > 0).then_some(shared) }
    }

    /// Starts `job`; the future returns when it is done.
    pub(crate) fn run(&self, job: Job) -> LocalFuture<'static, ()> {
        let Some(shared) = &self.shared else {
            job();
            return Box::pin(std::future::ready(()));
        };
        let (tell, done) = oneshot::channel();
        let mut queue = shared.queue();
        queue.jobs.push_back((job, tell));
        let has_idle = queue.idle > 0;
        drop(queue);
        if has_idle {
            shared.wake.notify_one();
        }
        Box::pin(async move { done.await.expect("workers live as long as the process") })
    }
}

fn serve(shared: &Shared) {
    let _guard = AbortOnPanic { name: "worker" };
    let mut queue = shared.queue();
    loop {
        if let Some((job, tell)) = queue.jobs.pop_front() {
            drop(queue);
            job();
            // Nobody listens if the future was dropped: the work was still done.
            let _ = tell.send(());
            queue = shared.queue();
        } else {
            queue.idle += 1;
            queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_job_is_done_once_with_and_without_threads() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for threads in [0, 1, 3] {
            let workers = Workers::start(threads);
            let done = Arc::new(AtomicUsize::new(0));
            let jobs = (0..100).map(|_| {
                let done = done.clone();
                workers.run(Box::new(move || {
                    done.fetch_add(1, Ordering::Relaxed);
                }))
            });
            let all: Vec<_> = jobs.collect();
            runtime.block_on(async {
                for job in all {
                    job.await;
                }
            });
            assert_eq!(done.load(Ordering::Relaxed), 100);
        }
    }
}

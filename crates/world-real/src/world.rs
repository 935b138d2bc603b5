//! Time, tasks and randomness of the real world.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use base::port::{Chance, Clock, Job, LocalFuture, Spawn, World};
use base::{Nanos, WallNanos};

use crate::workers::Workers;

/// The three doors of the real world. Use inside a `LocalSet`.
pub fn real_world() -> World {
    World { clock: Rc::new(RealClock::start()), spawn: Rc::new(RealSpawn), chance: Rc::new(RealChance) }
}

/// The system's clocks. Sleeps are exact to a millisecond, as the runtime's timers are.
pub struct RealClock {
    start: Instant,
}

impl RealClock {
    /// A monotonic clock that starts at 0 now.
    pub fn start() -> RealClock {
        RealClock { start: Instant::now() }
    }
}

impl Clock for RealClock {
    fn now(&self) -> Nanos {
        Nanos(nanos(self.start.elapsed()))
    }

    fn wall(&self) -> WallNanos {
        wall()
    }

    fn sleep_until(&self, at: Nanos) -> LocalFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until((self.start + Duration::from_nanos(at.0)).into()))
    }
}

/// Monotonic time that runs on while the machine sleeps: what a lease is counted on by whoever
/// holds it, since it is over then for everybody else.
pub struct BootClock {
    start_ns: u64,
}

impl BootClock {
    /// Starts at 0 now.
    #[must_use]
    pub fn start() -> BootClock {
        BootClock { start_ns: since_boot_ns() }
    }
}

impl Clock for BootClock {
    fn now(&self) -> Nanos {
        Nanos(since_boot_ns() - self.start_ns)
    }

    fn wall(&self) -> WallNanos {
        wall()
    }

    fn sleep_until(&self, at: Nanos) -> LocalFuture<'static, ()> {
        Box::pin(tokio::time::sleep(at.since(self.now())))
    }
}

fn since_boot_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Neither part is ever negative.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn wall() -> WallNanos {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    WallNanos(nanos(since_1970.unwrap_or_default()))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Tasks on the current `LocalSet`, jobs on the process's workers. A task or job that panics is a defect that must not go
/// unnoticed: it stops the whole process, and recovery takes over.
pub struct RealSpawn;

/// Stops the process when the thread that holds it panics.
pub(crate) struct AbortOnPanic {
    /// Whose panic it was.
    pub(crate) name: &'static str,
}

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("vmhold: the task '{}' panicked; stopping the process", self.name);
            std::process::abort();
        }
    }
}

impl Spawn for RealSpawn {
    fn spawn(&self, name: &'static str, task: LocalFuture<'static, ()>) {
        tokio::task::spawn_local(async move {
            let _guard = AbortOnPanic { name };
            task.await;
        });
    }

    fn work(&self, job: Job) -> LocalFuture<'static, ()> {
        Workers::of_process().run(job)
    }

    /// The runtime's own way: the task goes on after sockets and rings were looked at. A
    /// task that only wakes itself would run up to 61 times before that.
    fn pause(&self) -> LocalFuture<'static, ()> {
        Box::pin(tokio::task::yield_now())
    }
}

/// No unusual paths, and the system's random bytes.
pub struct RealChance;

impl Chance for RealChance {
    fn maybe(&self, _site: &'static str) -> bool {
        false
    }

    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the system has random bytes for ids and keys");
    }
}

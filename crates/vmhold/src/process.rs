//! A process by number and start time: numbers are used again, so the number alone is
//! never enough to send a signal.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process that was seen alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub start_ticks: u64,
}

impl ProcessId {
    /// The process of that number now.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_ticks: start_ticks(pid)? })
    }

    /// This process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether any part of it still runs.
    pub fn is_alive(self) -> bool {
        !self.wait(Duration::ZERO)
    }

    /// Sends `signal` to exactly this process. False when it is gone.
    pub fn signal(self, signal: Signal) -> bool {
        self.handle().is_some_and(|handle| pidfd_send_signal(handle, signal).is_ok())
    }

    /// Waits until it has ended with all its threads, and so has let go of its files and
    /// locks; false when it has not within `limit`.
    pub fn wait(self, limit: Duration) -> bool {
        let begun = Instant::now();
        let Some(handle) = self.handle() else { return true };
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return start_ticks(self.pid) != Some(self.start_ticks),
            }
        }
    }

    /// A handle that stays with this process even if its number is used again.
    fn handle(self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Opened first, compared afterwards: what is compared is what the handle means.
        (start_ticks(self.pid) == Some(self.start_ticks)).then_some(handle)
    }
}

/// Field 22 of `/proc/PID/stat`. A process whose first thread has ended is still listed.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_of_the_same_number_is_left_alone() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive());
        let earlier = ProcessId { start_ticks: own.start_ticks - 1, ..own };
        assert!(!earlier.is_alive() && !earlier.signal(Signal::KILL));
        assert!(earlier.wait(Duration::ZERO), "one that is gone needs no waiting for");
        assert!(!own.wait(Duration::from_millis(1)));
    }
}

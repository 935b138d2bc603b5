//! When a write is admitted (R-FLOW, decision D-21).
//!
//! Below the low mark of the log's fill: at once. Between the marks each byte books a slot
//! on one pacing line; the slot grows linearly with the fill and reaches, at the high mark,
//! the time the destager takes for that byte. So the admitted rate falls to the destage rate
//! exactly where the high mark is, and the fill comes to rest there: the VM then sees the
//! speed of the backing store, evenly, instead of a full log that stops and goes. Above the
//! high mark slots go on growing, so the fill comes back down.
//!
//! A slot is never longer than [`FlowSettings::slot_max`]: a backing store that stopped for
//! a while is no reason to stop a VM while its log has room.

use std::time::Duration;

use base::Nanos;

/// Marks and limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowSettings {
    /// Up to this share of the log nothing is delayed.
    pub low_mark: f64,
    /// At this share writes come in as fast as they go out.
    pub high_mark: f64,
    /// Longest slot of one write.
    pub slot_max: Duration,
}

impl Default for FlowSettings {
    fn default() -> FlowSettings {
        FlowSettings { low_mark: 0.5, high_mark: 0.9, slot_max: Duration::from_millis(50) }
    }
}

/// Slots shorter than this are not worth a timer; they add up on the line.
const NOT_WORTH_WAITING: Duration = Duration::from_micros(200);
/// Weight of the newest batch in the destage rate.
const RATE_WEIGHT: f64 = 0.3;

/// The pacing line of one disk.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    settings: FlowSettings,
    /// Seconds the destager takes for a byte; unknown before the first batch.
    destage_s_per_byte: Option<f64>,
    line: Nanos,
    delayed: Duration,
    delayed_writes: u64,
}

impl Flow {
    /// A line with these marks.
    pub fn new(settings: FlowSettings) -> Flow {
        Flow { settings, ..Flow::default() }
    }

    /// The destager made `bytes` of payload durable in `took`, its turn waited for included.
    pub fn destaged(&mut self, bytes: u64, took: Duration) {
        if bytes == 0 {
            return;
        }
        let now = took.as_secs_f64() / bytes as f64;
        let before = self.destage_s_per_byte.unwrap_or(now);
        self.destage_s_per_byte = Some(before + RATE_WEIGHT * (now - before));
    }

    /// Books the slot of a write of `bytes` while `fill` of the log is in use: when to let it
    /// in, or `None` for at once.
    pub fn admit(&mut self, now: Nanos, bytes: u64, fill: f64) -> Option<Nanos> {
        let FlowSettings { low_mark, high_mark, slot_max } = self.settings;
        let pressure = (fill - low_mark) / (high_mark - low_mark).max(f64::EPSILON);
        if pressure <= 0.0 {
            self.line = now;
            return None;
        }
        let at_destage_rate = self.destage_s_per_byte.map_or(slot_max.as_secs_f64(), |rate| rate * bytes as f64);
        let slot = Duration::from_secs_f64((pressure * at_destage_rate).min(slot_max.as_secs_f64()));
        self.line = self.line.max(now) + slot;
        let wait = self.line.since(now);
        if wait < NOT_WORTH_WAITING {
            return None;
        }
        self.delayed += wait;
        self.delayed_writes += 1;
        Some(self.line)
    }

    /// What the destager achieves, in bytes per second; unknown before the first batch.
    pub fn destage_bytes_per_s(&self) -> Option<f64> {
        self.destage_s_per_byte.filter(|&rate| rate > 0.0).map(|rate| 1.0 / rate)
    }

    /// Sum of all delays, and how many writes were delayed.
    pub fn delayed(&self) -> (Duration, u64) {
        (self.delayed, self.delayed_writes)
    }

    /// The marks.
    pub fn settings(&self) -> FlowSettings {
        self.settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn flow_at_one_ms_per_kib() -> Flow {
        let mut flow = Flow::new(FlowSettings::default());
        flow.destaged(1024, Duration::from_millis(1));
        flow
    }

    /// The triggers; a burst that stays below the low mark sees no delay at all.
    ///
    /// Decides R-FLOW-04, R-FLOW-05.
    #[test]
    fn below_the_low_mark_nothing_waits_and_at_the_high_mark_the_destage_rate_rules() {
        let mut flow = flow_at_one_ms_per_kib();
        for step in 0..1000 {
            assert_eq!(flow.admit(Nanos(step), 1 << 20, 0.5), None);
        }
        assert_eq!(flow.delayed(), (Duration::ZERO, 0));
        let slot = |fill: f64| flow_at_one_ms_per_kib().admit(Nanos(0), 4096, fill).map(|at| at.0 / (MS / 10));
        assert_eq!(slot(0.7), Some(20), "half way: half the time the destager takes");
        assert_eq!(slot(0.9), Some(40), "at the high mark: all of it");
        assert!(slot(1.0) > slot(0.9), "above it even longer");
    }

    #[test]
    fn writes_at_once_queue_on_one_line() {
        let mut flow = flow_at_one_ms_per_kib();
        let at: Vec<u64> = (0..4).filter_map(|_| flow.admit(Nanos(0), 1024, 0.9)).map(|at| at.0.div_ceil(MS)).collect();
        assert_eq!(at, [1, 2, 3, 4]);
        assert_eq!(flow.delayed().1, 4);
    }

    #[test]
    fn a_backing_store_that_stopped_costs_a_bounded_slot() {
        let mut flow = Flow::new(FlowSettings::default());
        flow.destaged(1, Duration::from_secs(3600));
        assert_eq!(flow.admit(Nanos(0), 4096, 1.0), Some(Nanos(50 * MS)));
        let mut unknown = Flow::new(FlowSettings::default());
        assert_eq!(unknown.admit(Nanos(0), 4096, 0.9), Some(Nanos(50 * MS)));
    }
}

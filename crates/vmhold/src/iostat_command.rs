//! `iostat`: load and latency, one line per interval. The first line is a real interval,
//! not an average since the start.

use std::time::Duration;

use control::activity::ActivityList;
use control::status::{Latency, Load, Status};
use control::{Document, Envelope, Exit, Problem, text};
use jiff::Timestamp;
use serde::Serialize;

use crate::appliance;
use crate::cli::{Global, IostatBy, IostatCommand};
use crate::say::{Say, width};

/// Lines between two headings.
const HEADING_EVERY: u32 = 20;
const HEADING: &str = "\
             operations/s             mean latency, ms                     p99
time       read  write  other   MiB/s total =queue +journ +flash + rest    ms";

/// One interval.
#[derive(Debug, Serialize)]
struct Interval {
    at: Timestamp,
    load: Load,
    latency_ms: Latency,
}

impl Document for Interval {
    const SCHEMA: &'static str = "vmhold.iostat/v1";
}

/// Means over the pictures of an interval, each of which is about the second before it.
#[derive(Default)]
struct Means {
    pictures: Vec<(Load, Latency)>,
}

impl Means {
    fn mean(&self, of: impl Fn(&(Load, Latency)) -> Option<f64>) -> Option<f64> {
        let known: Vec<f64> = self.pictures.iter().filter_map(of).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }

    /// Weighted by how many operations each second had, so that the parts still sum up.
    fn weighted(&self, of: impl Fn(&Latency) -> Option<f64>) -> Option<f64> {
        let operations = |load: &Load| {
            [load.reads_per_second, load.writes_per_second, load.others_per_second].into_iter().flatten().sum::<f64>()
        };
        let known: Vec<(f64, f64)> =
            self.pictures.iter().filter_map(|(load, latency)| Some((operations(load), of(latency)?))).collect();
        let weight: f64 = known.iter().map(|(weight, _)| weight).sum();
        (weight > 0.0).then(|| known.iter().map(|(weight, value)| weight * value).sum::<f64>() / weight)
    }

    fn interval(&self, at: Timestamp) -> Interval {
        let load = Load {
            reads_per_second: self.mean(|(load, _)| load.reads_per_second),
            writes_per_second: self.mean(|(load, _)| load.writes_per_second),
            others_per_second: self.mean(|(load, _)| load.others_per_second),
            bytes_per_second: self.mean(|(load, _)| load.bytes_per_second),
            cpu_percent: self.mean(|(load, _)| load.cpu_percent),
        };
        let worst = self
            .pictures
            .iter()
            .filter_map(|(_, latency)| latency.p99)
            .fold(None, |worst: Option<f64>, p99| Some(worst.map_or(p99, |worst| worst.max(p99))));
        let latency_ms = Latency {
            total: self.weighted(|latency| latency.total),
            queue: self.weighted(|latency| latency.queue),
            journal: self.weighted(|latency| latency.journal),
            mirror: self.weighted(|latency| latency.mirror),
            flash: self.weighted(|latency| latency.flash),
            contention: self.weighted(|latency| latency.contention),
            qos: self.weighted(|latency| latency.qos),
            p99: worst,
            ..Latency::default()
        };
        Interval { at, load, latency_ms }
    }
}

/// A table per interval, of the minute at most that the store has by the second.
fn run_by(command: &IostatCommand, by: IostatBy, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let (word, title) = match by {
        IostatBy::Vm => ("vm", "VM"),
        IostatBy::Disk => ("disk", "DISK"),
    };
    let seconds = command.interval.as_secs().clamp(1, 60);
    let client = appliance::client(global)?;
    for printed in 1.. {
        // The first interval is a whole one, too.
        std::thread::sleep(command.interval);
        let found: Envelope<ActivityList> = client.get(&format!("/v1/activity?by={word}&last_seconds={seconds}"))?;
        say.envelope(&found, |found, origin| {
            let at = origin.generated_at.strftime("%H:%M:%S");
            format!("{at} UTC, {}\n{}\n", text::duration(found.seconds), found.human(width(), title))
        });
        if command.count.is_some_and(|count| printed >= count) {
            break;
        }
    }
    Ok(Exit::Success)
}

/// Prints intervals until `--count` of them, or Ctrl-C.
pub fn run(command: &IostatCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    if let Some(by) = command.by {
        return run_by(command, by, global, say);
    }
    let pictures_wanted = command.interval.as_secs().max(1) as usize;
    let (mut means, mut printed) = (Means::default(), 0_u32);
    let mut before: Option<Timestamp> = None;
    // A connection that ends for want of news is taken up again by the next one.
    appliance::client(global)?.stream("/v1/stream?topics=status", |message| {
        if message.name != "status" {
            return Ok(true);
        }
        let Ok(picture) = serde_json::from_str::<Envelope<Status>>(&message.data) else { return Ok(true) };
        let at = picture.generated_at;
        // The first picture is about a second before we looked, and a stale one about none.
        let is_news = before.replace(at).is_some_and(|before| before < at);
        let facts = picture.into_result()?.facts;
        if is_news {
            means.pictures.push((facts.load, facts.latency_ms));
        }
        if means.pictures.len() < pictures_wanted {
            return Ok(true);
        }
        if printed.is_multiple_of(HEADING_EVERY) && !say.is_json() {
            say.raw(format!("{HEADING}\n").as_bytes());
        }
        say.document(means.interval(at), line);
        means = Means::default();
        printed += 1;
        Ok(command.count.is_none_or(|count| printed < count))
    })?;
    Ok(Exit::Success)
}

fn line(interval: &Interval) -> String {
    let Interval { at, load, latency_ms } = interval;
    let rate = |value: Option<f64>| text::or_dash(value, |rate| text::count(rate.round().max(0.0) as u64));
    let ms = |value: Option<f64>| {
        text::or_dash(value, |ms| {
            let digits = if ms >= 99.95 { 0 } else { usize::from(ms < 9.995) + 1 };
            format!("{ms:.digits$}")
        })
    };
    let mib = text::or_dash(load.bytes_per_second, |bytes| format!("{:.1}", bytes / f64::from(1 << 20)));
    format!(
        "{}  {:>5} {:>6} {:>6}  {mib:>6} {:>5} ={:>5} +{:>5} +{:>5} +{:>5} {:>5}\n",
        at.strftime("%H:%M:%S"),
        rate(load.reads_per_second),
        rate(load.writes_per_second),
        rate(load.others_per_second),
        ms(latency_ms.total),
        ms(latency_ms.queue),
        ms(latency_ms.journal),
        ms(latency_ms.flash),
        ms(latency_ms.contention),
        ms(latency_ms.p99),
    )
}

/// Seconds, or a duration with its unit.
pub fn parse_interval(text: &str) -> Result<Duration, humantime::DurationError> {
    match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(reads: f64, queue: f64, journal: f64) -> (Load, Latency) {
        let load = Load {
            reads_per_second: Some(reads),
            writes_per_second: Some(0.0),
            others_per_second: Some(0.0),
            bytes_per_second: Some(3e6),
            cpu_percent: None,
        };
        let latency = Latency {
            total: Some(queue + journal),
            queue: Some(queue),
            journal: Some(journal),
            flash: Some(0.0),
            contention: Some(0.0),
            p99: Some(queue),
            ..Latency::default()
        };
        (load, latency)
    }

    #[test]
    fn parts_still_sum_to_the_total_over_an_interval() {
        let means =
            Means { pictures: vec![picture(100.0, 0.1, 0.2), picture(900.0, 0.5, 0.9), picture(0.0, 7.0, 7.0)] };
        let latency = means.interval("2026-11-20T09:14:07Z".parse().unwrap()).latency_ms;
        let parts =
            latency.queue.unwrap() + latency.journal.unwrap() + latency.flash.unwrap() + latency.contention.unwrap();
        assert!((latency.total.unwrap() - parts).abs() < 1e-9);
        assert!((latency.total.unwrap() - 1.29).abs() < 1e-9, "a second without operations does not count");
        assert_eq!(latency.p99, Some(7.0));
    }

    #[test]
    fn a_line_fits_eighty_columns_and_unknown_is_a_dash() {
        let at = "2026-11-20T09:14:07Z".parse().unwrap();
        let means = Means { pictures: vec![picture(123_456.0, 12.34, 123.45)] };
        for interval in [means.interval(at), Means::default().interval(at)] {
            let line = line(&interval);
            assert!(line.trim_end().chars().count() <= 80, "{line}");
        }
        assert!(HEADING.lines().all(|line| line.chars().count() <= 80));
        assert!(line(&Means::default().interval(at)).contains(" - "), "unknown is a dash");
    }
}

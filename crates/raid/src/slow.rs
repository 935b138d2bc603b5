//! Whether a drive is far slower than the others of its group (`faults.md` F12): such a drive
//! is put out, for it holds up every write and flush that it has a part in.
//!
//! ```text
//!  every lane:  time at the drive of each request ──> a histogram by kind of request
//!  each round:  median of a drive ÷ what three of four others take     far slower? +1 : -1
//!  6 in a row:  put out, if the group can lose one more then, and nobody went lately
//! ```
//!
//! The median is asked, not the mean: drives that stall now and then are dealt with read by read
//! (`hedge.rs`; B-37: 0.2 to 0.6 % of the time is usual), only one that is slow on more than
//! half of its requests is a bad drive. It is compared with the drives of its class that were
//! asked as often meanwhile, so a host or a shelf that is slow fails nobody. Time in a queue of
//! ours does not count. From the first round on reads of such a drive go to the others, but for a few
//! in each round by which it is judged on.
//!
//! Cost: two shifts and an addition per request, 2.5 KB per drive; a round looks at 32 drives.

use std::collections::BTreeMap;
use std::time::Duration;

use base::id::DriveId;
use base::time::Nanos;

use crate::principal::Goal;
use crate::profile::DriveClass;

/// When a drive counts as slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowSettings {
    /// A drive is far slower when its median time is this many times the usual one of the
    /// others; 0: no drive is put out for being slow.
    pub factor: u32,
    /// For how long, before it is put out.
    pub after: Duration,
}

impl Default for SlowSettings {
    fn default() -> SlowSettings {
        SlowSettings { factor: 20, after: Duration::from_secs(60) }
    }
}

/// Rounds in which a drive has to be far slower more often than not.
const ROUNDS: u32 = 6;
/// Rounds that one may take when too little is asked of the drives.
const STRETCH: u32 = 6;
/// Requests of a kind that say something.
const REQUESTS_MIN: u64 = 16;
/// Drives of the same class that a drive is compared with, at least.
const PEERS_MIN: usize = 3;
/// Reads of a slow drive in a round that are left to it, so that it can show that it is well again.
pub(crate) const READS_LEFT: u64 = 24;
/// After a drive was put out, nobody else is for so long.
const REST: Duration = Duration::from_secs(3600);

/// Requests that are alike enough to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A read that somebody waits for.
    Read,
    /// A read for which only the rate matters.
    BulkRead,
    /// A write that somebody waits for.
    Write,
    /// A write for which only the rate matters.
    BulkWrite,
    /// A flush.
    Flush,
}

const KINDS: [Kind; 5] = [Kind::Read, Kind::BulkRead, Kind::Write, Kind::BulkWrite, Kind::Flush];

impl Kind {
    /// The kind of a read or write with this goal.
    pub fn of(goal: Goal, write: bool) -> Kind {
        match (goal, write) {
            (Goal::Latency, false) => Kind::Read,
            (Goal::Throughput, false) => Kind::BulkRead,
            (Goal::Latency, true) => Kind::Write,
            (Goal::Throughput, true) => Kind::BulkWrite,
        }
    }
}

/// Buckets of a doubling.
const STEPS: u64 = 4;
/// Up to 2^27 microseconds, two minutes.
const BUCKETS: usize = 27 * STEPS as usize;

/// How long requests were at a drive: counts by kind and time, a fifth wide.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    counts: [[u32; BUCKETS]; KINDS.len()],
}

impl Default for Times {
    fn default() -> Times {
        Times { counts: [[0; BUCKETS]; KINDS.len()] }
    }
}

impl Times {
    /// Takes in one request.
    pub fn add(&mut self, kind: Kind, took: Duration) {
        let count = &mut self.counts[kind as usize][bucket_of(took)];
        *count = count.saturating_add(1);
    }

    /// Requests of a kind.
    pub fn requests(&self, kind: Kind) -> u64 {
        self.counts[kind as usize].iter().copied().map(u64::from).sum()
    }

    /// Half of the requests took no longer than this; `None` of too few requests.
    fn median(&self, kind: Kind) -> Option<Duration> {
        let requests = self.requests(kind);
        let mut left = requests.div_ceil(2);
        let counts = self.counts[kind as usize].iter().copied().map(u64::from);
        let at = counts.enumerate().find_map(|(bucket, count)| {
            let found = count >= left;
            left = left.saturating_sub(count);
            found.then_some(bucket)
        });
        at.filter(|_| requests >= REQUESTS_MIN).map(start_of)
    }
}

fn bucket_of(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let doublings = u64::from(us.ilog2());
    let step = ((u128::from(us) * u128::from(STEPS)) >> doublings) as u64 - STEPS;
    ((doublings * STEPS + step) as usize).min(BUCKETS - 1)
}

fn start_of(bucket: usize) -> Duration {
    let (doublings, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    Duration::from_micros(((STEPS + step) << doublings) / STEPS)
}

/// A drive in use, at the end of a round.
pub(crate) struct Observed {
    pub drive: DriveId,
    pub class: DriveClass,
    /// Times below this are never slow.
    pub least: Duration,
    pub times: Times,
}

/// A drive that is far slower than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowness {
    /// Rounds in which it was; it is put out after six, if the group can do without it.
    pub rounds: u32,
    /// Median time of its requests in nanoseconds, of the kind that shows it most.
    pub median_ns: u64,
    /// What the others take for these.
    pub usual_ns: u64,
}

impl Slowness {
    fn factor(&self) -> u64 {
        self.median_ns / self.usual_ns.max(1)
    }
}

/// Watches the drives of a group.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// The round began then, with drives of this membership.
    round: Option<(Nanos, u64)>,
    suspects: BTreeMap<DriveId, Slowness>,
    rests_until: Nanos,
}

impl Judge {
    /// Whether a round may be over.
    pub fn is_due(&self, now: Nanos, settings: SlowSettings) -> bool {
        settings.factor > 0 && self.round.is_none_or(|(since, _)| now.since(since) >= settings.after / ROUNDS)
    }

    /// How slow the drive is, if it is far slower than the others.
    pub fn slowness(&self, drive: DriveId) -> Option<Slowness> {
        self.suspects.get(&drive).copied()
    }

    /// Whether this drive is far slower than the others, and no other one is.
    pub fn is_the_slow_one(&self, drive: DriveId) -> bool {
        self.suspects.len() == 1 && self.suspects.contains_key(&drive)
    }

    /// A new round, with nothing held against anybody.
    pub fn start_over(&mut self, now: Nanos, membership: u64) {
        self.suspects.clear();
        self.round = Some((now, membership));
    }

    /// Whether a round of these drives is under way.
    pub fn watches(&self, membership: u64) -> bool {
        self.round.is_some_and(|(_, of)| of == membership)
    }

    /// Judges what was seen since the round began. `true`: the round is over and the next one
    /// begins; otherwise too little was asked of the drives.
    pub fn judge(&mut self, now: Nanos, settings: SlowSettings, drives: &[Observed]) -> bool {
        let Some((since, membership)) = self.round else { return false };
        let verdicts: Vec<Option<Result<(), Slowness>>> =
            (0..drives.len()).map(|index| judge_one(index, drives, settings.factor)).collect();
        let is_stretched = now.since(since) >= settings.after / ROUNDS * STRETCH;
        if verdicts.iter().all(Option::is_none) && !is_stretched {
            return false;
        }
        for (observed, verdict) in drives.iter().zip(verdicts) {
            let before = self.suspects.get(&observed.drive).map_or(0, |slowness| slowness.rounds);
            match verdict {
                None => {}
                Some(Err(slowness)) => {
                    let rounds = (before + 1).min(ROUNDS);
                    self.suspects.insert(observed.drive, Slowness { rounds, ..slowness });
                }
                Some(Ok(())) if before > 1 => {
                    self.suspects.entry(observed.drive).and_modify(|slowness| slowness.rounds -= 1);
                }
                Some(Ok(())) => drop(self.suspects.remove(&observed.drive)),
            }
        }
        self.round = Some((now, membership));
        true
    }

    /// The drive that should be put out: the slowest of those that are long enough.
    pub fn worst(&self, now: Nanos) -> Option<DriveId> {
        let long = self.suspects.iter().filter(|(_, slowness)| slowness.rounds >= ROUNDS && now >= self.rests_until);
        long.max_by_key(|(_, slowness)| slowness.factor()).map(|(drive, _)| *drive)
    }

    /// One was put out: nobody else is for a while.
    pub fn rest(&mut self, now: Nanos) {
        self.rests_until = now + REST;
    }
}

/// Whether a drive was as fast as the others; `None` when nobody can say.
fn judge_one(index: usize, drives: &[Observed], factor: u32) -> Option<Result<(), Slowness>> {
    let own = &drives[index];
    let peers: Vec<&Observed> =
        (0..).zip(drives).filter(|(at, peer)| *at != index && peer.class == own.class).map(|(_, peer)| peer).collect();
    let of_kind = |kind: Kind| {
        let median = own.times.median(kind)?;
        let mut usual: Vec<Duration> = peers.iter().filter_map(|peer| peer.times.median(kind)).collect();
        if usual.len() < PEERS_MIN || usual.len() * 2 < peers.len() {
            return None;
        }
        usual.sort_unstable();
        // What three of four others do not exceed: where many are slow nobody is.
        let usual = usual[(usual.len() - 1) * 3 / 4];
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let is_slow = median >= own.least && median >= usual * factor;
        let slowness = Slowness { rounds: 1, median_ns: ns(median), usual_ns: ns(usual) };
        Some(if is_slow { Err(slowness) } else { Ok(()) })
    };
    let verdicts: Vec<Result<(), Slowness>> = KINDS.into_iter().filter_map(of_kind).collect();
    let slowest = verdicts.iter().filter_map(|verdict| verdict.err()).max_by_key(Slowness::factor);
    slowest.map(Err).or(verdicts.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(2);
    const SETTINGS: SlowSettings = SlowSettings { factor: 20, after: Duration::from_secs(60) };

    fn id(number: u8) -> DriveId {
        DriveId([number; 16])
    }

    fn seconds(seconds: u64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    /// Drives whose requests of a kind took so long: (how many, microseconds) pairs.
    fn observed(of: &[&[(u32, u64)]]) -> Vec<Observed> {
        let drive = |(number, requests): (u8, &&[(u32, u64)])| {
            let mut times = Times::default();
            for &(count, us) in *requests {
                (0..count).for_each(|_| times.add(Kind::Read, Duration::from_micros(us)));
            }
            Observed { drive: id(number), class: DriveClass::Flash, least: LEAST, times }
        };
        (0..).zip(of).map(drive).collect()
    }

    /// What some drives take, and which of them is put out.
    type Case<'a> = (&'a str, &'a [&'a [(u32, u64)]], Option<u8>);

    /// The drive put out after `rounds` rounds of the same.
    fn after(rounds: u64, of: &[&[(u32, u64)]]) -> Option<u8> {
        let mut judge = Judge::default();
        judge.start_over(Nanos(0), 1);
        for round in 1..=rounds {
            judge.judge(seconds(round * 10), SETTINGS, &observed(of));
        }
        judge.worst(seconds(rounds * 10)).map(|drive| drive.0[0])
    }

    const USUAL: &[(u32, u64)] = &[(1000, 100)];

    /// Decides in part what `faults.md` F12 asks: demoted with hysteresis, nobody by mistake.
    #[test]
    fn who_is_put_out_and_who_is_not() {
        let stalls_always: &[(u32, u64)] = &[(100, 100_000)];
        let stalls_now_and_then: &[(u32, u64)] = &[(990, 100), (10, 100_000)];
        let stalls_often: &[(u32, u64)] = &[(600, 100), (400, 100_000)];
        let table: [Case<'_>; 11] = [
            ("all alike", &[USUAL; 6], None),
            ("stalls on every request", &[USUAL, USUAL, stalls_always, USUAL, USUAL], Some(2)),
            ("stalls on 1 %", &[USUAL, USUAL, stalls_now_and_then, USUAL, USUAL], None),
            ("stalls on 40 %", &[USUAL, USUAL, stalls_often, USUAL, USUAL], None),
            ("fifty times slower", &[USUAL, USUAL, &[(900, 5_000)], USUAL, USUAL], Some(2)),
            ("ten times slower", &[USUAL, USUAL, &[(900, 1_000)], USUAL, USUAL], None),
            (
                "fifty times slower than memory",
                &[&[(1000, 2)], &[(1000, 2)], &[(1000, 100)], &[(1000, 2)], &[(1000, 2)]],
                None,
            ),
            ("all slow", &[stalls_always; 6], None),
            ("two slow, one of them more", &[USUAL, &[(100, 50_000)], stalls_always, USUAL, USUAL, USUAL], Some(2)),
            ("hardly asked", &[USUAL, USUAL, &[(15, 100_000)], USUAL, USUAL], None),
            ("nobody to compare it with", &[USUAL, USUAL, stalls_always], None),
        ];
        for (what, drives, wanted) in table {
            assert_eq!(after(6, drives), wanted, "{what}");
            assert_eq!(after(5, drives), None, "{what}: not before the time is over");
        }
    }

    #[test]
    fn drives_of_another_class_are_no_measure() {
        let mut drives = observed(&[USUAL, USUAL, &[(100, 8_000)], USUAL, USUAL]);
        drives[2].class = DriveClass::Disk;
        let mut judge = Judge::default();
        judge.start_over(Nanos(0), 1);
        (1..10).for_each(|round| assert!(judge.judge(seconds(round * 10), SETTINGS, &drives)));
        assert_eq!(judge.worst(seconds(100)), None, "a disk among flash is what it is");
    }

    #[test]
    fn good_rounds_make_up_for_bad_ones_and_one_is_enough_for_an_hour() {
        let bad = observed(&[USUAL, USUAL, &[(100, 100_000)], USUAL, USUAL]);
        let good = observed(&[USUAL; 5]);
        let mut judge = Judge::default();
        judge.start_over(Nanos(0), 1);
        let mut at = 0;
        let mut rounds = |judge: &mut Judge, count: usize, drives: &[Observed]| {
            for _ in 0..count {
                at += 10;
                assert!(judge.judge(seconds(at), SETTINGS, drives));
            }
            (judge.slowness(id(2)).map_or(0, |slowness| slowness.rounds), judge.worst(seconds(at)).is_some())
        };
        assert_eq!(rounds(&mut judge, 5, &bad), (5, false));
        assert_eq!(rounds(&mut judge, 3, &good), (2, false));
        assert_eq!(rounds(&mut judge, 3, &bad), (5, false));
        assert_eq!(rounds(&mut judge, 1, &bad), (6, true));
        assert_eq!(rounds(&mut judge, 9, &bad), (6, true), "it is said again until it can be done");
        judge.rest(seconds(210));
        assert_eq!(rounds(&mut judge, 9, &bad), (6, false));
        assert!(judge.worst(seconds(210 + 3600)).is_some());
        assert_eq!(rounds(&mut judge, 6, &good), (0, false), "nothing is held against it any more");
    }

    #[test]
    fn a_round_waits_for_requests_but_not_for_ever() {
        let a_few: &[(u32, u64)] = &[(10, 100)];
        let few = observed(&[a_few; 5]);
        let mut judge = Judge::default();
        assert!(judge.is_due(Nanos(0), SETTINGS));
        judge.start_over(Nanos(0), 7);
        assert!(judge.watches(7) && !judge.watches(8));
        assert!(!judge.is_due(seconds(9), SETTINGS) && judge.is_due(seconds(10), SETTINGS));
        assert!(!judge.is_due(seconds(1000), SlowSettings { factor: 0, ..SETTINGS }), "switched off");
        assert!(!judge.judge(seconds(10), SETTINGS, &few));
        assert!(!judge.judge(seconds(59), SETTINGS, &few));
        assert!(judge.judge(seconds(60), SETTINGS, &few));
        assert!(!judge.judge(seconds(70), SETTINGS, &few), "the next one");
    }

    #[test]
    fn a_median_is_right_within_a_quarter() {
        for us in [1, 2, 3, 7, 100, 999, 4_096, 5_000, 123_456, 60_000_000] {
            let mut times = Times::default();
            (0..9).for_each(|_| times.add(Kind::Flush, Duration::from_micros(1)));
            (0..20).for_each(|_| times.add(Kind::Flush, Duration::from_micros(us)));
            let median = times.median(Kind::Flush).unwrap().as_micros() as u64;
            assert!(median <= us && us <= median + median.div_ceil(4), "{us} is taken for {median}");
        }
        assert_eq!(Times::default().median(Kind::Flush), None);
        Times::default().add(Kind::Read, Duration::MAX);
    }
}

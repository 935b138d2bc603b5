//! Registers and the group header under crashes, power cuts and absent drives.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use double::{Rig, ports};
use raid::{CasRefused, Group, SegmentId};

#[test]
fn compare_and_set_compares() {
    let rig = Rig::new(5, 1);
    let group = rig.create(3);
    rig.bench.run(async {
        assert_eq!(group.register_read("root").await.version, 0);
        assert_eq!(group.register_cas("root", 1, b"a").await, Err(CasRefused::Version { current: 0 }));
        assert_eq!(group.register_cas("root", 0, b"a").await, Ok(1));
        assert_eq!(group.register_cas("root", 0, b"b").await, Err(CasRefused::Version { current: 1 }));
        assert_eq!(group.register_cas("root", 1, b"b").await, Ok(2));
        let most = vec![9; Group::REGISTER_BYTES_MAX];
        assert_eq!(group.register_cas("big", 0, &most).await, Ok(1));
        let more = vec![9; Group::REGISTER_BYTES_MAX + 1];
        assert_eq!(group.register_cas("big", 1, &more).await, Err(CasRefused::TooLarge));
        assert_eq!(group.register_cas(&"n".repeat(33), 0, b"").await, Err(CasRefused::TooLarge));
        for number in 2..15 {
            assert_eq!(group.register_cas(&format!("r{number}"), 0, b"").await, Ok(1));
        }
        assert_eq!(group.register_cas("one too many", 0, b"").await, Err(CasRefused::TooLarge));
    });
    drop(group);
    let group = rig.open().unwrap();
    rig.bench.run(async {
        let root = group.register_read("root").await;
        assert_eq!((root.version, &root.bytes[..]), (2, &b"b"[..]));
        assert_eq!(group.register_read("big").await.bytes, vec![9; Group::REGISTER_BYTES_MAX]);
    });
}

#[test]
fn of_many_at_once_one_wins() {
    let rig = Rig::new(5, 2);
    rig.drives.iter().for_each(|drive| drive.yields.set(3));
    let group = rig.create(3);
    let results = rig.bench.run(async {
        let values: Vec<Vec<u8>> = (0..10).map(|value| vec![value]).collect();
        let attempts = values.iter().map(|value| group.register_cas("root", 0, value));
        futures_util::future::join_all(attempts).await
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().all(|result| matches!(result, Ok(1) | Err(CasRefused::Version { current: 1 }))));
}

/// Decides R-RAID-09: named blobs are there with every pair of drives lost, lost before
/// the start or while the group is open.
#[test]
fn blobs_survive_every_pair_of_lost_drives() {
    for drives in [5, 8] {
        for first in 0..drives {
            for second in first + 1..drives {
                let rig = Rig::new(drives, 3);
                let group = rig.create(3);
                rig.bench.run(group.register_cas("root", 0, b"one")).unwrap();
                rig.drives[first].gone.set(true);
                rig.drives[second].gone.set(true);
                rig.bench.run(group.register_cas("root", 1, b"two")).unwrap();
                drop(group);
                let mut left = ports(&rig.drives);
                left.remove(second);
                left.remove(first);
                let group = rig.bench.run(Group::open(left, None, rig.bench.world())).unwrap();
                assert_eq!(rig.bench.run(group.register_read("root")).bytes, b"two");
            }
        }
    }
}

#[test]
fn scrub_repairs_registers_and_labels() {
    let rig = Rig::new(5, 4);
    let group = rig.create(3);
    rig.bench.run(async {
        group.register_cas("root", 0, &[7; 9000]).await.unwrap();
        group.open_segment().await.unwrap();
        assert_eq!(group.scrub_registers().await, 0);
    });
    // The whole front of four drives of five: only the running group knows it all.
    for drive in &rig.drives[..4] {
        let front = vec![0xee; 1 << 20];
        drive.poke(0, &front);
    }
    rig.bench.run(async {
        assert_eq!(group.scrub_registers().await, 4 * 5, "two labels, the promise, the header and a blob on each");
        assert_eq!(group.scrub_registers().await, 0);
    });
    drop(group);
    let group = rig.open().unwrap();
    assert_eq!(rig.bench.run(group.register_read("root")).bytes, [7; 9000]);
    assert_eq!(group.segments().len(), 1);
}

/// What may be true about the register and the segments.
struct Model {
    version: u64,
    value: Vec<u8>,
    /// A value whose fate is open: the owner crashed while setting it.
    pending: Option<Vec<u8>>,
    segments: Vec<SegmentId>,
    /// A segment may have been opened by a crashed owner.
    pending_segment: bool,
    next: u64,
}

impl Model {
    /// A new owner has looked: what it saw must be possible, and is true from now on.
    async fn settle(&mut self, group: &Group) {
        let seen = group.register_read("root").await;
        let old = (self.version, self.value.clone());
        let new = self.pending.take().map(|value| (self.version + 1, value));
        let is = (seen.version, seen.bytes);
        assert!(is == old || Some(&is) == new.as_ref(), "saw {is:?}, expected {old:?} or {new:?}");
        (self.version, self.value) = is;
        let segments: Vec<SegmentId> = group.segments().into_iter().map(|segment| segment.id).collect();
        let mut more = segments.clone();
        let extra = segments.len() == self.segments.len() + 1 && self.pending_segment;
        if extra {
            more.pop();
        }
        assert_eq!(more, self.segments, "segments after a crash");
        self.segments = segments;
        self.pending_segment = false;
    }
}

/// Opens with a random minority absent or with a damaged register; the rest as they are.
fn open_some(rig: &Rig) -> (Group, Vec<usize>) {
    let mut absent = Vec::new();
    let mut drives = ports(&rig.drives);
    for _ in 0..2 {
        let victim = (rig.bench.turns.random() % 5) as usize;
        match rig.bench.turns.random() % 4 {
            0 if !absent.contains(&victim) => absent.push(victim),
            1 if absent.is_empty() => {
                // Anywhere in the registers of one drive.
                let at = (256 << 10) + rig.bench.turns.random() % (512 << 10);
                rig.drives[victim].flip(at, 2);
            }
            _ => {}
        }
    }
    absent.sort_unstable();
    absent.iter().rev().for_each(|&index| drop(drives.remove(index)));
    let opened = rig.bench.run(Group::open(drives, None, rig.bench.world()));
    (opened.unwrap_or_else(|refusal| panic!("{refusal:?}")), absent)
}

fn cut_power(rig: &Rig) {
    let mode = rig.bench.turns.random() % 3;
    for drive in &rig.drives {
        drive.power_cut(|| match mode {
            0 => false,
            1 => true,
            _ => rig.bench.turns.random().is_multiple_of(2),
        });
    }
}

/// One owner after another: sets values, opens segments, crashes at any await with any
/// subset of unflushed sectors kept; each next owner sees the old value or the new one,
/// whole, and what it saw stays.
fn walk(seed: u64, rounds: usize) {
    let rig = Rig::new(5, seed);
    let group = rig.create(3);
    rig.drives.iter().for_each(|drive| drive.yields.set(1));
    rig.bench.run(group.register_cas("root", 0, b"0")).unwrap();
    drop(group);
    let mut model =
        Model { version: 1, value: b"0".to_vec(), pending: None, segments: vec![], pending_segment: false, next: 1 };
    for _ in 0..rounds {
        let (group, _) = open_some(&rig);
        rig.bench.run(model.settle(&group));
        for _ in 0..rig.bench.turns.random() % 3 {
            let value = format!("{} of {seed}", model.next).repeat(1 + (model.next * 97 % 400) as usize).into_bytes();
            model.next += 1;
            let polls = (rig.bench.turns.random() % 12) as usize;
            let crash = rig.bench.turns.random().is_multiple_of(2);
            let polls = if crash { polls } else { usize::MAX };
            if rig.bench.turns.random().is_multiple_of(4) {
                match rig.bench.crash_after(polls, group.open_segment()) {
                    Some(id) => model.segments.push(id.unwrap()),
                    None => model.pending_segment = true,
                }
            } else {
                match rig.bench.crash_after(polls, group.register_cas("root", model.version, &value)) {
                    Some(version) => (model.version, model.value) = (version.unwrap(), value),
                    None => model.pending = Some(value),
                }
            }
            if crash {
                break;
            }
        }
        drop(group);
        cut_power(&rig);
        // An owner that crashes while opening must not decide anything new.
        if rig.bench.turns.random().is_multiple_of(3) {
            let polls = (rig.bench.turns.random() % 120) as usize;
            drop(rig.bench.crash_after(polls, Group::open(ports(&rig.drives), None, rig.bench.world())));
            cut_power(&rig);
        }
        if model.segments.len() > 20 {
            return;
        }
    }
}

#[test]
fn a_crash_leaves_the_old_value_or_the_new_one() {
    for seed in 0..150 {
        walk(seed, 30);
    }
}

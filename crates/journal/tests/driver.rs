//! What the driver promises, one story each.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use base::port::{Leg, MediaFault};
use base::{Buf, Epoch, FileId, GroupId, Incarnation, Osn};
use double::{Machine, MemoryLeg};
use journal::open::FormatRefused;
use journal::{
    AddLegRefused, Config, Journal, JournalRoot, Kind, LegState, LegVerdict, NewRecord, OpenRefused, Refusal, Scope,
    Sequence, Tag, Verified,
};

const POOL: GroupId = GroupId([7; 16]);

fn tag(osn: u64) -> Tag {
    let scope = Scope { file: FileId(1), offset_bytes: osn * 8192, length_bytes: 8192 };
    Tag { kind: Kind::WRITE, stream: 1, epoch: Epoch(1), osn: Osn(osn), scope }
}

fn put(journal: &Journal, osn: u64, len: usize) -> Result<Sequence, Refusal> {
    let body = vec![osn as u8; len];
    journal.try_append(NewRecord { tag: tag(osn), body: &[&body] }).map(|appended| appended.sequence)
}

/// A machine, its legs and a fresh journal's root.
struct Rig {
    machine: Rc<Machine>,
    legs: Vec<Rc<MemoryLeg>>,
    root: JournalRoot,
}

impl Rig {
    fn new(legs: usize, ring_blocks: usize) -> Rig {
        let machine = Machine::boot(1, false);
        let legs: Vec<_> = (0..legs).map(|_| MemoryLeg::new((2 + ring_blocks) * 4096)).collect();
        let plugged: Vec<Rc<dyn Leg>> = legs.iter().map(|leg| leg.plug(&machine)).collect();
        let incarnations: Vec<_> = (0..legs.len()).map(|leg| Incarnation([leg as u8 + 1; 16])).collect();
        let format = async move { Journal::format(&plugged, POOL, &incarnations, Sequence(1)).await.unwrap() };
        let root = machine.run(u64::MAX, format).unwrap();
        Rig { machine, legs, root }
    }

    fn plugged(&self) -> Vec<Rc<dyn Leg>> {
        self.legs.iter().map(|leg| leg.plug(&self.machine)).collect()
    }

    /// Opens and runs `story`.
    fn run<T: 'static, F>(&self, story: impl FnOnce(Journal, Rc<Machine>) -> F + 'static) -> T
    where
        F: Future<Output = T>,
    {
        let (legs, root, machine) = (self.plugged(), self.root.clone(), self.machine.clone());
        let main = async move {
            let (journal, _) = Journal::open(legs, &root, machine.world(), Config::default()).await.unwrap();
            story(journal, machine).await
        };
        self.machine.run(1_000_000, main).unwrap()
    }

    fn refused(&self, root: &JournalRoot) -> OpenRefused {
        let (legs, root, world) = (self.plugged(), root.clone(), self.machine.world());
        let open = async move { Journal::open(legs, &root, world, Config::default()).await.err().unwrap() };
        self.machine.run(1_000_000, open).unwrap()
    }
}

#[test]
fn one_record_at_a_time_is_one_write_each_and_many_at_once_share() {
    let rig = Rig::new(1, 4096);
    let leg = rig.legs[0].clone();
    rig.run(|journal, machine| async move {
        let before = leg.writes.get();
        for osn in 1..=10 {
            let sequence = put(&journal, osn, 8192).unwrap();
            journal.stable(sequence).await.unwrap();
        }
        assert_eq!(leg.writes.get() - before, 10, "depth 1: written at once, no delay for company");
        machine.sleep(20_000_000).await;
        let before = leg.writes.get();
        let done = Rc::new(Cell::new(0));
        for client in 0..16 {
            let (journal, done) = (journal.clone(), done.clone());
            let writes = async move {
                for turn in 0..20 {
                    let sequence = put(&journal, 100 + client + turn * 16, 8192).unwrap();
                    journal.stable(sequence).await.unwrap();
                }
                done.set(done.get() + 1);
            };
            machine.world().spawn.spawn("client", Box::pin(writes));
        }
        while done.get() < 16 {
            machine.sleep(10_000).await;
        }
        let writes = leg.writes.get() - before;
        assert!(writes <= 320 / 6, "depth 16: {writes} writes for 320 records");
    });
}

#[test]
fn records_arrive_in_order_before_anyone_is_told() {
    let rig = Rig::new(2, 64);
    rig.run(|journal, machine| async move {
        let applied = Rc::new(RefCell::new(Vec::new()));
        let seen = applied.clone();
        journal.set_on_stable(move |record| seen.borrow_mut().push(record));
        let sequences: Vec<_> = (1..=5).map(|osn| put(&journal, osn, 100).unwrap()).collect();
        let proof = journal.stable(sequences[2]).await.unwrap();
        assert!(applied.borrow().iter().any(|record| record.sequence == sequences[2]), "applied first");
        assert!(proof.through() >= sequences[2] && journal.stable_now() >= proof);
        machine.sleep(50_000_000).await;
        let applied = applied.borrow();
        assert_eq!(applied.iter().map(|record| record.sequence).collect::<Vec<_>>(), sequences, "no seals, once");
        assert!(applied.iter().all(|record| record.body.len() == 100 && record.body[0] == record.tag.osn.0 as u8));
    });
}

#[test]
fn a_large_payload_is_written_from_where_it_lies_and_read_back_whole() {
    let rig = Rig::new(2, 256);
    rig.legs.iter().for_each(|leg| leg.gathers.set(true));
    let content = |osn: u64| vec![osn as u8; 30_000 + osn as usize * 1_777];
    rig.run(move |journal, _| async move {
        let stable = Rc::new(RefCell::new(Vec::new()));
        let seen = stable.clone();
        journal.set_on_stable(move |record| seen.borrow_mut().push(record));
        let mut last = Sequence(0);
        let mut lies_at = Vec::new();
        for osn in 1..=9 {
            put(&journal, 100 + osn, 50 * osn as usize).unwrap();
            let payload = Buf::from(content(osn));
            lies_at.push((payload.len(), payload.as_ptr()));
            last = journal.append_with(NewRecord { tag: tag(osn), body: &[b"time"] }, &payload).await.unwrap().sequence;
            put(&journal, 200 + osn, 64).unwrap();
        }
        journal.stable(last).await.unwrap();
        let stable = stable.borrow();
        let gathered: Vec<_> = stable.iter().filter(|record| !record.payload.is_empty()).collect();
        let (long, short): (Vec<&(usize, *const u8)>, Vec<_>) = lies_at.iter().partition(|(len, _)| *len >= 32 << 10);
        assert_eq!((gathered.len(), long.len(), short.len()), (8, 8, 1), "a short one is copied");
        for (record, place) in gathered.into_iter().zip(long) {
            assert_eq!(
                (record.payload.len(), record.payload.as_ptr(), &record.body[..]),
                (place.0, place.1, &b"time"[..])
            );
        }
    });
    // Read back it is one body, whichever way it was written.
    let (legs, root, world) = (rig.plugged(), rig.root.clone(), rig.machine.world());
    let open = async move { Journal::open(legs, &root, world, Config::default()).await.unwrap().1 };
    let recovered = rig.machine.run(1_000_000, open).unwrap();
    let found: Vec<_> = recovered.records.iter().filter(|record| record.tag.osn.0 < 100).collect();
    assert_eq!(found.len(), 9);
    for record in found {
        assert_eq!(record.body[..], [&b"time"[..], &content(record.tag.osn.0)].concat());
    }
}

#[test]
fn without_a_callback_records_queue_up() {
    Rig::new(1, 64).run(|journal, _| async move {
        put(&journal, 1, 10).unwrap();
        put(&journal, 2, 10).unwrap();
        let mut records = Vec::new();
        while records.len() < 2 {
            journal.next_stable(&mut records).await.unwrap();
        }
        assert_eq!(records[1].tag.osn, Osn(2));
    });
}

/// F24: full means wait, in order of arrival, not error; trimming lets them on.
#[test]
fn a_full_ring_makes_appenders_wait_in_turn() {
    Rig::new(1, 32).run(|journal, machine| async move {
        let mut last = Sequence(1);
        for osn in 1.. {
            match put(&journal, osn, 8000) {
                Ok(sequence) => last = sequence,
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::Full);
                    break;
                }
            }
            journal.stable(last).await.unwrap();
        }
        let order = Rc::new(RefCell::new(Vec::new()));
        for turn in 0..3_u64 {
            let (journal, order) = (journal.clone(), order.clone());
            let wait = async move {
                let body = [0; 8000];
                journal.append(NewRecord { tag: tag(90 + turn), body: &[&body] }).await.unwrap();
                order.borrow_mut().push(turn);
            };
            machine.world().spawn.spawn("waiter", Box::pin(wait));
            machine.sleep(100_000).await;
        }
        assert_eq!(journal.status().waiting, 3);
        assert_eq!(put(&journal, 99, 10), Err(Refusal::Full), "no overtaking");
        let before = journal.status();
        assert!(before.fill_bytes <= before.capacity_bytes);
        journal.trim(last);
        machine.sleep(1_000_000).await;
        assert_eq!(*order.borrow(), [0, 1, 2]);
        assert!(journal.status().fill_bytes < before.fill_bytes);
    });
}

#[test]
fn a_record_longer_than_a_batch_is_refused() {
    Rig::new(1, 32).run(|journal, _| async move {
        let max = journal.body_bytes_max();
        assert_eq!(put(&journal, 1, max + 1), Err(Refusal::TooLong));
        let sequence = put(&journal, 1, max).unwrap();
        journal.stable(sequence).await.unwrap();
    });
}

#[test]
fn the_last_leg_lost_latches() {
    let rig = Rig::new(1, 32);
    let leg = rig.legs[0].clone();
    rig.run(|journal, _| async move {
        let kept = put(&journal, 1, 10).unwrap();
        journal.stable(kept).await.unwrap();
        leg.write_fault.set(Some(MediaFault::Gone));
        let lost = put(&journal, 2, 10).unwrap();
        assert!(journal.stable(lost).await.is_err());
        assert!(journal.stable(kept).await.is_ok(), "what was stable stays so");
        assert_eq!(put(&journal, 3, 10), Err(Refusal::Latched));
        let status = journal.status();
        assert!(status.latched && status.copies == 0 && status.legs[0].state == LegState::Lost);
        assert_eq!(journal.incarnations().len(), 1, "a root must still name the leg that holds everything");
    });
}

/// I4: a lost leg could come back alone; nothing is acknowledged before the root says it
/// is out.
#[test]
fn after_a_leg_is_lost_the_root_must_know_first() {
    let rig = Rig::new(2, 32);
    let leg = rig.legs[1].clone();
    rig.run(|journal, machine| async move {
        leg.write_fault.set(Some(MediaFault::Timeout));
        let sequence = put(&journal, 1, 10).unwrap();
        journal.root_needed().await;
        machine.sleep(10_000_000).await;
        assert!(journal.stable_now().through() < sequence && journal.status().root_needed);
        let survivors = journal.incarnations();
        assert_eq!(survivors, [Incarnation([1; 16])]);
        journal.root_recorded(&survivors);
        journal.stable(sequence).await.unwrap();
        assert!(!journal.status().root_needed && journal.status().copies == 1);
    });
}

/// When it is quiet, a seal proves what was acknowledged last; then nothing more is
/// written (idle costs nothing).
#[test]
fn an_idle_journal_is_sealed_once() {
    let rig = Rig::new(1, 32);
    let leg = rig.legs[0].clone();
    let root = rig.root.clone();
    rig.run(|journal, machine| async move {
        let sequence = put(&journal, 1, 5000).unwrap();
        journal.stable(sequence).await.unwrap();
        let before = leg.writes.get();
        machine.sleep(1_000_000_000).await;
        assert_eq!(leg.writes.get(), before + 1);
        // The whole body rots: its range is lost, but nothing is passed over.
        let at = 3 * 4096 + 128;
        leg.bytes.borrow_mut()[at..at + 100].fill(0xee);
    });
    let (legs, world) = (rig.plugged(), rig.machine.world());
    let open = async move { Journal::open(legs, &root, world, Config::default()).await.unwrap().1 };
    let recovered = rig.machine.run(1_000_000, open).unwrap();
    assert!(recovered.records.is_empty());
    assert_eq!(recovered.blocked.len(), 1);
    assert_eq!(recovered.blocked[0].tag, tag(1), "file, offset and length are named");
}

/// F23: blank, foreign, older life, older image, copy, shrunk: none is "empty, so there
/// is nothing to replay".
#[test]
fn wrong_legs_are_refused() {
    let rig = Rig::new(1, 32);
    let pristine = rig.legs[0].bytes.borrow().clone();
    let mut root = rig.root.clone();
    root.trim = rig.run(|journal, _| async move {
        let sequence = put(&journal, 1, 5000).unwrap();
        journal.stable(sequence).await.unwrap();
        let last = put(&journal, 2, 5000).unwrap();
        journal.stable(last).await.unwrap();
        journal.trim_point_for(last)
    });
    let verdict = |root: &JournalRoot| match rig.refused(root) {
        OpenRefused::NoMember { legs } => legs[0],
        other => panic!("{other}"),
    };
    let foreign = JournalRoot { pool: GroupId([8; 16]), ..root.clone() };
    assert_eq!(verdict(&foreign), LegVerdict::Foreign);
    let reformatted = JournalRoot { incarnations: vec![Incarnation([9; 16])], ..root.clone() };
    assert_eq!(verdict(&reformatted), LegVerdict::OldIncarnation);
    rig.legs[0].unreadable.borrow_mut().extend([0, 1]);
    assert_eq!(verdict(&root), LegVerdict::Faulty(MediaFault::Io));
    rig.legs[0].unreadable.borrow_mut().clear();
    let good = rig.legs[0].bytes.borrow().clone();
    *rig.legs[0].bytes.borrow_mut() = pristine;
    assert!(matches!(rig.refused(&root), OpenRefused::Gone { gap, .. } if gap.letter == 'Q'), "an older image");
    rig.legs[0].bytes.borrow_mut().truncate(20 * 4096);
    assert_eq!(verdict(&root), LegVerdict::Truncated);
    *rig.legs[0].bytes.borrow_mut() = vec![0; good.len()];
    assert_eq!(verdict(&root), LegVerdict::Blank);
    rig.legs[0].bytes.borrow_mut().fill(0x5a);
    assert_eq!(verdict(&root), LegVerdict::Damaged);
}

/// Where another leg covers, the same legs are mended or left out.
#[test]
fn wrong_legs_are_covered_by_a_good_one() {
    let rig = Rig::new(2, 32);
    let pristine = rig.legs[1].bytes.borrow().clone();
    rig.run(|journal, _| async move {
        let sequence = put(&journal, 1, 5000).unwrap();
        journal.stable(sequence).await.unwrap();
    });
    let good = rig.legs[1].bytes.borrow().clone();
    let copy = rig.legs[0].bytes.borrow().clone();
    let blank = vec![0; good.len()];
    let cases = [
        (good, LegVerdict::Member { mended_batches: 0 }, false),
        // The record, and the seal that the opening before wrote.
        (pristine, LegVerdict::Member { mended_batches: 2 }, false),
        (blank, LegVerdict::Blank, true),
        (copy, LegVerdict::Duplicate, true),
    ];
    for (content, verdict, root_needed) in cases {
        rig.legs.iter().for_each(|leg| leg.cut(|| false));
        *rig.legs[1].bytes.borrow_mut() = content;
        let (legs, root, world) = (rig.plugged(), rig.root.clone(), rig.machine.world());
        let open = async move {
            let (journal, recovered) = Journal::open(legs, &root, world, Config::default()).await.unwrap();
            (recovered, journal.status().root_needed)
        };
        let (recovered, needed) = rig.machine.run(1_000_000, open).unwrap();
        assert_eq!(recovered.records.len(), 1);
        assert_eq!((recovered.legs[1], needed), (verdict, root_needed));
    }
}

#[test]
fn crash_loops_on_a_full_ring_do_not_eat_the_reserve() {
    let rig = Rig::new(1, 32);
    let leg = rig.legs[0].clone();
    let fill = rig.run(|journal, _| async move {
        let mut osn = 0;
        while let Ok(sequence) = put(&journal, osn, 3_900) {
            journal.stable(sequence).await.unwrap();
            osn += 1;
        }
        journal.status().fill_bytes
    });
    for _ in 0..20 {
        let after = rig.run(|journal, _| async move { journal.status().fill_bytes });
        assert!(after <= fill + 4096);
        leg.cut(|| false);
    }
}

#[test]
fn formatting_refuses_what_cannot_work() {
    let machine = Machine::boot(1, false);
    let small: Vec<Rc<dyn Leg>> = vec![MemoryLeg::new(17 * 4096).plug(&machine)];
    let big: Vec<Rc<dyn Leg>> = (0..2).map(|_| MemoryLeg::new(1 << 20).plug(&machine) as Rc<dyn Leg>).collect();
    let one = Incarnation([1; 16]);
    let answers = machine.run(1_000_000, async move {
        (
            Journal::format(&small, POOL, &[one], Sequence(1)).await,
            Journal::format(&big, POOL, &[one, one], Sequence(1)).await,
            Journal::format(&[], POOL, &[], Sequence(1)).await,
        )
    });
    let (too_small, same, none) = answers.unwrap();
    assert_eq!(too_small, Err(FormatRefused::TooSmall { needed_bytes: 18 * 4096 }));
    assert_eq!((same, none), (Err(FormatRefused::Legs), Err(FormatRefused::Legs)));
}

#[test]
fn dropping_the_journal_ends_its_task() {
    let rig = Rig::new(1, 32);
    let weak = rig.run(|journal, machine| async move {
        let counter = Rc::new(());
        let weak = Rc::downgrade(&counter);
        journal.set_on_stable(move |_| {
            let _ = &counter;
        });
        assert!(weak.upgrade().is_some());
        drop(journal);
        machine.sleep(Duration::from_millis(1).as_nanos() as u64).await;
        weak
    });
    assert!(weak.upgrade().is_none(), "nothing of it is left");
}

/// F22 and R-NV-04 at work: what rots on one leg while it is in use is found by reading it
/// again, and written anew from the other.
#[test]
fn reading_the_legs_again_finds_and_mends() {
    let rig = Rig::new(2, 64);
    let legs = rig.legs.clone();
    rig.run(|journal, _| async move {
        for osn in 1..=5 {
            let sequence = put(&journal, osn, 5000).unwrap();
            journal.stable(sequence).await.unwrap();
        }
        assert_eq!(journal.verify().await, Verified { right: 12, mended: 0, damaged: 0 });
        legs[1].bytes.borrow_mut()[3 * 4096 + 1000] ^= 1;
        assert_eq!(journal.verify().await, Verified { right: 11, mended: 1, damaged: 0 });
        assert_eq!(journal.verify().await, Verified { right: 12, mended: 0, damaged: 0 });
        legs.iter().for_each(|leg| leg.bytes.borrow_mut()[3 * 4096 + 1000] ^= 1);
        assert_eq!(journal.verify().await, Verified { right: 10, mended: 0, damaged: 1 });
    });
}

/// A lost leg is replaced while writes go on; afterwards the new one alone has it all.
#[test]
fn a_leg_taken_in_holds_everything() {
    let mut rig = Rig::new(2, 256);
    let fresh = MemoryLeg::new(300 * 4096);
    let small = MemoryLeg::new(100 * 4096).plug(&rig.machine);
    let (failing, new_leg) = (rig.legs[1].clone(), fresh.plug(&rig.machine));
    let incarnations = rig.run(|journal, machine| async move {
        failing.write_fault.set(Some(MediaFault::Gone));
        let first = put(&journal, 1, 5000).unwrap();
        journal.root_needed().await;
        journal.root_recorded(&journal.incarnations());
        journal.stable(first).await.unwrap();
        let writer = journal.clone();
        let write = async move {
            for osn in 2..=40 {
                let sequence = put(&writer, osn, 5000).unwrap();
                writer.stable(sequence).await.unwrap();
            }
        };
        machine.world().spawn.spawn("writer", Box::pin(write));
        let new_life = Incarnation([3; 16]);
        let needed_bytes = 258 * 4096;
        assert_eq!(journal.add_leg(small, new_life).await, Err(AddLegRefused::TooSmall { needed_bytes }));
        assert_eq!(journal.add_leg(new_leg.clone(), Incarnation([2; 16])).await, Err(AddLegRefused::NotNew));
        journal.add_leg(new_leg.clone(), new_life).await.unwrap();
        assert_eq!(journal.add_leg(new_leg, Incarnation([4; 16])).await, Err(AddLegRefused::NoPlace));
        assert_eq!(journal.status().copies, 2);
        journal.root_recorded(&journal.incarnations());
        machine.sleep(20_000_000).await;
        assert!(journal.status().stable_through >= Sequence(41));
        journal.incarnations()
    });
    rig.root.incarnations = incarnations;
    rig.legs = vec![fresh];
    let (legs, root, world) = (rig.plugged(), rig.root.clone(), rig.machine.world());
    let open = async move { Journal::open(legs, &root, world, Config::default()).await.unwrap().1 };
    let recovered = rig.machine.run(1_000_000, open).unwrap();
    assert_eq!(
        recovered.records.iter().map(|record| record.tag.osn.0).collect::<Vec<_>>(),
        (1..=40).collect::<Vec<_>>()
    );
}

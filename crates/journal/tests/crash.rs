//! Power cuts: acknowledged is within replayed is within issued, whatever the cut leaves.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use base::{Epoch, FileId, GroupId, Incarnation, Osn};
use double::{Machine, MemoryLeg};
use journal::{Config, Journal, JournalRoot, Kind, NewRecord, Scope, Sequence, Tag};

const POOL: GroupId = GroupId([7; 16]);

fn tag(osn: u64, len: usize) -> Tag {
    let scope = Scope { file: FileId(osn % 5), offset_bytes: osn * 8192, length_bytes: len as u64 };
    Tag { kind: Kind::WRITE, stream: 1, epoch: Epoch(1), osn: Osn(osn), scope }
}

#[test]
fn what_was_appended_comes_back() {
    let legs = [MemoryLeg::new(1 << 20), MemoryLeg::new(1 << 20)];
    let incarnations = [Incarnation([1; 16]), Incarnation([2; 16])];
    let machine = Machine::boot(1, false);
    let plugged: Vec<_> = legs.iter().map(|leg| leg.plug(&machine)).collect();
    let world = machine.world();
    let root: JournalRoot = machine
        .run(u64::MAX, async move {
            let root = Journal::format(&plugged, POOL, &incarnations, Sequence(1)).await.unwrap();
            let (journal, recovered) = Journal::open(plugged, &root, world, Config::default()).await.unwrap();
            assert!(recovered.records.is_empty());
            let mut last = Sequence(0);
            for osn in 0..20 {
                let body = vec![osn as u8; 8192];
                last = journal.append(NewRecord { tag: tag(osn, 8192), body: &[&body] }).await.unwrap().sequence;
            }
            journal.stable(last).await.unwrap();
            root
        })
        .unwrap();
    let machine = Machine::boot(2, false);
    let plugged: Vec<_> = legs.iter().map(|leg| leg.plug(&machine)).collect();
    let world = machine.world();
    let recovered = machine
        .run(u64::MAX, async move { Journal::open(plugged, &root, world, Config::default()).await.unwrap().1 })
        .unwrap();
    assert_eq!(recovered.records.len(), 20);
    for (osn, record) in recovered.records.iter().enumerate() {
        assert_eq!(record.tag, tag(osn as u64, 8192));
        assert!(record.body.len() == 8192 && record.body.iter().all(|&byte| byte == osn as u8));
    }
}

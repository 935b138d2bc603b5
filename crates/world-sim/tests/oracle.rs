//! The oracle against a checker that tries every order, on small random histories.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::BTreeSet;

use world_sim::oracle::{BLOCK_BYTES, BadBlock, Violation};
use world_sim::{Oracle, Rng, Stamp};

/// One operation on the one register, as the brute-force checker sees it.
#[derive(Clone, Copy, Debug)]
struct Op {
    start: u64,
    end: u64,
    /// The value written or read; 0 is "never written".
    value: u64,
    is_write: bool,
    /// Acknowledged, or a read that was answered: it did happen.
    must_happen: bool,
}

/// Whether some order explains the history: each operation at one instant between its
/// start and end, reads see the last write, optional writes may be left out.
fn some_order_explains(ops: &[Op]) -> bool {
    fn search(ops: &[Op], done: u32, current: u64, seen: &mut BTreeSet<(u32, u64)>) -> bool {
        if !seen.insert((done, current)) {
            return false;
        }
        let left = || (0..ops.len()).filter(|index| done >> index & 1 == 0);
        if left().all(|index| !ops[index].must_happen) {
            return true;
        }
        // Next in order can only be one that starts before every waiting one has ended.
        let first_end = left().filter(|&index| ops[index].must_happen).map(|index| ops[index].end).min().unwrap();
        left().any(|index| {
            let op = ops[index];
            let fits = op.start < first_end && (op.is_write || op.value == current);
            fits && search(ops, done | 1 << index, op.value, seen)
        })
    }
    // Optional writes with an end must be dropped, not delayed, once it has passed: they
    // fit only while nothing that started after their end was placed, so expand by
    // choosing which of them happen.
    let optional: Vec<usize> = (0..ops.len()).filter(|&index| !ops[index].must_happen).collect();
    (0..1u32 << optional.len()).any(|chosen| {
        let kept: Vec<Op> = ops
            .iter()
            .enumerate()
            .filter_map(|(index, &op)| match optional.iter().position(|&found| found == index) {
                Some(place) => (chosen >> place & 1 == 1).then_some(Op { must_happen: true, ..op }),
                None => Some(op),
            })
            .collect();
        search(&kept, 0, 0, &mut BTreeSet::new())
    })
}

fn stamp(value: u64) -> Stamp {
    Stamp { client: 1, sequence: value, file: 3, block: 5 }
}

/// Runs random clients against a register that is right or, when `broken`, sometimes
/// answers an old value or forgets an acknowledged write. Tells the oracle and the
/// brute-force checker the same.
fn random_history(rng: &mut Rng, broken: bool) -> (Oracle, Vec<Op>) {
    #[derive(Clone, Copy)]
    enum Open {
        Write { op: usize, applied: bool },
        Read { op: usize, read: world_sim::oracle::OpenRead, answer: Option<u64> },
    }
    let (mut oracle, mut ops, mut open) = (Oracle::new(), Vec::<Op>::new(), Vec::<Open>::new());
    let (mut register, mut old_values, mut tick) = (0u64, vec![0u64], 0u64);
    let steps = rng.between(12, 40);
    for step in 0..steps {
        tick += 1;
        if open.len() < 3 && rng.percent(50) && ops.len() < 9 && step + 3 < steps {
            let op = ops.len();
            if rng.percent(50) {
                let value = op as u64 + 1;
                oracle.write_started(stamp(value));
                ops.push(Op { start: tick, end: u64::MAX, value, is_write: true, must_happen: false });
                open.push(Open::Write { op, applied: false });
            } else {
                let read = oracle.read_started(3, 5);
                ops.push(Op { start: tick, end: u64::MAX, value: 0, is_write: false, must_happen: true });
                open.push(Open::Read { op, read, answer: None });
            }
            continue;
        }
        if open.is_empty() {
            continue;
        }
        let index = rng.index(open.len());
        match open[index] {
            Open::Write { op, applied: false } => {
                if !(broken && rng.percent(40)) {
                    old_values.push(register);
                    register = ops[op].value;
                }
                open[index] = Open::Write { op, applied: true };
            }
            Open::Read { op, read, answer: None } => {
                let stale = broken && rng.percent(40);
                let value = if stale { old_values[rng.index(old_values.len())] } else { register };
                open[index] = Open::Read { op, read, answer: Some(value) };
            }
            Open::Write { op, .. } => {
                oracle.write_acknowledged(stamp(ops[op].value));
                ops[op] = Op { end: tick, must_happen: true, ..ops[op] };
                open.swap_remove(index);
            }
            Open::Read { op, read, answer: Some(value) } => {
                oracle.read_returned(read, (value > 0).then(|| stamp(value)));
                ops[op] = Op { end: tick, value, ..ops[op] };
                open.swap_remove(index);
            }
        }
        if rng.percent(5) {
            // A crash: everything open is unknown, and settled by the recovery.
            tick += 1;
            oracle.settle();
            for lost in open.drain(..) {
                match lost {
                    Open::Write { op, .. } => ops[op].end = tick,
                    Open::Read { op, .. } => ops[op].end = 0,
                }
            }
        }
    }
    // Reads without an answer say nothing.
    ops.retain(|op| op.is_write || (op.end != u64::MAX && op.end != 0));
    (oracle, ops)
}

#[test]
fn agrees_with_trying_every_order_on_ten_thousand_histories() {
    let (mut wrong, mut right) = (0, 0);
    for seed in 0..10_000u64 {
        let mut rng = Rng::new(seed);
        let (oracle, ops) = random_history(&mut rng, seed % 2 == 1);
        let expected = some_order_explains(&ops);
        let verdict = oracle.verdict();
        assert_eq!(verdict.is_ok(), expected, "seed {seed}: {verdict:?}\n{ops:#?}");
        assert!(seed % 2 == 1 || expected, "seed {seed}: an honest register is right");
        if expected { right += 1 } else { wrong += 1 }
    }
    assert!(wrong > 1000 && right > 5000, "{wrong} wrong, {right} right");
}

#[test]
fn a_lost_acknowledged_write_is_found_and_a_lost_unknown_one_is_not() {
    for acknowledged in [true, false] {
        let mut oracle = Oracle::new();
        oracle.write_started(stamp(1));
        oracle.write_acknowledged(stamp(1));
        oracle.write_started(stamp(2));
        if acknowledged {
            oracle.write_acknowledged(stamp(2));
        }
        oracle.settle();
        let read = oracle.read_started(3, 5);
        oracle.read_returned(read, Some(stamp(1)));
        let verdict = oracle.verdict();
        if acknowledged {
            let conflict = Violation::Conflict { register: (3, 5), one: Some(stamp(1)), other: Some(stamp(2)) };
            assert_eq!(verdict, Err(conflict));
        } else {
            assert_eq!(verdict, Ok(2));
        }
    }
}

#[test]
fn an_unknown_write_cannot_appear_after_it_was_settled_unseen() {
    let history = |settle_between: bool| {
        let mut oracle = Oracle::new();
        oracle.write_started(stamp(1));
        if settle_between {
            oracle.settle();
        }
        for value in [None, Some(stamp(1))] {
            let read = oracle.read_started(3, 5);
            oracle.read_returned(read, value);
        }
        oracle.verdict()
    };
    assert!(history(false).is_ok(), "it may still take effect");
    assert!(matches!(history(true), Err(Violation::Conflict { .. })));
}

#[test]
fn foreign_misplaced_and_future_values_are_found() {
    let mut oracle = Oracle::new();
    let read = oracle.read_started(3, 5);
    oracle.read_returned(read, Some(stamp(1)));
    assert_eq!(oracle.verdict(), Err(Violation::NotWrittenHere { register: (3, 5), found: stamp(1) }));
    oracle.write_started(stamp(1));
    assert_eq!(oracle.verdict(), Err(Violation::FromTheFuture { value: stamp(1) }));
    let mut oracle = Oracle::new();
    oracle.write_started(stamp(1));
    let read = oracle.read_started(3, 6);
    oracle.read_returned(read, Some(stamp(1)));
    assert_eq!(oracle.verdict(), Err(Violation::NotWrittenHere { register: (3, 6), found: stamp(1) }));
}

#[test]
fn a_block_says_who_wrote_it_and_shows_any_damage() {
    let mut block = vec![0; BLOCK_BYTES];
    assert_eq!(Stamp::parse(&block), Ok(None));
    let stamp = Stamp { client: 7, sequence: 8, file: 9, block: 10 };
    stamp.fill(&mut block);
    assert_eq!(Stamp::parse(&block), Ok(Some(stamp)));
    let mut rng = Rng::new(1);
    for _ in 0..200 {
        let bit = rng.index(BLOCK_BYTES * 8);
        block[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Stamp::parse(&block), Err(BadBlock));
        block[bit / 8] ^= 1 << (bit % 8);
    }
    block.truncate(100);
    assert_eq!(Stamp::parse(&block), Err(BadBlock));
}

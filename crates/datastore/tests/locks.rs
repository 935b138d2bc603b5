//! NLM state against a model that knows only single bytes.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod lab;

use std::collections::BTreeMap;

use datastore::locks::{Lock, LockMode, LockOwner, LockRange, LockVerdict, LockWait};
use datastore::op::{CreateHow, Place};
use datastore::{Handle, Refusal, SetAttr};
use lab::{Lab, run, user};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

fn made(lab: &Lab, name: &[u8]) -> Handle {
    let how = CreateHow::Guarded(SetAttr { mode: Some(0o666), ..SetAttr::default() });
    run(lab.fs.create(&user(0), Place { dir: &lab.root, name }, how, None)).unwrap().handle
}

fn owner(client: u32, process: u32) -> LockOwner {
    LockOwner { client: format!("host{client}").into_bytes(), handle: vec![process as u8; 3], svid: process }
}

fn lock(owner: LockOwner, offset_bytes: u64, len_bytes: u64, mode: LockMode) -> Lock {
    Lock { owner, range: LockRange { offset_bytes, len_bytes }, mode }
}

const BYTES: u64 = 12;

/// Who holds each byte how; byte `BYTES` stands for all from there to the end.
#[derive(Default)]
struct Model {
    held: BTreeMap<(u64, LockOwner), LockMode>,
    waiting: Vec<Lock>,
}

fn bytes_of(range: LockRange) -> std::ops::RangeInclusive<u64> {
    let last = if range.len_bytes == 0 { BYTES } else { (range.offset_bytes + range.len_bytes - 1).min(BYTES) };
    range.offset_bytes..=last
}

fn conflict(a: LockMode, b: LockMode) -> bool {
    a == LockMode::Exclusive || b == LockMode::Exclusive
}

impl Model {
    fn free(&self, wanted: &Lock) -> bool {
        let in_the_way = |(at, owner): &(u64, LockOwner), mode: &LockMode| {
            *owner != wanted.owner && bytes_of(wanted.range).contains(at) && conflict(*mode, wanted.mode)
        };
        !self.held.iter().any(|(key, mode)| in_the_way(key, mode))
    }

    fn hold(&mut self, lock: &Lock) {
        for byte in bytes_of(lock.range) {
            self.held.insert((byte, lock.owner.clone()), lock.mode);
        }
    }

    fn release(&mut self, owner: &LockOwner, range: LockRange) {
        self.held.retain(|(at, holder), _| !(holder == owner && bytes_of(range).contains(at)));
    }

    fn serve(&mut self) -> Vec<Lock> {
        let (mut served, mut still): (Vec<Lock>, Vec<Lock>) = (vec![], vec![]);
        for waiting in std::mem::take(&mut self.waiting) {
            let behind = still.iter().any(|earlier| {
                let overlap = bytes_of(earlier.range).any(|byte| bytes_of(waiting.range).contains(&byte));
                earlier.owner != waiting.owner && overlap && conflict(earlier.mode, waiting.mode)
            });
            if behind || !self.free(&waiting) {
                still.push(waiting);
            } else {
                self.hold(&waiting);
                served.push(waiting);
            }
        }
        self.waiting = still;
        served
    }
}

/// What the product says it holds, byte by byte; and that its ranges are as few as possible.
fn held_bytes(lab: &Lab, file: &Handle) -> BTreeMap<(u64, LockOwner), LockMode> {
    let mut held = BTreeMap::new();
    let locks: Vec<Lock> =
        lab.fs.locks().into_iter().filter(|held| held.file == file.file()).map(|held| held.lock).collect();
    for lock in &locks {
        for byte in bytes_of(lock.range) {
            assert!(held.insert((byte, lock.owner.clone()), lock.mode).is_none(), "a byte held twice");
        }
        let end = (lock.range.offset_bytes + lock.range.len_bytes) * u64::from(lock.range.len_bytes > 0);
        let next = |other: &&Lock| {
            other.owner == lock.owner && other.mode == lock.mode && end > 0 && other.range.offset_bytes == end
        };
        assert_eq!(locks.iter().find(next), None, "two ranges that should be one");
    }
    held
}

fn random_lock(rng: &mut SmallRng) -> Lock {
    let offset = rng.random_range(0..BYTES);
    let len = if rng.random_bool(0.2) { 0 } else { rng.random_range(1..=BYTES - offset) };
    let mode = if rng.random_bool(0.5) { LockMode::Shared } else { LockMode::Exclusive };
    lock(owner(rng.random_range(0..2), rng.random_range(0..2)), offset, len, mode)
}

#[test]
fn ranges_behave_like_single_bytes_across_restarts() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut lab, mut model) = (Lab::new(), Model::default());
        let file = made(&lab, b"disk");
        for step in 0..120 {
            let wanted = random_lock(&mut rng);
            let caller = user(0);
            let grants = match rng.random_range(0..10) {
                0..=4 => {
                    let queue = rng.random_bool(0.5);
                    let wait = if queue { LockWait::Queue { cookie: vec![step] } } else { LockWait::No };
                    let (verdict, grants) = run(lab.fs.lock(&caller, &file, wanted.clone(), wait)).unwrap();
                    match verdict {
                        LockVerdict::Granted => {
                            assert!(model.free(&wanted));
                            model.waiting.retain(|waiting| *waiting != wanted);
                            model.hold(&wanted);
                        }
                        LockVerdict::Blocked => {
                            assert!(queue && !model.free(&wanted));
                            if !model.waiting.contains(&wanted) {
                                model.waiting.push(wanted);
                            }
                        }
                        LockVerdict::Denied(holder) => {
                            assert!(!queue && !model.free(&wanted));
                            assert!(model.held.contains_key(&(holder.range.offset_bytes, holder.owner)));
                        }
                    }
                    grants
                }
                5 | 6 => {
                    model.release(&wanted.owner, wanted.range);
                    run(lab.fs.unlock(&caller, &file, &wanted.owner, wanted.range)).unwrap()
                }
                7 => {
                    let waiting = model.waiting.first().cloned().unwrap_or(wanted);
                    let known = model.waiting.len();
                    model.waiting.retain(|other| *other != waiting);
                    let (found, grants) = run(lab.fs.lock_cancel(&caller, &file, &waiting)).unwrap();
                    assert_eq!(found, model.waiting.len() < known);
                    grants
                }
                8 => {
                    let test = run(lab.fs.lock_test(&caller, &file, &wanted)).unwrap();
                    assert_eq!(test.is_none(), model.free(&wanted));
                    vec![]
                }
                _ if rng.random_bool(0.5) => {
                    let gone = wanted.owner.client;
                    model.held.retain(|(_, owner), _| owner.client != gone);
                    model.waiting.retain(|waiting| waiting.owner.client != gone);
                    run(lab.fs.lock_free_all(&gone)).unwrap()
                }
                _ => {
                    // Held locks survive; whoever waited asks again.
                    model.waiting.clear();
                    lab.reopen();
                    vec![]
                }
            };
            let granted: Vec<Lock> = grants.into_iter().map(|grant| grant.lock).collect();
            assert_eq!(granted, model.serve(), "seed {seed} step {step}");
            assert_eq!(held_bytes(&lab, &file), model.held, "seed {seed} step {step}");
        }
        lab.assert_clean();
    }
}

#[test]
fn a_waiter_is_called_back_with_its_cookie_once() {
    let lab = Lab::new();
    let file = made(&lab, b"disk");
    let (a, b) = (owner(1, 1), owner(2, 2));
    let wanted = |who: &LockOwner| lock(who.clone(), 100, 1, LockMode::Exclusive);
    let take = |who: &LockOwner, cookie: u8| {
        run(lab.fs.lock(&user(0), &file, wanted(who), LockWait::Queue { cookie: vec![cookie] })).unwrap().0
    };
    assert_eq!(take(&a, 1), LockVerdict::Granted);
    assert_eq!(take(&a, 2), LockVerdict::Granted, "a reclaim or a repeated request");
    assert_eq!(take(&b, 3), LockVerdict::Blocked);
    assert_eq!(take(&b, 4), LockVerdict::Blocked, "asked again: the newer cookie counts");
    let denied = run(lab.fs.lock(&user(0), &file, wanted(&owner(3, 3)), LockWait::No)).unwrap().0;
    assert_eq!(denied, LockVerdict::Denied(wanted(&a)));
    assert_eq!(lab.fs.locks()[0].waiting, 1);
    let grants = run(lab.fs.unlock(&user(0), &file, &a, LockRange { offset_bytes: 0, len_bytes: 0 })).unwrap();
    assert_eq!(grants.len(), 1);
    assert_eq!((&grants[0].lock, &grants[0].cookie[..], grants[0].handle), (&wanted(&b), &[4][..], file));
    assert_eq!(run(lab.fs.lock_cancel(&user(0), &file, &wanted(&b))).unwrap(), (false, vec![]));
    assert_eq!(run(lab.fs.lock_break(file.file(), &b)).unwrap(), vec![]);
    assert_eq!(lab.fs.locks(), vec![]);
}

#[test]
fn going_from_exclusive_to_shared_lets_readers_in() {
    let lab = Lab::new();
    let file = made(&lab, b"disk");
    let (a, b) = (owner(1, 1), owner(2, 2));
    let take = |who: &LockOwner, mode| {
        run(lab.fs.lock(&user(0), &file, lock(who.clone(), 0, 0, mode), LockWait::Queue { cookie: vec![] })).unwrap()
    };
    assert_eq!(take(&a, LockMode::Exclusive).0, LockVerdict::Granted);
    assert_eq!(take(&b, LockMode::Shared).0, LockVerdict::Blocked);
    let (verdict, grants) = take(&a, LockMode::Shared);
    assert_eq!((verdict, grants.len()), (LockVerdict::Granted, 1));
}

#[test]
fn locks_need_a_file_and_rights_and_go_with_the_file() {
    let mut lab = Lab::new();
    let file = made(&lab, b"disk");
    let read_only = run(lab.fs.setattr(
        &user(0),
        &file,
        datastore::op::SetAttrArgs { set: SetAttr { mode: Some(0o644), ..SetAttr::default() }, guard: None },
        None,
    ));
    read_only.unwrap();
    let take = |uid: u32, of: &Handle, mode| {
        run(lab.fs.lock(&user(uid), of, lock(owner(uid, 1), 0, 1, mode), LockWait::No)).map(|(verdict, _)| verdict)
    };
    assert_eq!(take(5, &file, LockMode::Exclusive), Err(Refusal::NotAllowed));
    assert_eq!(take(5, &file, LockMode::Shared), Ok(LockVerdict::Granted));
    assert_eq!(take(6, &file, LockMode::Shared), Ok(LockVerdict::Granted));
    assert_eq!(take(0, &lab.root, LockMode::Shared), Err(Refusal::WrongKind));
    let long = LockOwner { client: vec![b'x'; 256], ..owner(0, 0) };
    let refused = run(lab.fs.lock(&user(0), &file, lock(long, 0, 1, LockMode::Shared), LockWait::No));
    assert_eq!(refused, Err(Refusal::NameTooLong));
    assert_eq!(lab.fs.locks().len(), 2);
    run(lab.fs.remove(&user(0), Place { dir: &lab.root, name: b"disk" }, None)).unwrap();
    assert_eq!(lab.fs.locks(), vec![]);
    assert_eq!(take(0, &file, LockMode::Shared), Err(Refusal::Stale));
    lab.reopen();
    assert_eq!(lab.fs.locks(), vec![]);
    lab.assert_clean();
}

#[test]
fn monitored_clients_are_remembered() {
    let mut lab = Lab::new();
    run(lab.fs.monitor(b"esx1", "10.0.0.9".parse().unwrap())).unwrap();
    run(lab.fs.monitor(b"esx1", "10.0.0.9".parse().unwrap())).unwrap();
    run(lab.fs.monitor(b"pve", "fd00::2".parse().unwrap())).unwrap();
    run(lab.fs.monitor(b"gone", "10.0.0.7".parse().unwrap())).unwrap();
    run(lab.fs.unmonitor(b"gone")).unwrap();
    assert_eq!(run(lab.fs.monitor(b"", "10.0.0.7".parse().unwrap())), Err(Refusal::BadArgument));
    lab.reopen();
    let monitored: Vec<(Vec<u8>, String)> =
        lab.fs.monitored().into_iter().map(|client| (client.client, client.address.to_string())).collect();
    assert_eq!(monitored, [(b"esx1".to_vec(), "10.0.0.9".into()), (b"pve".to_vec(), "fd00::2".into())]);
}

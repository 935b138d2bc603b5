//! Many clients at once, in many seeded orders, over a store that makes every call wait.

#![allow(clippy::unwrap_used, clippy::result_large_err, missing_docs, reason = "tests")]

mod lab;

use std::cell::RefCell;
use std::collections::BTreeMap;

use base::{FileId, WallNanos};
use datastore::locks::{Lock, LockMode, LockOwner, LockRange, LockVerdict, LockWait};
use datastore::op::{CreateHow, ListingFrom, Place, SetAttrArgs};
use datastore::{Attr, Handle, PreAttr, Refusal, SetAttr, Wcc};
use engine::store::Store;
use lab::{Lab, Task, Waiting, run, run_all, user};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

fn without_used(attr: &Attr) -> Attr {
    Attr { used_bytes: 0, ..*attr }
}

/// What all clients were told about one kind of inode.
#[derive(Default)]
struct Told {
    changes: RefCell<BTreeMap<FileId, Vec<(PreAttr, Attr)>>>,
    seen: RefCell<Vec<Attr>>,
}

impl Told {
    fn wcc(&self, wcc: &Wcc) {
        let (Some(before), Some(after)) = (wcc.before, wcc.after) else { return };
        if before.changed == after.changed {
            assert_eq!(before, PreAttr::from(&after));
            self.seen.borrow_mut().push(after);
        } else {
            let mut changes = self.changes.borrow_mut();
            let of_file = changes.entry(after.file).or_default();
            if !of_file.contains(&(before, after)) {
                of_file.push((before, after));
            }
        }
    }

    /// Sorted by time, the changes of an inode form one chain without a gap: each was made
    /// on exactly what the one before left. And whoever looked saw one of the links.
    fn assert_exact(&self) {
        let mut states: BTreeMap<(FileId, WallNanos), Attr> = BTreeMap::new();
        for (file, changes) in self.changes.borrow_mut().iter_mut() {
            changes.sort_by_key(|(_, after)| after.changed);
            for pair in changes.windows(2) {
                assert_eq!(pair[1].0, PreAttr::from(&pair[0].1), "the chain of {file} has a gap");
            }
            states.extend(changes.iter().map(|(_, after)| ((*file, after.changed), without_used(after))));
        }
        for seen in self.seen.borrow().iter() {
            if let Some(state) = states.get(&(seen.file, seen.changed)) {
                assert_eq!(&without_used(seen), state, "a mixture of two states was seen");
            }
        }
    }
}

fn tasks<'a>(count: usize, mut task: impl FnMut(usize) -> Task<'a>) -> Vec<Task<'a>> {
    (0..count).map(&mut task).collect()
}

async fn client(lab: &Lab<Waiting>, dirs: &[Handle], told: &Told, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (fs, root) = (&lab.fs, user(0));
    let names: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
    for _ in 0..25 {
        let (dir, other) = (&dirs[rng.random_range(0..dirs.len())], &dirs[rng.random_range(0..dirs.len())]);
        let (name, new) = (names[rng.random_range(0..4)], names[rng.random_range(0..4)]);
        let at = Place { dir, name };
        match rng.random_range(0..9) {
            0 | 1 => match fs.create(&root, at, CreateHow::Guarded(SetAttr::default()), None).await {
                Ok(made) => told.wcc(&made.dir),
                Err(refused) => told.wcc(&refused.wcc),
            },
            2 => match fs.mkdir(&root, at, SetAttr::default(), None).await {
                Ok(made) => told.wcc(&made.dir),
                Err(refused) => told.wcc(&refused.wcc),
            },
            3 => told.wcc(&fs.remove(&root, at, None).await.unwrap_or_else(|refused| refused.wcc)),
            4 => told.wcc(&fs.rmdir(&root, at, None).await.unwrap_or_else(|refused| refused.wcc)),
            5 | 6 => {
                let done = fs.rename(&root, at, Place { dir: other, name: new }, None).await;
                let wcc = done.unwrap_or_else(|refused| {
                    assert_ne!(refused.why, Refusal::Inconsistent);
                    refused.wcc
                });
                told.wcc(&wcc.from);
                told.wcc(&wcc.to);
            }
            7 => {
                if let Ok(found) = fs.lookup(&root, at).await {
                    told.seen.borrow_mut().extend(found.dir);
                    if let Ok(linked) = fs.link(&root, &found.handle, Place { dir: other, name: new }, None).await {
                        told.wcc(&linked.dir);
                    }
                }
            }
            _ => {
                if let Ok(listing) = fs.readdirplus(&root, dir, ListingFrom { cookie: 0, limit: 9 }).await {
                    told.seen.borrow_mut().push(listing.dir);
                }
            }
        }
    }
}

#[test]
fn namespace_operations_of_many_clients_leave_one_exact_story() {
    for seed in 0..60 {
        let mut lab = Lab::on(Waiting::new(seed));
        let mut dirs = vec![lab.root];
        for name in [b"x", b"y"] {
            let made = run(lab.fs.mkdir(&user(0), Place { dir: &lab.root, name }, SetAttr::default(), None)).unwrap();
            dirs.push(made.handle);
        }
        let deep =
            run(lab.fs.mkdir(&user(0), Place { dir: &dirs[1], name: b"deep" }, SetAttr::default(), None)).unwrap();
        dirs.push(deep.handle);
        lab.reopen(); // nothing is cached
        let told = Told::default();
        let all = tasks(6, |n| Box::pin(client(&lab, &dirs, &told, seed * 100 + n as u64)));
        run_all(all, seed);
        told.assert_exact();
        assert!(told.changes.borrow().values().map(Vec::len).sum::<usize>() > 10);
        lab.assert_clean();
    }
}

/// Directories moved into each other from both sides at once: no ring, no deadlock.
#[test]
fn directories_do_not_move_into_each_other() {
    for seed in 0..150 {
        let lab = Lab::on(Waiting::new(seed));
        let root = lab.root;
        let dir = |above: Handle, name: &'static [u8]| {
            run(lab.fs.mkdir(&user(0), Place { dir: &above, name }, SetAttr::default(), None)).unwrap().handle
        };
        // Four different parents, so that only the tree gate keeps the moves apart.
        let (a, b) = (dir(root, b"a"), dir(root, b"b"));
        let (p, q) = (dir(a, b"p"), dir(b, b"q"));
        let (pp, qq) = (dir(p, b"pp"), dir(q, b"qq"));
        let caller = user(0);
        let moves: [(Handle, &[u8], Handle, &[u8]); 4] =
            [(a, b"p", qq, b"in"), (b, b"q", pp, b"in"), (p, b"pp", q, b"xx"), (q, b"qq", p, b"yy")];
        let moves = &moves[..2 + 2 * (seed as usize % 2)];
        let all = tasks(moves.len(), |n| {
            let (lab, caller, (from, name, to, new)) = (&lab, &caller, &moves[n]);
            Box::pin(async move {
                let from = Place { dir: from, name };
                let _ = lab.fs.rename(caller, from, Place { dir: to, name: new }, None).await;
            })
        });
        run_all(all, seed);
        lab.assert_clean();
    }
}

#[test]
fn writes_and_attribute_changes_of_one_file_are_told_exactly() {
    for seed in 0..60 {
        let mut lab = Lab::on(Waiting::new(seed));
        let at = Place { dir: &lab.root, name: b"disk" };
        let made = run(lab.fs.create(&user(0), at, CreateHow::Guarded(SetAttr::default()), None)).unwrap();
        lab.reopen(); // nothing is cached
        let (told, file) = (Told::default(), made.handle);
        let all = tasks(8, |n| {
            let (lab, told, file) = (&lab, &told, &file);
            Box::pin(async move {
                let mut rng = SmallRng::seed_from_u64(seed * 10 + n as u64);
                let root = user(0);
                for _ in 0..20 {
                    match rng.random_range(0..8) {
                        0..=2 => {
                            let data = vec![n as u8; rng.random_range(1..10_000)];
                            let offset = rng.random_range(0..50_000);
                            told.wcc(&lab.fs.write(&root, file, offset, &[&data]).await.unwrap().wcc);
                        }
                        3 | 4 => {
                            let mode = rng.random_bool(0.7).then(|| rng.random_range(0..0o1000));
                            let size_bytes = rng.random_bool(0.5).then(|| rng.random_range(0..60_000));
                            let set = SetAttr { mode, size_bytes, ..SetAttr::default() };
                            let args = SetAttrArgs { set, guard: None };
                            told.wcc(&lab.fs.setattr(&root, file, args, None).await.unwrap());
                        }
                        5 => {
                            let attr = lab.fs.read(&root, file, 0, 100).await.unwrap().attr;
                            told.seen.borrow_mut().extend(attr);
                        }
                        _ => {
                            let attr = lab.fs.getattr(&root, file).await.unwrap();
                            told.seen.borrow_mut().push(attr);
                        }
                    }
                }
            })
        });
        run_all(all, seed);
        told.assert_exact();
        let last = told.changes.borrow()[&file.file()].last().unwrap().1;
        assert_eq!(without_used(&run(lab.fs.getattr(&user(0), &file)).unwrap()), without_used(&last));
        lab.assert_clean();
    }
}

/// An exclusive lock is held by one at a time, whoever asks, waits, is called back or dies.
#[test]
fn locks_exclude_and_every_waiter_is_served() {
    for seed in 0..60 {
        let lab = Lab::on(Waiting::new(seed));
        let at = Place { dir: &lab.root, name: b"disk" };
        let file = run(lab.fs.create(&user(0), at, CreateHow::Guarded(SetAttr::default()), None)).unwrap().handle;
        let lock = |n: usize| Lock {
            owner: LockOwner { client: vec![n as u8 + 1], handle: vec![], svid: 1 },
            range: LockRange { offset_bytes: 100, len_bytes: 1 },
            mode: LockMode::Exclusive,
        };
        let (granted, turns) = (RefCell::new(Vec::new()), RefCell::new(0));
        let all = tasks(5, |n| {
            let (lab, file, granted, turns) = (&lab, &file, &granted, &turns);
            Box::pin(async move {
                let caller = user(0);
                let wait = LockWait::Queue { cookie: vec![n as u8] };
                let (verdict, grants) = lab.fs.lock(&caller, file, lock(n), wait).await.unwrap();
                assert!(grants.is_empty());
                let mut mine = verdict == LockVerdict::Granted;
                let mut looks = 0;
                while !mine {
                    looks += 1;
                    assert!(looks < 10_000, "waiter {n} was forgotten");
                    // The callback, as the server would deliver it.
                    mine = granted.borrow().contains(&vec![n as u8]);
                    let _ = lab.store.head(file.file()).await;
                }
                let held = lab.fs.locks();
                assert_eq!((held.len(), &held[0].lock), (1, &lock(n)));
                *turns.borrow_mut() += 1;
                let grants = match n % 2 {
                    0 => lab.fs.unlock(&caller, file, &lock(n).owner, lock(n).range).await.unwrap(),
                    _ => lab.fs.lock_free_all(&lock(n).owner.client).await.unwrap(),
                };
                granted.borrow_mut().extend(grants.into_iter().map(|grant| grant.cookie));
            })
        });
        run_all(all, seed);
        assert_eq!((*turns.borrow(), lab.fs.locks()), (5, vec![]));
    }
}

/// A datastore deleted because it is empty takes nothing with it that was acknowledged.
#[test]
fn a_datastore_deleted_as_empty_was_empty() {
    let mut deleted = 0;
    for seed in 0..100 {
        let lab = Lab::on(Waiting::new(seed));
        let (made, gone) = (RefCell::new(None), RefCell::new(None));
        let all: Vec<Task<'_>> = vec![
            Box::pin(async {
                let at = Place { dir: &lab.root, name: b"disk" };
                let created = lab.fs.create(&user(0), at, CreateHow::Guarded(SetAttr::default()), None).await;
                *made.borrow_mut() = Some(created.map_err(|refused| refused.why));
            }),
            Box::pin(async {
                let deletion = lab.fs.delete_datastore("vms", datastore::Deletion::IfEmpty).await;
                *gone.borrow_mut() = Some(deletion);
            }),
        ];
        run_all(all, seed);
        match (made.take().unwrap(), gone.take().unwrap()) {
            (Ok(made), Err(Refusal::NotEmpty)) => assert!(run(lab.fs.getattr(&user(0), &made.handle)).is_ok()),
            (Err(Refusal::Stale), Ok(())) => deleted += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
        lab.assert_clean();
    }
    assert!((1..100).contains(&deleted), "both orders were tried, {deleted} deletions");
}

/// A listing, a check and a removal of everything run beside each other.
#[test]
fn check_is_clean_while_the_tree_changes() {
    for seed in 0..30 {
        let lab = Lab::on(Waiting::new(seed));
        let dirs = [lab.root];
        let told = Told::default();
        let mut all = tasks(4, |n| Box::pin(client(&lab, &dirs, &told, seed * 7 + n as u64)));
        all.push(Box::pin(async {
            for _ in 0..3 {
                assert_eq!(lab.fs.check().await.unwrap(), vec![]);
            }
        }));
        run_all(all, seed);
        told.assert_exact();
        lab.assert_clean();
    }
}

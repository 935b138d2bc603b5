//! A filesystem on a real store that loses power again and again: what was made is there, as what it was made,
//! under the handle that was given for it; what was removed is stale; and every table agrees.
#![allow(clippy::unwrap_used, clippy::result_large_err, reason = "tests")]

use std::rc::Rc;

use datastore::op::{CreateHow, NewSymlink, Place};
use datastore::{Caller, DatastoreOptions, FileKind, Filesystem, Handle, Identity, Refusal, SetAttr};
use engine::Engine;
use swarm::pool::Pool;
use swarm::shape::Shape;
use world_sim::{Rng, SimNode, SimWorld};

const SEEDS: u64 = 40;
const LIVES: u64 = 6;

type Fs = Rc<Filesystem<Engine>>;

fn identity() -> Identity {
    Identity { pool: 7, handle_key: [3; 16] }
}

fn root() -> Caller {
    Caller { uid: 0, gid: 0, gids: vec![], address: "10.0.0.1".parse().unwrap(), machine: "test".into() }
}

/// What a client was told of a thing that it made.
#[derive(Clone)]
struct Thing {
    handle: Handle,
    kind: FileKind,
    above: usize,
    name: Vec<u8>,
    is_there: bool,
}

/// All that a client knows. The first thing is the root of its datastore.
struct Known {
    things: Vec<Thing>,
    rng: Rng,
}

impl Known {
    fn pick(&mut self, fits: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.things.len()).filter(|&at| self.things[at].is_there && fits(self, at)).collect();
        (!all.is_empty()).then(|| all[self.rng.index(all.len())])
    }

    fn is_directory(&self, at: usize) -> bool {
        self.things[at].kind == FileKind::Directory
    }

    fn is_empty(&self, at: usize) -> bool {
        !self.things.iter().any(|thing| thing.is_there && thing.above == at && thing.name != b"")
    }

    /// One change, as it was answered.
    async fn change(&mut self, fs: &Fs) {
        match self.rng.below(10) {
            0..=5 => self.make(fs).await,
            6 | 7 => self.remove(fs).await,
            _ => self.rename(fs).await,
        }
    }

    async fn make(&mut self, fs: &Fs) {
        let above = self.pick(Known::is_directory).unwrap();
        let name = format!("thing {}", self.things.len()).into_bytes();
        let dir = self.things[above].handle;
        let (at, set) = (Place { dir: &dir, name: &name }, SetAttr::default());
        let (kind, made) = match self.rng.below(4) {
            0 | 1 => (FileKind::Directory, fs.mkdir(&root(), at, set, None).await),
            2 => (FileKind::Regular, fs.create(&root(), at, CreateHow::Guarded(set), None).await),
            _ => (FileKind::Symlink, fs.symlink(&root(), at, NewSymlink { text: b"elsewhere", set }, None).await),
        };
        let handle = made.unwrap().handle;
        let known = self.things.iter().find(|thing| thing.handle.as_bytes() == handle.as_bytes());
        assert!(known.is_none(), "a handle was given out twice");
        self.things.push(Thing { handle, kind, above, name, is_there: true });
    }

    async fn remove(&mut self, fs: &Fs) {
        let Some(gone) = self.pick(|known, at| at > 0 && known.is_empty(at)) else { return };
        let thing = self.things[gone].clone();
        let dir = self.things[thing.above].handle;
        let at = Place { dir: &dir, name: &thing.name };
        match thing.kind {
            FileKind::Directory => drop(fs.rmdir(&root(), at, None).await.unwrap()),
            _ => drop(fs.remove(&root(), at, None).await.unwrap()),
        }
        self.things[gone].is_there = false;
    }

    /// Within its directory, which is never into itself.
    async fn rename(&mut self, fs: &Fs) {
        let Some(moved) = self.pick(|_, at| at > 0) else { return };
        let thing = self.things[moved].clone();
        let dir = self.things[thing.above].handle;
        let name = [&thing.name[..], b"'"].concat();
        let (from, to) = (Place { dir: &dir, name: &thing.name }, Place { dir: &dir, name: &name });
        fs.rename(&root(), from, to, None).await.unwrap();
        self.things[moved].name = name;
    }

    async fn prove(&self, fs: &Fs) {
        for thing in &self.things {
            let found = fs.getattr(&root(), &thing.handle).await;
            if !thing.is_there {
                assert_eq!(found.unwrap_err().why, Refusal::Stale);
                continue;
            }
            assert_eq!(found.unwrap().kind, thing.kind, "{}", String::from_utf8_lossy(&thing.name));
            if !thing.name.is_empty() {
                let at = Place { dir: &self.things[thing.above].handle, name: &thing.name };
                let found = fs.lookup(&root(), at).await.unwrap();
                assert_eq!(found.handle.as_bytes(), thing.handle.as_bytes());
            }
        }
        assert_eq!(fs.check().await.unwrap(), vec![]);
    }
}

async fn open(pool: &Pool, node: &SimNode) -> (Engine, Fs) {
    let (engine, _) = pool.open(node).await.unwrap();
    let fs = Filesystem::open(Rc::new(engine.clone()), node.world(), identity()).await.unwrap();
    (engine, fs)
}

async fn make(pool: &Pool, node: &SimNode, rng: Rng) -> Known {
    pool.format(node).await;
    let (engine, _) = pool.open(node).await.unwrap();
    Filesystem::format(&engine, &node.world(), &identity(), DatastoreOptions::open()).await.unwrap();
    let fs = Filesystem::open(Rc::new(engine), node.world(), identity()).await.unwrap();
    fs.create_datastore("vms", DatastoreOptions::open()).await.unwrap();
    let handle = fs.mount(&root(), b"/vms").await.unwrap().handle;
    let thing = Thing { handle, kind: FileKind::Directory, above: 0, name: Vec::new(), is_there: true };
    Known { things: vec![thing], rng }
}

fn run(seed: u64) {
    let (world, mut rng) = (SimWorld::new(seed), Rng::new(seed).fork("trees"));
    let pool = Pool::new(&world, Shape { legs: 1, ..Shape::draw(&mut rng) });
    let node = world.node();
    let mut known = world.run_until(make(&pool, &node, rng.fork("client"))).done();
    for _ in 0..LIVES {
        end(&pool, &node, &mut rng);
        let node = world.node();
        let life = async {
            let (engine, fs) = open(&pool, &node).await;
            known.prove(&fs).await;
            for _ in 0..rng.below(12) {
                known.change(&fs).await;
                if rng.percent(10) {
                    engine.checkpoint().await.unwrap();
                }
            }
        };
        world.run_until(life).done();
        end(&pool, &node, &mut rng);
    }
    let node = world.node();
    let last = async { known.prove(&open(&pool, &node).await.1).await };
    world.run_until(last).done();
    node.kill();
}

fn end(pool: &Pool, node: &SimNode, rng: &mut Rng) {
    match rng.percent(50) {
        true => pool.cut_power(node),
        false => pool.crash_process(node),
    }
}

/// (T: a directory became a file after a crash, because only ids of files were remembered.)
#[test]
fn a_tree_is_as_it_was_told_after_any_crash() {
    let seeds = std::env::var("VMHOLD_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    for seed in 0..seeds {
        let ended = std::panic::catch_unwind(|| run(seed));
        assert!(ended.is_ok(), "seed {seed}: VMHOLD_SEED={seed} cargo test -p swarm --test trees one_seed");
    }
}

/// Replays one.
#[test]
fn one_seed() {
    run(std::env::var("VMHOLD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0));
}

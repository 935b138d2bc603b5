//! Random operations against a tree of plain maps: the same answers, the same tree, and
//! listings that go on while names come and go.

#![allow(clippy::unwrap_used, clippy::result_large_err, missing_docs, reason = "tests")]

mod lab;

use std::collections::{BTreeMap, BTreeSet};

use datastore::op::{CreateHow, ListingFrom, NewSymlink, Place};
use datastore::{Handle, Refusal, SetAttr};
use engine::store::Piece;
use lab::{Lab, run, user};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

type Name = Vec<u8>;

enum Node {
    Dir { names: BTreeMap<Name, usize>, parent: usize },
    File { content: Vec<u8>, nlink: u32 },
    Link { text: Vec<u8>, nlink: u32 },
}

/// The reference. Nodes are never reused; a removed one is `None`.
struct Model {
    nodes: Vec<Option<Node>>,
    handles: Vec<Handle>,
}

const ROOT: usize = 0;

impl Model {
    fn dir(&self, dir: usize) -> Result<&BTreeMap<Name, usize>, Refusal> {
        match &self.nodes[dir] {
            None => Err(Refusal::Stale),
            Some(Node::Dir { names, .. }) => Ok(names),
            Some(_) => Err(Refusal::NotDirectory),
        }
    }

    fn names_mut(&mut self, dir: usize) -> &mut BTreeMap<Name, usize> {
        match &mut self.nodes[dir] {
            Some(Node::Dir { names, .. }) => names,
            _ => unreachable!("checked before"),
        }
    }

    fn is_dir(&self, node: usize) -> bool {
        matches!(self.nodes[node], Some(Node::Dir { .. }))
    }

    fn can_make(&self, dir: usize, name: &[u8]) -> Result<(), Refusal> {
        if self.dir(dir)?.contains_key(name) { Err(Refusal::Exists) } else { Ok(()) }
    }

    fn made(&mut self, dir: usize, name: &[u8], node: Node, handle: Handle) {
        self.nodes.push(Some(node));
        self.handles.push(handle);
        let id = self.nodes.len() - 1;
        self.names_mut(dir).insert(name.to_vec(), id);
    }

    fn unlink(&mut self, node: usize) {
        let gone = match self.nodes[node].as_mut().unwrap() {
            Node::Dir { .. } => true,
            Node::File { nlink, .. } | Node::Link { nlink, .. } => {
                *nlink -= 1;
                *nlink == 0
            }
        };
        if gone {
            self.nodes[node] = None;
        }
    }

    fn remove(&mut self, dir: usize, name: &[u8], directory: bool) -> Result<(), Refusal> {
        let node = *self.dir(dir)?.get(name).ok_or(Refusal::NoEntry)?;
        match (directory, self.is_dir(node)) {
            (false, true) => return Err(Refusal::IsDirectory),
            (true, false) => return Err(Refusal::NotDirectory),
            (true, true) if !self.dir(node)?.is_empty() => return Err(Refusal::NotEmpty),
            _ => {}
        }
        self.names_mut(dir).remove(name);
        self.unlink(node);
        Ok(())
    }

    fn below(&self, mut dir: usize, top: usize) -> bool {
        loop {
            if dir == top {
                return true;
            }
            match &self.nodes[dir] {
                Some(Node::Dir { parent, .. }) if dir != ROOT => dir = *parent,
                _ => return false,
            }
        }
    }

    fn rename(&mut self, from: usize, name: &[u8], to: usize, new: &[u8]) -> Result<(), Refusal> {
        self.dir(from)?;
        self.dir(to)?;
        let source = *self.dir(from)?.get(name).ok_or(Refusal::NoEntry)?;
        let target = self.dir(to)?.get(new).copied();
        if target == Some(source) {
            return Ok(());
        }
        if let Some(target) = target {
            match (self.is_dir(source), self.is_dir(target)) {
                (true, false) => return Err(Refusal::NotDirectory),
                (false, true) => return Err(Refusal::IsDirectory),
                (true, true) if !self.dir(target)?.is_empty() => return Err(Refusal::NotEmpty),
                _ => {}
            }
        }
        if self.is_dir(source) && from != to && self.below(to, source) {
            return Err(Refusal::IntoItself);
        }
        self.names_mut(from).remove(name);
        self.names_mut(to).insert(new.to_vec(), source);
        if let Some(target) = target {
            self.unlink(target);
        }
        if let Some(Node::Dir { parent, .. }) = &mut self.nodes[source] {
            *parent = to;
        }
        Ok(())
    }

    fn link(&mut self, file: usize, to: usize, name: &[u8]) -> Result<(), Refusal> {
        self.dir(to)?;
        match &self.nodes[file] {
            None => return Err(Refusal::Stale),
            Some(Node::Dir { .. }) => return Err(Refusal::IsDirectory),
            Some(_) => {}
        }
        self.can_make(to, name)?;
        self.names_mut(to).insert(name.to_vec(), file);
        if let Some(Node::File { nlink, .. } | Node::Link { nlink, .. }) = &mut self.nodes[file] {
            *nlink += 1;
        }
        Ok(())
    }

    fn write(&mut self, file: usize, offset: usize, data: &[u8]) -> Result<(), Refusal> {
        match &mut self.nodes[file] {
            None => Err(Refusal::Stale),
            Some(Node::Dir { .. }) => Err(Refusal::IsDirectory),
            Some(Node::Link { .. }) => Err(Refusal::WrongKind),
            Some(Node::File { content, .. }) => {
                content.resize(content.len().max(offset + data.len()), 0);
                content[offset..offset + data.len()].copy_from_slice(data);
                Ok(())
            }
        }
    }
}

/// A listing under way: what was there when it began and stayed, and what it showed.
struct Cursor {
    dir: usize,
    cookie: u64,
    stayed: BTreeSet<Name>,
    ever: BTreeSet<Name>,
    shown: Vec<Name>,
}

struct Run {
    lab: Lab,
    model: Model,
    rng: SmallRng,
    cursor: Option<Cursor>,
    listings: usize,
}

fn why<T, W>(result: Result<T, datastore::Refused<W>>) -> Result<T, Refusal> {
    result.map_err(|refused| refused.why)
}

impl Run {
    fn new(seed: u64) -> Run {
        let lab = Lab::new();
        let root = Node::Dir { names: BTreeMap::new(), parent: ROOT };
        let model = Model { nodes: vec![Some(root)], handles: vec![lab.root] };
        Run { lab, model, rng: SmallRng::seed_from_u64(seed), cursor: None, listings: 0 }
    }

    fn name(&mut self) -> Name {
        let n = self.rng.random_range(0..6u8);
        vec![b'a' + n; if n == 5 { 255 } else { 1 + n as usize }]
    }

    /// Mostly living directories, sometimes anything that ever was.
    fn pick_dir(&mut self) -> usize {
        for _ in 0..8 {
            let node = self.rng.random_range(0..self.model.nodes.len());
            if self.model.is_dir(node) {
                return node;
            }
        }
        if self.rng.random_bool(0.7) { ROOT } else { self.pick_any() }
    }

    fn pick_any(&mut self) -> usize {
        let recent = self.model.nodes.len().saturating_sub(12);
        self.rng.random_range(recent..self.model.nodes.len())
    }

    fn step(&mut self) {
        let (dir, name) = (self.pick_dir(), self.name());
        let handle = self.model.handles[dir];
        let at = Place { dir: &handle, name: &name };
        let (fs, root) = (self.lab.fs.clone(), user(0));
        match self.rng.random_range(0..20) {
            0..=3 => {
                let made = why(run(fs.create(&root, at, CreateHow::Guarded(SetAttr::default()), None)));
                assert_eq!(made.map(drop), self.model.can_make(dir, &name));
                if let Ok(made) = made {
                    self.model.made(dir, &name, Node::File { content: vec![], nlink: 1 }, made.handle);
                }
            }
            4 | 5 => {
                let made = why(run(fs.mkdir(&root, at, SetAttr::default(), None)));
                assert_eq!(made.map(drop), self.model.can_make(dir, &name));
                if let Ok(made) = made {
                    self.model.made(dir, &name, Node::Dir { names: BTreeMap::new(), parent: dir }, made.handle);
                }
            }
            6 => {
                let text = vec![b't'; self.rng.random_range(1..2100)];
                let new = NewSymlink { text: &text, set: SetAttr::default() };
                let made = why(run(fs.symlink(&root, at, new, None)));
                assert_eq!(made.map(drop), self.model.can_make(dir, &name));
                if let Ok(made) = made {
                    self.model.made(dir, &name, Node::Link { text, nlink: 1 }, made.handle);
                }
            }
            7..=9 => {
                let directory = self.rng.random_bool(0.5);
                let done = if directory { run(fs.rmdir(&root, at, None)) } else { run(fs.remove(&root, at, None)) };
                assert_eq!(why(done).map(drop), self.model.remove(dir, &name, directory));
            }
            10..=13 => {
                let (to, new) = (self.pick_dir(), self.name());
                let to_handle = self.model.handles[to];
                let done = run(fs.rename(&root, at, Place { dir: &to_handle, name: &new }, None));
                assert_eq!(why(done).map(drop), self.model.rename(dir, &name, to, &new));
            }
            14 => {
                let file = self.pick_any();
                let file_handle = self.model.handles[file];
                let done = run(fs.link(&root, &file_handle, at, None));
                assert_eq!(why(done).map(drop), self.model.link(file, dir, &name));
            }
            15 | 16 => {
                let file = self.pick_any();
                let file_handle = self.model.handles[file];
                let offset = self.rng.random_range(0..20_000);
                let data = vec![self.rng.random_range(0..4u8); self.rng.random_range(1..9000)];
                let done = run(fs.write(&root, &file_handle, offset as u64, &[&data]));
                assert_eq!(why(done).map(drop), self.model.write(file, offset, &data));
            }
            17 => self.lab.reopen(),
            _ => self.list_on(),
        }
        self.note_names();
    }

    /// After each step: which names of the listed directory have stayed, which ever were.
    fn note_names(&mut self) {
        let Some(cursor) = &mut self.cursor else { return };
        let Ok(names) = self.model.dir(cursor.dir) else {
            self.cursor = None;
            return;
        };
        cursor.stayed.retain(|name| names.contains_key(name));
        cursor.ever.extend(names.keys().cloned());
    }

    fn list_on(&mut self) {
        let limit = self.rng.random_range(1..4);
        let Some(mut cursor) = self.cursor.take() else {
            let dir = self.pick_dir();
            if let Ok(names) = self.model.dir(dir) {
                let names: BTreeSet<Name> = names.keys().cloned().collect();
                self.cursor = Some(Cursor { dir, cookie: 0, stayed: names.clone(), ever: names, shown: vec![] });
            }
            return;
        };
        let handle = self.model.handles[cursor.dir];
        let from = ListingFrom { cookie: cursor.cookie, limit };
        let listing = why(run(self.lab.fs.readdir(&user(0), &handle, from))).unwrap();
        assert!(listing.entries.windows(2).all(|pair| pair[0].cookie < pair[1].cookie));
        for entry in listing.entries {
            assert!(entry.cookie > cursor.cookie);
            cursor.cookie = entry.cookie;
            if entry.name != b"." && entry.name != b".." {
                cursor.shown.push(entry.name);
            }
        }
        if listing.eof {
            let shown: BTreeSet<Name> = cursor.shown.iter().cloned().collect();
            assert!(cursor.stayed.is_subset(&shown), "a name that stayed was not shown");
            assert!(shown.is_subset(&cursor.ever), "a name that never was was shown");
            for name in &cursor.stayed {
                // Replacing what a name stands for leaves it in its place.
                let times = cursor.shown.iter().filter(|shown| *shown == name).count();
                assert_eq!(times, 1, "a name that stayed was shown more than once");
            }
            self.listings += 1;
        } else {
            self.cursor = Some(cursor);
        }
    }

    /// Everything the client can see is what the model holds.
    fn compare(&self) {
        let root = user(0);
        for (node, handle) in self.model.nodes.iter().zip(&self.model.handles) {
            let attr = why(run(self.lab.fs.getattr(&root, handle)));
            match node {
                None => assert_eq!(attr, Err(Refusal::Stale)),
                Some(Node::File { content, nlink }) => {
                    let attr = attr.unwrap();
                    assert_eq!((attr.nlink, attr.size_bytes), (*nlink, content.len() as u64));
                    let done = run(self.lab.fs.read(&root, handle, 0, 1 << 20)).unwrap();
                    let bytes: Vec<u8> = done
                        .pieces
                        .iter()
                        .flat_map(|piece| match piece {
                            Piece::Data(data) => data.to_vec(),
                            Piece::Zeros(len) => vec![0; *len],
                        })
                        .collect();
                    assert_eq!(&bytes, content);
                }
                Some(Node::Link { text, nlink }) => {
                    assert_eq!(attr.unwrap().nlink, *nlink);
                    assert_eq!(&run(self.lab.fs.readlink(&root, handle)).unwrap().text, text);
                }
                Some(Node::Dir { names, .. }) => self.compare_dir(handle, names, attr.unwrap().nlink),
            }
        }
    }

    fn compare_dir(&self, handle: &Handle, names: &BTreeMap<Name, usize>, nlink: u32) {
        let directories = names.values().filter(|node| self.model.is_dir(**node)).count() as u32;
        assert_eq!(nlink, 2 + directories);
        let from = ListingFrom { cookie: 2, limit: 1000 };
        let listing = run(self.lab.fs.readdirplus(&user(0), handle, from)).unwrap();
        let listed: BTreeMap<Name, Handle> =
            listing.entries.into_iter().map(|entry| (entry.name, entry.plus.unwrap().0)).collect();
        let expected: BTreeMap<Name, Handle> =
            names.iter().map(|(name, node)| (name.clone(), self.model.handles[*node])).collect();
        assert_eq!(listed, expected);
    }
}

#[test]
fn random_operations_agree_with_a_tree_of_maps() {
    let mut listings = 0;
    for seed in 0..80 {
        let mut run = Run::new(seed);
        for _ in 0..300 {
            run.step();
        }
        run.compare();
        run.lab.assert_clean();
        listings += run.listings;
    }
    assert!(listings > 200, "only {listings} listings were finished");
}

//! Between the sites: a link that loses what is on its way when it is cut, and the witness.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use base::port::{Clock, LocalFuture};
use base::{Buf, WallNanos};
use mirror::Input;
use mirror::wire::{Frame, LENGTH_BYTES};
use replica::{Outside, Replica};
use witness::lease::Grant;
use witness::{Ask, Grounds, Lease, Standing, TransitionKind, judge};
use world_sim::node::sleep_for;
use world_sim::{Rng, SimNode, SimWorld};

use super::{PAIR, founded};

/// A connection: what is on its way to each end.
struct Line {
    number: u64,
    ends: [bool; 2],
    queues: [VecDeque<Buf>; 2],
    /// A frame to this end was lost: none behind it arrives either.
    lost: [bool; 2],
}

/// See the module's head.
pub struct Net {
    hub: SimNode,
    rng: RefCell<Rng>,
    line: RefCell<Option<Line>>,
    links: Cell<u64>,
    is_cut: Cell<bool>,
    replicas: RefCell<[Option<Replica>; 2]>,
    lives: [Cell<u64>; 2],
    standing: Cell<Standing>,
    transitions: RefCell<Vec<TransitionKind>>,
    is_traced: bool,
    grant: Cell<Grant>,
}

/// What one life of a site reaches.
pub struct End {
    net: Rc<Net>,
    site: usize,
    life: u64,
}

impl Outside for End {
    fn send(&self, link: u64, frame: Frame) {
        if self.is_alive() {
            self.net.send(self.site, link, &frame);
        }
    }

    fn hang(&self, link: u64) {
        if self.is_alive() {
            self.net.end_line(link);
        }
    }

    fn ask(&self, number: u64, ask: Ask) {
        self.net.ask((self.site, self.life), number, ask);
    }

    fn notice(&self, _standing: Standing) {}
}

impl End {
    fn is_alive(&self) -> bool {
        self.net.lives[self.site].get() == self.life
    }
}

impl Net {
    pub fn new(world: &SimWorld) -> Rc<Net> {
        let hub = world.node();
        let now = hub.world().clock.now();
        let net = Rc::new(Net {
            rng: RefCell::new(world.rng("net")),
            line: RefCell::default(),
            links: Cell::new(0),
            is_cut: Cell::new(false),
            replicas: RefCell::default(),
            lives: Default::default(),
            standing: Cell::new(founded()),
            transitions: RefCell::default(),
            is_traced: std::env::var_os("VMHOLD_TRACE").is_some(),
            grant: Cell::new(Grant::ended(now)),
            hub,
        });
        let connector = net.clone();
        net.spawn(Box::pin(async move {
            loop {
                connector.pause(1, 60).await;
                connector.connect();
            }
        }));
        net
    }

    pub fn clock(&self) -> Rc<dyn Clock> {
        self.hub.world().clock
    }

    pub fn spawn(&self, task: LocalFuture<'static, ()>) {
        self.hub.world().spawn.spawn("net", task);
    }

    async fn pause(&self, low_ms: u64, high_ms: u64) {
        let time = Duration::from_micros(self.rng.borrow_mut().between(low_ms * 1000, high_ms * 1000));
        sleep_for(&*self.clock(), time).await;
    }

    pub fn end(self: &Rc<Self>, site: usize) -> End {
        End { net: self.clone(), site, life: self.lives[site].get() }
    }

    pub fn is_up(&self, site: usize, replica: Replica) {
        self.replicas.borrow_mut()[site] = Some(replica);
    }

    pub fn is_down(self: &Rc<Self>, site: usize) {
        self.lives[site].set(self.lives[site].get() + 1);
        let gone = self.replicas.borrow_mut()[site].take();
        drop(gone);
        let number = self.line.borrow_mut().as_mut().map(|line| {
            line.ends[site] = false;
            line.number
        });
        if let Some(number) = number {
            self.end_line(number);
        }
    }

    pub fn replica(&self, site: usize) -> Option<Replica> {
        self.replicas.borrow()[site].clone()
    }

    pub fn standing(&self) -> Standing {
        self.standing.get()
    }

    /// How the record has changed.
    pub fn transitions(&self) -> Vec<TransitionKind> {
        self.transitions.borrow().clone()
    }

    pub fn links(&self) -> u64 {
        self.links.get()
    }

    /// With `VMHOLD_TRACE` everything that passes is told.
    fn trace(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            let now = self.clock().now().0 as f64 / 1e9;
            println!("{now:>12.6} {:.240}", what());
        }
    }

    fn tell(&self, site: usize, input: Input) {
        match &input {
            Input::LinkUp(number) => self.trace(|| format!("{site} is linked: {number}")),
            Input::LinkDown(number) => self.trace(|| format!("{site} has lost {number}")),
            _ => {}
        }
        if let Some(replica) = self.replica(site) {
            replica.tell(input);
        }
    }

    fn connect(self: &Rc<Self>) {
        let both = self.replicas.borrow().iter().all(Option::is_some);
        if !both || self.is_cut.get() || self.line.borrow().is_some() {
            return;
        }
        let number = self.links.get() + 1;
        self.links.set(number);
        let (queues, lost) = Default::default();
        *self.line.borrow_mut() = Some(Line { number, ends: [true; 2], queues, lost });
        for site in 0..2 {
            if self.has_end(site, number) {
                self.tell(site, Input::LinkUp(number));
            }
        }
    }

    fn has_end(&self, site: usize, number: u64) -> bool {
        self.line.borrow().as_ref().is_some_and(|line| line.number == number && line.ends[site])
    }

    fn send(self: &Rc<Self>, from: usize, number: u64, frame: &Frame) {
        let to = 1 - from;
        self.trace(|| format!("{from} sends on {number}: {:?}", frame.message));
        let encoded = frame.encode(PAIR);
        let bytes: Buf = [&encoded.head[LENGTH_BYTES..], &encoded.payload].concat().into();
        {
            let mut line = self.line.borrow_mut();
            let Some(line) = line.as_mut().filter(|line| line.number == number && line.ends == [true; 2]) else {
                return;
            };
            if self.is_cut.get() {
                line.lost[to] = true;
                return;
            }
            line.queues[to].push_back(bytes);
        }
        let net = self.clone();
        self.spawn(Box::pin(async move {
            net.pause(0, 2).await;
            net.deliver(to, number);
        }));
    }

    /// The next frame arrives, whichever it is that the time is over of.
    fn deliver(&self, to: usize, number: u64) {
        let frame = {
            let mut line = self.line.borrow_mut();
            let Some(line) = line.as_mut().filter(|line| line.number == number && line.ends[to]) else { return };
            line.lost[to] |= self.is_cut.get();
            if line.lost[to] {
                return;
            }
            let Some(bytes) = line.queues[to].pop_front() else { return };
            Frame::decode(PAIR, &bytes).unwrap()
        };
        self.tell(to, Input::Received(number, frame));
    }

    /// Each end notices in its own time.
    pub fn end_line(self: &Rc<Self>, number: u64) {
        for site in 0..2 {
            let net = self.clone();
            self.spawn(Box::pin(async move {
                net.pause(0, 300).await;
                net.line_is_down(site, number);
            }));
        }
    }

    fn line_is_down(&self, site: usize, number: u64) {
        let had_end = {
            let mut line = self.line.borrow_mut();
            let Some(now) = line.as_mut().filter(|line| line.number == number) else { return };
            let had_end = std::mem::replace(&mut now.ends[site], false);
            if now.ends == [false; 2] {
                *line = None;
            }
            had_end
        };
        if had_end {
            self.tell(site, Input::LinkDown(number));
        }
    }

    pub fn snap(self: &Rc<Self>) {
        let number = self.line.borrow().as_ref().map(|line| line.number);
        if let Some(number) = number {
            self.end_line(number);
        }
    }

    pub fn cut(self: &Rc<Self>, lasts: Duration) {
        self.is_cut.set(true);
        let net = self.clone();
        self.spawn(Box::pin(async move {
            sleep_for(&*net.clock(), lasts).await;
            net.is_cut.set(false);
        }));
    }

    fn ask(self: &Rc<Self>, (site, life): (usize, u64), number: u64, ask: Ask) {
        let net = self.clone();
        self.spawn(Box::pin(async move {
            net.pause(0, 5).await;
            let now = net.clock().now();
            let grounds = Grounds { lease_left: net.grant.get().left(now), told_by_other: None, wall: WallNanos(0) };
            let verdict = judge::judge(Some(&net.standing.get()), &ask, &grounds);
            let standing = verdict.standing.unwrap();
            net.trace(|| format!("{site} asks {:?}: {:?}", ask.kind, verdict.outcome));
            if standing.version > net.standing.replace(standing).version {
                net.transitions.borrow_mut().push(standing.last.kind);
            }
            match verdict.outcome {
                Ok(Lease::Runs) => net.grant.set(Grant::from(now, standing.lease())),
                Ok(Lease::Over) => net.grant.set(Grant::ended(now)),
                _ => {}
            }
            net.pause(0, 5).await;
            if net.lives[site].get() == life {
                net.tell(site, Input::Answered(number, verdict));
            }
        }));
    }
}

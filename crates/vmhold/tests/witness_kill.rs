//! The real witness, killed for real: two sites go alone, come back in sync and take over by
//! turns over TLS, while the process gets SIGKILL at random moments and is started again on
//! its folder. No answer is ever taken back, and no lease is over early.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use base::port::{Clock, LocalFuture};
use base::{Nanos, Osn, PairId, SiteId, WallNanos};
use witness::{Ask, AskKind, Lease, Refusal, Standing, Verdict};
use witness_serve::client::WitnessClient;
use witness_serve::membership::Membership;

const PAIR: PairId = PairId([7; 16]);
const LEASE: Duration = Duration::from_millis(1000);
/// Kills of one run; `VMHOLD_WITNESS_KILLS` asks for more.
const KILLS: usize = 15;

struct House {
    dir: tempfile::TempDir,
    witness: Option<Child>,
    listen: String,
}

impl Drop for House {
    fn drop(&mut self) {
        self.kill();
    }
}

fn vmhold(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmhold"));
    command.args(words).arg("--dir").arg(dir).env_remove("VMHOLD_DIR").env_remove("VMHOLD_API");
    command.stdin(Stdio::null());
    command
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

impl House {
    fn new() -> Self {
        let mut house = Self { dir: tempfile::tempdir().unwrap(), witness: None, listen: "127.0.0.1:0".into() };
        house.start();
        house
    }

    fn witness_dir(&self) -> PathBuf {
        self.dir.path().join("w")
    }

    /// Starts it and returns when it has told that its doors are open.
    fn start(&mut self) {
        let mut command = vmhold(&self.witness_dir(), &["witness", "serve", "--json", "--listen", &self.listen]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        self.witness = Some(child);
        let told: serde_json::Value = serde_json::from_str(&line).expect("it tells when it serves");
        self.listen = told["data"]["listen"].as_str().unwrap().to_owned();
    }

    fn kill(&mut self) {
        if let Some(mut witness) = self.witness.take() {
            let _ = witness.kill();
            let _ = witness.wait();
        }
    }

    fn run(&self, dir: &Path, words: &[&str]) -> Output {
        vmhold(dir, &[words, &["--json"]].concat()).output().unwrap()
    }

    fn join(&self, name: &str) -> (SiteId, WitnessClient) {
        let made = self.run(&self.witness_dir(), &["witness", "invite", name]);
        let token = json(&made)["data"]["token"].as_str().unwrap().to_owned();
        let site_dir = self.dir.path().join(name);
        let added = self.run(&site_dir, &["witness", "add", &token]);
        assert!(added.status.success(), "{added:?}");
        let membership = Membership::of(&site_dir).unwrap();
        let client = WitnessClient::of_site(&membership, Duration::from_millis(500)).unwrap();
        (membership.site().unwrap(), client)
    }
}

struct Monotonic(Instant);

impl Clock for Monotonic {
    fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap())
    }
    fn wall(&self) -> WallNanos {
        WallNanos(0)
    }
    fn sleep_until(&self, at: Nanos) -> LocalFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until((self.0 + Duration::from_nanos(at.0)).into()))
    }
}

/// What both sites together were told, and what must stay true of it.
#[derive(Default)]
struct Told {
    newest: Cell<Option<Standing>>,
    /// Primary and time of the newest grant of a lease: when its question left.
    granted: Cell<Option<(SiteId, u64, Nanos)>>,
    takeovers: Cell<u32>,
    changes: Cell<u64>,
    heard: tokio::sync::Notify,
    wrong: RefCell<Vec<String>>,
}

impl Told {
    /// Enough happened for the promises to have been tried; a minute without it is a failure.
    async fn enough(&self) {
        let enough = async {
            loop {
                let heard = self.heard.notified();
                if self.changes.get() > 10 && self.takeovers.get() >= 1 {
                    return;
                }
                heard.await;
            }
        };
        let within = tokio::time::timeout(Duration::from_secs(60), enough).await;
        assert!(within.is_ok(), "{} changes, {} takeovers in a minute", self.changes.get(), self.takeovers.get());
    }

    /// `[sent, now]` are when the question left and when its answer was read.
    fn hear(&self, ask: &Ask, [sent, now]: [Nanos; 2], newest_at_sent: u64, verdict: &Verdict) {
        self.heard.notify_waiters();
        let standing = verdict.standing.expect("the record was founded before the first kill");
        // Whoever asks after an answer has arrived must see it, or something newer.
        if standing.version < newest_at_sent {
            self.say(format!("version {} was told, then {}", newest_at_sent, standing.version));
        }
        if let Some(newest) = self.newest.get() {
            let same = newest.version != standing.version || newest == standing;
            let order = (newest.version < standing.version) == (newest.epoch < standing.epoch);
            if !same || (newest.epoch != standing.epoch && !order) {
                self.say(format!("two records: {newest:?} and {standing:?}"));
            }
        }
        if self.newest.get().is_none_or(|newest| newest.version < standing.version) {
            self.newest.set(Some(standing));
            self.changes.set(self.changes.get() + 1);
        }
        if verdict.outcome != Ok(Lease::Runs) {
            return;
        }
        let taken_over = matches!(ask.kind, AskKind::TakeOver { .. });
        if let Some((holder, _, granted)) = self.granted.get().filter(|_| taken_over)
            && holder != ask.from
            && now < granted + LEASE
        {
            self.say(format!("taken over {:?} after a lease of {LEASE:?} was granted", now.since(granted)));
        }
        self.takeovers.set(self.takeovers.get() + u32::from(taken_over));
        if self.granted.get().is_none_or(|(_, version, at)| (version, at) < (standing.version, sent)) {
            self.granted.set(Some((ask.from, standing.version, sent)));
        }
    }

    fn say(&self, what: String) {
        self.wrong.borrow_mut().push(what);
    }
}

fn next_ask(site: SiteId, known: &Standing, turn: u64) -> AskKind {
    let in_sync_through = Osn(turn);
    match (known.primary == site, known.in_sync) {
        // Silent now and then, so that its lease ends and the other one has a chance.
        (true, true) if turn % 60 >= 30 => AskKind::Look,
        (true, true) if turn.is_multiple_of(7) => AskKind::GoAlone { in_sync_through },
        (true, true) => AskKind::Renew { epoch: known.epoch },
        (false, false) => AskKind::Look,
        (true, false) => AskKind::InSync,
        (false, true) => AskKind::TakeOver { in_sync_through },
    }
}

async fn site(site: SiteId, mut client: WitnessClient, told: Rc<Told>, done: Rc<Cell<bool>>, clock: Rc<Monotonic>) {
    let mut known = told.newest.get().unwrap();
    let mut turn = 0;
    while !done.get() {
        turn += 1;
        let ask = Ask { pair: PAIR, from: site, seen_version: known.version, kind: next_ask(site, &known, turn) };
        let newest_at_sent = told.newest.get().map_or(0, |newest| newest.version);
        match client.ask(&ask, &*clock).await {
            Ok((sent, verdict)) => {
                told.hear(&ask, [sent, clock.now()], newest_at_sent, &verdict);
                assert!(!matches!(verdict.outcome, Err(Refusal::Amnesia)), "it has forgotten: {verdict:?}");
                known = verdict.standing.unwrap();
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        tokio::time::sleep(Duration::from_millis(if known.primary == site && turn % 60 >= 30 { 45 } else { 8 })).await;
    }
}

#[test]
fn killed_at_random_it_takes_no_answer_back() {
    let kills = std::env::var("VMHOLD_WITNESS_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let mut house = House::new();
    let (a, client_a) = house.join("site-a");
    let (b, client_b) = house.join("site-b");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let (told, done) = (Rc::new(Told::default()), Rc::new(Cell::new(false)));
    let clock = Rc::new(Monotonic(Instant::now()));
    local.block_on(&runtime, async {
        let mut client_a = client_a;
        for (seen_version, kind) in
            [(0, AskKind::Found { lease_ms: 1000 }), (1, AskKind::Join { secondary: b }), (2, AskKind::InSync)]
        {
            let ask = Ask { pair: PAIR, from: a, seen_version, kind };
            let (sent, verdict) = client_a.ask(&ask, &*clock).await.unwrap();
            told.hear(&ask, [sent, clock.now()], seen_version, &verdict);
        }
        let sites = [
            tokio::task::spawn_local(site(a, client_a, told.clone(), done.clone(), clock.clone())),
            tokio::task::spawn_local(site(b, client_b, told.clone(), done.clone(), clock.clone())),
        ];
        let mut random = u64::from(std::process::id()) | 1;
        for _ in 0..kills {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            tokio::time::sleep(Duration::from_millis(50 + (random >> 33) % 2500)).await;
            house.kill();
            house.start();
        }
        // With nobody killing any more, leases end and somebody takes over.
        told.enough().await;
        done.set(true);
        for site in sites {
            site.await.unwrap();
        }
    });
    assert!(told.wrong.borrow().is_empty(), "{:?}", told.wrong.borrow());
    println!("{} changes, {} takeovers, {kills} kills", told.changes.get(), told.takeovers.get());

    let status = json(&house.run(&house.witness_dir(), &["witness", "status"]));
    let newest = told.newest.get().unwrap();
    assert!(status["data"]["pairs"][0]["version"].as_u64().unwrap() >= newest.version, "{status}");
    assert_eq!(status["data"]["sites"].as_array().unwrap().len(), 2);
}

#[test]
fn people_are_told_what_is_wrong_and_what_to_do() {
    let house = House::new();
    let site_dir = house.dir.path().join("site-a");
    std::fs::create_dir(&site_dir).unwrap();
    for (dir, words, exit, code) in [
        (&site_dir, &["witness", "status"][..], 3, "VH4028"),
        (&site_dir, &["witness", "invite", "site-a"], 3, "VH4028"),
        (&site_dir, &["witness", "add", "nonsense"], 2, "VH7400"),
        (&house.witness_dir(), &["witness", "invite", "No Name"], 2, "VH7400"),
        (&house.witness_dir(), &["witness", "remove", "site-x", "--confirm=site-x"], 3, "VH4027"),
        (&house.witness_dir(), &["witness", "serve", "--listen", "127.0.0.1:0"], 5, "VH8003"),
    ] {
        let output = house.run(dir, words);
        assert_eq!(output.status.code(), Some(exit), "{words:?} {output:?}");
        assert_eq!(json(&output)["error"]["code"], code, "{words:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("try:"), "{words:?}");
    }
    house.join("site-a");
    let planned = house.run(&house.witness_dir(), &["witness", "remove", "site-a", "--dry-run"]);
    assert!(json(&planned)["data"]["would"][0].is_string(), "{planned:?}");
    let unconfirmed = house.run(&house.witness_dir(), &["witness", "remove", "site-a"]);
    assert_eq!(unconfirmed.status.code(), Some(6));
    let tested = house.run(&site_dir, &["witness", "test"]);
    assert!(json(&tested)["data"]["round_trip_ms"].as_f64().unwrap() > 0.0, "{tested:?}");
    let text = vmhold(&site_dir, &["witness", "status"]).output().unwrap();
    assert!(String::from_utf8_lossy(&text.stdout).contains("site-a"), "{text:?}");
    let mut house = house;
    house.kill();
    let lost = house.run(&site_dir, &["witness", "test"]);
    assert_eq!((lost.status.code(), json(&lost)["error"]["code"].as_str()), (Some(8), Some("VH4021")));
}

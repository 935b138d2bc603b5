//! A server over a store that exists on paper only, and clients of every role.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use base::meter::Sums;
use control::Problem;
use control::access::{Access, Role, Secret, Shelf, TokenCreate};
use control::activity::{Measured, MeasuredFile};
use control::activity_book::{ActivityBook, MemoryFolder};
use control::audit::Audit;
use control::check::{CheckpointReport, FsckReport, ResilverReport, ResilveredLeg};
use control::client::{Call, Client};
use control::codes;
use control::datastore::{Datastore, DatastoreCreate, DatastoreDeleted};
use control::events::EventBook;
use control::expansion::{ExpandOrder, JoinedDrive, PoolExpanded};
use control::history::HistoryBook;
use control::inject::{FaultOrder, FlipOrder, FlippedByte, InjectedFault};
use control::integrity::{IntegrityOrder, KeptEvidence, LastIntegrityCheck};
use control::jobs::JobBook;
use control::ledger::MemoryLedger;
use control::pool::{Journal, JournalKind, JournalLeg, Pool, PoolState};
use control::replacement::{SiteReplaced, SiteReplacement};
use control::replication::{PairState, Reach, Replication, ReplicationAction, Role as SiteRole};
use control::roles::RoleBook;
use control::server::{Answer, Api, Books, ControlBackend, serve};
use control::status::{Facts, Latency, Load, Memory, NfsService};
use control::tls::{self, Fingerprint};
use control::upkeep::{DriveTaken, ScrubAction, ScrubPass, ScrubReport};
use control::vm::{Vm, VmAssignment, VmChanged, VmDifference, VmFile, VmLimits, VmScheduleOrder, VmSnapshot};
use control::vm_file::{FileClone, FileSnapshot};

/// A store that is only a list of datastores.
#[derive(Default)]
pub struct Paper {
    datastores: Mutex<Vec<Datastore>>,
    /// Changes that were really made.
    pub changes: AtomicU64,
    /// Does not answer questions any more.
    pub is_silent: AtomicBool,
}

fn now<T: Send + 'static>(result: Result<T, Problem>) -> Answer<'static, T> {
    Box::pin(std::future::ready(result))
}

fn pool() -> Pool {
    Pool {
        name: "flash0".into(),
        group: "g".into(),
        owner_epoch: Some(1),
        state: PoolState::Online,
        stripe_data: 3,
        stripe_parity: 2,
        failures_tolerated: Some(2),
        failures_tolerated_normally: 2,
        usable_bytes: Some(100),
        used_bytes: Some(10),
        free_bytes: Some(90),
        reserved_bytes: None,
        logical_bytes: None,
        dedup_ratio: None,
        compression_ratio: None,
        written_stripes: None,
        free_stripes: None,
        last_scrub: None,
        repaired_units: None,
        lost_stripes: None,
        doubted_drives: Vec::new(),
        rebuild: None,
        expansions: Vec::new(),
        lab: false,
        faults: Vec::new(),
        drives: Vec::new(),
        io: None,
    }
}

fn scrub_report(state: &str) -> ScrubReport {
    let pass = ScrubPass {
        number: 1,
        started_at: None,
        ended_at: None,
        stripes: 1,
        objects: 0,
        repaired_units: 0,
        unrepaired: 0,
    };
    ScrubReport {
        pool: "flash0".into(),
        state: state.into(),
        pass,
        stripes_total: 4,
        percent: 25.0,
        interval_seconds: 1.0,
        eta_seconds: Some(3.0),
        overdue: false,
        history: Vec::new(),
    }
}

/// The one VM there is.
fn vm() -> Vm {
    let path = "images/100/vm-100-disk-0.raw".into();
    let file = VmFile { path, role: "disk".into(), size_bytes: 1, used_bytes: 1 };
    let (datastore, name) = ("demo".to_owned(), "100".to_owned());
    let created_at = jiff::Timestamp::UNIX_EPOCH;
    let (of, vm) = (datastore.clone(), name.clone());
    let snapshot = VmSnapshot { datastore: of, vm, name: "before".into(), created_at, files: 1, scheduled: false };
    Vm {
        datastore,
        name,
        files: vec![file],
        snapshots: vec![snapshot],
        schedule: None,
        limits: VmLimits::default(),
        now: None,
    }
}

/// The pair it is one half of.
fn pair() -> Replication {
    let reach = |address: &str| Reach { address: address.into(), answers: true, why_not: None };
    Replication {
        pair: "07".repeat(16),
        pool: "flash0".into(),
        address: "127.0.0.1:20049".into(),
        site: "site-a".into(),
        role: SiteRole::Primary,
        serves: true,
        state: PairState::InSync,
        epoch: Some(1),
        peer: reach("127.0.0.2:7441"),
        witness: reach("127.0.0.3:7440"),
        may_lack_after: None,
        failover_waits_for: Vec::new(),
        last_check: None,
    }
}

impl ControlBackend for Paper {
    fn facts(&self) -> Answer<'_, Facts> {
        if self.is_silent.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        let leg = JournalLeg { path: "j".into(), kind: JournalKind::File, in_use: true, reason: None };
        let nfs = NfsService {
            host: "127.0.0.1".into(),
            port: 20049,
            mount_port: 20048,
            connections: None,
            datastores: self.datastores.lock().unwrap().len() as u64,
            locks: true,
        };
        now(Ok(Facts {
            site: "site-a".into(),
            version: "0".into(),
            uptime_seconds: 1.0,
            pools: vec![pool()],
            journal: Journal {
                legs: vec![leg],
                capacity_bytes: None,
                used_bytes: None,
                latched: false,
                blocked_ranges: 0,
            },
            replication: Some(pair()),
            nfs,
            load: Load::default(),
            latency_ms: Latency::default(),
            memory: Memory::default(),
            jobs: Vec::new(),
        }))
    }

    fn datastores(&self) -> Answer<'_, Vec<Datastore>> {
        now(Ok(self.datastores.lock().unwrap().clone()))
    }

    fn create_datastore(&self, request: DatastoreCreate) -> Answer<'_, Datastore> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let mut all = self.datastores.lock().unwrap();
        if all.iter().any(|one| one.name == request.name) {
            return now(Err(Problem::new(&codes::DATASTORE_EXISTS, "it exists")));
        }
        let created = Datastore {
            id: Some("5ca1ab1e00000000-1".into()),
            export: format!("/{}", request.name),
            name: request.name,
            created_at: None,
            files: Some(1),
            logical_bytes: None,
            free_bytes: None,
            root_squash: request.root_squash,
            allow: request.allow,
            mounts: None,
        };
        all.push(created.clone());
        now(Ok(created))
    }

    fn delete_datastore(&self, name: String, confirmed: bool) -> Answer<'_, DatastoreDeleted> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let mut all = self.datastores.lock().unwrap();
        if !all.iter().any(|one| one.name == name) {
            return now(Err(Problem::new(&codes::DATASTORE_NOT_FOUND, "it does not exist")));
        }
        if !confirmed {
            return now(Err(Problem::new(&codes::DATASTORE_NOT_EMPTY, "it holds a file")));
        }
        all.retain(|one| one.name != name);
        now(Ok(DatastoreDeleted { name }))
    }

    fn fsck(&self) -> Answer<'_, FsckReport> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Err(Problem::new(&codes::NOT_SUPPORTED, "paper is not checked")))
    }

    fn scrub(&self) -> Answer<'_, ScrubReport> {
        now(Ok(scrub_report("RUNNING")))
    }

    fn order_replication(&self, _: ReplicationAction) -> Answer<'_, Replication> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(pair()))
    }

    fn replace_peer(&self, _: SiteReplacement) -> Answer<'_, SiteReplaced> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(SiteReplaced { pair: pair(), invitation: "an/invitation".to_owned() }))
    }

    fn could_flip(&self) -> Answer<'_, ()> {
        now(Ok(()))
    }

    fn flip(&self, order: FlipOrder) -> Answer<'_, FlippedByte> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let (pool, offset_bytes) = ("flash0".to_owned(), order.offset_bytes);
        now(Ok(FlippedByte { pool, file: 1, offset_bytes, block: 0, was: 2, is: 3 }))
    }

    fn last_check(&self) -> Answer<'_, LastIntegrityCheck> {
        now(Ok(LastIntegrityCheck { pool: "flash0".into(), check: None, job: None }))
    }

    fn could_check(&self) -> Answer<'_, ()> {
        now(Ok(()))
    }

    fn begin_check(&self, _: IntegrityOrder) -> Answer<'_, LastIntegrityCheck> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(LastIntegrityCheck { pool: "flash0".into(), check: None, job: Some("J-1".into()) }))
    }

    fn evidence(&self, forget: bool) -> Answer<'_, KeptEvidence> {
        self.changes.fetch_add(u64::from(forget), Ordering::SeqCst);
        now(Ok(KeptEvidence { pool: "flash0".into(), kept: Vec::new(), forgotten: forget }))
    }

    fn order_scrub(&self, action: ScrubAction) -> Answer<'_, ScrubReport> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(scrub_report(if action == ScrubAction::Pause { "PAUSED" } else { "RUNNING" })))
    }

    fn add_spare(&self, path: String) -> Answer<'_, DriveTaken> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(DriveTaken { taken_as: "SPARE".into(), path }))
    }

    fn replace_drive(&self, slot: u32, path: Option<String>) -> Answer<'_, DriveTaken> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let taken_as = format!("flash0/{slot}");
        now(path.map(|path| DriveTaken { taken_as, path }).ok_or_else(|| Problem::new(&codes::NO_SPARE, "no spare")))
    }

    fn could_retire(&self, _: u32, path: Option<String>) -> Answer<'_, String> {
        now(path.ok_or_else(|| Problem::new(&codes::NO_SPARE, "no spare")))
    }

    fn retire_drive(&self, slot: u32, path: Option<String>) -> Answer<'_, DriveTaken> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let taken_as = format!("TWIN of flash0/{slot}");
        now(path.map(|path| DriveTaken { taken_as, path }).ok_or_else(|| Problem::new(&codes::NO_SPARE, "no spare")))
    }

    fn vms(&self) -> Answer<'_, Vec<Vm>> {
        now(Ok(vec![vm()]))
    }

    fn rename_vm(&self, datastore: String, _: String, new: String) -> Answer<'_, VmChanged> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(VmChanged { datastore, vm: new, ..VmChanged::default() }))
    }

    fn assign_to_vm(&self, _: String, wish: VmAssignment) -> Answer<'_, VmAssignment> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(wish))
    }

    fn schedule_vm(&self, _: String, _: String, order: VmScheduleOrder) -> Answer<'_, VmScheduleOrder> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(order))
    }

    fn vm_snapshots(&self, _: String, name: String) -> Answer<'_, Vec<VmSnapshot>> {
        now(if name == "100" { Ok(vm().snapshots) } else { Err(Problem::new(&codes::VM_NOT_FOUND, "no such VM")) })
    }

    fn snapshot_vm(&self, datastore: String, vm: String, name: String) -> Answer<'_, VmSnapshot> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(VmSnapshot { datastore, vm, name, created_at: jiff::Timestamp::UNIX_EPOCH, files: 1, scheduled: false }))
    }

    fn delete_vm_snapshot(&self, _: String, _: String, _: String) -> Answer<'_, VmSnapshot> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(vm().snapshots.remove(0)))
    }

    fn roll_back_vm(&self, datastore: String, vm: String, _: (String, Option<String>)) -> Answer<'_, VmChanged> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(VmChanged { datastore, vm, ..VmChanged::default() }))
    }

    fn file_snapshots(&self, _: String, _: String, path: String) -> Answer<'_, Vec<FileSnapshot>> {
        let held =
            FileSnapshot { snapshot: "before".into(), created_at: jiff::Timestamp::UNIX_EPOCH, size_bytes: 8192 };
        now(Ok(if path == "images/100/vm-100-disk-0.raw" { vec![held] } else { Vec::new() }))
    }

    fn clone_file(&self, _: String, wish: FileClone) -> Answer<'_, FileClone> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(wish))
    }

    fn clone_vm(&self, datastore: String, _: String, (_, new): (String, String)) -> Answer<'_, VmChanged> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(VmChanged { datastore, vm: new, ..VmChanged::default() }))
    }

    fn compare_vm(&self, datastore: String, vm: String, names: (String, Option<String>)) -> Answer<'_, VmDifference> {
        now(Ok(VmDifference { datastore, vm, from: names.0, to: names.1, files: Vec::new() }))
    }

    fn could_expand(&self, order: ExpandOrder) -> Answer<'_, ()> {
        let taken = order.drives.iter().any(|path| path == "/taken");
        now(if taken { Err(Problem::new(&codes::SPARE_REFUSED, "/taken is not taken")) } else { Ok(()) })
    }

    fn expand_pool(&self, order: ExpandOrder) -> Answer<'_, PoolExpanded> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let drive = |(number, path)| JoinedDrive { drive: format!("flash0/{}", number + 1), path };
        now(Ok(PoolExpanded {
            pool: "flash0".into(),
            drives: order.drives.len() as u32,
            joined: order.drives.into_iter().enumerate().map(drive).collect(),
            stripe_data: 10,
            stripe_parity: 2,
            usable_before_bytes: 1,
            usable_bytes: 2,
            seconds: 0.1,
        }))
    }

    fn faults(&self) -> Answer<'_, Vec<InjectedFault>> {
        now(Ok(Vec::new()))
    }

    fn could_inject(&self, order: FaultOrder) -> Answer<'_, ()> {
        let refused = || Problem::new(&codes::NOT_A_LAB_POOL, "flash0 is no lab pool");
        now(if order.slot == 9 { Err(refused()) } else { Ok(()) })
    }

    fn inject(&self, order: FaultOrder) -> Answer<'_, InjectedFault> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(InjectedFault {
            drive: format!("flash0/{}", order.slot),
            path: "drives/1".into(),
            kind: order.kind,
            percent: order.percent,
            delay_ms: order.delay_ms,
            is_on: true,
            started_at: jiff::Timestamp::UNIX_EPOCH,
            ends_at: jiff::Timestamp::UNIX_EPOCH,
            requests: 0,
            hits: 0,
            awaits_scrub: false,
        }))
    }

    fn end_faults(&self) -> Answer<'_, Vec<InjectedFault>> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(Vec::new()))
    }

    fn resilver_journal(&self) -> Answer<'_, ResilverReport> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let leg = ResilveredLeg { path: "j".into(), taken_in: true, reason: None };
        now(Ok(ResilverReport { legs: vec![leg], seconds: 0.5 }))
    }

    fn checkpoint(&self) -> Answer<'_, CheckpointReport> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(CheckpointReport { root_version: 7, seconds: 0.1, journal_freed_bytes: 1 }))
    }

    fn limit_vm(&self, _: String, _: String, limits: VmLimits) -> Answer<'_, VmLimits> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        now(Ok(limits))
    }

    fn measured(&self) -> Answer<'_, Measured> {
        let mut kinds = <[Sums; 3]>::default();
        kinds[1] = Sums { count: 3, bytes: 24576, cost: 6, parts_ns: [1, 200, 30, 4, 50, 6] };
        let disk = Some("images/100/vm-100-disk-0.raw".to_owned());
        let file =
            MeasuredFile { datastore: "demo".into(), vm: Some("100".into()), disk, kinds, ..MeasuredFile::default() };
        now(Ok(Measured { seconds: 1.0, files: vec![file] }))
    }

    fn data_path_metrics(&self) -> Answer<'_, String> {
        now(Ok("# TYPE vmhold_paper_total counter\nvmhold_paper_total 1\n".into()))
    }
}

/// A shelf nobody reads again.
struct Nowhere;

impl Shelf for Nowhere {
    fn put(&self, _: &str) -> std::io::Result<()> {
        Ok(())
    }
}

/// A server on a thread of its own; stops when dropped.
pub struct Running {
    /// As admin.
    pub client: Client,
    pub address: SocketAddr,
    pub fingerprint: Fingerprint,
    pub books: Books,
    pub paper: Arc<Paper>,
    /// Lines of the audit log.
    pub audit: MemoryLedger,
    pub admin: Secret,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// An answer without interpretation.
#[derive(Debug)]
pub struct Raw {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Raw {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl Running {
    pub fn start() -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let (tls, fingerprint) = tls::server(&tls::make("site-a", address.ip()).unwrap()).unwrap();
        let audit = MemoryLedger::default();
        let admin = Secret::random().unwrap();
        let books = Books {
            events: EventBook::open(std::iter::empty(), Box::new(MemoryLedger::default())),
            jobs: JobBook::open(std::iter::empty(), Box::new(MemoryLedger::default())),
            history: HistoryBook::open(
                (std::iter::empty(), Box::new(MemoryLedger::default())),
                (std::iter::empty(), Box::new(MemoryLedger::default())),
            ),
            roles: RoleBook::open(std::iter::empty(), Box::new(MemoryLedger::default())),
            activity: ActivityBook::open(Box::new(MemoryFolder::default())),
            audit: Audit::open(std::iter::empty(), Box::new(audit.clone())),
            access: Arc::new(Access::open(None, &admin, Box::new(Nowhere)).unwrap()),
        };
        let paper = Arc::new(Paper::default());
        let api = Api::new(paper.clone(), books.clone(), address.port(), Some(fingerprint));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(socket).unwrap();
                let ended = async { drop(stopped.await) };
                serve(listener, tls, api, ended).await.unwrap();
            });
        });
        let client = Client::new(address, fingerprint, Duration::from_secs(20)).with_token(admin.clone());
        Self { client, address, fingerprint, books, paper, audit, admin, stop: Some(stop), thread: Some(thread) }
    }

    /// A token of a role.
    pub fn token(&self, name: &str, role: Role) -> Secret {
        let request = TokenCreate { name: name.into(), role, lifetime_seconds: None };
        let created = self.books.access.create(&request, jiff::Timestamp::now()).unwrap();
        Secret::from_text(&created.secret)
    }

    pub fn create(&self, name: &str) -> Result<Datastore, Problem> {
        let body = format!("{{\"name\":\"{name}\"}}");
        let call = Call { method: "POST", path: "/v1/datastores", body: Some(&body), ..Call::default() };
        self.client.call(&call)?.into_result()
    }

    pub fn delete(&self, name: &str, confirm: Option<&str>) -> Result<DatastoreDeleted, Problem> {
        let path = format!("/v1/datastores/{name}");
        self.client.call(&Call { method: "DELETE", path: &path, confirm, ..Call::default() })?.into_result()
    }

    /// Sends a request line and headers as they are, with a body, over TLS.
    pub fn raw(&self, request: &str, headers: &[(&str, &str)], body: &str) -> Raw {
        let socket = std::net::TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let name = rustls::pki_types::ServerName::from(self.address.ip());
        let connection = rustls::ClientConnection::new(tls::client(self.fingerprint), name).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, socket);
        let mut text = format!("{request} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "Host") {
            text.push_str(&format!("Host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{text}\r\n{body}").as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A close without a farewell ends the answer like any other.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        Raw { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The same with a token.
    pub fn as_token(&self, token: Option<&Secret>, request: &str, body: &str) -> Raw {
        let bearer = token.map(|token| format!("Bearer {}", token.text()));
        let headers: Vec<(&str, &str)> = bearer.as_deref().map(|text| ("Authorization", text)).into_iter().collect();
        self.raw(request, &headers, body)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

//! The server and the CLI's client against each other, over a real socket.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use control::check::{CheckpointReport, FsckReport, ResilverReport, ResilveredLeg};
use control::client::{Call, Client};
use control::datastore::{Datastore, DatastoreCreate, DatastoreDeleted, DatastoreList, MountInfo};
use control::health::{Health, Level};
use control::pool::{DriveList, Journal, JournalKind, JournalLeg, Pool, PoolList, PoolState};
use control::server::{Answer, ControlBackend, Version, serve};
use control::status::{Facts, Latency, Load, Memory, NfsService, Status};
use control::upkeep::{DriveTaken, ScrubAction, ScrubPass, ScrubReport};
use control::{Exit, Problem, codes};

/// A store that is only a list of datastores.
#[derive(Default)]
struct Paper {
    datastores: Mutex<Vec<Datastore>>,
}

fn now<T: Send + 'static>(result: Result<T, Problem>) -> Answer<'static, T> {
    Box::pin(std::future::ready(result))
}

fn pool() -> Pool {
    Pool {
        name: "flash0".into(),
        group: "g".into(),
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
        unrepairable_units: None,
        rebuild: None,
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

impl ControlBackend for Paper {
    fn facts(&self) -> Answer<'_, Facts> {
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
            nfs,
            load: Load::default(),
            latency_ms: Latency::default(),
            memory: Memory::default(),
            jobs: Vec::new(),
        }))
    }

    fn scrub(&self) -> Answer<'_, ScrubReport> {
        now(Ok(scrub_report("RUNNING")))
    }

    fn order_scrub(&self, action: ScrubAction) -> Answer<'_, ScrubReport> {
        now(Ok(scrub_report(if action == ScrubAction::Pause { "PAUSED" } else { "RUNNING" })))
    }

    fn add_spare(&self, path: String) -> Answer<'_, DriveTaken> {
        now(Ok(DriveTaken { taken_as: "SPARE".into(), path }))
    }

    fn replace_drive(&self, slot: u32, path: Option<String>) -> Answer<'_, DriveTaken> {
        let taken_as = format!("flash0/{slot}");
        now(path.map(|path| DriveTaken { taken_as, path }).ok_or_else(|| Problem::new(&codes::NO_SPARE, "no spare")))
    }

    fn datastores(&self) -> Answer<'_, Vec<Datastore>> {
        now(Ok(self.datastores.lock().unwrap().clone()))
    }

    fn create_datastore(&self, request: DatastoreCreate) -> Answer<'_, Datastore> {
        let mut all = self.datastores.lock().unwrap();
        if all.iter().any(|one| one.name == request.name) {
            return now(Err(Problem::new(&codes::DATASTORE_EXISTS, "it exists")));
        }
        let created = Datastore {
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
        now(Err(Problem::new(&codes::NOT_SUPPORTED, "paper is not checked")))
    }

    fn resilver_journal(&self) -> Answer<'_, ResilverReport> {
        let leg = ResilveredLeg { path: "j".into(), taken_in: true, reason: None };
        now(Ok(ResilverReport { legs: vec![leg], seconds: 0.5 }))
    }

    fn checkpoint(&self) -> Answer<'_, CheckpointReport> {
        now(Ok(CheckpointReport { root_version: 7, seconds: 0.1, journal_freed_bytes: 1 }))
    }

    fn data_path_metrics(&self) -> Answer<'_, String> {
        now(Ok("# TYPE vmhold_paper_total counter\nvmhold_paper_total 1\n".into()))
    }
}

/// A server on a thread of its own; stops when dropped.
struct Running {
    client: Client,
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start() -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(socket).unwrap();
                let ended = async { drop(stopped.await) };
                serve(listener, Arc::new(Paper::default()), ended).await.unwrap();
            });
        });
        let client = Client::new(address, Duration::from_secs(20));
        Self { client, address, stop: Some(stop), thread: Some(thread) }
    }

    fn create(&self, name: &str) -> Result<Datastore, Problem> {
        let body = format!("{{\"name\":\"{name}\"}}");
        let call = Call { method: "POST", path: "/v1/datastores", body: Some(&body), confirm: None };
        self.client.call(&call)?.into_result()
    }

    fn delete(&self, name: &str, confirm: Option<&str>) -> Result<DatastoreDeleted, Problem> {
        let path = format!("/v1/datastores/{name}");
        self.client.call(&Call { method: "DELETE", path: &path, body: None, confirm })?.into_result()
    }

    /// Sends raw bytes and returns the status line.
    fn raw(&self, request: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
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

#[test]
fn every_read_answers_with_its_document() {
    let server = Running::start();
    let client = &server.client;
    assert_eq!(client.get::<Version>("/v1/version").unwrap().into_result().unwrap().api, "v1");
    let envelope = client.get::<Status>("/v1/status").unwrap();
    assert_eq!((envelope.schema.as_str(), envelope.site.as_deref()), ("vmhold.status/v1", Some("site-a")));
    let status = envelope.into_result().unwrap();
    let health = client.get::<Health>("/v1/health").unwrap().into_result().unwrap();
    assert_eq!((&health, health.level), (&status.health, Level::Warn));
    assert_eq!(client.get::<PoolList>("/v1/pools").unwrap().into_result().unwrap().0.len(), 1);
    assert_eq!(client.get::<Pool>("/v1/pools/flash0/map").unwrap().into_result().unwrap().name, "flash0");
    assert!(client.get::<DriveList>("/v1/drives").unwrap().into_result().unwrap().0.is_empty());
    assert!(client.text("/v1/codes/VH1021").unwrap().contains("\"DRIVE_FAILED\""));
    let metrics = client.text("/metrics").unwrap();
    assert!(
        metrics.contains("vmhold_pool_failures_tolerated{pool=\"flash0\"} 2")
            && metrics.contains("vmhold_paper_total 1")
    );
}

#[test]
fn a_datastore_is_created_listed_mounted_and_deleted() {
    let server = Running::start();
    assert_eq!(server.create("demo").unwrap().export, "/demo");
    assert_eq!(server.create("demo").unwrap_err().code(), &codes::DATASTORE_EXISTS);
    assert_eq!(server.create("a b").unwrap_err().code(), &codes::BAD_INPUT);
    let list = server.client.get::<DatastoreList>("/v1/datastores").unwrap().into_result().unwrap();
    assert_eq!(list.0.len(), 1);
    let info: MountInfo = server.client.get("/v1/datastores/demo/mount-info?for=linux").unwrap().into_result().unwrap();
    assert!(info.human().contains("port=20049,mountport=20048"));
    assert_eq!(server.delete("demo", None).unwrap_err().exit(), Exit::Refused);
    assert_eq!(server.delete("demo", Some("dmo")).unwrap_err().exit(), Exit::Declined);
    assert_eq!(server.delete("demo", Some("demo")).unwrap().name, "demo");
    assert_eq!(server.delete("demo", Some("demo")).unwrap_err().exit(), Exit::NotFound);
}

#[test]
fn errors_are_problems_with_code_and_exit() {
    let server = Running::start();
    let client = &server.client;
    let missing = client.get::<Pool>("/v1/pools/flash9").unwrap_err();
    assert_eq!((missing.code(), missing.exit()), (&codes::POOL_NOT_FOUND, Exit::NotFound));
    assert_eq!(client.get::<Version>("/v2/x").unwrap_err().code(), &codes::NOT_FOUND);
    let fsck = Call { method: "POST", path: "/v1/fsck", ..Call::default() };
    assert_eq!(client.call::<FsckReport>(&fsck).unwrap_err().code(), &codes::NOT_SUPPORTED);
    let wrong = Call { method: "PUT", path: "/v1/status", ..Call::default() };
    assert_eq!(client.call::<Status>(&wrong).unwrap_err().code(), &codes::NO_SUCH_CALL);
    let rubbish = Call { method: "POST", path: "/v1/datastores", body: Some("{"), confirm: None };
    assert_eq!(client.call::<Datastore>(&rubbish).unwrap_err().code(), &codes::BAD_INPUT);
    let checkpoint = Call { method: "POST", path: "/v1/checkpoint", ..Call::default() };
    assert_eq!(client.call::<CheckpointReport>(&checkpoint).unwrap().into_result().unwrap().root_version, 7);
}

#[test]
fn a_pool_is_looked_after() {
    let server = Running::start();
    let client = &server.client;
    let post = |path: &'static str, body: &'static str| Call { method: "POST", path, body: Some(body), confirm: None };
    let report: ScrubReport = client.get("/v1/pools/flash0/scrub").unwrap().into_result().unwrap();
    assert_eq!(report.state, "RUNNING");
    let pause = post("/v1/pools/flash0/scrub", r#"{"action":"pause"}"#);
    assert_eq!(client.call::<ScrubReport>(&pause).unwrap().into_result().unwrap().state, "PAUSED");
    let nowhere = post("/v1/pools/flash9/scrub", r#"{"action":"pause"}"#);
    assert_eq!(client.call::<ScrubReport>(&nowhere).unwrap_err().code(), &codes::POOL_NOT_FOUND);
    let nonsense = post("/v1/pools/flash0/scrub", r#"{"action":"dance"}"#);
    assert_eq!(client.call::<ScrubReport>(&nonsense).unwrap_err().code(), &codes::BAD_INPUT);
    let spare = post("/v1/drives", r#"{"path":"drives/9"}"#);
    assert_eq!(client.call::<DriveTaken>(&spare).unwrap().into_result().unwrap().taken_as, "SPARE");
    let replace = post("/v1/drives/flash0/3/replace", r#"{"path":"drives/9"}"#);
    assert_eq!(client.call::<DriveTaken>(&replace).unwrap().into_result().unwrap().taken_as, "flash0/3");
    let no_spare = post("/v1/drives/flash0/3/replace", "{}");
    assert_eq!(client.call::<DriveTaken>(&no_spare).unwrap_err().code(), &codes::NO_SPARE);
}

#[test]
fn pages_of_others_are_refused() {
    let server = Running::start();
    let get = |headers: &str| server.raw(&format!("GET /v1/version HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"));
    assert_eq!(get("Host: 127.0.0.1:80\r\n"), "HTTP/1.1 200 OK");
    assert_eq!(get("Host: localhost\r\n"), "HTTP/1.1 200 OK");
    assert_eq!(get("Host: evil.example\r\n"), "HTTP/1.1 400 Bad Request");
    assert_eq!(get("Host: 127.0.0.1:80\r\nOrigin: http://evil.example\r\n"), "HTTP/1.1 400 Bad Request");
    assert_eq!(get("Host: 127.0.0.1:80\r\nOrigin: http://127.0.0.1:80\r\n"), "HTTP/1.1 200 OK");
}

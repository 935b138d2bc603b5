//! The server and the CLI's client against each other, over a real socket.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod paper;

use std::sync::atomic::Ordering;

use control::activity::{Activity, ActivityList, Contributors, VmLatency};
use control::audit::AuditList;
use control::check::{CheckpointReport, FsckReport, ResilverReport};
use control::client::{Call, Changed, Client};
use control::datastore::{Datastore, DatastoreList, MountInfo};
use control::events::EventList;
use control::expansion::PoolExpanded;
use control::health::{Health, Level};
use control::inject::{FaultKind, InjectedFault};
use control::pool::{DriveList, Pool, PoolList};
use control::server::Version;
use control::status::Status;
use control::upkeep::{DriveTaken, ScrubReport};
use control::vm::{Vm, VmLimits, VmList};
use control::{Exit, codes};
use paper::Running;

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
    let rubbish = Call { method: "POST", path: "/v1/datastores", body: Some("{"), ..Call::default() };
    assert_eq!(client.call::<Datastore>(&rubbish).unwrap_err().code(), &codes::BAD_INPUT);
    let checkpoint = Call { method: "POST", path: "/v1/checkpoint", ..Call::default() };
    assert_eq!(client.call::<CheckpointReport>(&checkpoint).unwrap().into_result().unwrap().root_version, 7);
    let resilver = Call { method: "POST", path: "/v1/journal/resilver", ..Call::default() };
    assert!(client.call::<ResilverReport>(&resilver).unwrap().into_result().unwrap().legs[0].taken_in);
}

/// U2: a store that does not answer is shown as it was, with its age, and not as it is not.
#[test]
fn a_silent_store_is_shown_with_the_age_of_what_is_known() {
    let server = Running::start();
    let first = server.client.get::<Status>("/v1/status").unwrap();
    server.paper.is_silent.store(true, Ordering::SeqCst);
    let second = server.client.get::<Status>("/v1/status").unwrap();
    assert!(second.data_age_seconds.unwrap() > 0.1, "{:?}", second.data_age_seconds);
    assert!(second.generated_at >= first.generated_at, "it names the time of what it shows");
    assert_eq!(first.into_result().unwrap().facts.pools, second.into_result().unwrap().facts.pools);
}

#[test]
fn another_certificate_is_not_the_server_we_know() {
    let server = Running::start();
    let other = "00".repeat(32).parse().unwrap();
    let client = Client::new(server.address, other, std::time::Duration::from_secs(5)).with_token(server.admin.clone());
    let problem = client.get::<Version>("/v1/version").unwrap_err();
    assert_eq!(problem.code(), &codes::SERVER_UNREACHABLE);
    assert!(problem.human().contains("not the server we know"), "{}", problem.human());
}

#[test]
fn a_change_can_be_planned_by_the_client() {
    let server = Running::start();
    let body = "{\"name\":\"x\"}";
    let call = Call { method: "POST", path: "/v1/datastores", body: Some(body), dry_run: true, ..Call::default() };
    let Changed::Planned(plan) = server.client.change::<Datastore>(&call).unwrap() else { panic!("it was planned") };
    assert!(plan.into_result().unwrap().human().contains("would make datastore x"));
    assert_eq!(server.paper.changes.load(Ordering::SeqCst), 0);
}

#[test]
fn a_pool_is_looked_after() {
    let server = Running::start();
    let client = &server.client;
    let post =
        |path: &'static str, body: &'static str| Call { method: "POST", path, body: Some(body), ..Call::default() };
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
fn a_pool_is_expanded_after_it_was_planned() {
    let server = Running::start();
    let client = &server.client;
    let post = |body: &'static str, dry_run| Call {
        method: "POST",
        path: "/v1/pools/flash0/expand",
        body: Some(body),
        dry_run,
        ..Call::default()
    };
    let planned = client.change::<PoolExpanded>(&post(r#"{"drives":["/a","/b"],"stripe_data":20}"#, true)).unwrap();
    let Changed::Planned(plan) = planned else { panic!("it was planned") };
    let text = plan.into_result().unwrap().human();
    assert!(text.contains("take /a, /b as drives of flash0") && text.contains("20 data units"), "{text}");
    let refused = client.change::<PoolExpanded>(&post(r#"{"drives":["/taken"]}"#, true)).unwrap_err();
    assert_eq!(refused.code(), &codes::SPARE_REFUSED, "a plan says what would be refused");
    let twice = client.call::<PoolExpanded>(&post(r#"{"drives":["/a","/a"]}"#, false)).unwrap_err();
    assert_eq!(twice.code(), &codes::BAD_INPUT);
    assert_eq!(server.paper.changes.load(Ordering::SeqCst), 0);
    let done = client.call::<PoolExpanded>(&post(r#"{"drives":["/a","/b"]}"#, false)).unwrap().into_result().unwrap();
    assert_eq!((done.joined.len(), done.joined[1].path.as_str()), (2, "/b"));
}

#[test]
fn a_fault_is_injected_only_when_the_pool_is_named_twice() {
    let server = Running::start();
    let client = &server.client;
    let call = |body: &'static str, confirm, dry_run| Call {
        method: "POST",
        path: "/v1/pools/flash0/faults",
        body: Some(body),
        confirm,
        dry_run,
    };
    let order = r#"{"slot":3,"kind":"lost-write","percent":20,"seconds":10}"#;
    let Changed::Planned(plan) = client.change::<InjectedFault>(&call(order, None, true)).unwrap() else {
        panic!("it was planned")
    };
    assert_eq!(plan.into_result().unwrap().confirm.as_deref(), Some("flash0"));
    for (body, confirm, code) in [
        (order, None, &codes::CONFIRMATION_MISSING),
        (order, Some("flash1"), &codes::CONFIRMATION_MISSING),
        (r#"{"slot":9,"kind":"eio","percent":20,"seconds":10}"#, Some("flash0"), &codes::NOT_A_LAB_POOL),
        (r#"{"slot":3,"kind":"eio","percent":0,"seconds":10}"#, Some("flash0"), &codes::BAD_INPUT),
        (r#"{"slot":3,"kind":"slow","percent":9,"seconds":10}"#, Some("flash0"), &codes::BAD_INPUT),
    ] {
        assert_eq!(client.call::<InjectedFault>(&call(body, confirm, false)).unwrap_err().code(), code, "{body}");
    }
    // Names need not be ASCII, as headers are.
    let other = client.call::<InjectedFault>(&call(order, Some("Büro 2"), false)).unwrap_err();
    assert!(other.what().contains("\"Büro 2\" was confirmed"), "{}", other.what());
    assert_eq!(server.paper.changes.load(Ordering::SeqCst), 0);
    let fault = client.call::<InjectedFault>(&call(order, Some("flash0"), false)).unwrap().into_result().unwrap();
    assert_eq!((fault.drive.as_str(), fault.kind), ("flash0/3", FaultKind::LostWrite));
    let audit = client.get::<AuditList>("/v1/audit").unwrap().into_result().unwrap();
    assert!(audit.0.iter().any(|entry| entry.action == "POST /v1/pools/flash0/faults"), "{audit:?}");
}

/// Sum of the parts, and the total.
fn sum_and_total(activity: &Activity) -> (f64, f64) {
    let latency = &activity.latency_ms;
    let parts = [latency.queue, latency.journal, latency.mirror, latency.flash, latency.contention, latency.qos];
    (parts.into_iter().flatten().sum(), latency.total.unwrap())
}

/// For every VM and every disk, by every call; what is not measured is null. Decides R-OBS-01.
#[test]
fn latency_of_vms_and_disks_is_told_by_part_and_sums_up() {
    let server = Running::start();
    // The store is asked once a second what was measured.
    let vms = loop {
        let vms = server.client.get::<VmList>("/v1/vms").unwrap().into_result().unwrap().0;
        if vms.iter().any(|vm| vm.now.as_ref().is_some_and(|now| now.writes_per_second > 0.0)) {
            break vms;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let json = server.client.text("/v1/vms").unwrap();
    assert!(json.contains(r#""net":null"#) && json.contains(r#""host":null"#), "{json}");
    let by_disk: ActivityList = server.client.get("/v1/activity?by=disk").unwrap().into_result().unwrap();
    let latency: VmLatency = server.client.get("/v1/vms/demo/100/latency").unwrap().into_result().unwrap();
    assert_eq!(latency.disks.len(), 1);
    let all = vms.iter().filter_map(|vm| vm.now.clone());
    let all = all.chain(by_disk.rows.into_iter().chain(latency.disks).map(|row| row.activity)).chain(latency.now);
    let all: Vec<Activity> = all.collect();
    assert_eq!(all.len(), 4);
    for activity in &all {
        let (sum, total) = sum_and_total(activity);
        assert!(total > 0.0 && (sum - total).abs() < 1e-9, "{activity:?}");
        assert_eq!(activity.slow_part.as_deref(), Some("journal"));
    }
    let metrics = server.client.text("/metrics").unwrap();
    assert!(metrics.contains("vmhold_vm_ops_total{vm=\"100\",datastore=\"demo\",op=\"write\"}"), "{metrics}");
    let when = server.client.get::<Contributors>("/v1/contributors?at=2020-01-01T00:00:00Z").unwrap();
    assert_eq!(when.into_result().unwrap().at, None, "nothing is known of it");
    for bad in ["/v1/contributors?at=yesterday", "/v1/activity?by=host"] {
        assert_eq!(server.client.get::<Contributors>(bad).unwrap_err().code(), &codes::BAD_INPUT, "{bad}");
    }
    let gone = "/v1/vms/demo/100/latency?disk=none";
    assert_eq!(server.client.get::<VmLatency>(gone).unwrap_err().code(), &codes::NOT_FOUND);
}

#[test]
fn limits_are_checked_planned_and_set() {
    let server = Running::start();
    let call = |body: &'static str, dry_run| Call {
        method: "POST",
        path: "/v1/vms/demo/100/limits",
        body: Some(body),
        dry_run,
        ..Call::default()
    };
    let set = server.client.call::<VmLimits>(&call(r#"{"max_per_second":500}"#, false)).unwrap();
    assert_eq!(set.into_result().unwrap().max_per_second, Some(500));
    let changes = server.paper.changes.load(Ordering::SeqCst);
    let planned = server.client.change::<VmLimits>(&call(r#"{"min_per_second":5}"#, true)).unwrap();
    assert!(matches!(planned, Changed::Planned(_)));
    for bad in [r#"{"max_per_second":0}"#, r#"{"max_per_second":1,"min_per_second":2}"#, r#"{"maximum":1}"#] {
        assert_eq!(server.client.call::<VmLimits>(&call(bad, false)).unwrap_err().code(), &codes::BAD_INPUT, "{bad}");
    }
    assert_eq!(server.paper.changes.load(Ordering::SeqCst), changes);
    let vm: Vm = server.client.get("/v1/vms/demo/100").unwrap().into_result().unwrap();
    assert_eq!(vm.limits, VmLimits::default());
    let events = server.client.get::<EventList>("/v1/events").unwrap().into_result().unwrap().0;
    let told: Vec<_> =
        events.iter().filter(|event| event.object == "demo/100").map(|event| event.name.as_str()).collect();
    assert_eq!(told, ["VM_LIMITED"], "what was only planned, or refused, is no event");
}

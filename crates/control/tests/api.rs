//! The server and the CLI's client against each other, over a real socket.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod paper;

use std::sync::atomic::Ordering;

use control::audit::AuditList;
use control::check::{CheckpointReport, FsckReport, ResilverReport};
use control::client::{Call, Changed, Client};
use control::datastore::{Datastore, DatastoreList, MountInfo};
use control::expansion::PoolExpanded;
use control::health::{Health, Level};
use control::inject::{FaultKind, InjectedFault};
use control::pool::{DriveList, Pool, PoolList};
use control::server::Version;
use control::status::Status;
use control::upkeep::{DriveTaken, ScrubReport};
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

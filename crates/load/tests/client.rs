//! The client against a server that misbehaves: what a hard mount rides out, what is
//! refused, and every procedure once.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod fake;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fake::{Fake, Manners};
use load::command::{ConnectArgs, Console, GetArgs, MkdirArgs, NfsAction, NfsCommand, PathArgs, PutArgs, RemoveArgs};
use load::connection::{Behaviour, Connection};
use load::fileset;
use load::mount;
use load::nfs3::{CreateMode, DirectoryPage, EXIST, FileKind, NOENT, NfsClient, NfsError, SetAttributes, Stable};
use load::rpc::{NFS3, RpcError};
use load::target::{ConnectError, Mounted, Target};
use load::transfer::{TransferError, read_whole, write_whole};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

fn here<T>(test: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(60), test()).await.expect("no test takes a minute")
    })
}

async fn mounted(fake: &Fake, behaviour: &Behaviour) -> Mounted {
    fake.url("/export").parse::<Target>().unwrap().mount(behaviour).await.unwrap()
}

#[test]
fn every_procedure_is_understood() {
    here(async || {
        let fake = Fake::start(Manners::default()).await;
        let mounted = mounted(&fake, &Behaviour::default()).await;
        let (client, root) = (&mounted.client, &mounted.root);
        client.null().await.unwrap();
        assert_eq!(client.getattr(root).await.unwrap().kind, FileKind::Directory);
        let folder = client.mkdir(root, b"folder").await.unwrap();
        assert_eq!(client.mkdir(root, b"folder").await, Err(EXIST));
        let file = client.create(&folder, b"file", CreateMode::Guarded).await.unwrap();
        assert_eq!(client.create(&folder, b"file", CreateMode::Unchecked).await, Ok(file));
        assert_eq!(client.create(&folder, b"file", CreateMode::Guarded).await, Err(EXIST));
        let written = client.write(&file, 10, Stable::FileSync, b"hello").await.unwrap();
        assert_eq!((written.count, written.committed), (5, 2));
        let read = client.read(&file, 10, 100).await.unwrap();
        assert_eq!((&read.data[..], read.eof), (&b"hello"[..], true));
        client.setattr(&file, &SetAttributes { size_bytes: Some(12), ..SetAttributes::default() }).await.unwrap();
        assert_eq!(client.getattr(&file).await.unwrap().size_bytes, 12);
        client.rename((&folder, b"file"), (root, b"moved")).await.unwrap();
        assert_eq!(client.lookup(&folder, b"file").await.unwrap_err(), NOENT);
        assert_eq!(client.lookup(root, b"moved").await.unwrap().0, file);
        client.commit(&file, 0, 0).await.unwrap();
        assert_eq!(client.fsinfo(root).await.unwrap().write_bytes_max, 1 << 20);
        assert_eq!(client.fsstat(root).await.unwrap().available_bytes, 80);
        let limits = client.pathconf(root).await.unwrap();
        assert_eq!((limits.name_bytes_max, limits.case_sensitive), (255, true));
        client.remove(root, b"moved").await.unwrap();
        client.rmdir(root, b"folder").await.unwrap();
        assert_eq!(client.getattr(&file).await, Err(NfsError::Status(70)));
        let mountd = client.connection();
        assert_eq!(mount::exports(mountd).await.unwrap()[0].path, b"/export");
        assert_eq!(mount::mounted(mountd).await.unwrap(), [(b"somewhere".to_vec(), b"/export".to_vec())]);
        mount::unmount(mountd, b"/export").await.unwrap();
    });
}

#[test]
fn directories_are_listed_over_pages_either_way() {
    here(async || {
        let fake = Fake::start(Manners::default()).await;
        let mounted = mounted(&fake, &Behaviour::default()).await;
        let (client, root) = (&mounted.client, &mounted.root);
        let names: Vec<String> = (0..10).map(|number| format!("name {number}")).collect();
        for name in &names {
            client.create(root, name.as_bytes(), CreateMode::Guarded).await.unwrap();
        }
        let listed = fileset::list(client, root).await.unwrap();
        assert_eq!(
            listed.iter().map(|entry| &entry.name[..]).collect::<Vec<_>>(),
            names.iter().map(String::as_bytes).collect::<Vec<_>>()
        );
        assert!(listed.iter().all(|entry| entry.handle.is_some() && entry.attributes.is_some()));
        let mut page = DirectoryPage::default();
        let mut count = 0;
        while !page.eof {
            page = client.readdir(root, &page).await.unwrap();
            count += page.entries.len();
        }
        assert_eq!(count, 10);
    });
}

#[test]
fn unanswered_calls_are_sent_again_under_their_xid_after_a_cut() {
    here(async || {
        let fake = Fake::start(Manners { cut_after_doing: 5, ..Manners::default() }).await;
        // The mount itself does not ride out: keep it away from the cuts.
        fake.disk.borrow_mut().manners.cut_after_doing = 0;
        let mounted = mounted(&fake, &Behaviour::default()).await;
        fake.disk.borrow_mut().manners.cut_after_doing = 5;
        let (client, root) = (&mounted.client, &mounted.root);
        // GUARDED creates and renames only pass if the duplicate request cache, keyed by
        // xid, recognises what was sent again.
        for number in 0..40 {
            let name = format!("file-{number}");
            client.create(root, name.as_bytes(), CreateMode::Guarded).await.unwrap();
            client.rename((root, name.as_bytes()), (root, format!("{name}-new").as_bytes())).await.unwrap();
        }
        let outages = client.connection().outages();
        assert!(outages.reconnects > 10 && outages.resent >= outages.reconnects, "{outages:?}");
        assert_eq!(fileset::list(client, root).await.unwrap().len(), 40);
    });
}

#[test]
fn many_calls_in_flight_survive_every_rudeness() {
    here(async || {
        let rude = Manners {
            cut_before_doing: 61,
            reverse: true,
            twice: 3,
            fragment_bytes: 37,
            short_bytes: 3000,
            jukebox: 401,
            ..Manners::default()
        };
        let fake = Fake::start(Manners::default()).await;
        let mounted = mounted(&fake, &Behaviour::default()).await;
        let file = mounted.client.create(&mounted.root, b"file", CreateMode::Guarded).await.unwrap();
        fake.disk.borrow_mut().manners = rude;
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..64_u64 {
            let client = mounted.client.clone();
            calls.spawn_local(async move {
                let data = vec![number as u8 + 1; 8192];
                let fill = |out: &mut Vec<u8>| out.extend_from_slice(&data);
                write_whole(&client, &file, (number * 8192, 8192), fill).await.unwrap();
                assert_eq!(read_whole(&client, &file, number * 8192, 8192).await.unwrap(), data);
            });
        }
        while let Some(done) = calls.join_next().await {
            done.unwrap();
        }
        let outages = mounted.client.connection().outages();
        assert!(outages.reconnects > 3 && outages.unexpected_replies > 10, "{outages:?}");
        assert_eq!(read_whole(&mounted.client, &file, 64 * 8192, 100).await.unwrap(), vec![0; 100]);
    });
}

#[test]
fn a_silent_server_is_left_and_found_again() {
    here(async || {
        let fake = Fake::start(Manners::default()).await;
        let behaviour = Behaviour { silence_limit: Duration::from_millis(100), ..Behaviour::default() };
        let mounted = mounted(&fake, &behaviour).await;
        tokio::time::sleep(Duration::from_millis(350)).await;
        assert_eq!(mounted.client.connection().outages().reconnects, 0, "idle is not silent");
        fake.disk.borrow_mut().manners.silent = true;
        let disk = fake.disk.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(250)).await;
            disk.borrow_mut().manners.silent = false;
        });
        mounted.client.getattr(&mounted.root).await.unwrap();
        let outages = mounted.client.connection().outages();
        assert!((2..=4).contains(&outages.reconnects), "{outages:?}");
    });
}

#[test]
fn without_riding_out_a_lost_connection_fails_its_calls() {
    here(async || {
        let fake = Fake::start(Manners::default()).await;
        let mounted = mounted(&fake, &Behaviour { ride_out: false, ..Behaviour::default() }).await;
        fake.disk.borrow_mut().manners.cut_before_doing = 1;
        let gone = Err(NfsError::Rpc(RpcError::Disconnected));
        assert_eq!(mounted.client.getattr(&mounted.root).await, gone);
        fake.disk.borrow_mut().manners.cut_before_doing = 0;
        assert_eq!(mounted.client.getattr(&mounted.root).await, gone, "and stays failed");
    });
}

#[test]
fn riding_out_ends_at_its_limit() {
    here(async || {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behaviour = Behaviour { ride_out_limit: Duration::from_millis(300), ..Behaviour::default() };
        let connection = Connection::open(listener.local_addr().unwrap(), behaviour).await.unwrap();
        drop(listener);
        let started = Instant::now();
        assert_eq!(connection.call(NFS3, 0, |_| {}).await, Err(RpcError::Disconnected));
        assert!((250..5000).contains(&started.elapsed().as_millis()));
    });
}

/// A server that sends `bytes` to whoever connects.
async fn shouting(bytes: Vec<u8>) -> (std::net::SocketAddr, Rc<RefCell<u32>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Rc::new(RefCell::new(0));
    let counter = count.clone();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            *counter.borrow_mut() += 1;
            let bytes = bytes.clone();
            tokio::task::spawn_local(async move {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    (address, count)
}

#[test]
fn nonsense_from_a_server_ends_the_connection_without_harm() {
    here(async || {
        let huge = vec![0xff, 0xff, 0xff, 0xff];
        let endless_fragments = [[0, 0x10, 0, 0].to_vec(), vec![0; 1 << 20]].concat().repeat(5);
        let empty_record = vec![0x80, 0, 0, 0];
        let noise: Vec<u8> = (0..4000_u32).map(|n| load::random::mix(n.into()) as u8).collect();
        for bytes in [huge, endless_fragments, empty_record, noise] {
            let (address, count) = shouting(bytes).await;
            let behaviour = Behaviour { ride_out_limit: Duration::from_millis(50), ..Behaviour::default() };
            let connection = Connection::open(address, behaviour).await.unwrap();
            let call = tokio::time::timeout(Duration::from_millis(200), connection.call(NFS3, 0, |_| {}));
            assert!(!matches!(call.await, Ok(Ok(_))), "no answer was given");
            assert!(*count.borrow() >= 1);
        }
    });
}

#[test]
fn a_dropped_call_frees_its_slot_when_the_answer_comes() {
    here(async || {
        let fake = Fake::start(Manners::default()).await;
        let mounted = mounted(&fake, &Behaviour::default()).await;
        for _ in 0..100 {
            drop(mounted.client.connection().call(NFS3, 0, |_| {}));
        }
        for _ in 0..100 {
            mounted.client.null().await.unwrap();
        }
        assert_eq!(mounted.client.connection().outages().unexpected_replies, 0);
    });
}

#[test]
fn ways_that_lead_nowhere_are_told_apart() {
    here(async || {
        let fake = Fake::start(Manners::default()).await;
        let behaviour = Behaviour::default();
        let mount = async |path: &str| fake.url(path).parse::<Target>().unwrap().mount(&behaviour).await;
        assert!(matches!(mount("/nowhere").await, Err(ConnectError::Mount { .. })));
        let below = mount("/export/a/b").await.unwrap();
        assert_eq!((below.export.as_str(), below.below.len()), ("/export", 2));
        assert!(matches!(below.walk(&below.below).await, Err(ConnectError::Path { source: NOENT, .. })));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let target: Target = format!("nfs://{closed}/export").parse().unwrap();
        let error = target.mount(&behaviour).await.unwrap_err();
        assert!(matches!(error, ConnectError::Connect { .. }) && error.is_absence());
        let started = Instant::now();
        let patient = ConnectArgs { wait: Duration::from_millis(300), ..ConnectArgs::default() };
        assert!(patient.mount(&target).await.is_err());
        assert!(started.elapsed() >= Duration::from_millis(300));
    });
}

#[test]
fn a_server_that_takes_nothing_is_no_endless_loop() {
    here(async || {
        let fake = Fake::start(Manners::default()).await;
        let mounted = mounted(&fake, &Behaviour::default()).await;
        let file = mounted.client.create(&mounted.root, b"file", CreateMode::Guarded).await.unwrap();
        let nothing = write_whole(&mounted.client, &file, (0, 0), |_| {}).await;
        assert_eq!(nothing, Err(TransferError::NoProgress));
    });
}

async fn nfs(action: NfsAction) -> Result<load::command::Output, load::failure::Failure> {
    load::nfs_command::run_here(&NfsCommand { action }, Console::default()).await
}

#[test]
fn files_go_there_and_back_with_their_holes() {
    here(async || {
        let fake = Fake::start(Manners { short_bytes: 70_000, ..Manners::default() }).await;
        let connect = ConnectArgs::default();
        let remote = |path: &str| -> Target { fake.url(path).parse().unwrap() };
        let directory = tempfile::tempdir().unwrap();
        let local = directory.path().join("disk.img");
        let mut image = vec![0; 5_000_000];
        image[1_234_567..1_434_567].fill(7);
        image[4_999_999] = 9;
        std::fs::write(&local, &image).unwrap();
        let made = MkdirArgs { remote: remote("/export/a/b"), parents: true, connect: connect.clone() };
        nfs(NfsAction::Mkdir(made)).await.unwrap();
        let put = PutArgs { local: local.clone(), remote: remote("/export/a/b/"), connect: connect.clone() };
        let output = nfs(NfsAction::Put(put.clone())).await.unwrap();
        let json: serde_json::Value = serde_json::from_str(&output.json).unwrap();
        assert_eq!(json["data"]["size_bytes"], 5_000_000);
        assert!(json["data"]["moved_bytes"].as_u64().unwrap() < 220_000, "holes are not moved");
        assert_eq!(fake.files(), std::slice::from_ref(&image));
        nfs(NfsAction::Put(put)).await.expect("a second put replaces the file");
        let place = PathArgs { remote: remote("/export/a/b"), connect: connect.clone() };
        let listed = nfs(NfsAction::Ls(place)).await.unwrap();
        assert!(listed.text.contains("disk.img") && listed.text.contains("5,000,000"));
        assert_eq!(listed.text.matches("file").count(), 1, "nothing half done is left: {}", listed.text);
        let back = directory.path().join("back.img");
        let got =
            GetArgs { remote: remote("/export/a/b/disk.img"), local: Some(back.clone()), connect: connect.clone() };
        nfs(NfsAction::Get(got)).await.unwrap();
        assert_eq!(std::fs::read(back).unwrap(), image);
        let gone = RemoveArgs { remote: remote("/export/a"), recursive: true, connect: connect.clone() };
        nfs(NfsAction::Rm(gone.clone())).await.unwrap();
        assert_eq!(fake.disk.borrow().nodes.len(), 1);
        assert_eq!(nfs(NfsAction::Rm(gone)).await.unwrap_err().exit_code(), 3);
        let place = PathArgs { remote: remote("/export"), connect };
        assert_eq!(nfs(NfsAction::Exports(place)).await.unwrap().text, "/export  everyone\n");
    });
}

#[test]
fn a_put_that_fails_leaves_nothing_behind() {
    here(async || {
        let fake = Fake::start(Manners { fail_write: 2, ..Manners::default() }).await;
        let directory = tempfile::tempdir().unwrap();
        let local = directory.path().join("disk.img");
        std::fs::write(&local, vec![1; 3 << 20]).unwrap();
        let remote = fake.url("/export/disk.img").parse().unwrap();
        let failed = nfs(NfsAction::Put(PutArgs { local, remote, connect: ConnectArgs::default() })).await.unwrap_err();
        assert_eq!(failed.to_string(), "cannot write the file: NFS3ERR_IO");
        assert_eq!(fake.disk.borrow().nodes.len(), 1);
    });
}

#[test]
fn connections_end_with_their_last_handle() {
    here(async || {
        let fake = Fake::start(Manners::default()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connection = Connection::open(address, Behaviour::default()).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        let second = connection.clone();
        drop(connection);
        drop(NfsClient::new(second));
        let mut rest = Vec::new();
        accepted.read_to_end(&mut rest).await.expect("closed, not reset");
        assert!(rest.is_empty());
        drop(fake);
    });
}

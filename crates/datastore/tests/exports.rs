//! Datastores: who may use them, how they come and go, and answers that survive a restart.

#![allow(clippy::unwrap_used, clippy::result_large_err, missing_docs, reason = "tests")]

mod lab;

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use datastore::op::{Access, CreateHow, ListingFrom, Place};
use datastore::{
    Caller, DatastoreId, DatastoreOptions, Deletion, Filesystem, Finding, Handle, Identity, NOBODY, OpenRefusal,
    Outcome, Refusal, ReplyNote, RootUser, SetAttr, Wcc,
};
use engine::memory::MemoryStore;
use engine::store::{Change, Store, Table};
use lab::{Lab, identity, run, user, world};

fn at<'a>(dir: &'a Handle, name: &'a [u8]) -> Place<'a> {
    Place { dir, name }
}

fn from(address: &str) -> Caller {
    Caller { address: address.parse().unwrap(), ..user(0) }
}

fn options(networks: &[&str]) -> DatastoreOptions {
    DatastoreOptions {
        clients: networks.iter().map(|network| network.parse().unwrap()).collect(),
        ..DatastoreOptions::default()
    }
}

fn create(lab: &Lab, caller: &Caller, dir: &Handle, name: &[u8]) -> Result<Handle, Refusal> {
    let how = CreateHow::Guarded(SetAttr::default());
    run(lab.fs.create(caller, at(dir, name), how, None)).map(|made| made.handle).map_err(|refused| refused.why)
}

/// What R-SCOPE-03 needs below the wire: an export is mounted by its name.
#[test]
fn mount_finds_pool_datastore_and_directory() {
    let lab = Lab::new();
    let d = run(lab.fs.mkdir(&user(0), at(&lab.root, b"d"), SetAttr::default(), None)).unwrap().handle;
    create(&lab, &user(0), &d, b"f").unwrap();
    let mount = |path: &[u8]| run(lab.fs.mount(&user(0), path)).map(|mounted| mounted.handle);
    assert_eq!(mount(b"/vms").unwrap(), lab.root);
    assert_eq!(mount(b"vms/").unwrap(), lab.root);
    assert_eq!(mount(b"/vms/d").unwrap(), d);
    assert_eq!(mount(b"/none"), Err(Refusal::NoEntry));
    assert_eq!(mount(b"/vms/none"), Err(Refusal::NoEntry));
    assert_eq!(mount(b"/vms/../vms"), Err(Refusal::BadArgument));
    assert_eq!(mount(b"/vms/d/f"), Err(Refusal::NotDirectory));
    let pool = mount(b"/").unwrap();
    assert_eq!(pool.datastore(), DatastoreId::POOL);
    assert_eq!(run(lab.fs.lookup(&user(0), at(&pool, b"vms"))).unwrap().handle, lab.root);
    assert_eq!(create(&lab, &user(0), &pool, b"x"), Err(Refusal::ReadOnly));
    assert_eq!(run(lab.fs.access(&user(0), &pool, Access(0x3f))).unwrap().access, Access(0x03));
    let paths: Vec<String> = lab.fs.exports().into_iter().map(|export| export.path).collect();
    assert_eq!(paths, ["/", "/vms"]);
    let bytes = *lab.root.as_bytes();
    assert_eq!(lab.fs.handle(&bytes), Ok(lab.root));
    assert_eq!(lab.fs.handle(&bytes[1..]), Err(Refusal::BadHandle));
}

#[test]
fn every_call_goes_by_the_access_list_of_the_handle() {
    let lab = Lab::new();
    let info = run(lab.fs.create_datastore("lab", options(&["10.1.0.0/16", "fd00::/8"]))).unwrap();
    let inside = from("10.1.2.3");
    let root = run(lab.fs.mount(&inside, b"/lab")).unwrap().handle;
    for good in ["10.1.255.1", "fd00::1", "::ffff:10.1.9.9"] {
        assert!(run(lab.fs.getattr(&from(good), &root)).is_ok(), "{good}");
    }
    let outside = from("10.2.0.1");
    assert_eq!(run(lab.fs.mount(&outside, b"/lab")), Err(Refusal::NotAllowed));
    let refused = run(lab.fs.getattr(&outside, &root)).unwrap_err();
    assert_eq!(refused.why, Refusal::NotAllowed);
    let how = CreateHow::Guarded(SetAttr::default());
    let refused = run(lab.fs.create(&outside, at(&root, b"x"), how, None)).unwrap_err();
    assert_eq!((refused.why, refused.wcc), (Refusal::NotAllowed, Wcc::default()), "strangers see no attributes");
    // From the pool's root a stranger sees the name but gets no further.
    let pool = run(lab.fs.mount(&outside, b"/")).unwrap().handle;
    assert_eq!(run(lab.fs.lookup(&outside, at(&pool, b"lab"))).unwrap_err().why, Refusal::NotAllowed);
    let listing = run(lab.fs.readdirplus(&outside, &pool, ListingFrom { cookie: 0, limit: 9 })).unwrap();
    let plus: Vec<bool> = listing.entries.iter().map(|entry| entry.plus.is_some()).collect();
    assert_eq!(plus, [true, true, true, false]);
    // Nobody at all, and a change of mind, without a restart and with.
    run(lab.fs.set_datastore(info.id, options(&[]))).unwrap();
    assert_eq!(run(lab.fs.getattr(&inside, &root)).unwrap_err().why, Refusal::NotAllowed);
    run(lab.fs.set_datastore(info.id, options(&["10.2.0.0/16"]))).unwrap();
    let mut lab = lab;
    lab.reopen();
    assert!(run(lab.fs.getattr(&outside, &root)).is_ok());
    assert_eq!(run(lab.fs.getattr(&inside, &root)).unwrap_err().why, Refusal::NotAllowed);
}

#[test]
fn root_is_squashed_and_read_only_is_read_only() {
    let lab = Lab::new();
    let squashed = DatastoreOptions { root: RootUser::Squashed, ..DatastoreOptions::open() };
    let info = run(lab.fs.create_datastore("squashed", squashed.clone())).unwrap();
    let root = run(lab.fs.mount(&user(0), b"/squashed")).unwrap().handle;
    let made = create(&lab, &user(0), &root, b"f").unwrap();
    let attr = run(lab.fs.getattr(&user(0), &made)).unwrap();
    assert_eq!((attr.uid, attr.gid), (NOBODY, NOBODY));
    assert_eq!(create(&lab, &user(5), &root, b"g"), Err(Refusal::NotAllowed));
    let own = SetAttr { uid: Some(0), ..SetAttr::default() };
    let args = datastore::op::SetAttrArgs { set: own, guard: None };
    assert_eq!(run(lab.fs.setattr(&user(0), &made, args, None)).unwrap_err().why, Refusal::NotOwner);

    run(lab.fs.set_datastore(info.id, DatastoreOptions { read_only: true, ..squashed })).unwrap();
    assert!(run(lab.fs.read(&user(0), &made, 0, 1)).is_ok());
    assert_eq!(create(&lab, &user(0), &root, b"h"), Err(Refusal::ReadOnly));
    assert_eq!(run(lab.fs.write(&user(0), &made, 0, &[b"x"])).unwrap_err().why, Refusal::ReadOnly);
    assert_eq!(run(lab.fs.remove(&user(0), at(&root, b"f"), None)).unwrap_err().why, Refusal::ReadOnly);
    let refused = run(lab.fs.rename(&user(0), at(&root, b"f"), at(&root, b"g"), None)).unwrap_err();
    assert_eq!(refused.why, Refusal::ReadOnly);
    let access = run(lab.fs.access(&user(0), &made, Access(0x3f))).unwrap().access;
    assert_eq!(access, Access::READ);
}

/// There are no volumes: datastores with different settings are directories of one
/// filesystem, with ids from one row.
#[test]
fn datastores_are_directories_of_one_filesystem() {
    let lab = Lab::new();
    let other = run(lab.fs.create_datastore("other", options(&["10.0.0.0/8"]))).unwrap();
    let root = run(lab.fs.mount(&user(0), b"/other")).unwrap().handle;
    let (f, g) = (create(&lab, &user(0), &lab.root, b"f").unwrap(), create(&lab, &user(0), &root, b"g").unwrap());
    assert!(g.file() > f.file(), "ids grow with creation, across datastores");
    let attr = |handle: &Handle| run(lab.fs.getattr(&user(0), handle)).unwrap();
    assert_ne!(attr(&f).fsid, attr(&g).fsid);
    let refused = run(lab.fs.rename(&user(0), at(&lab.root, b"f"), at(&root, b"f"), None)).unwrap_err();
    assert_eq!(refused.why, Refusal::CrossDatastore);
    let refused = run(lab.fs.link(&user(0), &f, at(&root, b"f"), None)).unwrap_err();
    assert_eq!(refused.why, Refusal::CrossDatastore);
    let names: Vec<String> = lab.fs.datastores().into_iter().map(|datastore| datastore.name).collect();
    assert_eq!(names, ["other", "vms"]);
    for (name, why) in [
        ("vms", Refusal::Exists),
        ("", Refusal::BadArgument),
        (".x", Refusal::BadArgument),
        ("a/b", Refusal::BadArgument),
        ("a b", Refusal::BadArgument),
    ] {
        assert_eq!(run(lab.fs.create_datastore(name, DatastoreOptions::open())).unwrap_err(), why, "{name}");
    }
    let long = "x".repeat(65);
    assert_eq!(run(lab.fs.create_datastore(&long, DatastoreOptions::open())).unwrap_err(), Refusal::NameTooLong);
    assert_eq!(other.options, options(&["10.0.0.0/8"]));
    lab.assert_clean();
}

fn fill(lab: &Lab, root: &Handle) -> Handle {
    let mut deepest = *root;
    for depth in 0..5 {
        for n in 0..4 {
            create(lab, &user(0), &deepest, format!("f{n}").as_bytes()).unwrap();
        }
        let name = format!("d{depth}");
        deepest = run(lab.fs.mkdir(&user(0), at(&deepest, name.as_bytes()), SetAttr::default(), None)).unwrap().handle;
    }
    deepest
}

#[test]
fn deleting_a_datastore_takes_all_of_it_and_nothing_else() {
    let mut lab = Lab::new();
    run(lab.fs.create_datastore("old", DatastoreOptions::open())).unwrap();
    let root = run(lab.fs.mount(&user(0), b"/old")).unwrap().handle;
    let deepest = fill(&lab, &root);
    let kept = create(&lab, &user(0), &lab.root, b"kept").unwrap();
    assert_eq!(run(lab.fs.delete_datastore("old", Deletion::IfEmpty)), Err(Refusal::NotEmpty));
    assert!(run(lab.fs.getattr(&user(0), &deepest)).is_ok());
    run(lab.fs.delete_datastore("old", Deletion::WithContent)).unwrap();
    for handle in [&root, &deepest] {
        assert_eq!(run(lab.fs.getattr(&user(0), handle)).unwrap_err().why, Refusal::Stale);
    }
    assert_eq!(run(lab.fs.delete_datastore("old", Deletion::WithContent)), Err(Refusal::NoEntry));
    assert!(run(lab.fs.getattr(&user(0), &kept)).is_ok());
    assert_eq!(lab.fs.datastores().len(), 1);
    // Inodes left: the pool's root, the datastore's, and one file.
    assert_eq!(run(lab.store.scan(Table(2), &[], 100)).unwrap().len(), 3);
    lab.assert_clean();
    // The same name again is another datastore: old handles stay stale.
    let again = run(lab.fs.create_datastore("old", DatastoreOptions::open())).unwrap();
    assert_ne!(again.id, root.datastore());
    assert_eq!(run(lab.fs.getattr(&user(0), &root)).unwrap_err().why, Refusal::Stale);
    lab.reopen();
    assert_eq!(run(lab.fs.getattr(&user(0), &root)).unwrap_err().why, Refusal::Stale);
    run(lab.fs.delete_datastore("old", Deletion::IfEmpty)).unwrap();
    lab.assert_clean();
}

/// The deletion stops after any number of commits (the process dies); the next open ends it.
#[test]
fn an_interrupted_deletion_goes_on_at_the_next_open() {
    for polls in [1, 2, 3, 10, 40] {
        let mut lab = Lab::on(lab::Waiting::new(polls));
        run(lab.fs.create_datastore("old", DatastoreOptions::open())).unwrap();
        let root = run(lab.fs.mount(&user(0), b"/old")).unwrap().handle;
        let how = CreateHow::Guarded(SetAttr::default());
        for n in 0..6 {
            run(lab.fs.create(&user(0), at(&root, &[b'a' + n]), how, None)).unwrap();
        }
        {
            let fs = lab.fs.clone();
            let mut deletion = Box::pin(async move { fs.delete_datastore("old", Deletion::WithContent).await });
            for _ in 0..polls {
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                let _ = deletion.as_mut().poll(&mut context);
            }
        }
        lab.reopen();
        let doomed = lab.fs.datastores().len() == 1;
        let inodes = run(lab.store.scan(Table(2), &[], 100)).unwrap().len();
        assert_eq!(inodes, if doomed { 2 } else { 9 }, "all or nothing after {polls} polls");
        lab.assert_clean();
    }
}

#[test]
fn a_quota_bounds_what_is_used_and_shows_in_fsstat() {
    let lab = Lab::new();
    let quota = 1 << 20;
    let limited = DatastoreOptions { quota_bytes: Some(quota), ..DatastoreOptions::open() };
    run(lab.fs.create_datastore("small", limited)).unwrap();
    let root = run(lab.fs.mount(&user(0), b"/small")).unwrap().handle;
    let disk = create(&lab, &user(0), &root, b"disk").unwrap();
    let block = vec![1; 65_536];
    let write = |file: &Handle, offset: u64| run(lab.fs.write(&user(0), file, offset, &[&block]));
    // Overwriting does not use quota up, however often.
    for _ in 0..100 {
        write(&disk, 0).unwrap();
    }
    for n in 1..16 {
        write(&disk, n * 65_536).unwrap();
    }
    let stat = run(lab.fs.fsstat(&user(0), &root)).unwrap();
    assert_eq!((stat.total_bytes, stat.free_bytes), (quota, 0));
    let refused = write(&disk, 16 * 65_536).unwrap_err();
    assert_eq!(refused.why, Refusal::QuotaExceeded);
    assert_eq!(refused.wcc.after, Some(run(lab.fs.getattr(&user(0), &disk)).unwrap()));
    write(&disk, 5 * 65_536).unwrap();
    let other = create(&lab, &user(0), &lab.root, b"elsewhere").unwrap();
    write(&other, 0).unwrap();
    run(lab.fs.remove(&user(0), at(&root, b"disk"), None)).unwrap();
    let disk = create(&lab, &user(0), &root, b"disk").unwrap();
    write(&disk, 0).unwrap();
    let stat = run(lab.fs.fsstat(&user(0), &root)).unwrap();
    assert_eq!(stat.free_bytes, quota - 65_536);
}

#[test]
fn formats_once_and_opens_only_its_own_pool() {
    let lab = Lab::new();
    let again = run(Filesystem::format(&*lab.store, &world(&lab.hand), &identity(), DatastoreOptions::open()));
    assert_eq!(again, Err(OpenRefusal::AlreadyFormatted));
    let other = Identity { pool: 1, ..identity() };
    let opened = run(Filesystem::open(lab.store.clone(), world(&lab.hand), other));
    assert_eq!(opened.err(), Some(OpenRefusal::OtherPool));
    let empty = Rc::new(MemoryStore::default());
    let opened = run(Filesystem::open(empty, world(&lab.hand), identity()));
    assert_eq!(opened.err(), Some(OpenRefusal::NotFormatted));
}

fn note(key: u32, seen: &Rc<RefCell<Vec<u8>>>) -> Option<ReplyNote> {
    let seen = seen.clone();
    let encode = move |outcome: &Outcome<'_>| {
        let reply = format!("{outcome:?}").into_bytes()[..40].to_vec();
        *seen.borrow_mut() = reply.clone();
        reply
    };
    Some(ReplyNote { key: key.to_be_bytes().to_vec(), encode: Box::new(encode) })
}

#[test]
fn answers_are_kept_with_their_changes_and_only_then() {
    let mut lab = Lab::new();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let how = CreateHow::Guarded(SetAttr::default());
    run(lab.fs.create(&user(0), at(&lab.root, b"f"), how, note(1, &seen))).unwrap();
    let first = seen.borrow().clone();
    run(lab.fs.create(&user(0), at(&lab.root, b"f"), how, note(2, &seen))).unwrap_err();
    assert_eq!(*seen.borrow(), first, "a refusal is not encoded and not kept");
    run(lab.fs.rename(&user(0), at(&lab.root, b"f"), at(&lab.root, b"g"), note(3, &seen))).unwrap();
    lab.reopen();
    let kept = run(lab.fs.replies()).unwrap();
    let keys: Vec<&[u8]> = kept.iter().map(|reply| &reply.key[..]).collect();
    assert_eq!(keys, [&1u32.to_be_bytes()[..], &3u32.to_be_bytes()]);
    assert_eq!((&kept[0].reply, &kept[1].reply), (&first, &*seen.borrow()));

    // The newest 1,024 stay, across a restart in the middle too.
    for n in 0..1500u32 {
        if n == 700 {
            lab.reopen();
        }
        let (old, new) = if n % 2 == 0 { (b"g", b"h") } else { (b"h", b"g") };
        run(lab.fs.rename(&user(0), at(&lab.root, old), at(&lab.root, new), note(100 + n, &seen))).unwrap();
    }
    let kept = run(lab.fs.replies()).unwrap();
    assert_eq!(kept.len(), 1024);
    assert_eq!(kept.last().unwrap().key, 1599u32.to_be_bytes());
    assert_eq!(kept[0].key, (1600u32 - 1024).to_be_bytes());
    // After ten minutes they are of no use to anyone.
    lab.hand.wall.set(lab.hand.wall.get() + 610 * lab::SECOND);
    assert_eq!(run(lab.fs.replies()).unwrap(), []);
    run(lab.fs.rename(&user(0), at(&lab.root, b"g"), at(&lab.root, b"h"), note(9, &seen))).unwrap();
    assert_eq!(run(lab.store.scan(Table(7), &[], 2000)).unwrap().len(), 1021, "old ones go a few at a time");
    lab.assert_clean();
}

/// Each row of each table damaged in turn: `check` says so, and only then.
#[test]
fn check_finds_every_damaged_or_missing_row() {
    let lab = Lab::new();
    let d = run(lab.fs.mkdir(&user(0), at(&lab.root, b"d"), SetAttr::default(), None)).unwrap().handle;
    let f = create(&lab, &user(0), &d, b"f").unwrap();
    run(lab.fs.link(&user(0), &f, at(&lab.root, b"second"), None)).unwrap();
    let text = datastore::op::NewSymlink { text: &[b'x'; 2000], set: SetAttr::default() };
    run(lab.fs.symlink(&user(0), at(&d, b"link"), text, None)).unwrap();
    lab.assert_clean();
    let mut damaged = 0;
    for table in [2, 3, 4, 5, 6].map(Table) {
        for (key, value) in run(lab.store.scan(table, &[], 1000)).unwrap() {
            let delete = Change::Delete { table, key: key.clone() };
            let put = |value: Vec<u8>| Change::Put { table, key: key.clone(), value };
            let pool_root_export = table == Table(6) && key == [0; 4];
            for change in [delete, put(value[..value.len() - 1].to_vec())] {
                if pool_root_export && matches!(change, Change::Delete { .. }) {
                    continue;
                }
                run(lab.store.commit(vec![change.clone()])).unwrap();
                // A fresh open has nothing cached; what does not even open is found too.
                let opened = run(Filesystem::open(lab.store.clone(), world(&lab.hand), identity()));
                if let Ok(fs) = opened {
                    let whole = table == Table(6) && matches!(change, Change::Delete { .. });
                    let findings: Vec<Finding> = run(fs.check()).unwrap();
                    assert!(whole || !findings.is_empty(), "{change:?}");
                }
                damaged += 1;
                run(lab.store.commit(vec![put(value.to_vec())])).unwrap();
            }
        }
    }
    assert!(damaged > 30);
    lab.assert_clean();
}

//! Every procedure through raw bytes, over the datastore on a store in memory. The other
//! side's codec is `nfs3_types`.
#![allow(clippy::unwrap_used, missing_docs, dead_code, reason = "tests")]

mod harness;

use harness::{Client, Server};
use nfs::xdr::{Decoder, Encoder};
use nfs3_types::nfs3::*;
use nfs3_types::xdr_codec::{Opaque, Void};

fn fh(bytes: &[u8]) -> nfs_fh3 {
    nfs_fh3 { data: Opaque::owned(bytes.to_vec()) }
}

fn at<'a>(dir: &[u8], name: &'a [u8]) -> diropargs3<'a> {
    diropargs3 { dir: fh(dir), name: name.into() }
}

fn mode(mode: u32) -> sattr3 {
    sattr3 { mode: Nfs3Option::Some(mode), ..sattr3::default() }
}

fn start() -> (Server, Client, Vec<u8>) {
    let server = Server::new();
    let mut client = server.client([10, 0, 0, 1]);
    let root = client.mount(b"/tank").unwrap();
    (server, client, root)
}

fn create(client: &mut Client, dir: &[u8], name: &[u8]) -> Vec<u8> {
    let args = CREATE3args { where_: at(dir, name), how: createhow3::GUARDED(mode(0o640)) };
    let made: CREATE3res = client.nfs(8, &args);
    made.unwrap().obj.unwrap().data.to_vec()
}

fn write(client: &mut Client, file: &[u8], offset: u64, data: &[u8]) -> WRITE3resok {
    let (count, stable) = (data.len() as u32, stable_how::UNSTABLE);
    let args = WRITE3args { file: fh(file), offset, count, stable, data: Opaque::borrowed(data) };
    client.nfs::<_, WRITE3res>(7, &args).unwrap()
}

fn read(client: &mut Client, file: &[u8], offset: u64, count: u32) -> (Vec<u8>, bool) {
    let done: READ3res<'static> = client.nfs(6, &READ3args { file: fh(file), offset, count });
    let done = done.unwrap();
    assert_eq!(done.count as usize, done.data.len());
    (done.data.to_vec(), done.eof)
}

fn getattr(client: &mut Client, file: &[u8]) -> fattr3 {
    client.nfs::<_, GETATTR3res>(1, &GETATTR3args { object: fh(file) }).unwrap().obj_attributes
}

/// A client mounts by address and export name, writes, goes away, mounts again and reads.
#[test]
fn a_datastore_is_one_mount_of_an_export_path() {
    let (server, mut client, root) = start();
    let file = create(&mut client, &root, b"disk.raw");
    write(&mut client, &file, 0, b"hello");
    drop(client);
    let mut client = server.client([10, 0, 0, 2]);
    assert_eq!(client.mount(b"/tank").unwrap(), root, "the same handle for ever");
    let found: LOOKUP3res = client.nfs(3, &LOOKUP3args { what: at(&root, b"disk.raw") });
    assert_eq!(found.unwrap().object, fh(&file));
    assert_eq!(read(&mut client, &file, 0, 100), (b"hello".to_vec(), true));
    assert_eq!(client.mount(b"/nope"), Err(2));
}

#[test]
fn written_data_is_read_back_at_every_alignment() {
    let (_server, mut client, root) = start();
    let file = create(&mut client, &root, b"f");
    let data: Vec<u8> = (0..100_003u32).map(|at| (at * 7) as u8).collect();
    for (offset, len) in [(0, 1), (8191, 3), (3, 100_003), (1 << 40, 8192)] {
        let done = write(&mut client, &file, offset, &data[..len]);
        assert_eq!((done.count as usize, done.committed), (len, stable_how::FILE_SYNC));
        assert_eq!(read(&mut client, &file, offset, len as u32).0, data[..len]);
    }
    let (hole, eof) = read(&mut client, &file, 1 << 30, 70_001);
    assert_eq!((hole.len(), eof), (70_001, false));
    assert!(hole.iter().all(|&byte| byte == 0));
    let attr = getattr(&mut client, &file);
    assert_eq!(attr.size, (1 << 40) + 8192);
    assert!(attr.used < 1 << 20, "holes take nothing, but {} bytes are used", attr.used);
}

#[test]
fn a_mebibyte_goes_through_in_one_request() {
    let (_server, mut client, root) = start();
    let file = create(&mut client, &root, b"f");
    let data: Vec<u8> = (0..1u32 << 20).map(|at| (at >> 8) as u8).collect();
    write(&mut client, &file, 0, &data);
    assert_eq!(read(&mut client, &file, 0, 1 << 20), (data, true));
}

#[test]
fn the_write_verifier_is_constant_and_commit_agrees() {
    let (server, mut client, root) = start();
    let file = create(&mut client, &root, b"f");
    let verifier = write(&mut client, &file, 0, b"x").verf;
    let args = COMMIT3args { file: fh(&file), offset: 0, count: 0 };
    let committed: COMMIT3res = client.nfs(21, &args);
    assert_eq!(committed.unwrap().verf, verifier);
    let server = server.restarted();
    let mut client = server.client([10, 0, 0, 1]);
    assert_eq!(write(&mut client, &file, 0, b"y").verf, verifier, "after a restart, too");
}

#[test]
fn weak_cache_consistency_shows_before_and_after() {
    let (_server, mut client, root) = start();
    let file = create(&mut client, &root, b"f");
    let before = getattr(&mut client, &file);
    let wcc = write(&mut client, &file, 0, b"12345").file_wcc;
    let pre = wcc.before.unwrap();
    assert_eq!((pre.size, pre.mtime, pre.ctime), (before.size, before.mtime, before.ctime));
    let after = wcc.after.unwrap();
    assert_eq!(harness::packed(&after), harness::packed(&getattr(&mut client, &file)));
    assert!(after.mtime != before.mtime && after.size == 5);
}

#[test]
fn attributes_can_be_set_and_guarded() {
    let (_server, mut client, root) = start();
    let file = create(&mut client, &root, b"f");
    let time = nfstime3 { seconds: 1_000_000, nseconds: 77 };
    let set = sattr3 {
        mode: Nfs3Option::Some(0o600),
        uid: Nfs3Option::Some(5),
        gid: Nfs3Option::Some(6),
        size: Nfs3Option::Some(1 << 42),
        atime: set_atime::SET_TO_SERVER_TIME,
        mtime: set_mtime::SET_TO_CLIENT_TIME(time),
    };
    let ctime = getattr(&mut client, &file).ctime;
    let args = SETATTR3args { object: fh(&file), new_attributes: set, guard: Nfs3Option::Some(ctime) };
    client.nfs::<_, SETATTR3res>(2, &args).unwrap();
    let attr = getattr(&mut client, &file);
    assert_eq!((attr.mode, attr.uid, attr.gid, attr.size, attr.mtime), (0o600, 5, 6, 1 << 42, time));
    let again: SETATTR3res = client.nfs(2, &args);
    assert!(matches!(again, Nfs3Result::Err((nfsstat3::NFS3ERR_NOT_SYNC, _))), "the guard saw a change");
}

#[test]
fn names_are_made_moved_linked_and_removed() {
    let (_server, mut client, root) = start();
    let made: MKDIR3res = client.nfs(9, &MKDIR3args { where_: at(&root, b"d"), attributes: mode(0o755) });
    let dir = made.unwrap().obj.unwrap().data.to_vec();
    let file = create(&mut client, &dir, b"a \xff\xfe name");
    let renamed: RENAME3res = client.nfs(14, &RENAME3args { from: at(&dir, b"a \xff\xfe name"), to: at(&root, b"b") });
    assert!(renamed.unwrap().todir_wcc.after.is_some());
    let linked: LINK3res = client.nfs(15, &LINK3args { file: fh(&file), link: at(&dir, b"c") });
    assert_eq!(linked.unwrap().file_attributes.unwrap().nlink, 2);
    let text = symlinkdata3 { symlink_attributes: mode(0o777), symlink_data: (&b"../b"[..]).into() };
    let link: SYMLINK3res = client.nfs(10, &SYMLINK3args { where_: at(&dir, b"s"), symlink: text });
    let link = link.unwrap().obj.unwrap();
    let text: READLINK3res<'static> = client.nfs(5, &READLINK3args { symlink: link });
    assert_eq!(text.unwrap().data.as_ref(), b"../b");
    let full: RMDIR3res = client.nfs(13, &RMDIR3args { object: at(&root, b"d") });
    assert!(matches!(full, Nfs3Result::Err((nfsstat3::NFS3ERR_NOTEMPTY, _))));
    for name in [&b"c"[..], b"s"] {
        client.nfs::<_, REMOVE3res>(12, &REMOVE3args { object: at(&dir, name) }).unwrap();
    }
    client.nfs::<_, RMDIR3res>(13, &RMDIR3args { object: at(&root, b"d") }).unwrap();
    client.nfs::<_, REMOVE3res>(12, &REMOVE3args { object: at(&root, b"b") }).unwrap();
    let gone: GETATTR3res = client.nfs(1, &GETATTR3args { object: fh(&file) });
    assert!(matches!(gone, Nfs3Result::Err((nfsstat3::NFS3ERR_STALE, Void))));
}

#[test]
fn creation_has_three_ways_and_nodes_four_kinds() {
    let (_server, mut client, root) = start();
    let how = |how| CREATE3args { where_: at(&root, b"x"), how };
    let verifier = createverf3(*b"verifier");
    let first: CREATE3res = client.nfs(8, &how(createhow3::EXCLUSIVE(createverf3(*b"verifier"))));
    let again: CREATE3res = client.nfs(8, &how(createhow3::EXCLUSIVE(verifier)));
    assert_eq!(first.unwrap().obj, again.unwrap().obj, "the same request, repeated");
    let other: CREATE3res = client.nfs(8, &how(createhow3::EXCLUSIVE(createverf3(*b"another!"))));
    assert!(matches!(other, Nfs3Result::Err((nfsstat3::NFS3ERR_EXIST, _))));
    let guarded: CREATE3res = client.nfs(8, &how(createhow3::GUARDED(mode(0o600))));
    assert!(matches!(guarded, Nfs3Result::Err((nfsstat3::NFS3ERR_EXIST, _))));
    client.nfs::<_, CREATE3res>(8, &how(createhow3::UNCHECKED(mode(0o600)))).unwrap();
    let device = || devicedata3 { dev_attributes: mode(0o600), spec: specdata3 { specdata1: 8, specdata2: 1 } };
    let kinds = [
        (mknoddata3::NF3CHR(device()), ftype3::NF3CHR),
        (mknoddata3::NF3BLK(device()), ftype3::NF3BLK),
        (mknoddata3::NF3SOCK(mode(0o600)), ftype3::NF3SOCK),
        (mknoddata3::NF3FIFO(mode(0o600)), ftype3::NF3FIFO),
    ];
    for (name, (what, kind)) in [b"c", b"b", b"s", b"f"].into_iter().zip(kinds) {
        let made: MKNOD3res = client.nfs(11, &MKNOD3args { where_: at(&root, name), what });
        assert_eq!(made.unwrap().obj_attributes.unwrap().type_, kind);
    }
    // A directory is not made by MKNOD.
    let mut args = harness::packed(&at(&root, b"dir"));
    args.extend(2u32.to_be_bytes());
    let results = client.call((100_003, 3, 11), &args);
    assert_eq!(results[..4], 10007u32.to_be_bytes());
}

#[test]
fn limits_and_room_are_told() {
    let (_server, mut client, root) = start();
    let info: FSINFO3res = client.nfs(19, &FSINFO3args { fsroot: fh(&root) });
    let info = info.unwrap();
    assert_eq!((info.rtmax, info.wtmax), (1 << 20, 1 << 20));
    assert_eq!(info.properties, FSF3_LINK | FSF3_SYMLINK | FSF3_HOMOGENEOUS | FSF3_CANSETTIME);
    assert!(info.maxfilesize > 1 << 43);
    assert_eq!(info.time_delta, nfstime3 { seconds: 0, nseconds: 1 });
    let stat: FSSTAT3res = client.nfs(18, &FSSTAT3args { fsroot: fh(&root) });
    let stat = stat.unwrap();
    assert!(stat.tbytes >= stat.fbytes && stat.fbytes >= stat.abytes && stat.abytes > 0);
    let conf: PATHCONF3res = client.nfs(20, &PATHCONF3args { object: fh(&root) });
    let conf = conf.unwrap();
    assert_eq!((conf.name_max, conf.no_trunc, conf.case_insensitive, conf.case_preserving), (255, true, false, true));
    let access: ACCESS3res = client.nfs(4, &ACCESS3args { object: fh(&root), access: 0x3f });
    assert_eq!(access.unwrap().access & 0x1f, 0x1f);
}

fn list(client: &mut Client, dir: &[u8], count: u32) -> Vec<Vec<u8>> {
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let args = READDIR3args { dir: fh(dir), cookie, cookieverf: cookieverf3([9; 8]), count };
        let results = client.call((100_003, 3, 16), &harness::packed(&args));
        assert!(results.len() <= count as usize, "{} bytes in a budget of {count}", results.len());
        let done: READDIR3res<'static> = harness::unpacked(&results);
        let listing = done.unwrap().reply;
        for entry in &listing.entries.0 {
            cookie = entry.cookie;
            names.push(entry.name.as_ref().to_vec());
        }
        if listing.eof {
            return names;
        }
        assert!(cookie > args.cookie, "it must go on");
    }
}

fn list_plus(client: &mut Client, dir: &[u8], dircount: u32, maxcount: u32) -> Vec<Vec<u8>> {
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let args = READDIRPLUS3args { dir: fh(dir), cookie, cookieverf: cookieverf3([0; 8]), dircount, maxcount };
        let results = client.call((100_003, 3, 17), &harness::packed(&args));
        assert!(results.len() <= maxcount as usize, "{} bytes in a budget of {maxcount}", results.len());
        let done: READDIRPLUS3res<'static> = harness::unpacked(&results);
        let listing = done.unwrap().reply;
        let dir_bytes: usize = listing.entries.0.iter().map(|entry| 20 + entry.name.len().next_multiple_of(4)).sum();
        assert!(dir_bytes <= dircount as usize, "{dir_bytes} directory bytes in a budget of {dircount}");
        for entry in listing.entries.0 {
            cookie = entry.cookie;
            assert_eq!(entry.name_attributes.unwrap().fileid, entry.fileid);
            names.push(entry.name.as_ref().to_vec());
        }
        if listing.eof {
            return names;
        }
        assert!(cookie > args.cookie, "it must go on");
    }
}

#[test]
fn listings_keep_their_budgets_and_miss_nothing() {
    let (_server, mut client, root) = start();
    let mut expected: Vec<Vec<u8>> = vec![b".".to_vec(), b"..".to_vec()];
    for number in 0..300 {
        let name = format!("{number}-{}", "x".repeat(number % 50)).into_bytes();
        create(&mut client, &root, &name);
        expected.push(name);
    }
    expected.sort();
    for count in [200, 512, 4096, 1 << 20] {
        let mut names = list(&mut client, &root, count);
        names.sort();
        assert_eq!(names, expected, "READDIR with count {count}");
    }
    for (dircount, maxcount) in [(100, 4096), (512, 400), (4096, 32768), (1 << 20, 1 << 20)] {
        let mut names = list_plus(&mut client, &root, dircount, maxcount);
        names.sort();
        assert_eq!(names, expected, "READDIRPLUS with {dircount} and {maxcount}");
    }
    let args = READDIR3args { dir: fh(&root), cookie: 0, cookieverf: cookieverf3([0; 8]), count: 10 };
    let tiny: READDIR3res<'static> = harness::unpacked(&client.call((100_003, 3, 16), &harness::packed(&args)));
    assert!(matches!(tiny, Nfs3Result::Err((nfsstat3::NFS3ERR_TOOSMALL, _))));
}

#[test]
fn forged_and_foreign_handles_are_refused_in_every_procedure() {
    let (_server, mut client, root) = start();
    let mut forged = root.clone();
    forged[20] ^= 1;
    for handle in [&forged[..], b"", &[0; 64]] {
        let gone: GETATTR3res = client.nfs(1, &GETATTR3args { object: fh(handle) });
        assert!(matches!(gone, Nfs3Result::Err((nfsstat3::NFS3ERR_BADHANDLE, Void))));
        let done: WRITE3res = client.nfs(
            7,
            &WRITE3args {
                file: fh(handle),
                offset: 0,
                count: 1,
                stable: stable_how::FILE_SYNC,
                data: Opaque::borrowed(b"x"),
            },
        );
        assert!(matches!(done, Nfs3Result::Err((nfsstat3::NFS3ERR_BADHANDLE, _))));
        let done: LINK3res = client.nfs(15, &LINK3args { file: fh(handle), link: at(&root, b"l") });
        assert!(matches!(done, Nfs3Result::Err((nfsstat3::NFS3ERR_BADHANDLE, _))));
        let done: RENAME3res = client.nfs(14, &RENAME3args { from: at(&root, b"l"), to: at(handle, b"m") });
        assert!(matches!(done, Nfs3Result::Err((nfsstat3::NFS3ERR_BADHANDLE, _))));
    }
}

#[test]
fn the_export_list_and_the_mount_list_are_told() {
    let (_server, mut client, _root) = start();
    for version in [1, 3] {
        let results = client.call((100_005, version, 5), &[]);
        let exports: nfs3_types::mount::exports<'static, 'static> = harness::unpacked(&results);
        let paths: Vec<_> = exports.0.iter().map(|export| export.ex_dir.0.to_vec()).collect();
        assert!(paths.contains(&b"/tank".to_vec()), "{paths:?}");
    }
    let mounts = |client: &mut Client| {
        let results = client.call((100_005, 3, 2), &[]);
        let mounts: nfs3_types::mount::mountlist<'static, 'static> = harness::unpacked(&results);
        mounts.0.iter().map(|mount| mount.ml_directory.0.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(mounts(&mut client), [b"/tank".to_vec()]);
    let mut path = Encoder::default();
    path.opaque(b"/tank");
    client.call((100_005, 3, 3), path.bytes());
    assert_eq!(mounts(&mut client), [] as [Vec<u8>; 0]);
}

#[test]
fn calls_for_nobody_get_the_rpc_answer() {
    let (_server, mut client, _root) = start();
    let mut ask = |what: (u32, u32, u32)| {
        let record = client.record(what, &[]);
        client.exchange(&record).remove(0)[20..].to_vec()
    };
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
    assert_eq!(ask((100_227, 3, 0)), words(&[1]), "NFS_ACL is not here");
    assert_eq!(ask((100_003, 4, 0)), words(&[2, 3, 3]), "NFSv4 is not here");
    assert_eq!(ask((100_003, 3, 22)), words(&[3]));
    assert_eq!(ask((100_003, 3, 1)), words(&[4]), "arguments are missing");
    for null in [(100_003, 3, 0), (100_005, 3, 0), (100_021, 4, 0), (100_024, 1, 0), (100_000, 2, 0)] {
        assert_eq!(ask(null), words(&[0]));
    }
}

#[test]
fn what_is_no_call_ends_the_connection() {
    let (server, ..) = start();
    let mut client = server.client([10, 0, 0, 9]);
    let replies = client.exchange(&harness::framed(b"GET / HTTP/1.1\r\n\r\n"));
    assert!(replies.is_empty());
    assert_eq!(client.wire.receive(&[]), nfs::Standing::Over);
    assert!(!client.wire.wants_bytes());
    let decoded = Decoder::new(&[]).u32();
    assert!(decoded.is_err());
}

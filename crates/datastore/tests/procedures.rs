//! Each procedure against what RFC 1813 says of it.

#![allow(clippy::unwrap_used, clippy::result_large_err, missing_docs, reason = "tests")]

mod lab;

use base::WallNanos;
use datastore::op::{Access, CreateHow, Created, ListingFrom, NewNode, NewSymlink, NodeKind, Place, SetAttrArgs};
use datastore::{FileKind, Handle, PreAttr, Refusal, SetAttr, SetTime, Wcc};
use engine::store::{Change, Piece, Store, Table};
use lab::{Lab, run, user};

fn at<'a>(dir: &'a Handle, name: &'a [u8]) -> Place<'a> {
    Place { dir, name }
}

fn mode(mode: u32) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

fn file(lab: &Lab, dir: &Handle, name: &[u8]) -> Created {
    run(lab.fs.create(&user(0), at(dir, name), CreateHow::Guarded(mode(0o644)), None)).unwrap()
}

fn dir(lab: &Lab, above: &Handle, name: &[u8]) -> Created {
    run(lab.fs.mkdir(&user(0), at(above, name), mode(0o755), None)).unwrap()
}

fn set(lab: &Lab, uid: u32, file: &Handle, set: SetAttr) -> Result<Wcc, Refusal> {
    run(lab.fs.setattr(&user(uid), file, SetAttrArgs { set, guard: None }, None)).map_err(|refused| refused.why)
}

fn content(lab: &Lab, file: &Handle, offset_bytes: u64, len_bytes: usize) -> Vec<u8> {
    let done = run(lab.fs.read(&user(0), file, offset_bytes, len_bytes)).unwrap();
    let mut bytes = Vec::new();
    for piece in &done.pieces {
        match piece {
            Piece::Data(data) => bytes.extend_from_slice(data),
            Piece::Zeros(len) => bytes.resize(bytes.len() + len, 0),
        }
    }
    assert_eq!(bytes.len(), done.len_bytes);
    bytes
}

fn names(lab: &Lab, dir: &Handle) -> Vec<Vec<u8>> {
    let listing = run(lab.fs.readdir(&user(0), dir, ListingFrom { cookie: 0, limit: 1000 })).unwrap();
    assert!(listing.eof);
    listing.entries.into_iter().map(|entry| entry.name).collect()
}

/// The refusal changed nothing and says so: before and after are the attributes of now.
fn assert_unchanged(lab: &Lab, dir: &Handle, wcc: Wcc) {
    let now = run(lab.fs.getattr(&user(0), dir)).unwrap();
    assert_eq!(wcc, Wcc { before: Some(PreAttr::from(&now)), after: Some(now) });
}

#[test]
fn getattr_tells_everything_and_a_removed_file_is_stale() {
    let lab = Lab::new();
    let made = file(&lab, &lab.root, b"disk");
    let attr = run(lab.fs.getattr(&user(5), &made.handle)).unwrap();
    assert_eq!(attr, made.attr);
    assert_eq!((attr.kind, attr.mode, attr.nlink, attr.size_bytes), (FileKind::Regular, 0o644, 1, 0));
    let root = run(lab.fs.getattr(&user(5), &lab.root)).unwrap();
    assert_eq!((root.kind, root.nlink, root.fsid), (FileKind::Directory, 2, attr.fsid));
    assert!(root.size_bytes >= 4096);
    run(lab.fs.remove(&user(0), at(&lab.root, b"disk"), None)).unwrap();
    assert_eq!(run(lab.fs.getattr(&user(0), &made.handle)).unwrap_err().why, Refusal::Stale);
    assert_eq!(run(lab.fs.read(&user(0), &made.handle, 0, 1)).unwrap_err().why, Refusal::Stale);
    assert_eq!(run(lab.fs.write(&user(0), &made.handle, 0, &[b"x"])).unwrap_err().why, Refusal::Stale);
    lab.assert_clean();
}

#[test]
fn setattr_sets_what_the_caller_may_set() {
    let lab = Lab::new();
    let made = run(lab.fs.create(&user(7), at(&lab.root, b"a"), CreateHow::Unchecked(mode(0o640)), None));
    assert_eq!(made.unwrap_err().why, Refusal::NotAllowed, "the datastore's root is 755 and root's");
    set(&lab, 0, &lab.root, mode(0o1777)).unwrap();
    let made = run(lab.fs.create(&user(7), at(&lab.root, b"a"), CreateHow::Unchecked(mode(0o640)), None)).unwrap();
    assert_eq!((made.attr.uid, made.attr.gid, made.attr.mode), (7, 7, 0o640));
    let own = |uid: u32| SetAttr { uid: Some(uid), ..SetAttr::default() };
    let group = |gid: u32| SetAttr { gid: Some(gid), ..SetAttr::default() };
    let size = |bytes: u64| SetAttr { size_bytes: Some(bytes), ..SetAttr::default() };
    let time = |modified: SetTime| SetAttr { modified, ..SetAttr::default() };
    let client_time = SetTime::Client(WallNanos(5_000_000_001));
    let table: &[(u32, SetAttr, Result<(), Refusal>)] = &[
        (7, SetAttr::default(), Ok(())),
        (7, mode(0o600), Ok(())),
        (8, mode(0o777), Err(Refusal::NotOwner)),
        (7, own(8), Err(Refusal::NotOwner)),
        (7, own(7), Ok(())),
        (8, own(8), Err(Refusal::NotOwner)),
        (7, group(9), Err(Refusal::NotOwner)),
        (7, group(7), Ok(())),
        (8, size(10), Err(Refusal::NotAllowed)),
        (7, size(10), Ok(())),
        (7, size((1 << 56) + 1), Err(Refusal::TooBig)),
        (7, size(5 << 40), Ok(())),
        (8, time(SetTime::Server), Err(Refusal::NotAllowed)),
        (7, time(SetTime::Server), Ok(())),
        (8, time(client_time), Err(Refusal::NotOwner)),
        (7, time(client_time), Ok(())),
        (0, own(20), Ok(())),
        (0, group(21), Ok(())),
    ];
    for (uid, change, expected) in table {
        let before = run(lab.fs.getattr(&user(0), &made.handle)).unwrap();
        let got = set(&lab, *uid, &made.handle, *change);
        assert_eq!(got.map(drop), *expected, "{uid} {change:?}");
        let after = run(lab.fs.getattr(&user(0), &made.handle)).unwrap();
        let changed = expected.is_ok() && *change != SetAttr::default();
        assert_eq!(before != after, changed, "{uid} {change:?}");
        if let Ok(wcc) = got {
            assert_eq!(wcc, Wcc { before: Some(PreAttr::from(&before)), after: Some(after) });
        }
        if changed {
            assert!(after.changed > before.changed);
        }
    }
    let end = run(lab.fs.getattr(&user(0), &made.handle)).unwrap();
    assert_eq!((end.uid, end.gid, end.mode, end.size_bytes), (20, 21, 0o600, 5 << 40));
    assert_eq!(end.modified, WallNanos(5_000_000_001));
    assert_eq!(end.used_bytes, 0, "a size takes no room");
    assert_eq!(set(&lab, 0, &lab.root, size(1)), Err(Refusal::IsDirectory));
    lab.assert_clean();
}

#[test]
fn setattr_guard_compares_ctime_and_truncation_cuts() {
    let lab = Lab::new();
    let made = file(&lab, &lab.root, b"a");
    run(lab.fs.write(&user(0), &made.handle, 0, &[&[7; 20_000]])).unwrap();
    let now = run(lab.fs.getattr(&user(0), &made.handle)).unwrap();
    let cut = SetAttr { size_bytes: Some(10_000), ..SetAttr::default() };
    let guarded = |guard| run(lab.fs.setattr(&user(0), &made.handle, SetAttrArgs { set: cut, guard }, None));
    let refused = guarded(Some(made.attr.changed)).unwrap_err();
    assert_eq!(refused.why, Refusal::GuardFailed);
    assert_unchanged(&lab, &made.handle, refused.wcc);
    let wcc = guarded(Some(now.changed)).unwrap();
    assert_eq!(wcc.before, Some(PreAttr::from(&now)));
    let after = run(lab.fs.getattr(&user(0), &made.handle)).unwrap();
    assert_eq!(wcc.after, Some(after));
    assert_eq!((after.size_bytes, after.used_bytes, after.modified), (10_000, 16_384, after.changed));
    set(&lab, 0, &made.handle, SetAttr { size_bytes: Some(20_000), ..SetAttr::default() }).unwrap();
    let bytes = content(&lab, &made.handle, 0, 30_000);
    assert!(bytes[..10_000].iter().all(|&byte| byte == 7) && bytes[10_000..].iter().all(|&byte| byte == 0));
    assert_eq!(bytes.len(), 20_000);
}

#[test]
fn lookup_finds_names_and_the_two_dots() {
    let lab = Lab::new();
    let below = dir(&lab, &lab.root, b"d").handle;
    let made = file(&lab, &below, b"\xff any bytes \n");
    let look = |dir: &Handle, name: &[u8]| run(lab.fs.lookup(&user(3), at(dir, name)));
    let found = look(&below, b"\xff any bytes \n").unwrap();
    assert_eq!((found.handle, found.attr), (made.handle, made.attr));
    assert_eq!(found.dir, Some(run(lab.fs.getattr(&user(0), &below)).unwrap()));
    assert_eq!(look(&below, b".").unwrap().handle, below);
    assert_eq!(look(&below, b"..").unwrap().handle, lab.root);
    assert_eq!(look(&lab.root, b"..").unwrap().handle, lab.root, "an export has no outside");
    let refusals: &[(&Handle, &[u8], Refusal)] = &[
        (&below, b"none", Refusal::NoEntry),
        (&below, b"a/b", Refusal::BadArgument),
        (&below, b"a\0b", Refusal::BadArgument),
        (&below, b"", Refusal::BadArgument),
        (&below, &[b'x'; 256], Refusal::NameTooLong),
        (&below, &[b'x'; 255], Refusal::NoEntry),
        (&made.handle, b"x", Refusal::NotDirectory),
    ];
    for (dir, name, why) in refusals {
        let refused = look(dir, name).unwrap_err();
        assert_eq!(refused.why, *why, "{name:?}");
        assert_eq!(refused.wcc, Some(run(lab.fs.getattr(&user(0), dir)).unwrap()));
    }
    set(&lab, 0, &below, mode(0o700)).unwrap();
    assert_eq!(look(&below, b"none").unwrap_err().why, Refusal::NotAllowed);
}

#[test]
fn access_follows_the_permission_bits() {
    let lab = Lab::new();
    let made = file(&lab, &lab.root, b"a");
    let all = Access(0x3f);
    let allowed = |uid: u32, of: &Handle| run(lab.fs.access(&user(uid), of, all)).unwrap().access.0;
    set(&lab, 0, &made.handle, SetAttr { uid: Some(5), gid: Some(6), ..mode(0o754) }).unwrap();
    let (read, change, execute) = (0x01, 0x0c, 0x20);
    assert_eq!(allowed(5, &made.handle), read | change | execute);
    assert_eq!(allowed(6, &made.handle), read | execute);
    assert_eq!(allowed(9, &made.handle), read);
    assert_eq!(allowed(0, &made.handle), read | change | execute);
    set(&lab, 0, &made.handle, mode(0o044)).unwrap();
    assert_eq!(allowed(5, &made.handle), 0);
    assert_eq!(allowed(0, &made.handle), read | change, "root executes only what somebody may");
    assert_eq!(allowed(9, &lab.root), 0x01 | 0x02);
    assert_eq!(allowed(0, &lab.root), 0x1f);
    let one = run(lab.fs.access(&user(0), &lab.root, Access::LOOKUP)).unwrap();
    assert_eq!(one.access, Access::LOOKUP);
}

#[test]
fn the_owner_reads_and_writes_whatever_the_mode_and_others_do_not() {
    let lab = Lab::new();
    let made = file(&lab, &lab.root, b"a");
    set(&lab, 0, &made.handle, SetAttr { uid: Some(5), ..mode(0) }).unwrap();
    assert_eq!(run(lab.fs.write(&user(5), &made.handle, 0, &[b"own"])).unwrap().len_bytes, 3);
    assert_eq!(run(lab.fs.read(&user(5), &made.handle, 0, 9)).unwrap().len_bytes, 3);
    assert_eq!(run(lab.fs.read(&user(6), &made.handle, 0, 9)).unwrap_err().why, Refusal::NotAllowed);
    let refused = run(lab.fs.write(&user(6), &made.handle, 0, &[b"no"])).unwrap_err();
    assert_eq!(refused.why, Refusal::NotAllowed);
    assert_unchanged(&lab, &made.handle, refused.wcc);
    set(&lab, 0, &made.handle, mode(0o001)).unwrap();
    assert_eq!(run(lab.fs.read(&user(6), &made.handle, 0, 9)).unwrap().len_bytes, 3, "may execute, so may read");
}

#[test]
fn a_group_is_the_primary_or_one_of_sixteen() {
    let lab = Lab::new();
    let made = file(&lab, &lab.root, b"a");
    set(&lab, 0, &made.handle, SetAttr { gid: Some(50), ..mode(0o640) }).unwrap();
    let mut caller = user(9);
    assert!(run(lab.fs.read(&caller, &made.handle, 0, 1)).is_err());
    caller.gids = (35..=50).collect();
    assert!(run(lab.fs.read(&caller, &made.handle, 0, 1)).is_ok());
    caller.gids = (34..=50).collect();
    assert!(run(lab.fs.read(&caller, &made.handle, 0, 1)).is_err(), "the seventeenth does not count");
}

#[test]
fn write_reports_the_attributes_around_it_exactly() {
    let lab = Lab::new();
    let made = file(&lab, &lab.root, b"a");
    let mut before = made.attr;
    for (offset, len) in [(0u64, 10usize), (100_000, 1), (5, 8192), ((4 << 40) + 123, 4096)] {
        let half = vec![1; len / 2];
        let rest = vec![2; len - len / 2];
        let done = run(lab.fs.write(&user(0), &made.handle, offset, &[&half, &rest])).unwrap();
        let after = run(lab.fs.getattr(&user(0), &made.handle)).unwrap();
        assert_eq!(done.len_bytes, len);
        assert_eq!(done.wcc, Wcc { before: Some(PreAttr::from(&before)), after: Some(after) });
        assert!(after.changed > before.changed && after.modified == after.changed);
        assert_eq!(content(&lab, &made.handle, offset, len), [half, rest].concat());
        before = after;
    }
    assert_eq!(before.size_bytes, (4 << 40) + 123 + 4096, "offsets beyond 4 TiB");
    assert!(before.used_bytes <= 8 * 8192, "sparse");
    assert_eq!(run(lab.fs.write(&user(0), &made.handle, u64::MAX, &[b"x"])).unwrap_err().why, Refusal::TooBig);
    assert_eq!(run(lab.fs.write(&user(0), &lab.root, 0, &[b"x"])).unwrap_err().why, Refusal::IsDirectory);
    let read = run(lab.fs.read(&user(0), &made.handle, before.size_bytes - 1, 100)).unwrap();
    assert_eq!((read.len_bytes, read.eof, read.attr), (1, true, Some(before)));
    let read = run(lab.fs.read(&user(0), &made.handle, 0, 10)).unwrap();
    assert_eq!((read.len_bytes, read.eof), (10, false));
    let read = run(lab.fs.read(&user(0), &made.handle, u64::MAX, 10)).unwrap();
    assert_eq!((read.len_bytes, read.eof), (0, true));
    assert_eq!(run(lab.fs.read(&user(0), &lab.root, 0, 1)).unwrap_err().why, Refusal::IsDirectory);
    let committed = run(lab.fs.commit(&user(0), &made.handle)).unwrap();
    assert_eq!(committed.verifier, lab.fs.write_verifier());
    assert_unchanged(&lab, &made.handle, committed.wcc);
}

#[test]
fn writing_by_others_than_root_ends_set_id_bits() {
    let lab = Lab::new();
    let made = file(&lab, &lab.root, b"a");
    set(&lab, 0, &made.handle, mode(0o6777)).unwrap();
    run(lab.fs.write(&user(0), &made.handle, 0, &[b"x"])).unwrap();
    assert_eq!(run(lab.fs.getattr(&user(0), &made.handle)).unwrap().mode, 0o6777);
    let done = run(lab.fs.write(&user(9), &made.handle, 0, &[b"y"])).unwrap();
    assert_eq!(done.wcc.after.unwrap().mode, 0o777);
    assert_eq!(run(lab.fs.getattr(&user(0), &made.handle)).unwrap().mode, 0o777);
}

#[test]
fn create_three_ways() {
    let lab = Lab::new();
    let how = |how: CreateHow| run(lab.fs.create(&user(0), at(&lab.root, b"f"), how, None));
    let root_before = run(lab.fs.getattr(&user(0), &lab.root)).unwrap();
    let sized = SetAttr { size_bytes: Some(9000), ..mode(0o600) };
    let made = how(CreateHow::Unchecked(sized)).unwrap();
    assert_eq!((made.attr.size_bytes, made.attr.mode), (9000, 0o600));
    assert_eq!(made.attr, run(lab.fs.getattr(&user(0), &made.handle)).unwrap());
    let root_after = run(lab.fs.getattr(&user(0), &lab.root)).unwrap();
    assert_eq!(made.dir, Wcc { before: Some(PreAttr::from(&root_before)), after: Some(root_after) });
    assert!(root_after.changed > root_before.changed && root_after.modified == root_after.changed);

    let again = how(CreateHow::Unchecked(SetAttr { size_bytes: Some(0), ..mode(0o777) })).unwrap();
    assert_eq!((again.handle, again.attr.size_bytes, again.attr.mode), (made.handle, 0, 0o600));
    assert_unchanged(&lab, &lab.root, again.dir);
    for refused in [how(CreateHow::Guarded(sized)), how(CreateHow::Exclusive([1; 8]))] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.why, Refusal::Exists);
        assert_unchanged(&lab, &lab.root, refused.wcc);
    }
    let exclusive =
        |verifier| run(lab.fs.create(&user(0), at(&lab.root, b"lock"), CreateHow::Exclusive(verifier), None));
    let first = exclusive([1; 8]).unwrap();
    let repeated = exclusive([1; 8]).unwrap();
    assert_eq!((first.handle, first.attr), (repeated.handle, repeated.attr));
    assert_eq!(exclusive([2; 8]).unwrap_err().why, Refusal::Exists);
    dir(&lab, &lab.root, b"d");
    let onto = run(lab.fs.create(&user(0), at(&lab.root, b"d"), CreateHow::Unchecked(sized), None));
    assert_eq!(onto.unwrap_err().why, Refusal::Exists);
    for name in [&b"."[..], b"..", b"", b"a/b"] {
        let refused = run(lab.fs.create(&user(0), at(&lab.root, name), CreateHow::Guarded(sized), None)).unwrap_err();
        assert_eq!(refused.why, Refusal::BadArgument);
        assert_unchanged(&lab, &lab.root, refused.wcc);
    }
    lab.assert_clean();
}

#[test]
fn mkdir_counts_links_and_hands_groups_on() {
    let lab = Lab::new();
    let made = dir(&lab, &lab.root, b"d");
    assert_eq!((made.attr.kind, made.attr.nlink), (FileKind::Directory, 2));
    assert_eq!(made.dir.after.unwrap().nlink, 3);
    set(&lab, 0, &made.handle, SetAttr { gid: Some(77), ..mode(0o2777) }).unwrap();
    let below = run(lab.fs.mkdir(&user(9), at(&made.handle, b"e"), mode(0o700), None)).unwrap();
    assert_eq!((below.attr.uid, below.attr.gid, below.attr.mode), (9, 77, 0o2700));
    let refused = run(lab.fs.mkdir(&user(0), at(&lab.root, b"d"), mode(0o700), None)).unwrap_err();
    assert_eq!(refused.why, Refusal::Exists);
    assert_unchanged(&lab, &lab.root, refused.wcc);
    lab.assert_clean();
}

#[test]
fn symlinks_keep_their_text_and_nodes_their_numbers() {
    let lab = Lab::new();
    for len in [1, 1024, 1025, 4095] {
        let text: Vec<u8> = (0..len).map(|n| (n % 255 + 1) as u8).collect();
        let new = NewSymlink { text: &text, set: SetAttr::default() };
        let made = run(lab.fs.symlink(&user(0), at(&lab.root, b"l"), new, None)).unwrap();
        assert_eq!((made.attr.kind, made.attr.size_bytes), (FileKind::Symlink, len as u64));
        let read = run(lab.fs.readlink(&user(4), &made.handle)).unwrap();
        assert_eq!((read.text, read.attr), (text, made.attr));
        lab.assert_clean();
        run(lab.fs.remove(&user(0), at(&lab.root, b"l"), None)).unwrap();
    }
    let long = [b'x'; 4096];
    for (text, why) in [(&b""[..], Refusal::BadArgument), (b"a\0", Refusal::BadArgument), (&long, Refusal::NameTooLong)]
    {
        let new = NewSymlink { text, set: SetAttr::default() };
        assert_eq!(run(lab.fs.symlink(&user(0), at(&lab.root, b"l"), new, None)).unwrap_err().why, why);
    }
    assert_eq!(run(lab.fs.readlink(&user(0), &lab.root)).unwrap_err().why, Refusal::WrongKind);
    let node = |uid, name: &'static [u8], kind| {
        run(lab.fs.mknod(&user(uid), at(&lab.root, name), NewNode { kind, set: mode(0o600) }, None))
    };
    set(&lab, 0, &lab.root, mode(0o777)).unwrap();
    assert_eq!(node(0, b"b", NodeKind::BlockDevice(8, 3)).unwrap().attr.device, (8, 3));
    assert_eq!(node(5, b"c", NodeKind::CharDevice(1, 3)).unwrap_err().why, Refusal::NotOwner);
    assert_eq!(node(5, b"s", NodeKind::Socket).unwrap().attr.kind, FileKind::Socket);
    let fifo = node(5, b"f", NodeKind::Fifo).unwrap();
    assert_eq!(run(lab.fs.read(&user(5), &fifo.handle, 0, 1)).unwrap_err().why, Refusal::WrongKind);
    lab.assert_clean();
}

#[test]
fn remove_and_rmdir_take_what_they_should() {
    let lab = Lab::new();
    let below = dir(&lab, &lab.root, b"d").handle;
    file(&lab, &below, b"f");
    let remove = |dir: &Handle, name: &[u8]| run(lab.fs.remove(&user(0), at(dir, name), None));
    let rmdir = |dir: &Handle, name: &[u8]| run(lab.fs.rmdir(&user(0), at(dir, name), None));
    for (result, why) in [
        (remove(&lab.root, b"d"), Refusal::IsDirectory),
        (remove(&lab.root, b"none"), Refusal::NoEntry),
        (remove(&lab.root, b"."), Refusal::BadArgument),
        (rmdir(&lab.root, b"d"), Refusal::NotEmpty),
        (rmdir(&lab.root, b"none"), Refusal::NoEntry),
        (rmdir(&lab.root, b".."), Refusal::BadArgument),
    ] {
        let refused = result.unwrap_err();
        assert_eq!(refused.why, why);
        assert_unchanged(&lab, &lab.root, refused.wcc);
    }
    assert_eq!(rmdir(&below, b"f").unwrap_err().why, Refusal::NotDirectory);
    let before = run(lab.fs.getattr(&user(0), &below)).unwrap();
    let wcc = remove(&below, b"f").unwrap();
    let after = run(lab.fs.getattr(&user(0), &below)).unwrap();
    assert_eq!(wcc, Wcc { before: Some(PreAttr::from(&before)), after: Some(after) });
    assert!(after.modified > before.modified);
    let wcc = rmdir(&lab.root, b"d").unwrap();
    assert_eq!((wcc.before.unwrap().size_bytes, wcc.after.unwrap().nlink), (4096, 2));
    assert_eq!(run(lab.fs.lookup(&user(0), at(&below, b"x"))).unwrap_err().why, Refusal::Stale);
    assert_eq!(
        run(lab.fs.create(&user(0), at(&below, b"x"), CreateHow::Guarded(mode(0)), None)).unwrap_err().why,
        Refusal::Stale
    );
    lab.assert_clean();
}

#[test]
fn a_sticky_directory_lets_only_owners_take_names() {
    let lab = Lab::new();
    let tmp = dir(&lab, &lab.root, b"tmp").handle;
    set(&lab, 0, &tmp, mode(0o1777)).unwrap();
    for name in [b"a", b"b"] {
        run(lab.fs.create(&user(5), at(&tmp, name), CreateHow::Guarded(mode(0o666)), None)).unwrap();
    }
    assert_eq!(run(lab.fs.remove(&user(6), at(&tmp, b"a"), None)).unwrap_err().why, Refusal::NotOwner);
    let moved = run(lab.fs.rename(&user(6), at(&tmp, b"a"), at(&tmp, b"c"), None));
    assert_eq!(moved.unwrap_err().why, Refusal::NotOwner);
    run(lab.fs.create(&user(6), at(&tmp, b"mine"), CreateHow::Guarded(mode(0o666)), None)).unwrap();
    let over = run(lab.fs.rename(&user(6), at(&tmp, b"mine"), at(&tmp, b"b"), None));
    assert_eq!(over.unwrap_err().why, Refusal::NotOwner);
    run(lab.fs.remove(&user(5), at(&tmp, b"a"), None)).unwrap();
    run(lab.fs.remove(&user(0), at(&tmp, b"b"), None)).unwrap();
    set(&lab, 0, &tmp, mode(0o755)).unwrap();
    assert_eq!(run(lab.fs.remove(&user(6), at(&tmp, b"mine"), None)).unwrap_err().why, Refusal::NotAllowed);
    lab.assert_clean();
}

#[test]
fn rename_in_every_case() {
    let lab = Lab::new();
    let a = dir(&lab, &lab.root, b"a").handle;
    let b = dir(&lab, &lab.root, b"b").handle;
    let inner = dir(&lab, &a, b"inner").handle;
    dir(&lab, &b, b"empty");
    let f = file(&lab, &a, b"f");
    let g = file(&lab, &b, b"g");
    let mv = |from: &Handle, name: &[u8], to: &Handle, new: &[u8]| {
        run(lab.fs.rename(&user(0), at(from, name), at(to, new), None))
    };

    type Case<'a> = (&'a Handle, &'a [u8], &'a Handle, &'a [u8], Refusal);
    let refusals: &[Case<'_>] = &[
        (&a, b"none", &b, b"x", Refusal::NoEntry),
        (&lab.root, b"a", &inner, b"x", Refusal::IntoItself),
        (&lab.root, b"a", &a, b"x", Refusal::IntoItself),
        (&a, b"f", &b, b"empty", Refusal::IsDirectory),
        (&b, b"empty", &a, b"f", Refusal::NotDirectory),
        (&b, b"empty", &lab.root, b"a", Refusal::NotEmpty),
        (&a, b".", &b, b"x", Refusal::BadArgument),
        (&a, b"f", &b, b"..", Refusal::BadArgument),
        (&f.handle, b"f", &b, b"x", Refusal::NotDirectory),
    ];
    for (from, name, to, new, why) in refusals {
        let refused = mv(from, name, to, new).unwrap_err();
        assert_eq!(refused.why, *why, "{name:?} to {new:?}");
    }
    lab.assert_clean();

    // Over a file, between directories.
    let (a_before, b_before) = (run(lab.fs.getattr(&user(0), &a)).unwrap(), run(lab.fs.getattr(&user(0), &b)).unwrap());
    let moved = mv(&a, b"f", &b, b"g").unwrap();
    let (a_after, b_after) = (run(lab.fs.getattr(&user(0), &a)).unwrap(), run(lab.fs.getattr(&user(0), &b)).unwrap());
    assert_eq!(moved.from, Wcc { before: Some(PreAttr::from(&a_before)), after: Some(a_after) });
    assert_eq!(moved.to, Wcc { before: Some(PreAttr::from(&b_before)), after: Some(b_after) });
    assert_eq!(run(lab.fs.getattr(&user(0), &g.handle)).unwrap_err().why, Refusal::Stale);
    let f_now = run(lab.fs.getattr(&user(0), &f.handle)).unwrap();
    assert!(f_now.changed > f.attr.changed && f_now.modified == f.attr.modified);
    lab.assert_clean();

    // In one directory, onto a free name and onto itself.
    let moved = mv(&b, b"g", &b, b"h").unwrap();
    assert_eq!(moved.from, moved.to);
    let moved = mv(&b, b"h", &b, b"h").unwrap();
    assert_unchanged(&lab, &b, moved.from);
    // Two names of one file: nothing happens.
    run(lab.fs.link(&user(0), &f.handle, at(&a, b"second"), None)).unwrap();
    mv(&b, b"h", &a, b"second").unwrap();
    assert_eq!(names(&lab, &a), [&b"."[..], b"..", b"inner", b"second"]);
    assert_eq!(run(lab.fs.getattr(&user(0), &f.handle)).unwrap().nlink, 2);
    // Over one of two names: the other stays.
    file(&lab, &b, b"other");
    mv(&b, b"other", &a, b"second").unwrap();
    assert_eq!(run(lab.fs.getattr(&user(0), &f.handle)).unwrap().nlink, 1);
    lab.assert_clean();

    // A directory over an empty one elsewhere; ".." follows, links are right.
    mv(&a, b"inner", &b, b"empty").unwrap();
    assert_eq!(run(lab.fs.lookup(&user(0), at(&inner, b".."))).unwrap().handle, b);
    assert_eq!(run(lab.fs.getattr(&user(0), &a)).unwrap().nlink, 2);
    assert_eq!(run(lab.fs.getattr(&user(0), &b)).unwrap().nlink, 3);
    lab.assert_clean();
}

#[test]
fn link_gives_another_name() {
    let lab = Lab::new();
    let d = dir(&lab, &lab.root, b"d").handle;
    let f = file(&lab, &lab.root, b"f");
    run(lab.fs.write(&user(0), &f.handle, 0, &[b"content"])).unwrap();
    let before = run(lab.fs.getattr(&user(0), &f.handle)).unwrap();
    let linked = run(lab.fs.link(&user(0), &f.handle, at(&d, b"g"), None)).unwrap();
    let now = run(lab.fs.getattr(&user(0), &f.handle)).unwrap();
    assert_eq!(linked.file, Some(now));
    assert_eq!((now.nlink, now.size_bytes, now.modified), (2, 7, before.modified));
    assert!(now.changed > before.changed);
    assert_eq!(linked.dir.after, Some(run(lab.fs.getattr(&user(0), &d)).unwrap()));
    assert_eq!(run(lab.fs.lookup(&user(0), at(&d, b"g"))).unwrap().handle, f.handle);
    let refused = run(lab.fs.link(&user(0), &f.handle, at(&d, b"g"), None)).unwrap_err();
    assert_eq!((refused.why, refused.wcc.file), (Refusal::Exists, Some(now)));
    assert_unchanged(&lab, &d, refused.wcc.dir);
    assert_eq!(run(lab.fs.link(&user(0), &d, at(&d, b"x"), None)).unwrap_err().why, Refusal::IsDirectory);
    run(lab.fs.remove(&user(0), at(&lab.root, b"f"), None)).unwrap();
    assert_eq!(content(&lab, &f.handle, 0, 100), b"content");
    assert_eq!(run(lab.fs.getattr(&user(0), &f.handle)).unwrap().nlink, 1);
    lab.assert_clean();
}

#[test]
fn a_listing_goes_on_from_any_cookie_while_names_come_and_go() {
    let lab = Lab::new();
    for n in 0..10 {
        file(&lab, &lab.root, format!("f{n}").as_bytes());
    }
    let list = |cookie, limit| run(lab.fs.readdir(&user(0), &lab.root, ListingFrom { cookie, limit })).unwrap();
    let first = list(0, 5);
    let shown: Vec<&[u8]> = first.entries.iter().map(|entry| &entry.name[..]).collect();
    assert_eq!(shown, [&b"."[..], b"..", b"f0", b"f1", b"f2"]);
    assert!(!first.eof);
    let cookie = first.entries.last().unwrap().cookie;
    // The name the cookie stands for goes, one behind and one ahead too; new ones come.
    for name in [b"f2", b"f0", b"f5"] {
        run(lab.fs.remove(&user(0), at(&lab.root, name), None)).unwrap();
    }
    file(&lab, &lab.root, b"f2");
    file(&lab, &lab.root, b"new");
    let rest = list(cookie, 1000);
    let shown: Vec<&[u8]> = rest.entries.iter().map(|entry| &entry.name[..]).collect();
    assert_eq!(shown, [&b"f3"[..], b"f4", b"f6", b"f7", b"f8", b"f9", b"f2", b"new"]);
    assert!(rest.eof && rest.verifier == first.verifier);
    assert!(list(rest.entries.last().unwrap().cookie, 10).entries.is_empty());
    assert!(list(u64::MAX, 10).eof);
    let one = list(1, 1);
    assert_eq!((one.entries.len(), one.entries[0].name.as_slice(), one.eof), (1, &b".."[..], false));
    let plus = run(lab.fs.readdirplus(&user(0), &lab.root, ListingFrom { cookie: 0, limit: 1000 })).unwrap();
    for entry in &plus.entries {
        let (handle, attr) = entry.plus.unwrap();
        assert_eq!((attr.file, attr), (entry.file, run(lab.fs.getattr(&user(0), &handle)).unwrap()));
    }
    let f = plus.entries[2].plus.unwrap().0;
    let refused = run(lab.fs.readdir(&user(0), &f, ListingFrom { cookie: 0, limit: 9 })).unwrap_err();
    assert_eq!(refused.why, Refusal::NotDirectory);
    set(&lab, 0, &lab.root, mode(0o711)).unwrap();
    let refused = run(lab.fs.readdir(&user(9), &lab.root, ListingFrom { cookie: 0, limit: 9 })).unwrap_err();
    assert_eq!(refused.why, Refusal::NotAllowed);
    set(&lab, 0, &lab.root, mode(0o744)).unwrap();
    let names_only = run(lab.fs.readdirplus(&user(9), &lab.root, ListingFrom { cookie: 0, limit: 9 })).unwrap();
    assert!(names_only.entries.iter().all(|entry| entry.plus.is_none()), "may list, may not look up");
}

#[test]
fn limits_and_room_are_told() {
    let lab = Lab::new();
    let info = run(lab.fs.fsinfo(&user(5), &lab.root)).unwrap();
    assert_eq!((info.read_bytes_max, info.write_bytes_max, info.properties), (1 << 20, 1 << 20, 0x1b));
    assert!(info.file_bytes_max > 4 << 40);
    let conf = run(lab.fs.pathconf(&user(5), &lab.root)).unwrap();
    assert!(conf.name_bytes_max == 255 && conf.no_trunc && !conf.case_insensitive && conf.case_preserving);
    let stat = run(lab.fs.fsstat(&user(5), &lab.root)).unwrap();
    assert_eq!((stat.total_bytes, stat.free_bytes), (1 << 40, 1 << 39));
    assert_eq!(stat.attr, run(lab.fs.getattr(&user(5), &lab.root)).unwrap());
}

#[test]
fn times_never_go_back_nor_repeat_even_if_the_clock_does() {
    let mut lab = Lab::new();
    let mut last = file(&lab, &lab.root, b"a").attr.changed;
    for round in 0..60u64 {
        match round % 6 {
            1 => lab.hand.wall.set(lab.hand.wall.get() - 3600 * lab::SECOND),
            2 => lab.hand.wall.set(lab.hand.wall.get() + 7200 * lab::SECOND),
            3 => lab.reopen(),
            4 => lab.hand.step_ns.set(round % 2),
            5 => {
                run(lab.fs.quiesce()).unwrap();
                lab.reopen();
            }
            _ => {}
        }
        let made = file(&lab, &lab.root, format!("n{round}").as_bytes());
        let wrote = run(lab.fs.write(&user(0), &made.handle, 0, &[b"x"])).unwrap().wcc.after.unwrap();
        assert!(made.attr.changed > last && wrote.changed > made.attr.changed, "round {round}");
        last = wrote.changed;
    }
    // After a crash, times start at most the reserve ahead of a clock that is right.
    lab.hand.wall.set(last.0 + 10 * lab::SECOND);
    let made = file(&lab, &lab.root, b"x");
    assert!(made.attr.changed.0 - lab.hand.wall.get() < lab::SECOND);
    lab.reopen();
    let made = file(&lab, &lab.root, b"y");
    assert!(made.attr.changed.0.saturating_sub(lab.hand.wall.get()) <= lab::SECOND + 1);
    run(lab.fs.quiesce()).unwrap();
    lab.reopen();
    lab.hand.wall.set(lab.hand.wall.get() + 5 * lab::SECOND);
    let made = file(&lab, &lab.root, b"z");
    assert!(made.attr.changed.0 <= lab.hand.wall.get());
}

#[test]
fn what_is_lost_is_told_by_path() {
    let lab = Lab::new();
    let vm = dir(&lab, &lab.root, b"web-1");
    let disk = file(&lab, &vm.handle, b"disk.raw");
    let id = base::FileId(run(lab.fs.getattr(&user(0), &disk.handle)).unwrap().file.0);
    let nobody = base::FileId(u64::MAX);
    let paths = run(lab.fs.paths_of(&[id, nobody].into())).unwrap();
    assert_eq!(paths[&id], "/vms/web-1/disk.raw");
    assert_eq!(paths[&nobody], format!("#{nobody}"));
}

/// A pool that an earlier version left at a crash may remember fewer ids than inodes have.
#[test]
fn an_id_that_an_inode_has_is_given_to_nothing_else() {
    const INODES: Table = Table(2);
    let mut lab = Lab::new();
    let root = lab.root;
    let above = dir(&lab, &root, b"above");
    let row = run(lab.store.get(INODES, &above.attr.file.0.to_be_bytes())).unwrap().unwrap().to_vec();
    // What the store does not know: as a record that no crash should have taken.
    let lost = 700_u64;
    let put = Change::Put { table: INODES, key: lost.to_be_bytes().to_vec(), value: row.clone() };
    run(lab.store.commit(vec![put])).unwrap();
    lab.reopen();
    let made = file(&lab, &root, b"made");
    assert!(made.attr.file.0 > lost, "{:?}", made.attr.file);
    assert_eq!(run(lab.store.get(INODES, &lost.to_be_bytes())).unwrap().map(|row| row.to_vec()), Some(row));
}

//! VMs as sets of files: found from paths, snapshotted at one point, rolled back, cloned,
//! compared, and gone without a trace.

#![allow(clippy::unwrap_used, clippy::result_large_err, missing_docs, reason = "tests")]

mod lab;

use datastore::op::{CreateHow, Place};
use datastore::{Deletion, Extent, Handle, Piece, Refusal, SetAttr, VmLimits, VmName};
use engine::memory::MemoryStore;
use engine::store::Store;
use lab::{Lab, run, user};

const BLOCK: u64 = 8192;

fn at<'a>(dir: &'a Handle, name: &'a str) -> Place<'a> {
    Place { dir, name: name.as_bytes() }
}

fn folder(lab: &Lab, dir: &Handle, name: &str) -> Handle {
    run(lab.fs.mkdir(&user(0), at(dir, name), SetAttr::default(), None)).unwrap().handle
}

fn file(lab: &Lab, dir: &Handle, name: &str, byte: u8) -> Handle {
    let how = CreateHow::Guarded(SetAttr { mode: Some(0o600), ..SetAttr::default() });
    let handle = run(lab.fs.create(&user(0), at(dir, name), how, None)).unwrap().handle;
    write(lab, &handle, 0, byte);
    write(lab, &handle, 1, byte);
    handle
}

fn write(lab: &Lab, file: &Handle, block: u64, byte: u8) {
    run(lab.fs.write(&user(0), file, block * BLOCK, &[&[byte; BLOCK as usize]])).unwrap();
}

fn byte(lab: &Lab, file: &Handle, block: u64) -> u8 {
    let read = run(lab.fs.read(&user(0), file, block * BLOCK, 1)).unwrap();
    match &read.pieces[0] {
        Piece::Data(data) => data[0],
        Piece::Zeros(_) => 0,
    }
}

fn find(lab: &Lab, path: &str) -> Option<Handle> {
    let mut at = lab.root;
    for name in path.split('/') {
        at = run(lab.fs.lookup(&user(0), Place { dir: &at, name: name.as_bytes() })).ok()?.handle;
    }
    Some(at)
}

/// A Proxmox VM with 38 disks, a snippet, and another VM beside it.
fn lab_with_vms() -> (Lab, Vec<Handle>) {
    let lab = Lab::new();
    let images = folder(&lab, &lab.root, "images");
    let (hundred, other) = (folder(&lab, &images, "100"), folder(&lab, &images, "101"));
    let mut files: Vec<Handle> =
        (0..38).map(|n| file(&lab, &hundred, &format!("vm-100-disk-{n}.raw"), n as u8 + 1)).collect();
    file(&lab, &other, "vm-101-disk-0.raw", 200);
    let snippets = folder(&lab, &lab.root, "snippets");
    files.push(file(&lab, &snippets, "100-user.yaml", 99));
    (lab, files)
}

fn names(lab: &Lab) -> Vec<(String, usize)> {
    run(lab.fs.vms()).unwrap().into_iter().map(|vm| (vm.name, vm.files.len())).collect()
}

/// Every verb works on all files of a VM of several dozen. Decides R-SCOPE-01.
#[test]
fn a_vm_of_39_files_is_frozen_rolled_back_cloned_and_compared_as_one() {
    let (mut lab, files) = lab_with_vms();
    assert_eq!(names(&lab), [("100".to_owned(), 39), ("101".to_owned(), 1)]);
    let taken = run(lab.fs.snapshot_vm("vms", "100", "before")).unwrap();
    assert_eq!(taken.files, 39);
    assert_eq!(run(lab.fs.snapshot_vm("vms", "100", "before")), Err(Refusal::Exists));
    for handle in &files {
        write(&lab, handle, 1, 77);
    }
    let other = find(&lab, "images/101/vm-101-disk-0.raw").unwrap();
    write(&lab, &other, 1, 78);

    let differences = run(lab.fs.compare_vm("vms", "100", ("before", None))).unwrap();
    let second = vec![Extent { offset_bytes: BLOCK, len_bytes: BLOCK }];
    assert!(differences.len() == 39 && differences.iter().all(|file| file.extents == second));

    let cloned = run(lab.fs.clone_vm("vms", "100", "before", "200")).unwrap();
    assert_eq!((cloned.files.len(), names(&lab)[2].clone()), (39, ("200".to_owned(), 39)));
    let copy = find(&lab, "images/200/vm-200-disk-7.raw").unwrap();
    assert_eq!((byte(&lab, &copy, 1), byte(&lab, &files[7], 1)), (8, 77));
    let mode = run(lab.fs.getattr(&user(0), &copy)).unwrap().mode;
    assert_eq!(mode, 0o600);
    write(&lab, &copy, 0, 55);

    lab.reopen();
    let done = run(lab.fs.roll_back_vm("vms", "100", "before")).unwrap();
    assert_eq!((done.files.len(), done.restored.len(), done.left.len()), (39, 0, 0));
    for (n, handle) in files.iter().enumerate().take(38) {
        assert_eq!((byte(&lab, handle, 0), byte(&lab, handle, 1)), (n as u8 + 1, n as u8 + 1));
    }
    assert_eq!((byte(&lab, &other, 1), byte(&lab, &copy, 0)), (78, 55), "others are left alone");
    assert!(run(lab.fs.compare_vm("vms", "100", ("before", None))).unwrap().iter().all(|file| file.extents.is_empty()));
    lab.assert_clean();
}

#[test]
fn what_was_removed_comes_back_and_what_came_since_stays() {
    let (lab, _) = lab_with_vms();
    run(lab.fs.snapshot_vm("vms", "100", "a")).unwrap();
    let folder = find(&lab, "images/100").unwrap();
    run(lab.fs.remove(&user(0), at(&folder, "vm-100-disk-3.raw"), None)).unwrap();
    file(&lab, &folder, "vm-100-disk-99.raw", 9);
    for _ in 0..2 {
        let done = run(lab.fs.roll_back_vm("vms", "100", "a")).unwrap();
        assert_eq!(done.left, ["images/100/vm-100-disk-99.raw"]);
        assert_eq!(done.files.len() + done.restored.len(), 39);
        let back = find(&lab, "images/100/vm-100-disk-3.raw").unwrap();
        assert_eq!(byte(&lab, &back, 1), 4);
        let differ = run(lab.fs.compare_vm("vms", "100", ("a", None))).unwrap();
        let differ: Vec<_> = differ.into_iter().filter(|file| !file.extents.is_empty()).map(|file| file.path).collect();
        assert_eq!(differ, ["images/100/vm-100-disk-99.raw"], "a file made again is compared with what it was");
        write(&lab, &back, 1, 66);
    }
    // A clone does not go over what is there.
    assert_eq!(run(lab.fs.clone_vm("vms", "100", "a", "101")), Err(Refusal::Exists));
    assert_eq!(run(lab.fs.clone_vm("vms", "100", "none", "300")), Err(Refusal::NoEntry));
    let before = run(lab.fs.vms()).unwrap();
    assert_eq!(run(lab.fs.clone_vm("vms", "100", "a", "c2")), Err(Refusal::BadArgument), "no VM would be made of it");
    assert_eq!(run(lab.fs.vms()).unwrap(), before);
    lab.assert_clean();
}

#[test]
fn names_given_by_hand_hold_and_snapshots_go_with_them() {
    let (mut lab, _) = lab_with_vms();
    run(lab.fs.snapshot_vm("vms", "100", "a")).unwrap();
    run(lab.fs.rename_vm("vms", "100", "erp")).unwrap();
    assert_eq!(run(lab.fs.rename_vm("vms", "101", "erp")), Err(Refusal::Exists));
    assert_eq!(run(lab.fs.rename_vm("vms", "101", "a/b")), Err(Refusal::BadArgument));
    assert_eq!(run(lab.fs.schedule_vm("vms", "none", Some((60, 3)))), Err(Refusal::NoEntry));
    assert_eq!(run(lab.fs.schedule_vm("vms", "erp", Some((60, 0)))), Err(Refusal::BadArgument));
    run(lab.fs.schedule_vm("vms", "101", Some((60, 3)))).unwrap();
    run(lab.fs.rename_vm("vms", "101", "mail")).unwrap();
    let schedules = |lab: &Lab| run(lab.fs.vm_schedules()).unwrap();
    assert_eq!(schedules(&lab).iter().map(|one| (one.vm.as_str(), one.keep)).collect::<Vec<_>>(), [("mail", 3)]);
    run(lab.fs.schedule_vm("vms", "mail", None)).unwrap();
    assert_eq!(schedules(&lab), []);
    run(lab.fs.rename_vm("vms", "mail", "101")).unwrap();
    let notes = file(&lab, &lab.root, "notes.txt", 1);
    run(lab.fs.assign_to_vm("vms", "notes.txt", Some("erp"))).unwrap();
    lab.reopen();
    assert_eq!(names(&lab), [("101".to_owned(), 1), ("erp".to_owned(), 40)]);
    assert_eq!(run(lab.fs.vm_snapshots("vms", Some("erp"))).unwrap()[0].name, "a");
    run(lab.fs.assign_to_vm("vms", "notes.txt", None)).unwrap();
    assert_eq!(names(&lab)[1], ("erp".to_owned(), 39));
    assert_eq!(byte(&lab, &notes, 0), 1);
    assert_eq!(run(lab.fs.assign_to_vm("vms", "images", Some("erp"))), Err(Refusal::WrongKind));
    lab.assert_clean();
}

#[test]
fn a_snapshot_outlives_the_vm_and_goes_with_the_datastore() {
    let (lab, _) = lab_with_vms();
    run(lab.fs.snapshot_vm("vms", "101", "kept")).unwrap();
    let folder = find(&lab, "images/101").unwrap();
    run(lab.fs.remove(&user(0), at(&folder, "vm-101-disk-0.raw"), None)).unwrap();
    assert_eq!(names(&lab).len(), 1);
    let images = find(&lab, "images").unwrap();
    run(lab.fs.rmdir(&user(0), at(&images, "101"), None)).unwrap();
    let done = run(lab.fs.roll_back_vm("vms", "101", "kept")).unwrap();
    assert_eq!(done.restored, ["images/101/vm-101-disk-0.raw"]);
    run(lab.fs.snapshot_vm("vms", "101", "second")).unwrap();
    run(lab.fs.delete_vm_snapshot("vms", "101", "kept")).unwrap();
    assert_eq!(run(lab.fs.roll_back_vm("vms", "101", "kept")), Err(Refusal::NoEntry));
    lab.assert_clean();
    run(lab.fs.rename_vm("vms", "100", "erp")).unwrap();
    run(lab.fs.schedule_vm("vms", "erp", Some((60, 3)))).unwrap();
    run(lab.fs.delete_datastore("vms", Deletion::WithContent)).unwrap();
    lab.assert_clean();
    let rows = |table| run(<MemoryStore as Store>::scan(&lab.store, engine::store::Table(table), &[], 99)).unwrap();
    assert_eq!((rows(11).len(), rows(12).len(), rows(13).len()), (0, 0, 0));
}

/// What a hypervisor asks of one disk changes that disk alone.
#[test]
fn one_file_is_rolled_back_and_cloned_by_itself() {
    let (mut lab, files) = lab_with_vms();
    run(lab.fs.snapshot_vm("vms", "100", "a")).unwrap();
    let disk = "images/100/vm-100-disk-3.raw";
    let sizes = |lab: &Lab, path: &str| -> Vec<(String, u64)> {
        let held = run(lab.fs.file_snapshots("vms", "100", path)).unwrap();
        held.into_iter().map(|one| (one.taken.name, one.size_bytes)).collect()
    };
    write(&lab, &files[3], 2, 70);
    write(&lab, &files[4], 1, 71);
    run(lab.fs.snapshot_vm("vms", "100", "b")).unwrap();
    assert_eq!(sizes(&lab, disk), [("a".to_owned(), 2 * BLOCK), ("b".to_owned(), 3 * BLOCK)]);
    assert_eq!(sizes(&lab, "images/101/vm-101-disk-0.raw"), []);
    write(&lab, &files[3], 0, 72);

    let from = |snapshot| datastore::CloneSource { path: disk, snapshot };
    run(lab.fs.clone_file("vms", &from(Some(("100", "a"))), "images/300/vm-300-disk-0.raw")).unwrap();
    run(lab.fs.clone_file("vms", &from(None), "template/shown/now.raw")).unwrap();
    let taken = run(lab.fs.clone_file("vms", &from(None), "template/shown/now.raw"));
    assert_eq!(taken, Err(Refusal::Exists));
    let missing = datastore::CloneSource { path: "images/101/vm-101-disk-0.raw", snapshot: Some(("100", "a")) };
    assert_eq!(run(lab.fs.clone_file("vms", &missing, "x.raw")), Err(Refusal::NoEntry));
    assert_eq!(run(lab.fs.clone_file("vms", &from(None), "images/../x.raw")), Err(Refusal::BadArgument));
    assert_eq!(sizes(&lab, disk).len(), 2, "what freezes for a moment is gone, after a refusal, too");
    lab.reopen();
    let (old, now) =
        (find(&lab, "images/300/vm-300-disk-0.raw").unwrap(), find(&lab, "template/shown/now.raw").unwrap());
    assert_eq!((byte(&lab, &old, 0), byte(&lab, &now, 0), byte(&lab, &now, 2)), (4, 72, 70));
    write(&lab, &now, 0, 73);

    // It is the same file under another name.
    let folder = find(&lab, "images/100").unwrap();
    run(lab.fs.rename(&user(0), at(&folder, "vm-100-disk-3.raw"), at(&folder, "base-100-disk-3.raw"), None)).unwrap();
    let disk = "images/100/base-100-disk-3.raw";
    assert_eq!(sizes(&lab, disk).len(), 2);
    let done = run(lab.fs.roll_back_file("vms", "100", ("a", disk))).unwrap();
    assert_eq!((done.files.len(), done.restored.len(), done.left.len()), (1, 0, 0));
    assert_eq!((byte(&lab, &files[3], 0), byte(&lab, &files[4], 1), byte(&lab, &now, 0)), (4, 71, 73));
    assert_eq!(run(lab.fs.getattr(&user(0), &files[3])).unwrap().size_bytes, 2 * BLOCK);
    assert_eq!(run(lab.fs.roll_back_file("vms", "100", ("a", "images/100/none.raw"))), Err(Refusal::NoEntry));
    // One that is gone comes back where it was.
    run(lab.fs.remove(&user(0), at(&folder, "vm-100-disk-5.raw"), None)).unwrap();
    let done = run(lab.fs.roll_back_file("vms", "100", ("b", "images/100/vm-100-disk-5.raw"))).unwrap();
    assert_eq!((done.restored.len(), byte(&lab, &find(&lab, "images/100/vm-100-disk-5.raw").unwrap(), 0)), (1, 6));
    lab.assert_clean();
}

/// Whose a file is stands ready for every request, and is found out anew when names have changed.
#[test]
fn owners_are_known_until_names_change() {
    let (lab, files) = lab_with_vms();
    assert!(lab.fs.owners_are_outdated());
    assert_eq!(lab.fs.owner_of(files[0].file()), None, "nobody is guessed");
    run(lab.fs.know_owners()).unwrap();
    let owner = lab.fs.owner_of(files[0].file()).unwrap();
    assert_eq!((owner.vm.vm.as_str(), owner.vm.datastore.as_str()), ("100", "vms"));
    assert!(!lab.fs.owners_are_outdated());
    write(&lab, &files[0], 0, 3);
    assert!(!lab.fs.owners_are_outdated(), "content is no name");

    run(lab.fs.rename_vm("vms", "100", "erp")).unwrap();
    assert!(lab.fs.owners_are_outdated());
    assert_eq!(lab.fs.owner_of(files[0].file()), Some(owner), "what was true before, until it is found out");
    run(lab.fs.know_owners()).unwrap();
    assert_eq!(lab.fs.owner_of(files[0].file()).unwrap().vm.vm, "erp");
    let notes = file(&lab, &lab.root, "notes.txt", 1);
    assert!(lab.fs.owners_are_outdated());
    run(lab.fs.know_owners()).unwrap();
    assert_eq!(lab.fs.owner_of(notes.file()), None);
    run(lab.fs.assign_to_vm("vms", "notes.txt", Some("erp"))).unwrap();
    run(lab.fs.know_owners()).unwrap();
    assert_eq!(lab.fs.owner_of(notes.file()).unwrap().path, "notes.txt");
}

/// Limits are in force at once, kept over a restart, go with the name and end with the datastore.
#[test]
fn limits_are_kept_and_go_with_their_vm() {
    let (mut lab, files) = lab_with_vms();
    let limits = |max_per_second, min_per_second| VmLimits { max_per_second, min_per_second };
    assert_eq!(run(lab.fs.limit_vm("vms", "none", limits(Some(5), None))), Err(Refusal::NoEntry));
    assert_eq!(run(lab.fs.limit_vm("vms", "100", limits(Some(5), Some(6)))), Err(Refusal::BadArgument));
    assert_eq!(run(lab.fs.limit_vm("vms", "100", limits(None, Some(0)))), Err(Refusal::BadArgument));
    run(lab.fs.limit_vm("vms", "100", limits(Some(1000), Some(10)))).unwrap();
    run(lab.fs.rename_vm("vms", "100", "erp")).unwrap();
    lab.reopen();
    let found = run(lab.fs.vm_limits()).unwrap();
    let name = |vm: &str| VmName { datastore: "vms".into(), vm: vm.into() };
    assert_eq!(found, [(name("erp"), limits(Some(1000), Some(10)))].into());
    run(lab.fs.know_owners()).unwrap();
    write(&lab, &files[0], 0, 3);
    run(lab.fs.limit_vm("vms", "erp", VmLimits::default())).unwrap();
    assert!(run(lab.fs.vm_limits()).unwrap().is_empty());
    lab.assert_clean();
}

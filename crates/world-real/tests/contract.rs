//! One body of tests for the ports `Drive` and `Leg`, run on the simulated world and on
//! every way the real one drives a file: io_uring, threads, memory.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use base::port::{Drive, Leg, LegKind, MediaFault};
use base::{Buf, BufMut};
use world_real::{Ring, create_sparse_file, create_zeroed_file, open_drive, open_leg};
use world_sim::SimWorld;

const CAPACITY_BYTES: u64 = 8 << 20;

fn filled(length: usize, byte: u8) -> Buf {
    let mut buf = BufMut::zeroed(length);
    buf.fill(byte);
    buf.freeze()
}

async fn read(drive: &dyn Drive, at: u64, length: usize) -> Vec<u8> {
    let (result, buf) = drive.read(at, BufMut::zeroed(length)).await;
    result.unwrap();
    assert_eq!(buf.len(), length);
    buf.to_vec()
}

/// What every drive does.
async fn drive_contract(drive: Rc<dyn Drive>) {
    let info = drive.info();
    assert_eq!(info.capacity_bytes, CAPACITY_BYTES);
    assert!(info.align_bytes == 512 || info.align_bytes == 4096);
    let align = info.align_bytes as usize;

    // Never written reads as zeros; a write is read back; neighbours are untouched.
    assert_eq!(read(&*drive, 0, 8192).await, vec![0; 8192]);
    drive.write(4096, vec![filled(4096, 1)]).await.unwrap();
    drive.write(4096 + align as u64, vec![filled(align, 2)]).await.unwrap();
    let bytes = read(&*drive, 0, 12288).await;
    assert!(bytes[..4096].iter().all(|&byte| byte == 0) && bytes[8192..].iter().all(|&byte| byte == 0));
    assert!(bytes[4096..4096 + align].iter().all(|&byte| byte == 1));
    assert!(bytes[4096 + align..4096 + 2 * align].iter().all(|&byte| byte == 2));

    // Several pieces are one run of bytes, also more than one system call takes.
    let pieces: Vec<Buf> = (0..2500).map(|index| filled(align, index as u8)).collect();
    drive.write(0, pieces).await.unwrap();
    let bytes = read(&*drive, 0, 2500 * align).await;
    for (index, sector) in bytes.chunks(align).enumerate() {
        assert!(sector.iter().all(|&byte| byte == index as u8), "piece {index}");
    }
    drive.flush().await.unwrap();

    // The last bytes are there; beyond them is nothing, and nothing grows.
    let last = CAPACITY_BYTES - align as u64;
    drive.write(last, vec![filled(align, 7)]).await.unwrap();
    assert_eq!(read(&*drive, last, align).await, vec![7; align]);
    assert_eq!(drive.write(CAPACITY_BYTES, vec![filled(align, 7)]).await, Err(MediaFault::Io));
    let (result, buf) = drive.read(last, BufMut::zeroed(2 * align)).await;
    assert_eq!((result, buf.len()), (Err(MediaFault::Io), 2 * align));
    assert_eq!(drive.info().capacity_bytes, CAPACITY_BYTES);

    many_at_once(&*drive).await;
    dropped_futures(&*drive).await;
}

/// 64 writes then 64 reads in flight together, each to its own place.
async fn many_at_once(drive: &dyn Drive) {
    let writes: Vec<_> = (0..64).map(|index| drive.write(index * 8192, vec![filled(8192, index as u8)])).collect();
    for write in writes {
        write.await.unwrap();
    }
    let reads: Vec<_> = (0..64).map(|index| drive.read(index * 8192, BufMut::zeroed(8192))).collect();
    for (index, read) in reads.into_iter().enumerate().rev() {
        let (result, buf) = read.await;
        result.unwrap();
        assert!(buf.iter().all(|&byte| byte == index as u8), "read {index}");
    }
}

/// A dropped future abandons the answer, not the work, and not the buffer before the
/// work is done.
async fn dropped_futures(drive: &dyn Drive) {
    for round in 0..200u64 {
        drop(drive.write((1 << 20) + round * 8192, vec![filled(8192, round as u8)]));
        drop(drive.read(round * 8192, BufMut::zeroed(8192)));
        let mut polled = drive.read(0, BufMut::zeroed(8192));
        std::future::poll_fn(|context| {
            let _ = polled.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    drive.flush().await.unwrap();
    // A write that was started happened, at the latest when later ones have.
    for attempt in 0.. {
        let bytes = read(drive, (1 << 20) + 199 * 8192, 8192).await;
        if bytes == vec![199; 8192] {
            return;
        }
        assert!(attempt < 10_000, "an abandoned write went on");
    }
}

/// What every leg does.
async fn leg_contract(leg: Rc<dyn Leg>) {
    let info = leg.info();
    assert_eq!(info.capacity_bytes, CAPACITY_BYTES);
    for round in 0..32u64 {
        leg.write(round * 4096, filled(4096, round as u8)).await.unwrap();
    }
    leg.write(4096, filled(8192, 99)).await.unwrap();
    for round in 0..32u64 {
        let (result, buf) = leg.read(round * 4096, BufMut::zeroed(4096)).await;
        result.unwrap();
        let expected = if round == 1 || round == 2 { 99 } else { round as u8 };
        assert!(buf.iter().all(|&byte| byte == expected), "block {round}");
    }
    assert_eq!(leg.write(CAPACITY_BYTES, filled(4096, 1)).await, Err(MediaFault::Io));

    // Pieces of any length from anywhere are one run of bytes, whether it gathers or not.
    let lengths = [128, 33_001, 55, 1, 3_679];
    let pieces: Vec<Buf> = (1..).zip(lengths).map(|(byte, len)| filled(len + 3, byte).slice(3..)).collect();
    leg.write_gathered(8192, pieces.clone()).await.unwrap();
    let (result, buf) = leg.read(8192, BufMut::zeroed(36_864)).await;
    result.unwrap();
    assert_eq!(buf[..], pieces.concat());
}

fn on_shard<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, body)
}

fn folders() -> (tempfile::TempDir, Option<tempfile::TempDir>) {
    let ordinary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let memory = Path::new("/dev/shm").is_dir().then(|| tempfile::tempdir_in("/dev/shm").unwrap());
    (ordinary, memory)
}

fn new_file(folder: &tempfile::TempDir, name: &str) -> PathBuf {
    let path = folder.path().join(name);
    create_sparse_file(&path, CAPACITY_BYTES).unwrap();
    path
}

#[test]
fn the_simulated_drive_keeps_the_contract() {
    for seed in 0..5 {
        let sim = SimWorld::new(seed);
        let drive = sim.node().drive(&sim.drive_media("d", CAPACITY_BYTES));
        sim.run_until(drive_contract(drive)).done();
    }
}

#[test]
fn the_simulated_leg_keeps_the_contract() {
    let sim = SimWorld::new(1);
    let leg = sim.node().leg(&sim.leg_media("l", CAPACITY_BYTES));
    sim.run_until(leg_contract(leg)).done();
}

#[test]
fn a_file_on_the_ring_keeps_the_contract() {
    let (folder, _) = folders();
    on_shard(async {
        let ring = Ring::start().unwrap();
        let drive = open_drive(&new_file(&folder, "d"), Some(&ring)).unwrap();
        assert_eq!(drive.info().access, "io_uring direct");
        drive_contract(drive).await;
        assert!(ring.enter_count() > 0);
    });
}

#[test]
fn a_file_on_threads_keeps_the_contract() {
    let (folder, _) = folders();
    on_shard(async {
        let drive = open_drive(&new_file(&folder, "d"), None).unwrap();
        assert!(drive.info().access.starts_with("threads"), "{}", drive.info().access);
        drive_contract(drive).await;
    });
}

#[test]
fn a_file_in_memory_keeps_the_contract() {
    let (_, Some(folder)) = folders() else { return };
    on_shard(async {
        let drive = open_drive(&new_file(&folder, "d"), None).unwrap();
        assert_eq!(drive.info().access, "memory");
        drive_contract(drive).await;
        let leg = open_leg(&new_file(&folder, "l"), None).unwrap();
        assert_eq!(leg.info().kind, LegKind::MemoryFile);
        leg_contract(leg).await;
    });
}

#[test]
fn a_synchronous_file_keeps_the_contract() {
    let (folder, _) = folders();
    on_shard(async {
        let ring = Ring::start().unwrap();
        for (name, ring) in [("ring", Some(&ring)), ("threads", None)] {
            let path = folder.path().join(name);
            create_zeroed_file(&path, CAPACITY_BYTES).unwrap();
            let leg = open_leg(&path, ring).unwrap();
            assert_eq!(leg.info().kind, LegKind::SyncDevice);
            leg_contract(leg.clone()).await;
            leg.check_identity().unwrap();
        }
    });
}

/// The four ways a file drive dies that `design.md` 11.20 names, as far as a file can
/// show them: unlinked, replaced, truncated (noticed by the check and by a read).
#[test]
fn a_drive_file_that_is_no_longer_itself_is_gone_for_good() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 3] = [
        ("unlinked", |path| std::fs::remove_file(path).unwrap()),
        ("replaced", |path| {
            let other = path.with_extension("other");
            create_sparse_file(&other, CAPACITY_BYTES).unwrap();
            std::fs::rename(other, path).unwrap();
        }),
        ("truncated", |path| std::fs::File::options().write(true).open(path).unwrap().set_len(4096).unwrap()),
    ];
    let (ordinary, memory) = folders();
    on_shard(async {
        let ring = Ring::start().unwrap();
        let places = [("ring", Some(&ordinary), Some(&ring)), ("threads", Some(&ordinary), None)];
        for (way, folder, ring) in places.into_iter().chain([("memory", memory.as_ref(), None)]) {
            let Some(folder) = folder else { continue };
            for (what, harm) in harms {
                let path = new_file(folder, &format!("{way}-{what}"));
                let drive = open_drive(&path, ring).unwrap();
                drive.write(0, vec![filled(4096, 1)]).await.unwrap();
                drive.check_identity().unwrap();
                harm(&path);
                if what == "truncated" {
                    let (result, _) = drive.read(8192, BufMut::zeroed(4096)).await;
                    assert_eq!(result, Err(MediaFault::Gone), "{way} {what}: a read meets the end");
                } else {
                    assert_eq!(drive.flush().await, Err(MediaFault::Gone), "{way} {what}");
                }
                assert_eq!(drive.check_identity(), Err(MediaFault::Gone), "{way} {what}");
                assert_eq!(drive.write(0, vec![filled(4096, 2)]).await, Err(MediaFault::Gone), "{way} {what}");
                assert_eq!(drive.read(0, BufMut::zeroed(4096)).await.0, Err(MediaFault::Gone), "{way} {what}");
            }
        }
    });
}

#[test]
fn what_cannot_be_a_drive_is_refused_with_the_reason() {
    let (folder, _) = folders();
    let refuse = |path: &Path| open_drive(path, None).map(|_| ()).unwrap_err().to_string();
    assert!(refuse(&folder.path().join("absent")).contains("nothing is there"));
    assert!(refuse(folder.path()).contains("neither a regular file nor a block device"));
    let empty = folder.path().join("empty");
    create_sparse_file(&empty, 0).unwrap();
    assert!(refuse(&empty).contains("empty"));
    let again = create_sparse_file(&empty, 4096).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn a_zeroed_file_has_all_its_room() {
    use std::os::unix::fs::MetadataExt;
    let (folder, _) = folders();
    let (path, sparse) = (folder.path().join("journal"), folder.path().join("drive"));
    create_zeroed_file(&path, (3 << 20) + 4096).unwrap();
    create_sparse_file(&sparse, 1 << 40).unwrap();
    let metadata = std::fs::metadata(path).unwrap();
    assert_eq!(metadata.len(), (3 << 20) + 4096);
    assert!(metadata.blocks() * 512 >= metadata.len());
    assert!(std::fs::metadata(sparse).unwrap().blocks() < 1024);
}

#[test]
fn the_ring_outlives_its_handle_while_work_is_in_flight() {
    let (folder, _) = folders();
    let path = new_file(&folder, "d");
    on_shard(async {
        let ring = Ring::start().unwrap();
        let drive = open_drive(&path, Some(&ring)).unwrap();
        let write = drive.write(0, vec![filled(1 << 20, 5)]);
        drop(ring);
        write.await.unwrap();
        // The runtime goes away with a write in flight: its buffer is leaked, not freed.
        drop(drive.write(0, vec![filled(1 << 20, 6)]));
    });
}

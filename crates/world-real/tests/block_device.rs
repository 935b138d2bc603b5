//! Block devices, by means of loop devices. They need root and a kernel with loop
//! devices; where there are none the tests say so and pass.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use base::port::{Drive, Leg, LegKind, MediaFault};
use base::{Buf, BufMut};
use world_real::{OpenError, Ring, create_zeroed_file, open_drive, open_leg};

const CAPACITY_BYTES: u64 = 8 << 20;

fn filled(length: usize, byte: u8) -> Buf {
    let mut buf = BufMut::zeroed(length);
    buf.fill(byte);
    buf.freeze()
}

/// A file behind a loop device, detached when dropped.
struct Loop {
    folder: tempfile::TempDir,
    device: PathBuf,
}

impl Loop {
    fn attach() -> Option<Loop> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let file = folder.path().join("backing");
        create_zeroed_file(&file, CAPACITY_BYTES).unwrap();
        let losetup = if Path::new("/usr/sbin/losetup").exists() { "/usr/sbin/losetup" } else { "losetup" };
        let output = Command::new(losetup).args(["--find", "--show"]).arg(&file).output().ok()?;
        if !output.status.success() {
            println!("skipped, no loop device: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        let device = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        Some(Loop { folder, device })
    }

    fn backing(&self) -> PathBuf {
        self.folder.path().join("backing")
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("/usr/sbin/losetup").arg("-d").arg(&self.device).status();
    }
}

fn on_shard<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, body)
}

#[test]
fn a_block_device_is_a_drive_and_a_leg() {
    let Some(device) = Loop::attach() else { return };
    on_shard(async {
        let ring = Ring::start().unwrap();
        {
            let drive = open_drive(&device.device, Some(&ring)).unwrap();
            assert_eq!((drive.info().capacity_bytes, drive.info().access), (CAPACITY_BYTES, "io_uring direct"));
            drive.write(CAPACITY_BYTES - 4096, vec![filled(4096, 3)]).await.unwrap();
            drive.flush().await.unwrap();
            let (result, buf) = drive.read(CAPACITY_BYTES - 4096, BufMut::zeroed(4096)).await;
            result.unwrap();
            assert!(buf.iter().all(|&byte| byte == 3));
            let second = open_drive(&device.device, Some(&ring)).map(|_| ());
            assert!(matches!(second, Err(OpenError::Busy)), "one holder at a time: {second:?}");
        }
        let leg = open_leg(&device.device, Some(&ring)).unwrap();
        assert_eq!((leg.info().kind, leg.info().capacity_bytes), (LegKind::SyncDevice, CAPACITY_BYTES));
        leg.write(0, filled(8192, 4)).await.unwrap();
        leg.check_identity().unwrap();
    });
}

/// The fourth way of `design.md` 11.20: the device answers with an I/O error. Other
/// ranges go on.
#[test]
fn an_io_error_of_the_device_is_an_io_fault_of_that_range() {
    let Some(device) = Loop::attach() else { return };
    on_shard(async {
        let ring = Ring::start().unwrap();
        for ring in [Some(&ring), None] {
            let drive = open_drive(&device.device, ring).unwrap();
            drive.write(0, vec![filled(4096, 1)]).await.unwrap();
            drive.flush().await.unwrap();
            File::options().write(true).open(device.backing()).unwrap().set_len(1 << 20).unwrap();
            let (result, buf) = drive.read(4 << 20, BufMut::zeroed(8192)).await;
            assert_eq!((result, buf.len()), (Err(MediaFault::Io), 8192), "{}", drive.info().access);
            let (result, buf) = drive.read(0, BufMut::zeroed(4096)).await;
            assert_eq!((result, buf[0]), (Ok(()), 1));
            File::options().write(true).open(device.backing()).unwrap().set_len(CAPACITY_BYTES).unwrap();
        }
    });
}

//! btrfs RAID-6 over loop devices, as a peer. Needs root and btrfs-progs.

#![allow(dead_code, reason = "each bench uses a part")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program; what it printed, or why it failed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|why| format!("{program}: {why}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(format!("{program}: {}", text(&output.stderr))) }
}

/// btrfs with RAID-6 data over eight loop devices; goes with its files when it is dropped.
pub struct Btrfs {
    folder: PathBuf,
    pub mount: PathBuf,
    pub loops: Vec<String>,
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.mount.display().to_string()]);
        for device in &self.loops {
            let _ = run("losetup", &["--detach", device]);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Btrfs {
    /// Makes and mounts it in a new folder.
    pub fn make(folder: &Path) -> Result<Btrfs, String> {
        let mount = folder.join("mnt");
        fs::create_dir_all(&mount).map_err(|why| why.to_string())?;
        let mut peer = Btrfs { folder: folder.to_owned(), mount, loops: Vec::new() };
        for _ in 0..8 {
            peer.add_loop()?;
        }
        let mut make = vec!["--quiet", "--force", "--data", "raid6", "--metadata", "raid1c3"];
        make.extend(peer.loops.iter().map(String::as_str));
        run("mkfs.btrfs", &make)?;
        peer.mount("defaults")?;
        Ok(peer)
    }

    /// One loop device more, of a new file.
    pub fn add_loop(&mut self) -> Result<String, String> {
        let path = self.folder.join(format!("drive{}", self.loops.len()));
        File::create(&path).and_then(|file| file.set_len(512 << 20)).map_err(|why| why.to_string())?;
        let device = run("losetup", &["--find", "--show", "--direct-io=on", &path.display().to_string()])?;
        self.loops.push(device.clone());
        Ok(device)
    }

    /// Mounts it with these options.
    pub fn mount(&self, options: &str) -> Result<(), String> {
        let mount = self.mount.display().to_string();
        run("mount", &["-t", "btrfs", "-o", options, &self.loops[0], &mount]).map(drop)
    }

    /// Unmounts it.
    pub fn unmount(&self) -> Result<(), String> {
        run("umount", &[&self.mount.display().to_string()]).map(drop)
    }
}

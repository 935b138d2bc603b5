//! Making the files that drives and legs live in. An existing file is never touched.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use base::BufMut;

const ZERO_CHUNK_BYTES: usize = 1 << 20;

/// Creates a drive file of `size_bytes` without content: it takes room on its file
/// system as it is written. Fails if the path exists. Durable on return.
pub fn create_sparse_file(path: &Path, size_bytes: u64) -> io::Result<()> {
    create_with(path, |file| file.set_len(size_bytes))
}

/// Creates a journal file of `size_bytes` written with zeros, so that later writes
/// change no metadata and never find the file system full (`design.md` 11.21). Fails if
/// the path exists. Durable on return.
pub fn create_zeroed_file(path: &Path, size_bytes: u64) -> io::Result<()> {
    create_with(path, |file| {
        let zeros = BufMut::zeroed(ZERO_CHUNK_BYTES);
        let mut at = 0;
        while at < size_bytes {
            let piece = (size_bytes - at).min(ZERO_CHUNK_BYTES as u64);
            file.write_all_at(&zeros[..piece as usize], at)?;
            at += piece;
        }
        Ok(())
    })
}

/// Creates, fills and syncs; takes the file away again if that fails.
fn create_with(path: &Path, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let filled = fill(&file).and_then(|()| file.sync_all()).and_then(|()| sync_folder_of(path));
    if filled.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(path);
    }
    filled
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let absolute = std::path::absolute(path)?;
    match absolute.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

//! Persistent memory: `/dev/dax` devices and files on DAX file systems, mapped with
//! `MAP_SYNC`, so that a line written back by the CPU is durable without a system call.
//! Where the kernel refuses such a mapping, this is no persistent memory and nothing
//! here is used: an `msync` over the page cache would promise what it cannot keep cheaply.
//!
//! A write is a copy, a write-back of its cache lines (`clwb`, else `clflushopt`, else
//! `clflush`) and a store fence. Reads are copies.

#![allow(unsafe_code, reason = "a mapping of a device, and cache line instructions")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::ptr::NonNull;

use base::port::MediaFault;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::file::{OpenError, size_bytes};

const LINE_BYTES: usize = 64;

/// A mapped piece of persistent memory.
pub(crate) struct DaxMap {
    start: NonNull<u8>,
    capacity_bytes: usize,
}

impl DaxMap {
    /// Maps what is at `path`, or nothing if it is not persistent memory.
    pub(crate) fn open(path: &Path) -> Result<Option<DaxMap>, OpenError> {
        let Ok(metadata) = std::fs::metadata(path) else { return Ok(None) };
        let kind = metadata.file_type();
        if !cfg!(target_arch = "x86_64") || !(kind.is_char_device() || kind.is_file()) {
            return Ok(None);
        }
        let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { return Ok(None) };
        let capacity_bytes = if kind.is_char_device() { device_dax_bytes(&metadata) } else { size_bytes(&file)? };
        let capacity_bytes = usize::try_from(capacity_bytes).unwrap_or(0);
        if capacity_bytes == 0 {
            return Ok(None);
        }
        Ok(map(&file, capacity_bytes).map(|start| DaxMap { start, capacity_bytes }))
    }

    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes as u64
    }

    fn place(&self, offset_bytes: u64, length_bytes: usize) -> Result<NonNull<u8>, MediaFault> {
        let offset = usize::try_from(offset_bytes).map_err(|_| MediaFault::Io)?;
        let end = offset.checked_add(length_bytes).ok_or(MediaFault::Io)?;
        if end > self.capacity_bytes {
            return Err(MediaFault::Io);
        }
        // SAFETY: the mapping is `capacity_bytes` long and `offset` lies inside it.
        Ok(unsafe { self.start.add(offset) })
    }

    pub(crate) fn read(&self, offset_bytes: u64, into: &mut [u8]) -> Result<(), MediaFault> {
        let from = self.place(offset_bytes, into.len())?;
        // SAFETY: `place` checked the range; `into` is ours alone, so they cannot overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr(), into.len()) }
        Ok(())
    }

    pub(crate) fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<(), MediaFault> {
        let to = self.place(offset_bytes, data.len())?;
        // SAFETY: `place` checked the range; `data` is not in the mapping, which nobody
        // else hands out; only this shard's thread writes to it.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to.as_ptr(), data.len()) }
        write_back(to, data.len());
        Ok(())
    }
}

impl Drop for DaxMap {
    fn drop(&mut self) {
        // SAFETY: the very mapping made in `map`; no reference into it is ever kept.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.capacity_bytes) };
        debug_assert!(unmapped.is_ok(), "our own mapping can be undone");
    }
}

fn map(file: &File, capacity_bytes: usize) -> Option<NonNull<u8>> {
    let flags = MapFlags::SHARED_VALIDATE | MapFlags::SYNC;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
    let start = unsafe { mmap(std::ptr::null_mut(), capacity_bytes, access, flags, file, 0) }.ok()?;
    NonNull::new(start.cast())
}

/// Size of a device-DAX character device.
fn device_dax_bytes(metadata: &std::fs::Metadata) -> u64 {
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    let text = std::fs::read_to_string(format!("/sys/dev/char/{major}:{minor}/size"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Writes the cache lines of a range back to memory and waits until they are there.
#[cfg(target_arch = "x86_64")]
fn write_back(start: NonNull<u8>, length_bytes: usize) {
    use std::arch::asm;
    use std::arch::x86_64::{_mm_clflush, _mm_sfence};

    let first = start.as_ptr() as usize / LINE_BYTES * LINE_BYTES;
    let lines = (first..start.as_ptr() as usize + length_bytes).step_by(LINE_BYTES);
    let instruction = line_instruction();
    for line in lines {
        // SAFETY: write-backs change no data; each line overlaps memory the caller owns;
        // the instruction was found in CPUID.
        unsafe {
            match instruction {
                LineInstruction::WriteBack => asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags)),
                LineInstruction::FlushOptimised => {
                    asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags));
                }
                LineInstruction::Flush => _mm_clflush(line as *const u8),
            }
        }
    }
    // SAFETY: SSE is part of x86-64.
    unsafe { _mm_sfence() }
}

#[cfg(not(target_arch = "x86_64"))]
fn write_back(_start: NonNull<u8>, _length_bytes: usize) {
    unreachable!("nothing is mapped on this architecture");
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineInstruction {
    WriteBack,
    FlushOptimised,
    Flush,
}

#[cfg(target_arch = "x86_64")]
fn line_instruction() -> LineInstruction {
    use std::sync::OnceLock;
    static FOUND: OnceLock<LineInstruction> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let features = std::arch::x86_64::__cpuid_count(7, 0).ebx;
        match (features >> 24 & 1, features >> 23 & 1) {
            (1, _) => LineInstruction::WriteBack,
            (_, 1) => LineInstruction::FlushOptimised,
            _ => LineInstruction::Flush,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No persistent memory in most machines: the copy and write-back run over an
    /// ordinary mapping, the refusal over an ordinary file.
    #[test]
    fn copies_are_bounded_and_ordinary_files_are_refused() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(8192).expect("grows");
        assert!(DaxMap::open(file.path()).expect("no error").is_none());
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh anonymous mapping.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 8192, access, MapFlags::PRIVATE) };
        let start = NonNull::new(start.expect("maps").cast()).expect("not null");
        let map = DaxMap { start, capacity_bytes: 8192 };
        map.write(100, b"persistent").expect("inside");
        let mut back = [0; 10];
        map.read(100, &mut back).expect("inside");
        assert_eq!(&back, b"persistent");
        assert_eq!(map.write(8190, b"abc"), Err(MediaFault::Io));
        assert_eq!(map.read(u64::MAX, &mut back), Err(MediaFault::Io));
    }
}

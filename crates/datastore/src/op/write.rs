//! WRITE (RFC 1813 3.3.7). Every write is stable (`FILE_SYNC`) when it is answered.

use engine::store::Store;

use crate::attr::Wcc;
use crate::{Caller, Filesystem, Handle, Refused};

/// Answer of WRITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes written: all that were given.
    pub len_bytes: usize,
    /// The file's attributes around the write.
    pub wcc: Wcc,
}

impl<S: Store> Filesystem<S> {
    /// Writes the concatenation of `parts` (at most 1 MiB) at `offset_bytes`.
    pub async fn write(
        &self,
        caller: &Caller,
        file: &Handle,
        offset_bytes: u64,
        parts: &[&[u8]],
    ) -> Result<Written, Refused<Wcc>> {
        let _ = (caller, file, offset_bytes, parts);
        todo!()
    }
}

//! READ (RFC 1813 3.3.6).

use engine::store::{Piece, Store};
use smallvec::SmallVec;

use crate::attr::Attr;
use crate::{Caller, Filesystem, Handle, Refused};

/// Answer of READ.
#[derive(Clone, Debug)]
pub struct ReadDone {
    /// The bytes in order, holes as runs of zeros.
    pub pieces: SmallVec<[Piece; 4]>,
    /// Sum of the pieces' lengths in bytes.
    pub len_bytes: usize,
    /// Whether the last byte of the file is included (or the offset is beyond).
    pub eof: bool,
    /// The file's attributes at the moment of the read, if they are known to belong together.
    pub attr: Option<Attr>,
}

impl<S: Store> Filesystem<S> {
    /// Up to `len_bytes` (clipped to 1 MiB) of content from `offset_bytes`. Takes no lock.
    pub async fn read(
        &self,
        caller: &Caller,
        file: &Handle,
        offset_bytes: u64,
        len_bytes: usize,
    ) -> Result<ReadDone, Refused<Option<Attr>>> {
        let _ = (caller, file, offset_bytes, len_bytes);
        todo!()
    }
}

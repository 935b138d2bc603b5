//! READ (RFC 1813 3.3.6).

use base::meter::Kind;
use engine::store::{Piece, Store};
use smallvec::SmallVec;

use crate::attr::{Attr, FileKind};
use crate::filesystem::Admitted;
use crate::{Caller, Filesystem, Handle, Refusal, Refused};

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
        let bare = |why| Refused { why, wcc: None };
        let len_bytes = len_bytes.min(READ_BYTES_MAX);
        let _work = self.begin((file.datastore(), file.file()), Kind::Read, len_bytes).await;
        let Admitted { rights, inode, .. } = self.admit(caller, file).await.map_err(bare)?;
        let id = file.file();
        let why = match inode.kind {
            FileKind::Regular if rights.may_read(&inode) => None,
            FileKind::Regular => Some(Refusal::NotAllowed),
            FileKind::Directory => Some(Refusal::IsDirectory),
            _ => Some(Refusal::WrongKind),
        };
        if let Some(why) = why {
            return Err(Refused { why, wcc: self.attr_now(id).await.ok().flatten() });
        }

        let out = match self.store.read(id, offset_bytes, len_bytes).await {
            Ok(out) => out,
            Err(why) => return Err(Refused { why: why.into(), wcc: self.attr_now(id).await.ok().flatten() }),
        };
        let settled = self.is_settled(id, &inode).await.unwrap_or(false);
        let attr = settled.then(|| self.attr(id, &inode, Some(&out.head)));
        let len_bytes = out.pieces.iter().map(piece_bytes).sum();
        self.moves(len_bytes as u64);
        let eof = offset_bytes.saturating_add(len_bytes as u64) >= out.head.size_bytes;
        Ok(ReadDone { pieces: out.pieces, len_bytes, eof, attr })
    }
}

/// Largest READ, in bytes.
pub(super) const READ_BYTES_MAX: usize = 1 << 20;

fn piece_bytes(piece: &Piece) -> usize {
    match piece {
        Piece::Data(data) => data.len(),
        Piece::Zeros(len) => *len,
    }
}

//! WRITE (RFC 1813 3.3.7). Every write is stable (`FILE_SYNC`) when it is answered.

use base::meter::Kind;
use base::{Buf, FileId, WallNanos};
use engine::store::{Store, StoreRefusal, Wrote};

use crate::attr::{FileKind, PreAttr, Wcc};
use crate::batch::Batch;
use crate::caller::SET_ID_BITS;
use crate::filesystem::{Admitted, WHOLE};
use crate::gate::Mode;
use crate::{Caller, Filesystem, Handle, Refusal, Refused};

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
        let len_bytes = parts.iter().map(|part| part.len()).sum();
        let put = async |at| self.store.write(file.file(), offset_bytes, parts, at).await;
        self.write_by(caller, file, (offset_bytes, len_bytes), put).await
    }

    /// As [`write`](Filesystem::write) of one buffer, which is held on to instead of being
    /// copied where that pays.
    pub async fn write_buf(
        &self,
        caller: &Caller,
        file: &Handle,
        offset_bytes: u64,
        data: &Buf,
    ) -> Result<Written, Refused<Wcc>> {
        let put = async |at| self.store.write_buf(file.file(), offset_bytes, data, at).await;
        self.write_by(caller, file, (offset_bytes, data.len()), put).await
    }

    /// Has `put` write the range (offset and length) if `caller` may.
    async fn write_by(
        &self,
        caller: &Caller,
        file: &Handle,
        (offset_bytes, len_bytes): (u64, usize),
        put: impl AsyncFnOnce(WallNanos) -> Result<Wrote, StoreRefusal>,
    ) -> Result<Written, Refused<Wcc>> {
        let bare = |why| Refused { why, wcc: Wcc::default() };
        let id = file.file();
        self.moves(len_bytes as u64);
        let _work = self.begin((file.datastore(), id), Kind::Write, len_bytes).await;
        let mut pass = self.gates.enter(id, Mode::Shared).await;
        let mut admitted = self.admit(caller, file).await.map_err(bare)?;
        if admitted.inode.mode & SET_ID_BITS != 0 && !admitted.rights.is_root() {
            drop(pass);
            self.clear_set_id_bits(caller, file).await.map_err(bare)?;
            pass = self.gates.enter(id, Mode::Shared).await;
            admitted = self.admit(caller, file).await.map_err(bare)?;
        }
        let inode = admitted.inode;
        let written = match self.may_write_at(&admitted, id, offset_bytes, len_bytes as u64).await {
            Ok(()) => self.write_held(put).await,
            Err(why) => Err(why),
        };
        drop(pass);
        match written {
            Ok(wrote) => {
                let before = Some(self.attr(id, &inode, Some(&wrote.before)));
                let after = Some(self.attr(id, &inode, Some(&wrote.after)));
                Ok(Written { len_bytes, wcc: Wcc { before: before.as_ref().map(PreAttr::from), after } })
            }
            Err(why) => Err(Refused { why, wcc: Wcc::unchanged(self.attr_now(id).await.ok().flatten()) }),
        }
    }

    async fn may_write_at(
        &self,
        admitted: &Admitted<'_>,
        file: FileId,
        offset_bytes: u64,
        len_bytes: u64,
    ) -> Result<(), Refusal> {
        let inode = &admitted.inode;
        match inode.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Refusal::IsDirectory),
            _ => return Err(Refusal::WrongKind),
        }
        admitted.may_change()?;
        if !admitted.rights.may_write(inode) {
            return Err(Refusal::NotAllowed);
        }
        self.check_quota(&admitted.datastore, file, offset_bytes, len_bytes).await
    }

    async fn write_held(
        &self,
        put: impl AsyncFnOnce(WallNanos) -> Result<Wrote, StoreRefusal>,
    ) -> Result<Wrote, Refusal> {
        let at = self.stamp().await?;
        Ok(put(at).await?)
    }

    /// Content written by anyone but root ends set-user-id and set-group-id.
    async fn clear_set_id_bits(&self, caller: &Caller, file: &Handle) -> Result<(), Refusal> {
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let _pass = self.gates.enter(file.file(), Mode::Exclusive).await;
        let admitted = self.admit(caller, file).await?;
        let mut inode = admitted.inode;
        if inode.kind != FileKind::Regular || !admitted.rights.may_write(&inode) || inode.mode & SET_ID_BITS == 0 {
            return Ok(());
        }
        admitted.may_change()?;
        inode.mode &= !SET_ID_BITS;
        let mut batch = Batch::default();
        batch.put_changed(file.file(), inode, self.stamp().await?);
        self.apply(batch).await
    }
}

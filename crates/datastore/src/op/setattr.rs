//! SETATTR (RFC 1813 3.3.2).

use base::{FileId, WallNanos};
use engine::store::{Change, FILE_BYTES_MAX, FileHead, Store};

use super::make::resolve;
use crate::attr::{Attr, FileKind, PreAttr, SetAttr, SetTime, Wcc};
use crate::batch::Batch;
use crate::caller::{Rights, SET_GID_BIT, SET_ID_BITS};
use crate::filesystem::{Admitted, WHOLE, used_after_cut};
use crate::format::Inode;
use crate::gate::Mode;
use crate::{Caller, Filesystem, Handle, Outcome, Refusal, Refused, ReplyNote};

/// Arguments of SETATTR.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttrArgs {
    /// What to set.
    pub set: SetAttr,
    /// Only if `ctime` still is this.
    pub guard: Option<WallNanos>,
}

impl<S: Store> Filesystem<S> {
    /// Sets attributes, size included.
    pub async fn setattr(
        &self,
        caller: &Caller,
        file: &Handle,
        args: SetAttrArgs,
        note: Option<ReplyNote>,
    ) -> Result<Wcc, Refused<Wcc>> {
        let id = file.file();
        let bare = |why| Refused { why, wcc: Wcc::default() };
        self.admit(caller, file).await.map_err(bare)?;
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let _pass = self.gates.enter(id, Mode::Exclusive).await;
        let admitted = self.admit(caller, file).await.map_err(bare)?;
        let Admitted { rights, inode, .. } = &admitted;
        let head = self.head_of(id, inode).await.map_err(bare)?;
        let before = self.attr(id, inode, head.as_ref());
        let refuse = |why| Refused { why, wcc: Wcc::unchanged(Some(before)) };
        admitted.may_change().map_err(refuse)?;
        if args.guard.is_some_and(|guard| guard != before.changed) {
            return Err(refuse(Refusal::GuardFailed));
        }

        let decided = self.decide_set(rights, id, (*inode, head), args.set).await.map_err(refuse)?;
        let Some(mut change) = decided else { return Ok(Wcc::unchanged(Some(before))) };
        let wcc = Wcc { before: Some(PreAttr::from(&before)), after: Some(change.after) };
        self.keep_reply(&mut change.batch, note, Outcome::Changed(&wcc), change.at);
        self.apply(change.batch).await.map_err(refuse)?;
        Ok(wcc)
    }

    /// What setting attributes comes to, if anything; to be called with the inode's gate
    /// entered alone.
    pub(super) async fn decide_set(
        &self,
        rights: &Rights<'_>,
        file: FileId,
        (inode, head): (Inode, Option<FileHead>),
        set: SetAttr,
    ) -> Result<Option<SetChange>, Refusal> {
        if set == SetAttr::default() {
            return Ok(None);
        }
        check_set(rights, &inode, &set)?;
        let at = self.stamp().await?;
        let mut new = Inode { accessed: resolve(set.accessed, at, inode.accessed), ..inode };
        new.mode = set.mode.map_or(inode.mode, |mode| mode & 0o7777);
        new.uid = set.uid.unwrap_or(inode.uid);
        new.gid = set.gid.unwrap_or(inode.gid);
        let given_away = set.mode.is_none() && (new.uid, new.gid) != (inode.uid, inode.gid);
        clear_set_id(rights, &mut new, given_away);
        let mut batch = Batch::default();
        let mut new_head = head;
        if let (Some(before), Some(head)) = (head, &mut new_head) {
            if let Some(size_bytes) = set.size_bytes {
                batch.push(Change::SetSize { file, size_bytes });
                let used_bytes = used_after_cut(&before, size_bytes);
                *head = FileHead { size_bytes, used_bytes, modified: at, ..before };
            }
            head.modified = resolve(set.modified, at, head.modified);
            head.changed = at;
            let modified = (head.modified != before.modified).then_some(head.modified);
            batch.push(Change::SetTimes { file, modified, changed: at });
        } else {
            new.modified = resolve(set.modified, at, inode.modified);
            new.changed = at;
        }
        if new != inode {
            batch.put_inode(file, new);
        }
        let after = self.attr(file, &new, new_head.as_ref());
        Ok(Some(SetChange { batch, after, at }))
    }
}

/// Changes that set attributes, and what they lead to.
pub(super) struct SetChange {
    pub batch: Batch,
    pub after: Attr,
    pub at: WallNanos,
}

/// Who may set what.
fn check_set(rights: &Rights<'_>, inode: &Inode, set: &SetAttr) -> Result<(), Refusal> {
    let owner_only =
        set.mode.is_some() || matches!(set.accessed, SetTime::Client(_)) || matches!(set.modified, SetTime::Client(_));
    if owner_only && !rights.owns(inode) {
        return Err(Refusal::NotOwner);
    }
    if set.uid.is_some_and(|uid| !rights.is_root() && (uid != inode.uid || !rights.owns(inode))) {
        return Err(Refusal::NotOwner);
    }
    let may_give = |gid: u32| rights.is_root() || (rights.owns(inode) && (gid == inode.gid || rights.in_group(gid)));
    if set.gid.is_some_and(|gid| !may_give(gid)) {
        return Err(Refusal::NotOwner);
    }
    let touches = set.accessed == SetTime::Server || set.modified == SetTime::Server || set.size_bytes.is_some();
    if touches && !rights.may_write(inode) && !rights.owns(inode) {
        return Err(Refusal::NotAllowed);
    }
    match (set.size_bytes, inode.kind) {
        (Some(size_bytes), FileKind::Regular) if size_bytes > FILE_BYTES_MAX => Err(Refusal::TooBig),
        (Some(_), FileKind::Directory) => Err(Refusal::IsDirectory),
        (Some(_), kind) if kind != FileKind::Regular => Err(Refusal::WrongKind),
        _ => Ok(()),
    }
}

/// Set-id bits fall when a file changes hands, and set-group-id is not for strangers.
fn clear_set_id(rights: &Rights<'_>, inode: &mut Inode, changed_hands: bool) {
    if rights.is_root() {
        return;
    }
    if changed_hands && inode.kind == FileKind::Regular {
        inode.mode &= !SET_ID_BITS;
    } else if inode.kind == FileKind::Regular && !rights.in_group(inode.gid) {
        inode.mode &= !SET_GID_BIT;
    }
}

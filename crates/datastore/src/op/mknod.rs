//! MKNOD (RFC 1813 3.3.11): nodes that mean something to clients and nothing here.

use engine::store::Store;

use super::make::NewInode;
use super::{Created, Place};
use crate::attr::{FileKind, SetAttr, Wcc};
use crate::{Caller, Filesystem, Refusal, Refused, ReplyNote};

/// Kinds of node. A regular file or directory is refused by the wire layer as
/// [`Refusal::BadType`](crate::Refusal::BadType).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Block device with major and minor number; root only.
    BlockDevice(u32, u32),
    /// Character device with major and minor number; root only.
    CharDevice(u32, u32),
    /// Socket.
    Socket,
    /// Named pipe.
    Fifo,
}

/// A node to be.
#[derive(Clone, Copy, Debug)]
pub struct NewNode {
    /// What.
    pub kind: NodeKind,
    /// Attributes.
    pub set: SetAttr,
}

impl<S: Store> Filesystem<S> {
    /// Creates a node.
    pub async fn mknod(
        &self,
        caller: &Caller,
        at: Place<'_>,
        new: NewNode,
        note: Option<ReplyNote>,
    ) -> Result<Created, Refused<Wcc>> {
        let spot = self.spot(caller, at).await?;
        let (kind, device) = match new.kind {
            NodeKind::BlockDevice(major, minor) => (FileKind::BlockDevice, (major, minor)),
            NodeKind::CharDevice(major, minor) => (FileKind::CharDevice, (major, minor)),
            NodeKind::Socket => (FileKind::Socket, (0, 0)),
            NodeKind::Fifo => (FileKind::Fifo, (0, 0)),
        };
        if matches!(kind, FileKind::BlockDevice | FileKind::CharDevice) && !spot.rights.is_root() {
            return Err(spot.refuse(Refusal::NotOwner));
        }
        let set = SetAttr { size_bytes: None, ..new.set };
        let node = NewInode { device, ..NewInode::of(kind, set) };
        self.make(&spot, at, node, note).await.map_err(|why| spot.refuse(why))
    }
}

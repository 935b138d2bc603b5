//! MKNOD (RFC 1813 3.3.11): nodes that mean something to clients and nothing here.

use engine::store::Store;

use super::{Created, Place};
use crate::attr::{SetAttr, Wcc};
use crate::{Caller, Filesystem, Refused, ReplyNote};

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
        let _ = (caller, at, new, note);
        todo!()
    }
}

//! SETATTR (RFC 1813 3.3.2).

use base::WallNanos;
use engine::store::Store;

use crate::attr::{SetAttr, Wcc};
use crate::{Caller, Filesystem, Handle, Refused, ReplyNote};

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
        let _ = (caller, file, args, note);
        todo!()
    }
}

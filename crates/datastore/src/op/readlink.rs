//! READLINK (RFC 1813 3.3.5).

use engine::store::Store;

use crate::attr::Attr;
use crate::{Caller, Filesystem, Handle, Refused};

/// Answer of READLINK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkText {
    /// The path, as it was given to SYMLINK.
    pub text: Vec<u8>,
    /// The link's attributes.
    pub attr: Attr,
}

impl<S: Store> Filesystem<S> {
    /// Text of a symbolic link.
    pub async fn readlink(&self, caller: &Caller, file: &Handle) -> Result<LinkText, Refused<Option<Attr>>> {
        let _ = (caller, file);
        todo!()
    }
}

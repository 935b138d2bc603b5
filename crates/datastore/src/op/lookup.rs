//! LOOKUP (RFC 1813 3.3.3), "." and ".." included.

use engine::store::Store;

use super::Place;
use crate::attr::Attr;
use crate::{Caller, Filesystem, Handle, Refused};

/// Answer of LOOKUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the name stands for.
    pub handle: Handle,
    /// Its attributes.
    pub attr: Attr,
    /// The directory's.
    pub dir: Option<Attr>,
}

impl<S: Store> Filesystem<S> {
    /// What a name stands for. ".." of a datastore's root is that root.
    pub async fn lookup(&self, caller: &Caller, at: Place<'_>) -> Result<Found, Refused<Option<Attr>>> {
        let _ = (caller, at);
        todo!()
    }
}

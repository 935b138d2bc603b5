//! PATHCONF (RFC 1813 3.3.20).

use engine::store::Store;

use super::link::LINKS_MAX;
use crate::attr::Attr;
use crate::format::NAME_BYTES_MAX;
use crate::{Caller, Filesystem, Handle, Refused};

/// Answer of PATHCONF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathConf {
    /// Most names of a file.
    pub link_max: u32,
    /// Longest name, in bytes.
    pub name_bytes_max: u32,
    /// Longer names are refused, not cut.
    pub no_trunc: bool,
    /// Only root changes owners.
    pub chown_restricted: bool,
    /// Names differing in case are the same.
    pub case_insensitive: bool,
    /// Case is kept.
    pub case_preserving: bool,
    /// Attributes of the inode asked about.
    pub attr: Attr,
}

impl<S: Store> Filesystem<S> {
    /// Limits of names.
    pub async fn pathconf(&self, caller: &Caller, file: &Handle) -> Result<PathConf, Refused<Option<Attr>>> {
        let attr = self.attr_for(caller, file).await?;
        Ok(PathConf {
            link_max: LINKS_MAX,
            name_bytes_max: NAME_BYTES_MAX as u32,
            no_trunc: true,
            chown_restricted: true,
            case_insensitive: false,
            case_preserving: true,
            attr,
        })
    }
}

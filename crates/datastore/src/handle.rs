//! File handles: the same bytes on every node and after every restart, and unforgeable.
//!
//! ```text
//!  0        1      2          4             8         16       24           28       36
//!  | version | kind | zero (2) | datastore (4) | pool (8) | file (8) | generation (4) | seal (8) |
//! ```
//! All big-endian. The seal is SipHash-2-4 over the 28 bytes before it under the pool's
//! handle key, so a client cannot make up a handle for a file it was never shown
//! (`design.md` 11.8, `clients.md` 11.6).

use std::fmt;
use std::hash::Hasher;

use base::FileId;
use siphasher::sip::SipHasher24;

use crate::filesystem::Identity;
use crate::refusal::Refusal;

/// Length of a handle in bytes.
pub const HANDLE_BYTES: usize = 36;

const SEALED_BYTES: usize = HANDLE_BYTES - 8;
const VERSION: u8 = 1;
/// The handle names an inode of the filesystem.
const KIND_INODE: u8 = 1;

/// Which datastore (export). 0 is the pool's root. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatastoreId(pub u32);

impl DatastoreId {
    /// The pool's root directory, in which every datastore is a directory.
    pub const POOL: DatastoreId = DatastoreId(0);
}

impl fmt::Display for DatastoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A handle that this pool sealed. It exists only by [`Filesystem::handle`] (checked) or as
/// an answer, so whoever holds one was shown the file; whether the file is still there is
/// found out by using it.
///
/// [`Filesystem::handle`]: crate::Filesystem::handle
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    datastore: DatastoreId,
    file: FileId,
    generation: u32,
    bytes: [u8; HANDLE_BYTES],
}

impl Handle {
    pub(crate) fn new(identity: &Identity, datastore: DatastoreId, file: FileId, generation: u32) -> Handle {
        let mut bytes = [0; HANDLE_BYTES];
        bytes[0] = VERSION;
        bytes[1] = KIND_INODE;
        bytes[4..8].copy_from_slice(&datastore.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&identity.pool.to_be_bytes());
        bytes[16..24].copy_from_slice(&file.0.to_be_bytes());
        bytes[24..28].copy_from_slice(&generation.to_be_bytes());
        let seal = seal(identity, &bytes[..SEALED_BYTES]);
        bytes[SEALED_BYTES..].copy_from_slice(&seal);
        Handle { datastore, file, generation, bytes }
    }

    pub(crate) fn parse(identity: &Identity, bytes: &[u8]) -> Result<Handle, Refusal> {
        let bytes: [u8; HANDLE_BYTES] = bytes.try_into().map_err(|_| Refusal::BadHandle)?;
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        let ours = bytes[..4] == [VERSION, KIND_INODE, 0, 0] && long(8) == identity.pool;
        if !ours || bytes[SEALED_BYTES..] != seal(identity, &bytes[..SEALED_BYTES]) {
            return Err(Refusal::BadHandle);
        }
        Ok(Handle { datastore: DatastoreId(word(4)), file: FileId(long(16)), generation: word(24), bytes })
    }

    /// What goes over the wire.
    pub fn as_bytes(&self) -> &[u8; HANDLE_BYTES] {
        &self.bytes
    }

    /// The datastore whose export rules apply.
    pub fn datastore(&self) -> DatastoreId {
        self.datastore
    }

    /// The inode it names.
    pub fn file(&self) -> FileId {
        self.file
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }
}

fn seal(identity: &Identity, bytes: &[u8]) -> [u8; 8] {
    let mut hasher = SipHasher24::new_with_key(&identity.handle_key);
    hasher.write(bytes);
    hasher.finish().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sealed_bytes_of_this_pool_are_a_handle() {
        let identity = Identity { pool: 7, handle_key: [3; 16] };
        let handle = Handle::new(&identity, DatastoreId(2), FileId(99), 1);
        assert_eq!(Handle::parse(&identity, handle.as_bytes()), Ok(handle));
        assert_eq!(handle, Handle::new(&identity, DatastoreId(2), FileId(99), 1), "the same bytes after a restart");
        for bit in 0..HANDLE_BYTES * 8 {
            let mut forged = *handle.as_bytes();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Handle::parse(&identity, &forged), Err(Refusal::BadHandle), "bit {bit}");
        }
        for len in 0..HANDLE_BYTES {
            assert_eq!(Handle::parse(&identity, &handle.as_bytes()[..len]), Err(Refusal::BadHandle));
        }
        assert_eq!(
            Handle::parse(&Identity { pool: 8, ..identity.clone() }, handle.as_bytes()),
            Err(Refusal::BadHandle)
        );
        let other_key = Identity { handle_key: [4; 16], ..identity };
        assert_eq!(Handle::parse(&other_key, handle.as_bytes()), Err(Refusal::BadHandle));
    }
}

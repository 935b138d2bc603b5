//! The one table from refusals to `nfsstat3` (RFC 1813 section 2.6).

use datastore::Refusal;

/// Everything went well.
pub const NFS3_OK: u32 = 0;
/// Malformed directory request: cookie that never was.
pub const BAD_COOKIE: u32 = 10003;
/// The reply does not fit into what the client allows.
pub const TOO_SMALL: u32 = 10005;
/// The procedure is not offered for this kind.
pub const NOT_SUPPORTED: u32 = 10004;
/// The server cannot answer yet; the client asks again later.
pub const JUKEBOX: u32 = 10008;

/// Wire status of a refusal. Total, so that a new refusal cannot be forgotten.
///
/// [`Refusal::Stopped`] is "later": hypervisors repeat the request until the store has
/// reopened, instead of handing an error to a guest.
pub fn nfsstat3(why: Refusal) -> u32 {
    match why {
        Refusal::NotOwner => 1,                                                // NFS3ERR_PERM
        Refusal::NoEntry => 2,                                                 // NFS3ERR_NOENT
        Refusal::Unreadable | Refusal::Inconsistent => 5,                      // NFS3ERR_IO
        Refusal::NotAllowed => 13,                                             // NFS3ERR_ACCES
        Refusal::Exists => 17,                                                 // NFS3ERR_EXIST
        Refusal::CrossDatastore => 18,                                         // NFS3ERR_XDEV
        Refusal::NotDirectory => 20,                                           // NFS3ERR_NOTDIR
        Refusal::IsDirectory => 21,                                            // NFS3ERR_ISDIR
        Refusal::WrongKind | Refusal::BadArgument | Refusal::IntoItself => 22, // NFS3ERR_INVAL
        Refusal::TooBig => 27,                                                 // NFS3ERR_FBIG
        Refusal::NoSpace => 28,                                                // NFS3ERR_NOSPC
        Refusal::ReadOnly => 30,                                               // NFS3ERR_ROFS
        Refusal::TooManyLinks => 31,                                           // NFS3ERR_MLINK
        Refusal::NameTooLong => 63,                                            // NFS3ERR_NAMETOOLONG
        Refusal::NotEmpty => 66,                                               // NFS3ERR_NOTEMPTY
        Refusal::QuotaExceeded => 69,                                          // NFS3ERR_DQUOT
        Refusal::Stale => 70,                                                  // NFS3ERR_STALE
        Refusal::BadHandle => 10001,                                           // NFS3ERR_BADHANDLE
        Refusal::GuardFailed => 10002,                                         // NFS3ERR_NOT_SYNC
        Refusal::BadType => 10007,                                             // NFS3ERR_BADTYPE
        Refusal::Stopped => JUKEBOX,
    }
}

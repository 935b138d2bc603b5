//! Result bodies of NFSv3 (RFC 1813 sections 2 and 3). The bytes come from a server
//! that is not trusted: lengths are bounded, enums checked, lists bounded by the record.

use crate::xdr::{Decoder, Malformed};

use super::{DirectoryPage, Entry, FileHandle, HANDLE_BYTES_MAX};

/// Seconds and nanoseconds of the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds.
    pub seconds: u32,
    /// Nanoseconds below one second.
    pub nanoseconds: u32,
}

/// `ftype3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum FileKind {
    Regular,
    Directory,
    BlockDevice,
    CharacterDevice,
    Symlink,
    Socket,
    Fifo,
}

/// `fattr3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// File, directory, ...
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Hard links.
    pub link_count: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length.
    pub size_bytes: u64,
    /// Space taken.
    pub used_bytes: u64,
    /// Filesystem id.
    pub filesystem_id: u64,
    /// File id.
    pub file_id: u64,
    /// Access time.
    pub accessed: Time,
    /// Modification time.
    pub modified: Time,
    /// Change time.
    pub changed: Time,
}

impl Attributes {
    /// Decodes `fattr3`.
    pub fn decode(xdr: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let kind = match xdr.u32()? {
            1 => FileKind::Regular,
            2 => FileKind::Directory,
            3 => FileKind::BlockDevice,
            4 => FileKind::CharacterDevice,
            5 => FileKind::Symlink,
            6 => FileKind::Socket,
            7 => FileKind::Fifo,
            _ => return Err(Malformed("file kind")),
        };
        let (mode, link_count, uid, gid) = (xdr.u32()?, xdr.u32()?, xdr.u32()?, xdr.u32()?);
        let (size_bytes, used_bytes) = (xdr.u64()?, xdr.u64()?);
        xdr.u64()?;
        let (filesystem_id, file_id) = (xdr.u64()?, xdr.u64()?);
        let (accessed, modified, changed) = (time(xdr)?, time(xdr)?, time(xdr)?);
        Ok(Attributes {
            kind,
            mode,
            link_count,
            uid,
            gid,
            size_bytes,
            used_bytes,
            filesystem_id,
            file_id,
            accessed,
            modified,
            changed,
        })
    }
}

fn time(xdr: &mut Decoder<'_>) -> Result<Time, Malformed> {
    Ok(Time { seconds: xdr.u32()?, nanoseconds: xdr.u32()? })
}

/// `nfs_fh3`.
pub(crate) fn handle(xdr: &mut Decoder<'_>) -> Result<FileHandle, Malformed> {
    FileHandle::new(xdr.opaque(HANDLE_BYTES_MAX)?)
}

/// `post_op_attr`.
pub(super) fn optional_attributes(xdr: &mut Decoder<'_>) -> Result<Option<Attributes>, Malformed> {
    if xdr.bool()? { Attributes::decode(xdr).map(Some) } else { Ok(None) }
}

/// `wcc_data`, not used by this client.
pub(super) fn skip_wcc(xdr: &mut Decoder<'_>) -> Result<(), Malformed> {
    if xdr.bool()? {
        for _ in 0..3 {
            xdr.u64()?;
        }
    }
    optional_attributes(xdr)?;
    Ok(())
}

/// READDIR3resok and READDIRPLUS3resok.
pub(super) fn directory_page(xdr: &mut Decoder<'_>, plus: bool) -> Result<DirectoryPage, Malformed> {
    optional_attributes(xdr)?;
    let mut page = DirectoryPage { verifier: xdr.fixed()?, ..DirectoryPage::default() };
    while xdr.bool()? {
        let file_id = xdr.u64()?;
        let name = xdr.opaque(4096)?.to_vec();
        page.cookie = xdr.u64()?;
        let mut entry = Entry { name, file_id, attributes: None, handle: None };
        if plus {
            entry.attributes = optional_attributes(xdr)?;
            entry.handle = if xdr.bool()? { Some(handle(xdr)?) } else { None };
        }
        page.entries.push(entry);
    }
    page.eof = xdr.bool()?;
    Ok(page)
}

/// FSSTAT3resok.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilesystemSpace {
    /// Size.
    pub total_bytes: u64,
    /// Free.
    pub free_bytes: u64,
    /// Free for this user.
    pub available_bytes: u64,
    /// Most files.
    pub total_files: u64,
    /// File slots free.
    pub free_files: u64,
}

impl FilesystemSpace {
    /// Decodes FSSTAT3resok.
    pub fn decode(xdr: &mut Decoder<'_>) -> Result<Self, Malformed> {
        optional_attributes(xdr)?;
        Ok(FilesystemSpace {
            total_bytes: xdr.u64()?,
            free_bytes: xdr.u64()?,
            available_bytes: xdr.u64()?,
            total_files: xdr.u64()?,
            free_files: xdr.u64()?,
        })
    }
}

/// FSINFO3resok, as far as a client acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilesystemInfo {
    /// Largest READ.
    pub read_bytes_max: u32,
    /// Largest WRITE.
    pub write_bytes_max: u32,
    /// Largest file.
    pub file_bytes_max: u64,
    /// `properties` bits: 1 hard links, 2 symbolic links, 8 homogeneous, 16 can set time.
    pub properties: u32,
}

impl FilesystemInfo {
    /// Decodes FSINFO3resok.
    pub fn decode(xdr: &mut Decoder<'_>) -> Result<Self, Malformed> {
        optional_attributes(xdr)?;
        let (read_bytes_max, _, _) = (xdr.u32()?, xdr.u32()?, xdr.u32()?);
        let (write_bytes_max, _, _) = (xdr.u32()?, xdr.u32()?, xdr.u32()?);
        xdr.u32()?;
        let file_bytes_max = xdr.u64()?;
        time(xdr)?;
        Ok(FilesystemInfo { read_bytes_max, write_bytes_max, file_bytes_max, properties: xdr.u32()? })
    }
}

/// PATHCONF3resok.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathLimits {
    /// Most hard links of a file.
    pub link_count_max: u32,
    /// Longest name.
    pub name_bytes_max: u32,
    /// Longer names are refused, not cut.
    pub no_truncation: bool,
    /// Names differ by case.
    pub case_sensitive: bool,
}

impl PathLimits {
    /// Decodes PATHCONF3resok.
    pub fn decode(xdr: &mut Decoder<'_>) -> Result<Self, Malformed> {
        optional_attributes(xdr)?;
        let (link_count_max, name_bytes_max) = (xdr.u32()?, xdr.u32()?);
        let (no_truncation, _chown_restricted) = (xdr.bool()?, xdr.bool()?);
        let case_insensitive = xdr.bool()?;
        xdr.bool()?;
        Ok(PathLimits { link_count_max, name_bytes_max, no_truncation, case_sensitive: !case_insensitive })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Words that lengths, booleans and kinds are made of, and some that they are not.
    fn words() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![4 => 0_u32..8, 1 => any::<u32>(), 1 => Just(u32::MAX)];
        proptest::collection::vec(word, 0..80).prop_map(|words| words.into_iter().flat_map(u32::to_be_bytes).collect())
    }

    proptest! {
        #[test]
        fn hostile_results_are_refused_or_decoded_within_their_bytes(bytes in words()) {
            let decoder = Decoder::new(&bytes);
            let _ = Attributes::decode(&mut decoder.clone());
            let _ = FilesystemSpace::decode(&mut decoder.clone());
            let _ = FilesystemInfo::decode(&mut decoder.clone());
            let _ = PathLimits::decode(&mut decoder.clone());
            let _ = skip_wcc(&mut decoder.clone());
            for plus in [false, true] {
                if let Ok(page) = directory_page(&mut decoder.clone(), plus) {
                    prop_assert!(page.entries.len() * 24 <= bytes.len());
                }
            }
        }
    }

    #[test]
    fn handles_longer_than_64_bytes_are_refused() {
        let mut bytes = vec![0, 0, 0, 68];
        bytes.resize(4 + 68, 1);
        assert!(handle(&mut Decoder::new(&bytes)).is_err());
        bytes[3] = 64;
        assert_eq!(handle(&mut Decoder::new(&bytes)).unwrap().as_bytes(), &[1; 64]);
    }
}

//! SHARE and UNSHARE: what DOS-like clients open files with. Advisory between such clients
//! only, and kept in memory: they are asked for again after a restart.

use std::collections::BTreeMap;

use base::FileId;

use super::stat;
use super::wire::ShareArgs;

/// Shares kept in all.
const SHARES_MAX: usize = 4096;

#[derive(Debug)]
struct Share {
    client: Vec<u8>,
    owner: Vec<u8>,
    deny: u32,
    access: u32,
}

/// Who has opened what how.
#[derive(Debug, Default)]
pub(super) struct Shares {
    by_file: BTreeMap<FileId, Vec<Share>>,
    count: usize,
}

impl Shares {
    /// Takes or gives back a share; answers with an `nlm4_stats`.
    pub(super) fn change(&mut self, file: FileId, client: Vec<u8>, args: &ShareArgs<'_>, take: bool) -> u32 {
        let shares = self.by_file.entry(file).or_default();
        let mine = |share: &Share| share.client == client && share.owner == args.owner;
        let before = shares.len();
        let clash =
            shares.iter().any(|share| !mine(share) && (share.deny & args.access != 0 || share.access & args.deny != 0));
        let status = if !take {
            shares.retain(|share| !mine(share));
            stat::GRANTED
        } else if clash {
            stat::DENIED
        } else if self.count >= SHARES_MAX {
            stat::DENIED_NOLOCKS
        } else {
            shares.retain(|share| !mine(share));
            let (deny, access) = (args.deny, args.access);
            shares.push(Share { client, owner: args.owner.to_vec(), deny, access });
            stat::GRANTED
        };
        self.count = self.count + shares.len() - before;
        if shares.is_empty() {
            self.by_file.remove(&file);
        }
        status
    }

    /// The client restarted.
    pub(super) fn free_all(&mut self, client: &[u8]) {
        self.by_file.values_mut().for_each(|shares| shares.retain(|share| share.client != client));
        self.by_file.retain(|_, shares| !shares.is_empty());
        self.count = self.by_file.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_that_deny_each_other_do_not_meet() {
        let mut shares = Shares::default();
        let args =
            |owner: &'static [u8], deny, access| ShareArgs { cookie: b"", name: b"", file: b"", owner, deny, access };
        let mut change =
            |client: &[u8], args: &ShareArgs<'_>, take| shares.change(FileId(1), client.to_vec(), args, take);
        assert_eq!(change(b"a", &args(b"1", 2, 1), true), stat::GRANTED);
        assert_eq!(change(b"b", &args(b"1", 0, 2), true), stat::DENIED, "writing is denied");
        assert_eq!(change(b"b", &args(b"1", 0, 1), true), stat::GRANTED);
        assert_eq!(change(b"a", &args(b"1", 2, 1), false), stat::GRANTED);
        assert_eq!(change(b"b", &args(b"1", 0, 2), true), stat::GRANTED);
        shares.free_all(b"b");
        assert_eq!((shares.count, shares.by_file.len()), (0, 0));
    }
}

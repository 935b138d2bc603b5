//! READDIRPLUS (RFC 1813 3.3.17).
//!
//! `maxcount` bounds the encoded result; `dircount` bounds what READDIR would have shown
//! of it (ids, names, cookies). Both are kept exactly.

use datastore::op::ListingFrom;

use super::prelude::*;
use super::readdir::{Budget, LISTING_BYTES_MAX, put_entry, put_listing};

/// An entry with handle, attributes and a name of typical length.
const ENTRY_BYTES_TYPICAL: usize = 170;
/// The least an entry takes of `dircount`.
const DIR_BYTES_MIN: usize = 24;

/// Arguments.
pub struct Args<'a> {
    dir: &'a [u8],
    cookie: u64,
    most_dir_bytes: usize,
    most_bytes: usize,
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        let (dir, cookie) = (wire::handle_bytes(input)?, input.u64()?);
        let _verifier = input.fixed::<8>()?;
        let most_dir_bytes = input.u32()? as usize;
        Ok(Args { dir, cookie, most_dir_bytes, most_bytes: (input.u32()? as usize).min(LISTING_BYTES_MAX) })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let limit = (args.most_bytes / ENTRY_BYTES_TYPICAL).min(args.most_dir_bytes / DIR_BYTES_MIN) + 1;
    let done = match call.handle(args.dir) {
        Ok(dir) => call.fs.readdirplus(call.caller, &dir, ListingFrom { cookie: args.cookie, limit }).await,
        Err(refused) => Err(refused),
    };

    let out = &mut reply.head;
    match done {
        Ok(listing) => {
            let budget = Budget::start(out, args.most_bytes);
            let mut dir_bytes = 0;
            put_listing(out, &listing, |out, entry| {
                let before = out.len();
                put_entry(out, entry);
                dir_bytes += out.len() - before - 4;
                wire::put_post_attr(out, entry.plus.as_ref().map(|(_, attr)| attr));
                wire::put_post_handle(out, entry.plus.as_ref().map(|(handle, _)| handle));
                budget.keep_if(out, before, dir_bytes <= args.most_dir_bytes)
            });
        }
        Err(refused) => put_refused_attr(out, refused),
    }
}

//! READDIR (RFC 1813 3.3.16).
//!
//! `count` bounds the encoded result from the status on, headers and end marks included;
//! an entry that would cross it is left for the next call. Any verifier is accepted, since
//! cookies never become invalid.

use datastore::op::{DirEntry, ListingFrom};

use super::prelude::*;

/// Replies are not longer than this, whatever a client allows (`faults.md` D.3).
pub(super) const LISTING_BYTES_MAX: usize = 64 << 10;
/// Bytes after the last entry: no more entries, and end of directory or not.
pub(super) const END_BYTES: usize = 8;
/// An entry with a name of typical length, for guessing how many to ask for.
const ENTRY_BYTES_TYPICAL: usize = 40;

/// Arguments.
pub struct Args<'a> {
    dir: &'a [u8],
    cookie: u64,
    most_bytes: usize,
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        let (dir, cookie) = (wire::handle_bytes(input)?, input.u64()?);
        let _verifier = input.fixed::<8>()?;
        Ok(Args { dir, cookie, most_bytes: (input.u32()? as usize).min(LISTING_BYTES_MAX) })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let from = ListingFrom { cookie: args.cookie, limit: args.most_bytes / ENTRY_BYTES_TYPICAL + 1 };
    let done = match call.handle(args.dir) {
        Ok(dir) => call.fs.readdir(call.caller, &dir, from).await,
        Err(refused) => Err(refused),
    };

    let out = &mut reply.head;
    match done {
        Ok(listing) => {
            let budget = Budget::start(out, args.most_bytes);
            put_listing(out, &listing, |out, entry| {
                let before = out.len();
                put_entry(out, entry);
                budget.keep_if(out, before, true)
            });
        }
        Err(refused) => put_refused_attr(out, refused),
    }
}

/// Where a listing started and where it must end.
pub(super) struct Budget {
    end: usize,
}

impl Budget {
    /// `most_bytes` from here on, with the end marks.
    pub(super) fn start(out: &Encoder, most_bytes: usize) -> Budget {
        Budget { end: (out.len() + most_bytes).saturating_sub(END_BYTES) }
    }

    /// Keeps what was written since `before` if it fits; says whether it did.
    pub(super) fn keep_if(&self, out: &mut Encoder, before: usize, also: bool) -> bool {
        let fits = also && out.len() <= self.end;
        if !fits {
            out.truncate(before);
        }
        fits
    }
}

/// Writes the result of READDIR or READDIRPLUS; `put` writes an entry if it fits. If not
/// even the first one does, the client has to allow more.
pub(super) fn put_listing(
    out: &mut Encoder,
    listing: &datastore::op::Listing,
    mut put: impl FnMut(&mut Encoder, &DirEntry) -> bool,
) {
    let start = out.len();
    out.u32(NFS3_OK);
    wire::put_post_attr(out, Some(&listing.dir));
    out.fixed(&listing.verifier);
    let kept = listing.entries.iter().take_while(|entry| put(out, entry)).count();
    if kept == 0 && !listing.entries.is_empty() {
        out.truncate(start);
        out.u32(TOO_SMALL);
        wire::put_post_attr(out, Some(&listing.dir));
        return;
    }
    out.bool(false);
    out.bool(listing.eof && kept == listing.entries.len());
}

/// Writes the part of an entry that both procedures have.
pub(super) fn put_entry(out: &mut Encoder, entry: &DirEntry) {
    out.bool(true);
    out.u64(entry.file.0);
    out.opaque(&entry.name);
    out.u64(entry.cookie);
}

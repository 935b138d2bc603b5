//! NFS version 3 (RFC 1813): one file per procedure, each with the same three paragraphs:
//! read the arguments, call the datastore, write the result.
//!
//! What is shared: [`wire`] (types as bytes), [`status`] (refusals as numbers), and here
//! the dispatch and the four shapes of result that several procedures have.

pub mod access;
pub mod commit;
pub mod create;
pub mod fsinfo;
pub mod fsstat;
pub mod getattr;
pub mod link;
pub mod lookup;
pub mod mkdir;
pub mod mknod;
pub mod pathconf;
pub mod read;
pub mod readdir;
pub mod readdirplus;
pub mod readlink;
pub mod remove;
pub mod rename;
pub mod rmdir;
pub mod setattr;
pub mod status;
pub mod symlink;
pub mod wire;
pub mod write;

use base::Buf;
use datastore::Store;
use datastore::op::Created;
use datastore::{Attr, Caller, Filesystem, Handle, Outcome, Refused, ReplyNote, Wcc};

use crate::drc::{Key, REPLY_BYTES_MAX};
use crate::record::Reply;
use crate::rpc::{SUCCESS_BYTES, Unserved};
use crate::server::Parsing;
use crate::xdr::{Decoder, Encoder, Malformed};
use status::{NFS3_OK, nfsstat3};

mod prelude {
    pub(super) use base::Buf;
    pub(super) use datastore::op::Place;
    pub(super) use datastore::{Outcome, Wcc};
    pub(super) use datastore::{Store, WRITE_BYTES_MAX};

    pub(super) use super::status::{NFS3_OK, TOO_SMALL, nfsstat3};
    pub(super) use super::{
        PlaceArgs, Procedure, put_changed, put_created, put_outcome, put_refused_attr, put_refused_wcc, wire,
    };
    pub(super) use crate::record::Reply;
    pub(super) use crate::xdr::{Decoder, Encoder, Malformed};
}

/// Program number of NFS.
pub const PROGRAM: u32 = 100_003;
/// Version served.
pub const VERSION: u32 = 3;
/// Number of procedures, NULL included.
pub const PROCEDURES: u32 = 22;

/// Procedures that change something: they pass the duplicate-request cache.
pub fn is_change(procedure: u32) -> bool {
    matches!(procedure, 2 | 7..=15)
}

// The longest answers of changes, CREATE's and RENAME's, fit a slot of the duplicate-request
// cache.
const _: () = {
    let handle = 4 + 4 + datastore::HANDLE_BYTES.next_multiple_of(4);
    let created = 4 + handle + 4 + wire::ATTR_BYTES + wire::WCC_BYTES_MAX;
    let renamed = 4 + 2 * wire::WCC_BYTES_MAX;
    assert!(SUCCESS_BYTES + created <= REPLY_BYTES_MAX && SUCCESS_BYTES + renamed <= REPLY_BYTES_MAX);
};

/// What a procedure works with.
pub(crate) struct Procedure<'a, S> {
    pub(crate) fs: &'a Filesystem<S>,
    pub(crate) caller: &'a Caller,
    pub(crate) parsing: &'a Parsing,
    /// The record that the arguments lie in.
    pub(crate) record: &'a Buf,
    /// Under which an answer is journaled.
    pub(crate) key: Option<Key>,
}

impl<S: Store> Procedure<'_, S> {
    fn handle<W: Default>(&self, bytes: &[u8]) -> Result<Handle, Refused<W>> {
        self.fs.handle(bytes).map_err(|why| Refused { why, wcc: W::default() })
    }

    /// Has the answer journaled with the change.
    fn note(&self, put: fn(&mut Encoder, &Outcome<'_>)) -> Option<ReplyNote> {
        let key = self.key.as_ref()?.encode();
        let encode = Box::new(move |outcome: &Outcome<'_>| {
            let mut out = Encoder::default();
            put(&mut out, outcome);
            out.into_bytes()
        });
        Some(ReplyNote { key, encode })
    }
}

macro_rules! run {
    ($module:ident, $call:expr, $input:expr, $reply:expr) => {{
        let args = $call.parsing.during(|| $module::Args::decode($input))?;
        $module::serve($call, args, $reply).await
    }};
}

/// The procedures of a hypervisor's day are run in place; for the others the future is
/// boxed, so that the one for all of them stays small.
macro_rules! run_boxed {
    ($module:ident, $call:expr, $input:expr, $reply:expr) => {{
        let args = $call.parsing.during(|| $module::Args::decode($input))?;
        Box::pin($module::serve($call, args, $reply)).await
    }};
}

/// Serves a call of [`PROGRAM`], appending the result to `reply`.
pub(crate) async fn serve<S: Store>(
    call: &Procedure<'_, S>,
    procedure: u32,
    input: &mut Decoder<'_>,
    reply: &mut Reply,
) -> Result<(), Unserved> {
    match procedure {
        0 => {}
        1 => run!(getattr, call, input, reply),
        2 => run_boxed!(setattr, call, input, reply),
        3 => run_boxed!(lookup, call, input, reply),
        4 => run!(access, call, input, reply),
        5 => run_boxed!(readlink, call, input, reply),
        6 => run!(read, call, input, reply),
        7 => run!(write, call, input, reply),
        8 => run_boxed!(create, call, input, reply),
        9 => run_boxed!(mkdir, call, input, reply),
        10 => run_boxed!(symlink, call, input, reply),
        11 => run_boxed!(mknod, call, input, reply),
        12 => run_boxed!(remove, call, input, reply),
        13 => run_boxed!(rmdir, call, input, reply),
        14 => run_boxed!(rename, call, input, reply),
        15 => run_boxed!(link, call, input, reply),
        16 => run_boxed!(readdir, call, input, reply),
        17 => run_boxed!(readdirplus, call, input, reply),
        18 => run_boxed!(fsstat, call, input, reply),
        19 => run_boxed!(fsinfo, call, input, reply),
        20 => run_boxed!(pathconf, call, input, reply),
        21 => run!(commit, call, input, reply),
        _ => return Err(Unserved::ProcedureUnavailable),
    }
    Ok(())
}

/// Reads the arguments of any procedure and forgets them: the door for fuzzing.
pub fn decode_arguments(procedure: u32, input: &mut Decoder<'_>) -> Result<(), Malformed> {
    match procedure {
        1 => getattr::Args::decode(input).map(drop),
        2 => setattr::Args::decode(input).map(drop),
        3 => lookup::Args::decode(input).map(drop),
        4 => access::Args::decode(input).map(drop),
        5 => readlink::Args::decode(input).map(drop),
        6 => read::Args::decode(input).map(drop),
        7 => write::Args::decode(input).map(drop),
        8 => create::Args::decode(input).map(drop),
        9 => mkdir::Args::decode(input).map(drop),
        10 => symlink::Args::decode(input).map(drop),
        11 => mknod::Args::decode(input).map(drop),
        12 => remove::Args::decode(input).map(drop),
        13 => rmdir::Args::decode(input).map(drop),
        14 => rename::Args::decode(input).map(drop),
        15 => link::Args::decode(input).map(drop),
        16 => readdir::Args::decode(input).map(drop),
        17 => readdirplus::Args::decode(input).map(drop),
        18 => fsstat::Args::decode(input).map(drop),
        19 => fsinfo::Args::decode(input).map(drop),
        20 => pathconf::Args::decode(input).map(drop),
        21 => commit::Args::decode(input).map(drop),
        _ => Ok(()),
    }
}

/// `diropargs3`.
pub(crate) struct PlaceArgs<'a> {
    dir: &'a [u8],
    name: &'a [u8],
}

impl<'a> PlaceArgs<'a> {
    fn decode(input: &mut Decoder<'a>) -> Result<PlaceArgs<'a>, Malformed> {
        Ok(PlaceArgs { dir: wire::handle_bytes(input)?, name: wire::name(input)? })
    }
}

/// The whole successful result of a change. The journaled answer and the one sent at once
/// both come from here, so they are the same bytes.
fn put_outcome(out: &mut Encoder, outcome: &Outcome<'_>) {
    out.u32(NFS3_OK);
    match outcome {
        Outcome::Changed(wcc) => wire::put_wcc(out, wcc),
        Outcome::Created(created) => {
            wire::put_post_handle(out, Some(&created.handle));
            wire::put_post_attr(out, Some(&created.attr));
            wire::put_wcc(out, &created.dir);
        }
        Outcome::Renamed(renamed) => {
            wire::put_wcc(out, &renamed.from);
            wire::put_wcc(out, &renamed.to);
        }
        Outcome::Linked(linked) => {
            wire::put_post_attr(out, linked.file.as_ref());
            wire::put_wcc(out, &linked.dir);
        }
    }
}

/// Result of CREATE, MKDIR, SYMLINK, MKNOD.
fn put_created(out: &mut Encoder, done: Result<Created, Refused<Wcc>>) {
    match done {
        Ok(created) => put_outcome(out, &Outcome::Created(&created)),
        Err(refused) => put_refused_wcc(out, refused),
    }
}

/// Result of SETATTR, REMOVE, RMDIR.
fn put_changed(out: &mut Encoder, done: Result<Wcc, Refused<Wcc>>) {
    match done {
        Ok(wcc) => put_outcome(out, &Outcome::Changed(&wcc)),
        Err(refused) => put_refused_wcc(out, refused),
    }
}

fn put_refused_attr(out: &mut Encoder, refused: Refused<Option<Attr>>) {
    out.u32(nfsstat3(refused.why));
    wire::put_post_attr(out, refused.wcc.as_ref());
}

fn put_refused_wcc(out: &mut Encoder, refused: Refused<Wcc>) {
    out.u32(nfsstat3(refused.why));
    wire::put_wcc(out, &refused.wcc);
}

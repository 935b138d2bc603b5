//! LOOKUP (RFC 1813 3.3.3).

use super::prelude::*;

/// Arguments.
pub struct Args<'a> {
    place: PlaceArgs<'a>,
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        Ok(Args { place: PlaceArgs::decode(input)? })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match call.handle(args.place.dir) {
        Ok(dir) => call.fs.lookup(call.caller, Place { dir: &dir, name: args.place.name }).await,
        Err(refused) => Err(refused),
    };

    let out = &mut reply.head;
    match done {
        Ok(found) => {
            out.u32(NFS3_OK);
            wire::put_handle(out, &found.handle);
            wire::put_post_attr(out, Some(&found.attr));
            wire::put_post_attr(out, found.dir.as_ref());
        }
        Err(refused) => put_refused_attr(out, refused),
    }
}

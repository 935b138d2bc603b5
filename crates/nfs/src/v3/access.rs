//! ACCESS (RFC 1813 3.3.4).

use datastore::op::Access;

use super::prelude::*;

/// Arguments.
pub struct Args<'a> {
    file: &'a [u8],
    wanted: Access,
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        Ok(Args { file: wire::handle_bytes(input)?, wanted: Access(input.u32()?) })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match call.handle(args.file) {
        Ok(file) => call.fs.access(call.caller, &file, args.wanted).await,
        Err(refused) => Err(refused),
    };

    let out = &mut reply.head;
    match done {
        Ok(allowed) => {
            out.u32(NFS3_OK);
            wire::put_post_attr(out, Some(&allowed.attr));
            out.u32(allowed.access.0);
        }
        Err(refused) => put_refused_attr(out, refused),
    }
}

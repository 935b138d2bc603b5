//! READLINK (RFC 1813 3.3.5).

use super::prelude::*;

/// Arguments.
pub struct Args<'a> {
    link: &'a [u8],
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        Ok(Args { link: wire::handle_bytes(input)? })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match call.handle(args.link) {
        Ok(link) => call.fs.readlink(call.caller, &link).await,
        Err(refused) => Err(refused),
    };

    let out = &mut reply.head;
    match done {
        Ok(link) => {
            out.u32(NFS3_OK);
            wire::put_post_attr(out, Some(&link.attr));
            out.opaque(&link.text);
        }
        Err(refused) => put_refused_attr(out, refused),
    }
}

//! GETATTR (RFC 1813 3.3.1).

use super::prelude::*;

/// Arguments.
pub struct Args<'a> {
    file: &'a [u8],
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        Ok(Args { file: wire::handle_bytes(input)? })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match call.handle(args.file) {
        Ok(file) => call.fs.getattr(call.caller, &file).await,
        Err(refused) => Err(refused),
    };

    let out = &mut reply.head;
    match done {
        Ok(attr) => {
            out.u32(NFS3_OK);
            wire::put_attr(out, &attr);
        }
        Err(refused) => out.u32(nfsstat3(refused.why)),
    }
}

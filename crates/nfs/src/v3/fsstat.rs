//! FSSTAT (RFC 1813 3.3.18).

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
        Ok(file) => call.fs.fsstat(call.caller, &file).await,
        Err(refused) => Err(refused),
    };

    let out = &mut reply.head;
    match done {
        Ok(stat) => {
            out.u32(NFS3_OK);
            wire::put_post_attr(out, Some(&stat.attr));
            [stat.total_bytes, stat.free_bytes, stat.available_bytes].into_iter().for_each(|bytes| out.u64(bytes));
            [stat.total_files, stat.free_files, stat.available_files].into_iter().for_each(|files| out.u64(files));
            out.u32(stat.invariant_s);
        }
        Err(refused) => put_refused_attr(out, refused),
    }
}

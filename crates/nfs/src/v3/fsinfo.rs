//! FSINFO (RFC 1813 3.3.19).

use super::prelude::*;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

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
        Ok(file) => call.fs.fsinfo(call.caller, &file).await,
        Err(refused) => Err(refused),
    };

    let out = &mut reply.head;
    match done {
        Ok(info) => {
            out.u32(NFS3_OK);
            wire::put_post_attr(out, Some(&info.attr));
            let read = [info.read_bytes_max, info.read_bytes_preferred, info.read_bytes_multiple];
            let write = [info.write_bytes_max, info.write_bytes_preferred, info.write_bytes_multiple];
            read.into_iter().chain(write).for_each(|bytes| out.u32(bytes));
            out.u32(info.readdir_bytes_preferred);
            out.u64(info.file_bytes_max);
            out.u32((info.time_delta_ns / NANOS_PER_SECOND) as u32);
            out.u32((info.time_delta_ns % NANOS_PER_SECOND) as u32);
            out.u32(info.properties);
        }
        Err(refused) => put_refused_attr(out, refused),
    }
}

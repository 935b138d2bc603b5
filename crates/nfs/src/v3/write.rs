//! WRITE (RFC 1813 3.3.7). The data are passed on as a handle on the receive buffer. Every
//! answer says `FILE_SYNC`, whatever was asked for: the write is stable by then.

use super::prelude::*;

const FILE_SYNC: u32 = 2;

/// Arguments.
pub struct Args<'a> {
    file: &'a [u8],
    offset_bytes: u64,
    data: &'a [u8],
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        let (file, offset_bytes) = (wire::handle_bytes(input)?, input.u64()?);
        let (count, stable) = (input.u32()? as usize, input.u32()?);
        if stable > FILE_SYNC {
            return Err(Malformed::BadValue);
        }
        let data = input.opaque(WRITE_BYTES_MAX)?;
        Ok(Args { file, offset_bytes, data: data.get(..count).ok_or(Malformed::Short)? })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match call.handle(args.file) {
        Ok(file) => call.fs.write_buf(call.caller, &file, args.offset_bytes, &call.record.slice_ref(args.data)).await,
        Err(refused) => Err(refused),
    };

    let out = &mut reply.head;
    match done {
        Ok(written) => {
            out.u32(NFS3_OK);
            wire::put_wcc(out, &written.wcc);
            out.count(written.len_bytes);
            out.u32(FILE_SYNC);
            out.fixed(&call.fs.write_verifier());
        }
        Err(refused) => put_refused_wcc(out, refused),
    }
}

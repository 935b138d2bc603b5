//! COMMIT (RFC 1813 3.3.21): nothing is left to do, every write was stable when answered.

use super::prelude::*;

/// Arguments. The range does not matter.
pub struct Args<'a> {
    file: &'a [u8],
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        let args = Args { file: wire::handle_bytes(input)? };
        input.u64()?;
        input.u32()?;
        Ok(args)
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match call.handle(args.file) {
        Ok(file) => call.fs.commit(call.caller, &file).await,
        Err(refused) => Err(refused),
    };

    let out = &mut reply.head;
    match done {
        Ok(committed) => {
            out.u32(NFS3_OK);
            wire::put_wcc(out, &committed.wcc);
            out.fixed(&committed.verifier);
        }
        Err(refused) => put_refused_wcc(out, refused),
    }
}

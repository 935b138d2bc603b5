//! PATHCONF (RFC 1813 3.3.20).

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
        Ok(file) => call.fs.pathconf(call.caller, &file).await,
        Err(refused) => Err(refused),
    };

    let out = &mut reply.head;
    match done {
        Ok(conf) => {
            out.u32(NFS3_OK);
            wire::put_post_attr(out, Some(&conf.attr));
            out.words(&[conf.link_max, conf.name_bytes_max]);
            let answers = [conf.no_trunc, conf.chown_restricted, conf.case_insensitive, conf.case_preserving];
            answers.into_iter().for_each(|answer| out.bool(answer));
        }
        Err(refused) => put_refused_attr(out, refused),
    }
}

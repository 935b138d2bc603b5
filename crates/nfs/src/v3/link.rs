//! LINK (RFC 1813 3.3.15).

use super::prelude::*;

/// Arguments.
pub struct Args<'a> {
    file: &'a [u8],
    to: PlaceArgs<'a>,
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        Ok(Args { file: wire::handle_bytes(input)?, to: PlaceArgs::decode(input)? })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match (call.handle(args.file), call.handle(args.to.dir)) {
        (Ok(file), Ok(dir)) => {
            let to = Place { dir: &dir, name: args.to.name };
            call.fs.link(call.caller, &file, to, call.note(put_outcome)).await
        }
        (Err(refused), _) | (_, Err(refused)) => Err(refused),
    };

    match done {
        Ok(linked) => put_outcome(&mut reply.head, &Outcome::Linked(&linked)),
        Err(refused) => {
            reply.head.u32(nfsstat3(refused.why));
            wire::put_post_attr(&mut reply.head, refused.wcc.file.as_ref());
            wire::put_wcc(&mut reply.head, &refused.wcc.dir);
        }
    }
}

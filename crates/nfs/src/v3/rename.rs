//! RENAME (RFC 1813 3.3.14).

use super::prelude::*;

/// Arguments.
pub struct Args<'a> {
    from: PlaceArgs<'a>,
    to: PlaceArgs<'a>,
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        Ok(Args { from: PlaceArgs::decode(input)?, to: PlaceArgs::decode(input)? })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match (call.handle(args.from.dir), call.handle(args.to.dir)) {
        (Ok(from), Ok(to)) => {
            let from = Place { dir: &from, name: args.from.name };
            let to = Place { dir: &to, name: args.to.name };
            call.fs.rename(call.caller, from, to, call.note(put_outcome)).await
        }
        (Err(refused), _) | (_, Err(refused)) => Err(refused),
    };

    match done {
        Ok(renamed) => put_outcome(&mut reply.head, &Outcome::Renamed(&renamed)),
        Err(refused) => {
            reply.head.u32(nfsstat3(refused.why));
            wire::put_wcc(&mut reply.head, &refused.wcc.from);
            wire::put_wcc(&mut reply.head, &refused.wcc.to);
        }
    }
}

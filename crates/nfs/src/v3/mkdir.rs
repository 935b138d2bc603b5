//! MKDIR (RFC 1813 3.3.9).

use datastore::SetAttr;

use super::prelude::*;

/// Arguments.
pub struct Args<'a> {
    place: PlaceArgs<'a>,
    set: SetAttr,
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        Ok(Args { place: PlaceArgs::decode(input)?, set: wire::set_attr(input)? })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match call.handle(args.place.dir) {
        Ok(dir) => {
            let place = Place { dir: &dir, name: args.place.name };
            call.fs.mkdir(call.caller, place, args.set, call.note(put_outcome)).await
        }
        Err(refused) => Err(refused),
    };

    put_created(&mut reply.head, done);
}

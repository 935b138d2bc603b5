//! REMOVE (RFC 1813 3.3.12).

use super::prelude::*;

/// Arguments.
pub struct Args<'a> {
    place: PlaceArgs<'a>,
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        Ok(Args { place: PlaceArgs::decode(input)? })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match call.handle(args.place.dir) {
        Ok(dir) => {
            let place = Place { dir: &dir, name: args.place.name };
            call.fs.remove(call.caller, place, call.note(put_outcome)).await
        }
        Err(refused) => Err(refused),
    };

    put_changed(&mut reply.head, done);
}

//! CREATE (RFC 1813 3.3.8).

use datastore::op::CreateHow;

use super::prelude::*;

/// Arguments.
pub struct Args<'a> {
    place: PlaceArgs<'a>,
    how: CreateHow,
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        let place = PlaceArgs::decode(input)?;
        let how = match input.u32()? {
            0 => CreateHow::Unchecked(wire::set_attr(input)?),
            1 => CreateHow::Guarded(wire::set_attr(input)?),
            2 => CreateHow::Exclusive(*input.fixed()?),
            _ => return Err(Malformed::BadValue),
        };
        Ok(Args { place, how })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match call.handle(args.place.dir) {
        Ok(dir) => {
            let place = Place { dir: &dir, name: args.place.name };
            call.fs.create(call.caller, place, args.how, call.note(put_outcome)).await
        }
        Err(refused) => Err(refused),
    };

    put_created(&mut reply.head, done);
}

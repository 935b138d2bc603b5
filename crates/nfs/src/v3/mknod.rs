//! MKNOD (RFC 1813 3.3.11).

use datastore::op::{NewNode, NodeKind};
use datastore::{Refusal, Refused};

use super::prelude::*;

/// Arguments. `new` is `None` for kinds that MKNOD does not make.
pub struct Args<'a> {
    place: PlaceArgs<'a>,
    new: Option<NewNode>,
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        let place = PlaceArgs::decode(input)?;
        let kind = input.u32()?;
        let new = match kind {
            3 | 4 => {
                let set = wire::set_attr(input)?;
                let (major, minor) = (input.u32()?, input.u32()?);
                let make = if kind == 3 { NodeKind::BlockDevice } else { NodeKind::CharDevice };
                Some(NewNode { kind: make(major, minor), set })
            }
            6 => Some(NewNode { kind: NodeKind::Socket, set: wire::set_attr(input)? }),
            7 => Some(NewNode { kind: NodeKind::Fifo, set: wire::set_attr(input)? }),
            _ => None,
        };
        Ok(Args { place, new })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match (call.handle(args.place.dir), args.new) {
        (Ok(dir), Some(new)) => {
            let place = Place { dir: &dir, name: args.place.name };
            call.fs.mknod(call.caller, place, new, call.note(put_outcome)).await
        }
        (Ok(_), None) => Err(Refused { why: Refusal::BadType, wcc: Wcc::default() }),
        (Err(refused), _) => Err(refused),
    };

    put_created(&mut reply.head, done);
}

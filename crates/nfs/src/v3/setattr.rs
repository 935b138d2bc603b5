//! SETATTR (RFC 1813 3.3.2).

use datastore::op::SetAttrArgs;

use super::prelude::*;

/// Arguments.
pub struct Args<'a> {
    file: &'a [u8],
    how: SetAttrArgs,
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        let file = wire::handle_bytes(input)?;
        let set = wire::set_attr(input)?;
        let guard = if input.bool()? { Some(wire::time(input)?) } else { None };
        Ok(Args { file, how: SetAttrArgs { set, guard } })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match call.handle(args.file) {
        Ok(file) => call.fs.setattr(call.caller, &file, args.how, call.note(put_outcome)).await,
        Err(refused) => Err(refused),
    };

    put_changed(&mut reply.head, done);
}

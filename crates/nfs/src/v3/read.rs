//! READ (RFC 1813 3.3.6). The data leave by handle, uncopied; holes leave from one run of
//! zeros.

use datastore::Piece;

use super::prelude::*;

/// Arguments.
pub struct Args<'a> {
    file: &'a [u8],
    offset_bytes: u64,
    len_bytes: u32,
}

impl<'a> Args<'a> {
    /// Reads the arguments.
    pub fn decode(input: &mut Decoder<'a>) -> Result<Args<'a>, Malformed> {
        Ok(Args { file: wire::handle_bytes(input)?, offset_bytes: input.u64()?, len_bytes: input.u32()? })
    }
}

pub(super) async fn serve<S: Store>(call: &Procedure<'_, S>, args: Args<'_>, reply: &mut Reply) {
    let done = match call.handle(args.file) {
        Ok(file) => call.fs.read(call.caller, &file, args.offset_bytes, args.len_bytes as usize).await,
        Err(refused) => Err(refused),
    };

    let out = &mut reply.head;
    match done {
        Ok(read) => {
            out.u32(NFS3_OK);
            wire::put_post_attr(out, read.attr.as_ref());
            out.count(read.len_bytes);
            out.bool(read.eof);
            out.count(read.len_bytes);
            read.pieces.into_iter().for_each(|piece| put_piece(reply, piece));
        }
        Err(refused) => put_refused_attr(out, refused),
    }
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

fn put_piece(reply: &mut Reply, piece: Piece) {
    match piece {
        Piece::Data(data) => reply.payload.push(data),
        Piece::Zeros(mut len) => {
            while len > 0 {
                let step = len.min(ZEROS.len());
                reply.payload.push(Buf::from_static(&ZEROS[..step]));
                len -= step;
            }
        }
    }
}

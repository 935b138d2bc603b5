//! ONC RPC version 2 (RFC 5531): call headers with AUTH_SYS, reply headers, and the
//! record marking of TCP (section 11).
//!
//! ```text
//!  record mark (last fragment, length) | xid CALL 2 program version procedure cred verf | args
//!  record mark                         | xid REPLY accepted verf accept_stat           | results
//! ```

use crate::xdr::{Decoder, Encoder, Malformed};

/// Flag of the last fragment of a record.
pub const LAST_FRAGMENT: u32 = 0x8000_0000;
/// Largest reply record taken from a server: 1 MiB of data plus generous attributes.
pub const REPLY_BYTES_MAX: usize = 4 << 20;

/// Program and version of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Program number.
    pub number: u32,
    /// Version of it.
    pub version: u32,
}

/// NFS version 3 (RFC 1813).
pub const NFS3: Program = Program { number: 100_003, version: 3 };
/// MOUNT version 3 (RFC 1813 appendix I).
pub const MOUNT3: Program = Program { number: 100_005, version: 3 };
/// Port mapper version 2 (RFC 1833).
pub const PORTMAP2: Program = Program { number: 100_000, version: 2 };

/// Why the RPC layer has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The connection is gone and riding it out was not asked for (or took too long).
    #[error("connection to the server lost")]
    Disconnected,
    /// MSG_DENIED: RPC version or credentials refused; carries `reject_stat`.
    #[error("server denied the call (reject_stat {0})")]
    Denied(u32),
    /// Accepted but not executed: carries `accept_stat` (1 program unavailable,
    /// 2 version mismatch, 3 procedure unavailable, 4 garbage arguments, 5 system error).
    #[error("server did not execute the call (accept_stat {0})")]
    NotExecuted(u32),
    /// The reply does not decode.
    #[error("server sent a {0}")]
    Malformed(#[from] Malformed),
}

/// Who the calls say they come from: AUTH_SYS, uid 0, gid 0, no further groups.
#[derive(Clone, Debug)]
pub struct Credential {
    encoded: Vec<u8>,
}

impl Credential {
    /// AUTH_SYS of root at `machine` (at most 255 bytes are used).
    pub fn root_at(machine: &str) -> Self {
        let name = &machine.as_bytes()[..machine.len().min(255)];
        let mut body = Vec::new();
        let mut encoder = Encoder::new(&mut body);
        encoder.u32(0);
        encoder.opaque(name);
        encoder.u32(0);
        encoder.u32(0);
        encoder.u32(0);
        let mut encoded = Vec::new();
        let mut encoder = Encoder::new(&mut encoded);
        encoder.u32(1);
        encoder.opaque(&body);
        encoder.u32(0);
        encoder.u32(0);
        Credential { encoded }
    }
}

/// Writes one call record into `out` (cleared first): mark, header, arguments.
pub fn encode_call(
    out: &mut Vec<u8>,
    xid: u32,
    (program, procedure): (Program, u32),
    credential: &Credential,
    arguments: impl FnOnce(&mut Encoder<'_>),
) {
    out.clear();
    let mut encoder = Encoder::new(out);
    for word in [0, xid, 0, 2, program.number, program.version, procedure] {
        encoder.u32(word);
    }
    encoder.fixed(&credential.encoded);
    arguments(&mut encoder);
    let length = u32::try_from(out.len() - 4).expect("requests stay far below 4 GiB");
    out[..4].copy_from_slice(&(LAST_FRAGMENT | length).to_be_bytes());
}

/// The xid of a reply record, without looking further.
pub fn reply_xid(record: &[u8]) -> Result<u32, Malformed> {
    Decoder::new(record).u32()
}

/// Position of the results in a reply record.
pub fn results_offset(record: &[u8]) -> Result<usize, RpcError> {
    let mut decoder = Decoder::new(record);
    decoder.u32()?;
    if decoder.u32()? != 1 {
        return Err(Malformed("reply that is a call").into());
    }
    if decoder.u32()? != 0 {
        return Err(RpcError::Denied(decoder.u32()?));
    }
    decoder.u32()?;
    decoder.opaque(400)?;
    match decoder.u32()? {
        0 => Ok(record.len() - decoder.rest().len()),
        refused => Err(RpcError::NotExecuted(refused)),
    }
}

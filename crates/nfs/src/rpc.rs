//! ONC RPC version 2 (RFC 5531): calls, replies and credentials.
//!
//! What a server must tell apart: a record it cannot even answer (the connection ends),
//! a call it can answer with a refusal, and a call it can serve. [`Call::decode`] sorts
//! records into these three; the encoders below write the replies. Record marking is in
//! [`record`](crate::record).

use smallvec::SmallVec;

use crate::xdr::{Decoder, Encoder, Malformed};

/// RPC version that is spoken.
const RPC_VERSION: u32 = 2;
const CALL: u32 = 0;
const REPLY: u32 = 1;
const AUTH_NONE: u32 = 0;
const AUTH_SYS: u32 = 1;
/// Longest credential or verifier body (RFC 5531 section 8.2).
const AUTH_BYTES_MAX: usize = 400;
/// Longest machine name in AUTH_SYS (RFC 5531 appendix A).
pub const MACHINE_BYTES_MAX: usize = 255;
/// Most supplementary groups in AUTH_SYS.
pub const GIDS_MAX: usize = 16;

/// Who calls, by their own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// Nobody in particular.
    None,
    /// AUTH_SYS.
    Sys(AuthSys<'a>),
}

/// The body of an AUTH_SYS credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSys<'a> {
    /// The caller's host name.
    pub machine: &'a [u8],
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub gids: SmallVec<[u32; GIDS_MAX]>,
}

impl<'a> AuthSys<'a> {
    fn decode(body: &'a [u8]) -> Result<AuthSys<'a>, Malformed> {
        let mut input = Decoder::new(body);
        let _stamp = input.u32()?;
        let machine = input.opaque(MACHINE_BYTES_MAX)?;
        let (uid, gid) = (input.u32()?, input.u32()?);
        let count = input.u32()? as usize;
        if count > GIDS_MAX {
            return Err(Malformed::TooLong);
        }
        let gids = (0..count).map(|_| input.u32()).collect::<Result<_, _>>()?;
        Ok(AuthSys { machine, uid, gid, gids })
    }
}

/// A call's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// Transaction id, echoed in the reply.
    pub xid: u32,
    /// Program number.
    pub program: u32,
    /// Version of the program.
    pub version: u32,
    /// Procedure number.
    pub procedure: u32,
    /// Who calls.
    pub credential: Credential<'a>,
}

/// Why a record is not a call that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// Not a call at all, or cut short: there is nothing to answer. The peer broke the
    /// protocol; the connection ends.
    #[error("not an RPC call")]
    NotACall,
    /// A call that is refused as a whole.
    #[error("call {xid:#x} is denied: {why:?}")]
    Denied {
        /// Of the call.
        xid: u32,
        /// What to answer.
        why: Denial,
    },
}

/// `rejected_reply` of RFC 5531.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// RPC version other than 2.
    RpcMismatch,
    /// The credential cannot be read, or its flavor is not known.
    BadCredential,
    /// The verifier cannot be read.
    BadVerifier,
    /// A better credential is demanded.
    TooWeak,
}

impl<'a> Call<'a> {
    /// Reads the header of `record`; what is left in the decoder are the arguments.
    pub fn decode(record: &'a [u8]) -> Result<(Call<'a>, Decoder<'a>), NotServed> {
        let mut input = Decoder::new(record);
        let short = |_: Malformed| NotServed::NotACall;
        let xid = input.u32().map_err(short)?;
        if input.u32().map_err(short)? != CALL {
            return Err(NotServed::NotACall);
        }
        let denied = |why| NotServed::Denied { xid, why };
        if input.u32().map_err(short)? != RPC_VERSION {
            return Err(denied(Denial::RpcMismatch));
        }
        let program = input.u32().map_err(short)?;
        let version = input.u32().map_err(short)?;
        let procedure = input.u32().map_err(short)?;
        let credential = Self::credential(&mut input).map_err(|_| denied(Denial::BadCredential))?;
        let _flavor = input.u32().map_err(|_| denied(Denial::BadVerifier))?;
        input.opaque(AUTH_BYTES_MAX).map_err(|_| denied(Denial::BadVerifier))?;
        Ok((Call { xid, program, version, procedure, credential }, input))
    }

    fn credential(input: &mut Decoder<'a>) -> Result<Credential<'a>, Malformed> {
        let flavor = input.u32()?;
        let body = input.opaque(AUTH_BYTES_MAX)?;
        match flavor {
            AUTH_NONE => Ok(Credential::None),
            AUTH_SYS => AuthSys::decode(body).map(Credential::Sys),
            _ => Err(Malformed::BadValue),
        }
    }

    /// Writes this call's header; the arguments follow. For calls this server makes
    /// itself, to a local rpcbind.
    pub fn encode(&self, out: &mut Encoder) {
        out.words(&[self.xid, CALL, RPC_VERSION, self.program, self.version, self.procedure]);
        match &self.credential {
            Credential::None => out.words(&[AUTH_NONE, 0]),
            Credential::Sys(sys) => {
                let mut body = Encoder::default();
                body.u32(0);
                body.opaque(sys.machine);
                body.words(&[sys.uid, sys.gid]);
                body.count(sys.gids.len());
                sys.gids.iter().for_each(|&gid| body.u32(gid));
                out.u32(AUTH_SYS);
                out.opaque(body.bytes());
            }
        }
        out.words(&[AUTH_NONE, 0]);
    }
}

/// `accept_stat` of RFC 5531 for calls that are not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// No such program here.
    ProgramUnavailable,
    /// The program has only versions `low` to `high` here.
    ProgramMismatch {
        /// Lowest version there is.
        low: u32,
        /// Highest version there is.
        high: u32,
    },
    /// No such procedure.
    ProcedureUnavailable,
    /// The arguments cannot be read.
    GarbageArguments,
    /// The server cannot do anything at the moment.
    SystemError,
}

impl From<Malformed> for Unserved {
    fn from(_: Malformed) -> Unserved {
        Unserved::GarbageArguments
    }
}

/// Writes the header of a reply to a call that is served; results follow.
pub fn encode_success(out: &mut Encoder, xid: u32) {
    out.words(&[xid, REPLY, 0, AUTH_NONE, 0, 0]);
}

/// Bytes that [`encode_success`] writes.
pub const SUCCESS_BYTES: usize = 24;

/// Writes the whole reply to a call that is accepted but not served.
pub fn encode_unserved(out: &mut Encoder, xid: u32, why: Unserved) {
    out.words(&[xid, REPLY, 0, AUTH_NONE, 0]);
    match why {
        Unserved::ProgramUnavailable => out.u32(1),
        Unserved::ProgramMismatch { low, high } => out.words(&[2, low, high]),
        Unserved::ProcedureUnavailable => out.u32(3),
        Unserved::GarbageArguments => out.u32(4),
        Unserved::SystemError => out.u32(5),
    }
}

/// Writes the whole reply to a call that is denied.
pub fn encode_denied(out: &mut Encoder, xid: u32, why: Denial) {
    out.words(&[xid, REPLY, 1]);
    match why {
        Denial::RpcMismatch => out.words(&[0, RPC_VERSION, RPC_VERSION]),
        Denial::BadCredential => out.words(&[1, 1]),
        Denial::BadVerifier => out.words(&[1, 3]),
        Denial::TooWeak => out.words(&[1, 5]),
    }
}

/// Reads a reply: its xid, and the results if the call was served. For the calls this
/// server makes itself.
pub fn decode_reply(record: &[u8]) -> Result<(u32, Option<Decoder<'_>>), Malformed> {
    let mut input = Decoder::new(record);
    let xid = input.u32()?;
    if input.u32()? != REPLY {
        return Err(Malformed::BadValue);
    }
    if input.u32()? != 0 {
        return Ok((xid, None));
    }
    input.u32()?;
    input.opaque(AUTH_BYTES_MAX)?;
    let served = input.u32()? == 0;
    Ok((xid, served.then_some(input)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    fn call() -> Call<'static> {
        let sys = AuthSys { machine: b"host-a", uid: 7, gid: 8, gids: smallvec![1, 2, 3] };
        Call { xid: 5, program: 100_003, version: 3, procedure: 1, credential: Credential::Sys(sys) }
    }

    #[test]
    fn a_call_round_trips_and_leaves_the_arguments() {
        let mut out = Encoder::default();
        call().encode(&mut out);
        out.u32(99);
        let (decoded, mut arguments) = Call::decode(out.bytes()).unwrap();
        assert_eq!(decoded, call());
        assert_eq!(arguments.u32(), Ok(99));
    }

    #[test]
    fn a_credential_with_too_many_groups_is_refused_without_allocating() {
        let mut out = Encoder::default();
        out.words(&[1, CALL, 2, 100_003, 3, 0, AUTH_SYS, 24, 0, 0, 0, 0, u32::MAX, 0, AUTH_NONE, 0]);
        let denied = NotServed::Denied { xid: 1, why: Denial::BadCredential };
        assert_eq!(Call::decode(out.bytes()), Err(denied));
    }

    #[test]
    fn each_broken_header_has_its_answer() {
        let mut out = Encoder::default();
        call().encode(&mut out);
        let good = out.bytes();
        let with = |at: usize, value: u32| {
            let mut bytes = good.to_vec();
            bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
            Call::decode(&bytes).map(drop)
        };
        let denied = |why| Err(NotServed::Denied { xid: 5, why });
        assert_eq!(with(4, REPLY), Err(NotServed::NotACall));
        assert_eq!(with(8, 3), denied(Denial::RpcMismatch));
        assert_eq!(with(24, 6), denied(Denial::BadCredential), "RPCSEC_GSS");
        assert_eq!(with(28, 401), denied(Denial::BadCredential));
        assert_eq!(with(good.len() - 4, 1), denied(Denial::BadVerifier));
        assert_eq!(Call::decode(&good[..20]).map(drop), Err(NotServed::NotACall));
    }

    #[test]
    fn replies_say_what_rfc_5531_says() {
        let words = |write: &dyn Fn(&mut Encoder)| {
            let mut out = Encoder::default();
            write(&mut out);
            out.bytes().chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect::<Vec<_>>()
        };
        let mismatch = Unserved::ProgramMismatch { low: 3, high: 3 };
        assert_eq!(words(&|out| encode_success(out, 9)), [9, 1, 0, 0, 0, 0]);
        assert_eq!(words(&|out| encode_unserved(out, 9, mismatch)), [9, 1, 0, 0, 0, 2, 3, 3]);
        assert_eq!(words(&|out| encode_unserved(out, 9, Unserved::GarbageArguments)), [9, 1, 0, 0, 0, 4]);
        assert_eq!(words(&|out| encode_denied(out, 9, Denial::RpcMismatch)), [9, 1, 1, 0, 2, 2]);
        assert_eq!(words(&|out| encode_denied(out, 9, Denial::TooWeak)), [9, 1, 1, 1, 5]);
    }
}

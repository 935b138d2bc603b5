//! NSM, the status monitor: program 100024 version 1 (X/Open XNFS chapter 11).
//!
//! What matters here is SM_NOTIFY: a client machine says that it restarted, so the locks
//! it held are nobody's. Since our own locks survive our restarts, we never have to send
//! it. The other half of the protocol, watching machines on behalf of third parties, is
//! refused honestly (`stat_fail`): every NFS client has its own monitor for that.
//!
//! A notification is believed if it comes from the address that took the locks, once per
//! state number: a late repeat must not free locks taken after the restart.

use crate::rpc::Unserved;
use crate::xdr::{Decoder, Encoder, Malformed};

/// Program number of NSM.
pub const PROGRAM: u32 = 100_024;
/// Version served.
pub const VERSION: u32 = 1;
/// Longest host name (`SM_MAXSTRLEN`).
const NAME_BYTES_MAX: usize = 1024;
/// Our state number: odd means up. It never changes, since our restarts lose nothing.
const STATE: u32 = 1;
const STAT_FAIL: u32 = 1;

/// A client machine restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarted<'a> {
    /// Its name for itself.
    pub name: &'a [u8],
    /// Its state number; raised at each restart.
    pub state: u32,
}

/// Answers a call of [`PROGRAM`]; what a notification means is up to the caller.
pub fn answer<'a>(
    procedure: u32,
    input: &mut Decoder<'a>,
    out: &mut Encoder,
) -> Result<Option<Restarted<'a>>, Unserved> {
    match procedure {
        0 | 5 => {}
        1 => {
            input.opaque(NAME_BYTES_MAX)?;
            out.words(&[STAT_FAIL, STATE]);
        }
        2 => {
            skip_monitor_id(input)?;
            input.fixed::<16>()?;
            out.words(&[STAT_FAIL, STATE]);
        }
        3 => {
            skip_monitor_id(input)?;
            out.u32(STATE);
        }
        4 => {
            skip_own_id(input)?;
            out.u32(STATE);
        }
        6 => return Ok(Some(Restarted { name: input.opaque(NAME_BYTES_MAX)?, state: input.u32()? })),
        _ => return Err(Unserved::ProcedureUnavailable),
    }
    Ok(None)
}

fn skip_own_id(input: &mut Decoder<'_>) -> Result<(), Malformed> {
    input.opaque(NAME_BYTES_MAX)?;
    input.fixed::<12>().map(drop)
}

fn skip_monitor_id(input: &mut Decoder<'_>) -> Result<(), Malformed> {
    input.opaque(NAME_BYTES_MAX)?;
    skip_own_id(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_notification_is_reported() {
        let mut arguments = Encoder::default();
        arguments.opaque(b"host-a");
        arguments.u32(7);
        let mut out = Encoder::default();
        let heard = answer(6, &mut Decoder::new(arguments.bytes()), &mut out).unwrap();
        assert_eq!(heard, Some(Restarted { name: b"host-a", state: 7 }));
        assert!(out.is_empty());
        assert_eq!(answer(1, &mut Decoder::new(arguments.bytes()), &mut out), Ok(None));
        assert_eq!(out.bytes(), [0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(answer(2, &mut Decoder::new(arguments.bytes()), &mut out), Err(Unserved::GarbageArguments));
    }
}

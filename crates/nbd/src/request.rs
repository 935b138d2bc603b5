//! Headers of requests in the transmission phase.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Errno, Export, PAYLOAD_BYTES_MAX};

const MAGIC: u32 = 0x2560_9513;
/// Bytes of a request's header; the payload of a write follows.
pub const REQUEST_BYTES: usize = 28;

const FLAG_FUA: u16 = 1;
const FLAG_NO_HOLE: u16 = 2;
const FLAG_FAST_ZERO: u16 = 16;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: U32,
    flags: U16,
    command: U16,
    cookie: U64,
    offset_bytes: U64,
    length_bytes: U32,
}

const _: () = assert!(size_of::<Header>() == REQUEST_BYTES);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The bytes of a range.
    Read,
    /// A range gets the payload that follows.
    Write,
    /// The client goes away; there is no answer.
    Disconnect,
    /// Everything answered before becomes durable.
    Flush,
    /// A range is no longer needed.
    Trim,
    /// A range reads as zeros; its space stays allocated with `no_hole`.
    WriteZeroes {
        /// Keep the space.
        no_hole: bool,
    },
}

/// A request's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Echoed in the answer.
    pub cookie: u64,
    /// First byte of the range.
    pub offset_bytes: u64,
    /// Length of the range.
    pub length_bytes: u32,
    /// What is asked for, or how to refuse it.
    pub command: Result<Command, Errno>,
    /// Durable before the answer.
    pub durable: bool,
    /// Bytes that follow the header, wanted or not.
    pub payload_bytes: u32,
}

impl Request {
    /// Reads a header; `None` if it is not one: the client is out of step and the connection
    /// must end.
    pub fn decode(bytes: &[u8; REQUEST_BYTES], export: &Export) -> Option<Request> {
        let header = Header::read_from_bytes(bytes).ok()?;
        if header.magic.get() != MAGIC {
            return None;
        }
        let (length_bytes, flags) = (header.length_bytes.get(), header.flags.get());
        let is_write = header.command.get() == 1;
        if is_write && length_bytes > PAYLOAD_BYTES_MAX {
            // More than we ever said we take; nothing sensible can be read past it.
            return None;
        }
        let mut request = Request {
            cookie: header.cookie.get(),
            offset_bytes: header.offset_bytes.get(),
            length_bytes,
            command: Err(Errno::Invalid),
            durable: flags & FLAG_FUA != 0,
            payload_bytes: if is_write { length_bytes } else { 0 },
        };
        request.command = command(header.command.get(), flags).and_then(|command| request.judge(command, export));
        Some(request)
    }

    fn judge(&self, command: Command, export: &Export) -> Result<Command, Errno> {
        if matches!(command, Command::Disconnect | Command::Flush) {
            return Ok(command);
        }
        let changes = !matches!(command, Command::Read);
        if changes && export.read_only {
            return Err(Errno::Perm);
        }
        let end = self.offset_bytes.checked_add(u64::from(self.length_bytes));
        if end.is_none_or(|end| end > export.size_bytes) {
            let grows = matches!(command, Command::Write | Command::WriteZeroes { .. });
            return Err(if grows { Errno::NoSpace } else { Errno::Invalid });
        }
        if command == Command::Read && self.length_bytes > PAYLOAD_BYTES_MAX {
            return Err(Errno::Overflow);
        }
        let align = u64::from(export.block_bytes_min);
        let aligned = self.offset_bytes.is_multiple_of(align) && u64::from(self.length_bytes).is_multiple_of(align);
        if aligned && self.length_bytes > 0 { Ok(command) } else { Err(Errno::Invalid) }
    }
}

fn command(number: u16, flags: u16) -> Result<Command, Errno> {
    let (command, allowed) = match number {
        0 => (Command::Read, FLAG_FUA),
        1 => (Command::Write, FLAG_FUA),
        2 => (Command::Disconnect, FLAG_FUA),
        3 => (Command::Flush, FLAG_FUA),
        4 => (Command::Trim, FLAG_FUA),
        6 => (Command::WriteZeroes { no_hole: flags & FLAG_NO_HOLE != 0 }, FLAG_FUA | FLAG_NO_HOLE),
        _ => return Err(Errno::Invalid),
    };
    // FAST_ZERO is not offered, so asking for it is a mistake, as is any unknown flag.
    let unknown = flags & !allowed;
    if unknown & FLAG_FAST_ZERO != 0 {
        return Err(Errno::NotSupported);
    }
    if unknown == 0 { Ok(command) } else { Err(Errno::Invalid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export() -> Export {
        Export {
            name: "vm".into(),
            size_bytes: 1 << 20,
            read_only: false,
            block_bytes_min: 512,
            block_bytes_preferred: 4096,
        }
    }

    fn header(command: u16, flags: u16, offset_bytes: u64, length_bytes: u32) -> [u8; REQUEST_BYTES] {
        let header = Header {
            magic: U32::new(MAGIC),
            flags: U16::new(flags),
            command: U16::new(command),
            cookie: U64::new(7),
            offset_bytes: U64::new(offset_bytes),
            length_bytes: U32::new(length_bytes),
        };
        header.as_bytes().try_into().unwrap()
    }

    #[test]
    fn each_mistake_has_its_answer() {
        let judged = |command, flags, offset, length| {
            Request::decode(&header(command, flags, offset, length), &export()).map(|request| request.command)
        };
        assert_eq!(judged(0, 0, 0, 4096), Some(Ok(Command::Read)));
        assert_eq!(judged(1, 1, 512, 512), Some(Ok(Command::Write)));
        assert_eq!(judged(6, 2, 0, 1 << 20), Some(Ok(Command::WriteZeroes { no_hole: true })));
        assert_eq!(judged(0, 0, 1 << 20, 512), Some(Err(Errno::Invalid)), "read past the end");
        assert_eq!(judged(1, 0, (1 << 20) - 512, 1024), Some(Err(Errno::NoSpace)), "write past the end");
        assert_eq!(judged(1, 0, u64::MAX, 512), Some(Err(Errno::NoSpace)), "the sum overflows");
        assert_eq!(judged(0, 0, 1, 512), Some(Err(Errno::Invalid)), "not aligned");
        assert_eq!(judged(0, 0, 0, 0), Some(Err(Errno::Invalid)), "nothing");
        assert_eq!(judged(6, 16, 0, 512), Some(Err(Errno::NotSupported)), "fast zero");
        assert_eq!(judged(0, 4, 0, 512), Some(Err(Errno::Invalid)), "an unknown flag");
        assert_eq!(judged(9, 0, 0, 512), Some(Err(Errno::Invalid)), "an unknown command");
        assert_eq!(judged(1, 0, 0, PAYLOAD_BYTES_MAX + 1), None, "a payload nobody offered to take");
        let mut wrong = header(0, 0, 0, 512);
        wrong[0] ^= 1;
        assert_eq!(Request::decode(&wrong, &export()), None);
        let read_only = Export { read_only: true, ..export() };
        let refused = Request::decode(&header(1, 0, 0, 512), &read_only).unwrap();
        assert_eq!(
            (refused.command, refused.payload_bytes),
            (Err(Errno::Perm), 512),
            "its payload is still to be read"
        );
    }

    #[test]
    fn any_header_is_judged_inside_the_export() {
        let export = export();
        bolero::check!().with_iterations(20_000).with_type::<[u8; 24]>().for_each(|rest| {
            let mut bytes = [0; REQUEST_BYTES];
            bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
            bytes[4..].copy_from_slice(rest);
            let Some(request) = Request::decode(&bytes, &export) else { return };
            assert!(request.payload_bytes <= PAYLOAD_BYTES_MAX);
            if let Ok(Command::Read | Command::Write | Command::Trim | Command::WriteZeroes { .. }) = request.command {
                assert!(request.offset_bytes + u64::from(request.length_bytes) <= export.size_bytes);
            }
        });
    }
}

//! The fixed newstyle handshake, up to where the transmission begins.
//!
//! ```text
//!   server: greeting ──► client: flags ──► options, each answered ──► GO or EXPORT_NAME
//! ```
//!
//! TLS is not offered in this version, so a client that insists on it is told so; a server
//! reachable from elsewhere must be behind a tunnel.

use crate::PAYLOAD_BYTES_MAX;

const GREETING_MAGIC: &[u8; 8] = b"NBDMAGIC";
const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;

const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_LIST: u32 = 3;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;

const REP_ACK: u32 = 1;
const REP_SERVER: u32 = 2;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = (1 << 31) + 1;
const REP_ERR_INVALID: u32 = (1 << 31) + 3;
const REP_ERR_UNKNOWN: u32 = (1 << 31) + 6;
const REP_ERR_TOO_BIG: u32 = (1 << 31) + 9;

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// Longest option that is read; longer ones are skipped and refused.
pub const OPTION_BYTES_MAX: u32 = 16 << 10;
/// A client that skips more than this is not serious.
const SKIPPED_BYTES_MAX: u32 = 1 << 20;
/// Options in one handshake.
const OPTIONS_MAX: u32 = 128;

/// A disk that clients can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Whether it takes no changes.
    pub read_only: bool,
    /// Requests are multiples of this.
    pub block_bytes_min: u32,
    /// Requests of this size are served best.
    pub block_bytes_preferred: u32,
}

impl Export {
    /// Transmission flags: flush, FUA, trim, write zeroes; many connections, since a flush on
    /// one covers what was answered on any.
    fn flags(&self) -> u16 {
        const HAS_FLAGS: u16 = 1;
        const READ_ONLY: u16 = 1 << 1;
        const FLUSH_FUA: u16 = 1 << 2 | 1 << 3;
        const TRIM: u16 = 1 << 5;
        const WRITE_ZEROES: u16 = 1 << 6;
        const MULTI_CONN: u16 = 1 << 8;
        let changes = if self.read_only { READ_ONLY } else { TRIM | WRITE_ZEROES };
        HAS_FLAGS | FLUSH_FUA | MULTI_CONN | changes
    }
}

/// Who knows the disks.
pub trait Exports {
    /// The disk of this name; the empty name is the only disk, if there is one.
    fn find(&self, name: &str) -> Option<Export>;
    /// All names.
    fn names(&self) -> Vec<String>;
}

/// How a client broke the protocol; its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// Flags that were not offered.
    #[error("it set handshake flags that were not offered")]
    Flags,
    /// No option's magic where one must be.
    #[error("it sent something that is no option")]
    Magic,
    /// Too many options, or far too long ones.
    #[error("it sent too many or too long options")]
    TooMuch,
    /// It asked for a disk that is not here in the way that has no answer.
    #[error("it asked for a disk that is not here")]
    UnknownExport,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Feed this many bytes more.
    Need(usize),
    /// Read and drop this many bytes, then feed an empty slice.
    Skip(usize),
    /// Requests follow.
    Transmit {
        /// To this disk.
        export: Export,
        /// Whether replies are structured.
        structured: bool,
    },
    /// The client is leaving; send what is to be sent and close.
    Close,
}

enum State {
    Flags,
    Option,
    Body { option: u32 },
    Skipped { option: u32 },
    Over,
}

/// The handshake of one connection.
pub struct Negotiation {
    state: State,
    zeroes: bool,
    structured: bool,
    options: u32,
}

/// Takes bytes off a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }
}

impl Negotiation {
    /// Begins: `out` gets the greeting.
    pub fn begin(out: &mut Vec<u8>) -> (Negotiation, Step) {
        out.extend_from_slice(GREETING_MAGIC);
        out.extend_from_slice(OPTION_MAGIC);
        out.extend_from_slice(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
        (Negotiation { state: State::Flags, zeroes: true, structured: false, options: 0 }, Step::Need(4))
    }

    /// Takes exactly the bytes that the last step asked for; `out` gets the answer.
    pub fn feed(&mut self, bytes: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Result<Step, Misbehaviour> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Flags => self.flags(bytes),
            State::Option => self.option(bytes),
            State::Body { option } => self.body(option, bytes, exports, out),
            State::Skipped { option } => {
                answer(out, option, REP_ERR_TOO_BIG, b"the option is too long");
                Ok(self.next_option())
            }
            State::Over => Err(Misbehaviour::Magic),
        }
    }

    fn next_option(&mut self) -> Step {
        self.state = State::Option;
        Step::Need(16)
    }

    fn flags(&mut self, bytes: &[u8]) -> Result<Step, Misbehaviour> {
        let flags = Reader(bytes).u32().ok_or(Misbehaviour::Flags)?;
        if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
            return Err(Misbehaviour::Flags);
        }
        self.zeroes = flags & u32::from(NO_ZEROES) == 0;
        Ok(self.next_option())
    }

    fn option(&mut self, bytes: &[u8]) -> Result<Step, Misbehaviour> {
        let mut reader = Reader(bytes);
        let magic = reader.take(8).ok_or(Misbehaviour::Magic)?;
        let (option, length) = reader.u32().zip(reader.u32()).ok_or(Misbehaviour::Magic)?;
        self.options += 1;
        if magic != OPTION_MAGIC {
            return Err(Misbehaviour::Magic);
        }
        if self.options > OPTIONS_MAX || length > SKIPPED_BYTES_MAX {
            return Err(Misbehaviour::TooMuch);
        }
        if length > OPTION_BYTES_MAX {
            self.state = State::Skipped { option };
            return Ok(Step::Skip(length as usize));
        }
        self.state = State::Body { option };
        Ok(Step::Need(length as usize))
    }

    fn body(
        &mut self,
        option: u32,
        body: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Result<Step, Misbehaviour> {
        match option {
            OPT_EXPORT_NAME => return self.export_name(body, exports, out),
            OPT_ABORT => {
                answer(out, option, REP_ACK, b"");
                return Ok(Step::Close);
            }
            OPT_LIST if body.is_empty() => {
                for name in exports.names() {
                    let mut entry = (name.len() as u32).to_be_bytes().to_vec();
                    entry.extend_from_slice(name.as_bytes());
                    answer(out, option, REP_SERVER, &entry);
                }
                answer(out, option, REP_ACK, b"");
            }
            OPT_STRUCTURED_REPLY if body.is_empty() => {
                self.structured = true;
                answer(out, option, REP_ACK, b"");
            }
            OPT_INFO | OPT_GO => match self.info(option, body, exports, out) {
                Some(export) if option == OPT_GO => return Ok(Step::Transmit { export, structured: self.structured }),
                _ => {}
            },
            OPT_LIST | OPT_STRUCTURED_REPLY => answer(out, option, REP_ERR_INVALID, b"the option takes no data"),
            _ => answer(out, option, REP_ERR_UNSUP, b"not supported"),
        }
        Ok(self.next_option())
    }

    /// The old way in: no answer but the transmission, or the end.
    fn export_name(&self, body: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Result<Step, Misbehaviour> {
        let export = std::str::from_utf8(body).ok().and_then(|name| exports.find(name));
        let export = export.ok_or(Misbehaviour::UnknownExport)?;
        out.extend_from_slice(&export.size_bytes.to_be_bytes());
        out.extend_from_slice(&export.flags().to_be_bytes());
        if self.zeroes {
            out.resize(out.len() + 124, 0);
        }
        Ok(Step::Transmit { export, structured: self.structured })
    }

    /// Answers `INFO` and `GO`; the export if the transmission may begin.
    fn info(&self, option: u32, body: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Option<Export> {
        let Some(name) = info_request(body) else {
            answer(out, option, REP_ERR_INVALID, b"the option is malformed");
            return None;
        };
        let Some(export) = exports.find(name) else {
            answer(out, option, REP_ERR_UNKNOWN, b"no disk of that name is here");
            return None;
        };
        let mut info = INFO_EXPORT.to_be_bytes().to_vec();
        info.extend_from_slice(&export.size_bytes.to_be_bytes());
        info.extend_from_slice(&export.flags().to_be_bytes());
        answer(out, option, REP_INFO, &info);
        // Told to everyone: who does not ask may not know that it can.
        let mut sizes = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [export.block_bytes_min, export.block_bytes_preferred, PAYLOAD_BYTES_MAX] {
            sizes.extend_from_slice(&size.to_be_bytes());
        }
        answer(out, option, REP_INFO, &sizes);
        answer(out, option, REP_ACK, b"");
        Some(export)
    }
}

/// The name in the body of `INFO` or `GO`; what information is wanted does not matter, all
/// of it is told.
fn info_request(body: &[u8]) -> Option<&str> {
    let mut reader = Reader(body);
    let length = reader.u32()?;
    let name = reader.take(length as usize)?;
    let wanted = reader.u16()?;
    (reader.0.len() == usize::from(wanted) * 2).then_some(())?;
    std::str::from_utf8(name).ok()
}

fn answer(out: &mut Vec<u8>, option: u32, kind: u32, body: &[u8]) {
    out.extend_from_slice(&REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One;

    impl Exports for One {
        fn find(&self, name: &str) -> Option<Export> {
            ["", "vm"].contains(&name).then(|| Export {
                name: "vm".into(),
                size_bytes: 1 << 20,
                read_only: false,
                block_bytes_min: 512,
                block_bytes_preferred: 4096,
            })
        }

        fn names(&self) -> Vec<String> {
            vec!["vm".into()]
        }
    }

    /// Feeds `input` as a connection would; the last step, and what was sent.
    fn converse(input: &[u8]) -> (Result<Step, Misbehaviour>, Vec<u8>) {
        let mut out = Vec::new();
        let (mut negotiation, mut step) = Negotiation::begin(&mut out);
        let mut rest = input;
        loop {
            let fed = match step {
                Step::Need(count) if count <= rest.len() => {
                    let (head, tail) = rest.split_at(count);
                    rest = tail;
                    negotiation.feed(head, &One, &mut out)
                }
                Step::Skip(count) if count <= rest.len() => {
                    rest = &rest[count..];
                    negotiation.feed(&[], &One, &mut out)
                }
                step => return (Ok(step), out),
            };
            match fed {
                Ok(next) => step = next,
                Err(misbehaviour) => return (Err(misbehaviour), out),
            }
        }
    }

    fn option(number: u32, body: &[u8]) -> Vec<u8> {
        [&OPTION_MAGIC[..], &number.to_be_bytes(), &(body.len() as u32).to_be_bytes(), body].concat()
    }

    fn go(name: &str) -> Vec<u8> {
        option(OPT_GO, &[&(name.len() as u32).to_be_bytes()[..], name.as_bytes(), &[0, 1, 0, 3]].concat())
    }

    const MODERN: [u8; 4] = [0, 0, 0, 3];

    #[test]
    fn a_modern_client_gets_in() {
        let input = [&MODERN[..], &option(OPT_STRUCTURED_REPLY, &[]), &go("vm")].concat();
        let (step, out) = converse(&input);
        assert!(matches!(step, Ok(Step::Transmit { structured: true, ref export }) if export.name == "vm"));
        assert_eq!(out[..18], *b"NBDMAGICIHAVEOPT\x00\x03");
    }

    #[test]
    fn an_old_client_gets_in_with_zeroes() {
        let (step, out) = converse(&[&[0, 0, 0, 1][..], &option(OPT_EXPORT_NAME, b"")].concat());
        assert!(matches!(step, Ok(Step::Transmit { structured: false, .. })));
        assert_eq!(out.len(), 18 + 8 + 2 + 124);
    }

    #[test]
    fn what_is_not_here_is_said_and_the_client_may_go_on() {
        let tls = option(5, &[]);
        let long = option(99, &[0; OPTION_BYTES_MAX as usize + 1]);
        let input = [&MODERN[..], &go("other"), &tls, &long, &option(OPT_LIST, &[]), &go("")].concat();
        let (step, out) = converse(&input);
        assert!(matches!(step, Ok(Step::Transmit { .. })));
        for reply in [REP_ERR_UNKNOWN, REP_ERR_UNSUP, REP_ERR_TOO_BIG, REP_SERVER] {
            assert!(out.windows(4).any(|window| window == reply.to_be_bytes()), "{reply:x}");
        }
        let old = [&MODERN[..], &option(OPT_EXPORT_NAME, b"other")].concat();
        assert_eq!(converse(&old).0, Err(Misbehaviour::UnknownExport));
        assert_eq!(converse(&[0, 0, 0, 4]).0, Err(Misbehaviour::Flags));
        assert_eq!(converse(&[&MODERN[..], b"GET / HTTP/1.1\r\n"].concat()).0, Err(Misbehaviour::Magic));
    }

    #[test]
    fn any_client_is_answered_or_sent_away() {
        bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
            let (_, out) = converse(bytes);
            assert!(out.len() < 4096 + bytes.len() * 40);
            // The same after valid beginnings, so that bodies are reached.
            let Some((number, body)) = bytes.split_first() else { return };
            let input = [&MODERN[..], &option(u32::from(*number % 12), body), &go("vm")].concat();
            let (step, _) = converse(&input);
            let through = matches!(step, Ok(Step::Transmit { .. } | Step::Close) | Err(Misbehaviour::UnknownExport));
            assert!(through || body.len() > OPTION_BYTES_MAX as usize, "{step:?}");
        });
    }
}

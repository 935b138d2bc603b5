//! Portmapper: program 100000, version 2 (RFC 1833 section 3) and the read-only part of
//! rpcbind versions 3 and 4 (section 2).
//!
//! Two uses. The server may answer such calls itself (over TCP and as single UDP
//! datagrams, [`Service::datagram`](crate::Service::datagram)) where no rpcbind runs. Or it registers with the rpcbind that runs there:
//! [`Registration`] gives the calls as bytes, sockets are the caller's.
//!
//! SET and UNSET are refused: the list is what this server serves, nothing else. CALLIT
//! (a call on behalf of others) does not exist here: it is how portmappers are abused.

use std::net::{IpAddr, SocketAddr};

use crate::rpc::{self, Call, Credential, Unserved};
use crate::xdr::{Decoder, Encoder, Malformed};

/// Program number of portmapper and rpcbind.
pub const PROGRAM: u32 = 100_000;
/// The port where everybody looks for it.
pub const PORT: u16 = 111;
const NETID_BYTES_MAX: usize = 32;
const ADDRESS_BYTES_MAX: usize = 128;
const TCP: u32 = 6;
const UDP: u32 = 17;

/// How a service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over TCP.
    Tcp,
    /// Over UDP.
    Udp,
}

/// One line of the portmapper's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Program number.
    pub program: u32,
    /// Version.
    pub version: u32,
    /// Where it listens.
    pub port: u16,
    /// How.
    pub transport: Transport,
}

/// A built-in portmapper: a fixed list.
#[derive(Clone, Debug, Default)]
pub struct Portmap {
    /// What is served.
    pub mappings: Vec<Mapping>,
}

impl Portmap {
    /// Answers a call of [`PROGRAM`]. `local` is the address the call was sent to: what
    /// rpcbind's universal addresses are made of.
    pub fn answer(
        &self,
        call: &Call<'_>,
        input: Decoder<'_>,
        local: IpAddr,
        out: &mut Encoder,
    ) -> Result<(), Unserved> {
        match call.version {
            2 => self.version_2(call.procedure, input, out),
            3 | 4 => self.version_3(call, input, local, out),
            _ => Err(Unserved::ProgramMismatch { low: 2, high: 4 }),
        }
    }

    /// The service wanted; in another version if this one is not there, as rpcbind does:
    /// the program itself will say which versions it has.
    fn find(&self, wanted: &Wanted) -> Option<&Mapping> {
        let same =
            |mapping: &&Mapping| mapping.program == wanted.program && Some(mapping.transport) == wanted.transport;
        let exact = self.exact(wanted);
        exact.or_else(|| self.mappings.iter().find(same))
    }

    fn exact(&self, wanted: &Wanted) -> Option<&Mapping> {
        self.mappings.iter().find(|mapping| {
            (mapping.program, mapping.version, Some(mapping.transport))
                == (wanted.program, wanted.version, wanted.transport)
        })
    }

    fn version_2(&self, procedure: u32, mut input: Decoder<'_>, out: &mut Encoder) -> Result<(), Unserved> {
        match procedure {
            0 => {}
            1 | 2 => {
                Wanted::mapping(&mut input)?;
                out.bool(false);
            }
            3 => {
                let wanted = Wanted::mapping(&mut input)?;
                out.u32(self.find(&wanted).map_or(0, |mapping| u32::from(mapping.port)));
            }
            4 => {
                for mapping in &self.mappings {
                    out.bool(true);
                    put_mapping(out, mapping);
                }
                out.bool(false);
            }
            _ => return Err(Unserved::ProcedureUnavailable),
        }
        Ok(())
    }

    fn version_3(
        &self,
        call: &Call<'_>,
        mut input: Decoder<'_>,
        local: IpAddr,
        out: &mut Encoder,
    ) -> Result<(), Unserved> {
        match (call.procedure, call.version) {
            (0, _) => {}
            (1 | 2, _) => {
                Wanted::rpcb(&mut input)?;
                out.bool(false);
            }
            (3, _) | (9, 4) => {
                let wanted = Wanted::rpcb(&mut input)?;
                let found = if call.procedure == 3 { self.find(&wanted) } else { self.exact(&wanted) };
                let address = found.map_or(String::new(), |mapping| universal(SocketAddr::new(local, mapping.port)));
                out.opaque(address.as_bytes());
            }
            (4, _) => {
                for mapping in &self.mappings {
                    out.bool(true);
                    put_rpcb(out, mapping, local);
                }
                out.bool(false);
            }
            _ => return Err(Unserved::ProcedureUnavailable),
        }
        Ok(())
    }
}

/// What a caller looks for.
struct Wanted {
    program: u32,
    version: u32,
    transport: Option<Transport>,
}

impl Wanted {
    /// `mapping` of version 2.
    fn mapping(input: &mut Decoder<'_>) -> Result<Wanted, Malformed> {
        let (program, version) = (input.u32()?, input.u32()?);
        let transport = match input.u32()? {
            TCP => Some(Transport::Tcp),
            UDP => Some(Transport::Udp),
            _ => None,
        };
        input.u32()?;
        Ok(Wanted { program, version, transport })
    }

    /// `rpcb` of versions 3 and 4.
    fn rpcb(input: &mut Decoder<'_>) -> Result<Wanted, Malformed> {
        let (program, version) = (input.u32()?, input.u32()?);
        let transport = match input.opaque(NETID_BYTES_MAX)? {
            b"tcp" | b"tcp6" => Some(Transport::Tcp),
            b"udp" | b"udp6" => Some(Transport::Udp),
            _ => None,
        };
        input.opaque(ADDRESS_BYTES_MAX)?;
        input.opaque(ADDRESS_BYTES_MAX)?;
        Ok(Wanted { program, version, transport })
    }
}

fn transport_number(transport: Transport) -> u32 {
    match transport {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
    }
}

fn put_mapping(out: &mut Encoder, mapping: &Mapping) {
    let transport = transport_number(mapping.transport);
    out.words(&[mapping.program, mapping.version, transport, u32::from(mapping.port)]);
}

fn netid(transport: Transport, address: IpAddr) -> &'static str {
    match (transport, address.is_ipv6()) {
        (Transport::Tcp, false) => "tcp",
        (Transport::Tcp, true) => "tcp6",
        (Transport::Udp, false) => "udp",
        (Transport::Udp, true) => "udp6",
    }
}

fn put_rpcb(out: &mut Encoder, mapping: &Mapping, local: IpAddr) {
    out.u32(mapping.program);
    out.u32(mapping.version);
    out.opaque(netid(mapping.transport, local).as_bytes());
    out.opaque(universal(SocketAddr::new(local, mapping.port)).as_bytes());
    out.opaque(b"superuser");
}

/// A universal address (RFC 5665 section 5.2.3): the address, then the port as two bytes.
pub fn universal(address: SocketAddr) -> String {
    let [high, low] = address.port().to_be_bytes();
    format!("{}.{high}.{low}", address.ip())
}

/// Asks another host's portmapper where a program listens (GETPORT).
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    /// Program number.
    pub program: u32,
    /// Version.
    pub version: u32,
    /// How it should be reached.
    pub transport: Transport,
}

impl Lookup {
    /// The message of the call.
    pub fn message(&self, xid: u32) -> Vec<u8> {
        let mut out = Encoder::default();
        Call { xid, program: PROGRAM, version: 2, procedure: 3, credential: Credential::None }.encode(&mut out);
        let Lookup { program, version, transport } = *self;
        put_mapping(&mut out, &Mapping { program, version, port: 0, transport });
        out.into_bytes()
    }

    /// The port in `reply` to call `xid`, if the program is there.
    pub fn port(reply: &[u8], xid: u32) -> Option<u16> {
        let (answered, results) = rpc::decode_reply(reply).ok()?;
        let port = results?.u32().ok()?;
        u16::try_from(port).ok().filter(|&port| port != 0 && answered == xid)
    }
}

/// Calls that tell a local rpcbind about a service, and its answers.
#[derive(Clone, Copy, Debug)]
pub struct Registration {
    /// What to register.
    pub mapping: Mapping,
}

impl Registration {
    /// The message of a SET call (version 2).
    pub fn set(&self, xid: u32) -> Vec<u8> {
        self.message(xid, 1)
    }

    /// The message of an UNSET call (version 2).
    pub fn unset(&self, xid: u32) -> Vec<u8> {
        self.message(xid, 2)
    }

    fn message(&self, xid: u32, procedure: u32) -> Vec<u8> {
        let mut out = Encoder::default();
        Call { xid, program: PROGRAM, version: 2, procedure, credential: Credential::None }.encode(&mut out);
        put_mapping(&mut out, &self.mapping);
        out.into_bytes()
    }

    /// Whether `reply` says that call `xid` was done.
    pub fn is_done(reply: &[u8], xid: u32) -> bool {
        match rpc::decode_reply(reply) {
            Ok((answered, Some(mut result))) => answered == xid && result.bool() == Ok(true),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portmap() -> Portmap {
        let mapping = |program, version, port| Mapping { program, version, port, transport: Transport::Tcp };
        Portmap { mappings: vec![mapping(100_003, 3, 2049), mapping(100_005, 3, 2050)] }
    }

    /// The whole reply to a message.
    fn reply(message: &[u8], local: IpAddr) -> Vec<u8> {
        let (call, input) = Call::decode(message).unwrap();
        let mut out = Encoder::default();
        rpc::encode_success(&mut out, call.xid);
        if let Err(why) = portmap().answer(&call, input, local, &mut out) {
            out.truncate(0);
            rpc::encode_unserved(&mut out, call.xid, why);
        }
        out.into_bytes()
    }

    fn ask(version: u32, procedure: u32, write: impl FnOnce(&mut Encoder)) -> Vec<u8> {
        let mut out = Encoder::default();
        Call { xid: 1, program: PROGRAM, version, procedure, credential: Credential::None }.encode(&mut out);
        write(&mut out);
        let reply = reply(out.bytes(), IpAddr::from([10, 0, 0, 1]));
        let (_, results) = rpc::decode_reply(&reply).unwrap();
        results.map_or(Vec::new(), |results| results.rest().to_vec())
    }

    #[test]
    fn getport_and_getaddr_find_what_is_served_and_nothing_else() {
        let getport = |program, transport| ask(2, 3, |out| out.words(&[program, 3, transport, 0]));
        assert_eq!(getport(100_003, TCP), 2049u32.to_be_bytes());
        assert_eq!(getport(100_003, UDP), [0; 4]);
        assert_eq!(getport(7, TCP), [0; 4]);
        let getaddr = ask(4, 3, |out| {
            out.words(&[100_005, 3]);
            [&b"tcp"[..], b"", b""].into_iter().for_each(|text| out.opaque(text));
        });
        assert_eq!(Decoder::new(&getaddr).opaque(100), Ok(&b"10.0.0.1.8.2"[..]));
    }

    #[test]
    fn the_list_is_complete_and_cannot_be_changed_or_used_as_a_relay() {
        let list = ask(2, 4, |_| ());
        assert_eq!(list.len(), 2 * 20 + 4);
        assert_eq!(ask(2, 1, |out| out.words(&[1, 1, TCP, 1])), [0; 4]);
        assert_eq!(ask(2, 5, |_| ()), [], "CALLIT");
    }

    #[test]
    fn a_lookup_finds_what_another_portmapper_lists() {
        let ask = |program| {
            let message = Lookup { program, version: 3, transport: Transport::Tcp }.message(9);
            Lookup::port(&reply(&message, IpAddr::from([127, 0, 0, 1])), 9)
        };
        assert_eq!((ask(100_003), ask(100_021)), (Some(2049), None));
    }

    #[test]
    fn a_registration_is_understood_by_a_portmapper() {
        let registration = Registration { mapping: portmap().mappings[0] };
        let reply = reply(&registration.set(77), IpAddr::from([127, 0, 0, 1]));
        assert!(!Registration::is_done(&reply, 77), "ours refuses");
        let mut yes = Encoder::default();
        rpc::encode_success(&mut yes, 77);
        yes.bool(true);
        assert!(Registration::is_done(yes.bytes(), 77));
        assert!(!Registration::is_done(yes.bytes(), 78));
    }
}

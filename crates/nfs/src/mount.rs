//! MOUNT: program 100005 (RFC 1813 appendix I), version 3; of versions 1 and 2 what
//! `showmount` may ask for. Their MNT cannot carry our handles and is not offered.
//!
//! The list of mounts is a courtesy: clients may forget to unmount, it is kept in memory,
//! bounded, and decides nothing. Rights are checked on every call by the datastore.
//! The export list comes from memory, so that it is answered in every state (Proxmox asks
//! for it every few seconds).

use std::collections::BTreeSet;
use std::net::IpAddr;

use datastore::Store;
use datastore::{Caller, Export, Filesystem, Refusal};

use crate::rpc::Unserved;
use crate::server::Parsing;
use crate::xdr::{Decoder, Encoder, Malformed};

/// Program number of MOUNT.
pub const PROGRAM: u32 = 100_005;
/// Versions served.
pub const VERSIONS: [u32; 3] = [1, 2, 3];
/// Longest path (`MNTPATHLEN`).
const PATH_BYTES_MAX: usize = 1024;
/// Mounts remembered.
const MOUNTS_MAX: usize = 4096;
const AUTH_SYS: u32 = 1;

/// Who has mounted what, as far as known.
#[derive(Debug, Default)]
pub struct Mounts {
    mounts: BTreeSet<(IpAddr, Vec<u8>)>,
}

impl Mounts {
    /// Remembers a mount; forgets another when there are too many.
    pub fn add(&mut self, client: IpAddr, path: &[u8]) {
        self.mounts.insert((client, path.to_vec()));
        if self.mounts.len() > MOUNTS_MAX {
            self.mounts.pop_first();
        }
    }

    /// Forgets one mount of a client.
    pub fn remove(&mut self, client: IpAddr, path: &[u8]) {
        self.mounts.remove(&(client, path.to_vec()));
    }

    /// Forgets every mount of a client.
    pub fn remove_all(&mut self, client: IpAddr) {
        self.mounts.retain(|(other, _)| *other != client);
    }

    /// Clients and paths in order.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &[u8])> {
        self.mounts.iter().map(|(client, path)| (*client, path.as_slice()))
    }
}

/// What a call works with.
pub(crate) struct Procedure<'a, S> {
    pub(crate) fs: &'a Filesystem<S>,
    pub(crate) caller: &'a Caller,
    pub(crate) mounts: &'a std::cell::RefCell<Mounts>,
    pub(crate) parsing: &'a Parsing,
}

/// Serves a call of [`PROGRAM`], appending the result to `out`.
pub(crate) async fn serve<S: Store>(
    call: &Procedure<'_, S>,
    (version, procedure): (u32, u32),
    input: &mut Decoder<'_>,
    out: &mut Encoder,
) -> Result<(), Unserved> {
    if !VERSIONS.contains(&version) {
        return Err(Unserved::ProgramMismatch { low: 1, high: 3 });
    }
    let client = call.caller.address;
    match procedure {
        0 => {}
        1 if version == 3 => {
            let path = call.parsing.during(|| decode_path(input))?;
            let mounted = call.fs.mount(call.caller, path).await;
            put_mounted(out, mounted.as_ref().map(|mounted| &mounted.handle));
            if mounted.is_ok() {
                call.mounts.borrow_mut().add(client, path);
            }
        }
        2 => {
            for (client, path) in call.mounts.borrow().iter() {
                out.bool(true);
                out.opaque(client.to_string().as_bytes());
                out.opaque(path);
            }
            out.bool(false);
        }
        3 => {
            let path = call.parsing.during(|| decode_path(input))?;
            call.mounts.borrow_mut().remove(client, path);
        }
        4 => call.mounts.borrow_mut().remove_all(client),
        5 => put_exports(out, &call.fs.exports()),
        _ => return Err(Unserved::ProcedureUnavailable),
    }
    Ok(())
}

/// Reads `dirpath`.
pub fn decode_path<'a>(input: &mut Decoder<'a>) -> Result<&'a [u8], Malformed> {
    input.opaque(PATH_BYTES_MAX)
}

fn put_mounted(out: &mut Encoder, mounted: Result<&datastore::Handle, &Refusal>) {
    match mounted {
        Ok(handle) => {
            out.u32(0);
            out.opaque(handle.as_bytes());
            out.words(&[1, AUTH_SYS]);
        }
        Err(why) => out.u32(mountstat3(*why)),
    }
}

/// Wire status of a refusal (RFC 1813 section 5.1.5).
fn mountstat3(why: Refusal) -> u32 {
    match why {
        Refusal::NotOwner => 1,
        Refusal::NoEntry | Refusal::Stale => 2,
        Refusal::NotAllowed => 13,
        Refusal::NotDirectory => 20,
        Refusal::BadArgument => 22,
        Refusal::NameTooLong => 63,
        Refusal::Stopped => 10006,
        _ => 5,
    }
}

fn put_exports(out: &mut Encoder, exports: &[Export]) {
    for export in exports {
        out.bool(true);
        out.opaque(export.path.as_bytes());
        for network in export.clients.iter().filter(|network| network.prefix_len() > 0) {
            out.bool(true);
            out.opaque(network.to_string().as_bytes());
        }
        if export.clients.iter().any(|network| network.prefix_len() == 0) {
            out.bool(true);
            out.opaque(b"*");
        }
        out.bool(false);
    }
    out.bool(false);
}

//! NLM: program 100021, version 4 (and 1 and 3, with 32-bit offsets). QEMU and guests of
//! Linux kernel clients keep their disks apart with it (`clients.md` 11.2).
//!
//! Locks live in the datastore, durably: a restart of the server loses none, so there is
//! no grace period, and a reclaim is an ordinary request. What is here is the protocol,
//! and what it needs to call clients back.
//!
//! **Who a client is.** `caller_name` alone would make two machines named `localhost` one
//! owner, and hand both the same exclusive lock; so the owner's client is
//! `caller_name@address`.
//!
//! **Calls to clients.** A queued request that is granted is told so by NLM_GRANTED; the
//! `_MSG` procedures are answered by a `_RES` call. Both are handed out as [`Callback`]s,
//! bytes for whoever owns the sockets. A grant that the client refuses (it no longer waits)
//! is unlocked again. A lost grant needs no repair: clients ask again by themselves.

pub mod share;
pub mod wire;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::task::{Poll, Waker};

use datastore::Store;
use datastore::locks::{Grant, Lock, LockVerdict, LockWait};
use datastore::{Caller, Filesystem, Refusal};

use crate::nsm::Restarted;
use crate::rpc::{self, Call, Credential, Unserved};
use crate::server::Parsing;
use crate::xdr::{Decoder, Encoder, Malformed};
use share::Shares;
use wire::{Args, Shape, ShareArgs, Width};

/// Program number of NLM.
pub const PROGRAM: u32 = 100_021;
/// Versions served.
pub const VERSIONS: [u32; 3] = [1, 3, 4];
const GRANTED: u32 = 5;
/// Callbacks that wait to be sent; more are dropped, clients ask again.
const CALLBACKS_MAX: usize = 4096;
/// Clients whose version and restarts are remembered.
const CLIENTS_MAX: usize = 4096;

/// `nlm4_stats`.
mod stat {
    pub const GRANTED: u32 = 0;
    pub const DENIED: u32 = 1;
    pub const DENIED_NOLOCKS: u32 = 2;
    pub const BLOCKED: u32 = 3;
    pub const DENIED_GRACE_PERIOD: u32 = 4;
    pub const ROFS: u32 = 6;
    pub const STALE_FH: u32 = 7;
    pub const FBIG: u32 = 8;
    pub const FAILED: u32 = 9;
}

/// Procedures that change something: they pass the duplicate-request cache.
pub fn is_change(procedure: u32) -> bool {
    matches!(procedure, 2..=4 | 7..=9 | 20..=23)
}

/// A call to a client's lock manager, to be sent by whoever owns the sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// The client. Its port is asked for at its portmapper (program [`PROGRAM`]).
    pub to: IpAddr,
    /// The address of ours that the client knows; it checks where grants come from.
    pub from: IpAddr,
    /// NLM version to call.
    pub version: u32,
    /// Procedure to call.
    pub procedure: u32,
    /// Its encoded arguments.
    pub arguments: Vec<u8>,
    /// The grant that is told, for [`Nlm`] to take back if it is refused.
    pub grant: Option<Grant>,
}

impl Callback {
    /// The RPC message.
    pub fn message(&self, xid: u32) -> Vec<u8> {
        let mut out = Encoder::default();
        let (version, procedure) = (self.version, self.procedure);
        Call { xid, program: PROGRAM, version, procedure, credential: Credential::None }.encode(&mut out);
        out.fixed(&self.arguments);
        out.into_bytes()
    }

    /// Whether the client's `reply` says that it does not want the lock any more.
    pub fn is_refused(reply: &[u8]) -> bool {
        let decode = || -> Result<u32, Malformed> {
            let (_, results) = rpc::decode_reply(reply)?;
            let mut results = results.ok_or(Malformed::Short)?;
            results.opaque(wire::COOKIE_BYTES_MAX)?;
            results.u32()
        };
        decode().is_ok_and(|status| status != stat::GRANTED)
    }
}

/// How to reach a client.
#[derive(Clone, Copy, Debug)]
struct Route {
    address: IpAddr,
    local: IpAddr,
    version: u32,
}

/// State of the protocol; the locks are the datastore's.
#[derive(Default)]
pub struct Nlm {
    routes: RefCell<BTreeMap<Vec<u8>, Route>>,
    monitored: RefCell<BTreeSet<Vec<u8>>>,
    restarts: RefCell<BTreeMap<(IpAddr, Vec<u8>), u32>>,
    callbacks: RefCell<VecDeque<Callback>>,
    sender: RefCell<Option<Waker>>,
    shares: RefCell<Shares>,
}

/// What a call works with.
pub(crate) struct Procedure<'a, S> {
    pub(crate) fs: &'a Filesystem<S>,
    pub(crate) caller: &'a Caller,
    /// Our address that was called.
    pub(crate) local: IpAddr,
    pub(crate) version: u32,
    pub(crate) parsing: &'a Parsing,
}

impl<S> Procedure<'_, S> {
    fn width(&self) -> Width {
        if self.version == 4 { Width::Wide } else { Width::Narrow }
    }

    fn client(&self, name: &[u8]) -> Vec<u8> {
        let address = self.caller.address.to_canonical();
        [name, format!("@{address}").as_bytes()].concat()
    }

    fn route(&self) -> Route {
        Route { address: self.caller.address, local: self.local, version: self.version }
    }

    fn status(&self, why: Refusal) -> u32 {
        let status = match why {
            Refusal::BadHandle | Refusal::Stale => stat::STALE_FH,
            Refusal::ReadOnly => stat::ROFS,
            Refusal::TooBig => stat::FBIG,
            Refusal::NoSpace | Refusal::QuotaExceeded => stat::DENIED_NOLOCKS,
            Refusal::Stopped => stat::DENIED_GRACE_PERIOD,
            Refusal::NotAllowed | Refusal::NotOwner => stat::DENIED,
            _ => stat::FAILED,
        };
        if self.version < 4 && status > stat::DENIED_GRACE_PERIOD { stat::DENIED_NOLOCKS } else { status }
    }
}

impl Nlm {
    /// Serves a call of [`PROGRAM`], appending the result to `out`.
    pub(crate) async fn serve<S: Store>(
        &self,
        call: &Procedure<'_, S>,
        procedure: u32,
        input: &mut Decoder<'_>,
        out: &mut Encoder,
    ) -> Result<(), Unserved> {
        if !VERSIONS.contains(&call.version) {
            return Err(Unserved::ProgramMismatch { low: 1, high: 4 });
        }
        match procedure {
            0 | 11..=15 => {}
            1..=4 => self.lock_procedure(call, procedure, input, out).await?,
            6..=9 => {
                let mut result = Encoder::default();
                self.lock_procedure(call, procedure - 5, input, &mut result).await?;
                self.send(call.route(), procedure + 5, result.into_bytes(), None);
            }
            5 | 10 => {
                let args = decode(call, input, Shape::Test)?;
                if procedure == GRANTED {
                    put_result(out, args.cookie, stat::DENIED);
                }
            }
            20 | 21 => self.share(call, procedure == 20, input, out).await?,
            22 => {
                let args = decode(call, input, Shape::Lock)?;
                let status = self.lock(call, &args).await;
                put_result(out, args.cookie, status);
            }
            23 => {
                let name = call.parsing.during(|| input.opaque(wire::NAME_BYTES_MAX))?;
                let _state = input.u32()?;
                self.free_all(call.fs, call.client(name)).await;
            }
            _ => return Err(Unserved::ProcedureUnavailable),
        }
        Ok(())
    }

    async fn lock_procedure<S: Store>(
        &self,
        call: &Procedure<'_, S>,
        procedure: u32,
        input: &mut Decoder<'_>,
        out: &mut Encoder,
    ) -> Result<(), Unserved> {
        let shape = [Shape::Test, Shape::Lock, Shape::Cancel, Shape::Unlock][procedure as usize - 1];
        let args = decode(call, input, shape)?;
        let status = match shape {
            Shape::Test => {
                self.test(call, &args, out).await;
                return Ok(());
            }
            Shape::Lock => {
                self.monitor(call, args.lock.name).await;
                self.lock(call, &args).await
            }
            Shape::Cancel => self.cancel(call, &args).await,
            Shape::Unlock => self.unlock(call, &args).await,
        };
        put_result(out, args.cookie, status);
        Ok(())
    }

    async fn test<S: Store>(&self, call: &Procedure<'_, S>, args: &Args<'_>, out: &mut Encoder) {
        let found = match call.fs.handle(args.lock.file) {
            Ok(file) => call.fs.lock_test(call.caller, &file, &wanted(call, args)).await,
            Err(why) => Err(why),
        };
        match found {
            Ok(None) => put_result(out, args.cookie, stat::GRANTED),
            Ok(Some(holder)) => {
                put_result(out, args.cookie, stat::DENIED);
                wire::put_holder(out, &holder, call.width());
            }
            Err(why) => {
                // A plain denial would have to name a holder.
                let status = call.status(why);
                put_result(out, args.cookie, if status == stat::DENIED { stat::DENIED_NOLOCKS } else { status });
            }
        }
    }

    async fn lock<S: Store>(&self, call: &Procedure<'_, S>, args: &Args<'_>) -> u32 {
        let wait = if args.block {
            self.remember_route(call, args.lock.name);
            LockWait::Queue { cookie: args.cookie.to_vec() }
        } else {
            LockWait::No
        };
        let verdict = match call.fs.handle(args.lock.file) {
            Ok(file) => call.fs.lock(call.caller, &file, wanted(call, args), wait).await,
            Err(why) => Err(why),
        };
        let (verdict, grants) = match verdict {
            Ok(done) => done,
            Err(why) => return call.status(why),
        };
        self.deliver(grants);
        match verdict {
            LockVerdict::Granted => stat::GRANTED,
            LockVerdict::Blocked => stat::BLOCKED,
            LockVerdict::Denied(_) => stat::DENIED,
        }
    }

    async fn cancel<S: Store>(&self, call: &Procedure<'_, S>, args: &Args<'_>) -> u32 {
        let done = match call.fs.handle(args.lock.file) {
            Ok(file) => call.fs.lock_cancel(call.caller, &file, &wanted(call, args)).await,
            Err(why) => Err(why),
        };
        match done {
            Ok((found, grants)) => {
                self.deliver(grants);
                if found { stat::GRANTED } else { stat::DENIED }
            }
            Err(why) => call.status(why),
        }
    }

    async fn unlock<S: Store>(&self, call: &Procedure<'_, S>, args: &Args<'_>) -> u32 {
        let owner = args.lock.owner(call.client(args.lock.name));
        let done = match call.fs.handle(args.lock.file) {
            Ok(file) => call.fs.unlock(call.caller, &file, &owner, args.lock.range).await,
            Err(why) => Err(why),
        };
        match done {
            Ok(grants) => {
                self.deliver(grants);
                stat::GRANTED
            }
            Err(why) => call.status(why),
        }
    }

    async fn share<S: Store>(
        &self,
        call: &Procedure<'_, S>,
        take: bool,
        input: &mut Decoder<'_>,
        out: &mut Encoder,
    ) -> Result<(), Unserved> {
        let args = call.parsing.during(|| ShareArgs::decode(input))?;
        let status = match call.fs.handle(args.file) {
            Ok(file) => match call.fs.getattr(call.caller, &file).await {
                Ok(_) => self.shares.borrow_mut().change(file.file(), call.client(args.name), &args, take),
                Err(refused) => call.status(refused.why),
            },
            Err(why) => call.status(why),
        };
        put_result(out, args.cookie, status);
        out.u32(0);
        Ok(())
    }

    /// The client must be known durably before it holds a lock, so that its restart is
    /// acted upon even if it happens after ours.
    async fn monitor<S: Store>(&self, call: &Procedure<'_, S>, name: &[u8]) {
        let client = call.client(name);
        if self.monitored.borrow().contains(&client) {
            return;
        }
        if call.fs.monitor(&client, call.caller.address).await.is_ok() {
            let mut monitored = self.monitored.borrow_mut();
            if monitored.len() >= CLIENTS_MAX {
                monitored.clear();
            }
            monitored.insert(client);
        }
    }

    fn remember_route<S>(&self, call: &Procedure<'_, S>, name: &[u8]) {
        let mut routes = self.routes.borrow_mut();
        if routes.len() >= CLIENTS_MAX {
            routes.pop_first();
        }
        routes.insert(call.client(name), call.route());
    }

    /// SM_NOTIFY: frees what the client held, if it is one that holds locks from there.
    pub(crate) async fn restarted<S: Store>(&self, call: &Procedure<'_, S>, restarted: Restarted<'_>) {
        let address = call.caller.address.to_canonical();
        let known = self.restarts.borrow().get(&(address, restarted.name.to_vec())).copied();
        if known == Some(restarted.state) {
            return;
        }
        let theirs = call.fs.monitored().into_iter().filter(|client| client.address.to_canonical() == address);
        let theirs: Vec<_> = theirs.filter(|client| same_host(&client.client, restarted.name)).collect();
        for client in theirs {
            self.free_all(call.fs, client.client).await;
        }
        let mut restarts = self.restarts.borrow_mut();
        if restarts.len() >= CLIENTS_MAX {
            restarts.pop_first();
        }
        restarts.insert((address, restarted.name.to_vec()), restarted.state);
    }

    async fn free_all<S: Store>(&self, fs: &Filesystem<S>, client: Vec<u8>) {
        self.shares.borrow_mut().free_all(&client);
        if let Ok(grants) = fs.lock_free_all(&client).await {
            self.deliver(grants);
        }
    }

    /// Has waiters told that they got their locks. For grants that come from elsewhere too
    /// (an administrator broke a lock).
    pub fn deliver(&self, grants: Vec<Grant>) {
        for grant in grants {
            let route = self.routes.borrow().get(&grant.lock.owner.client).copied();
            // After a restart the waiter is unknown; it asks again.
            let Some(route) = route else { continue };
            let width = if route.version == 4 { Width::Wide } else { Width::Narrow };
            let mut arguments = Encoder::default();
            let name = host_name(&grant.lock.owner.client);
            let file = grant.handle.as_bytes();
            wire::put_granted(&mut arguments, (&grant.cookie, file), (&grant.lock, name), width);
            self.send(route, GRANTED, arguments.into_bytes(), Some(grant));
        }
    }

    fn send(&self, route: Route, procedure: u32, arguments: Vec<u8>, grant: Option<Grant>) {
        let mut callbacks = self.callbacks.borrow_mut();
        if callbacks.len() < CALLBACKS_MAX {
            let Route { address: to, local: from, version } = route;
            callbacks.push_back(Callback { to, from, version, procedure, arguments, grant });
        }
        if let Some(sender) = self.sender.borrow_mut().take() {
            sender.wake();
        }
    }

    /// The next call to send to a client, when there is one. One waiter at a time.
    pub async fn next_callback(&self) -> Callback {
        std::future::poll_fn(|context| match self.callbacks.borrow_mut().pop_front() {
            Some(callback) => Poll::Ready(callback),
            None => {
                *self.sender.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// The client answered a GRANTED call that it does not want the lock: takes it back.
    pub async fn take_back<S: Store>(&self, fs: &Filesystem<S>, caller: &Caller, grant: &Grant) {
        let done = fs.unlock(caller, &grant.handle, &grant.lock.owner, grant.lock.range).await;
        self.deliver(done.unwrap_or_default());
    }
}

fn decode<'a, S>(call: &Procedure<'_, S>, input: &mut Decoder<'a>, shape: Shape) -> Result<Args<'a>, Unserved> {
    Ok(call.parsing.during(|| Args::decode(input, shape, call.width()))?)
}

fn wanted<S>(call: &Procedure<'_, S>, args: &Args<'_>) -> Lock {
    Lock { owner: args.lock.owner(call.client(args.lock.name)), range: args.lock.range, mode: args.mode }
}

fn put_result(out: &mut Encoder, cookie: &[u8], status: u32) {
    out.opaque(cookie);
    out.u32(status);
}

/// The name in `name@address`.
fn host_name(client: &[u8]) -> &[u8] {
    client.rsplitn(2, |&byte| byte == b'@').last().unwrap_or(client)
}

/// Whether a client of ours is the machine that calls itself `name`: the same name, with
/// or without a domain.
fn same_host(client: &[u8], name: &[u8]) -> bool {
    let short = |name: &[u8]| name.split(|&byte| byte == b'.').next().unwrap_or_default().to_ascii_lowercase();
    short(host_name(client)) == short(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_told_apart_by_name_and_address() {
        assert_eq!(host_name(b"host-a@10.0.0.1"), b"host-a");
        assert_eq!(host_name(b"a@b@::1"), b"a@b");
        assert!(same_host(b"host-a@10.0.0.1", b"HOST-A.example.org"));
        assert!(!same_host(b"host-a@10.0.0.1", b"host-b"));
    }
}

//! The duplicate-request cache: one effect per request, however often it arrives.
//!
//! A client that hears nothing sends the same bytes again, perhaps on a new connection,
//! perhaps while the first copy is still at work. Doing a REMOVE twice gives a wrong
//! answer; doing an old WRITE twice can destroy a newer one. So every change is looked up
//! here first (`design.md` 11.1):
//!
//! ```text
//!                  begin(key)
//!        unknown /     |       \ known
//!          New(ticket) |        Done(reply)   answered again, byte for byte
//!             |     Running                   wait for the one that is at work
//!          finish(ticket, reply)
//! ```
//!
//! **Key.** Per client address (without port: a reconnect has a new one; without machine
//! name as an index, so that inventing names evicts nobody else): xid, program, procedure
//! and a digest of machine name and arguments. Two clients, or two requests that reuse an
//! xid, therefore never get each other's answer.
//!
//! **Bounds.** [`ENTRIES_MAX`] entries per client in a ring, oldest out; entries older than
//! [`AGE_MAX`] do not count; [`CLIENTS_MAX`] clients, the longest silent out. An answer is
//! kept in a slot of [`REPLY_BYTES_MAX`] *encoded* bytes; a longer one is not kept (a test
//! proves that no procedure that comes here has one). Slots are used again, so in steady
//! state nothing is allocated. A running entry is never evicted: it is bounded by the
//! requests in flight.
//!
//! **Restart.** Answers of namespace changes are journaled with the change
//! ([`datastore::ReplyNote`]) under [`Key::encode`] and put back by [`Drc::restore`].

use std::collections::VecDeque;
use std::hash::BuildHasherDefault;
use std::net::IpAddr;
use std::task::Waker;
use std::time::Duration;

use base::{Nanos, check::media_check_parts};
use hashbrown::HashMap;
use siphasher::sip::SipHasher13;

use crate::xdr::{Decoder, Encoder, Malformed};

/// Entries kept per client: more than any client has under way (16 connections of 128).
pub const ENTRIES_MAX: usize = 4096;
/// Clients remembered.
pub const CLIENTS_MAX: usize = 1024;
/// Entries older than this do not count: xids come round again.
pub const AGE_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest encoded answer that is kept, in bytes.
pub const REPLY_BYTES_MAX: usize = 512;

type FixedHasher = BuildHasherDefault<SipHasher13>;

/// What makes two requests the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The client's address.
    pub client: IpAddr,
    /// Of the call.
    pub xid: u32,
    /// Program number.
    pub program: u32,
    /// Procedure number.
    pub procedure: u32,
    /// Over machine name, version and arguments.
    pub digest: u64,
}

impl Key {
    /// Digest of what the other fields do not say.
    pub fn digest(version: u32, machine: &[u8], arguments: &[u8]) -> u64 {
        let seed = u64::from(version) << 32 | machine.len() as u64;
        media_check_parts(seed, &[machine, arguments]).0
    }

    /// The key as bytes, for the journal.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        let address = match self.client {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        out.fixed(&address.octets());
        out.words(&[self.xid, self.program, self.procedure]);
        out.u64(self.digest);
        out.into_bytes()
    }

    /// Reads what [`encode`](Key::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Key, Malformed> {
        let mut input = Decoder::new(bytes);
        let client = std::net::Ipv6Addr::from(*input.fixed::<16>()?).to_canonical();
        Ok(Key { client, xid: input.u32()?, program: input.u32()?, procedure: input.u32()?, digest: input.u64()? })
    }
}

/// The right and duty to [`finish`](Drc::finish) or [`abandon`](Drc::abandon) an entry.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    key: Key,
}

/// What is known of a request.
#[derive(Debug)]
pub enum Begun<'a> {
    /// Nothing: it is to be done.
    New(Ticket),
    /// It is being done: [`Drc::wait`] for it.
    Running,
    /// It was done; this was the answer.
    Done(&'a [u8]),
}

enum State {
    Running { waiting: Vec<Waker> },
    Done { reply: Vec<u8>, at: Nanos },
}

#[derive(Default)]
struct Client {
    entries: HashMap<Key, State, FixedHasher>,
    /// Keys of done entries, oldest first.
    done: VecDeque<Key>,
    last_used: Nanos,
}

/// Counts for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrcCounts {
    /// Requests done for the first time.
    pub fresh: u64,
    /// Requests answered from the cache.
    pub repeated: u64,
    /// Requests that waited for their first copy.
    pub joined: u64,
}

/// The cache. See the module's head.
#[derive(Default)]
pub struct Drc {
    clients: HashMap<IpAddr, Client, FixedHasher>,
    counts: DrcCounts,
    /// A buffer of an evicted answer, to be used again.
    spare: Vec<u8>,
}

impl Drc {
    /// Looks a request up; if it is unknown, the caller now has to do it.
    pub fn begin(&mut self, key: Key, now: Nanos) -> Begun<'_> {
        self.make_room_for(key.client);
        let Drc { clients, counts, .. } = self;
        let client = clients.entry(key.client).or_default();
        client.last_used = now;
        let too_old = |at: &Nanos| now.since(*at) > AGE_MAX;
        let stale = matches!(client.entries.get(&key), Some(State::Done { at, .. }) if too_old(at));
        if stale {
            client.entries.remove(&key);
            client.done.retain(|done| *done != key);
        }
        match client.entries.entry(key) {
            hashbrown::hash_map::Entry::Vacant(entry) => {
                counts.fresh += 1;
                entry.insert(State::Running { waiting: Vec::new() });
                Begun::New(Ticket { key })
            }
            hashbrown::hash_map::Entry::Occupied(entry) => match entry.into_mut() {
                State::Running { .. } => {
                    counts.joined += 1;
                    Begun::Running
                }
                State::Done { reply, .. } => {
                    counts.repeated += 1;
                    Begun::Done(reply)
                }
            },
        }
    }

    /// Asks to be woken when the entry is no longer running. `None`: it is gone (its
    /// answer was too long to keep, or it was abandoned).
    pub fn wait(&mut self, key: &Key, waker: &Waker) -> Option<Waited<'_>> {
        match self.clients.get_mut(&key.client)?.entries.get_mut(key)? {
            State::Running { waiting } => {
                if !waiting.iter().any(|other| other.will_wake(waker)) {
                    waiting.push(waker.clone());
                }
                Some(Waited::StillRunning)
            }
            State::Done { reply, .. } => Some(Waited::Done(reply)),
        }
    }

    /// The request was done, and this is the answer.
    pub fn finish(&mut self, ticket: Ticket, reply: &[u8], now: Nanos) {
        if reply.len() > REPLY_BYTES_MAX {
            return self.abandon(ticket);
        }
        let mut kept = std::mem::take(&mut self.spare);
        kept.clear();
        kept.extend_from_slice(reply);
        self.keep(ticket.key, kept, now);
    }

    /// The request was not done: the same bytes may be tried again.
    pub fn abandon(&mut self, ticket: Ticket) {
        let Some(client) = self.clients.get_mut(&ticket.key.client) else { return };
        if let Some(State::Running { waiting }) = client.entries.remove(&ticket.key) {
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Puts back an answer that was journaled `age` ago.
    pub fn restore(&mut self, key: Key, reply: &[u8], now: Nanos, age: Duration) {
        self.make_room_for(key.client);
        self.clients.entry(key.client).or_default().last_used = now;
        self.keep(key, reply.to_vec(), now - age);
    }

    fn keep(&mut self, key: Key, reply: Vec<u8>, at: Nanos) {
        let Some(client) = self.clients.get_mut(&key.client) else { return };
        let before = client.entries.insert(key, State::Done { reply, at });
        if let Some(State::Running { waiting }) = before {
            waiting.into_iter().for_each(Waker::wake);
        }
        client.done.push_back(key);
        if client.done.len() > ENTRIES_MAX {
            let oldest = client.done.pop_front().expect("the ring is full");
            if let Some(State::Done { reply, .. }) = client.entries.remove(&oldest) {
                self.spare = reply;
            }
        }
    }

    fn make_room_for(&mut self, address: IpAddr) {
        if self.clients.len() < CLIENTS_MAX || self.clients.contains_key(&address) {
            return;
        }
        let idle = self.clients.iter().filter(|(_, client)| client.entries.len() == client.done.len());
        let longest_silent = idle.min_by_key(|(_, client)| client.last_used).map(|(address, _)| *address);
        if let Some(address) = longest_silent {
            self.clients.remove(&address);
        }
    }

    /// Counts since start.
    pub fn counts(&self) -> DrcCounts {
        self.counts
    }
}

/// What [`Drc::wait`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Waited<'a> {
    /// Not yet.
    StillRunning,
    /// This is the answer.
    Done(&'a [u8]),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client: u8, xid: u32) -> Key {
        Key { client: IpAddr::from([10, 0, 0, client]), xid, program: 100_003, procedure: 7, digest: 9 }
    }

    fn at(seconds: u64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    fn run(drc: &mut Drc, key: Key, reply: &[u8], now: Nanos) {
        let Begun::New(ticket) = drc.begin(key, now) else { panic!("{key:?} is known") };
        drc.finish(ticket, reply, now);
    }

    #[test]
    fn the_same_request_gets_the_same_answer_and_others_do_not() {
        let mut drc = Drc::default();
        run(&mut drc, key(1, 5), b"first", at(1));
        assert!(matches!(drc.begin(key(1, 5), at(2)), Begun::Done(b"first")));
        run(&mut drc, key(2, 5), b"other client", at(2));
        run(&mut drc, Key { digest: 10, ..key(1, 5) }, b"other arguments", at(2));
        run(&mut drc, Key { procedure: 8, ..key(1, 5) }, b"other procedure", at(2));
        assert_eq!(drc.counts(), DrcCounts { fresh: 4, repeated: 1, joined: 0 });
    }

    #[test]
    fn a_repeat_joins_the_one_at_work() {
        let mut drc = Drc::default();
        let Begun::New(ticket) = drc.begin(key(1, 5), at(1)) else { panic!("new") };
        assert!(matches!(drc.begin(key(1, 5), at(1)), Begun::Running));
        assert_eq!(drc.wait(&key(1, 5), Waker::noop()), Some(Waited::StillRunning));
        drc.finish(ticket, b"answer", at(2));
        assert_eq!(drc.wait(&key(1, 5), Waker::noop()), Some(Waited::Done(b"answer")));
    }

    #[test]
    fn what_was_not_done_may_be_done_again() {
        let mut drc = Drc::default();
        let Begun::New(ticket) = drc.begin(key(1, 5), at(1)) else { panic!("new") };
        drc.abandon(ticket);
        assert_eq!(drc.wait(&key(1, 5), Waker::noop()), None);
        run(&mut drc, key(1, 5), &[0; REPLY_BYTES_MAX + 1], at(1));
        run(&mut drc, key(1, 5), b"kept", at(1));
    }

    #[test]
    fn entries_age_and_rings_are_bounded() {
        let mut drc = Drc::default();
        run(&mut drc, key(1, 5), b"old", at(0));
        run(&mut drc, key(1, 5), b"new", at(AGE_MAX.as_secs() + 1));
        for xid in 0..2 * ENTRIES_MAX as u32 {
            run(&mut drc, key(3, xid), b"x", at(10_000));
        }
        let client = &drc.clients[&key(3, 0).client];
        assert_eq!((client.entries.len(), client.done.len()), (ENTRIES_MAX, ENTRIES_MAX));
        assert!(
            matches!(drc.begin(key(1, 5), at(1_000)), Begun::Done(b"new")),
            "another client's flood evicts nothing"
        );
        for client in 0..2 * CLIENTS_MAX as u32 {
            let client = IpAddr::from(client.to_be_bytes());
            run(&mut drc, Key { client, ..key(1, 1) }, b"x", at(20_000 + 1));
        }
        assert_eq!(drc.clients.len(), CLIENTS_MAX);
    }

    #[test]
    fn a_key_survives_the_journal() {
        for client in [IpAddr::from([10, 1, 2, 3]), "fe80::1".parse().unwrap()] {
            let key = Key { client, ..key(1, 77) };
            assert_eq!(Key::decode(&key.encode()), Ok(key));
        }
        let mut drc = Drc::default();
        drc.restore(key(1, 5), b"journaled", at(100), Duration::from_secs(20));
        assert!(matches!(drc.begin(key(1, 5), at(101)), Begun::Done(b"journaled")));
    }
}

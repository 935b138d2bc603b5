//! The link to the other site: frames of the mirror over TLS 1.3, both ends with a certificate.
//!
//! ```text
//!  mirror ── Send ──► queue ──► writer ══ TLS ══ reader ──► Received ── mirror
//! ```
//!
//! The site with the lower id calls, the other one answers. Before the first frame each end says
//! in which pair, which site and which pool it is ([`Preface`]). A pool that is not the one that was met
//! first is refused: one that was made anew at the other site holds nothing of what it is
//! believed to hold (F56).
//!
//! Cost of a frame: its payload is read from the socket into one buffer, which is what the
//! journal writes from; it is sent from where it lies. Frames that wait together leave
//! with one write. No thread is crossed: the link is served by the store's thread.
//!
//! What ends a link: an error, a frame that makes no sense, or the mirror, which watches for silence.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base::port::World;
use base::{Buf, GroupId, PairId, SiteId};
use control::tls::Pem;
use control::{Problem, mutual};
use mirror::Input;
use mirror::wire::{Encoded, Frame, LENGTH_BYTES, frame_bytes};
use raid::{CasRefused, Group};
use replica::Replica;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::pair::config::{Introduction, PairConfig};
use crate::ready::bind;

/// Name of the protocol in the TLS handshake.
const PROTOCOL: &str = "vmhold-pair/1";
/// Name of the register that says which pool the other site has.
const PEER_REGISTER: &str = "peer";
/// A handshake takes at most this.
const GREET_WITHIN: Duration = Duration::from_secs(5);
/// Pause before another call.
const CALL_AGAIN: Duration = Duration::from_millis(200);
/// The same after one that was refused.
const CALL_REFUSED: Duration = Duration::from_secs(2);
/// The same after one that got through.
const CALL_ANEW: Duration = Duration::from_millis(5);
/// What was said before a link was given up leaves within this, or not at all.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(200);
/// Handshakes at a time: strangers cannot take all memory, and no address all places.
const GREETINGS_MAX: usize = 64;
const GREETINGS_PER_ADDRESS: usize = 4;
/// Bytes that are read or written at a time, at least.
const BUFFER_BYTES: usize = 256 << 10;
/// Frames that leave with one write.
const BATCH: usize = 64;

/// What each end says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Preface {
    magic: [u8; 8],
    pair: [u8; 16],
    site: [u8; 16],
    pool: [u8; 16],
    /// Epoch of the pool's owner: it rises with each opening, so an older copy of the pool shows a lower one.
    opening: U64,
}

const MAGIC: [u8; 8] = *b"vmhpair1";
/// What each end says of the other one's preface.
const TAKEN: u8 = 0;
const OTHER_POOL: &str =
    "the pool of the other site is not the one that this one was paired with: it does not hold what it should";
const OLDER_POOL: &str =
    "the pool of the other site is an older copy of the one that was met last: it lacks what was written since";

/// What is kept of the other site's pool.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Peer {
    pool: [u8; 16],
    opening: U64,
}

/// Why the other site's pool is not taken for its copy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NotTaken {
    #[error("{OTHER_POOL}")]
    OtherPool,
    #[error("{OLDER_POOL}")]
    OlderPool,
    #[error("another site has taken its place meanwhile")]
    Replaced,
    #[error("what the other site is cannot be kept: {0}")]
    NotKept(String),
}

impl NotTaken {
    const fn verdict(&self) -> u8 {
        match self {
            Self::OtherPool => 1,
            Self::OlderPool => 2,
            Self::Replaced | Self::NotKept(_) => 3,
        }
    }

    /// What the other end says of this one.
    fn told(verdict: u8) -> io::Error {
        let why = match verdict {
            1 => "the other site refuses this pool: it is not the one that it was paired with",
            2 => "the other site refuses this pool: it is an older copy of the one that it met last",
            _ => "the other site refuses this pool, and cannot keep what it is",
        };
        io::Error::new(io::ErrorKind::PermissionDenied, why)
    }
}

impl From<NotTaken> for io::Error {
    fn from(why: NotTaken) -> io::Error {
        io::Error::new(io::ErrorKind::PermissionDenied, why)
    }
}

/// How the link is, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// Whether there is one now.
    pub is_up: bool,
    /// Why not, as far as is known.
    pub why_not: Option<String>,
}

/// All links of this site, one at a time.
pub(super) struct Links {
    pair: PairId,
    me: SiteId,
    peer: RefCell<Introduction>,
    /// Another one is the other site now.
    peer_changed: Notify,
    listen: SocketAddr,
    /// On purpose, in a lab.
    is_cut: Cell<bool>,
    group: Group,
    last_number: Cell<u64>,
    has_met: Cell<bool>,
    greeting: RefCell<BTreeMap<IpAddr, usize>>,
    /// The link that is up, and where its frames go.
    current: RefCell<Option<(u64, mpsc::UnboundedSender<Frame>)>>,
    hung: Notify,
    state: RefCell<LinkState>,
}

/// How this site calls, or where it is called.
pub(super) enum Way {
    Calls(Arc<ClientConfig>),
    IsCalled(TcpListener, Arc<ServerConfig>),
}

impl Links {
    /// No link yet.
    pub async fn new(me: SiteId, config: &PairConfig, group: Group) -> Rc<Links> {
        let has_met = !group.register_read(PEER_REGISTER).await.bytes.is_empty();
        Rc::new(Links {
            pair: config.id,
            me,
            peer: RefCell::new(config.peer()),
            peer_changed: Notify::new(),
            listen: config.listen,
            is_cut: Cell::new(false),
            group,
            last_number: Cell::new(0),
            has_met: Cell::new(has_met),
            greeting: RefCell::default(),
            current: RefCell::default(),
            hung: Notify::new(),
            state: RefCell::default(),
        })
    }

    /// Whether this pool was ever linked with the other site's.
    pub fn has_met(&self) -> bool {
        self.has_met.get()
    }

    /// Takes the address where the other site calls, if it does.
    ///
    /// # Errors
    /// When that is taken, or the certificate is unusable.
    pub async fn way(&self, pem: &Pem) -> Result<Way, Problem> {
        let Introduction { site, fingerprint, .. } = self.peer();
        if self.me < site {
            return Ok(Way::Calls(mutual::client(fingerprint, pem, PROTOCOL)?));
        }
        let (tls, _) = mutual::server(pem, PROTOCOL)?;
        Ok(Way::IsCalled(bind(self.listen, "the other site").await?, tls))
    }

    /// Who the other site is.
    pub fn peer(&self) -> Introduction {
        self.peer.borrow().clone()
    }

    /// Another one is the other site from now on; what pool it has is not known yet.
    ///
    /// # Errors
    /// When the pool cannot keep that.
    pub async fn change_peer(&self, peer: Introduction) -> Result<(), CasRefused> {
        // First, so that a greeting under way does not write down a pool of the one before.
        *self.peer.borrow_mut() = peer;
        self.hang_current();
        self.peer_changed.notify_waiters();
        let known = self.group.register_read(PEER_REGISTER).await;
        self.group.register_cas(PEER_REGISTER, known.version, &[]).await?;
        self.has_met.set(false);
        Ok(())
    }

    /// Sees to it that there is a link whenever there can be one, for ever.
    pub async fn keep(self: Rc<Self>, first: Way, pem: Pem, (world, replica): (World, Replica)) {
        let mut way = Some(first);
        loop {
            let changed = self.peer_changed.notified();
            if let Some(way) = way.take() {
                tokio::select! {
                    biased;
                    () = changed => {}
                    () = self.clone().keep_by(way, (world.clone(), replica.clone())) => {}
                }
            }
            match self.way(&pem).await {
                Ok(next) => way = Some(next),
                Err(problem) => {
                    tracing::error!(code = %problem.code(), "{}; it is tried again until it works", problem.what());
                    tokio::time::sleep(CALL_REFUSED).await;
                }
            }
        }
    }

    async fn keep_by(self: Rc<Self>, way: Way, (world, replica): (World, Replica)) {
        match way {
            Way::Calls(tls) => loop {
                let before = self.last_number.get();
                let called = self.call(&tls, &replica).await;
                self.ended(&called);
                // One that was up and given up is wanted again at once; what was refused will be again.
                let was_up = self.last_number.get() > before;
                let is_refused = called.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
                tokio::time::sleep(match (was_up, is_refused) {
                    (true, _) => CALL_ANEW,
                    (_, true) => CALL_REFUSED,
                    _ => CALL_AGAIN,
                })
                .await;
            },
            Way::IsCalled(listener, tls) => self.answer(listener, TlsAcceptor::from(tls), (world, replica)).await,
        }
    }

    async fn call(&self, tls: &Arc<ClientConfig>, replica: &Replica) -> io::Result<()> {
        let greeted = timeout(GREET_WITHIN, async {
            let stream = TcpStream::connect(&self.peer().address).await?;
            stream.set_nodelay(true)?;
            // Names say nothing here: the other site is known by its fingerprint.
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            let mut stream = TlsConnector::from(tls.clone()).connect(name, stream).await?;
            self.greet(&mut stream).await?;
            io::Result::Ok(stream)
        });
        let stream = greeted.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.carry(TlsStream::Client(stream), replica).await
    }

    async fn answer(self: Rc<Self>, listener: TcpListener, tls: TlsAcceptor, (world, replica): (World, Replica)) {
        let greetings = Arc::new(Semaphore::new(GREETINGS_MAX));
        loop {
            let Ok(greeting) = greetings.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, from)) => {
                    let Some(place) = Greeting::of(&self, from.ip()) else { continue };
                    let (links, tls, replica) = (self.clone(), tls.clone(), replica.clone());
                    let carried = async move {
                        let greeted = timeout(GREET_WITHIN, links.greet_caller(stream, tls)).await;
                        drop((greeting, place));
                        let ended = match greeted {
                            Ok(Ok(stream)) => links.carry(stream, &replica).await,
                            Ok(Err(error)) => Err(error),
                            Err(_) => Err(io::ErrorKind::TimedOut.into()),
                        };
                        links.ended(&ended);
                    };
                    world.spawn.spawn("link", Box::pin(carried));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept the other site");
                    tokio::time::sleep(CALL_AGAIN).await;
                }
            }
        }
    }
}

/// A place for a handshake.
struct Greeting(Rc<Links>, IpAddr);

impl Greeting {
    /// One for `from`, if it does not have too many.
    fn of(links: &Rc<Links>, from: IpAddr) -> Option<Greeting> {
        let mut greeting = links.greeting.borrow_mut();
        let own = greeting.entry(from).or_default();
        if *own >= GREETINGS_PER_ADDRESS {
            return None;
        }
        *own += 1;
        Some(Greeting(links.clone(), from))
    }
}

impl Drop for Greeting {
    fn drop(&mut self) {
        let mut greeting = self.0.greeting.borrow_mut();
        match greeting.get_mut(&self.1) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(greeting.remove(&self.1)),
        }
    }
}

impl Links {
    async fn greet_caller(&self, stream: TcpStream, tls: TlsAcceptor) -> io::Result<TlsStream<TcpStream>> {
        stream.set_nodelay(true)?;
        let mut stream = tls.accept(stream).await?;
        if mutual::peer(stream.get_ref().1) != Some(self.peer.borrow().fingerprint) {
            return Err(io::Error::other("whoever called is not the other site"));
        }
        self.greet(&mut stream).await?;
        Ok(TlsStream::Server(stream))
    }

    /// Both ends say who they are.
    async fn greet(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
        if self.is_cut.get() {
            return Err(io::Error::other("the link is cut on purpose"));
        }
        let peer = self.peer();
        let opening = self.group.owner_epoch().unwrap_or_default().into();
        let own = Preface { magic: MAGIC, pair: self.pair.0, site: self.me.0, pool: self.group.id().0, opening };
        stream.write_all(own.as_bytes()).await?;
        stream.flush().await?;
        let mut bytes = [0; size_of::<Preface>()];
        stream.read_exact(&mut bytes).await?;
        let theirs = Preface::read_from_bytes(&bytes).map_err(|_| io::ErrorKind::InvalidData)?;
        if theirs.magic != MAGIC {
            return Err(io::Error::other("the other site speaks another version of the protocol"));
        }
        if theirs.pair != self.pair.0 || theirs.site != peer.site.0 {
            return Err(io::Error::other("the other site is in another pair"));
        }
        let known = self.know_pool(&peer, GroupId(theirs.pool), theirs.opening.get()).await;
        let verdict = known.as_ref().map_or_else(|why| why.verdict(), |()| TAKEN);
        stream.write_all(&[verdict]).await?;
        stream.flush().await?;
        known?;
        match stream.read_u8().await? {
            TAKEN if *self.peer.borrow() == peer => Ok(()),
            TAKEN => Err(NotTaken::Replaced.into()),
            verdict => Err(NotTaken::told(verdict)),
        }
    }

    /// The pool that is met first is the one, for good, and it never becomes an older one.
    async fn know_pool(&self, peer: &Introduction, pool: GroupId, opening: u64) -> Result<(), NotTaken> {
        let known = self.group.register_read(PEER_REGISTER).await;
        if !known.bytes.is_empty() {
            let Ok(last) = Peer::read_from_bytes(&known.bytes) else { return Err(NotTaken::OtherPool) };
            if last.pool != pool.0 {
                return Err(NotTaken::OtherPool);
            }
            match opening.cmp(&last.opening.get()) {
                Ordering::Less => return Err(NotTaken::OlderPool),
                Ordering::Equal => return Ok(()),
                Ordering::Greater => {}
            }
        }
        if *self.peer.borrow() != *peer {
            return Err(NotTaken::Replaced);
        }
        let met = Peer { pool: pool.0, opening: opening.into() };
        let kept = self.group.register_cas(PEER_REGISTER, known.version, met.as_bytes()).await;
        kept.map(|_| self.has_met.set(true)).map_err(|refused| NotTaken::NotKept(refused.to_string()))
    }

    /// Carries frames until the link ends.
    async fn carry(&self, stream: TlsStream<TcpStream>, replica: &Replica) -> io::Result<()> {
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        let (frames, queue) = mpsc::unbounded_channel();
        *self.current.borrow_mut() = Some((number, frames));
        *self.state.borrow_mut() = LinkState { is_up: true, why_not: None };
        tracing::info!(code = "VH4014", link = number, "the other site is there");
        replica.tell(Input::LinkUp(number));
        let (from, to) = tokio::io::split(stream);
        let mut sending = pin!(send(self.pair, queue, to));
        let ended = tokio::select! {
            biased;
            () = self.until_hung(number) => {
                // Whoever hands over says so, and then gives the link up.
                let _ = timeout(LAST_WORDS_WITHIN, &mut sending).await;
                Err(io::Error::other("it was given up"))
            }
            sent = &mut sending => sent,
            received = receive(self.pair, from, |frame| replica.tell(Input::Received(number, frame))) => received,
        };
        self.let_go(number);
        replica.tell(Input::LinkDown(number));
        ended
    }

    /// Puts a frame on the link of this number, if it is there.
    pub fn send(&self, number: u64, frame: Frame) {
        if let Some((current, frames)) = &*self.current.borrow()
            && *current == number
        {
            // Else the link has ended, which is told apart.
            let _ = frames.send(frame);
        }
    }

    /// Ends the link of this number.
    pub fn hang(&self, number: u64) {
        self.let_go(number);
        self.hung.notify_waiters();
    }

    fn hang_current(&self) {
        let current = self.current.borrow().as_ref().map(|(number, _)| *number);
        if let Some(number) = current {
            self.hang(number);
        }
    }

    /// Cuts the link, as a lab does to see what follows, or mends it.
    pub fn cut(&self, is_cut: bool) {
        self.is_cut.set(is_cut);
        if is_cut {
            self.hang_current();
        }
    }

    async fn until_hung(&self, number: u64) {
        loop {
            let hung = self.hung.notified();
            if self.current.borrow().as_ref().is_none_or(|(current, _)| *current != number) {
                return;
            }
            hung.await;
        }
    }

    fn let_go(&self, number: u64) {
        let is_current = self.current.borrow().as_ref().is_some_and(|(current, _)| *current == number);
        if is_current {
            *self.current.borrow_mut() = None;
            self.state.borrow_mut().is_up = false;
        }
    }

    /// Remembers why a link ended or was not made; says so where it is news.
    fn ended(&self, ended: &io::Result<()>) {
        let why = match ended {
            Ok(()) => "it was closed".to_owned(),
            // The library says so in many words, and names its manual.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "it was closed".to_owned(),
            Err(error) => error.to_string(),
        };
        let mut state = self.state.borrow_mut();
        if state.is_up {
            return;
        }
        if state.why_not.as_ref() != Some(&why) {
            tracing::warn!(code = "VH4014", peer = self.peer.borrow().address, why, "no link to the other site");
        }
        state.why_not = Some(why);
    }

    /// How the link is now.
    pub fn state(&self) -> LinkState {
        self.state.borrow().clone()
    }
}

async fn send(pair: PairId, mut queue: mpsc::UnboundedReceiver<Frame>, to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(BUFFER_BYTES, to);
    let mut frames = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut frames, BATCH).await > 0 {
        for frame in frames.drain(..) {
            let Encoded { head, payload } = frame.encode(pair);
            to.write_all(&head).await?;
            to.write_all(&payload).await?;
        }
        to.flush().await?;
    }
    Ok(())
}

async fn receive(pair: PairId, from: impl AsyncRead + Unpin, mut tell: impl FnMut(Frame)) -> io::Result<()> {
    let mut from = BufReader::with_capacity(BUFFER_BYTES, from);
    loop {
        let mut length = [0; LENGTH_BYTES];
        from.read_exact(&mut length).await?;
        let mut bytes = vec![0; frame_bytes(length).map_err(io::Error::other)?];
        from.read_exact(&mut bytes).await?;
        tell(Frame::decode(pair, &Buf::from(bytes)).map_err(io::Error::other)?);
    }
}

#[cfg(test)]
mod tests {
    use base::{FileId, Osn, WallNanos};
    use mirror::Write;
    use mirror::wire::Message;
    use raid::GroupOptions;
    use tokio::io::duplex;
    use tokio::task::LocalSet;
    use world_real::{RealDrive, create_sparse_file, open_drive, real_world};

    use super::*;

    const PAIR: PairId = PairId([7; 16]);

    /// A pool of its own in `folder`.
    async fn pool(folder: &std::path::Path, name: &str) -> Group {
        let drive = |number: usize| -> Rc<RealDrive> {
            let path = folder.join(format!("{name}{number}"));
            create_sparse_file(&path, 16 << 20).unwrap();
            open_drive(&path, None).unwrap()
        };
        let drives = (0..3).map(|number| drive(number) as Rc<dyn base::port::Drive>).collect();
        Group::create(drives, GroupOptions::default(), real_world()).await.unwrap()
    }

    async fn site(me: u8, peer: u8, pair: PairId, group: &Group) -> Rc<Links> {
        let config = PairConfig {
            id: pair,
            peer: SiteId([peer; 16]),
            peer_fingerprint: "ab".repeat(32).parse().unwrap(),
            peer_address: "127.0.0.1:1".into(),
            listen: ([127, 0, 0, 1], 0).into(),
            membership: ".".into(),
            datastore: None,
            address_hook: None,
            out_of_sync_delay_ms: None,
            check_every_seconds: None,
        };
        Links::new(SiteId([me; 16]), &config, group.clone()).await
    }

    async fn meet(one: &Links, other: &Links) -> [Result<(), String>; 2] {
        let (here, there) = duplex(1024);
        // Each end closes when it has refused, as a connection does.
        let greet = async |links: &Links, mut stream: tokio::io::DuplexStream| links.greet(&mut stream).await;
        let (one, other) = tokio::join!(greet(one, here), greet(other, there));
        [one, other].map(|greeted| greeted.map_err(|error| error.to_string()))
    }

    #[tokio::test]
    async fn the_pool_that_was_met_first_is_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let tests = async {
            let [a, b, c] =
                [pool(folder.path(), "a").await, pool(folder.path(), "b").await, pool(folder.path(), "c").await];
            let (first, second) = (site(1, 2, PAIR, &a).await, site(2, 1, PAIR, &b).await);
            let impostor = site(2, 1, PAIR, &c).await;
            assert!(!first.has_met());
            assert_eq!(meet(&first, &second).await, [Ok(()), Ok(())]);
            assert_eq!(meet(&first, &second).await, [Ok(()), Ok(())], "again");
            let [refused, _] = meet(&first, &impostor).await;
            assert_eq!(refused, Err(OTHER_POOL.to_owned()));
            let again = site(1, 2, PAIR, &a).await;
            assert!(again.has_met(), "it is remembered");
            assert_eq!(meet(&again, &impostor).await[0], Err(OTHER_POOL.to_owned()), "after a restart");
            assert_eq!(meet(&again, &second).await, [Ok(()), Ok(())]);
            again.change_peer(again.peer()).await.unwrap();
            assert!(!again.has_met());
            assert_eq!(meet(&again, &impostor).await, [Ok(()), Ok(())], "it is the one now");
            assert_eq!(meet(&again, &second).await[0], Err(OTHER_POOL.to_owned()), "and the other one is not");
        };
        LocalSet::new().run_until(tests).await;
    }

    /// A drive image that was put back shows an opening that the other site has seen pass.
    #[tokio::test]
    async fn an_older_copy_of_the_pool_is_refused_and_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let tests = async {
            let (a, b) = (pool(folder.path(), "a").await, pool(folder.path(), "b").await);
            let own =
                async |group: &Group| group.own(raid::ControllerId([1; 16]), Duration::from_secs(1)).await.unwrap();
            own(&b).await;
            let old = own(&b).await.epoch;
            own(&b).await;
            let (first, second) = (site(1, 2, PAIR, &a).await, site(2, 1, PAIR, &b).await);
            assert_eq!(meet(&first, &second).await, [Ok(()), Ok(())]);
            assert_eq!(first.know_pool(&first.peer(), b.id(), old).await, Err(NotTaken::OlderPool));
            assert_eq!(first.know_pool(&first.peer(), b.id(), old + 1).await, Ok(()), "the same life again");
            own(&b).await;
            assert_eq!(meet(&first, &second).await, [Ok(()), Ok(())], "opened anew");
            assert_eq!(
                first.know_pool(&first.peer(), b.id(), old + 1).await,
                Err(NotTaken::OlderPool),
                "what was met last counts"
            );
            let told = NotTaken::told(NotTaken::OlderPool.verdict()).to_string();
            assert!(told.contains("older copy"), "{told}");
        };
        LocalSet::new().run_until(tests).await;
    }

    #[tokio::test]
    async fn no_address_takes_all_places() {
        let folder = tempfile::tempdir().unwrap();
        let tests = async {
            let links = site(2, 1, PAIR, &pool(folder.path(), "a").await).await;
            let (stranger, peer) = (IpAddr::from([10, 0, 0, 9]), IpAddr::from([10, 0, 0, 1]));
            let mut held: Vec<Greeting> =
                (0..GREETINGS_PER_ADDRESS).map(|_| Greeting::of(&links, stranger).unwrap()).collect();
            assert!(Greeting::of(&links, stranger).is_none());
            assert!(Greeting::of(&links, peer).is_some());
            held.pop();
            assert!(Greeting::of(&links, stranger).is_some(), "one has ended");
        };
        LocalSet::new().run_until(tests).await;
    }

    #[tokio::test]
    async fn another_pair_and_another_site_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let tests = async {
            let (a, b) = (pool(folder.path(), "a").await, pool(folder.path(), "b").await);
            let first = site(1, 2, PAIR, &a).await;
            for stranger in [site(2, 1, PairId([8; 16]), &b).await, site(3, 1, PAIR, &b).await] {
                let [refused, _] = meet(&first, &stranger).await;
                assert!(refused.unwrap_err().contains("another pair"));
            }
            let (mut here, mut there) = duplex(1024);
            there.write_all(&[b'x'; size_of::<Preface>()]).await.unwrap();
            assert!(first.greet(&mut here).await.unwrap_err().to_string().contains("version"));
            assert_eq!(a.register_read(PEER_REGISTER).await.version, 0, "nobody was met");
        };
        LocalSet::new().run_until(tests).await;
    }

    fn write(osn: u64, bytes: usize) -> Frame {
        let payload: Buf = vec![osn as u8; bytes].into();
        let write = Write { file: FileId(1), offset_bytes: 0, payload, at: WallNanos(9) };
        let message = Message::Write { osn: Osn(osn), write };
        Frame { epoch: base::Epoch(1), low_water: Osn(0), message }
    }

    #[tokio::test]
    async fn frames_arrive_in_order_and_whole_and_rubbish_ends_the_link() {
        let (frames, queue) = mpsc::unbounded_channel();
        let sent: Vec<Frame> =
            [0, 1, 8192, 1 << 20, 3].iter().zip(1..).map(|(bytes, osn)| write(osn, *bytes)).collect();
        sent.iter().for_each(|frame| frames.send(frame.clone()).unwrap());
        drop(frames);
        let (here, there) = duplex(4096);
        let mut received = Vec::new();
        let carried = tokio::join!(send(PAIR, queue, here), receive(PAIR, there, |frame| received.push(frame)));
        assert!(carried.0.is_ok() && carried.1.is_err(), "it ends when the other end does");
        assert_eq!(received, sent);
        for rubbish in [vec![0xff; 64], 40u32.to_le_bytes().iter().copied().chain([7; 40]).collect()] {
            let (mut here, there) = duplex(4096);
            here.write_all(&rubbish).await.unwrap();
            let ended = receive(PAIR, there, |frame| panic!("{frame:?}")).await;
            assert!(ended.unwrap_err().get_ref().is_some_and(|error| error.is::<mirror::wire::WireFault>()));
        }
    }
}

//! The doors of a witness: TLS for sites, a socket in its folder for people on its machine.
//!
//! Questions of one connection are answered one after the other. Whoever is not a site yet
//! gets one question and little time; whoever does not read its answers is let go.
//!
//! Whoever is not known yet takes no place of a site: there is room for a few of these, and the
//! one that has been there longest makes way. So connections that say nothing keep no site out:
//! a site's handshake takes a round trip or two.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use control::{Problem, codes, mutual};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinHandle, JoinSet, spawn_local};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use witness::wire::{LENGTH_BYTES, QUESTION_BYTES_MAX, Question, payload_bytes};

use crate::desk::{Caller, Desk, refused};
use crate::folder::Folder;

const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Connections that are not known to be a site's.
const UNKNOWN_MAX: usize = 128;
/// What a stranger has for its one question.
const STRANGER_WITHIN: Duration = Duration::from_secs(10);
/// A site renews every second or two; one that is silent for this long has gone.
const IDLE_FOR: Duration = Duration::from_secs(300);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections of sites at once; another one is refused.
const CONNECTIONS_MAX: usize = 1024;

/// Open doors that nobody answers yet.
pub(crate) struct Doors {
    /// Where sites reach it.
    pub listen: SocketAddr,
    sites: TcpListener,
    people: UnixListener,
    acceptor: TlsAcceptor,
}

/// Shuts the doors when dropped.
pub(crate) struct Answering(Vec<JoinHandle<()>>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Doors {
    /// Opens both.
    pub async fn open(folder: &Folder, listen: SocketAddr, tls: Arc<ServerConfig>) -> Result<Self, Problem> {
        let refused = |error: io::Error| {
            Problem::new(&codes::PORT_IN_USE, format!("{listen} cannot be used for sites")).why(error.to_string())
        };
        let sites = TcpListener::bind(listen).await.map_err(refused)?;
        let listen = sites.local_addr().map_err(refused)?;
        let socket = folder.socket();
        // Left by a process that was killed: the folder's lock says that it has no other user.
        let _ = std::fs::remove_file(&socket);
        let people = UnixListener::bind(&socket).map_err(|error| {
            let what = format!("{} cannot be used as the witness's socket", socket.display());
            Problem::new(&codes::PATH_UNUSABLE, what).why(error.to_string())
        })?;
        Ok(Self { listen, sites, people, acceptor: TlsAcceptor::from(tls) })
    }

    /// Answers at both from now on, in tasks of the present `LocalSet`.
    pub fn answer(self, desk: &Rc<Desk>) -> Answering {
        let sites = spawn_local(answer_sites(self.sites, self.acceptor, desk.clone()));
        let people = spawn_local(answer_people(self.people, desk.clone()));
        Answering(vec![sites, people])
    }
}

/// Connections that are not known to be a site's, oldest first.
#[derive(Default)]
struct Unknown {
    last: Cell<u64>,
    waiting: RefCell<BTreeMap<u64, AbortHandle>>,
}

impl Unknown {
    fn enter(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    /// The connection `number` waits; the oldest makes way if there are too many.
    fn wait(&self, number: u64, connection: AbortHandle) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.insert(number, connection);
        if waiting.len() > UNKNOWN_MAX
            && let Some((_, oldest)) = waiting.pop_first()
        {
            oldest.abort();
        }
    }

    fn leave(&self, number: u64) {
        self.waiting.borrow_mut().remove(&number);
    }
}

async fn answer_sites(listener: TcpListener, acceptor: TlsAcceptor, desk: Rc<Desk>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let unknown = Rc::new(Unknown::default());
    // Ends with this task, and every connection with it.
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let number = unknown.enter();
        let (acceptor, desk, places, among) = (acceptor.clone(), desk.clone(), places.clone(), unknown.clone());
        let connection = open.spawn_local(async move {
            let known = || {
                among.leave(number);
                places.clone().try_acquire_owned().ok()
            };
            if let Err(error) = answer_site(stream, &acceptor, &desk, known).await {
                tracing::debug!(%from, %error, "a connection has ended");
            }
            among.leave(number);
        });
        unknown.wait(number, connection);
    }
}

async fn answer_site(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    desk: &Desk,
    known: impl FnOnce() -> Option<OwnedSemaphorePermit>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await??;
    let shown = mutual::peer(stream.get_ref().1).ok_or(io::ErrorKind::PermissionDenied)?;
    let caller = Caller::Shows(shown);
    if desk.knows(caller) {
        let _place = known().ok_or(io::ErrorKind::QuotaExceeded)?;
        while desk.knows(caller) {
            if !timeout(IDLE_FOR, answer_one(&mut stream, caller, desk)).await?? {
                return Ok(());
            }
        }
    }
    timeout(STRANGER_WITHIN, answer_one(&mut stream, caller, desk)).await??;
    stream.shutdown().await
}

async fn answer_people(listener: UnixListener, desk: Rc<Desk>) {
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let desk = desk.clone();
        open.spawn_local(async move {
            while let Ok(Ok(true)) = timeout(IDLE_FOR, answer_one(&mut stream, Caller::Local, &desk)).await {}
        });
    }
}

/// Reads a question and answers it; false at the end of the connection.
async fn answer_one<S>(stream: &mut S, caller: Caller, desk: &Desk) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut length = [0; LENGTH_BYTES];
    if let Err(error) = stream.read_exact(&mut length).await {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(false) } else { Err(error) };
    }
    let bytes = payload_bytes(length, QUESTION_BYTES_MAX).map_err(io::Error::other)?;
    let mut payload = vec![0; bytes];
    stream.read_exact(&mut payload).await?;
    let (number, answer) = match Question::read(&payload) {
        Ok((number, question)) => (number, desk.answer(caller, question).await),
        Err(fault) => {
            let problem =
                Problem::new(&codes::BAD_INPUT, "the witness does not understand this").why(fault.to_string());
            (0, refused(&problem))
        }
    };
    timeout(ANSWER_WITHIN, stream.write_all(&answer.frame(number))).await??;
    stream.flush().await?;
    Ok(true)
}

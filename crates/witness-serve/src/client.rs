//! The asking side: one connection to a witness, kept as long as it works.
//!
//! A question that got no answer may still have been carried out; the caller's `Seat` is made
//! for that. A connection that was kept and turns out dead is opened anew once, with the same
//! question: repeated questions are harmless, by the judge's rules.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::Nanos;
use base::port::Clock;
use control::problem::ProblemDocument;
use control::{Problem, codes, mutual};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use witness::wire::{ANSWER_BYTES_MAX, Answer, LENGTH_BYTES, Question, payload_bytes};
use witness::{Ask, Verdict};

use crate::membership::Membership;
use crate::{PROTOCOL, folder};

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

enum Way {
    Site { address: String, tls: Arc<ClientConfig> },
    Local(PathBuf),
}

/// See the module's head.
pub struct WitnessClient {
    way: Way,
    within: Duration,
    open: Option<Box<dyn Stream>>,
    number: u64,
}

impl WitnessClient {
    /// For a site; an answer takes at most `within`.
    ///
    /// # Errors
    /// When the site's certificate is unusable.
    pub fn of_site(membership: &Membership, within: Duration) -> Result<Self, Problem> {
        let tls = mutual::client(membership.witness, &membership.pem(), PROTOCOL)?;
        Ok(Self::by(Way::Site { address: membership.address.clone(), tls }, within))
    }

    /// For people on the machine of the witness that is served from `dir`.
    #[must_use]
    pub fn local(dir: &Path, within: Duration) -> Self {
        Self::by(Way::Local(folder::socket_in(dir)), within)
    }

    const fn by(way: Way, within: Duration) -> Self {
        Self { way, within, open: None, number: 0 }
    }

    /// Asks about a record. With the verdict comes the time by `clock` before the question
    /// left: what the holder counts its lease from (`Seat::answered`). `clock` must run on
    /// while the machine sleeps, or the holder would believe in a lease that is over.
    ///
    /// # Errors
    /// What the witness reports; `WITNESS_LOST` when it does not answer.
    pub async fn ask(&mut self, ask: &Ask, clock: &dyn Clock) -> Result<(Nanos, Verdict), Problem> {
        // Before a first try that may land: counting from later would count too much.
        let sent = clock.now();
        match self.call(&Question::Ask(*ask)).await? {
            Answer::Verdict(verdict) => Ok((sent, verdict)),
            _ => Err(self.lost("it answers something else than it was asked")),
        }
    }

    /// The document that `question` is answered with.
    ///
    /// # Errors
    /// As [`WitnessClient::ask`].
    pub async fn document<T: DeserializeOwned>(&mut self, question: &Question) -> Result<T, Problem> {
        match self.call(question).await? {
            Answer::Document(json) => serde_json::from_str(&json).map_err(|why| self.lost(&why.to_string())),
            _ => Err(self.lost("it answers something else than it was asked")),
        }
    }

    /// Where it asks.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.way {
            Way::Site { address, .. } => address.clone(),
            Way::Local(socket) => socket.display().to_string(),
        }
    }

    async fn call(&mut self, question: &Question) -> Result<Answer, Problem> {
        let called = tokio::time::timeout(self.within, self.exchange(question)).await;
        let answer = match called {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.lost(&error.to_string())),
            Err(_) => return Err(self.lost("no answer came in time")),
        };
        let Answer::Problem(json) = answer else { return Ok(answer) };
        let document: Result<ProblemDocument, _> = serde_json::from_str(&json);
        Err(document.map_or_else(|why| self.lost(&why.to_string()), Problem::from))
    }

    /// One question and its answer. The connection is kept only after a whole exchange, so an
    /// answer that comes late is never read as that of another question.
    async fn exchange(&mut self, question: &Question) -> io::Result<Answer> {
        self.number += 1;
        if let Some(mut kept) = self.open.take()
            && let Ok(answer) = once(&mut *kept, self.number, question).await
        {
            self.open = Some(kept);
            return Ok(answer);
        }
        let mut stream = self.way.open().await?;
        let answer = once(&mut *stream, self.number, question).await?;
        self.open = Some(stream);
        Ok(answer)
    }

    fn lost(&self, why: &str) -> Problem {
        match &self.way {
            Way::Site { address, .. } => {
                Problem::new(&codes::WITNESS_LOST, format!("the witness at {address} does not answer")).why(why)
            }
            Way::Local(socket) => {
                Problem::new(&codes::WITNESS_LOST, format!("no witness answers at {}", socket.display()))
                    .why(why)
                    .step("start it: vmhold witness serve --dir DIR --listen ADDR")
            }
        }
    }
}

impl Way {
    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Local(socket) => Ok(Box::new(UnixStream::connect(socket).await?)),
            Self::Site { address, tls } => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                // Names say nothing here: the witness is known by its fingerprint.
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await?))
            }
        }
    }
}

async fn once(stream: &mut dyn Stream, number: u64, question: &Question) -> io::Result<Answer> {
    stream.write_all(&question.frame(number)).await?;
    stream.flush().await?;
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await?;
    let mut payload = vec![0; payload_bytes(length, ANSWER_BYTES_MAX).map_err(io::Error::other)?];
    stream.read_exact(&mut payload).await?;
    let (answered, answer) = Answer::read(&payload).map_err(io::Error::other)?;
    // A witness that could not read the question cannot name its number.
    if answered != number && !matches!(answer, Answer::Problem(_)) {
        return Err(io::Error::other("an answer to another question"));
    }
    Ok(answer)
}

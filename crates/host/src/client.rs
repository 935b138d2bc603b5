//! The CLI's side of the API: one HTTP/1.1 request per connection over the agent's socket,
//! blocking, with a time limit. Only talks to [`crate::api`].

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use control::problem::ProblemDocument;
use control::{Document, Envelope, Problem, codes};
use serde::de::DeserializeOwned;

const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Talks to one agent.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client of the agent at `socket`; an answer takes at most `timeout`.
    #[must_use]
    pub const fn new(socket: PathBuf, timeout: Duration) -> Self {
        Self { socket, timeout }
    }

    /// The document that `method` at `path` is answered with. `body` is JSON.
    ///
    /// # Errors
    /// What the agent reports; `SERVER_UNREACHABLE` and `TIMED_OUT` when it does not answer.
    pub fn call<T: Document + DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Envelope<T>, Problem> {
        let mut stream = UnixStream::connect(&self.socket).map_err(|error| self.unreachable(&error))?;
        let limits = stream.set_read_timeout(Some(self.timeout)).and(stream.set_write_timeout(Some(self.timeout)));
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let sent = limits.and_then(|()| stream.write_all(request.as_bytes()));
        sent.map_err(|error| self.unreachable(&error))?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(|error| self.unreachable(&error))?;
        let (status, body) = split(&answer).ok_or_else(|| self.strange("its answer is not HTTP"))?;
        let strange = |error: serde_json::Error| self.strange(&error.to_string());
        if status < 300 {
            return serde_json::from_slice(body).map_err(strange);
        }
        let document: ProblemDocument = serde_json::from_slice(body).map_err(strange)?;
        Err(Problem::from(document))
    }

    fn unreachable(&self, error: &std::io::Error) -> Problem {
        let socket = self.socket.display();
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            return Problem::new(&codes::TIMED_OUT, format!("the host agent at {socket} did not answer in time"));
        }
        Problem::new(&codes::SERVER_UNREACHABLE, format!("no host agent answers at {socket}"))
            .why(error.to_string())
            .step("start it: vmhold host serve --flash PATH")
            .step("name its folder with --dir DIR")
    }

    fn strange(&self, why: &str) -> Problem {
        Problem::new(&codes::SERVER_UNREACHABLE, format!("{} does not talk like a host agent", self.socket.display()))
            .why(why)
    }
}

/// Status and body of an answer that ends with its connection. The agent sends no chunks.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, &answer[end + 4..]))
}

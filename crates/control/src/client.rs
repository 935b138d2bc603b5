//! The CLI's side of the API: one small HTTP/1.1 request per connection, blocking, with a
//! time limit. Only talks to [`crate::server`].

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::codes;
use crate::envelope::{Document, Envelope};
use crate::problem::{Problem, ProblemDocument};

const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Talks to one server.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    timeout: Duration,
}

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Call<'a> {
    /// `GET` when empty.
    pub method: &'a str,
    /// Path with query; names in it are from [`segment`].
    pub path: &'a str,
    /// JSON body.
    pub body: Option<&'a str>,
    /// Name given as confirmation of a severe step.
    pub confirm: Option<&'a str>,
}

impl Client {
    /// A client of the server at `address`; an answer takes at most `timeout`.
    #[must_use]
    pub const fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self { address, timeout }
    }

    /// The document at a path.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn get<T: Document + DeserializeOwned>(&self, path: &str) -> Result<Envelope<T>, Problem> {
        self.call(&Call { path, ..Call::default() })
    }

    /// The document a request is answered with.
    ///
    /// # Errors
    /// What the server reports; `SERVER_UNREACHABLE` and `TIMED_OUT` when it does not answer.
    pub fn call<T: Document + DeserializeOwned>(&self, call: &Call<'_>) -> Result<Envelope<T>, Problem> {
        let (status, body) = self.exchange(call)?;
        let strange = |why: serde_json::Error| self.strange(&why.to_string());
        if status < 300 {
            return serde_json::from_slice(&body).map_err(strange);
        }
        let document: ProblemDocument = serde_json::from_slice(&body).map_err(strange)?;
        Err(Problem::from(document))
    }

    /// The text at a path, for instance `/metrics`.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn text(&self, path: &str) -> Result<String, Problem> {
        let (_, body) = self.exchange(&Call { path, ..Call::default() })?;
        String::from_utf8(body).map_err(|_| self.strange("its answer is not text"))
    }

    fn exchange(&self, call: &Call<'_>) -> Result<(u16, Vec<u8>), Problem> {
        let mut stream =
            TcpStream::connect_timeout(&self.address, self.timeout).map_err(|why| self.unreachable(&why))?;
        let limits = stream.set_read_timeout(Some(self.timeout)).and(stream.set_write_timeout(Some(self.timeout)));
        limits.and(stream.write_all(self.request(call).as_bytes())).map_err(|why| self.unreachable(&why))?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(|why| self.unreachable(&why))?;
        split(&answer).ok_or_else(|| self.strange("its answer is not the HTTP of vmhold"))
    }

    fn request(&self, call: &Call<'_>) -> String {
        let method = if call.method.is_empty() { "GET" } else { call.method };
        let body = call.body.unwrap_or_default();
        let confirm = call.confirm.map(|name| format!("Confirm: {name}\r\n")).unwrap_or_default();
        format!(
            "{method} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n{confirm}Content-Length: {}\r\n\r\n{body}",
            call.path,
            self.address,
            body.len()
        )
    }

    fn unreachable(&self, why: &std::io::Error) -> Problem {
        if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            return Problem::new(&codes::TIMED_OUT, format!("{} did not answer in time", self.address));
        }
        Problem::new(&codes::SERVER_UNREACHABLE, format!("nothing answers at {}", self.address)).why(why.to_string())
    }

    fn strange(&self, why: &str) -> Problem {
        Problem::new(&codes::SERVER_UNREACHABLE, format!("{} does not talk like vmhold", self.address)).why(why)
    }
}

/// A name as one segment of a path.
#[must_use]
pub fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Status and body of an answer that ends with its connection.
fn split(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let mut body = answer[end + 4..].to_vec();
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            let length: usize = value.trim().parse().ok()?;
            if body.len() < length {
                return None;
            }
            body.truncate(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
    }
    Some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_split_and_a_cut_one_is_refused() {
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(split(answer), Some((404, b"{}".to_vec())));
        assert_eq!(split(&answer[..answer.len() - 1]), None);
        assert_eq!(split(b"SSH-2.0-x\r\n\r\n"), None);
    }

    #[test]
    fn names_are_one_segment() {
        assert_eq!(segment("vms-1"), "vms-1");
        assert_eq!(segment("a/b c"), "a%2Fb%20c");
    }

    #[test]
    fn nobody_there_is_exit_8() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let problem = Client::new(address, Duration::from_secs(1)).text("/metrics").unwrap_err();
        assert_eq!(problem.exit(), crate::Exit::Unreachable);
    }
}

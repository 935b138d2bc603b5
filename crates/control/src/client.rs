//! The CLI's side of the API: one small HTTP/1.1 request per connection, blocking, with a
//! time limit, over TLS to the server with the fingerprint we know. Only talks to
//! [`crate::server`].

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde::de::DeserializeOwned;

use crate::access::Secret;
use crate::codes;
use crate::envelope::{Document, Envelope};
use crate::plan::Plan;
use crate::problem::{Problem, ProblemDocument};
use crate::tls::{self, Fingerprint};

const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// A stream that is silent for so long is dead: its server beats every two seconds.
const SILENCE_MAX: Duration = Duration::from_secs(10);

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Talks to one server.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    timeout: Duration,
    trust: Arc<ClientConfig>,
    token: Option<Secret>,
}

/// A request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call<'a> {
    /// `GET` when empty.
    pub method: &'a str,
    /// Path with query; names in it are from [`segment`].
    pub path: &'a str,
    /// JSON body.
    pub body: Option<&'a str>,
    /// Name given as confirmation of a severe step.
    pub confirm: Option<&'a str>,
    /// Only plan it.
    pub dry_run: bool,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed<T> {
    /// It was made.
    Done(Envelope<T>),
    /// It was planned.
    Planned(Envelope<Plan>),
}

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `status`, `event`, `beat`.
    pub name: String,
    /// One line of JSON.
    pub data: String,
    /// To resume after it.
    pub id: Option<String>,
}

impl Client {
    /// A client of the server at `address` that shows `fingerprint`; an answer takes at most
    /// `timeout`.
    #[must_use]
    pub fn new(address: SocketAddr, fingerprint: Fingerprint, timeout: Duration) -> Self {
        Self { address, timeout, trust: tls::client(fingerprint), token: None }
    }

    /// Where the server is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Goes with this token.
    #[must_use]
    pub fn with_token(mut self, token: Secret) -> Self {
        self.token = Some(token);
        self
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
        serde_json::from_slice(&self.good(call)?).map_err(|why| self.strange(&why.to_string()))
    }

    /// Makes a change, or plans it if the call says so.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn change<T: Document + DeserializeOwned>(&self, call: &Call<'_>) -> Result<Changed<T>, Problem> {
        if call.dry_run { self.call(call).map(Changed::Planned) } else { self.call(call).map(Changed::Done) }
    }

    /// The text at a path, for instance `/metrics`.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn text(&self, path: &str) -> Result<String, Problem> {
        let body = self.good(&Call { path, ..Call::default() })?;
        String::from_utf8(body).map_err(|_| self.strange("its answer is not text"))
    }

    /// Reads a stream, message by message, until `each` says that it is enough or the
    /// connection ends. A stream that ended can be resumed after the last `id`.
    ///
    /// # Errors
    /// See [`Client::call`]; what `each` returns.
    pub fn stream(&self, path: &str, mut each: impl FnMut(Message) -> Result<bool, Problem>) -> Result<(), Problem> {
        let mut reader = BufReader::new(self.send(&Call { path, ..Call::default() }, SILENCE_MAX)?);
        let (status, is_chunked) = self.head(&mut reader)?;
        if status >= 300 || !is_chunked {
            let mut body = Vec::new();
            reader.take(ANSWER_BYTES_MAX).read_to_end(&mut body).map_err(|why| self.unreachable(&why))?;
            return Err(self.refusal(&body));
        }
        let mut lines = Lines::default();
        while let Some(chunk) = chunk(&mut reader).map_err(|why| self.unreachable(&why))? {
            for message in lines.feed(&chunk) {
                if !each(message)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn head(&self, reader: &mut impl BufRead) -> Result<(u16, bool), Problem> {
        let mut line = String::new();
        reader.read_line(&mut line).map_err(|why| self.unreachable(&why))?;
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| self.strange("its answer is not the HTTP of vmhold"))?;
        let mut is_chunked = false;
        loop {
            line.clear();
            reader.read_line(&mut line).map_err(|why| self.unreachable(&why))?;
            if line.trim().is_empty() {
                return Ok((status, is_chunked));
            }
            is_chunked |= line.to_ascii_lowercase().trim() == "transfer-encoding: chunked";
        }
    }

    fn good(&self, call: &Call<'_>) -> Result<Vec<u8>, Problem> {
        let (status, body) = self.exchange(call)?;
        if status < 300 { Ok(body) } else { Err(self.refusal(&body)) }
    }

    fn refusal(&self, body: &[u8]) -> Problem {
        match serde_json::from_slice::<ProblemDocument>(body) {
            Ok(document) => Problem::from(document),
            Err(why) => self.strange(&why.to_string()),
        }
    }

    fn exchange(&self, call: &Call<'_>) -> Result<(u16, Vec<u8>), Problem> {
        let mut answer = Vec::new();
        let read = self.send(call, self.timeout)?.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
        match read {
            // A server that just closes has said all the same what its length field promised.
            Err(why) if why.kind() != ErrorKind::UnexpectedEof => return Err(self.unreachable(&why)),
            _ => {}
        }
        split(&answer).ok_or_else(|| self.strange("its answer is not the HTTP of vmhold"))
    }

    fn send(&self, call: &Call<'_>, silence: Duration) -> Result<Stream, Problem> {
        let unreachable = |why: std::io::Error| self.unreachable(&why);
        let socket = TcpStream::connect_timeout(&self.address, self.timeout).map_err(unreachable)?;
        socket.set_read_timeout(Some(silence)).map_err(unreachable)?;
        socket.set_write_timeout(Some(self.timeout)).map_err(unreachable)?;
        let name = ServerName::from(self.address.ip());
        let connection = ClientConnection::new(self.trust.clone(), name);
        let connection = connection.map_err(|why| self.strange(&why.to_string()))?;
        let mut stream = StreamOwned::new(connection, socket);
        stream.write_all(self.request(call).as_bytes()).and_then(|()| stream.flush()).map_err(unreachable)?;
        Ok(stream)
    }

    fn request(&self, call: &Call<'_>) -> String {
        let Call { method, path, body, confirm, dry_run } = *call;
        let method = if method.is_empty() { "GET" } else { method };
        let body = body.unwrap_or_default();
        let confirm = confirm.map(|name| format!("Confirm: {}\r\n", segment(name))).unwrap_or_default();
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {}\r\n", token.text()));
        let token = token.unwrap_or_default();
        let dry_run = match (dry_run, path.contains('?')) {
            (false, _) => "",
            (true, false) => "?dry_run=true",
            (true, true) => "&dry_run=true",
        };
        format!(
            "{method} {path}{dry_run} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n{confirm}{token}Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
    }

    fn unreachable(&self, why: &std::io::Error) -> Problem {
        if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            return Problem::new(&codes::TIMED_OUT, format!("{} did not answer in time", self.address));
        }
        if why.kind() == ErrorKind::InvalidData {
            // rustls puts its own words into such errors.
            let what = format!("{} is not the server we know", self.address);
            return Problem::new(&codes::SERVER_UNREACHABLE, what)
                .why(why.to_string())
                .step("compare its fingerprint with the one shown at its first start")
                .step("another store may use that address now: vmhold status --dir DIR");
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

/// One chunk of a chunked body; `None` at its end.
fn chunk(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let length = usize::from_str_radix(line.trim(), 16).map_err(|_| ErrorKind::InvalidInput)?;
    if length == 0 || length as u64 > ANSWER_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; length + 2];
    reader.read_exact(&mut bytes)?;
    bytes.truncate(length);
    Ok(Some(bytes))
}

/// Messages out of the lines of a stream, whatever pieces they come in.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
    name: String,
    data: String,
    id: Option<String>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.pending.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            messages.extend(self.line(String::from_utf8_lossy(&line).trim_end()));
        }
        messages
    }

    fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            return (!data.is_empty()).then(|| Message { name, data, id: self.id.clone() });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => self.data.push_str(value),
            "id" => self.id = Some(value.to_owned()),
            _ => {}
        }
        None
    }
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
    fn messages_come_out_whole_in_whatever_pieces_they_come_in() {
        let text = b"event: event\nid: 7\ndata: {\"a\":1}\n\n: comment\nevent: beat\ndata: {}\n\n";
        let expected = [("event", "{\"a\":1}", Some("7")), ("beat", "{}", Some("7"))];
        for size in [1, 3, 1000] {
            let mut lines = Lines::default();
            let all: Vec<Message> = text.chunks(size).flat_map(|piece| lines.feed(piece)).collect();
            let seen: Vec<_> = all.iter().map(|m| (m.name.as_str(), m.data.as_str(), m.id.as_deref())).collect();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn nobody_there_is_exit_8() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let fingerprint = "0".repeat(64).parse().unwrap();
        let problem = Client::new(address, fingerprint, Duration::from_secs(1)).text("/metrics").unwrap_err();
        assert_eq!(problem.exit(), crate::Exit::Unreachable);
    }
}

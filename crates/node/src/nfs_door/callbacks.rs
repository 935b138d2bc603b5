//! Calls to clients' lock managers: grants and answers of message-style requests.
//!
//! Each is a short exchange: ask the client's portmapper for the port, call, hear the
//! answer. A client that cannot be reached is left alone; it asks again by itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::store::Store;
use nfs::{Callback, Lookup, Service, Transport, nlm, portmap};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

/// Exchanges at a time.
const AT_ONCE_MAX: usize = 16;
/// How long one may take.
const EXCHANGE_TIME: Duration = Duration::from_secs(5);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Transaction ids need to be unique per connection only, and there is one call on each.
const XID: u32 = 1;

/// Sends what the lock manager wants clients to hear, for ever. Must run inside a
/// `LocalSet`.
pub async fn call_clients<S: Store>(service: Rc<Service<S>>) {
    let places = Arc::new(Semaphore::new(AT_ONCE_MAX));
    loop {
        let callback = service.nlm().next_callback().await;
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let service = service.clone();
        tokio::task::spawn_local(async move {
            let exchange = tokio::time::timeout(EXCHANGE_TIME, send(&callback)).await;
            let answer = exchange.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            if let Err(error) = &answer {
                tracing::debug!(client = %callback.to, %error, "cannot call a client's lock manager");
            }
            service.callback_answered(callback, answer.as_deref().ok()).await;
            drop(place);
        });
    }
}

async fn send(callback: &Callback) -> io::Result<Vec<u8>> {
    let lookup = Lookup { program: nlm::PROGRAM, version: callback.version, transport: Transport::Tcp };
    let mut mapper = connect(callback.from, SocketAddr::new(callback.to, portmap::PORT)).await?;
    let answer = exchange(&mut mapper, &lookup.message(XID)).await?;
    let port = Lookup::port(&answer, XID).ok_or(io::ErrorKind::NotFound)?;
    let mut manager = connect(callback.from, SocketAddr::new(callback.to, port)).await?;
    exchange(&mut manager, &callback.message(XID)).await
}

async fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

/// Sends one message as one record and reads one record of one fragment back.
pub(super) async fn exchange(stream: &mut TcpStream, message: &[u8]) -> io::Result<Vec<u8>> {
    const LAST_FRAGMENT: u32 = 1 << 31;
    let mark = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)? | LAST_FRAGMENT;
    stream.write_all(&[&mark.to_be_bytes()[..], message].concat()).await?;
    let mark = stream.read_u32().await?;
    let len = (mark & !LAST_FRAGMENT) as usize;
    if mark & LAST_FRAGMENT == 0 || len > ANSWER_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut answer = vec![0; len];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

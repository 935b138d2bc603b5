//! Registration with the machine's own rpcbind, where one runs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use nfs::{Mapping, Registration, portmap};
use tokio::net::{TcpSocket, TcpStream};

use super::callbacks::exchange;

const EXCHANGE_TIME: Duration = Duration::from_secs(2);
/// rpcbind believes only callers with a port that root alone may use.
const RESERVED_PORTS: std::ops::Range<u16> = 700..1000;
const XID: u32 = 1;

/// Tells rpcbind about every mapping, replacing what it knew of these programs. `false`
/// if there is no rpcbind or it refuses.
pub async fn register(mappings: &[Mapping]) -> bool {
    unregister(mappings).await && each(mappings, Registration::set).await
}

/// Takes every mapping back. `false` if there is no rpcbind.
pub async fn unregister(mappings: &[Mapping]) -> bool {
    let mut is_reached = true;
    for mapping in mappings {
        // Taking back what was not there is refused, which is as good.
        is_reached &= ask(&Registration { mapping: *mapping }.unset(XID)).await.is_ok();
    }
    is_reached
}

async fn each(mappings: &[Mapping], message: fn(&Registration, u32) -> Vec<u8>) -> bool {
    for mapping in mappings {
        let answer = ask(&message(&Registration { mapping: *mapping }, XID)).await;
        if !answer.is_ok_and(|answer| Registration::is_done(&answer, XID)) {
            return false;
        }
    }
    true
}

async fn ask(message: &[u8]) -> io::Result<Vec<u8>> {
    let talk = async {
        let mut stream = connect().await?;
        exchange(&mut stream, message).await
    };
    tokio::time::timeout(EXCHANGE_TIME, talk).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn connect() -> io::Result<TcpStream> {
    let mapper = SocketAddr::from((Ipv4Addr::LOCALHOST, portmap::PORT));
    for port in RESERVED_PORTS {
        let socket = TcpSocket::new_v4()?;
        match socket.bind((Ipv4Addr::LOCALHOST, port).into()) {
            Ok(()) => return socket.connect(mapper).await,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            Err(_) => {}
        }
    }
    TcpStream::connect(mapper).await
}

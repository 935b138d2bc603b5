//! Reads and writes that are whole: servers may answer with fewer bytes than asked.

use bytes::{Bytes, BytesMut};

use crate::nfs3::{FileHandle, NfsClient, NfsError, Stable};

/// Why a transfer was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The call failed.
    #[error(transparent)]
    Nfs(#[from] NfsError),
    /// A stable write was answered as less than that.
    #[error("server says the write is not stable (committed {0})")]
    NotStable(u32),
    /// The server took or gave nothing, again and again it would.
    #[error("server moved no byte")]
    NoProgress,
}

/// Reads `length` bytes; what lies beyond the end of the file reads as zeros.
pub async fn read_whole(
    client: &NfsClient,
    file: &FileHandle,
    offset_bytes: u64,
    length: u32,
) -> Result<Bytes, TransferError> {
    let first = client.read(file, offset_bytes, length).await?;
    if first.data.len() == length as usize {
        return Ok(first.data);
    }
    let mut whole = BytesMut::with_capacity(length as usize);
    whole.extend_from_slice(&first.data);
    let mut eof = first.eof;
    while whole.len() < length as usize && !eof {
        let next = client.read(file, offset_bytes + whole.len() as u64, length - whole.len() as u32).await?;
        if next.data.is_empty() && !next.eof {
            return Err(TransferError::NoProgress);
        }
        whole.extend_from_slice(&next.data);
        eof = next.eof;
    }
    whole.resize(length as usize, 0);
    Ok(whole.freeze())
}

/// Writes `length` bytes that `fill` appends, stable when this returns.
pub async fn write_whole(
    client: &NfsClient,
    file: &FileHandle,
    (offset_bytes, length): (u64, u32),
    fill: impl Fn(&mut Vec<u8>),
) -> Result<(), TransferError> {
    let reply = client.write_with(file, (offset_bytes, length), Stable::FileSync, &fill).await?;
    let mut written = stable(&reply)?;
    if written == length as usize {
        return Ok(());
    }
    let mut whole = Vec::with_capacity(length as usize);
    fill(&mut whole);
    while written < whole.len() {
        let reply = client.write(file, offset_bytes + written as u64, Stable::FileSync, &whole[written..]).await?;
        written += stable(&reply)?;
    }
    Ok(())
}

fn stable(reply: &crate::nfs3::WriteReply) -> Result<usize, TransferError> {
    match (reply.committed, reply.count) {
        (_, 0) => Err(TransferError::NoProgress),
        (2, count) => Ok(count as usize),
        (less, _) => Err(TransferError::NotStable(less)),
    }
}

/// Polls all of a few futures to their ends.
pub(crate) async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut all = true;
        for (future, output) in &mut pending {
            if output.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *output = Some(value);
            }
            all &= output.is_some();
        }
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

//! A drive that does what it is ordered to do wrong.
//!
//! Flushes are passed on: a write that was lost, moved or torn is as durable as any other.

use std::rc::Rc;
use std::time::Duration;

use base::port::{Drive, DriveInfo, LocalFuture, MediaFault};
use base::{Buf, BufMut};

use super::{Act, Asked, Injector, Place, after};

/// See the module's head.
pub(super) struct FaultyDrive {
    inner: Rc<dyn Drive>,
    injector: Rc<Injector>,
    info: DriveInfo,
}

impl FaultyDrive {
    /// `inner`, with the faults that `injector` knows for it.
    pub fn new(inner: Rc<dyn Drive>, injector: Rc<Injector>) -> FaultyDrive {
        let info = inner.info();
        FaultyDrive { inner, injector, info }
    }

    fn strike(&self, asked: Asked, offset_bytes: u64, len_bytes: usize) -> Option<Act> {
        let place = Place {
            offset_bytes,
            len_bytes: len_bytes as u64,
            capacity_bytes: self.info.capacity_bytes,
            align_bytes: u64::from(self.info.align_bytes),
        };
        self.injector.strike(&self.info.serial, asked, place)
    }

    async fn wait(&self, delay: Duration) {
        let clock = &self.injector.world.clock;
        clock.sleep_until(after(clock.now(), delay)).await;
    }
}

fn flip(bytes: &mut [u8], bit: u64) {
    if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| bytes.get_mut(at)) {
        *byte ^= 1 << (bit % 8);
    }
}

/// The first `len_bytes` of `data`, in one piece.
fn cut(data: &[Buf], len_bytes: u64) -> Option<Buf> {
    let whole = BufMut::joined(data).freeze();
    let len = usize::try_from(len_bytes).ok().filter(|len| (1..=whole.len()).contains(len))?;
    Some(whole.slice(..len))
}

impl Drive for FaultyDrive {
    fn info(&self) -> DriveInfo {
        self.inner.info()
    }

    fn read(&self, offset_bytes: u64, buf: BufMut) -> LocalFuture<'_, (Result<(), MediaFault>, BufMut)> {
        match self.strike(Asked::Read, offset_bytes, buf.len()) {
            Some(Act::Wait(delay)) => Box::pin(async move {
                self.wait(delay).await;
                self.inner.read(offset_bytes, buf).await
            }),
            Some(Act::Refuse) => Box::pin(std::future::ready((Err(MediaFault::Io), buf))),
            Some(Act::Flip(bit)) => Box::pin(async move {
                let (outcome, mut buf) = self.inner.read(offset_bytes, buf).await;
                flip(&mut buf, bit);
                (outcome, buf)
            }),
            _ => self.inner.read(offset_bytes, buf),
        }
    }

    fn write(&self, offset_bytes: u64, data: Vec<Buf>) -> LocalFuture<'_, Result<(), MediaFault>> {
        match self.strike(Asked::Write, offset_bytes, data.iter().map(Buf::len).sum()) {
            None => self.inner.write(offset_bytes, data),
            Some(Act::Wait(delay)) => Box::pin(async move {
                self.wait(delay).await;
                self.inner.write(offset_bytes, data).await
            }),
            Some(Act::Refuse) => Box::pin(std::future::ready(Err(MediaFault::Io))),
            Some(Act::Lose) => Box::pin(std::future::ready(Ok(()))),
            Some(Act::Move(elsewhere)) => self.inner.write(elsewhere, data),
            Some(Act::Cut(len_bytes)) => match cut(&data, len_bytes) {
                Some(part) => self.inner.write(offset_bytes, vec![part]),
                None => Box::pin(std::future::ready(Ok(()))),
            },
            Some(Act::Flip(bit)) => {
                let mut whole = BufMut::joined(&data);
                flip(&mut whole, bit);
                self.inner.write(offset_bytes, vec![whole.freeze()])
            }
        }
    }

    fn flush(&self) -> LocalFuture<'_, Result<(), MediaFault>> {
        self.inner.flush()
    }
}

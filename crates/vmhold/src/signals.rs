//! SIGTERM and SIGINT, caught from the moment this exists: one that comes early is not lost.

use std::io;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Both signals, in the runtime they were made in.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches them from now on. Needs a runtime with signals.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Completes with the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Catches them on a thread of its own, for a server whose runtime is made later. The
/// first one completes the receiver, after `seen` was called on that thread.
pub fn first_signal(seen: impl FnOnce() + Send + 'static) -> io::Result<oneshot::Receiver<()>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut signals = Signals::catch()?;
    drop(entered);
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(signals.next());
        seen();
        // Nobody listens when the server stops already.
        let _ = tell.send(());
    })?;
    Ok(told)
}

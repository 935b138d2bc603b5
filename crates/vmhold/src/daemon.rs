//! What `serve`, `host serve` and `witness serve` have in common: when they end, and what the
//! service manager hears of it.

use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use control::{Exit, Problem, codes};
use sd_notify::NotifyState;
use tokio::sync::oneshot;

use crate::signals::first_signal;

/// What a starter says on standard input when the server shall outlive it.
pub const DETACH: &str = "detach";

/// The first signal that ends a server.
pub struct Ending {
    serving: Arc<AtomicBool>,
    signalled: oneshot::Receiver<()>,
}

impl Ending {
    /// Catches signals from now on.
    ///
    /// # Errors
    /// When the system lets nobody catch them.
    pub fn catch() -> Result<Ending, Problem> {
        let serving = Arc::new(AtomicBool::new(false));
        let is_serving = serving.clone();
        // Before the doors are open there is nothing to bring to an end: all that was
        // acknowledged is on the medium that acknowledged it.
        let signalled = first_signal(move || {
            if !is_serving.load(Ordering::Acquire) {
                std::process::exit(Exit::Interrupted.number().into());
            }
        });
        let signalled =
            signalled.map_err(|error| Problem::new(&codes::BUG, "signals cannot be caught").why(error.to_string()))?;
        Ok(Ending { serving, signalled })
    }

    /// To be called when every door is open: from then on a signal lets the work end.
    pub fn doors_open(&self) -> impl FnOnce() + 'static {
        let serving = self.serving.clone();
        move || serving.store(true, Ordering::Release)
    }

    /// Completes with the signal.
    pub async fn signalled(self) {
        // Either a signal came or its thread is gone: both mean the end.
        let _ = self.signalled.await;
    }
}

/// Says that the doors are open.
pub fn tell_ready() {
    notify(NotifyState::Ready);
}

/// Says that the end has begun.
pub fn tell_stopping() {
    tracing::info!("stopping");
    notify(NotifyState::Stopping);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager did not take the state");
    }
}

/// Completes when this process shall stop.
pub async fn told_to_stop(ending: Ending, until_eof: bool) {
    let (tell, told) = oneshot::channel();
    if until_eof {
        std::thread::spawn(move || starter_is_gone(tell));
    }
    let orphaned = async {
        // Without news the starter is still there, or has let go.
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = ending.signalled() => {}
        () = orphaned => {}
    }
    tell_stopping();
}

/// Reads standard input to its end; tells unless it said [`DETACH`].
fn starter_is_gone(tell: oneshot::Sender<()>) {
    let mut line = String::new();
    // An error is an end, too.
    let _ = std::io::stdin().lock().read_line(&mut line);
    if line.trim() != DETACH {
        // Nobody listens when the server stops already.
        let _ = tell.send(());
    }
}

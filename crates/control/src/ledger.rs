//! Where lines are kept for longer than a process lives: a port, because this crate knows
//! no files.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps lines in order.
pub trait Ledger: Send + Sync {
    /// Appends one line, without a line break in it.
    ///
    /// # Errors
    /// When the line is not kept.
    fn append(&self, line: &str) -> io::Result<()>;
}

/// Lines in memory, for tests and for tools that have no folder.
#[derive(Clone, Debug, Default)]
pub struct MemoryLedger(Arc<Mutex<Vec<String>>>);

impl MemoryLedger {
    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Ledger for MemoryLedger {
    fn append(&self, line: &str) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        Ok(())
    }
}

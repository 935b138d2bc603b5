//! Where the witness's records are kept.
//!
//! One contract, several keepers: a file in the witness's own folder, an etcd cluster, a
//! map in memory for tests. A keeper must never answer with an older record than it once
//! acknowledged, and never with a damaged one as if there were none.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;

use base::PairId;

use crate::record::{Malformed, Standing};

/// Why a keeper could not do what was asked; nothing is known to have changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerFault {
    /// It does not answer. A write may or may not have happened.
    #[error("the witness's records cannot be reached: {0}")]
    Unreachable(String),
    /// What it holds is no record.
    #[error("a record of the witness is unusable: {0}")]
    Malformed(#[from] Malformed),
}

/// Durable records by datastore, changed by compare-and-set.
pub trait Ledger {
    /// All records.
    fn load(&self) -> impl Future<Output = Result<Vec<Standing>, LedgerFault>>;

    /// Writes `next` durably if the present record of its datastore has version `before`
    /// (0: there is none). Returns whether it did.
    fn replace(&self, before: u64, next: &Standing) -> impl Future<Output = Result<bool, LedgerFault>>;
}

/// A ledger in memory, for tests and models.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    records: RefCell<BTreeMap<PairId, Standing>>,
}

impl Ledger for MemoryLedger {
    async fn load(&self) -> Result<Vec<Standing>, LedgerFault> {
        Ok(self.records.borrow().values().copied().collect())
    }

    async fn replace(&self, before: u64, next: &Standing) -> Result<bool, LedgerFault> {
        let mut records = self.records.borrow_mut();
        let present = records.get(&next.pair).map_or(0, |standing| standing.version);
        if present == before {
            records.insert(next.pair, *next);
        }
        Ok(present == before)
    }
}

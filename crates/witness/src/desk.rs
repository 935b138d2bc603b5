//! The witness at work: questions in, durable records and answers out.
//!
//! A change whose fate is not known (the write failed, or nobody waited for it) puts its record in
//! doubt: whoever it would name may act on it already. Nothing about it is answered until the ledger
//! has been read again, but a renewal of whoever is primary either way: the lease of a holder who
//! may not be in the record any more is not renewed.
//!
//! Costs per question: a renewal touches memory only; a change is one durable write of the
//! ledger. A hundred pairs that renew every second or two are a few hundred small messages.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use base::time::{Nanos, WallNanos};
use base::{PairId, SiteId};

use crate::judge::{Ask, AskKind, Grounds, Lease, Refusal, Verdict, judge};
use crate::lease::Grant;
use crate::ledger::{Ledger, LedgerFault};
use crate::record::Standing;

/// Records of the past that are kept in memory for people, per datastore.
const HISTORY_MAX: usize = 64;

/// What the witness knows of one datastore.
#[derive(Debug, Default)]
struct File {
    standing: Option<Standing>,
    grant: Option<Grant>,
    heard: BTreeMap<SiteId, Nanos>,
    /// What sites told a witness without memory.
    told: BTreeMap<SiteId, Standing>,
    history: Vec<Standing>,
    /// What a change that was begun would make of it, while nobody knows whether that was kept.
    in_doubt: Option<Standing>,
}

/// One datastore as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The record.
    pub standing: Standing,
    /// What is left of the primary's lease.
    pub lease_left: Duration,
    /// How long ago each site was heard; a site that is not here was not heard since the start.
    pub heard_ago: Vec<(SiteId, Duration)>,
    /// The latest changes, oldest first, since the start of this witness.
    pub history: Vec<Standing>,
}

/// The witness: a ledger and the leases that run.
pub struct Witness<L> {
    ledger: L,
    files: RefCell<BTreeMap<PairId, File>>,
}

impl<L: Ledger> Witness<L> {
    /// Opens the records. Leases that its predecessor granted may still run: each counts
    /// anew from now (W3).
    ///
    /// # Errors
    /// The ledger's; a witness that cannot read its records answers nothing.
    pub async fn open(ledger: L, now: Nanos) -> Result<Self, LedgerFault> {
        let files = ledger.load().await?.into_iter().map(|standing| {
            let grant = Some(Grant::from(now, standing.lease()));
            (standing.pair, File { standing: Some(standing), grant, history: vec![standing], ..File::default() })
        });
        let files = RefCell::new(files.collect());
        Ok(Self { ledger, files })
    }

    /// Answers one question. The caller asks one after the other per datastore.
    ///
    /// # Errors
    /// The ledger's. The change may or may not have been kept then, so the record is read
    /// again before the next answer.
    pub async fn answer(&self, ask: &Ask, now: Nanos, wall: WallNanos) -> Result<Verdict, LedgerFault> {
        if let Err(fault) = self.resolve_doubt(ask.pair, now).await
            && !self.holds_either_way(ask)
        {
            return Err(fault);
        }
        let answered = self.decide(ask, now, wall).await;
        self.forget_unfounded(ask.pair);
        answered
    }

    async fn decide(&self, ask: &Ask, now: Nanos, wall: WallNanos) -> Result<Verdict, LedgerFault> {
        let (before, verdict) = self.judged(ask, now, wall);
        let (Ok(lease), Some(next)) = (verdict.outcome, verdict.standing) else { return Ok(verdict) };
        if before != Some(next) {
            let version = before.map_or(0, |standing| standing.version);
            // Before the write, since whoever waits for it may go away.
            self.doubt(ask.pair, Some(next));
            let kept = self.ledger.replace(version, &next).await;
            if !matches!(kept, Ok(true)) {
                self.resolve_doubt(ask.pair, now).await?;
                kept?;
                return Ok(Verdict { outcome: Err(Refusal::Stale), standing: self.standing(ask.pair) });
            }
            self.doubt(ask.pair, None);
        }
        self.keep(ask, next, lease, now);
        Ok(verdict)
    }

    fn judged(&self, ask: &Ask, now: Nanos, wall: WallNanos) -> (Option<Standing>, Verdict) {
        let mut files = self.files.borrow_mut();
        let file = files.entry(ask.pair).or_default();
        file.heard.insert(ask.from, now);
        // Only the two sites of the record that is told know anything of it.
        if let AskKind::Restore { known } = ask.kind
            && known.pair == ask.pair
            && known.names(ask.from)
        {
            file.told.insert(ask.from, known);
        }
        let names_both = |site: SiteId, told: &Standing| site != ask.from && told.names(ask.from);
        let grounds = Grounds {
            lease_left: file.grant.map_or(Duration::ZERO, |grant| grant.left(now)),
            told_by_other: file.told.iter().find(|(site, told)| names_both(**site, told)).map(|(_, told)| *told),
            wall,
        };
        let verdict = judge(file.standing.as_ref(), ask, &grounds);
        (file.standing, verdict)
    }

    fn keep(&self, ask: &Ask, next: Standing, lease: Lease, now: Nanos) {
        let mut files = self.files.borrow_mut();
        let file = files.entry(next.pair).or_default();
        if file.standing != Some(next) {
            file.history.push(next);
            let surplus = file.history.len().saturating_sub(HISTORY_MAX);
            file.history.drain(..surplus);
        }
        file.standing = Some(next);
        match lease {
            Lease::Runs => file.grant = Some(Grant::from(now, next.lease())),
            Lease::Over => file.grant = Some(Grant::ended(now)),
            Lease::Unchanged => {}
        }
        if matches!(ask.kind, AskKind::Restore { .. }) {
            // Whoever is primary may hold a lease from before the memory was lost.
            file.grant = Some(Grant::from(now, next.lease()));
            file.told.clear();
        }
    }

    /// A renewal of whoever is primary in the record as it was and in the one it may be.
    fn holds_either_way(&self, ask: &Ask) -> bool {
        let files = self.files.borrow();
        let known = files.get(&ask.pair).map(|file| [file.standing, file.in_doubt]);
        let AskKind::Renew { epoch } = ask.kind else { return false };
        let holds = |standing: Standing| standing.primary == ask.from && standing.epoch == epoch;
        known.is_some_and(|both| both.into_iter().all(|one| one.is_some_and(holds)))
    }

    fn doubt(&self, pair: PairId, in_doubt: Option<Standing>) {
        if let Some(file) = self.files.borrow_mut().get_mut(&pair) {
            file.in_doubt = in_doubt;
        }
    }

    /// Reads a record in doubt again. A lease that runs goes on where the record is as it was
    /// known; under another one nothing is known, so it starts anew.
    async fn resolve_doubt(&self, pair: PairId, now: Nanos) -> Result<(), LedgerFault> {
        if self.files.borrow().get(&pair).is_none_or(|file| file.in_doubt.is_none()) {
            return Ok(());
        }
        let kept = self.ledger.load().await?.into_iter().find(|standing| standing.pair == pair);
        let mut files = self.files.borrow_mut();
        let file = files.entry(pair).or_default();
        if file.standing != kept {
            file.standing = kept;
            file.grant = kept.map(|standing| Grant::from(now, standing.lease()));
            file.history.extend(kept);
        }
        file.in_doubt = None;
        Ok(())
    }

    /// A question about a datastore without a record leaves nothing behind, unless a site told
    /// what it knows of it.
    fn forget_unfounded(&self, pair: PairId) {
        let is_empty = |file: &File| file.standing.is_none() && file.told.is_empty() && file.in_doubt.is_none();
        let mut files = self.files.borrow_mut();
        if files.get(&pair).is_some_and(is_empty) {
            files.remove(&pair);
        }
    }

    /// Datastores that something is kept of.
    #[must_use]
    pub fn count(&self) -> usize {
        self.files.borrow().len()
    }

    /// Whether anything is kept of this one.
    #[must_use]
    pub fn keeps(&self, pair: PairId) -> bool {
        self.files.borrow().contains_key(&pair)
    }

    /// The record of one datastore.
    #[must_use]
    pub fn standing(&self, pair: PairId) -> Option<Standing> {
        self.files.borrow().get(&pair).and_then(|file| file.standing)
    }

    /// Everything, for people.
    #[must_use]
    pub fn view(&self, now: Nanos) -> Vec<View> {
        let files = self.files.borrow();
        let with_record = files.values().filter_map(|file| file.standing.map(|standing| (file, standing)));
        let view = |(file, standing): (&File, Standing)| View {
            standing,
            lease_left: file.grant.map_or(Duration::ZERO, |grant| grant.left(now)),
            heard_ago: file.heard.iter().map(|(site, at)| (*site, now.since(*at))).collect(),
            history: file.history.clone(),
        };
        with_record.map(view).collect()
    }
}

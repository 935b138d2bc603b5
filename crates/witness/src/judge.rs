//! What the witness answers: a table of (record, lease, question), nothing else.
//!
//! | ask | who may | needs | then |
//! |---|---|---|---|
//! | found | anybody | no record | primary = asker, epoch 1, alone |
//! | look | anybody | a record | |
//! | renew | primary of this epoch | | lease runs anew |
//! | join | primary | no secondary | secondary named, not in sync |
//! | leave | primary | a secondary | no secondary, not in sync |
//! | go alone | primary | | not in sync, in any case a new version |
//! | in sync | primary | a secondary | in sync |
//! | hand over | primary | in sync; it has stopped | secondary is primary, epoch + 1, in sync, lease over |
//! | take over | secondary | in sync, lease over | secondary is primary, epoch + 1, not in sync |
//! | force | secondary | lease over, or the primary is known to be off | as take over |
//! | restore | either | no record, or an older one; both sites have told | the newer of what they told |
//!
//! Every change is a compare-and-set: it names the version that it was thought on
//! ([`Ask::seen_version`]) and changes nothing if the record has moved on. That makes
//! repeated and late questions harmless. A late *in sync* is the worst of them: believed
//! after a *go alone*, it would let the secondary take over without what the primary has
//! acknowledged since; so *go alone* makes a new version also where nothing changes, and
//! none thought on the old one can land. Whoever lost an answer reads the record that comes
//! with the next one.

use std::time::Duration;

use base::{Epoch, Osn, PairId, SiteId, WallNanos};

use crate::lease::{LEASE_MS_MAX, LEASE_MS_MIN};
use crate::record::{Standing, Transition, TransitionKind};

/// A question of a site about one datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    /// Which datastore.
    pub pair: PairId,
    /// Who asks.
    pub from: SiteId,
    /// Version of the newest record that the site has ever seen, 0 for none. What a change
    /// is compared with, and what exposes a witness that has lost its memory (F56).
    pub seen_version: u64,
    /// What it asks for.
    pub kind: AskKind,
}

/// What is asked for; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AskKind {
    /// Make the record.
    Found {
        /// Length of the lease, [`LEASE_MS_MIN`] to [`LEASE_MS_MAX`] milliseconds.
        lease_ms: u32,
    },
    /// Only look.
    Look,
    /// The primary is well and goes on.
    Renew {
        /// Its epoch.
        epoch: Epoch,
    },
    /// The primary takes a secondary in.
    Join {
        /// The secondary.
        secondary: SiteId,
    },
    /// The primary lets its secondary go.
    Leave,
    /// The primary wants to acknowledge alone.
    GoAlone {
        /// The last operation that both sites hold for sure.
        in_sync_through: Osn,
    },
    /// Both sites hold the same.
    InSync,
    /// The primary has drained and stopped; the secondary shall serve.
    HandOver,
    /// The primary is not heard of.
    TakeOver {
        /// The last operation that both sites hold for sure.
        in_sync_through: Osn,
    },
    /// An administrator makes a site primary that may lack acknowledged writes.
    Force {
        /// Somebody vouches that the primary is off and stays off.
        primary_is_off: bool,
    },
    /// What the site knows, for a witness without memory.
    Restore {
        /// The newest record it has seen.
        known: Standing,
    },
}

/// Why the answer is no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// There is no record of this datastore.
    #[error("the witness knows no such datastore")]
    Unknown,
    /// There is one already.
    #[error("the witness has a record of this datastore already")]
    Exists,
    /// The asker knows a newer record than the witness: the witness lost its memory.
    #[error("the witness knows an older record than the site that asks: it was replaced or restored from an old copy")]
    Amnesia,
    /// The record has changed since the asker saw it.
    #[error("the record has changed since this site saw it")]
    Stale,
    /// The asker is neither primary nor secondary.
    #[error("this site is neither primary nor secondary of the datastore")]
    Stranger,
    /// Only the primary of this epoch may ask this.
    #[error("only the primary may ask this, and another site is primary")]
    NotPrimary,
    /// Only the secondary of this epoch may ask this.
    #[error("only the secondary may ask this")]
    NotSecondary,
    /// The sites are not in sync, so acknowledged writes would be lost.
    #[error("the sites are not in sync: acknowledged writes would be lost")]
    NotInSync,
    /// The primary's lease is not over.
    #[error("the primary's lease runs for another {} ms", .0.as_millis())]
    LeaseRuns(Duration),
    /// There is a secondary where none may be, or none where one must be.
    #[error("the datastore has a secondary already, or needs one first")]
    WrongSecondary,
    /// The length of the lease is out of range.
    #[error("a lease lasts {LEASE_MS_MIN} to {LEASE_MS_MAX} ms")]
    LeaseLength,
    /// The witness waits for the other site to tell what it knows.
    #[error("the witness has lost its memory and waits for the other site to tell what it knows")]
    WaitsForOther,
    /// The two sites told records that cannot both be true.
    #[error("the two sites told the witness records that cannot both be true")]
    SitesDiffer,
}

/// What the witness knows besides the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grounds {
    /// What is left of the primary's lease; zero when it is over.
    pub lease_left: Duration,
    /// What the other site has told a witness without memory.
    pub told_by_other: Option<Standing>,
    /// Wall-clock time, for the record's history.
    pub wall: WallNanos,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Whether it is so now, and why not.
    pub outcome: Result<Lease, Refusal>,
    /// The record after it: durable before the answer leaves.
    pub standing: Option<Standing>,
}

/// What becomes of the lease when the answer is yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lease {
    /// It goes on as it was.
    Unchanged,
    /// It runs anew from now; the asker holds it.
    Runs,
    /// It is over: the asker has stopped.
    Over,
}

/// The answer to `ask` where the record is `standing`.
#[must_use]
pub fn judge(standing: Option<&Standing>, ask: &Ask, grounds: &Grounds) -> Verdict {
    match decide(standing, ask, grounds) {
        Ok((standing, lease)) => Verdict { outcome: Ok(lease), standing: Some(standing) },
        Err(refusal) => Verdict { outcome: Err(refusal), standing: standing.copied() },
    }
}

fn decide(standing: Option<&Standing>, ask: &Ask, grounds: &Grounds) -> Result<(Standing, Lease), Refusal> {
    if let AskKind::Restore { known } = ask.kind {
        return Ok((restore(standing, ask, &known, grounds)?, Lease::Unchanged));
    }
    if ask.seen_version > standing.map_or(0, |standing| standing.version) {
        return Err(Refusal::Amnesia);
    }
    let Some(standing) = standing else {
        return Ok((found(ask, grounds)?, Lease::Runs));
    };
    match ask.kind {
        AskKind::Found { .. } => Err(Refusal::Exists),
        AskKind::Look => Ok((*standing, Lease::Unchanged)),
        AskKind::Renew { epoch } => {
            require_primary(standing, ask)?;
            (standing.epoch == epoch).then_some((*standing, Lease::Runs)).ok_or(Refusal::NotPrimary)
        }
        _ if ask.seen_version != standing.version => Err(Refusal::Stale),
        AskKind::HandOver => Ok((hand_over(standing, ask, grounds)?, Lease::Over)),
        AskKind::TakeOver { .. } | AskKind::Force { .. } => Ok((usurp(standing, ask, grounds)?, Lease::Runs)),
        _ => Ok((serve_on(standing, ask, grounds)?, Lease::Runs)),
    }
}

fn found(ask: &Ask, grounds: &Grounds) -> Result<Standing, Refusal> {
    let AskKind::Found { lease_ms } = ask.kind else { return Err(Refusal::Unknown) };
    if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&lease_ms) {
        return Err(Refusal::LeaseLength);
    }
    Ok(Standing {
        pair: ask.pair,
        version: 1,
        epoch: Epoch(1),
        primary: ask.from,
        secondary: None,
        in_sync: false,
        in_sync_through: Osn(0),
        lease_ms,
        last: Transition { kind: TransitionKind::Found, by: ask.from, at: grounds.wall },
    })
}

/// What a primary asks for that goes on serving.
fn serve_on(standing: &Standing, ask: &Ask, grounds: &Grounds) -> Result<Standing, Refusal> {
    require_primary(standing, ask)?;
    let has_secondary = standing.secondary.is_some();
    let require = |held: bool, refusal| held.then_some(()).ok_or(refusal);
    let mut next = *standing;
    let kind = match ask.kind {
        AskKind::Join { secondary } => {
            require(!has_secondary && secondary != standing.primary, Refusal::WrongSecondary)?;
            next.secondary = Some(secondary);
            TransitionKind::Join
        }
        AskKind::Leave => {
            require(has_secondary, Refusal::WrongSecondary)?;
            (next.secondary, next.in_sync) = (None, false);
            TransitionKind::Leave
        }
        AskKind::GoAlone { in_sync_through } => {
            if standing.in_sync {
                (next.in_sync, next.in_sync_through) = (false, in_sync_through);
            }
            TransitionKind::GoAlone
        }
        _ => {
            require(has_secondary, Refusal::WrongSecondary)?;
            (next.in_sync, next.in_sync_through) = (true, Osn(0));
            TransitionKind::InSync
        }
    };
    Ok(next.changed(kind, ask, grounds))
}

fn hand_over(standing: &Standing, ask: &Ask, grounds: &Grounds) -> Result<Standing, Refusal> {
    require_primary(standing, ask)?;
    let successor = standing.secondary.filter(|_| standing.in_sync).ok_or(Refusal::NotInSync)?;
    Ok(standing.crowned(successor).changed(TransitionKind::HandOver, ask, grounds))
}

fn usurp(standing: &Standing, ask: &Ask, grounds: &Grounds) -> Result<Standing, Refusal> {
    if !standing.names(ask.from) {
        return Err(Refusal::Stranger);
    }
    if standing.secondary != Some(ask.from) {
        return Err(Refusal::NotSecondary);
    }
    let mut next = Standing { in_sync: false, ..standing.crowned(ask.from) };
    let (kind, waits) = match ask.kind {
        AskKind::TakeOver { in_sync_through } => {
            next.in_sync_through = in_sync_through;
            (TransitionKind::TakeOver, true)
        }
        AskKind::Force { primary_is_off } => (TransitionKind::Force, !primary_is_off),
        _ => return Err(Refusal::NotSecondary),
    };
    if kind == TransitionKind::TakeOver && !standing.in_sync {
        return Err(Refusal::NotInSync);
    }
    if waits && !grounds.lease_left.is_zero() {
        return Err(Refusal::LeaseRuns(grounds.lease_left));
    }
    Ok(next.changed(kind, ask, grounds))
}

fn require_primary(standing: &Standing, ask: &Ask) -> Result<(), Refusal> {
    if !standing.names(ask.from) {
        return Err(Refusal::Stranger);
    }
    (standing.primary == ask.from).then_some(()).ok_or(Refusal::NotPrimary)
}

/// A witness without memory believes the newer of what *both* sites tell it. Whatever its
/// forgotten self had granted and somebody acted on, the one who acted knows; what nobody
/// knows, nobody has acted on.
fn restore(standing: Option<&Standing>, ask: &Ask, known: &Standing, grounds: &Grounds) -> Result<Standing, Refusal> {
    if known.pair != ask.pair || !known.names(ask.from) {
        return Err(Refusal::Stranger);
    }
    if standing.is_some_and(|standing| standing.version >= known.version) {
        return Err(Refusal::Exists);
    }
    if known.secondary.is_none() {
        return Ok(known.changed(TransitionKind::Restore, ask, grounds));
    }
    let told = grounds.told_by_other.as_ref().ok_or(Refusal::WaitsForOther)?;
    if told.version == known.version && told != known {
        return Err(Refusal::SitesDiffer);
    }
    let newer = if told.version > known.version { told } else { known };
    Ok(newer.changed(TransitionKind::Restore, ask, grounds))
}

impl Standing {
    /// This record as the next version, changed by `ask`.
    fn changed(self, kind: TransitionKind, ask: &Ask, grounds: &Grounds) -> Standing {
        let last = Transition { kind, by: ask.from, at: grounds.wall };
        Standing { version: self.version + 1, last, ..self }
    }

    /// Primary and secondary have changed places.
    fn crowned(self, successor: SiteId) -> Standing {
        Standing { secondary: Some(self.primary), primary: successor, epoch: self.epoch.next(), ..self }
    }
}

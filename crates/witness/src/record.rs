//! The record of one replicated datastore, and its bytes ([`Raw`], `docs/formats/witness.md`).

use std::time::Duration;

use base::{Epoch, Osn, PairId, SiteId, WallNanos, media_check};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a record.
pub const RECORD_BYTES: usize = size_of::<Raw>();
/// Binds the check to what it guards.
const CHECK_SEED: u64 = u64::from_le_bytes(*b"witness1");
const FORMAT: u16 = 1;
const IN_SYNC: u8 = 1;
const HAS_SECONDARY: u8 = 2;

/// What a change of the record was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransitionKind {
    /// The record was made.
    Found,
    /// The primary took a secondary in; not in sync yet.
    Join,
    /// The primary let its secondary go.
    Leave,
    /// The primary goes on without the secondary.
    GoAlone,
    /// Primary and secondary hold the same.
    InSync,
    /// The secondary took over from a primary that was not heard of.
    TakeOver,
    /// The primary handed over to the secondary, as planned.
    HandOver,
    /// A site that was not in sync was made primary by an administrator.
    Force,
    /// Both sites told a witness that had lost its memory.
    Restore,
}

const KINDS: [TransitionKind; 9] = [
    TransitionKind::Found,
    TransitionKind::Join,
    TransitionKind::Leave,
    TransitionKind::GoAlone,
    TransitionKind::InSync,
    TransitionKind::TakeOver,
    TransitionKind::HandOver,
    TransitionKind::Force,
    TransitionKind::Restore,
];

/// The last change of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transition {
    /// What it was.
    pub kind: TransitionKind,
    /// The site that asked for it.
    pub by: SiteId,
    /// When, by the witness's wall clock; for people only.
    pub at: WallNanos,
}

/// How a replicated datastore stands: one record, changed only as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// Which datastore.
    pub pair: PairId,
    /// Number of the change that led here, from 1.
    pub version: u64,
    /// Term of the primary; raised at each change of primary (R-REPL-14).
    pub epoch: Epoch,
    /// Who may serve.
    pub primary: SiteId,
    /// Who holds the other copy.
    pub secondary: Option<SiteId>,
    /// Whether every acknowledged operation is on both sites.
    pub in_sync: bool,
    /// While in sync 0; else the last operation that both sites hold for sure.
    pub in_sync_through: Osn,
    /// How long a lease lasts, in milliseconds.
    pub lease_ms: u32,
    /// The change that led here.
    pub last: Transition,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not [`RECORD_BYTES`] long.
    #[error("a record has {RECORD_BYTES} bytes")]
    Length,
    /// Made by a later version of the program.
    #[error("record format {0} is not known to this version")]
    Format(u16),
    /// The check does not fit, or a field is out of its range.
    #[error("the record is damaged")]
    Damaged,
}

impl Standing {
    /// The lease as a length of time.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms.into())
    }

    /// Whether `site` is one of the two.
    #[must_use]
    pub fn names(&self, site: SiteId) -> bool {
        self.primary == site || self.secondary == Some(site)
    }

    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let kind = KINDS.iter().position(|kind| *kind == self.last.kind).map_or(0, |at| at as u8);
        let mut raw = Raw {
            format: FORMAT.into(),
            kind,
            flags: u8::from(self.in_sync) * IN_SYNC + u8::from(self.secondary.is_some()) * HAS_SECONDARY,
            lease_ms: self.lease_ms.into(),
            version: self.version.into(),
            epoch: self.epoch.0.into(),
            in_sync_through: self.in_sync_through.0.into(),
            changed_at: self.last.at.0.into(),
            pair: self.pair.0,
            primary: self.primary.0,
            secondary: self.secondary.unwrap_or_default().0,
            by: self.last.by.0,
            check: 0.into(),
        };
        raw.check = raw.expected_check().into();
        zerocopy::transmute!(raw)
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`Malformed`]; a damaged record is never taken for a blank one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let raw = Raw::read_from_bytes(bytes).map_err(|_| Malformed::Length)?;
        if raw.check.get() != raw.expected_check() {
            return Err(Malformed::Damaged);
        }
        if raw.format.get() != FORMAT {
            return Err(Malformed::Format(raw.format.get()));
        }
        let kind = *KINDS.get(usize::from(raw.kind)).ok_or(Malformed::Damaged)?;
        Ok(Self {
            pair: PairId(raw.pair),
            version: raw.version.get(),
            epoch: Epoch(raw.epoch.get()),
            primary: SiteId(raw.primary),
            secondary: (raw.flags & HAS_SECONDARY != 0).then_some(SiteId(raw.secondary)),
            in_sync: raw.flags & IN_SYNC != 0,
            in_sync_through: Osn(raw.in_sync_through.get()),
            lease_ms: raw.lease_ms.get(),
            last: Transition { kind, by: SiteId(raw.by), at: WallNanos(raw.changed_at.get()) },
        })
    }
}

/// The bytes, little-endian.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    format: U16,
    kind: u8,
    flags: u8,
    lease_ms: U32,
    version: U64,
    epoch: U64,
    in_sync_through: U64,
    changed_at: U64,
    pair: [u8; 16],
    primary: [u8; 16],
    secondary: [u8; 16],
    by: [u8; 16],
    check: U64,
}

impl Raw {
    fn expected_check(&self) -> u64 {
        let bytes = self.as_bytes();
        media_check(CHECK_SEED, &bytes[..bytes.len() - size_of::<U64>()]).0
    }
}

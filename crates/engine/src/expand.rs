//! Expansion: drives join a pool that holds data, while it is served (R-EXP).
//!
//! ```text
//!   stripes   1 ... 40 | 41 ...
//!   drives    1 - 12   | 1 - 24       nothing moves at the moment of expansion
//!             outgrown | new
//! ```
//!
//! Geometry belongs to the segment, so old stripes stay as they are. The next stripe goes to
//! a new segment, which takes the drives with most room first: those that have just joined.
//! Segments of before are *outgrown*: their free stripes wait until no new segment can be
//! opened, or only a narrower one, and a segment that the cleaner or the clients have emptied is given back, so that
//! its extents come again in segments over all drives. That is how space evens out.
//!
//! Nobody waits: no lock of the data path is held while drives join, as no stripe that
//! exists has a unit on them. The record (register `expansion`) is written after the drives
//! have joined; a crash in between forgets only which segments are outgrown.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use base::WallNanos;
use base::port::Drive;
use raid::{Added, CasRefused, JoinRefused, SegmentId, Slot};
use tokio::sync::Mutex;

use crate::engine::Engine;
use crate::format::{FormatError, Take};
use crate::inner::Inner;

/// Name of the register that holds the record.
const EXPANSION_REGISTER: &str = "expansion";
const FORMAT: u16 = 1;
/// Expansions remembered.
const HISTORY_MAX: usize = 64;

/// One expansion of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expansion {
    /// When.
    pub at: WallNanos,
    /// Slot of the first drive that joined; the others follow.
    pub first: Slot,
    /// Drives that joined.
    pub drives: u8,
    /// The first segment that could use them.
    pub segment: SegmentId,
}

/// What an open engine knows of expansions.
#[derive(Default)]
pub(crate) struct Expansions {
    turn: Mutex<()>,
    version: Cell<u64>,
    history: RefCell<Vec<Expansion>>,
    /// Drives have joined since a segment was opened: what is staged is destaged at once.
    wants_data: Cell<bool>,
}

impl Expansions {
    /// Whether drives wait for their first stripes.
    pub fn wants_data(&self) -> bool {
        self.wants_data.get()
    }

    /// A segment was opened, or none can be: nothing more is done in a hurry.
    pub fn segment_opened(&self) {
        self.wants_data.set(false);
    }
}

impl Engine {
    /// Adds blank `drives` to the pool: every drive is examined first, then they join one
    /// after the other, and new stripes use them from then on. With `data_width_max`, stripes
    /// have up to so many data units from now on, also when there are no drives. When a drive is refused on the way, those
    /// before it have joined, and the error says which.
    pub async fn expand(&self, drives: Vec<Rc<dyn Drive>>, data_width_max: Option<u8>) -> Result<Vec<Slot>, Added> {
        let inner = &self.inner;
        let _turn = inner.expansions.turn.lock().await;
        let outcome = inner.group.add_members(drives, false).await;
        let joined = match &outcome {
            Ok(joined) => joined,
            Err(added) => &added.joined,
        };
        // Without drives too: that is how an expansion that was cut off before this is ended.
        if let Some(width) = data_width_max.filter(|_| outcome.is_ok() || !joined.is_empty()) {
            let latched = |_| Added { joined: joined.clone(), at: None, refused: JoinRefused::Latched };
            inner.group.widen_stripes(width).await.map_err(latched)?;
        }
        if let Some(first) = joined.first() {
            inner.outgrow(*first, joined.len()).await;
        }
        outcome
    }

    /// Expansions so far, oldest first.
    pub fn expansions(&self) -> Vec<Expansion> {
        self.inner.expansions.history.borrow().clone()
    }
}

impl Inner {
    /// Drives have joined: what is written from now on goes to segments that may use them.
    async fn outgrow(&self, first: Slot, drives: usize) {
        let segment = self.group.next_segment();
        self.state.borrow_mut().stripes.outgrow(segment);
        self.look_at_space();
        self.expansions.wants_data.set(true);
        self.work.notify_one();
        let drives = u8::try_from(drives).expect("at most 32 drives");
        let bytes = {
            let mut history = self.expansions.history.borrow_mut();
            history.push(Expansion { at: self.world.clock.wall(), first, drives, segment });
            let surplus = history.len().saturating_sub(HISTORY_MAX);
            history.drain(..surplus);
            encode(&history)
        };
        match self.group.register_cas(EXPANSION_REGISTER, self.expansions.version.get(), &bytes).await {
            Ok(version) => self.expansions.version.set(version),
            Err(CasRefused::Version { current }) => self.expansions.version.set(current),
            // The group says so by itself; the drives have joined all the same.
            Err(CasRefused::Latched | CasRefused::Fenced | CasRefused::TooLarge) => {}
        }
    }

    /// Takes over the record, when the engine is opened. One that cannot be read costs only
    /// the knowledge of which segments are outgrown.
    pub async fn resume_expansion(&self) {
        let found = self.group.register_read(EXPANSION_REGISTER).await;
        self.expansions.version.set(found.version);
        let history = decode(&found.bytes).unwrap_or_default();
        if let Some(newest) = history.last() {
            self.state.borrow_mut().stripes.outgrow(newest.segment);
        }
        self.expansions.history.replace(history);
    }
}

fn encode(history: &[Expansion]) -> Vec<u8> {
    let mut out = FORMAT.to_le_bytes().to_vec();
    out.push(history.len() as u8);
    for expansion in history {
        out.extend_from_slice(&expansion.at.0.to_le_bytes());
        out.extend_from_slice(&[expansion.first.0, expansion.drives]);
        out.extend_from_slice(&expansion.segment.0.to_le_bytes());
    }
    out
}

fn decode(bytes: &[u8]) -> Result<Vec<Expansion>, FormatError> {
    let mut take = Take(bytes);
    if take.u16()? != FORMAT {
        return Err(FormatError("expansion record"));
    }
    let count = take.u8()?;
    let expansion = |take: &mut Take<'_>| {
        let at = WallNanos(take.u64()?);
        let (first, drives) = (Slot(take.u8()?), take.u8()?);
        Ok(Expansion { at, first, drives, segment: SegmentId(take.u32()?) })
    };
    let history = (0..count).map(|_| expansion(&mut take)).collect::<Result<Vec<_>, FormatError>>()?;
    take.end()?;
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_read_back_and_a_cut_one_is_refused() {
        let one = Expansion { at: WallNanos(7), first: Slot(12), drives: 12, segment: SegmentId(41) };
        let history = vec![one, Expansion { first: Slot(24), drives: 1, ..one }];
        let bytes = encode(&history);
        assert_eq!(decode(&bytes), Ok(history));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err());
        }
    }
}

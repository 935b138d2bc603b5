//! Settings, counters and events of an engine.

use std::time::Duration;

use base::FileId;
use raid::StripeId;

use crate::checkpoint::LOG_OBJECT_BYTES;
use crate::legs::TakeInRefused;
use crate::scrub::{Scrub, ScrubPolicy};

/// Settings. All of them may change from one opening to the next.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory for blocks that were read, in bytes.
    pub cache_bytes: u64,
    /// Clean metadata pages kept in memory, 4 KiB each.
    pub cached_pages: usize,
    /// Entries of the fingerprint index, 16 bytes each.
    pub fingerprints: usize,
    /// Whether duplicates are looked for.
    pub dedup: bool,
    /// Whether blocks are compressed where it pays.
    pub compress: bool,
    /// Staged blocks from which on the destager works although the journal has room. It
    /// takes about so many at a time.
    pub destage_blocks: usize,
    /// The destager works when nothing was written for so long.
    pub quiet_after: Duration,
    /// Stripes on their way to the drives at a time.
    pub stripes_in_flight: usize,
    /// Stripes rebuilt at a time.
    pub rebuild_in_flight: usize,
    /// How stripes are looked at in the background; `None`: as the drives want it.
    pub scrub: Option<ScrubPolicy>,
    /// With changes, a checkpoint happens at least this often.
    pub checkpoint_every: Duration,
    /// How often the background work looks around.
    pub tick: Duration,
    /// How often readers of old places are waited for.
    pub era_poll: Duration,
    /// A writer waits at most this long for staged blocks to make way (`faults.md` F24).
    pub room_wait_max: Duration,
    /// How often it looks.
    pub room_poll: Duration,
    /// Delta objects from which on the oldest are gone through, and what holds told again.
    pub deltas_kept: usize,
    /// Delta objects that the root names at most; what does not fit is let go.
    pub deltas_max: usize,
    /// Usage objects that the root names itself at most; index objects name the others.
    pub usage_places_max: usize,
    /// Payload of a usage or index object at most, in bytes; a unit holds it or it is smaller.
    pub usage_object_bytes: usize,
    /// Events kept until somebody takes them.
    pub events_max: usize,
    /// Limits and times of the journal.
    pub journal: journal::Config,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cache_bytes: 256 << 20,
            cached_pages: 16_384,
            fingerprints: 1 << 20,
            dedup: true,
            compress: true,
            destage_blocks: 1 << 20,
            quiet_after: Duration::from_millis(500),
            stripes_in_flight: 4,
            rebuild_in_flight: 4,
            scrub: None,
            checkpoint_every: Duration::from_secs(10),
            tick: Duration::from_millis(250),
            era_poll: Duration::from_millis(1),
            room_wait_max: Duration::from_secs(2),
            room_poll: Duration::from_millis(2),
            deltas_kept: 64,
            deltas_max: 384,
            usage_places_max: 256,
            usage_object_bytes: LOG_OBJECT_BYTES,
            events_max: 1024,
            journal: journal::Config::default(),
        }
    }
}

impl Options {
    /// Free stripes that only cleaning and checkpoints may use: enough to empty one more
    /// stripe, to write the pages and the table rows that say so, and the log that says it again.
    pub fn stripes_reserved(&self) -> u64 {
        5 + self.stripes_in_flight as u64
    }
}

/// What happened since the engine was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks that went through the destager.
    pub blocks_destaged: u64,
    /// Of these, all zero.
    pub blocks_zero: u64,
    /// Of these, stored already.
    pub blocks_shared: u64,
    /// Of these, stored compressed.
    pub blocks_compressed: u64,
    /// Payload bytes of new objects as stored.
    pub stored_bytes: u64,
    /// Fingerprint hits whose content was different.
    pub false_matches: u64,
    /// Objects read from media for clients.
    pub objects_read: u64,
    /// Blocks answered from the block cache.
    pub cache_hits: u64,
    /// Metadata pages read.
    pub pages_read: u64,
    /// Metadata pages written.
    pub pages_written: u64,
    /// Checkpoints done.
    pub checkpoints: u64,
    /// Stripes the cleaner emptied.
    pub stripes_cleaned: u64,
    /// Times the stripe table was written anew, all of it.
    pub stripe_tables_written: u64,
    /// Objects the cleaner moved.
    pub objects_moved: u64,
    /// Blocks reclaimed after truncation or removal.
    pub blocks_reclaimed: u64,
    /// Stripes read back soon after they were written.
    pub stripes_read_back: u64,
    /// Units repaired by that.
    pub units_repaired_on_read_back: u64,
}

/// Something an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing is acknowledged any more; the engine must be opened again.
    Stopped {
        /// What happened.
        why: &'static str,
    },
    /// A metadata page is damaged beyond repair.
    PageLost {
        /// Its id.
        page: u64,
    },
    /// A block is damaged beyond repair.
    BlockLost {
        /// Its file.
        file: FileId,
        /// Its offset in bytes.
        offset_bytes: u64,
    },
    /// A journal leg that was lost holds everything again.
    LegTakenIn,
    /// A journal leg that came back could not be taken in.
    LegNotTakenIn {
        /// Why.
        refused: TakeInRefused,
    },
    /// An object is not what it says although its unit is whole: wrong bytes were written.
    ObjectDamaged {
        /// Its stripe.
        stripe: StripeId,
        /// Where it starts in the stripe's data units.
        offset_bytes: u32,
    },
    /// A pass over everything is done.
    ScrubDone {
        /// What it found.
        found: Scrub,
    },
    /// The cleaner found an object damaged beyond repair and left its stripe alone.
    StripeStuck {
        /// Which stripe.
        stripe: StripeId,
    },
}

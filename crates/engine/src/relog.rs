//! Keeps the log of mapping deltas short without letting go of what only it says twice.
//!
//! The log is a second telling of the trees, for the repair scan. When it has too many
//! objects the oldest are gone through before a checkpoint: what in them is still so is told
//! again at the end of the log, the rest is dropped. Oldest first, so that when an entry that
//! takes something away is met, nothing it takes away is left before it.
//!
//! Telling again costs as much as the log is dense. So the log grows while more than half of the
//! room of the objects that were gone through holds something, as far as the root has room for
//! its places; beyond, mappings are let go and the root says that the log is not whole any more
//! (see `docs/decisions/0006-the-log-is-told-again.md`).

use base::{ObjectId, Osn};
use raid::Principal;

use crate::delta::Entry;
use crate::format::{DESCRIPTOR_BYTES, Descriptor, ObjectKind, Place};
use crate::inner::Inner;
use crate::mover::Mover;
use crate::options::Options;
use crate::staged::BlockId;
use crate::state::{Mapping, State, table_tree};
use crate::store::{Change, StoreRefusal};
use crate::tree::Missing;

/// Objects gone through before a checkpoint.
const OBJECTS_PER_CHECKPOINT: usize = 16;
/// Blocks looked up before a checkpoint: some eight hundred pages, should none be in memory.
const BLOCKS_PER_CHECKPOINT: u64 = 1 << 16;
/// Bytes of an entry that is let go.
const ENTRY_BYTES: usize = 41;

/// How far the log is gone through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader {
    /// From so many objects on, the oldest are gone through.
    pub limit: usize,
    /// What held of the last ones fills most of their room.
    is_dense: bool,
    /// Entries of the oldest object that are done, and blocks of the next.
    entry: usize,
    block: u64,
    /// An object that could not be gone through, as a page that says what holds is lost. It is
    /// not tried again before there is little room for more.
    waits_for: Option<Place>,
}

impl Reader {
    /// Goes through what is above `limit` objects.
    pub fn new(limit: usize) -> Reader {
        Reader { limit, ..Reader::default() }
    }

    /// Of a log that is found with `found` objects when a store is opened: so many may stay, but
    /// for a few, so that a log found at its end does not lose what a look at it would have spared.
    pub fn of_found(found: usize, options: &Options) -> Reader {
        Reader::new(found.min(brim(options.deltas_max)).max(options.deltas_kept))
    }
}

/// Objects from which on the log is gone through whatever else there is to do: there must be room
/// for what is told again of the oldest before it is known whether those behind them hold anything.
fn brim(most: usize) -> usize {
    most - (2 * OBJECTS_PER_CHECKPOINT).min(most / 4)
}

/// What became of the entries that were gone through.
struct Pass {
    blocks_left: u64,
    is_full: bool,
    let_go_bytes: usize,
    is_unknown: bool,
}

impl Inner {
    /// Goes through the oldest delta objects if there are too many.
    pub async fn shorten_log(&self, mover: &mut Mover) -> Result<(), StoreRefusal> {
        let most = self.options.deltas_max;
        if mover.deltas.len() < brim(most)
            && (self.is_short_of_stripes() || mover.log.waits_for == mover.deltas.first().copied())
        {
            return Ok(());
        }
        let surplus = mover.deltas.len().saturating_sub(mover.log.limit);
        // More than needed, so that small ones become large ones.
        let count = (surplus * 2).min(OBJECTS_PER_CHECKPOINT).min(mover.deltas.len());
        let before = self.state.borrow().delta.len_bytes();
        let is_full = mover.log.limit >= most && mover.log.is_dense;
        let mut pass = Pass { blocks_left: BLOCKS_PER_CHECKPOINT, is_full, let_go_bytes: 0, is_unknown: false };
        for done in 0..count {
            let place = mover.deltas[0];
            match self.tell_again(place, &mut mover.log, &mut pass).await {
                Ok(true) => {}
                Ok(false) => break,
                // A lost page says nothing of what holds: the entries stay for the scan.
                Err(StoreRefusal::Unreadable { .. }) => {
                    mover.log.waits_for = Some(place);
                    break;
                }
                Err(refusal) => return Err(refusal),
            }
            mover.deltas.remove(0);
            self.state.borrow_mut().stripes.sub_live(place.stripe, place.object_bytes());
            if done + 1 == count {
                let told = self.state.borrow().delta.len_bytes() - before + pass.let_go_bytes;
                // By the room of so many objects, not by what was in them: small ones are to
                // become large ones before the log grows.
                mover.log.is_dense = told * 2 > count * self.state.borrow().delta.chunk_bytes();
                let kept = self.options.deltas_kept.min(most);
                let sparse = mover.log.limit.min(mover.deltas.len() + count).max(kept);
                mover.log.limit = if mover.log.is_dense { (mover.log.limit + count).min(most) } else { sparse };
            }
        }
        mover.root.log_is_whole &= pass.let_go_bytes == 0 && !pass.is_unknown;
        Ok(())
    }

    /// Whether a checkpoint had better take no stripe that it can do without.
    fn is_short_of_stripes(&self) -> bool {
        let free = self.group.space().stripes_free + self.state.borrow().stripes.free_count() as u64;
        free <= self.stripes_kept_from_intake()
    }

    /// Logs again what still holds of the object at `place`, from where `reader` is. False: there is
    /// more than this pass looks at.
    async fn tell_again(&self, place: Place, reader: &mut Reader, pass: &mut Pass) -> Result<bool, StoreRefusal> {
        let is_delta = |found: &Descriptor| found.kind == ObjectKind::Delta;
        let read = self.read_object(Principal::MetadataRead, place, is_delta).await;
        let payload = |object: &[u8]| {
            Entry::decode_all(&object[DESCRIPTOR_BYTES..DESCRIPTOR_BYTES + place.stored_bytes as usize])
        };
        let Ok(entries) = read.and_then(|(_, object)| payload(&object)) else {
            pass.is_unknown = true;
            (reader.entry, reader.block) = (0, 0);
            return Ok(true);
        };
        while let Some(entry) = entries.get(reader.entry) {
            match entry {
                Entry::Run { first, osn, object, count } => {
                    let run = (*first, *osn, *object);
                    if !self.run_again(run, u64::from(*count), (&mut reader.block, pass)).await? {
                        return Ok(false);
                    }
                }
                Entry::Row(tree, key, Some(value)) => {
                    self.resident(|state| state.row_again(*tree, key, value)).await?;
                }
                Entry::Change(osn, change) => self.resident(|state| state.change_again(change, *osn)).await?,
                // What it took away is not in the log any more.
                Entry::Row(_, _, None) | Entry::Cut { .. } => {}
            }
            (reader.entry, reader.block) = (reader.entry + 1, 0);
        }
        (reader.entry, reader.block) = (0, 0);
        self.world.yield_now().await;
        Ok(true)
    }

    /// As [`tell_again`](Inner::tell_again), for the `count` blocks of a run from `at` on.
    async fn run_again(
        &self,
        (first, osn, object): (BlockId, Osn, ObjectId),
        count: u64,
        (at, pass): (&mut u64, &mut Pass),
    ) -> Result<bool, StoreRefusal> {
        while *at < count {
            if pass.blocks_left == 0 {
                return Ok(false);
            }
            let id = BlockId { block: first.block + *at, ..first };
            let object = ObjectId(if object.0 == 0 { 0 } else { object.0 + *at });
            let is_full = pass.is_full;
            if !self.resident(|state| state.map_again(id, osn, object, is_full)).await? {
                pass.let_go_bytes += ENTRY_BYTES;
            }
            (*at, pass.blocks_left) = (*at + 1, pass.blocks_left - 1);
            if *at % 64 == 0 {
                self.world.yield_now().await;
            }
        }
        Ok(true)
    }
}

impl State {
    /// Logs the mapping of `id` again if it holds. False if it does, and is let go.
    fn map_again(&mut self, id: BlockId, osn: Osn, object: ObjectId, is_full: bool) -> Result<bool, Missing> {
        let is_cut = self.layers.trims(id.layer()).is_some_and(|trims| trims.is_cut(id.block));
        let held = |entry: Option<Mapping>| entry.map_or(ObjectId(0), |mapping| mapping.object) == object;
        let holds = !is_cut && self.entry_at(id)?.is_some_and(held);
        if holds && !is_full {
            self.delta.mapping(id, osn, object);
        }
        Ok(!(holds && is_full))
    }

    fn row_again(&mut self, tree: u8, key: &[u8], value: &[u8]) -> Result<(), Missing> {
        if self.tree(tree).with(&self.pages, key, |found| found == value)? == Some(true) {
            self.delta.row(tree, key, Some(value));
        }
        Ok(())
    }

    fn change_again(&mut self, change: &Change, osn: Osn) -> Result<(), Missing> {
        if let Change::Put { table, key, value } = change
            && self.tree(table_tree(*table)).with(&self.pages, key, |found| found == value)? == Some(true)
        {
            self.delta.change(change, osn);
        }
        Ok(())
    }
}

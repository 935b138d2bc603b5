//! The stripe table as it is stored: usage objects, and index objects that name them.
//!
//! A usage object is a list of rows. A full table is written as one usage object after the
//! other; from then on each checkpoint adds objects with the rows that changed, until these
//! outweigh the table and it is written anew. Writing an object changes the row of the stripe
//! it goes to; such rows stand in the root itself, so that there is an end to it.
//!
//! The root is small. It names `usage_places_max` usage objects; when there are more, their
//! places go to index objects, which the root names instead. One index object holds the places
//! of some 2,500 usage objects, these the rows of some 8 million stripes.
//!
//! Per checkpoint: an object for each 3,000 changed rows, and once in a while an index object.
//! When the cleaner empties a stripe with an object of the table, its rows are told again as
//! changed rows, and the index object that named it is written anew: two objects for one, not
//! the whole table.

use std::collections::BTreeMap;

use raid::{Group, Principal, SegmentId, StripeId};

use crate::checkpoint::{LOG_OBJECT_BYTES, log_descriptor};
use crate::format::{DESCRIPTOR_BYTES, Descriptor, FormatError, ObjectKind, PLACE_BYTES, Place, Take};
use crate::inner::Inner;
use crate::mover::Mover;
use crate::root::Root;
use crate::store::StoreRefusal;
use crate::stripes::{ROW_BYTES, StripeTable, Usage};

/// The stripe table, or what names its parts, cannot be read: a repair scan makes it anew.
pub const STRIPE_TABLE_DAMAGED: FormatError = FormatError("stripe table: damaged beyond repair");

/// Usage objects behind the full table, of which there may also be as many as the table has.
const USAGE_CHANGES_MAX: usize = 256;
/// Rows that the root has room for.
const OWN_ROWS_MAX: usize = 256;

fn places_bytes<'a>(places: impl Iterator<Item = &'a Place>) -> u64 {
    places.map(|place| u64::from(place.stored_bytes)).sum()
}

impl Mover {
    /// Usage objects that the durable root leads to, oldest first.
    pub fn usage(&self) -> impl Iterator<Item = &Place> {
        self.indexed_usage.iter().chain(&self.root.usage)
    }

    /// Whether an object of the stripe table or of its index stands there.
    pub fn holds_table_at(&self, place: &Place) -> bool {
        self.usage().chain(&self.root.usage_index).any(|known| known == place)
    }

    /// Whether the table had better be written anew.
    fn is_table_outgrown(&self) -> bool {
        let base = self.root.usage_base as usize;
        let changes = (self.indexed_usage.len() + self.root.usage.len()).saturating_sub(base);
        let base_bytes = places_bytes(self.usage().take(base));
        let changed_bytes = places_bytes(self.usage().skip(base));
        changes > USAGE_CHANGES_MAX.max(base) || changed_bytes > base_bytes + LOG_OBJECT_BYTES as u64
    }
}

impl Inner {
    /// Writes the rows of the stripe table that changed, or all of them when the changes kept
    /// outgrow the table. The rows of the stripes that the newest objects went to stand in `root`.
    pub(crate) async fn write_usage(&self, mover: &mut Mover, root: &mut Root) -> Result<(), StoreRefusal> {
        let left = std::mem::take(&mut mover.table_left);
        if std::mem::take(&mut mover.dump_usage) || mover.is_table_outgrown() {
            self.dump_table(mover, root).await?;
        } else {
            self.leave_table_objects(mover, root, &left).await?;
            self.write_changed_rows(mover, root).await?;
        }
        self.index_usage(mover, root).await?;
        while self.state.borrow().stripes.changed_count() > OWN_ROWS_MAX {
            self.write_changed_rows(mover, root).await?;
            self.index_usage(mover, root).await?;
        }
        root.own_usage = self.state.borrow_mut().stripes.changed();
        Ok(())
    }

    /// Writes all rows, a part at a time. What such a part changes in rows that were written
    /// before is a changed row like any other.
    async fn dump_table(&self, mover: &mut Mover, root: &mut Root) -> Result<(), StoreRefusal> {
        let old = mover.indexed_usage.drain(..).chain(root.usage.drain(..)).chain(root.usage_index.drain(..));
        {
            let mut state = self.state.borrow_mut();
            old.for_each(|place| state.stripes.sub_live(place.stripe, place.object_bytes()));
            // A full table says it all, and what it does not name is free.
            state.stripes.take_changed();
        }
        let rows_per_object = self.usage_object_bytes(ROW_BYTES) / ROW_BYTES;
        let mut next = Some(StripeId { segment: SegmentId(0), row: 0 });
        while let Some(from) = next {
            let mut rows: Vec<Usage> = self.state.borrow().stripes.used_from(from).take(rows_per_object + 1).collect();
            next = rows.get(rows_per_object).map(|row| row.stripe);
            rows.truncate(rows_per_object);
            self.write_rows(mover, root, &rows).await?;
        }
        root.usage_base = root.usage.len() as u32;
        self.counters.borrow_mut().stripe_tables_written += 1;
        Ok(())
    }

    /// The cleaner wants the stripe at `place` empty, where `object` of the table or of its index
    /// stands: the next checkpoint does not name it any more.
    pub(crate) fn leave_table_object(&self, mover: &mut Mover, descriptor: &Descriptor, place: Place, object: &[u8]) {
        let mut state = self.state.borrow_mut();
        state.changed = true;
        if descriptor.kind == ObjectKind::Usage {
            match Usage::decode_all(&object[DESCRIPTOR_BYTES..DESCRIPTOR_BYTES + place.stored_bytes as usize]) {
                Ok(rows) => state.stripes.mark_changed(rows.iter().map(|row| row.stripe)),
                Err(_) => mover.dump_usage = true,
            }
        }
        mover.table_left.push(place);
    }

    /// Names the objects at `left` no more, whose rows are changed rows by now. Index objects among
    /// them, and those that named the others, are written anew.
    async fn leave_table_objects(
        &self,
        mover: &mut Mover,
        root: &mut Root,
        left: &[Place],
    ) -> Result<(), StoreRefusal> {
        if left.is_empty() {
            return Ok(());
        }
        let stays = |place: &Place| !left.contains(place);
        root.usage_base = mover.usage().take(root.usage_base as usize).filter(|place| stays(place)).count() as u32;
        let mut gone: Vec<Place> = mover.usage().filter(|place| !stays(place)).copied().collect();
        root.usage.retain(stays);
        let mut named = std::mem::take(&mut mover.indexed_usage).into_iter();
        for index in std::mem::take(&mut root.usage_index) {
            let before: Vec<Place> = named.by_ref().take(index.stored_bytes as usize / PLACE_BYTES).collect();
            let after: Vec<Place> = before.iter().copied().filter(stays).collect();
            if stays(&index) && after.len() == before.len() {
                root.usage_index.push(index);
            } else {
                gone.push(index);
                self.write_index(mover, root, &after).await?;
            }
            mover.indexed_usage.extend(after);
        }
        let mut state = self.state.borrow_mut();
        gone.into_iter().for_each(|place| state.stripes.sub_live(place.stripe, place.object_bytes()));
        Ok(())
    }

    async fn write_changed_rows(&self, mover: &mut Mover, root: &mut Root) -> Result<(), StoreRefusal> {
        let rows = self.state.borrow_mut().stripes.take_changed();
        self.write_rows(mover, root, &rows).await
    }

    async fn write_rows(&self, mover: &mut Mover, root: &mut Root, rows: &[Usage]) -> Result<(), StoreRefusal> {
        let mut bytes = Vec::new();
        for chunk in rows.chunks(self.usage_object_bytes(ROW_BYTES) / ROW_BYTES) {
            bytes.clear();
            chunk.iter().for_each(|row| row.encode(&mut bytes));
            let number = root.usage.len() as u64;
            let descriptor = log_descriptor(ObjectKind::Usage, root.checkpoint, number, bytes.len());
            root.usage.push(self.place_live(mover, &descriptor, &bytes).await?);
        }
        Ok(())
    }

    /// Moves the places of usage objects from the root to index objects if they are too many.
    /// The newest index object is filled up before another one is begun.
    async fn index_usage(&self, mover: &mut Mover, root: &mut Root) -> Result<(), StoreRefusal> {
        if root.usage.len() <= self.options.usage_places_max {
            return Ok(());
        }
        let full_bytes = self.usage_object_bytes(PLACE_BYTES);
        let mut places = Vec::new();
        if let Some(last) = root.usage_index.pop_if(|last| (last.stored_bytes as usize) < full_bytes) {
            let in_it = last.stored_bytes as usize / PLACE_BYTES;
            places = mover.indexed_usage.split_off(mover.indexed_usage.len() - in_it);
            self.state.borrow_mut().stripes.sub_live(last.stripe, last.object_bytes());
        }
        places.append(&mut root.usage);
        self.write_index(mover, root, &places).await?;
        mover.indexed_usage.append(&mut places);
        Ok(())
    }

    /// Adds index objects that name `places`.
    async fn write_index(&self, mover: &mut Mover, root: &mut Root, places: &[Place]) -> Result<(), StoreRefusal> {
        for chunk in places.chunks(self.usage_object_bytes(PLACE_BYTES) / PLACE_BYTES) {
            let bytes: Vec<u8> = chunk.iter().flat_map(Place::encode).collect();
            let number = root.usage_index.len() as u64;
            let descriptor = log_descriptor(ObjectKind::Index, root.checkpoint, number, bytes.len());
            root.usage_index.push(self.place_live(mover, &descriptor, &bytes).await?);
        }
        Ok(())
    }

    /// Payload of a usage or index object of entries of `entry_bytes`, at most.
    fn usage_object_bytes(&self, entry_bytes: usize) -> usize {
        let largest = self.group.unit_payload_bytes() as usize - DESCRIPTOR_BYTES;
        (self.options.usage_object_bytes.min(largest) / entry_bytes).max(1) * entry_bytes
    }
}

/// The usage objects that index objects of `root` name, oldest first.
pub(crate) async fn read_index(group: &Group, root: &Root) -> Result<Vec<Place>, FormatError> {
    let mut places = Vec::new();
    for place in &root.usage_index {
        let bytes = read_payload(group, ObjectKind::Index, *place).await?;
        let mut take = Take(&bytes);
        while !take.0.is_empty() {
            places.push(take.place()?);
        }
    }
    Ok(places)
}

/// The stripe table as of `root`, of which index objects name the usage objects at `indexed`: all
/// segments free, then what the usage objects say.
pub(crate) async fn read_stripes(group: &Group, root: &Root, indexed: &[Place]) -> Result<StripeTable, FormatError> {
    let mut stripes = StripeTable::default();
    for segment in group.segments() {
        stripes.add_segment(segment.id, group.rows_per_segment());
    }
    let mut rows = BTreeMap::new();
    for place in indexed.iter().chain(&root.usage) {
        let found = Usage::decode_all(&read_payload(group, ObjectKind::Usage, *place).await?)?;
        rows.extend(found.into_iter().map(|row| (row.stripe, row)));
    }
    rows.extend(root.own_usage.iter().map(|row| (row.stripe, *row)));
    // Rows of segments that were given back meanwhile may be left; they hold nothing.
    for row in rows.into_values().filter(|row| row.live_bytes > 0) {
        stripes.restore(row)?;
    }
    stripes.mark_changed(root.own_usage.iter().map(|row| row.stripe));
    Ok(stripes)
}

async fn read_payload(group: &Group, kind: ObjectKind, place: Place) -> Result<Vec<u8>, FormatError> {
    let len = DESCRIPTOR_BYTES as u32 + place.stored_bytes;
    let verify =
        |bytes: &[u8]| Descriptor::open(bytes).is_ok_and(|(found, check)| found.kind == kind && check == place.check);
    let group = group.acting_as(Principal::MetadataRead);
    let object = group.read(place.stripe, place.offset_bytes, len, &verify).await;
    let object = object.map_err(|_| STRIPE_TABLE_DAMAGED)?;
    Ok(object[DESCRIPTOR_BYTES..DESCRIPTOR_BYTES + place.stored_bytes as usize].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::root::tests::root;

    /// The root of the largest pool, at the moment when it names most.
    #[test]
    fn the_largest_root_fits_its_register() {
        let (options, place) = (Options::default(), Place::default());
        // 512 TiB in stripes of ten data units of 64 KiB; as many usage objects of changes.
        let stripes = (512u64 << 40) / (10 * (64 << 10));
        let usage = 2 * stripes / (options.usage_object_bytes / ROW_BYTES) as u64;
        let index = usage / (options.usage_object_bytes / PLACE_BYTES) as u64 + 1;
        let row = Usage { stripe: StripeId { segment: SegmentId(0), row: 0 }, generation: 1, live_bytes: 1 };
        let root = Root {
            incarnations: vec![base::Incarnation([8; 16]); 4],
            usage_index: vec![place; index as usize],
            usage: vec![place; options.usage_places_max],
            own_usage: vec![row; OWN_ROWS_MAX],
            deltas: vec![place; options.deltas_max],
            trees: vec![crate::tree::Tree { number: 1, root: crate::tree::PageId(1) }; 64],
            ..root()
        };
        assert!(root.encode().len() <= Group::REGISTER_BYTES_MAX, "{} bytes", root.encode().len());
    }
}

//! What stands on the drives, by what it says of itself: every object of every unit that can
//! be read, also of stripes that nothing names any more and of units that are damaged.
//!
//! Memory: about 120 bytes for each data object found.

use std::collections::BTreeMap;

use base::{Buf, ContentCheck, ObjectId, content_check};
use raid::{Group, Principal, StripeId, Survivor};

use crate::format::{DESCRIPTOR_BYTES, Descriptor, OBJECT_ALIGN_BYTES, ObjectKind, Place, object_bytes};
use crate::read::decode;
use crate::staged::BlockId;
use crate::tree::PageId;

/// A data object that is there and right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub place: Place,
    /// Generation of the stripe; `None` if the stripe is not proven.
    pub generation: Option<u64>,
    /// Who wrote it first.
    pub first: BlockId,
    /// With which operation.
    pub osn: u64,
    /// What it is.
    pub content: ContentCheck,
}

/// A page that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundPage {
    /// The checkpoint that wrote it.
    pub version: u64,
    /// Its tree.
    pub tree: u64,
    /// Where.
    pub place: Place,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// Data objects.
    pub objects: BTreeMap<ObjectId, Found>,
    /// The newest copy of each page of a tree, of those not newer than the root.
    pub pages: BTreeMap<PageId, FoundPage>,
    /// Generations of the stripes that are proven.
    pub proven: BTreeMap<StripeId, u64>,
    /// Generations seen in stripes that are not.
    pub unproven: BTreeMap<StripeId, u64>,
    /// Stripes looked at.
    pub stripes: u64,
    /// Of those that are not proven, how many hold nothing at all: never written.
    pub blank: u64,
}

impl Survey {
    /// Reads everything.
    pub async fn take(group: &Group, content_key: &[u8; 32], checkpoint: u64) -> Survey {
        let group = group.acting_as(Principal::Scanner);
        let mut survey = Survey::default();
        for segment in group.segments() {
            for row in 0..group.rows_per_segment() {
                survey.look_at(&group, StripeId { segment: segment.id, row }, (content_key, checkpoint)).await;
                group.world().yield_now().await;
            }
        }
        survey
    }

    async fn look_at(&mut self, group: &Group, stripe: StripeId, (content_key, checkpoint): (&[u8; 32], u64)) {
        self.stripes += 1;
        let survivors = group.survivors(stripe).await;
        if let Some(generation) = survivors.proven {
            self.proven.insert(stripe, generation);
        }
        let is_blank = |unit: &Survivor| unit.generation.is_none() && unit.payload.iter().all(|byte| *byte == 0);
        if survivors.proven.is_none() && !survivors.units.is_empty() && survivors.units.iter().all(is_blank) {
            self.blank += 1;
        }
        for unit in &survivors.units {
            let start_bytes = u32::from(unit.role) * group.unit_payload_bytes();
            let proven = survivors.proven.filter(|generation| unit.generation == Some(*generation));
            if proven.is_none() && survivors.proven.is_none() {
                let newest = self.unproven.entry(stripe).or_default();
                *newest = (*newest).max(unit.generation.unwrap_or(0));
            }
            // A unit of another generation than the proven stripe's is not read by place.
            if survivors.proven.is_none() || proven.is_some() {
                self.look_into(unit, (stripe, start_bytes, proven), content_key, checkpoint);
            }
        }
    }

    /// Takes in the objects of a unit. Where one is damaged, the next is looked for.
    fn look_into(
        &mut self,
        unit: &Survivor,
        (stripe, start_bytes, generation): (StripeId, u32, Option<u64>),
        content_key: &[u8; 32],
        checkpoint: u64,
    ) {
        let mut at = 0;
        // Behind damage anything may look like an object, what a guest wrote too. Then only
        // what the pool's own key vouches for is believed.
        let mut in_step = unit.generation.is_some();
        while at + DESCRIPTOR_BYTES <= unit.payload.len() {
            let Ok((descriptor, check)) = Descriptor::open(&unit.payload[at..]) else {
                in_step = false;
                at += OBJECT_ALIGN_BYTES;
                continue;
            };
            let place =
                Place { stripe, offset_bytes: start_bytes + at as u32, stored_bytes: descriptor.stored_bytes, check };
            let object = unit.payload.slice(at..);
            let taken = match descriptor.kind {
                ObjectKind::Data => self.see_data(&descriptor, (place, generation), &object, content_key),
                ObjectKind::Page if in_step => self.see_page(&descriptor, place, checkpoint),
                _ => in_step,
            };
            at += if taken { object_bytes(descriptor.stored_bytes as usize) } else { OBJECT_ALIGN_BYTES };
            in_step &= taken;
        }
    }

    fn see_data(
        &mut self,
        descriptor: &Descriptor,
        (place, generation): (Place, Option<u64>),
        object: &Buf,
        content_key: &[u8; 32],
    ) -> bool {
        let content = decode(descriptor, object);
        if !content.is_ok_and(|content| content_check(content_key, &content) == descriptor.content) {
            return false;
        }
        let first = BlockId { map: base::FileId(descriptor.owner), block: descriptor.block, epoch: descriptor.epoch };
        let (osn, content) = (descriptor.sequence, descriptor.content);
        let found = Found { place, generation, first, osn, content };
        let known = self.objects.entry(ObjectId(descriptor.id)).or_insert(found);
        // The cleaner moves objects as they are. Rather one in a stripe that is whole.
        if known.generation < generation {
            *known = found;
        }
        true
    }

    fn see_page(&mut self, descriptor: &Descriptor, place: Place, checkpoint: u64) -> bool {
        let (id, version) = (PageId(descriptor.id), descriptor.sequence);
        let found = FoundPage { version, tree: descriptor.owner, place };
        if id.level() == 0 && version <= checkpoint {
            let known = self.pages.entry(id).or_insert(found);
            if known.version < version {
                *known = found;
            }
        }
        true
    }
}

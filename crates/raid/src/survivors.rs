//! What is left of a stripe of which nobody knows any more what it should be: for a scan
//! that finds everything by what it says of itself, when the books that say where things are
//! are lost (`design.md` 11.3).
//!
//! Here alone are bytes given out that no check of this layer holds for. They are marked, and
//! whoever takes them has checks of its own on every object.

use base::buf::Buf;

use crate::group::Group;
use crate::layout::{StripeId, UNIT_HEADER_BYTES};

/// The payload of a data unit.
#[derive(Clone, Debug)]
pub struct Survivor {
    /// Which data unit of the stripe.
    pub role: u8,
    /// Generation, if the unit is whole.
    pub generation: Option<u64>,
    /// Its payload.
    pub payload: Buf,
}

/// What is left of a stripe.
#[derive(Clone, Debug, Default)]
pub struct Survivors {
    /// Generation of the stripe if enough of it is left to prove all of it.
    pub proven: Option<u64>,
    /// All data units of the stripe as proven; then every other that is whole by itself, and
    /// of a stripe that is not proven the damaged ones as they stand.
    pub units: Vec<Survivor>,
}

impl Group {
    /// Everything that can be read of the data units of `id`, whatever generation it is of.
    /// Nothing is repaired and nothing counted as lost.
    pub async fn survivors(&self, id: StripeId) -> Survivors {
        let Some(segment) = self.segment(id.segment) else { return Survivors::default() };
        let data = usize::from(segment.geometry.data);
        let collected = self.collect(segment.clone(), id, None).await;
        let proven =
            collected.versions().into_iter().find_map(|version| Some((version, self.prove(&collected, version)?)));
        let mut found = Survivors::default();
        if let Some((version, stripe)) = &proven {
            found.proven = Some(version.0);
            for (role, unit) in (0..).zip(&stripe.units[..data]) {
                let payload = unit.slice(UNIT_HEADER_BYTES..);
                found.units.push(Survivor { role, generation: Some(version.0), payload });
            }
        }
        for role in 0..data {
            let number = u8::try_from(role).expect("at most 32");
            match collected.whole(role) {
                Some((generation, _)) if found.proven == Some(generation) => {}
                Some((generation, payload)) => {
                    found.units.push(Survivor { role: number, generation: Some(generation), payload });
                }
                None if found.proven.is_none() => {
                    let place = segment.place_of(role, id.row);
                    let offset = self.inner.shape.unit_offset_bytes(place.extent, id.row);
                    if let Ok(bytes) = self.read_media(place.slot, offset, self.take_unit()).await {
                        let payload = bytes.freeze().slice(UNIT_HEADER_BYTES..);
                        found.units.push(Survivor { role: number, generation: None, payload });
                    }
                }
                None => {}
            }
        }
        found
    }
}

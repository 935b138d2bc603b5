//! What a drive that is being filled again still lacks: one bit per stripe.
//!
//! A unit that is owed is absent: it is not read, and its stripe survives one loss less.
//! Writing its stripe, rebuilding it, or learning that nothing refers to it any more takes
//! it off. Ten million stripes cost 1.25 MB.

use std::collections::BTreeMap;

use crate::layout::{SegmentId, StripeId};

/// See the module's head.
#[derive(Clone, Debug)]
pub(crate) enum Owed {
    /// Nobody has said yet which stripes there are: everything is owed.
    All,
    /// Exactly these.
    These {
        /// A bit per row.
        segments: BTreeMap<SegmentId, Vec<u64>>,
        /// Bits set.
        units: u64,
    },
}

impl Owed {
    /// Exactly `stripes` are owed.
    pub fn these(stripes: impl IntoIterator<Item = StripeId>) -> Owed {
        let mut segments: BTreeMap<SegmentId, Vec<u64>> = BTreeMap::new();
        let mut units = 0;
        for id in stripes {
            let words = segments.entry(id.segment).or_default();
            let (word, bit) = place_of(id.row);
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            units += u64::from(words[word] & bit == 0);
            words[word] |= bit;
        }
        Owed::These { segments, units }
    }

    /// Units owed; `None` while that is not known.
    pub fn units(&self) -> Option<u64> {
        match self {
            Owed::All => None,
            Owed::These { units, .. } => Some(*units),
        }
    }

    /// Whether the unit of `id` is owed.
    pub fn contains(&self, id: StripeId) -> bool {
        let Owed::These { segments, .. } = self else { return true };
        let (word, bit) = place_of(id.row);
        segments.get(&id.segment).and_then(|words| words.get(word)).is_some_and(|word| word & bit != 0)
    }

    /// Whether any unit of `segment` is owed.
    pub fn touches(&self, segment: SegmentId) -> bool {
        let Owed::These { segments, .. } = self else { return true };
        segments.get(&segment).is_some_and(|words| words.iter().any(|word| *word != 0))
    }

    /// The unit of `id` is there, or nothing refers to it.
    pub fn settle(&mut self, id: StripeId) {
        let Owed::These { segments, units } = self else { return };
        let (word, bit) = place_of(id.row);
        if let Some(word) = segments.get_mut(&id.segment).and_then(|words| words.get_mut(word)) {
            *units -= u64::from(*word & bit != 0);
            *word &= !bit;
        }
    }

    /// The segment is no more.
    pub fn drop_segment(&mut self, segment: SegmentId) {
        let Owed::These { segments, units } = self else { return };
        for word in segments.remove(&segment).unwrap_or_default() {
            *units -= u64::from(word.count_ones());
        }
    }

    /// The first unit owed at `from` or behind it.
    pub fn next_from(&self, from: StripeId) -> Option<StripeId> {
        let Owed::These { segments, .. } = self else { return None };
        segments.range(from.segment..).find_map(|(&segment, words)| {
            let first = if segment == from.segment { from.row } else { 0 };
            next_bit(words, first).map(|row| StripeId { segment, row })
        })
    }
}

fn place_of(row: u32) -> (usize, u64) {
    ((row / 64) as usize, 1 << (row % 64))
}

fn next_bit(words: &[u64], first: u32) -> Option<u32> {
    let (start, bit) = place_of(first);
    let masked = |index: usize| if index == start { words[index] & !(bit - 1) } else { words[index] };
    let index = (start..words.len()).find(|&index| masked(index) != 0)?;
    Some(u32::try_from(index).expect("rows fit 32 bits") * 64 + masked(index).trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripe(segment: u32, row: u32) -> StripeId {
        StripeId { segment: SegmentId(segment), row }
    }

    #[test]
    fn what_is_owed_is_counted_found_in_order_and_settled_once() {
        let all = [stripe(1, 0), stripe(1, 63), stripe(1, 64), stripe(3, 200)];
        let mut owed = Owed::these(all.iter().copied().chain([stripe(1, 63)]));
        assert_eq!(owed.units(), Some(4));
        let mut found = Vec::new();
        let mut from = stripe(0, 0);
        while let Some(next) = owed.next_from(from) {
            found.push(next);
            from = StripeId { row: next.row + 1, ..next };
        }
        assert_eq!(found, all);
        owed.settle(stripe(1, 63));
        owed.settle(stripe(1, 63));
        owed.settle(stripe(9, 9));
        assert_eq!((owed.units(), owed.contains(stripe(1, 63)), owed.contains(stripe(1, 64))), (Some(3), false, true));
        owed.drop_segment(SegmentId(1));
        assert_eq!((owed.units(), owed.touches(SegmentId(1)), owed.touches(SegmentId(3))), (Some(1), false, true));
    }

    #[test]
    fn before_anybody_said_what_there_is_everything_is_owed() {
        let mut owed = Owed::All;
        owed.settle(stripe(1, 1));
        assert!(owed.contains(stripe(1, 1)) && owed.touches(SegmentId(7)) && owed.units().is_none());
    }
}

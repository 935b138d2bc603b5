//! A set of byte ranges, kept merged and in order.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of half-open ranges of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ends_by_start: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.ends_by_start.is_empty()
    }

    /// Bytes in the set.
    pub fn total_bytes(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }

    /// The ranges, in order, none touching the next.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ends_by_start.iter().map(|(&start, &end)| start..end)
    }

    /// The ranges of the set that share a byte with `range`, in order.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let first = self.ends_by_start.range(..=range.start).next_back().map_or(range.start, |(&start, _)| start);
        let last = if range.is_empty() { first } else { range.end };
        let wanted = range.clone();
        self.ends_by_start
            .range(first..last)
            .map(|(&start, &end)| start..end)
            .filter(move |have| have.start < wanted.end && wanted.start < have.end)
    }

    /// Whether some byte of `range` is in the set.
    pub fn overlaps(&self, range: Range<u64>) -> bool {
        self.overlapping(range).next().is_some()
    }

    /// Adds `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let touching = range.start.saturating_sub(1)..range.end.saturating_add(1);
        let old: Vec<_> = self.overlapping(touching).collect();
        let mut merged = range;
        for piece in old {
            self.ends_by_start.remove(&piece.start);
            merged = merged.start.min(piece.start)..merged.end.max(piece.end);
        }
        self.ends_by_start.insert(merged.start, merged.end);
    }

    /// Takes `range` out.
    pub fn remove(&mut self, range: Range<u64>) {
        let old: Vec<_> = self.overlapping(range.clone()).collect();
        for piece in old {
            self.ends_by_start.remove(&piece.start);
            if piece.start < range.start {
                self.ends_by_start.insert(piece.start, range.start);
            }
            if range.end < piece.end {
                self.ends_by_start.insert(range.end, piece.end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::collections::BTreeSet;

    #[test]
    fn agrees_with_a_set_of_bytes() {
        let mut rng = Rng::new(11);
        for _ in 0..200 {
            let (mut ranges, mut bytes) = (RangeSet::default(), BTreeSet::new());
            for _ in 0..30 {
                let start = rng.below(40);
                let range = start..start + rng.below(9);
                if rng.percent(60) {
                    ranges.insert(range.clone());
                    bytes.extend(range);
                } else {
                    ranges.remove(range.clone());
                    bytes.retain(|byte| !range.contains(byte));
                }
                let listed: BTreeSet<u64> = ranges.iter().flatten().collect();
                assert_eq!(listed, bytes);
                assert_eq!(ranges.total_bytes(), bytes.len() as u64);
                let asked = rng.below(40);
                let asked = asked..asked + rng.below(5);
                assert_eq!(ranges.overlaps(asked.clone()), bytes.range(asked).next().is_some());
                let flat: Vec<_> = ranges.iter().collect();
                assert!(flat.windows(2).all(|pair| pair[0].end < pair[1].start), "merged: {flat:?}");
            }
        }
    }
}

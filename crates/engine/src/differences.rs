//! Where two files or snapshots may differ: what was written, cut or lost in the layers
//! between them.
//!
//! Each looks at a chain of layers, of which all but the last are where a map started. From
//! the first map that both chains share only the layers between the two count; of the
//! maps before it all of them. What is staged is looked at first: a block that is destaged
//! meanwhile is then found in one place or the other.

use std::collections::BTreeMap;

use base::FileId;

use crate::engine::Engine;
use crate::files::OpenFile;
use crate::inner::Inner;
use crate::layers::Layer;
use crate::maps::{decode_block, decode_change};
use crate::state::{BLOCKS, CHANGES, Few, HEADS, State, block_key, file_key};
use crate::store::{BLOCK_BYTES, Extent, FileHead, StoreRefusal};
use crate::tree::Missing;

/// Entries looked at between two looks at other work.
const CHUNK: usize = 512;

/// Blocks of a range: from, and the first behind.
type Range = (u64, u64);

/// The layers of a map above one epoch through another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    map: FileId,
    above: u32,
    through: u32,
}

/// The layers in which two chains differ.
fn spans(one: &[Layer], other: &[Layer]) -> Vec<Span> {
    let shared = one
        .iter()
        .enumerate()
        .find_map(|(at, layer)| other.iter().position(|theirs| theirs.map == layer.map).map(|theirs| (at, theirs)));
    let (at, theirs) = shared.unwrap_or((one.len(), other.len()));
    let whole = |layer: &Layer| Span { map: layer.map, above: 0, through: layer.epoch };
    let mut spans: Vec<Span> = one[..at].iter().chain(&other[..theirs]).map(whole).collect();
    if let (Some(one), Some(other)) = (one.get(at), other.get(theirs)) {
        let (above, through) = (one.epoch.min(other.epoch), one.epoch.max(other.epoch));
        spans.push(Span { map: one.map, above, through });
    }
    spans
}

/// Brings ranges into order and together.
fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::new();
    for (from, to) in ranges.into_iter().filter(|(from, to)| from < to) {
        match joined.last_mut().filter(|last| from <= last.1) {
            Some(last) => last.1 = last.1.max(to),
            None => joined.push((from, to)),
        }
    }
    joined
}

impl Engine {
    /// Where a file may hold anything but zeros, in order and without overlap, in whole blocks. The
    /// cost follows what was written, not the size.
    pub async fn written(&self, file: FileId) -> Result<Vec<Extent>, StoreRefusal> {
        self.inner.written(file).await
    }

    /// Whether a file writes to the map that a snapshot of it shows: it was not rolled back since. What was
    /// written and then rolled back is in no difference of the two.
    pub async fn goes_on_from(&self, file: FileId, snapshot: FileId) -> Result<bool, StoreRefusal> {
        let (now, then) = (self.inner.chain(file).await?, self.inner.chain(snapshot).await?);
        Ok(now.0.first().map(|layer| layer.map) == then.0.first().map(|layer| layer.map))
    }

    /// Files and snapshots from `from` on, in order of their ids, so many at most.
    pub async fn files(&self, from: FileId, limit: usize) -> Result<Vec<Listed>, StoreRefusal> {
        self.inner.resident(|state| state.files_from(from, limit)).await
    }
}

/// A file or snapshot of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub file: FileId,
    /// Its head.
    pub head: FileHead,
    /// It is a snapshot.
    pub frozen: bool,
}

impl Inner {
    /// See [`Store::differences`](crate::Store::differences).
    pub async fn differences(&self, one: FileId, other: FileId) -> Result<Vec<Extent>, StoreRefusal> {
        let (one, other) = (self.chain(one).await?, self.chain(other).await?);
        self.changed_in(&spans(&one.0, &other.0), one.1.max(other.1)).await
    }

    /// See [`Engine::written`].
    async fn written(&self, file: FileId) -> Result<Vec<Extent>, StoreRefusal> {
        let (chain, size_bytes) = self.chain(file).await?;
        self.changed_in(&spans(&chain, &[]), size_bytes).await
    }

    async fn changed_in(&self, spans: &[Span], size_bytes: u64) -> Result<Vec<Extent>, StoreRefusal> {
        let end = size_bytes.div_ceil(BLOCK_BYTES);
        let mut ranges = Vec::new();
        for span in spans.iter().copied() {
            self.state.borrow().changed_in_memory(span, &mut ranges);
            self.changed_in_trees(span, &mut ranges).await?;
            ranges = joined(ranges);
        }
        let within = ranges.into_iter().map(|(from, to)| (from, to.min(end))).filter(|(from, to)| from < to);
        Ok(within
            .map(|(from, to)| Extent { offset_bytes: from * BLOCK_BYTES, len_bytes: (to - from) * BLOCK_BYTES })
            .collect())
    }

    /// The layers a file looks at, its own first, and its size.
    async fn chain(&self, file: FileId) -> Result<(Few<Layer>, u64), StoreRefusal> {
        let found = self.resident(|state| Ok(state.file(file)?.map(|open| (open.layer, open.head.size_bytes)))).await?;
        let (layer, size_bytes) = found.ok_or(StoreRefusal::NoSuchFile)?;
        let state = self.state.borrow();
        let chain = std::iter::successors(Some(layer), |layer| state.layers.parent(layer.map));
        Ok((chain.collect(), size_bytes))
    }

    async fn changed_in_trees(&self, span: Span, ranges: &mut Vec<Range>) -> Result<(), StoreRefusal> {
        if span.above >= span.through {
            return Ok(());
        }
        let first = Layer { map: span.map, epoch: span.above + 1 };
        let is_tracked = self.state.borrow().layers.is_tracked(first);
        let (tree, mut from) = match is_tracked {
            true => (CHANGES, crate::maps::change_key(first.block(0)).to_vec()),
            false => (BLOCKS, block_key(Layer { epoch: 0, ..first }.block(0)).to_vec()),
        };
        let map = span.map.0.to_be_bytes();
        loop {
            let more = |key: &[u8]| key[..8] == map && (!is_tracked || decode_change(key).epoch <= span.through);
            let found = self.resident(|state| state.tree(tree).scan(&state.pages, &from, CHUNK, more)).await?;
            let ids = found.iter().map(|(key, _)| if is_tracked { decode_change(key) } else { decode_block(key) });
            ranges.extend(ids.filter(|id| id.epoch <= span.through).map(|id| (id.block, id.block + 1)));
            let Some((last, _)) = found.last().filter(|_| found.len() == CHUNK) else { return Ok(()) };
            from = [last, &[0][..]].concat();
            if ranges.len() > 1 << 16 {
                *ranges = joined(std::mem::take(ranges));
            }
            self.world.yield_now().await;
        }
    }
}

impl State {
    fn files_from(&self, from: FileId, limit: usize) -> Result<Vec<Listed>, Missing> {
        let rows = self.tree(HEADS).scan(&self.pages, &file_key(from), limit, |_| true)?;
        let mut found: BTreeMap<FileId, OpenFile> = BTreeMap::new();
        for (key, value) in &rows {
            let file = FileId(key.as_slice().try_into().map_or(0, u64::from_be_bytes));
            found.insert(file, OpenFile::decode(file, value));
        }
        // Snapshots come into the tree with the next checkpoint, as do heads that have changed.
        let last = found.keys().next_back().copied().filter(|_| rows.len() == limit).unwrap_or(FileId(u64::MAX));
        for file in self.files.dirty_within(from..=last, limit) {
            found.extend(self.files.get(file).map(|open| (file, open.clone())));
        }
        let listed = |(file, open): (FileId, OpenFile)| Listed { file, head: open.head, frozen: open.frozen };
        Ok(found.into_iter().take(limit).map(listed).collect())
    }

    fn changed_in_memory(&self, span: Span, ranges: &mut Vec<Range>) {
        if span.above >= span.through {
            return;
        }
        let epochs = span.above + 1..=span.through;
        let staged = self.staged.blocks_between(span.map, (0, u64::MAX), epochs.clone());
        ranges.extend(staged.map(|block| (block, block + 1)));
        ranges.extend(self.layers.trims_between(span.map, epochs.clone()));
        let lost = self.lost.iter().filter(|id| id.map == span.map && epochs.contains(&id.epoch));
        ranges.extend(lost.map(|id| (id.block, id.block + 1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(map: u64, epoch: u32) -> Layer {
        Layer { map: FileId(map), epoch }
    }
    fn span(map: u64, above: u32, through: u32) -> Span {
        Span { map: FileId(map), above, through }
    }

    #[test]
    fn only_what_lies_between_two_chains_counts() {
        let (base, now) = (layer(1, 2), layer(1, 5));
        assert_eq!(spans(&[base], &[now]), [span(1, 2, 5)]);
        assert_eq!(spans(&[layer(7, 1), base], &[now]), [span(7, 0, 1), span(1, 2, 5)]);
        let (one, other) = ([layer(7, 3), base], [layer(8, 1), layer(7, 2), base]);
        assert_eq!(spans(&one, &other), [span(8, 0, 1), span(7, 2, 3)]);
        assert_eq!(spans(&[base], &[layer(9, 4)]), [span(1, 0, 2), span(9, 0, 4)]);
    }

    #[test]
    fn ranges_come_in_order_and_together() {
        assert_eq!(joined(vec![(5, 6), (1, 3), (3, 5), (8, 8), (9, 11), (10, 12)]), [(1, 6), (9, 12)]);
    }
}

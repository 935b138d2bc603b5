//! Files and rows as they were at the point, at either site.

use std::ops::Range;

use base::FileId;
use engine::store::{BLOCK_BYTES, StoreRefusal};
use engine::{Listed, Term};
use mirror::Form;
use tokio::sync::oneshot;

use super::FileLook;
use super::marker::Keep;
use crate::appender::Work;
use crate::replica::{Inner, form_of};
use crate::resync::ask::{Key, Row};
use crate::resync::rows::{self, Page};

/// Blocks of a chunk: what is named by one sum when a difference is looked for.
pub(super) const CHUNK_BLOCKS: u64 = 1024;
/// Stands for the sum of what cannot be read: no two sites agree on it, since it is flagged as well.
const UNREADABLE: u128 = 0;

/// The sum of what terms there are; none if one is missing.
fn sum_of(terms: &[Term]) -> Option<u128> {
    terms.iter().try_fold(0u128, |sum, (_, term)| term.map(|term| sum.wrapping_add(term)))
}

impl Inner {
    /// Whether the check under way reads data; none if there is none.
    pub(super) fn reads_data(&self) -> bool {
        self.at_point(|marker| marker.reads_data).unwrap_or(false)
    }

    /// A page of rows as they were, and where the next one begins.
    pub(super) async fn rows_at_point(&self, from: &Key, to: Option<&Key>) -> Result<Page, StoreRefusal> {
        let Page { rows, next } = rows::page(&self.engine, from, to).await?;
        let until = next.as_ref().or(to);
        let rows = self.at_point(|marker| marker.rows_then((from, until), rows)).unwrap_or_default();
        Ok(Page { rows, next })
    }

    /// The files from `from` through `through` as they were: so many at a time, and how far these are all.
    pub(super) async fn files_at_point(
        &self,
        from: FileId,
        through: FileId,
        limit: usize,
    ) -> Result<(Vec<FileId>, FileId), StoreRefusal> {
        let now = self.engine.files(from, limit).await?;
        let is_all = now.len() < limit;
        let last = now.last().map(|listed| listed.file).filter(|_| !is_all).map_or(through, |last| last.min(through));
        let now = now.into_iter().map(|listed| listed.file);
        let then = self.at_point(|marker| marker.files_then((from, last), now)).unwrap_or_default();
        Ok((then.into_iter().collect(), last))
    }

    /// What there was of a file; none if there was no such file.
    pub(super) async fn look_at(&self, file: FileId) -> Result<Option<FileLook>, StoreRefusal> {
        loop {
            let Some(stand_in) = self.at_point(|marker| marker.stand_in(file)) else { return Ok(None) };
            if let Some(stand_in) = stand_in {
                self.caught_up(stand_in.ticket).await;
                let (frozen, form) = (stand_in.frozen, stand_in.form);
                return self.look((file, stand_in.file), Some((frozen, form))).await;
            }
            let look = self.look((file, file), None).await;
            // If it was changed meanwhile something else stands for it by now.
            if self.at_point(|marker| marker.stand_in(file).is_none()) != Some(false) {
                return look;
            }
        }
    }

    async fn look(
        &self,
        (file, source): (FileId, FileId),
        then: Option<(bool, Form)>,
    ) -> Result<Option<FileLook>, StoreRefusal> {
        let listed = match self.engine.summed(source).await {
            Err(StoreRefusal::Unreadable { .. }) => None,
            Ok(None) => return Ok(None),
            summed => summed?,
        };
        let is_unreadable = listed.is_none();
        let Some(Listed { head, frozen, .. }) = (match listed {
            Some(listed) => Some(listed),
            None => self.listed(source).await?,
        }) else {
            return Ok(None);
        };
        let (frozen, form) = then.unwrap_or((frozen, form_of(&head)));
        let mut look = FileLook {
            file,
            frozen,
            unreadable: is_unreadable,
            sum_is_wrong: false,
            size_bytes: form.size_bytes,
            modified: form.modified,
            changed: form.changed,
            sum: if is_unreadable { UNREADABLE } else { head.content_sum },
        };
        if self.reads_data() && !is_unreadable {
            match self.sum_of_data(source).await? {
                Some(sum) => (look.sum_is_wrong, look.sum) = (sum != head.content_sum, sum),
                None => (look.unreadable, look.sum) = (true, UNREADABLE),
            }
        }
        Ok(Some(look))
    }

    async fn sum_of_data(&self, source: FileId) -> Result<Option<u128>, StoreRefusal> {
        let mut sum = Some(0u128);
        for blocks in self.chunks_with_data(source).await? {
            let terms = self.engine.terms_of_data(source, blocks.clone()).await?;
            sum = sum.zip(sum_of(&terms)).map(|(sum, more)| sum.wrapping_add(more));
            self.note_read((blocks.end - blocks.start) * BLOCK_BYTES);
        }
        Ok(sum)
    }

    /// The parts of a file that may hold anything but zeros, none of which reaches into two chunks.
    async fn chunks_with_data(&self, source: FileId) -> Result<Vec<Range<u64>>, StoreRefusal> {
        let mut parts = Vec::new();
        for extent in self.engine.written(source).await? {
            let end = (extent.offset_bytes + extent.len_bytes).div_ceil(BLOCK_BYTES);
            let mut from = extent.offset_bytes / BLOCK_BYTES;
            while from < end {
                let to = end.min((from / CHUNK_BLOCKS + 1) * CHUNK_BLOCKS);
                parts.push(from..to);
                from = to;
            }
        }
        Ok(parts)
    }

    async fn terms(&self, source: FileId, blocks: Range<u64>) -> Result<Vec<Term>, StoreRefusal> {
        match self.reads_data() {
            true => self.engine.terms_of_data(source, blocks).await,
            false => self.engine.terms(source, blocks).await,
        }
    }

    /// What stands for a file that is kept.
    async fn source_of(&self, file: FileId) -> Result<FileId, StoreRefusal> {
        let stand_in = self.at_point(|marker| marker.stand_in(file)).flatten().ok_or(StoreRefusal::NoSuchFile)?;
        self.caught_up(stand_in.ticket).await;
        Ok(stand_in.file)
    }

    /// The sums of the chunks of a file that is kept, where they are not 0. A chunk of which something cannot
    /// be read has a sum that no other site has.
    pub(super) async fn chunk_sums(&self, file: FileId) -> Result<Vec<(u64, u128)>, StoreRefusal> {
        let source = self.source_of(file).await?;
        let mut sums: Vec<(u64, u128)> = Vec::new();
        for blocks in self.chunks_with_data(source).await? {
            let chunk = blocks.start / CHUNK_BLOCKS;
            let terms = self.terms(source, blocks).await?;
            let sum = sum_of(&terms).unwrap_or_else(|| u128::from_le_bytes(self.config.me.0));
            match sums.last_mut().filter(|last| last.0 == chunk) {
                Some(last) => last.1 = last.1.wrapping_add(sum),
                None => sums.push((chunk, sum)),
            }
        }
        sums.retain(|(_, sum)| *sum != 0);
        Ok(sums)
    }

    /// The terms of a chunk of a file that is kept.
    pub(super) async fn chunk_terms(&self, file: FileId, chunk: u64) -> Result<Vec<Term>, StoreRefusal> {
        let source = self.source_of(file).await?;
        let mut terms = Vec::new();
        for blocks in self.chunks_with_data(source).await? {
            if blocks.start / CHUNK_BLOCKS == chunk {
                terms.extend(self.terms(source, blocks).await?);
            }
        }
        Ok(terms)
    }

    /// Keeps files as they were at the point, in the order of what is appended.
    pub(super) async fn keep_files(&self, files: Vec<FileId>, as_evidence: bool) -> Result<(), StoreRefusal> {
        if self.is_gone() {
            return Err(StoreRefusal::Stopped);
        }
        if files.is_empty() {
            return Ok(());
        }
        let (tell, kept) = oneshot::channel();
        self.queue.borrow_mut().push_back(Work::Keep(Keep { files, as_evidence, tell }));
        self.queued.notify_one();
        kept.await.map_err(|_| StoreRefusal::Stopped)
    }

    fn note_read(&self, bytes: u64) {
        if let Some(course) = self.check_course.borrow_mut().as_mut() {
            course.progress.bytes += bytes;
        }
    }
}

/// What is not the same in two ordered lists of numbers with something each.
pub(super) fn differing<T: PartialEq>(mine: &[(u64, T)], theirs: &[(u64, T)]) -> Vec<u64> {
    let of = |all: &[(u64, T)], other: &[(u64, T)]| -> Vec<u64> {
        let same = |one: &&(u64, T)| {
            other.binary_search_by_key(&one.0, |theirs| theirs.0).is_ok_and(|at| other[at].1 == one.1)
        };
        all.iter().filter(|one| !same(one)).map(|one| one.0).collect()
    };
    let mut numbers = of(mine, theirs);
    numbers.extend(of(theirs, mine));
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Rows that are not the same, by key.
pub(super) fn differing_rows(mine: &[Row], theirs: &[Row]) -> Vec<super::RowDifference> {
    let find = |rows: &[Row], key: &Key| rows.iter().find(|row| row.0 == *key).map(|row| row.1.clone());
    let keys: std::collections::BTreeSet<&Key> = mine.iter().chain(theirs).map(|row| &row.0).collect();
    let told = |key: &Key| super::RowDifference {
        table: key.first().copied().unwrap_or_default(),
        key: key.get(1..).unwrap_or_default().to_vec(),
        primary: find(mine, key),
        secondary: find(theirs, key),
    };
    keys.into_iter().map(told).filter(|row| row.primary != row.secondary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_one_has_differs_and_so_does_what_both_have_otherwise() {
        assert_eq!(differing(&[(1, 'a'), (2, 'b'), (5, 'c')], &[(1, 'a'), (2, 'x'), (9, 'd')]), [2, 5, 9]);
        let row = |key: u8, value: u8| (vec![1, key], vec![value]);
        let found = differing_rows(&[row(1, 1), row(2, 2), row(4, 4)], &[row(1, 1), row(2, 3), row(3, 3)]);
        let keys: Vec<u8> = found.iter().map(|row| row.key[0]).collect();
        assert_eq!(keys, [2, 3, 4]);
        assert_eq!((found[1].primary.clone(), found[1].secondary.clone()), (None, Some(vec![3])));
    }

    #[test]
    fn a_sum_without_all_its_terms_is_none() {
        assert_eq!(sum_of(&[(1, Some(u128::MAX)), (2, Some(3))]), Some(2));
        assert_eq!(sum_of(&[(1, Some(1)), (2, None)]), None);
    }
}

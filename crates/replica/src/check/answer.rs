//! The secondary's end: it compares what the primary has with what it has itself (R-CHK-07).

use std::collections::BTreeMap;

use base::{FileId, WallNanos};
use engine::store::StoreRefusal;

use super::ask::{self, Ask, Reply};
use super::look::{CHUNK_BLOCKS, differing};
use super::receipt::{Seal, Statement};
use super::{FileLook, Sides};
use crate::replica::Inner;
use crate::resync::ask::{Digest, Key, Row};
use crate::resync::rows::{self, Page};
use crate::resync::secondary::Asked;

/// Rows that are told where they differ, and their bytes.
const ROWS_MAX: usize = 1024;
const ROWS_BYTES_MAX: usize = 512 << 10;
/// Files that are looked at between two looks at the list.
const FILES_LISTED: usize = 256;
/// Numbers that are told.
const NUMBERS_MAX: usize = 1024;

/// Whether a question is a check's.
pub(crate) fn is_check(body: &[u8]) -> bool {
    body.first().is_some_and(|first| *first >= ask::FIRST)
}

/// The answer to a check's question.
pub(crate) async fn answer(site: &Inner, asked: &Asked) -> Result<Vec<u8>, StoreRefusal> {
    let Some(ask) = Ask::decode(&asked.body) else { return Ok(Vec::new()) };
    if let Ask::Point { pair, key_name, .. } = &ask {
        if *key_name != site.engine.sum_key_name() || *pair != site.config.pair {
            return Ok(Reply::OtherKey.encode());
        }
        site.until_point(asked.osn).await;
    }
    // What was noted for another check, or another link, is no answer to this one.
    if site.at_point(|marker| marker.link) != Some(asked.link) {
        return Ok(Vec::new());
    }
    let reply = match ask {
        Ask::Point { .. } => Reply::Pointed { in_flight: site.in_flight_at_point.get() },
        Ask::Rows { from, to, digest } => rows(site, &from, to, digest).await?,
        Ask::Files { from, through, files } => compare(site, (from, through), &files).await?,
        Ask::Keep { files } => {
            site.keep_files(files, true).await?;
            Reply::Same
        }
        Ask::Chunks { file, from, to, sums } => {
            let mine = site.chunk_sums(file).await?;
            let within: Vec<_> = mine.into_iter().filter(|(chunk, _)| (from..to).contains(chunk)).collect();
            numbers(differing(&within, &sums))
        }
        Ask::Terms { file, chunk, terms } => numbers(differing(&site.chunk_terms(file, chunk).await?, &terms)),
        Ask::Sign { about, at } => Reply::Signed(sign(site, about, at)),
        Ask::End => {
            site.marker.borrow_mut().take();
            site.queued.notify_one();
            Reply::Same
        }
    };
    let is_lost = site.at_point(|marker| marker.overflowed).unwrap_or(false);
    Ok(if is_lost { Vec::new() } else { reply.encode() })
}

fn numbers(mut all: Vec<u64>) -> Reply {
    debug_assert!(NUMBERS_MAX as u64 >= CHUNK_BLOCKS, "all blocks of a chunk can be told");
    all.truncate(NUMBERS_MAX);
    Reply::Numbers(all)
}

async fn rows(site: &Inner, from: &Key, to: Option<Key>, digest: Digest) -> Result<Reply, StoreRefusal> {
    let mut all: Vec<Row> = Vec::new();
    let mut next = Some(from.clone());
    while let Some(from) = next.take_if(|_| all.len() < ROWS_MAX) {
        let page: Page = site.rows_at_point(&from, to.as_ref()).await?;
        all.extend(page.rows);
        next = page.next;
    }
    let mine = rows::digest_of(&all);
    let is_same = next.is_none() && mine == digest;
    site.at_point(|marker| {
        marker.tally.rows += all.len() as u64;
        marker.tally.add(&mine);
        marker.rows_are_done(to);
    });
    if is_same {
        return Ok(Reply::Same);
    }
    let mut bytes = 0;
    let fits = |row: &Row| {
        bytes += row.0.len() + row.1.len();
        bytes <= ROWS_BYTES_MAX
    };
    Ok(Reply::Rows(all.into_iter().take(ROWS_MAX).take_while(fits).collect()))
}

/// The files of a range here against those there.
async fn compare(site: &Inner, (from, through): (FileId, FileId), theirs: &[FileLook]) -> Result<Reply, StoreRefusal> {
    site.files_are_done(FileId(from.0.saturating_sub(1))).await?;
    let theirs: BTreeMap<FileId, &FileLook> = theirs.iter().map(|look| (look.file, look)).collect();
    let mut differ = Vec::new();
    let mut known = Vec::new();
    let mut next = from;
    while next <= through {
        let (files, last) = site.files_at_point(next, through, FILES_LISTED).await?;
        if site.reads_data() {
            site.keep_files(files.clone(), false).await?;
        }
        for file in files {
            let Some(mine) = site.look_at(file).await? else { continue };
            site.at_point(|marker| {
                marker.tally.files += 1;
                marker.tally.bytes += mine.size_bytes;
                marker.tally.add(&mine.bytes());
            });
            known.push(file);
            if theirs.get(&file) != Some(&&mine) || !mine.is_sound() {
                differ.push((file, Some(mine)));
            }
        }
        if last == through {
            break;
        }
        next = last.next();
    }
    let missing = theirs.keys().filter(|file| !known.contains(file)).map(|file| (*file, None));
    differ.extend(missing.collect::<Vec<_>>());
    Ok(if differ.is_empty() { Reply::Same } else { Reply::Files(differ) })
}

/// This site's seal of what it has found itself.
fn sign(site: &Inner, about: String, at: WallNanos) -> Option<Seal> {
    let primary = site.shelf.borrow().kept().memory.known?.primary;
    let sides = Sides { primary, secondary: site.config.me };
    site.seal(&site.statement(about, at, sides)?)
}

impl Inner {
    /// What the tally says, in words that can be signed.
    pub(super) fn statement(&self, about: String, at: WallNanos, sides: Sides) -> Option<Statement> {
        let pair = self.config.pair;
        self.at_point(|marker| Statement {
            pair,
            about,
            osn: marker.osn,
            sides,
            reads_data: marker.reads_data,
            files: marker.tally.files,
            bytes: marker.tally.bytes,
            rows: marker.tally.rows,
            digest: marker.tally.digest,
            at,
        })
    }

    pub(super) fn seal(&self, statement: &Statement) -> Option<Seal> {
        let (certificate, signature) = self.outside.sign(statement.words().as_bytes())?;
        Some(Seal { site: self.config.me, certificate, signature })
    }

    /// Waits until what there was at the point is noted.
    pub(super) async fn until_point(&self, osn: base::Osn) {
        loop {
            let settled = self.settled.notified();
            if self.at_point(|marker| marker.osn) == Some(osn) || self.is_gone() {
                return;
            }
            settled.await;
        }
    }
}

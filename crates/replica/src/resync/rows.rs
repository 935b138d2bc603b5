//! All rows of a store that both sites have, in one order: by table, then by key. Table 0 is the set
//! of files: the key is the file's id, the value whether it is a snapshot.

use base::FileId;
use engine::store::{LOCAL_FILES, Row as Stored, StoreRefusal, Table};
use engine::{Engine, Store};

use super::ask::{Digest, Key, Row};
use super::digest;
use crate::shelf::PAIR;

/// The table that stands for files.
pub(crate) const FILES: u8 = 0;
/// Rows and bytes of a page.
const PAGE_ROWS: usize = 128;
const PAGE_BYTES: usize = 64 << 10;

/// A part of the rows, and where the next one begins.
pub(crate) struct Page {
    pub rows: Vec<Row>,
    pub next: Option<Key>,
}

pub(crate) fn file_key(file: FileId) -> Key {
    [&[FILES][..], &file.0.to_be_bytes()].concat()
}

/// The file that a key of [`FILES`] stands for.
pub(crate) fn file_of(key: &[u8]) -> Option<FileId> {
    let (table, rest) = key.split_first()?;
    (*table == FILES).then_some(FileId(u64::from_be_bytes(rest.try_into().ok()?)))
}

pub(crate) fn table_and_key(key: &[u8]) -> Option<(Table, &[u8])> {
    let (table, rest) = key.split_first()?;
    (*table != FILES && Table(*table) < PAIR && !rest.is_empty()).then_some((Table(*table), rest))
}

/// Keys and values of one table.
async fn table_rows(engine: &Engine, table: u8, from: &[u8], limit: usize) -> Result<Vec<Row>, StoreRefusal> {
    let with_table = |(key, value): Stored| ([&[table][..], &key].concat(), value.to_vec());
    if table != FILES {
        return Ok(engine.scan(Table(table), from, limit).await?.into_iter().map(with_table).collect());
    }
    let mut first = [0; 8];
    let known = from.len().min(8);
    first[..known].copy_from_slice(&from[..known]);
    let first = FileId(u64::from_be_bytes(first).saturating_add(u64::from(from.len() > 8)));
    let files = engine.files(first, limit).await?;
    let shared = files.into_iter().filter(|listed| listed.file < LOCAL_FILES);
    Ok(shared.map(|listed| (file_key(listed.file), vec![listed.frozen.into()])).collect())
}

/// The rows from `from` to before `to`: a page of them at most.
pub(crate) async fn page(engine: &Engine, from: &[u8], to: Option<&Key>) -> Result<Page, StoreRefusal> {
    let (mut table, mut key) = match from.split_first() {
        Some((table, key)) => (*table, key.to_vec()),
        None => (FILES, Vec::new()),
    };
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while Table(table) < PAIR {
        for row in table_rows(engine, table, &key, PAGE_ROWS + 1).await? {
            if to.is_some_and(|to| row.0 >= *to) {
                return Ok(Page { rows, next: None });
            }
            bytes += row.0.len() + row.1.len();
            if rows.len() == PAGE_ROWS || (bytes > PAGE_BYTES && !rows.is_empty()) {
                return Ok(Page { rows, next: Some(row.0) });
            }
            rows.push(row);
        }
        (table, key) = (table + 1, Vec::new());
    }
    Ok(Page { rows, next: None })
}

pub(crate) fn digest_of_row((key, value): &Row) -> Digest {
    let length = (key.len() as u32).to_le_bytes();
    digest(&[&length[..], key, value].concat())
}

pub(crate) fn digest_of(rows: &[Row]) -> Digest {
    let all: Vec<u8> = rows.iter().flat_map(digest_of_row).collect();
    digest(&all)
}

/// The value of one row now.
pub(crate) async fn value_of(engine: &Engine, key: &[u8]) -> Result<Option<Vec<u8>>, StoreRefusal> {
    if let Some(file) = file_of(key) {
        let found = engine.files(file, 1).await?;
        let there = found.first().filter(|listed| listed.file == file);
        return Ok(there.map(|listed| vec![listed.frozen.into()]));
    }
    let Some((table, key)) = table_and_key(key) else { return Ok(None) };
    Ok(engine.get(table, key).await?.map(|value| value.to_vec()))
}

/// Whether there is nothing that both sites would have.
pub(crate) async fn is_blank(engine: &Engine) -> Result<bool, StoreRefusal> {
    Ok(page(engine, &[], None).await?.rows.is_empty())
}

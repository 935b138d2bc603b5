//! What a resync's two ends say to each other, as bytes (`docs/formats/replica.md`). Little-endian;
//! what does not decode ends the resync.

use base::{FileId, PairId, SiteId, WallNanos};
use engine::store::Extent;
use mirror::Form;

/// Names a block's or row's content on the wire.
pub(crate) type Digest = [u8; 16];
/// A row's key, its table before it; files are rows of table 0.
pub(crate) type Key = Vec<u8>;
/// A row.
pub(crate) type Row = (Key, Vec<u8>);

/// Bytes of a range: what is there, or so many zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    Bytes { offset_bytes: u64, bytes: Vec<u8> },
    Zeros { offset_bytes: u64, length_bytes: u64 },
}

/// Zeros of one run at most, in bytes: as much as a message carries of anything else.
const ZEROS_MAX: u64 = mirror::WRITE_BYTES_MAX as u64;

/// From the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// May this site be made equal, and what does it know?
    Begin { pair: PairId },
    /// The rows from `from` to before `to`, or to the end, have this digest.
    Page { from: Key, to: Option<Key>, digest: Digest },
    /// These rows go, those are there.
    Rows { drops: Vec<Key>, puts: Vec<Row> },
    /// File ids through this one were given out.
    Ids { through: FileId },
    /// A file is about to be compared, and reaches so far. A snapshot is made anew, out of `origin` if
    /// that is told. `whole`: both held the same when the primary went alone.
    Open { file: FileId, frozen: bool, origin: Option<FileId>, whole: bool, size_bytes: u64 },
    /// What the primary has in these blocks of it.
    Compare { file: FileId, blocks: Vec<(u64, Digest)> },
    /// The content of ranges of it.
    Data { file: FileId, at: WallNanos, runs: Vec<Run> },
    /// It is done, and looks like this.
    Close { file: FileId, frozen: bool, form: Form },
}

/// From the secondary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It may. With whom it was last in sync, whether it wrote something by itself since, and the last id
    /// of a file that it has given out or heard of.
    Begun { whole_with: Option<[SiteId; 2]>, wrote_alone: bool, ids_through: FileId },
    /// It holds something else.
    Foreign,
    /// It is done; what was asked about is the same.
    Done,
    /// The rows it has from the page's begin to before `until`, or to the page's end: keys and digests.
    Rows { until: Option<Key>, rows: Vec<(Key, Digest)> },
    /// Where it may hold something else by itself.
    Extents(Vec<Extent>),
    /// The blocks, by their place in the question, that differ.
    Differ(Vec<u16>),
    /// There is no such file, or not of this kind.
    Gone,
    /// It cannot be done here now.
    Refused,
}

const BEGIN: u8 = 1;
const PAGE: u8 = 2;
const ROWS: u8 = 3;
const IDS: u8 = 4;
const OPEN: u8 = 5;
const COMPARE: u8 = 6;
const DATA: u8 = 7;
const CLOSE: u8 = 8;

const BEGUN: u8 = 1;
const FOREIGN: u8 = 2;
const DONE: u8 = 3;
const THEIR_ROWS: u8 = 4;
const EXTENTS: u8 = 5;
const DIFFER: u8 = 6;
const GONE: u8 = 7;
const REFUSED: u8 = 8;

#[derive(Default)]
pub(crate) struct Out(pub Vec<u8>);

impl Out {
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn count(&mut self, value: usize) {
        // Every list is bounded by what one message may carry.
        self.0.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.0.extend_from_slice(value);
    }

    pub fn maybe(&mut self, value: Option<&Key>) {
        self.u8(value.is_some().into());
        if let Some(value) = value {
            self.bytes(value);
        }
    }
}

pub(crate) struct In<'a>(pub &'a [u8]);

impl<'a> In<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn flag(&mut self) -> Option<bool> {
        self.u8().filter(|byte| *byte < 2).map(|byte| byte == 1)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn file(&mut self) -> Option<FileId> {
        self.u64().map(FileId)
    }

    pub fn count(&mut self) -> Option<usize> {
        self.array().map(u32::from_le_bytes).map(|count| count as usize)
    }

    pub fn bytes(&mut self) -> Option<Vec<u8>> {
        let count = self.count()?;
        self.take(count).map(<[u8]>::to_vec)
    }

    pub fn maybe(&mut self) -> Option<Option<Key>> {
        if self.flag()? { self.bytes().map(Some) } else { Some(None) }
    }

    /// A list; nothing is reserved for what a length only says.
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.count()?;
        (0..count).map(|_| item(self)).collect()
    }
}

impl Ask {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        match self {
            Ask::Begin { pair } => {
                out.u8(BEGIN);
                out.0.extend_from_slice(&pair.0);
            }
            Ask::Page { from, to, digest } => {
                out.u8(PAGE);
                out.bytes(from);
                out.maybe(to.as_ref());
                out.0.extend_from_slice(digest);
            }
            Ask::Rows { drops, puts } => {
                out.u8(ROWS);
                out.count(drops.len());
                drops.iter().for_each(|key| out.bytes(key));
                out.count(puts.len());
                for (key, value) in puts {
                    out.bytes(key);
                    out.bytes(value);
                }
            }
            Ask::Ids { through } => {
                out.u8(IDS);
                out.u64(through.0);
            }
            Ask::Open { file, frozen, origin, whole, size_bytes } => {
                out.u8(OPEN);
                out.u64(file.0);
                out.u8(u8::from(*frozen) | u8::from(*whole) << 1);
                out.u64(origin.map_or(0, |origin| origin.0));
                out.u64(*size_bytes);
            }
            Ask::Compare { file, blocks } => {
                out.u8(COMPARE);
                out.u64(file.0);
                out.count(blocks.len());
                for (block, digest) in blocks {
                    out.u64(*block);
                    out.0.extend_from_slice(digest);
                }
            }
            Ask::Data { file, at, runs } => out.data(*file, *at, runs),
            Ask::Close { file, frozen, form } => {
                out.u8(CLOSE);
                out.u64(file.0);
                out.u8((*frozen).into());
                [form.size_bytes, form.modified.0, form.changed.0].into_iter().for_each(|word| out.u64(word));
            }
        }
        out.0
    }

    pub fn decode(bytes: &[u8]) -> Option<Ask> {
        let mut from = In(bytes);
        let ask = from.ask()?;
        from.0.is_empty().then_some(ask)
    }
}

impl Out {
    fn data(&mut self, file: FileId, at: WallNanos, runs: &[Run]) {
        self.u8(DATA);
        self.u64(file.0);
        self.u64(at.0);
        self.count(runs.len());
        for run in runs {
            match run {
                Run::Bytes { offset_bytes, bytes } => {
                    self.u8(0);
                    self.u64(*offset_bytes);
                    self.bytes(bytes);
                }
                Run::Zeros { offset_bytes, length_bytes } => {
                    self.u8(1);
                    self.u64(*offset_bytes);
                    self.u64(*length_bytes);
                }
            }
        }
    }
}

impl In<'_> {
    fn ask(&mut self) -> Option<Ask> {
        Some(match self.u8()? {
            BEGIN => Ask::Begin { pair: PairId(self.array()?) },
            PAGE => Ask::Page { from: self.bytes()?, to: self.maybe()?, digest: self.array()? },
            ROWS => Ask::Rows {
                drops: self.list(In::bytes)?,
                puts: self.list(|from| Some((from.bytes()?, from.bytes()?)))?,
            },
            IDS => Ask::Ids { through: self.file()? },
            OPEN => {
                let (file, flags, origin, size_bytes) = (self.file()?, self.u8()?, self.file()?, self.u64()?);
                let origin = (origin.0 != 0).then_some(origin);
                let (frozen, whole) = (flags & 1 != 0, flags & 2 != 0);
                (flags < 4).then_some(Ask::Open { file, frozen, origin, whole, size_bytes })?
            }
            COMPARE => {
                Ask::Compare { file: self.file()?, blocks: self.list(|from| Some((from.u64()?, from.array()?)))? }
            }
            DATA => Ask::Data { file: self.file()?, at: WallNanos(self.u64()?), runs: self.list(In::run)? },
            CLOSE => {
                let (file, frozen) = (self.file()?, self.flag()?);
                let (size_bytes, modified, changed) = (self.u64()?, WallNanos(self.u64()?), WallNanos(self.u64()?));
                Ask::Close { file, frozen, form: Form { size_bytes, modified, changed } }
            }
            _ => return None,
        })
    }

    fn run(&mut self) -> Option<Run> {
        let (is_zeros, offset_bytes) = (self.flag()?, self.u64()?);
        Some(match is_zeros {
            true => Run::Zeros { offset_bytes, length_bytes: self.u64().filter(|length| *length <= ZEROS_MAX)? },
            false => Run::Bytes { offset_bytes, bytes: self.bytes()? },
        })
    }

    fn reply(&mut self) -> Option<Reply> {
        Some(match self.u8()? {
            BEGUN => {
                let (ids_through, wrote_alone) = (self.file()?, self.flag()?);
                let whole_with = self.flag()?.then(|| Some([SiteId(self.array()?), SiteId(self.array()?)]));
                let whole_with = whole_with.map_or(Some(None), |sites| sites.map(Some))?;
                Reply::Begun { whole_with, wrote_alone, ids_through }
            }
            FOREIGN => Reply::Foreign,
            DONE => Reply::Done,
            THEIR_ROWS => {
                Reply::Rows { until: self.maybe()?, rows: self.list(|from| Some((from.bytes()?, from.array()?)))? }
            }
            EXTENTS => {
                Reply::Extents(self.list(|from| Some(Extent { offset_bytes: from.u64()?, len_bytes: from.u64()? }))?)
            }
            DIFFER => Reply::Differ(self.list(|from| from.array().map(u16::from_le_bytes))?),
            GONE => Reply::Gone,
            REFUSED => Reply::Refused,
            _ => return None,
        })
    }
}

impl Reply {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        match self {
            Reply::Begun { whole_with, wrote_alone, ids_through } => {
                out.u8(BEGUN);
                out.u64(ids_through.0);
                out.u8((*wrote_alone).into());
                out.u8(whole_with.is_some().into());
                whole_with.iter().flatten().for_each(|site| out.0.extend_from_slice(&site.0));
            }
            Reply::Foreign => out.u8(FOREIGN),
            Reply::Done => out.u8(DONE),
            Reply::Rows { until, rows } => {
                out.u8(THEIR_ROWS);
                out.maybe(until.as_ref());
                out.count(rows.len());
                for (key, digest) in rows {
                    out.bytes(key);
                    out.0.extend_from_slice(digest);
                }
            }
            Reply::Extents(extents) => {
                out.u8(EXTENTS);
                out.count(extents.len());
                for extent in extents {
                    out.u64(extent.offset_bytes);
                    out.u64(extent.len_bytes);
                }
            }
            Reply::Differ(places) => {
                out.u8(DIFFER);
                out.count(places.len());
                places.iter().for_each(|place| out.0.extend_from_slice(&place.to_le_bytes()));
            }
            Reply::Gone => out.u8(GONE),
            Reply::Refused => out.u8(REFUSED),
        }
        out.0
    }

    pub fn decode(bytes: &[u8]) -> Option<Reply> {
        let mut from = In(bytes);
        let reply = from.reply()?;
        from.0.is_empty().then_some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_nothing_shorter_is() {
        let (file, key) = (FileId(7), vec![1, 2, 3]);
        let asks = [
            Ask::Begin { pair: PairId([3; 16]) },
            Ask::Page { from: key.clone(), to: Some(vec![9]), digest: [4; 16] },
            Ask::Rows { drops: vec![key.clone()], puts: vec![(key.clone(), vec![5; 900])] },
            Ask::Ids { through: file },
            Ask::Open { file, frozen: true, origin: Some(FileId(2)), whole: false, size_bytes: 5 },
            Ask::Compare { file, blocks: vec![(3, [1; 16]), (9, [2; 16])] },
            Ask::Data {
                file,
                at: WallNanos(4),
                runs: vec![
                    Run::Bytes { offset_bytes: 8, bytes: vec![6; 30] },
                    Run::Zeros { offset_bytes: 99, length_bytes: 1 },
                ],
            },
            Ask::Close { file, frozen: false, form: Form { size_bytes: 1, ..Form::default() } },
        ];
        for ask in asks {
            let bytes = ask.encode();
            assert_eq!(Ask::decode(&bytes), Some(ask));
            (0..bytes.len()).for_each(|cut| assert_eq!(Ask::decode(&bytes[..cut]), None));
        }
        let replies = [
            Reply::Begun { whole_with: Some([SiteId([1; 16]), SiteId([2; 16])]), wrote_alone: true, ids_through: file },
            Reply::Begun { whole_with: None, wrote_alone: false, ids_through: file },
            Reply::Rows { until: None, rows: vec![(key, [8; 16])] },
            Reply::Extents(vec![Extent { offset_bytes: 8192, len_bytes: 3 }]),
            Reply::Differ(vec![1, 500]),
            Reply::Refused,
        ];
        for reply in replies {
            let bytes = reply.encode();
            assert_eq!(Reply::decode(&bytes), Some(reply));
            (0..bytes.len()).for_each(|cut| assert_eq!(Reply::decode(&bytes[..cut]), None));
        }
    }
}

//! What a check's two ends say to each other, as bytes (`docs/formats/replica.md`). Little-endian. What does
//! not decode ends the check.

use base::{FileId, PairId, WallNanos};
use engine::Term;

use super::{FileLook, Seal};
use crate::resync::ask::{Digest, In, Key, Out, Row};

/// The first byte of a check's questions is one of these; a resync's are below.
const POINT: u8 = 16;
const ROWS: u8 = 17;
const FILES: u8 = 18;
const KEEP: u8 = 19;
const CHUNKS: u8 = 20;
const TERMS: u8 = 21;
const SIGN: u8 = 22;
const END: u8 = 23;
pub(super) const FIRST: u8 = POINT;

const POINTED: u8 = 1;
const SAME: u8 = 2;
const THEIR_ROWS: u8 = 3;
const THEIR_FILES: u8 = 4;
const NUMBERS: u8 = 5;
const SIGNED: u8 = 6;
const OTHERS: u8 = 7;

/// From the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Nothing is in flight: note what is there. The name of the key of its sums.
    Point { pair: PairId, key_name: Digest, reads_data: bool },
    /// The rows from `from` to before `to`, or to the end, have this digest.
    Rows { from: Key, to: Option<Key>, digest: Digest },
    /// These are all files from `from` through `through`. What comes before is done.
    Files { from: FileId, through: FileId, files: Vec<FileLook> },
    /// Keep these as they were.
    Keep { files: Vec<FileId> },
    /// The sums of the chunks of a file that is kept, from one to before another; none is 0.
    Chunks { file: FileId, from: u64, to: u64, sums: Vec<(u64, u128)> },
    /// The terms of one chunk.
    Terms { file: FileId, chunk: u64, terms: Vec<Term> },
    /// Everything was the same: sign that.
    Sign { about: String, at: WallNanos },
    /// Let go.
    End,
}

/// From the secondary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It has noted; so much was in flight.
    Pointed { in_flight: u64 },
    /// Its sums are made with another key.
    OtherKey,
    /// The same, or done.
    Same,
    /// The rows it has, the first ones at least.
    Rows(Vec<Row>),
    /// What it has of each file that differs.
    Files(Vec<(FileId, Option<FileLook>)>),
    /// Numbers of chunks, or blocks, that differ.
    Numbers(Vec<u64>),
    /// Its seal, if it can make one.
    Signed(Option<Seal>),
}

const IS_FROZEN: u8 = 1;
const IS_UNREADABLE: u8 = 2;
const SUM_IS_WRONG: u8 = 4;

impl FileLook {
    /// As bytes; also what the digest of a check is of.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let mut out = Out::default();
        out.u64(self.file.0);
        out.u8(flag(self.frozen, IS_FROZEN)
            | flag(self.unreadable, IS_UNREADABLE)
            | flag(self.sum_is_wrong, SUM_IS_WRONG));
        [self.size_bytes, self.modified.0, self.changed.0].into_iter().for_each(|word| out.u64(word));
        out.0.extend_from_slice(&self.sum.to_le_bytes());
        out.0
    }
}

fn u128_of(from: &mut In<'_>) -> Option<u128> {
    from.array().map(u128::from_le_bytes)
}

fn look_of(from: &mut In<'_>) -> Option<FileLook> {
    let (file, flags) = (from.file()?, from.u8().filter(|flags| *flags < 8)?);
    Some(FileLook {
        file,
        frozen: flags & IS_FROZEN != 0,
        unreadable: flags & IS_UNREADABLE != 0,
        sum_is_wrong: flags & SUM_IS_WRONG != 0,
        size_bytes: from.u64()?,
        modified: WallNanos(from.u64()?),
        changed: WallNanos(from.u64()?),
        sum: u128_of(from)?,
    })
}

fn text_of(from: &mut In<'_>) -> Option<String> {
    String::from_utf8(from.bytes()?).ok()
}

impl Ask {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        match self {
            Ask::Point { pair, key_name, reads_data } => {
                out.u8(POINT);
                out.0.extend_from_slice(&pair.0);
                out.0.extend_from_slice(key_name);
                out.u8((*reads_data).into());
            }
            Ask::Rows { from, to, digest } => {
                out.u8(ROWS);
                out.bytes(from);
                out.maybe(to.as_ref());
                out.0.extend_from_slice(digest);
            }
            Ask::Files { from, through, files } => {
                out.u8(FILES);
                [from.0, through.0].into_iter().for_each(|word| out.u64(word));
                out.count(files.len());
                files.iter().for_each(|look| out.0.extend_from_slice(&look.bytes()));
            }
            Ask::Keep { files } => {
                out.u8(KEEP);
                out.count(files.len());
                files.iter().for_each(|file| out.u64(file.0));
            }
            Ask::Chunks { file, from, to, sums } => {
                out.u8(CHUNKS);
                [file.0, *from, *to].into_iter().for_each(|word| out.u64(word));
                out.count(sums.len());
                for (chunk, sum) in sums {
                    out.u64(*chunk);
                    out.0.extend_from_slice(&sum.to_le_bytes());
                }
            }
            Ask::Terms { file, chunk, terms } => {
                out.u8(TERMS);
                [file.0, *chunk].into_iter().for_each(|word| out.u64(word));
                out.count(terms.len());
                for (block, term) in terms {
                    out.u64(*block);
                    out.u8(term.is_some().into());
                    out.0.extend_from_slice(&term.unwrap_or_default().to_le_bytes());
                }
            }
            Ask::Sign { about, at } => {
                out.u8(SIGN);
                out.bytes(about.as_bytes());
                out.u64(at.0);
            }
            Ask::End => out.u8(END),
        }
        out.0
    }

    pub fn decode(bytes: &[u8]) -> Option<Ask> {
        let mut from = In(bytes);
        let ask = from.check_ask()?;
        from.0.is_empty().then_some(ask)
    }
}

impl In<'_> {
    fn check_ask(&mut self) -> Option<Ask> {
        Some(match self.u8()? {
            POINT => Ask::Point { pair: PairId(self.array()?), key_name: self.array()?, reads_data: self.flag()? },
            ROWS => Ask::Rows { from: self.bytes()?, to: self.maybe()?, digest: self.array()? },
            FILES => Ask::Files { from: self.file()?, through: self.file()?, files: self.list(look_of)? },
            KEEP => Ask::Keep { files: self.list(In::file)? },
            CHUNKS => Ask::Chunks {
                file: self.file()?,
                from: self.u64()?,
                to: self.u64()?,
                sums: self.list(|from| Some((from.u64()?, u128_of(from)?)))?,
            },
            TERMS => Ask::Terms {
                file: self.file()?,
                chunk: self.u64()?,
                terms: self.list(|from| {
                    let (block, is_there, term) = (from.u64()?, from.flag()?, u128_of(from)?);
                    Some((block, is_there.then_some(term)))
                })?,
            },
            SIGN => Ask::Sign { about: text_of(self)?, at: WallNanos(self.u64()?) },
            END => Ask::End,
            _ => return None,
        })
    }

    fn check_reply(&mut self) -> Option<Reply> {
        Some(match self.u8()? {
            POINTED => Reply::Pointed { in_flight: self.u64()? },
            OTHERS => Reply::OtherKey,
            SAME => Reply::Same,
            THEIR_ROWS => Reply::Rows(self.list(|from| Some((from.bytes()?, from.bytes()?)))?),
            THEIR_FILES => Reply::Files(self.list(|from| {
                let (file, is_there) = (from.file()?, from.flag()?);
                Some((file, if is_there { Some(look_of(from)?) } else { None }))
            })?),
            NUMBERS => Reply::Numbers(self.list(In::u64)?),
            SIGNED => Reply::Signed(match self.flag()? {
                false => None,
                true => Some(Seal {
                    site: base::SiteId(self.array()?),
                    certificate: self.bytes()?,
                    signature: self.bytes()?,
                }),
            }),
            _ => return None,
        })
    }
}

impl Reply {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        match self {
            Reply::Pointed { in_flight } => {
                out.u8(POINTED);
                out.u64(*in_flight);
            }
            Reply::OtherKey => out.u8(OTHERS),
            Reply::Same => out.u8(SAME),
            Reply::Rows(rows) => {
                out.u8(THEIR_ROWS);
                out.count(rows.len());
                for (key, value) in rows {
                    out.bytes(key);
                    out.bytes(value);
                }
            }
            Reply::Files(files) => {
                out.u8(THEIR_FILES);
                out.count(files.len());
                for (file, look) in files {
                    out.u64(file.0);
                    out.u8(look.is_some().into());
                    look.iter().for_each(|look| out.0.extend_from_slice(&look.bytes()));
                }
            }
            Reply::Numbers(numbers) => {
                out.u8(NUMBERS);
                out.count(numbers.len());
                numbers.iter().for_each(|number| out.u64(*number));
            }
            Reply::Signed(seal) => {
                out.u8(SIGNED);
                out.u8(seal.is_some().into());
                if let Some(seal) = seal {
                    out.0.extend_from_slice(&seal.site.0);
                    out.bytes(&seal.certificate);
                    out.bytes(&seal.signature);
                }
            }
        }
        out.0
    }

    pub fn decode(bytes: &[u8]) -> Option<Reply> {
        let mut from = In(bytes);
        let reply = from.check_reply()?;
        from.0.is_empty().then_some(reply)
    }
}

#[cfg(test)]
mod tests {
    use base::SiteId;

    use super::*;

    #[test]
    fn what_is_said_is_understood_and_nothing_shorter_is() {
        let (file, key) = (FileId(7), vec![1, 2, 3]);
        let look = FileLook {
            file,
            frozen: true,
            unreadable: false,
            sum_is_wrong: true,
            size_bytes: 5,
            modified: WallNanos(6),
            changed: WallNanos(7),
            sum: u128::MAX - 8,
        };
        let asks = [
            Ask::Point { pair: PairId([3; 16]), key_name: [4; 16], reads_data: true },
            Ask::Rows { from: key.clone(), to: Some(vec![9]), digest: [4; 16] },
            Ask::Files { from: file, through: FileId(9), files: vec![look, look] },
            Ask::Keep { files: vec![file] },
            Ask::Chunks { file, from: 0, to: 9, sums: vec![(3, 4), (5, u128::MAX)] },
            Ask::Terms { file, chunk: 2, terms: vec![(3, Some(4)), (5, None)] },
            Ask::Sign { about: "flash0".to_owned(), at: WallNanos(3) },
            Ask::End,
        ];
        for ask in asks {
            let bytes = ask.encode();
            assert_eq!(Ask::decode(&bytes), Some(ask));
            (0..bytes.len()).for_each(|cut| assert_eq!(Ask::decode(&bytes[..cut]), None));
        }
        let seal = Seal { site: SiteId([1; 16]), certificate: vec![2; 9], signature: vec![3; 4] };
        let replies = [
            Reply::Pointed { in_flight: 3 },
            Reply::OtherKey,
            Reply::Same,
            Reply::Rows(vec![(key.clone(), vec![]), (key, vec![1])]),
            Reply::Files(vec![(file, None), (file, Some(look))]),
            Reply::Numbers(vec![1, u64::MAX]),
            Reply::Signed(None),
            Reply::Signed(Some(seal)),
        ];
        for reply in replies {
            let bytes = reply.encode();
            assert_eq!(Reply::decode(&bytes), Some(reply));
            (0..bytes.len()).for_each(|cut| assert_eq!(Reply::decode(&bytes[..cut]), None));
        }
    }
}

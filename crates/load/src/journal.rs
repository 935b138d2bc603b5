//! A file of what was asked and what was acknowledged, for [`verify`](crate::verify).
//!
//! ```text
//!  "VMHJRNL1" | length u32 | header, JSON | CRC-64/NVME of it
//!  record, 48 bytes, little-endian, again and again:
//!   0 kind u8, 3 zero | 4 version u32 | 8 file u32 | 12 units u32 | 16 first unit u64
//!  24 sequence u64 | 32 Unix time in ns u64 | 40 CRC-64/NVME of bytes 0..40 and the run id
//! ```
//!
//! Offset and length in bytes are first unit and units times the unit size in the
//! header. A write is *issued* before it is sent, then *acknowledged* or *failed*; an
//! *observed* record says that a read saw an unacknowledged version, which must stay.
//!
//! The file is appended through a buffer that is written out when full, several times a
//! second, and at the end: it survives any death of the server. If the generator itself
//! dies, the tail is lost and no *end* record stands there; then fewer
//! acknowledgements are claimed, and newer versions than the journal knows are allowed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::block::{Place, Shape};
use crate::expectation::{Expectations, FileSet, FileSpec};

const MAGIC: [u8; 8] = *b"VMHJRNL1";
const RECORD_BYTES: usize = 48;
const BUFFER_BYTES: usize = 64 << 10;
const HEADER_BYTES_MAX: usize = 256 << 20;

/// What a journal is about.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Header {
    /// Where the files are, as given: `nfs://host:port/export?...`.
    pub target: String,
    /// Directory of the run below the target.
    pub directory: String,
    /// What the units look like.
    pub shape: Shape,
    /// The files.
    pub files: Vec<FileSpec>,
}

/// Kinds of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// About to be sent.
    Issued,
    /// Answered: stable.
    Acknowledged,
    /// Answered with an error, or given up.
    Failed,
    /// A read found this version before it was acknowledged.
    Observed,
    /// The generator ended in good order.
    End,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What happened.
    pub event: Event,
    /// First unit.
    pub place: Place,
    /// Units from there.
    pub units: u32,
    /// Version written (or observed).
    pub version: u32,
    /// Number of the operation in the run.
    pub sequence: u64,
    /// When, Unix time.
    pub time_ns: u64,
}

impl Record {
    fn encode(&self, run_id: u64) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0] = match self.event {
            Event::Issued => 1,
            Event::Acknowledged => 2,
            Event::Failed => 3,
            Event::Observed => 4,
            Event::End => 5,
        };
        bytes[4..8].copy_from_slice(&self.version.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.place.file.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.units.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.place.unit.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.time_ns.to_le_bytes());
        let check = check(run_id, &bytes[..40]);
        bytes[40..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; RECORD_BYTES], run_id: u64) -> Option<Record> {
        let word = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("inside the record"));
        let half = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("inside the record"));
        if word(40) != check(run_id, &bytes[..40]) {
            return None;
        }
        let event = match bytes[0] {
            1 => Event::Issued,
            2 => Event::Acknowledged,
            3 => Event::Failed,
            4 => Event::Observed,
            5 => Event::End,
            _ => return None,
        };
        let place = Place { file: half(8), unit: word(16) };
        Some(Record { event, place, units: half(12), version: half(4), sequence: word(24), time_ns: word(32) })
    }
}

fn check(run_id: u64, bytes: &[u8]) -> u64 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    digest.update(&run_id.to_le_bytes());
    digest.update(bytes);
    digest.finalize()
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Reading or writing the file.
    #[error("journal file: {0}")]
    Io(#[from] io::Error),
    /// Not a journal, or its header is damaged.
    #[error("not a journal of this program, or its header is damaged")]
    NoHeader,
    /// A whole record that contradicts the header or its predecessors.
    #[error("record {0} of the journal names a place outside the file set")]
    Outside(u64),
}

/// Appends to a journal.
#[derive(Debug)]
pub struct JournalWriter {
    file: File,
    run_id: u64,
    buffer: Vec<u8>,
}

impl JournalWriter {
    /// Creates the file (an existing one is refused) and writes the header.
    pub fn create(path: &Path, header: &Header) -> Result<Self, JournalError> {
        let mut file = File::options().write(true).create_new(true).open(path)?;
        let json = serde_json::to_vec(header).map_err(io::Error::from)?;
        let run_id = header.shape.run_id;
        let length = u32::try_from(json.len()).map_err(|_| JournalError::NoHeader)?;
        file.write_all(&[&MAGIC[..], &length.to_le_bytes(), &json, &check(0, &json).to_le_bytes()].concat())?;
        Ok(JournalWriter { file, run_id, buffer: Vec::with_capacity(BUFFER_BYTES + RECORD_BYTES) })
    }

    /// Appends a record to the buffer; writes the buffer out when full.
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        self.buffer.extend_from_slice(&record.encode(self.run_id));
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes the buffer out.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the end record and makes the file durable.
    pub fn close(mut self, time_ns: u64) -> io::Result<()> {
        let place = Place { file: 0, unit: 0 };
        self.append(&Record { event: Event::End, place, units: 0, version: 0, sequence: 0, time_ns })?;
        self.flush()?;
        self.file.sync_all()
    }
}

/// A journal read back.
#[derive(Debug)]
pub struct Journal {
    /// What it is about.
    pub header: Header,
    /// What was recorded, in order.
    pub records: Vec<Record>,
    /// Whether the generator ended in good order.
    pub closed: bool,
}

impl Journal {
    /// Reads a journal up to its end or its first torn record.
    pub fn read(path: &Path) -> Result<Self, JournalError> {
        let mut bytes = Vec::new();
        File::open(path)?.read_to_end(&mut bytes)?;
        Self::parse(&bytes)
    }

    /// Parses the bytes of a journal.
    pub fn parse(bytes: &[u8]) -> Result<Self, JournalError> {
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(JournalError::NoHeader)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(JournalError::NoHeader)?;
        let length = u32::from_le_bytes(*length) as usize;
        if *magic != MAGIC || length > HEADER_BYTES_MAX {
            return Err(JournalError::NoHeader);
        }
        let (json, rest) = rest.split_at_checked(length).ok_or(JournalError::NoHeader)?;
        let (stored, rest) = rest.split_first_chunk::<8>().ok_or(JournalError::NoHeader)?;
        if u64::from_le_bytes(*stored) != check(0, json) {
            return Err(JournalError::NoHeader);
        }
        let header: Header = serde_json::from_slice(json).map_err(|_| JournalError::NoHeader)?;
        let run_id = header.shape.run_id;
        let mut records: Vec<Record> =
            rest.as_chunks().0.iter().map_while(|bytes| Record::decode(bytes, run_id)).collect();
        let closed = records.last().is_some_and(|last| last.event == Event::End);
        records.retain(|record| record.event != Event::End);
        Ok(Journal { header, records, closed })
    }

    /// The map of what must be found, after all records.
    pub fn expectations(&self) -> Result<(FileSet, Expectations), JournalError> {
        let files = FileSet::new(self.header.files.clone());
        let mut map = Expectations::new(files.units());
        for (number, record) in self.records.iter().enumerate() {
            let outside = JournalError::Outside(number as u64);
            let Some(file) = self.header.files.get(record.place.file as usize) else { return Err(outside) };
            let end = record.place.unit.checked_add(record.units.into());
            if record.units == 0 || !end.is_some_and(|end| end <= file.units) {
                return Err(outside);
            }
            let start = files.range(record.place.file).start + record.place.unit;
            let units = start..start + u64::from(record.units);
            match record.event {
                Event::Issued => map.reissue(units, record.version),
                Event::Acknowledged | Event::Observed => map.settle(units, record.version, true),
                Event::Failed | Event::End => {}
            }
        }
        Ok((files, map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            target: "nfs://h/x".into(),
            directory: "d".into(),
            shape: Shape { run_id: 5, unit_bytes: 8192, compressible_percent: 0, dedup_percent: 0 },
            files: vec![FileSpec { path: "a".into(), units: 4 }, FileSpec { path: "b".into(), units: 4 }],
        }
    }

    fn record(event: Event, unit: u64, version: u32) -> Record {
        Record { event, place: Place { file: 1, unit }, units: 2, version, sequence: 3, time_ns: 4 }
    }

    #[test]
    fn what_was_acknowledged_is_expected_after_reading_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut writer = JournalWriter::create(&path, &header()).unwrap();
        assert!(matches!(JournalWriter::create(&path, &header()), Err(JournalError::Io(_))), "never overwritten");
        for (event, version) in [(Event::Issued, 1), (Event::Acknowledged, 1), (Event::Issued, 2)] {
            writer.append(&record(event, 1, version)).unwrap();
        }
        writer.close(9).unwrap();
        let journal = Journal::read(&path).unwrap();
        assert!(journal.closed);
        assert_eq!(journal.header, header());
        let (files, map) = journal.expectations().unwrap();
        assert_eq!(files.units(), 8);
        assert_eq!((map.floor(4), map.floor(5), map.floor(6), map.floor(7)), (0, 1, 1, 0));
        assert_eq!((map.issued(5), map.issued(7)), (2, 0));
    }

    #[test]
    fn a_torn_tail_ends_the_journal_and_leaves_it_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut writer = JournalWriter::create(&path, &header()).unwrap();
        writer.append(&record(Event::Issued, 0, 1)).unwrap();
        writer.append(&record(Event::Acknowledged, 0, 1)).unwrap();
        writer.close(9).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let torn = Journal::parse(&bytes[..bytes.len() - RECORD_BYTES - 1]).unwrap();
        assert_eq!((torn.records.len(), torn.closed), (1, false));
        for cut in 0..bytes.len() - 3 * RECORD_BYTES {
            assert!(matches!(Journal::parse(&bytes[..cut]), Err(JournalError::NoHeader)));
        }
        let mut writer = JournalWriter::create(&directory.path().join("second"), &header()).unwrap();
        writer.append(&record(Event::Issued, 3, 1)).unwrap();
        writer.flush().unwrap();
        let outside = Journal::read(&directory.path().join("second")).unwrap().expectations();
        assert!(matches!(outside, Err(JournalError::Outside(0))));
    }
}

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

/// Reads a journal record by record.
#[derive(Debug)]
pub struct JournalReader<R> {
    header: Header,
    input: R,
    closed: bool,
}

impl<R: Read> JournalReader<R> {
    /// Reads the header.
    pub fn new(mut input: R) -> Result<Self, JournalError> {
        let mut start = [0; 12];
        read_or(&mut input, &mut start)?;
        let length = u32::from_le_bytes(*start.last_chunk().expect("twelve bytes")) as usize;
        if !start.starts_with(&MAGIC) || length > HEADER_BYTES_MAX {
            return Err(JournalError::NoHeader);
        }
        let mut json = Vec::new();
        input.by_ref().take(length as u64).read_to_end(&mut json)?;
        let mut stored = [0; 8];
        read_or(&mut input, &mut stored)?;
        if json.len() != length || u64::from_le_bytes(stored) != check(0, &json) {
            return Err(JournalError::NoHeader);
        }
        let header = serde_json::from_slice(&json).map_err(|_| JournalError::NoHeader)?;
        Ok(JournalReader { header, input, closed: false })
    }

    /// What the journal is about.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the end record was read: the generator ended in good order.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// The next record; `None` at the end, or at the first torn record.
    pub fn next_record(&mut self) -> Result<Option<Record>, JournalError> {
        let mut bytes = [0; RECORD_BYTES];
        match self.input.read_exact(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        match Record::decode(&bytes, self.header.shape.run_id) {
            Some(Record { event: Event::End, .. }) => {
                self.closed = true;
                Ok(None)
            }
            record => Ok(record),
        }
    }
}

fn read_or(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), JournalError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => JournalError::NoHeader,
        _ => JournalError::Io(error),
    })
}

/// What a whole journal comes to.
#[derive(Debug)]
pub struct Journal {
    /// What it is about.
    pub header: Header,
    /// The files.
    pub files: FileSet,
    /// What must be found.
    pub expectations: Expectations,
    /// Whether the generator ended in good order.
    pub closed: bool,
    /// Writes sent.
    pub issued_writes: u64,
    /// Writes acknowledged.
    pub acknowledged_writes: u64,
}

impl Journal {
    /// Reads the journal at `path`.
    pub fn read(path: &Path) -> Result<Self, JournalError> {
        Self::digest(JournalReader::new(io::BufReader::with_capacity(1 << 20, File::open(path)?))?)
    }

    /// Reads a journal to its end.
    pub fn digest<R: Read>(mut reader: JournalReader<R>) -> Result<Self, JournalError> {
        let header = reader.header().clone();
        let files = FileSet::new(header.files.clone());
        let mut expectations = Expectations::new(files.units());
        let (mut number, mut issued_writes, mut acknowledged_writes) = (0, 0, 0);
        while let Some(record) = reader.next_record()? {
            let units = files.units_at(record.place, record.units).ok_or(JournalError::Outside(number))?;
            number += 1;
            match record.event {
                Event::Issued => {
                    issued_writes += 1;
                    expectations.reissue(units, record.version);
                }
                Event::Acknowledged => {
                    acknowledged_writes += 1;
                    expectations.settle(units, record.version, true);
                }
                Event::Observed => expectations.settle(units, record.version, true),
                Event::Failed | Event::End => {}
            }
        }
        let closed = reader.closed();
        Ok(Journal { header, files, expectations, closed, issued_writes, acknowledged_writes })
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
        let (files, map) = (journal.files, journal.expectations);
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
        let torn = JournalReader::new(&bytes[..bytes.len() - RECORD_BYTES - 1]).unwrap();
        let torn = Journal::digest(torn).unwrap();
        assert_eq!((torn.issued_writes, torn.acknowledged_writes, torn.closed), (1, 0, false));
        for cut in 0..bytes.len() - 3 * RECORD_BYTES {
            assert!(matches!(JournalReader::new(&bytes[..cut]), Err(JournalError::NoHeader)));
        }
        let mut writer = JournalWriter::create(&directory.path().join("second"), &header()).unwrap();
        writer.append(&record(Event::Issued, 3, 1)).unwrap();
        writer.flush().unwrap();
        let outside = Journal::read(&directory.path().join("second"));
        assert!(matches!(outside, Err(JournalError::Outside(0))));
    }
}

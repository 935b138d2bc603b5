//! What clients saw, judged.
//!
//! Every 8 KiB block a client writes is unique: it names client, sequence, file and
//! block. So each block of each file is a register with unique writes, and whether a
//! history of it is linearizable is decided in n log n (Gibbons and Korach, *Testing
//! shared memories*, 1997): a write with the reads that returned it is a *cluster*.
//! Let `f` be the earliest end and `s` the latest start in a cluster. If `f < s`, the
//! value was current throughout `f..s` (a *forward zone*), else at some instant of
//! `s..f` (a *backward zone*). The history is linearizable if and only if
//!
//! 1. every read returned a value whose write had started before the read ended,
//! 2. no two forward zones overlap,
//! 3. no backward zone lies inside a forward zone.
//!
//! An operation without an answer is *unknown*, never absent: it may have happened at
//! any instant until [`Oracle::settle`], or not at all. If a read returned its value it
//! happened; otherwise it is left out. A block never written reads as [`None`].

use std::collections::BTreeMap;

/// Size of a stamped block in bytes.
pub const BLOCK_BYTES: usize = 8192;

const STAMP_MAGIC: u64 = 0x7374_616d_7065_6431;
const STAMP_BYTES: usize = 48;

/// Names one write of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Who wrote it.
    pub client: u64,
    /// Never repeated by this client.
    pub sequence: u64,
    /// The file.
    pub file: u64,
    /// The block within the file.
    pub block: u64,
}

/// A block that no client ever wrote so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBlock;

impl Stamp {
    /// Fills a block of [`BLOCK_BYTES`] with this stamp and a body that follows from it.
    pub fn fill(&self, block: &mut [u8]) {
        let body_seed = self.client ^ self.sequence.rotate_left(20) ^ self.file.rotate_left(40) ^ self.block;
        let (head, body) = block.split_at_mut(STAMP_BYTES);
        crate::rng::Rng::new(body_seed).fill(body);
        let check = base::media_check(body_seed, body).0;
        let words = [STAMP_MAGIC, self.client, self.sequence, self.file, self.block, check];
        for (bytes, word) in head.chunks_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// What a block holds: a stamp, nothing (all zeros), or neither.
    pub fn parse(block: &[u8]) -> Result<Option<Stamp>, BadBlock> {
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        if block.len() != BLOCK_BYTES {
            return Err(BadBlock);
        }
        let word = |index: usize| {
            let bytes = block[index * 8..index * 8 + 8].try_into().expect("8 bytes");
            u64::from_le_bytes(bytes)
        };
        let stamp = Stamp { client: word(1), sequence: word(2), file: word(3), block: word(4) };
        let mut expected = vec![0; BLOCK_BYTES];
        stamp.fill(&mut expected);
        if expected == block { Ok(Some(stamp)) } else { Err(BadBlock) }
    }
}

/// A block of a file: one register.
type Register = (u64, u64);
/// Order of an event in the history; all different.
type Tick = u64;

#[derive(Clone, Copy, Debug)]
struct Write {
    start: Tick,
    acknowledged: Option<Tick>,
    settled: Option<Tick>,
}

#[derive(Clone, Copy, Debug)]
struct Read {
    start: Tick,
    end: Tick,
    value: Option<Stamp>,
}

/// A read that was started.
#[derive(Clone, Copy, Debug)]
pub struct OpenRead {
    register: Register,
    start: Tick,
}

/// Why a history is wrong. The register is (file, block).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A block holds what no client wrote, or what was written elsewhere.
    NotWrittenHere {
        /// File and block read.
        register: (u64, u64),
        /// The stamp that was found.
        found: Stamp,
    },
    /// A value was read before its write began.
    FromTheFuture {
        /// The value.
        value: Stamp,
    },
    /// Two values would have to be current at one instant: an acknowledged write was
    /// lost, or an old value came back.
    Conflict {
        /// File and block.
        register: (u64, u64),
        /// One value; `None` is "never written".
        one: Option<Stamp>,
        /// The other.
        other: Option<Stamp>,
    },
}

/// The history so far.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    tick: Tick,
    writes: BTreeMap<Stamp, Write>,
    reads: BTreeMap<Register, Vec<Read>>,
}

/// A value and when it must have been current.
#[derive(Clone, Copy, Debug)]
struct Zone {
    value: Option<Stamp>,
    earliest_end: Tick,
    latest_start: Tick,
}

impl Oracle {
    /// An empty history.
    pub fn new() -> Oracle {
        Oracle::default()
    }

    fn next_tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    /// A client is about to write `stamp`.
    pub fn write_started(&mut self, stamp: Stamp) {
        let start = self.next_tick();
        let old = self.writes.insert(stamp, Write { start, acknowledged: None, settled: None });
        assert!(old.is_none(), "stamps are unique: {stamp:?}");
    }

    /// The write was acknowledged. A write that failed or was never answered gets no
    /// call: it is unknown.
    pub fn write_acknowledged(&mut self, stamp: Stamp) {
        let end = self.next_tick();
        let write = self.writes.get_mut(&stamp).expect("acknowledged after started");
        write.acknowledged.get_or_insert(end);
    }

    /// A client is about to read a block.
    pub fn read_started(&mut self, file: u64, block: u64) -> OpenRead {
        OpenRead { register: (file, block), start: self.next_tick() }
    }

    /// The read was answered. A read that failed gets no call.
    pub fn read_returned(&mut self, read: OpenRead, value: Option<Stamp>) {
        let end = self.next_tick();
        self.reads.entry(read.register).or_default().push(Read { start: read.start, end, value });
    }

    /// Recovery is over: what was unanswered has happened by now or never will.
    pub fn settle(&mut self) {
        let now = self.next_tick();
        for write in self.writes.values_mut() {
            write.settled.get_or_insert(now);
        }
    }

    /// Judges the whole history; the number of operations judged, or a violation.
    pub fn verdict(&self) -> Result<usize, Violation> {
        let mut registers: BTreeMap<Register, BTreeMap<Option<Stamp>, Zone>> = BTreeMap::new();
        for (&stamp, write) in self.writes.iter().filter(|(_, write)| write.acknowledged.is_some()) {
            registers.entry((stamp.file, stamp.block)).or_default().insert(Some(stamp), write.zone(stamp));
        }
        let mut judged = registers.values().map(BTreeMap::len).sum();
        for (&register, reads) in &self.reads {
            let zones = registers.entry(register).or_default();
            for read in reads {
                self.add_read(register, zones, read)?;
            }
            judged += reads.len();
        }
        for (register, zones) in registers {
            judge_register(register, zones.into_values().collect())?;
        }
        Ok(judged)
    }

    fn add_read(
        &self,
        register: Register,
        zones: &mut BTreeMap<Option<Stamp>, Zone>,
        read: &Read,
    ) -> Result<(), Violation> {
        let never_written = Zone { value: None, earliest_end: 0, latest_start: 0 };
        let written = match read.value {
            None => never_written,
            Some(found) => match self.writes.get(&found) {
                Some(write) if (found.file, found.block) == register => {
                    if read.end < write.start {
                        return Err(Violation::FromTheFuture { value: found });
                    }
                    write.zone(found)
                }
                _ => return Err(Violation::NotWrittenHere { register, found }),
            },
        };
        let zone = zones.entry(read.value).or_insert(written);
        zone.earliest_end = zone.earliest_end.min(read.end);
        zone.latest_start = zone.latest_start.max(read.start);
        Ok(())
    }
}

impl Write {
    fn zone(&self, stamp: Stamp) -> Zone {
        let end = self.acknowledged.or(self.settled).unwrap_or(Tick::MAX);
        Zone { value: Some(stamp), earliest_end: end, latest_start: self.start }
    }
}

/// Rules 2 and 3 for one register. Forward zones are disjoint if neighbours are; then a
/// backward zone can only lie inside the last forward zone that begins before it.
fn judge_register(register: Register, zones: Vec<Zone>) -> Result<(), Violation> {
    let (mut forward, backward): (Vec<_>, Vec<_>) =
        zones.into_iter().partition(|zone| zone.earliest_end < zone.latest_start);
    forward.sort_by_key(|zone| zone.earliest_end);
    let conflict = |a: &Zone, b: &Zone| Violation::Conflict { register, one: a.value, other: b.value };
    for pair in forward.windows(2) {
        if pair[1].earliest_end < pair[0].latest_start {
            return Err(conflict(&pair[0], &pair[1]));
        }
    }
    for zone in &backward {
        let before = forward.partition_point(|around| around.earliest_end < zone.latest_start);
        let around = before.checked_sub(1).map(|index| &forward[index]);
        if let Some(around) = around.filter(|around| zone.earliest_end < around.latest_start) {
            return Err(conflict(around, zone));
        }
    }
    Ok(())
}

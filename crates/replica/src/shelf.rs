//! Where a site's mirror state lies: rows of one table of the engine (`docs/formats/replica.md`).
//!
//! A record of the mirror becomes a few changes of that table ([`Shelf::take`]), committed in the
//! order of the records. Reading the table back ([`Shelf::load`]) gives what the records made
//! ([`mirror::Kept`]), whether they came from a checkpoint's pages or from the journal.
//!
//! The in-flight map takes one row for a write. Its key is a *slot*, used again when its entry is
//! settled, so the table stays as small as the map may be and no write has to delete anything.
//! Every row says the low water of its moment; what is at or below the highest of these is settled.

use std::collections::{BTreeMap, BTreeSet};

use base::{Buf, FileId, MediaCheck, Osn, PairId, SiteId};
use engine::Store;
use engine::store::{Change as Put, StoreRefusal, Table, VALUE_BYTES_MAX};
use mirror::{Change, Flight, Kept, Record, Span};
use witness::{Asked, Memory, Standing};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::check::{KEPT, NOTE};

/// The table; those of the datastore begin at 1.
pub const PAIR: Table = Table(128);

const STATE: u8 = 1;
const FLIGHT: u8 = 2;
const PREPARED: u8 = 3;
const COMMITTED: u8 = 4;
const MEMBER: u8 = 5;

const FORMAT: u8 = 1;
const KNOWN: u8 = 1;
const ASKED_IN_SYNC: u8 = 2;
const ASKED_HAND_OVER: u8 = 4;
const SNAPSHOT: u8 = 8;
const PAUSED: u8 = 16;
const DIFFERS: u8 = 32;

/// Rows of settled entries that one record takes away.
const SWEEP_MAX: usize = 128;
/// Rows that are read at a time.
const SCAN_ROWS: usize = 512;

/// Why the rows cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShelfFault {
    /// A row is none that this version writes.
    #[error("what this site knows of its pair is damaged, or was written by a later version")]
    Malformed,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreRefusal),
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StateRow {
    format: u8,
    flags: u8,
    low_water: U64,
    mark: U64,
    snapshot: U64,
    asked_on: U64,
    known: [u8; witness::RECORD_BYTES],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MemberRow {
    pair: [u8; 16],
    flags: u8,
    sites: [[u8; 16]; 2],
}

/// Whose content this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    pair: PairId,
    /// The sites that the last record named that said in sync, the smaller first: both hold the same but
    /// for what either has written since.
    whole_with: Option<[SiteId; 2]>,
    /// A resync has begun to tell this site what it lacks; what it had before is in snapshots of its own.
    is_told: bool,
}

impl Member {
    fn of(standing: &Standing) -> Member {
        let whole = standing.secondary.filter(|_| standing.in_sync).map(|secondary| [standing.primary, secondary]);
        let sorted = |[one, other]: [SiteId; 2]| if one.0 <= other.0 { [one, other] } else { [other, one] };
        Member { pair: standing.pair, whole_with: whole.map(sorted), is_told: false }
    }

    fn row(self) -> Put {
        let row = MemberRow {
            pair: self.pair.0,
            flags: u8::from(self.whole_with.is_some()) | u8::from(self.is_told) << 1,
            sites: self.whole_with.map_or([[0; 16]; 2], |sites| sites.map(|site| site.0)),
        };
        Put::Put { table: PAIR, key: vec![MEMBER], value: row.as_bytes().to_vec() }
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FlightRow {
    osn: U64,
    file: U64,
    offset_bytes: U64,
    length_bytes: U64,
    check: U64,
    low_water: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ChangeHead {
    request_bytes: U32,
    body_bytes: U32,
    reply_bytes: U32,
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct Shelf {
    kept: Kept,
    member: Option<Member>,
    slots: BTreeMap<Osn, u32>,
    /// Rows that are there and say nothing any more.
    free: BTreeSet<u32>,
    next_slot: u32,
    /// Rows of each change.
    prepared: BTreeMap<Osn, u32>,
    committed: BTreeMap<Osn, u32>,
}

impl Shelf {
    /// What the rows say.
    pub async fn load(store: &impl Store) -> Result<Shelf, ShelfFault> {
        let mut loading = Loading::default();
        let mut from = vec![0];
        loop {
            let rows = store.scan(PAIR, &from, SCAN_ROWS).await?;
            for (key, value) in &rows {
                loading.row(key, value).ok_or(ShelfFault::Malformed)?;
            }
            let Some((last, _)) = rows.last().filter(|_| rows.len() == SCAN_ROWS) else { break };
            from = [last, &[0][..]].concat();
        }
        loading.end().ok_or(ShelfFault::Malformed)
    }

    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// The rows of a store that is blank, as the other one of its pair is: both hold the same.
    pub fn founded(standing: Standing) -> Vec<Put> {
        let memory = Memory { known: Some(standing), asked: None };
        vec![state_row(&Kept { memory, ..Kept::default() }), Member::of(&standing).row()]
    }

    /// The pair whose content this is.
    pub fn pair(&self) -> Option<PairId> {
        self.member.map(|member| member.pair)
    }

    /// The two sites that held the same, the smaller first.
    pub fn whole_with(&self) -> Option<[SiteId; 2]> {
        self.member.and_then(|member| member.whole_with)
    }

    /// This site's content is the pair's from now on; what has to be committed for it.
    pub fn join(&mut self, pair: PairId) -> Put {
        self.be(Member { pair, whole_with: None, is_told: false })
    }

    /// Whether a resync has begun to tell this site something.
    pub fn is_told(&self) -> bool {
        self.member.is_some_and(|member| member.is_told)
    }

    /// One begins: what has to be committed when the snapshots of before are there.
    pub fn begin_to_be_told(&mut self) -> Option<Put> {
        let member = self.member?;
        Some(self.be(Member { is_told: true, ..member }))
    }

    fn be(&mut self, member: Member) -> Put {
        self.member = Some(member);
        member.row()
    }

    /// Takes in the next record: what has to be committed with it.
    pub fn take(&mut self, record: &Record) -> Vec<Put> {
        let low_water = self.kept.flights.low_water();
        self.kept.apply(record);
        let mut rows = Vec::new();
        self.settle();
        match record {
            Record::Write { osn, .. } => {
                let is_listed = self.put_flight(*osn, &mut rows);
                if !is_listed && self.kept.flights.low_water() > low_water {
                    rows.push(state_row(&self.kept));
                }
            }
            Record::Restore { osn, .. } => {
                self.uncover(&mut rows);
                let _is_listed = self.put_flight(*osn, &mut rows);
            }
            Record::LowWater(_) => {
                self.sweep(&mut rows);
                rows.push(state_row(&self.kept));
            }
            _ => rows.push(state_row(&self.kept)),
        }
        if let (Record::Seat(_) | Record::Snapshot(_), Some(known)) = (record, self.kept.memory.known) {
            let now = Member::of(&known);
            // Only a primary takes the snapshot of going alone: the pair's content is what it has.
            let founds = matches!(record, Record::Snapshot(_)) && self.pair() != Some(now.pair);
            let is_news = now.whole_with.is_some() && !self.kept.differs || founds;
            if is_news && self.member != Some(now) {
                rows.push(self.be(now));
            }
        }
        if let (Record::Differs, Some(member)) = (record, self.member) {
            rows.push(self.be(Member { whole_with: None, ..member }));
        }
        same_rows(PREPARED, &mut self.prepared, &self.kept.prepared, &mut rows);
        same_rows(COMMITTED, &mut self.committed, &self.kept.commits, &mut rows);
        rows
    }

    /// Slots of what is settled are free.
    fn settle(&mut self) {
        let above = self.slots.split_off(&self.kept.flights.low_water().next());
        self.free.extend(std::mem::replace(&mut self.slots, above).into_values());
    }

    /// Entries that a wider one has taken the place of are not settled: their rows go.
    fn uncover(&mut self, rows: &mut Vec<Put>) {
        let left: BTreeSet<Osn> = self.kept.flights.iter().map(|flight| flight.osn).collect();
        let covered: Vec<Osn> = self.slots.keys().filter(|osn| !left.contains(osn)).copied().collect();
        for slot in covered.iter().filter_map(|osn| self.slots.remove(osn)) {
            rows.push(Put::Delete { table: PAIR, key: slot_key(slot) });
            self.free.insert(slot);
        }
    }

    /// Whether it has a row, which says the low water too. That of a site that is alone has none.
    fn put_flight(&mut self, osn: Osn, rows: &mut Vec<Put>) -> bool {
        let Some(flight) = self.kept.flights.get(osn) else { return false };
        let slot = self.free.pop_first().unwrap_or_else(|| {
            self.next_slot += 1;
            self.next_slot
        });
        self.slots.insert(osn, slot);
        let row = FlightRow {
            osn: osn.0.into(),
            file: flight.span.file.0.into(),
            offset_bytes: flight.span.offset_bytes.into(),
            length_bytes: flight.span.length_bytes.into(),
            check: flight.check.0.into(),
            low_water: self.kept.flights.low_water().0.into(),
        };
        rows.push(Put::Put { table: PAIR, key: slot_key(slot), value: row.as_bytes().to_vec() });
        true
    }

    /// Slots from the end are given up.
    fn sweep(&mut self, rows: &mut Vec<Put>) {
        while rows.len() < SWEEP_MAX && self.next_slot > 0 && self.free.remove(&self.next_slot) {
            rows.push(Put::Delete { table: PAIR, key: slot_key(self.next_slot) });
            self.next_slot -= 1;
        }
    }
}

/// Writes the changes that have no rows yet, and takes away the rows of those that are gone.
fn same_rows(kind: u8, written: &mut BTreeMap<Osn, u32>, wanted: &BTreeMap<Osn, Change>, rows: &mut Vec<Put>) {
    let is_same = written.len() == wanted.len() && written.keys().eq(wanted.keys());
    if is_same {
        return;
    }
    let gone: Vec<Osn> = written.keys().filter(|osn| !wanted.contains_key(osn)).copied().collect();
    for osn in gone {
        let pieces = written.remove(&osn).unwrap_or_default();
        rows.extend((0..pieces).map(|piece| Put::Delete { table: PAIR, key: piece_key(kind, osn, piece) }));
    }
    for (osn, change) in wanted {
        if written.contains_key(osn) {
            continue;
        }
        let bytes = change_bytes(change);
        let pieces = bytes.chunks(VALUE_BYTES_MAX);
        written.insert(*osn, pieces.len() as u32);
        let put = |(piece, value): (usize, &[u8])| Put::Put {
            table: PAIR,
            key: piece_key(kind, *osn, piece as u32),
            value: value.to_vec(),
        };
        rows.extend(pieces.enumerate().map(put));
    }
}

fn slot_key(slot: u32) -> Vec<u8> {
    [&[FLIGHT][..], &slot.to_be_bytes()].concat()
}

fn piece_key(kind: u8, osn: Osn, piece: u32) -> Vec<u8> {
    [&[kind][..], &osn.0.to_be_bytes(), &piece.to_be_bytes()].concat()
}

fn change_bytes(change: &Change) -> Vec<u8> {
    let length = |part: &Buf| U32::new(part.len() as u32);
    let head = ChangeHead {
        request_bytes: length(&change.request),
        body_bytes: length(&change.body),
        reply_bytes: length(&change.reply),
    };
    [head.as_bytes(), &change.request, &change.body, &change.reply].concat()
}

fn change_of(bytes: Vec<u8>) -> Option<Change> {
    let bytes = Buf::from(bytes);
    let (head, _) = ChangeHead::read_from_prefix(&bytes).ok()?;
    let rest = bytes.slice(size_of::<ChangeHead>()..);
    let [request, body, reply] = [head.request_bytes, head.body_bytes, head.reply_bytes].map(|one| one.get() as usize);
    let whole = request.checked_add(body)?.checked_add(reply)? == rest.len();
    whole.then(|| Change {
        request: rest.slice(..request),
        body: rest.slice(request..request + body),
        reply: rest.slice(request + body..),
    })
}

fn state_row(kept: &Kept) -> Put {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let (asked, asked_on) = match kept.memory.asked {
        None => (0, 0),
        Some(Asked::InSync(version)) => (ASKED_IN_SYNC, version),
        Some(Asked::HandOver(version)) => (ASKED_HAND_OVER, version),
    };
    let known = kept.memory.known.map(|known| known.to_bytes());
    let row = StateRow {
        format: FORMAT,
        flags: flag(known.is_some(), KNOWN)
            | asked
            | flag(kept.snapshot.is_some(), SNAPSHOT)
            | flag(kept.paused, PAUSED)
            | flag(kept.differs, DIFFERS),
        low_water: kept.flights.low_water().0.into(),
        mark: kept.mark.0.into(),
        snapshot: kept.snapshot.unwrap_or_default().0.into(),
        asked_on: asked_on.into(),
        known: known.unwrap_or([0; witness::RECORD_BYTES]),
    };
    Put::Put { table: PAIR, key: vec![STATE], value: row.as_bytes().to_vec() }
}

/// Rows that are being read.
#[derive(Default)]
struct Loading {
    shelf: Shelf,
    low_water: Osn,
    flights: Vec<(u32, Flight)>,
    changes: BTreeMap<(u8, Osn), (u32, Vec<u8>)>,
}

impl Loading {
    fn row(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let (kind, rest) = key.split_first()?;
        match *kind {
            STATE => self.state(value),
            MEMBER => {
                let row = MemberRow::read_from_bytes(value).ok().filter(|row| row.flags < 4)?;
                let whole_with = (row.flags & 1 != 0).then_some(row.sites.map(SiteId));
                let is_told = row.flags & 2 != 0;
                self.shelf.member = Some(Member { pair: PairId(row.pair), whole_with, is_told });
                Some(())
            }
            FLIGHT => self.flight(u32::from_be_bytes(rest.try_into().ok()?), value),
            PREPARED | COMMITTED => {
                let (osn, piece) = rest.split_first_chunk()?;
                let (osn, piece) = (Osn(u64::from_be_bytes(*osn)), u32::from_be_bytes(piece.try_into().ok()?));
                let (pieces, bytes) = self.changes.entry((*kind, osn)).or_default();
                (*pieces == piece).then_some(())?;
                *pieces += 1;
                bytes.extend_from_slice(value);
                Some(())
            }
            // Read by whoever needs it.
            NOTE | KEPT => Some(()),
            _ => None,
        }
    }

    fn state(&mut self, value: &[u8]) -> Option<()> {
        let row = StateRow::read_from_bytes(value).ok().filter(|row| row.format == FORMAT)?;
        let has = |bit: u8| row.flags & bit != 0;
        let on = row.asked_on.get();
        let asked = match row.flags & (ASKED_IN_SYNC | ASKED_HAND_OVER) {
            0 => None,
            ASKED_IN_SYNC => Some(Asked::InSync(on)),
            ASKED_HAND_OVER => Some(Asked::HandOver(on)),
            _ => return None,
        };
        let known = if has(KNOWN) { Some(Standing::from_bytes(&row.known).ok()?) } else { None };
        self.low_water = self.low_water.max(Osn(row.low_water.get()));
        let kept = &mut self.shelf.kept;
        kept.memory = Memory { known, asked };
        kept.mark = Osn(row.mark.get());
        kept.snapshot = has(SNAPSHOT).then_some(Osn(row.snapshot.get()));
        kept.paused = has(PAUSED);
        kept.differs = has(DIFFERS);
        Some(())
    }

    fn flight(&mut self, slot: u32, value: &[u8]) -> Option<()> {
        let row = FlightRow::read_from_bytes(value).ok()?;
        self.low_water = self.low_water.max(Osn(row.low_water.get()));
        let span = Span {
            file: FileId(row.file.get()),
            offset_bytes: row.offset_bytes.get(),
            length_bytes: row.length_bytes.get(),
        };
        self.flights.push((slot, Flight { osn: Osn(row.osn.get()), span, check: MediaCheck(row.check.get()) }));
        Some(())
    }

    fn end(self) -> Option<Shelf> {
        let Loading { mut shelf, low_water, flights, changes } = self;
        // A site that was founded before there was a row for it.
        shelf.member = shelf.member.or(shelf.kept.memory.known.map(|known| Member::of(&known)));
        shelf.kept.flights.settle_through(low_water);
        for (slot, flight) in flights {
            shelf.next_slot = shelf.next_slot.max(slot);
            if flight.osn <= low_water {
                shelf.free.insert(slot);
            } else {
                shelf.kept.flights.insert(flight);
                shelf.slots.insert(flight.osn, slot);
            }
        }
        let used: BTreeSet<u32> = shelf.slots.values().copied().collect();
        shelf.free.extend((1..=shelf.next_slot).filter(|slot| !used.contains(slot)));
        for ((kind, osn), (pieces, bytes)) in changes {
            let change = change_of(bytes)?;
            match kind {
                PREPARED => {
                    shelf.kept.prepared.insert(osn, change);
                    shelf.prepared.insert(osn, pieces);
                }
                _ => {
                    // What is settled needs no telling; its rows go with the next record.
                    if osn > low_water {
                        shelf.kept.commits.insert(osn, change);
                    }
                    shelf.committed.insert(osn, pieces);
                }
            }
        }
        Some(shelf)
    }
}

#[cfg(test)]
mod tests {
    use base::{Epoch, PairId, SiteId, WallNanos};
    use engine::memory::MemoryStore;
    use futures_util::FutureExt;
    use mirror::{Form, Write};
    use witness::{Transition, TransitionKind};
    use world_sim::Rng;

    use super::*;

    fn standing(version: u64, in_sync: bool) -> Standing {
        let site = SiteId([1; 16]);
        Standing {
            pair: PairId([7; 16]),
            version,
            epoch: Epoch(1),
            primary: site,
            secondary: Some(SiteId([2; 16])),
            in_sync,
            in_sync_through: Osn(0),
            lease_ms: 1000,
            last: Transition { kind: TransitionKind::InSync, by: site, at: WallNanos(0) },
        }
    }

    fn change(rng: &mut Rng) -> Change {
        let mut part = |longest| Buf::from(vec![rng.below(256) as u8; rng.below(longest) as usize]);
        Change { request: part(40), body: part(5000), reply: part(1300) }
    }

    fn write(rng: &mut Rng) -> Write {
        let payload = vec![rng.below(256) as u8; rng.between(1, 30) as usize].into();
        Write { file: FileId(rng.between(1, 3)), offset_bytes: rng.below(100), payload, at: WallNanos(1) }
    }

    /// The next record of a site, as far as its rows can tell.
    fn record(rng: &mut Rng, osn: Osn, kept: &Kept) -> Record {
        let prepared = kept.prepared.keys().next().copied();
        // It never passes an operation that is not at both.
        let open = prepared.unwrap_or(osn).min(Osn(osn.0.saturating_sub(rng.below(30))));
        let low_water = Osn(open.0.saturating_sub(1));
        match rng.below(16) {
            0..8 => Record::Write { osn, low_water, write: write(rng), tracked: rng.percent(90) },
            8 => {
                let write = write(rng);
                Record::Restore { osn, span: write.span(), form: Form::default(), payload: write.payload }
            }
            9 => Record::Prepared { osn, change: change(rng) },
            10 => Record::Committed { osn: prepared.unwrap_or(osn), low_water, change: change(rng), owed: true },
            11 => Record::Dropped { osn: prepared.unwrap_or(osn) },
            12 => Record::LowWater(low_water),
            13 => Record::Seat(Memory {
                known: Some(standing(osn.0, rng.percent(50))),
                asked: rng.percent(50).then_some(Asked::InSync(osn.0)),
            }),
            14 => Record::Mark(osn),
            _ if rng.percent(30) => Record::Snapshot(osn),
            _ if rng.percent(30) => Record::Differs,
            _ => Record::Paused(rng.percent(50)),
        }
    }

    /// Whatever was written down is read back, wherever a life ends; and the table stays small.
    #[test]
    fn the_rows_say_what_the_records_said() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let store = MemoryStore::default();
            let load = || Shelf::load(&store).now_or_never().unwrap().unwrap();
            let mut shelf = load();
            for osn in 1..400 {
                let record = record(&mut rng, Osn(osn), shelf.kept());
                let rows = shelf.take(&record);
                store.commit(rows).now_or_never().unwrap().unwrap();
                if rng.percent(20) {
                    let again = load();
                    assert_eq!(again.kept(), shelf.kept(), "seed {seed}, after {record:?}");
                    if rng.percent(50) {
                        shelf = again;
                    }
                }
            }
            let rows = store.scan(PAIR, &[FLIGHT], 9999).now_or_never().unwrap().unwrap();
            let flights = rows.iter().filter(|(key, _)| key[0] == FLIGHT).count();
            assert!(flights < 64, "seed {seed}: {flights} rows for 30 entries at most");
        }
    }

    #[test]
    fn rows_of_another_version_are_refused() {
        for (key, value) in [(vec![9], vec![1]), (vec![STATE], vec![2; 147]), (vec![FLIGHT, 0, 0, 0, 1], vec![0; 47])] {
            let store = MemoryStore::default();
            store.commit(vec![Put::Put { table: PAIR, key, value }]).now_or_never().unwrap().unwrap();
            assert_eq!(Shelf::load(&store).now_or_never().unwrap().err(), Some(ShelfFault::Malformed));
        }
    }
}

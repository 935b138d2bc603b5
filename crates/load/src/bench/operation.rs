//! The operations of a worker: choose, ask, settle.

use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use super::{Run, VIOLATIONS_KEPT};
use crate::block::{Place, Stamp};
use crate::expectation::Breach;
use crate::journal::Event;
use crate::nfs3::{CreateMode, NfsClient, NfsError, SetAttributes};
use crate::report::{End, Violation};
use crate::rpc::RpcError;
use crate::transfer::{TransferError, read_whole, write_whole};
use crate::workload::Kind;

/// What was chosen.
enum Choice {
    Read(Range<u64>),
    Write(Range<u64>),
    /// With a random file for those that need one.
    Other(usize),
}

impl Choice {
    fn kind(&self) -> Kind {
        match self {
            Choice::Read(_) => Kind::Read,
            Choice::Write(_) => Kind::Write,
            Choice::Other(_) => Kind::Other,
        }
    }

    fn units(&self) -> u64 {
        match self {
            Choice::Read(units) | Choice::Write(units) => units.end - units.start,
            Choice::Other(_) => 0,
        }
    }
}

/// One call in flight at a time, until the run ends.
pub(super) async fn work(run: Rc<Run>, number: usize) {
    let client = run.clients[number % run.clients.len()].clone();
    let mut scratch = Scratch { worker: number, step: 0, present: None };
    let mut floors = Vec::new();
    while let Some(choice) = run.choose() {
        let started = Instant::now();
        let result = match &choice {
            Choice::Write(units) => run.write(&client, units.clone(), started).await,
            Choice::Read(units) => run.read(&client, units.clone(), &mut floors).await,
            Choice::Other(file) => scratch.next(&run, &client, *file).await.map_err(TransferError::Nfs),
        };
        run.finish(&choice, started, result);
    }
    scratch.clean_up(&run, &client).await;
}

impl Run {
    /// The next operation, or `None` when the run is over.
    fn choose(&self) -> Option<Choice> {
        if self.end.get().is_some() {
            return None;
        }
        let state = &mut *self.state.borrow_mut();
        if state.operations_left == 0 {
            self.end.set(Some(End::Operations));
            return None;
        }
        state.operations_left -= 1;
        Some(match state.chooser.kind() {
            Kind::Read => Choice::Read(state.chooser.units(&self.files)),
            // Ends: the plan has at least four times as many blocks as workers.
            Kind::Write => loop {
                let units = state.chooser.units(&self.files);
                if !state.expectations.is_busy(units.clone()) {
                    break Choice::Write(units);
                }
            },
            Kind::Other => Choice::Other(state.chooser.below(self.files.files().len() as u64) as usize),
        })
    }

    fn finish(&self, choice: &Choice, started: Instant, result: Result<(), TransferError>) {
        let now = Instant::now();
        let state = &mut *self.state.borrow_mut();
        match result {
            Ok(()) => {
                let bytes = choice.units() * u64::from(self.blocks.shape().unit_bytes);
                state.tally.done(choice.kind(), bytes, started, now);
            }
            Err(error) => {
                state.tally.failed(|| self.describe(choice, &error));
                let gone = matches!(error, TransferError::Nfs(NfsError::Rpc(RpcError::Disconnected)));
                if gone || state.tally.error_count > self.max_errors {
                    self.end.set(Some(self.end.get().unwrap_or(End::Errors)));
                }
            }
        }
    }

    fn describe(&self, choice: &Choice, error: &TransferError) -> String {
        match choice {
            Choice::Other(_) => format!("other operation: {error}"),
            Choice::Read(units) | Choice::Write(units) => {
                let place = self.files.place(units.start);
                let path = &self.files.files()[place.file as usize].path;
                let (offset, length) = self.bytes_of(place, choice.units());
                let kind = if choice.kind() == Kind::Read { "read" } else { "write" };
                format!("{kind} of {length} bytes at {offset} of {path}: {error}")
            }
        }
    }

    fn bytes_of(&self, place: Place, units: u64) -> (u64, u32) {
        let unit_bytes = u64::from(self.blocks.shape().unit_bytes);
        (place.unit * unit_bytes, (units * unit_bytes) as u32)
    }

    async fn write(&self, client: &NfsClient, units: Range<u64>, started: Instant) -> Result<(), TransferError> {
        let place = self.files.place(units.start);
        let time_ns = self.unix_ns(started);
        let stamp = {
            let state = &mut *self.state.borrow_mut();
            let version = state.expectations.issue(units.clone());
            state.sequence += 1;
            let sequence = state.sequence;
            self.record(state, Event::Issued, (units.clone(), version), (sequence, time_ns));
            Stamp { version, sequence, time_ns }
        };
        let count = units.end - units.start;
        let fill = |out: &mut Vec<u8>| {
            (0..count).for_each(|unit| self.blocks.append(out, Place { unit: place.unit + unit, ..place }, stamp));
        };
        let file = &self.opened.files[place.file as usize];
        let result = write_whole(client, file, self.bytes_of(place, count), fill).await;
        let state = &mut *self.state.borrow_mut();
        state.expectations.settle(units.clone(), stamp.version, result.is_ok());
        if state.journal.is_some() {
            let event = if result.is_ok() { Event::Acknowledged } else { Event::Failed };
            self.record(state, event, (units, stamp.version), (stamp.sequence, self.unix_ns(Instant::now())));
        }
        result
    }

    async fn read(&self, client: &NfsClient, units: Range<u64>, floors: &mut Vec<u32>) -> Result<(), TransferError> {
        let place = self.files.place(units.start);
        if self.verify {
            let state = self.state.borrow();
            floors.clear();
            floors.extend(units.clone().map(|unit| state.expectations.floor(unit)));
        }
        let (offset_bytes, length) = self.bytes_of(place, units.end - units.start);
        let data = read_whole(client, &self.opened.files[place.file as usize], offset_bytes, length).await?;
        if self.verify {
            for (index, bytes) in data.chunks_exact(self.blocks.shape().unit_bytes as usize).enumerate() {
                let unit = units.start + index as u64;
                self.judge(unit, Place { unit: place.unit + index as u64, ..place }, floors[index], bytes);
            }
        }
        Ok(())
    }

    fn judge(&self, unit: u64, place: Place, floor_then: u32, bytes: &[u8]) {
        let found = self.blocks.recognise(bytes);
        let state = &mut *self.state.borrow_mut();
        state.tally.units_checked += 1;
        let write_under_way = state.expectations.issued(unit) > floor_then;
        match state.expectations.judge((unit, place), floor_then, &self.blocks, found) {
            Ok(None) => {}
            Ok(Some(version)) => {
                let (sequence, now_ns) = (state.sequence, self.unix_ns(Instant::now()));
                self.record(state, Event::Observed, (unit..unit + 1, version), (sequence, now_ns));
            }
            // NFS does not promise that a read sees all or nothing of a write under way.
            Err(Breach::Damaged { magic_right: true }) if write_under_way => state.tally.torn_reads += 1,
            Err(breach) => {
                self.end.set(Some(End::Violation));
                state.violation_count += 1;
                if state.violations.len() < VIOLATIONS_KEPT {
                    state.violations.push(Violation {
                        file: self.files.files()[place.file as usize].path.clone(),
                        offset_bytes: self.bytes_of(place, 1).0,
                        expected_version_min: floor_then,
                        expected_version_max: state.expectations.issued(unit),
                        breach,
                    });
                }
            }
        }
    }
}

/// The other operations of one worker, in turn: GETATTR, SETATTR, CREATE, RENAME,
/// REMOVE, on names no other worker uses.
struct Scratch {
    worker: usize,
    step: u64,
    /// Name of the file that is there.
    present: Option<String>,
}

impl Scratch {
    async fn next(&mut self, run: &Run, client: &NfsClient, file: usize) -> Result<(), NfsError> {
        let file = &run.opened.files[file];
        let scratch = &run.opened.scratch;
        let round = self.step / 5;
        let step = self.step % 5;
        self.step += 1;
        match (step, &self.present) {
            (0, _) => client.getattr(file).await.map(drop),
            (1, _) => client.setattr(file, &SetAttributes { touch: true, ..SetAttributes::default() }).await,
            (2, None) => {
                let name = format!("other-{}-{round}", self.worker);
                client.create(scratch, name.as_bytes(), CreateMode::Guarded).await?;
                self.present = Some(name);
                Ok(())
            }
            (3, Some(old)) => {
                let new = format!("{old}-renamed");
                client.rename((scratch, old.as_bytes()), (scratch, new.as_bytes())).await?;
                self.present = Some(new);
                Ok(())
            }
            (4, Some(name)) => {
                client.remove(scratch, name.as_bytes()).await?;
                self.present = None;
                Ok(())
            }
            // After a failure in this round: still one operation, of the mildest kind.
            _ => client.getattr(scratch).await.map(drop),
        }
    }

    async fn clean_up(self, run: &Run, client: &NfsClient) {
        if let Some(name) = self.present {
            // Not part of the load; if the server is gone, removing the tree says so.
            let _ = client.remove(&run.opened.scratch, name.as_bytes()).await;
        }
    }
}

//! Retiring a drive behind a twin (decision 0028): a new drive is filled with what a good one
//! holds, while that one goes on as a member, and takes its slot at the end.
//!
//! ```text
//!   begin_twin    label, then the record (register `twin`)     every stripe goes to both from here on
//!   filled        as a drive that is rebuilt: what it owes     copied from the old drive where that is right
//!   become_whole  flush; header A: the old drive is leaving    no vote, everything else
//!                 made an acceptor; header B: the twin is it   the old drive is out
//! ```
//!
//! Two headers, because a majority of the drives with the old one and a majority of those with
//! the new one need not share a drive (`paxos.rs`, *Members*): after a crash in a single step two
//! sets of drives could both be opened, each with a header of its own. With A in between, any two
//! that follow each other share one.
//!
//! * The twin has an id of its own from the start, and each unit on it says so: nothing on one of
//!   the two is ever taken for the other's. A copied unit passed all its checks, so damage is not
//!   copied; where the old drive has damage the unit is decoded from the others.
//! * A write that only the twin refuses ends the retiring. As for a member, that is durable
//!   (the record is gone) before the write or the next flush is reported done; so a twin that a
//!   restart finds has everything that was written since it began.
//! * If the old drive fails, the twin takes its slot at once, as one that is being filled.
//! * Opened again after a crash: a drive that is leaving gets its vote back, and the twin of the
//!   record goes on, or the record goes if the twin is not there.

use std::rc::Rc;

use base::id::DriveId;
use base::port::Drive;

use crate::decide::{CasRefused, Latched, Versioned, aligned};
use crate::fields::{Reader, Writer};
use crate::group::Group;
use crate::header::{GroupHeader, MemberRecord, Standing};
use crate::lane::Lane;
use crate::layout::{DRIVES_MAX, Shape, Slot};
use crate::member::{DriveState, FailReason, Member};
use crate::membership::{JoinRefused, RemoveRefused, write_labels};
use crate::principal::Principal;
use crate::status::Event;

/// Name of the register that holds the record.
const TWIN_REGISTER: &str = "twin";
const FORMAT: u16 = 1;

/// Why a twin is one no more, though it did not take the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TwinEnd {
    /// It failed.
    Failed(FailReason),
    /// That was asked for.
    Cancelled,
    /// It was not there when the group was opened.
    NotThere,
}

/// A twin, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwinStatus {
    /// Its id.
    pub id: DriveId,
    /// Its model.
    pub model: String,
    /// Its serial number or path.
    pub serial: String,
    /// Units it still lacks, once that is known.
    pub owed_units: Option<u64>,
}

/// The record: which drive is a twin, and of which slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TwinRecord {
    pub slot: Slot,
    pub drive: DriveId,
}

impl TwinRecord {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(FORMAT);
        out.u8(self.slot.0);
        out.raw(&self.drive.0);
        out.bytes
    }

    /// Reads a record; `None` if there is no twin. Never panics, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Option<TwinRecord> {
        let mut input = Reader::new(bytes);
        let known = input.u16()? == FORMAT;
        let slot = Slot(input.u8()?);
        let sane = known && usize::from(slot.0) < DRIVES_MAX;
        let drive = DriveId(input.array()?);
        sane.then_some(TwinRecord { slot, drive })
    }

    /// The record among decided values, unless the twin has its slot already.
    pub fn of(header: &GroupHeader, values: &[Versioned]) -> Option<TwinRecord> {
        let index = header.registers.iter().position(|known| known == TWIN_REGISTER)?;
        let record = TwinRecord::decode(&values.get(index + 1)?.bytes)?;
        let member = header.members.get(usize::from(record.slot.0))?;
        (member.drive != record.drive).then_some(record)
    }
}

impl Group {
    /// Starts to retire the good drive in `slot` behind `drive`: from now on every stripe is
    /// written to both, and what the slot holds is owed by the twin until it is filled in. No
    /// stripe may be under way meanwhile. There is one twin at a time.
    pub async fn begin_twin(&self, slot: Slot, drive: Rc<dyn Drive>, overwrite: bool) -> Result<(), JoinRefused> {
        let drive = self.inner.flow.lane(drive);
        self.check_twin(slot, &drive, overwrite).await?;
        self.try_out(&drive).await?;
        let id = self.new_drive_id();
        let next = self.header_with_twin(slot, id, &drive, Standing::Good);
        write_labels(&drive, &next, slot).await.map_err(JoinRefused::Media)?;
        self.retirable(slot)?;
        let twin = twin_member(slot, id, drive);
        self.inner.twin.replace(Some(twin.clone()));
        let record = TwinRecord { slot, drive: id }.encode();
        let version = self.register_read(TWIN_REGISTER).await.version;
        if self.register_cas(TWIN_REGISTER, version, &record).await.is_err() {
            self.inner.twin.take();
            return Err(JoinRefused::Latched);
        }
        self.inner.record.event(Event::TwinBegun { slot });
        if !self.is_twin(&twin) {
            // It failed, or has the slot already, and the record came after that.
            self.inner.twin_unsettled.set(true);
            self.settle_failures().await?;
        }
        Ok(())
    }

    /// Whether the drive in `slot` could be retired behind `drive`: what
    /// [`begin_twin`](Group::begin_twin) would refuse, without changing anything.
    pub async fn could_twin(&self, slot: Slot, drive: Rc<dyn Drive>) -> Result<(), JoinRefused> {
        self.check_twin(slot, &self.inner.flow.lane(drive), false).await
    }

    async fn check_twin(&self, slot: Slot, drive: &Lane, overwrite: bool) -> Result<(), JoinRefused> {
        let extents = self.retirable(slot)?;
        self.check_newcomer(drive, extents, overwrite).await
    }

    /// Extents a twin of the drive in `slot` must have, if that can be retired.
    fn retirable(&self, slot: Slot) -> Result<u32, JoinRefused> {
        if self.inner.latched.get() {
            return Err(JoinRefused::Latched);
        }
        let members = self.inner.members.borrow();
        let member = members.get(usize::from(slot.0)).ok_or(JoinRefused::NoSuchSlot(slot))?;
        if let Some(twin) = self.twin() {
            return Err(JoinRefused::TwinThere(twin.slot));
        }
        if !member.is_good() {
            return Err(JoinRefused::NotGood(slot));
        }
        Ok(self.inner.header.borrow().members[usize::from(slot.0)].extents)
    }

    /// Ends retiring the drive in `slot`, which keeps it; the twin is blank again. No stripe may
    /// be under way meanwhile. `Ok(false)`: there is no twin of it.
    pub async fn cancel_twin(&self, slot: Slot) -> Result<bool, RemoveRefused> {
        let Some(twin) = self.twin_of(slot) else { return Ok(false) };
        self.inner.twin.take();
        self.inner.twin_unsettled.set(true);
        self.inner.record.event(Event::TwinEnded { slot, why: TwinEnd::Cancelled });
        self.settle_failures().await.map_err(|_| RemoveRefused::Latched)?;
        if let Some(lane) = &twin.lane {
            let blank = aligned(&[0; Shape::BLOCK_BYTES]);
            for offset in [0, Shape::LABEL_B_BYTES] {
                // One that does not take it stays a drive that nobody knows.
                let _ = lane.write(Principal::MetadataWrite, offset, blank.clone()).await;
            }
            let _ = lane.flush().await;
            lane.retire();
        }
        Ok(true)
    }

    /// The twin.
    pub(crate) fn twin(&self) -> Option<Rc<Member>> {
        self.inner.twin.borrow().clone()
    }

    /// The twin, if it is one of the drive in `slot`.
    pub(crate) fn twin_of(&self, slot: Slot) -> Option<Rc<Member>> {
        self.twin().filter(|twin| twin.slot == slot)
    }

    /// Whether `member` is the twin.
    pub(crate) fn is_twin(&self, member: &Member) -> bool {
        self.inner.twin.borrow().as_ref().is_some_and(|twin| std::ptr::eq(&**twin, member))
    }

    /// The slot whose drive is being retired.
    pub fn retiring(&self) -> Option<Slot> {
        self.twin().map(|twin| twin.slot)
    }

    /// The drive that is being filled in `slot`: its own, or the twin of its own.
    pub(crate) fn filling(&self, slot: Slot) -> Option<Rc<Member>> {
        let own = || Some(self.inner.member(slot)).filter(|member| member.state.get() == DriveState::Rebuilding);
        self.twin_of(slot).or_else(own)
    }

    /// Every drive that is being filled.
    pub(crate) fn all_filling(&self) -> Vec<Rc<Member>> {
        let members = self.inner.all_members().into_iter().chain(self.twin());
        members.filter(|member| member.state.get() == DriveState::Rebuilding).collect()
    }

    /// Id of the drive that is being filled in `slot`.
    pub fn drive_filling(&self, slot: Slot) -> Option<DriveId> {
        self.filling(slot).map(|member| member.id)
    }

    /// The twin, for people.
    pub(crate) fn twin_status(&self, slot: Slot) -> Option<TwinStatus> {
        self.twin_of(slot).map(|twin| TwinStatus {
            id: twin.id,
            model: twin.model.clone(),
            serial: twin.serial.clone(),
            owed_units: twin.owed.borrow().units(),
        })
    }

    /// The twin failed: the old drive goes on alone. Durable once failures are settled.
    pub(crate) fn drop_twin(&self, why: TwinEnd) {
        let Some(twin) = self.inner.twin.take() else { return };
        twin.state.set(DriveState::Failed);
        if let TwinEnd::Failed(reason) = why {
            twin.fail_reason.set(Some(reason));
        }
        twin.lane.iter().for_each(Lane::retire);
        self.inner.twin_unsettled.set(true);
        self.inner.record.event(Event::TwinEnded { slot: twin.slot, why });
    }

    /// Takes the record away if there is no twin any more, and lets a twin take the slot of a
    /// drive that is out.
    pub(crate) async fn settle_twin(&self) -> Result<(), Latched> {
        if let Some(twin) = self.twin()
            && self.is_out(twin.slot)
        {
            self.promote(&twin).await?;
        }
        if self.inner.twin_unsettled.get() && self.twin().is_none() {
            self.forget_twin().await?;
        }
        Ok(())
    }

    /// Whether the header says that the drive in `slot` is failed.
    fn is_out(&self, slot: Slot) -> bool {
        self.inner.header.borrow().members[usize::from(slot.0)].standing == Standing::Failed
    }

    async fn forget_twin(&self) -> Result<(), Latched> {
        let index = self.register_index(TWIN_REGISTER);
        if let Some(index) = index {
            let held = self.inner.decided.values.borrow()[index].clone();
            let is_set = !held.bytes.is_empty();
            // Another version: somebody else has just done it.
            let done = if is_set { self.cas_index(index, held.version, &[]).await } else { Ok(held.version) };
            if matches!(done, Err(CasRefused::Latched | CasRefused::Fenced)) {
                return Err(Latched);
            }
        }
        self.inner.twin_unsettled.set(false);
        Ok(())
    }

    /// The old drive is out: the twin is in its slot now, and is filled on from the others.
    async fn promote(&self, twin: &Rc<Member>) -> Result<(), Latched> {
        let _gate = self.inner.decided.gate.lock().await;
        let slot = twin.slot;
        if !self.is_twin(twin) || !self.is_out(slot) {
            return Ok(());
        }
        let lane = twin.lane.clone().expect("a twin is there");
        if let Err(fault) = self.make_acceptor(twin).await {
            self.drop_twin(TwinEnd::Failed(FailReason::of_write(fault)));
            return Ok(());
        }
        let next = self.header_with_twin(slot, twin.id, &lane, Standing::Filling);
        let mut voters = self.voters();
        voters.push(twin.clone());
        self.decide_header(next, &voters).await?;
        self.take_slot(twin);
        self.inner.record.event(Event::DriveJoined { slot, replaces: true });
        Ok(())
    }

    /// The twin holds everything: it takes the slot, and the old drive is out. `Ok(false)` if that
    /// is not so any more.
    pub(crate) async fn swap(&self, twin: &Rc<Member>) -> Result<bool, RemoveRefused> {
        let slot = twin.slot;
        let swapped = self.try_swap(twin).await.map_err(|_| RemoveRefused::Latched)?;
        if swapped {
            self.inner.record.event(Event::DriveRetired { slot });
        }
        self.settle_failures().await.map_err(|_| RemoveRefused::Latched)?;
        Ok(swapped)
    }

    async fn try_swap(&self, twin: &Rc<Member>) -> Result<bool, Latched> {
        let _gate = self.inner.decided.gate.lock().await;
        let (slot, old) = (twin.slot, self.inner.member(twin.slot));
        if !self.is_twin(twin) || twin.owed.borrow().units() != Some(0) || !old.is_good() {
            return Ok(false);
        }
        let lane = twin.lane.clone().expect("a twin is there");
        self.decide_header(self.header_with_standing(slot, Standing::Leaving), &self.voters()).await?;
        let fault = self.make_acceptor(twin).await.err();
        if fault.is_some() || !self.is_twin(twin) {
            fault.into_iter().for_each(|fault| self.drop_twin(TwinEnd::Failed(FailReason::of_write(fault))));
            // It has every decided value: it was written to all along.
            if old.is_good() {
                self.decide_header(self.header_with_standing(slot, Standing::Good), &self.voters()).await?;
            }
            return Ok(false);
        }
        let next = self.header_with_twin(slot, twin.id, &lane, Standing::Good);
        let mut voters: Vec<Rc<Member>> = self.voters().into_iter().filter(|member| member.slot != slot).collect();
        voters.push(twin.clone());
        self.decide_header(next, &voters).await?;
        if twin.takes_part() {
            twin.state.set(DriveState::Good);
        }
        old.state.set(DriveState::Failed);
        old.fail_reason.set(Some(FailReason::Retired));
        self.take_slot(twin);
        old.lane.iter().for_each(Lane::retire);
        Ok(true)
    }

    /// The twin is the member of its slot from now on.
    fn take_slot(&self, twin: &Rc<Member>) {
        let extents = self.inner.header.borrow().members[usize::from(twin.slot.0)].extents;
        self.inner.twin.take();
        self.inner.twin_unsettled.set(true);
        self.install(twin.clone(), extents, true);
        self.inner.space.set(None);
    }

    fn header_with_standing(&self, slot: Slot, standing: Standing) -> GroupHeader {
        let mut next = self.inner.header.borrow().clone();
        next.members[usize::from(slot.0)].standing = standing;
        next.membership += 1;
        next
    }

    fn header_with_twin(&self, slot: Slot, drive: DriveId, lane: &Lane, standing: Standing) -> GroupHeader {
        let mut next = self.inner.header.borrow().clone();
        let (info, extents) = (lane.info(), next.shape.extents(lane.info().capacity_bytes));
        let record = MemberRecord { drive, standing, extents, whole_below: 0, model: info.model, serial: info.serial };
        next.members[usize::from(slot.0)] = record;
        next.membership += 1;
        next
    }

    /// The header is `next` once a majority of its members holds it. The caller holds the gate.
    async fn decide_header(&self, next: GroupHeader, voters: &[Rc<Member>]) -> Result<(), Latched> {
        let version = self.inner.decided.values.borrow()[0].version + 1;
        self.write_register(0, version, &next.encode(), (voters, next.acceptors())).await?;
        self.adopt(next, version);
        Ok(())
    }

    /// What a crash may have left, when the group is opened: `found` is the twin of the record.
    pub(crate) async fn resume_twin(&self, record: Option<TwinRecord>, found: Option<Lane>) -> Result<(), Latched> {
        self.give_votes_back().await?;
        let slot = record.map(|record| record.slot);
        if let (Some(record), Some(lane)) = (record, found) {
            self.inner.twin.replace(Some(twin_member(record.slot, record.drive, lane)));
        } else {
            // The record is of a twin that is not there, or that has the slot already.
            self.inner.twin_unsettled.set(true);
            slot.into_iter().for_each(|slot| {
                self.inner.record.event(Event::TwinEnded { slot, why: TwinEnd::NotThere });
            });
        }
        if let Some(twin) = self.twin()
            && self.inner.member(twin.slot).state.get() == DriveState::Missing
            && !self.inner.latched.get()
        {
            // It need not be waited for: the twin holds a part of what it held, the others the rest.
            self.inner.member(twin.slot).state.set(DriveState::Failed);
        }
        self.settle_failures().await
    }

    /// Drives that were leaving when the power went are members as before.
    async fn give_votes_back(&self) -> Result<(), Latched> {
        let _gate = self.inner.decided.gate.lock().await;
        for member in self.inner.all_members() {
            let slot = member.slot;
            let is_leaving = self.inner.header.borrow().members[usize::from(slot.0)].standing == Standing::Leaving;
            if !is_leaving || self.inner.latched.get() {
                continue;
            }
            if !member.is_good() {
                member.state.set(DriveState::Failed);
                continue;
            }
            match self.make_acceptor(&member).await {
                Ok(()) => self.decide_header(self.header_with_standing(slot, Standing::Good), &self.voters()).await?,
                Err(fault) => self.fail(&member, FailReason::of_write(fault)),
            }
        }
        Ok(())
    }
}

fn twin_member(slot: Slot, id: DriveId, lane: Lane) -> Rc<Member> {
    let member = Member::new(slot, id, Some(lane));
    member.state.set(DriveState::Rebuilding);
    Rc::new(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_nonsense_is_none() {
        let record = TwinRecord { slot: Slot(7), drive: DriveId([3; 16]) };
        let bytes = record.encode();
        assert_eq!(TwinRecord::decode(&bytes), Some(record));
        (0..bytes.len()).for_each(|len| assert_eq!(TwinRecord::decode(&bytes[..len]), None));
        assert_eq!(TwinRecord::decode(&TwinRecord { slot: Slot(32), ..record }.encode()), None);
    }
}

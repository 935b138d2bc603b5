//! Assembly: from drives in any order, some missing, some foreign, some blank, to the
//! right group or a clear refusal (`faults.md` F08, F09, F11, F13; R-RAID-08).
//!
//! 1. Labels are read. Nothing is written before a drive is identified; two drives with
//!    one identity are both left alone.
//! 2. The newest good header on any drive of a group says who its members are. A
//!    majority of the members that vote must be there, on drives that fit their record.
//! 3. A new session is promised on a majority, durably. From here on nothing an earlier
//!    owner left on a minority can win.
//! 4. Header and registers are rewritten in the new session: whatever value was seen is
//!    now decided, and the drives agree.
//!
//! Why this is safe: a decided value is on a majority; two majorities share a drive; so
//! step 2 sees it, as the newest, because values are ordered by session, and a session
//! writes only after it was promised on a majority.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use base::buf::BufMut;
use base::id::{DriveId, GroupId};
use base::port::{Drive, MediaFault, World};
use futures_util::future::join_all;

use crate::decide::{Versioned, aligned, put_slot};
use crate::group::{Group, Parts};
use crate::header::{GroupHeader, MemberRecord, Standing};
use crate::label::{Label, LabelState};
use crate::lane::{Flow, Lane};
use crate::layout::{Shape, Slot};
use crate::member::{DriveState, FailReason, Member};
use crate::principal::Principal;
use crate::register::{SlotValue, Stamp, decode_session, decode_slot, encode_session, encode_slot};
use crate::status::Event;

/// What was found on a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A member in use.
    Member(Slot),
    /// A member that was declared failed; not used.
    Failed(Slot),
    /// A label of another group; never written.
    Foreign(GroupId),
    /// No label at all; never written.
    Blank,
    /// Neither a good label nor zeros; never written.
    Unknown,
    /// Another drive carries the same identity; neither is used.
    Twin(Slot),
    /// A label of this group that its header does not confirm, or a drive that shrank
    /// below what it held or wants another alignment; not used.
    Mismatch(Slot),
    /// It could not be read.
    Unreadable(MediaFault),
}

/// What was found on the drives given to [`Group::open`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assembly {
    /// Serial number or path, and finding, in the order the drives were given.
    pub drives: Vec<(String, Finding)>,
}

/// Why no group was opened. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefused {
    /// No drive carries a label of a group (or of the group that was asked for).
    #[error("no drive carries a label of the group")]
    NoGroup(Assembly),
    /// Drives of several groups could be assembled and none was asked for by id.
    #[error("drives of {} groups are mixed; say which", groups.len())]
    Ambiguous {
        /// The groups.
        groups: Vec<GroupId>,
        /// What was found.
        assembly: Assembly,
    },
    /// No drive holds a good group header.
    #[error("no drive holds a good group header")]
    NoHeader(Assembly),
    /// Too few members to know what was decided last.
    #[error("{present} of {votes} voting drives are there, {needed} are needed")]
    NoQuorum {
        /// Voting members that are there.
        present: usize,
        /// Voting members.
        votes: usize,
        /// Needed.
        needed: usize,
        /// What was found.
        assembly: Assembly,
    },
    /// Drives failed while the group was being opened, and a majority was lost.
    #[error("drives failed while the group was being opened")]
    Latched(Assembly),
}

impl OpenRefused {
    /// What was found on each drive: the evidence.
    pub fn assembly(&self) -> &Assembly {
        match self {
            OpenRefused::NoGroup(assembly) | OpenRefused::NoHeader(assembly) | OpenRefused::Latched(assembly) => {
                assembly
            }
            OpenRefused::Ambiguous { assembly, .. } | OpenRefused::NoQuorum { assembly, .. } => assembly,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Member(slot) => write!(f, "member in slot {}", slot.0),
            Finding::Failed(slot) => write!(f, "was declared failed in slot {}; not used", slot.0),
            Finding::Foreign(group) => write!(f, "belongs to group {group}"),
            Finding::Blank => write!(f, "blank"),
            Finding::Unknown => write!(f, "carries no label of ours, or a damaged one"),
            Finding::Twin(slot) => write!(f, "another drive also says it is slot {}; neither is used", slot.0),
            Finding::Mismatch(slot) => write!(f, "does not fit what the group knows of slot {}; not used", slot.0),
            Finding::Unreadable(fault) => write!(f, "cannot be read: {fault}"),
        }
    }
}

/// Reads both copies of a label.
pub(crate) async fn read_label(drive: &Lane) -> Result<LabelState, MediaFault> {
    let first = read_at(drive, 0, Shape::BLOCK_BYTES).await;
    let second = read_at(drive, Shape::LABEL_B_BYTES, Shape::BLOCK_BYTES).await;
    match (first, second) {
        (Err(fault), Err(_)) => Err(fault),
        (first, second) => {
            let state = |copy: Result<BufMut, _>| copy.map_or(LabelState::Unknown, |block| Label::decode(&block));
            Ok(state(first).merge(state(second)))
        }
    }
}

async fn read_at(drive: &Lane, offset_bytes: u64, len_bytes: usize) -> Result<BufMut, MediaFault> {
    let (outcome, buf) = drive.read(Principal::MetadataRead, offset_bytes, BufMut::zeroed(len_bytes)).await;
    outcome.map(|()| buf)
}

/// Everything a labelled drive holds as an acceptor.
struct Acceptor {
    /// Index in the list given.
    index: usize,
    drive: Lane,
    label: Label,
    session: u64,
    /// Which session slot to write next.
    session_slot: usize,
    /// Newest good value of each register, and which slot to write next.
    values: Vec<(Option<SlotValue>, u8)>,
}

impl Acceptor {
    async fn read(index: usize, drive: Lane, label: Label) -> Acceptor {
        let mut sessions = [0; 2];
        for (which, session) in sessions.iter_mut().enumerate() {
            let block = read_at(&drive, Shape::session_offset_bytes(0, which), Shape::BLOCK_BYTES).await;
            *session = block.ok().and_then(|block| decode_session(label.group, &block)).unwrap_or(0);
        }
        let mut values = Vec::new();
        for register in 0..Shape::REGISTERS {
            let first = read_slot(&drive, &label, register, 0).await;
            let second = read_slot(&drive, &label, register, 1).await;
            let stamp = |value: &Option<SlotValue>| value.as_ref().map(|value| value.stamp);
            values.push(if stamp(&first) > stamp(&second) { (first, 1) } else { (second, 0) });
        }
        let session_slot = usize::from(sessions[0] > sessions[1]);
        Acceptor { index, drive, label, session: sessions[0].max(sessions[1]), session_slot, values }
    }

    fn stamp(&self, register: usize) -> Option<Stamp> {
        self.values[register].0.as_ref().map(|value| value.stamp)
    }
}

/// Reads a slot: its first block, and the rest only if that says there is more.
async fn read_slot(drive: &Lane, label: &Label, register: usize, which: usize) -> Option<SlotValue> {
    let offset = label.shape.register_offset_bytes(register, which);
    let first = read_at(drive, offset, Shape::BLOCK_BYTES).await.ok()?;
    if let Some(value) = decode_slot(label.group, register, &first) {
        return Some(value);
    }
    if first.iter().all(|&byte| byte == 0) {
        return None;
    }
    let whole = read_at(drive, offset, label.shape.slot_bytes(register) as usize).await.ok()?;
    decode_slot(label.group, register, &whole)
}

/// A group that can be assembled from the drives at hand.
struct Candidate {
    header: GroupHeader,
    acceptors: Vec<Acceptor>,
    session: u64,
}

impl Group {
    /// Opens the group found on `drives`, given in any order; `wanted` names it when
    /// drives of several may be mixed. Needs a majority of the voting members. Writes
    /// only to members in good standing.
    pub async fn open(drives: Vec<Rc<dyn Drive>>, wanted: Option<GroupId>, world: World) -> Result<Group, OpenRefused> {
        let flow = Flow::new(&world);
        let drives = flow.lanes(drives);
        let mut assembly = Assembly { drives: Vec::new() };
        let mut groups: BTreeMap<GroupId, Vec<Acceptor>> = BTreeMap::new();
        let labels = join_all(drives.iter().map(read_label)).await;
        let mut reads = Vec::new();
        for (index, (drive, label)) in drives.iter().zip(labels).enumerate() {
            let (finding, label) = first_finding(label);
            assembly.drives.push((drive.info().serial, finding));
            let label = label.filter(|label| wanted.is_none_or(|wanted| wanted == label.group));
            reads.extend(label.map(|label| Acceptor::read(index, drive.clone(), label)));
        }
        for acceptor in join_all(reads).await {
            groups.entry(acceptor.label.group).or_default().push(acceptor);
        }
        let (candidate, assembly) = choose_group(groups, assembly)?;
        start(candidate, assembly, flow, world).await
    }
}

fn first_finding(label: Result<LabelState, MediaFault>) -> (Finding, Option<Label>) {
    match label {
        Ok(LabelState::Good(label)) => (Finding::Foreign(label.group), Some(label)),
        Ok(LabelState::Blank) => (Finding::Blank, None),
        Ok(LabelState::Unknown) => (Finding::Unknown, None),
        Err(fault) => (Finding::Unreadable(fault), None),
    }
}

/// The one group that can be assembled; if several can, none.
fn choose_group(
    groups: BTreeMap<GroupId, Vec<Acceptor>>,
    assembly: Assembly,
) -> Result<(Candidate, Assembly), OpenRefused> {
    let mut able = Vec::new();
    let mut refused = Vec::new();
    for acceptors in groups.into_values() {
        match examine(acceptors, assembly.clone()) {
            Ok(found) => able.push(found),
            Err(refusal) => refused.push(refusal),
        }
    }
    if able.len() > 1 {
        let groups = able.iter().map(|(candidate, _)| candidate.header.group).collect();
        return Err(OpenRefused::Ambiguous { groups, assembly });
    }
    // Of several groups none of which can be assembled, the refusal of the one with
    // most members present says most.
    refused.sort_by_key(|refusal| match refusal {
        OpenRefused::NoQuorum { present, .. } => *present,
        _ => 0,
    });
    able.pop().ok_or_else(|| refused.pop().unwrap_or(OpenRefused::NoGroup(assembly)))
}

/// Steps 1 and 2 for the drives of one group.
fn examine(mut acceptors: Vec<Acceptor>, mut assembly: Assembly) -> Result<(Candidate, Assembly), OpenRefused> {
    let ids: Vec<DriveId> = acceptors.iter().map(|acceptor| acceptor.label.drive).collect();
    acceptors.retain(|acceptor| {
        let slot = acceptor.label.slot;
        // Two drives of one slot are a drive and its successor; the header tells them apart.
        let twin = ids.iter().filter(|other| **other == acceptor.label.drive).count() > 1;
        if twin {
            assembly.drives[acceptor.index].1 = Finding::Twin(slot);
        }
        !twin
    });
    let newest = acceptors.iter().max_by_key(|acceptor| acceptor.stamp(0));
    let newest = newest.and_then(|acceptor| acceptor.values[0].0.as_ref());
    let header = newest.and_then(|value| GroupHeader::decode(&value.bytes));
    let Some(header) = header else { return Err(OpenRefused::NoHeader(assembly)) };
    let session = acceptors.iter().map(|acceptor| acceptor.session.max(newest_session(acceptor))).max().unwrap_or(0);
    acceptors.retain(|acceptor| {
        let finding = identify(acceptor, &header);
        let member = matches!(finding, Finding::Member(_));
        assembly.drives[acceptor.index].1 = finding;
        member
    });
    let (votes, needed) = header.quorum();
    let present = acceptors.len();
    if present < needed {
        return Err(OpenRefused::NoQuorum { present, votes, needed, assembly });
    }
    Ok((Candidate { header, acceptors, session }, assembly))
}

fn newest_session(acceptor: &Acceptor) -> u64 {
    (0..Shape::REGISTERS).filter_map(|register| acceptor.stamp(register)).map(|stamp| stamp.session).max().unwrap_or(0)
}

/// Whether the header confirms what the label says, and the drive still fits.
fn identify(acceptor: &Acceptor, header: &GroupHeader) -> Finding {
    let label = &acceptor.label;
    let info = acceptor.drive.info();
    let record = header.members.get(usize::from(label.slot.0));
    let fits = |record: &MemberRecord| {
        record.drive == label.drive
            && label.shape == header.shape
            && info.align_bytes <= 4096
            && header.shape.extents(info.capacity_bytes) >= record.extents
    };
    match record {
        Some(record) if fits(record) && record.standing.votes() => Finding::Member(label.slot),
        Some(record) if record.drive == label.drive && record.standing == Standing::Failed => {
            Finding::Failed(label.slot)
        }
        _ => Finding::Mismatch(label.slot),
    }
}

/// Steps 3 and 4.
async fn start(candidate: Candidate, assembly: Assembly, flow: Rc<Flow>, world: World) -> Result<Group, OpenRefused> {
    let Candidate { header, acceptors, session } = candidate;
    let session = session + 1;
    let values = newest_values(&acceptors, &header);
    let (members, session_slots) = make_members(&header, acceptors);
    let mut failed = Vec::new();
    let promise = aligned(&encode_session(header.group, session));
    let promises = members.iter().filter(|member| member.takes_part()).map(|member| {
        let offset = Shape::session_offset_bytes(0, session_slots[usize::from(member.slot.0)]);
        let promise = promise.clone();
        async move {
            let written = member.write(Principal::MetadataWrite, offset, promise).await.map_err(FailReason::of_write);
            let outcome = match written {
                Ok(()) => member.flush().await.map_err(FailReason::of_flush),
                Err(reason) => Err(reason),
            };
            (member.slot, outcome)
        }
    });
    let outcomes = join_all(promises).await;
    if !keep_majority(&header, &members, outcomes, &mut failed) {
        return Err(OpenRefused::Latched(assembly));
    }
    for (register, value) in values.iter().enumerate().filter(|(_, value)| value.version > 0) {
        let stamp = Stamp { session, version: value.version };
        let image = aligned(&encode_slot(header.group, register, &SlotValue { stamp, bytes: value.bytes.clone() }));
        let voters = members.iter().filter(|member| member.takes_part());
        let writes = voters.map(|member| put_slot(member, &header.shape, register, image.clone()));
        let outcomes = join_all(writes).await;
        if !keep_majority(&header, &members, outcomes, &mut failed) {
            return Err(OpenRefused::Latched(assembly));
        }
    }
    Ok(finish(Parts { flow, header, members, values, session, assembly }, failed, world).await)
}

/// Fails members that did not take what was written; false if no majority did.
fn keep_majority(
    header: &GroupHeader,
    members: &[Member],
    outcomes: Vec<(Slot, Result<(), FailReason>)>,
    failed: &mut Vec<(Slot, FailReason)>,
) -> bool {
    let held = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count();
    for (slot, outcome) in outcomes {
        if let Err(reason) = outcome {
            members[usize::from(slot.0)].state.set(DriveState::Missing);
            failed.push((slot, reason));
        }
    }
    held >= header.quorum().1
}

/// The newest value of each register the header names; its own is kept as bytes here.
fn newest_values(acceptors: &[Acceptor], header: &GroupHeader) -> Vec<Versioned> {
    let mut values = vec![Versioned::default(); Shape::REGISTERS];
    for (register, value) in values.iter_mut().enumerate().take(header.registers.len() + 1) {
        let newest = acceptors.iter().filter_map(|acceptor| acceptor.values[register].0.as_ref());
        if let Some(newest) = newest.max_by_key(|value| value.stamp) {
            *value = Versioned { version: newest.stamp.version, bytes: newest.bytes.clone() };
        }
    }
    values
}

fn make_members(header: &GroupHeader, acceptors: Vec<Acceptor>) -> (Vec<Member>, Vec<usize>) {
    let mut by_slot: BTreeMap<u8, Acceptor> =
        acceptors.into_iter().map(|acceptor| (acceptor.label.slot.0, acceptor)).collect();
    let mut session_slots = vec![0; header.members.len()];
    let make = |(slot, record): (u8, &MemberRecord)| {
        let acceptor = by_slot.remove(&slot);
        let member = Member::new(Slot(slot), record.drive, acceptor.as_ref().map(|found| found.drive.clone()));
        match record.standing {
            Standing::Good => {}
            Standing::Failed => member.state.set(DriveState::Failed),
            Standing::Filling if member.lane.is_some() => member.state.set(DriveState::Rebuilding),
            Standing::Filling => {}
        }
        if let Some(found) = acceptor {
            session_slots[usize::from(slot)] = found.session_slot;
            let next = RefCell::new([0; Shape::REGISTERS]);
            for (next, (_, which)) in next.borrow_mut().iter_mut().zip(&found.values) {
                *next = *which;
            }
            member.next_slot.swap(&next);
        }
        member
    };
    let members = (0u8..).zip(&header.members).map(make).collect();
    (members, session_slots)
}

/// The open group, with members that failed on the way put out.
async fn finish(mut parts: Parts, failed: Vec<(Slot, FailReason)>, world: World) -> Group {
    parts.values[0].bytes.clear();
    let group = Group::assembled(parts, world);
    for member in group.inner.all_members() {
        match failed.iter().find(|(slot, _)| *slot == member.slot) {
            Some((slot, reason)) => {
                member.state.set(DriveState::Good);
                debug_assert_eq!(*slot, member.slot);
                group.fail(&member, *reason);
            }
            // It was not whole, so there is nothing to wait for.
            None if member.state.get() == DriveState::Missing && group.is_filling(member.slot) => {
                member.state.set(DriveState::Rebuilding);
                group.fail(&member, FailReason::Gone);
            }
            None if member.state.get() == DriveState::Missing => {
                group.inner.record.event(Event::DriveMissing { slot: member.slot });
            }
            None => {}
        }
    }
    // With stripes unreadable, nothing may be decided that makes the absence final.
    if group.is_overwhelmed() {
        group.latch();
    }
    // A group that latches here still reads; status says so.
    let _ = group.settle_failures().await;
    group.scrub_labels().await;
    group
}

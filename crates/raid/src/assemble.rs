//! Assembly: from drives in any order, some missing, some foreign, some blank, to the
//! right group or a clear refusal (`faults.md` F08, F09, F11, F13; R-RAID-08).
//!
//! 1. Labels are read. Nothing is written before a drive is identified; two drives with
//!    one identity are both left alone.
//! 2. The newest good header on any drive of a group says who its members are. A
//!    majority of the members that vote must be there, on drives that fit their record.
//! 3. Phase 1 of Disk Paxos (`paxos.rs`): a ballot above all that was seen is promised on
//!    the members, durably, and all of them are read again. If the newest header has other
//!    members by now, this is done anew with these. From here on nothing that an earlier
//!    owner left on a minority can win, and an owner that still lives is fenced.
//! 4. Phase 2: header and registers are written under the new ballot: whatever value was
//!    seen is now decided, and the drives agree.
//!
//! Two that open a group at once: one of them is told that it lost, and when to try again is
//! for the caller to say (`OpenRefused::Contended`).

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use base::buf::BufMut;
use base::id::{DriveId, GroupId};
use base::port::{Drive, MediaFault, World};
use futures_util::future::join_all;

use crate::decide::{Versioned, aligned};
use crate::group::{Group, Parts};
use crate::header::{GroupHeader, MemberRecord, Standing};
use crate::label::{Label, LabelState};
use crate::lane::{Flow, Lane};
use crate::layout::{Shape, Slot};
use crate::member::{DriveState, FailReason, Member};
use crate::paxos::{Prepare, Prepared, Round, Seat, Verdict, Vote};
use crate::principal::Principal;
use crate::proposal::{Hand, Promises};
use crate::register::{SlotValue, Stamp, decode_slot, encode_slot, slot_image_bytes};
use crate::status::Event;
use crate::twin::TwinRecord;

/// What was found on a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A member in use.
    Member(Slot),
    /// The twin of a member, being filled to take its slot.
    Successor(Slot),
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
    /// Another controller is opening the group, or owns it: it has this higher ballot. Wait a
    /// while, and another while each time.
    #[error("another controller is taking the group")]
    Contended {
        /// The other one's ballot.
        ballot: u64,
        /// What was found.
        assembly: Assembly,
    },
    /// The group was made before there were two seats, and has no room for the second.
    #[error("the group was made by an older version and has room for one controller only")]
    OneSeat(Assembly),
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
            OpenRefused::OneSeat(assembly)
            | OpenRefused::Contended { assembly, .. }
            | OpenRefused::Ambiguous { assembly, .. }
            | OpenRefused::NoQuorum { assembly, .. } => assembly,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Member(slot) => write!(f, "member in slot {}", slot.0),
            Finding::Successor(slot) => write!(f, "twin of the member in slot {}", slot.0),
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

/// As [`read_at`], tried twice if the drive only errs.
async fn read_twice(drive: &Lane, offset_bytes: u64, len_bytes: usize) -> Result<BufMut, MediaFault> {
    match read_at(drive, offset_bytes, len_bytes).await {
        Err(MediaFault::Io) => read_at(drive, offset_bytes, len_bytes).await,
        read => read,
    }
}

/// Everything a labelled drive holds as an acceptor.
struct Acceptor {
    /// Index in the list given.
    index: usize,
    drive: Lane,
    label: Label,
    /// `None` if they cannot be read.
    promises: Option<Promises>,
    /// Newest good vote for each register, of whatever seat.
    votes: Vec<Option<SlotValue>>,
    /// Every place of a vote could be read. What cannot be may be the newest vote of all.
    all_votes_read: bool,
    /// Which slot of each register the seat writes next.
    next_slot: [u8; Shape::REGISTERS],
}

impl Acceptor {
    /// Reads the promises and the first `registers` registers.
    async fn read(index: usize, drive: Lane, label: Label, seat: Seat, registers: usize) -> Acceptor {
        let blocks = read_twice(&drive, Shape::session_offset_bytes(Seat::First, 0), Shape::PROMISES_BYTES).await;
        let promises = blocks.ok().map(|blocks| Promises::decode(label.group, &blocks));
        let (mut votes, mut next_slot, mut all_votes_read) = (Vec::new(), [0; Shape::REGISTERS], true);
        for (register, next) in next_slot.iter_mut().enumerate().take(registers) {
            let mut newest: Option<SlotValue> = None;
            for of in label.shape.seats() {
                let first = read_slot(&drive, &label, of, register, 0).await;
                let second = read_slot(&drive, &label, of, register, 1).await;
                all_votes_read &= first.is_ok() && second.is_ok();
                // A slot that cannot be read is written next, which mends it.
                let (first, second) = (first.ok().flatten(), second.ok().flatten());
                let stamp = |vote: &Option<SlotValue>| vote.as_ref().map(|vote| vote.stamp);
                let is_first = stamp(&first) > stamp(&second);
                if of == seat {
                    *next = u8::from(is_first);
                }
                let vote = if is_first { first } else { second };
                newest = if stamp(&vote) > stamp(&newest) { vote } else { newest };
            }
            votes.push(newest);
        }
        Acceptor { index, drive, label, promises, votes, all_votes_read, next_slot }
    }

    /// Promises, and reads everything again. A drive that answers and does not give the promise
    /// back cannot be an acceptor; one that errs may have its data, and is not heard this time.
    async fn prepare(&self, hand: Hand, ballot: u64) -> Result<Acceptor, FailReason> {
        let which = self.promises.unwrap_or_default().next_copy(hand.seat);
        hand.put_promise(&self.drive, ballot, which).await?;
        let again = self.read_all(hand.seat).await;
        match again.promises {
            Some(promises) if promises.of(hand.seat) < ballot => Err(FailReason::LostWrite),
            _ => Ok(again),
        }
    }

    /// Whether it says all that an acceptor has to say.
    fn is_heard(&self) -> bool {
        self.promises.is_some() && self.all_votes_read
    }

    async fn read_all(&self, seat: Seat) -> Acceptor {
        Acceptor::read(self.index, self.drive.clone(), self.label.clone(), seat, Shape::REGISTERS).await
    }

    /// The highest ballot that was read from it.
    fn highest(&self) -> u64 {
        let votes = self.votes.iter().flatten().map(|vote| vote.stamp.session);
        votes.fold(self.promises.unwrap_or_default().highest(), u64::max)
    }

    fn votes(&self) -> Vec<Option<Vote<Rc<[u8]>>>> {
        let vote = |vote: &SlotValue| Vote { stamp: vote.stamp, value: Rc::from(&vote.bytes[..]) };
        self.votes.iter().map(|slot| slot.as_ref().map(vote)).collect()
    }
}

/// Reads a slot: its first block, and what that says there is more. What lies behind the value is
/// no part of it, readable or not. `None` if no vote is there: never written, or torn.
async fn read_slot(
    drive: &Lane,
    label: &Label,
    seat: Seat,
    register: usize,
    which: usize,
) -> Result<Option<SlotValue>, MediaFault> {
    let offset = label.shape.register_offset_bytes(seat, register, which);
    let first = read_twice(drive, offset, Shape::BLOCK_BYTES).await?;
    let len_bytes = slot_image_bytes(label.group, register, &first);
    let Some(len_bytes) = len_bytes.filter(|len| *len <= label.shape.slot_bytes(register) as usize) else {
        return Ok(None);
    };
    if len_bytes <= Shape::BLOCK_BYTES {
        return Ok(decode_slot(label.group, register, &first));
    }
    let whole = read_twice(drive, offset, len_bytes).await?;
    Ok(decode_slot(label.group, register, &whole))
}

/// A group that can be assembled from the drives at hand.
struct Candidate {
    header: GroupHeader,
    /// Every drive of the group but twins.
    acceptors: Vec<Acceptor>,
}

impl Group {
    /// Opens the group found on `drives` as the only controller, or the first of two; see
    /// [`Group::open_as`].
    pub async fn open(drives: Vec<Rc<dyn Drive>>, wanted: Option<GroupId>, world: World) -> Result<Group, OpenRefused> {
        Group::open_as(Seat::First, drives, wanted, world).await
    }

    /// Opens the group found on `drives`, given in any order; `wanted` names it when
    /// drives of several may be mixed. Needs a majority of the voting members. Writes
    /// only to members in good standing. Whoever had the group open before is fenced.
    pub async fn open_as(
        seat: Seat,
        drives: Vec<Rc<dyn Drive>>,
        wanted: Option<GroupId>,
        world: World,
    ) -> Result<Group, OpenRefused> {
        let flow = Flow::new(&world);
        let (candidate, mut assembly) = survey(flow.lanes(drives), wanted, seat).await?;
        if candidate.header.shape.seats().all(|room| room != seat) {
            return Err(OpenRefused::OneSeat(assembly));
        }
        let taken = take(candidate, &mut assembly, seat).await?;
        carry_on(taken, assembly, flow, world).await
    }

    /// The newest value that a member holds for register `name`, without opening the group.
    pub(crate) async fn look_at(
        name: &str,
        drives: Vec<Rc<dyn Drive>>,
        wanted: Option<GroupId>,
        world: World,
    ) -> Result<Option<Vec<u8>>, OpenRefused> {
        let (candidate, mut assembly) = survey(Flow::new(&world).lanes(drives), wanted, Seat::First).await?;
        let Candidate { header, acceptors } = candidate;
        let Some(index) = header.registers.iter().position(|known| known == name) else { return Ok(None) };
        let members = members_of(&header, &acceptors, &mut assembly);
        let read = join_all(members.iter().map(|acceptor| acceptor.read_all(Seat::First))).await;
        let votes = read.into_iter().filter_map(|acceptor| acceptor.votes.into_iter().nth(index + 1)?);
        Ok(votes.max_by_key(|vote| vote.stamp).map(|vote| vote.bytes))
    }
}

/// Steps 1 and 2.
async fn survey(drives: Vec<Lane>, wanted: Option<GroupId>, seat: Seat) -> Result<(Candidate, Assembly), OpenRefused> {
    let mut assembly = Assembly { drives: Vec::new() };
    let mut groups: BTreeMap<GroupId, Vec<Acceptor>> = BTreeMap::new();
    let labels = join_all(drives.iter().map(read_label)).await;
    let mut reads = Vec::new();
    for (index, (drive, label)) in drives.iter().zip(labels).enumerate() {
        let (finding, label) = first_finding(label);
        assembly.drives.push((drive.info().serial, finding));
        let label = label.filter(|label| wanted.is_none_or(|wanted| wanted == label.group));
        reads.extend(label.map(|label| Acceptor::read(index, drive.clone(), label, seat, 1)));
    }
    for acceptor in join_all(reads).await {
        groups.entry(acceptor.label.group).or_default().push(acceptor);
    }
    choose_group(groups, assembly)
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
    let votes = acceptors.iter().filter_map(|acceptor| acceptor.votes[0].as_ref());
    let newest = votes.max_by_key(|vote| vote.stamp);
    let header = newest.and_then(|value| GroupHeader::decode(&value.bytes));
    let Some(header) = header else { return Err(OpenRefused::NoHeader(assembly)) };
    let present = members_of(&header, &acceptors, &mut assembly).len();
    let (votes, needed) = header.quorum();
    if present < needed {
        return Err(OpenRefused::NoQuorum { present, votes, needed, assembly });
    }
    Ok((Candidate { header, acceptors }, assembly))
}

/// The drives that vote under `header`; what each drive is, is noted in `assembly`.
fn members_of<'a>(header: &GroupHeader, acceptors: &'a [Acceptor], assembly: &mut Assembly) -> Vec<&'a Acceptor> {
    let identified = acceptors.iter().filter(|acceptor| {
        let finding = identify(acceptor, header);
        let slot = usize::from(acceptor.label.slot.0);
        let votes = matches!(finding, Finding::Member(_)) && header.members[slot].standing.votes();
        assembly.drives[acceptor.index].1 = finding;
        votes
    });
    identified.collect()
}

/// Whether the header confirms what the label says, and the drive still fits.
fn identify(acceptor: &Acceptor, header: &GroupHeader) -> Finding {
    identify_drive(&acceptor.label, &acceptor.drive, header)
}

fn identify_drive(label: &Label, drive: &Lane, header: &GroupHeader) -> Finding {
    let info = drive.info();
    let record = header.members.get(usize::from(label.slot.0));
    let fits = |record: &MemberRecord| {
        record.drive == label.drive
            && label.shape == header.shape
            && info.align_bytes <= 4096
            && header.shape.extents(info.capacity_bytes) >= record.extents
    };
    match record {
        Some(record) if fits(record) && record.standing != Standing::Failed => Finding::Member(label.slot),
        Some(record) if record.drive == label.drive && record.standing == Standing::Failed => {
            Finding::Failed(label.slot)
        }
        _ => Finding::Mismatch(label.slot),
    }
}

/// A group whose ballot is this controller's.
struct Taken {
    header: GroupHeader,
    hand: Hand,
    ballot: u64,
    /// Members as they were read after they had promised.
    acceptors: Vec<Acceptor>,
    /// Newest votes by register.
    votes: Vec<Option<Vote<Rc<[u8]>>>>,
    failed: Vec<(Slot, FailReason)>,
    /// Drives of the group without a vote.
    others: Vec<Other>,
}

/// A drive of the group without a vote: one that is leaving, a twin, or nobody.
struct Other {
    index: usize,
    label: Label,
    drive: Lane,
}

/// Times that members may change under the eyes of who opens a group.
const CHANGES_MAX: usize = 4;

/// Step 3.
async fn take(candidate: Candidate, assembly: &mut Assembly, seat: Seat) -> Result<Taken, OpenRefused> {
    let Candidate { mut header, acceptors } = candidate;
    let hand = Hand { group: header.group, shape: header.shape, seat };
    let mut ballot = seat.ballot_above(acceptors.iter().map(Acceptor::highest).max().unwrap_or(0));
    for _ in 0..CHANGES_MAX {
        let mut prepare = Prepare::new(ballot, header.acceptors());
        let (mut promised, mut failed) = (Vec::new(), Vec::new());
        let members = members_of(&header, &acceptors, assembly);
        let outcomes = join_all(members.iter().map(|acceptor| acceptor.prepare(hand, ballot))).await;
        for (before, outcome) in members.into_iter().zip(outcomes) {
            match outcome {
                Ok(acceptor) => {
                    if acceptor.is_heard() {
                        prepare.heard(acceptor.label.drive, acceptor.highest(), acceptor.votes());
                    }
                    promised.push(acceptor);
                }
                Err(reason) => failed.push((before.label.slot, reason)),
            }
        }
        let newest = match prepare.outcome(|bytes| GroupHeader::decode(bytes).map(|header| header.acceptors())) {
            Prepared::Ready(votes) => {
                let decoded = votes.first().and_then(Option::as_ref).and_then(|vote| GroupHeader::decode(&vote.value));
                let Some(header) = decoded else { return Err(OpenRefused::NoHeader(assembly.clone())) };
                let others = without_vote(&acceptors, &header);
                return Ok(Taken { header, hand, ballot, acceptors: promised, votes, failed, others });
            }
            Prepared::Again(newest) => GroupHeader::decode(&newest.value),
            // A vote whose promise is damaged: that is nobody to wait for.
            Prepared::Lost { to }
                if promised
                    .iter()
                    .all(|acceptor| acceptor.promises.is_none_or(|promises| promises.highest() <= ballot)) =>
            {
                ballot = seat.ballot_above(to);
                continue;
            }
            Prepared::Lost { to } => {
                return Err(OpenRefused::Contended { ballot: to, assembly: assembly.clone() });
            }
            Prepared::Open => return Err(OpenRefused::Latched(assembly.clone())),
        };
        header = newest.ok_or_else(|| OpenRefused::NoHeader(assembly.clone()))?;
    }
    Err(OpenRefused::Latched(assembly.clone()))
}

fn without_vote(acceptors: &[Acceptor], header: &GroupHeader) -> Vec<Other> {
    let voters = header.acceptors();
    let others = acceptors.iter().filter(|acceptor| !voters.contains(&acceptor.label.drive));
    let other = |found: &Acceptor| Other { index: found.index, label: found.label.clone(), drive: found.drive.clone() };
    others.map(other).collect()
}

/// Step 4.
async fn carry_on(taken: Taken, mut assembly: Assembly, flow: Rc<Flow>, world: World) -> Result<Group, OpenRefused> {
    let Taken { header, hand, ballot, acceptors, votes, mut failed, others } = taken;
    let values = values_of(&votes, &header);
    let not_heard: Vec<DriveId> =
        acceptors.iter().filter(|acceptor| !acceptor.is_heard()).map(|acceptor| acceptor.label.drive).collect();
    let members = make_members(&header, acceptors);
    for (register, value) in values.iter().enumerate().filter(|(_, value)| value.version > 0) {
        let stamp = Stamp { session: ballot, version: value.version };
        let image = aligned(&encode_slot(header.group, register, &SlotValue { stamp, bytes: value.bytes.clone() }));
        let mut round = Round::new(ballot, header.acceptors());
        // What could not be read may be the newest vote of all: it is written over when the others have it.
        let voters = members.iter().filter(|member| member.takes_part());
        let (last, first): (Vec<&Member>, Vec<&Member>) = voters.partition(|member| not_heard.contains(&member.id));
        let put = async |member: &&Member| hand.put_vote(member, register, image.clone()).await;
        let mut outcomes = join_all(first.iter().map(put)).await;
        outcomes.extend(join_all(last.iter().map(put)).await);
        for (member, outcome) in first.into_iter().chain(last).zip(outcomes) {
            match outcome {
                Ok(Some(promised)) => {
                    round.heard(member.id, promised);
                }
                Ok(None) => {}
                Err(reason) => {
                    member.state.set(DriveState::Missing);
                    failed.push((member.slot, reason));
                }
            }
        }
        match round.verdict() {
            Verdict::Won => {}
            Verdict::Lost { to } => return Err(OpenRefused::Contended { ballot: to, assembly }),
            Verdict::Open => return Err(OpenRefused::Latched(assembly)),
        }
    }
    let record = TwinRecord::of(&header, &values);
    let twin = record.and_then(|record| {
        let fits = |other: &&Other| (other.label.drive, other.label.slot) == (record.drive, record.slot);
        others.iter().find(fits).filter(|other| other.label.shape == header.shape)
    });
    if let Some(twin) = twin {
        assembly.drives[twin.index].1 = Finding::Successor(twin.label.slot);
    }
    let twin = twin.map(|other| other.drive.clone());
    let members = with_leaving(members, &header, &others);
    let parts = Parts { flow, header, members, values, seat: hand.seat, session: ballot, assembly };
    Ok(finish(parts, failed, (record, twin), world).await)
}

/// The newest value of each register the header names; its own is kept as bytes here.
fn values_of(votes: &[Option<Vote<Rc<[u8]>>>], header: &GroupHeader) -> Vec<Versioned> {
    let mut values = vec![Versioned::default(); Shape::REGISTERS];
    for (value, vote) in values.iter_mut().zip(votes).take(header.registers.len() + 1) {
        if let Some(vote) = vote {
            *value = Versioned { version: vote.stamp.version, bytes: vote.value.to_vec() };
        }
    }
    values
}

fn make_members(header: &GroupHeader, acceptors: Vec<Acceptor>) -> Vec<Member> {
    let mut by_slot: BTreeMap<u8, Acceptor> =
        acceptors.into_iter().map(|acceptor| (acceptor.label.slot.0, acceptor)).collect();
    let make = |(slot, record): (u8, &MemberRecord)| {
        let acceptor = by_slot.remove(&slot);
        let member = Member::new(Slot(slot), record.drive, acceptor.as_ref().map(|found| found.drive.clone()));
        match record.standing {
            Standing::Good | Standing::Leaving => {}
            Standing::Failed => member.state.set(DriveState::Failed),
            Standing::Filling if member.lane.is_some() => member.state.set(DriveState::Rebuilding),
            Standing::Filling => {}
        }
        if let Some(found) = acceptor {
            member.next_slot.replace(found.next_slot);
        }
        member
    };
    (0u8..).zip(&header.members).map(make).collect()
}

/// Members that are leaving have no vote, but are there as before.
fn with_leaving(members: Vec<Member>, header: &GroupHeader, others: &[Other]) -> Vec<Member> {
    let bring = |member: Member| {
        let slot = usize::from(member.slot.0);
        let is_it = |other: &&Other| other.label.drive == member.id && usize::from(other.label.slot.0) == slot;
        let found = others.iter().find(is_it).filter(|_| header.members[slot].standing == Standing::Leaving);
        match found.filter(|other| identify_drive(&other.label, &other.drive, header) == Finding::Member(member.slot)) {
            Some(other) => Member::new(member.slot, member.id, Some(other.drive.clone())),
            None => member,
        }
    };
    members.into_iter().map(bring).collect()
}

/// The open group, with members that failed on the way put out.
async fn finish(
    mut parts: Parts,
    failed: Vec<(Slot, FailReason)>,
    (record, twin): (Option<TwinRecord>, Option<Lane>),
    world: World,
) -> Group {
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
    let _ = group.resume_twin(record, twin).await;
    group.scrub_labels().await;
    group
}

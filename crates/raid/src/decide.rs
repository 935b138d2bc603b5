//! Deciding: versions of the group header and of the named blobs.
//!
//! Each is one round of Disk Paxos with the ballot that this owner prepared when it opened
//! the group (`paxos.rs`; R-RAID-07, -10): a value is decided when a majority of the voting
//! members holds it durably and none of these had a promise to anybody newer. Members come and
//! leave one at a time, and a change of members needs a majority of the *new* members.
//! A round without a majority has an unknown outcome: the group latches, nothing more
//! is decided until it is opened again (`examples.md` 9.4). A round that meets a newer owner
//! fences the group: it latches for good, and says who.
//!
//! What a decision costs, with nobody else about: one write and one flush on each drive, as
//! before there were two controllers, and a read of the promises during the flush.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use base::buf::{Buf, BufMut};
use base::id::DriveId;
use base::port::LocalFuture;
use futures_util::future::join_all;
use tokio::sync::Mutex;

use crate::group::Group;
use crate::header::{GroupHeader, REGISTER_NAME_BYTES_MAX, Standing};
use crate::label::Label;
use crate::layout::{Shape, Slot};
use crate::member::{DriveState, FailReason, Member};
use crate::paxos::{Round, Verdict};
use crate::principal::Principal;
use crate::register::{SLOT_HEADER_BYTES, SlotValue, Stamp, encode_slot};
use crate::status::Event;
use crate::twin::TwinEnd;

/// A register's value and version. Version 0 with no bytes: never set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versioned {
    /// Raised by one at each change.
    pub version: u64,
    /// The value.
    pub bytes: Vec<u8>,
}

/// Why a compare-and-set did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CasRefused {
    /// The register has another version than the caller expected.
    #[error("register is at version {current}")]
    Version {
        /// Its version.
        current: u64,
    },
    /// No majority took the value: it may or may not be decided. Nothing can be decided
    /// until the group is opened again.
    #[error("no majority of the drives takes changes")]
    Latched,
    /// Another controller owns the group now; nothing can be decided here any more.
    #[error("another controller has taken the group")]
    Fenced,
    /// The value or the name is longer than a register allows, or all names are taken.
    #[error("name or value does not fit a register")]
    TooLarge,
}

/// No majority takes changes; see [`CasRefused::Latched`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no majority of the drives takes changes")]
pub(crate) struct Latched;

impl From<Latched> for CasRefused {
    fn from(_: Latched) -> CasRefused {
        CasRefused::Latched
    }
}

/// Small named blobs with compare-and-set (R-RAID-09, -10, -11): what a root needs.
pub trait Registers {
    /// The value of `name`.
    fn get<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Versioned>;
    /// Sets `name` to `bytes` if its version is `expected` (0: never set); returns the
    /// new version once it is durable.
    fn set<'a>(&'a self, name: &'a str, expected: u64, bytes: &'a [u8]) -> LocalFuture<'a, Result<u64, CasRefused>>;
}

/// The decided values and the right to change them.
pub(crate) struct Decided {
    /// Held while anything is being decided.
    pub gate: Mutex<()>,
    /// By register index; entry 0 is only a version, the header is kept decoded.
    pub values: RefCell<Vec<Versioned>>,
}

impl Group {
    /// Largest value of a register, in bytes.
    pub const REGISTER_BYTES_MAX: usize = Shape::BLOB_SLOT_BYTES as usize - SLOT_HEADER_BYTES;

    /// The decided value of register `name`. From memory: the owner of the group is the
    /// only one that changes it.
    pub async fn register_read(&self, name: &str) -> Versioned {
        let index = self.register_index(name);
        let values = self.inner.decided.values.borrow();
        index.and_then(|index| values.get(index).cloned()).unwrap_or_default()
    }

    pub(crate) fn register_index(&self, name: &str) -> Option<usize> {
        let header = self.inner.header.borrow();
        header.registers.iter().position(|known| known == name).map(|index| index + 1)
    }

    /// Sets register `name` to `bytes` if its version is `expected` (0: never set).
    /// Returns the new version once a majority holds it durably. Everything written and
    /// flushed before is older on the media than this.
    pub async fn register_cas(&self, name: &str, expected: u64, bytes: &[u8]) -> Result<u64, CasRefused> {
        if bytes.len() > Self::REGISTER_BYTES_MAX || name.len() > REGISTER_NAME_BYTES_MAX {
            return Err(CasRefused::TooLarge);
        }
        let index = match self.register_index(name) {
            Some(index) => index,
            None if expected != 0 => return Err(CasRefused::Version { current: 0 }),
            None => self.add_register(name).await.map_err(|refused| self.or_fenced(refused))?,
        };
        let version = self.cas_index(index, expected, bytes).await.map_err(|refused| self.or_fenced(refused));
        // The value stands, whether or not the drives that failed on the way can be
        // put out of the group: that is tried again by whoever depends on it.
        let _ = self.settle_failures().await;
        version
    }

    pub(crate) async fn cas_index(&self, index: usize, expected: u64, bytes: &[u8]) -> Result<u64, CasRefused> {
        let _gate = self.inner.decided.gate.lock().await;
        let current = self.inner.decided.values.borrow()[index].version;
        if current != expected {
            return Err(CasRefused::Version { current });
        }
        let version = current + 1;
        let acceptors = self.inner.header.borrow().acceptors();
        self.write_register(index, version, bytes, (&self.voters(), acceptors)).await?;
        self.inner.decided.values.borrow_mut()[index] = Versioned { version, bytes: bytes.to_vec() };
        Ok(version)
    }

    async fn add_register(&self, name: &str) -> Result<usize, CasRefused> {
        let added = self.change_header(|header| {
            let known = header.registers.iter().any(|known| known == name);
            if known || header.registers.len() + 1 >= Shape::REGISTERS {
                return None;
            }
            header.registers.push(name.to_owned());
            Some(())
        });
        added.await?;
        self.register_index(name).ok_or(CasRefused::TooLarge)
    }

    /// Changes the group header: `change` works on a copy, which becomes the header once
    /// a majority of its members holds it. `None` from `change` leaves it as it is.
    pub(crate) async fn change_header<T>(
        &self,
        change: impl FnOnce(&mut GroupHeader) -> Option<T>,
    ) -> Result<Option<T>, Latched> {
        let _gate = self.inner.decided.gate.lock().await;
        let mut next = self.inner.header.borrow().clone();
        let Some(result) = change(&mut next) else { return Ok(None) };
        let version = self.inner.decided.values.borrow()[0].version + 1;
        self.write_register(0, version, &next.encode(), (&self.voters(), next.acceptors())).await?;
        self.adopt(next, version);
        Ok(Some(result))
    }

    /// The decided header is `next` from now on.
    pub(crate) fn adopt(&self, next: GroupHeader, version: u64) {
        self.inner.decided.values.borrow_mut()[0].version = version;
        self.inner.header.replace(next);
        self.inner.space.set(None);
    }

    /// Members that vote and take part.
    pub(crate) fn voters(&self) -> Vec<Rc<Member>> {
        self.inner.members.borrow().iter().filter(|member| member.takes_part()).cloned().collect()
    }

    /// Writes a value to `voters`; latches unless a majority of `acceptors` takes it. A
    /// member that cannot take it is failed.
    pub(crate) async fn write_register(
        &self,
        index: usize,
        version: u64,
        bytes: &[u8],
        (voters, acceptors): (&[Rc<Member>], BTreeSet<DriveId>),
    ) -> Result<(), Latched> {
        let inner = &self.inner;
        if inner.latched.get() {
            return Err(Latched);
        }
        let stamp = Stamp { session: inner.session, version };
        let image = aligned(&encode_slot(inner.group, index, &SlotValue { stamp, bytes: bytes.to_vec() }));
        let hand = inner.hand();
        let writes = voters.iter().map(|member| hand.put_vote(member, index, image.clone()));
        let mut round = Round::new(inner.session, acceptors);
        for (member, outcome) in voters.iter().zip(join_all(writes).await) {
            match outcome {
                Ok(Some(promised)) => {
                    round.heard(member.id, promised);
                }
                Ok(None) => {}
                Err(reason) => self.fail(member, reason),
            }
        }
        inner.record.count(|counters| counters.registers_written += 1);
        self.stand(round.verdict())
    }

    /// What follows from how a round stands when everyone has answered.
    fn stand(&self, verdict: Verdict) -> Result<(), Latched> {
        match verdict {
            Verdict::Won => return Ok(()),
            Verdict::Lost { to } => self.fence(to),
            Verdict::Open => self.latch(),
        }
        Err(Latched)
    }

    /// Whether this controller still owns the group: reads the promises on every drive. An
    /// answer is out of date when it is given; only a decision proves more.
    pub async fn is_owner(&self) -> bool {
        let _gate = self.inner.decided.gate.lock().await;
        self.asks_promises().await.is_ok()
    }

    async fn asks_promises(&self) -> Result<(), Latched> {
        if self.inner.latched.get() {
            return Err(Latched);
        }
        let (voters, hand) = (self.voters(), self.inner.hand());
        let promised = join_all(voters.iter().map(|member| hand.promised(member))).await;
        let mut round = Round::new(self.inner.session, self.inner.header.borrow().acceptors());
        for (member, promised) in voters.iter().zip(promised) {
            promised.map(|promised| round.heard(member.id, promised));
        }
        match round.verdict() {
            Verdict::Won => Ok(()),
            Verdict::Lost { .. } => self.stand(round.verdict()),
            // Nothing was written, so nothing is open.
            Verdict::Open => Err(Latched),
        }
    }

    /// The ballot of the controller that took the group from this one.
    pub fn fenced_by(&self) -> Option<u64> {
        self.inner.fenced.get()
    }

    fn or_fenced(&self, refused: CasRefused) -> CasRefused {
        if refused == CasRefused::Latched && self.fenced_by().is_some() { CasRefused::Fenced } else { refused }
    }

    /// Ends deciding: another controller has ballot `by`.
    fn fence(&self, by: u64) {
        if self.inner.fenced.replace(Some(by)).is_none() {
            self.inner.latched.set(true);
            self.inner.space.set(None);
            self.inner.record.event(Event::Fenced { by });
        }
    }

    /// Ends deciding until the group is opened again.
    pub(crate) fn latch(&self) {
        if !self.inner.latched.replace(true) {
            self.inner.space.set(None);
            self.inner.record.event(Event::Latched);
        }
    }

    /// Declares a drive failed: not used from now on; the header follows.
    ///
    /// When so many are absent that stripes are unreadable, the group latches instead and
    /// nobody more is put out: an enclosure that comes back finds everything as it was
    /// (`faults.md` F11, F14).
    pub(crate) fn fail(&self, member: &Member, reason: FailReason) {
        let slot = member.slot;
        if !member.takes_part() {
            return;
        }
        if self.is_twin(member) {
            self.drop_twin(TwinEnd::Failed(reason));
            return self.settle_later();
        }
        // Only a drive that went away keeps what it held; one half filled had too little.
        if reason != FailReason::Gone || member.state.get() == DriveState::Rebuilding {
            member.whole_below.set(0);
        }
        member.state.set(DriveState::Failed);
        member.fail_reason.set(Some(reason));
        member.lane.iter().for_each(|lane| lane.retire());
        self.inner.space.set(None);
        self.inner.record.event(Event::DriveFailed { slot, reason });
        if self.is_overwhelmed() {
            self.latch();
        }
        self.settle_later();
    }

    fn settle_later(&self) {
        let group = self.clone();
        let settle = async move {
            // A latch has its own event.
            let _ = group.settle_failures().await;
        };
        self.inner.world.spawn.spawn("raid settle failures", Box::pin(settle));
    }

    /// Puts failed members out of the group by decided headers, one at a time, and takes away
    /// the record of a twin that failed. When it returns `Ok`, no drive that failed before the
    /// call can ever be believed again.
    pub(crate) async fn settle_failures(&self) -> Result<(), Latched> {
        while let Some(slot) = self.unsettled() {
            if self.inner.latched.get() {
                return Err(Latched);
            }
            let whole_below = self.inner.member(slot).whole_below.get();
            let change = |header: &mut GroupHeader| {
                let record = &mut header.members[usize::from(slot.0)];
                (record.standing != Standing::Failed).then(|| {
                    record.standing = Standing::Failed;
                    record.whole_below = whole_below;
                    header.membership += 1;
                })
            };
            self.change_header(change).await?;
        }
        self.settle_twin().await
    }

    fn unsettled(&self) -> Option<Slot> {
        let header = self.inner.header.borrow();
        let members = self.inner.members.borrow();
        let mut failed = members.iter().filter(|member| member.state.get() == DriveState::Failed);
        let is_in = |member: &&Rc<Member>| header.members[usize::from(member.slot.0)].standing != Standing::Failed;
        failed.find(is_in).map(|member| member.slot)
    }
}

impl Group {
    /// Reads back the newest slot of every register and both labels of every good
    /// member, and writes again what is damaged (F01 for the structures outside
    /// stripes). Returns how many were repaired.
    pub async fn scrub_registers(&self) -> u32 {
        let inner = &self.inner;
        let _gate = inner.decided.gate.lock().await;
        // Who no longer owns the group repairs nothing in it.
        if self.asks_promises().await.is_err() {
            return 0;
        }
        let mut repaired = self.scrub_labels().await + self.scrub_promises().await;
        for index in 0..Shape::REGISTERS {
            let Some(image) = self.decided_image(index) else { continue };
            let voters = self.voters();
            let checks = voters.iter().map(|member| {
                let image = image.clone();
                async move {
                    let which = usize::from(1 - member.next_slot.borrow()[index]);
                    let offset = inner.shape.register_offset_bytes(inner.seat, index, which);
                    let read = member.read(Principal::MetadataRead, offset, BufMut::zeroed(image.len())).await;
                    if read.is_ok_and(|bytes| bytes[..] == image[..]) {
                        return None;
                    }
                    Some((member, inner.hand().put_vote(member, index, image).await))
                }
            });
            for (member, outcome) in join_all(checks).await.into_iter().flatten() {
                match outcome {
                    Ok(_) => repaired += 1,
                    Err(reason) => self.fail(member, reason),
                }
            }
        }
        inner.record.count(|counters| counters.registers_repaired += u64::from(repaired));
        repaired
    }

    /// The slot image of what was decided last; `None` for a register that was never set.
    pub(crate) fn decided_image(&self, index: usize) -> Option<Buf> {
        let mut value = self.inner.decided.values.borrow()[index].clone();
        if value.version == 0 {
            return None;
        }
        if index == 0 {
            value.bytes = self.inner.header.borrow().encode();
        }
        let stamp = Stamp { session: self.inner.session, version: value.version };
        Some(aligned(&encode_slot(self.inner.group, index, &SlotValue { stamp, bytes: value.bytes })))
    }

    /// Writes the promise again where neither copy on a good member holds it.
    async fn scrub_promises(&self) -> u32 {
        let (session, hand) = (self.inner.session, self.inner.hand());
        let mut repaired = 0;
        for member in self.voters() {
            let is_there = hand.promised(&member).await.is_some_and(|promised| promised >= session);
            if let (false, Some(lane)) = (is_there, member.usable_lane()) {
                repaired += u32::from(hand.put_promise(&lane, session, 0).await.is_ok());
            }
        }
        repaired
    }

    /// Writes a label again where a copy on a good member is not what it should be.
    pub(crate) async fn scrub_labels(&self) -> u32 {
        let mut repaired = 0;
        for member in self.voters() {
            let label = aligned(&self.label_of(&member).encode());
            for offset in [0, Shape::LABEL_B_BYTES] {
                let read = member.read(Principal::MetadataRead, offset, BufMut::zeroed(label.len())).await;
                if !read.is_ok_and(|bytes| bytes[..] == label[..])
                    && member.write(Principal::MetadataWrite, offset, label.clone()).await.is_ok()
                {
                    repaired += 1;
                }
            }
        }
        repaired
    }

    fn label_of(&self, member: &Member) -> Label {
        let header = self.inner.header.borrow();
        Label {
            group: header.group,
            drive: member.id,
            slot: member.slot,
            shape: header.shape,
            extents: header.members[usize::from(member.slot.0)].extents,
            name: header.name.clone(),
        }
    }
}

impl Registers for Group {
    fn get<'a>(&'a self, name: &'a str) -> LocalFuture<'a, Versioned> {
        Box::pin(self.register_read(name))
    }
    fn set<'a>(&'a self, name: &'a str, expected: u64, bytes: &'a [u8]) -> LocalFuture<'a, Result<u64, CasRefused>> {
        Box::pin(self.register_cas(name, expected, bytes))
    }
}

/// The bytes in aligned memory.
pub(crate) fn aligned(bytes: &[u8]) -> Buf {
    let mut buf = BufMut::zeroed(bytes.len());
    buf.copy_from_slice(bytes);
    buf.freeze()
}

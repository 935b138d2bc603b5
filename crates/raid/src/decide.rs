//! Deciding: versions of the group header and of the named blobs.
//!
//! A value is decided when a majority of the voting members holds it durably. Members
//! leave one at a time, each by a decided header, and a change of members needs a
//! majority of the *new* members; any two such majorities share a drive, so a group
//! that was changed without some drives is never assembled from just these drives.
//! A write without a majority has an unknown outcome: the group latches, nothing more
//! is decided until it is opened again (`examples.md` 9.4).
//!
//! One owner at a time is assumed here; the two proposers of the session blocks and
//! [`Registers`] are where Disk Paxos for two controllers fits in (R-RAID-07, -10).

use std::cell::RefCell;
use std::rc::Rc;

use base::buf::{Buf, BufMut};
use base::port::LocalFuture;
use futures_util::future::join_all;
use tokio::sync::Mutex;

use crate::group::Group;
use crate::header::{GroupHeader, REGISTER_NAME_BYTES_MAX, Standing};
use crate::label::Label;
use crate::layout::{Shape, Slot};
use crate::member::{DriveState, FailReason, Member};
use crate::principal::Principal;
use crate::register::{SLOT_HEADER_BYTES, SlotValue, Stamp, encode_slot};
use crate::status::Event;

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

    fn register_index(&self, name: &str) -> Option<usize> {
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
            None => self.add_register(name).await?,
        };
        let version = self.cas_index(index, expected, bytes).await;
        // The value stands, whether or not the drives that failed on the way can be
        // put out of the group: that is tried again by whoever depends on it.
        let _ = self.settle_failures().await;
        version
    }

    async fn cas_index(&self, index: usize, expected: u64, bytes: &[u8]) -> Result<u64, CasRefused> {
        let _gate = self.inner.decided.gate.lock().await;
        let current = self.inner.decided.values.borrow()[index].version;
        if current != expected {
            return Err(CasRefused::Version { current });
        }
        let version = current + 1;
        let majority = self.inner.header.borrow().quorum().1;
        self.write_register(index, version, bytes, (&self.voters(), majority)).await?;
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
        self.write_register(0, version, &next.encode(), (&self.voters(), next.quorum().1)).await?;
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

    /// Writes a value to `voters`; latches unless `majority` of them hold it durably. A
    /// member that cannot take it is failed.
    pub(crate) async fn write_register(
        &self,
        index: usize,
        version: u64,
        bytes: &[u8],
        (voters, majority): (&[Rc<Member>], usize),
    ) -> Result<(), Latched> {
        let inner = &self.inner;
        if inner.latched.get() {
            return Err(Latched);
        }
        let stamp = Stamp { session: inner.session, version };
        let image = encode_slot(inner.group, index, &SlotValue { stamp, bytes: bytes.to_vec() });
        let image = aligned(&image);
        let writes = voters.iter().map(|member| put_slot(member, &inner.shape, index, image.clone()));
        let mut held = 0;
        for (member, (_, outcome)) in voters.iter().zip(join_all(writes).await) {
            match outcome {
                Ok(()) => held += 1,
                Err(reason) => self.fail(member, reason),
            }
        }
        inner.record.count(|counters| counters.registers_written += 1);
        if held < majority {
            self.latch();
            return Err(Latched);
        }
        Ok(())
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
        let group = self.clone();
        let settle = async move {
            // A latch has its own event.
            let _ = group.settle_failures().await;
        };
        self.inner.world.spawn.spawn("raid settle failures", Box::pin(settle));
    }

    /// Puts failed members out of the group by decided headers, one at a time. When it
    /// returns `Ok`, no drive that failed before the call can ever be believed again.
    pub(crate) async fn settle_failures(&self) -> Result<(), Latched> {
        while let Some(slot) = self.unsettled() {
            if self.inner.latched.get() {
                return Err(Latched);
            }
            let whole_below = self.inner.member(slot).whole_below.get();
            let change = |header: &mut GroupHeader| {
                let record = &mut header.members[usize::from(slot.0)];
                record.standing.votes().then(|| {
                    record.standing = Standing::Failed;
                    record.whole_below = whole_below;
                    header.membership += 1;
                })
            };
            self.change_header(change).await?;
        }
        Ok(())
    }

    fn unsettled(&self) -> Option<Slot> {
        let header = self.inner.header.borrow();
        let members = self.inner.members.borrow();
        let mut failed = members.iter().filter(|member| member.state.get() == DriveState::Failed);
        failed.find(|member| header.members[usize::from(member.slot.0)].standing.votes()).map(|member| member.slot)
    }
}

impl Group {
    /// Reads back the newest slot of every register and both labels of every good
    /// member, and writes again what is damaged (F01 for the structures outside
    /// stripes). Returns how many were repaired.
    pub async fn scrub_registers(&self) -> u32 {
        let mut repaired = self.scrub_labels().await;
        let inner = &self.inner;
        let _gate = inner.decided.gate.lock().await;
        for index in 0..Shape::REGISTERS {
            let Some(image) = self.decided_image(index) else { continue };
            let voters = self.voters();
            let checks = voters.iter().map(|member| {
                let image = image.clone();
                async move {
                    let which = usize::from(1 - member.next_slot.borrow()[index]);
                    let offset = inner.shape.register_offset_bytes(index, which);
                    let read = member.read(Principal::MetadataRead, offset, BufMut::zeroed(image.len())).await;
                    if read.is_ok_and(|bytes| bytes[..] == image[..]) {
                        return None;
                    }
                    Some((member, put_slot(member, &inner.shape, index, image).await.1))
                }
            });
            for (member, outcome) in join_all(checks).await.into_iter().flatten() {
                match outcome {
                    Ok(()) => repaired += 1,
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

/// Writes a slot image to one member and flushes it. The slot that holds the value
/// before stays untouched until this one is durable.
pub(crate) async fn put_slot(
    member: &Member,
    shape: &Shape,
    index: usize,
    image: Buf,
) -> (Slot, Result<(), FailReason>) {
    let which = member.next_slot.borrow()[index];
    let offset = shape.register_offset_bytes(index, usize::from(which));
    if let Err(fault) = member.write(Principal::MetadataWrite, offset, image).await {
        return (member.slot, Err(FailReason::of_write(fault)));
    }
    if let Err(fault) = member.flush().await {
        return (member.slot, Err(FailReason::of_flush(fault)));
    }
    member.next_slot.borrow_mut()[index] = 1 - which;
    (member.slot, Ok(()))
}

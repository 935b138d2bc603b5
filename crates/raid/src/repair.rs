//! Whole stripes: reading every unit with all its checks, rebuilding what is damaged,
//! writing it back.
//!
//! The units of a stripe that agree on generation and digest are one *version* of it.
//! A version with at least d units is rebuilt from exactly these; the digest, which
//! covers every unit's payload check, proves the rebuilt ones. So a stale or foreign
//! unit never takes part in a rebuild, however valid it looks by itself, and parity is
//! never computed from an unverified unit.

use std::collections::BTreeSet;
use std::rc::Rc;

use base::buf::{Buf, BufMut};
use base::port::MediaFault;
use futures_util::future::join_all;

use crate::group::{Group, StripeGuard};
use crate::layout::{Segment, Slot, StripeId, UNIT_HEADER_BYTES};
use crate::member::{FailReason, Strike};
use crate::read::Unreadable;
use crate::status::Event;
use crate::unit::{Damage, UnitHeader, Wanted, headed_for, payload_check, stripe_digest};
use crate::write::Sums;

/// A unit that passed its own checks.
pub(crate) struct Whole {
    header: UnitHeader,
    bytes: Buf,
}

impl Whole {
    /// The unit with its header.
    pub fn bytes(&self) -> &Buf {
        &self.bytes
    }
}

/// All units of a stripe as read, by role.
pub(crate) struct Collected {
    segment: Rc<Segment>,
    id: StripeId,
    units: Vec<Result<Whole, Damage>>,
}

/// A stripe all of whose units are known.
pub(crate) struct Stripe {
    /// Whole units by role, headers included.
    pub units: Vec<Buf>,
    /// Roles that were not right on their drives, and why.
    pub mended: Vec<(usize, Damage)>,
}

/// Result of [`Group::scrub_stripe`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StripeVerdict {
    /// Damaged units that were rewritten and read back.
    pub repaired: Vec<(Slot, Damage)>,
    /// Damaged units that could not be rewritten.
    pub unrepaired: Vec<(Slot, Damage)>,
    /// Units on absent drives.
    pub absent: u8,
    /// Fewer than d units are left: data of this stripe is lost.
    pub lost: bool,
    /// Every unit passes its checks, but parity does not fit the data: never seen
    /// unless our own code is wrong (`faults.md` F105). Nothing was changed.
    pub inconsistent: bool,
}

impl StripeVerdict {
    /// Whether every unit was there and right.
    pub fn is_clean(&self) -> bool {
        *self == StripeVerdict::default()
    }
}

impl Group {
    /// Reads a whole unit and checks all of it, a second time if the first did not pass.
    pub(crate) async fn read_unit(
        &self,
        segment: &Segment,
        id: StripeId,
        role: usize,
        generation: Option<u64>,
    ) -> Result<Whole, Damage> {
        let first = self.read_unit_once(segment, id, role, generation).await;
        match first {
            Ok(_) | Err(Damage::Absent) => first,
            Err(_) => self.read_unit_once(segment, id, role, generation).await,
        }
    }

    async fn read_unit_once(
        &self,
        segment: &Segment,
        id: StripeId,
        role: usize,
        generation: Option<u64>,
    ) -> Result<Whole, Damage> {
        let place = segment.place_of(role, id.row);
        let member = self.inner.member(place.slot);
        if !member.holds(id) {
            return Err(Damage::Absent);
        }
        let offset = self.inner.shape.unit_offset_bytes(place.extent, id.row);
        let bytes = self.read_media(place.slot, offset, self.take_unit()).await?;
        let drive = member.id;
        let wanted = Wanted { group: self.inner.group, drive, segment, row: id.row, role, generation };
        let header = wanted.check(&bytes)?;
        Ok(Whole { header, bytes: bytes.freeze() })
    }

    /// Reads every unit of a stripe.
    pub(crate) async fn collect(&self, segment: Rc<Segment>, id: StripeId, generation: Option<u64>) -> Collected {
        let roles = 0..segment.geometry.width();
        let units = join_all(roles.map(|role| self.read_unit(&segment, id, role, generation))).await;
        Collected { segment, id, units }
    }

    /// The data units of a stripe, every one checked as a whole; damaged ones are
    /// rebuilt and repaired in the background. One slice of payload per data unit.
    pub async fn read_stripe(&self, id: StripeId, generation: u64) -> Result<Vec<Buf>, Unreadable> {
        let segment = self.segment(id.segment).ok_or(Unreadable::NoSuchStripe)?;
        let data = usize::from(segment.geometry.data);
        let reads = (0..data).map(|role| self.read_unit(&segment, id, role, Some(generation)));
        let units: Result<Vec<Whole>, Damage> = join_all(reads).await.into_iter().collect();
        let agree =
            |units: &[Whole]| units.iter().all(|unit| unit.header.stripe_digest == units[0].header.stripe_digest);
        if let Ok(units) = units
            && agree(&units)
        {
            return Ok(units.into_iter().map(|unit| unit.bytes.slice(UNIT_HEADER_BYTES..)).collect());
        }
        let guard = self.inner.locks.lock(id).await;
        if self.segment(id.segment).is_none() {
            return Err(Unreadable::NoSuchStripe);
        }
        let collected = self.collect(segment, id, Some(generation)).await;
        let Some(stripe) = collected.versions().into_iter().find_map(|version| self.prove(&collected, version)) else {
            return Err(self.lose(id));
        };
        self.inner.record.count(|counters| counters.reads_reconstructed += 1);
        let payloads = stripe.units[..data].iter().map(|unit| unit.slice(UNIT_HEADER_BYTES..)).collect();
        self.repair_later(guard, &collected.segment, stripe);
        Ok(payloads)
    }

    /// Notes that a stripe cannot be read.
    pub(crate) fn lose(&self, id: StripeId) -> Unreadable {
        self.inner.record.count(|counters| counters.reads_failed += 1);
        self.inner.record.lost(id);
        Unreadable::TooMuchDamage
    }

    /// Checks every unit of a live stripe, data and parity, and repairs what is damaged
    /// before it returns (F01: cold damage is found in one pass).
    pub async fn scrub_stripe(&self, id: StripeId, generation: u64) -> StripeVerdict {
        self.scrub_and_read(id, generation).await.0
    }

    /// As [`scrub_stripe`](Group::scrub_stripe); gives the proven payloads of the data units
    /// as well, none when the stripe is lost.
    pub async fn scrub_and_read(&self, id: StripeId, generation: u64) -> (StripeVerdict, Vec<Buf>) {
        let mut verdict = StripeVerdict::default();
        let guard = self.inner.locks.lock(id).await;
        let Some(segment) = self.segment(id.segment) else { return (verdict, Vec::new()) };
        let collected = self.collect(segment, id, Some(generation)).await;
        let found = collected.versions().into_iter().find_map(|version| self.prove(&collected, version));
        let Some(stripe) = found else {
            verdict.lost = true;
            self.lose(id);
            return (verdict, Vec::new());
        };
        verdict.inconsistent = !parity_fits(&collected.segment, &stripe);
        verdict.absent = u8::try_from(stripe.mended.iter().filter(|(_, damage)| *damage == Damage::Absent).count())
            .expect("at most 32");
        for (slot, damage, done) in self.repair(&collected.segment, id, &stripe).await {
            let list = if done { &mut verdict.repaired } else { &mut verdict.unrepaired };
            list.push((slot, damage));
        }
        drop(guard);
        let data = usize::from(collected.segment.geometry.data);
        let payloads = stripe.units[..data].iter().map(|unit| unit.slice(UNIT_HEADER_BYTES..));
        (verdict, payloads.collect())
    }

    /// The stripe from the units of one version, or, should they not fit together though
    /// each is good by itself (one was forged, or made from wrong bytes), from all of
    /// them but one.
    pub(crate) fn prove(&self, collected: &Collected, version: (u64, u64)) -> Option<Stripe> {
        let width = collected.segment.geometry.width();
        let mut without = std::iter::once(None).chain((0..width).map(Some));
        let proven = without.find_map(|role| self.rebuild(collected, version, role))?;
        self.inner.record.not_lost(collected.id);
        Some(proven)
    }

    /// Rebuilds the stripe from the units of one version, `without` one role; `None` if
    /// the result does not prove itself.
    fn rebuild(&self, collected: &Collected, version: (u64, u64), without: Option<usize>) -> Option<Stripe> {
        let width = collected.segment.geometry.width();
        let belongs = |whole: &Whole| (whole.header.generation, whole.header.stripe_digest) == version;
        let unit = |role: usize| collected.units[role].as_ref().ok().filter(|whole| belongs(whole));
        let present: Vec<Option<&Whole>> =
            (0..width).map(|role| unit(role).filter(|_| without != Some(role))).collect();
        let missing: Vec<usize> = (0..width).filter(|&role| present[role].is_none()).collect();
        let mut rebuilt: Vec<BufMut> = missing.iter().map(|_| self.take_unit()).collect();
        let payloads: Vec<Option<&[u8]>> =
            present.iter().map(|unit| unit.map(|whole| &whole.bytes[UNIT_HEADER_BYTES..])).collect();
        let mut targets: Vec<(usize, &mut [u8])> =
            missing.iter().zip(&mut rebuilt).map(|(&role, unit)| (role, &mut unit[UNIT_HEADER_BYTES..])).collect();
        parity::reconstruct(usize::from(collected.segment.geometry.data), &payloads, &mut targets).ok()?;
        let (generation, digest) = version;
        let check_of = |role: usize| match present[role] {
            Some(whole) => whole.header.payload_check,
            None => {
                let index = missing.iter().position(|&missing| missing == role).expect("absent ones are missing");
                let role = u8::try_from(role).expect("at most 32");
                payload_check(collected.id, generation, role, &rebuilt[index][UNIT_HEADER_BYTES..])
            }
        };
        let checks: Vec<u64> = (0..width).map(check_of).collect();
        if stripe_digest(generation, &checks) != digest {
            return None;
        }
        let mut units: Vec<Option<Buf>> = present.iter().map(|unit| unit.map(|whole| whole.bytes.clone())).collect();
        for (&role, mut unit) in missing.iter().zip(rebuilt) {
            let number = u8::try_from(role).expect("at most 32");
            let sums = Sums { generation, payload_check: checks[role], stripe_digest: digest };
            self.unit_header(&collected.segment, collected.id, number, sums).encode_into(&mut unit);
            units[role] = Some(unit.freeze());
        }
        let mended = missing.into_iter().map(|role| (role, collected.damage(role, generation))).collect();
        Some(Stripe { units: units.into_iter().flatten().collect(), mended })
    }

    /// Repairs in the background; the guard keeps newer stripes off this place until
    /// the repair is done.
    pub(crate) fn repair_later(&self, guard: StripeGuard, segment: &Rc<Segment>, stripe: Stripe) {
        if stripe.mended.iter().all(|(_, damage)| *damage == Damage::Absent) {
            return;
        }
        let (group, segment, id) = (self.clone(), segment.clone(), guard.id());
        let task = async move {
            group.repair(&segment, id, &stripe).await;
            drop(guard);
        };
        self.inner.world.spawn.spawn("raid repair", Box::pin(task));
    }

    /// Writes rebuilt units back and reads them again; says for each whether it is
    /// right now. Units on absent drives are left alone.
    pub(crate) async fn repair(&self, segment: &Segment, id: StripeId, stripe: &Stripe) -> Vec<(Slot, Damage, bool)> {
        let damaged = stripe.mended.iter().filter(|(_, damage)| *damage != Damage::Absent);
        let repairs = damaged.map(|&(role, damage)| async move {
            let slot = segment.place_of(role, id.row).slot;
            let member = self.inner.member(slot);
            member.damaged_units.set(member.damaged_units.get() + 1);
            let done = self.rewrite(segment, id, role, &stripe.units[role]).await;
            match (done, damage) {
                (false, _) => self.strike(slot, Strike::Stays),
                (true, Damage::Unreadable) => self.strike(slot, Strike::Healed),
                (true, _) => {}
            }
            if done {
                member.repaired_units.set(member.repaired_units.get() + 1);
                self.inner.record.count(|counters| counters.units_repaired += 1);
                self.inner.record.event(Event::UnitRepaired { stripe: id, slot, damage });
            }
            (slot, damage, done)
        });
        join_all(repairs).await
    }

    async fn rewrite(&self, segment: &Segment, id: StripeId, role: usize, unit: &Buf) -> bool {
        let place = segment.place_of(role, id.row);
        let offset = self.inner.shape.unit_offset_bytes(place.extent, id.row);
        let member = self.inner.member(place.slot);
        // Its header may be of a drive that has left the slot since.
        let unit = headed_for(unit, member.id);
        match member.write(self.principal.writing(), offset, unit.clone()).await {
            Ok(()) => {}
            Err(fault @ (MediaFault::Gone | MediaFault::ReadOnly)) => {
                self.fail(&member, FailReason::of_write(fault));
                return false;
            }
            // The unit was damaged before and still is.
            Err(MediaFault::Io | MediaFault::Timeout) => return false,
        }
        self.read_media(place.slot, offset, self.take_unit()).await.is_ok_and(|bytes| bytes[..] == unit[..])
    }
}

impl Collected {
    /// Versions with enough units to rebuild the stripe, newest first.
    pub fn versions(&self) -> Vec<(u64, u64)> {
        let version = |whole: &Whole| (whole.header.generation, whole.header.stripe_digest);
        let all = || self.units.iter().flatten().map(version);
        let distinct: BTreeSet<(u64, u64)> = all().collect();
        let enough = |candidate: &(u64, u64)| {
            all().filter(|version| version == candidate).count() >= usize::from(self.segment.geometry.data)
        };
        distinct.into_iter().rev().filter(enough).collect()
    }

    /// The units of `id` by role, as far as they were read.
    pub fn new(segment: Rc<Segment>, id: StripeId, units: Vec<Result<Whole, Damage>>) -> Collected {
        Collected { segment, id, units }
    }

    fn damage(&self, role: usize, generation: u64) -> Damage {
        match &self.units[role] {
            Err(damage) => *damage,
            Ok(whole) if whole.header.generation < generation => Damage::Stale,
            Ok(_) => Damage::Digest,
        }
    }

    /// Generation and payload of the unit of `role`, if it passed its own checks.
    pub fn whole(&self, role: usize) -> Option<(u64, Buf)> {
        let whole = self.units[role].as_ref().ok()?;
        Some((whole.header.generation, whole.bytes.slice(UNIT_HEADER_BYTES..)))
    }

    /// The segment of the stripe.
    pub fn segment(&self) -> &Rc<Segment> {
        &self.segment
    }
}

fn parity_fits(segment: &Segment, stripe: &Stripe) -> bool {
    let payload = |unit: &Buf| unit.slice(UNIT_HEADER_BYTES..);
    let payloads: Vec<Buf> = stripe.units.iter().map(payload).collect();
    let (data, parity) = payloads.split_at(usize::from(segment.geometry.data));
    let data: Vec<&[u8]> = data.iter().map(|unit| &unit[..]).collect();
    match parity {
        [p, q] => parity::check(&data, p, q),
        [p] => parity::check_p(&data, p),
        _ => true,
    }
}

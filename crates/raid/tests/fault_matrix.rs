//! Every class of media damage on every kind of unit, healthy and with a drive gone.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod double;

use double::{Rig, Trick, UNIT, check_range, check_stripe, find_unit, write};
use raid::{Damage, Event, Group, StripeId};

/// What is done to a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    FlipPayload,
    FlipHeader,
    Corrupt,
    Unreadable,
    Torn,
    Lost,
    Misplaced,
    WrongOffsetRead,
    SwappedRows,
    SwappedRoles,
}

const CLASSES: [Class; 10] = [
    Class::FlipPayload,
    Class::FlipHeader,
    Class::Corrupt,
    Class::Unreadable,
    Class::Torn,
    Class::Lost,
    Class::Misplaced,
    Class::WrongOffsetRead,
    Class::SwappedRows,
    Class::SwappedRoles,
];

/// A group of eight drives, stripes of 5+2, four rows written twice: generation 1xx is
/// what lay there before, 2xx is live.
struct Stage {
    rig: Rig,
    group: Group,
    live: Vec<(StripeId, u64)>,
}

/// The stripe that is hurt is row 1; row 2 is the innocent neighbour.
const HURT: usize = 1;
const NEIGHBOUR: usize = 2;

impl Stage {
    fn new() -> Stage {
        let rig = Rig::new(8, 11);
        let group = rig.create(5);
        let live = rig.bench.run(async {
            let segment = group.open_segment().await.unwrap();
            let ids = (0..4).map(|row| StripeId { segment, row });
            let mut live = Vec::new();
            for id in ids {
                write(&group, id, 100 + u64::from(id.row)).await.unwrap();
                live.push((id, 200 + u64::from(id.row)));
            }
            group.flush().await.unwrap();
            live
        });
        Stage { rig, group, live }
    }

    /// Writes the live generation, with `class` done to the unit with `role` of the hurt
    /// stripe.
    fn hurt(&self, class: Class, role: usize) {
        let (id, generation) = self.live[HURT];
        let (drive, offset) = find_unit(&self.rig, &self.group, id, generation - 100, role);
        let drive = &self.rig.drives[drive];
        let trick = match class {
            Class::Torn => Some(Trick::TearWrite),
            Class::Lost => Some(Trick::LoseWrite),
            Class::Misplaced => Some(Trick::ShiftWrite(i64::from(UNIT))),
            _ => None,
        };
        // The neighbours first, so that a misplaced write lands on live data.
        for index in [0, 2, 3, HURT] {
            let (id, generation) = self.live[index];
            if index == HURT {
                drive.tricks.borrow_mut().extend(trick);
            }
            self.rig.bench.run(write(&self.group, id, generation)).unwrap();
        }
        self.rig.bench.run(self.group.flush()).unwrap();
        assert!(drive.tricks.borrow().is_empty(), "the fault happened");
        let unit = UNIT as usize;
        match class {
            Class::FlipPayload => drive.flip(offset + 5000, 3),
            Class::FlipHeader => drive.flip(offset + 50, 0),
            Class::Corrupt => drive.poke(offset + 1024, &[0xa5; 2048]),
            Class::Unreadable => drive.bad.borrow_mut().push(offset + 512..offset + 8192),
            Class::SwappedRows => {
                let (mine, next) = (drive.peek(offset, unit), drive.peek(offset + unit as u64, unit));
                drive.poke(offset, &next);
                drive.poke(offset + unit as u64, &mine);
            }
            Class::SwappedRoles => {
                let (other, other_offset) = find_unit(&self.rig, &self.group, id, generation, (role + 1) % 7);
                let other = &self.rig.drives[other];
                let (mine, theirs) = (drive.peek(offset, unit), other.peek(other_offset, unit));
                drive.poke(offset, &theirs);
                other.poke(other_offset, &mine);
            }
            _ => {}
        }
    }

    /// Drops a drive that holds a unit of the hurt stripe, but not these roles.
    fn lose_drive_without(&self, roles: [usize; 2]) {
        let (id, generation) = self.live[HURT];
        let role = (0..7).rev().find(|role| !roles.contains(role)).unwrap();
        let (drive, _) = find_unit(&self.rig, &self.group, id, generation, role);
        self.rig.drives[drive].gone.set(true);
    }

    /// Makes the next read of the hurt unit come from one unit further.
    fn misdirect_next_read(&self, class: Class, role: usize) {
        if class == Class::WrongOffsetRead {
            let (id, generation) = self.live[HURT];
            let (drive, _) = find_unit(&self.rig, &self.group, id, generation, role);
            self.rig.drives[drive].tricks.borrow_mut().push_back(Trick::ShiftRead(i64::from(UNIT)));
        }
    }

    fn repairs(&self) -> Vec<Damage> {
        let damage = |event| match event {
            Event::UnitRepaired { damage, .. } => Some(damage),
            _ => None,
        };
        self.group.drain_events().into_iter().filter_map(damage).collect()
    }

    /// Everything is right now, without any further repair, from the media alone.
    fn is_whole(&self) {
        self.rig.bench.run(async {
            for &(id, generation) in &self.live {
                check_stripe(&self.group, id, generation).await.unwrap();
                let verdict = self.group.scrub_stripe(id, generation).await;
                assert!(verdict.repaired.is_empty() && verdict.unrepaired.is_empty() && !verdict.lost, "{verdict:?}");
                assert!(!verdict.inconsistent);
            }
        });
    }
}

/// How damage is come upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Read,
    StripeRead,
    Scrub,
}

/// One cell of the matrix; says what was repaired.
fn cell(class: Class, role: usize, gone: bool, found: Found) -> Vec<Damage> {
    let stage = Stage::new();
    stage.hurt(class, role);
    if gone {
        stage.lose_drive_without([role, (role + 1) % 7]);
    }
    stage.misdirect_next_read(class, role);
    let (id, generation) = stage.live[HURT];
    let whole = 0..stage.group.unit_payload_bytes() as usize;
    stage.rig.bench.run(async {
        match found {
            Found::Read => check_range(&stage.group, id, generation, role, whole).await.unwrap(),
            Found::StripeRead => check_stripe(&stage.group, id, generation).await.unwrap(),
            Found::Scrub => assert!(!stage.group.scrub_stripe(id, generation).await.lost),
        }
    });
    let mut repairs = stage.repairs();
    // The other victim of a misplaced or swapped write is found when it is looked at.
    let (id, generation) = stage.live[NEIGHBOUR];
    stage.rig.bench.run(stage.group.scrub_stripe(id, generation));
    repairs.extend(stage.repairs());
    stage.is_whole();
    repairs
}

/// Decides R-STR-03: bit flips, corruption, lost, torn, misplaced and swapped writes,
/// wrong-offset reads and unreadable sectors, on a data unit, on P and on Q, with all
/// drives there and with one gone; found by a range read, by a stripe read and by scrub.
/// Each cell answers with the right bytes, repairs the media, and repairs nothing that
/// was good.
#[test]
fn every_class_of_damage_is_found_and_repaired() {
    println!("{:16} {:5} {:8} {:12} repaired as", "class", "unit", "drives", "found by");
    for class in CLASSES {
        for (name, role) in [("D2", 2), ("P", 5), ("Q", 6)] {
            for gone in [false, true] {
                if gone && class == Class::SwappedRoles {
                    continue; // Two damaged units and an absent one: beyond two parities.
                }
                let mut ways = vec![Found::Scrub];
                if role < 5 {
                    ways.extend([Found::Read, Found::StripeRead]);
                }
                if class == Class::FlipHeader {
                    ways.retain(|way| *way != Found::Read); // It reads no headers.
                }
                for found in ways {
                    let repairs = cell(class, role, gone, found);
                    let drives = if gone { "one gone" } else { "healthy" };
                    println!("{:16} {name:5} {drives:8} {:12} {repairs:?}", format!("{class:?}"), format!("{found:?}"));
                    assert_repairs(class, role, &repairs);
                }
            }
        }
    }
}

/// Exactly what was hurt was repaired, for the right reason.
fn assert_repairs(class: Class, role: usize, repairs: &[Damage]) {
    let expected: &[Damage] = match class {
        Class::FlipPayload | Class::Corrupt => &[Damage::Payload],
        Class::FlipHeader => &[Damage::Header],
        Class::Unreadable => &[Damage::Unreadable],
        // The header arrived, half of the payload did not.
        Class::Torn => &[Damage::Payload],
        Class::Lost => &[Damage::Stale],
        Class::Misplaced => &[Damage::Stale, Damage::Misplaced],
        Class::WrongOffsetRead => &[],
        Class::SwappedRows => &[Damage::Misplaced, Damage::Misplaced],
        Class::SwappedRoles => &[Damage::Swapped, Damage::Swapped],
    };
    assert_eq!(repairs, expected, "{class:?} of role {role}");
}

#[test]
fn two_damaged_units_and_a_gone_drive_are_reported_not_guessed() {
    let stage = Stage::new();
    stage.hurt(Class::SwappedRoles, 2);
    stage.lose_drive_without([2, 3]);
    let (id, generation) = stage.live[HURT];
    stage.rig.bench.run(async {
        assert_eq!(check_stripe(&stage.group, id, generation).await, Err(raid::Unreadable::TooMuchDamage));
        assert!(check_range(&stage.group, id, generation, 2, 0..100).await.is_err());
        check_range(&stage.group, id, generation, 0, 0..100).await.unwrap();
        assert!(stage.group.scrub_stripe(id, generation).await.lost);
        let (other, generation) = stage.live[0];
        check_stripe(&stage.group, other, generation).await.unwrap();
    });
    assert!(stage.group.drain_events().contains(&Event::StripeLost { stripe: id }));
}

#[test]
fn a_stripe_lost_as_a_whole_is_caught_by_its_reference() {
    // Every unit of the live generation was lost: the older stripe proves itself.
    let stage = Stage::new();
    let (id, generation) = stage.live[HURT];
    stage.rig.bench.run(async {
        assert_eq!(check_range(&stage.group, id, generation, 0, 0..64).await, Err(raid::Unreadable::NotWanted));
        assert!(check_stripe(&stage.group, id, generation).await.is_err());
        // And by whoever still holds the old reference it is read without complaint.
        check_stripe(&stage.group, id, generation - 100).await.unwrap();
    });
    assert!(stage.repairs().is_empty());
}

/// Decides R-STR-01: any single flipped bit of a unit, header or payload, is detected by
/// the checks the header carries; and on the media by read and by scrub.
#[test]
fn any_single_bit_flip_is_detected() {
    use raid::unit::{UnitHeader, payload_check};
    let stage = Stage::new();
    let (id, generation) = (stage.live[0].0, stage.live[0].1 - 100);
    let (drive, offset) = find_unit(&stage.rig, &stage.group, id, generation, 2);
    let good = stage.rig.drives[drive].peek(offset, UNIT as usize);
    let header = UnitHeader::decode(&good).unwrap();
    let mut unit = good.clone();
    for bit in 0..512 * 8 {
        unit[bit / 8] ^= 1 << (bit % 8);
        assert!(UnitHeader::decode(&unit).is_err(), "header bit {bit}");
        unit[bit / 8] ^= 1 << (bit % 8);
    }
    for bit in 512 * 8..unit.len() * 8 {
        unit[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(payload_check(id, generation, 2, &unit[512..]), header.payload_check, "payload bit {bit}");
        unit[bit / 8] ^= 1 << (bit % 8);
    }
    for round in 0..200u64 {
        let bit = (round * 7919 + 13) % (u64::from(UNIT) * 8);
        stage.rig.drives[drive].flip(offset + bit / 8, (bit % 8) as u8);
        stage.rig.bench.run(async {
            match round % 2 {
                0 => assert_eq!(stage.group.scrub_stripe(id, generation).await.repaired.len(), 1),
                _ => check_stripe(&stage.group, id, generation).await.unwrap(),
            }
        });
        assert_eq!(stage.repairs().len(), 1, "bit {bit}");
        assert!(stage.rig.drives[drive].peek(offset, UNIT as usize) == good, "bit {bit} healed");
    }
}

/// Decides R-STR-02: the header of every unit names its group, stripe, generation, unit
/// index and geometry, and the units of a stripe confirm each other.
#[test]
fn the_units_of_a_stripe_relate_to_each_other() {
    use raid::unit::{UnitHeader, stripe_digest};
    let stage = Stage::new();
    for &(id, generation) in &stage.live {
        let generation = generation - 100;
        let header = |role| {
            let (drive, offset) = find_unit(&stage.rig, &stage.group, id, generation, role);
            (drive, UnitHeader::decode(&stage.rig.drives[drive].peek(offset, 512)).unwrap())
        };
        let headers: Vec<(usize, UnitHeader)> = (0..7).map(header).collect();
        let checks: Vec<u64> = headers.iter().map(|(_, header)| header.payload_check).collect();
        for (role, (drive, header)) in headers.iter().enumerate() {
            assert_eq!((header.group, header.stripe), (stage.group.id(), id));
            assert_eq!((header.generation, usize::from(header.role)), (generation, role));
            assert_eq!(header.geometry.to_string(), "5+2");
            assert_eq!(header.places, headers[0].1.places);
            assert_eq!(usize::from(header.places[usize::from(header.position)].slot.0), *drive);
            assert_eq!(header.drive, stage.group.status().drives[*drive].id);
            assert_eq!(header.stripe_digest, stripe_digest(generation, &checks));
        }
    }
}

#[test]
fn a_unit_that_is_good_by_itself_but_does_not_fit_its_stripe_is_replaced() {
    use raid::unit::{UnitHeader, payload_check};
    for role in 0..7 {
        for also_gone in [false, true] {
            let stage = Stage::new();
            let (id, generation) = (stage.live[HURT].0, 101);
            let (drive, offset) = find_unit(&stage.rig, &stage.group, id, generation, role);
            let mut unit = stage.rig.drives[drive].peek(offset, UNIT as usize);
            let mut header = UnitHeader::decode(&unit).unwrap();
            unit[600] ^= 0xff;
            header.payload_check = payload_check(id, generation, header.role, &unit[512..]);
            header.encode_into(&mut unit);
            stage.rig.drives[drive].poke(offset, &unit);
            if also_gone {
                let (gone, _) = find_unit(&stage.rig, &stage.group, id, generation, (role + 3) % 7);
                stage.rig.drives[gone].gone.set(true);
            }
            stage.rig.bench.run(async {
                let verdict = stage.group.scrub_stripe(id, generation).await;
                assert_eq!(verdict.repaired.len(), 1);
                assert_eq!(verdict.repaired[0].1, Damage::Digest);
                check_stripe(&stage.group, id, generation).await.unwrap();
            });
        }
    }
}

#[test]
fn a_repair_never_lands_on_a_newer_stripe() {
    // A read finds damage and starts a repair; before it is done the stripe is freed and
    // written anew. Slow drives stretch the race over every interleaving of polls.
    for yields in 0..12 {
        let stage = Stage::new();
        let (id, _) = stage.live[HURT];
        let (drive, offset) = find_unit(&stage.rig, &stage.group, id, 101, 2);
        stage.rig.drives[drive].flip(offset + 700, 1);
        stage.rig.drives[drive].yields.set(yields);
        stage.rig.bench.run(async {
            check_range(&stage.group, id, 101, 2, 0..1000).await.unwrap();
            write(&stage.group, id, 201).await.unwrap();
            check_stripe(&stage.group, id, 201).await.unwrap();
        });
        stage.rig.bench.run(async {
            assert!(stage.group.scrub_stripe(id, 201).await.is_clean(), "{yields} yields");
        });
    }
}

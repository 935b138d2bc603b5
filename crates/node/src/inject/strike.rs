//! What a fault does to one request. Pure: dice in, an act out.

use std::time::Duration;

use control::inject::{FaultKind, FaultOrder};

/// Below this, dice hit: a share in parts per million.
const WHOLE_PPM: u64 = 1_000_000;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its first byte.
    pub offset_bytes: u64,
    /// Its length.
    pub len_bytes: u64,
    /// Size of the drive.
    pub capacity_bytes: u64,
    /// What offsets and lengths are multiples of.
    pub align_bytes: u64,
}

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To read.
    Read,
    /// To write.
    Write,
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// It waits first.
    Wait(Duration),
    /// It ends with an I/O error, undone.
    Refuse,
    /// It is acknowledged and not done.
    Lose,
    /// It is done at this offset.
    Move(u64),
    /// Only so many bytes of it are done; all are acknowledged.
    Cut(u64),
    /// This bit of its bytes is another.
    Flip(u64),
}

/// A fault as it is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub kind: FaultKind,
    pub ppm: u64,
    pub delay: Duration,
}

impl Fault {
    /// From an order that was checked.
    pub fn of(order: &FaultOrder) -> Fault {
        Fault {
            kind: order.kind,
            ppm: ((order.percent * 10_000.0).round() as u64).clamp(1, WHOLE_PPM),
            delay: Duration::from_millis(order.delay_ms.unwrap_or(0)),
        }
    }

    /// Whether requests of this sort can be hit at all.
    pub fn concerns(&self, asked: Asked) -> bool {
        match self.kind {
            FaultKind::Slow | FaultKind::Eio | FaultKind::Bits => true,
            FaultKind::LostWrite | FaultKind::Misplaced | FaultKind::Torn => asked == Asked::Write,
        }
    }

    /// What happens to a request that it concerns. `dice`: whether it is hit, and where.
    pub fn strike(&self, place: Place, dice: [u64; 2]) -> Option<Act> {
        if dice[0] % WHOLE_PPM >= self.ppm || place.len_bytes == 0 {
            return None;
        }
        match self.kind {
            FaultKind::Slow => Some(Act::Wait(self.delay)),
            FaultKind::Eio => Some(Act::Refuse),
            FaultKind::LostWrite => Some(Act::Lose),
            FaultKind::Misplaced => place.beside().map(Act::Move),
            FaultKind::Torn => Some(Act::Cut(place.torn_after(dice[1]))),
            FaultKind::Bits => Some(Act::Flip(dice[1] % (place.len_bytes * 8))),
        }
    }
}

impl Place {
    /// The place right behind it, or at the end of the drive the one before; none on a drive
    /// without room for either.
    fn beside(&self) -> Option<u64> {
        let behind = self.offset_bytes + self.len_bytes;
        if behind + self.len_bytes <= self.capacity_bytes {
            return Some(behind);
        }
        self.offset_bytes.checked_sub(self.len_bytes)
    }

    /// An aligned length that is less than all of it.
    fn torn_after(&self, die: u64) -> u64 {
        let steps = self.len_bytes.div_ceil(self.align_bytes.max(1));
        die % steps * self.align_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISS: u64 = WHOLE_PPM - 1;

    fn fault(kind: FaultKind, percent: f64) -> Fault {
        Fault::of(&FaultOrder { slot: 1, kind, percent, delay_ms: Some(100), seconds: 1 })
    }

    fn place(offset_bytes: u64) -> Place {
        Place { offset_bytes, len_bytes: 16384, capacity_bytes: 65536, align_bytes: 4096 }
    }

    #[test]
    fn a_share_is_what_was_asked_for() {
        let fault = fault(FaultKind::LostWrite, 12.5);
        let hit = (0..WHOLE_PPM).filter(|&die| fault.strike(place(0), [die, 0]).is_some()).count();
        assert_eq!(hit, 125_000);
    }

    #[test]
    fn only_writes_are_lost_moved_or_torn() {
        for kind in [FaultKind::LostWrite, FaultKind::Misplaced, FaultKind::Torn] {
            assert!(!fault(kind, 100.0).concerns(Asked::Read) && fault(kind, 100.0).concerns(Asked::Write));
        }
        for kind in [FaultKind::Slow, FaultKind::Eio, FaultKind::Bits] {
            assert!(fault(kind, 100.0).concerns(Asked::Read) && fault(kind, 100.0).concerns(Asked::Write));
        }
    }

    #[test]
    fn a_misplaced_write_stays_on_its_drive_and_misses_its_own_place() {
        let moved = fault(FaultKind::Misplaced, 100.0);
        assert_eq!(moved.strike(place(0), [0, 0]), Some(Act::Move(16384)));
        assert_eq!(moved.strike(place(49152), [0, 0]), Some(Act::Move(32768)), "the last place");
        let whole = Place { len_bytes: 65536, ..place(0) };
        assert_eq!(moved.strike(whole, [0, 0]), None, "there is no other place");
    }

    #[test]
    fn a_torn_write_lacks_at_least_its_last_sector() {
        let torn = fault(FaultKind::Torn, 100.0);
        for die in 0..100 {
            let Some(Act::Cut(done)) = torn.strike(place(0), [0, die]) else { panic!("it is torn") };
            assert!(done < 16384 && done.is_multiple_of(4096), "{done}");
        }
        let Some(Act::Flip(bit)) = fault(FaultKind::Bits, 100.0).strike(place(0), [0, u64::MAX]) else {
            panic!("it is hit")
        };
        assert!(bit < 16384 * 8);
        assert_eq!(fault(FaultKind::Slow, 1.0).strike(place(0), [MISS, 0]), None);
    }
}

//! Ids and sequence numbers: one type each, so that no two can be swapped.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);
        impl $name {
            /// The next value. These counters never wrap in the life of a pool.
            #[must_use]
            pub fn next(self) -> Self { Self(self.0 + 1) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}", self.0) }
        }
    };
}

number!(
    /// A file's identity: the epoch that created it in the high 16 bits, a counter in
    /// the low 48, so that order is creation order, across failovers too (R-RSYNC-13).
    /// Never reused. 0 is "no file".
    FileId
);
number!(
    /// Identity of a stored object (one deduplicated, compressed block). Stable while
    /// the cleaner moves the object. Never reused. 0 is "hole".
    ObjectId
);
number!(
    /// Operation sequence number: total order of acknowledged operations (R-REPL-14).
    Osn
);
number!(
    /// Term of ownership; raised at each change of owner.
    Epoch
);

/// Why a text is no identity: it must have 32 hexadecimal digits and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id has 32 hexadecimal digits")]
pub struct NotAnId;

fn id_from_text(text: &str) -> Result<[u8; 16], NotAnId> {
    // Digits only: the parser of numbers takes a sign, too.
    let is_id = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = is_id.then(|| u128::from_str_radix(text, 16).ok()).flatten();
    number.map(u128::to_be_bytes).ok_or(NotAnId)
}

macro_rules! uuid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{self}") }
        }
        impl std::str::FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> { id_from_text(text).map(Self) }
        }
    };
}

uuid!(
    /// A RAID group (and with it the pool), chosen at random when it is created.
    GroupId
);
uuid!(
    /// A drive's membership identity, written on its label. Not its serial number.
    DriveId
);
uuid!(
    /// A site: one store, a failure domain of its own. Chosen at random when it is set up.
    SiteId
);
uuid!(
    /// A replicated datastore, the same at both sites and at the witness.
    PairId
);
uuid!(
    /// One life of a journal leg, from formatting to formatting (`faults.md` F23).
    Incarnation
);

impl FileId {
    const COUNTER_BITS: u32 = 48;

    /// The id with this `counter` (48 bits) in this `epoch` (16 bits).
    pub fn new(epoch: Epoch, counter: u64) -> FileId {
        debug_assert!(counter < 1 << Self::COUNTER_BITS && epoch.0 < 1 << 16);
        FileId(epoch.0 << Self::COUNTER_BITS | counter)
    }
}

impl Osn {
    const COUNTER_BITS: u32 = 48;

    /// The operation with this `counter` (48 bits) in this `epoch` (16 bits): as
    /// [`FileId`], so that a new owner never uses an old one's numbers (R-REPL-14). A
    /// datastore that is not replicated counts in epoch 0.
    pub fn of(epoch: Epoch, counter: u64) -> Osn {
        debug_assert!(counter < 1 << Self::COUNTER_BITS && epoch.0 < 1 << 16);
        Osn(epoch.0 << Self::COUNTER_BITS | counter)
    }

    /// The epoch it was given out in.
    pub fn epoch(self) -> Epoch {
        Epoch(self.0 >> Self::COUNTER_BITS)
    }

    /// Its place within its epoch.
    pub fn counter(self) -> u64 {
        self.0 & ((1 << Self::COUNTER_BITS) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_shown_and_nothing_else_is() {
        let site = SiteId(*b"0123456789abcdef");
        assert_eq!(site.to_string().parse(), Ok(site));
        for wrong in ["", "+0", &"0".repeat(31), &"0".repeat(33), &"g".repeat(32), &format!("+{}", "0".repeat(31))] {
            assert_eq!(wrong.parse::<SiteId>(), Err(NotAnId), "{wrong}");
        }
    }
}

//! Principals: on whose behalf a drive is asked for something (R-IO-02, R-IO-03).
//!
//! Whoever uses a [`Group`](crate::Group) holds a view of it that says who it is, made
//! with [`Group::acting_as`](crate::Group::acting_as); the queue of each drive shares the
//! drive between them (`queue.rs`).

use std::fmt;

/// On whose behalf a drive is asked for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Principal {
    /// A client waits for the content of a file.
    UserRead,
    /// A client waits until its write has room: destaging that has become urgent.
    UserWrite,
    /// A page of a tree, a register, a label: somebody waits, mostly a client.
    MetadataRead,
    /// Pages, registers and roots.
    MetadataWrite,
    /// From the journal to stripes, ahead of need.
    Destage,
    /// The cleaner looks for what is live.
    CleanerRead,
    /// The cleaner moves what is live.
    CleanerWrite,
    /// A drive is filled again.
    Rebuild,
    /// Everything is verified.
    Scrub,
    /// Scans of the whole pool: fsck, repair.
    Scanner,
}

/// Number of principals.
pub const PRINCIPALS: usize = 10;

/// What a principal wants of a drive (R-IO-03).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Somebody waits for each single request.
    Latency,
    /// Only the rate matters.
    Throughput,
}

impl Principal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Principal; PRINCIPALS] = [
        Principal::UserRead,
        Principal::UserWrite,
        Principal::MetadataRead,
        Principal::MetadataWrite,
        Principal::Destage,
        Principal::CleanerRead,
        Principal::CleanerWrite,
        Principal::Rebuild,
        Principal::Scrub,
        Principal::Scanner,
    ];

    /// What it wants.
    pub const fn goal(self) -> Goal {
        match self {
            Principal::UserRead | Principal::UserWrite | Principal::MetadataRead | Principal::MetadataWrite => {
                Goal::Latency
            }
            _ => Goal::Throughput,
        }
    }

    /// Its part of a drive relative to the others', unless configured.
    pub const fn default_share(self) -> u32 {
        match self {
            Principal::UserRead => 400,
            Principal::UserWrite | Principal::MetadataRead => 300,
            Principal::MetadataWrite => 200,
            Principal::Destage => 100,
            Principal::Rebuild => 60,
            Principal::CleanerRead | Principal::CleanerWrite => 50,
            Principal::Scrub => 20,
            Principal::Scanner => 10,
        }
    }

    /// Who reads when this one acts.
    pub const fn reading(self) -> Principal {
        match self {
            Principal::UserWrite => Principal::UserRead,
            Principal::MetadataWrite => Principal::MetadataRead,
            Principal::CleanerWrite => Principal::CleanerRead,
            same => same,
        }
    }

    /// Who writes when this one acts.
    pub const fn writing(self) -> Principal {
        match self {
            Principal::UserRead => Principal::UserWrite,
            Principal::MetadataRead => Principal::MetadataWrite,
            Principal::CleanerRead => Principal::CleanerWrite,
            same => same,
        }
    }

    /// Its number, from 0 up to [`PRINCIPALS`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name in configuration, status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Principal::UserRead => "user_read",
            Principal::UserWrite => "user_write",
            Principal::MetadataRead => "metadata_read",
            Principal::MetadataWrite => "metadata_write",
            Principal::Destage => "destage",
            Principal::CleanerRead => "cleaner_read",
            Principal::CleanerWrite => "cleaner_write",
            Principal::Rebuild => "rebuild",
            Principal::Scrub => "scrub",
            Principal::Scanner => "scanner",
        }
    }

    /// The principal with this name.
    pub fn named(name: &str) -> Option<Principal> {
        Principal::ALL.into_iter().find(|principal| principal.name() == name)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Parts of a drive by principal, relative to each other; none is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares([u32; PRINCIPALS]);

impl Default for Shares {
    fn default() -> Shares {
        Shares(Principal::ALL.map(Principal::default_share))
    }
}

impl Shares {
    /// The same for everyone.
    pub const EQUAL: Shares = Shares([100; PRINCIPALS]);

    /// With another share for `principal`, 1 to 1,000,000: nobody can be starved.
    #[must_use]
    pub fn with(mut self, principal: Principal, share: u32) -> Shares {
        self.0[principal.index()] = share.clamp(1, 1_000_000);
        self
    }

    /// The share of `principal`.
    pub fn of(&self, principal: Principal) -> u32 {
        self.0[principal.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_directions_are_consistent() {
        for (index, principal) in Principal::ALL.into_iter().enumerate() {
            assert_eq!(principal.index(), index);
            assert_eq!(Principal::named(principal.name()), Some(principal));
            assert_eq!(principal.reading().goal(), principal.goal());
            assert_eq!(principal.writing().goal(), principal.goal());
            assert_eq!(principal.writing().reading(), principal.reading());
        }
        assert_eq!(Shares::default().with(Principal::Scrub, 0).of(Principal::Scrub), 1, "nobody is starved");
    }
}

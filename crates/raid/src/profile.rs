//! Drive profiles: what a model wants to be treated like (R-SSD-01 to -04). The group
//! chooses by the model a drive reports; a model nobody knows gets a safe default.
//!
//! Profiles are data: whoever opens the group reads them from files (`node` has dozens
//! built in and takes more from a folder) and passes them with [`FlowSettings`].
//!
//! [`FlowSettings`]: crate::FlowSettings

use std::rc::Rc;
use std::time::Duration;

/// What kind of drive it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveClass {
    /// Flash: many requests at a time, no seeks.
    Flash,
    /// Turning disk.
    Disk,
    /// Memory, or a file in memory.
    Memory,
}

/// How bulk writes of several drives of a group go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePattern {
    /// All at once.
    Parallel,
    /// One drive after the other, see `turns.rs`.
    Turns,
}

/// How drives of a model are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name, for people.
    pub name: String,
    /// Models it is for: `*` stands for anything, case does not count.
    pub models: Vec<String>,
    /// What kind of drive.
    pub class: DriveClass,
    /// Largest request the drive is given; longer ones are cut.
    pub io_bytes_max: u32,
    /// Requests at the drive at a time.
    pub depth: u32,
    /// Of these, for throughput principals while clients are active.
    pub background_depth: u32,
    /// The same while none is.
    pub background_depth_idle: u32,
    /// How bulk writes go.
    pub write_pattern: WritePattern,
    /// With [`WritePattern::Turns`]: bytes written in one turn.
    pub turn_bytes: u64,
    /// With [`WritePattern::Turns`]: how long the drive stays slow after its last bulk write.
    pub settle: Duration,
    /// A client's read that is not answered by then is reconstructed; zero: never.
    pub user_read_timeout: Duration,
    /// The same for metadata.
    pub metadata_read_timeout: Duration,
    /// A read that takes longer is given up.
    pub read_limit: Duration,
    /// A write or flush that takes longer costs the drive its membership.
    pub write_limit: Duration,
    /// What a request costs besides its bytes, in bytes.
    pub request_cost_bytes: u32,
    /// What a written byte costs, in percent of a read one.
    pub write_cost_percent: u32,
}

impl Profile {
    /// For a drive of this class of which nothing else is known.
    pub fn unknown(class: DriveClass) -> Profile {
        let flash = Profile {
            name: "unknown flash".to_owned(),
            models: Vec::new(),
            class,
            io_bytes_max: 1 << 20,
            depth: 32,
            background_depth: 4,
            background_depth_idle: 16,
            write_pattern: WritePattern::Parallel,
            turn_bytes: 8 << 20,
            settle: Duration::ZERO,
            user_read_timeout: Duration::from_millis(10),
            metadata_read_timeout: Duration::from_millis(10),
            read_limit: Duration::from_secs(2),
            write_limit: Duration::from_secs(10),
            request_cost_bytes: 16 << 10,
            write_cost_percent: 200,
        };
        match class {
            DriveClass::Flash => flash,
            // A seek costs as much as a megabyte, and a disk retries for seconds by itself.
            DriveClass::Disk => Profile {
                name: "unknown disk".to_owned(),
                depth: 8,
                background_depth: 1,
                background_depth_idle: 4,
                user_read_timeout: Duration::from_millis(80),
                metadata_read_timeout: Duration::from_millis(80),
                read_limit: Duration::from_secs(8),
                write_limit: Duration::from_secs(30),
                request_cost_bytes: 1 << 20,
                write_cost_percent: 100,
                ..flash
            },
            DriveClass::Memory => Profile {
                name: "memory".to_owned(),
                depth: 64,
                background_depth: 16,
                background_depth_idle: 64,
                request_cost_bytes: 4096,
                write_cost_percent: 100,
                ..flash
            },
        }
    }

    /// Why a profile cannot be used, if so.
    pub fn fault(&self) -> Option<&'static str> {
        let faults = [
            (self.io_bytes_max < 4096 || !self.io_bytes_max.is_multiple_of(4096), "io_bytes_max is not whole 4 KiB"),
            (self.depth == 0 || self.depth > 1024, "depth is not 1 to 1,024"),
            (self.background_depth == 0 || self.background_depth > self.depth, "background_depth is not 1 to depth"),
            (
                self.background_depth_idle < self.background_depth || self.background_depth_idle > self.depth,
                "background_depth_idle is not background_depth to depth",
            ),
            (self.turn_bytes == 0, "turn_bytes is 0"),
            (self.settle > Duration::from_secs(1), "settle_ms is above 1,000"),
            (self.read_limit < Duration::from_millis(100), "read_limit_ms is below 100"),
            (self.write_limit < Duration::from_secs(1), "write_limit_ms is below 1,000"),
            (
                self.user_read_timeout > self.read_limit || self.metadata_read_timeout > self.read_limit,
                "a read timeout is above read_limit_ms",
            ),
            (self.write_cost_percent == 0 || self.write_cost_percent > 10_000, "write_cost_percent is not 1 to 10,000"),
        ];
        faults.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
    }

    /// A drive whose requests take less than this is never called slow.
    pub(crate) fn slow_least(&self) -> Duration {
        (self.user_read_timeout / 4).max(Duration::from_millis(2))
    }

    /// What reading or writing `bytes` costs, in bytes.
    pub(crate) fn cost(&self, bytes: u64, write: bool) -> u64 {
        let percent = if write { u64::from(self.write_cost_percent) } else { 100 };
        u64::from(self.request_cost_bytes) + bytes * percent / 100
    }
}

/// Profiles to choose from, first match first.
#[derive(Clone, Debug)]
pub struct Profiles {
    list: Vec<Rc<Profile>>,
    unknown: Rc<Profile>,
    unknown_disk: Rc<Profile>,
}

impl Default for Profiles {
    fn default() -> Profiles {
        Profiles::new(Vec::new(), Profile::unknown(DriveClass::Flash))
    }
}

impl Profiles {
    /// Profiles of `list`; what none of them is for gets `unknown`, or that of an unknown disk.
    pub fn new(list: Vec<Profile>, unknown: Profile) -> Profiles {
        let unknown_disk = Rc::new(Profile::unknown(DriveClass::Disk));
        Profiles { list: list.into_iter().map(Rc::new).collect(), unknown: Rc::new(unknown), unknown_disk }
    }

    /// The profile for drives of `model`; `turns`: the system says that it is a disk. Whoever knows
    /// the model knows better: virtual drives often pass for disks.
    pub fn of(&self, model: &str, turns: bool) -> Rc<Profile> {
        let fits = |profile: &&Rc<Profile>| profile.models.iter().any(|pattern| matches(pattern, model));
        let unknown = if turns { &self.unknown_disk } else { &self.unknown };
        self.list.iter().find(fits).unwrap_or(unknown).clone()
    }

    /// How many there are, the one for unknown models not counted.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is only the one for unknown models.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Whether `model` fits a pattern with `*` for anything.
fn matches(pattern: &str, model: &str) -> bool {
    let (pattern, model) = (pattern.to_lowercase(), model.trim().to_lowercase());
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| model.strip_prefix(first)) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, model, fits) in [
            ("ext4", "ext4", true),
            ("ext4", "ext45", false),
            ("SAMSUNG MZ7*", "Samsung MZ7LH960", true),
            ("*MZ7*960*", "ATA SAMSUNG MZ7LH960", true),
            ("*MZ7*960", "ATA SAMSUNG MZ7LH960HAJR", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, model), fits, "{pattern} and {model}");
        }
    }

    #[test]
    fn the_first_that_fits_or_the_default() {
        let named = |name: &str, pattern: &str| Profile {
            name: name.to_owned(),
            models: vec![pattern.to_owned()],
            ..Profile::unknown(DriveClass::Flash)
        };
        let list = (0..100).map(|number| named(&format!("p{number}"), &format!("model {number}*"))).collect();
        let profiles = Profiles::new(list, Profile::unknown(DriveClass::Flash));
        assert_eq!(profiles.of("Model 7", false).name, "p7");
        assert_eq!(profiles.of("Model 77", true).name, "p7", "the first that fits");
        assert_eq!(profiles.of("something else", false).name, "unknown flash");
        assert_eq!(profiles.of("something else", true).name, "unknown disk");
        for class in [DriveClass::Flash, DriveClass::Disk, DriveClass::Memory] {
            assert_eq!(Profile::unknown(class).fault(), None);
        }
    }
}

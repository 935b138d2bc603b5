//! What to do next: the mix of operations, block sizes, places.
//!
//! The mix is dealt from a *deck*: for 70/30/0.1 one of 1001 cards (700 reads, 300
//! writes, 1 other), shuffled by the seed, dealt to the end, shuffled again. So the
//! measured mix is that of the deck to within one deck, in every run (R-SCOPE-02), and
//! the order is still random.
//!
//! A virtual machine (`--vms`) is a folder of [`FILES_PER_VM`] files: a few disks that
//! hold most of the bytes, a swap file, and several dozen small files (descriptors,
//! logs, snapshots). Accesses are spread by bytes.

use std::ops::Range;
use std::str::FromStr;

use crate::expectation::{FileSet, FileSpec};
use crate::random::Random;

/// Files of one virtual machine.
pub const FILES_PER_VM: u64 = 36;

/// Kinds of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// READ.
    Read,
    /// WRITE, stable.
    Write,
    /// GETATTR, SETATTR, CREATE, RENAME or REMOVE, in turn.
    Other,
}

/// The option's text does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOption {
    /// Not a mix.
    #[error("\"{0}\" is not a mix: read, write, randrw, vm, or READ/WRITE[/OTHER] in percent")]
    Mix(String),
    /// Not a size.
    #[error("\"{0}\" is not a size: 8k, 64KiB, 1m, ...")]
    Size(String),
}

/// Shares of the operations, in thousandths of a percent point of their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    read: u32,
    write: u32,
    other: u32,
}

impl FromStr for Mix {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        match text {
            "read" | "randread" => return Ok(Mix { read: 1, write: 0, other: 0 }),
            "write" | "randwrite" => return Ok(Mix { read: 0, write: 1, other: 0 }),
            "randrw" => return Ok(Mix { read: 1, write: 1, other: 0 }),
            "vm" => return Ok(Mix { read: 700, write: 300, other: 1 }),
            _ => {}
        }
        let bad = || BadOption::Mix(text.into());
        let mut shares = text.split('/').map(thousandths);
        let mut next = || shares.next().unwrap_or(Some(0)).ok_or_else(bad);
        let (read, write, other) = (next()?, next()?, next()?);
        let divisor = gcd(gcd(read, write), other);
        if divisor == 0 || shares.next().is_some() || !text.contains('/') {
            return Err(bad());
        }
        Ok(Mix { read: read / divisor, write: write / divisor, other: other / divisor })
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [read, write, other] = self.percent();
        write!(f, "{read:.4}/{write:.4}/{other:.4}")
    }
}

/// A decimal of at most 1000 with up to three places, times 1000.
fn thousandths(text: &str) -> Option<u32> {
    let value: f64 = text.parse().ok()?;
    (0.0..=1000.0).contains(&value).then(|| (value * 1000.0).round() as u32)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Mix {
    /// Whether anything is read.
    pub fn reads(&self) -> bool {
        self.read > 0
    }

    /// Shares of read, write and other, in percent.
    pub fn percent(&self) -> [f64; 3] {
        let sum = f64::from(self.read + self.write + self.other);
        [self.read, self.write, self.other].map(|share| f64::from(share) * 100.0 / sum)
    }

    /// Cards of one deck.
    pub fn deck_cards(&self) -> u64 {
        u64::from(self.read) + u64::from(self.write) + u64::from(self.other)
    }

    /// Whether counts of read, write and other operations are this mix: reads and
    /// writes within one percent point, other within half and twice its share
    /// (R-SCOPE-02: 0.05 to 0.2 % for 70/30/0.1). Undecided (`None`) below ten decks.
    pub fn is_met_by(&self, counts: [u64; 3]) -> Option<bool> {
        let sum: u64 = counts.iter().sum();
        if sum < 10 * self.deck_cards() {
            return None;
        }
        let measured = counts.map(|count| count as f64 * 100.0 / sum as f64);
        let wanted = self.percent();
        let near = |kind: usize| (measured[kind] - wanted[kind]).abs() <= 1.0;
        Some(near(0) && near(1) && (wanted[2] / 2.0..=wanted[2] * 2.0).contains(&measured[2]))
    }
}

/// A number of bytes: `8192`, `8k`, `64KiB`, `1m`, `2g`, `1t` (powers of 1024).
pub fn parse_bytes(text: &str) -> Result<u64, BadOption> {
    let bad = || BadOption::Size(text.into());
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(bad()),
    };
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).filter(|&bytes| bytes > 0).ok_or_else(bad)
}

/// Order of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Uniform over all bytes.
    Random,
    /// One front moving through all files, again and again.
    Sequential,
}

/// `count` files of `file_bytes` each, cut to whole units.
pub fn flat_files(count: u64, file_bytes: u64, unit_bytes: u32) -> Vec<FileSpec> {
    let units = (file_bytes / u64::from(unit_bytes)).max(1);
    (0..count).map(|number| FileSpec { path: format!("file-{number}.img"), units }).collect()
}

/// Files of `vms` virtual machines of about `vm_bytes` each.
pub fn vm_files(vms: u64, vm_bytes: u64, unit_bytes: u32) -> Vec<FileSpec> {
    let units_of = |thousandths: u64| (vm_bytes / 1000 * thousandths / u64::from(unit_bytes)).max(1);
    let mut files = Vec::new();
    for vm in 0..vms {
        let mut add = |name: String, units| files.push(FileSpec { path: format!("vm-{vm}/{name}"), units });
        for (disk, share) in [600, 230, 50].into_iter().enumerate() {
            add(format!("disk-{disk}-flat.vmdk"), units_of(share));
        }
        add("memory.vswp".into(), units_of(80));
        for snapshot in 0..4 {
            add(format!("disk-0-00000{snapshot}-delta.vmdk"), units_of(8 >> snapshot));
        }
        for small in 8..FILES_PER_VM {
            let kinds = ["vmx", "nvram", "vmsd", "log"];
            add(format!("vm-{small}.{}", kinds[small as usize % kinds.len()]), 1 + small % 5);
        }
    }
    files
}

/// Chooses operations.
#[derive(Debug)]
pub struct Chooser {
    seed: u64,
    random: Random,
    deck: Vec<Kind>,
    dealt: usize,
    /// Units of one operation, each with its weight.
    sizes: Vec<u64>,
    pattern: Pattern,
    front: u64,
}

impl Chooser {
    /// From a mix, the sizes of operations in units (each equally likely), a pattern
    /// and a seed.
    pub fn new(mix: Mix, sizes: Vec<u64>, pattern: Pattern, seed: u64) -> Self {
        assert!(!sizes.is_empty() && !sizes.contains(&0), "an operation covers units");
        let cards = [(Kind::Read, mix.read), (Kind::Write, mix.write), (Kind::Other, mix.other)];
        let deck: Vec<Kind> = cards.into_iter().flat_map(|(kind, n)| std::iter::repeat_n(kind, n as usize)).collect();
        let dealt = deck.len();
        Chooser { seed, random: Random::new(seed), deck, dealt, sizes, pattern, front: 0 }
    }

    /// The seed it was made from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next kind of operation.
    pub fn kind(&mut self) -> Kind {
        if self.dealt == self.deck.len() {
            self.random.shuffle(&mut self.deck);
            self.dealt = 0;
        }
        self.dealt += 1;
        self.deck[self.dealt - 1]
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// The next place: units of one file, aligned to the operation's size.
    pub fn units(&mut self, files: &FileSet) -> Range<u64> {
        let size = self.sizes[self.random.below(self.sizes.len() as u64) as usize];
        let unit = match self.pattern {
            Pattern::Random => self.random.below(files.units()),
            Pattern::Sequential => self.front % files.units(),
        };
        let place = files.place(unit);
        let file = files.range(place.file);
        let start = file.start + place.unit / size * size;
        let end = (start + size).min(file.end);
        if self.pattern == Pattern::Sequential {
            self.front = end;
        }
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decides R-SCOPE-02. For the generator: the dealt mix is 70/30/0.1 within the
    /// bounds after any number of operations from ten decks on.
    #[test]
    fn the_reference_mix_is_kept_at_every_moment() {
        let mix: Mix = "70/30/0.1".parse().unwrap();
        assert_eq!(mix, "vm".parse().unwrap());
        for seed in 0..5 {
            let mut chooser = Chooser::new(mix, vec![1], Pattern::Random, seed);
            let mut counts = [0; 3];
            for dealt in 1..100_000 {
                counts[chooser.kind() as usize] += 1;
                let verdict = mix.is_met_by(counts);
                assert_eq!(verdict, (dealt >= 10 * mix.deck_cards()).then_some(true), "{counts:?}");
            }
        }
        assert_eq!(mix.is_met_by([71_100, 28_800, 100]), Some(false));
        assert_eq!(mix.is_met_by([70_000, 30_000, 250]), Some(false));
        assert_eq!(mix.is_met_by([70_000, 30_000, 40]), Some(false));
    }

    #[test]
    fn mixes_and_sizes_parse() {
        assert_eq!("read".parse::<Mix>().unwrap().percent(), [100.0, 0.0, 0.0]);
        assert_eq!("70/30".parse::<Mix>().unwrap(), Mix { read: 7, write: 3, other: 0 });
        for bad in ["", "70", "0/0", "a/b", "1/2/3/4", "-1/2", "70/30/nan"] {
            assert_eq!(bad.parse::<Mix>(), Err(BadOption::Mix(bad.into())));
        }
        assert_eq!(parse_bytes("8k"), Ok(8192));
        assert_eq!(parse_bytes("1MiB"), Ok(1 << 20));
        for bad in ["", "k", "0", "8q", "99999999999t"] {
            assert_eq!(parse_bytes(bad), Err(BadOption::Size(bad.into())));
        }
    }

    #[test]
    fn places_stay_in_one_file_and_sequences_cover_everything() {
        let files = FileSet::new(vm_files(2, 64 << 20, 8192));
        assert_eq!(files.files().len() as u64, 2 * FILES_PER_VM);
        let mut random = Chooser::new("read".parse().unwrap(), vec![1, 8, 128], Pattern::Random, 1);
        for _ in 0..10_000 {
            let units = random.units(&files);
            assert!(!units.is_empty());
            assert_eq!(files.place(units.start).file, files.place(units.end - 1).file);
        }
        let mut sequential = Chooser::new("read".parse().unwrap(), vec![8], Pattern::Sequential, 1);
        let mut front = 0;
        while front < files.units() {
            let units = sequential.units(&files);
            assert_eq!(units.start, front);
            front = units.end;
        }
        assert_eq!(sequential.units(&files).start, 0);
    }
}

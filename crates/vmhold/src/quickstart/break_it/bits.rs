//! Bits that are flipped in the files of drives, behind the server's back.
//!
//! The server cannot know of them before it reads them. Another drive that is lost until then could
//! be one too many, so the demo remembers where they are until a scrub or a check has read it all.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use control::pool::Pool;
use control::{Exit, Problem, codes};
use jiff::Timestamp;
use rustix::fs::SeekFrom;
use serde::{Deserialize, Serialize};

use super::{Broken, Standing, must_tolerate, number, path_of};
use crate::cli::Global;
use crate::place::{Place, read_json, unusable, write_json};
use crate::quickstart::running;
use crate::say::Say;

/// Where bits were flipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Flipped {
    /// Numbers of the drives.
    drives: Vec<u32>,
    /// When last.
    at: Timestamp,
}

impl Flipped {
    /// Those that nothing has read since.
    fn not_read(self, last_scrub: Option<Timestamp>) -> Vec<u32> {
        if last_scrub.is_some_and(|ended| ended > self.at) { Vec::new() } else { self.drives }
    }
}

/// Numbers of the drives with flipped bits that no scrub or check has been over.
pub(super) fn not_repaired(place: &Place, pool: &Pool) -> Vec<u32> {
    read_json::<Flipped>(&place.flipped()).map_or(Vec::new(), |flipped| flipped.not_read(pool.last_scrub))
}

/// Before they are flipped: a crash in between must not hide them.
fn remember(place: &Place, pool: &Pool, numbers: &[u8]) -> Result<(), Problem> {
    let mut drives = not_repaired(place, pool);
    drives.extend(numbers.iter().copied().map(u32::from));
    drives.sort_unstable();
    drives.dedup();
    write_json(&place.flipped(), &Flipped { drives, at: Timestamp::now() })
}

/// `break bits`.
pub(super) fn flip_some(count: u32, drive: Option<&str>, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let place = Place::of(&global.dir);
    let (manifest, _) = running(&place, global)?;
    let standing = Standing::of(global)?;
    let numbers = match drive {
        Some(drive) => {
            let number = number(drive, &manifest)?;
            must_tolerate(global, number)?;
            vec![number]
        }
        None => some_of(
            (1..=manifest.shape.drives).filter(|&number| !standing.lost.contains(&u32::from(number))).collect(),
            standing.tolerated,
        )?,
    };
    if numbers.is_empty() {
        return Err(Problem::new(&codes::WOULD_LOSE_REDUNDANCY, "the pool cannot lose another unit of a stripe")
            .why("bits are only flipped on drives that the pool could do without")
            .step("repair what earlier faults left, or bring drives back: vmhold quickstart check, pool show --map"));
    }
    remember(&place, &standing.pool, &numbers)?;
    for (index, &number) in numbers.iter().enumerate() {
        // The rest of the division goes to the first ones.
        let share = count as usize / numbers.len() + usize::from(index < count as usize % numbers.len());
        let path = path_of(global, number)?;
        flip(&path, share).map_err(|error| unusable(&path, &error))?;
    }
    let broken = Broken { what: "bits", drives: numbers, how: None, bits: Some(count), pid: None };
    Ok(say.done(broken, |broken| {
        let on: Vec<String> = broken.drives.iter().map(ToString::to_string).collect();
        let dir = global.dir.display();
        format!(
            "{count} bits are flipped on drives {}\nfind and repair them: vmhold quickstart check --dir {dir}\n",
            on.join(" and ")
        )
    }))
}

/// At most `count` of them, by chance.
fn some_of(mut numbers: Vec<u8>, count: usize) -> Result<Vec<u8>, Problem> {
    let mut chosen = Vec::new();
    while chosen.len() < count && !numbers.is_empty() {
        chosen.push(numbers.swap_remove(random(numbers.len() as u64).map_err(|error| no_chance(&error))? as usize));
    }
    Ok(chosen)
}

/// Flips `count` bits, each anywhere in what was written to the file.
fn flip(path: &Path, count: usize) -> std::io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let written = written_areas(&file)?;
    let all: u64 = written.iter().map(|(start, end)| end - start).sum();
    for _ in 0..if all == 0 { 0 } else { count } {
        let mut at = random(all)?;
        let area = written.iter().find_map(|&(start, end)| {
            let length = end - start;
            let here = (at < length).then_some(start + at);
            at = at.saturating_sub(length);
            here
        });
        let place = area.expect("a number below the sum lies in one of them");
        let mut byte = [0];
        file.read_exact_at(&mut byte, place)?;
        byte[0] ^= 1 << random(8)?;
        file.write_all_at(&byte, place)?;
    }
    file.sync_all()
}

fn written_areas(file: &File) -> std::io::Result<Vec<(u64, u64)>> {
    let length = file.metadata()?.len();
    let (mut areas, mut at) = (Vec::new(), 0);
    while at < length {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        areas.push((start, end));
        at = end;
    }
    Ok(areas)
}

/// A number below `below`.
fn random(below: u64) -> std::io::Result<u64> {
    getrandom::u64().map(|number| number % below).map_err(|error| std::io::Error::other(error.to_string()))
}

fn no_chance(error: &std::io::Error) -> Problem {
    Problem::new(&codes::PATH_UNUSABLE, "the system gives no random numbers").why(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_are_in_doubt_until_all_was_read_after_the_flips() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let flipped = Flipped { drives: vec![2, 5], at: at(100) };
        assert_eq!(flipped.clone().not_read(None), [2, 5]);
        assert_eq!(flipped.clone().not_read(Some(at(99))), [2, 5]);
        assert!(flipped.not_read(Some(at(101))).is_empty());
    }
}

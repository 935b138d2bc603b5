//! Drives that are moved: pulled, pushed back, swapped. Their files are renamed; nothing in
//! them changes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use control::pool::DriveState;
use control::{Exit, Problem, codes};

use super::{
    Broken, LOOK_EVERY, NOTICED_WITHIN, Standing, must_tolerate, number, out, path_of, pool, wait_until_noticed,
};
use crate::cli::Global;
use crate::place::{Place, unusable};
use crate::quickstart::manifest::{Manifest, pulled};
use crate::quickstart::running;
use crate::say::Say;

fn rename(from: &Path, to: &Path) -> Result<(), Problem> {
    std::fs::rename(from, to).map_err(|error| unusable(from, &error))
}

fn done(what: &'static str, drives: Vec<u8>, text: String, say: &Say) -> Exit {
    let broken = Broken { what, drives, how: None, bits: None, pid: None };
    say.done(broken, move |_| text.clone())
}

/// `break pull`.
pub(super) fn pull(drive: &str, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let place = Place::of(&global.dir);
    let (manifest, _) = running(&place, global)?;
    let number = number(drive, &manifest)?;
    must_tolerate(global, number)?;
    let path = path_of(global, number)?;
    rename(&path, &pulled(&path))?;
    wait_until_noticed(global, number)?;
    let dir = global.dir.display();
    let text = format!("drive {number} is pulled\nback: vmhold quickstart break push {number} --dir {dir}\n");
    Ok(done("pull", vec![number], text, say))
}

/// `break push`.
pub(super) fn push(drive: &str, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let place = Place::of(&global.dir);
    let (manifest, _) = running(&place, global)?;
    let number = number(drive, &manifest)?;
    let path = pulled_from(number, &manifest, &place, global)?;
    rename(&pulled(&path), &path)?;
    // A spare may have its place by now; then it is a drive too many, and only lies there.
    let is_its_place = path_of(global, number)? == path;
    if is_its_place {
        wait_until_online(global, &[number])?;
    }
    let text = if is_its_place {
        format!("drive {number} is back; only what was written meanwhile was filled in\n")
    } else {
        format!("drive {number} is back, but a spare has its place; it is not used\n")
    };
    Ok(done("push", vec![number], text, say))
}

/// Where the drive was pulled from.
fn pulled_from(number: u8, manifest: &Manifest, place: &Place, global: &Global) -> Result<PathBuf, Problem> {
    let first = manifest.drives(place).get(usize::from(number) - 1).cloned();
    let candidates = [Some(path_of(global, number)?), first];
    let found = candidates.into_iter().flatten().find(|path| pulled(path).exists() && !path.exists());
    found.ok_or_else(|| {
        Problem::new(&codes::NOT_FOUND, format!("drive {number} is not pulled"))
            .step(format!("vmhold quickstart break pull {number} --dir {}", global.dir.display()))
    })
}

/// `break swap-drives`.
pub(super) fn swap((first, second): (&str, &str), global: &Global, say: &Say) -> Result<Exit, Problem> {
    let place = Place::of(&global.dir);
    let (manifest, _) = running(&place, global)?;
    let (first, second) = (number(first, &manifest)?, number(second, &manifest)?);
    if first == second {
        return Err(Problem::new(&codes::BAD_INPUT, "two different drives can be swapped"));
    }
    let standing = Standing::of(global)?;
    if standing.tolerated < 2 || !out(&standing.pool).is_empty() {
        return Err(Problem::new(&codes::WOULD_LOSE_REDUNDANCY, "both drives are out for a moment")
            .why("the pool must be able to lose two"));
    }
    let (one, other) = (path_of(global, first)?, path_of(global, second)?);
    rename(&one, &pulled(&one))?;
    rename(&other, &one)?;
    rename(&pulled(&one), &other)?;
    // Both files are others than were opened; their labels say who they are.
    wait_until_swapped(global, (first, &other), (second, &one))?;
    let text = format!("drives {first} and {second} were swapped and found again by their labels\n");
    Ok(done("swap-drives", vec![first, second], text, say))
}

fn wait_until_swapped(global: &Global, first: (u8, &Path), second: (u8, &Path)) -> Result<(), Problem> {
    until(global, "the swapped drives are not found again yet", || {
        let drives = pool(global)?.drives;
        Ok([first, second].iter().all(|(number, path)| {
            let is_it = |drive: &&control::pool::Drive| drive.slot == u32::from(*number);
            let found = drives.iter().find(is_it);
            found.is_some_and(|drive| Path::new(&drive.path) == *path && drive.state == DriveState::Online)
        }))
    })
}

fn wait_until_online(global: &Global, numbers: &[u8]) -> Result<(), Problem> {
    until(global, "the drive is pushed back, and not in use again yet", || {
        let out = out(&pool(global)?);
        Ok(numbers.iter().all(|number| !out.contains(&u32::from(*number))))
    })
}

fn until(global: &Global, what: &str, mut is_so: impl FnMut() -> Result<bool, Problem>) -> Result<(), Problem> {
    let begun = Instant::now();
    while begun.elapsed() < NOTICED_WITHIN * 2 {
        if is_so()? {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(Problem::new(&codes::TIMED_OUT, what).step(format!("vmhold drive list --dir {}", global.dir.display())))
}

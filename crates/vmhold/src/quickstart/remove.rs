//! `quickstart destroy`: stops the server it started and removes the files it made.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use control::{Document, Exit, Problem, codes};
use rustix::process::Signal;
use serde::Serialize;

use crate::cli::Global;
use crate::place::{Place, read_json, unusable};
use crate::process::ProcessId;
use crate::quickstart::manifest::Manifest;
use crate::say::Say;
use crate::serve::is_served;

/// A checkpoint of a full journal is done by then.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// What is gone.
#[derive(Debug, Serialize)]
pub struct Destroyed {
    /// The folder.
    pub dir: String,
    /// How many were removed.
    pub removed_files: usize,
    /// Whether the folder is gone, too.
    pub folder_removed: bool,
}

impl Document for Destroyed {
    const SCHEMA: &'static str = "vmhold.quickstart.destroy/v1";
}

/// Stops and removes the demo of the folder.
pub fn run(global: &Global, say: &Say) -> Result<Exit, Problem> {
    let place = Place::of(&global.dir);
    let manifest = Manifest::load(&place, &global.dir)?;
    manifest.removable(&place)?;
    stop(&place)?;
    if is_served(&place.config()) {
        return Err(Problem::new(
            &codes::DEMO_RUNNING,
            format!("{} is served by another process", global.dir.display()),
        )
        .step("stop that `vmhold serve` first"));
    }
    let removed_files = remove(&manifest, &place)?;
    let folder_removed = !place.dir().exists();
    if !folder_removed {
        return Err(Problem::new(&codes::NOT_OURS_TO_REMOVE, format!("{} holds other files", global.dir.display()))
            .why(format!("the {removed_files} files of the demo are gone, the others are not ours")));
    }
    let destroyed = Destroyed { dir: place.dir().display().to_string(), removed_files, folder_removed };
    Ok(say.done(destroyed, |destroyed| format!("the demo is gone: {} files removed\n", destroyed.removed_files)))
}

/// `quickstart stop`.
#[derive(Debug, Serialize)]
pub struct Stopped {
    /// The folder.
    pub dir: String,
}

impl Document for Stopped {
    const SCHEMA: &'static str = "vmhold.quickstart.stop/v1";
}

/// Stops the demo of the folder; stopped already is as good.
pub fn stop_only(global: &Global, say: &Say) -> Result<Exit, Problem> {
    let place = Place::of(&global.dir);
    Manifest::load(&place, &global.dir)?;
    stop(&place)?;
    let dir = global.dir.display();
    let stopped = Stopped { dir: place.dir().display().to_string() };
    Ok(say.done(stopped, |_| format!("stopped; again: vmhold quickstart resume --dir {dir}\n")))
}

/// The process that this demo started in a folder, if it still runs.
pub fn process_of(place: &Place) -> Option<ProcessId> {
    read_json::<ProcessId>(&place.server()).filter(|process| process.is_alive())
}

/// Ends the server this demo started, if it still runs.
pub fn stop(place: &Place) -> Result<(), Problem> {
    let Some(process) = process_of(place) else { return Ok(()) };
    process.signal(Signal::TERM);
    if process.wait(STOPPED_WITHIN) {
        return Ok(());
    }
    process.signal(Signal::KILL);
    if process.wait(KILLED_WITHIN) {
        return Ok(());
    }
    Err(Problem::new(&codes::CONFLICT, format!("server {} does not end", process.pid)))
}

/// Removes what the manifest names and the folders that are empty then. The manifest is
/// the last file to go, so that what was interrupted can be done again.
pub fn remove(manifest: &Manifest, place: &Place) -> Result<usize, Problem> {
    let (mut files, folders) = manifest.removable(place)?;
    files.sort_by_key(|file| *file == place.manifest());
    let removed = self::files(&files)?;
    empty_folders(&[folders, vec![place.dir().to_owned()]].concat())?;
    Ok(removed)
}

/// Removes the files that are there; says how many.
pub fn files(files: &[PathBuf]) -> Result<usize, Problem> {
    let mut removed = 0;
    for file in files {
        match std::fs::remove_file(file) {
            Ok(()) => removed += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(unusable(file, &error)),
        }
    }
    Ok(removed)
}

/// Removes the folders that are empty, in this order.
pub fn empty_folders(folders: &[PathBuf]) -> Result<(), Problem> {
    for folder in folders {
        match std::fs::remove_dir(folder) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {}
            Err(error) => return Err(unusable(folder, &error)),
        }
    }
    Ok(())
}

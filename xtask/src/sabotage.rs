//! `cargo xtask sabotage`: the test of the tests. Each file `tests/sabotage/*.patch` plants
//! one bug in a copy of the tree, and the test it names must fail there.
//!
//! A patch starts with what it is, then comes a plain diff:
//!
//! ```text
//! Bug: what is wrong with the product, and what that would cost
//! Found by: cargo arguments, such as `test -p journal --test torn every_subset`
//! Cheap: yes                                       (every change runs it; others only a soak)
//! ```
//!
//! Product code knows nothing of this: there are no switches. A patch that no longer
//! applies, a copy that no longer builds and a test that does not end are failures, too:
//! each would make the check vacuous. So would a test that fails anyway; therefore a full
//! run first demands that every test named passes on the copy as it is.
//!
//! The copy has a build folder of its own: cargo names what it builds by paths within the
//! workspace, so a shared one would give a sabotaged build for a sound one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use crate::run::Call;
use crate::tree::Tree;

/// Where the patches are.
const FOLDER: &str = "tests/sabotage";
/// Patches that there are at least. May only grow.
const PATCHES_MIN: usize = 12;
/// A test gets this long, in seconds; one that hangs has found nothing.
const TEST_SECONDS_MAX: &str = "900";
/// What `timeout` ends with when the time is over.
const TIMED_OUT: Option<i32> = Some(124);

/// Arguments of `sabotage`.
#[derive(Args)]
pub struct SabotageArgs {
    /// Only patches whose name contains this
    #[arg(long)]
    pub only: Option<String>,
    /// Only the few that every change runs
    #[arg(long)]
    pub cheap: bool,
}

/// A planted bug.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Patch {
    name: String,
    bug: String,
    /// Arguments of cargo.
    found_by: String,
    cheap: bool,
}

impl Patch {
    fn parse(name: &str, text: &str) -> Result<Patch, String> {
        let head = text.split("\ndiff --git ").next().unwrap_or_default();
        let field =
            |key: &str| head.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned());
        let needed = |key: &str| field(key).ok_or(format!("{name}: no line `{key} ...`"));
        let found_by = needed("Found by:")?;
        if !found_by.starts_with("test ") && !found_by.starts_with("run ") {
            return Err(format!("{name}: `Found by:` names neither `test ...` nor `run ...`"));
        }
        Ok(Patch {
            name: name.to_owned(),
            bug: needed("Bug:")?,
            found_by,
            cheap: field("Cheap:").is_some_and(|value| value == "yes"),
        })
    }
}

/// `cargo xtask sabotage`. Returns how many bugs were planted and found.
pub fn sabotage(tree: &Tree, args: &SabotageArgs) -> Result<usize, String> {
    let patches = patches(tree)?;
    let copy = Copy::make(tree)?;
    let mut failed: Vec<String> = patches.iter().filter_map(|patch| copy.check_applies(patch).err()).collect();
    if !failed.is_empty() {
        return Err(failed.join("; "));
    }
    let wanted = |patch: &&Patch| {
        (!args.cheap || patch.cheap) && args.only.as_ref().is_none_or(|only| patch.name.contains(only))
    };
    let chosen: Vec<&Patch> = patches.iter().filter(wanted).collect();
    if chosen.is_empty() {
        return Err("no patch of that name".into());
    }
    if !args.cheap {
        copy.demand_sound(&chosen)?;
    }
    for patch in &chosen {
        let started = Instant::now();
        let outcome = copy.plant(patch);
        let (word, note) = outcome.as_ref().map_or_else(|why| ("MISSED", why.as_str()), |()| ("found", ""));
        println!("{word:<7} {:<34} {:>4.0} s  {}{note}", patch.name, started.elapsed().as_secs_f64(), patch.bug);
        failed.extend(outcome.err());
    }
    if failed.is_empty() { Ok(chosen.len()) } else { Err(failed.join("; ")) }
}

fn patches(tree: &Tree) -> Result<Vec<Patch>, String> {
    let folder = tree.root().join(FOLDER);
    let entries = fs::read_dir(&folder).map_err(|why| format!("{FOLDER}: {why}"))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(path).map_err(|why| format!("{name}: {why}"))?;
        Patch::parse(&name, &text)
    };
    let patches: Vec<Patch> = paths.iter().map(read).collect::<Result<_, _>>()?;
    if patches.len() < PATCHES_MIN {
        return Err(format!("{FOLDER} holds {} patches; there were {PATCHES_MIN}", patches.len()));
    }
    Ok(patches)
}

/// A copy of the tree in the build folder.
struct Copy {
    folder: PathBuf,
    build: PathBuf,
    patches: PathBuf,
}

impl Copy {
    /// Copies every file that git knows or would add. Files that are the same already keep
    /// their time, so that little is built anew.
    fn make(tree: &Tree) -> Result<Copy, String> {
        let base = tree.build_folder()?.join("sabotage");
        let copy = Copy { folder: base.join("tree"), build: base.join("build"), patches: tree.root().join(FOLDER) };
        let paths = tree.paths()?;
        for path in &paths {
            let to = copy.folder.join(path);
            copy_file(&tree.root().join(path), &to).map_err(|why| format!("{}: {why}", to.display()))?;
        }
        let known: BTreeSet<PathBuf> = paths.iter().map(|path| copy.folder.join(path)).collect();
        remove_others(&copy.folder, &known).map_err(|why| format!("{}: {why}", copy.folder.display()))?;
        Ok(copy)
    }

    fn git_apply(&self, patch: &Patch, how: &[&str]) -> Call {
        // Within the checkout git would take paths relative to its root.
        let ceiling = self.folder.parent().unwrap_or(&self.folder).to_string_lossy().into_owned();
        let file = self.patches.join(format!("{}.patch", patch.name));
        Call::new("git", &self.folder)
            .env("GIT_CEILING_DIRECTORIES", &ceiling)
            .args(["apply", "-C1"])
            .args(how)
            .args([file.as_os_str()])
    }

    fn check_applies(&self, patch: &Patch) -> Result<(), String> {
        match self.git_apply(patch, &["--check"]).captured()? {
            (Some(0), _) => Ok(()),
            (_, why) => Err(format!("{} no longer applies: plant it anew ({})", patch.name, why.trim())),
        }
    }

    /// Every test named passes on the copy as it is.
    fn demand_sound(&self, patches: &[&Patch]) -> Result<(), String> {
        let tests: BTreeSet<&str> = patches.iter().map(|patch| patch.found_by.as_str()).collect();
        for test in tests {
            println!("sound?  cargo {test}");
            self.build(test)?;
            let (code, output) = self.run(test)?;
            if code != Some(0) {
                return Err(format!("`cargo {test}` fails without any planted bug:\n{}", tail(&output)));
            }
            if output.contains("running 0 tests") && !output.contains("1 passed") {
                return Err(format!("`cargo {test}` runs no test"));
            }
        }
        Ok(())
    }

    /// Plants the bug, demands that it is found, and takes it out again.
    fn plant(&self, patch: &Patch) -> Result<(), String> {
        self.git_apply(patch, &[]).captured()?;
        let outcome = self.build(&patch.found_by).and_then(|()| self.run(&patch.found_by));
        let (restored, why) = self.git_apply(patch, &["--reverse"]).captured()?;
        if restored != Some(0) {
            return Err(format!("{} cannot be taken out again: {why}", patch.name));
        }
        match outcome? {
            (Some(0), _) => Err(format!("{}: `cargo {}` does not find it", patch.name, patch.found_by)),
            (code, _) if code == TIMED_OUT => Err(format!("{}: `cargo {}` does not end", patch.name, patch.found_by)),
            _ => Ok(()),
        }
    }

    fn build(&self, command: &str) -> Result<(), String> {
        let (words, _) = command.split_once(" -- ").unwrap_or((command, ""));
        let built = match words.split_once(' ') {
            Some(("test", rest)) => format!("test --no-run {rest}"),
            Some((_, rest)) => format!("build {rest}"),
            None => words.to_owned(),
        };
        match self.cargo(&built).captured()? {
            (Some(0), _) => Ok(()),
            (_, output) => Err(format!("`cargo {built}` fails in the copy:\n{}", tail(&output))),
        }
    }

    fn run(&self, command: &str) -> Result<(Option<i32>, String), String> {
        self.cargo(command).captured()
    }

    fn cargo(&self, command: &str) -> Call {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        Call::new("timeout", &self.folder)
            .env("CARGO_TARGET_DIR", &self.build.to_string_lossy())
            .args([TEST_SECONDS_MAX, cargo.as_str()])
            .args(command.split_whitespace())
    }
}

fn copy_file(from: &Path, to: &Path) -> std::io::Result<()> {
    let content = fs::read(from)?;
    if fs::read(to).is_ok_and(|there| there == content) {
        return Ok(());
    }
    to.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(to, content)
}

fn remove_others(folder: &Path, known: &BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, known)?;
        } else if !known.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_says_what_it_is_before_its_diff() {
        let text = "Bug: parity is wrong\nFound by: test -p parity rows\n\ndiff --git a/x b/x\n+Cheap: yes\n";
        let patch = Patch::parse("p", text).unwrap();
        assert_eq!(
            (patch.bug.as_str(), patch.found_by.as_str(), patch.cheap),
            ("parity is wrong", "test -p parity rows", false)
        );
        assert!(Patch::parse("p", "Bug: x\n\ndiff --git a/x b/x\n").is_err());
        assert!(Patch::parse("p", "Bug: x\nFound by: nobody\n").is_err());
    }

    #[test]
    fn every_patch_is_well_formed_and_applies() {
        let tree = Tree::open().unwrap();
        for patch in patches(&tree).unwrap() {
            let file = tree.root().join(FOLDER).join(format!("{}.patch", patch.name));
            let call = Call::new("git", tree.root()).args(["apply", "-C1", "--check"]).args([file.as_os_str()]);
            let (code, why) = call.captured().unwrap();
            assert_eq!(code, Some(0), "{} no longer applies: plant it anew ({why})", patch.name);
        }
    }
}

//! `cargo xtask sabotage`: the test of the tests. Each file `tests/sabotage/*.bug` plants
//! one bug in a copy of the tree, and the test it names must fail there.
//!
//! ```text
//! Bug: what is wrong with the product, and what that would cost
//! Found by: cargo arguments, such as `test -p journal --test torn every_subset`
//! Cheap: yes                                       (every change runs it; others only a soak)
//!
//! In: crates/journal/src/ring.rs
//! <<<<
//! text that stands there exactly once
//! ====
//! text that takes its place
//! >>>>
//! ```
//!
//! Not diffs: those fail when a line nearby changes, this only when the very line does.
//! Product code knows nothing of it: there are no switches. A bug that can no longer be
//! planted, a copy that no longer builds and a test that does not end are failures, too:
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

/// Where the bugs are.
const FOLDER: &str = "tests/sabotage";
/// Bugs that there are at least. May only grow.
const BUGS_MIN: usize = 59;
/// A test gets this long, in seconds; one that hangs has found nothing.
const TEST_SECONDS_MAX: &str = "900";
/// What `timeout` ends with when the time is over.
const TIMED_OUT: Option<i32> = Some(124);

/// Arguments of `sabotage`.
#[derive(Args)]
pub struct SabotageArgs {
    /// Only bugs whose name contains this
    #[arg(long)]
    pub only: Option<String>,
    /// Only the few that every change runs
    #[arg(long)]
    pub cheap: bool,
}

/// A change of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edit {
    file: String,
    old: String,
    new: String,
}

impl Edit {
    /// The text with the change in it, if it can be made in exactly one place.
    fn made_in(&self, text: &str) -> Option<String> {
        (text.matches(&self.old).count() == 1).then(|| text.replacen(&self.old, &self.new, 1))
    }
}

/// A planted bug.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bug {
    name: String,
    what: String,
    /// Arguments of cargo.
    found_by: String,
    cheap: bool,
    edits: Vec<Edit>,
}

impl Bug {
    fn parse(name: &str, text: &str) -> Result<Bug, String> {
        let mut parts = text.split("\nIn: ");
        let head = parts.next().unwrap_or_default();
        let field =
            |key: &str| head.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned());
        let needed = |key: &str| field(key).ok_or(format!("{name}: no line `{key} ...`"));
        let found_by = needed("Found by:")?;
        if !found_by.starts_with("test ") && !found_by.starts_with("run ") {
            return Err(format!("{name}: `Found by:` names neither `test ...` nor `run ...`"));
        }
        let edit = |part: &str| {
            let (file, rest) = part.split_once("\n<<<<\n")?;
            let (old, rest) = rest.split_once("\n====\n")?;
            let (new, _) = rest.split_once("\n>>>>").or(rest.split_once(">>>>"))?;
            Some(Edit { file: file.trim().to_owned(), old: old.to_owned(), new: new.to_owned() })
        };
        let edits: Vec<Edit> =
            parts.map(edit).collect::<Option<_>>().ok_or(format!("{name}: an `In:` without <<<<, ==== and >>>>"))?;
        if edits.is_empty() {
            return Err(format!("{name}: changes nothing"));
        }
        let cheap = field("Cheap:").is_some_and(|value| value == "yes");
        Ok(Bug { name: name.to_owned(), what: needed("Bug:")?, found_by, cheap, edits })
    }

    /// Plants it below `root`; what stood in the files before.
    fn plant(&self, root: &Path) -> Result<Vec<(PathBuf, String)>, String> {
        let mut before: Vec<(PathBuf, String)> = Vec::new();
        for edit in &self.edits {
            let path = root.join(&edit.file);
            let text = fs::read_to_string(&path).map_err(|why| format!("{}: {}: {why}", self.name, edit.file))?;
            let Some(changed) = edit.made_in(&text) else {
                restore(&before)?;
                return Err(format!("{}: plant it anew, {} no longer has its text just once", self.name, edit.file));
            };
            fs::write(&path, changed).map_err(|why| format!("{}: {why}", path.display()))?;
            before.push((path, text));
        }
        Ok(before)
    }
}

/// Puts files back, the last change first.
fn restore(before: &[(PathBuf, String)]) -> Result<(), String> {
    before
        .iter()
        .rev()
        .try_for_each(|(path, text)| fs::write(path, text).map_err(|why| format!("{}: {why}", path.display())))
}

/// `cargo xtask sabotage`. Returns how many bugs were planted and found.
pub fn sabotage(tree: &Tree, args: &SabotageArgs) -> Result<usize, String> {
    let bugs = bugs(tree)?;
    let copy = Copy::make(tree)?;
    let mut failed: Vec<String> = bugs.iter().filter_map(|bug| copy.check(bug).err()).collect();
    if !failed.is_empty() {
        return Err(failed.join("; "));
    }
    let wanted =
        |bug: &&Bug| (!args.cheap || bug.cheap) && args.only.as_ref().is_none_or(|only| bug.name.contains(only));
    let chosen: Vec<&Bug> = bugs.iter().filter(wanted).collect();
    if chosen.is_empty() {
        return Err("no bug of that name".into());
    }
    if !args.cheap {
        copy.demand_sound(&chosen)?;
    }
    for bug in &chosen {
        let started = Instant::now();
        let outcome = copy.look_for(bug);
        let (word, note) = outcome.as_ref().map_or_else(|why| ("MISSED", why.as_str()), |()| ("found", ""));
        println!("{word:<7} {:<36} {:>4.0} s  {}{note}", bug.name, started.elapsed().as_secs_f64(), bug.what);
        failed.extend(outcome.err());
    }
    if failed.is_empty() { Ok(chosen.len()) } else { Err(failed.join("; ")) }
}

fn bugs(tree: &Tree) -> Result<Vec<Bug>, String> {
    let folder = tree.root().join(FOLDER);
    let entries = fs::read_dir(&folder).map_err(|why| format!("{FOLDER}: {why}"))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "bug"));
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(path).map_err(|why| format!("{name}: {why}"))?;
        Bug::parse(&name, &text)
    };
    let bugs: Vec<Bug> = paths.iter().map(read).collect::<Result<_, _>>()?;
    if bugs.len() < BUGS_MIN {
        return Err(format!("{FOLDER} holds {} bugs; there were {BUGS_MIN}", bugs.len()));
    }
    Ok(bugs)
}

/// A copy of the tree in the build folder.
struct Copy {
    folder: PathBuf,
    build: PathBuf,
}

impl Copy {
    /// Copies every file that git knows or would add. Files that are the same already keep
    /// their time, so that little is built anew.
    fn make(tree: &Tree) -> Result<Copy, String> {
        let base = tree.build_folder()?.join("sabotage");
        let copy = Copy { folder: base.join("tree"), build: base.join("build") };
        let paths = tree.paths()?;
        for path in &paths {
            let to = copy.folder.join(path);
            copy_file(&tree.root().join(path), &to).map_err(|why| format!("{}: {why}", to.display()))?;
        }
        let known: BTreeSet<PathBuf> = paths.iter().map(|path| copy.folder.join(path)).collect();
        remove_others(&copy.folder, &known).map_err(|why| format!("{}: {why}", copy.folder.display()))?;
        Ok(copy)
    }

    /// The bug can be planted.
    fn check(&self, bug: &Bug) -> Result<(), String> {
        restore(&bug.plant(&self.folder)?)
    }

    /// Every test named passes on the copy as it is.
    fn demand_sound(&self, bugs: &[&Bug]) -> Result<(), String> {
        let tests: BTreeSet<&str> = bugs.iter().map(|bug| bug.found_by.as_str()).collect();
        for test in tests {
            println!("sound?  cargo {test}");
            self.build(test)?;
            let (code, output) = self.run(test)?;
            if code != Some(0) {
                return Err(format!("`cargo {test}` fails without any planted bug:\n{}", tail(&output)));
            }
            if test.starts_with("test ")
                && !output.lines().any(|line| line.starts_with("test result: ok") && !line.contains(" 0 passed"))
            {
                return Err(format!("`cargo {test}` runs no test"));
            }
        }
        Ok(())
    }

    /// Plants the bug, demands that it is found, and takes it out again.
    fn look_for(&self, bug: &Bug) -> Result<(), String> {
        let before = bug.plant(&self.folder)?;
        let outcome = self.build(&bug.found_by).and_then(|()| self.run(&bug.found_by));
        restore(&before)?;
        match outcome? {
            (Some(0), _) => Err(format!("{}: `cargo {}` does not find it", bug.name, bug.found_by)),
            (code, _) if code == TIMED_OUT => Err(format!("{}: `cargo {}` does not end", bug.name, bug.found_by)),
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

    const TEXT: &str =
        "Bug: parity is wrong\nFound by: test -p parity rows\n\nIn: a.rs\n<<<<\nx == y\n====\nx != y\n>>>>\n";

    #[test]
    fn a_bug_says_what_it_is_and_where() {
        let bug = Bug::parse("p", TEXT).unwrap();
        assert_eq!(
            (bug.what.as_str(), bug.found_by.as_str(), bug.cheap),
            ("parity is wrong", "test -p parity rows", false)
        );
        assert_eq!(bug.edits[0].made_in("if x == y {").as_deref(), Some("if x != y {"));
        assert_eq!(bug.edits[0].made_in("x == y && x == y"), None, "in one place only");
        assert!(Bug::parse("p", "Bug: x\nFound by: test -p y\n").is_err());
        assert!(Bug::parse("p", &TEXT.replace("test -p", "somebody")).is_err());
        assert!(Bug::parse("p", &TEXT.replace("====", "")).is_err());
    }

    #[test]
    fn every_bug_can_be_planted() {
        let tree = Tree::open().unwrap();
        for bug in bugs(&tree).unwrap() {
            for edit in &bug.edits {
                let text = fs::read_to_string(tree.root().join(&edit.file)).unwrap();
                assert!(edit.made_in(&text).is_some(), "{}: plant it anew in {}", bug.name, edit.file);
            }
        }
    }
}

//! `cargo xtask test`: the whole of what must hold before a change lands.

use std::fs;
use std::time::Instant;

use crate::run::Call;
use crate::sabotage::{self, SabotageArgs};
use crate::tree::Tree;
use crate::{fuzz, sim, tidy};

/// Seeds of the simulation that every change runs. May only grow.
const SMOKE_SEEDS: u64 = 200;

/// Folder of end-to-end checks: each executable file in it is one, run with no argument
/// from the root; it builds what it needs, cleans up behind itself, and ends with 0 when all is well.
const END_TO_END: &str = "tests/e2e";

struct Stages {
    lines: Vec<String>,
    failed: Vec<&'static str>,
}

impl Stages {
    fn run(&mut self, name: &'static str, stage: impl FnOnce() -> Result<Option<String>, String>) {
        println!("\n== {name}");
        let started = Instant::now();
        let (word, note) = match stage() {
            Ok(None) => ("ok", String::new()),
            Ok(Some(skipped)) => ("SKIPPED", skipped),
            Err(why) => {
                self.failed.push(name);
                ("FAILED", why)
            }
        };
        let line = format!("{name:<12} {word:<8} {:>5.0} s  {note}", started.elapsed().as_secs_f64());
        println!("{}", line.trim_end());
        self.lines.push(line);
    }
}

/// `cargo xtask test`. Every stage runs, also after one failed; the test runner comes
/// last so that its own summary closes the output.
pub fn test(tree: &Tree) -> Result<(), String> {
    let root = tree.root();
    let cargo = |arguments: &[&str]| Call::cargo(root).args(arguments).run().map(|()| None);
    let mut stages = Stages { lines: Vec::new(), failed: Vec::new() };
    stages.run("format", || cargo(&["fmt", "--all", "--check"]));
    stages.run("tidy", || tidy::command(tree).map(|()| None));
    stages.run("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]));
    stages.run("deny", || deny(tree));
    stages.run("sim", || sim::smoke(tree, SMOKE_SEEDS));
    stages.run("sabotage", || sabotage::sabotage(tree, &SabotageArgs { only: None, cheap: true }).map(|_| None));
    stages.run("end-to-end", || end_to_end(tree));
    stages.run("doc tests", || cargo(&["test", "--workspace", "--doc", "--quiet"]));
    println!("\n== before the tests");
    stages.lines.iter().for_each(|line| println!("{}", line.trim_end()));
    let tests = run_tests(tree);
    if tests.is_err() {
        stages.failed.push("tests");
    }
    if stages.failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", stages.failed.join(", "))) }
}

fn run_tests(tree: &Tree) -> Result<(), String> {
    println!("\n== tests");
    fuzz::unpack_corpora(tree)?;
    let cargo = || Call::cargo(tree.root());
    if cargo().args(["nextest", "--version"]).works() {
        return cargo().args(["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "slow"]).run();
    }
    println!("cargo-nextest is not installed: running `cargo test` instead");
    cargo().args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]).run()
}

fn deny(tree: &Tree) -> Result<Option<String>, String> {
    let cargo = || Call::cargo(tree.root());
    if !cargo().args(["deny", "--version"]).works() {
        return Ok(Some("cargo-deny is not installed: licences, bans and sources are NOT checked".into()));
    }
    cargo()
        .args(["deny", "--log-level", "error", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"])
        .run()
        .map(|()| None)
}

fn end_to_end(tree: &Tree) -> Result<Option<String>, String> {
    let folder = tree.root().join(END_TO_END);
    let entries = fs::read_dir(&folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>());
    let mut checks = entries.unwrap_or_default();
    checks.retain(|path| path.is_file() && is_executable(path));
    checks.sort();
    if checks.is_empty() {
        return Ok(Some(format!("no executable file in {END_TO_END}: NO end-to-end check ran")));
    }
    let mut failed = Vec::new();
    for check in &checks {
        if let Err(why) = Call::new(&check.to_string_lossy(), tree.root()).run() {
            println!("{why}");
            failed.push(check.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    if failed.is_empty() { Ok(None) } else { Err(format!("failed: {}", failed.join(", "))) }
}

fn is_executable(path: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o111 != 0)
}

/// `cargo xtask vm-test`: the script that boots guests. It builds what it needs. `kills`:
/// how often the server is killed under fio in the guest.
pub fn vm_test(tree: &Tree, kills: Option<u64>) -> Result<(), String> {
    let script = tree.root().join("tests/vm/run");
    if !script.is_file() {
        return Err("tests/vm/run does not exist: there is no virtual-machine check to run".into());
    }
    let call = Call::new(&script.to_string_lossy(), tree.root());
    match kills {
        Some(kills) => call.env("KILLS", &kills.to_string()).run(),
        None => call.run(),
    }
}

//! `cargo xtask fuzz`: every fuzz target (a test that calls `bolero::check!`) for a while.
//!
//! With a C++ compiler the inputs are guided by coverage: bolero brings libFuzzer along,
//! and the compiler counts edges and comparisons (stable flags, no nightly needed). What
//! it finds interesting is kept in the build folder and used again; `--keep` puts the smallest
//! of these inputs into the checkout, where every run of the tests runs them (see `corpus`). Without one, bolero's
//! own engine draws inputs at random, and the command says so. Either way the inputs of
//! most targets are valid images with bytes changed and checks made to fit again, so
//! that what lies behind a check is reached.
//!
//! Built like the tests, so that overflow checks and debug assertions are on.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use syn::visit::{self, Visit};

use crate::corpus::Corpus;
use crate::run::Call;
use crate::tidy::code::{self, Code};
use crate::tree::Tree;

/// Counters of edges and comparisons, as libFuzzer wants them.
const COVERAGE_FLAGS: &str = "--cfg fuzzing --cfg fuzzing_libfuzzer -Ccodegen-units=1 -Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Arguments of `fuzz`.
#[derive(Args)]
pub struct FuzzArgs {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Only targets of this crate, or whose name contains this
    #[arg(long)]
    pub only: Option<String>,
    /// Keep the smallest inputs that reached something new, for every run of the tests
    #[arg(long)]
    pub keep: bool,
    /// Draw inputs at random even where coverage could guide them
    #[arg(long)]
    pub random: bool,
}

/// How inputs are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    /// libFuzzer, guided by coverage.
    Coverage,
    /// bolero's own: random.
    Random,
}

impl Engine {
    fn choose(tree: &Tree, random: bool) -> Engine {
        let compiles = Call::new("c++", tree.root()).args(["--version"]).works();
        if compiles && !random { Engine::Coverage } else { Engine::Random }
    }

    fn told(self) -> &'static str {
        match self {
            Engine::Coverage => "guided by coverage (libFuzzer)",
            Engine::Random => "drawn at random, NOT guided by coverage",
        }
    }
}

/// A fuzz target: a test of a crate.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    package: String,
    /// Where cargo finds it: `--lib` or `--test NAME`.
    place: Vec<String>,
    test: String,
    /// Its source file.
    path: String,
    /// The modules around it, within its program.
    modules: Vec<String>,
}

impl Target {
    fn corpus(&self, tree: &Tree) -> Corpus {
        let path = self.modules.iter().chain([&self.test]).cloned().collect::<Vec<_>>().join("::");
        Corpus::of(&tree.root().join(&self.path), &path)
    }
}

/// Unpacks the kept inputs of all targets, so that the tests run them.
pub fn unpack_corpora(tree: &Tree) -> Result<(), String> {
    let (code, _) = code::parse(&tree.sources()?);
    let corpora: Vec<Corpus> = targets(&code).iter().map(|target| target.corpus(tree)).collect();
    let kept = Call::new("git", tree.root()).args(["ls-files", "*/__fuzz__/*.hex"]).output()?;
    if let Some(orphan) = orphan(&corpora, kept.lines().map(|path| tree.root().join(path))) {
        return Err(format!("{}: no fuzz target has this name, so its inputs are never run", orphan.display()));
    }
    let mut inputs = 0;
    for corpus in corpora {
        inputs += corpus.unpack()?;
    }
    println!("{inputs} inputs that fuzzing found are run by the tests");
    Ok(())
}

/// A file of kept inputs that belongs to no target.
fn orphan(corpora: &[Corpus], mut kept: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    kept.find(|path| corpora.iter().all(|corpus| corpus.packed() != path))
}

/// Runs the targets one after the other and says how many ran, and how.
pub fn fuzz(tree: &Tree, args: &FuzzArgs) -> Result<String, String> {
    let (code, _) = code::parse(&tree.sources()?);
    let mut targets = targets(&code);
    let wanted = |target: &Target, only: &String| target.package == *only || target.test.contains(only);
    targets.retain(|target| args.only.as_ref().is_none_or(|only| wanted(target, only)));
    if targets.is_empty() {
        return Err("no fuzz target of that name: no such test calls `bolero::check!`".into());
    }
    let engine = Engine::choose(tree, args.random);
    println!("inputs are {}", engine.told());
    let mut failed = Vec::new();
    for target in &targets {
        let outcome = match engine {
            Engine::Coverage => guided(tree, target, args),
            Engine::Random => drawn(tree, target, args.seconds),
        };
        match outcome {
            Ok(note) => println!("clean   {} {}  {note}", target.package, target.test),
            Err(why) => {
                println!("FOUND   {} {}\n{why}", target.package, target.test);
                failed.push(format!("{} {}", target.package, target.test));
            }
        }
    }
    let of = args.only.as_ref().map_or(String::new(), |only| format!(" of `{only}`"));
    let what = format!("{} targets{of}, {} s each, inputs {}", targets.len(), args.seconds, engine.told());
    if failed.is_empty() { Ok(what) } else { Err(format!("{what}; found by: {}", failed.join(", "))) }
}

/// Runs a target under libFuzzer. What it printed last is the note.
fn guided(tree: &Tree, target: &Target, args: &FuzzArgs) -> Result<String, String> {
    let folder = tree.build_folder()?.join("fuzz");
    let made = |folder: PathBuf| match fs::create_dir_all(&folder) {
        Ok(()) => Ok(folder.display().to_string()),
        Err(why) => Err(format!("{}: {why}", folder.display())),
    };
    let corpus = made(folder.join("corpus").join(&target.test))?;
    let found = made(folder.join("found").join(&target.test))?;
    let kept = target.corpus(tree);
    kept.unpack()?;
    let kept_inputs = made(kept.folder().to_path_buf())?;
    let limits = format!(
        "-max_total_time={} -max_len=8192 -timeout=60 -rss_limit_mb=4096 -artifact_prefix={found}/",
        args.seconds
    );
    let (code, output) = Call::cargo(tree.root())
        .env("RUSTFLAGS", COVERAGE_FLAGS)
        .env("BOLERO_LIBFUZZER_ARGS", &format!("{corpus} {kept_inputs} {limits}"))
        .env("CARGO_TARGET_DIR", &folder.join("build").to_string_lossy())
        // Naming the machine keeps the flags away from build scripts.
        .args(["test", "--target", host()?.as_str(), "--package", &target.package])
        .args(&target.place)
        .args(["--", &target.test, "--test-threads", "1"])
        .captured()?;
    let done = output.lines().rfind(|line| line.starts_with("Done ")).unwrap_or_default();
    if code != Some(0) || done.is_empty() {
        return Err(tail(&output));
    }
    let note = format!("{done}; {}", coverage(&output));
    Ok(if args.keep { format!("{note}; {} inputs kept", kept.pack(Path::new(&corpus))?) } else { note })
}

/// `cov: 123 ft: 456 corp: 7/89b` of the last line of libFuzzer that says it.
fn coverage(output: &str) -> &str {
    let line = output.lines().rfind(|line| line.starts_with('#') && line.contains("cov:")).unwrap_or_default();
    let from = line.find("cov:").unwrap_or(0);
    let end = line.find(" lim:").or(line.find(" exec/s")).unwrap_or(line.len());
    line.get(from..end).unwrap_or(line)
}

/// Runs a target with random inputs.
fn drawn(tree: &Tree, target: &Target, seconds: u64) -> Result<String, String> {
    let (code, output) = Call::cargo(tree.root())
        .env("BOLERO_RANDOM_TEST_TIME_MS", &(seconds * 1000).to_string())
        .env("BOLERO_RANDOM_ITERATIONS", &u32::MAX.to_string())
        .args(["test", "--package", &target.package])
        .args(&target.place)
        .args(["--", &target.test])
        .captured()?;
    let ran = output.lines().any(|line| line.starts_with("test result: ok. ") && !line.contains(" 0 passed"));
    if code == Some(0) && ran { Ok(String::new()) } else { Err(tail(&output)) }
}

fn host() -> Result<String, String> {
    let text = Call::new("rustc", Path::new(".")).args(["-vV"]).output()?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or("rustc -vV names no host".into())
}

fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn targets(code: &[Code]) -> Vec<Target> {
    let mut found = Vec::new();
    for one in code {
        let mut finder = Finder { code: one, modules: modules(&one.path), functions: Vec::new(), found: &mut found };
        finder.visit_file(&one.file);
    }
    found
}

/// `crates/x/tests/a.rs` and `crates/x/tests/a/b.rs` belong to the test `a`.
fn place(path: &str) -> Vec<String> {
    let test = path.split("/tests/").nth(1).and_then(|rest| rest.split(['/', '.']).next());
    test.map_or(vec!["--lib".to_owned()], |test| vec!["--test".to_owned(), test.to_owned()])
}

/// The module that a source file is, within its program: `crates/x/src/a/b.rs` is `a::b`,
/// `crates/x/tests/a.rs` the root, `crates/x/tests/a/b.rs` is `b`.
fn modules(path: &str) -> Vec<String> {
    let (folder, skipped) = if path.contains("/tests/") { ("/tests/", 1) } else { ("/src/", 0) };
    let inner = path.split(folder).nth(1).unwrap_or_default().trim_end_matches(".rs");
    let names = inner.split('/').skip(skipped).filter(|name| !["lib", "main", "mod"].contains(name));
    names.map(str::to_owned).collect()
}

struct Finder<'a> {
    code: &'a Code,
    modules: Vec<String>,
    functions: Vec<String>,
    found: &'a mut Vec<Target>,
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.functions.push(function.sig.ident.to_string());
        visit::visit_item_fn(self, function);
        self.functions.pop();
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.modules.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.modules.pop();
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let names: Vec<String> = call.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let is_check = matches!(names.as_slice(), [all] if all == "check")
            || matches!(names.as_slice(), [krate, check] if krate == "bolero" && check == "check");
        if let (true, Some(test)) = (is_check, self.functions.first()) {
            let (package, place) = (self.code.owner.clone(), place(&self.code.path));
            let (path, modules) = (self.code.path.clone(), self.modules.clone());
            let target = Target { package, place, test: test.clone(), path, modules };
            if !self.found.contains(&target) {
                self.found.push(target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_of_a_target_that_was_renamed_are_found() {
        let corpora = [Corpus::of(Path::new("crates/nfs/tests/fuzz.rs"), "any_call")];
        let kept = |name: &str| vec![PathBuf::from(format!("crates/nfs/tests/__fuzz__/{name}.hex"))];
        assert_eq!(orphan(&corpora, kept("any_call").into_iter()), None);
        assert_eq!(orphan(&corpora, kept("any_datagram").into_iter()), kept("any_datagram").pop());
    }

    #[test]
    fn tests_that_call_the_fuzzer_are_targets() {
        let text = "#[test] fn rpc_bytes() { bolero::check!().for_each(|b| parse(b)); } #[test] fn other() {}";
        let code = code::sample("crates/nfs/tests/fuzz.rs", text);
        let place = vec!["--test".into(), "fuzz".into()];
        let (path, modules) = ("crates/nfs/tests/fuzz.rs".to_owned(), vec![]);
        assert_eq!(targets(&code), [Target { package: "nfs".into(), place, test: "rpc_bytes".into(), path, modules }]);
        assert_eq!(super::modules("crates/engine/src/a/b.rs"), ["a", "b"]);
        assert_eq!(super::modules("crates/parity/tests/contract/fuzz.rs"), ["fuzz"]);
        assert_eq!(super::place("crates/engine/src/fuzz.rs"), ["--lib"]);
        assert_eq!(super::place("crates/parity/tests/contract/fuzz.rs"), ["--test", "contract"]);
    }

    #[test]
    fn coverage_is_read_from_the_last_line() {
        let line = "#2097152\tpulse  cov: 314 ft: 1024 corp: 99/4096b lim: 8192 exec/s: 1000 rss: 40Mb";
        assert_eq!(coverage(line), "cov: 314 ft: 1024 corp: 99/4096b");
    }
}

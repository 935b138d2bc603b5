//! `cargo xtask fuzz`: every fuzz target (a test that calls `bolero::check!`) for a while,
//! with bolero's random engine and the target's corpus. Needs no nightly compiler. Built like the
//! tests, so that overflow checks and debug assertions are on.

use clap::Args;
use syn::visit::{self, Visit};

use crate::run::Call;
use crate::tidy::code::{self, Code};
use crate::tree::Tree;

/// Arguments of `fuzz`.
#[derive(Args)]
pub struct FuzzArgs {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Only targets whose name contains this
    #[arg(long)]
    pub only: Option<String>,
}

/// A fuzz target: a test of a crate.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    package: String,
    test: String,
}

/// Runs the targets one after the other and returns how many ran.
pub fn fuzz(tree: &Tree, args: &FuzzArgs) -> Result<usize, String> {
    let (code, _) = code::parse(&tree.sources()?);
    let mut targets = targets(&code);
    targets.retain(|target| args.only.as_ref().is_none_or(|only| target.test.contains(only)));
    if targets.is_empty() {
        return Err("no fuzz target of that name: no such test calls `bolero::check!`".into());
    }
    let nextest = Call::cargo(tree.root()).args(["nextest", "--version"]).works();
    let time = (args.seconds * 1000).to_string();
    let mut failed = Vec::new();
    for target in &targets {
        println!("\n== {} {}", target.package, target.test);
        let call = test_call(tree, target, nextest)
            .env("BOLERO_RANDOM_TEST_TIME_MS", &time)
            .env("BOLERO_RANDOM_ITERATIONS", &u32::MAX.to_string());
        if let Err(why) = call.run() {
            println!("{why}");
            failed.push(format!("{} {}", target.package, target.test));
        }
    }
    if failed.is_empty() { Ok(targets.len()) } else { Err(format!("found by: {}", failed.join(", "))) }
}

/// The runner that fails when no test has the name is the better one.
fn test_call(tree: &Tree, target: &Target, nextest: bool) -> Call {
    let Target { package, test } = target;
    let cargo = Call::cargo(tree.root());
    if nextest {
        return cargo.args(["nextest", "run", "--package", package, "-E", &format!("test(/(^|::){test}$/)")]);
    }
    cargo.args(["test", "--quiet", "--package", package, "--tests", "--lib", "--bins", "--", test])
}

fn targets(code: &[Code]) -> Vec<Target> {
    let mut found = Vec::new();
    for one in code {
        let mut finder = Finder { package: &one.owner, functions: Vec::new(), found: &mut found };
        finder.visit_file(&one.file);
    }
    found
}

struct Finder<'a> {
    package: &'a str,
    functions: Vec<String>,
    found: &'a mut Vec<Target>,
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.functions.push(function.sig.ident.to_string());
        visit::visit_item_fn(self, function);
        self.functions.pop();
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let names: Vec<String> = call.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let is_check = matches!(names.as_slice(), [all] if all == "check")
            || matches!(names.as_slice(), [krate, check] if krate == "bolero" && check == "check");
        if let (true, Some(test)) = (is_check, self.functions.first()) {
            let target = Target { package: self.package.to_owned(), test: test.clone() };
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
    fn tests_that_call_the_fuzzer_are_targets() {
        let text = "#[test] fn rpc_bytes() { bolero::check!().for_each(|b| parse(b)); } #[test] fn other() {}";
        let code = code::sample("crates/nfs/tests/fuzz.rs", text);
        assert_eq!(targets(&code), [Target { package: "nfs".into(), test: "rpc_bytes".into() }]);
    }
}

//! Rules of this project no compiler knows. Every check has a test that feeds it a bad
//! sample: a check that cannot fail is worth nothing.

pub mod banned;
pub mod code;
pub mod shape;
pub mod unsafety;
pub mod walls;
pub mod words;

use crate::rows;
use crate::tree::Tree;

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// File, relative to the root.
    pub path: String,
    /// Line, from 1; 0 when the rule is about the whole file.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

impl Finding {
    /// A finding from its four parts.
    pub fn new(path: &str, line: usize, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into(), cure: cure.into() }
    }
}

/// All findings of all checks, in file order.
pub fn check(tree: &Tree) -> Result<Vec<Finding>, String> {
    let sources = tree.sources()?;
    let (code, mut findings) = code::parse(&sources);
    findings.extend(walls::check(&tree.packages()?));
    findings.extend(banned::check(&code));
    findings.extend(shape::check(&code, &sources));
    findings.extend(unsafety::check(&code, &sources));
    findings.extend(words::check(&sources));
    findings.extend(rows::check(&code, &sources));
    findings.sort();
    findings.dedup();
    Ok(findings)
}

/// `cargo xtask tidy`.
pub fn command(tree: &Tree) -> Result<(), String> {
    let findings = check(tree)?;
    for finding in &findings {
        println!("{}:{}: {}", finding.path, finding.line, finding.what);
        println!("    do: {}", finding.cure);
    }
    if findings.is_empty() {
        println!("tidy: nothing found");
        return Ok(());
    }
    Err(format!("tidy: {} findings", findings.len()))
}

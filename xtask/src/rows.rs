//! Requirement rows: docs/REQUIREMENTS.md says which row is decided by which test, and
//! the tests say which row they decide (`Decides R-RAID-03.` in their documentation).
//! Both sides are compared; neither may claim what the other does not know.
//!
//! States of a row: `decided` (by the tests named), `measured` (by a bench recorded in
//! docs/PERFORMANCE.md), `part` (tests named decide a part), `not yet`, `later` (belongs
//! to a later part of the product).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::tidy::Finding;
use crate::tidy::code::{self, Code, attribute_runs};
use crate::tree::{Source, Tree};

const TABLE: &str = "docs/REQUIREMENTS.md";
/// Tables that name tests as "`file.rs` test, test".
const CITING: &[&str] = &["docs/FAULTS.md"];
const BENCHES: &str = "docs/PERFORMANCE.md";
const STATES: &[&str] = &["decided", "measured", "part", "not yet", "later"];

/// One line of the table: `| row | state | requirement | tests |`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    line: usize,
    id: String,
    state: String,
    text: String,
    tests: String,
}

/// A test that says it decides a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    row: String,
    path: String,
    line: usize,
    /// Name of the test; empty for a script.
    test: String,
}

/// Compares table and tests.
pub fn check(code: &[Code], sources: &[Source]) -> Vec<Finding> {
    let Some(table) = sources.iter().find(|source| source.path == TABLE) else {
        return vec![Finding::new(TABLE, 0, "the table of requirement rows is missing", "write it")];
    };
    let (rows, mut findings) = read_table(&table.text);
    let (claims, misplaced) = read_claims(code, sources);
    findings.extend(misplaced);
    let measured = sources.iter().find(|source| source.path == BENCHES).map_or("", |source| source.text.as_str());
    let by_row = group(&claims);
    for row in &rows {
        findings.extend(judge(row, by_row.get(row.id.as_str()), measured));
    }
    let known: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    for claim in claims.iter().filter(|claim| !known.contains(claim.row.as_str())) {
        let what = format!("decides {}, which is no row of {TABLE}", claim.row);
        findings.push(Finding::new(&claim.path, claim.line, what, "correct the id"));
    }
    for one in code {
        findings.extend(unknown_mentions(one, &known));
    }
    for source in sources.iter().filter(|source| CITING.contains(&source.path.as_str())) {
        findings.extend(stale_citations(source, code));
    }
    findings
}

/// Tests a table names that are not there.
fn stale_citations(source: &Source, code: &[Code]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let parts: Vec<&str> = line.split('`').collect();
        for pair in parts[1..].chunks(2).filter(|pair| pair[0].ends_with(".rs")) {
            let text = code.iter().find(|one| one.path == pair[0]).map(|one| one.text.as_str());
            let cell = pair.get(1).map_or("", |rest| rest.split('|').next().unwrap_or_default());
            let names: Vec<&str> = cell.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
            let missing = |name: &&&str| !text.is_some_and(|text| text.contains(&format!("fn {name}(")));
            if text.is_none() || names.iter().any(|name| missing(&name)) {
                let what = format!("`{}` has no test {}", pair[0], names.join(", "));
                findings.push(Finding::new(&source.path, index + 1, what, "name a test that is there"));
            }
        }
    }
    findings
}

fn group(claims: &[Claim]) -> BTreeMap<&str, Vec<&Claim>> {
    let mut by_row: BTreeMap<&str, Vec<&Claim>> = BTreeMap::new();
    for claim in claims {
        by_row.entry(claim.row.as_str()).or_default().push(claim);
    }
    by_row
}

fn judge(row: &Row, claims: Option<&Vec<&Claim>>, measured: &str) -> Option<Finding> {
    let found = |what: String, cure: &str| Some(Finding::new(TABLE, row.line, what, cure));
    let id = &row.id;
    match (row.state.as_str(), claims) {
        ("decided" | "part", None) => found(
            format!("{id} is claimed, but no test says `Decides {id}`"),
            "write the test, or set the row to `not yet` (`cargo xtask rows` does)",
        ),
        ("measured", _) if !ids_in(measured).any(|(found, _)| found == *id) => {
            found(format!("{id} is called measured, but {BENCHES} does not name it"), "record the bench")
        }
        ("not yet" | "later", Some(claims)) => found(
            format!("{id} is `{}`, but {} says it decides it", row.state, claims[0].path),
            "run `cargo xtask rows`",
        ),
        ("decided" | "part", Some(claims)) if row.tests != test_list(claims) => {
            found(format!("the tests named for {id} are not the ones that decide it"), "run `cargo xtask rows`")
        }
        _ => None,
    }
}

fn test_list(claims: &[&Claim]) -> String {
    let mut names: Vec<String> = claims.iter().map(|claim| place(claim)).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

fn place(claim: &Claim) -> String {
    if claim.test.is_empty() { format!("`{}`", claim.path) } else { format!("`{}` {}", claim.path, claim.test) }
}

fn read_table(text: &str) -> (Vec<Row>, Vec<Finding>) {
    let mut rows: Vec<Row> = Vec::new();
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with("| R-")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, state, requirement, tests] = cells.as_slice() else {
            let what = format!("a row has {} cells, not 4", cells.len());
            findings.push(Finding::new(TABLE, index + 1, what, "`| row | state | requirement | tests |`"));
            continue;
        };
        if !STATES.contains(state) {
            let what = format!("`{state}` is no state of a row");
            findings.push(Finding::new(TABLE, index + 1, what, format!("one of: {}", STATES.join(", "))));
        }
        if rows.iter().any(|row| row.id == *id) {
            findings.push(Finding::new(TABLE, index + 1, format!("{id} stands twice"), "keep one"));
        }
        rows.push(Row {
            line: index + 1,
            id: (*id).to_owned(),
            state: (*state).to_owned(),
            text: (*requirement).to_owned(),
            tests: (*tests).to_owned(),
        });
    }
    (rows, findings)
}

/// Claims of Rust tests and of end-to-end scripts; a claim that stands on no test is a finding.
fn read_claims(code: &[Code], sources: &[Source]) -> (Vec<Claim>, Vec<Finding>) {
    let mut claims = Vec::new();
    let mut findings = Vec::new();
    for one in code.iter().filter(|one| one.owner != "xtask") {
        for run in attribute_runs(&one.text) {
            let is_test = run.others.iter().any(|other| other == "test" || other.ends_with("::test"));
            let ignored = run.others.iter().any(|other| other.starts_with("ignore"));
            let text: Vec<&str> = run.docs.iter().map(|(_, doc)| doc.trim_matches('"').trim()).collect();
            let line = run.docs.iter().find(|(_, doc)| doc.contains("Decides")).map_or(0, |(line, _)| *line);
            for id in decided_ids(&text.join(" ")) {
                match &run.function {
                    Some(test) if is_test && !ignored => {
                        claims.push(Claim { row: id, path: one.path.clone(), line, test: test.clone() });
                    }
                    _ => findings.push(Finding::new(
                        &one.path,
                        line,
                        format!("claims to decide {id}, but is no test that runs"),
                        "only a test decides; elsewhere name the row without that word",
                    )),
                }
            }
        }
    }
    for source in sources.iter().filter(|source| is_script(&source.path)) {
        for (index, line) in source.text.lines().enumerate() {
            for row in decided_ids(line) {
                claims.push(Claim { row, path: source.path.clone(), line: index + 1, test: String::new() });
            }
        }
    }
    (claims, findings)
}

fn is_script(path: &str) -> bool {
    path.starts_with("tests/") && !path.ends_with(".rs") && !path.ends_with(".md")
}

/// Ids behind the word `Decides`: `Decides R-RAID-03.`, `Decides R-RAID-03 and R-RAID-04: ...`
fn decided_ids(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for claimed in text.split("Decides ").skip(1) {
        let mut rest = claimed.trim_start();
        while let Some((id, 0)) = ids_in(rest).next() {
            rest = &rest[id.len()..];
            found.push(id);
            let joint = [", and ", " and ", ", "].into_iter().find_map(|joint| rest.strip_prefix(joint));
            rest = joint.unwrap_or_default();
        }
    }
    found
}

/// Every row id in a text, with its offset in bytes.
fn ids_in(text: &str) -> impl Iterator<Item = (String, usize)> {
    text.match_indices("R-").filter_map(|(at, _)| {
        let joined = text[..at].chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '-');
        let rest = &text[at + 2..];
        let is_area = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        let letters = rest.bytes().take_while(is_area).count();
        let digits = rest.get(letters + 1..)?.bytes().take_while(u8::is_ascii_digit).count();
        let whole = !joined && letters > 0 && rest.as_bytes().get(letters) == Some(&b'-') && digits == 2;
        whole.then(|| (text[at..at + 2 + letters + 1 + digits].to_owned(), at))
    })
}

fn unknown_mentions(one: &Code, known: &BTreeSet<&str>) -> Vec<Finding> {
    if one.owner == "xtask" {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in one.text.lines().enumerate() {
        for (id, _) in ids_in(line).filter(|(id, _)| !known.contains(id.as_str())) {
            let what = format!("{id} is no row of {TABLE}");
            findings.push(Finding::new(&one.path, index + 1, what, "correct the id"));
        }
    }
    findings
}

/// `cargo xtask rows`: writes states and tests into the table.
pub fn command(tree: &Tree) -> Result<(), String> {
    let sources = tree.sources()?;
    let (code, _) = code::parse(&sources);
    let (claims, _) = read_claims(&code, &sources);
    let table = sources.iter().find(|source| source.path == TABLE).ok_or("the table of rows is missing")?;
    let (rows, _) = read_table(&table.text);
    let text = rewrite(&table.text, &rows, &group(&claims));
    fs::write(tree.root().join(TABLE), text).map_err(|why| format!("{TABLE}: {why}"))?;
    let decided = rows.iter().filter(|row| claims.iter().any(|claim| claim.row == row.id)).count();
    println!("{TABLE}: {decided} of {} rows are decided by tests", rows.len());
    Ok(())
}

fn rewrite(text: &str, rows: &[Row], by_row: &BTreeMap<&str, Vec<&Claim>>) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for row in rows {
        let (state, tests) = match (by_row.get(row.id.as_str()), row.state.as_str()) {
            (Some(claims), "part") => ("part", test_list(claims)),
            (Some(claims), _) => ("decided", test_list(claims)),
            (None, "decided" | "part") => ("not yet", "-".to_owned()),
            (None, state) => (state, row.tests.clone()),
        };
        lines[row.line - 1] = format!("| {} | {state} | {} | {tests} |", row.id, row.text);
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: &str = "/// Both drives of every pair are lost. Decides R-RAID-03.\n#[test]\nfn any_two() {}";

    fn findings(table: &str, test: &str) -> Vec<String> {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let sources = [source(TABLE, table), source("crates/raid/tests/pairs.rs", test)];
        let (code, _) = code::parse(&sources);
        check(&code, &sources).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn table_and_tests_that_agree_are_fine() {
        let table = "| R-RAID-03 | decided | Dual parity. | `crates/raid/tests/pairs.rs` any_two |";
        assert_eq!(findings(table, TEST), Vec::<String>::new());
    }

    #[test]
    fn a_claimed_row_without_a_test_is_found() {
        let table = "| R-RAID-03 | decided | Dual parity. | `crates/raid/tests/pairs.rs` any_two |";
        assert_eq!(findings(table, ""), ["R-RAID-03 is claimed, but no test says `Decides R-RAID-03`"]);
        let measured = "| R-IO-01 | measured | Low latency. | - |";
        assert_eq!(findings(measured, "").len(), 1);
    }

    #[test]
    fn a_claim_may_go_over_two_lines() {
        let test = "/// All pairs. Decides\n/// R-RAID-03.\n#[test]\nfn any_two() {}";
        let table = "| R-RAID-03 | decided | Dual parity. | `crates/raid/tests/pairs.rs` any_two |";
        assert_eq!(findings(table, test), Vec::<String>::new());
    }

    #[test]
    fn a_claim_that_is_no_test_is_found() {
        let table = "| R-RAID-03 | not yet | Dual parity. | - |";
        assert_eq!(findings(table, "/// Decides R-RAID-03.\nfn any_two() {}").len(), 1);
        assert_eq!(findings(table, "/// Decides R-RAID-03.\n#[ignore]\n#[test]\nfn any_two() {}").len(), 1);
        assert_eq!(findings(table, "//! Decides R-RAID-03.").len(), 1);
    }

    #[test]
    fn a_row_nobody_wrote_down_is_found() {
        let table = "| R-RAID-04 | not yet | Rotation. | - |";
        let found = findings(table, TEST);
        assert!(found.iter().any(|what| what.contains("decides R-RAID-03, which is no row")), "{found:?}");
        assert_eq!(findings(table, "// see R-RAID-99").len(), 1);
    }

    #[test]
    fn a_stale_table_is_found_and_rewritten() {
        let table = "| R-RAID-03 | not yet | Dual parity. | - |\n";
        assert_eq!(findings(table, TEST).len(), 1);
        let (rows, _) = read_table(table);
        let claim = Claim { row: "R-RAID-03".into(), path: "a.rs".into(), line: 1, test: "t".into() };
        let claims = [claim];
        let rewritten = rewrite(table, &rows, &group(&claims));
        assert_eq!(rewritten, "| R-RAID-03 | decided | Dual parity. | `a.rs` t |\n");
        assert_eq!(
            rewrite(&rewritten, &read_table(&rewritten).0, &BTreeMap::new()),
            "| R-RAID-03 | not yet | Dual parity. | - |\n"
        );
    }

    #[test]
    fn a_cited_test_that_is_gone_is_found() {
        let code = code::sample("crates/raid/tests/a.rs", "#[test] fn there() {}");
        let cite = |text: &str| stale_citations(&Source { path: CITING[0].into(), text: text.into() }, &code).len();
        assert_eq!(cite("| F01 | `crates/raid/tests/a.rs` there |"), 0);
        assert_eq!(cite("| F01 | `crates/raid/tests/a.rs` there, gone |"), 1);
        assert_eq!(cite("| F01 | `crates/raid/tests/b.rs` there |"), 1);
        assert_eq!(cite("no `code.c` here"), 0);
    }

    #[test]
    fn ids_are_read_whole() {
        let ids: Vec<String> =
            ids_in("R-RAID-03, (R-NV-01) R-ORIG R-RSYNC-13. xR-A-01 R-B-1").map(|(id, _)| id).collect();
        assert_eq!(ids, ["R-RAID-03", "R-NV-01", "R-RSYNC-13"]);
        assert_eq!(decided_ids("Decides R-A-01 and R-B-02. See R-C-03."), ["R-A-01", "R-B-02"]);
        assert_eq!(decided_ids("Decides R-A-01: as in R-B-02. Decides R-C-03."), ["R-A-01", "R-C-03"]);
        assert!(decided_ids("It decides R-A-01, Decides nothing.").is_empty());
    }
}

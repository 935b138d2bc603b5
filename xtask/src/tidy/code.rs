//! Rust files, parsed once, with the knowledge of what is product and what is test.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::Finding;
use crate::tree::Source;

/// A parsed Rust file.
pub struct Code {
    /// Path relative to the root.
    pub path: String,
    /// Crate it belongs to: the folder below `crates/`, or `xtask`.
    pub owner: String,
    /// Its text.
    pub text: String,
    /// Its syntax.
    pub file: syn::File,
    /// The whole file is tests, benches or examples.
    pub test: bool,
}

/// Parses every Rust file; what does not parse is a finding.
pub fn parse(sources: &[Source]) -> (Vec<Code>, Vec<Finding>) {
    let mut code = Vec::new();
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".rs")) {
        match syn::parse_file(&source.text) {
            Ok(file) => code.push(Code {
                path: source.path.clone(),
                owner: owner(&source.path),
                text: source.text.clone(),
                file,
                test: in_test_folder(&source.path),
            }),
            Err(why) => findings.push(Finding::new(
                &source.path,
                why.span().start().line,
                format!("does not parse: {why}"),
                "make it compile first",
            )),
        }
    }
    mark_test_modules(&mut code);
    (code, findings)
}

/// Parses one sample, for tests of the checks.
#[cfg(test)]
pub fn sample(path: &str, text: &str) -> Vec<Code> {
    let (code, findings) = parse(&[Source { path: path.to_owned(), text: text.to_owned() }]);
    assert!(findings.is_empty(), "the sample parses");
    code
}

fn owner(path: &str) -> String {
    let mut parts = path.split('/');
    match parts.next() {
        Some("crates") => parts.next().unwrap_or_default().to_owned(),
        Some(first) => first.to_owned(),
        None => String::new(),
    }
}

fn in_test_folder(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "benches" | "examples" | "fuzz"))
}

/// Files that are only reached through `#[cfg(test)] mod name;` are tests, too.
fn mark_test_modules(code: &mut [Code]) {
    let mut roots = BTreeSet::new();
    for one in code.iter() {
        let mut seen = TestModules { folder: module_folder(&one.path), found: &mut roots };
        seen.visit_file(&one.file);
    }
    for one in code.iter_mut() {
        let stem = one.path.trim_end_matches(".rs").trim_end_matches("/mod");
        one.test |= roots.iter().any(|root| stem == root || stem.starts_with(&format!("{root}/")));
    }
}

fn module_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    }
}

struct TestModules<'a> {
    folder: String,
    found: &'a mut BTreeSet<String>,
}

impl<'ast> Visit<'ast> for TestModules<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.content.is_none() && for_tests(&module.attrs) {
            self.found.insert(format!("{}/{}", self.folder, module.ident));
        }
        visit::visit_item_mod(self, module);
    }
}

/// Whether these attributes keep an item out of the product.
pub fn for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let last = attribute.path().segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        match (&attribute.meta, last.as_str()) {
            (_, "test") => true,
            (syn::Meta::List(list), "cfg") => {
                let condition = list.tokens.to_string();
                condition == "test" || (condition.starts_with("all") && condition.contains("test"))
            }
            _ => false,
        }
    })
}

/// A run of `a::b::c` inside the unparsed tokens of a macro call.
pub fn token_paths(tokens: TokenStream) -> Vec<(Vec<String>, Span)> {
    let mut paths: Vec<(Vec<String>, Span)> = Vec::new();
    let mut colons = 0;
    for tree in tokens {
        match tree {
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            TokenTree::Ident(ident) => {
                match paths.last_mut() {
                    Some((path, _)) if colons == 2 => path.push(ident.to_string()),
                    _ => paths.push((vec![ident.to_string()], ident.span())),
                }
                colons = 0;
            }
            TokenTree::Group(group) => {
                let inner = token_paths(group.stream());
                paths.extend(inner);
                colons = 3; // a path does not go on behind a group
            }
            _ => colons = 3,
        }
    }
    paths
}

/// An attribute list as it stands in front of an item, anywhere in a file, macros included.
pub struct AttributeRun {
    /// Text of its documentation comments, with their lines.
    pub docs: Vec<(usize, String)>,
    /// The other attributes, as text without spaces.
    pub others: Vec<String>,
    /// Name of the function that follows, if one does.
    pub function: Option<String>,
}

/// Every attribute run of a file. Works on tokens, so tests inside `proptest!` are seen.
pub fn attribute_runs(text: &str) -> Vec<AttributeRun> {
    let mut runs = Vec::new();
    if let Ok(tokens) = text.parse::<TokenStream>() {
        collect_runs(tokens, &mut runs);
    }
    runs
}

fn collect_runs(tokens: TokenStream, runs: &mut Vec<AttributeRun>) {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < trees.len() {
        let mut run = AttributeRun { docs: Vec::new(), others: Vec::new(), function: None };
        while let Some((group, next)) = attribute_at(&trees, at) {
            note_attribute(&group, &mut run);
            at = next;
        }
        if !run.docs.is_empty() || !run.others.is_empty() {
            run.function = function_name(&trees[at.min(trees.len())..]);
            runs.push(run);
        }
        match trees.get(at) {
            Some(TokenTree::Group(group)) => collect_runs(group.stream(), runs),
            Some(_) => {}
            None => break,
        }
        at += 1;
    }
}

fn attribute_at(trees: &[TokenTree], at: usize) -> Option<(proc_macro2::Group, usize)> {
    let is = |tree: Option<&TokenTree>, sign| matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == sign);
    if !is(trees.get(at), '#') {
        return None;
    }
    let next = if is(trees.get(at + 1), '!') { at + 2 } else { at + 1 };
    match trees.get(next) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => Some((group.clone(), next + 1)),
        _ => None,
    }
}

fn note_attribute(group: &proc_macro2::Group, run: &mut AttributeRun) {
    let trees: Vec<TokenTree> = group.stream().into_iter().collect();
    if let [TokenTree::Ident(name), TokenTree::Punct(_), TokenTree::Literal(text)] = trees.as_slice()
        && name == "doc"
    {
        run.docs.push((text.span().start().line, text.to_string()));
        return;
    }
    run.others.push(group.stream().to_string().replace(' ', ""));
}

fn function_name(trees: &[TokenTree]) -> Option<String> {
    for (at, tree) in trees.iter().enumerate().take(6) {
        match tree {
            TokenTree::Ident(word) if word == "fn" => {
                return trees.get(at + 1).map(ToString::to_string);
            }
            TokenTree::Ident(_) => {}
            TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {}
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_only_tests_reach_is_test_code() {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let (code, _) = parse(&[
            source("crates/a/src/lib.rs", "mod b; #[cfg(test)] mod c;"),
            source("crates/a/src/b.rs", ""),
            source("crates/a/src/c.rs", ""),
            source("crates/a/src/c/deep.rs", ""),
            source("crates/a/tests/d.rs", ""),
        ]);
        let tests: Vec<bool> = code.iter().map(|one| one.test).collect();
        assert_eq!(tests, [false, false, true, true, true]);
    }

    #[test]
    fn attribute_runs_are_found_inside_macro_calls() {
        let runs = attribute_runs("proptest! { /// Decides X.\n #[test] fn holds(a in 0..3) {} }");
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].function.as_deref(), Some("holds"));
        assert_eq!(runs[0].others, ["test"]);
    }

    #[test]
    fn paths_inside_macro_calls_are_joined() {
        let found = token_paths("a(std::time::Instant::now(), b, c::d)".parse().unwrap());
        let paths: Vec<String> = found.into_iter().map(|(path, _)| path.join("::")).collect();
        assert_eq!(paths, ["a", "std::time::Instant::now", "b", "c::d"]);
    }
}

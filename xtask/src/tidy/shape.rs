//! Sizes and names: files, functions, module names, `allow` attributes, unfinished work.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;
use super::code::Code;
use crate::tree::Source;

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const NAMES: &[&str] = &["core", "common", "util", "utils", "helper", "helpers", "manager", "misc"];
/// Spelled in pieces so that this file does not hold what it looks for.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Everything about shape.
pub fn check(code: &[Code], sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for one in code {
        let lines = one.text.lines().count();
        if lines > FILE_LINES_MAX {
            let what = format!("{lines} lines, at most {FILE_LINES_MAX} are allowed");
            findings.push(Finding::new(&one.path, 0, what, "which noun in it wants a file of its own?"));
        }
        findings.extend(file_name(&one.path));
        Shape { path: &one.path, findings: &mut findings }.visit_file(&one.file);
    }
    findings.extend(sources.iter().filter(|source| is_ours(&source.path)).flat_map(unfinished));
    findings
}

fn is_ours(path: &str) -> bool {
    [".rs", ".toml", ".md", ".sh", ".yml"].iter().any(|end| path.ends_with(end)) || path.starts_with(".ci/")
}

fn file_name(path: &str) -> Option<Finding> {
    let bad = path.split('/').find(|part| NAMES.contains(&part.trim_end_matches(".rs")))?;
    Some(Finding::new(path, 0, format!("`{bad}` names nothing"), "name the noun that lives there"))
}

fn unfinished(source: &Source) -> Vec<Finding> {
    let is_word = |line: &str, word: &str| line.split(|c: char| !c.is_alphanumeric()).any(|part| part == word);
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        if let Some(word) = UNFINISHED.iter().find(|word| is_word(line, word)) {
            let what = format!("unfinished work: {word}");
            findings.push(Finding::new(&source.path, index + 1, what, "finish it, or say what is missing in the docs"));
        }
    }
    findings
}

struct Shape<'a> {
    path: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl Shape<'_> {
    fn function(&mut self, attributes: &[syn::Attribute], name: &syn::Ident, body: Span) {
        let lines = body.end().line.saturating_sub(name.span().start().line) + 1;
        if lines <= FUNCTION_LINES_MAX || attributes.iter().any(is_length_exemption) {
            return;
        }
        let what = format!("function `{name}` has {lines} lines, at most {FUNCTION_LINES_MAX} are allowed");
        let cure = "split it where its parts have names; a table may say #[expect(clippy::too_many_lines, reason)]";
        self.findings.push(Finding::new(self.path, name.span().start().line, what, cure));
    }
}

fn is_length_exemption(attribute: &syn::Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    let said = list.tokens.to_string();
    said.contains("too_many_lines") && said.contains("reason")
}

impl<'ast> Visit<'ast> for Shape<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.attrs, &item.sig.ident, item.block.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig.ident, item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.function(&item.attrs, &item.sig.ident, body.span());
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        if NAMES.contains(&name.as_str()) {
            let what = format!("module `{name}` names nothing");
            let line = item.ident.span().start().line;
            self.findings.push(Finding::new(self.path, line, what, "name the noun that lives there"));
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let syn::Meta::List(list) = &attribute.meta else { return };
        let unreasoned = if list.path.is_ident("allow") || list.path.is_ident("expect") {
            !mentions_reason(&list.tokens)
        } else {
            list.path.is_ident("cfg_attr") && holds_unreasoned(&list.tokens)
        };
        if unreasoned {
            let line = attribute.span().start().line;
            let cure = "add `reason = \"...\"`, or mend what the lint says";
            self.findings.push(Finding::new(self.path, line, "a lint is switched off without a reason", cure));
        }
    }
}

fn mentions_reason(tokens: &TokenStream) -> bool {
    tokens.clone().into_iter().any(|tree| matches!(tree, TokenTree::Ident(word) if word == "reason"))
}

fn holds_unreasoned(tokens: &TokenStream) -> bool {
    let trees: Vec<TokenTree> = tokens.clone().into_iter().collect();
    trees.windows(2).any(|pair| match pair {
        [TokenTree::Ident(word), TokenTree::Group(group)] => {
            (word == "allow" || word == "expect") && !mentions_reason(&group.stream())
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::code::sample;
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let sources = [Source { path: path.to_owned(), text: text.to_owned() }];
        check(&sample(path, text), &sources).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_long_file_is_found() {
        let fits = "\n".repeat(FILE_LINES_MAX);
        assert!(found("crates/a/src/b.rs", &fits).is_empty());
        assert_eq!(found("crates/a/src/b.rs", &format!("{fits}\n")).len(), 1);
    }

    #[test]
    fn a_long_function_is_found_and_an_exemption_with_a_reason_counts() {
        let body = "\n".repeat(FUNCTION_LINES_MAX);
        let long = format!("fn f() {{{body}}}");
        assert_eq!(found("crates/a/src/b.rs", &long).len(), 1);
        assert_eq!(found("crates/a/src/b.rs", &format!("impl A {{ {long} }}")).len(), 1);
        let exempt = format!("#[expect(clippy::too_many_lines, reason = \"a table\")]\n{long}");
        assert!(found("crates/a/src/b.rs", &exempt).is_empty());
    }

    #[test]
    fn names_that_name_nothing_are_found() {
        assert_eq!(found("crates/a/src/utils.rs", "").len(), 1);
        assert_eq!(found("crates/common/src/lib.rs", "").len(), 1);
        assert_eq!(found("crates/a/src/lib.rs", "mod helper {}").len(), 1);
    }

    #[test]
    fn a_lint_switched_off_without_reason_is_found() {
        assert_eq!(found("crates/a/src/lib.rs", "#[allow(dead_code)] fn f() {}").len(), 1);
        assert_eq!(found("crates/a/src/lib.rs", "#![cfg_attr(test, allow(dead_code))]").len(), 1);
        assert!(found("crates/a/src/lib.rs", "#![cfg_attr(test, allow(x, reason = \"tests\"))]").is_empty());
    }

    #[test]
    fn unfinished_work_is_found() {
        let line = format!("// {}: later", UNFINISHED[0]);
        assert_eq!(found("crates/a/src/lib.rs", &line).len(), 1);
        assert!(found("crates/a/src/lib.rs", "// todos of others").is_empty());
    }
}

//! `unsafe` per crate against a ceiling that is checked in and only falls without review.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};

use super::Finding;
use super::code::Code;
use crate::tree::Source;

/// Where the ceilings stand.
pub const CEILINGS: &str = "xtask/unsafe.toml";

/// Crates above their ceiling, and ceilings that can come down.
pub fn check(code: &[Code], sources: &[Source]) -> Vec<Finding> {
    let text = sources.iter().find(|source| source.path == CEILINGS).map_or("", |source| source.text.as_str());
    let ceilings: BTreeMap<String, usize> = match toml::from_str(text) {
        Ok(ceilings) => ceilings,
        Err(why) => return vec![Finding::new(CEILINGS, 0, format!("not readable: {why}"), "lines like `parity = 40`")],
    };
    let mut counts: BTreeMap<&str, usize> = ceilings.keys().map(|name| (name.as_str(), 0)).collect();
    for one in code {
        let count = one.text.parse::<TokenStream>().map_or(0, count);
        *counts.entry(one.owner.as_str()).or_default() += count;
    }
    counts.into_iter().filter_map(|(name, count)| judge(name, count, ceilings.get(name).copied())).collect()
}

fn judge(name: &str, count: usize, ceiling: Option<usize>) -> Option<Finding> {
    let ceiling = ceiling.unwrap_or(0);
    if count > ceiling {
        let what = format!("`{name}` holds {count} `unsafe`, its ceiling is {ceiling}");
        return Some(Finding::new(CEILINGS, 0, what, "do without, or raise the ceiling in a reviewed change"));
    }
    if count < ceiling {
        let what = format!("`{name}` holds only {count} `unsafe`, its ceiling is {ceiling}");
        return Some(Finding::new(CEILINGS, 0, what, format!("lower it: `{name} = {count}`")));
    }
    None
}

fn count(tokens: TokenStream) -> usize {
    let one = |tree| match tree {
        TokenTree::Ident(word) => usize::from(word == "unsafe"),
        TokenTree::Group(group) => count(group.stream()),
        _ => 0,
    };
    tokens.into_iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::super::code::sample;
    use super::*;

    fn found(ceilings: &str, text: &str) -> Vec<String> {
        let sources = [Source { path: CEILINGS.into(), text: ceilings.into() }];
        check(&sample("crates/parity/src/lib.rs", text), &sources).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn more_unsafe_than_the_ceiling_is_found() {
        let two = "unsafe fn f() {} fn g() { let unsafe_code = 1; unsafe { f() } }";
        assert!(found("parity = 2", two).is_empty());
        assert_eq!(found("parity = 1", two), ["`parity` holds 2 `unsafe`, its ceiling is 1"]);
        assert_eq!(found("", two), ["`parity` holds 2 `unsafe`, its ceiling is 0"]);
    }

    #[test]
    fn a_ceiling_that_can_fall_is_found() {
        assert_eq!(found("parity = 1", ""), ["`parity` holds only 0 `unsafe`, its ceiling is 1"]);
    }
}

//! Calls a core must not make: it has no clock, no thread, no socket, no file, no
//! randomness of its own and no map whose order differs from run to run. One such call
//! and the same seed no longer gives the same run.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::Finding;
use super::code::{Code, for_tests, token_paths};

/// Crates that decide and never touch the world.
pub const CORES: &[&str] =
    &["base", "parity", "journal", "raid", "engine", "datastore", "nfs", "mirror", "cache", "nbd", "world-sim"];

const BANNED: &[(&str, &str)] = &[
    ("std::time::Instant", "take the time from the `Clock` port"),
    ("std::time::SystemTime", "take the time from the `Clock` port"),
    ("std::thread", "hand work to the world through a port"),
    ("std::net::TcpStream", "meet the network through a port"),
    ("std::net::TcpListener", "meet the network through a port"),
    ("std::net::UdpSocket", "meet the network through a port"),
    ("std::net::ToSocketAddrs", "meet the network through a port"),
    ("std::fs", "meet files through the `Drive` and `Nvram` ports"),
    ("std::env", "take configuration as a value"),
    ("std::process", "a core does not end the process; return or assert"),
    ("std::collections::HashMap", "use BTreeMap, or hashbrown with a fixed hasher: order must not differ per run"),
    ("std::collections::HashSet", "use BTreeSet, or hashbrown with a fixed hasher: order must not differ per run"),
    ("std::collections::hash_map::RandomState", "use a fixed hasher"),
    ("std::hash::RandomState", "use a fixed hasher"),
    ("rand::rng", "take randomness from the seeded port"),
    ("rand::thread_rng", "take randomness from the seeded port"),
    ("rand::random", "take randomness from the seeded port"),
    ("rand::rngs::ThreadRng", "take randomness from the seeded port"),
    ("rand::rngs::OsRng", "take randomness from the seeded port"),
    ("rand::rngs::SysRng", "take randomness from the seeded port"),
    ("getrandom", "take randomness from the seeded port"),
    ("libc", "system calls live in world-real"),
    ("rustix", "system calls live in world-real"),
    ("io_uring", "system calls live in world-real"),
];

const PRINTING: &[&str] = &["println", "eprintln", "print", "eprint", "dbg"];

/// Banned calls in cores, and `unwrap()` in any product code.
pub fn check(code: &[Code]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for one in code.iter().filter(|one| !one.test) {
        let core = CORES.contains(&one.owner.as_str());
        let mut product = Product { path: &one.path, core, findings: &mut findings };
        product.visit_file(&one.file);
    }
    findings
}

struct Product<'a> {
    path: &'a str,
    core: bool,
    findings: &'a mut Vec<Finding>,
}

impl Product<'_> {
    fn report(&mut self, span: Span, what: String, cure: &str) {
        self.findings.push(Finding::new(self.path, span.start().line, what, cure));
    }

    fn judge_path(&mut self, path: &[String], span: Span, import: bool) {
        if !self.core {
            return;
        }
        if let Some((name, cure)) = banned_path(path, import) {
            self.report(span, format!("a core uses `{name}`"), cure);
        }
        if let [.., map, make] = path
            && is_map(map)
            && matches!(make.as_str(), "new" | "with_capacity")
        {
            self.report(
                span,
                format!("`{map}::{make}` takes the default hasher"),
                "name a fixed hasher: `with_hasher`",
            );
        }
    }

    fn judge_tokens(&mut self, tokens: &TokenStream) {
        for (path, span) in token_paths(tokens.clone()) {
            self.judge_path(&path, span, false);
        }
        for span in unwrap_calls(tokens.clone()) {
            self.report_unwrap(span);
        }
    }

    fn report_unwrap(&mut self, span: Span) {
        self.report(span, "`unwrap()` in product code".into(), "return a typed error, or `expect(\"the invariant\")`");
    }
}

fn is_map(name: &str) -> bool {
    matches!(name, "HashMap" | "HashSet")
}

/// The rule a path breaks. An import of a whole module that holds a banned item breaks it, too.
fn banned_path(path: &[String], import: bool) -> Option<(String, &'static str)> {
    if path.first().is_some_and(|first| first == "tokio") && path.get(1).is_none_or(|second| second != "sync") {
        return Some(("tokio".into(), "only `tokio::sync` is allowed; the runtime belongs to the world"));
    }
    BANNED.iter().find_map(|(name, cure)| {
        let rule: Vec<&str> = name.split("::").collect();
        let shared = rule.iter().zip(path).take_while(|(left, right)| *left == right).count();
        let hit = shared == rule.len() || (import && shared == path.len() && shared >= 2);
        hit.then(|| ((*name).to_owned(), *cure))
    })
}

fn unwrap_calls(tokens: TokenStream) -> Vec<Span> {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let mut spans = Vec::new();
    for (at, tree) in trees.iter().enumerate() {
        if let TokenTree::Group(group) = tree {
            spans.extend(unwrap_calls(group.stream()));
        }
        if let [TokenTree::Punct(dot), TokenTree::Ident(name), TokenTree::Group(group), ..] = &trees[at..]
            && dot.as_char() == '.'
            && name == "unwrap"
            && group.stream().is_empty()
        {
            spans.push(name.span());
        }
    }
    spans
}

fn imports(tree: &syn::UseTree, prefix: &[String], out: &mut Vec<(Vec<String>, Span)>) {
    let with = |ident: &syn::Ident| {
        let mut path = prefix.to_vec();
        if ident != "self" {
            path.push(ident.to_string());
        }
        path
    };
    match tree {
        syn::UseTree::Path(step) => imports(&step.tree, &with(&step.ident), out),
        syn::UseTree::Name(name) => out.push((with(&name.ident), name.ident.span())),
        syn::UseTree::Rename(rename) => out.push((with(&rename.ident), rename.ident.span())),
        syn::UseTree::Glob(glob) => out.push((prefix.to_vec(), glob.star_token.spans[0])),
        syn::UseTree::Group(group) => group.items.iter().for_each(|item| imports(item, prefix, out)),
    }
}

impl<'ast> Visit<'ast> for Product<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !for_tests(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if !for_tests(&function.attrs) {
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        if !for_tests(&block.attrs) {
            visit::visit_item_impl(self, block);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if for_tests(&item.attrs) {
            return;
        }
        let mut found = Vec::new();
        imports(&item.tree, &[], &mut found);
        for (path, span) in found {
            self.judge_path(&path, span, true);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let span = path.segments.first().map_or_else(Span::call_site, |segment| segment.ident.span());
        self.judge_path(&names, span, false);
        let last = path.segments.last();
        if self.core
            && let Some(syn::PathSegment { ident, arguments: syn::PathArguments::AngleBracketed(list) }) = last
            && (ident == "HashMap" && list.args.len() == 2 || ident == "HashSet" && list.args.len() == 1)
        {
            self.report(
                span,
                format!("`{ident}` with the default hasher"),
                "name a fixed hasher as its last parameter",
            );
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        if self.core && PRINTING.contains(&name.as_str()) {
            let span = call.path.segments[0].ident.span();
            self.report(
                span,
                format!("a core prints with `{name}!`"),
                "return a value, or emit a `tracing` event above",
            );
        }
        self.judge_tokens(&call.tokens);
        visit::visit_macro(self, call);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" && call.args.is_empty() {
            self.report_unwrap(call.method.span());
        }
        visit::visit_expr_method_call(self, call);
    }
}

#[cfg(test)]
mod tests {
    use super::super::code::sample;
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&sample(path, text)).into_iter().map(|finding| finding.line).collect()
    }

    fn core(text: &str) -> usize {
        lines("crates/raid/src/lib.rs", text).len()
    }

    #[test]
    fn a_clock_in_a_core_is_found_however_it_is_named() {
        for bad in [
            "use std::time::Instant;",
            "use std::time::{Duration, SystemTime};",
            "use std::time;",
            "use std::time::*;",
            "fn f() { let t = std::time::Instant::now(); }",
            "fn f() { assert!(std::time::Instant::now() > 0); }",
        ] {
            assert_eq!(core(bad), 1, "{bad}");
        }
        assert_eq!(core("use std::time::Duration;"), 0);
    }

    #[test]
    fn threads_sockets_files_and_entropy_in_a_core_are_found() {
        for bad in [
            "fn f() { std::thread::spawn(|| {}); }",
            "use std::net::TcpStream;",
            "use std::{fs, io};",
            "use tokio::net::TcpStream;",
            "fn f() { tokio::select! {} }",
            "fn f() { rand::random::<u64>(); }",
            "fn f() { getrandom::fill(&mut []); }",
            "fn f() { println!(\"x\"); }",
            "fn f() { eprintln!(\"x\"); }",
        ] {
            assert!(core(bad) >= 1, "{bad}");
        }
        assert_eq!(core("use tokio::sync::Notify; use std::io; use std::net::IpAddr;"), 0);
    }

    #[test]
    fn a_map_with_the_default_hasher_in_a_core_is_found() {
        for bad in [
            "use std::collections::HashMap;",
            "struct S { m: hashbrown::HashMap<u64, u64> }",
            "fn f() { let s = hashbrown::HashSet::new(); }",
        ] {
            assert_eq!(core(bad), 1, "{bad}");
        }
        assert_eq!(core("use std::collections::BTreeMap; struct S { m: hashbrown::HashMap<u64, u64, Fixed> }"), 0);
    }

    #[test]
    fn tests_and_the_real_world_may_do_these_things() {
        assert_eq!(core("#[cfg(test)] mod tests { use std::time::Instant; fn f() { None::<u8>.unwrap(); } }"), 0);
        assert!(lines("crates/world-real/src/lib.rs", "use std::time::Instant;").is_empty());
        assert!(lines("crates/raid/tests/a.rs", "use std::time::Instant;").is_empty());
    }

    #[test]
    fn unwrap_in_product_code_is_found_with_its_line() {
        assert_eq!(lines("crates/node/src/lib.rs", "fn f() {\n    g().unwrap();\n}"), [2]);
        assert_eq!(lines("crates/node/src/lib.rs", "fn f() {\n    vec![g().unwrap()];\n}"), [2]);
        assert!(lines("crates/node/src/lib.rs", "fn f() { g().expect(\"open\"); }").is_empty());
    }
}

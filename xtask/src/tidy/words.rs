//! Words that belong to somebody's machine or workshop, not to the product.

use super::Finding;
use crate::tree::Source;

/// Spelled in pieces so that this file does not hold what it looks for.
const WORDS: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("/ho", "me/"), "a path of one machine"),
    (concat!("/Us", "ers/"), "a path of one machine"),
    (concat!("brief", ".md"), "a paper of the workshop"),
    (concat!("issues", " show"), "a tool of the workshop"),
    (concat!("shared", "/design.md"), "a paper outside the repository"),
    (concat!("BEGIN ", "PRIVATE KEY"), "a secret"),
    (concat!("BEGIN ", "RSA PRIVATE"), "a secret"),
];

/// Every line with such a word.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    sources.iter().flat_map(check_source).collect()
}

fn check_source(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        if let Some((word, kind)) = WORDS.iter().find(|(word, _)| line.contains(word)) {
            let what = format!("`{word}` is {kind}");
            findings.push(Finding::new(
                &source.path,
                index + 1,
                what,
                "say it without; use relative or temporary paths",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_path_is_found_with_its_line() {
        let text = format!("fine\nlog to {}x\n", WORDS[0].0);
        let found = check(&[Source { path: "README.md".into(), text }]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 2);
    }
}

//! Licences of the libraries that are linked into the program: names, versions, and the texts that came
//! with them, each text once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::run::Call;
use crate::tree::Tree;

/// A library as cargo knows it.
struct Library {
    id: String,
    title: String,
    texts: Vec<String>,
}

/// The file `libraries` of the package.
pub fn texts(tree: &Tree) -> Result<String, String> {
    let metadata = Call::cargo(tree.root())
        .args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", host(tree)?.as_str()])
        .output()?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|why| format!("cargo metadata: {why}"))?;
    let linked = linked(&metadata, "vmhold").ok_or("cargo metadata does not know vmhold")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let foreign = packages.filter(|package| !package["source"].is_null());
    let libraries: Vec<Library> = foreign.map(library).filter(|library| linked.contains(&library.id)).collect();
    Ok(together(&libraries))
}

fn host(tree: &Tree) -> Result<String, String> {
    let said = Call::new("rustc", tree.root()).args(["-vV"]).output()?;
    said.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned).ok_or("rustc names no host".into())
}

/// Ids of what `root` is made of: not what only builds or tests it.
fn linked(metadata: &Value, root: &str) -> Option<BTreeSet<String>> {
    let nodes = metadata["resolve"]["nodes"].as_array()?;
    let below: BTreeMap<&str, Vec<&str>> = nodes
        .iter()
        .filter_map(|node| {
            let normal = |of: &&Value| {
                of["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
            };
            let deps = node["deps"].as_array()?.iter().filter(normal);
            Some((node["id"].as_str()?, deps.filter_map(|of| of["pkg"].as_str()).collect()))
        })
        .collect();
    let packages = metadata["packages"].as_array()?;
    let start = packages.iter().find(|package| package["name"] == root)?["id"].as_str()?;
    let (mut found, mut next) = (BTreeSet::new(), vec![start]);
    while let Some(id) = next.pop() {
        if found.insert(id.to_owned()) {
            next.extend(below.get(id).into_iter().flatten());
        }
    }
    Some(found)
}

fn library(package: &Value) -> Library {
    let word = |field: &str| package[field].as_str().unwrap_or("?").to_owned();
    let folder = Path::new(package["manifest_path"].as_str().unwrap_or_default()).parent();
    let names = ["license", "licence", "copying", "notice", "unlicense"];
    let is_text = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        path.is_file() && names.iter().any(|start| name.starts_with(start))
    };
    let mut files: Vec<_> = folder
        .into_iter()
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .collect();
    files.retain(|path| is_text(path));
    files.sort();
    let texts =
        files.iter().filter_map(|path| fs::read_to_string(path).ok()).map(|text| text.trim().to_owned()).collect();
    Library { id: word("id"), title: format!("{} {} ({})", word("name"), word("version"), word("license")), texts }
}

fn together(libraries: &[Library]) -> String {
    let mut by_text: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for library in libraries {
        for text in &library.texts {
            by_text.entry(text).or_default().push(&library.title);
        }
    }
    let titles: Vec<&str> = libraries.iter().map(|library| library.title.as_str()).collect();
    let mut whole = format!("Libraries in the program vmhold:\n\n  {}\n", titles.join("\n  "));
    for (text, titles) in by_text {
        whole += &format!("\n{:=<78}\n{}\n\n{text}\n", "", titles.join("\n"));
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_builds_or_tests_the_program_is_not_listed() {
        let kinds = |kind: Value| serde_json::json!([{ "kind": kind }]);
        let dep = |id: &str, kind: Value| serde_json::json!({ "pkg": id, "dep_kinds": kinds(kind) });
        let metadata = serde_json::json!({
            "packages": [{ "name": "vmhold", "id": "v" }],
            "resolve": { "nodes": [
                { "id": "v", "deps": [dep("a", Value::Null), dep("t", "dev".into()), dep("m", "build".into())] },
                { "id": "a", "deps": [dep("b", Value::Null)] },
                { "id": "b", "deps": [] },
            ] },
        });
        let found: Vec<String> = linked(&metadata, "vmhold").unwrap().into_iter().collect();
        assert_eq!(found, ["a", "b", "v"]);
    }

    #[test]
    fn a_text_of_many_libraries_stands_once() {
        let library = |title: &str, texts: &[&str]| Library {
            id: String::new(),
            title: title.into(),
            texts: texts.iter().map(|text| (*text).to_owned()).collect(),
        };
        let whole = together(&[library("a 1 (MIT)", &["the text"]), library("b 2 (MIT)", &["the text", "another"])]);
        assert_eq!(whole.matches("the text").count(), 1, "{whole}");
        assert!(whole.contains("a 1 (MIT)\nb 2 (MIT)\n\nthe text"), "{whole}");
    }
}

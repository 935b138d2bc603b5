//! The checkout: its files and its packages.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::run::Call;

/// The checkout the command works on.
pub struct Tree {
    root: PathBuf,
}

/// A dependency as a manifest names it.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// Package name.
    pub name: String,
    /// Needed by tests and benches only.
    pub dev: bool,
    /// Lives in this checkout.
    pub ours: bool,
    /// Features asked for.
    pub features: Vec<String>,
}

/// One package of the workspace.
#[derive(Clone, Debug)]
pub struct Package {
    /// Package name.
    pub name: String,
    /// Folder, relative to the root.
    pub folder: String,
    /// Direct dependencies, build dependencies included.
    pub dependencies: Vec<Dependency>,
    /// Names of bench targets.
    pub benches: Vec<String>,
}

/// A text file of the checkout.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path relative to the root, with `/`.
    pub path: String,
    /// Whole text.
    pub text: String,
}

impl Tree {
    /// The checkout this program was built from.
    pub fn open() -> Result<Self, String> {
        let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
        let root = Path::new(&manifest).parent().ok_or("the xtask folder has no parent folder")?.to_path_buf();
        if !root.join("Cargo.toml").is_file() {
            return Err(format!("{} holds no Cargo.toml", root.display()));
        }
        Ok(Self { root })
    }

    /// Folder of the workspace.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Files git knows or would add that are there, in path order, relative to the root.
    pub fn paths(&self) -> Result<Vec<String>, String> {
        let listed = Call::new("git", &self.root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()
            .map_err(|why| format!("{why}; this works in a git checkout"))?;
        let mut paths: Vec<String> = listed.split('\0').map(str::to_owned).collect();
        paths.retain(|path| self.root.join(path).is_file());
        paths.sort_unstable();
        paths.dedup();
        Ok(paths)
    }

    /// The text files among [`paths`](Tree::paths).
    pub fn sources(&self) -> Result<Vec<Source>, String> {
        let read = |path: String| {
            let text = fs::read(self.root.join(&path)).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
            Some(Source { path, text })
        };
        Ok(self.paths()?.into_iter().filter_map(read).collect())
    }

    /// Where cargo builds.
    pub fn build_folder(&self) -> Result<PathBuf, String> {
        let text = Call::cargo(&self.root).args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
        let document: Value = serde_json::from_str(&text).map_err(|why| format!("cargo metadata: {why}"))?;
        document["target_directory"].as_str().map(PathBuf::from).ok_or("cargo metadata names no build folder".into())
    }

    /// Packages of the workspace as `cargo metadata` tells them.
    pub fn packages(&self) -> Result<Vec<Package>, String> {
        let text = Call::cargo(&self.root).args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
        let document: Value = serde_json::from_str(&text).map_err(|why| format!("cargo metadata: {why}"))?;
        let root = self.root.to_string_lossy().into_owned();
        let packages = document["packages"].as_array().ok_or("cargo metadata lists no packages")?;
        Ok(packages.iter().map(|package| read_package(package, &root)).collect())
    }

    /// Short id of the commit, with `+` when files differ from it.
    pub fn commit(&self) -> String {
        let git = |arguments: &[&str]| Call::new("git", &self.root).args(arguments).output().unwrap_or_default();
        let id = git(&["rev-parse", "--short=10", "HEAD"]).trim().to_owned();
        let dirty = !git(&["status", "--porcelain"]).trim().is_empty();
        if id.is_empty() {
            return "unknown".to_owned();
        }
        if dirty { format!("{id}+") } else { id }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn read_package(package: &Value, root: &str) -> Package {
    let manifest = text(&package["manifest_path"]);
    let folder = manifest.strip_prefix(root).unwrap_or(&manifest).trim_start_matches('/');
    let read_dependency = |dependency: &Value| Dependency {
        name: text(&dependency["name"]),
        dev: dependency["kind"].as_str() == Some("dev"),
        ours: !dependency["path"].is_null(),
        features: list(&dependency["features"]).iter().map(text).collect(),
    };
    let is_bench = |target: &&Value| list(&target["kind"]).iter().any(|kind| kind.as_str() == Some("bench"));
    Package {
        name: text(&package["name"]),
        folder: folder.trim_end_matches("Cargo.toml").trim_end_matches('/').to_owned(),
        dependencies: list(&package["dependencies"]).iter().map(read_dependency).collect(),
        benches: list(&package["targets"]).iter().filter(is_bench).map(|target| text(&target["name"])).collect(),
    }
}

//! The tree of a package while it is put together, and the package made of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Run, read};
use crate::run::Call;

/// Who answers for a package; a distributor names itself.
const MAINTAINER: &str = "vmhold developers <developers@vmhold.invalid>";

/// See the module's head.
pub struct Stage<'a> {
    run: &'a Run<'a>,
    name: &'static str,
    root: PathBuf,
}

impl<'a> Stage<'a> {
    /// An empty tree for a package.
    pub fn new(run: &'a Run<'a>, name: &'static str) -> Result<Stage<'a>, String> {
        let stage = Stage { run, name, root: run.into.join("stage").join(name) };
        for folder in [&stage.root, &stage.beside("pages")] {
            if folder.exists() {
                fs::remove_dir_all(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
            }
        }
        stage.folder(&stage.root.join("DEBIAN"))?;
        Ok(stage)
    }

    /// A folder beside the tree, for what does not go into the package as it is.
    pub fn beside(&self, what: &str) -> PathBuf {
        self.run.into.join("stage").join(format!("{}-{what}", self.name))
    }

    /// Makes a folder and those above it, whatever the umask of who builds.
    fn folder(&self, path: &Path) -> Result<(), String> {
        let failed = |why| format!("{}: {why}", path.display());
        fs::create_dir_all(path).map_err(failed)?;
        for above in path.ancestors().take_while(|above| above.starts_with(&self.root)) {
            fs::set_permissions(above, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        }
        Ok(())
    }

    /// Puts a file there.
    pub fn put(&self, place: &str, bytes: &[u8], mode: u32) -> Result<PathBuf, String> {
        let path = self.root.join(place);
        self.folder(path.parent().unwrap_or(&self.root))?;
        let failed = |why| format!("{}: {why}", path.display());
        fs::write(&path, bytes).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(path)
    }

    /// Puts a file of the checkout there.
    pub fn copy(&self, from: &str, place: &str, mode: u32) -> Result<(), String> {
        self.put(place, &read(&self.run.tree.root().join(from))?, mode).map(drop)
    }

    /// Puts a file there with `.gz` behind its name.
    pub fn compressed(&self, place: &str, bytes: &[u8]) -> Result<(), String> {
        let path = self.put(place, bytes, 0o644)?;
        let (code, said) = Call::new("gzip", &self.root).args(["-9nf".as_ref(), path.as_os_str()]).captured()?;
        if code == Some(0) { Ok(()) } else { Err(said) }
    }

    /// What a program is linked with, as packages with their least versions.
    pub fn libraries(&self, program: &Path) -> Result<String, String> {
        let beside = self.beside("shlibdeps");
        let control = beside.join("debian/control");
        fs::create_dir_all(beside.join("debian")).map_err(|why| format!("{}: {why}", beside.display()))?;
        fs::write(&control, format!("Source: {0}\n\nPackage: {0}\nArchitecture: any\n", self.name))
            .map_err(|why| format!("{}: {why}", control.display()))?;
        let said = Call::new("dpkg-shlibdeps", &beside).args(["-O".as_ref(), program.as_os_str()]).output();
        let said = said.map_err(|why| format!("{why}; it is in the package dpkg-dev"))?;
        let depends = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
        depends.map(str::to_owned).ok_or("dpkg-shlibdeps found nothing".into())
    }

    /// Makes the package; `description` has its short line first.
    pub fn package(&self, fields: &[(&str, &str)], description: &str) -> Result<PathBuf, String> {
        self.changelog()?;
        let mut control = format!("Package: {}\nVersion: {}\nMaintainer: {MAINTAINER}\n", self.name, self.run.version);
        for (field, value) in fields {
            control += &format!("{field}: {value}\n");
        }
        control +=
            &format!("Installed-Size: {}\nPriority: optional\nDescription: {description}\n", self.kib(&self.root));
        self.put("DEBIAN/control", control.as_bytes(), 0o644)?;
        self.sums()?;
        let architecture = fields.iter().find(|(field, _)| *field == "Architecture").map_or("all", |(_, value)| value);
        let package = self.run.into.join(format!("{}_{}_{architecture}.deb", self.name, self.run.version));
        let mut call = Call::new("dpkg-deb", &self.run.into).env("SOURCE_DATE_EPOCH", &self.run.epoch);
        if self.run.fast {
            call = call.args(["-Zgzip", "-z1"]);
        }
        let call = call.args(["--root-owner-group", "--build"]).args([&self.root, &package]);
        let (code, said) = call.captured()?;
        if code == Some(0) { Ok(package) } else { Err(said) }
    }

    /// Debian wants one of its own form; what changed stands in CHANGELOG.md.
    fn changelog(&self) -> Result<(), String> {
        let seconds: i64 = self.run.epoch.parse().map_err(|_| "the commit has no time")?;
        let at = jiff::Timestamp::from_second(seconds).map_err(|why| why.to_string())?;
        let at = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
        let (name, version) = (self.name, &self.run.version);
        let text = format!(
            "{name} ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md of vmhold.\n\n -- {MAINTAINER}  {at}\n"
        );
        self.compressed(&format!("usr/share/doc/{name}/changelog"), text.as_bytes())
    }

    fn kib(&self, folder: &Path) -> u64 {
        let inside = |path: &Path| if path.is_dir() { self.kib(path) } else { size_of(path).div_ceil(1024) };
        fs::read_dir(folder).map_or(0, |entries| entries.flatten().map(|entry| inside(&entry.path())).sum())
    }

    fn sums(&self) -> Result<(), String> {
        let mut files = Vec::new();
        files_below(&self.root, &mut files);
        let mut names: Vec<String> = files
            .iter()
            .filter_map(|path| Some(path.strip_prefix(&self.root).ok()?.to_string_lossy().into_owned()))
            .filter(|name| !name.starts_with("DEBIAN/"))
            .collect();
        names.sort_unstable();
        let sums = Call::new("md5sum", &self.root).args(&names).output()?;
        self.put("DEBIAN/md5sums", sums.as_bytes(), 0o644).map(drop)
    }
}

fn size_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => files_below(&path, found),
            path => found.push(path),
        }
    }
}

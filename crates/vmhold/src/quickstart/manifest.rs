//! The manifest: every file and folder a demo made. Written before the first of them, so
//! that whatever happens, exactly these can be removed.

use std::path::{Component, Path, PathBuf};

use control::{Problem, codes};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::place::{OWN_FILES, Place, read_json};

/// Where demos in memory keep their drives.
pub const MEMORY_ROOT: &str = "/dev/shm";
/// How the folders of demos there are named.
pub const MEMORY_PREFIX: &str = "vmhold-";

/// Manifest of a demo.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Kind and version of this file.
    pub schema: String,
    /// Version of the program that made it.
    pub version: String,
    /// When.
    pub created_at: Timestamp,
    /// What was made.
    pub shape: Shape,
    /// Folder in memory, if drives and journal lie there.
    pub memory_folder: Option<PathBuf>,
    /// Files, relative to the folder of the demo or below the one in memory.
    pub files: Vec<PathBuf>,
    /// Folders in it, innermost first.
    pub folders: Vec<PathBuf>,
}

/// Numbers of a demo.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// Drives.
    pub drives: u8,
    /// Blank drives that take the place of failed ones.
    #[serde(default)]
    pub spares: u8,
    /// Size of each.
    pub drive_bytes: u64,
    /// Size of the journal.
    pub journal_bytes: u64,
}

impl Shape {
    /// Drives and spares.
    pub const fn all_drives(self) -> u8 {
        self.drives + self.spares
    }

    /// Data and parity units of a stripe over all drives.
    pub const fn geometry(self) -> (u8, u8) {
        match self.drives {
            1 => (1, 0),
            2 => (1, 1),
            drives => (drives - 2, 2),
        }
    }

    /// As in `6+2`.
    pub fn stripe(self) -> String {
        let (data, parity) = self.geometry();
        format!("{data}+{parity}")
    }
}

impl Manifest {
    /// Of a demo that is about to be made.
    pub fn new(shape: Shape, memory_folder: Option<PathBuf>) -> Self {
        let base = memory_folder.clone().unwrap_or_default();
        let mut files: Vec<PathBuf> =
            (1..=shape.all_drives()).map(|number| base.join("drives").join(number.to_string())).collect();
        files.push(base.join("journal"));
        files.extend(OWN_FILES.iter().map(PathBuf::from));
        files.extend(["server.json.new", "vmhold.toml.new"].map(PathBuf::from));
        let drive_files = files[..usize::from(shape.all_drives())].to_vec();
        files.extend(drive_files.iter().map(|drive| pulled(drive)));
        files.extend(node::state_files().into_iter().map(|file| Path::new(node::DEFAULT_STATE).join(file)));
        let mut folders = vec![base.join("drives"), node::DEFAULT_STATE.into()];
        folders.extend(memory_folder.clone());
        Self {
            schema: "vmhold.manifest/v1".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            created_at: Timestamp::now(),
            shape,
            memory_folder,
            files,
            folders,
        }
    }

    /// The manifest in a folder; `shown` is how the user called it.
    pub fn load(place: &Place, shown: &Path) -> Result<Self, Problem> {
        read_json(&place.manifest())
            .ok_or_else(|| Problem::new(&codes::DEMO_NOT_FOUND, format!("there is no demo in {}", shown.display())))
    }

    /// Drive files, in order of their numbers, without spares.
    pub fn drives(&self, place: &Place) -> Vec<PathBuf> {
        self.files.iter().take(usize::from(self.shape.drives)).map(|file| place.dir().join(file)).collect()
    }

    /// Files of spares.
    pub fn spares(&self, place: &Place) -> Vec<PathBuf> {
        let spares = self.files[usize::from(self.shape.drives)..].iter().take(usize::from(self.shape.spares));
        spares.map(|file| place.dir().join(file)).collect()
    }

    /// Journal file.
    pub fn journal(&self, place: &Place) -> PathBuf {
        place.dir().join(&self.files[usize::from(self.shape.all_drives())])
    }

    /// Every path of it as a path to remove; refuses a manifest that points elsewhere.
    pub fn removable(&self, place: &Place) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Problem> {
        let all = |paths: &[PathBuf]| -> Option<Vec<PathBuf>> {
            paths.iter().map(|path| self.is_ours(path).then(|| place.dir().join(path))).collect()
        };
        let memory_is_ours = self.memory_folder.as_ref().is_none_or(|folder| is_memory_folder(folder));
        let both = all(&self.files).zip(all(&self.folders)).filter(|_| memory_is_ours);
        both.ok_or_else(|| {
            Problem::new(&codes::NOT_OURS_TO_REMOVE, "the manifest names files outside the demo")
                .why("it was changed after the demo was made; nothing was removed")
        })
    }

    fn is_ours(&self, path: &Path) -> bool {
        let below = |rest: &Path| rest.components().all(|part| matches!(part, Component::Normal(_)));
        match &self.memory_folder {
            Some(folder) if path.is_absolute() => path.strip_prefix(folder).is_ok_and(below),
            _ => below(path),
        }
    }

    /// What this demo cannot survive.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.memory_folder.is_some() {
            warnings.push("drives and journal lie in memory: a restart of this machine loses them".to_owned());
        } else {
            warnings
                .push("the journal stands on an ordinary file; it does not survive the loss of that disk".to_owned());
        }
        if self.shape.drives < 5 {
            warnings
                .push(format!("{} drives are a pool for the lab: less redundancy, or little space", self.shape.drives));
        }
        warnings
    }
}

/// Where a drive lies while it is pulled.
pub fn pulled(drive: &Path) -> PathBuf {
    let mut name = drive.as_os_str().to_owned();
    name.push(".pulled");
    PathBuf::from(name)
}

/// Directly in the memory file system, with our prefix.
fn is_memory_folder(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    folder.parent() == Some(Path::new(MEMORY_ROOT)) && name.starts_with(MEMORY_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { drives: 6, spares: 0, drive_bytes: 1 << 30, journal_bytes: 1 << 20 };

    #[test]
    fn a_manifest_that_points_elsewhere_removes_nothing() {
        let place = Place::of(Path::new("/tmp/demo"));
        let good = Manifest::new(SHAPE, Some("/dev/shm/vmhold-1".into()));
        let (files, folders) = good.removable(&place).unwrap();
        assert!(
            files.contains(&"/tmp/demo/vmhold.toml".into()) && files.contains(&"/dev/shm/vmhold-1/drives/6".into())
        );
        let expected: [PathBuf; 3] =
            ["/dev/shm/vmhold-1/drives".into(), "/tmp/demo/control".into(), "/dev/shm/vmhold-1".into()];
        assert_eq!(folders, expected);
        for (file, memory) in [
            ("/etc/passwd", None),
            ("../other", None),
            ("drives/../../other", None),
            ("/dev/shm/vmhold-1/../x", Some("/dev/shm/vmhold-1")),
            ("/srv/x", Some("/srv")),
        ] {
            let mut bad = Manifest::new(SHAPE, memory.map(PathBuf::from));
            bad.files.push(file.into());
            assert!(bad.removable(&place).is_err(), "{file}");
        }
    }
}

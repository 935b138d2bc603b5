//! What a store is made of and where it listens: one TOML file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use control::{Problem, codes};
use serde::{Deserialize, Serialize};

use crate::pair::PairConfig;

/// Settings of a store. Relative paths are relative to the file they stand in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Name of the site, for people.
    pub site: String,
    /// Name of the pool.
    pub pool: String,
    /// The pool is for trying and breaking: `vmhold inject` works on it. It must have been made so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lab: bool,
    /// Drive files or block devices.
    pub drives: Vec<PathBuf>,
    /// Blank drives that take the place of failed ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spares: Vec<PathBuf>,
    /// Seconds that a drive that went away is waited for before a spare takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_wait_seconds: Option<u64>,
    /// One or two journal legs: persistent memory, devices, or files.
    pub journal: Vec<PathBuf>,
    /// Bytes of a stripe unit, when the pool is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_bytes: Option<u32>,
    /// Most data units of a stripe, when the pool is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stripe_data: Option<u8>,
    /// Memory for blocks that were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<u64>,
    /// Address of NFS.
    pub nfs: SocketAddr,
    /// Address of MOUNT, NLM and NSM; the NFS address also answers them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<SocketAddr>,
    /// Whether the built-in portmapper answers on port 111 of the NFS address.
    #[serde(default)]
    pub portmap: bool,
    /// Whether to register with the machine's rpcbind.
    #[serde(default)]
    pub rpcbind: bool,
    /// Address of the API.
    pub api: SocketAddr,
    /// How the drives are shared; what is not said has its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<IoConfig>,
    /// The other half, where this pool holds one of two copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<PairConfig>,
    /// Folder for what the API keeps: certificate, tokens, events, jobs, audit log.
    #[serde(default = "default_state")]
    pub state: PathBuf,
    /// The file it was read from.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// How the drives of the pool are shared and how late reads are treated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoConfig {
    /// Late reads that may be answered from the other drives, per million reads that have a
    /// timeout; 0 switches that off. 30,000 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedged_reads_ppm: Option<u32>,
    /// For how long after a client's last request background work leaves room for the
    /// next. 20 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_ms: Option<u64>,
    /// A drive whose requests take this many times what the other drives take is put out, 5 to
    /// 1,000; 0 switches that off. 20 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_drive_factor: Option<u32>,
    /// When it has been so for this long, 10 to 86,400. 60 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_drive_seconds: Option<u64>,
    /// Folder of drive profiles (`*.toml`); they go before those built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<PathBuf>,
    /// Parts of a drive by principal, relative to each other, 1 to 1,000,000.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shares: BTreeMap<String, u32>,
}

/// Beside the configuration.
fn default_state() -> PathBuf {
    DEFAULT_STATE.into()
}

/// Name of [`StoreConfig::state`] when none is given.
pub const DEFAULT_STATE: &str = "control";

impl StoreConfig {
    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<StoreConfig, Problem> {
        let mut config = Self::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let media = config.drives.iter_mut().chain(&mut config.spares).chain(&mut config.journal);
        for file in media.chain([&mut config.state]) {
            *file = folder.join(&*file);
        }
        if let Some(profiles) = config.io.as_mut().and_then(|io| io.profiles.as_mut()) {
            *profiles = folder.join(&*profiles);
        }
        if let Some(pair) = &mut config.pair {
            pair.membership = folder.join(&pair.membership);
            pair.address_hook = pair.address_hook.as_ref().map(|hook| folder.join(hook));
        }
        config.file = Some(path.to_owned());
        Ok(config)
    }

    /// The file at `path` as it stands.
    fn read(path: &Path) -> Result<StoreConfig, Problem> {
        let refused = |why: String| {
            Problem::new(&codes::BAD_INPUT, format!("{} is not a usable configuration", path.display())).why(why)
        };
        let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        toml::from_str(&text).map_err(|error| refused(error.to_string()))
    }

    /// Adds a drive that was given while the store ran to the file it was read from, so that
    /// it is found again after a restart. Nothing happens without a file.
    pub(crate) fn remember_drive(&self, drive: &Path) -> Result<(), Problem> {
        self.change_file(|stands| stands.spares.push(drive.to_owned()))
    }

    /// The same for drives that are about to become members: durable before they do, since a
    /// pool whose members nobody can find does not open. Says which were not known before.
    pub(crate) fn remember_members(&self, drives: &[PathBuf]) -> Result<Vec<PathBuf>, Problem> {
        let mut fresh = Vec::new();
        self.change_file(|stands| {
            let folder = self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
            let known: Vec<PathBuf> =
                stands.drives.iter().chain(&stands.spares).map(|path| folder.join(path)).collect();
            fresh = drives.iter().filter(|drive| !known.contains(drive)).cloned().collect();
            stands.drives.extend(fresh.iter().cloned());
        })?;
        Ok(fresh)
    }

    /// Takes drives that did not become members out of the file again.
    pub(crate) fn forget_members(&self, drives: &[PathBuf]) -> Result<(), Problem> {
        self.change_file(|stands| stands.drives.retain(|drive| !drives.contains(drive)))
    }

    /// Changes who and where the other site is.
    pub(crate) fn change_pair(&self, change: impl FnOnce(PairConfig) -> PairConfig) -> Result<(), Problem> {
        self.change_file(|stands| stands.pair = stands.pair.take().map(change))
    }

    /// Writes into the file that this pool is one of two.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn become_pair(&self, pair: PairConfig) -> Result<(), Problem> {
        self.change_file(|stands| stands.pair = Some(pair))
    }

    fn change_file(&self, change: impl FnOnce(&mut StoreConfig)) -> Result<(), Problem> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut stands = Self::read(file)?;
        change(&mut stands);
        stands.save(file)
    }

    /// Writes the file at `path`, durably: old or new after a crash.
    pub fn save(&self, path: &Path) -> Result<(), Problem> {
        let text = toml::to_string_pretty(self).map_err(|error| error.to_string());
        let written = text.and_then(|text| replace_file(path, &text).map_err(|error| error.to_string()));
        written.map_err(|why| Problem::new(&codes::BAD_INPUT, format!("{} cannot be written", path.display())).why(why))
    }
}

fn replace_file(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("toml.new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

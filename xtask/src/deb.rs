//! `cargo xtask deb`: Debian packages, put together with `dpkg-deb`, which every Debian has.
//!
//! Promises: what is in a package stands in `packaging/` or is printed by the program itself (manual pages,
//! completions), so it cannot say anything else; the same commit gives the same bytes; nothing outside the
//! build folder is written. What a package may do when it is installed: `tests/e2e/70-deb`.

mod libraries;
mod stage;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::run::Call;
use crate::tree::Tree;
use stage::Stage;

const FROM: &str = "packaging/deb";
const UNITS: [&str; 3] = ["vmhold.service", "vmhold-witness.service", "vmhold-host.service"];
const PLUGIN: &str = "packaging/pve";
const MODULES: [&str; 2] = ["PVE/Storage/Custom/VmholdPlugin.pm", "Vmhold/Client.pm"];
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
/// Shell, what the program calls it, and where Debian keeps its completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/vmhold"),
    ("zsh", "usr/share/zsh/vendor-completions/_vmhold"),
    ("fish", "usr/share/fish/vendor_completions.d/vmhold.fish"),
];

/// Arguments of `deb`.
#[derive(Args)]
pub struct DebArgs {
    /// Package this program instead of building it with --release
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Folder for the packages [default: `debian` in the build folder]
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// Compress little: for tests
    #[arg(long)]
    fast: bool,
}

/// What all packages of one run have in common.
struct Run<'a> {
    tree: &'a Tree,
    into: PathBuf,
    version: String,
    architecture: String,
    /// Time of the commit, in every file.
    epoch: String,
    fast: bool,
}

/// `cargo xtask deb`.
pub fn deb(tree: &Tree, args: &DebArgs) -> Result<(), String> {
    if !Call::new("dpkg-deb", tree.root()).args(["--version"]).works() {
        return Err("there is no dpkg-deb here: packages are made on Debian and its kin".into());
    }
    let built = tree.build_folder()?;
    // Other programs use both in folders of their own.
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|why| format!("{}: {why}", path.display()));
    let program = match &args.program {
        Some(program) => absolute(program)?,
        None => {
            Call::cargo(tree.root()).args(["build", "--release", "--locked", "-p", "vmhold"]).run()?;
            built.join("release/vmhold")
        }
    };
    let git = Call::new("git", tree.root()).args(["log", "-1", "--format=%ct"]).output()?;
    let architecture = Call::new("dpkg", tree.root()).args(["--print-architecture"]).output()?;
    let run = Run {
        tree,
        into: args.into.as_ref().map_or(Ok(built.join("debian")), absolute)?,
        version: version_of(tree)?,
        architecture: architecture.trim().to_owned(),
        epoch: git.trim().to_owned(),
        fast: args.fast,
    };
    println!("{}", server(&run, &program)?.display());
    println!("{}", proxmox(&run)?.display());
    Ok(())
}

fn version_of(tree: &Tree) -> Result<String, String> {
    let text = fs::read_to_string(tree.root().join("Cargo.toml")).map_err(|why| format!("Cargo.toml: {why}"))?;
    let manifest: toml::Table = text.parse().map_err(|why| format!("Cargo.toml: {why}"))?;
    let version = manifest["workspace"]["package"]["version"].as_str();
    version.map(str::to_owned).ok_or("Cargo.toml names no version".into())
}

/// The package `vmhold`: program, units, manual.
fn server(run: &Run<'_>, program: &Path) -> Result<PathBuf, String> {
    let stage = Stage::new(run, "vmhold")?;
    let binary = stage.put("usr/bin/vmhold", &read(program)?, 0o755)?;
    Call::new("strip", run.tree.root())
        .args(["--strip-unneeded", "--remove-section=.comment", &binary.to_string_lossy()])
        .run()?;
    for unit in UNITS {
        stage.copy(&format!("{FROM}/{unit}"), &format!("usr/lib/systemd/system/{unit}"), 0o644)?;
    }
    stage.copy("packaging/pair/vmhold-address", "usr/lib/vmhold/vmhold-address", 0o755)?;
    stage.copy(&format!("{FROM}/vmhold.sysusers"), "usr/lib/sysusers.d/vmhold.conf", 0o644)?;
    for service in ["vmhold-witness", "vmhold-host"] {
        stage.copy(&format!("{FROM}/{service}.default"), &format!("etc/default/{service}"), 0o644)?;
    }
    for (shell, place) in COMPLETIONS {
        let script = Call::new(&program.to_string_lossy(), run.tree.root()).args(["completions", shell]).output()?;
        stage.put(place, script.as_bytes(), 0o644)?;
    }
    manual(&stage, program)?;
    stage.copy(&format!("{FROM}/copyright"), "usr/share/doc/vmhold/copyright", 0o644)?;
    stage.compressed("usr/share/doc/vmhold/libraries", libraries::texts(run.tree)?.as_bytes())?;
    for script in SCRIPTS {
        stage.copy(&format!("{FROM}/{script}"), &format!("DEBIAN/{script}"), 0o755)?;
    }
    stage.put("DEBIAN/conffiles", b"/etc/default/vmhold-host\n/etc/default/vmhold-witness\n", 0o644)?;
    let depends =
        format!("{}, systemd | systemd-standalone-sysusers, init-system-helpers (>= 1.52)", stage.libraries(&binary)?);
    stage.package(&[("Architecture", &run.architecture), ("Depends", &depends), ("Section", "admin")], SERVER)
}

const SERVER: &str = "\
storage for virtual machines: NFS on a RAID-6 pool of its own
 vmhold serves disks of virtual machines by NFS from flash drives that it
 keeps as a RAID-6 pool, and knows which files are which VM: snapshots,
 clones and latency are the VM's. This package holds the server, the witness
 of two sites and the agent that accelerates writes on hypervisor hosts, as
 services that are off until somebody switches them on. Installing, upgrading
 and removing it touches no drive and no data.";

/// The package `vmhold-proxmox`: the storage plugin, for nodes of Proxmox VE.
fn proxmox(run: &Run<'_>) -> Result<PathBuf, String> {
    let stage = Stage::new(run, "vmhold-proxmox")?;
    for module in MODULES {
        stage.copy(&format!("{PLUGIN}/{module}"), &format!("usr/share/perl5/{module}"), 0o644)?;
    }
    stage.copy(&format!("{FROM}/vmhold-proxmox.copyright"), "usr/share/doc/vmhold-proxmox/copyright", 0o644)?;
    stage.compressed("usr/share/doc/vmhold-proxmox/PROXMOX.md", &read(&run.tree.root().join("docs/PROXMOX.md"))?)?;
    // Proxmox VE restarts what loads plugins when a package says this, and guests run on.
    stage.put("DEBIAN/triggers", b"activate-noawait pve-api-updates\n", 0o644)?;
    let depends =
        "perl, libpve-storage-perl (>= 8.0), libio-socket-ssl-perl, libnet-ssleay-perl, libjson-perl, nfs-common";
    stage.package(&[("Architecture", "all"), ("Depends", depends), ("Section", "perl")], PROXMOX)
}

const PROXMOX: &str = "\
storage plugin of Proxmox VE for datastores of vmhold
 Raw disks on a vmhold datastore, with snapshots of a running VM at one point
 of all its disks, rollback, linked clones of templates and snapshots, and
 resize, made by the store. Files are used by NFS as with the stock plugin.";

fn manual(stage: &Stage<'_>, program: &Path) -> Result<(), String> {
    let pages = stage.beside("pages");
    Call::new(&program.to_string_lossy(), Path::new("."))
        .args(["man", "--into", &pages.to_string_lossy()])
        .captured()
        .and_then(|(code, said)| if code == Some(0) { Ok(()) } else { Err(said) })?;
    let entries = fs::read_dir(&pages).map_err(|why| format!("{}: {why}", pages.display()))?;
    for entry in entries.flatten() {
        let place = format!("usr/share/man/man1/{}", entry.file_name().to_string_lossy());
        stage.compressed(&place, &read(&entry.path())?)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|why| format!("{}: {why}", path.display()))
}

//! The same client and checker against a server we did not write: Debian's nfs-ganesha,
//! killed and started again in the middle. Skipped, loudly, where it is not installed.
//!
//! Ganesha wants a port mapper, so both run in a network namespace of their own, and
//! this test program runs itself again in there.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Parser;
use load::command::{BenchCommand, Console};

const FOLDER: &str = "VMHOLD_LOAD_GANESHA_FOLDER";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchCommand,
}

fn run(options: &str) -> load::command::Output {
    let words = std::iter::once("bench").chain(options.split_whitespace());
    Cli::try_parse_from(words).unwrap().bench.run(Console::default()).unwrap()
}

fn there(program: &str) -> bool {
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    folders.iter().any(|folder| Path::new(folder).join(program).exists())
}

#[test]
fn a_foreign_server_is_driven_killed_and_checked() {
    let programs = ["ganesha.nfsd", "rpcbind", "unshare", "ip"];
    let missing: Vec<_> = programs.into_iter().filter(|program| !there(program)).collect();
    let namespaces = Command::new("unshare").args(["-n", "-m", "true"]).stderr(Stdio::null()).status();
    if !missing.is_empty() || !namespaces.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: nfs-ganesha in a namespace needs root and {programs:?}; missing: {missing:?}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/rpcbind && ip link set lo up && exec \"$@\"";
    let inner = ["--exact", "inside_the_namespace", "--ignored", "--nocapture"];
    let status = Command::new("unshare")
        .args(["-n", "-m", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(inner)
        .env(FOLDER, folder.path())
        .status()
        .unwrap();
    assert!(status.success());
}

/// A process that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, arguments: &[&str]) -> Running {
    let mut command = Command::new(program);
    Running(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

#[test]
#[ignore = "started by the other test, in a namespace of its own"]
fn inside_the_namespace() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        eprintln!("SKIPPED: only makes sense inside the namespace the other test makes");
        return;
    };
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::create_dir(path("export")).unwrap();
    let configuration = format!(
        "NFS_CORE_PARAM {{ Protocols = 3; NFS_Port = 20049; MNT_Port = 20048; Enable_NLM = false; Enable_RQUOTA = false; }}
         EXPORT_DEFAULTS {{ SecType = sys; Squash = No_Root_Squash; Access_Type = RW; }}
         EXPORT {{ Export_Id = 1; Path = {}; Pseudo = /export; Protocols = 3; Transports = TCP; FSAL {{ Name = VFS; }} }}",
        path("export")
    );
    std::fs::write(path("ganesha.conf"), configuration).unwrap();
    let (log, conf, pid) = (path("log"), path("ganesha.conf"), path("pid"));
    let ganesha = || start("ganesha.nfsd", &["-F", "-L", &log, "-f", &conf, "-p", &pid]);
    let _rpcbind = start("rpcbind", &["-w", "-f"]);
    std::thread::sleep(Duration::from_millis(300));
    let mut server = ganesha();
    let target = format!("nfs://127.0.0.1{}", path("export"));
    let by_portmapper = format!("--target {target} --wait 20s --ops 5000 --mix vm --verify --verify-end --files 2");
    let output = run(&by_portmapper);
    assert!(output.ok, "{}", output.text);
    let journal = path("journal");
    let load = format!("--target {target} --port 20049 --mountport 20048 --mix 50/50 --verify --files 2 --duration 4s");
    let load = format!("{load} --journal {journal}");
    let output = std::thread::scope(|scope| {
        let load = scope.spawn(|| run(&load));
        std::thread::sleep(Duration::from_secs(2));
        drop(std::mem::replace(&mut server, start("true", &[])));
        server = ganesha();
        load.join().unwrap()
    });
    assert!(output.ok, "{}", output.text);
    assert!(output.text.contains("connections lost and opened again"), "{}", output.text);
    let output = run(&format!("verify --journal {journal}"));
    assert!(output.ok, "{}", output.text);
}

//! vmhold beside nfs-ganesha: the same load, the same file system below, in turns.
//!
//! Each pair runs every workload once on a fresh server of either kind; what is printed
//! is the median over the pairs of the ratio ours / theirs, which holds when the machine's
//! speed drifts, and the median rates for scale. CPU is the server's whole process time
//! per operation, all stages included: deduplication, compression, checks and parity are
//! on. Needs Debian's nfs-ganesha-vfs and rpcbind, and root for a network namespace of its
//! own. `VMHOLD_BENCH_PAIRS` (5) and `VMHOLD_BENCH_SECONDS` (3) set the effort.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const VMHOLD: &str = env!("CARGO_BIN_EXE_vmhold");
const INSIDE: &str = "VMHOLD_BENCH_INSIDE";
/// Name, mix, block size, depth.
const WORKLOADS: [(&str, &str, &str, &str); 6] = [
    ("8 KiB write, depth 1", "write", "8k", "1"),
    ("8 KiB write, depth 16", "write", "8k", "16"),
    ("64 KiB write, depth 16", "write", "64k", "16"),
    ("256 KiB write, depth 16", "write", "256k", "16"),
    ("8 KiB read, depth 16", "read", "8k", "16"),
    ("70/30/0.1 mix, depth 16", "vm", "8k", "16"),
];

#[derive(Clone, Copy)]
struct Measured {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
}

struct Server {
    process: Child,
    target: String,
    mount_port: u16,
    folder: PathBuf,
    /// rpcbind, for a peer that wants it.
    helper: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in [Some(&mut self.process), self.helper.as_mut()].into_iter().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn main() {
    if std::env::args().any(|word| word == "--list") {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        let own = std::env::current_exe().unwrap();
        let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/rpcbind && ip link set lo up && exec \"$1\"";
        let status =
            Command::new("unshare").args(["-n", "-m", "sh", "-c", script, "sh"]).arg(own).env(INSIDE, "1").status();
        return match status {
            Ok(status) if status.success() => {}
            _ => println!("SKIPPED: no network namespace of our own can be made (needs root)"),
        };
    }
    let number = |name: &str, default: usize| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (pairs, seconds) = (number("VMHOLD_BENCH_PAIRS", 5), number("VMHOLD_BENCH_SECONDS", 3));
    if !Path::new("/usr/bin/ganesha.nfsd").exists() {
        return println!("SKIPPED: nfs-ganesha is not installed (apt-get install nfs-ganesha-vfs rpcbind)");
    }
    for (place, below) in [("tmpfs", PathBuf::from("/dev/shm")), ("disk", std::env::temp_dir())] {
        compare(place, &below, (pairs, seconds));
    }
}

fn compare(place: &str, below: &Path, (pairs, seconds): (usize, usize)) {
    let mut found: Vec<Vec<(Measured, Measured)>> = vec![Vec::new(); WORKLOADS.len()];
    for pair in 0..pairs {
        let mut results = [Vec::new(), Vec::new()];
        for turn in 0..2 {
            let which = (pair + turn) % 2;
            let folder = below.join(format!("vmhold-peers-{}-{which}", std::process::id()));
            let server = if which == 0 { ours(&folder) } else { ganesha(&folder) };
            results[which] = WORKLOADS.iter().map(|workload| measure(&server, workload, seconds)).collect();
        }
        let [ours, theirs] = results;
        for (row, pair) in found.iter_mut().zip(ours.into_iter().zip(theirs)) {
            row.push(pair);
        }
    }
    println!("| on {place} | ours/s | ganesha/s | rate ratio | p50 ratio | p99/p50 ours | CPU µs ours | CPU ratio |");
    println!("|---|---|---|---|---|---|---|---|");
    for (workload, row) in WORKLOADS.iter().zip(&found) {
        let median = |value: &dyn Fn(&(Measured, Measured)) -> f64| {
            let mut all: Vec<f64> = row.iter().map(value).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        println!(
            "| {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.1} | {:.1} | {:.2} |",
            workload.0,
            median(&|(a, _)| a.per_second),
            median(&|(_, b)| b.per_second),
            median(&|(a, b)| a.per_second / b.per_second),
            median(&|(a, b)| a.p50_ms / b.p50_ms),
            median(&|(a, _)| a.p99_ms / a.p50_ms),
            median(&|(a, _)| a.cpu_us),
            median(&|(a, b)| a.cpu_us / b.cpu_us),
        );
    }
    println!();
}

fn measure(server: &Server, (_, mix, block, depth): &(&str, &str, &str, &str), seconds: usize) -> Measured {
    let before = cpu_seconds(server.process.id());
    let output = Command::new(VMHOLD)
        .args(["bench", "--json", "--target", &server.target, "--mountport", &server.mount_port.to_string()])
        .args(["--mix", mix, "--block-size", block, "--depth", depth, "--files", "4", "--file-size", "32M"])
        .args(["--duration", &format!("{seconds}s"), "--wait", "20s", "--tcp-congestion", "reno"])
        .output()
        .unwrap();
    let used = cpu_seconds(server.process.id()) - before;
    let document: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let data = &document["data"];
    let operations = data["operations"].as_f64().unwrap();
    let kind = if *mix == "write" { "write" } else { "read" };
    let kinds = data["kinds"].as_array().unwrap();
    let latency = &kinds.iter().find(|found| found["kind"] == kind).unwrap()["latency_ms"];
    Measured {
        per_second: data["operations_per_second"].as_f64().unwrap(),
        p50_ms: latency["p50"].as_f64().unwrap(),
        p99_ms: latency["p99"].as_f64().unwrap(),
        cpu_us: used * 1e6 / operations,
    }
}

fn cpu_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

/// Made by `quickstart`, stopped, and served as our own child, whose CPU we can read.
fn ours(folder: &Path) -> Server {
    fs::create_dir(folder).unwrap();
    let dir = folder.join("demo").display().to_string();
    let make = [
        "quickstart",
        "--profile",
        "single",
        "--background",
        "--json",
        "--no-load",
        "--drives",
        "8",
        "--size",
        "512MiB",
        "--dir",
        &dir,
    ];
    let made = Command::new(VMHOLD).args(make).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let document: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let nfs = &document["data"]["nfs"];
    let target = format!("nfs://{}:{}{}", nfs["host"].as_str().unwrap(), nfs["port"], nfs["export"].as_str().unwrap());
    let mount_port = u16::try_from(nfs["mount_port"].as_u64().unwrap()).unwrap();
    let pid = document["data"]["pids"][0].to_string();
    run("kill", &["-TERM", &pid]);
    while Path::new("/proc").join(&pid).exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let process = start(VMHOLD, &["serve", "--dir", &dir]);
    Server { process, target, mount_port, folder: folder.to_owned(), helper: None }
}

fn ganesha(folder: &Path) -> Server {
    let path = |name: &str| folder.join(name).display().to_string();
    fs::create_dir_all(path("export")).unwrap();
    let configuration = format!(
        "NFS_CORE_PARAM {{ Protocols = 3; NFS_Port = 20149; MNT_Port = 20148; Enable_NLM = false; Enable_RQUOTA = false; }}
         EXPORT_DEFAULTS {{ SecType = sys; Squash = No_Root_Squash; Access_Type = RW; }}
         EXPORT {{ Export_Id = 1; Path = {export}; Pseudo = /export; Protocols = 3; Transports = TCP; FSAL {{ Name = VFS; }} }}",
        export = path("export")
    );
    fs::write(path("ganesha.conf"), configuration).unwrap();
    let helper = start("rpcbind", &["-w", "-f"]);
    std::thread::sleep(Duration::from_millis(500));
    let process = start("ganesha.nfsd", &["-F", "-L", &path("log"), "-f", &path("ganesha.conf"), "-p", &path("pid")]);
    let target = format!("nfs://127.0.0.1:20149{}", path("export"));
    Server { process, target, mount_port: 20148, folder: folder.to_owned(), helper: Some(helper) }
}

fn start(program: &str, arguments: &[&str]) -> Child {
    Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
}

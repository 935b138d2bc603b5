//! A vmhold server as a child of a bench, loads on it, and what it used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const VMHOLD: &str = env!("CARGO_BIN_EXE_vmhold");

/// A number from the environment.
pub fn effort(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Median of `values`.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A server made by `quickstart`, stopped, and served as our own child, whose use of the
/// machine we can read. Ends, and takes its folder along, when it goes.
pub struct Store {
    pub dir: PathBuf,
    pub process: Child,
    target: String,
    mount_port: String,
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(self.dir.parent().unwrap());
    }
}

impl Store {
    /// `cache` is a line of the configuration, or nothing.
    pub fn make(folder: &Path, cache: &str) -> Store {
        fs::create_dir_all(folder).unwrap();
        let dir = folder.join("demo");
        let text = dir.display().to_string();
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
        ];
        let made = Command::new(VMHOLD).args(make).arg(&text).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let document: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
        let nfs = &document["data"]["nfs"];
        let target =
            format!("nfs://{}:{}{}", nfs["host"].as_str().unwrap(), nfs["port"], nfs["export"].as_str().unwrap());
        let pid = document["data"]["pids"][0].to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        while Path::new("/proc").join(&pid).exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let config = dir.join("vmhold.toml");
        let settings = fs::read_to_string(&config).unwrap();
        fs::write(&config, format!("{cache}\n{settings}")).unwrap();
        let mount_port = nfs["mount_port"].to_string();
        Store { process: serve(&dir), dir, target, mount_port }
    }

    /// Kills the server at once, starts it again, and says how long it took to be ready.
    pub fn crash_and_restart(&mut self) -> Duration {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let started = Instant::now();
        self.process = serve(&self.dir);
        started.elapsed()
    }

    /// Runs `vmhold bench` with these arguments; its document.
    pub fn load(&self, arguments: &[&str]) -> serde_json::Value {
        let output = Command::new(VMHOLD)
            .args(["bench", "--json", "--target", &self.target, "--mountport", &self.mount_port])
            .args(["--wait", "20s", "--tcp-congestion", "reno"])
            .args(arguments)
            .output()
            .unwrap();
        let document: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        document["data"].clone()
    }

    /// Operations per second of such a load.
    pub fn rate(&self, arguments: &[&str]) -> f64 {
        self.load(arguments)["operations_per_second"].as_f64().unwrap()
    }

    /// Processor time so far.
    pub fn cpu_seconds(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
        ticks / 100.0
    }

    /// Most memory it had at a time, in bytes.
    pub fn peak_bytes(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
    }
}

/// Starts the server of a folder and waits until it says that it is ready.
fn serve(dir: &Path) -> Child {
    let ready = dir.join("ready.json");
    let _ = fs::remove_file(&ready);
    let mut process = Command::new(VMHOLD)
        .args(["serve", "--dir"])
        .arg(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !ready.exists() {
        assert!(process.try_wait().unwrap().is_none(), "the server ended before it was ready");
        std::thread::sleep(Duration::from_millis(2));
    }
    process
}

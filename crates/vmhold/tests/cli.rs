//! The real binary from end to end: make a demo, look at it, break it, prove that nothing
//! is lost, remove it without a trace.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A folder for one demo, which is destroyed whatever happens.
struct Demo {
    parent: tempfile::TempDir,
}

/// What a command did.
struct Done {
    exit: i32,
    json: Value,
    stderr: String,
}

fn vmhold() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmhold"));
    command.env_remove("VMHOLD_DIR").env_remove("VMHOLD_API").stdin(Stdio::null());
    command
}

fn done(output: &Output) -> Done {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.lines().count() <= 1, "one document, not {text}");
    Done {
        exit: output.status.code().unwrap(),
        json: serde_json::from_str(&text).unwrap_or(Value::Null),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

const LIGHT: [&str; 13] = [
    "--profile",
    "single",
    "--memory",
    "--size",
    "96MiB",
    "--drives",
    "6",
    "--ports-from",
    "0",
    "--return-wait",
    "1h",
    "--spares",
    "0",
];

impl Demo {
    fn new() -> Self {
        Self { parent: tempfile::tempdir().unwrap() }
    }

    fn started() -> (Self, Value) {
        Self::started_as(&LIGHT)
    }

    fn started_as(shape: &[&str]) -> (Self, Value) {
        let demo = Self::new();
        let started = demo.run(&[&["quickstart", "--background"], shape].concat());
        assert_eq!(started.exit, 0, "{}", started.stderr);
        let data = started.json["data"].clone();
        (demo, data)
    }

    fn dir(&self) -> PathBuf {
        self.parent.path().join("demo")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = vmhold();
        command.args(words).arg("--dir").arg(self.dir());
        command
    }

    /// Runs a command with `--json`.
    fn run(&self, words: &[&str]) -> Done {
        done(&self.command(words).arg("--json").output().unwrap())
    }

    /// Runs one that must do.
    fn data(&self, words: &[&str]) -> Value {
        let done = self.run(words);
        assert_eq!(done.exit, 0, "{words:?}: {} {}", done.stderr, done.json);
        done.json["data"].clone()
    }

    fn text(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Every acknowledged write is there and every reference holds.
    fn check(&self) -> Value {
        let checked = self.data(&["quickstart", "check"]);
        for count in ["lost", "stale", "misplaced", "damaged"] {
            assert_eq!(checked[count], 0, "{checked}");
        }
        assert!(checked["writes_checked"].as_u64().unwrap() >= 400, "{checked}");
        assert_eq!(checked["fsck"]["clean"], true, "{checked}");
        assert!(checked["fsck"]["objects_checked"].as_u64().unwrap() > 100, "{checked}");
        checked
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Tests that destroyed it themselves have nothing left here.
        let _ = self.command(&["quickstart", "destroy"]).output();
    }
}

fn memory_folder(demo: &Demo) -> PathBuf {
    let manifest = std::fs::read(demo.dir().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    Path::new(manifest["memory_folder"].as_str().unwrap()).to_owned()
}

#[test]
fn a_demo_shows_itself_in_json_and_in_text_and_goes_without_a_trace() {
    let (demo, data) = Demo::started();
    assert_eq!(data["dir"], demo.dir().to_str().unwrap());
    assert_eq!(data["nfs"]["export"], "/demo");
    assert_eq!(data["nfs"]["mount_port"], data["nfs"]["port"]);
    let pid = data["pids"][0].as_u64().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());

    let status = demo.data(&["status"]);
    assert_eq!(status["pools"][0]["name"], "flash0");
    assert_eq!(status["nfs"]["port"], data["nfs"]["port"]);
    assert_eq!(status["can_i_lose"][0]["now"], "2 more");
    assert_eq!(demo.data(&["pool", "list"])[0]["stripe_data"], 4);
    let drives = demo.data(&["drive", "list"]);
    let slots: Vec<u64> = drives.as_array().unwrap().iter().map(|drive| drive["slot"].as_u64().unwrap()).collect();
    assert_eq!(slots, [1, 2, 3, 4, 5, 6]);
    assert!(drives[2]["path"].as_str().unwrap().ends_with("/drives/3"));
    for words in [&["status"][..], &["pool", "show", "flash0", "--map"], &["drive", "list"], &["datastore", "list"]] {
        assert!(demo.text(words).contains("flash0") || words[0] == "datastore", "{words:?}");
    }

    let memory = memory_folder(&demo);
    assert!(memory.join("drives/6").exists());
    assert_eq!(demo.data(&["quickstart", "destroy"])["folder_removed"], true);
    assert!(!demo.dir().exists() && !memory.exists());
    assert_eq!(demo.run(&["status"]).exit, 3);
}

#[test]
fn datastores_come_and_go_and_are_not_deleted_by_accident() {
    let (demo, _) = Demo::started();
    assert_eq!(demo.data(&["datastore", "create", "prod", "--allow", "10.0.0.0/8"])["export"], "/prod");
    let again = demo.run(&["datastore", "create", "prod"]);
    assert_eq!((again.exit, again.json["error"]["code"].as_str()), (5, Some("VH2002")));
    assert_eq!(demo.run(&["datastore", "create", "a/b"]).exit, 2);
    let list = demo.data(&["datastore", "list"]);
    assert_eq!((list[0]["name"].as_str(), list[1]["name"].as_str()), (Some("demo"), Some("prod")));
    let info = demo.text(&["datastore", "mount-info", "prod", "--for", "proxmox"]);
    assert!(info.contains("pvesm add nfs prod --server 127.0.0.1 --export /prod"), "{info}");
    assert_eq!(demo.run(&["datastore", "mount-info", "prod", "--for", "hyper-v"]).exit, 2);

    let unconfirmed = demo.run(&["datastore", "delete", "prod", "--no-input"]);
    assert_eq!((unconfirmed.exit, unconfirmed.json["error"]["code"].as_str()), (6, Some("VH7428")));
    assert_eq!(demo.run(&["datastore", "delete", "prod", "--confirm", "demo"]).exit, 6);
    assert_eq!(demo.data(&["datastore", "show", "prod"])["name"], "prod");
    assert_eq!(demo.data(&["datastore", "delete", "prod", "--confirm", "prod"])["name"], "prod");
    assert_eq!(demo.run(&["datastore", "show", "prod"]).exit, 3);
}

#[test]
fn kill_9_loses_nothing() {
    let (demo, data) = Demo::started();
    let killed = demo.data(&["quickstart", "break", "kill"]);
    assert_eq!(killed["pid"], data["pids"][0]);
    let gone = demo.run(&["status"]);
    assert_eq!((gone.exit, gone.json["error"]["code"].as_str()), (8, Some("VH8004")));
    assert!(gone.stderr.starts_with("error[VH8004]: "), "{}", gone.stderr);
    assert_eq!(demo.run(&["quickstart", "check"]).exit, 8);

    let resumed = demo.data(&["quickstart", "resume", "--background"]);
    assert_ne!(resumed["pids"], data["pids"]);
    assert_eq!(resumed["nfs"], data["nfs"], "clients find it where it was");
    demo.check();
    let twice = demo.run(&["quickstart", "resume", "--background"]);
    assert_eq!((twice.exit, twice.json["error"]["code"].as_str()), (5, Some("VH8003")));
}

#[test]
fn two_drives_are_lost_and_a_third_is_refused() {
    let (demo, _) = Demo::started();
    demo.data(&["quickstart", "break", "drive", "2", "--how", "replace"]);
    demo.data(&["quickstart", "break", "drive", "flash0/5", "--how", "truncate"]);
    let pool = demo.data(&["pool", "show", "flash0"]);
    assert_eq!((pool["state"].as_str(), pool["failures_tolerated"].as_u64()), (Some("CRITICAL"), Some(0)), "{pool}");
    let third = demo.run(&["quickstart", "break", "drive", "3"]);
    assert_eq!((third.exit, third.json["error"]["code"].as_str()), (5, Some("VH1015")));
    assert_eq!(demo.run(&["quickstart", "break", "bits", "10"]).exit, 5);
    assert_eq!(demo.run(&["quickstart", "break", "drive", "7"]).exit, 3);
    demo.check();
    demo.data(&["quickstart", "break", "kill"]);
    demo.data(&["quickstart", "resume", "--background"]);
    demo.check();
}

#[test]
fn a_spare_takes_the_place_of_a_lost_drive_through_a_kill() {
    let mut shape = LIGHT;
    (shape[10], shape[12]) = ("2s", "1");
    let (demo, _) = Demo::started_as(&shape);
    demo.data(&["quickstart", "break", "drive", "3"]);
    // Somewhere before, in, or behind the rebuild.
    demo.data(&["quickstart", "break", "kill"]);
    demo.data(&["quickstart", "resume", "--background"]);
    let pool = demo.data(&["pool", "wait", "flash0", "--timeout", "5m"]);
    assert_eq!((pool["state"].as_str(), pool["failures_tolerated"].as_u64()), (Some("ONLINE"), Some(2)), "{pool}");
    let drive = &demo.data(&["drive", "show", "flash0/3"])[0];
    assert!(drive["path"].as_str().unwrap().ends_with("/drives/7"), "{drive}");
    demo.check();
    demo.data(&["quickstart", "break", "drive", "1"]);
    demo.data(&["quickstart", "break", "drive", "2"]);
    demo.check();
}

#[test]
fn a_pulled_drive_comes_back_and_swapped_drives_are_found() {
    let (demo, _) = Demo::started();
    demo.data(&["quickstart", "break", "pull", "4"]);
    let pool = demo.data(&["pool", "show", "flash0"]);
    assert_eq!(pool["state"].as_str(), Some("DEGRADED"), "{pool}");
    demo.data(&["quickstart", "break", "push", "4"]);
    assert_eq!(demo.run(&["quickstart", "break", "push", "4"]).exit, 3);
    demo.data(&["pool", "wait", "flash0", "--timeout", "5m"]);
    demo.data(&["quickstart", "break", "swap-drives", "2", "6"]);
    demo.data(&["pool", "wait", "flash0", "--timeout", "5m"]);
    demo.check();
    let scrub = demo.data(&["pool", "scrub", "start", "flash0"]);
    assert_eq!(scrub["state"].as_str(), Some("RUNNING"), "{scrub}");
    let paused = demo.data(&["pool", "scrub", "pause", "flash0"]);
    assert_eq!(paused["state"].as_str(), Some("PAUSED"), "{paused}");
}

#[test]
fn flipped_bits_are_found_and_repaired() {
    let (demo, _) = Demo::started();
    let broken = demo.data(&["quickstart", "break", "bits", "200"]);
    let hurt: Vec<u64> = broken["drives"].as_array().unwrap().iter().map(|drive| drive.as_u64().unwrap()).collect();
    assert_eq!(hurt.len(), 2);
    let whole = (1..=6).find(|drive| !hurt.contains(drive)).unwrap().to_string();
    let third = demo.run(&["quickstart", "break", "drive", &whole]);
    assert_eq!(third.json["error"]["code"].as_str(), Some("VH1015"), "nobody has repaired two others");
    demo.check();
    let repaired = demo.data(&["pool", "show", "flash0"])["repaired_units"].as_u64().unwrap();
    assert!(repaired > 0, "200 bits on two drives damage units that hold something");
    demo.check();
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let demo = Demo::new();
    std::fs::create_dir(demo.dir()).unwrap();
    let mine = demo.dir().join("mine");
    std::fs::write(&mine, "x").unwrap();
    let refused = demo.run(&[&["quickstart", "--background"], &LIGHT[..]].concat());
    assert_eq!((refused.exit, refused.json["error"]["code"].as_str()), (5, Some("VH8002")));
    assert_eq!(std::fs::read_dir(demo.dir()).unwrap().count(), 1);
    std::fs::remove_file(&mine).unwrap();

    let started = demo.run(&[&["quickstart", "--background", "--no-load"], &LIGHT[..]].concat());
    assert_eq!(started.exit, 0, "an empty folder will do: {}", started.stderr);
    std::fs::write(&mine, "x").unwrap();
    let destroyed = demo.run(&["quickstart", "destroy"]);
    assert_eq!((destroyed.exit, destroyed.json["error"]["code"].as_str()), (5, Some("VH8005")));
    assert_eq!(std::fs::read_dir(demo.dir()).unwrap().count(), 1, "only what is not ours is left");
}

#[test]
fn in_the_foreground_it_lives_as_long_as_its_command() {
    let demo = Demo::new();
    let words = [&["quickstart", "--no-load", "--json"], &LIGHT[..]].concat();
    let mut command = demo.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(command.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let server = ready["data"]["pids"][0].as_u64().unwrap();
    kill_process(Pid::from_child(&command), Signal::INT).unwrap();
    let mut stderr = String::new();
    command.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(command.wait().unwrap().success(), "{stderr}");
    assert!(stderr.ends_with("stopped\n"), "{stderr}");
    assert!(!Path::new(&format!("/proc/{server}")).exists());
    let log = std::fs::read_to_string(demo.dir().join("server.log")).unwrap();
    assert!(log.lines().last().unwrap().contains("VH8042"), "it ended with a checkpoint: {log}");
}

#[test]
fn errors_have_codes_and_the_exit_codes_that_scripts_know() {
    let demo = Demo::new();
    for (words, exit) in [
        (&["status"][..], 3),
        (&["serve"], 3),
        (&["quickstart", "destroy"], 3),
        (&["quickstart", "resume"], 3),
        (&["explain", "VH0000"], 3),
        (&["status", "--api", "127.0.0.1:1"], 4),
        (&["datastore", "list", "--api", "127.0.0.1:1", "--fingerprint", "ab"], 2),
        (&["fsck", "--watch"], 2),
        (&["man", "pool", "shrink"], 3),
        (&["statsu"], 2),
        (&["quickstart", "--drives", "99"], 2),
        (&["serve", "--api", "0.0.0.0:1"], 3),
        (&["bench"], 2),
    ] {
        let failed = demo.run(words);
        assert_eq!(failed.exit, exit, "{words:?}: {}", failed.stderr);
        assert!(failed.json["error"]["code"].as_str().unwrap().starts_with("VH"), "{words:?}: {}", failed.json);
        assert!(!failed.stderr.is_empty() && !failed.stderr.contains("panicked"), "{}", failed.stderr);
    }
    assert!(!demo.dir().exists(), "none of them made anything");
    let page = demo.text(&["explain", "DRIVE_FAILED"]);
    assert!(page.starts_with("VH1021 DRIVE_FAILED"), "{page}");
    assert!(demo.text(&["completions", "bash"]).contains("quickstart"));
}

#[test]
fn a_pool_made_by_hand_is_served_by_one_process_only() {
    let demo = Demo::new();
    let file = |name: &str| demo.parent.path().join(name).display().to_string();
    let drives: Vec<String> = (1..=5).map(|number| file(&format!("d{number}"))).collect();
    let (journal, config) = (file("journal"), file("store.toml"));
    let create = |words: &[&str]| {
        let mut command = vmhold();
        command.args(["--json", "pool", "create", "tank", "--config", &config, "--nfs", "127.0.0.1:0"]);
        command.args(["--api", "127.0.0.1:0", "--datastore", "vms", "--journal", &journal]);
        for drive in &drives {
            command.args(["--drive", drive]);
        }
        done(&command.args(words).output().unwrap())
    };
    let sizes = ["--drive-size", "64MiB", "--journal-size", "32MiB"];
    assert_eq!(create(&[]).exit, 1, "files that are not there are not made unasked");
    let made = create(&sizes);
    assert_eq!(made.exit, 0, "{}", made.stderr);
    assert_eq!(create(&sizes).json["error"]["code"], "VH1007");

    let serve = || {
        let mut command = vmhold();
        command.args(["--json", "serve", "--config", &config]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut server = serve().spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let second = done(&serve().output().unwrap());
    assert_eq!((second.exit, second.json["error"]["code"].as_str()), (5, Some("VH1009")));
    let api = ready["data"]["api"].as_str().unwrap();
    let fingerprint = ready["data"]["fingerprint"].as_str().unwrap();
    let folder = demo.parent.path().to_str().unwrap();
    let list = done(&vmhold().args(["--json", "datastore", "list", "--dir", folder]).output().unwrap());
    assert_eq!(list.json["data"][0]["name"], "vms");
    // From elsewhere: address, fingerprint and a token, and nothing of the folder.
    let token = vmhold().args(["token", "create", "far", "--quiet", "--dir", folder]).output().unwrap();
    std::fs::write(file("token"), &token.stdout).unwrap();
    let far = |fingerprint: &str, words: &[&str]| {
        let mut command = vmhold();
        command.args(["--json", "--api", api, "--fingerprint", fingerprint, "--token-file", &file("token")]);
        done(&command.args(words).args(["--dir", &file("nowhere")]).output().unwrap())
    };
    assert_eq!(far(fingerprint, &["datastore", "list"]).json["data"][0]["name"], "vms");
    assert_eq!(far(fingerprint, &["datastore", "create", "x"]).exit, 4, "a viewer only looks");
    let other = far(&"00".repeat(32), &["datastore", "list"]);
    assert_eq!(other.exit, 8, "another certificate is another server: {}", other.stderr);
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    assert!(server.wait().unwrap().success());
    assert!(!demo.parent.path().join("ready.json").exists());
}

/// `--dry-run` on every kind of change, the events and jobs they leave, who did it, and no
/// secret in any file but the two that hold them.
#[test]
fn changes_are_planned_told_and_written_down_without_a_secret() {
    let (demo, data) = Demo::started();
    let planned = demo.data(&["datastore", "create", "prod", "--dry-run"]);
    assert!(planned["would"][0].as_str().unwrap().contains("make datastore prod"), "{planned}");
    assert_eq!(demo.run(&["datastore", "create", "demo", "--dry-run"]).exit, 5);
    let planned = demo.data(&["datastore", "delete", "demo", "--dry-run"]);
    assert_eq!(planned["confirm"], "demo");
    for words in [&["fsck"][..], &["checkpoint"], &["token", "create", "t"]] {
        let planned = demo.data(&[words, &["--dry-run"]].concat());
        assert!(!planned["would"].as_array().unwrap().is_empty(), "{words:?}");
    }
    assert_eq!(demo.data(&["datastore", "list"]).as_array().unwrap().len(), 1);
    assert!(demo.data(&["job", "list"]).as_array().unwrap().is_empty());

    demo.data(&["fsck"]);
    let job = &demo.data(&["job", "list"])[0];
    assert_eq!((job["kind"].as_str(), job["percent"].as_f64()), (Some("fsck"), Some(100.0)), "{job}");
    assert_eq!(demo.data(&["job", "show", "J-1"])["state"], "done");
    assert_eq!(demo.run(&["job", "cancel", "J-1"]).exit, 5);
    demo.data(&["quickstart", "break", "drive", "2"]);
    let raised = demo.data(&["events", "list"]);
    let raised: Vec<&str> = raised.as_array().unwrap().iter().map(|event| event["code"].as_str().unwrap()).collect();
    assert!(raised.contains(&"VH8041"), "{raised:?}");

    let secret = demo.data(&["token", "create", "prometheus"])["secret"].as_str().unwrap().to_owned();
    assert_eq!(demo.data(&["token", "list"])[0]["role"], "viewer");
    let login = data["ui"].as_str().unwrap().rsplit_once('=').unwrap().1.to_owned();
    assert!(demo.data(&["ui"])["url"].as_str().unwrap().starts_with(data["api"].as_str().unwrap()));
    let audit = demo.data(&["audit", "list"]);
    assert!(audit.as_array().unwrap().iter().any(|entry| entry["action"] == "POST /v1/tokens"), "{audit}");
    assert_eq!(demo.data(&["audit", "verify"])["broken_at_line"], Value::Null);

    let local = std::fs::read_to_string(demo.dir().join("control/local-token")).unwrap();
    for entry in std::fs::read_dir(demo.dir()).unwrap().chain(std::fs::read_dir(demo.dir().join("control")).unwrap()) {
        let path = entry.unwrap().path();
        if path.is_dir() || path.ends_with("local-token") {
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        for secret in [&secret, &login, &local] {
            assert!(!text.contains(secret.as_str()), "a secret lies in {}", path.display());
        }
    }
    // Everything outlives a kill, and the restart is told.
    demo.data(&["quickstart", "break", "kill"]);
    demo.data(&["quickstart", "resume", "--background"]);
    assert_eq!(demo.data(&["job", "show", "J-1"])["state"], "done");
    assert_eq!(demo.data(&["audit", "verify"])["broken_at_line"], Value::Null);
    let starts = demo.data(&["events", "list"]);
    let starts = starts.as_array().unwrap().iter().filter(|event| event["code"] == "VH8041").count();
    assert_eq!(starts, 2);
}

#[test]
fn iostat_prints_intervals_whose_parts_sum_up() {
    let (demo, _) = Demo::started();
    let text = demo.text(&["iostat", "1", "--count", "2"]);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let lines = demo.command(&["iostat", "--count", "2", "--json"]).output().unwrap();
    let lines = String::from_utf8(lines.stdout).unwrap();
    assert_eq!(lines.lines().count(), 2);
    for line in lines.lines() {
        let latency = &serde_json::from_str::<Value>(line).unwrap()["data"]["latency_ms"];
        let Some(total) = latency["total"].as_f64() else { continue };
        let parts = ["queue", "journal", "flash", "contention"].map(|part| latency[part].as_f64().unwrap());
        assert!((total - parts.iter().sum::<f64>()).abs() < 1e-6, "{latency}");
    }
    let page = demo.text(&["man", "pool", "create"]);
    assert!(page.contains(".TH vmhold-pool-create 1") && page.contains("stripe"), "{page}");
    let pages = demo.parent.path().join("pages");
    demo.text(&["man", "--into", pages.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(pages.join("vmhold-pool-create.1")).unwrap(), page);
    assert!(pages.join("vmhold.1").exists() && !pages.join("vmhold-help.1").exists());
}

//! `quickstart`: its document and its text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::Document;
use crate::replication::{PairState, Role};
use crate::text;

/// Folder of a demo when none is named.
pub const DEFAULT_DIR: &str = "./vmhold-demo";

/// A running demo. `quickstart --json` prints it once everything answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quickstart {
    /// Version.
    pub version: String,
    /// Folder.
    pub dir: String,
    /// Processes.
    pub pids: Vec<u32>,
    /// Where the datastore is served.
    pub nfs: DemoNfs,
    /// Base address of the API, as in `https://127.0.0.1:8080`.
    pub api: String,
    /// Address of the web UI with a login that works once.
    pub ui: Option<String>,
    /// What the certificate of the API is known by.
    pub fingerprint: Option<String>,
    /// Log file.
    pub log: String,
    /// Name of the pool.
    pub pool: String,
    /// Number of drives.
    pub drives: u32,
    /// Size of each.
    pub drive_bytes: u64,
    /// Stripe, as in `4+2`.
    pub stripe: String,
    /// What the drives lie on is memory.
    pub memory: bool,
    /// Time from start to ready.
    pub ready_after_seconds: f64,
    /// Sites that run, of a demo of two.
    #[serde(default)]
    pub sites: Vec<DemoSite>,
    /// Where the witness is, of a demo of two sites.
    #[serde(default)]
    pub witness: Option<String>,
    /// How the copies of two sites stand.
    #[serde(default)]
    pub state: Option<PairState>,
    /// What this demo cannot survive.
    pub warnings: Vec<String>,
}

/// One of two sites of a demo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DemoSite {
    /// Name, and that of its folder.
    pub name: String,
    /// Base address of its API.
    pub api: String,
    /// What it is.
    pub role: Role,
}

/// Where the demo's datastore is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DemoNfs {
    /// Address.
    pub host: String,
    /// NFS port.
    pub port: u16,
    /// MOUNT port.
    pub mount_port: u16,
    /// Export path.
    pub export: String,
}

impl Document for Quickstart {
    const SCHEMA: &'static str = "vmhold.quickstart/v1";
}

impl Quickstart {
    /// What is printed when the demo is ready.
    #[must_use]
    pub fn human(&self) -> String {
        let DemoNfs { host, port, mount_port, export } = &self.nfs;
        let dir = &self.dir;
        let place = if self.memory { "in memory" } else { "sparse files" };
        let what = if self.witness.is_none() { "one store" } else { "two sites and a witness" };
        let mut out = format!("vmhold quickstart {}   {what} on this machine\n", self.version);
        out.push_str("DEMO: file-backed drives, loopback only. Not for data you need.\n\n");
        out.push_str(&format!("  [ok] folder      {dir}\n"));
        out.push_str(&format!(
            "  [ok] pool        {}: {} drives x {} ({place}), stripe {}\n",
            self.pool,
            self.drives,
            text::bytes(self.drive_bytes),
            self.stripe
        ));
        out.push_str(&self.sites());
        out.push_str(&format!("  [ok] datastore   {host}:{export}, port {port}, mount port {mount_port}\n"));
        for warning in &self.warnings {
            for (index, line) in text::wrap(warning, 64).into_iter().enumerate() {
                out.push_str(&format!("  {:<5}{line}\n", if index == 0 { "[!!]" } else { "" }));
            }
        }
        out.push_str(&format!("Ready in {}.\n\n", text::duration(self.ready_after_seconds)));
        out.push_str(&match &self.ui {
            Some(url) => format!("  Web UI     {url}\n             logs in once; anew: vmhold ui --dir {dir}\n"),
            None => format!("  Web UI     vmhold ui --dir {dir}\n"),
        });
        out.push_str(&format!("  Status     vmhold status --dir {dir}\n"));
        out.push_str(&format!("  Pool       vmhold pool show {} --map --dir {dir}\n", self.pool));
        out.push_str(&format!("  API        {}/v1/openapi.json\n", self.api));
        out.push_str(&format!("  Metrics    {}/metrics (needs a token)\n", self.api));
        out.push_str(&format!("  Log        {}\n\n", self.log));
        out.push_str("Mount it (needs root on this machine only for the mount itself):\n");
        out.push_str(&format!(
            "  sudo mount -t nfs \\\n       -o vers=3,hard,proto=tcp,nolock,port={port},mountport={mount_port} \\\n       {host}:{export} MOUNTPOINT\n"
        ));
        out.push_str("Or look at it without root, with the tools of libnfs:\n");
        out.push_str(&format!("  nfs-ls \"nfs://{host}{export}?nfsport={port}&mountport={mount_port}\"\n"));
        out.push_str("Or load it and have every acknowledged write proved:\n");
        out.push_str(&format!("  vmhold bench --target nfs://{host}:{port}{export} --mountport {mount_port}\n\n"));
        out.push_str(&if dir == DEFAULT_DIR {
            "Now break it:\n".to_owned()
        } else {
            format!("Now break it (each with --dir {dir}):\n")
        });
        let of_pair = [
            ("site", "kill the site that serves; back: heal"),
            ("link", "cut the sites from each other; back: heal"),
            ("witness", "see that nothing stops; back: heal"),
        ];
        for (command, effect) in of_pair.into_iter().filter(|_| self.witness.is_some()) {
            out.push_str(&format!("  vmhold quickstart break {command:<10} {effect}\n"));
        }
        for (command, effect) in [
            ("drive 3", "lose a drive, see it reconstructed"),
            ("bits 100", "flip 100 random bits on the drives"),
            ("kill", "kill -9 the server; then: quickstart resume"),
        ] {
            out.push_str(&format!("  vmhold quickstart break {command:<10} {effect}\n"));
        }
        out.push_str(&format!("  vmhold quickstart check {:<10} every acknowledged write is still there\n", ""));
        out.push_str(&format!(
            "\nStop:   Ctrl-C or vmhold quickstart stop --dir {dir}\n        (again: vmhold quickstart resume --dir {dir})\nRemove: vmhold quickstart destroy --dir {dir}\n"
        ));
        out
    }

    /// Both sites and the witness.
    fn sites(&self) -> String {
        let mut out = String::new();
        for site in &self.sites {
            out.push_str(&format!(
                "  [ok] {:<11} {}, folder {}, {}\n",
                site.name,
                site.role.word(),
                site.name,
                site.api
            ));
        }
        if let Some(witness) = &self.witness {
            let state = self.state.map_or("unknown", PairState::word);
            out.push_str(&format!("  [ok] witness     {witness}; the copies are {state}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Quickstart {
        Quickstart {
            version: "0.1.0".into(),
            dir: "./vmhold-demo".into(),
            pids: vec![4242],
            nfs: DemoNfs { host: "127.0.0.1".into(), port: 20049, mount_port: 20048, export: "/demo".into() },
            api: "https://127.0.0.1:8080".into(),
            ui: Some("https://127.0.0.1:8080/#login=q7f2-9kdm-x3pa".into()),
            fingerprint: Some("AB".repeat(32)),
            log: "./vmhold-demo/server.log".into(),
            pool: "flash0".into(),
            drives: 8,
            drive_bytes: 1 << 30,
            stripe: "4+2".into(),
            memory: false,
            ready_after_seconds: 0.8,
            sites: Vec::new(),
            witness: None,
            state: None,
            warnings: vec!["the journal stands on an ordinary file; it does not survive the loss of that disk".into()],
        }
    }

    #[test]
    fn the_screen_fits_80_columns_and_names_every_next_step() {
        let screen = demo().human();
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
        for part in
            ["Ready in 0.8 s.", "port=20049,mountport=20048", "break drive", "destroy --dir", "/metrics", "[!!]"]
        {
            assert!(screen.contains(part), "{part} in\n{screen}");
        }
    }

    #[test]
    fn the_screen_of_two_sites_says_what_each_of_them_is() {
        let site = |name: &str, role| DemoSite { name: name.into(), api: "https://127.0.0.1:8080".into(), role };
        let screen = Quickstart {
            sites: vec![site("site-a", Role::Primary), site("site-b", Role::Secondary)],
            witness: Some("127.0.0.1:8084".into()),
            state: Some(PairState::InSync),
            ..demo()
        };
        let screen = screen.human();
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
        for part in ["two sites", "site-a      PRIMARY", "site-b      SECONDARY", "copies are IN_SYNC", "break site"] {
            assert!(screen.contains(part), "{part} in\n{screen}");
        }
    }

    #[test]
    fn the_document_has_the_promised_fields() {
        let json = serde_json::to_value(demo()).unwrap();
        assert_eq!(json["dir"], "./vmhold-demo");
        assert_eq!(json["pids"][0], 4242);
        assert_eq!(json["nfs"]["mount_port"], 20048);
        assert_eq!(json["nfs"]["export"], "/demo");
        assert_eq!(json["api"], "https://127.0.0.1:8080");
    }
}

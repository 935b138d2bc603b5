//! Datastores: documents, texts, and the commands that mount one on each platform.

use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes;
use crate::envelope::Document;
use crate::plan::Plan;
use crate::problem::Problem;
use crate::text::{self, Table, left, right};

const NAME_BYTES_MAX: usize = 64;
/// Where the API is if nobody says otherwise.
const DEFAULT_API_PORT: u16 = 8080;

/// A datastore: an export holding VMs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Datastore {
    /// Which one it is, whatever its name, address and certificate: `pool-number`.
    pub id: Option<String>,
    /// Name.
    pub name: String,
    /// Export path: `/` and the name.
    pub export: String,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// Files in it.
    pub files: Option<u64>,
    /// What clients wrote and did not delete.
    pub logical_bytes: Option<u64>,
    /// Space new writes can use.
    pub free_bytes: Option<u64>,
    /// Root of clients becomes nobody.
    pub root_squash: bool,
    /// Networks that may mount it, in CIDR form; empty is everyone.
    pub allow: Vec<String>,
    /// Clients that have it mounted, as far as MOUNT knows.
    pub mounts: Option<u64>,
}

impl Document for Datastore {
    const SCHEMA: &'static str = "vmhold.datastore.show/v1";
}

impl Datastore {
    /// Names its settings: what people set and may want to find unchanged, not what clients
    /// change with every write.
    #[must_use]
    pub fn etag(&self) -> String {
        let settings = format!("{:?}", (&self.name, &self.created_at, self.root_squash, &self.allow));
        format!("\"{}\"", &blake3::hash(settings.as_bytes()).to_hex()[..16])
    }

    /// What deleting it would do.
    #[must_use]
    pub fn deletion(&self) -> Plan {
        let files = self.files.map_or("files".to_owned(), text::files);
        let size = text::or_dash(self.logical_bytes, text::bytes);
        let plan = Plan::would(format!("delete datastore {} with its {files} ({size})", self.name));
        let plan = match self.mounts {
            Some(0) => plan,
            Some(mounts) => plan.and(format!("cut off {mounts} clients that have it mounted")),
            None => plan.and("cut off clients that have it mounted, whose number is not known"),
        };
        plan.confirmed_by(&self.name)
    }
}

/// `datastore list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DatastoreList(pub Vec<Datastore>);

impl Document for DatastoreList {
    const SCHEMA: &'static str = "vmhold.datastore.list/v1";
}

impl DatastoreList {
    /// `datastore list`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        if self.0.is_empty() {
            return "no datastores; create one: vmhold datastore create NAME\n".to_owned();
        }
        let mut table = Table::new(&[
            left("DATASTORE"),
            left("EXPORT"),
            right("FILES"),
            right("STORED"),
            right("FREE"),
            right("MOUNTS"),
            left("ROOT"),
            left("ACCESS"),
        ]);
        for datastore in &self.0 {
            table.row(vec![
                datastore.name.clone(),
                datastore.export.clone(),
                text::or_dash(datastore.files, text::count),
                text::or_dash(datastore.logical_bytes, text::bytes),
                text::or_dash(datastore.free_bytes, text::bytes),
                text::or_dash(datastore.mounts, text::count),
                if datastore.root_squash { "squashed" } else { "allowed" }.to_owned(),
                if datastore.allow.is_empty() { "everyone".to_owned() } else { datastore.allow.join(",") },
            ]);
        }
        table.render(width)
    }
}

/// What `datastore create` sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatastoreCreate {
    /// Name.
    pub name: String,
    /// Make root of clients nobody. Hypervisors need root, so the default is no.
    #[serde(default)]
    pub root_squash: bool,
    /// Networks that may mount it, in CIDR form; empty is everyone.
    #[serde(default)]
    pub allow: Vec<String>,
}

impl DatastoreCreate {
    /// Checks the name: it becomes an export path that every hypervisor must take.
    ///
    /// # Errors
    /// `BAD_INPUT` that says what a name may be.
    pub fn check(&self) -> Result<(), Problem> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let name = self.name.as_bytes();
        let starts_well = name.first().is_some_and(u8::is_ascii_alphanumeric);
        if starts_well && name.len() <= NAME_BYTES_MAX && name.iter().copied().all(fits) {
            return Ok(());
        }
        Err(Problem::new(&codes::BAD_INPUT, format!("datastore name {:?} cannot be used", self.name))
            .field(
                "name",
                format!("letters, digits, `-`, `_`, `.`; starts with a letter or digit; at most {NAME_BYTES_MAX}"),
            )
            .step("choose another name, as in: vmhold datastore create vms-1"))
    }
}

/// What `datastore delete` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatastoreDeleted {
    /// Name of the one that is gone.
    pub name: String,
}

impl Document for DatastoreDeleted {
    const SCHEMA: &'static str = "vmhold.datastore.delete/v1";
}

/// Who mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// Proxmox VE.
    Proxmox,
    /// Proxmox VE with the storage plugin of this project.
    ProxmoxPlugin,
    /// VMware ESXi.
    Esxi,
    /// XCP-ng and XenServer.
    XcpNg,
    /// libvirt.
    Libvirt,
    /// Plain Linux.
    Linux,
}

impl Platform {
    /// All of them, with the word of the command line.
    pub const ALL: [(Self, &str); 6] = [
        (Self::Proxmox, "proxmox"),
        (Self::ProxmoxPlugin, "proxmox-plugin"),
        (Self::Esxi, "esxi"),
        (Self::XcpNg, "xcp-ng"),
        (Self::Libvirt, "libvirt"),
        (Self::Linux, "linux"),
    ];
}

impl FromStr for Platform {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let words: Vec<&str> = Self::ALL.iter().map(|(_, word)| *word).collect();
        Self::ALL.iter().find(|(_, word)| *word == text).map(|(platform, _)| *platform).ok_or_else(|| {
            Problem::new(&codes::BAD_INPUT, format!("no platform named {text:?}"))
                .step(format!("one of: {}", words.join(", ")))
        })
    }
}

/// Where a datastore is served; the source of every mount command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint<'a> {
    /// Datastore.
    pub datastore: &'a str,
    /// The one address all hosts use.
    pub host: &'a str,
    /// NFS port.
    pub port: u16,
    /// MOUNT port.
    pub mount_port: u16,
    /// Whether locks of clients are served, and so need no `nolock`.
    pub locks: bool,
    /// Root of clients becomes nobody.
    pub root_squash: bool,
    /// Port of the API.
    pub api_port: u16,
    /// What the API is known by.
    pub fingerprint: Option<&'a str>,
}

impl MountPoint<'_> {
    /// The plugin asks the API, too: by address, fingerprint and a token that its command asks for.
    fn proxmox_plugin(&self, options: &str, notes: &mut Vec<String>) -> Vec<String> {
        let Self { datastore, host, api_port, .. } = *self;
        notes.push("on every node once: install the package vmhold-proxmox".to_owned());
        notes.push("then on any node; it asks for the token as password".to_owned());
        let fingerprint = self.fingerprint.unwrap_or("FINGERPRINT");
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let api = match api_port {
            DEFAULT_API_PORT => String::new(),
            port => format!(" --vmhold-api {bracketed}:{port}"),
        };
        notes.push(format!("the API must answer at {bracketed}:{api_port}, not only at 127.0.0.1: pool create --api"));
        vec![
            "vmhold token create proxmox --role operator".to_owned(),
            format!(
                "pvesm add vmhold {datastore} --server {host} --export /{datastore} --content images,rootdir --options {options}{api} --fingerprint {fingerprint} --password"
            ),
        ]
    }
}

/// How to mount a datastore on one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MountInfo {
    /// Datastore.
    pub datastore: String,
    /// For whom.
    pub platform: Platform,
    /// Address.
    pub host: String,
    /// Export path.
    pub export: String,
    /// NFS port.
    pub port: u16,
    /// MOUNT port.
    pub mount_port: u16,
    /// Mount options.
    pub options: String,
    /// Remarks.
    pub notes: Vec<String>,
    /// What to run.
    pub commands: Vec<String>,
}

impl Document for MountInfo {
    const SCHEMA: &'static str = "vmhold.datastore.mount-info/v1";
}

impl MountInfo {
    /// The commands for one platform. Every one of them mounts `hard`.
    #[must_use]
    pub fn new(at: &MountPoint<'_>, platform: Platform) -> Self {
        let MountPoint { datastore, host, port, mount_port, locks, .. } = *at;
        let export = format!("/{datastore}");
        let standard = port == 2049;
        let mut options = "vers=3,hard,proto=tcp,timeo=600,retrans=2".to_owned();
        if !standard {
            options.push_str(&format!(",port={port},mountport={mount_port},mountproto=tcp"));
        }
        if !locks {
            options.push_str(",nolock");
        }
        let mut notes = Vec::new();
        if at.root_squash && platform != Platform::Linux {
            notes.push(
                "hypervisors write as root, which is nobody here: make a datastore without --root-squash".to_owned(),
            );
        }
        let commands = match platform {
            Platform::Proxmox => {
                notes.push("run once on any node of the cluster".to_owned());
                notes.push("Proxmox VE takes it for offline unless a portmapper answers on port 111: serve it with portmap or rpcbind".to_owned());
                notes.push("snapshots, rollback and linked clones of raw disks: --for proxmox-plugin".to_owned());
                vec![format!(
                    "pvesm add nfs {datastore} --server {host} --export {export} --content images,rootdir --options {options}"
                )]
            }
            Platform::ProxmoxPlugin => at.proxmox_plugin(&options, &mut notes),
            Platform::Esxi => {
                notes.push("the SAME line on every host; another name, address or a trailing slash makes vSphere see a second datastore".to_owned());
                vec![format!("esxcli storage nfs add --host={host} --share={export} --volume-name={datastore}")]
            }
            Platform::XcpNg => {
                notes.push(
                    "\"hard\" overrides the default soft mount, which can turn guests read-only during an outage"
                        .to_owned(),
                );
                let hard =
                    if standard { "hard".to_owned() } else { format!("hard,port={port},mountport={mount_port}") };
                vec![format!(
                    "xe sr-create name-label={datastore} type=nfs shared=true content-type=user device-config:server={host} device-config:serverpath={export} device-config:nfsversion=3 device-config:options={hard}"
                )]
            }
            Platform::Libvirt => vec![
                format!(
                    "virsh pool-define-as {datastore} netfs --source-host {host} --source-path {export} --source-format nfs --target /var/lib/libvirt/images/{datastore}"
                ),
                format!("virsh pool-build {datastore}"),
                format!("virsh pool-start {datastore}"),
                format!("virsh pool-autostart {datastore}"),
            ],
            Platform::Linux => vec![format!("mount -t nfs -o {options} {host}:{export} MOUNTPOINT")],
        };
        if !standard && matches!(platform, Platform::Esxi | Platform::Libvirt) {
            notes.push(format!(
                "this client asks for port 2049 and a portmapper on 111; this server listens on {port}, so it cannot mount it until the server uses 2049"
            ));
        }
        Self {
            datastore: datastore.to_owned(),
            platform,
            host: host.to_owned(),
            export,
            port,
            mount_port,
            options,
            notes,
            commands,
        }
    }

    /// Remarks as comments, then the commands.
    #[must_use]
    pub fn human(&self) -> String {
        let notes = self.notes.iter().flat_map(|note| text::wrap(note, 78)).map(|line| format!("# {line}\n"));
        let commands = self.commands.iter().map(|command| format!("{command}\n"));
        notes.chain(commands).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> MountPoint<'static> {
        MountPoint {
            datastore: "prod",
            host: "10.10.0.50",
            port,
            mount_port: 20048,
            locks: true,
            root_squash: false,
            api_port: 8080,
            fingerprint: Some("AB:CD"),
        }
    }

    fn info(port: u16, platform: &str) -> String {
        MountInfo::new(&at(port), platform.parse().unwrap()).human()
    }

    #[test]
    fn each_platform_gets_its_own_command() {
        let proxmox = info(2049, "proxmox");
        assert!(
            proxmox.starts_with("# run once on any node of the cluster\n") && proxmox.contains("port 111"),
            "{proxmox}"
        );
        assert!(
            proxmox.ends_with("\npvesm add nfs prod --server 10.10.0.50 --export /prod --content images,rootdir --options vers=3,hard,proto=tcp,timeo=600,retrans=2\n"),
            "{proxmox}"
        );
        let plugin = info(2049, "proxmox-plugin");
        assert!(
            plugin.ends_with("\npvesm add vmhold prod --server 10.10.0.50 --export /prod --content images,rootdir --options vers=3,hard,proto=tcp,timeo=600,retrans=2 --fingerprint AB:CD --password\n"),
            "{plugin}"
        );
        let elsewhere = MountPoint { api_port: 9443, ..at(2049) };
        let plugin = MountInfo::new(&elsewhere, Platform::ProxmoxPlugin).human();
        assert!(plugin.contains(" --vmhold-api 10.10.0.50:9443 --fingerprint"), "{plugin}");
        let six = MountPoint { host: "fd00::1", ..elsewhere };
        let plugin = MountInfo::new(&six, Platform::ProxmoxPlugin).human();
        assert!(plugin.contains(" --vmhold-api [fd00::1]:9443 --fingerprint"), "{plugin}");
        assert!(
            info(2049, "esxi").ends_with("esxcli storage nfs add --host=10.10.0.50 --share=/prod --volume-name=prod\n")
        );
        assert!(info(2049, "xcp-ng").contains("device-config:options=hard\n"));
        assert!(info(2049, "libvirt").contains("--source-path /prod"));
        assert_eq!(
            info(2049, "linux"),
            "mount -t nfs -o vers=3,hard,proto=tcp,timeo=600,retrans=2 10.10.0.50:/prod MOUNTPOINT\n"
        );
    }

    #[test]
    fn other_ports_are_named_and_clients_that_cannot_are_warned() {
        assert!(info(20049, "linux").contains("port=20049,mountport=20048,mountproto=tcp"));
        assert!(info(20049, "esxi").contains("until the server uses 2049"));
        let mut without_locks = at(2049);
        without_locks.locks = false;
        assert!(MountInfo::new(&without_locks, Platform::Linux).options.ends_with(",nolock"));
    }

    #[test]
    fn hypervisors_that_would_be_nobody_are_told() {
        let squashed = MountPoint { root_squash: true, ..at(2049) };
        for (platform, _) in Platform::ALL {
            let text = MountInfo::new(&squashed, platform).human();
            assert_eq!(text.contains("nobody"), platform != Platform::Linux, "{text}");
        }
    }

    #[test]
    fn every_command_that_has_options_mounts_hard() {
        for (platform, _) in Platform::ALL {
            let text = MountInfo::new(&at(20049), platform).human();
            assert!(!text.contains("soft,") && (text.contains("hard") || !text.contains("options")), "{text}");
        }
    }

    #[test]
    fn an_unknown_platform_is_answered_with_the_known_ones() {
        let text = "hyper-v".parse::<Platform>().unwrap_err().human();
        assert!(text.contains("one of: proxmox, proxmox-plugin, esxi, xcp-ng, libvirt, linux"), "{text}");
    }

    #[test]
    fn names_that_would_not_mount_are_refused() {
        let check = |name: &str| DatastoreCreate { name: name.into(), root_squash: false, allow: Vec::new() }.check();
        for good in ["demo", "vms-1", "a.b_c", "9"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "-x", ".x", "a/b", "a b", "ä", "a\n", &"x".repeat(65)] {
            assert_eq!(check(bad).unwrap_err().code().number, 7400, "{bad:?}");
        }
    }

    #[test]
    fn the_list_fits_80_columns() {
        let one = Datastore {
            id: None,
            name: "demo".into(),
            export: "/demo".into(),
            created_at: None,
            files: Some(12),
            logical_bytes: Some(3 << 30),
            free_bytes: Some(2 << 30),
            root_squash: false,
            allow: vec!["10.0.0.0/8".into()],
            mounts: None,
        };
        assert_eq!(
            DatastoreList(vec![one]).human(80),
            "\
DATASTORE  EXPORT  FILES    STORED      FREE  MOUNTS  ROOT     ACCESS
demo       /demo      12  3.00 GiB  2.00 GiB       -  allowed  10.0.0.0/8
"
        );
    }
}

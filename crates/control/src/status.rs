//! `status`: one screen that says whether anything needs attention, what could be lost
//! now, and where time goes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::{Document, Origin};
use crate::health::{Health, HealthFacts};
use crate::jobs::Job;
use crate::pool::{Drive, DriveState, Journal, JournalKind, Pool, PoolState};
use crate::replication::{PairState, Replication};
use crate::text::{self, Table, left};

/// What a server knows about itself; the rest of a [`Status`] follows from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Facts {
    /// Name of the site.
    pub site: String,
    /// Version of the server.
    pub version: String,
    /// Time since its start.
    pub uptime_seconds: f64,
    /// Pools.
    pub pools: Vec<Pool>,
    /// Journal.
    pub journal: Journal,
    /// Its other half, where this store is one of two sites.
    #[serde(default)]
    pub replication: Option<Replication>,
    /// NFS service.
    pub nfs: NfsService,
    /// Load of the last seconds.
    pub load: Load,
    /// Average latency of the last seconds.
    pub latency_ms: Latency,
    /// Memory.
    pub memory: Memory,
    /// Work going on.
    pub jobs: Vec<Job>,
}

/// Where the datastores are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NfsService {
    /// Address.
    pub host: String,
    /// NFS port.
    pub port: u16,
    /// MOUNT port.
    pub mount_port: u16,
    /// Open connections.
    pub connections: Option<u64>,
    /// Datastores served.
    pub datastores: u64,
    /// Whether locks of clients are served (NLM).
    pub locks: bool,
}

/// Load of the last seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Load {
    /// Reads.
    pub reads_per_second: Option<f64>,
    /// Writes.
    pub writes_per_second: Option<f64>,
    /// Everything else.
    pub others_per_second: Option<f64>,
    /// Payload both ways.
    pub bytes_per_second: Option<f64>,
    /// Share of one core.
    pub cpu_percent: Option<f64>,
}

/// Latency and its parts, from a request's arrival to its answer. The parts sum to the
/// total; what cannot be measured (the network's part, the host's) is `None` and not in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// Sum of the known parts.
    pub total: Option<f64>,
    /// Hypervisor; needs an agent there.
    pub host: Option<f64>,
    /// Network.
    pub net: Option<f64>,
    /// Waiting for a turn.
    pub queue: Option<f64>,
    /// Journal.
    pub journal: Option<f64>,
    /// The other site, beyond the time of the journal here.
    #[serde(default)]
    pub mirror: Option<f64>,
    /// Drives and reconstruction.
    pub flash: Option<f64>,
    /// The rest: its turn on the thread, locks of others, room that had to be made.
    pub contention: Option<f64>,
    /// Held back, since its VM may not have more.
    #[serde(default)]
    pub qos: Option<f64>,
    /// Median of the total.
    #[serde(default)]
    pub p50: Option<f64>,
    /// 95th percentile of the total.
    #[serde(default)]
    pub p95: Option<f64>,
    /// 99th percentile of the total.
    pub p99: Option<f64>,
}

/// Memory of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    /// Resident.
    pub resident_bytes: Option<u64>,
    /// Block and page cache in use.
    pub cache_bytes: Option<u64>,
    /// Its limit.
    pub cache_limit_bytes: Option<u64>,
}

/// One line of "can I lose ...".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CanILose {
    /// What.
    pub what: String,
    /// Answer now.
    pub now: String,
    /// Answer when nothing is wrong.
    pub normally: String,
    /// Reason.
    pub why: String,
}

/// The document of `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// What the server knows.
    #[serde(flatten)]
    pub facts: Facts,
    /// What follows for its health.
    pub health: Health,
    /// What follows for the question people ask.
    pub can_i_lose: Vec<CanILose>,
}

impl Document for Status {
    const SCHEMA: &'static str = "vmhold.status/v1";
}

impl From<Facts> for Status {
    fn from(facts: Facts) -> Self {
        let health = Health::of(&HealthFacts {
            pools: &facts.pools,
            journal: &facts.journal,
            replication: facts.replication.as_ref(),
        });
        let can_i_lose = can_i_lose(&facts);
        Self { facts, health, can_i_lose }
    }
}

fn can_i_lose(facts: &Facts) -> Vec<CanILose> {
    let row =
        |what: &str, now: String, normally: String, why: String| CanILose { what: what.to_owned(), now, normally, why };
    let mut rows: Vec<CanILose> = facts
        .pools
        .iter()
        .map(|pool| {
            let what = if facts.pools.len() == 1 { "a drive".to_owned() } else { format!("a drive of {}", pool.name) };
            let now = match pool.failures_tolerated {
                _ if pool.state == PoolState::Faulted => "NO".to_owned(),
                None => "unknown".to_owned(),
                Some(0) => "NO".to_owned(),
                Some(more) => format!("{more} more"),
            };
            let normally = match pool.failures_tolerated_normally {
                0 => "no".to_owned(),
                more => more.to_string(),
            };
            row(&what, now, normally, drives_reason(pool))
        })
        .collect();
    let journal = &facts.journal;
    let (power, why) = match journal.kind() {
        None => ("unknown", "journal has no leg in use".to_owned()),
        Some(JournalKind::Memory) => ("NO", "journal in memory (lab)".to_owned()),
        Some(kind) => ("yes", format!("journal: {}", short(kind))),
    };
    rows.push(row("power", power.into(), "yes".into(), why));
    let legs = journal.legs_in_use();
    let leg_why = if legs == 1 { "1 leg".to_owned() } else { format!("{legs} legs") };
    let leg_now = if legs >= 2 { "yes" } else { "NO" };
    rows.push(row(
        "the journal's device",
        leg_now.into(),
        if journal.legs.len() >= 2 { "yes" } else { "no" }.into(),
        leg_why,
    ));
    rows.push(match &facts.replication {
        None => row("this machine", "NO".into(), "no".into(), "one controller, one site".into()),
        Some(pair) => {
            let (now, why) = site_reason(pair);
            row("this site", now, "yes".into(), why)
        }
    });
    rows
}

/// Whether this site may be lost now, and why.
fn site_reason(pair: &Replication) -> (String, String) {
    let reasons = pair.not_ready();
    let why = match reasons.first() {
        None => format!("{} holds the same, automatic failover READY", pair.peer.address),
        Some(reason) => format!("{}: {reason}", pair.state.word()),
    };
    let now = match pair.state {
        PairState::Unknown => "unknown",
        PairState::InSync if reasons.is_empty() => "yes",
        // Nothing is lost, and nobody takes over.
        PairState::InSync => "NO",
        PairState::OutOfSync | PairState::Resyncing | PairState::Paused => "NO",
    };
    (now.to_owned(), why)
}

const fn short(kind: JournalKind) -> &'static str {
    match kind {
        JournalKind::PersistentMemory => "persistent memory",
        JournalKind::BlockDevice => "block device",
        JournalKind::File => "file, flushed (lab)",
        JournalKind::Memory => "memory (lab)",
    }
}

fn drives_reason(pool: &Pool) -> String {
    let is_out = |drive: &&Drive| matches!(drive.state, DriveState::Failed | DriveState::Missing);
    let out: Vec<u32> = pool.drives.iter().filter(is_out).map(|drive| drive.slot).collect();
    let groups = [(out, "out"), (pool.doubted_drives.clone(), "in doubt")];
    let said = groups.iter().filter(|(slots, _)| !slots.is_empty()).map(|(slots, what)| {
        let are = if slots.len() == 1 { "is" } else { "are" };
        format!("{} {are} {what}", text::drives(slots))
    });
    let said: Vec<String> = said.collect();
    match said.is_empty() {
        true => format!("{}: all {} drives ONLINE", pool.name, pool.members()),
        false => format!("{}: {}", pool.name, said.join("; ")),
    }
}

impl Status {
    /// The screen.
    #[must_use]
    pub fn human(&self, origin: &Origin) -> String {
        let facts = &self.facts;
        let when = origin.generated_at.strftime("%a %Y-%m-%d %H:%M:%S UTC");
        let data_age = text::or_dash(origin.data_age_seconds, text::duration);
        let mut out = format!("{}  vmhold {}   {when}   data {data_age} old\n\n", facts.site, facts.version);
        out.push_str(&self.health.human());
        out.push('\n');
        let mut table = Table::new(&[left("CAN I LOSE ..."), left("NOW"), left("NORMALLY"), left("WHY")]);
        for line in &self.can_i_lose {
            table.row(vec![format!("  {}", line.what), line.now.clone(), line.normally.clone(), line.why.clone()]);
        }
        // A reason is not hidden for want of room: better a line that the terminal breaks.
        out.push_str(&table.render(usize::MAX));
        out.push('\n');
        out.push_str(&self.gauges());
        for job in &facts.jobs {
            out.push_str(&format!("JOB       {}  {} {}  {}\n", job.id, job.kind, job.object, job.progress()));
        }
        out
    }

    fn gauges(&self) -> String {
        let Facts { pools, journal, nfs, load, latency_ms, memory, replication, .. } = &self.facts;
        let mut out = String::new();
        let gauge = |used: Option<u64>, all: Option<u64>, share: Option<f64>| {
            let bar = text::or_dash(share, |share| format!("{} {:.0} %", text::bar(share, 20), share * 100.0));
            format!("{} of {}  {bar}", text::or_dash(used, text::bytes), text::or_dash(all, text::bytes))
        };
        for pool in pools {
            out.push_str(&format!("SPACE     {}\n", gauge(pool.used_bytes, pool.usable_bytes, pool.used_share())));
        }
        out.push_str(&format!(
            "JOURNAL   {}\n",
            gauge(journal.used_bytes, journal.capacity_bytes, journal.used_share())
        ));
        let rate = |value| text::or_dash(value, |rate: f64| text::count(rate.round().max(0.0) as u64));
        let throughput =
            text::or_dash(load.bytes_per_second, |rate| format!("{}/s", text::bytes(rate.max(0.0) as u64)));
        let cpu = text::or_dash(load.cpu_percent, |percent| format!("{percent:.0} %"));
        out.push_str(&format!(
            "LOAD      {} reads/s  {} writes/s  {} others/s  {throughput}  cpu {cpu}\n",
            rate(load.reads_per_second),
            rate(load.writes_per_second),
            rate(load.others_per_second)
        ));
        let ms = |value| text::or_dash(value, |ms: f64| format!("{ms:.2}"));
        out.push_str(&format!(
            "LATENCY   {} ms, p99 {}\n          queue {} + journal {} + mirror {} + flash {}\n          + contention {} + qos {}\n",
            ms(latency_ms.total),
            ms(latency_ms.p99),
            ms(latency_ms.queue),
            ms(latency_ms.journal),
            ms(latency_ms.mirror),
            ms(latency_ms.flash),
            ms(latency_ms.contention),
            ms(latency_ms.qos)
        ));
        out.push_str(&format!(
            "MEMORY    {} resident, cache {} of {}\n",
            text::or_dash(memory.resident_bytes, text::bytes),
            text::or_dash(memory.cache_bytes, text::bytes),
            text::or_dash(memory.cache_limit_bytes, text::bytes)
        ));
        if let Some(pair) = replication {
            let epoch = text::or_dash(pair.epoch, |epoch| epoch.to_string());
            let ready = if pair.not_ready().is_empty() { "READY" } else { "NOT READY" };
            let role = pair.role.word();
            out.push_str(&format!(
                "PAIR      {role}, {}, epoch {epoch}, automatic failover {ready}\n",
                pair.state.word()
            ));
        }
        out.push_str(&format!(
            "NFS       {} datastores at {} port {}, mount port {}, {} connections\n",
            nfs.datastores,
            nfs.host,
            nfs.port,
            nfs.mount_port,
            text::or_dash(nfs.connections, text::count)
        ));
        out
    }
}

#[cfg(test)]
pub mod samples {
    //! A status as the tests of texts need it.

    use super::*;
    use crate::pool::samples;

    /// One sound pool, a journal on a file.
    pub fn facts() -> Facts {
        Facts {
            site: "site-a".into(),
            version: "0.1.0".into(),
            uptime_seconds: 60.0,
            pools: vec![samples::pool(8)],
            journal: samples::journal(),
            replication: None,
            nfs: NfsService {
                host: "127.0.0.1".into(),
                port: 20049,
                mount_port: 20048,
                connections: Some(2),
                datastores: 1,
                locks: true,
            },
            load: Load {
                reads_per_second: Some(1200.4),
                writes_per_second: Some(800.0),
                others_per_second: None,
                bytes_per_second: Some(16e6),
                cpu_percent: Some(31.0),
            },
            latency_ms: Latency {
                total: Some(0.33),
                journal: Some(0.21),
                queue: Some(0.01),
                flash: Some(0.07),
                contention: Some(0.04),
                p99: Some(0.9),
                ..Latency::default()
            },
            memory: Memory { resident_bytes: Some(300 << 20), ..Memory::default() },
            jobs: vec![crate::jobs::samples::fsck()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::facts;
    use super::*;

    fn origin() -> Origin {
        Origin { generated_at: "2026-11-20T09:14:07Z".parse().unwrap(), site: None, data_age_seconds: Some(0.0) }
    }

    #[test]
    fn a_sound_store_on_one_screen() {
        assert_eq!(
            Status::from(facts()).human(&origin()),
            "\
site-a  vmhold 0.1.0   Fri 2026-11-20 09:14:07 UTC   data 0.0 s old

HEALTH  WARN   1 of 17 checks failing
  !  VH1002 LAB_JOURNAL journal: flushed to the disk below the file (lab)
     do: put the journal on persistent memory or a power-protected device for
         data that matters

CAN I LOSE ...          NOW     NORMALLY  WHY
  a drive               2 more  2         flash0: all 8 drives ONLINE
  power                 yes     yes       journal: file, flushed (lab)
  the journal's device  NO      no        1 leg
  this machine          NO      no        one controller, one site

SPACE     3.00 GiB of 5.00 GiB  [############........] 60 %
JOURNAL   26.0 MiB of 256 MiB  [##..................] 10 %
LOAD      1,200 reads/s  800 writes/s  - others/s  15.3 MiB/s  cpu 31 %
LATENCY   0.33 ms, p99 0.90
          queue 0.01 + journal 0.21 + mirror - + flash 0.07
          + contention 0.04 + qos -
MEMORY    300 MiB resident, cache - of -
NFS       1 datastores at 127.0.0.1 port 20049, mount port 20048, 2 connections
JOB       J-1  fsck flash0  [###################.]  99 %
"
        );
    }

    #[test]
    fn two_lost_drives_change_the_answers() {
        let mut facts = facts();
        let pool = &mut facts.pools[0];
        pool.failures_tolerated = Some(0);
        pool.state = Pool::derive_state(Some(0), 2, true);
        for index in [2, 6] {
            pool.drives[index].state = DriveState::Failed;
        }
        let status = Status::from(facts);
        assert_eq!(status.can_i_lose[0].now, "NO");
        assert_eq!(status.can_i_lose[0].why, "flash0: drives 3, 7 are out");
        let screen = status.human(&origin());
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
        assert!(screen.contains("VH1023 POOL_CRITICAL flash0: 2 of 8 drives lost, can lose 0 more"), "{screen}");
    }

    /// However long the reason is.
    #[test]
    fn drives_in_doubt_are_named_in_the_reason() {
        let mut facts = facts();
        let pool = &mut facts.pools[0];
        pool.name = "the-pool-of-the-second-building".to_owned();
        pool.drives[2].state = DriveState::Failed;
        pool.doubted_drives = vec![1, 4];
        let screen = Status::from(facts).human(&origin());
        let reason = "the-pool-of-the-second-building: drive 3 is out; drives 1, 4 are in doubt\n";
        assert!(screen.contains(reason) && !screen.contains("hidden"), "{screen}");
    }

    #[test]
    fn unknown_redundancy_is_said_to_be_unknown() {
        let mut facts = facts();
        facts.pools[0].failures_tolerated = None;
        facts.pools[0].state = Pool::derive_state(None, 2, true);
        let status = Status::from(facts);
        assert_eq!(status.can_i_lose[0].now, "unknown");
        assert!(status.health.findings.iter().any(|finding| finding.code == "VH1025"));
    }

    #[test]
    fn the_document_comes_back_as_it_went() {
        let status = Status::from(facts());
        let json = serde_json::to_string(&status).unwrap();
        assert!(json.contains(r#""others_per_second":null"#));
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}

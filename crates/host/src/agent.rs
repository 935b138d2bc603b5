//! A host's flash and the disks on it: opening all of them, attaching, detaching, status.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use base::port::{Leg, LegKind, World};
use base::{GroupId, Incarnation};
use cache::disk::{DiskStatus, LOG_BYTES_MIN, NewDisk};
use cache::root::{BACKING_BYTES_MAX, NAME_BYTES_MAX};
use cache::{
    Backing, Disk, DiskId, Flash, FlashRefused, LogRoot, OpenRefused, Options, Parts, Policy, Region, RegionKind,
};
use control::text::bytes;
use control::{Code, Problem, codes};
use tokio::sync::{Mutex, Semaphore};
use world_real::{RealLeg, Ring, open_leg, real_world};

use crate::backing::FileBacking;
use crate::config::HostConfig;
use crate::status::{AccelStatus, DiskAttach, DiskDetached, DiskDocument, DiskLine, FlashStatus, RefusedDisk};

/// A disk that is served.
pub(crate) struct Attached {
    pub disk: Disk,
    backing_access: &'static str,
    backing: String,
    id: DiskId,
    /// Connections of VMs.
    pub clients: Cell<u64>,
    /// It is being taken away: no new connection.
    pub leaving: Cell<bool>,
    /// Keeps others of this machine off the backing store.
    _sole_owner: File,
}

/// Everything that answers.
pub(crate) struct Agent {
    pub config: HostConfig,
    flash: Flash,
    leg: Rc<RealLeg>,
    world: World,
    ring: Option<Ring>,
    /// One per backing store.
    turns: RefCell<BTreeMap<String, Rc<Semaphore>>>,
    attached: RefCell<BTreeMap<String, Rc<Attached>>>,
    refused: RefCell<Vec<RefusedDisk>>,
    /// One disk comes or goes at a time.
    changing: Mutex<()>,
    started: Instant,
    _sole_owner: File,
}

fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    getrandom::fill(&mut id).expect("the system has random bytes for ids");
    id
}

/// Opens `path` so that no other agent of this machine uses it.
fn claim(path: &Path, code: &'static Code) -> Result<File, Problem> {
    let refused = |why: String| Problem::new(code, format!("{} cannot be used", path.display())).why(why);
    let file = File::open(path).map_err(|error| refused(error.to_string()))?;
    file.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => refused("another agent on this machine holds it".into()),
        std::fs::TryLockError::Error(error) => refused(error.to_string()),
    })?;
    Ok(file)
}

fn flash_refused(config: &HostConfig, refused: FlashRefused) -> Problem {
    let path = config.flash.display();
    let problem = Problem::new(&codes::FLASH_UNUSABLE, format!("flash {path} cannot be used")).why(refused.to_string());
    match refused {
        FlashRefused::Blank => {
            problem.step(format!("make it the flash of this host: vmhold host serve --flash {path} --format"))
        }
        _ => problem,
    }
}

fn open_refused(refused: &OpenRefused) -> &'static Code {
    match refused {
        OpenRefused::Flash(_) => &codes::FLASH_FAILS,
        OpenRefused::NoRoot | OpenRefused::Log(_) | OpenRefused::Damaged { .. } | OpenRefused::Strange => {
            &codes::HOST_LOG_DAMAGED
        }
        OpenRefused::Resized { .. } => &codes::BACKING_UNUSABLE,
    }
}

impl Agent {
    /// Opens the flash and every disk on it. A disk that cannot be opened is told of and
    /// left as it is; the others are served.
    pub async fn open(config: HostConfig) -> Result<Rc<Agent>, Problem> {
        let sole_owner = claim(&config.flash, &codes::FLASH_UNUSABLE)?;
        let ring =
            Ring::start().inspect_err(|error| tracing::warn!(%error, "no io_uring here; threads take over")).ok();
        let leg = open_leg(&config.flash, ring.as_ref()).map_err(|error| {
            Problem::new(&codes::FLASH_UNUSABLE, format!("flash {} cannot be used", config.flash.display()))
                .why(error.to_string())
        })?;
        let flash = match Flash::open(leg.clone()).await {
            Err(FlashRefused::Blank) if config.format_blank => Flash::format(leg.clone(), GroupId(random_id())).await,
            opened => opened,
        };
        let flash = flash.map_err(|refused| flash_refused(&config, refused))?;
        let agent = Rc::new(Agent {
            config,
            flash,
            leg,
            world: real_world(),
            ring,
            turns: RefCell::default(),
            attached: RefCell::default(),
            refused: RefCell::default(),
            changing: Mutex::new(()),
            started: Instant::now(),
            _sole_owner: sole_owner,
        });
        for region in agent.flash.regions() {
            if region.kind == RegionKind::OwnLog {
                agent.open_found(&region).await;
            }
        }
        Ok(agent)
    }

    /// Opens a disk that the flash names.
    async fn open_found(&self, region: &Region) {
        let log = self.flash.leg(region);
        let root = LogRoot::read(&log).await.ok().flatten();
        let name = root.as_ref().map_or_else(|| region.disk.to_string(), |root| root.name.clone());
        let backing = root.map_or_else(String::new, |root| root.backing);
        let opened = match backing.is_empty() {
            // Without a root there is no backing store to open; say what the log says.
            true => Err(Problem::new(&codes::HOST_LOG_DAMAGED, format!("disk {name} cannot be opened"))
                .why(OpenRefused::NoRoot.to_string())),
            false => self.start(&name, &backing, log).await,
        };
        match opened {
            Ok(disk) => {
                let dirty = disk.disk.status().dirty_bytes;
                tracing::info!(disk = name, dirty_bytes = dirty, "served again from its log on flash");
                self.attached.borrow_mut().insert(name, Rc::new(disk));
            }
            Err(problem) => {
                let why = problem.human().lines().take(2).map(str::trim).collect::<Vec<_>>().join("; ");
                tracing::error!(code = %problem.code(), disk = name, "not served: {why}");
                let code = problem.code().to_string();
                self.refused.borrow_mut().push(RefusedDisk { disk: name, code, why });
            }
        }
    }

    async fn start(&self, name: &str, backing: &str, log: Rc<dyn Leg>) -> Result<Attached, Problem> {
        let path = Path::new(backing);
        let store = FileBacking::open(path, self.ring.as_ref())?;
        let sole_owner = claim(path, &codes::BACKING_UNUSABLE)?;
        let info = store.info();
        let turns = self.turns.borrow_mut().entry(info.store).or_insert_with(|| Rc::new(Semaphore::new(1))).clone();
        let parts =
            Parts { log, backing: Rc::new(store), turns, world: self.world.clone(), options: Options::default() };
        let disk = Disk::open(parts).await.map_err(|refused| {
            Problem::new(open_refused(&refused), format!("disk {name} cannot be opened")).why(refused.to_string())
        })?;
        let id = disk.status().disk;
        Ok(Attached {
            disk,
            backing_access: info.access,
            backing: backing.to_owned(),
            id,
            clients: Cell::new(0),
            leaving: Cell::new(false),
            _sole_owner: sole_owner,
        })
    }

    /// Puts the layer in front of a backing store.
    pub async fn attach(&self, request: DiskAttach) -> Result<DiskDocument, Problem> {
        let _one_at_a_time = self.changing.lock().await;
        let policy = policy(&request.policy)?;
        check_name(&request.name)?;
        if self.attached.borrow().contains_key(&request.name) {
            return Err(Problem::new(&codes::CONFLICT, format!("disk {} is attached already", request.name)));
        }
        let backing = std::path::absolute(&request.backing).map_or(request.backing, |path| path.display().to_string());
        if backing.len() > BACKING_BYTES_MAX {
            return Err(Problem::new(&codes::BAD_INPUT, "the path of the backing store is too long"));
        }
        if request.log_bytes < LOG_BYTES_MIN {
            let least = bytes(LOG_BYTES_MIN);
            return Err(Problem::new(&codes::BAD_INPUT, format!("a log has at least {least}")).step("--log 256MiB"));
        }
        let capacity_bytes = FileBacking::open(Path::new(&backing), self.ring.as_ref())?.info().capacity_bytes;
        let id = DiskId(random_id());
        let refused = |refused| flash_refused(&self.config, refused);
        let region = self.flash.room(id, RegionKind::OwnLog, request.log_bytes).map_err(refused)?;
        let new = NewDisk {
            disk: id,
            flash: self.flash.id(),
            incarnation: Incarnation(random_id()),
            name: request.name.clone(),
            backing: backing.clone(),
            capacity_bytes,
            policy,
        };
        let log = self.flash.leg(&region);
        Disk::format(&log, new).await.map_err(|fault| refused(fault.into()))?;
        let attached = self.start(&request.name, &backing, log).await?;
        self.flash.record(region).await.map_err(refused)?;
        tracing::info!(disk = request.name, backing, policy = policy.word(), "attached");
        self.attached.borrow_mut().insert(request.name.clone(), Rc::new(attached));
        self.disk_document(&request.name)
    }

    /// Takes the layer away: everything dirty goes to the backing store first.
    pub async fn detach(&self, name: &str) -> Result<DiskDetached, Problem> {
        let _one_at_a_time = self.changing.lock().await;
        let attached = self.find(name)?;
        if attached.clients.get() > 0 {
            return Err(Problem::new(&codes::CONFLICT, format!("disk {name} is in use"))
                .why(format!("{} connections of VMs are open", attached.clients.get()))
                .step("stop the VM, or move it to another disk, then detach"));
        }
        attached.leaving.set(true);
        attached.disk.set_policy(Policy::WriteThrough);
        if attached.disk.policy_in_force().await != Ok(Policy::WriteThrough) {
            attached.leaving.set(false);
            return Err(Problem::new(&codes::CONFLICT, format!("disk {name} got another policy while it was drained")));
        }
        self.flash.remove(attached.id, RegionKind::OwnLog).await.map_err(|refused| {
            attached.leaving.set(false);
            flash_refused(&self.config, refused)
        })?;
        self.attached.borrow_mut().remove(name);
        tracing::info!(disk = name, "detached; the backing store is complete");
        Ok(DiskDetached { name: name.to_owned(), backing: attached.backing.clone() })
    }

    /// Asks for a policy; the answer says whether it is in force yet.
    pub fn set_policy(&self, name: &str, wanted: &str) -> Result<DiskDocument, Problem> {
        let wanted = policy(wanted)?;
        self.find(name)?.disk.set_policy(wanted);
        self.disk_document(name)
    }

    /// Brings everything dirty to the backing store.
    pub async fn drain(&self, name: &str) -> Result<DiskDocument, Problem> {
        let attached = self.find(name)?;
        attached.disk.drain().await.map_err(|refused| {
            Problem::new(&codes::CONFLICT, format!("disk {name} was not drained")).why(refused.to_string())
        })?;
        self.disk_document(name)
    }

    /// A disk by its name.
    pub fn find(&self, name: &str) -> Result<Rc<Attached>, Problem> {
        let attached = self.attached.borrow();
        attached.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = attached.keys().map(String::as_str).collect();
            let problem = Problem::new(&codes::NOT_FOUND, format!("no disk named {name:?} on this host"));
            if known.is_empty() { problem } else { problem.step(format!("disks here: {}", known.join(", "))) }
        })
    }

    /// All disks, by name.
    pub fn disks(&self) -> Vec<(String, Disk)> {
        self.attached.borrow().iter().map(|(name, attached)| (name.clone(), attached.disk.clone())).collect()
    }

    /// The whole host at a glance.
    pub fn status(&self) -> AccelStatus {
        let regions = self.flash.regions();
        let in_kind =
            |kind| regions.iter().filter(|region| region.kind == kind).map(|region| region.length_bytes).sum();
        let kind = match self.leg.info().kind {
            LegKind::PersistentMemory => "persistent memory",
            LegKind::SyncDevice => "synchronous device",
            LegKind::MemoryFile => "memory file: survives the process, not the machine",
            LegKind::Simulated => "simulated",
        };
        AccelStatus {
            host: self.config.name.clone(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            flash: FlashStatus {
                path: self.config.flash.display().to_string(),
                kind: kind.to_owned(),
                access: self.leg.access().to_owned(),
                capacity_bytes: self.flash.capacity_bytes(),
                own_log_bytes: in_kind(RegionKind::OwnLog),
                replica_bytes: in_kind(RegionKind::Replica),
                clean_bytes: in_kind(RegionKind::CleanCache),
                free_bytes: self.flash.free_bytes(),
            },
            disks: self.attached.borrow().values().map(|attached| line(attached)).collect(),
            refused: self.refused.borrow().clone(),
        }
    }

    pub fn disk_document(&self, name: &str) -> Result<DiskDocument, Problem> {
        Ok(DiskDocument(line(&*self.find(name)?)))
    }

    /// The process ends; what is dirty stays on flash.
    pub fn stop(&self) {
        for (name, disk) in self.disks() {
            let status = disk.status();
            tracing::info!(disk = name, dirty_bytes = status.dirty_bytes, "stopped; what is dirty stays on flash");
        }
    }
}

fn policy(word: &str) -> Result<Policy, Problem> {
    match word {
        "wt" => Ok(Policy::WriteThrough),
        "wb" => Ok(Policy::WriteBack),
        "wbp" => {
            Err(Problem::new(&codes::NOT_SUPPORTED, "write-back with peers is not in this version").step("wt or wb"))
        }
        _ => Err(Problem::new(&codes::BAD_INPUT, format!("{word:?} is not a policy")).step("wt or wb")),
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(plain) && !name.starts_with('.') {
        return Ok(());
    }
    Err(Problem::new(&codes::BAD_INPUT, format!("{name:?} cannot be the name of a disk"))
        .why("a name has letters, digits, '-', '_' and '.', and does not begin with '.'"))
}

fn state(status: &DiskStatus) -> &'static str {
    match status {
        status if status.flash_fails => "FLASH FAILS",
        status if status.backing_fails.is_some() => "BACKING FAILS",
        status if status.policy != status.wanted => "DRAINING",
        status if status.slowed => "SLOWED",
        _ => "ONLINE",
    }
}

fn if_host_died(status: &DiskStatus) -> String {
    match (status.policy, status.dirty_bytes, status.dirty_writes) {
        (Policy::WriteThrough, ..) => "nothing would be missing: the backing store has every write".into(),
        (Policy::WriteBack, _, 0) => "nothing would be missing: nothing is dirty at this moment".into(),
        (Policy::WriteBack, dirty, _) => format!(
            "{} of writes would wait on its flash until it is back; do not start the VM elsewhere before",
            bytes(dirty)
        ),
    }
}

fn line(attached: &Attached) -> DiskLine {
    let status = attached.disk.status();
    let ms = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1000.0);
    let counts = &status.counts;
    let reads = counts.read_hits + counts.read_misses;
    DiskLine {
        name: status.name.clone(),
        id: status.disk.to_string(),
        backing: status.backing.clone(),
        backing_access: attached.backing_access.to_owned(),
        capacity_bytes: status.capacity_bytes,
        state: state(&status).to_owned(),
        policy: status.policy.word().to_owned(),
        policy_wanted: status.wanted.word().to_owned(),
        clients: attached.clients.get(),
        vm_write_ms: ms(counts.write.mean()),
        vm_write_p99_ms: ms(counts.write.at_most(0.99)),
        vm_read_ms: ms(counts.read.mean()),
        backing_write_ms: ms(counts.backing_write.mean()),
        backing_read_ms: ms(counts.backing_read.mean()),
        writes: counts.write.count(),
        written_bytes: counts.written_bytes,
        destaged_bytes: counts.destaged_bytes,
        reads,
        read_hit_ratio: (reads > 0).then(|| counts.read_hits as f64 / reads as f64),
        read_hits: counts.read_hits,
        read_misses: counts.read_misses,
        dirty_bytes: status.dirty_bytes,
        destage_lag_seconds: status.destage_lag.map(|lag| lag.as_secs_f64()),
        destage_bytes_per_second: status.destage_bytes_per_s,
        log_used_bytes: status.log_used_bytes,
        log_bytes: status.log_bytes,
        checkpoint: status.checkpoint.0,
        last_serial: status.last_serial.0,
        flow_control: status.slowed,
        flow_control_seconds: status.delayed.0.as_secs_f64(),
        flow_control_writes: status.delayed.1,
        backing_fails_seconds: status.backing_fails.map(|(_, since)| since.as_secs_f64()),
        backing_fault: status.backing_fails.map(|(fault, _)| fault.to_string()),
        if_host_died: if_host_died(&status),
    }
}

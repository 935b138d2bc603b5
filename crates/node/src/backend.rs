//! The API's way to the shard: calls cross from the API's thread to the shard's and back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use base::port::LocalFuture;
use control::activity::Measured;
use control::check::{CheckpointReport, Damage, DamageKind, FsckReport, ResilverReport, ResilveredLeg};
use control::datastore::{Datastore, DatastoreCreate, DatastoreDeleted};
use control::expansion::{ExpandOrder, PoolExpanded};
use control::inject::{FaultOrder, FlipOrder, FlippedByte, InjectedFault};
use control::integrity::{IntegrityOrder, KeptEvidence, LastIntegrityCheck};
use control::jobs::{JobState, NewJob};
use control::replacement::{SiteReplaced, SiteReplacement};
use control::replication::{Replication, ReplicationAction};
use control::server::{Answer, ControlBackend};
use control::status::Facts;
use control::upkeep::{DriveTaken, ScrubAction, ScrubReport};
use control::vm::{Vm, VmAssignment, VmChanged, VmDifference, VmLimits, VmScheduleOrder, VmSnapshot};
use control::vm_file::{FileClone, FileSnapshot};
use control::{Problem, codes};
use datastore::{DatastoreOptions, Deletion, Refusal, RootUser};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::damage::{damage_of_units, damages};
use crate::inject::left_nothing;
use crate::metrics;
use crate::shard::Shard;

/// Calls that may wait for the shard.
const QUEUE: usize = 64;
/// Findings that a report lists.
const DAMAGE_LISTED: usize = 1000;

type Job = Box<dyn FnOnce(Rc<Shard>) -> LocalFuture<'static, ()> + Send>;

/// The end that the API holds.
pub(crate) struct Backend {
    jobs: mpsc::Sender<Job>,
}

/// The end that the shard holds.
pub(crate) struct Jobs(mpsc::Receiver<Job>);

/// Both ends.
pub(crate) fn backend() -> (Arc<Backend>, Jobs) {
    let (jobs, receiver) = mpsc::channel(QUEUE);
    (Arc::new(Backend { jobs }), Jobs(receiver))
}

impl Jobs {
    /// Carries calls out, each beside the others, for ever.
    pub async fn run(mut self, shard: Rc<Shard>) {
        while let Some(job) = self.0.recv().await {
            tokio::task::spawn_local(job(shard.clone()));
        }
    }
}

impl Backend {
    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(Rc<Shard>) -> LocalFuture<'static, Result<T, Problem>> + Send + 'static,
    ) -> Answer<'_, T> {
        Box::pin(async move {
            let (tell, told) = oneshot::channel();
            let job: Job = Box::new(move |shard| {
                Box::pin(async move {
                    // The caller may have gone away; the work is done all the same.
                    let _ = tell.send(job(shard).await);
                })
            });
            let gone = || Problem::new(&codes::SERVER_UNREACHABLE, "the store is stopping");
            self.jobs.send(job).await.map_err(|_| gone())?;
            told.await.map_err(|_| gone())?
        })
    }
}

impl ControlBackend for Backend {
    fn facts(&self) -> Answer<'_, Facts> {
        self.ask(|shard| Box::pin(async move { Ok(shard.facts()) }))
    }

    fn datastores(&self) -> Answer<'_, Vec<Datastore>> {
        self.ask(|shard| {
            Box::pin(async move {
                let named = shard.fs()?.datastores().into_iter().filter(|info| !info.name.is_empty());
                Ok(named.map(|info| shard.datastore(&info)).collect())
            })
        })
    }

    fn create_datastore(&self, request: DatastoreCreate) -> Answer<'_, Datastore> {
        self.ask(|shard| Box::pin(async move { shard.create_datastore(request).await }))
    }

    fn delete_datastore(&self, name: String, confirmed: bool) -> Answer<'_, DatastoreDeleted> {
        self.ask(move |shard| Box::pin(async move { shard.delete_datastore(name, confirmed).await }))
    }

    fn fsck(&self) -> Answer<'_, FsckReport> {
        self.ask(|shard| Box::pin(async move { shard.fsck_as_job().await }))
    }

    fn order_replication(&self, action: ReplicationAction) -> Answer<'_, Replication> {
        self.ask(move |shard| Box::pin(async move { shard.order_replication(action).await }))
    }

    fn replace_peer(&self, replacement: SiteReplacement) -> Answer<'_, SiteReplaced> {
        self.ask(move |shard| Box::pin(async move { shard.replace_peer(replacement).await }))
    }

    fn could_flip(&self) -> Answer<'_, ()> {
        self.ask(|shard| Box::pin(async move { shard.could_flip() }))
    }

    fn flip(&self, order: FlipOrder) -> Answer<'_, FlippedByte> {
        self.ask(move |shard| Box::pin(async move { shard.flip(order).await }))
    }

    fn last_check(&self) -> Answer<'_, LastIntegrityCheck> {
        self.ask(|shard| Box::pin(async move { shard.last_check() }))
    }

    fn could_check(&self) -> Answer<'_, ()> {
        self.ask(|shard| Box::pin(async move { shard.could_check() }))
    }

    fn begin_check(&self, order: IntegrityOrder) -> Answer<'_, LastIntegrityCheck> {
        self.ask(move |shard| Box::pin(async move { shard.begin_check(order) }))
    }

    fn evidence(&self, forget: bool) -> Answer<'_, KeptEvidence> {
        self.ask(move |shard| Box::pin(async move { shard.evidence(forget).await }))
    }

    fn scrub(&self) -> Answer<'_, ScrubReport> {
        self.ask(|shard| Box::pin(async move { Ok(shard.scrub_report()) }))
    }

    fn order_scrub(&self, action: ScrubAction) -> Answer<'_, ScrubReport> {
        self.ask(move |shard| {
            Box::pin(async move {
                match action {
                    ScrubAction::Start => shard.engine.scrub_start().await,
                    ScrubAction::Pause => shard.engine.scrub_pause(true).await,
                    ScrubAction::Resume => shard.engine.scrub_pause(false).await,
                }
                Ok(shard.scrub_report())
            })
        })
    }

    fn add_spare(&self, path: String) -> Answer<'_, DriveTaken> {
        self.ask(move |shard| Box::pin(async move { shard.add_spare(&path).await }))
    }

    fn replace_drive(&self, slot: u32, path: Option<String>) -> Answer<'_, DriveTaken> {
        self.ask(move |shard| Box::pin(async move { shard.replace_drive(slot, path).await }))
    }

    fn could_retire(&self, slot: u32, path: Option<String>) -> Answer<'_, String> {
        self.ask(move |shard| Box::pin(async move { shard.could_retire(slot, path.as_deref()).await }))
    }

    fn retire_drive(&self, slot: u32, path: Option<String>) -> Answer<'_, DriveTaken> {
        self.ask(move |shard| Box::pin(async move { shard.retire_drive(slot, path.as_deref()).await }))
    }

    fn could_expand(&self, order: ExpandOrder) -> Answer<'_, ()> {
        self.ask(move |shard| Box::pin(async move { shard.could_expand(&order).await }))
    }

    fn expand_pool(&self, order: ExpandOrder) -> Answer<'_, PoolExpanded> {
        self.ask(move |shard| Box::pin(async move { shard.expand_pool(order).await }))
    }

    fn faults(&self) -> Answer<'_, Vec<InjectedFault>> {
        self.ask(|shard| Box::pin(async move { shard.faults() }))
    }

    fn could_inject(&self, order: FaultOrder) -> Answer<'_, ()> {
        self.ask(move |shard| Box::pin(async move { shard.could_inject(&order).map(drop) }))
    }

    fn inject(&self, order: FaultOrder) -> Answer<'_, InjectedFault> {
        self.ask(move |shard| Box::pin(async move { shard.inject(order) }))
    }

    fn end_faults(&self) -> Answer<'_, Vec<InjectedFault>> {
        self.ask(|shard| Box::pin(async move { shard.end_faults() }))
    }

    fn checkpoint(&self) -> Answer<'_, CheckpointReport> {
        self.ask(|shard| Box::pin(async move { shard.checkpoint().await }))
    }

    fn resilver_journal(&self) -> Answer<'_, ResilverReport> {
        self.ask(|shard| Box::pin(async move { Ok(shard.resilver_journal().await) }))
    }

    fn vms(&self) -> Answer<'_, Vec<Vm>> {
        self.ask(|shard| Box::pin(async move { shard.vms().await }))
    }

    fn rename_vm(&self, datastore: String, vm: String, new: String) -> Answer<'_, VmChanged> {
        self.ask(move |shard| Box::pin(async move { shard.rename_vm(&datastore, &vm, &new).await }))
    }

    fn assign_to_vm(&self, datastore: String, wish: VmAssignment) -> Answer<'_, VmAssignment> {
        self.ask(move |shard| Box::pin(async move { shard.assign_to_vm(&datastore, wish).await }))
    }

    fn schedule_vm(&self, datastore: String, vm: String, order: VmScheduleOrder) -> Answer<'_, VmScheduleOrder> {
        self.ask(move |shard| Box::pin(async move { shard.schedule_vm(&datastore, &vm, order).await }))
    }

    fn limit_vm(&self, datastore: String, vm: String, limits: VmLimits) -> Answer<'_, VmLimits> {
        self.ask(move |shard| Box::pin(async move { shard.limit_vm(&datastore, &vm, limits).await }))
    }

    fn vm_snapshots(&self, datastore: String, vm: String) -> Answer<'_, Vec<VmSnapshot>> {
        self.ask(move |shard| Box::pin(async move { shard.vm_snapshots(&datastore, &vm).await }))
    }

    fn snapshot_vm(&self, datastore: String, vm: String, name: String) -> Answer<'_, VmSnapshot> {
        self.ask(move |shard| Box::pin(async move { shard.snapshot_vm(&datastore, &vm, &name).await }))
    }

    fn delete_vm_snapshot(&self, datastore: String, vm: String, name: String) -> Answer<'_, VmSnapshot> {
        self.ask(move |shard| Box::pin(async move { shard.delete_vm_snapshot(&datastore, &vm, &name).await }))
    }

    fn roll_back_vm(&self, datastore: String, vm: String, names: (String, Option<String>)) -> Answer<'_, VmChanged> {
        self.ask(move |shard| Box::pin(async move { shard.roll_back_vm(&datastore, &vm, names).await }))
    }

    fn file_snapshots(&self, datastore: String, vm: String, path: String) -> Answer<'_, Vec<FileSnapshot>> {
        self.ask(move |shard| Box::pin(async move { shard.file_snapshots(&datastore, &vm, &path).await }))
    }

    fn clone_file(&self, datastore: String, wish: FileClone) -> Answer<'_, FileClone> {
        self.ask(move |shard| Box::pin(async move { shard.clone_file(&datastore, wish).await }))
    }

    fn clone_vm(&self, datastore: String, vm: String, (name, new): (String, String)) -> Answer<'_, VmChanged> {
        self.ask(move |shard| Box::pin(async move { shard.clone_vm(&datastore, &vm, (&name, &new)).await }))
    }

    fn compare_vm(&self, datastore: String, vm: String, names: (String, Option<String>)) -> Answer<'_, VmDifference> {
        self.ask(move |shard| Box::pin(async move { shard.compare_vm(&datastore, &vm, names).await }))
    }

    fn measured(&self) -> Answer<'_, Measured> {
        self.ask(|shard| Box::pin(async move { Ok(shard.measured()) }))
    }

    fn data_path_metrics(&self) -> Answer<'_, String> {
        self.ask(|shard| Box::pin(async move { Ok(metrics::page(&shard)) }))
    }
}

impl Shard {
    async fn create_datastore(&self, request: DatastoreCreate) -> Result<Datastore, Problem> {
        let mut options = DatastoreOptions {
            root: if request.root_squash { RootUser::Squashed } else { RootUser::Allowed },
            ..DatastoreOptions::open()
        };
        if !request.allow.is_empty() {
            let parsed: Result<Vec<_>, _> = request.allow.iter().map(|net| net.parse()).collect();
            options.clients = parsed.map_err(|_| Problem::new(&codes::BAD_INPUT, "a network of --allow is not one"))?;
        }
        let name = request.name;
        match self.fs()?.create_datastore(&name, options).await {
            Ok(info) => Ok(self.datastore(&info)),
            Err(Refusal::Exists) => {
                Err(Problem::new(&codes::DATASTORE_EXISTS, format!("datastore \"{name}\" is there already")))
            }
            Err(refusal) => Err(refused(&name, refusal)),
        }
    }

    async fn delete_datastore(&self, name: String, confirmed: bool) -> Result<DatastoreDeleted, Problem> {
        let deletion = if confirmed { Deletion::WithContent } else { Deletion::IfEmpty };
        match self.fs()?.delete_datastore(&name, deletion).await {
            Ok(()) => Ok(DatastoreDeleted { name }),
            Err(Refusal::NoEntry) => {
                Err(Problem::new(&codes::DATASTORE_NOT_FOUND, format!("no datastore named \"{name}\"")))
            }
            Err(Refusal::NotEmpty) => {
                Err(Problem::new(&codes::DATASTORE_NOT_EMPTY, format!("datastore \"{name}\" holds files"))
                    .step(format!("vmhold datastore delete {name} --confirm={name}")))
            }
            Err(refusal) => Err(refused(&name, refusal)),
        }
    }

    async fn checkpoint(&self) -> Result<CheckpointReport, Problem> {
        let (begun, before) = (Instant::now(), self.engine.journal_status().fill_bytes);
        let stopped = |refusal: engine::store::StoreRefusal| {
            Problem::new(&codes::POOL_FAULTED, "no checkpoint could be made").why(refusal.to_string())
        };
        self.engine.checkpoint().await.map_err(stopped)?;
        Ok(CheckpointReport {
            root_version: self.engine.status().checkpoint,
            seconds: begun.elapsed().as_secs_f64(),
            journal_freed_bytes: before.saturating_sub(self.engine.journal_status().fill_bytes),
        })
    }

    /// Opens lost journal legs anew, one after the other, and takes them in.
    async fn resilver_journal(&self) -> ResilverReport {
        let begun = Instant::now();
        let mut legs = Vec::new();
        for path in self.lost_legs() {
            let taken = match self.legs.open(&path) {
                Ok(leg) => self.engine.take_in_leg(leg).await.map_err(|refused| refused.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let path = path.display().to_string();
            legs.push(ResilveredLeg { path, taken_in: taken.is_ok(), reason: taken.err() });
        }
        ResilverReport { legs, seconds: begun.elapsed().as_secs_f64() }
    }

    /// The check, as a job for everyone to see. How much there is to read is not known before.
    async fn fsck_as_job(&self) -> Result<FsckReport, Problem> {
        let new = NewJob { kind: "fsck", object: self.config.pool.clone(), ..NewJob::default() };
        let job = self.books.jobs.start(new, Timestamp::now());
        let outcome = self.fsck().await;
        let (state, result) = match &outcome {
            Ok(report) if report.clean => (JobState::Done, "no damage".to_owned()),
            Ok(report) => (JobState::Done, format!("{} places are damaged", report.damage_count)),
            Err(problem) => (JobState::Failed, problem.what().to_owned()),
        };
        job.end(state, result, Timestamp::now());
        outcome
    }

    /// Checks every unit on the drives, parity and registers too, and repairs what is
    /// damaged; then names and attributes, then every reference and object. What is only
    /// in the journal goes to the drives first, so that all of it is checked.
    async fn fsck(&self) -> Result<FsckReport, Problem> {
        let (started_at, begun) = (Timestamp::now(), Instant::now());
        let cannot = |why: String| Problem::new(&codes::POOL_FAULTED, "the check could not go through").why(why);
        // A pool that takes no writes any more is checked as it is.
        let _ = self.engine.checkpoint().await;
        let repaired_before = self.engine.group().counters().units_repaired;
        let scrub = self.engine.scrub().await.map_err(|refusal| cannot(refusal.to_string()))?;
        self.engine.group().scrub_registers().await;
        let ns = |at: Timestamp| u64::try_from(at.as_nanosecond()).ok();
        if left_nothing(&scrub) {
            self.last_fsck_ns.set(ns(started_at).zip(ns(Timestamp::now())));
        }
        let names = self.fs()?.check().await.map_err(|refusal| cannot(format!("{refusal:?}")))?;
        let audit = self.engine.audit(true).await.map_err(|refusal| cannot(refusal.to_string()))?;
        let mut damage: Vec<Damage> = names
            .iter()
            .map(|finding| Damage {
                kind: DamageKind::Directory,
                place: "namespace".into(),
                detail: format!("{finding:?}"),
            })
            .collect();
        damage.extend(damages(&audit.findings, &self.names_in(&audit.findings).await));
        damage.extend(damage_of_units(&scrub));
        let damage_count = damage.len() as u64;
        damage.truncate(DAMAGE_LISTED);
        Ok(FsckReport {
            started_at,
            seconds: begun.elapsed().as_secs_f64(),
            clean: damage_count == 0,
            references_checked: audit.blocks,
            objects_checked: audit.objects_read,
            pages_checked: audit.pages,
            files_checked: audit.files,
            bytes_read: audit.objects_read * 8192,
            orphans: 0,
            repaired_units: self.engine.group().counters().units_repaired - repaired_before,
            damage,
            damage_count,
        })
    }
}

fn refused(name: &str, refusal: Refusal) -> Problem {
    Problem::new(&codes::BAD_INPUT, format!("datastore \"{name}\" cannot be changed")).why(format!("{refusal:?}"))
}

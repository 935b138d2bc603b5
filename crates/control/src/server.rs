//! The REST server: documents of a [`ControlBackend`] under `/v1`, the web UI, Prometheus
//! text under `/metrics`, errors as `application/problem+json`.
//!
//! ```text
//!  listener (TLS) -> guard (who, may they, audit) -> handler -> ControlBackend
//!                                                       |
//!                          table: path, role, documents +-> openapi
//!  feed: asks the store once a second -> events, status -> stream (SSE)
//! ```
//!
//! It runs on a thread of its own. Nothing a person does here can take more of the store's
//! thread than a bounded question.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use rustls::ServerConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::access::{Access, Caller, Role, Session};
use crate::activity::Measured;
use crate::activity_book::ActivityBook;
use crate::audit::Audit;
use crate::check::{CheckpointReport, FsckReport, ResilverReport};
use crate::codes::{self, CodePage};
use crate::datastore::{Datastore, DatastoreCreate, DatastoreDeleted, DatastoreList, MountInfo, MountPoint, Platform};
use crate::envelope::{Document, Envelope, Origin};
use crate::events::{EventBook, EventList};
use crate::expansion::{ExpandOrder, PoolExpanded};
use crate::extract::{Asked, Named, Sent, confirmation, header as text_of};
use crate::feed::{Feed, Snapshot, watch_for_ever};
use crate::guard::{DryRun, Rule, guard};
use crate::health::Health;
use crate::history::{History, HistoryBook};
use crate::inject::{FaultOrder, FlipOrder, FlippedByte, InjectedFault};
use crate::integrity::{IntegrityOrder, KeptEvidence, LastIntegrityCheck};
use crate::jobs::{Job, JobBook, JobList, Wish};
use crate::listener::{Peer, TlsListener};
use crate::metrics;
use crate::plan::Plan;
use crate::pool::{DriveList, Pool, PoolList};
use crate::problem::{Problem, ProblemDocument};
use crate::repeats::Repeats;
use crate::replacement::{SiteReplaced, SiteReplacement};
use crate::replication::{Replication, ReplicationAction};
use crate::roles::RoleBook;
use crate::route::Route;
use crate::status::{Facts, Status};
use crate::tls::Fingerprint;
use crate::upkeep::{DriveTaken, ScrubAction, ScrubOrder, ScrubReport};
use crate::vm::{Vm, VmAssignment, VmChanged, VmDifference, VmLimits, VmScheduleOrder, VmSnapshot};
use crate::vm_file::{FileClone, FileSnapshot};
use crate::{
    activity_routes, drive_routes, inject_routes, integrity_routes, openapi, people, replication_routes, stream, ui,
    vm_file, vm_routes,
};

/// What a backend gives back, in its own time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Problem>> + Send + 'a>>;

/// Whoever knows the facts and can do the work.
pub trait ControlBackend: Send + Sync {
    /// Everything `status`, `pool`, `drive`, `health` and `/metrics` are made of.
    fn facts(&self) -> Answer<'_, Facts>;
    /// All datastores, by name.
    fn datastores(&self) -> Answer<'_, Vec<Datastore>>;
    /// Creates one; the request was checked by [`DatastoreCreate::check`].
    fn create_datastore(&self, request: DatastoreCreate) -> Answer<'_, Datastore>;
    /// Deletes one. `confirmed`: its name was given as confirmation, so files in it go, too.
    fn delete_datastore(&self, name: String, confirmed: bool) -> Answer<'_, DatastoreDeleted>;
    /// Checks every reference and object of the live store.
    fn fsck(&self) -> Answer<'_, FsckReport>;
    /// Asks something of the pair that this store is one half of.
    fn order_replication(&self, action: ReplicationAction) -> Answer<'_, Replication>;
    /// Makes another site the secondary of the pair, in place of one that is lost.
    fn replace_peer(&self, replacement: SiteReplacement) -> Answer<'_, SiteReplaced>;
    /// Whether a byte could be flipped at this site.
    fn could_flip(&self) -> Answer<'_, ()>;
    /// Flips it.
    fn flip(&self, order: FlipOrder) -> Answer<'_, FlippedByte>;
    /// The last integrity check that this site knows of, and the one at work.
    fn last_check(&self) -> Answer<'_, LastIntegrityCheck>;
    /// Whether one could begin now.
    fn could_check(&self) -> Answer<'_, ()>;
    /// Begins one, as a job.
    fn begin_check(&self, order: IntegrityOrder) -> Answer<'_, LastIntegrityCheck>;
    /// What is kept of files that differed; or what was, if it is let go of.
    fn evidence(&self, forget: bool) -> Answer<'_, KeptEvidence>;
    /// The scrub of the pool.
    fn scrub(&self) -> Answer<'_, ScrubReport>;
    /// Starts, pauses or resumes it.
    fn order_scrub(&self, action: ScrubAction) -> Answer<'_, ScrubReport>;
    /// Takes a blank drive as a spare.
    fn add_spare(&self, path: String) -> Answer<'_, DriveTaken>;
    /// Fills the place of the drive in `slot` with the drive at `path`, or with a spare.
    fn replace_drive(&self, slot: u32, path: Option<String>) -> Answer<'_, DriveTaken>;
    /// Path of the drive that [`retire_drive`](ControlBackend::retire_drive) would take, or what it
    /// would refuse now; nothing is changed.
    fn could_retire(&self, slot: u32, path: Option<String>) -> Answer<'_, String>;
    /// Fills the drive at `path`, or a spare, from the good one in `slot`, and lets it take the slot
    /// then.
    fn retire_drive(&self, slot: u32, path: Option<String>) -> Answer<'_, DriveTaken>;
    /// What [`expand_pool`](ControlBackend::expand_pool) would refuse now; nothing is changed.
    fn could_expand(&self, order: ExpandOrder) -> Answer<'_, ()>;
    /// Adds drives to the pool; the order was checked by [`ExpandOrder::check`].
    fn expand_pool(&self, order: ExpandOrder) -> Answer<'_, PoolExpanded>;
    /// Faults on purpose: those that are on, and those whose damage no scrub has seen yet.
    fn faults(&self) -> Answer<'_, Vec<InjectedFault>>;
    /// What [`inject`](ControlBackend::inject) would refuse now; nothing is changed.
    fn could_inject(&self, order: FaultOrder) -> Answer<'_, ()>;
    /// Makes a drive of a lab pool do something wrong; [`FaultOrder::check`] passed.
    fn inject(&self, order: FaultOrder) -> Answer<'_, InjectedFault>;
    /// Ends every fault on purpose; says which were on.
    fn end_faults(&self) -> Answer<'_, Vec<InjectedFault>>;
    /// Makes a checkpoint now.
    fn checkpoint(&self) -> Answer<'_, CheckpointReport>;
    /// Fills lost journal legs anew and takes them in again.
    fn resilver_journal(&self) -> Answer<'_, ResilverReport>;
    /// All VMs, by datastore and name.
    fn vms(&self) -> Answer<'_, Vec<Vm>>;
    /// Gives a VM another name.
    fn rename_vm(&self, datastore: String, vm: String, new: String) -> Answer<'_, VmChanged>;
    /// Makes a file one of a VM's, or of none by hand.
    fn assign_to_vm(&self, datastore: String, wish: VmAssignment) -> Answer<'_, VmAssignment>;
    /// Has a VM snapshotted by itself, or ends that.
    fn schedule_vm(&self, datastore: String, vm: String, order: VmScheduleOrder) -> Answer<'_, VmScheduleOrder>;
    /// Says how much a VM may have and shall have; [`VmLimits::check`] passed.
    fn limit_vm(&self, datastore: String, vm: String, limits: VmLimits) -> Answer<'_, VmLimits>;
    /// Snapshots of a VM, oldest first; there may be some although the VM is gone.
    fn vm_snapshots(&self, datastore: String, vm: String) -> Answer<'_, Vec<VmSnapshot>>;
    /// Freezes all files of a VM at one point.
    fn snapshot_vm(&self, datastore: String, vm: String, name: String) -> Answer<'_, VmSnapshot>;
    /// Deletes a snapshot.
    fn delete_vm_snapshot(&self, datastore: String, vm: String, name: String) -> Answer<'_, VmSnapshot>;
    /// Gives a VM the content of a snapshot again; after the snapshot's name the path of a file, if only that.
    fn roll_back_vm(&self, datastore: String, vm: String, names: (String, Option<String>)) -> Answer<'_, VmChanged>;
    /// Snapshots of a VM that hold the file at a path, oldest first.
    fn file_snapshots(&self, datastore: String, vm: String, path: String) -> Answer<'_, Vec<FileSnapshot>>;
    /// Makes a file; the request was checked by [`FileClone::check`].
    fn clone_file(&self, datastore: String, wish: FileClone) -> Answer<'_, FileClone>;
    /// Makes a VM from a snapshot; the names are the snapshot's and the new VM's.
    fn clone_vm(&self, datastore: String, vm: String, names: (String, String)) -> Answer<'_, VmChanged>;
    /// Where a VM differs between a snapshot and a later one, or what it is now.
    fn compare_vm(&self, datastore: String, vm: String, names: (String, Option<String>)) -> Answer<'_, VmDifference>;
    /// What files did since this was asked before, and whose they are.
    fn measured(&self) -> Answer<'_, Measured>;
    /// Prometheus text of the data path's counters; complete families, each with its type.
    fn data_path_metrics(&self) -> Answer<'_, String>;
}

/// What program answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// `vmhold`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Version of the API.
    pub api: String,
}

impl Document for Version {
    const SCHEMA: &'static str = "vmhold.version/v1";
}

impl Version {
    /// This program.
    #[must_use]
    pub fn here() -> Self {
        Self { name: "vmhold".into(), version: env!("CARGO_PKG_VERSION").into(), api: "v1".into() }
    }
}

/// What the server keeps beside the store.
#[derive(Clone)]
pub struct Books {
    /// Events.
    pub events: Arc<EventBook>,
    /// Jobs.
    pub jobs: Arc<JobBook>,
    /// Load and latency over time.
    pub history: Arc<HistoryBook>,
    /// Changes of the pair that this store is one half of.
    pub roles: Arc<RoleBook>,
    /// The same of each VM and disk.
    pub activity: Arc<ActivityBook>,
    /// Audit log.
    pub audit: Arc<Audit>,
    /// Tokens and sessions.
    pub access: Arc<Access>,
}

struct Inner {
    backend: Arc<dyn ControlBackend>,
    books: Books,
    feed: Feed,
    repeats: Repeats,
    streams: Arc<Semaphore>,
    cookie_name: String,
    port: u16,
    fingerprint: Option<Fingerprint>,
    openapi: OnceLock<String>,
}

/// What handlers share.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

impl Api {
    /// Over a backend. Cookies belong to a host and not to a port, so `port` is part of the
    /// name: two stores on one machine must not log each other's users out.
    #[must_use]
    pub fn new(backend: Arc<dyn ControlBackend>, books: Books, port: u16, fingerprint: Option<Fingerprint>) -> Self {
        Self(Arc::new(Inner {
            backend,
            books,
            feed: Feed::default(),
            repeats: Repeats::default(),
            streams: Arc::new(Semaphore::new(stream::streams_max())),
            cookie_name: format!("__Host-vmhold-{port}"),
            port,
            fingerprint,
            openapi: OnceLock::new(),
        }))
    }

    pub(crate) fn backend(&self) -> &dyn ControlBackend {
        &*self.0.backend
    }

    pub(crate) fn access(&self) -> &Access {
        &self.0.books.access
    }

    pub(crate) fn audit(&self) -> &Audit {
        &self.0.books.audit
    }

    pub(crate) fn events(&self) -> &EventBook {
        &self.0.books.events
    }

    pub(crate) fn jobs(&self) -> &JobBook {
        &self.0.books.jobs
    }

    pub(crate) fn roles(&self) -> &RoleBook {
        &self.0.books.roles
    }

    pub(crate) fn history(&self) -> &HistoryBook {
        &self.0.books.history
    }

    pub(crate) fn activity(&self) -> &Arc<ActivityBook> {
        &self.0.books.activity
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.0.feed
    }

    pub(crate) fn repeats(&self) -> &Repeats {
        &self.0.repeats
    }

    pub(crate) fn streams(&self) -> &Arc<Semaphore> {
        &self.0.streams
    }

    pub(crate) fn session(&self, caller: Caller) -> Session {
        let Caller { who, role, .. } = caller;
        Session { who, role, fingerprint: self.0.fingerprint.map(|digits| digits.to_string()) }
    }

    pub(crate) fn cookie_name(&self) -> &str {
        &self.0.cookie_name
    }
}

pub(crate) type Shared = State<Api>;

/// A problem with the request it is about.
pub(crate) struct Refusal(Box<(Problem, Option<String>)>);

impl Refusal {
    pub(crate) fn status(&self) -> u16 {
        self.0.0.code().http
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(Box::new((problem, None)))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (problem, instance) = *self.0;
        let document = problem.document(instance.as_deref());
        let status = StatusCode::from_u16(document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let text = document_text(&document);
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], text).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = document.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.ceil() as u64));
        }
        response
    }
}

fn document_text(document: &ProblemDocument) -> String {
    serde_json::to_string(document).expect("problems hold only strings as keys and finite numbers")
}

pub(crate) type Reply = Result<Response, Refusal>;

/// Every call there is.
#[must_use]
pub fn table() -> Vec<Route> {
    let mut routes = questions();
    routes.extend(changes());
    routes.extend(inject_routes::routes());
    routes.extend(replication_routes::routes());
    routes.extend(integrity_routes::routes());
    routes.extend(drive_routes::routes());
    routes.extend(vm_routes::routes());
    routes.extend(activity_routes::routes());
    routes.extend(vm_file::routes());
    routes.extend(people::routes());
    routes
}

fn questions() -> Vec<Route> {
    vec![
        Route::get("/v1/version", "Versions of program and API.", version).open().answers::<Version>(),
        Route::get("/v1/openapi.json", "This description.", description).open().answers_other("application/json"),
        Route::get("/v1/codes/{code}", "What a code means and what to do.", code).open().answers::<CodePage>(),
        Route::get("/v1/health", "All checks, and those that fail.", health).answers::<Health>(),
        Route::get("/v1/status", "One screen: health, what can be lost, load.", status).answers::<Status>(),
        Route::get("/v1/pools", "All pools.", pools).answers::<PoolList>(),
        Route::get("/v1/pools/{name}", "One pool with its drives.", pool).answers::<Pool>(),
        Route::get("/v1/pools/{name}/map", "The same.", pool).answers::<Pool>(),
        Route::get("/v1/pools/{name}/scrub", "The scrub of a pool and its history.", scrub).answers::<ScrubReport>(),
        Route::get("/v1/drives", "All drives.", drives).answers::<DriveList>(),
        Route::get("/v1/datastores", "All datastores.", datastores).answers::<DatastoreList>(),
        Route::get("/v1/datastores/{name}", "One datastore; its ETag names its settings.", datastore)
            .answers::<Datastore>(),
        Route::get("/v1/datastores/{name}/mount-info", "The command that mounts it.", mount_info)
            .answers::<MountInfo>()
            .parameter("for", "string", "proxmox, esxi, xcp-ng, libvirt or linux."),
        Route::get("/v1/events", "What happened, oldest first.", events)
            .answers::<EventList>()
            .parameter("after", "integer", "Only events with a higher number.")
            .parameter("limit", "integer", "At most the newest so many."),
        Route::get("/v1/history", "Load and latency by part over time.", history).answers::<History>().parameter(
            "last_seconds",
            "integer",
            "How far back; an hour if left away, at most 90 days.",
        ),
        Route::get("/v1/jobs", "Work that goes on or went on, newest first.", jobs).answers::<JobList>(),
        Route::get("/v1/jobs/{id}", "One job.", job).answers::<Job>(),
        Route::get("/v1/stream", "What changes, as server-sent events; resume with Last-Event-ID.", stream::stream)
            .answers_other("text/event-stream")
            .parameter("topics", "string", "Of status, events, jobs; all if left away.")
            .parameter("after", "integer", "Number of the last event seen, instead of Last-Event-ID.")
            .streams(),
        Route::get("/metrics", "Prometheus text.", metrics_page).answers_other("text/plain"),
    ]
}

fn changes() -> Vec<Route> {
    vec![
        Route::post("/v1/datastores", "Makes a datastore; hosts can mount it at once.", create_datastore)
            .role(Role::Operator)
            .takes::<DatastoreCreate>()
            .answers::<Datastore>()
            .creates()
            .plans(),
        Route::delete(
            "/v1/datastores/{name}",
            "Deletes a datastore; with Confirm also the files in it.",
            delete_datastore,
        )
        .answers::<DatastoreDeleted>()
        .plans()
        .confirms(),
        Route::post("/v1/pools/{name}/scrub", "Starts, pauses or resumes the scrub.", order_scrub)
            .role(Role::Operator)
            .takes::<ScrubOrder>()
            .answers::<ScrubReport>()
            .plans(),
        Route::post("/v1/pools/{name}/expand", "Adds 1 to 12 blank drives to a pool that is served.", expand_pool)
            .takes::<ExpandOrder>()
            .answers::<PoolExpanded>()
            .plans(),
        Route::post("/v1/jobs/{id}/pause", "Asks a job to pause.", pause_job)
            .role(Role::Operator)
            .answers::<Job>()
            .plans(),
        Route::post("/v1/jobs/{id}/resume", "Asks a paused job to go on.", resume_job)
            .role(Role::Operator)
            .answers::<Job>()
            .plans(),
        Route::post("/v1/jobs/{id}/cancel", "Asks a job to stop for good.", cancel_job)
            .role(Role::Operator)
            .answers::<Job>()
            .plans(),
        Route::post("/v1/fsck", "Checks every reference and object of the live store.", fsck)
            .role(Role::Operator)
            .answers::<FsckReport>()
            .plans(),
        Route::post("/v1/checkpoint", "Brings everything from the journal to the drives.", checkpoint)
            .role(Role::Operator)
            .answers::<CheckpointReport>()
            .plans(),
        Route::post("/v1/journal/resilver", "Takes lost journal legs in again.", resilver_journal)
            .role(Role::Operator)
            .answers::<ResilverReport>()
            .plans(),
    ]
}

/// All routes, and the web UI.
pub fn router(api: &Api) -> Router {
    let mut router = Router::new();
    for route in table() {
        let rule = Arc::new(Rule::from(&route));
        let handler = route.handler.route_layer(from_fn_with_state((api.clone(), rule), guard));
        router = router.route(route.path, handler);
    }
    router
        .merge(ui::router())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::map_response(safe_headers))
        .with_state(api.clone())
}

/// Headers of every answer: it is for this page only, and is what it says it is.
async fn safe_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Serves until `stop` completes and the requests under way are answered.
///
/// # Errors
/// When the listening socket fails.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    api: Api,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router(&api).into_make_service_with_connect_info::<Peer>();
    let watching = tokio::spawn(watch_for_ever(api.clone()));
    let stopping = async move {
        stop.await;
        api.feed().stop();
    };
    let served = axum::serve(TlsListener::start(listener, tls), service).with_graceful_shutdown(stopping).await;
    watching.abort();
    served
}

fn with_origin<T: Document + Serialize>(origin: Origin, data: T) -> Response {
    let text = Envelope::of(data, origin).line();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

pub(crate) fn envelope<T: Document + Serialize>(site: Option<String>, data: T) -> Response {
    with_origin(Origin { generated_at: Timestamp::now(), site, data_age_seconds: Some(0.0) }, data)
}

/// A document made of a picture carries the age of the picture.
fn pictured<T: Document + Serialize>(picture: &Snapshot, data: T) -> Response {
    let site = Some(picture.status.facts.site.clone());
    let data_age_seconds = Some(picture.age_seconds());
    with_origin(Origin { generated_at: picture.taken_at, site, data_age_seconds }, data)
}

async fn version() -> Response {
    envelope(None, Version::here())
}

async fn description(State(api): Shared) -> Response {
    let text = api.0.openapi.get_or_init(|| openapi::document(&table()).to_string()).clone();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn status(State(api): Shared) -> Reply {
    let picture = Feed::picture(&api).await?;
    Ok(pictured(&picture, (*picture.status).clone()))
}

async fn health(State(api): Shared) -> Reply {
    let picture = Feed::picture(&api).await?;
    Ok(pictured(&picture, picture.status.health.clone()))
}

async fn pools(State(api): Shared) -> Reply {
    let picture = Feed::picture(&api).await?;
    Ok(pictured(&picture, PoolList(picture.status.facts.pools.clone())))
}

async fn pool(State(api): Shared, Named(name): Named) -> Reply {
    let picture = Feed::picture(&api).await?;
    let pools = &picture.status.facts.pools;
    let known: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    let found: Option<&Pool> = pools.iter().find(|pool| pool.name == name);
    let missing = || {
        Problem::new(&codes::POOL_NOT_FOUND, format!("no pool named {name:?}"))
            .step(format!("pools here: {}", known.join(", ")))
    };
    Ok(pictured(&picture, found.ok_or_else(missing)?.clone()))
}

async fn drives(State(api): Shared) -> Reply {
    let picture = Feed::picture(&api).await?;
    let drives = picture.status.facts.pools.iter().flat_map(|pool| pool.drives.clone()).collect();
    Ok(pictured(&picture, DriveList(drives)))
}

async fn datastores(State(api): Shared) -> Reply {
    Ok(envelope(None, DatastoreList(api.backend().datastores().await?)))
}

async fn find_datastore(api: &Api, name: &str) -> Result<Datastore, Problem> {
    let all = api.backend().datastores().await?;
    let known: Vec<String> = all.iter().map(|datastore| datastore.name.clone()).collect();
    all.into_iter().find(|datastore| datastore.name == name).ok_or_else(|| {
        let problem = Problem::new(&codes::DATASTORE_NOT_FOUND, format!("no datastore named {name:?}"));
        if known.is_empty() { problem } else { problem.step(format!("datastores here: {}", known.join(", "))) }
    })
}

async fn datastore(State(api): Shared, Named(name): Named) -> Reply {
    let found = find_datastore(&api, &name).await?;
    let etag = found.etag();
    let mut response = envelope(None, found);
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

async fn create_datastore(
    State(api): Shared,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(request): Sent<DatastoreCreate>,
) -> Reply {
    request.check()?;
    if dry_run {
        if api.backend().datastores().await?.iter().any(|there| there.name == request.name) {
            let what = format!("datastore \"{}\" is there already", request.name);
            return Err(Problem::new(&codes::DATASTORE_EXISTS, what).into());
        }
        let who = if request.allow.is_empty() { "everyone".to_owned() } else { request.allow.join(", ") };
        let plan = Plan::would(format!("make datastore {}, exported as /{}", request.name, request.name));
        return Ok(envelope(None, plan.and(format!("let {who} mount it"))));
    }
    let created = api.backend().create_datastore(request).await?;
    Ok((StatusCode::CREATED, envelope(None, created)).into_response())
}

async fn delete_datastore(
    State(api): Shared,
    Named(name): Named,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    headers: HeaderMap,
) -> Reply {
    let confirm = confirmation(&headers);
    if let Some(other) = confirm.as_ref().filter(|given| **given != name) {
        let problem = Problem::new(&codes::CONFIRMATION_MISSING, format!("{other:?} was confirmed, not {name:?}"));
        return Err(problem.into());
    }
    if dry_run || headers.contains_key(header::IF_MATCH) {
        let there = find_datastore(&api, &name).await?;
        if text_of(&headers, "if-match").is_some_and(|wanted| wanted != "*" && wanted != there.etag()) {
            let what = format!("the settings of datastore \"{name}\" are not the ones named by If-Match");
            return Err(Problem::new(&codes::CHANGED_ELSEWHERE, what).into());
        }
        if dry_run {
            return Ok(envelope(None, there.deletion()));
        }
    }
    Ok(envelope(None, api.backend().delete_datastore(name, confirm.is_some()).await?))
}

#[derive(Deserialize)]
struct MountQuery {
    #[serde(rename = "for")]
    platform: Option<String>,
}

async fn mount_info(State(api): Shared, Named(name): Named, Asked(query): Asked<MountQuery>) -> Reply {
    let platform: Platform = query.platform.as_deref().unwrap_or("linux").parse()?;
    let datastore = find_datastore(&api, &name).await?;
    let picture = Feed::picture(&api).await?;
    let nfs = &picture.status.facts.nfs;
    let fingerprint = api.0.fingerprint.map(|digits| digits.to_string());
    let at = MountPoint {
        datastore: &datastore.name,
        host: &nfs.host,
        port: nfs.port,
        mount_port: nfs.mount_port,
        locks: nfs.locks,
        root_squash: datastore.root_squash,
        api_port: api.0.port,
        fingerprint: fingerprint.as_deref(),
    };
    Ok(pictured(&picture, MountInfo::new(&at, platform)))
}

/// Parameters of lists.
#[derive(Deserialize)]
pub(crate) struct ListQuery {
    pub after: Option<u64>,
    pub limit: Option<usize>,
}

/// Entries in a list when nothing is said, and at most.
pub(crate) const LISTED: usize = 100;
pub(crate) const LISTED_MAX: usize = 5000;

async fn events(State(api): Shared, Asked(query): Asked<ListQuery>) -> Reply {
    let limit = query.limit.unwrap_or(LISTED).min(LISTED_MAX);
    let events = api.events().after(query.after.unwrap_or(0), limit);
    Ok(envelope(None, EventList(events.iter().map(|event| (**event).clone()).collect())))
}

#[derive(Deserialize)]
struct HistoryQuery {
    last_seconds: Option<u32>,
}

const HISTORY_SECONDS: u32 = 3600;
const HISTORY_SECONDS_MAX: u32 = 90 * 86_400;

async fn history(State(api): Shared, Asked(query): Asked<HistoryQuery>) -> Reply {
    let seconds = query.last_seconds.unwrap_or(HISTORY_SECONDS).min(HISTORY_SECONDS_MAX);
    Ok(envelope(None, api.history().last(seconds, Timestamp::now())))
}

async fn jobs(State(api): Shared) -> Reply {
    Ok(envelope(None, JobList(api.jobs().list())))
}

async fn job(State(api): Shared, Named(id): Named) -> Reply {
    Ok(envelope(None, api.jobs().find(&id)?))
}

fn ask_job(api: &Api, id: &str, wish: Wish, dry_run: bool) -> Reply {
    let job = api.jobs().ask(id, wish, dry_run)?;
    if !dry_run {
        return Ok(envelope(None, job));
    }
    let verb = match wish {
        Wish::Go => "let go on",
        Wish::Pause => "pause",
        Wish::Cancel => "stop for good",
    };
    Ok(envelope(None, Plan::would(format!("{verb}: {} {} ({id})", job.kind, job.object))))
}

async fn pause_job(State(api): Shared, Named(id): Named, Extension(dry_run): Extension<DryRun>) -> Reply {
    ask_job(&api, &id, Wish::Pause, dry_run.0)
}

async fn resume_job(State(api): Shared, Named(id): Named, Extension(dry_run): Extension<DryRun>) -> Reply {
    ask_job(&api, &id, Wish::Go, dry_run.0)
}

async fn cancel_job(State(api): Shared, Named(id): Named, Extension(dry_run): Extension<DryRun>) -> Reply {
    ask_job(&api, &id, Wish::Cancel, dry_run.0)
}

async fn code(Named(text): Named) -> Reply {
    let found = codes::find(&text).ok_or_else(|| Problem::new(&codes::NOT_FOUND, format!("no code {text:?}")))?;
    Ok(envelope(None, CodePage(found)))
}

async fn fsck(State(api): Shared, Extension(DryRun(dry_run)): Extension<DryRun>) -> Reply {
    if dry_run {
        return Ok(envelope(None, Plan::would("read and check everything that is stored, and repair damaged units")));
    }
    Ok(envelope(None, api.backend().fsck().await?))
}

/// Refuses the name of a pool that is not here; says how many drives it has.
pub(crate) async fn known_pool(api: &Api, name: &str) -> Result<usize, Problem> {
    let picture = Feed::picture(api).await?;
    let pools = &picture.status.facts.pools;
    if let Some(pool) = pools.iter().find(|pool| pool.name == name) {
        return Ok(pool.members());
    }
    let known: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    Err(Problem::new(&codes::POOL_NOT_FOUND, format!("no pool named {name:?}"))
        .step(format!("pools here: {}", known.join(", "))))
}

async fn scrub(State(api): Shared, Named(name): Named) -> Reply {
    known_pool(&api, &name).await?;
    Ok(envelope(None, api.backend().scrub().await?))
}

async fn order_scrub(
    State(api): Shared,
    Named(name): Named,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(order): Sent<ScrubOrder>,
) -> Reply {
    known_pool(&api, &name).await?;
    if dry_run {
        return Ok(envelope(None, Plan::would(format!("have the scrub of {name} do this: {:?}", order.action))));
    }
    Ok(envelope(None, api.backend().order_scrub(order.action).await?))
}

async fn expand_pool(
    State(api): Shared,
    Named(name): Named,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(order): Sent<ExpandOrder>,
) -> Reply {
    let members = known_pool(&api, &name).await?;
    order.check()?;
    if dry_run {
        let plan = order.plan(&name, members);
        api.backend().could_expand(order).await?;
        return Ok(envelope(None, plan));
    }
    Ok(envelope(None, api.backend().expand_pool(order).await?))
}

async fn checkpoint(State(api): Shared, Extension(DryRun(dry_run)): Extension<DryRun>) -> Reply {
    if dry_run {
        return Ok(envelope(None, Plan::would("bring everything from the journal to the drives")));
    }
    Ok(envelope(None, api.backend().checkpoint().await?))
}

async fn resilver_journal(State(api): Shared, Extension(DryRun(dry_run)): Extension<DryRun>) -> Reply {
    if dry_run {
        return Ok(envelope(None, Plan::would("open lost journal legs anew and write everything to them")));
    }
    Ok(envelope(None, api.backend().resilver_journal().await?))
}

async fn metrics_page(State(api): Shared) -> Reply {
    let picture = Feed::picture(&api).await?;
    let data_path = api.backend().data_path_metrics().await?;
    let text = metrics::page(&picture.status, &api.activity().totals(), &data_path);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

async fn no_such_path(request: Request) -> Refusal {
    let path = request.uri().path().to_owned();
    Refusal(Box::new((Problem::new(&codes::NOT_FOUND, format!("there is nothing at {path}")), Some(path))))
}

async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    let problem = Problem::new(&codes::NO_SUCH_CALL, format!("{} does not take {method}", uri.path()));
    Refusal(Box::new((problem, Some(uri.path().to_owned()))))
}

//! The REST server: documents of a [`ControlBackend`] under `/v1`, Prometheus text under
//! `/metrics`, errors as `application/problem+json`.
//!
//! There is no login in this version, so it is for loopback. Web pages of others cannot
//! use it all the same: a `Host` that is a name (a page that rebinds its name to this
//! address) and an `Origin` from elsewhere are refused.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::check::{CheckpointReport, FsckReport, ResilverReport};
use crate::codes::{self, CodePage};
use crate::datastore::{Datastore, DatastoreCreate, DatastoreDeleted, DatastoreList, MountInfo, MountPoint, Platform};
use crate::envelope::{Document, Envelope, Origin};
use crate::metrics;
use crate::pool::{DriveList, Pool, PoolList};
use crate::problem::{Problem, ProblemDocument};
use crate::status::{Facts, Status};
use crate::upkeep::{DriveOffer, DriveTaken, ScrubAction, ScrubOrder, ScrubReport};

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
    /// The scrub of the pool.
    fn scrub(&self) -> Answer<'_, ScrubReport>;
    /// Starts, pauses or resumes it.
    fn order_scrub(&self, action: ScrubAction) -> Answer<'_, ScrubReport>;
    /// Takes a blank drive as a spare.
    fn add_spare(&self, path: String) -> Answer<'_, DriveTaken>;
    /// Fills the place of the drive in `slot` with the drive at `path`, or with a spare.
    fn replace_drive(&self, slot: u32, path: Option<String>) -> Answer<'_, DriveTaken>;
    /// Makes a checkpoint now.
    fn checkpoint(&self) -> Answer<'_, CheckpointReport>;
    /// Fills lost journal legs anew and takes them in again.
    fn resilver_journal(&self) -> Answer<'_, ResilverReport>;
    /// Prometheus text of the data path's counters; complete families, each with its type.
    fn data_path_metrics(&self) -> Answer<'_, String>;
}

/// What program answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Clone)]
struct Api {
    backend: Arc<dyn ControlBackend>,
}

type Shared = State<Api>;

/// A problem with the request it is about.
struct Refusal(Box<(Problem, Option<String>)>);

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
        (status, [(header::CONTENT_TYPE, "application/problem+json")], document_text(&document)).into_response()
    }
}

fn document_text(document: &ProblemDocument) -> String {
    serde_json::to_string(document).expect("problems hold only strings as keys and finite numbers")
}

type Reply = Result<Response, Refusal>;

/// All routes.
pub fn router(backend: Arc<dyn ControlBackend>) -> Router {
    Router::new()
        .route("/v1/version", get(version))
        .route("/v1/health", get(health))
        .route("/v1/status", get(status))
        .route("/v1/pools", get(pools))
        .route("/v1/pools/{name}", get(pool))
        .route("/v1/pools/{name}/map", get(pool))
        .route("/v1/pools/{name}/scrub", get(scrub).post(order_scrub))
        .route("/v1/drives", get(drives).post(add_spare))
        .route("/v1/drives/{pool}/{slot}/replace", post(replace_drive))
        .route("/v1/datastores", get(datastores).post(create_datastore))
        .route("/v1/datastores/{name}", get(datastore).delete(delete_datastore))
        .route("/v1/datastores/{name}/mount-info", get(mount_info))
        .route("/v1/codes/{code}", get(code))
        .route("/v1/fsck", post(fsck))
        .route("/v1/checkpoint", post(checkpoint))
        .route("/v1/journal/resilver", post(resilver_journal))
        .route("/metrics", get(metrics_page))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(refuse_foreign_pages))
        .with_state(Api { backend })
}

/// Serves until `stop` completes and the requests under way are answered.
///
/// # Errors
/// When the listening socket fails.
pub async fn serve(
    listener: TcpListener,
    backend: Arc<dyn ControlBackend>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(backend)).with_graceful_shutdown(stop).await
}

async fn refuse_foreign_pages(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let origin_fits = match text(header::ORIGIN) {
        None => true,
        Some(origin) => origin.split_once("://").is_some_and(|(_, from)| from == host),
    };
    if is_plain_host(host) && origin_fits {
        return next.run(request).await;
    }
    let problem = Problem::new(&codes::BAD_INPUT, format!("the API does not answer to host {host:?} from this origin"))
        .why("it has no login in this version, so pages of others must not reach it")
        .step("use the address as a number, or localhost");
    Refusal::from(problem).into_response()
}

/// `localhost`, an address, or either with a port. An empty host comes from HTTP/1.0 tools.
fn is_plain_host(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    host.is_empty() || name == "localhost" || address.parse::<IpAddr>().is_ok() || host.parse::<SocketAddr>().is_ok()
}

fn envelope<T: Document + Serialize>(site: Option<String>, data: T) -> Response {
    let origin = Origin { generated_at: Timestamp::now(), site, data_age_seconds: Some(0.0) };
    let text = Envelope::of(data, origin).line();
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

async fn version() -> Response {
    envelope(None, Version::here())
}

async fn status(State(api): Shared) -> Reply {
    let facts = api.backend.facts().await?;
    Ok(envelope(Some(facts.site.clone()), Status::from(facts)))
}

async fn health(State(api): Shared) -> Reply {
    let facts = api.backend.facts().await?;
    Ok(envelope(Some(facts.site.clone()), Status::from(facts).health))
}

async fn pools(State(api): Shared) -> Reply {
    let facts = api.backend.facts().await?;
    Ok(envelope(Some(facts.site), PoolList(facts.pools)))
}

async fn pool(State(api): Shared, Path(name): Path<String>) -> Reply {
    let facts = api.backend.facts().await?;
    let known: Vec<String> = facts.pools.iter().map(|pool| pool.name.clone()).collect();
    let found: Option<Pool> = facts.pools.into_iter().find(|pool| pool.name == name);
    let missing = || {
        Problem::new(&codes::POOL_NOT_FOUND, format!("no pool named {name:?}"))
            .step(format!("pools here: {}", known.join(", ")))
    };
    Ok(envelope(Some(facts.site), found.ok_or_else(missing)?))
}

async fn drives(State(api): Shared) -> Reply {
    let facts = api.backend.facts().await?;
    let drives = facts.pools.into_iter().flat_map(|pool| pool.drives).collect();
    Ok(envelope(Some(facts.site), DriveList(drives)))
}

async fn datastores(State(api): Shared) -> Reply {
    Ok(envelope(None, DatastoreList(api.backend.datastores().await?)))
}

async fn find_datastore(api: &Api, name: &str) -> Result<Datastore, Problem> {
    let all = api.backend.datastores().await?;
    let known: Vec<String> = all.iter().map(|datastore| datastore.name.clone()).collect();
    all.into_iter().find(|datastore| datastore.name == name).ok_or_else(|| {
        let problem = Problem::new(&codes::DATASTORE_NOT_FOUND, format!("no datastore named {name:?}"));
        if known.is_empty() { problem } else { problem.step(format!("datastores here: {}", known.join(", "))) }
    })
}

async fn datastore(State(api): Shared, Path(name): Path<String>) -> Reply {
    Ok(envelope(None, find_datastore(&api, &name).await?))
}

async fn create_datastore(State(api): Shared, body: axum::body::Bytes) -> Reply {
    let request: DatastoreCreate = serde_json::from_slice(&body).map_err(|why| {
        Problem::new(&codes::BAD_INPUT, "the body is not the JSON of a new datastore")
            .why(why.to_string())
            .step(r#"send {"name": "vms-1"}"#)
    })?;
    request.check()?;
    let created = api.backend.create_datastore(request).await?;
    Ok((StatusCode::CREATED, envelope(None, created)).into_response())
}

async fn delete_datastore(State(api): Shared, Path(name): Path<String>, headers: HeaderMap) -> Reply {
    let confirm = headers.get("confirm").and_then(|value| value.to_str().ok());
    if let Some(other) = confirm.filter(|given| *given != name) {
        let problem = Problem::new(&codes::CONFIRMATION_MISSING, format!("{other:?} was confirmed, not {name:?}"));
        return Err(problem.into());
    }
    Ok(envelope(None, api.backend.delete_datastore(name, confirm.is_some()).await?))
}

#[derive(Deserialize)]
struct MountQuery {
    #[serde(rename = "for")]
    platform: Option<String>,
}

async fn mount_info(State(api): Shared, Path(name): Path<String>, Query(query): Query<MountQuery>) -> Reply {
    let platform: Platform = query.platform.as_deref().unwrap_or("linux").parse()?;
    let datastore = find_datastore(&api, &name).await?;
    let facts = api.backend.facts().await?;
    let at = MountPoint {
        datastore: &datastore.name,
        host: &facts.nfs.host,
        port: facts.nfs.port,
        mount_port: facts.nfs.mount_port,
        locks: facts.nfs.locks,
    };
    Ok(envelope(Some(facts.site.clone()), MountInfo::new(&at, platform)))
}

async fn code(Path(text): Path<String>) -> Reply {
    let found = codes::find(&text).ok_or_else(|| Problem::new(&codes::NOT_FOUND, format!("no code {text:?}")))?;
    Ok(envelope(None, CodePage(found)))
}

async fn fsck(State(api): Shared) -> Reply {
    Ok(envelope(None, api.backend.fsck().await?))
}

/// Refuses the name of a pool that is not here.
async fn known_pool(api: &Api, name: &str) -> Result<(), Problem> {
    let facts = api.backend.facts().await?;
    if facts.pools.iter().any(|pool| pool.name == name) {
        return Ok(());
    }
    let known: Vec<String> = facts.pools.into_iter().map(|pool| pool.name).collect();
    Err(Problem::new(&codes::POOL_NOT_FOUND, format!("no pool named {name:?}"))
        .step(format!("pools here: {}", known.join(", "))))
}

fn body<T: serde::de::DeserializeOwned>(bytes: &[u8], example: &str) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|why| {
        Problem::new(&codes::BAD_INPUT, "the body is not the JSON that is expected here")
            .why(why.to_string())
            .step(format!("send {example}"))
    })
}

async fn scrub(State(api): Shared, Path(name): Path<String>) -> Reply {
    known_pool(&api, &name).await?;
    Ok(envelope(None, api.backend.scrub().await?))
}

async fn order_scrub(State(api): Shared, Path(name): Path<String>, bytes: axum::body::Bytes) -> Reply {
    known_pool(&api, &name).await?;
    let order: ScrubOrder = body(&bytes, r#"{"action": "start"}"#)?;
    Ok(envelope(None, api.backend.order_scrub(order.action).await?))
}

async fn add_spare(State(api): Shared, bytes: axum::body::Bytes) -> Reply {
    let offer: DriveOffer = body(&bytes, r#"{"path": "/dev/nvme3n1"}"#)?;
    let path = offer.path.ok_or_else(|| Problem::new(&codes::BAD_INPUT, "a spare needs a path"))?;
    Ok(envelope(None, api.backend.add_spare(path).await?))
}

async fn replace_drive(State(api): Shared, Path((pool, slot)): Path<(String, u32)>, bytes: axum::body::Bytes) -> Reply {
    known_pool(&api, &pool).await?;
    let offer: DriveOffer = body(&bytes, r#"{"path": "/dev/nvme3n1"}"#)?;
    Ok(envelope(None, api.backend.replace_drive(slot, offer.path).await?))
}

async fn checkpoint(State(api): Shared) -> Reply {
    Ok(envelope(None, api.backend.checkpoint().await?))
}

async fn resilver_journal(State(api): Shared) -> Reply {
    Ok(envelope(None, api.backend.resilver_journal().await?))
}

async fn metrics_page(State(api): Shared) -> Reply {
    let status = Status::from(api.backend.facts().await?);
    let data_path = api.backend.data_path_metrics().await?;
    let text = metrics::page(&status, &data_path);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

async fn no_such_path(uri: Uri) -> Refusal {
    let problem = Problem::new(&codes::NOT_FOUND, format!("the API has nothing at {}", uri.path()));
    Refusal(Box::new((problem, Some(uri.path().to_owned()))))
}

async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    let problem = Problem::new(&codes::NO_SUCH_CALL, format!("{} does not take {method}", uri.path()));
    Refusal(Box::new((problem, Some(uri.path().to_owned()))))
}

//! The API of a host agent: HTTP over a socket file that only its owner may open, so that no
//! login is needed, and Prometheus text at an address where one is asked for.
//!
//! It runs beside the data path on the same thread: an answer takes microseconds, and the
//! work it starts (draining, attaching) waits like everything else.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base::port::LocalFuture;
use control::{Document, Envelope, Origin, Problem, codes};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use crate::agent::Agent;
use crate::metrics;
use crate::nbd_door::bind_socket;
use crate::status::{DiskAttach, PolicyWish};

/// Calls that may wait for the agent.
const QUEUE: usize = 64;

type Job = Box<dyn FnOnce(Rc<Agent>) -> LocalFuture<'static, ()> + Send>;

/// The API's way to the agent; clones are the same.
#[derive(Clone)]
struct Desk(Arc<mpsc::Sender<Job>>);

impl Desk {
    async fn ask<T, F>(&self, work: impl FnOnce(Rc<Agent>) -> F + Send + 'static) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Problem>> + 'static,
    {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |agent| {
            Box::pin(async move {
                // The caller may have gone away; the work is done all the same.
                let _ = tell.send(work(agent).await);
            })
        });
        let gone = || Problem::new(&codes::SERVER_UNREACHABLE, "the host agent is stopping");
        self.0.send(job).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

/// Closes the API when dropped.
pub(crate) struct Api {
    agent: Rc<Agent>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        let _ = std::fs::remove_file(&self.agent.config.api_socket);
    }
}

struct Refusal(Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let document = self.0.document(None);
        let status = StatusCode::from_u16(document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let text = serde_json::to_string(&document).expect("problems hold only strings as keys and finite numbers");
        (status, [(header::CONTENT_TYPE, "application/problem+json")], text).into_response()
    }
}

type Reply = Result<Response, Refusal>;

fn envelope<T: Document + Serialize>(data: T) -> Response {
    let origin = Origin { generated_at: Timestamp::now(), site: None, data_age_seconds: Some(0.0) };
    ([(header::CONTENT_TYPE, "application/json")], Envelope::of(data, origin).line()).into_response()
}

fn parsed<T: DeserializeOwned>(body: &Bytes, example: &str) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|why| {
        Problem::new(&codes::BAD_INPUT, "the body is not what this call takes")
            .why(why.to_string())
            .step(format!("send {example}"))
    })
}

/// Opens the API.
pub(crate) fn open(agent: &Rc<Agent>) -> Result<Api, Problem> {
    let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
    let desk = Desk(Arc::new(jobs));
    let listener = bind_socket(&agent.config.api_socket, "the API")?;
    let mut tasks = Vec::new();
    let at_work = agent.clone();
    tasks.push(tokio::task::spawn_local(async move {
        while let Some(job) = queue.recv().await {
            tokio::task::spawn_local(job(at_work.clone()));
        }
    }));
    let served = axum::serve(listener, router(desk.clone()));
    tasks.push(tokio::task::spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "the API has stopped");
        }
    }));
    if let Some(address) = agent.config.metrics {
        let refused = |error: std::io::Error| {
            Problem::new(&codes::PORT_IN_USE, format!("{address} cannot be used for metrics")).why(error.to_string())
        };
        let listener = std::net::TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(refused)?;
        let pages = Router::new().route("/metrics", get(metrics_page)).with_state(desk);
        tasks.push(tokio::task::spawn(async move {
            if let Err(error) = axum::serve(listener, pages).await {
                tracing::error!(%error, "metrics have stopped");
            }
        }));
    }
    Ok(Api { agent: agent.clone(), tasks })
}

fn router(desk: Desk) -> Router {
    Router::new()
        .route("/v1/accel", get(status))
        .route("/v1/accel/disks", post(attach))
        .route("/v1/accel/disks/{name}", get(disk).delete(detach))
        .route("/v1/accel/disks/{name}/policy", post(set_policy))
        .route("/v1/accel/disks/{name}/drain", post(drain))
        .route("/metrics", get(metrics_page))
        .fallback(|| async { Refusal(Problem::new(&codes::NOT_FOUND, "the host agent has nothing there")) })
        .with_state(desk)
}

async fn status(State(desk): State<Desk>) -> Reply {
    Ok(envelope(desk.ask(|agent| async move { Ok(agent.status()) }).await?))
}

async fn disk(State(desk): State<Desk>, Path(name): Path<String>) -> Reply {
    Ok(envelope(desk.ask(move |agent| async move { agent.disk_document(&name) }).await?))
}

async fn attach(State(desk): State<Desk>, body: Bytes) -> Reply {
    let example = r#"{"name": "vm1", "backing": "/srv/vm1.img", "policy": "wt", "log_bytes": 268435456}"#;
    let request: DiskAttach = parsed(&body, example)?;
    let attached = desk.ask(move |agent| async move { agent.attach(request).await }).await?;
    Ok((StatusCode::CREATED, envelope(attached)).into_response())
}

async fn detach(State(desk): State<Desk>, Path(name): Path<String>) -> Reply {
    Ok(envelope(desk.ask(move |agent| async move { agent.detach(&name).await }).await?))
}

async fn set_policy(State(desk): State<Desk>, Path(name): Path<String>, body: Bytes) -> Reply {
    let wish: PolicyWish = parsed(&body, r#"{"policy": "wb"}"#)?;
    Ok(envelope(desk.ask(move |agent| async move { agent.set_policy(&name, &wish.policy) }).await?))
}

async fn drain(State(desk): State<Desk>, Path(name): Path<String>) -> Reply {
    Ok(envelope(desk.ask(move |agent| async move { agent.drain(&name).await }).await?))
}

async fn metrics_page(State(desk): State<Desk>) -> Reply {
    let text = desk.ask(|agent| async move { Ok(metrics::page(&agent.status())) }).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

//! `GET /v1/stream`: what changes, as server-sent events, for pages and `--watch`.
//!
//! Names of the messages: `hello` (first; the number of the newest event), `status`, `jobs`
//! (each a whole document in its envelope, so nothing has to be put together), `event` (one
//! per event, with its number as `id`), `gap` (events since `Last-Event-ID` are no longer
//! all there: ask for the list), `beat` (every two seconds: silence for five means the
//! connection is dead).
//!
//! A stream ends when the server stops and when what let it in no longer does.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event as Message, Sse};
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::codes;
use crate::envelope::{Document, Envelope, Origin};
use crate::events::Event;
use crate::extract::{Asked, header};
use crate::feed::Snapshot;
use crate::guard::Credential;
use crate::jobs::JobList;
use crate::problem::Problem;
use crate::server::{Api, Reply};

const BEAT_EVERY: Duration = Duration::from_secs(2);
const JOBS_EVERY: Duration = Duration::from_secs(1);
/// Messages a slow reader may be behind before we wait for it.
const BEHIND_MAX: usize = 64;
/// Streams at once.
const STREAMS_MAX: usize = 256;
const TOPICS: [&str; 3] = ["status", "events", "jobs"];

/// Parameters.
#[derive(Deserialize)]
pub(crate) struct StreamQuery {
    topics: Option<String>,
    after: Option<u64>,
}

struct Stream {
    api: Api,
    credential: Credential,
    topics: BTreeSet<String>,
    /// Number of the last event sent.
    last: u64,
    tell: mpsc::Sender<Message>,
}

/// The reader has gone.
struct Gone;

pub(crate) async fn stream(
    State(api): State<Api>,
    Extension(credential): Extension<Credential>,
    headers: HeaderMap,
    Asked(query): Asked<StreamQuery>,
) -> Reply {
    let place = api.streams().clone().try_acquire_owned();
    let place = place.map_err(|_| {
        Problem::new(&codes::CONFLICT, format!("{STREAMS_MAX} streams are open already")).retry_after(10.0)
    })?;
    let topics = topics_of(query.topics.as_deref())?;
    let resumed = header(&headers, "last-event-id").and_then(|id| id.parse().ok()).or(query.after);
    let (tell, told) = mpsc::channel(BEHIND_MAX);
    let listen = api.events().listen();
    let last = resumed.unwrap_or_else(|| api.events().newest());
    let stream = Stream { api, credential, topics, last, tell };
    tokio::spawn(async move {
        // Whoever has gone away needs nothing more.
        let _ = stream.run(listen).await;
        drop(place);
    });
    let messages = stream::unfold(told, |mut told| async move {
        let message = told.recv().await?;
        Some((Ok::<_, Infallible>(message), told))
    });
    Ok(Sse::new(messages).into_response())
}

/// How many streams there may be.
pub(crate) const fn streams_max() -> usize {
    STREAMS_MAX
}

fn topics_of(text: Option<&str>) -> Result<BTreeSet<String>, Problem> {
    let Some(text) = text else { return Ok(TOPICS.map(str::to_owned).into()) };
    let wanted: BTreeSet<String> = text.split(',').map(|topic| topic.trim().to_owned()).collect();
    match wanted.iter().find(|topic| !TOPICS.contains(&topic.as_str())) {
        None => Ok(wanted),
        Some(other) => {
            Err(Problem::new(&codes::BAD_INPUT, format!("there is no topic {other:?}"))
                .field("topics", TOPICS.join(", ")))
        }
    }
}

impl Stream {
    async fn run(mut self, mut listen: broadcast::Receiver<Arc<Event>>) -> Result<(), Gone> {
        let newest = self.api.events().newest();
        let hello = Message::default().event("hello").id(self.last.to_string());
        self.send(hello.data(format!("{{\"newest_event\":{newest}}}"))).await?;
        self.catch_up().await?;
        let mut pictures = self.api.feed().listen();
        pictures.mark_changed();
        let mut stopped = self.api.feed().stopped();
        let (mut beats, mut looks) = (interval(BEAT_EVERY), interval(JOBS_EVERY));
        for ticks in [&mut beats, &mut looks] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut jobs_seen = None;
        loop {
            tokio::select! {
                biased;
                () = stopped.wait() => return Ok(()),
                () = self.tell.closed() => return Err(Gone),
                event = listen.recv() => self.event(event).await?,
                Ok(()) = pictures.changed() => self.picture(&mut pictures).await?,
                _ = looks.tick() => self.jobs(&mut jobs_seen).await?,
                _ = beats.tick() => {
                    if self.credential.caller(&self.api).is_none() {
                        return Ok(());
                    }
                    self.send(Message::default().event("beat").data("{}")).await?;
                }
            }
        }
    }

    async fn send(&self, message: Message) -> Result<(), Gone> {
        self.tell.send(message).await.map_err(|_| Gone)
    }

    fn wants(&self, topic: &str) -> bool {
        self.topics.contains(topic)
    }

    async fn event(&mut self, event: Result<Arc<Event>, RecvError>) -> Result<(), Gone> {
        match event {
            Ok(event) => self.one(&event).await,
            // Too slow for the channel: the book has them.
            Err(RecvError::Lagged(_)) => self.catch_up().await,
            Err(RecvError::Closed) => Err(Gone),
        }
    }

    /// Everything since the last event that was sent.
    async fn catch_up(&mut self) -> Result<(), Gone> {
        if !self.wants("events") {
            return Ok(());
        }
        if !self.api.events().reaches_back_to(self.last) || self.last > self.api.events().newest() {
            self.last = self.api.events().newest();
            let gap = Message::default().event("gap").id(self.last.to_string());
            return self.send(gap.data(format!("{{\"newest_event\":{}}}", self.last))).await;
        }
        for event in self.api.events().after(self.last, usize::MAX) {
            self.one(&event).await?;
        }
        Ok(())
    }

    async fn one(&mut self, event: &Event) -> Result<(), Gone> {
        if !self.wants("events") || event.number <= self.last {
            return Ok(());
        }
        self.last = event.number;
        let message = document("event", event.clone(), Timestamp::now(), Some(0.0));
        self.send(message.id(event.number.to_string())).await
    }

    async fn picture(&self, pictures: &mut watch::Receiver<Option<Snapshot>>) -> Result<(), Gone> {
        let picture = pictures.borrow_and_update().clone();
        let Some(picture) = picture.filter(|_| self.wants("status")) else { return Ok(()) };
        let status = (*picture.status).clone();
        self.send(document("status", status, picture.taken_at, Some(picture.age_seconds()))).await
    }

    async fn jobs(&self, seen: &mut Option<u64>) -> Result<(), Gone> {
        let changes = self.api.jobs().changes();
        if !self.wants("jobs") || *seen == Some(changes) {
            return Ok(());
        }
        *seen = Some(changes);
        self.send(document("jobs", JobList(self.api.jobs().list()), Timestamp::now(), Some(0.0))).await
    }
}

fn document<T: Document + serde::Serialize>(
    name: &str,
    data: T,
    generated_at: Timestamp,
    data_age_seconds: Option<f64>,
) -> Message {
    let origin = Origin { generated_at, site: None, data_age_seconds };
    Message::default().event(name).data(Envelope::of(data, origin).line())
}

//! The newest picture of the store, for everyone who looks often.
//!
//! One task asks the store once a second, turns what changed into events, and publishes the
//! picture. However many pages and terminals watch, the shard is asked once a second; and
//! when it does not answer, `status` still does, with the age of what it shows.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::codes;
use crate::events::Conditions;
use crate::problem::Problem;
use crate::server::Api;
use crate::status::Status;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A question to the store gives up after this; the next second asks again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A person waits at most this long for a fresh picture; then they get the last one.
const FRESH_WITHIN: Duration = Duration::from_millis(150);

/// A picture of the store.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What it showed.
    pub status: Arc<Status>,
    /// When, for people.
    pub taken_at: Timestamp,
    taken: Instant,
}

impl Snapshot {
    fn now(status: Status) -> Self {
        Self { status: Arc::new(status), taken_at: Timestamp::now(), taken: Instant::now() }
    }

    /// Age of it.
    #[must_use]
    pub fn age_seconds(&self) -> f64 {
        self.taken.elapsed().as_secs_f64()
    }
}

/// See the module's head.
pub struct Feed {
    newest: watch::Sender<Option<Snapshot>>,
    stopping: watch::Sender<bool>,
}

/// Tells when streams shall end.
pub(crate) struct Stopped(watch::Receiver<bool>);

impl Stopped {
    /// Completes when they shall.
    pub async fn wait(&mut self) {
        // Either said or the server is gone: both mean the end.
        let _ = self.0.wait_for(|&is_stopping| is_stopping).await;
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self { newest: watch::channel(None).0, stopping: watch::channel(false).0 }
    }
}

impl Feed {
    /// Every new picture.
    #[must_use]
    pub fn listen(&self) -> watch::Receiver<Option<Snapshot>> {
        self.newest.subscribe()
    }

    /// Tells streams to end.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(crate) fn stopped(&self) -> Stopped {
        Stopped(self.stopping.subscribe())
    }

    /// A picture that is fresh, or the last one there is.
    ///
    /// # Errors
    /// What the store says; `TIMED_OUT` when it does not answer and never has.
    pub(crate) async fn picture(api: &Api) -> Result<Snapshot, Problem> {
        match timeout(FRESH_WITHIN, api.backend().facts()).await {
            Ok(facts) => {
                let snapshot = Snapshot::now(Status::from(facts?));
                api.feed().newest.send_replace(Some(snapshot.clone()));
                Ok(snapshot)
            }
            Err(_) => {
                let last = api.feed().newest.borrow().clone();
                last.ok_or_else(|| {
                    Problem::new(&codes::TIMED_OUT, "the store has not answered yet since it was started")
                        .retry_after(1.0)
                })
            }
        }
    }
}

/// Watches the store until it stops.
pub(crate) async fn watch_for_ever(api: Api) {
    let mut conditions = Conditions::open(api.events().open_conditions());
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopped = api.feed().stopped();
    loop {
        tokio::select! {
            biased;
            () = stopped.wait() => {
                api.activity().stop();
                return;
            }
            _ = ticks.tick() => {}
        }
        // A store that does not answer shows by the age of the last picture.
        let Ok(Ok(facts)) = timeout(ANSWER_WITHIN, api.backend().facts()).await else { continue };
        let snapshot = Snapshot::now(Status::from(facts));
        let facts = &snapshot.status.facts;
        api.history().add(snapshot.taken_at, &facts.load, &facts.latency_ms);
        for news in conditions.compare(&snapshot.status.health, snapshot.taken_at) {
            api.events().tell(news, snapshot.taken_at);
        }
        api.feed().newest.send_replace(Some(snapshot));
        if let Ok(Ok(measured)) = timeout(ANSWER_WITHIN, api.backend().measured()).await {
            api.activity().add(Timestamp::now(), measured);
        }
    }
}

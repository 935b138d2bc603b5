//! A store at work on one thread: its media, its engine, and what answers clients ([`Front`]).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use control::server::Books;
use control::{Problem, codes};
use datastore::Filesystem;
use engine::{Engine, Opened};
use tokio::sync::Notify;

use crate::activity::know_owners;
use crate::config::StoreConfig;
use crate::events::log_until_stopped;
use crate::front::{Addresses, Front};
use crate::pair::Site;
use crate::pair::checks::keep_checking;
use crate::pool::{self, Media};
use crate::progress::Progress;
use crate::ready::Ready;
use crate::sample::Sample;
use crate::schedules::keep_schedules;
use crate::site_store::SiteStore;

/// Why a shard cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A part of it panicked.
    Defect,
    /// Its media let it down: too many drives or every journal leg.
    Stopped(&'static str),
}

/// Everything that answers.
pub(crate) struct Shard {
    pub config: StoreConfig,
    pub books: Books,
    pub engine: Engine,
    pub opened: Opened,
    /// What answers clients, while something does.
    front: RefCell<Option<Rc<Front>>>,
    front_changed: Notify,
    /// The other half, where there is one.
    pub pair: Option<Rc<Site>>,
    pub ready: Ready,
    pub started: Instant,
    /// Newest and the one before, a second apart.
    pub samples: RefCell<(Sample, Sample)>,
    /// Opens journal legs that come back.
    pub legs: pool::LegOpener,
    /// When `fsck` last began and ended to read every unit, as wall time in nanoseconds.
    pub last_fsck_ns: Cell<Option<(u64, u64)>>,
    /// Drives, spares, journal legs.
    pub media: Rc<Media>,
    /// Rebuild and scrub, as jobs.
    pub progress: Progress,
}

impl Shard {
    /// Opens the store and starts to serve NFS; a site of a pair does so when it is primary.
    pub async fn start(config: StoreConfig, books: Books) -> Result<Rc<Shard>, Problem> {
        let world = world_real::real_world();
        // What another process has is found out before anything else is done.
        let addresses = match &config.pair {
            None => Some(Addresses::take(&config).await?),
            Some(_) => None,
        };
        let (engine, opened, identity, media) = pool::open(&config, &world).await?;
        let at = match &addresses {
            Some(addresses) => addresses.at(&config),
            None => (config.nfs, config.mount.unwrap_or(config.nfs)),
        };
        let pair = match &config.pair {
            Some(pair) => {
                let told = (identity.handle_key, (config.site.as_str(), books.clone()));
                Some(Site::open(&engine, &world, pair, told).await?)
            }
            None => None,
        };
        let ready = Ready { nfs: at.0, mount: at.1, api: config.api, fingerprint: None };
        let legs = media.leg_opener();
        let media = Rc::new(media);
        tokio::task::spawn_local(media.clone().watch(engine.clone()));
        let shard = Rc::new(Shard {
            config,
            books,
            engine,
            opened,
            front: RefCell::default(),
            front_changed: Notify::new(),
            pair,
            ready,
            started: Instant::now(),
            samples: RefCell::default(),
            legs,
            last_fsck_ns: Cell::new(None),
            media,
            progress: Progress::default(),
        });
        match (addresses, &shard.pair) {
            (Some(addresses), _) => {
                let store = SiteStore::Alone(shard.engine.clone());
                let front = Front::open(store, (world, identity), &shard.config, at).await?;
                front.listen(&shard.config, addresses).await?;
                shard.set_front(Some(front));
            }
            (None, Some(site)) => {
                let turns = site.clone().take_turns(shard.clone(), (world.clone(), identity));
                world.spawn.spawn("front", Box::pin(turns));
            }
            (None, None) => {}
        }
        tokio::task::spawn_local(sample_for_ever(shard.clone()));
        tokio::task::spawn_local(keep_schedules(shard.clone()));
        tokio::task::spawn_local(know_owners(shard.clone()));
        tokio::task::spawn_local(keep_checking(shard.clone()));
        Ok(shard)
    }

    /// What answers clients now, if anything does.
    pub fn front(&self) -> Option<Rc<Front>> {
        self.front.borrow().clone()
    }

    /// From now on this answers clients.
    pub fn set_front(&self, front: Option<Rc<Front>>) {
        *self.front.borrow_mut() = front;
        self.front_changed.notify_waiters();
    }

    /// The filesystem that is served here.
    ///
    /// # Errors
    /// `NOT_PRIMARY` at a site of a pair that does not serve.
    pub fn fs(&self) -> Result<Rc<Filesystem<SiteStore>>, Problem> {
        let front = self.front();
        front.map(|front| front.fs.clone()).ok_or_else(|| {
            Problem::new(&codes::NOT_PRIMARY, format!("{} does not serve now", self.config.site))
                .why("it is one of two sites, and not the primary; or it is about to become it")
                .step("ask the other site; which of them serves: vmhold replication status")
        })
    }

    /// Returns when the store must not go on: a panic outside a decoder, or an engine that
    /// has stopped and must be opened again.
    pub async fn until_ended(self: &Rc<Self>) -> Ended {
        tokio::select! {
            biased;
            () = self.until_defect() => Ended::Defect,
            why = log_until_stopped(self.clone()) => Ended::Stopped(why),
        }
    }

    async fn until_defect(&self) {
        loop {
            let changed = self.front_changed.notified();
            match self.front() {
                None => changed.await,
                Some(front) => tokio::select! {
                    biased;
                    () = front.door.until_defect() => return,
                    () = changed => {}
                },
            }
        }
    }

    /// Stops serving, then makes everything durable outside the journal.
    pub async fn stop(&self) -> Result<(), Problem> {
        if let Some(site) = self.pair.as_ref().filter(|_| self.front().is_some()) {
            // Clients then wait for less than a second, and not for a lease to end.
            match site.hand_over(&self.config).await {
                Ok(()) => tracing::info!("the other site serves now"),
                Err(problem) => {
                    let why = problem.reason().unwrap_or_default();
                    tracing::warn!(code = %problem.code(), why, "{}; it stops all the same", problem.what());
                }
            }
        }
        if let Some(front) = self.front() {
            front.stop().await;
        }
        self.engine.checkpoint().await.map_err(|refused| {
            // Nothing is lost: the journal holds what the checkpoint would have moved.
            Problem::new(&codes::POOL_FAULTED, "the last checkpoint could not be made")
                .why(refused.to_string())
                .note("every acknowledged write is in the journal and is replayed at the next start")
        })
    }
}

async fn sample_for_ever(shard: Rc<Shard>) {
    loop {
        let sample = Sample::of(&shard);
        shard.samples.replace_with(|(newest, _)| (sample, std::mem::take(newest)));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

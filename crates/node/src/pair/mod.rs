//! One of two sites: a store whose other half is elsewhere.
//!
//! ```text
//!  Front ── while primary ──► Replica ── frames ──► link ══ TLS ══ the other site
//!    ▲                           │ └───── questions ──► asker ── TLS ── witness
//!    └── opened, cut off ── office ◄── the record
//! ```
//!
//! `replica` and `mirror` decide; this owns the sockets and the front. The office is what the record
//! says of this site: the front is opened when it is primary, and cut off in the very call in which the
//! record says that it is not any more, so that no client hears a word after that.
//!
//! What is the same at both sites so that clients notice nothing: handles (their seal's key and the
//! pair's number come from the pair, not from the pool), the write verifier, cookies, locks and the
//! replies to what was asked before, all of which are rows of the replicated store.
//!
//! Leases are counted on a clock that runs while the machine sleeps.

mod address;
mod asker;
pub(crate) mod checks;
mod chronicle;
mod config;
mod founding;
mod link;
mod orders;
mod receipt;
mod relief;
mod replacement;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use base::port::{Clock, World};
use base::{Epoch, SiteId};
use control::Problem;
use control::server::Books;
use control::tls::Fingerprint;
use datastore::{DatastoreOptions, Filesystem, Identity, OpenRefusal};
use engine::Engine;
use mirror::Mirror;
use mirror::wire::Frame;
use replica::{Outside, Replica};
use witness::{Ask, AskKind, Standing, TransitionKind};
use witness_serve::membership::Membership;
use world_real::BootClock;

pub use config::{Introduction, PairConfig, PairInvitation};
pub use founding::{Founding, enable, found, join};
pub use receipt::verify_receipt;

use crate::config::StoreConfig;
use crate::front::{Addresses, Front};
use crate::pair::address::Address;
use crate::pair::asker::Asker;
use crate::pair::checks::Checks;
use crate::pair::chronicle::Chronicle;
use crate::pair::link::Links;
use crate::pair::relief::Relief;
use crate::shard::Shard;
use crate::site_store::SiteStore;

/// Number of the pair's records in the journal.
pub(crate) const STREAM: u32 = 1;
/// Pause before a front that did not open is opened again.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// Pause before an address that is taken is tried again, and how long.
const TRY_AGAIN: Duration = Duration::from_millis(100);
const TRY_FOR: Duration = Duration::from_secs(5);

/// What the mirror reaches, and the front that it may cut off.
struct Reach {
    me: SiteId,
    links: Rc<Links>,
    asker: Asker,
    front: Rc<Serving>,
    chronicle: Rc<Chronicle>,
    checks: Rc<OnceCell<Rc<Checks>>>,
}

/// The front of the present term.
#[derive(Default)]
struct Serving {
    front: RefCell<Weak<Front>>,
    epoch: Cell<Epoch>,
}

impl Serving {
    fn cut_off(&self) {
        if let Some(front) = self.front.take().upgrade() {
            front.cut_off();
        }
    }
}

impl Outside for Reach {
    fn send(&self, link: u64, frame: Frame) {
        self.links.send(link, frame);
    }

    fn hang(&self, link: u64) {
        self.links.hang(link);
    }

    fn ask(&self, number: u64, ask: Ask) {
        if matches!(ask.kind, AskKind::TakeOver { .. }) && !self.links.has_met() {
            // A pool that was never there when anything was written has nothing to take over with.
            return tracing::warn!(
                code = "VH4012",
                "this pool has never met the other site: it does not take over by itself"
            );
        }
        self.asker.ask(number, ask);
    }

    fn notice(&self, standing: Standing) {
        if standing.primary != self.me || standing.epoch != self.front.epoch.get() {
            self.front.cut_off();
        }
        self.chronicle.changed(&standing);
        if standing.in_sync
            && standing.last.kind == TransitionKind::InSync
            && let Some(checks) = self.checks.get()
        {
            checks.are_wanted();
        }
        tell(self.me, &standing);
    }

    fn sign(&self, words: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        self.checks.get()?.sign(words)
    }
}

/// The line of the log that says how the pair stands now.
fn tell(me: SiteId, standing: &Standing) {
    let office = if standing.primary == me { "primary" } else { "secondary" };
    let (epoch, in_sync, because) = (standing.epoch.0, standing.in_sync, standing.last.kind);
    if standing.in_sync {
        tracing::info!(code = "VH4013", office, epoch, in_sync, ?because, "how the pair stands has changed");
    } else {
        tracing::warn!(code = "VH4013", office, epoch, in_sync, ?because, "how the pair stands has changed");
    }
}

/// See the module's head.
pub(crate) struct Site {
    pub me: SiteId,
    pub config: PairConfig,
    pub replica: Replica,
    /// What this site's own certificate is known by.
    fingerprint: Fingerprint,
    /// Key of the seal of file handles.
    handle_key: [u8; 16],
    /// When both are compared, and what came of it.
    pub checks: Rc<Checks>,
    witness_address: String,
    clock: Rc<dyn Clock>,
    asker: Asker,
    links: Rc<Links>,
    serving: Rc<Serving>,
    chronicle: Rc<Chronicle>,
}

impl Site {
    /// Opens the site on its engine; from now on it meets the other one and asks the witness.
    ///
    /// # Errors
    /// Without a membership at the witness, where the engine holds no site of this pair, or
    /// where the address for the other site is taken.
    pub async fn open(
        engine: &Engine,
        world: &World,
        config: &PairConfig,
        (handle_key, (site, books)): ([u8; 16], (&str, Books)),
    ) -> Result<Rc<Site>, Problem> {
        let membership = Membership::of(&config.membership)?;
        let me = membership.site()?;
        let world = World { clock: Rc::new(BootClock::start()), ..world.clone() };
        let links = Links::new(me, config, engine.group().clone()).await;
        let way = links.way(&membership.pem()).await?;
        let (asker, questions) = Asker::new();
        let serving = Rc::new(Serving::default());
        let chronicle = Rc::new(Chronicle::new(me, site, books));
        let (asked, told) = (asker.clone(), chronicle.clone());
        let later = Rc::new(OnceCell::new());
        let (front, checks) = (serving.clone(), later.clone());
        let reach = Reach { me, links: links.clone(), asker: asked, front, chronicle: told, checks };
        let opened = Replica::open(engine.clone(), world.clone(), (config.mirror(me), STREAM), Rc::new(reach)).await;
        let replica = opened.map_err(|fault| {
            Problem::new(&control::codes::POOL_FAULTED, "this pool cannot go on as one of two sites")
                .why(fault.to_string())
        })?;
        let checks = Checks::open(&replica, membership.pem(), config.check_every()).await;
        // Nobody was there before to set it.
        let _ = later.set(checks.clone());
        let within = config.mirror(me).answer_within;
        questions.answer(&membership, within, (&world, replica.clone()))?;
        world
            .spawn
            .spawn("link", Box::pin(links.clone().keep(way, membership.pem(), (world.clone(), replica.clone()))));
        let fingerprint = membership.fingerprint()?;
        let witness_address = membership.address;
        let clock = world.clock;
        let config = config.clone();
        Ok(Rc::new(Site {
            me,
            config,
            replica,
            fingerprint,
            handle_key,
            checks,
            witness_address,
            clock,
            asker,
            links,
            serving,
            chronicle,
        }))
    }

    /// Whether this site cannot go on and must be opened again.
    pub fn is_stopped(&self) -> bool {
        self.replica.is_stopped()
    }

    /// Serves whenever this site is primary, for ever.
    pub async fn take_turns(self: Rc<Self>, shard: Rc<Shard>, ground: (World, Identity)) {
        let (mut told, mut relief) = (String::new(), Relief::default());
        let address = Address::new(self.config.address_hook.clone(), shard.config.nfs);
        // An earlier life may have left it up.
        address.down().await;
        loop {
            let epoch = self.replica.until(Mirror::term).await;
            self.serving.epoch.set(epoch);
            let is_over = self.replica.until(|mirror| (mirror.term() != Some(epoch)).then_some(()));
            let served = tokio::select! {
                biased;
                () = is_over => Ok(()),
                served = self.serve(&shard, &ground, &address) => served,
            };
            self.serving.cut_off();
            shard.set_front(None);
            address.down().await;
            if let Err(problem) = served {
                // Said once, however often it is tried.
                let why = format!("{}: {}", problem.what(), problem.reason().unwrap_or_default());
                if why != told {
                    tracing::error!(code = %problem.code(), "{why}; it is tried again until it works");
                    told = why;
                }
                if relief.is_due(epoch, self.clock.now()) && self.hand_over(&shard.config).await.is_ok() {
                    tracing::warn!(code = "VH4013", "this site cannot serve: the other one does");
                    relief.relieved(self.clock.now());
                    continue;
                }
                tokio::time::sleep(OPEN_AGAIN).await;
            }
        }
    }

    /// Opens the front and lets clients in; does not return while all is well.
    async fn serve(
        &self,
        shard: &Shard,
        (world, identity): &(World, Identity),
        address: &Address,
    ) -> Result<(), Problem> {
        let config = &shard.config;
        let store = SiteStore::Pair(self.replica.clone());
        let is_new = self.format(&store, (world, identity), config).await?;
        let at = (shard.ready.nfs, shard.ready.mount);
        let front = Front::open(store, (world.clone(), identity.clone()), config, at).await?;
        if let (true, Some(name)) = (is_new, &self.config.datastore) {
            let made = front.fs.create_datastore(name, DatastoreOptions::open()).await;
            made.map_err(|refusal| cannot(config, &format!("{refusal:?}")))?;
        }
        address.up().await?;
        let addresses = addresses(config).await?;
        *self.serving.front.borrow_mut() = Rc::downgrade(&front);
        shard.set_front(Some(front.clone()));
        front.listen(config, addresses).await?;
        let turn = self.replica.with_mirror(Mirror::turn);
        self.chronicle.serves(turn, self.clock.now(), &shard.ready.nfs.to_string());
        std::future::pending().await
    }

    /// Writes an empty filesystem where the pair has none yet. Says whether it had none.
    async fn format(
        &self,
        store: &SiteStore,
        (world, identity): (&World, &Identity),
        config: &StoreConfig,
    ) -> Result<bool, Problem> {
        match Filesystem::format(store, world, identity, DatastoreOptions::open()).await {
            Ok(()) => Ok(true),
            Err(OpenRefusal::AlreadyFormatted) => Ok(false),
            Err(refused) => Err(cannot(config, &refused)),
        }
    }
}

/// The address of the pair. Whoever served before may not have let go of it yet.
async fn addresses(config: &StoreConfig) -> Result<Addresses, Problem> {
    let (mut is_told, begun) = (false, tokio::time::Instant::now());
    loop {
        match Addresses::take(config).await {
            Err(problem) if problem.code() == &control::codes::PORT_IN_USE && begun.elapsed() < TRY_FOR => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(code = %problem.code(), "{}; tried again until it is free", problem.what());
                }
                tokio::time::sleep(TRY_AGAIN).await;
            }
            outcome => return outcome,
        }
    }
}

fn cannot(config: &StoreConfig, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(&control::codes::POOL_FAULTED, format!("pool \"{}\" cannot be served", config.pool))
        .why(why.to_string())
}

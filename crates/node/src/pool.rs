//! The media of a store: opening what the configuration names, making a new pool of it,
//! and noticing when a file or device is no longer the one that was opened.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use base::port::{Leg, World};
use control::{Problem, codes};
use datastore::{DatastoreOptions, Filesystem, Identity};
use engine::{Engine, Opened, Options};
use raid::{CasRefused, ControllerId, Group, GroupOptions};
use replica::Replica;
use world_real::{OpenError, RealLeg, Ring, open_leg};

use crate::claims::Claims;
use crate::config::StoreConfig;
use crate::healer::{Healer, SmallestThatFits};
use crate::inject::Injector;
use crate::io;
use crate::pair::{Founding, PairConfig};

/// How often media are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How long a drive that went away is waited for before a spare takes its place.
const RETURN_WAIT_SECONDS: u64 = 10;
/// Name of the register that says who the pool is.
const IDENTITY_REGISTER: &str = "identity";
/// Name of the register that marks a lab pool. It is set when the pool is made, and never again.
const LAB_REGISTER: &str = "lab";

/// The media of a store: bays of drives, and journal legs that could be opened.
pub(crate) struct Media {
    pub healer: Healer,
    pub legs: Vec<Rc<RealLeg>>,
    ring: Option<Ring>,
    _claims: Claims,
}

/// Opens journal legs anew while the store runs.
pub(crate) struct LegOpener {
    ring: Option<Ring>,
}

impl LegOpener {
    /// The leg at `path` as it is now.
    pub fn open(&self, path: &Path) -> Result<Rc<dyn Leg>, OpenError> {
        open_leg(path, self.ring.as_ref()).map(|leg| leg as Rc<dyn Leg>)
    }
}

impl Media {
    /// Opens what is there. A drive that is not there is a missing drive, which the group
    /// judges; a journal leg likewise.
    ///
    /// # Errors
    /// `POOL_IN_USE` when another process has one of them.
    pub fn open(config: &StoreConfig, world: &World) -> Result<Media, Problem> {
        let claims = Claims::of(config)?;
        let ring = Ring::start();
        if let Err(error) = &ring {
            tracing::warn!(code = "VH1003", %error, "io_uring is refused here; drives are driven by threads");
        }
        let ring = ring.ok();
        let legs = each(&config.journal, "journal leg", |path| open_leg(path, ring.as_ref()));
        let return_wait = Duration::from_secs(config.return_wait_seconds.unwrap_or(RETURN_WAIT_SECONDS));
        let paths = config.drives.iter().chain(&config.spares).cloned();
        let injector = config.lab.then(|| Injector::new(world.clone()));
        let healer = Healer::open(paths, ring.clone(), Box::new(SmallestThatFits { return_wait }), injector);
        Ok(Media { healer, legs, ring, _claims: claims })
    }

    /// For legs that come back.
    pub fn leg_opener(&self) -> LegOpener {
        LegOpener { ring: self.ring.clone() }
    }

    /// Journal legs that could be opened.
    pub fn legs(&self) -> Vec<Rc<dyn Leg>> {
        self.legs.iter().map(|leg| leg.clone() as Rc<dyn Leg>).collect()
    }

    /// Looks at the media from time to time. A lost drive is written to, so that the group
    /// notices at once and not with the next write that happens to meet it.
    pub async fn watch(self: Rc<Self>, engine: Engine) {
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            let news = self.healer.check_identities();
            for leg in &self.legs {
                // A leg that is gone answers so at the next record, which drops it.
                let _ = leg.check_identity();
            }
            if news && engine.checkpoint().await.is_err() {
                tracing::error!(code = "VH1026", "the pool takes no more writes");
            }
            self.healer.look(&engine).await;
        }
    }
}

fn each<T>(
    paths: &[PathBuf],
    what: &'static str,
    open: impl Fn(&Path) -> Result<Rc<T>, world_real::OpenError>,
) -> Vec<Rc<T>> {
    let opened = paths.iter().filter_map(|path| match open(path) {
        Ok(opened) => Some(opened),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "{what} cannot be opened");
            None
        }
    });
    opened.collect()
}

/// Makes a pool of the media, with a filesystem in it and `first` as its first datastore.
pub(crate) async fn create(
    config: &StoreConfig,
    first: Option<&str>,
    founding: Option<&Founding>,
    world: &World,
) -> Result<(), Problem> {
    let media = Media::open(&StoreConfig { spares: Vec::new(), ..config.clone() }, world)?;
    if media.healer.drives().len() != config.drives.len() || media.legs.len() != config.journal.len() {
        return Err(Problem::new(&codes::BAD_INPUT, "not every drive and journal leg could be opened")
            .why("the log names each one and the reason"));
    }
    let defaults = GroupOptions::default();
    let options = GroupOptions {
        name: config.pool.clone(),
        unit_bytes: config.unit_bytes.unwrap_or(defaults.unit_bytes),
        data_width_max: config.stripe_data.unwrap_or(defaults.data_width_max),
        ..defaults
    };
    let group = Group::create(media.healer.drives(), options, world.clone()).await;
    let group = group.map_err(|refused| {
        Problem::new(&codes::FOREIGN_DRIVE, format!("pool \"{}\" cannot be made of these drives", config.pool))
            .why(refused.to_string())
    })?;
    let mut identity = [0; 16];
    match founding {
        Some(founding) => identity = founding.handle_key,
        None => world.chance.fill(&mut identity),
    }
    group.register_cas(IDENTITY_REGISTER, 0, &identity).await.map_err(|refused| cannot(config, &refused))?;
    if config.lab {
        group.register_cas(LAB_REGISTER, 0, &[1]).await.map_err(|refused| cannot(config, &refused))?;
    }
    let formatted = match founding {
        Some(founding) => Engine::format_as_twin(&group, &media.legs(), world, founding.content_key).await,
        None => Engine::format(&group, &media.legs(), world).await,
    };
    formatted.map_err(|refused| cannot(config, &refused))?;
    let (engine, _) = start(config, group.clone(), &media, world).await?;
    if let Some(founding) = founding {
        // The filesystem is the pair's: whoever is primary first makes it, at both sites at once.
        if let Some(standing) = founding.standing {
            Replica::found(&engine, standing).await.map_err(|refused| cannot(config, &refused))?;
        }
        return engine.checkpoint().await.map_err(|refused| cannot(config, &refused));
    }
    let store = Rc::new(engine.clone());
    let identity = identity_of(&group, None).await;
    Filesystem::format(&*store, world, &identity, DatastoreOptions::open())
        .await
        .map_err(|refused| cannot(config, &refused))?;
    if let Some(name) = first {
        let fs = Filesystem::open(store, world.clone(), identity).await.map_err(|refused| cannot(config, &refused))?;
        let created = fs.create_datastore(name, DatastoreOptions::open()).await;
        created.map_err(|refused| cannot(config, &format!("{refused:?}")))?;
    }
    engine.checkpoint().await.map_err(|refused| cannot(config, &refused))
}

/// Opens the pool.
pub(crate) async fn open(config: &StoreConfig, world: &World) -> Result<(Engine, Opened, Identity, Media), Problem> {
    let (group, media) = assemble(config, world).await?;
    enter(&group).await.map_err(|refused| {
        Problem::new(&codes::POOL_FAULTED, format!("pool \"{}\" cannot be opened", config.pool))
            .why(refused.to_string())
    })?;
    let identity = identity_of(&group, config.pair.as_ref()).await;
    let (engine, opened) = start(config, group, &media, world).await?;
    Ok((engine, opened, identity, media))
}

/// Says in the pool itself who has it: this process, in the next epoch. It does not renew that: a
/// store without a second controller is taken by opening it, not by waiting (decision 0020).
async fn enter(group: &Group) -> Result<(), CasRefused> {
    let mut controller = [0; 16];
    group.world().chance.fill(&mut controller);
    match group.own(ControllerId(controller), Duration::ZERO).await {
        Ok(own) => tracing::info!(epoch = own.epoch, "this process owns the pool"),
        // The group says so by itself; what can be read of it is served.
        Err(CasRefused::Latched) => {}
        Err(refused) => return Err(refused),
    }
    Ok(())
}

/// Puts the group together and leaves what is on it alone.
pub(crate) async fn assemble(config: &StoreConfig, world: &World) -> Result<(Group, Media), Problem> {
    let media = Media::open(config, world)?;
    let group = Group::open(media.healer.drives(), None, world.clone()).await.map_err(|refused| {
        let mut problem = Problem::new(&codes::POOL_FAULTED, format!("pool \"{}\" cannot be assembled", config.pool))
            .why(refused.to_string());
        for (drive, finding) in &refused.assembly().drives {
            problem = problem.note(format!("{drive}: {finding}"));
        }
        problem
    })?;
    if config.lab && group.register_read(LAB_REGISTER).await.version == 0 {
        // Else a line in a file would be enough to hurt data that matters.
        return Err(Problem::new(
            &codes::NOT_A_LAB_POOL,
            format!("pool \"{}\" was not made as a lab pool", config.pool),
        )
        .why("the configuration says lab = true, and the mark in the pool itself is missing")
        .step("take lab = true out of the configuration"));
    }
    group.set_flow(io::settings(config.io.as_ref())?);
    media.healer.sort(&group.assembly().drives);
    Ok((group, media))
}

/// Settings of the engine.
pub(crate) fn options_of(config: &StoreConfig) -> Options {
    let mut options = Options::default();
    if let Some(cache_bytes) = config.cache_bytes {
        options.cache_bytes = cache_bytes;
        options.cached_pages = (cache_bytes / 4 / 4096).clamp(256, 1 << 20) as usize;
        options.fingerprints = (cache_bytes / 4 / 16).clamp(1 << 12, 1 << 24) as usize;
    }
    options
}

async fn start(config: &StoreConfig, group: Group, media: &Media, world: &World) -> Result<(Engine, Opened), Problem> {
    Engine::open(group, media.legs(), world.clone(), options_of(config)).await.map_err(|refused| {
        let code = if refused.asks_for_repair_scan() { &codes::METADATA_DAMAGED } else { &codes::POOL_FAULTED };
        Problem::new(code, format!("pool \"{}\" cannot be opened", config.pool)).why(refused.to_string())
    })
}

/// Who the pool is for clients: both pools of a pair are the same.
pub(crate) async fn identity_of(group: &Group, pair: Option<&PairConfig>) -> Identity {
    let register = group.register_read(IDENTITY_REGISTER).await;
    let mut handle_key = [0; 16];
    let len = register.bytes.len().min(16);
    handle_key[..len].copy_from_slice(&register.bytes[..len]);
    let id = pair.map_or(group.id().0, |pair| pair.id.0);
    let first = id[..8].try_into().expect("an id has 16 bytes");
    Identity { pool: u64::from_be_bytes(first), handle_key }
}

fn cannot(config: &StoreConfig, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(&codes::POOL_FAULTED, format!("pool \"{}\" cannot be made", config.pool)).why(why.to_string())
}

#[cfg(test)]
mod tests {
    use base::port::Drive;
    use tokio::task::LocalSet;
    use world_real::{create_sparse_file, open_drive, real_world};

    use super::*;

    #[tokio::test]
    async fn who_opens_a_pool_enters_itself_as_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let drives = || -> Vec<Rc<dyn Drive>> {
            let paths = (0..5).map(|number| folder.path().join(format!("drive{number}")));
            paths.map(|path| open_drive(&path, None).unwrap() as Rc<dyn Drive>).collect()
        };
        (0..5).for_each(|number| {
            create_sparse_file(&folder.path().join(format!("drive{number}")), 16 << 20).unwrap();
        });
        let life = async {
            let group = Group::create(drives(), GroupOptions::default(), real_world()).await.unwrap();
            assert_eq!(group.owner_epoch(), None, "who makes a pool does not have it");
            drop(group);
            let mut owners = Vec::new();
            for epoch in 1..4 {
                let group = Group::open(drives(), None, real_world()).await.unwrap();
                enter(&group).await.unwrap();
                assert_eq!(group.owner_epoch(), Some(epoch));
                let own = group.ownership().await.unwrap();
                assert!(own.lease.is_zero() && !owners.contains(&own.controller), "{own:?}");
                owners.push(own.controller);
            }
            // One that has lost the pool to another does not enter itself.
            let first = Group::open(drives(), None, real_world()).await.unwrap();
            let second = Group::open(drives(), None, real_world()).await.unwrap();
            enter(&second).await.unwrap();
            assert_eq!(enter(&first).await, Err(CasRefused::Fenced));
            assert_eq!(second.owner_epoch(), Some(4));
        };
        LocalSet::new().run_until(life).await;
    }
}

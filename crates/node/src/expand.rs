//! Expanding the pool on request: the drives are written into the configuration, examined,
//! and added; a job and an event tell of it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use base::port::Drive;
use control::events::News;
use control::expansion::{ExpandOrder, JoinedDrive, PastExpansion, PoolExpanded};
use control::jobs::{JobState, NewJob};
use control::{Problem, codes};
use engine::Store;
use jiff::Timestamp;
use raid::{JoinRefused, Slot};

use crate::shard::Shard;
use crate::upkeep::{at, not_taken};

impl Shard {
    /// Looks at the drives of `order` and changes nothing.
    pub(crate) async fn could_expand(&self, order: &ExpandOrder) -> Result<(), Problem> {
        for path in &order.drives {
            let offered = self.media.healer.offered(&[PathBuf::from(path)]);
            let offered = offered.map_err(|(path, why)| not_taken(&path.display().to_string(), &why))?;
            let drives = offered.into_iter().map(|(_, drive)| drive as std::rc::Rc<dyn Drive>).collect();
            let could = self.engine.group().could_add(drives, false).await;
            could.map_err(|refused| not_taken(path, &refused.to_string()))?;
        }
        let members = self.engine.group().status().drives.len();
        if members + order.drives.len() > raid::layout::DRIVES_MAX {
            return Err(not_taken(&order.drives.join(", "), &JoinRefused::TooMany.to_string()));
        }
        Ok(())
    }

    /// Adds the drives of `order` to the pool, as a job for everyone to see.
    pub(crate) async fn expand_pool(&self, order: ExpandOrder) -> Result<PoolExpanded, Problem> {
        let new = NewJob { kind: "expand", object: self.config.pool.clone(), ..NewJob::default() };
        let job = self.books.jobs.start(new, Timestamp::now());
        let outcome = self.expand(order).await;
        let (state, result) = match &outcome {
            Ok(done) => (JobState::Done, format!("{} drives joined: {} now", done.joined.len(), done.drives)),
            Err(problem) => (JobState::Failed, problem.what().to_owned()),
        };
        job.end(state, result, Timestamp::now());
        outcome
    }

    async fn expand(&self, order: ExpandOrder) -> Result<PoolExpanded, Problem> {
        let (begun, usable_before_bytes) = (Instant::now(), self.engine.space().total_bytes);
        let paths: Vec<PathBuf> = order.drives.iter().map(PathBuf::from).collect();
        let offered = self.media.healer.offered(&paths);
        let offered = offered.map_err(|(path, why)| not_taken(&path.display().to_string(), &why))?;
        let fresh = self.config.remember_members(&paths)?;
        let (joined, refused) = self.media.healer.expand(&self.engine, offered, order.stripe_data).await;
        let stayed_out = |path: &&PathBuf| !joined.iter().any(|(taken, _)| taken == *path);
        let forgotten: Vec<PathBuf> = fresh.iter().filter(stayed_out).cloned().collect();
        // After a latch nobody knows whether the drive has joined: it stays named.
        let is_undecided = refused.as_ref().is_some_and(|added| added.refused == JoinRefused::Latched);
        if !forgotten.is_empty() && !is_undecided {
            self.config.forget_members(&forgotten)?;
        }
        self.tell_of(&joined);
        if let Some(added) = refused {
            let which = added
                .at
                .and_then(|at| paths.get(at))
                .map_or(order.drives.join(", "), |path| path.display().to_string());
            return Err(joined.iter().fold(not_taken(&which, &added.refused.to_string()), |problem, (path, slot)| {
                problem.note(format!("{} has joined as {}", path.display(), self.name_of(*slot)))
            }));
        }
        let group = self.engine.group();
        let geometry = group.next_geometry();
        Ok(PoolExpanded {
            pool: self.config.pool.clone(),
            joined: joined.iter().map(|(path, slot)| self.joined(path, *slot)).collect(),
            drives: u32::try_from(group.status().drives.len()).unwrap_or(u32::MAX),
            stripe_data: geometry.map_or(0, |geometry| u32::from(geometry.data)),
            stripe_parity: geometry.map_or(0, |geometry| u32::from(geometry.parity)),
            usable_before_bytes,
            usable_bytes: self.engine.space().total_bytes,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }

    fn name_of(&self, slot: Slot) -> String {
        format!("{}/{}", self.config.pool, u16::from(slot.0) + 1)
    }

    fn joined(&self, path: &Path, slot: Slot) -> JoinedDrive {
        JoinedDrive { drive: self.name_of(slot), path: path.display().to_string() }
    }

    fn tell_of(&self, joined: &[(PathBuf, Slot)]) {
        if joined.is_empty() {
            return;
        }
        let names: Vec<String> = joined.iter().map(|(_, slot)| self.name_of(*slot)).collect();
        let detail = format!("{} drives now; joined: {}", self.engine.group().status().drives.len(), names.join(", "));
        let news = News::happened(&codes::POOL_EXPANDED, self.config.pool.clone(), detail);
        self.books.events.tell(news, Timestamp::now());
    }

    /// Expansions of before, in the words of the API.
    pub(crate) fn past_expansions(&self) -> Vec<PastExpansion> {
        let past = |expansion: &engine::Expansion| PastExpansion {
            at: at(expansion.at.0),
            first_slot: u32::from(expansion.first.0) + 1,
            drives: u32::from(expansion.drives),
        };
        self.engine.expansions().iter().map(past).collect()
    }
}

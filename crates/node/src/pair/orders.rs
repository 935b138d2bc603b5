//! How the pair stands in the words of the API, and what people ask of it.

use std::time::{Duration, Instant};

use control::replication::{PairState, Reach, Replication, ReplicationAction, Role};
use control::{Problem, codes};
use mirror::{Command, Input, Mirror};

use crate::config::StoreConfig;
use crate::pair::Site;
use crate::shard::Shard;

/// How long a site that was told to become primary may take: the lease of the other one and a
/// few answers of the witness.
const FAILOVER_WITHIN: Duration = Duration::from_secs(30);

impl Site {
    /// How the pair stands as this site sees it.
    pub fn facts(&self, config: &StoreConfig, serves: bool) -> Replication {
        let link = self.links.state();
        let peer = self.links.peer();
        let trouble = self.asker.trouble();
        let known = self.replica.with_mirror(|mirror| mirror.kept().memory.known);
        // Without a lease it holds its tongue although its doors are open.
        let now = self.clock.now();
        let serves = serves && self.replica.with_mirror(|mirror| mirror.tells(now) == Some(true));
        let role = match known {
            None => Role::Unknown,
            Some(known) if known.primary == self.me => Role::Primary,
            Some(_) => Role::Secondary,
        };
        // As long as the record names somebody else, whoever is there is not made equal.
        let stranger = self.replica.with_mirror(Mirror::names_peer) == Some(false);
        let named_other = || "the record at the witness does not name it: finish with vmhold site replace".to_owned();
        let why_not = if stranger { Some(named_other()) } else { link.why_not.filter(|_| !link.is_up) };
        Replication {
            pair: self.config.id.to_string(),
            pool: config.pool.clone(),
            address: config.nfs.to_string(),
            site: config.site.clone(),
            role,
            serves,
            state: self.replica.with_mirror(|mirror| state_of(mirror, link.is_up)),
            epoch: known.map(|known| known.epoch.0),
            peer: Reach { address: peer.address, answers: link.is_up && !stranger, why_not },
            witness: Reach { address: self.witness_address.clone(), answers: trouble.is_none(), why_not: trouble },
            may_lack_after: self.replica.with_mirror(|mirror| mirror.may_lack().map(|osn| osn.0)),
            failover_waits_for: Vec::new(),
            last_check: self.checks.last(&self.replica),
        }
        .with_reasons()
    }
}

/// What the record says, as far as this site has heard of it.
fn state_of(mirror: &Mirror, is_linked: bool) -> PairState {
    match mirror.kept().memory.known {
        None => PairState::Unknown,
        Some(known) if known.in_sync => PairState::InSync,
        Some(_) if mirror.kept().paused => PairState::Paused,
        Some(_) if is_linked => PairState::Resyncing,
        Some(_) => PairState::OutOfSync,
    }
}

impl Shard {
    /// Does what a person asks of the pair.
    ///
    /// # Errors
    /// `NOT_PRIMARY` for what only the primary can do; `TIMED_OUT` where the witness did not agree.
    pub(crate) async fn order_replication(&self, action: ReplicationAction) -> Result<Replication, Problem> {
        let Some(site) = &self.pair else {
            return Err(Problem::new(&codes::NOT_FOUND, format!("{} has no other site", self.config.pool)));
        };
        match action {
            ReplicationAction::Pause => site.pause(&self.config, true)?,
            ReplicationAction::Resume => site.pause(&self.config, false)?,
            ReplicationAction::Switchover => site.hand_over(&self.config).await?,
            ReplicationAction::Failover => site.fail_over(&self.config, false).await?,
            ReplicationAction::FailoverOtherIsOff => site.fail_over(&self.config, true).await?,
            ReplicationAction::CutLink | ReplicationAction::MendLink if !self.config.lab => {
                return Err(Problem::new(&codes::NOT_A_LAB_POOL, format!("{} is no lab pool", self.config.pool))
                    .why("only there is anything hurt on purpose"));
            }
            ReplicationAction::CutLink => site.links.cut(true),
            ReplicationAction::MendLink => site.links.cut(false),
        }
        Ok(site.facts(&self.config, self.front().is_some()))
    }
}

impl Site {
    fn pause(&self, config: &StoreConfig, paused: bool) -> Result<(), Problem> {
        if self.replica.with_mirror(Mirror::term).is_none() {
            return Err(Problem::new(&codes::NOT_PRIMARY, format!("{} is not primary", config.site))
                .why("only the primary can go on alone, or bring the other site up to date"));
        }
        self.replica.tell(Input::Command(Command::Pause(paused)));
        Ok(())
    }

    /// Makes the other site primary, as planned: what is under way is answered first, and nothing is lost.
    ///
    /// # Errors
    /// `NOT_PRIMARY` where this site has nothing to hand over; `SWITCHOVER_REFUSED` when the other site or
    /// the witness is not there, or what is under way does not end.
    pub async fn hand_over(&self, config: &StoreConfig) -> Result<(), Problem> {
        let Some(term) = self.replica.with_mirror(Mirror::term) else {
            return Err(Problem::new(&codes::NOT_PRIMARY, format!("{} is not primary", config.site))
                .why("only the primary can hand over")
                .step("ask the other site, or take over from here: vmhold replication failover"));
        };
        let refused = || Problem::new(&codes::SWITCHOVER_REFUSED, format!("{} does not hand over now", config.site));
        let reasons = self.facts(config, true).not_ready();
        if !reasons.is_empty() {
            return Err(reasons.into_iter().fold(refused(), Problem::why));
        }
        let begun = Instant::now();
        self.replica.tell(Input::Command(Command::HandOver));
        let came_of_it = |mirror: &Mirror| match mirror.term() {
            Some(now) if now == term => (!mirror.is_handing_over()).then_some(false),
            _ => Some(true),
        };
        let ended = tokio::time::timeout(FAILOVER_WITHIN, self.replica.until(came_of_it)).await;
        match ended {
            Ok(true) => {
                self.chronicle.handed_over(self.replica.with_mirror(Mirror::turn));
                let seconds = begun.elapsed().as_secs_f64();
                tracing::info!(code = "VH4013", seconds, "this site has handed over as planned");
                Ok(())
            }
            Ok(false) => Err(refused().why("what is under way did not end in time; it goes on here")),
            Err(_) => Err(refused().why("the witness does not answer: nobody serves until it does")),
        }
    }

    /// Asks the witness to make this site primary, and waits until it is.
    async fn fail_over(&self, config: &StoreConfig, primary_is_off: bool) -> Result<(), Problem> {
        let is_primary = |mirror: &Mirror| mirror.term().map(drop);
        let asking = async {
            // The witness says no while the lease of the other site runs: asked again until it is over.
            loop {
                self.replica.tell(Input::Command(Command::Force { primary_is_off }));
                let again = tokio::time::sleep(Duration::from_secs(1));
                tokio::select! {
                    () = self.replica.until(is_primary) => return,
                    () = again => {}
                }
            }
        };
        if self.replica.with_mirror(is_primary).is_some() {
            return Ok(());
        }
        if !self.replica.was_whole() {
            return Err(Problem::new(&codes::COPY_NEVER_WHOLE, format!("{} holds no whole copy", config.site)));
        }
        tokio::time::timeout(FAILOVER_WITHIN, asking).await.map_err(|_| {
            let trouble = self.asker.trouble();
            let why = trouble
                .unwrap_or_else(|| "the witness does not agree: the other site still renews its lease".to_owned());
            Problem::new(&codes::TIMED_OUT, format!("{} is not primary yet", config.site))
                .why(why)
                .step("if the other site is off and stays off: add --other-is-off")
        })
    }
}

//! Another site in the place of one that is lost for good.
//!
//! ```text
//!  the record     old site ── leave ──► nobody ── join ──► new site, not in sync
//!  this pool      which pool the other site has: forgotten, the next one that is met is it
//!  the file       who the other site is, and where
//! ```
//!
//! Each step may be the last before a crash; whoever is asked again goes on from there. Between the
//! first and the last one nobody is made equal: the mirror meets only whom the record names, and the
//! link only whom the file names.
//!
//! The new site is a blank pool, made with the invitation that comes out of this. A pool that was
//! never whole does not become primary ([`codes::COPY_NEVER_WHOLE`]), so what it lacks is not mistaken
//! for what is there.

use std::time::Duration;

use control::events::News;
use control::replacement::{SiteReplaced, SiteReplacement};
use control::replication::PairState;
use control::{Problem, codes};
use jiff::Timestamp;
use mirror::{Command, Input, Mirror};

use crate::pair::Site;
use crate::pair::config::{Held, Introduction, PairInvitation};
use crate::shard::Shard;

/// How long the witness may take to agree to one step.
const AGREED_WITHIN: Duration = Duration::from_secs(10);
/// Pause before a question is put again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Shard {
    /// Makes the site of the introduction the secondary of the pair.
    ///
    /// # Errors
    /// `NOT_PRIMARY` at a secondary; `NOT_REPLACED` while the other site is there; `TIMED_OUT` where the
    /// witness does not agree.
    pub(crate) async fn replace_peer(&self, order: SiteReplacement) -> Result<SiteReplaced, Problem> {
        let Some(site) = &self.pair else {
            return Err(Problem::new(&codes::NOT_FOUND, format!("{} has no other site", self.config.pool)));
        };
        let new: Introduction = order.introduction.parse()?;
        let at = order.advertise.unwrap_or_else(|| site.config.listen.to_string());
        let from = Introduction { site: site.me, fingerprint: site.fingerprint, address: at };
        // Read again: what is printed must be what the new site takes.
        let from = from.to_string().parse()?;
        self.may_replace(site, &new)?;
        site.name_secondary(&new).await?;
        self.config.change_pair(|pair| pair.with_peer(new.clone()))?;
        site.links.change_peer(new.clone()).await.map_err(|refused| {
            Problem::new(&codes::NOT_REPLACED, "the pool cannot keep that it has another site").why(refused.to_string())
        })?;
        let said = format!("{} is the other site of {} now; it is given everything", new.address, self.config.pool);
        let news = News::happened(&codes::SITE_REPLACED, &self.config.site, said);
        self.books.events.tell(news, Timestamp::now());
        let invitation = PairInvitation {
            pair: site.config.id,
            held: Held::Copy,
            content_key: self.engine.content_key(),
            handle_key: site.handle_key,
            from,
        };
        let pair = site.facts(&self.config, self.front().is_some());
        Ok(SiteReplaced { pair, invitation: invitation.to_string() })
    }

    fn may_replace(&self, site: &Site, new: &Introduction) -> Result<(), Problem> {
        if new.site == site.me {
            return Err(Problem::new(&codes::BAD_INPUT, "a site cannot be paired with itself")
                .why("the introduction is the one of this site")
                .step("on the new site: vmhold site show --listen ADDRESS"));
        }
        if site.replica.with_mirror(Mirror::term).is_none() {
            return Err(Problem::new(&codes::NOT_PRIMARY, format!("{} is not primary", self.config.site))
                .why("only the primary, which holds everything, can take in another site")
                .step("if the primary is lost: vmhold replication failover, then again"));
        }
        let facts = site.facts(&self.config, true);
        let why = match facts.state {
            PairState::OutOfSync | PairState::Paused => return Ok(()),
            PairState::InSync => "both sites hold the same",
            PairState::Resyncing => "the other site is being made equal",
            PairState::Unknown => "how the copies stand is not known yet",
        };
        Err(Problem::new(&codes::NOT_REPLACED, format!("{} is not replaced", facts.peer.address)).why(why))
    }
}

impl Site {
    /// Has the record at the witness name `new` as secondary.
    async fn name_secondary(&self, new: &Introduction) -> Result<(), Problem> {
        let secondary = |mirror: &Mirror| mirror.kept().memory.known.and_then(|known| known.secondary);
        if self.replica.with_mirror(secondary).is_some() {
            self.agree(Command::Leave, |mirror| secondary(mirror).is_none()).await?;
        }
        self.agree(Command::Join { secondary: new.site }, |mirror| secondary(mirror) == Some(new.site)).await
    }

    /// Asks for one step until the record says so.
    async fn agree(&self, step: Command, is_so: impl Fn(&Mirror) -> bool) -> Result<(), Problem> {
        let asking = async {
            loop {
                self.replica.tell(Input::Command(step.clone()));
                tokio::select! {
                    () = self.replica.until(|mirror| is_so(mirror).then_some(())) => return,
                    () = tokio::time::sleep(ASK_AGAIN) => {}
                }
            }
        };
        tokio::time::timeout(AGREED_WITHIN, asking).await.map_err(|_| {
            let why = self.asker.trouble().unwrap_or_else(|| "it does not agree".to_owned());
            Problem::new(&codes::TIMED_OUT, format!("the witness at {} has not taken it down", self.witness_address))
                .why(why)
                .step("ask again when it answers: it goes on from where it is")
        })
    }
}

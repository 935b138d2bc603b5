//! Two sites that hold the same: how they stand, and what can be asked of them. Documents and texts.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::Document;
use crate::integrity::LastCheck;
use crate::text;

/// What a site is by the record at the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    /// It serves.
    Primary,
    /// It holds the other copy.
    Secondary,
    /// It has not met the witness or the other site yet.
    Unknown,
}

impl Role {
    /// The word for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Primary => "PRIMARY",
            Self::Secondary => "SECONDARY",
            Self::Unknown => "unknown",
        }
    }
}

/// How the two copies stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PairState {
    /// Every acknowledged write is on both.
    InSync,
    /// The primary has gone on alone.
    OutOfSync,
    /// As out of sync, and the other site is being brought up to date.
    Resyncing,
    /// As out of sync, and somebody wanted it so.
    Paused,
    /// Nobody has said yet.
    Unknown,
}

impl PairState {
    /// The word for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::InSync => "IN_SYNC",
            Self::OutOfSync => "OUT_OF_SYNC",
            Self::Resyncing => "RESYNCING",
            Self::Paused => "PAUSED",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether something outside this site is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reach {
    /// Where it is.
    pub address: String,
    /// Whether it answers.
    pub answers: bool,
    /// Why not, as far as is known.
    pub why_not: Option<String>,
}

/// One pair as one of its sites sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replication {
    /// The pair, the same at both sites and at the witness.
    pub pair: String,
    /// The pool that holds this site's copy.
    pub pool: String,
    /// Where clients find whichever site serves.
    pub address: String,
    /// Name of this site.
    pub site: String,
    /// What this site is.
    pub role: Role,
    /// Whether it answers clients now.
    pub serves: bool,
    /// How the copies stand.
    pub state: PairState,
    /// Term of the primary.
    pub epoch: Option<u64>,
    /// The other site.
    pub peer: Reach,
    /// The witness.
    pub witness: Reach,
    /// If this site were made primary now, operations after this one may be missing; none if
    /// it has everything.
    pub may_lack_after: Option<u64>,
    /// What [`not_ready`](Replication::not_ready) says, for those who read the document only.
    #[serde(default)]
    pub failover_waits_for: Vec<String>,
    /// What the last integrity check came to, as far as this site knows.
    #[serde(default)]
    pub last_check: Option<LastCheck>,
}

impl Replication {
    /// The same, with its reasons written down.
    #[must_use]
    pub fn with_reasons(self) -> Self {
        Self { failover_waits_for: self.not_ready(), ..self }
    }

    /// Why the surviving site would not take over by itself if this moment a site was lost; empty if
    /// it would.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        match self.state {
            PairState::InSync => {}
            PairState::Unknown => reasons.push("how the copies stand is not known yet".to_owned()),
            PairState::Paused => reasons.push("replication is paused".to_owned()),
            PairState::OutOfSync | PairState::Resyncing => {
                reasons.push("the sites do not hold the same".to_owned());
            }
        }
        if self.role == Role::Primary && !self.serves {
            reasons.push("this site is primary and does not serve".to_owned());
        }
        for (what, reach) in [("the other site", &self.peer), ("the witness", &self.witness)] {
            if !reach.answers {
                let why = reach.why_not.as_deref().map_or_else(String::new, |why| format!(": {why}"));
                reasons.push(format!("{what} is not reached{why}"));
            }
        }
        reasons
    }

    /// The block of `replication status`, and what came of an order.
    #[must_use]
    pub fn human(&self) -> String {
        let role = match self.role {
            Role::Primary if self.serves => "PRIMARY, serves",
            Role::Primary => "PRIMARY, does not serve now",
            Role::Secondary => "SECONDARY",
            Role::Unknown => "has not met the witness or the other site yet",
        };
        let epoch = self.epoch.map_or_else(String::new, |epoch| format!("   epoch {epoch}"));
        let mut out = format!("{} at {}   {}{epoch}\n", self.pool, self.address, self.state.word());
        let said = |reach: &Reach| if reach.answers { "reached" } else { "NOT REACHED" };
        let lines = [
            ("this site", &self.site, role),
            ("other site", &self.peer.address, said(&self.peer)),
            ("witness", &self.witness.address, said(&self.witness)),
        ];
        let width = lines.iter().map(|(_, name, _)| name.chars().count()).max().unwrap_or(0);
        for (what, name, how) in lines {
            out.push_str(&format!("  {what:<10}  {name:<width$}  {how}\n"));
        }
        let reasons = self.not_ready();
        let ready = if reasons.is_empty() { "READY" } else { "NOT READY" };
        out.push_str(&format!("  automatic failover  {ready}\n"));
        for reason in &reasons {
            for (index, part) in text::wrap(reason, 72).into_iter().enumerate() {
                out.push_str(&format!("    {} {part}\n", if index == 0 { "-" } else { " " }));
            }
        }
        if let Some(osn) = self.may_lack_after {
            out.push_str(&format!("  this copy may lack what was acknowledged after operation {osn}\n"));
        }
        let checked = LastCheck::human(self.last_check.as_ref(), Timestamp::now());
        out.push_str(&format!("  integrity check     {checked}\n"));
        out
    }
}

/// The document of `replication status`: all pairs of this store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplicationList(pub Vec<Replication>);

impl Document for ReplicationList {
    const SCHEMA: &'static str = "vmhold.replication.list/v1";
}

impl ReplicationList {
    /// The text.
    #[must_use]
    pub fn human(&self) -> String {
        if self.0.is_empty() {
            return "nothing here is replicated: this store has no other site\n".to_owned();
        }
        self.0.iter().map(Replication::human).collect::<Vec<_>>().join("\n")
    }
}

/// What can be asked of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplicationAction {
    /// Go on alone until told otherwise.
    Pause,
    /// Be in sync again.
    Resume,
    /// Make the other site primary, when both hold the same: nothing is lost, clients wait for a moment.
    Switchover,
    /// Make this site primary once the lease of the other one is over, also if it may lack something.
    Failover,
    /// As failover; somebody vouches that the other site is off and stays off, so its lease is not waited for.
    FailoverOtherIsOff,
    /// On a lab pool: carry nothing between the sites until it is mended, as a cut cable would.
    CutLink,
    /// End that.
    MendLink,
}

impl ReplicationAction {
    /// Whether it may lose something.
    #[must_use]
    pub const fn is_severe(self) -> bool {
        matches!(self, Self::Failover | Self::FailoverOtherIsOff)
    }

    /// What it would do to `pair`, in words.
    #[must_use]
    pub fn effect(self, pair: &Replication) -> String {
        let lost = pair.may_lack_after.map_or_else(String::new, |osn| {
            format!("; what was acknowledged after operation {osn} may be missing here")
        });
        let (pool, site, peer) = (&pair.pool, &pair.site, &pair.peer.address);
        match self {
            Self::Pause => format!("let {pool} go on without {peer}"),
            Self::Resume => format!("bring {peer} up to date with {pool}, to be in sync again"),
            Self::Switchover => format!("make {peer} primary of {pool} in place of {site}"),
            Self::Failover => {
                format!("make {site} primary of {pool} as soon as the lease of the other site is over{lost}")
            }
            Self::FailoverOtherIsOff => format!("make {site} primary of {pool} now{lost}"),
            Self::CutLink => format!("carry nothing between {site} and {peer} until the link is mended"),
            Self::MendLink => format!("let {site} and {peer} meet again"),
        }
    }
}

/// Body of `POST /v1/replication/{pool}`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReplicationOrder {
    /// What to do.
    pub action: ReplicationAction,
}

impl Document for Replication {
    const SCHEMA: &'static str = "vmhold.replication/v1";
}

#[cfg(test)]
pub mod samples {
    //! A pair as the tests of texts need it.

    use super::*;

    /// A primary with everything well.
    pub fn pair() -> Replication {
        let reach = |address: &str| Reach { address: address.to_owned(), answers: true, why_not: None };
        Replication {
            pair: "07".repeat(16),
            pool: "flash0".into(),
            address: "10.0.0.50:2049".into(),
            site: "site-a".into(),
            role: Role::Primary,
            serves: true,
            state: PairState::InSync,
            epoch: Some(3),
            peer: reach("10.0.0.2:7441"),
            witness: reach("10.0.0.3:7440"),
            may_lack_after: None,
            failover_waits_for: Vec::new(),
            last_check: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failover_is_ready_only_when_all_is_known_to_be_well() {
        let well = samples::pair();
        assert!(well.not_ready().is_empty());
        let away = |why_not: Option<&str>| Reach {
            answers: false,
            why_not: why_not.map(str::to_owned),
            ..well.witness.clone()
        };
        let cases = [
            (Replication { state: PairState::Unknown, ..well.clone() }, "not known yet"),
            (Replication { state: PairState::Paused, ..well.clone() }, "paused"),
            (Replication { state: PairState::Resyncing, ..well.clone() }, "do not hold the same"),
            (Replication { serves: false, ..well.clone() }, "does not serve"),
            (Replication { witness: away(Some("refused")), ..well.clone() }, "the witness is not reached: refused"),
            (Replication { peer: away(None), ..well.clone() }, "the other site is not reached"),
        ];
        for (pair, reason) in cases {
            assert!(pair.not_ready().iter().any(|said| said.contains(reason)), "{reason}: {:?}", pair.not_ready());
            assert!(ReplicationList(vec![pair]).human().contains("NOT READY"), "{reason}");
        }
    }

    #[test]
    fn the_text_reads_as_it_should() {
        let text = ReplicationList(vec![samples::pair()]).human();
        assert_eq!(
            text,
            "flash0 at 10.0.0.50:2049   IN_SYNC   epoch 3\n  \
             this site   site-a         PRIMARY, serves\n  \
             other site  10.0.0.2:7441  reached\n  \
             witness     10.0.0.3:7440  reached\n  \
             automatic failover  READY\n  \
             integrity check     never checked\n"
        );
        assert!(ReplicationList(Vec::new()).human().contains("nothing here is replicated"));
    }
}

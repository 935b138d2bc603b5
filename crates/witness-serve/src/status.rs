//! Documents about a witness: what the CLI prints.

use control::Document;
use control::text::{Table, duration, left, or_dash, right};
use control::tls::Fingerprint;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `witness status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WitnessStatus {
    /// The address join tokens name.
    pub address: Option<String>,
    /// Of its certificate.
    pub fingerprint: Fingerprint,
    /// Seconds since it started. Leases older than that count anew from its start.
    pub uptime_seconds: f64,
    /// Sites that may ask, by name; to a site only those of its own datastores.
    pub sites: Vec<SiteLine>,
    /// Records; to a site only those that name it.
    pub pairs: Vec<PairLine>,
}

impl Document for WitnessStatus {
    const SCHEMA: &'static str = "vmhold.witness.status/v1";
}

/// A site that may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteLine {
    /// Its name.
    pub name: String,
    /// Its id.
    pub site: String,
    /// When it was let in.
    pub enrolled_at: Timestamp,
    /// How long ago it was heard; none: not since the witness started.
    pub heard_seconds_ago: Option<f64>,
}

/// One record and its lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairLine {
    /// Which datastore.
    pub pair: String,
    /// Number of the change that led here.
    pub version: u64,
    /// Raised at each change of primary.
    pub epoch: u64,
    /// Name of the primary, or its id.
    pub primary: String,
    /// Name of the secondary, or its id.
    pub secondary: Option<String>,
    /// Whether every acknowledged operation is on both sites.
    pub in_sync: bool,
    /// Length of a lease.
    pub lease_seconds: f64,
    /// What is left of the primary's; 0: over.
    pub lease_left_seconds: f64,
    /// The latest changes since the witness started, oldest first.
    pub changes: Vec<ChangeLine>,
}

/// One change of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeLine {
    /// Number of the change.
    pub version: u64,
    /// `found`, `join`, `leave`, `go alone`, `in sync`, `take over`, `hand over`, `force`, `restore`.
    pub kind: String,
    /// Name of the site that asked for it, or its id.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// The epoch after it.
    pub epoch: u64,
}

impl WitnessStatus {
    /// As text.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        let address = or_dash(self.address.as_deref(), str::to_owned);
        let mut page = format!("WITNESS  {address}, up {}\n", duration(self.uptime_seconds));
        page += &format!("         fingerprint {}\n", self.fingerprint);
        if self.sites.is_empty() {
            page += "\nIt knows no site yet: vmhold witness invite SITE\n";
            return page;
        }
        let mut table = Table::new(&[left("SITE"), left("ID"), right("HEARD"), left("SINCE")]);
        for site in &self.sites {
            let heard = or_dash(site.heard_seconds_ago, |seconds| format!("{} ago", duration(seconds)));
            table.row(vec![site.name.clone(), site.site.clone(), heard, site.enrolled_at.to_string()]);
        }
        page += &format!("\n{}", table.render(width));
        if self.pairs.is_empty() {
            return page + "\nNo datastore is replicated yet.\n";
        }
        let head = ["DATASTORE", "PRIMARY", "SECONDARY", "STATE", "LAST CHANGE"].map(left);
        let mut table = Table::new(&[&head[..], &[right("EPOCH"), right("LEASE LEFT")]].concat());
        for pair in &self.pairs {
            table.row(pair.row());
        }
        page + &format!("\n{}", table.render(width))
    }
}

impl PairLine {
    fn row(&self) -> Vec<String> {
        let last = self.changes.last().map(|change| format!("{} by {}", change.kind, change.by));
        let state = match (self.in_sync, &self.secondary) {
            (true, _) => "IN_SYNC",
            (false, Some(_)) => "OUT_OF_SYNC",
            (false, None) => "NOT REPLICATED",
        };
        // A primary that is alone needs no lease, so its end says nothing.
        let lease = if self.in_sync { duration(self.lease_left_seconds) } else { "-".to_owned() };
        vec![
            self.pair.clone(),
            self.primary.clone(),
            or_dash(self.secondary.clone(), |name| name),
            state.to_owned(),
            or_dash(last, |text| text),
            self.epoch.to_string(),
            lease,
        ]
    }
}

/// `witness invite`: shown once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationMade {
    /// Name of the site it is for.
    pub site: String,
    /// What the site is given.
    pub token: String,
    /// Until when it is good.
    pub until: Timestamp,
}

impl Document for InvitationMade {
    const SCHEMA: &'static str = "vmhold.witness.invitation/v1";
}

/// A site as the witness knows it from now on, or did until now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteKnown {
    /// Its name.
    pub name: String,
    /// Its id; none of a site that is gone.
    pub site: Option<String>,
}

impl Document for SiteKnown {
    const SCHEMA: &'static str = "vmhold.witness.site/v1";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pairs: Vec<PairLine>) -> WitnessStatus {
        let at: Timestamp = "2026-11-26T09:00:00Z".parse().unwrap();
        let site = |name: &str, heard| SiteLine {
            name: name.into(),
            site: "01".repeat(16),
            enrolled_at: at,
            heard_seconds_ago: heard,
        };
        WitnessStatus {
            address: Some("10.0.0.3:7440".into()),
            fingerprint: "ab".repeat(32).parse().unwrap(),
            uptime_seconds: 60.0,
            sites: vec![site("site-a", Some(0.4)), site("site-b", None)],
            pairs,
        }
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_a_lease_is_shown_where_it_matters() {
        let at = "2026-11-26T09:00:00Z".parse().unwrap();
        let change = ChangeLine { version: 3, kind: "in sync".into(), by: "site-a".into(), at, epoch: 1 };
        let mut pair = PairLine {
            pair: "07".repeat(16),
            version: 3,
            epoch: 1,
            primary: "site-a".into(),
            secondary: Some("site-b".into()),
            in_sync: true,
            lease_seconds: 6.0,
            lease_left_seconds: 4.0,
            changes: vec![change],
        };
        let text = status(vec![pair.clone()]).human(200);
        assert!(text.contains("IN_SYNC") && text.contains("in sync by site-a") && text.contains("4.0 s"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("site-b") && line.contains(" - ")), "{text}");
        pair.in_sync = false;
        let text = status(vec![pair]).human(200);
        assert!(text.contains("OUT_OF_SYNC") && !text.contains("4.0 s"), "{text}");
        assert!(status(Vec::new()).human(80).contains("No datastore"));
    }
}

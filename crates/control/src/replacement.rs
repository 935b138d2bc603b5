//! Another site in the place of one that is lost for good: what is asked for, and what comes of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::Document;
use crate::replication::Replication;

/// Body of `POST /v1/replication/{name}/peer`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SiteReplacement {
    /// How the new site introduces itself: what `vmhold site show --listen` prints there.
    pub introduction: String,
    /// Where the new site reaches this one, if not at the address that this one listens at.
    #[serde(default)]
    pub advertise: Option<String>,
}

impl SiteReplacement {
    /// What it would do to `pair`, in words.
    #[must_use]
    pub fn effect(pair: &Replication) -> String {
        format!(
            "give up the copy of {} at {}, and give the new site everything that {} holds",
            pair.pool, pair.peer.address, pair.site
        )
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SiteReplaced {
    /// The pair as it stands now.
    pub pair: Replication,
    /// What makes a blank pool at the new site the other half. A secret.
    pub invitation: String,
}

impl Document for SiteReplaced {
    const SCHEMA: &'static str = "vmhold.site.replaced/v1";
}

impl SiteReplaced {
    /// The text.
    #[must_use]
    pub fn human(&self) -> String {
        format!(
            "{pool} has {peer} as its other site now; it has no copy yet.\n\
             Keep this secret. At the new site:\n\n  \
             vmhold pool create ... --pair-join {invitation}\n\n\
             Serve that pool: everything is copied to it while clients work.\n\
             Shut the old site out, on the witness's machine: vmhold witness remove SITE\n",
            pool = self.pair.pool,
            peer = self.pair.peer.address,
            invitation = self.invitation,
        )
    }
}

//! `replication` and `site`: two sites that hold the same.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use control::client::{Call, segment};
use control::plan::Plan;
use control::replacement::{SiteReplaced, SiteReplacement};
use control::replication::{Replication, ReplicationAction, ReplicationList, ReplicationOrder};
use control::roles::RoleHistory;
use control::{Document, Envelope, Exit, Problem, codes};
use node::{Founding, Introduction, PairConfig, PairInvitation, StoreConfig};
use serde::{Deserialize, Serialize};
use witness_serve::membership::Membership;

use crate::appliance::{self, change};
use crate::cli::Global;
use crate::consent;
use crate::integrity_command::{self, EvidenceArgs, ReceiptArgs, VerifyArgs};
use crate::place::{self, unusable};
use crate::say::Say;

/// `replication`.
#[derive(Debug, Args)]
pub struct ReplicationCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: ReplicationVerb,
}

/// Verbs of `replication`.
#[derive(Debug, Subcommand)]
pub enum ReplicationVerb {
    /// How both sites stand, and whether failover would work by itself now
    Status,
    /// Make a pool that holds data, and is stopped, the first of two sites; prints an invitation
    Enable {
        /// The pool's configuration; DIR/vmhold.toml if not given
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How the other site introduces itself (vmhold site show --listen, there)
        #[arg(long, value_name = "INTRODUCTION")]
        with: String,
        /// Where this site is reached by the other one
        #[arg(long, value_name = "ADDR")]
        listen: SocketAddr,
        /// What the other site is told instead, where it knows this machine by another address
        #[arg(long, value_name = "HOST:PORT")]
        advertise: Option<String>,
        /// Command that moves the address of NFS between machines: called with up|down IP PORT
        #[arg(long, value_name = "PATH")]
        address_hook: Option<PathBuf>,
    },
    /// How the sites came to stand as they do, and what each change of primary cost the clients
    History {
        /// The pool
        pool: String,
        /// At most the newest so many
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// Go on without the other site until told otherwise
    Pause {
        /// The pool
        pool: String,
    },
    /// Bring the other site up to date and be in sync again
    Resume {
        /// The pool
        pool: String,
    },
    /// Make the other site primary, as planned: nothing is lost, clients wait for a moment
    Switchover {
        /// The pool
        pool: String,
    },
    /// Make this site primary after the lease of the other one, also if it may lack writes
    Failover {
        /// The pool
        pool: String,
        /// The other site is off and stays off: its lease is not waited for
        #[arg(long)]
        other_is_off: bool,
    },
    /// Compare both sites while clients go on, or look at a receipt
    Verify(VerifyArgs),
    /// What both sites signed of the last check that found them the same
    Receipt(ReceiptArgs),
    /// Files that this site keeps as they were when they differed
    Evidence(EvidenceArgs),
}

/// `site`.
#[derive(Debug, Args)]
pub struct SiteCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: SiteVerb,
}

/// Verbs of `site`.
#[derive(Debug, Subcommand)]
pub enum SiteVerb {
    /// Who this site is, and the introduction that another site pairs with
    Show {
        /// Where the other site reaches this one: name or number, and port
        #[arg(long, value_name = "HOST:PORT")]
        listen: Option<String>,
    },
    /// At the primary: give up the other site, which is lost, and take in another one in its place
    Replace {
        /// The pool
        pool: String,
        /// How the new site introduces itself (vmhold site show --listen, there)
        #[arg(long, value_name = "INTRODUCTION")]
        with: String,
        /// Where the new site reaches this one, if not at the address that this one listens at
        #[arg(long, value_name = "HOST:PORT")]
        advertise: Option<String>,
    },
}

/// The part of `pool create` that makes it one half of a pair.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "One of two sites")]
pub struct PairArgs {
    /// Found a pair with the site that introduced itself so (vmhold site show, there)
    #[arg(long, value_name = "INTRODUCTION", requires = "pair_listen", conflicts_with = "pair_join")]
    pub pair_with: Option<String>,
    /// Be the other half of the pair of this invitation, which `pool create --pair-with` printed
    #[arg(long, value_name = "INVITATION", requires = "pair_listen")]
    pub pair_join: Option<String>,
    /// Where this site is reached by the other one
    #[arg(long, value_name = "ADDR")]
    pub pair_listen: Option<SocketAddr>,
    /// Command that moves the address of --nfs between machines: called with up|down IP PORT
    #[arg(long, value_name = "PATH", requires = "pair_listen")]
    pub pair_address_hook: Option<PathBuf>,
    /// What the other site is told instead, where it knows this machine by another address
    #[arg(long, value_name = "HOST:PORT", requires = "pair_with")]
    pub pair_advertise: Option<String>,
}

impl PairArgs {
    /// What the pool needs to be one of two, if it is to be; and the invitation for the other one. The
    /// membership at the witness is in `folder`.
    pub fn founding(
        &self,
        folder: &Path,
        datastore: Option<&str>,
    ) -> Result<Option<(Founding, Option<PairInvitation>)>, Problem> {
        let Some(listen) = self.pair_listen else { return Ok(None) };
        let hook = self
            .pair_address_hook
            .as_ref()
            .map(|path| std::path::absolute(path).map_err(|error| unusable(path, &error)));
        let hook = hook.transpose()?;
        let with_hook = |mut founding: Founding| {
            founding.config.address_hook = hook.clone();
            founding
        };
        if let Some(invitation) = &self.pair_join {
            let invitation: PairInvitation = invitation.parse()?;
            return Ok(Some((with_hook(node::join(folder, &invitation, listen, datastore)?), None)));
        }
        let Some(introduction) = &self.pair_with else {
            return Err(Problem::new(&codes::BAD_INPUT, "--pair-listen without the other site")
                .step("the first site of a pair: --pair-with INTRODUCTION")
                .step("the second one: --pair-join INVITATION"));
        };
        let peer: Introduction = introduction.parse()?;
        let advertised = self.pair_advertise.clone().unwrap_or_else(|| listen.to_string());
        let (founding, invitation) = node::found(folder, peer, (listen, &advertised), datastore)?;
        Ok(Some((with_hook(founding), Some(invitation))))
    }
}

/// `site show`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SiteShown {
    site: String,
    name: Option<String>,
    fingerprint: String,
    witness: String,
    introduction: Option<String>,
}

impl Document for SiteShown {
    const SCHEMA: &'static str = "vmhold.site/v1";
}

/// Runs a verb of `replication`.
pub fn run(command: &ReplicationCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    match &command.action {
        ReplicationVerb::Status => {
            let list: Envelope<ReplicationList> = appliance::client(global)?.get("/v1/replication")?;
            say.envelope(&list, |list, _| list.human());
            Ok(Exit::Success)
        }
        ReplicationVerb::Enable { config, with, listen, advertise, address_hook } => {
            let file = config.clone().unwrap_or_else(|| global.dir.join("vmhold.toml"));
            let at = (*listen, advertise.clone().unwrap_or_else(|| listen.to_string()));
            enable(&file, with.parse()?, at, address_hook.as_deref(), (global, say))
        }
        ReplicationVerb::History { pool, limit } => {
            let path = format!("/v1/replication/{}/history?limit={limit}", segment(pool));
            let history: Envelope<RoleHistory> = appliance::client(global)?.get(&path)?;
            say.envelope(&history, |history, _| history.human());
            Ok(Exit::Success)
        }
        ReplicationVerb::Verify(args) => integrity_command::verify(args, global, say),
        ReplicationVerb::Receipt(args) => integrity_command::receipt(args, global, say),
        ReplicationVerb::Evidence(args) => integrity_command::evidence(args, global, say),
        ReplicationVerb::Pause { pool } => order(pool, ReplicationAction::Pause, global, say),
        ReplicationVerb::Resume { pool } => order(pool, ReplicationAction::Resume, global, say),
        ReplicationVerb::Switchover { pool } => order(pool, ReplicationAction::Switchover, global, say),
        ReplicationVerb::Failover { pool, other_is_off: false } => {
            order(pool, ReplicationAction::Failover, global, say)
        }
        ReplicationVerb::Failover { pool, other_is_off: true } => {
            order(pool, ReplicationAction::FailoverOtherIsOff, global, say)
        }
    }
}

/// `replication enable`.
#[derive(Clone, Debug, Serialize)]
struct ReplicationEnabled {
    pool: String,
    config: String,
    invitation: String,
}

impl Document for ReplicationEnabled {
    const SCHEMA: &'static str = "vmhold.replication.enabled/v1";
}

fn enable(
    file: &Path,
    with: Introduction,
    (listen, advertised): (SocketAddr, String),
    hook: Option<&Path>,
    (global, say): (&Global, &Say),
) -> Result<Exit, Problem> {
    let config = StoreConfig::load(file)?;
    let hook = hook.map(|path| std::path::absolute(path).map_err(|error| unusable(path, &error))).transpose()?;
    if global.dry_run {
        let plan =
            Plan::would(format!("make {} the first of two sites, with {} as the other one", config.pool, with.address));
        say.document(plan, Plan::human);
        return Ok(Exit::Success);
    }
    let _sole_owner = place::lock(file)?;
    let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let (pair, invitation) = node::enable(&config, folder, with, (listen, &advertised))?;
    // The membership is beside the configuration, wherever both are moved.
    config.become_pair(PairConfig { membership: ".".into(), address_hook: hook, ..pair })?;
    let enabled = ReplicationEnabled {
        pool: config.pool.clone(),
        config: file.display().to_string(),
        invitation: invitation.to_string(),
    };
    Ok(say.done(enabled, |enabled| {
        format!(
            "{} is the first of two sites; serve it: vmhold serve --config {}\n\
             Keep this secret. At the other site:\n\n  vmhold pool create ... --pair-join {}\n\n\
             Everything is copied there while clients work.\n",
            enabled.pool, enabled.config, enabled.invitation
        )
    }))
}

fn order(pool: &str, action: ReplicationAction, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let client = appliance::patient_client(global)?;
    let is_severe = action.is_severe();
    if is_severe && !global.dry_run {
        let list: Envelope<ReplicationList> = client.get("/v1/replication")?;
        let list = list.into_result()?;
        let effect = list.0.iter().find(|pair| pair.pool == pool).map(|pair| action.effect(pair));
        consent::confirmed(global, pool, &effect.unwrap_or_default())?;
    }
    let body = serde_json::to_string(&ReplicationOrder { action }).expect("an order is one word");
    let path = format!("/v1/replication/{}", segment(pool));
    let confirm = (is_severe && !global.dry_run).then_some(pool);
    let call = Call { method: "POST", path: &path, body: Some(&body), confirm, ..change(global) };
    let done = client.change::<Replication>(&call)?;
    Ok(say.changed(&done, |pair, _| pair.human()))
}

/// Runs a verb of `site`.
pub fn sites(command: &SiteCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    match &command.action {
        SiteVerb::Show { listen } => show(listen.as_deref(), global, say),
        SiteVerb::Replace { pool, with, advertise } => {
            let order = SiteReplacement { introduction: with.clone(), advertise: advertise.clone() };
            replace(pool, &order, global, say)
        }
    }
}

fn replace(pool: &str, order: &SiteReplacement, global: &Global, say: &Say) -> Result<Exit, Problem> {
    // What is no introduction is refused before anybody is asked to type a name.
    let _ = order.introduction.parse::<Introduction>()?;
    let client = appliance::patient_client(global)?;
    if !global.dry_run {
        let list: Envelope<ReplicationList> = client.get("/v1/replication")?;
        let list = list.into_result()?;
        let effect = list.0.iter().find(|pair| pair.pool == pool).map(SiteReplacement::effect);
        consent::confirmed(global, pool, &effect.unwrap_or_default())?;
    }
    let body = serde_json::to_string(order).expect("only text");
    let path = format!("/v1/replication/{}/peer", segment(pool));
    let confirm = (!global.dry_run).then_some(pool);
    let call = Call { method: "POST", path: &path, body: Some(&body), confirm, ..change(global) };
    let done = client.change::<SiteReplaced>(&call)?;
    Ok(say.changed(&done, |done, _| done.human()))
}

fn show(listen: Option<&str>, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let membership = Membership::of(&global.dir)?;
    let (site, fingerprint) = (membership.site()?, membership.fingerprint()?);
    let introduction = match listen {
        None => None,
        // Read again: what is printed must be what the other site takes.
        Some(address) => {
            let text = Introduction { site, fingerprint, address: address.to_owned() }.to_string();
            Some(text.parse::<Introduction>()?.to_string())
        }
    };
    let shown = SiteShown {
        site: site.to_string(),
        name: membership.name.clone(),
        fingerprint: fingerprint.to_string(),
        witness: membership.address,
        introduction,
    };
    say.document(shown, |shown| {
        let name = shown.name.as_deref().unwrap_or("this site");
        let mut out =
            format!("{name}  {}\n  fingerprint {}\n  witness     {}\n", shown.site, shown.fingerprint, shown.witness);
        if let Some(introduction) = &shown.introduction {
            out.push_str(&format!(
                "At the first site of the pair:\n\n  vmhold pool create ... --pair-with {introduction}\n\n\
                 or, in place of a site that is lost, at the one that is left:\n\n  \
                 vmhold site replace POOL --with {introduction}\n\n"
            ));
        }
        out
    });
    Ok(Exit::Success)
}

//! `quickstart break site|link|witness` and `quickstart heal`.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use control::replication::ReplicationAction;
use control::{Exit, Problem, codes};
use rustix::process::Signal;

use super::{Changed, PairDemo, Running, SITES};
use crate::cli::Global;
use crate::quickstart::remove;
use crate::say::Say;

const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// What a demo of two sites can lose beside drives.
#[derive(Clone, Debug, Subcommand)]
pub enum Target {
    /// kill -9 a site; the one that serves, if none is named
    Site(SiteName),
    /// Cut the link between the sites
    Link,
    /// kill -9 the witness
    Witness,
}

/// What is made well again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Healed {
    /// Sites that were killed
    Site,
    /// The link that was cut
    Link,
    /// The witness that was killed
    Witness,
}

/// Which site.
#[derive(Clone, Debug, Args)]
pub struct SiteName {
    /// site-a or site-b
    pub name: Option<String>,
}

/// Breaks it.
pub fn hurt(demo: &PairDemo, target: &Target, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let dir = demo.shown.display().to_string();
    match target {
        Target::Witness => {
            kill(demo, None)?;
            // The next step must see what this one did: a site that believes in the witness would be
            // killed, and nobody could take over.
            demo.wait("that the witness is missed", global, |_, pair| !pair.witness.answers)?;
            let broken = Changed { what: "witness", site: None, pause_seconds: None };
            Ok(say.done(broken, |_| {
                format!("the witness was killed; nothing stops, and nobody could take over now\nwatch: vmhold replication status --dir {dir}\nback:  vmhold quickstart heal --dir {dir}\n")
            }))
        }
        Target::Link => {
            let (serving, _) = demo.serving_soon(global)?;
            demo.order(serving, ReplicationAction::CutLink, global)?;
            demo.wait("that the other site is missed", global, |_, pair| !pair.peer.answers)?;
            let broken = Changed { what: "link", site: None, pause_seconds: None };
            Ok(say.done(broken, |_| {
                format!("the link was cut; writes wait for 5 s at most, then {serving} goes on alone\nwatch: vmhold replication status --dir {dir}\nback:  vmhold quickstart heal link --dir {dir}\n")
            }))
        }
        Target::Site(SiteName { name }) => site(demo, name.as_deref(), global, say),
    }
}

fn site(demo: &PairDemo, name: Option<&str>, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let dir = demo.shown.display().to_string();
    let (serving, pair) = demo.serving_soon(global)?;
    let name = name.map_or(Ok(serving), known)?;
    let (is_serving, reasons) = (serving == name, pair.not_ready());
    if is_serving && !reasons.is_empty() {
        return Err(Problem::new(&codes::WOULD_LOSE_REDUNDANCY, format!("{name} is the only one that can serve now"))
            .why(reasons.join("; "))
            .step(format!("vmhold replication status --dir {dir}"))
            .note("a demo shows what is survived, and this would not be"));
    }
    kill(demo, Some(name))?;
    let begun = Instant::now();
    let other = if is_serving { Some(takes_over(demo, name, global)?) } else { None };
    let pause_seconds = other.map(|_| begun.elapsed().as_secs_f64());
    let broken = Changed { what: "site", site: Some(name.to_owned()), pause_seconds };
    Ok(say.done(broken, |broken| {
        let then = match (other, broken.pause_seconds) {
            (Some(other), Some(seconds)) => format!("{other} serves after {seconds:.1} s, on the same address"),
            _ => "the other one goes on".to_owned(),
        };
        format!("{name} was killed; {then}\nprove: vmhold quickstart check --dir {dir}\nback:  vmhold quickstart heal --dir {dir}\n")
    }))
}

/// The other site, as soon as it serves.
fn takes_over(demo: &PairDemo, killed: &str, global: &Global) -> Result<&'static str, Problem> {
    let dir = demo.shown.display();
    let other = demo.wait("that the other site serves", global, |site, _| site != killed);
    other.map(|(site, _)| site).map_err(|problem| problem.step(format!("vmhold quickstart heal --dir {dir}")))
}

fn known(name: &str) -> Result<&'static str, Problem> {
    SITES.into_iter().find(|site| *site == name || site.strip_prefix("site-") == Some(name)).ok_or_else(|| {
        Problem::new(&codes::NOT_FOUND, format!("no site {name:?}")).step(format!("sites: {}", SITES.join(", ")))
    })
}

/// Kills a site, or the witness.
fn kill(demo: &PairDemo, site: Option<&str>) -> Result<(), Problem> {
    let place = site.map_or_else(|| demo.witness(), |site| demo.site(site));
    let what = site.unwrap_or("the witness");
    let process = remove::process_of(&place)
        .ok_or_else(|| Problem::new(&codes::DEMO_NOT_RUNNING, format!("{what} does not run")))?;
    if process.signal(Signal::KILL) && process.wait(KILLED_WITHIN) {
        return Ok(());
    }
    Err(Problem::new(&codes::CONFLICT, format!("{what}, process {}, cannot be killed", process.pid)))
}

/// Makes well again what was hurt, or one of it, and waits until the pair is whole.
pub fn heal(demo: &PairDemo, what: Option<Healed>, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let begun = Instant::now();
    if what != Some(Healed::Link) {
        Running::start(demo, global)?.let_go()?;
    }
    if what.is_none_or(|what| what == Healed::Link) {
        for site in SITES.into_iter().filter(|site| demo.site(site).announced().is_some()) {
            demo.order(site, ReplicationAction::MendLink, global)?;
        }
    }
    let (site, _) = demo.wait("a pair in sync", global, |_, pair| pair.not_ready().is_empty())?;
    let healed = Changed { what: "heal", site: Some(site.to_owned()), pause_seconds: None };
    let dir = demo.shown.display().to_string();
    Ok(say.done(healed, |_| {
        let seconds = begun.elapsed().as_secs_f64();
        format!("both sites hold the same after {seconds:.1} s, {site} serves; failover is READY\nprove: vmhold quickstart check --dir {dir}\n")
    }))
}

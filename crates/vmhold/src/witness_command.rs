//! `witness`: the third place of a replicated datastore, served, asked, and told which sites
//! may ask it.

use std::time::{Duration, Instant};

use control::plan::Plan;
use control::{Document, Exit, Problem, codes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use witness_serve::client::WitnessClient;
use witness_serve::membership::Membership;
use witness_serve::status::{InvitationMade, SiteKnown, WitnessStatus};
use witness_serve::token::Token;
use witness_serve::{Question, WitnessConfig, WitnessReady};

use crate::cli::{Global, WitnessAction, WitnessCommand, WitnessServe};
use crate::consent::confirmed;
use crate::daemon::{Ending, tell_ready, told_to_stop};
use crate::log_lines;
use crate::process::ProcessId;
use crate::say::{Say, width};

const WITHIN: Duration = Duration::from_secs(10);

/// What a witness tells when its doors are open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WitnessAnnouncement {
    /// Its process.
    #[serde(flatten)]
    pub process: ProcessId,
    /// Where it answers.
    #[serde(flatten)]
    pub ready: WitnessReady,
}

impl Document for WitnessAnnouncement {
    const SCHEMA: &'static str = "vmhold.witness.serve/v1";
}

/// `witness test`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct WitnessTest {
    /// Where it was asked.
    address: String,
    /// Longest of a few round trips, the first of them with its handshake left out.
    round_trip_ms: f64,
    /// Datastores of this site that it keeps.
    pairs: usize,
}

impl Document for WitnessTest {
    const SCHEMA: &'static str = "vmhold.witness.test/v1";
}

/// Runs a verb of `witness`.
pub fn run(command: &WitnessCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    match &command.action {
        WitnessAction::Serve(serve) => self::serve(serve, global, say),
        WitnessAction::Status => {
            let status: WitnessStatus = on_runtime(async { nearest(global)?.document(&Question::Status).await })?;
            say.document(status, |status| status.human(width()));
            Ok(Exit::Success)
        }
        WitnessAction::Invite { site } if global.dry_run => {
            Ok(planned(say, Plan::would(format!("make a join token for {site}; an earlier one is good no more"))))
        }
        WitnessAction::Invite { site } => {
            let made: InvitationMade = local(global, Question::Invite { name: site.clone() })?;
            say.document(made, |made| {
                let InvitationMade { site, token, until } = made;
                format!("On {site}, until {until}, once:\n\n  vmhold witness add {token}\n\n")
            });
            Ok(Exit::Success)
        }
        WitnessAction::Remove { site } => remove(site, global, say),
        WitnessAction::Add { token } => add(token, global, say),
        WitnessAction::Test => test(global, say),
    }
}

fn serve(serve: &WitnessServe, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let config = WitnessConfig { dir: global.dir.clone(), listen: serve.listen, advertise: serve.advertise.clone() };
    log_lines::start("witness");
    let ending = Ending::catch()?;
    let doors_open = ending.doors_open();
    let say = *say;
    let announce = move |ready: &WitnessReady| {
        doors_open();
        tell(ready, say);
    };
    let served = witness_serve::serve(config, announce, told_to_stop(ending, serve.until_eof));
    served.inspect_err(|problem| tracing::error!(code = %problem.code(), "{}", problem.what()))?;
    Ok(Exit::Success)
}

fn tell(ready: &WitnessReady, say: Say) {
    tracing::info!(listen = %ready.listen, pairs = ready.pairs, sites = ready.sites, "serving");
    match ProcessId::own() {
        Some(process) => say.document(WitnessAnnouncement { process, ready: ready.clone() }, |said| {
            let WitnessReady { listen, fingerprint, .. } = &said.ready;
            format!("witness at {listen}\n  fingerprint {fingerprint}\n")
        }),
        None => tracing::error!("this system has no /proc; the process cannot be named"),
    }
    tell_ready();
}

fn remove(site: &str, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let effect = format!("{site} will not be answered any more: its datastores cannot fail over by themselves");
    if global.dry_run {
        return Ok(planned(say, Plan::would(effect).confirmed_by(site)));
    }
    confirmed(global, site, &effect)?;
    let gone: SiteKnown = local(global, Question::Remove { name: site.to_owned() })?;
    Ok(say.done(gone, |gone| format!("{} is removed\n", gone.name)))
}

fn add(token: &str, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let token: Token = token.parse()?;
    if global.dry_run {
        let effect = format!("add the site in {} to the witness at {}", global.dir.display(), token.address);
        return Ok(planned(say, Plan::would(effect)));
    }
    let membership = on_runtime(Membership::join(&global.dir, &token, within(global)))?;
    let site = Some(membership.site()?.to_string());
    let name = membership.name.clone().unwrap_or_default();
    let address = membership.address;
    Ok(say.done(SiteKnown { name, site }, |known| format!("{} is known at the witness {address}\n", known.name)))
}

fn planned(say: &Say, plan: Plan) -> Exit {
    say.document(plan, Plan::human);
    Exit::Success
}

/// Asks a few times; what is told is the slowest, since leases are made for that one.
fn test(global: &Global, say: &Say) -> Result<Exit, Problem> {
    let tested = on_runtime(async {
        let mut client = WitnessClient::of_site(&Membership::of(&global.dir)?, within(global))?;
        let mut status: WitnessStatus = client.document(&Question::Status).await?;
        let mut slowest = Duration::ZERO;
        for _ in 0..5 {
            let begun = Instant::now();
            status = client.document(&Question::Status).await?;
            slowest = slowest.max(begun.elapsed());
        }
        let round_trip_ms = slowest.as_secs_f64() * 1000.0;
        Ok(WitnessTest { address: client.address(), round_trip_ms, pairs: status.pairs.len() })
    })?;
    Ok(say.done(tested, |tested| {
        let WitnessTest { address, round_trip_ms, pairs } = tested;
        format!(
            "the witness at {address} answers in {round_trip_ms:.1} ms and keeps {pairs} of this site's datastores\n"
        )
    }))
}

/// The witness of the folder if it runs there, else the one that the site in it was added to.
fn nearest(global: &Global) -> Result<WitnessClient, Problem> {
    if witness_serve::is_in(&global.dir) {
        return Ok(WitnessClient::local(&global.dir, within(global)));
    }
    WitnessClient::of_site(&Membership::of(&global.dir)?, within(global))
}

/// What only the witness's own machine may ask.
fn local<T: DeserializeOwned>(global: &Global, question: Question) -> Result<T, Problem> {
    if !witness_serve::is_in(&global.dir) {
        let what = format!("{} is not the folder of a witness", global.dir.display());
        return Err(Problem::new(&codes::WITNESS_UNKNOWN, what)
            .step("run this on the witness's machine and name its folder: --dir DIR"));
    }
    on_runtime(async { WitnessClient::local(&global.dir, within(global)).document(&question).await })
}

fn within(global: &Global) -> Duration {
    global.timeout.unwrap_or(WITHIN)
}

fn on_runtime<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Problem::new(&codes::BUG, "no runtime could be started").why(error.to_string()))?;
    runtime.block_on(work)
}

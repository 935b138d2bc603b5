//! How two blank pools become a pair.
//!
//! Both are blank, so both hold the same, and the record may say *in sync* from the start: the first
//! site makes it so in three questions (*found*, *join*, *in sync*), writes down what came of them, and
//! invites. The second one takes that record as its own: whatever the first site has done since,
//! a blank pool is what both held at that moment, and what came later is brought over like after any
//! other absence. A pool can do so once: it is made by it.

use std::path::Path;
use std::time::Duration;

use base::{Epoch, Osn, PairId, SiteId, WallNanos};
use control::{Problem, codes};
use witness::{Ask, AskKind, Refusal, Standing, Transition, TransitionKind};
use witness_serve::client::WitnessClient;
use witness_serve::membership::Membership;
use world_real::BootClock;

use crate::pair::config::{Introduction, PairConfig, PairInvitation};
use crate::runtime;

/// Length of a lease: a secondary takes over after at most this and the takeover delay.
const LEASE_MS: u32 = 2000;
/// Version of the record when both are paired.
const PAIRED_VERSION: u64 = 3;
/// How long the witness may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What a pool needs to be made one of two.
#[derive(Clone, Debug)]
pub struct Founding {
    /// How the pair stands.
    pub(crate) standing: Standing,
    pub(crate) content_key: [u8; 32],
    pub(crate) handle_key: [u8; 16],
    /// For the configuration.
    pub config: PairConfig,
}

/// What the first site decides: who is who.
fn paired(pair: PairId, primary: SiteId, secondary: SiteId) -> Standing {
    Standing {
        pair,
        version: PAIRED_VERSION,
        epoch: Epoch(1),
        primary,
        secondary: Some(secondary),
        in_sync: true,
        in_sync_through: Osn(0),
        lease_ms: LEASE_MS,
        last: Transition { kind: TransitionKind::InSync, by: primary, at: WallNanos(0) },
    }
}

/// Makes the record of a new pair of the site whose membership is in `folder`, which becomes its
/// primary, and `peer`. Nothing is written at this site. With it comes the invitation for the other one.
///
/// # Errors
/// Without a membership, or when the witness does not answer or refuses.
pub fn found(
    folder: &Path,
    peer: Introduction,
    at: (std::net::SocketAddr, &str),
    datastore: Option<&str>,
) -> Result<(Founding, PairInvitation), Problem> {
    let membership = Membership::of(folder)?;
    let me = membership.site()?;
    if me == peer.site {
        return Err(Problem::new(&codes::BAD_INPUT, "a site cannot be paired with itself")
            .why("the introduction is the one of this site")
            .step("on the other site: vmhold site show --listen ADDRESS"));
    }
    let mut random = [0; 64];
    getrandom::fill(&mut random)
        .map_err(|error| Problem::new(&codes::BUG, "the system gives no random numbers").why(error.to_string()))?;
    let (mut pair, mut content_key, mut handle_key) = ([0; 16], [0; 32], [0; 16]);
    pair.copy_from_slice(&random[..16]);
    content_key.copy_from_slice(&random[16..48]);
    handle_key.copy_from_slice(&random[48..]);
    let pair = PairId(pair);
    let standing = runtime()?.block_on(agree(&membership, (pair, me), peer.site))?;
    let from = Introduction { site: me, fingerprint: membership.fingerprint()?, address: at.1.to_owned() };
    let invitation = PairInvitation { pair, content_key, handle_key, from };
    let config = config_of(pair, (peer, at.0), folder, datastore);
    Ok((Founding { standing, content_key, handle_key, config }, invitation))
}

/// What the second site needs to become the other half of the pair that it is invited to.
///
/// # Errors
/// Without a membership, or when this is the site that invites.
pub fn join(
    folder: &Path,
    invitation: &PairInvitation,
    listen: std::net::SocketAddr,
    datastore: Option<&str>,
) -> Result<Founding, Problem> {
    let membership = Membership::of(folder)?;
    let me = membership.site()?;
    if me == invitation.from.site {
        return Err(Problem::new(&codes::BAD_INPUT, "a site cannot be paired with itself")
            .why("the invitation is from this site"));
    }
    let PairInvitation { pair, content_key, handle_key, from } = invitation.clone();
    runtime()?.block_on(is_invited(&membership, (pair, me)))?;
    let standing = paired(pair, from.site, me);
    let config = config_of(pair, (from, listen), folder, datastore);
    Ok(Founding { standing, content_key, handle_key, config })
}

fn config_of(
    id: PairId,
    (peer, listen): (Introduction, std::net::SocketAddr),
    folder: &Path,
    datastore: Option<&str>,
) -> PairConfig {
    PairConfig {
        id,
        peer: peer.site,
        peer_fingerprint: peer.fingerprint,
        peer_address: peer.address,
        listen,
        membership: folder.to_owned(),
        datastore: datastore.map(str::to_owned),
        address_hook: None,
        out_of_sync_delay_ms: None,
    }
}

async fn agree(membership: &Membership, (pair, me): (PairId, SiteId), secondary: SiteId) -> Result<Standing, Problem> {
    let mut client = WitnessClient::of_site(membership, ANSWER_WITHIN)?;
    let clock = BootClock::start();
    let steps = [AskKind::Found { lease_ms: LEASE_MS }, AskKind::Join { secondary }, AskKind::InSync];
    for (seen_version, kind) in (0..).zip(steps) {
        let (_, verdict) = client.ask(&Ask { pair, from: me, seen_version, kind }, &clock).await?;
        verdict.outcome.map_err(|refusal| refused(&client, refusal))?;
    }
    Ok(paired(pair, me, secondary))
}

/// The witness says whom the pair takes in; and that nobody took over yet, since from then on a blank pool
/// is not what both held when they were paired.
async fn is_invited(membership: &Membership, (pair, me): (PairId, SiteId)) -> Result<(), Problem> {
    let mut client = WitnessClient::of_site(membership, ANSWER_WITHIN)?;
    let look = Ask { pair, from: me, seen_version: 0, kind: AskKind::Look };
    let (_, verdict) = client.ask(&look, &BootClock::start()).await?;
    let invited = verdict.standing.is_some_and(|standing| standing.secondary == Some(me) && standing.epoch == Epoch(1));
    if verdict.outcome.is_ok() && invited {
        return Ok(());
    }
    let why = match verdict.outcome {
        Err(refusal) => refusal.to_string(),
        Ok(_) => "the pair has another secondary, or has changed its primary since".to_owned(),
    };
    Err(Problem::new(&codes::BAD_INPUT, "this site is not the one that the invitation is for").why(why))
}

fn refused(client: &WitnessClient, refusal: Refusal) -> Problem {
    Problem::new(&codes::WITNESS_LOST, format!("the witness at {} makes no record of the pair", client.address()))
        .why(refusal.to_string())
}

//! How two pools become a pair.
//!
//! Both are blank, so both hold the same, and the record may say *in sync* from the start: the first
//! site makes it so in three questions (*found*, *join*, *in sync*), writes down what came of them, and
//! invites. The second one takes that record as its own: whatever the first site has done since,
//! a blank pool is what both held at that moment, and what came later is brought over like after any
//! other absence. A pool can do so once: it is made by it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base::{Epoch, Osn, PairId, SiteId, WallNanos};
use control::{Problem, codes};
use tokio::task::LocalSet;
use witness::{Ask, AskKind, Refusal, Standing, Transition, TransitionKind};
use witness_serve::client::WitnessClient;
use witness_serve::membership::Membership;
use world_real::BootClock;

use crate::config::StoreConfig;
use crate::pair::config::{Held, Introduction, PairConfig, PairInvitation};
use crate::{pool, runtime};

/// Length of a lease: a secondary takes over after at most this and the takeover delay.
const LEASE_MS: u32 = 2000;
/// Version of the record when both are paired.
const PAIRED_VERSION: u64 = 3;
/// How long the witness may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What a pool needs to be made one of two.
#[derive(Clone, Debug)]
pub struct Founding {
    /// How the pair stood when both were blank; none for a pool that is to be given a copy.
    pub(crate) standing: Option<Standing>,
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
    at: (SocketAddr, &str),
    datastore: Option<&str>,
) -> Result<(Founding, PairInvitation), Problem> {
    let membership = Membership::of(folder)?;
    let me = membership.site()?;
    if me == peer.site {
        return Err(with_itself("the introduction is the one of this site"));
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
    let invitation = PairInvitation { pair, held: Held::Nothing, content_key, handle_key, from };
    let config = config_of(pair, (peer, at.0), folder, datastore);
    Ok((Founding { standing: Some(standing), content_key, handle_key, config }, invitation))
}

/// What the second site needs to become the other half of the pair that it is invited to.
///
/// # Errors
/// Without a membership, or when this is the site that invites.
pub fn join(
    folder: &Path,
    invitation: &PairInvitation,
    listen: SocketAddr,
    datastore: Option<&str>,
) -> Result<Founding, Problem> {
    let membership = Membership::of(folder)?;
    let me = membership.site()?;
    if me == invitation.from.site {
        return Err(with_itself("the invitation is from this site"));
    }
    let PairInvitation { pair, held, content_key, handle_key, from } = invitation.clone();
    runtime()?.block_on(is_invited(&membership, (pair, me), held))?;
    let standing = (held == Held::Nothing).then(|| paired(pair, from.site, me));
    let config = config_of(pair, (from, listen), folder, datastore);
    Ok(Founding { standing, content_key, handle_key, config })
}

/// Makes the pool of `config`, which is not served now and may hold data, the first of two: what it holds is
/// the pair's. Its handles stay good, since the pair is numbered as the pool is. Asked again after a crash it
/// goes on from where it was.
///
/// # Errors
/// Where it is one of two already, is in use, has no membership, or the witness does not agree.
pub fn enable(
    config: &StoreConfig,
    folder: &Path,
    peer: Introduction,
    at: (SocketAddr, &str),
) -> Result<(PairConfig, PairInvitation), Problem> {
    if config.pair.is_some() {
        return Err(Problem::new(&codes::CONFLICT, format!("{} is one of two sites already", config.pool))
            .step("see how they stand: vmhold replication status"));
    }
    let membership = Membership::of(folder)?;
    let me = membership.site()?;
    if me == peer.site {
        return Err(with_itself("the introduction is the one of this site"));
    }
    let opened = async {
        let (engine, _, identity, _media) = pool::open(config, &world_real::real_world()).await?;
        Ok::<_, Problem>((PairId(engine.group().id().0), engine.content_key(), identity.handle_key))
    };
    let runtime = runtime()?;
    let (pair, content_key, handle_key) = LocalSet::new().block_on(&runtime, opened)?;
    runtime.block_on(take_in(&membership, (pair, me), peer.site))?;
    let from = Introduction { site: me, fingerprint: membership.fingerprint()?, address: at.1.to_owned() };
    let invitation = PairInvitation { pair, held: Held::Copy, content_key, handle_key, from };
    Ok((config_of(pair, (peer, at.0), folder, None), invitation))
}

fn with_itself(why: &str) -> Problem {
    Problem::new(&codes::BAD_INPUT, "a site cannot be paired with itself")
        .why(why)
        .step("on the other site: vmhold site show --listen ADDRESS")
}

fn config_of(
    id: PairId,
    (peer, listen): (Introduction, SocketAddr),
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
        check_every_seconds: None,
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

/// The record of a pair of which `me` holds the only copy, and `secondary` is to be given it.
async fn take_in(
    membership: &Membership,
    (pair, me): (PairId, SiteId),
    secondary: SiteId,
) -> Result<Standing, Problem> {
    let mut client = WitnessClient::of_site(membership, ANSWER_WITHIN)?;
    let clock = BootClock::start();
    let look = Ask { pair, from: me, seen_version: 0, kind: AskKind::Look };
    let (_, looked) = client.ask(&look, &clock).await?;
    let mut known = looked.standing;
    if known.is_some_and(|known| known.primary != me) {
        return Err(refused(&client, Refusal::NotPrimary));
    }
    loop {
        let kind = match known {
            None => AskKind::Found { lease_ms: LEASE_MS },
            Some(Standing { secondary: None, .. }) => AskKind::Join { secondary },
            Some(standing) if standing.secondary == Some(secondary) => return Ok(standing),
            Some(_) => AskKind::Leave,
        };
        let seen_version = known.map_or(0, |known| known.version);
        let (_, verdict) = client.ask(&Ask { pair, from: me, seen_version, kind }, &clock).await?;
        verdict.outcome.map_err(|refusal| refused(&client, refusal))?;
        known = verdict.standing;
    }
}

/// The witness says whom the pair takes in. Of two that were blank nobody may have taken over yet, since from
/// then on a blank pool is not what both held when they were paired; one that is given a copy must not be
/// believed to have it.
async fn is_invited(membership: &Membership, (pair, me): (PairId, SiteId), held: Held) -> Result<(), Problem> {
    let mut client = WitnessClient::of_site(membership, ANSWER_WITHIN)?;
    let look = Ask { pair, from: me, seen_version: 0, kind: AskKind::Look };
    let (_, verdict) = client.ask(&look, &BootClock::start()).await?;
    let fits = |standing: Standing| match held {
        Held::Nothing => standing.epoch == Epoch(1),
        Held::Copy => !standing.in_sync,
    };
    let invited = verdict.standing.is_some_and(|standing| standing.secondary == Some(me) && fits(standing));
    if verdict.outcome.is_ok() && invited {
        return Ok(());
    }
    let why = match verdict.outcome {
        Err(refusal) => refusal.to_string(),
        Ok(_) => "the pair has another secondary, or has changed since it was made".to_owned(),
    };
    Err(Problem::new(&codes::BAD_INPUT, "this site is not the one that the invitation is for").why(why))
}

fn refused(client: &WitnessClient, refusal: Refusal) -> Problem {
    Problem::new(&codes::WITNESS_LOST, format!("the witness at {} makes no record of the pair", client.address()))
        .why(refusal.to_string())
}

//! `inject`.

use std::time::Duration;

use control::client::{Call, Changed, Client, segment};
use control::inject::{FaultKind, FaultList, FaultOrder, FlipOrder, FlippedByte, InjectedFault};
use control::{Envelope, Exit, Problem, codes};

use crate::appliance::{self, change};
use crate::cli::{Global, InjectAction, InjectAt, InjectCommand};
use crate::consent;
use crate::pool_command::place_of;
use crate::say::{Say, width};

/// Runs a verb.
pub fn run(command: &InjectCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    match &command.action {
        InjectAction::Slow { at, delay } => inject(at, FaultKind::Slow, Some(*delay), global, say),
        InjectAction::Eio(at) => inject(at, FaultKind::Eio, None, global, say),
        InjectAction::LostWrite(at) => inject(at, FaultKind::LostWrite, None, global, say),
        InjectAction::Misplaced(at) => inject(at, FaultKind::Misplaced, None, global, say),
        InjectAction::Torn(at) => inject(at, FaultKind::Torn, None, global, say),
        InjectAction::Bits(at) => inject(at, FaultKind::Bits, None, global, say),
        InjectAction::Flip { pool, offset, file } => {
            flip(pool, FlipOrder { file: *file, offset_bytes: *offset }, global, say)
        }
        InjectAction::List { pool } => {
            let list = faults(&appliance::client(global)?, pool)?;
            say.envelope(&list, |list, _| list.human(width()));
            Ok(Exit::Success)
        }
        InjectAction::Stop { pool } => {
            let path = format!("/v1/pools/{}/faults/stop", segment(pool));
            let call = Call { method: "POST", path: &path, ..change(global) };
            let ended: Changed<FaultList> = appliance::client(global)?.change(&call)?;
            Ok(say.changed(&ended, |ended, _| ended.stopped(pool)))
        }
    }
}

/// The faults of `pool`.
pub fn faults(client: &Client, pool: &str) -> Result<Envelope<FaultList>, Problem> {
    client.get(&format!("/v1/pools/{}/faults", segment(pool)))
}

fn inject(
    at: &InjectAt,
    kind: FaultKind,
    delay: Option<Duration>,
    global: &Global,
    say: &Say,
) -> Result<Exit, Problem> {
    let (pool, slot) = place_of(&at.id)?;
    let order = FaultOrder {
        slot,
        kind,
        percent: at.percent,
        delay_ms: delay.map(whole_ms).transpose()?,
        seconds: at.lasts.as_secs(),
    };
    order.check()?;
    if !global.dry_run {
        consent::confirmed(global, pool, &order.plan(pool).would[0])?;
    }
    let begun = post(&appliance::client(global)?, pool, &order, global.dry_run)?;
    Ok(say.changed(&begun, |fault, _| fault.begun()))
}

fn flip(pool: &str, order: FlipOrder, global: &Global, say: &Say) -> Result<Exit, Problem> {
    if !global.dry_run {
        consent::confirmed(global, pool, &order.plan(pool).would[0])?;
    }
    let body = serde_json::to_string(&order).expect("an order is two numbers");
    let path = format!("/v1/pools/{}/faults/flip", segment(pool));
    let confirm = (!global.dry_run).then_some(pool);
    let call = Call { method: "POST", path: &path, body: Some(&body), confirm, ..change(global) };
    let done = appliance::client(global)?.change::<FlippedByte>(&call)?;
    Ok(say.changed(&done, |done, _| done.human()))
}

fn whole_ms(delay: Duration) -> Result<u64, Problem> {
    u64::try_from(delay.as_millis()).map_err(|_| Problem::new(&codes::BAD_INPUT, "--delay is too long"))
}

/// Orders a fault that its user has confirmed.
pub fn post(client: &Client, pool: &str, order: &FaultOrder, dry_run: bool) -> Result<Changed<InjectedFault>, Problem> {
    let body = serde_json::to_string(order).expect("a checked share is finite");
    let path = format!("/v1/pools/{}/faults", segment(pool));
    client.change(&Call { method: "POST", path: &path, body: Some(&body), confirm: Some(pool), dry_run })
}

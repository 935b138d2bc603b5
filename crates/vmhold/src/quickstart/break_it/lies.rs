//! Drives that do something wrong while they work: slow, failing, lying. The running server does
//! it at its drive ports (`vmhold inject`); this waits until it has happened once.

use std::time::{Duration, Instant};

use clap::Args;
use control::check::CheckpointReport;
use control::client::{Call, Changed, Client};
use control::inject::{FaultKind, FaultOrder, InjectedFault};
use control::{Envelope, Exit, Problem, codes};

use super::{Broken, LOOK_EVERY, number, wait_until_noticed};
use crate::appliance;
use crate::cli::Global;
use crate::inject_command;
use crate::place::Place;
use crate::quickstart::make::POOL;
use crate::quickstart::running;
use crate::say::Say;

/// A demo at rest writes with a checkpoint; a few of them may miss a small share.
const HIT_WITHIN: Duration = Duration::from_secs(20);

/// Which drive, how often and for how long.
#[derive(Clone, Debug, Args)]
pub struct Lie {
    /// Its number, as in 3 or flash0/3
    pub drive: String,
    /// Share of the requests that are hit
    #[arg(long, default_value_t = 20.0, value_name = "PERCENT")]
    pub percent: f64,
    /// When it ends by itself
    #[arg(long = "for", value_parser = humantime::parse_duration, value_name = "TIME", default_value = "30s")]
    pub lasts: Duration,
}

/// `break slow`, `break eio`, `break lost-write`, `break misplaced`, `break torn`.
pub(super) fn begin(
    lie: &Lie,
    (what, kind): (&'static str, FaultKind),
    delay: Option<Duration>,
    global: &Global,
    say: &Say,
) -> Result<Exit, Problem> {
    let place = Place::of(&global.dir);
    let (manifest, _) = running(&place, global)?;
    let number = number(&lie.drive, &manifest)?;
    let order = FaultOrder {
        slot: u32::from(number),
        kind,
        percent: lie.percent,
        delay_ms: delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        seconds: lie.lasts.as_secs(),
    };
    order.check()?;
    let client = appliance::client(global)?;
    // The name of the demo's pool is no secret: nothing of value is in it.
    let Changed::Done(_) = inject_command::post(&client, POOL, &order, false)? else { return Ok(Exit::Failed) };
    if kind.leaves_damage() {
        wait_until_hit(&client, number, global)?;
    }
    if kind == FaultKind::Eio && lie.percent >= 100.0 {
        wait_until_noticed(global, number)?;
    }
    let text = told(number, kind, lie, delay, global);
    let broken = Broken { what, drives: vec![number], how: None, bits: None, pid: None };
    Ok(say.done(broken, move |_| text.clone()))
}

fn told(number: u8, kind: FaultKind, lie: &Lie, delay: Option<Duration>, global: &Global) -> String {
    let (percent, dir) = (lie.percent, global.dir.display());
    let (what, next) = match kind {
        FaultKind::Slow => (
            format!(
                "answers {percent} % of its requests {} late",
                humantime::format_duration(delay.unwrap_or_default())
            ),
            "late reads are answered from the other drives",
        ),
        FaultKind::Eio => {
            (format!("refuses {percent} % of its requests"), "its units are read around; too many, and it is put out")
        }
        FaultKind::LostWrite => (format!("loses {percent} % of its writes and says they are done"), LIES_FOUND),
        FaultKind::Misplaced => (format!("puts {percent} % of its writes in the wrong place"), LIES_FOUND),
        FaultKind::Torn => (format!("does {percent} % of its writes only in part"), LIES_FOUND),
        FaultKind::Bits => (format!("flips a bit in {percent} % of its requests"), LIES_FOUND),
    };
    let lasts = humantime::format_duration(lie.lasts);
    format!(
        "drive {number} {what}, for {lasts}\nnext: {next}\nwatch: vmhold pool show {POOL} --map --dir {dir}\nend it: vmhold inject stop {POOL} --dir {dir}\nprove: vmhold quickstart check --dir {dir}\n"
    )
}

const LIES_FOUND: &str = "every unit says whose, where and how new it is: found when read or scrubbed, and repaired";

/// Has the server write to its drives until the fault has struck.
fn wait_until_hit(client: &Client, number: u8, global: &Global) -> Result<(), Problem> {
    let begun = Instant::now();
    let drive = format!("{POOL}/{number}");
    let is_it = |fault: &InjectedFault| fault.is_on && fault.drive == drive;
    while begun.elapsed() < HIT_WITHIN {
        let call = Call { method: "POST", path: "/v1/checkpoint", ..Call::default() };
        let made: Envelope<CheckpointReport> = appliance::patient_client(global)?.call(&call)?;
        made.into_result()?;
        let faults = inject_command::faults(client, POOL)?.into_result()?;
        match faults.0.into_iter().find(|fault| is_it(fault)) {
            Some(fault) if fault.hits > 0 => return Ok(()),
            Some(_) => std::thread::sleep(LOOK_EVERY),
            None => break,
        }
    }
    Err(Problem::new(&codes::TIMED_OUT, format!("nothing was written to drive {number} that could be hit"))
        .step("give it load, or a larger share: --percent 100"))
}

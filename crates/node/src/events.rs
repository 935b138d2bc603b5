//! What happened below, as log lines; each is consumed, and so logged, here and once.

use std::rc::Rc;
use std::time::Duration;

use engine::Event;

use crate::shard::Shard;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Logs events of the engine and the group. Returns when the engine has stopped: the
/// store must be opened again. Says why.
pub(crate) async fn log_until_stopped(shard: Rc<Shard>) -> &'static str {
    let mut stopped = "it can no longer make acknowledged writes durable";
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for event in shard.engine.group().drain_events() {
            group_event(&event);
        }
        for event in shard.engine.take_events() {
            engine_event(&event);
            if let Event::Stopped { why } = event {
                stopped = why;
            }
        }
        if shard.engine.status().stopped {
            return stopped;
        }
    }
}

fn group_event(event: &raid::Event) {
    match event {
        raid::Event::DriveFailed { slot, reason } => {
            tracing::error!(code = "VH1021", slot = slot.0 + 1, ?reason, "drive failed; its units are read around");
        }
        raid::Event::DriveMissing { slot } => {
            tracing::error!(code = "VH1022", slot = slot.0 + 1, "drive is missing");
        }
        raid::Event::DriveJoined { slot, replaces } => {
            tracing::info!(code = "VH1081", slot = slot.0 + 1, replaces, "drive joined; new stripes use it");
        }
        raid::Event::DriveFilled { slot } => {
            tracing::info!(code = "VH1082", slot = slot.0 + 1, "drive holds everything it should");
        }
        raid::Event::UnitRepaired { stripe, slot, damage } => {
            tracing::warn!(code = "VH1031", %stripe, slot = slot.0 + 1, ?damage, "damaged unit repaired");
        }
        raid::Event::StripeLost { stripe } => {
            tracing::error!(code = "VH1032", %stripe, "stripe is damaged beyond repair");
        }
        raid::Event::Latched => tracing::error!(code = "VH1026", "no majority of the drives takes changes"),
    }
}

fn engine_event(event: &Event) {
    match event {
        Event::LegTakenIn => tracing::info!(code = "VH1051", "the journal leg that was lost holds everything again"),
        Event::LegNotTakenIn { refused } => {
            tracing::error!(code = "VH1051", %refused, "a journal leg that came back cannot be taken in");
        }
        Event::Stopped { why } => tracing::error!(code = "VH1026", why, "the store has stopped acknowledging"),
        other => tracing::error!(code = "VH1033", event = ?other, "stored data is damaged"),
    }
}

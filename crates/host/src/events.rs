//! What happened to disks, as log lines; each is consumed, and so logged, here and once.

use std::rc::Weak;
use std::time::Duration;

use cache::Event;

use crate::agent::Agent;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Logs events until the agent is gone.
pub(crate) async fn log_for_ever(agent: Weak<Agent>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(agent) = agent.upgrade() else { return };
        for (name, disk) in agent.disks() {
            for event in disk.take_events() {
                log(&name, &event);
            }
        }
    }
}

fn log(disk: &str, event: &Event) {
    match event {
        Event::BackingFails { fault } => {
            tracing::error!(code = "VH5041", disk, %fault, "the backing store fails; writes are absorbed, then they wait");
        }
        Event::BackingWorks { after } => {
            tracing::info!(
                code = "VH5041",
                disk,
                seconds = after.as_secs_f64(),
                "cleared: the backing store works again"
            );
        }
        Event::FlashFails => {
            tracing::error!(
                code = "VH5042",
                disk,
                "the flash fails; writes under wb wait, dirty data is destaged from memory"
            );
        }
        Event::Policy(policy) => tracing::info!(code = "VH5051", disk, policy = policy.word(), "policy in force"),
    }
}

//! Snapshots that are taken by themselves, and the oldest of them that go.
//!
//! What is due is decided from the list of snapshots alone ([`decide`]), so nothing has to be
//! remembered and a restart neither skips one nor takes two. Only snapshots that a schedule
//! took count and only they go; those that people took stay.

use std::rc::Rc;
use std::time::Duration;

use datastore::{Filesystem, Refusal, VmSchedule, VmSnapshot};
use jiff::Timestamp;

use crate::shard::Shard;
use crate::site_store::SiteStore;

/// What the names of scheduled snapshots start with.
const PREFIX: &str = "auto_";
/// How often schedules are looked at: they keep time within this.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is to be done for a VM now.
#[derive(Debug, Default, PartialEq, Eq)]
struct Due {
    /// A snapshot of this name is to be taken.
    take: Option<String>,
    /// These go.
    delete: Vec<String>,
}

/// A schedule took the snapshot of this name.
pub(crate) fn is_scheduled(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Decides for one VM. `snapshots` are all of it, oldest first.
fn decide(schedule: &VmSchedule, snapshots: &[VmSnapshot], now: Timestamp) -> Due {
    let scheduled: Vec<&VmSnapshot> = snapshots.iter().filter(|one| is_scheduled(&one.name)).collect();
    let now_ns = u64::try_from(now.as_nanosecond()).unwrap_or(0);
    let every_ns = schedule.every_seconds.saturating_mul(1_000_000_000);
    // A clock that was set back does not stop the schedule: what lies ahead of it counts as now.
    let is_due =
        scheduled.last().is_none_or(|newest| newest.created.0 > now_ns || now_ns - newest.created.0 >= every_ns);
    let name = format!("{PREFIX}{}", now.strftime("%Y-%m-%d_%H:%M:%S"));
    let take = Some(name).filter(|name| is_due && scheduled.iter().all(|one| one.name != *name));
    let there = scheduled.len() + usize::from(take.is_some());
    let surplus = there.saturating_sub(schedule.keep as usize);
    Due { take, delete: scheduled.into_iter().take(surplus).map(|one| one.name.clone()).collect() }
}

/// Takes and deletes what is due, for as long as the store is served.
pub(crate) async fn keep_schedules(shard: Rc<Shard>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Ok(fs) = shard.fs() else { continue };
        let Ok(schedules) = fs.vm_schedules().await else { continue };
        if schedules.is_empty() {
            continue;
        }
        let Ok(snapshots) = shard.snapshots_by_vm().await else { continue };
        for schedule in schedules {
            let own = snapshots.get(&(schedule.datastore.clone(), schedule.vm.clone()));
            if let Err(refusal) = tend(&fs, &schedule, own.map_or(&[][..], Vec::as_slice)).await {
                tracing::warn!(vm = schedule.vm, datastore = schedule.datastore, %refusal, "a scheduled snapshot was not taken");
            }
        }
    }
}

async fn tend(fs: &Filesystem<SiteStore>, schedule: &VmSchedule, snapshots: &[VmSnapshot]) -> Result<(), Refusal> {
    let (datastore, vm) = (schedule.datastore.as_str(), schedule.vm.as_str());
    let due = decide(schedule, snapshots, Timestamp::now());
    if let Some(name) = due.take {
        match fs.snapshot_vm(datastore, vm, &name).await {
            Ok(_) => tracing::info!(vm, datastore, snapshot = name, "scheduled snapshot"),
            // The VM is gone; its snapshots stay, and the schedule waits for it.
            Err(Refusal::NoEntry) => return Ok(()),
            Err(refusal) => return Err(refusal),
        }
    }
    for name in due.delete {
        fs.delete_vm_snapshot(datastore, vm, &name).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::WallNanos;

    fn schedule() -> VmSchedule {
        VmSchedule { datastore: "demo".into(), vm: "100".into(), every_seconds: 60, keep: 2 }
    }

    fn snapshot(name: &str, second: u64) -> VmSnapshot {
        let created = WallNanos(second * 1_000_000_000);
        VmSnapshot { datastore: "demo".into(), vm: "100".into(), name: name.into(), created, files: 1 }
    }

    fn at(second: i64, snapshots: &[VmSnapshot]) -> (bool, Vec<String>) {
        let due = decide(&schedule(), snapshots, Timestamp::from_second(second).unwrap());
        (due.take.is_some(), due.delete)
    }

    #[test]
    fn one_is_taken_when_it_is_due_and_the_oldest_go() {
        assert_eq!(at(1000, &[]), (true, vec![]));
        let one = [snapshot("auto_a", 1000)];
        assert_eq!(at(1059, &one), (false, vec![]));
        assert_eq!(at(1060, &one), (true, vec![]));
        let two = [snapshot("auto_a", 1000), snapshot("auto_b", 1060)];
        assert_eq!(at(1100, &two), (false, vec![]));
        assert_eq!(at(1120, &two), (true, vec!["auto_a".to_owned()]), "with the new one there are three");
    }

    #[test]
    fn what_people_took_neither_counts_nor_goes() {
        let mixed = [snapshot("mine", 900), snapshot("auto_a", 1000), snapshot("later", 1050)];
        assert_eq!(at(1059, &mixed), (false, vec![]));
        let many = [snapshot("mine", 1), snapshot("auto_a", 2), snapshot("auto_b", 3), snapshot("auto_c", 1000)];
        assert_eq!(at(1010, &many), (false, vec!["auto_a".to_owned()]));
    }

    #[test]
    fn a_clock_set_back_does_not_end_the_schedule() {
        assert_eq!(at(500, &[snapshot("auto_a", 1000)]), (true, vec![]));
    }
}

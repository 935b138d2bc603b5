//! Calls about VMs.

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use jiff::Timestamp;
use serde::Deserialize;

use crate::access::Role;
use crate::codes::{self, Code};
use crate::events::News;
use crate::extract::{Asked, Parts2, Parts3, Sent, confirmed};
use crate::guard::DryRun;
use crate::plan::Plan;
use crate::problem::Problem;
use crate::route::Route;
use crate::server::{Api, Reply, Shared, envelope};
use crate::text::{self, shell_word};
use crate::vm::{
    NewName, Vm, VmAssignment, VmChanged, VmDifference, VmLimits, VmList, VmSchedule, VmScheduleOrder, VmSnapshot,
    VmSnapshotList,
};

/// Their rows.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/v1/vms", "All VMs with their files and snapshots.", vms).answers::<VmList>(),
        Route::get("/v1/vms/{datastore}/{vm}", "One VM.", vm).answers::<Vm>(),
        Route::post("/v1/vms/{datastore}/{vm}/rename", "Gives a VM another name.", rename)
            .role(Role::Operator)
            .takes::<NewName>()
            .answers::<VmChanged>()
            .plans(),
        Route::post("/v1/vm-assignments/{datastore}", "Makes a file one of a VM's, or lets its path decide.", assign)
            .role(Role::Operator)
            .takes::<VmAssignment>()
            .answers::<VmAssignment>()
            .plans(),
        Route::post("/v1/vms/{datastore}/{vm}/schedule", "Has a VM snapshotted by itself, or ends that.", schedule)
            .role(Role::Operator)
            .takes::<VmScheduleOrder>()
            .answers::<VmScheduleOrder>()
            .plans(),
        Route::post("/v1/vms/{datastore}/{vm}/limits", "Says how much a VM may have and shall have.", limit)
            .role(Role::Operator)
            .takes::<VmLimits>()
            .answers::<VmLimits>()
            .plans(),
        Route::get("/v1/vms/{datastore}/{vm}/snapshots", "Snapshots of a VM, also of one that is gone.", snapshots)
            .answers::<VmSnapshotList>(),
        Route::post("/v1/vms/{datastore}/{vm}/snapshots", "Freezes all files of a VM at one point.", take_snapshot)
            .role(Role::Operator)
            .takes::<NewName>()
            .answers::<VmSnapshot>()
            .creates()
            .plans(),
        Route::delete("/v1/vms/{datastore}/{vm}/snapshots/{snapshot}", "Deletes a snapshot.", delete_snapshot)
            .role(Role::Operator)
            .answers::<VmSnapshot>()
            .plans()
            .confirms(),
        Route::post(
            "/v1/vms/{datastore}/{vm}/snapshots/{snapshot}/rollback",
            "Gives the files of a VM the content of a snapshot again; Confirm names the VM.",
            roll_back,
        )
        .role(Role::Operator)
        .answers::<VmChanged>()
        .parameter("file", "string", "Only the file at this path in the datastore.")
        .plans()
        .confirms(),
        Route::post("/v1/vms/{datastore}/{vm}/snapshots/{snapshot}/clone", "Makes a VM from a snapshot.", clone)
            .role(Role::Operator)
            .takes::<NewName>()
            .answers::<VmChanged>()
            .creates()
            .plans(),
        Route::get(
            "/v1/vms/{datastore}/{vm}/snapshots/{snapshot}/differences",
            "Ranges that differ from the VM as it is, or from a later snapshot.",
            differences,
        )
        .answers::<VmDifference>()
        .parameter("to", "string", "The later snapshot; the VM as it is if left away."),
    ]
}

/// All VMs with what they do.
pub(crate) async fn all(api: &Api) -> Result<Vec<Vm>, Problem> {
    let mut all = api.backend().vms().await?;
    let Some(mut now) = api.activity().now() else { return Ok(all) };
    for vm in &mut all {
        vm.now = Some(now.remove(&(vm.datastore.clone(), vm.name.clone())).unwrap_or_default());
    }
    Ok(all)
}

pub(crate) async fn find(api: &Api, datastore: &str, name: &str) -> Result<Vm, Problem> {
    let all = all(api).await?;
    all.into_iter().find(|vm| vm.datastore == datastore && vm.name == name).ok_or_else(|| {
        Problem::new(&codes::VM_NOT_FOUND, format!("no VM named {name:?} in datastore {datastore:?}"))
            .step("vmhold vm list")
    })
}

async fn find_snapshot(api: &Api, datastore: &str, vm: &str, name: &str) -> Result<VmSnapshot, Problem> {
    let all = api.backend().vm_snapshots(datastore.to_owned(), vm.to_owned()).await?;
    all.into_iter().find(|snapshot| snapshot.name == name).ok_or_else(|| {
        Problem::new(&codes::SNAPSHOT_NOT_FOUND, format!("VM {vm:?} has no snapshot named {name:?}"))
            .step(format!("vmhold vm snapshot list {}", shell_word(&format!("{datastore}/{vm}"))))
    })
}

/// Notes down what was done to a VM, for everyone who watches.
fn tell(api: &Api, code: &'static Code, (datastore, vm): (&str, &str), detail: String) {
    api.events().tell(News::happened(code, format!("{datastore}/{vm}"), detail), Timestamp::now());
}

async fn vms(State(api): Shared) -> Reply {
    Ok(envelope(None, VmList(all(&api).await?)))
}

async fn vm(State(api): Shared, Parts2(datastore, name): Parts2) -> Reply {
    Ok(envelope(None, find(&api, &datastore, &name).await?))
}

async fn rename(
    State(api): Shared,
    Parts2(datastore, name): Parts2,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(new): Sent<NewName>,
) -> Reply {
    new.check()?;
    if dry_run {
        find(&api, &datastore, &name).await?;
        let plan = Plan::would(format!("call VM {name} {} from now on, its snapshots too", new.name));
        return Ok(envelope(None, plan.and("leave its files where they are")));
    }
    let renamed = api.backend().rename_vm(datastore.clone(), name.clone(), new.name).await?;
    tell(&api, &codes::VM_RENAMED, (&datastore, &name), format!("it is called {} now", renamed.vm));
    Ok(envelope(None, renamed))
}

async fn assign(
    State(api): Shared,
    crate::extract::Named(datastore): crate::extract::Named,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(wish): Sent<VmAssignment>,
) -> Reply {
    if let Some(vm) = &wish.vm {
        NewName { name: vm.clone() }.check()?;
    }
    if dry_run {
        let whose = wish.vm.as_deref().map_or("whoever its path says".to_owned(), |vm| format!("VM {vm}"));
        return Ok(envelope(None, Plan::would(format!("make {} belong to {whose}", wish.path))));
    }
    Ok(envelope(None, api.backend().assign_to_vm(datastore, wish).await?))
}

async fn schedule(
    State(api): Shared,
    Parts2(datastore, vm): Parts2,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(order): Sent<VmScheduleOrder>,
) -> Reply {
    order.schedule.as_ref().map_or(Ok(()), VmSchedule::check)?;
    if dry_run {
        let there = find(&api, &datastore, &vm).await?;
        let plan = match order.schedule {
            Some(schedule) => Plan::would(format!("snapshot VM {} {}", there.name, schedule.human())),
            None => Plan::would(format!("end the snapshots that VM {} gets by itself", there.name)),
        };
        return Ok(envelope(None, plan.and("leave the snapshots that are there")));
    }
    Ok(envelope(None, api.backend().schedule_vm(datastore, vm, order).await?))
}

async fn limit(
    State(api): Shared,
    Parts2(datastore, vm): Parts2,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(limits): Sent<VmLimits>,
) -> Reply {
    limits.check()?;
    if dry_run {
        let there = find(&api, &datastore, &vm).await?;
        let plan = Plan::would(format!("give VM {} these limits: {}", there.name, limits.human()));
        return Ok(envelope(None, plan.and(format!("instead of: {}", there.limits.human()))));
    }
    let limited = api.backend().limit_vm(datastore.clone(), vm.clone(), limits).await?;
    tell(&api, &codes::VM_LIMITED, (&datastore, &vm), format!("limits from now on: {}", limited.human()));
    Ok(envelope(None, limited))
}

async fn snapshots(State(api): Shared, Parts2(datastore, vm): Parts2) -> Reply {
    Ok(envelope(None, VmSnapshotList(api.backend().vm_snapshots(datastore, vm).await?)))
}

async fn take_snapshot(
    State(api): Shared,
    Parts2(datastore, vm): Parts2,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(new): Sent<NewName>,
) -> Reply {
    new.check()?;
    if dry_run {
        let files = find(&api, &datastore, &vm).await?.files.len();
        if api.backend().vm_snapshots(datastore, vm.clone()).await?.iter().any(|there| there.name == new.name) {
            let what = format!("VM {vm:?} has a snapshot named {:?} already", new.name);
            return Err(Problem::new(&codes::SNAPSHOT_EXISTS, what).into());
        }
        return Ok(envelope(
            None,
            Plan::would(format!("freeze {} of VM {vm} as {}", text::files(files as u64), new.name)),
        ));
    }
    let taken = api.backend().snapshot_vm(datastore, vm, new.name).await?;
    let detail = format!("snapshot {} holds {}", taken.name, text::files(u64::from(taken.files)));
    tell(&api, &codes::SNAPSHOT_TAKEN, (&taken.datastore, &taken.vm), detail);
    Ok((StatusCode::CREATED, envelope(None, taken)).into_response())
}

async fn delete_snapshot(
    State(api): Shared,
    Parts3(datastore, vm, name): Parts3,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    headers: HeaderMap,
) -> Reply {
    let effect = format!("delete snapshot {name} of VM {vm}; what only it held is gone");
    if dry_run {
        find_snapshot(&api, &datastore, &vm, &name).await?;
        return Ok(envelope(None, Plan::would(effect).confirmed_by(&name)));
    }
    confirmed(&headers, &name, &effect)?;
    let deleted = api.backend().delete_vm_snapshot(datastore, vm, name).await?;
    let detail = format!("snapshot {} is gone", deleted.name);
    tell(&api, &codes::SNAPSHOT_DELETED, (&deleted.datastore, &deleted.vm), detail);
    Ok(envelope(None, deleted))
}

#[derive(Deserialize)]
struct Only {
    file: Option<String>,
}

async fn roll_back(
    State(api): Shared,
    Parts3(datastore, vm, name): Parts3,
    Asked(Only { file }): Asked<Only>,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    headers: HeaderMap,
) -> Reply {
    let whose = file.as_ref().map_or(String::new(), |file| format!(" to {file}"));
    let effect = format!("replace what VM {vm} wrote{whose} since snapshot {name} by the snapshot");
    if dry_run {
        find_snapshot(&api, &datastore, &vm, &name).await?;
        return Ok(envelope(None, Plan::would(effect).confirmed_by(&vm)));
    }
    confirmed(&headers, &vm, &effect)?;
    let detail = format!("{} as in snapshot {name}", file.as_deref().unwrap_or("all files"));
    let done = api.backend().roll_back_vm(datastore.clone(), vm.clone(), (name, file)).await?;
    tell(&api, &codes::VM_ROLLED_BACK, (&datastore, &vm), detail);
    Ok(envelope(None, done))
}

async fn clone(
    State(api): Shared,
    Parts3(datastore, vm, name): Parts3,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(new): Sent<NewName>,
) -> Reply {
    new.check()?;
    if dry_run {
        let files = find_snapshot(&api, &datastore, &vm, &name).await?.files;
        let plan = Plan::would(format!(
            "make VM {} of {} in snapshot {name} of {vm}",
            new.name,
            text::files(u64::from(files))
        ));
        return Ok(envelope(None, plan.and("share their blocks until one of the two writes them over")));
    }
    let detail = format!("from snapshot {name} of {vm}");
    let made = api.backend().clone_vm(datastore, vm, (name, new.name)).await?;
    tell(&api, &codes::VM_CLONED, (&made.datastore, &made.vm), detail);
    Ok((StatusCode::CREATED, envelope(None, made)).into_response())
}

#[derive(Deserialize)]
struct To {
    to: Option<String>,
}

async fn differences(State(api): Shared, Parts3(datastore, vm, from): Parts3, Asked(To { to }): Asked<To>) -> Reply {
    Ok(envelope(None, api.backend().compare_vm(datastore, vm, (from, to)).await?))
}

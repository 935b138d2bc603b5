//! `vm`.

use std::time::Duration;

use clap::{Args, Subcommand};
use control::activity::{Activity, Contributors, VmLatency};
use control::client::{Call, Client, segment};
use control::text::{files, shell_word};
use control::vm::{
    NewName, Vm, VmAssignment, VmChanged, VmDifference, VmLimits, VmList, VmSchedule, VmScheduleOrder, VmSnapshot,
    VmSnapshotList,
};
use control::{Envelope, Exit, Outcome, Problem, codes};
use jiff::Timestamp;

use crate::appliance::{self, change};
use crate::cli::Global;
use crate::consent;
use crate::say::{Say, width};

/// `vm`.
#[derive(Debug, Args)]
#[command(after_help = "\
A VM is named as in `vm list`, or as DATASTORE/VM where several datastores have one of that name.")]
pub struct VmCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: VmAction,
}

/// Verbs of `vm`.
#[derive(Debug, Subcommand)]
pub enum VmAction {
    /// All VMs, with what they do now
    List {
        /// Those with most of it first [default: by name]
        #[arg(long, value_enum)]
        sort: Option<VmOrder>,
    },
    /// One VM with its files and snapshots
    Show {
        /// Its name
        vm: String,
    },
    /// Where the time of a VM's operations goes, now and over time
    Latency {
        /// Its name
        vm: String,
        /// Of one disk only: its path in the datastore
        #[arg(long, value_name = "PATH")]
        disk: Option<String>,
        /// How far back, up to 90 days
        #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME", default_value = "10m")]
        last: Duration,
    },
    /// Which VMs did how much at a moment: who is in the way
    Contributors {
        /// The moment, as in 2026-11-20T09:14:07Z [default: now]
        #[arg(long, value_name = "TIME")]
        at: Option<Timestamp>,
    },
    /// How much a VM may have and shall have; without options, what is set
    #[command(after_help = "\
What counts are normalised requests: reading up to 8 KiB is one, every further 8 KiB is one
more, and writing is twice as much. A VM that has none shares fairly with the others.")]
    Qos {
        /// Its name
        vm: String,
        /// Not more than so many in a second
        #[arg(long, value_name = "N")]
        max: Option<u64>,
        /// Not less than so many in a second, before the others share what is left
        #[arg(long, value_name = "N")]
        min: Option<u64>,
        /// No limits any more
        #[arg(long, conflicts_with_all = ["max", "min"])]
        off: bool,
    },
    /// Give a VM another name; its files stay where they are
    Rename {
        /// Its name
        vm: String,
        /// The new one
        new: String,
    },
    /// Make a file one of a VM's, where its path does not say so
    Assign {
        /// The datastore
        datastore: String,
        /// Path of the file in it
        path: String,
        /// The VM [default: whoever the path says]
        vm: Option<String>,
    },
    /// Snapshots: all files of a VM at one point
    #[command(subcommand)]
    Snapshot(SnapshotAction),
    /// Have a VM snapshotted by itself
    Schedule {
        /// Its name
        vm: String,
        /// Time from one snapshot to the next, as in 15m or 1h
        #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME", required_unless_present = "off")]
        every: Option<Duration>,
        /// How many of these are kept
        #[arg(long, value_name = "N", default_value_t = 24)]
        keep: u32,
        /// Not any more; snapshots that are there stay
        #[arg(long, conflicts_with = "every")]
        off: bool,
    },
    /// Give a VM the content of a snapshot again; what it wrote since is gone
    Rollback {
        /// Its name
        vm: String,
        /// The snapshot
        snapshot: String,
    },
    /// Make a VM from a snapshot of another; blocks are shared
    Clone {
        /// Its name
        vm: String,
        /// Name of the new one
        new: String,
        /// The snapshot [default: one taken now]
        #[arg(long, value_name = "SNAPSHOT")]
        from: Option<String>,
    },
    /// What a VM changed since a snapshot, as ranges of its files
    Diff {
        /// Its name
        vm: String,
        /// The snapshot
        from: String,
        /// A later snapshot [default: the VM as it is]
        to: Option<String>,
    },
}

/// What VMs are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum VmOrder {
    /// Mean latency of its operations
    Latency,
    /// Operations in a second
    Ops,
    /// Space that is used
    Used,
}

impl VmOrder {
    /// What is not known comes last.
    fn value(self, vm: &Vm) -> f64 {
        let now = vm.now.as_ref();
        let value = match self {
            VmOrder::Latency => now.and_then(|now| now.latency_ms.total),
            VmOrder::Ops => now.map(Activity::operations_per_second),
            VmOrder::Used => Some(vm.files.iter().map(|file| file.used_bytes as f64).sum()),
        };
        value.unwrap_or(-1.0)
    }
}

/// Verbs of `vm snapshot`.
#[derive(Debug, Subcommand)]
pub enum SnapshotAction {
    /// All snapshots of a VM
    List {
        /// Its name
        vm: String,
    },
    /// Take one; the VM may run
    Create {
        /// Its name
        vm: String,
        /// Name of the snapshot [default: date and time]
        name: Option<String>,
    },
    /// Delete one; what only it held is given back
    Delete {
        /// Name of the VM
        vm: String,
        /// Name of the snapshot
        name: String,
    },
}

/// A VM that was named, found.
struct At {
    client: Client,
    datastore: String,
    vm: String,
}

impl At {
    fn find(global: &Global, named: &str) -> Result<At, Problem> {
        let client = appliance::client(global)?;
        if let Some((datastore, vm)) = named.split_once('/') {
            return Ok(At { client, datastore: datastore.to_owned(), vm: vm.to_owned() });
        }
        let all: Envelope<VmList> = client.get("/v1/vms")?;
        let found: Vec<Vm> = all.into_result()?.0.into_iter().filter(|vm| vm.name == named).collect();
        match found.as_slice() {
            [one] => Ok(At { client, datastore: one.datastore.clone(), vm: one.name.clone() }),
            [] => Err(Problem::new(&codes::VM_NOT_FOUND, format!("no VM named {named:?}"))
                .step("vmhold vm list")
                .step(format!("a VM that is gone is named with its datastore: DATASTORE/{named}"))),
            several => {
                let names: Vec<String> = several.iter().map(|vm| format!("{}/{}", vm.datastore, vm.name)).collect();
                Err(Problem::new(&codes::VM_AMBIGUOUS, format!("several VMs are named {named:?}"))
                    .step(format!("one of: {}", names.join(", "))))
            }
        }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/vms/{}/{}{rest}", segment(&self.datastore), segment(&self.vm))
    }

    fn snapshot(&self, name: &str, rest: &str) -> String {
        self.path(&format!("/snapshots/{}{rest}", segment(name)))
    }
}

fn body<T: serde::Serialize>(request: &T) -> String {
    serde_json::to_string(request).expect("a request holds only strings")
}

fn named(name: &str) -> Result<String, Problem> {
    let request = NewName { name: name.to_owned() };
    request.check()?;
    Ok(body(&request))
}

/// Runs a verb.
pub fn run(command: &VmCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    match &command.action {
        VmAction::List { sort } => {
            let mut list: Envelope<VmList> = appliance::client(global)?.get("/v1/vms")?;
            if let (Some(order), Outcome::Data(list)) = (sort, &mut list.outcome) {
                list.0.sort_by(|a, b| order.value(b).total_cmp(&order.value(a)));
            }
            say.envelope(&list, |list, _| list.human(width()));
            Ok(Exit::Success)
        }
        VmAction::Show { vm } => {
            let at = At::find(global, vm)?;
            let one: Envelope<Vm> = at.client.get(&at.path(""))?;
            say.envelope(&one, |one, _| one.human(width()));
            Ok(Exit::Success)
        }
        VmAction::Latency { vm, disk, last } => {
            let at = At::find(global, vm)?;
            let disk = disk.as_ref().map_or(String::new(), |disk| format!("&disk={}", segment(disk)));
            let path = at.path(&format!("/latency?last_seconds={}{disk}", last.as_secs()));
            let found: Envelope<VmLatency> = at.client.get(&path)?;
            say.envelope(&found, |found, _| found.human(width()));
            Ok(Exit::Success)
        }
        VmAction::Contributors { at } => {
            let at = at.map_or(String::new(), |at| format!("?at={}", segment(&at.to_string())));
            let found: Envelope<Contributors> = appliance::client(global)?.get(&format!("/v1/contributors{at}"))?;
            say.envelope(&found, |found, _| found.human(width()));
            Ok(Exit::Success)
        }
        VmAction::Qos { vm, max, min, off } => qos(global, say, vm, (*max, *min, *off)),
        VmAction::Rename { vm, new } => {
            let (at, body) = (At::find(global, vm)?, named(new)?);
            let call = Call { method: "POST", path: &at.path("/rename"), body: Some(&body), ..change(global) };
            let renamed = at.client.change::<VmChanged>(&call)?;
            Ok(say.changed(&renamed, |renamed, _| format!("VM {} is called {} now\n", at.vm, renamed.vm)))
        }
        VmAction::Assign { datastore, path, vm } => assign(global, say, (datastore, path, vm.as_deref())),
        VmAction::Snapshot(action) => snapshot(action, global, say),
        VmAction::Schedule { vm, every, keep, off: _ } => schedule(global, say, vm, (*every, *keep)),
        VmAction::Rollback { vm, snapshot } => roll_back(global, say, vm, snapshot),
        VmAction::Clone { vm, new, from } => clone(global, say, (vm, new), from.as_deref()),
        VmAction::Diff { vm, from, to } => {
            let at = At::find(global, vm)?;
            let to = to.as_ref().map_or(String::new(), |to| format!("?to={}", segment(to)));
            let path = at.snapshot(from, &format!("/differences{to}"));
            let found: Envelope<VmDifference> = at.client.get(&path)?;
            say.envelope(&found, |found, _| found.human(width()));
            Ok(Exit::Success)
        }
    }
}

fn assign(global: &Global, say: &Say, (datastore, path, vm): (&str, &str, Option<&str>)) -> Result<Exit, Problem> {
    let wish = VmAssignment { path: path.to_owned(), vm: vm.map(str::to_owned) };
    let (body, to) = (body(&wish), format!("/v1/vm-assignments/{}", segment(datastore)));
    let call = Call { method: "POST", path: &to, body: Some(&body), ..change(global) };
    let assigned = appliance::client(global)?.change::<VmAssignment>(&call)?;
    Ok(say.changed(&assigned, |assigned, _| match &assigned.vm {
        Some(vm) => format!("{} belongs to VM {vm}\n", assigned.path),
        None => format!("{} belongs to whoever its path says\n", assigned.path),
    }))
}

/// What is not said of the two stays as it is.
fn qos(
    global: &Global,
    say: &Say,
    vm: &str,
    (max, min, off): (Option<u64>, Option<u64>, bool),
) -> Result<Exit, Problem> {
    let at = At::find(global, vm)?;
    let there: Envelope<Vm> = at.client.get(&at.path(""))?;
    let Vm { limits, now, .. } = there.into_result()?;
    if max.is_none() && min.is_none() && !off {
        let held = now.and_then(|now| now.latency_ms.qos).filter(|ms| *ms > 0.0);
        say.document(limits, |limits| {
            let held = held.map_or(String::new(), |ms| format!("; held back {ms:.2} ms per operation now"));
            format!("VM {}: {}{held}\n", at.vm, limits.human())
        });
        return Ok(Exit::Success);
    }
    let wish = match off {
        true => VmLimits::default(),
        false => {
            VmLimits { max_per_second: max.or(limits.max_per_second), min_per_second: min.or(limits.min_per_second) }
        }
    };
    wish.check()?;
    let body = body(&wish);
    let call = Call { method: "POST", path: &at.path("/limits"), body: Some(&body), ..change(global) };
    let done = at.client.change::<VmLimits>(&call)?;
    Ok(say.changed(&done, |done, _| format!("VM {}: {}\n", at.vm, done.human())))
}

fn schedule(global: &Global, say: &Say, vm: &str, (every, keep): (Option<Duration>, u32)) -> Result<Exit, Problem> {
    let at = At::find(global, vm)?;
    let schedule = every.map(|every| VmSchedule { every_seconds: every.as_secs(), keep });
    schedule.as_ref().map_or(Ok(()), VmSchedule::check)?;
    let body = body(&VmScheduleOrder { schedule });
    let call = Call { method: "POST", path: &at.path("/schedule"), body: Some(&body), ..change(global) };
    let done = at.client.change::<VmScheduleOrder>(&call)?;
    Ok(say.changed(&done, |done, _| match done.schedule {
        Some(schedule) => format!("VM {} is snapshotted {}\n", at.vm, schedule.human()),
        None => format!("VM {} is snapshotted by hand only\n", at.vm),
    }))
}

fn snapshot(action: &SnapshotAction, global: &Global, say: &Say) -> Result<Exit, Problem> {
    match action {
        SnapshotAction::List { vm } => {
            let at = At::find(global, vm)?;
            let list: Envelope<VmSnapshotList> = at.client.get(&at.path("/snapshots"))?;
            say.envelope(&list, |list, _| list.human(width()));
            Ok(Exit::Success)
        }
        SnapshotAction::Create { vm, name } => {
            let at = At::find(global, vm)?;
            let body = named(&name.clone().unwrap_or_else(now))?;
            let call = Call { method: "POST", path: &at.path("/snapshots"), body: Some(&body), ..change(global) };
            let taken = at.client.change::<VmSnapshot>(&call)?;
            Ok(say.changed(&taken, |taken, _| {
                let (vm, name) = (&taken.vm, &taken.name);
                format!(
                    "snapshot {name} of VM {vm} holds {}; delete it: vmhold vm snapshot delete {} {}\n",
                    files(u64::from(taken.files)),
                    shell_word(vm),
                    shell_word(name)
                )
            }))
        }
        SnapshotAction::Delete { vm, name } => {
            let at = At::find(global, vm)?;
            if !global.dry_run && !global.yes {
                consent::confirmed(global, name, &format!("snapshot {name} of VM {} will be gone", at.vm))?;
            }
            let confirm = (!global.dry_run).then_some(name.as_str());
            let call = Call { method: "DELETE", path: &at.snapshot(name, ""), confirm, ..change(global) };
            let deleted = at.client.change::<VmSnapshot>(&call)?;
            Ok(say.changed(&deleted, |deleted, _| format!("snapshot {} of VM {} is gone\n", deleted.name, deleted.vm)))
        }
    }
}

/// Name of a snapshot that was given none.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%d_%H:%M:%S").to_string()
}

fn roll_back(global: &Global, say: &Say, vm: &str, snapshot: &str) -> Result<Exit, Problem> {
    let at = At::find(global, vm)?;
    if !global.dry_run {
        let effect = format!("what VM {} wrote since snapshot {snapshot} will be gone; shut it down first", at.vm);
        consent::confirmed(global, &at.vm, &effect)?;
    }
    let confirm = (!global.dry_run).then_some(at.vm.as_str());
    let call = Call { method: "POST", path: &at.snapshot(snapshot, "/rollback"), confirm, ..change(global) };
    let done = at.client.change::<VmChanged>(&call)?;
    Ok(say.changed(&done, |done, _| {
        let number = (done.files.len() + done.restored.len()) as u64;
        let are = if number == 1 { "is" } else { "are" };
        format!("{} of VM {} {are} as in snapshot {snapshot}\n{}", files(number), done.vm, done.remarks())
    }))
}

fn clone(global: &Global, say: &Say, (vm, new): (&str, &str), from: Option<&str>) -> Result<Exit, Problem> {
    let (at, body) = (At::find(global, vm)?, named(new)?);
    let from = match from {
        Some(from) => from.to_owned(),
        None if global.dry_run => {
            return Err(Problem::new(
                &codes::BAD_INPUT,
                "a clone of now is not planned, since it begins with a snapshot",
            )
            .step("name a snapshot: --from SNAPSHOT"));
        }
        None => {
            let name = format!("{}_for_{new}", now());
            let wish = named(&name)?;
            let call = Call { method: "POST", path: &at.path("/snapshots"), body: Some(&wish), ..change(global) };
            at.client.call::<VmSnapshot>(&call)?.into_result()?.name
        }
    };
    let call = Call { method: "POST", path: &at.snapshot(&from, "/clone"), body: Some(&body), ..change(global) };
    let made = at.client.change::<VmChanged>(&call)?;
    Ok(say.changed(&made, |made, _| {
        format!("VM {} has {}, from snapshot {from} of {}\n", made.vm, files(made.files.len() as u64), at.vm)
    }))
}

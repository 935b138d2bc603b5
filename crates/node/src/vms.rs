//! What the API asks about VMs, answered by the filesystem.

use std::collections::BTreeMap;

use control::text::shell_word;
use control::vm::{
    Vm, VmAssignment, VmChanged, VmDifference, VmExtent, VmFile, VmFileDifference, VmLimits, VmSchedule,
    VmScheduleOrder, VmSnapshot,
};
use control::vm_file::{FileClone, FileSnapshot};
use control::{Problem, codes};
use datastore::{CloneSource, FileRole, Refusal, VmName, VmSnapshot as Taken};
use jiff::Timestamp;

use crate::schedules::is_scheduled;
use crate::shard::Shard;

fn role(role: FileRole) -> String {
    let word = match role {
        FileRole::Disk => "disk",
        FileRole::Config => "config",
        FileRole::Nvram => "nvram",
        FileRole::Memory => "memory",
        FileRole::Lock => "lock",
        FileRole::Other => "other",
    };
    word.to_owned()
}

fn snapshot(taken: Taken) -> VmSnapshot {
    let Taken { datastore, vm, name, created, files } = taken;
    let created_at = Timestamp::from_nanosecond(i128::from(created.0)).unwrap_or_default();
    VmSnapshot { scheduled: is_scheduled(&name), datastore, vm, name, created_at, files }
}

/// What a refusal means for a VM as a whole.
fn refused(vm: &str, refusal: Refusal) -> Problem {
    Problem::new(&codes::VM_NOT_CHANGED, format!("VM \"{vm}\" cannot be changed")).why(refusal.to_string())
}

fn no_vm(datastore: &str, vm: &str) -> Problem {
    Problem::new(&codes::VM_NOT_FOUND, format!("no VM named \"{vm}\" in datastore \"{datastore}\""))
        .step("vmhold vm list")
}

fn no_snapshot(datastore: &str, vm: &str, name: &str) -> Problem {
    Problem::new(&codes::SNAPSHOT_NOT_FOUND, format!("VM \"{vm}\" has no snapshot named \"{name}\""))
        .step(format!("vmhold vm snapshot list {}", shell_word(&format!("{datastore}/{vm}"))))
}

fn no_snapshot_with(datastore: &str, vm: &str, name: &str, file: Option<&str>) -> Problem {
    let problem = no_snapshot(datastore, vm, name);
    match file {
        Some(file) => problem.why(format!("there is none of this name that holds {file}")),
        None => problem,
    }
}

fn exists(new: &str) -> Problem {
    Problem::new(&codes::VM_EXISTS, format!("there is a VM \"{new}\" already, or a file of one"))
}

impl Shard {
    pub(crate) async fn vms(&self) -> Result<Vec<Vm>, Problem> {
        let cannot = |refusal: Refusal| refused("", refusal);
        let mut vms = Vec::new();
        let schedules = self.fs()?.vm_schedules().await.map_err(cannot)?;
        let limits = self.fs()?.vm_limits().await.map_err(cannot)?;
        let mut snapshots = self.snapshots_by_vm().await.map_err(cannot)?;
        for found in self.fs()?.vms().await.map_err(cannot)? {
            let own = (found.datastore.clone(), found.name.clone());
            let snapshots = snapshots.remove(&own).unwrap_or_default();
            let files = found.files.into_iter().map(|file| VmFile {
                path: file.path,
                role: role(file.role),
                size_bytes: file.size_bytes,
                used_bytes: file.used_bytes,
            });
            let name = VmName { datastore: found.datastore.clone(), vm: found.name.clone() };
            let limits = limits.get(&name).map_or_else(VmLimits::default, |limits| VmLimits {
                max_per_second: limits.max_per_second,
                min_per_second: limits.min_per_second,
            });
            let own = schedules.iter().find(|own| own.datastore == found.datastore && own.vm == found.name);
            let schedule = own.map(|own| VmSchedule { every_seconds: own.every_seconds, keep: own.keep });
            vms.push(Vm {
                schedule,
                limits,
                now: None,
                datastore: found.datastore,
                name: found.name,
                files: files.collect(),
                snapshots: snapshots.into_iter().map(snapshot).collect(),
            });
        }
        Ok(vms)
    }

    /// All snapshots by datastore and VM, oldest first: read once, however many VMs there are.
    pub(crate) async fn snapshots_by_vm(&self) -> Result<BTreeMap<(String, String), Vec<Taken>>, Refusal> {
        let mut by_vm: BTreeMap<(String, String), Vec<Taken>> = BTreeMap::new();
        let fs = self.fs().map_err(|_| Refusal::Stopped)?;
        for datastore in fs.datastores() {
            for taken in fs.vm_snapshots(&datastore.name, None).await? {
                by_vm.entry((taken.datastore.clone(), taken.vm.clone())).or_default().push(taken);
            }
        }
        Ok(by_vm)
    }

    pub(crate) async fn rename_vm(&self, datastore: &str, vm: &str, new: &str) -> Result<VmChanged, Problem> {
        self.fs()?.rename_vm(datastore, vm, new).await.map_err(|refusal| match refusal {
            Refusal::NoEntry => no_vm(datastore, vm),
            Refusal::Exists => exists(new),
            refusal => refused(vm, refusal),
        })?;
        Ok(VmChanged { datastore: datastore.to_owned(), vm: new.to_owned(), ..VmChanged::default() })
    }

    pub(crate) async fn assign_to_vm(&self, datastore: &str, wish: VmAssignment) -> Result<VmAssignment, Problem> {
        let assigned = self.fs()?.assign_to_vm(datastore, &wish.path, wish.vm.as_deref()).await;
        assigned.map_err(|refusal| match refusal {
            Refusal::NoEntry => {
                Problem::new(&codes::NOT_FOUND, format!("no file \"{}\" in datastore \"{datastore}\"", wish.path))
            }
            refusal => refused(wish.vm.as_deref().unwrap_or(&wish.path), refusal),
        })?;
        Ok(wish)
    }

    pub(crate) async fn schedule_vm(
        &self,
        datastore: &str,
        vm: &str,
        order: VmScheduleOrder,
    ) -> Result<VmScheduleOrder, Problem> {
        let wish = order.schedule.map(|schedule| (schedule.every_seconds, schedule.keep));
        self.fs()?.schedule_vm(datastore, vm, wish).await.map_err(|refusal| match refusal {
            Refusal::NoEntry => no_vm(datastore, vm),
            refusal => refused(vm, refusal),
        })?;
        Ok(order)
    }

    pub(crate) async fn limit_vm(&self, datastore: &str, vm: &str, limits: VmLimits) -> Result<VmLimits, Problem> {
        let VmLimits { max_per_second, min_per_second } = limits;
        let wish = datastore::VmLimits { max_per_second, min_per_second };
        self.fs()?.limit_vm(datastore, vm, wish).await.map_err(|refusal| match refusal {
            Refusal::NoEntry => no_vm(datastore, vm),
            refusal => refused(vm, refusal),
        })?;
        Ok(limits)
    }

    pub(crate) async fn vm_snapshots(&self, datastore: &str, vm: &str) -> Result<Vec<VmSnapshot>, Problem> {
        let found = self.fs()?.vm_snapshots(datastore, Some(vm)).await.map_err(|refusal| match refusal {
            Refusal::NoEntry => {
                Problem::new(&codes::DATASTORE_NOT_FOUND, format!("no datastore named \"{datastore}\""))
            }
            refusal => refused(vm, refusal),
        })?;
        if found.is_empty() && self.fs()?.vm(datastore, vm).await.is_err() {
            return Err(no_vm(datastore, vm));
        }
        Ok(found.into_iter().map(snapshot).collect())
    }

    pub(crate) async fn snapshot_vm(&self, datastore: &str, vm: &str, name: &str) -> Result<VmSnapshot, Problem> {
        let taken = self.fs()?.snapshot_vm(datastore, vm, name).await;
        taken.map(snapshot).map_err(|refusal| match refusal {
            Refusal::NoEntry => no_vm(datastore, vm),
            Refusal::Exists => {
                let what = format!("VM \"{vm}\" has a snapshot named \"{name}\" already");
                Problem::new(&codes::SNAPSHOT_EXISTS, what)
            }
            refusal => refused(vm, refusal),
        })
    }

    pub(crate) async fn delete_vm_snapshot(
        &self,
        datastore: &str,
        vm: &str,
        name: &str,
    ) -> Result<VmSnapshot, Problem> {
        let deleted = self.fs()?.delete_vm_snapshot(datastore, vm, name).await;
        deleted.map(snapshot).map_err(|refusal| match refusal {
            Refusal::NoEntry => no_snapshot(datastore, vm, name),
            refusal => refused(vm, refusal),
        })
    }

    pub(crate) async fn roll_back_vm(
        &self,
        datastore: &str,
        vm: &str,
        (name, file): (String, Option<String>),
    ) -> Result<VmChanged, Problem> {
        let done = match &file {
            Some(path) => self.fs()?.roll_back_file(datastore, vm, (&name, path)).await,
            None => self.fs()?.roll_back_vm(datastore, vm, &name).await,
        };
        let done = done.map_err(|refusal| match refusal {
            Refusal::NoEntry => no_snapshot_with(datastore, vm, &name, file.as_deref()),
            refusal => refused(vm, refusal),
        })?;
        let datastore::RolledBack { files, restored, left } = done;
        Ok(VmChanged { datastore: datastore.to_owned(), vm: vm.to_owned(), files, restored, left })
    }

    pub(crate) async fn clone_vm(
        &self,
        datastore: &str,
        vm: &str,
        (name, new): (&str, &str),
    ) -> Result<VmChanged, Problem> {
        let made = self.fs()?.clone_vm(datastore, vm, name, new).await.map_err(|refusal| match refusal {
            Refusal::NoEntry => no_snapshot(datastore, vm, name),
            Refusal::Exists => exists(new),
            Refusal::BadArgument => {
                Problem::new(&codes::BAD_INPUT, format!("a clone of {vm} cannot be named \"{new}\""))
                    .why("its files would not be recognised as a VM of that name; VMs of Proxmox VE are numbers")
            }
            refusal => refused(vm, refusal),
        })?;
        let (datastore, vm) = (datastore.to_owned(), new.to_owned());
        Ok(VmChanged { datastore, vm, files: made.files, ..VmChanged::default() })
    }

    pub(crate) async fn file_snapshots(
        &self,
        datastore: &str,
        vm: &str,
        path: &str,
    ) -> Result<Vec<FileSnapshot>, Problem> {
        let held = self.fs()?.file_snapshots(datastore, vm, path).await.map_err(|refusal| match refusal {
            Refusal::NoEntry => no_vm(datastore, vm),
            refusal => refused(vm, refusal),
        })?;
        let one = |held: datastore::FileSnapshot| {
            let VmSnapshot { name, created_at, .. } = snapshot(held.taken);
            FileSnapshot { snapshot: name, created_at, size_bytes: held.size_bytes }
        };
        Ok(held.into_iter().map(one).collect())
    }

    pub(crate) async fn clone_file(&self, datastore: &str, wish: FileClone) -> Result<FileClone, Problem> {
        let snapshot = wish.snapshot.as_ref().map(|of| (of.vm.as_str(), of.name.as_str()));
        let from = CloneSource { path: &wish.path, snapshot };
        self.fs()?.clone_file(datastore, &from, &wish.to).await.map_err(|refusal| match (refusal, snapshot) {
            (Refusal::NoEntry, Some((vm, name))) => no_snapshot_with(datastore, vm, name, Some(&wish.path)),
            (Refusal::NoEntry, None) => {
                Problem::new(&codes::NOT_FOUND, format!("no file \"{}\" in datastore \"{datastore}\"", wish.path))
            }
            (Refusal::Exists, _) => exists(&wish.to),
            (refusal, _) => refused(&wish.to, refusal),
        })?;
        Ok(wish)
    }

    pub(crate) async fn compare_vm(
        &self,
        datastore: &str,
        vm: &str,
        (from, to): (String, Option<String>),
    ) -> Result<VmDifference, Problem> {
        let found =
            self.fs()?.compare_vm(datastore, vm, (&from, to.as_deref())).await.map_err(|refusal| match refusal {
                Refusal::NoEntry => no_snapshot(datastore, vm, to.as_deref().unwrap_or(&from)),
                refusal => refused(vm, refusal),
            })?;
        let extent =
            |extent: datastore::Extent| VmExtent { offset_bytes: extent.offset_bytes, length_bytes: extent.len_bytes };
        let files = found.into_iter().map(|file| VmFileDifference {
            path: file.path,
            older_size_bytes: file.size_bytes.0,
            newer_size_bytes: file.size_bytes.1,
            extents: file.extents.into_iter().map(extent).collect(),
        });
        let (datastore, vm) = (datastore.to_owned(), vm.to_owned());
        Ok(VmDifference { datastore, vm, from, to, files: files.collect() })
    }
}

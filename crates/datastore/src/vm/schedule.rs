//! Which VMs are snapshotted by themselves, how often, and how many of those are kept. When
//! one is due and what goes is decided by whoever has a calendar.

use engine::store::{Change, Store};

use crate::batch::Batch;
use crate::filesystem::{Filesystem, WHOLE};
use crate::format::{ScheduleRow, VMS, key_scheduled};
use crate::gate::Mode;
use crate::handle::DatastoreId;
use crate::refusal::Refusal;
use crate::table::all_rows;

/// A VM that is snapshotted by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmSchedule {
    /// The datastore.
    pub datastore: String,
    /// The VM.
    pub vm: String,
    /// Time from one snapshot to the next.
    pub every_seconds: u64,
    /// How many of them are kept.
    pub keep: u32,
}

impl<S: Store> Filesystem<S> {
    /// All schedules by datastore and VM.
    pub async fn vm_schedules(&self) -> Result<Vec<VmSchedule>, Refusal> {
        let mut found = Vec::new();
        for (key, value) in all_rows(&*self.store, VMS).await? {
            let Some((&3, rest)) = key.split_first() else { continue };
            let (id, vm) = rest.split_at_checked(4).ok_or(Refusal::Inconsistent)?;
            let id = DatastoreId(u32::from_be_bytes(id.try_into().map_err(|_| Refusal::Inconsistent)?));
            let row = ScheduleRow::of(&value).ok_or(Refusal::Inconsistent)?;
            // Rows of a datastore that is being deleted go with it.
            let Ok(datastore) = self.datastore(id) else { continue };
            found.push(VmSchedule {
                datastore: datastore.name.clone(),
                vm: String::from_utf8_lossy(vm).into_owned(),
                every_seconds: row.every_seconds.get(),
                keep: row.keep.get(),
            });
        }
        Ok(found)
    }

    /// From now on a VM is snapshotted every so many seconds and so many of these are kept;
    /// none ends it. Snapshots that are there stay.
    pub async fn schedule_vm(&self, datastore: &str, vm: &str, wish: Option<(u64, u32)>) -> Result<(), Refusal> {
        if wish.is_some_and(|(every_seconds, keep)| every_seconds == 0 || keep == 0) {
            return Err(Refusal::BadArgument);
        }
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let _turn = self.vm_turn.enter(WHOLE, Mode::Exclusive).await;
        if wish.is_some() {
            self.vm(datastore, vm).await?;
        }
        let id = self.named(datastore.as_bytes()).ok_or(Refusal::NoEntry)?.id;
        let key = key_scheduled(id, vm);
        let mut batch = Batch::default();
        batch.push(match wish {
            Some((every, keep)) => Change::Put { table: VMS, key, value: ScheduleRow::new(every, keep).to_row() },
            None => Change::Delete { table: VMS, key },
        });
        self.apply(batch).await
    }

    /// The schedule of a VM goes to its new name.
    pub(super) async fn move_schedule(
        &self,
        batch: &mut Batch,
        datastore: DatastoreId,
        (vm, new): (&str, &str),
    ) -> Result<(), Refusal> {
        let key = key_scheduled(datastore, vm);
        if let Some(row) = self.store.get(VMS, &key).await? {
            batch.push(Change::Put { table: VMS, key: key_scheduled(datastore, new), value: row.to_vec() });
            batch.push(Change::Delete { table: VMS, key });
        }
        Ok(())
    }

    /// The datastore is deleted, and with it the names, schedules and limits of its VMs.
    pub(crate) async fn drop_vm_rows_in(&self, datastore: DatastoreId) -> Result<(), Refusal> {
        let mut batch = Batch::default();
        for (key, _) in all_rows(&*self.store, VMS).await? {
            let own = key.get(1..5) == Some(&datastore.0.to_be_bytes()[..]);
            if own && matches!(key.first(), Some(1 | 3 | 4)) {
                batch.push(Change::Delete { table: VMS, key });
            }
        }
        self.apply(batch).await
    }
}

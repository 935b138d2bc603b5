//! How much VMs may have and shall have, as people have set it: kept in a table, and in force at
//! once.

use std::collections::BTreeMap;

use engine::store::{Change, Store};

use super::owners::VmName;
use crate::batch::Batch;
use crate::filesystem::{Filesystem, WHOLE};
use crate::format::{LimitsRow, VMS, key_limited};
use crate::gate::Mode;
use crate::handle::DatastoreId;
use crate::qos::VmLimits;
use crate::refusal::Refusal;
use crate::table::all_rows;

impl<S: Store> Filesystem<S> {
    /// All VMs that have limits.
    pub async fn vm_limits(&self) -> Result<BTreeMap<VmName, VmLimits>, Refusal> {
        let mut found = BTreeMap::new();
        for (key, value) in all_rows(&*self.store, VMS).await? {
            let Some((&4, rest)) = key.split_first() else { continue };
            let (id, vm) = rest.split_at_checked(4).ok_or(Refusal::Inconsistent)?;
            let id = DatastoreId(u32::from_be_bytes(id.try_into().map_err(|_| Refusal::Inconsistent)?));
            let row = LimitsRow::of(&value).ok_or(Refusal::Inconsistent)?;
            // Rows of a datastore that is being deleted go with it.
            let Ok(datastore) = self.datastore(id) else { continue };
            let name = VmName { datastore: datastore.name.clone(), vm: String::from_utf8_lossy(vm).into_owned() };
            found.insert(name, row.limits());
        }
        Ok(found)
    }

    /// From now on a VM has these limits, after restarts too; none end those it has.
    ///
    /// # Errors
    /// [`Refusal::NoEntry`] if there is no such VM; [`Refusal::BadArgument`] for a limit of 0 and a
    /// minimum above the maximum.
    pub async fn limit_vm(&self, datastore: &str, vm: &str, limits: VmLimits) -> Result<(), Refusal> {
        let VmLimits { max_per_second, min_per_second } = limits;
        let is_zero = [max_per_second, min_per_second].contains(&Some(0));
        if is_zero || min_per_second.zip(max_per_second).is_some_and(|(min, max)| min > max) {
            return Err(Refusal::BadArgument);
        }
        let _quiet = self.quiet.enter(WHOLE, Mode::Shared).await;
        let _turn = self.vm_turn.enter(WHOLE, Mode::Exclusive).await;
        let none = limits == VmLimits::default();
        if !none {
            self.vm(datastore, vm).await?;
        }
        let id = self.named(datastore.as_bytes()).ok_or(Refusal::NoEntry)?.id;
        let key = key_limited(id, vm);
        let mut batch = Batch::default();
        batch.push(match none {
            true => Change::Delete { table: VMS, key },
            false => Change::Put { table: VMS, key, value: LimitsRow::new(limits).to_row() },
        });
        self.apply(batch).await?;
        let name = VmName { datastore: datastore.to_owned(), vm: vm.to_owned() };
        self.qos.set_one(name, limits, self.world.clock.now());
        Ok(())
    }

    /// The limits of a VM go to its new name.
    pub(super) async fn move_limits(
        &self,
        batch: &mut Batch,
        datastore: DatastoreId,
        (vm, new): (&str, &str),
    ) -> Result<(), Refusal> {
        let key = key_limited(datastore, vm);
        if let Some(row) = self.store.get(VMS, &key).await? {
            batch.push(Change::Put { table: VMS, key: key_limited(datastore, new), value: row.to_vec() });
            batch.push(Change::Delete { table: VMS, key });
        }
        Ok(())
    }
}

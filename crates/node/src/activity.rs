//! What files did, in the words of the API: whose they are is looked up here.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use base::meter::{FileTimes, Interval, Meter};
use control::activity::{Measured, MeasuredFile};
use datastore::FileRole;
use engine::store::Store;

use crate::shard::Shard;

/// How often it is looked whether names have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Finding out takes a walk over all files; so long passes between two.
const FIND_OUT_EVERY: u32 = 5;

impl Shard {
    /// What was measured since this was asked before.
    pub(crate) fn measured(&self) -> Measured {
        let Interval { length_ns, files, .. } = self.engine.meter().map(Meter::take).unwrap_or_default();
        let Some(front) = self.front() else { return Measured::default() };
        let datastores: BTreeMap<u32, String> =
            front.fs.datastores().into_iter().map(|info| (info.id.0, info.name)).collect();
        let named = |times: FileTimes| {
            let owner = front.fs.owner_of(times.file);
            MeasuredFile {
                datastore: datastores.get(&times.datastore).cloned().unwrap_or_default(),
                disk: owner.as_ref().filter(|owner| owner.role == FileRole::Disk).map(|owner| owner.path.clone()),
                vm: owner.map(|owner| owner.vm.vm.clone()),
                kinds: times.kinds,
                spreads: times.spreads,
            }
        };
        Measured { seconds: length_ns as f64 / 1e9, files: files.into_iter().map(named).collect() }
    }
}

/// Finds out whose files are, again whenever names have changed.
pub(crate) async fn know_owners(shard: Rc<Shard>) {
    let mut rest = 0;
    loop {
        if rest == 0
            && let Some(front) = shard.front().filter(|front| front.fs.owners_are_outdated())
        {
            // What cannot be read now is asked for again.
            let _ = front.fs.know_owners().await;
            rest = FIND_OUT_EVERY;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        rest = rest.saturating_sub(1);
    }
}

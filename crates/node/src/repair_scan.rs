//! The repair scan of a store that is stopped, or that refuses to open: what the engine finds,
//! told by VM, path and range.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use base::FileId;
use base::port::World;
use control::repair_scan::{NotRestored, RepairScanReport};
use control::{Problem, codes};
use datastore::{Filesystem, Identity};
use engine::memory::MemoryStore;
use engine::store::{Change, Store, Table};
use engine::{Salvage, SalvagedFile};
use jiff::Timestamp;
use raid::DriveState;

use crate::config::StoreConfig;
use crate::pool;

/// Parts of files listed; what follows is counted.
const PARTS_LISTED: usize = 1000;
/// Changes put into the picture of the names at a time.
const CHANGES_AT_A_TIME: usize = 256;

/// Names of files and snapshots, as far as they are known.
#[derive(Default)]
struct Names {
    paths: BTreeMap<FileId, String>,
    vms: BTreeMap<FileId, String>,
}

/// Scans, and if metadata is damaged and `agree` does not object to what was found, makes it anew.
pub(crate) async fn run(
    config: &StoreConfig,
    world: &World,
    agree: impl FnOnce(&RepairScanReport) -> Result<bool, Problem>,
) -> Result<RepairScanReport, Problem> {
    let (started_at, begun) = (Timestamp::now(), Instant::now());
    let cannot = |why: String| {
        Problem::new(&codes::POOL_FAULTED, format!("pool \"{}\" cannot be scanned", config.pool)).why(why)
    };
    let (group, media) = pool::assemble(config, world).await?;
    let salvage = Salvage::scan(&group).await.map_err(|fault| cannot(fault.to_string()))?;
    let names = names_of(&salvage, world, pool::identity_of(&group, config.pair.as_ref()).await).await;
    let absent = group
        .status()
        .drives
        .iter()
        .filter(|drive| !matches!(drive.state, DriveState::Good | DriveState::Rebuilding))
        .count();
    let mut report = RepairScanReport { started_at, pool: config.pool.clone(), ..report_of(&salvage, &names) };
    report.drives_absent = absent as u64;
    report.seconds = begun.elapsed().as_secs_f64();
    if report.needed && agree(&report)? {
        if let Some(pair) = config.pair.as_ref().filter(|_| !report.is_complete()) {
            // The other site would go on believing that this copy is whole.
            return Err(cannot("it is one of two copies, and not all of it would come back".to_owned())
                .note(format!("nothing was changed; the other copy is at {}", pair.peer_address)));
        }
        let restored = salvage.restore(group, media.legs(), world.clone(), pool::options_of(config)).await;
        let opened = restored.map_err(|fault| cannot(fault.to_string()).note("nothing was changed"))?;
        // What the journal has lost is refused, as at any opening.
        for blocked in &opened.blocked {
            let (file, scope) = (blocked.tag.scope.file, blocked.tag.scope);
            let part = part_of(&names, file, (scope.offset_bytes, scope.length_bytes));
            report.not_restored.push(part);
            report.not_restored_count += 1;
        }
        report.restored = true;
        report.seconds = begun.elapsed().as_secs_f64();
    }
    Ok(report)
}

fn part_of(names: &Names, file: FileId, (offset_bytes, length_bytes): (u64, u64)) -> NotRestored {
    let path = names.paths.get(&file).cloned().unwrap_or_else(|| format!("#{file}"));
    NotRestored { vm: names.vms.get(&file).cloned(), path, offset_bytes, length_bytes }
}

fn report_of(salvage: &Salvage, names: &Names) -> RepairScanReport {
    let found = salvage.report();
    let is_whole = |file: &&SalvagedFile| file.lost.is_empty() && file.is_head_right;
    let guessed = found.files.iter().filter(|file| !file.is_head_right);
    let lost = found.files.iter().flat_map(|file| &file.lost);
    let mut parts: Vec<NotRestored> =
        lost.map(|range| part_of(names, range.file, (range.offset_bytes, range.len_bytes))).collect();
    parts.sort();
    let not_restored_count = parts.len() as u64;
    parts.truncate(PARTS_LISTED);
    RepairScanReport {
        needed: found.is_needed(),
        stripes_read: found.stripes,
        stripes_lost: found.stripes_lost,
        objects_found: found.objects,
        pages_lost: found.pages_lost,
        log_whole: found.log_says_all,
        files: found.files.len() as u64,
        files_whole: found.files.iter().filter(is_whole).count() as u64,
        files_may_be_missing: found.files_may_be_missing,
        names_may_be_missing: !found.tables_incomplete.is_empty(),
        sizes_guessed: guessed.map(|file| part_of(names, file.file, (0, 0)).path).collect(),
        not_restored: parts,
        not_restored_count,
        ..RepairScanReport::default()
    }
}

/// The names that the rows found give. Without the rows that a filesystem needs there are none.
async fn names_of(salvage: &Salvage, world: &World, identity: Identity) -> Names {
    let found = salvage.report();
    let mut changes = Vec::new();
    for table in 0..=u8::MAX - 32 {
        let table = Table(table);
        let rows = salvage.table(table).into_iter();
        changes.extend(rows.map(|(key, value)| Change::Put { table, key, value: value.to_vec() }));
    }
    for file in &found.files {
        changes.push(Change::CreateFile { file: file.file, at: base::WallNanos(0) });
        changes.push(Change::SetSize { file: file.file, size_bytes: file.size_bytes });
    }
    let store = Rc::new(MemoryStore::default());
    let mut changes = changes.into_iter().peekable();
    while changes.peek().is_some() {
        let some = changes.by_ref().take(CHANGES_AT_A_TIME).collect();
        if store.commit(some).await.is_err() {
            return Names::default();
        }
    }
    let mut names = Names::default();
    let Ok(fs) = Filesystem::open(store, world.clone(), identity).await else { return names };
    let files: BTreeSet<FileId> = found.files.iter().map(|file| file.file).collect();
    names.paths = fs.paths_of(&files).await.unwrap_or_default();
    for vm in fs.vms().await.unwrap_or_default() {
        names.vms.extend(vm.files.iter().map(|file| (file.file, vm.name.clone())));
    }
    for (snapshot, (vm, path)) in fs.snapshot_paths().await.unwrap_or_default() {
        names.paths.insert(snapshot, path);
        names.vms.insert(snapshot, vm);
    }
    names
}

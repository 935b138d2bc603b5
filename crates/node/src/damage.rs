//! What a check found, as people read it: files by their paths, blocks that follow each other as
//! one range.

use std::collections::{BTreeMap, BTreeSet};

use base::FileId;
use control::check::{Damage, DamageKind};
use control::text;
use engine::store::BLOCK_BYTES;
use engine::{Finding, Scrub};

use crate::shard::Shard;

/// Paths of files and of the snapshots of files.
pub(crate) type Names = BTreeMap<FileId, String>;

impl Shard {
    /// Names of the files that `findings` are about, as far as they can be told.
    pub(crate) async fn names_in(&self, findings: &[Finding]) -> Names {
        let files: BTreeSet<FileId> = findings.iter().filter_map(file_of).collect();
        if files.is_empty() {
            return Names::new();
        }
        let Ok(fs) = self.fs() else { return Names::new() };
        let mut names = fs.paths_of(&files).await.unwrap_or_default();
        let snapshots = fs.snapshot_paths().await.unwrap_or_default().into_iter();
        names.extend(snapshots.filter(|(file, _)| files.contains(file)).map(|(file, (_, path))| (file, path)));
        names
    }
}

fn file_of(finding: &Finding) -> Option<FileId> {
    match finding {
        Finding::Dangling { file, .. }
        | Finding::UsedBytes { file, .. }
        | Finding::ContentSum { file }
        | Finding::Unseen { file, .. }
        | Finding::Changes { file, .. }
        | Finding::Unreadable { file, .. } => Some(*file),
        Finding::References { .. } | Finding::LiveBytes { .. } => None,
    }
}

/// What a scrub could not repair. Units on absent drives are no damage: the state of the
/// pool tells of them.
pub(crate) fn damage_of_units(scrub: &Scrub) -> impl Iterator<Item = Damage> {
    [
        (scrub.stripes_lost, "stripes have too few good units left"),
        (scrub.units_unrepaired, "damaged units could not be rewritten"),
        (scrub.stripes_inconsistent, "stripes have parity that does not fit their data"),
        (scrub.objects_damaged, "objects are not what they say, in units that are whole"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| Damage {
        kind: DamageKind::Unreadable,
        place: "units".into(),
        detail: format!("{count} {what}"),
    })
}

/// Findings of an audit in words: first blocks that cannot be read, those that follow each other
/// as one range, then the others.
pub(crate) fn damages(findings: &[Finding], names: &Names) -> Vec<Damage> {
    let mut unreadable: BTreeSet<(FileId, u64)> = BTreeSet::new();
    let mut others = Vec::new();
    for finding in findings {
        match finding {
            Finding::Unreadable { file, offset_bytes, .. } => drop(unreadable.insert((*file, *offset_bytes))),
            other => others.push(damage_of(other, names)),
        }
    }
    let mut ranges: Vec<(FileId, u64, u64)> = Vec::new();
    for (file, offset_bytes) in unreadable {
        match ranges.last_mut().filter(|(of, from, len)| (*of, from + *len) == (file, offset_bytes)) {
            Some((_, _, len_bytes)) => *len_bytes += BLOCK_BYTES,
            None => ranges.push((file, offset_bytes, BLOCK_BYTES)),
        }
    }
    let lost = ranges.into_iter().map(|(file, offset_bytes, len_bytes)| Damage {
        kind: DamageKind::Unreadable,
        place: format!("{} at {offset_bytes}", name_of(file, names)),
        detail: format!("{} bytes are damaged beyond repair", text::count(len_bytes)),
    });
    lost.chain(others).collect()
}

fn name_of(file: FileId, names: &Names) -> String {
    names.get(&file).cloned().unwrap_or_else(|| format!("file #{file}"))
}

fn damage_of(finding: &Finding, names: &Names) -> Damage {
    let (kind, place, detail) = match finding {
        Finding::Dangling { file, offset_bytes, object } => (
            DamageKind::MissingObject,
            format!("{} at {offset_bytes}", name_of(*file, names)),
            format!("names object {object}, which does not exist"),
        ),
        Finding::References { object, counted, recorded } => (
            DamageKind::ReferenceCount,
            format!("object {object}"),
            format!("has {counted} references, {recorded} are recorded"),
        ),
        Finding::LiveBytes { stripe, counted, recorded } => (
            DamageKind::SpaceAccount,
            format!("stripe {stripe}"),
            format!("holds {counted} live bytes, {recorded} are recorded"),
        ),
        Finding::UsedBytes { file, counted, recorded } => {
            (DamageKind::SpaceAccount, name_of(*file, names), format!("uses {counted} bytes, {recorded} are recorded"))
        }
        Finding::ContentSum { file } => {
            (DamageKind::ContentSum, name_of(*file, names), "its content sum does not fit its blocks".into())
        }
        Finding::Unseen { file, offset_bytes } => (
            DamageKind::SpaceAccount,
            format!("{} at {offset_bytes}", name_of(*file, names)),
            "holds a block that no file, snapshot or clone sees".into(),
        ),
        Finding::Changes { file, offset_bytes } => (
            DamageKind::SpaceAccount,
            format!("{} at {offset_bytes}", name_of(*file, names)),
            "is not listed among the changes between snapshots as it is stored".into(),
        ),
        Finding::Unreadable { file, offset_bytes, .. } => (
            DamageKind::Unreadable,
            format!("{} at {offset_bytes}", name_of(*file, names)),
            "is damaged beyond repair".into(),
        ),
    };
    Damage { kind, place, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_follow_each_other_are_one_range_of_a_named_file() {
        let block = |file: u64, number: u64| Finding::Unreadable {
            object: base::ObjectId(7),
            file: FileId(file),
            offset_bytes: number * BLOCK_BYTES,
        };
        let findings =
            [block(9, 4), block(9, 2), Finding::ContentSum { file: FileId(9) }, block(9, 3), block(8, 4), block(9, 6)];
        let names = Names::from([(FileId(9), "/demo/disk.raw".to_owned())]);
        let said: Vec<String> =
            damages(&findings, &names).iter().map(|damage| format!("{}: {}", damage.place, damage.detail)).collect();
        assert_eq!(
            said,
            [
                "file #8 at 32768: 8,192 bytes are damaged beyond repair",
                "/demo/disk.raw at 16384: 24,576 bytes are damaged beyond repair",
                "/demo/disk.raw at 49152: 8,192 bytes are damaged beyond repair",
                "/demo/disk.raw: its content sum does not fit its blocks",
            ]
        );
    }
}

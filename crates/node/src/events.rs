//! What happened below, as log lines; each is consumed, and so logged, here and once.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use control::events::News;
use control::{Code, codes};
use engine::Event;
use jiff::Timestamp;
use raid::StripeId;

use crate::healer::words;
use crate::shard::Shard;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Logs events of the engine and the group. Returns when the engine has stopped: the
/// store must be opened again. Says why.
pub(crate) async fn log_until_stopped(shard: Rc<Shard>) -> &'static str {
    let mut stopped = "it can no longer make acknowledged writes durable";
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        shard.heed_wishes().await;
        shard.look_at_progress();
        let group = shard.engine.group().drain_events();
        group.iter().for_each(group_event);
        tell_repairs(&shard, &group);
        let full = group.iter().filter_map(|event| match event {
            raid::Event::DriveFilled { slot } => Some(u32::from(slot.0) + 1),
            _ => None,
        });
        full.for_each(|slot| shard.drive_is_full(slot));
        let retired = group.iter().filter_map(|event| match event {
            raid::Event::DriveRetired { slot } => Some(u32::from(slot.0) + 1),
            _ => None,
        });
        retired.for_each(|slot| shard.drive_is_retired(slot));
        tell_retirings(&shard, &group);
        let lost = shard.engine.take_lost_stripes();
        if !lost.is_empty() {
            tokio::task::spawn_local(tell_losses(shard.clone(), lost.into_iter().collect()));
        }
        for event in shard.engine.take_events() {
            engine_event(&shard, &event);
            if let Event::Stopped { why } = event {
                stopped = why;
            }
        }
        if shard.engine.status().stopped {
            return stopped;
        }
        if shard.pair.as_ref().is_some_and(|pair| pair.is_stopped()) {
            return "this site can no longer make durable what the pair has agreed on";
        }
    }
}

/// Files and ranges that the rebuild could not save, each by its path.
async fn tell_losses(shard: Rc<Shard>, stripes: BTreeSet<StripeId>) {
    let Ok(ranges) = shard.engine.lost_ranges(&stripes).await else {
        tracing::error!(
            code = "VH1032",
            stripes = stripes.len(),
            "stripes are lost; what they held cannot be told now"
        );
        return;
    };
    let files = ranges.iter().map(|range| range.file).collect();
    let paths = match shard.fs() {
        Ok(fs) => fs.paths_of(&files).await.unwrap_or_default(),
        Err(_) => BTreeMap::new(),
    };
    for range in &ranges {
        let path = paths.get(&range.file).cloned().unwrap_or_else(|| format!("#{}", range.file));
        let (offset_bytes, len_bytes) = (range.offset_bytes, range.len_bytes);
        tracing::error!(code = "VH1032", path, offset_bytes, len_bytes, "this part of the file is lost beyond repair");
    }
    if ranges.is_empty() {
        tracing::warn!(stripes = stripes.len(), "stripes are lost, and no file needs what they held");
    }
}

fn tell(shard: &Shard, code: &'static Code, object: String, detail: String) {
    shard.books.events.tell(News::happened(code, object, detail), Timestamp::now());
}

/// Repairs and losses come in hundreds; one event says how many there were. Drives that
/// fail are conditions, which the health of the pool raises and clears.
fn tell_repairs(shard: &Shard, events: &[raid::Event]) {
    let pool = &shard.config.pool;
    let mut repaired: BTreeMap<u16, u64> = BTreeMap::new();
    let mut lost = Vec::new();
    for event in events {
        match event {
            raid::Event::UnitRepaired { slot, .. } => *repaired.entry(u16::from(slot.0) + 1).or_default() += 1,
            raid::Event::StripeLost { stripe } => lost.push(*stripe),
            _ => {}
        }
    }
    if let Some(first) = lost.first() {
        let more = if lost.len() == 1 { "is".to_owned() } else { format!("and {} more are", lost.len() - 1) };
        let detail = format!("stripe {first} {more} damaged beyond repair; what they held: vmhold fsck");
        tell(shard, &codes::UNREPAIRABLE_UNIT, pool.clone(), detail);
    }
    for (slot, units) in repaired {
        let plural = if units == 1 { "unit" } else { "units" };
        tell(shard, &codes::UNIT_REPAIRED, format!("{pool}/{slot}"), format!("{units} damaged {plural} repaired"));
    }
}

/// A drive that is retired, or is not after all.
fn tell_retirings(shard: &Shard, events: &[raid::Event]) {
    let place = |slot: &raid::Slot| format!("{}/{}", shard.config.pool, u32::from(slot.0) + 1);
    for event in events {
        match event {
            raid::Event::DriveRetired { slot } => {
                tell(shard, &codes::DRIVE_RETIRED, place(slot), "another drive has its slot".to_owned());
            }
            raid::Event::TwinEnded { slot, why } => {
                tell(shard, &codes::RETIRING_ENDED, place(slot), format!("it keeps its slot: {}", ended(*why)));
            }
            _ => {}
        }
    }
}

fn group_event(event: &raid::Event) {
    match event {
        raid::Event::DriveFailed { slot, reason } => {
            let why = words(*reason);
            tracing::error!(code = "VH1021", slot = slot.0 + 1, why, "drive failed; its units are read around");
        }
        raid::Event::DriveMissing { slot } => {
            tracing::error!(code = "VH1022", slot = slot.0 + 1, "drive is missing");
        }
        raid::Event::DriveJoined { slot, replaces } => {
            tracing::info!(code = "VH1081", slot = slot.0 + 1, replaces, "drive joined; new stripes use it");
        }
        raid::Event::DriveFilled { slot } => {
            tracing::info!(code = "VH1082", slot = slot.0 + 1, "drive holds everything it should");
        }
        raid::Event::TwinBegun { slot } => {
            tracing::info!(code = "VH1086", slot = slot.0 + 1, "drive is being retired: a twin is filled from it");
        }
        raid::Event::DriveRetired { slot } => {
            tracing::info!(code = "VH1084", slot = slot.0 + 1, "drive is retired: its twin has its slot");
        }
        raid::Event::TwinEnded { slot, why } => {
            let why = ended(*why);
            tracing::warn!(code = "VH1085", slot = slot.0 + 1, why, "drive is not retired and keeps its slot");
        }
        raid::Event::UnitRepaired { stripe, slot, damage } => {
            tracing::warn!(code = "VH1031", %stripe, slot = slot.0 + 1, ?damage, "damaged unit repaired");
        }
        raid::Event::StripeLost { stripe } => {
            tracing::error!(code = "VH1032", %stripe, "stripe is damaged beyond repair");
        }
        raid::Event::Fenced { by } => tracing::error!(code = "VH1026", by, "another controller has taken the pool"),
        raid::Event::Latched => tracing::error!(code = "VH1026", "no majority of the drives takes changes"),
    }
}

/// Why a drive was not retired, in words.
fn ended(why: raid::TwinEnd) -> &'static str {
    match why {
        raid::TwinEnd::Failed(reason) => words(reason),
        raid::TwinEnd::Cancelled => "that was asked for",
        raid::TwinEnd::NotThere => "the drive that was to take its slot was not there at the start",
    }
}

fn engine_event(shard: &Shard, event: &Event) {
    match event {
        Event::LegTakenIn => tracing::info!(code = "VH1051", "the journal leg that was lost holds everything again"),
        Event::LegNotTakenIn { refused } => {
            tracing::error!(code = "VH1051", %refused, "a journal leg that came back cannot be taken in");
        }
        Event::Stopped { why } => tracing::error!(code = "VH1026", why, "the store has stopped acknowledging"),
        Event::ScrubDone { found } => {
            let (stripes, repaired) = (found.stripes, found.units_repaired);
            tracing::info!(code = "VH1034", stripes, repaired, "a scrub has read everything once");
        }
        Event::PageLost { page } => {
            let advice = "stop the store and see what a scan would restore: vmhold fsck --repair-scan --dry-run";
            tracing::error!(code = "VH1036", page, advice, "a page of metadata is damaged beyond repair");
            tell(shard, &codes::METADATA_DAMAGED, shard.config.pool.clone(), format!("page {page:#x} is lost"));
        }
        other => {
            tracing::error!(code = "VH1033", event = ?other, "stored data is damaged");
            tell(shard, &codes::REFERENCE_DAMAGED, shard.config.pool.clone(), format!("{other:?}"));
        }
    }
}

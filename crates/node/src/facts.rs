//! What the store knows, in the words of the API.

use std::rc::Rc;

use base::port::{Drive as _, LegKind};
use control::datastore::Datastore;
use control::pool::{Drive, DriveState, Journal, JournalKind, JournalLeg, Pool, PoolState, Rebuild, RebuildDrive};
use control::status::{Facts, NfsService};
use datastore::{DatastoreInfo, DatastoreOptions, Filesystem, RootUser};
use engine::Store;
use journal::LegState;

use world_real::RealDrive;

use crate::healer::{Bay, words};
use crate::io;
use crate::sample;
use crate::shard::Shard;
use crate::site_store::SiteStore;

impl Shard {
    /// Everything that `status` and its relatives show.
    pub(crate) fn facts(&self) -> Facts {
        self.look_at_progress();
        let samples = self.samples.borrow();
        let front = self.front();
        Facts {
            site: self.config.site.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            pools: vec![self.pool()],
            journal: self.journal(),
            replication: self.pair.as_ref().map(|pair| pair.facts(&self.config, self.front().is_some())),
            nfs: NfsService {
                host: self.ready.nfs.ip().to_string(),
                port: self.ready.nfs.port(),
                mount_port: self.ready.mount.port(),
                connections: Some(front.as_ref().map_or(0, |front| front.door.counts().open)),
                datastores: front.as_ref().map_or(0, |front| named(&front.fs) as u64),
                locks: true,
            },
            load: samples.0.load(&samples.1),
            latency_ms: samples.0.latency(&samples.1),
            memory: sample::memory(self),
            jobs: self.books.jobs.at_work(),
        }
    }

    fn pool(&self) -> Pool {
        let (group, status) = (self.engine.group().status(), self.engine.status());
        let (counters, raid) = (self.engine.counters(), self.engine.group().counters());
        let geometry = self.engine.group().next_geometry();
        let space = self.engine.space();
        let doubted = self.doubted_drives(&group.drives);
        Pool {
            name: self.config.pool.clone(),
            group: group.group.to_string(),
            owner_epoch: self.engine.group().owner_epoch(),
            state: match (group.state, status.stopped) {
                (_, true) | (raid::GroupState::Faulted, _) => PoolState::Faulted,
                (raid::GroupState::Online, _) => PoolState::Online,
                (raid::GroupState::Degraded, _) => PoolState::Degraded,
                (raid::GroupState::Critical, _) => PoolState::Critical,
            },
            stripe_data: geometry.map_or(0, |geometry| u32::from(geometry.data)),
            stripe_parity: geometry.map_or(0, |geometry| u32::from(geometry.parity)),
            failures_tolerated: Some(u32::from(group.failures_tolerated).saturating_sub(doubted.len() as u32)),
            failures_tolerated_normally: match group.drives.len() {
                0 | 1 => 0,
                2 => 1,
                _ => 2,
            },
            usable_bytes: Some(space.total_bytes),
            used_bytes: Some(space.total_bytes - space.free_bytes),
            free_bytes: Some(space.free_bytes),
            reserved_bytes: Some(status.reserved_bytes),
            logical_bytes: None,
            dedup_ratio: ratio(
                counters.blocks_destaged - counters.blocks_zero,
                counters.blocks_destaged - counters.blocks_zero - counters.blocks_shared,
            ),
            compression_ratio: ratio(
                (counters.blocks_destaged - counters.blocks_zero - counters.blocks_shared) * 8192,
                counters.stored_bytes,
            ),
            written_stripes: Some(raid.stripes_written),
            free_stripes: Some(status.stripes_free),
            last_scrub: self.last_scrub(),
            repaired_units: Some(raid.units_repaired),
            lost_stripes: Some(self.engine.group().stripes_lost() as u64),
            doubted_drives: doubted,
            expansions: self.past_expansions(),
            rebuild: self.engine.rebuild_status().as_ref().map(rebuild),
            lab: self.config.lab,
            faults: self.faults_on(),
            drives: group.drives.iter().map(|drive| self.drive(drive)).chain(self.spares(group.drives.len())).collect(),
            io: Some(io::pool(self.engine.group())),
        }
    }

    fn drive(&self, drive: &raid::DriveStatus) -> Drive {
        let rows = u64::from(self.engine.group().rows_per_segment()) * u64::from(self.engine.group().unit_bytes());
        let state = match drive.state {
            raid::DriveState::Good => DriveState::Online,
            raid::DriveState::Missing => DriveState::Missing,
            raid::DriveState::Failed => DriveState::Failed,
            raid::DriveState::Rebuilding => DriveState::Rebuilding,
        };
        Drive {
            pool: self.config.pool.clone(),
            slot: u32::from(drive.slot.0) + 1,
            path: drive.serial.clone(),
            serial: Some(drive.serial.clone()),
            state,
            reason: drive
                .fail_reason
                .map(|reason| words(reason).to_owned())
                .or_else(|| (drive.state == raid::DriveState::Missing).then(|| "not there since the start".to_owned()))
                .or_else(|| drive.twin.as_ref().map(|twin| self.retiring_words(drive.slot, &twin.serial)))
                .or_else(|| drive.slow.map(io::slow_words)),
            since: None,
            access: (!drive.access.is_empty()).then(|| drive.access.to_owned()),
            capacity_bytes: Some(u64::from(drive.extents_total) * rows),
            used_bytes: Some(u64::from(drive.extents_total - drive.extents_free) * rows),
            read_errors: Some(drive.io_errors),
            write_errors: None,
            check_errors: Some(drive.damaged_units),
            repaired_units: Some(drive.repaired_units),
            wear_percent: None,
            twin: drive.twin.as_ref().map(|twin| twin.serial.clone()),
            io: io::drive(self.engine.group(), drive),
        }
    }

    /// Spares, numbered behind the members.
    fn spares(&self, members: usize) -> Vec<Drive> {
        let spares = self.media.healer.spares();
        let spare = |(number, (bay, drive)): (usize, (Rc<Bay>, Rc<RealDrive>))| {
            let info = drive.info();
            Drive {
                pool: self.config.pool.clone(),
                slot: u32::try_from(members + number + 1).unwrap_or(u32::MAX),
                path: bay.path.display().to_string(),
                serial: Some(info.serial),
                state: DriveState::Spare,
                reason: None,
                since: None,
                access: Some(info.access.to_owned()),
                capacity_bytes: Some(info.capacity_bytes),
                used_bytes: Some(0),
                read_errors: None,
                write_errors: None,
                check_errors: None,
                repaired_units: None,
                wear_percent: None,
                twin: None,
                io: None,
            }
        };
        spares.into_iter().enumerate().map(spare).collect()
    }

    fn journal(&self) -> Journal {
        let status = self.engine.journal_status();
        let leg = |leg: &journal::LegStatus| JournalLeg {
            path: leg.name.clone(),
            kind: match leg.kind {
                LegKind::PersistentMemory => JournalKind::PersistentMemory,
                LegKind::SyncDevice if leg.name.starts_with("/dev/") => JournalKind::BlockDevice,
                LegKind::SyncDevice => JournalKind::File,
                LegKind::MemoryFile | LegKind::Simulated => JournalKind::Memory,
            },
            in_use: leg.state == LegState::Active,
            reason: (leg.state != LegState::Active).then(|| "it failed and is not written any more".to_owned()),
        };
        let mut legs: Vec<JournalLeg> = status.legs.iter().map(leg).collect();
        // A leg that was lost and taken in again is listed in its newest life.
        let in_use: Vec<String> = legs.iter().filter(|leg| leg.in_use).map(|leg| leg.path.clone()).collect();
        legs.retain(|leg| leg.in_use || !in_use.contains(&leg.path));
        legs.extend(self.legs_absent(&status));
        Journal {
            legs,
            capacity_bytes: Some(status.capacity_bytes),
            used_bytes: Some(status.fill_bytes),
            latched: status.latched,
            blocked_ranges: self.opened.blocked.len() as u64,
        }
    }

    /// Configured legs that were not there, or not of this journal, when it was opened.
    fn legs_absent(&self, status: &journal::JournalStatus) -> Vec<JournalLeg> {
        let paths = self.config.journal.iter().map(|path| std::path::absolute(path).unwrap_or(path.clone()));
        let names = paths.map(|path| path.display().to_string());
        let absent = names.filter(|name| !status.legs.iter().any(|leg| leg.name == *name));
        absent
            .map(|path| JournalLeg {
                kind: if path.starts_with("/dev/") { JournalKind::BlockDevice } else { JournalKind::File },
                path,
                in_use: false,
                reason: Some("it was not there, or not a leg of this journal, when the store started".to_owned()),
            })
            .collect()
    }

    /// Journal legs that records no longer go to.
    pub(crate) fn lost_legs(&self) -> Vec<std::path::PathBuf> {
        self.journal().legs.into_iter().filter(|leg| !leg.in_use).map(|leg| leg.path.into()).collect()
    }

    /// A datastore in the words of the API.
    pub(crate) fn datastore(&self, info: &DatastoreInfo) -> Datastore {
        let mounted = |(_, path): &(std::net::IpAddr, Vec<u8>)| {
            path.split(|&byte| byte == b'/').nth(1) == Some(info.name.as_bytes())
        };
        let front = self.front();
        Datastore {
            id: front.as_ref().map(|front| format!("{:016x}-{}", front.fs.pool(), info.id.0)),
            name: info.name.clone(),
            export: format!("/{}", info.name),
            created_at: None,
            files: None,
            logical_bytes: None,
            free_bytes: Some(self.engine.space().free_bytes),
            root_squash: info.options.root == RootUser::Squashed,
            allow: if info.options.clients == DatastoreOptions::open().clients {
                Vec::new()
            } else {
                info.options.clients.iter().map(ToString::to_string).collect()
            },
            mounts: front.map(|front| front.service.mounts().iter().filter(|mount| mounted(mount)).count() as u64),
        }
    }
}

fn named(fs: &Filesystem<SiteStore>) -> usize {
    fs.datastores().iter().filter(|info| !info.name.is_empty()).count()
}

fn rebuild(status: &engine::RebuildStatus) -> Rebuild {
    let drive = |drive: &engine::RebuildingDrive| RebuildDrive {
        slot: u32::from(drive.slot.0) + 1,
        started_at_stripe: drive.start.to_string(),
        units_total: drive.units_total,
        units_done: drive.units_total - drive.units_left,
        only_newer: drive.came_back,
    };
    Rebuild {
        pass: status.pass + 1,
        pointer: status.cursor.to_string(),
        drives: status.drives.iter().map(drive).collect(),
        stripes_lost: status.stripes_lost,
    }
}

fn ratio(of: u64, to: u64) -> Option<f64> {
    (to > 0).then(|| of as f64 / to as f64)
}

//! The media of one pool, which outlive the nodes that open it.

use engine::{Engine, OpenFault, Opened};
use raid::{DriveState, Group, GroupOptions};
use world_sim::{Rng, SimMedia, SimNode, SimWorld};

use crate::shape::Shape;

/// See the module's head.
pub struct Pool {
    /// The world it is in.
    pub world: SimWorld,
    /// What it looks like.
    pub shape: Shape,
    /// Its drives.
    pub drives: Vec<SimMedia>,
    /// A blank drive that may take the place of a lost one. No fault strikes it.
    pub spare: SimMedia,
    /// Its journal legs.
    pub legs: Vec<SimMedia>,
}

/// Why a pool was not opened.
#[derive(Debug)]
pub enum NotOpened {
    /// The group was refused.
    Group(raid::OpenRefused),
    /// The engine was refused.
    Engine(OpenFault),
}

impl Pool {
    /// Blank media of this shape.
    pub fn new(world: &SimWorld, shape: Shape) -> Pool {
        let drives = (0..shape.drives).map(|n| world.drive_media(&format!("drive{n}"), shape.drive_bytes)).collect();
        let spare = world.drive_media("spare", shape.drive_bytes);
        let legs = (0..shape.legs).map(|n| world.leg_media(&format!("leg{n}"), shape.leg_bytes)).collect();
        Pool { world: world.clone(), shape, drives, spare, legs }
    }

    /// Makes the group and the engine on it, and leaves both closed.
    pub async fn format(&self, node: &SimNode) {
        let shape = &self.shape;
        let options = GroupOptions {
            unit_bytes: shape.unit_bytes,
            data_width_max: shape.data_width_max,
            extent_bytes: shape.extent_bytes,
            ..GroupOptions::default()
        };
        let drives = self.drives.iter().map(|media| node.drive(media)).collect();
        let group = Group::create(drives, options, node.world()).await.expect("sound drives make a group");
        let legs: Vec<_> = self.legs.iter().map(|media| node.leg(media)).collect();
        Engine::format(&group, &legs, &node.world()).await.expect("sound legs make an engine");
    }

    /// Opens group and engine as `node`.
    pub async fn open(&self, node: &SimNode) -> Result<(Engine, Opened), NotOpened> {
        let drives = self.drives.iter().chain([&self.spare]).map(|media| node.drive(media)).collect();
        let group = Group::open(drives, None, node.world()).await.map_err(NotOpened::Group)?;
        let legs = self.legs.iter().map(|media| node.leg(media)).collect();
        let options = self.shape.options.clone();
        Engine::open(group, legs, node.world(), options).await.map_err(NotOpened::Engine)
    }

    fn all(&self) -> impl Iterator<Item = &SimMedia> {
        self.drives.iter().chain([&self.spare]).chain(&self.legs)
    }

    /// Ends the node's life; what is not durable may be lost in any subset.
    pub fn cut_power(&self, node: &SimNode) {
        node.kill();
        self.all().for_each(SimMedia::power_cut);
    }

    /// Ends the node's life; what the media completed stays.
    pub fn crash_process(&self, node: &SimNode) {
        node.kill();
        self.all().for_each(SimMedia::process_crash);
    }

    /// Lets the spare take the place of a drive that is out, if it is still blank. True if it
    /// joined.
    pub async fn use_spare(&self, node: &SimNode, engine: &Engine) -> bool {
        let drives = engine.group().status().drives;
        let is_used = self.is_spare_used(&drives);
        let out = drives.iter().find(|drive| drive.state == DriveState::Failed);
        match out.filter(|_| !is_used) {
            // What refuses it now (too many drives out, a crash between) is tried again.
            Some(out) => engine.join_drive(out.slot, node.drive(&self.spare)).await.is_ok(),
            None => false,
        }
    }

    fn is_spare_used(&self, drives: &[raid::DriveStatus]) -> bool {
        let is_twin =
            |drive: &raid::DriveStatus| drive.twin.as_ref().is_some_and(|twin| twin.serial == self.spare.name());
        drives.iter().any(|drive| drive.serial == self.spare.name() || is_twin(drive))
    }

    /// Begins to retire a drive behind the spare, if that is still blank; now and then one that is
    /// being retired is not after all. True if it was begun.
    pub async fn retire(&self, node: &SimNode, engine: &Engine, rng: &mut Rng) -> bool {
        let drives = engine.group().status().drives;
        let slot = drives[rng.index(drives.len())].slot;
        match engine.group().retiring() {
            Some(slot) if rng.percent(20) => {
                // What refuses it ends the pool, or is tried again.
                let _ = engine.cancel_retiring(slot).await;
                false
            }
            None if !self.is_spare_used(&drives) => engine.retire_drive(slot, node.drive(&self.spare)).await.is_ok(),
            _ => false,
        }
    }

    /// Keeps the fault budget honest: a drive or leg that the store no longer uses is
    /// lost, whatever its medium could do. Returns how many drives are not sound.
    pub fn retire_unused(&self, engine: &Engine) -> usize {
        for drive in engine.group().status().drives {
            let media = self.drives.iter().find(|media| media.name() == drive.serial);
            if let Some(media) = media.filter(|media| drive.state != DriveState::Good && !media.is_lost()) {
                media.set_gone(true);
            }
        }
        let legs = engine.journal_status().legs;
        for media in self.legs.iter().filter(|media| !media.is_lost()) {
            let active = |leg: &journal::LegStatus| leg.name == media.name() && leg.state == journal::LegState::Active;
            if !legs.iter().any(active) {
                media.set_gone(true);
            }
        }
        self.drives_unsound(engine)
    }

    /// How many drives of the group may lack something that the store counts on: those it
    /// does not use and those with damage that nothing has met yet. A stripe may have one
    /// unit on each of them.
    pub fn drives_unsound(&self, engine: &Engine) -> usize {
        let media = |serial: &str| self.drives.iter().chain([&self.spare]).find(|media| media.name() == serial);
        let has_damage = |serial: &str| media(serial).is_none_or(SimMedia::has_damage);
        let drives = engine.group().status().drives;
        drives.iter().filter(|drive| drive.state != DriveState::Good || has_damage(&drive.serial)).count()
    }
}

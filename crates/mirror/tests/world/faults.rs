//! What goes wrong, and is mended; by chance or by a script.

use super::*;

impl World {
    pub(super) fn fault(&mut self) {
        if !self.faulty {
            return;
        }
        let pause = self.rng.between(1, 2 * self.faults.every_ms);
        self.after(millis(pause), Event::Fault);
        let longest = [30, 500, 5000][self.rng.index(3)];
        let lasts = millis(self.rng.between(1, longest));
        match self.rng.below(11) {
            0..3 if self.faults.crashes => {
                let site = self.rng.index(2);
                self.crash(site);
                if self.rng.percent(15) {
                    self.crash(1 - site);
                }
            }
            3..5 if self.faults.cuts => {
                self.cuts.insert(Cut::Link);
                self.after(lasts, Event::Mend(Cut::Link));
            }
            5..7 => {
                if let Some(number) = self.link.as_ref().map(|link| link.number) {
                    self.break_link(number, None);
                }
            }
            7..9 if self.faults.witness => {
                let cut = if self.rng.percent(30) { Cut::WitnessDown } else { Cut::Witness(self.rng.index(2)) };
                self.cuts.insert(cut);
                self.after(lasts, Event::Mend(cut));
            }
            9 if self.faults.witness => self.grant = Grant::from(self.now, self.standing.lease()),
            10 if self.faults.cuts => {
                let site = self.rng.index(2);
                self.command(site, Command::HandOver);
            }
            _ => {}
        }
    }

    pub(super) fn mend(&mut self, cut: Cut) {
        self.cuts.remove(&cut);
        if cut == Cut::WitnessDown {
            self.grant = Grant::from(self.now, self.standing.lease());
        }
    }

    pub(super) fn crash(&mut self, at: usize) {
        let keep = self.rng.index(self.sites[at].disk.pending() + 1);
        let longest = [5, 400, 6000][self.rng.index(3)].min(self.faults.down_ms_max);
        let down = millis(self.rng.between(1, longest));
        self.power_cut(at, keep, down);
    }

    pub(super) fn restart(&mut self, at: usize) {
        let now = self.clock(at);
        let site = &mut self.sites[at];
        if site.mirror.is_some() {
            return;
        }
        site.life += 1;
        site.stable_at = self.now;
        site.resync = None;
        site.mirror = Some(Mirror::new((self.config)(at), site.disk.kept.clone(), now));
        self.tell(at, Input::Tick);
        self.after(millis(1), Event::Connect);
    }

    /// Without chance and faults.
    pub fn scripted_world(script: Script) -> World {
        let faults = Faults { every_ms: 1 << 30, down_ms_max: 0, crashes: false, cuts: false, witness: false };
        let mut world = World::new(1, faults);
        world.script = Some(script);
        world.sites[0].drift = 0;
        world.sites[1].drift = 0;
        world.events.retain(|_, event| matches!(event, Event::Restart(_)));
        world
    }

    pub fn mirror(&self, site: usize) -> &Mirror {
        self.sites[site].mirror.as_ref().unwrap()
    }

    pub fn command(&mut self, site: usize, command: Command) {
        self.tell(site, Input::Command(command));
    }

    /// A write of one block by the first client; its number.
    pub fn write_block(&mut self, site: usize, block: u64) -> u64 {
        self.clients[0].op = None;
        self.clients[0].at = site;
        let stamp = self.stamp(0, 0, block);
        self.begin(0, Doing::Write(vec![stamp]));
        self.value
    }

    /// A read of one block by the first client.
    pub fn read_block(&mut self, site: usize, block: u64) {
        self.clients[0].op = None;
        self.clients[0].at = site;
        self.begin(0, Doing::Read(vec![(0, block)]));
    }

    /// What a block holds at a site.
    pub fn block(&self, site: usize, block: u64) -> u64 {
        let span = Span { file: FileId(1), offset_bytes: block * BLOCK_BYTES, length_bytes: BLOCK_BYTES };
        let (bytes, _) = self.sites[site].disk.store.read(&span);
        bytes.get(..8).map_or(0, number)
    }

    /// The last write comes to its site once more.
    pub fn repeat_last_write(&mut self) {
        let (to, link, bytes) = self.last_write.clone().unwrap();
        self.frame_arrives(to, link, &bytes);
    }

    pub fn stop_witness(&mut self, lasts: Duration) {
        self.cuts.insert(Cut::WitnessDown);
        self.after(lasts, Event::Mend(Cut::WitnessDown));
    }

    pub fn serves_now(&self) -> [bool; 2] {
        [self.serves(0), self.serves(1)]
    }

    /// Whether a site has what the script did.
    pub fn has_all(&self, site: usize) -> bool {
        let disk = &self.sites[site].disk;
        !disk.store.files.is_empty() || !disk.store.names.is_empty() || !disk.kept.prepared.is_empty()
    }

    pub fn begin_script(&mut self) {
        (0..2).for_each(|client| self.after(millis(1), Event::Client(client)));
    }

    pub fn is_answered(&self) -> bool {
        self.clients[0].sequence > 0 && self.clients[0].op.is_none()
    }

    pub fn pending(&self, site: usize) -> usize {
        self.sites[site].disk.pending()
    }

    /// A power cut that keeps so many records that were not stable; how long it is down.
    pub fn power_cut(&mut self, at: usize, keep: usize, down: Duration) {
        let site = &mut self.sites[at];
        if site.mirror.take().is_none() {
            return;
        }
        site.disk.cut(keep);
        if let Some(link) = &mut self.link {
            link.ends[at] = false;
            let number = link.number;
            self.break_link(number, Some(at));
        }
        self.after(down, Event::Restart(at));
    }

    pub fn cut_link(&mut self, lasts: Duration) {
        self.cuts.insert(Cut::Link);
        self.after(lasts, Event::Mend(Cut::Link));
    }

    pub fn cut_witness(&mut self, site: usize, lasts: Duration) {
        self.cuts.insert(Cut::Witness(site));
        self.after(lasts, Event::Mend(Cut::Witness(site)));
    }

    pub fn snap_link(&mut self) {
        if let Some(number) = self.link.as_ref().map(|link| link.number) {
            self.break_link(number, None);
        }
    }

    /// Writes of one block each, all at once.
    pub fn write_blocks(&mut self, count: u64) {
        for block in 0..count {
            let payload = Buf::copy_from_slice(&(block + 1).to_le_bytes());
            let write = Write { file: FileId(1), offset_bytes: block * BLOCK_BYTES, payload, at: WallNanos(0) };
            self.tell(0, Input::Client(OpId(1 << 40 | block), Request::Write(write)));
        }
    }

    /// Both lose power; of what was not stable any part is left.
    pub fn both_lose_power(&mut self, down: Duration) {
        for site in 0..2 {
            let keep = self.rng.index(self.sites[site].disk.pending() + 1);
            self.power_cut(site, keep, down);
        }
    }

    /// Blocks that differ between the sites, and of these the ones that no map lists.
    pub fn differing(&self, count: u64) -> (usize, usize) {
        let maps: BTreeSet<u64> =
            self.sites.iter().flat_map(|site| site.disk.kept.flights.iter()).map(|f| f.span.offset_bytes).collect();
        let differing = (0..count).filter(|block| self.block(0, *block) != self.block(1, *block));
        let (all, lost): (Vec<u64>, Vec<bool>) =
            differing.map(|block| (block, !maps.contains(&(block * BLOCK_BYTES)))).unzip();
        (all.len(), lost.into_iter().filter(|lost| *lost).count())
    }
}

//! What must hold at every moment, and in the end.

use super::*;

impl World {
    /// What must hold at every moment.
    pub(super) fn observe(&mut self) {
        let serving = [0, 1].map(|site| self.serves(site));
        assert!(serving != [true, true], "both sites serve");
        self.events_seen += 1;
        if self.standing.in_sync && (self.script.is_some() || self.events_seen.is_multiple_of(64)) {
            self.check_maps();
        }
    }

    /// I1: while the record says in sync, what differs on media is in the map of one site, or
    /// is prepared or committed and not settled. Decided by what a crash of both would leave.
    pub(super) fn check_maps(&self) {
        let [one, other] = [0, 1].map(|site| &self.sites[site].disk);
        let spans: Vec<Span> = [one, other].iter().flat_map(|disk| disk.kept.flights.iter()).map(|f| f.span).collect();
        for file in (0..FILES).map(|file| FileId(file + 1)) {
            let bytes = |disk: &Disk, at: usize| disk.store.files.get(&file).and_then(|file| file.get(at)).copied();
            for at in 0..BLOCKS * BLOCK_BYTES {
                let listed = |span: &Span| span.file == file && (span.offset_bytes..span.end_bytes()).contains(&at);
                let same = bytes(one, at as usize) == bytes(other, at as usize);
                let grown = spans.iter().any(|span| span.file == file && span.end_bytes() > at);
                assert!(same || spans.iter().any(listed) || grown, "byte {at} of {file} differs and is in no map");
            }
        }
        for name in 0..NAMES {
            let [mine, theirs] = [one, other].map(|disk| disk.store.names.get(&name));
            let open = |disk: &Disk| disk.kept.prepared.len() + disk.kept.commits.len();
            assert!(mine == theirs || open(one) + open(other) > 0, "name {name} differs and nothing is open");
        }
    }

    /// I2: what is acknowledged is stable on both, or the record says that the primary is alone and
    /// its resync has not come to the file.
    pub(super) fn check_shelves(&self, stamps: &[Stamp]) {
        for site in 0..2 {
            for stamp in stamps {
                let span = Span { file: FileId(stamp.file + 1), offset_bytes: stamp.block * 8, length_bytes: 8 };
                let (bytes, _) = self.sites[site].disk.store.read(&span);
                assert_eq!(bytes.get(..8).map(number), Some(self.value_of(*stamp)), "not stable at site {site}");
            }
        }
    }

    /// After all is mended: both sites hold the same, and what they hold is what was
    /// acknowledged.
    pub fn judge(&mut self) -> Result<usize, String> {
        for site in 0..2 {
            if !self.sites[site].mirror.as_ref().is_some_and(Mirror::is_whole) {
                return Err(format!("site {site} is not in sync long after the last fault: {:?}", self.standing));
            }
        }
        if !self.sites[0].disk.store.is_like(&self.sites[1].disk.store) {
            let stores = self.sites.iter().map(|site| format!("{:?}\n", site.disk.store)).collect::<String>();
            return Err(format!("the sites differ:\n{stores}"));
        }
        for site in &self.sites {
            if site.disk.kept.flights.count() > 0 || !site.disk.kept.prepared.is_empty() {
                return Err(format!("something is still in flight: {:?}", site.disk.kept));
            }
        }
        self.oracle.settle();
        let store = self.sites[0].disk.store.clone();
        for file in 0..FILES {
            for block in 0..BLOCKS {
                let read = self.oracle.read_started(file, block);
                let span = Span { file: FileId(file + 1), offset_bytes: block * 8, length_bytes: 8 };
                let (bytes, _) = store.read(&span);
                let value = if bytes.len() == 8 { number(&bytes) } else { 0 };
                self.oracle.read_returned(read, self.stamps.get(&value).copied());
            }
        }
        for name in 0..NAMES {
            let read = self.oracle.read_started(NAME_FILES + name, 0);
            let value = store.names.get(&name).copied().unwrap_or_default();
            self.oracle.read_returned(read, self.stamps.get(&value).copied());
        }
        self.oracle.verdict().map_err(|why| format!("{why:?}"))
    }
}

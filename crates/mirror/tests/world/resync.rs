//! Carries out resyncs: names and answers are one parcel, each file is one. They are sent whole,
//! whatever has changed in them; what is to be shown is when they are.

use super::*;

/// What the other site is told.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    Names(BTreeMap<u64, u64>, BTreeMap<Buf, Buf>),
    File(FileId, Option<Vec<u8>>, Option<WallNanos>),
}

/// What happens next in a resync.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Halts,
    Rest,
    Held(u64),
    Sends(u64),
    Told(u64),
    Levels,
}

/// Ranges are held under twice the number of the file, to end what is under way, and one more,
/// to keep it as it is.
const fn file_of(hold: u64) -> u64 {
    hold / 2
}

impl World {
    pub(super) fn goes_on(&mut self, site: usize, step: Step) {
        let Some(number) = self.sites[site].resync else { return };
        let delay = self.takes(Takes::Store, 10, 20_000);
        let life = self.sites[site].life;
        self.after(delay, Event::Course(site, life, number, step));
    }

    pub(super) fn course(&mut self, site: usize, number: u64, step: Step) {
        if self.sites[site].resync != Some(number) {
            return;
        }
        match step {
            Step::Halts => self.tell(site, Input::Resync(number, Progress::Halt)),
            Step::Rest => self.send_parcel(site, number, 0),
            Step::Held(hold) if hold % 2 == 0 => {
                let file = file_of(hold);
                self.tell(site, Input::Resync(number, Progress::Reached(FileId(file))));
                self.tell(site, Input::Release(hold));
                self.holds(site, number, hold + 1, locks::Use::Reads);
            }
            Step::Held(hold) => self.goes_on(site, Step::Sends(file_of(hold))),
            Step::Sends(file) => self.send_parcel(site, number, file),
            Step::Told(query) => {
                match query {
                    0 => {
                        self.tell(site, Input::Resync(number, Progress::Files { until: FileId(FILES) }));
                    }
                    file => self.tell(site, Input::Release(2 * file + 1)),
                }
                if query == FILES {
                    self.tell(site, Input::Resync(number, Progress::Drain));
                } else {
                    self.holds(site, number, 2 * (query + 1), locks::Use::Writes);
                }
            }
            Step::Levels => {
                self.seen.resynced += 1;
                self.sites[site].resync = None;
                self.tell(site, Input::Levelled(number));
            }
        }
    }

    fn holds(&mut self, site: usize, number: u64, hold: u64, usage: locks::Use) {
        let file = FileId(file_of(hold));
        self.tell(site, Input::Hold(number, hold, vec![locks::Want::whole(file, usage)]));
    }

    /// What is stable here of a file, or of all names.
    fn send_parcel(&mut self, site: usize, number: u64, query: u64) {
        let store = &self.sites[site].disk.store;
        let file = FileId(query);
        let parcel = match query {
            0 => Parcel::Names(store.names.clone(), store.answers.clone()),
            _ => Parcel::File(file, store.files.get(&file).cloned(), store.modified.get(&file).copied()),
        };
        self.parcels.push(parcel);
        let body = Buf::copy_from_slice(&(self.parcels.len() as u64 - 1).to_le_bytes());
        self.tell(site, Input::Query(number, query, body));
    }

    /// A parcel is taken over, for good.
    pub(super) fn asked(&mut self, site: usize, (link, osn): (u64, Osn), parcel: u64) {
        let store = &mut self.sites[site].disk.store;
        match self.parcels[parcel as usize].clone() {
            Parcel::Names(names, answers) => (store.names, store.answers) = (names, answers),
            Parcel::File(file, bytes, modified) => {
                match bytes {
                    Some(bytes) => drop(store.files.insert(file, bytes)),
                    None => drop(store.files.remove(&file)),
                }
                match modified {
                    Some(at) => drop(store.modified.insert(file, at)),
                    None => drop(store.modified.remove(&file)),
                }
            }
        }
        self.tell(site, Input::Reply(link, osn, Buf::new()));
    }
}

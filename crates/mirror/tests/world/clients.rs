//! Clients: each does one thing at a time and remembers what it was told.

use super::*;

impl World {
    pub fn stop_clients(&mut self) {
        self.stopped = true;
    }

    pub(super) fn stamp(&mut self, client: usize, file: u64, block: u64) -> Stamp {
        self.clients[client].sequence += 1;
        let stamp = Stamp { client: client as u64, sequence: self.clients[client].sequence, file, block };
        self.value += 1;
        self.stamps.insert(self.value, stamp);
        self.oracle.write_started(stamp);
        stamp
    }

    pub(super) fn value_of(&self, stamp: Stamp) -> u64 {
        *self.stamps.iter().rev().find(|(_, one)| **one == stamp).unwrap().0
    }

    pub(super) fn client_of(&self, op: OpId) -> Option<(usize, Doing)> {
        let of = |(at, client): (usize, &Client)| match &client.op {
            Some((now, doing)) if *now == op => Some((at, doing.clone())),
            _ => None,
        };
        self.clients.iter().enumerate().find_map(of)
    }

    pub(super) fn client(&mut self, client: usize) {
        if self.stopped || self.clients[client].op.is_some() {
            return;
        }
        if let Some(script) = self.script {
            return self.scripted(client, script.change);
        }
        let doing = match self.rng.below(10) {
            0..4 => {
                let (file, block, blocks) = self.any_range();
                Doing::Read((block..block + blocks).map(|block| (file, block)).collect())
            }
            4..8 => {
                let (file, block, blocks) = self.any_range();
                Doing::Write((block..block + blocks).map(|block| self.stamp(client, file, block)).collect())
            }
            _ => {
                let name = self.rng.below(NAMES);
                let stamp = self.stamp(client, NAME_FILES + name, 0);
                Doing::Change { name, stamp, retry: 0 }
            }
        };
        self.begin(client, doing);
    }

    /// The first client does one thing, the second looks all the time.
    pub(super) fn scripted(&mut self, client: usize, change: bool) {
        let doing = match client {
            0 if self.clients[0].sequence > 0 => return,
            0 if change => Doing::Change { name: 0, stamp: self.stamp(0, NAME_FILES, 0), retry: 0 },
            0 => Doing::Write((0..2).map(|block| self.stamp(0, 0, block)).collect()),
            1 => Doing::Read(vec![(0, 0), (0, 1), (0, 2)]),
            _ => return,
        };
        self.begin(client, doing);
    }

    pub(super) fn any_range(&mut self) -> (u64, u64, u64) {
        let block = self.rng.below(BLOCKS);
        (self.rng.below(FILES), block, self.rng.between(1, 4.min(BLOCKS - block)))
    }

    pub(super) fn begin(&mut self, client: usize, doing: Doing) {
        self.ops += 1;
        let op = OpId(self.ops);
        let request = self.request(client, &doing);
        self.clients[client].op = Some((op, doing));
        let at = self.clients[client].at;
        let random = self.rng.between(200, 6000);
        let patience = millis(self.script.map_or(random, |script| script.patience_ms));
        self.after(patience, Event::Impatient(client, op));
        if self.sites[at].mirror.is_none() {
            return self.answer(at, op, &Answer::NotPrimary);
        }
        self.tell(at, Input::Client(op, request));
    }

    pub(super) fn request(&mut self, client: usize, doing: &Doing) -> Request {
        match doing {
            Doing::Read(blocks) => {
                let reads = blocks.iter().map(|(file, block)| self.oracle.read_started(*file, *block)).collect();
                self.clients[client].reads = reads;
                Request::Read(Span {
                    file: FileId(blocks[0].0 + 1),
                    offset_bytes: blocks[0].1 * BLOCK_BYTES,
                    length_bytes: blocks.len() as u64 * BLOCK_BYTES,
                })
            }
            Doing::Write(stamps) => {
                let bytes: Vec<u8> = stamps.iter().flat_map(|stamp| self.value_of(*stamp).to_le_bytes()).collect();
                let offset_bytes = stamps[0].block * BLOCK_BYTES;
                let (file, payload) = (FileId(stamps[0].file + 1), bytes.into());
                Request::Write(Write { file, offset_bytes, payload, at: WallNanos(self.value) })
            }
            Doing::Change { name, retry, .. } => {
                // The answer to a retry is that to the first attempt.
                if *retry == 0 {
                    self.clients[client].reads = vec![self.oracle.read_started(NAME_FILES + name, 0)];
                }
                Request::Change(vec![locks::Want::whole(FileId(NAME_FILES + name), locks::Use::Writes)])
            }
        }
    }

    pub(super) fn answer(&mut self, site: usize, op: OpId, answer: &Answer) {
        let done = matches!(answer, Answer::Read(_) | Answer::Written(_) | Answer::Changed(..) | Answer::Replied(_));
        if done {
            self.answered_at.push(self.now);
            assert!(self.serves(site), "an answer of a site that does not serve");
            assert!(!self.serves(1 - site), "answered while the other site serves");
        }
        let Some((client, doing)) = self.client_of(op) else { return };
        match (answer, doing) {
            (Answer::Read(bytes), Doing::Read(_)) => self.read_returned(client, bytes),
            (Answer::Written(_), Doing::Write(stamps)) => {
                let file = FileId(stamps[0].file + 1);
                let reached = self.sites[site].mirror.as_ref().and_then(Mirror::resync_reached);
                let is_behind_cursor = reached.is_some_and(|reached| file <= reached);
                self.seen.written_in_resync += u64::from(is_behind_cursor);
                if self.standing.in_sync || is_behind_cursor {
                    self.check_shelves(&stamps);
                }
                stamps.iter().for_each(|stamp| self.oracle.write_acknowledged(*stamp));
                self.seen.acknowledged += 1;
            }
            (Answer::Changed(_, reply) | Answer::Replied(reply), Doing::Change { stamp, .. }) => {
                self.oracle.write_acknowledged(stamp);
                self.read_returned(client, reply);
                self.seen.acknowledged += 1;
            }
            (Answer::Refused, _) => self.seen.refused += 1,
            (Answer::Busy, doing) => {
                self.seen.busy += 1;
                return self.try_again(client, doing);
            }
            (Answer::NotPrimary, doing) => {
                self.clients[client].at = 1 - site;
                return self.try_again(client, doing);
            }
            (Answer::Gone, Doing::Change { .. }) => {
                self.seen.gone += 1;
                return self.impatient(client, op);
            }
            (Answer::Gone, _) => self.seen.gone += 1,
            (answer, doing) => panic!("{answer:?} to {doing:?}"),
        }
        self.idle(client);
    }

    pub(super) fn idle(&mut self, client: usize) {
        self.clients[client].op = None;
        let pause = self.takes(Takes::Client, 100, 30_000);
        self.after(pause, Event::Client(client));
    }

    pub(super) fn try_again(&mut self, client: usize, _doing: Doing) {
        self.clients[client].op = None;
        let pause = self.takes(Takes::Client, 10_000, 100_000);
        self.after(pause, Event::Client(client));
    }

    /// No answer: what became of it is not known. A change is tried again, at the other site
    /// too, under the same request.
    pub(super) fn impatient(&mut self, client: usize, op: OpId) {
        let Some((of, doing)) = self.client_of(op) else { return };
        assert_eq!(of, client);
        if self.script.is_some() || self.rng.percent(70) {
            self.clients[client].at = 1 - self.clients[client].at;
        }
        match doing {
            Doing::Change { name, stamp, retry } if retry < 5 => {
                self.begin(client, Doing::Change { name, stamp, retry: retry + 1 });
            }
            _ => self.idle(client),
        }
    }

    pub(super) fn read_returned(&mut self, client: usize, bytes: &[u8]) {
        let reads = std::mem::take(&mut self.clients[client].reads);
        for (index, read) in reads.into_iter().enumerate() {
            let block = bytes.get(index * 8..index * 8 + 8).map_or(0, number);
            let value = self.stamps.get(&block).copied();
            self.oracle.read_returned(read, value);
        }
    }
}

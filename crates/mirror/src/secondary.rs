//! The secondary: it does what it is told, in the order in which it is told, and says when
//! each is stable. Numbers of new operations rise on a link; one that does not is refused with
//! the link, so nothing happens twice or late (F59).

use base::Osn;

use crate::link::Phase;
use crate::operation::Change;
use crate::record::Record;
use crate::site::{Mirror, Then};
use crate::step::Action;
use crate::wire::{CHANGES_MAX, MAP_MAX, Message};

impl Mirror {
    /// The secondary follows its primary. `None` where that made no sense.
    pub(crate) fn follow(&mut self, message: Message) -> Option<()> {
        let link = self.link.as_ref()?;
        let (number, follows) = (link.number, link.phase == Phase::Follows);
        if let Message::Renew { number } = message {
            self.lend(number);
            return Some(());
        }
        if !follows && link.phase != Phase::Reported {
            return None;
        }
        let low_water = self.low_water;
        match message {
            Message::Write { osn, write } if follows => {
                self.is_new(osn)?;
                self.has_room(write.payload.len() as u64)?;
                let record = Record::Write { osn, low_water, write, tracked: true };
                self.append(record, Then::Tell(number, Message::Durable { osn }));
            }
            Message::Restore { osn, span, form, payload } if !follows => {
                self.is_new(osn)?;
                self.has_room(span.length_bytes)?;
                let record = Record::Restore { osn, span, form, payload };
                self.append(record, Then::Tell(number, Message::Durable { osn }));
            }
            Message::Prepare { osn, change } if follows => {
                self.is_new(osn)?;
                (self.kept.prepared.len() + self.checks.len() < CHANGES_MAX).then_some(())?;
                self.checks.insert(osn, change.clone());
                self.actions.push(Action::Check(osn, change));
            }
            Message::Commit { osn, change } => self.commit_as_told(number, osn, change)?,
            Message::Drop { osn } => {
                self.kept.prepared.get(&osn)?;
                self.append(Record::Dropped { osn }, Then::Tell(number, Message::Durable { osn }));
            }
            Message::Query { osn, body } if follows => {
                self.is_new(osn)?;
                self.actions.push(Action::Asked(number, osn, body));
            }
            Message::Settled { osn } => {
                self.is_new(osn)?;
                self.low_water = osn;
                self.append(Record::LowWater(osn), Then::Nothing);
                self.set_phase(Phase::Follows);
            }
            _ => return None,
        }
        Some(())
    }

    /// Whoever tells of more than a map may list has lost count.
    fn has_room(&mut self, length_bytes: u64) -> Option<()> {
        if !self.kept.flights.has_room(length_bytes, MAP_MAX) {
            self.settle_map();
        }
        self.kept.flights.has_room(length_bytes, MAP_MAX).then_some(())
    }

    fn commit_as_told(&mut self, link: u64, osn: Osn, told: Option<Change>) -> Option<()> {
        if self.kept.commits.contains_key(&osn) {
            self.append(Record::LowWater(self.kept.flights.low_water()), Then::Tell(link, Message::Durable { osn }));
            return Some(());
        }
        (self.kept.commits.len() < CHANGES_MAX).then_some(())?;
        let change = self.kept.prepared.get(&osn).cloned().or(told)?;
        let low_water = self.low_water;
        let record = Record::Committed { osn, low_water, change, owed: true };
        self.append(record, Then::Tell(link, Message::Durable { osn }));
        Some(())
    }

    /// Whether a change can be made here.
    pub(crate) fn checked(&mut self, osn: Osn, yes: bool) {
        let (Some(change), Some(link)) = (self.checks.remove(&osn), &self.link) else { return };
        let number = link.number;
        if yes {
            self.append(Record::Prepared { osn, change }, Then::Tell(number, Message::Vote { osn, yes }));
        } else {
            self.send(Message::Vote { osn, yes });
        }
    }

    fn lend(&mut self, number: u64) {
        // Who asks for the other's place does not lend at the same time.
        let taking_over =
            self.question.is_some_and(|asking| matches!(asking.ask.kind, witness::AskKind::TakeOver { .. }));
        let epoch = self.office.filter(|_| !taking_over && self.remembers()).map(|office| office.epoch);
        let lease = epoch.and_then(|epoch| self.seat.lend(epoch, self.now)).unwrap_or_default();
        let lease_ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        self.send(Message::Lent { number, lease_ms });
    }
}

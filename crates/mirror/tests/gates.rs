//! What a site takes from its clients, its administrator and the other site, and what it does
//! not: one site alone, told by hand what happens.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use base::{Buf, Epoch, FileId, MediaCheck, Nanos, Osn, PairId, SiteId, WallNanos};
use mirror::locks::{Use, Want};
use mirror::wire::{CHANGES_MAX, Frame, MAP_MAX, Message, Report};
use mirror::{
    Action, Answer, CHANGE_PART_BYTES_MAX, Change, Command, Config, Flight, FlightsMax, Input, Kept, Mirror, OpId,
    Request, Span, WRITE_BYTES_MAX, Write,
};
use witness::{AskKind, Lease, Memory, Refusal, Standing, Transition, TransitionKind, Verdict};

const PAIR: PairId = PairId([7; 16]);
const A: SiteId = SiteId([1; 16]);
const B: SiteId = SiteId([2; 16]);

fn standing() -> Standing {
    Standing {
        pair: PAIR,
        version: 3,
        epoch: Epoch(1),
        primary: A,
        secondary: Some(B),
        in_sync: true,
        in_sync_through: Osn(0),
        lease_ms: 1000,
        last: Transition { kind: TransitionKind::InSync, by: A, at: WallNanos(0) },
    }
}

/// A site whose journal takes no time.
struct Site {
    mirror: Mirror,
    now: Nanos,
}

impl Site {
    fn new(me: SiteId) -> Site {
        let now = Nanos(0) + Duration::from_secs(100);
        let kept = Kept { memory: Memory { known: Some(standing()), asked: None }, ..Kept::default() };
        let config = Config::new(me, if me == A { B } else { A }, PAIR);
        Site { mirror: Mirror::new(config, kept, now), now }
    }

    /// What is done, records apart: they are stable at once.
    fn tell(&mut self, input: Input) -> Vec<Action> {
        let (mut told, mut actions) = (vec![input], Vec::new());
        while let Some(input) = told.pop() {
            for action in self.mirror.handle(self.now, input) {
                match action {
                    Action::Append(ticket, _) => told.push(Input::Stable(ticket)),
                    action => actions.push(action),
                }
            }
            told.sort_by_key(|input| std::cmp::Reverse(if let Input::Stable(ticket) = input { *ticket } else { 0 }));
        }
        actions
    }

    fn later(&mut self, millis: u64) -> Vec<Action> {
        self.now = self.now + Duration::from_millis(millis);
        self.tell(Input::Tick)
    }

    /// The question that leaves within some beats.
    fn question(&mut self) -> (u64, AskKind) {
        for _ in 0..20 {
            let asked = self.later(100).into_iter().find_map(|action| match action {
                Action::Ask(number, ask) => Some((number, ask.kind)),
                _ => None,
            });
            if let Some(asked) = asked {
                return asked;
            }
        }
        panic!("nothing is asked");
    }

    fn answer(&mut self, number: u64, outcome: Result<Lease, Refusal>, standing: Standing) -> Vec<Action> {
        self.tell(Input::Answered(number, Verdict { outcome, standing: Some(standing) }))
    }

    fn hears(&mut self, message: Message) -> Vec<Action> {
        let frame = Frame { epoch: Epoch(1), low_water: Osn(0), message };
        self.tell(Input::Received(1, frame))
    }

    /// Met and settled, with the witness's lease.
    fn together(me: SiteId) -> Site {
        let mut site = Site::new(me);
        // A site that was secondary before its restart may have lent a lease: it waits for that.
        site.later(1100);
        let (number, _) = site.question();
        site.answer(number, Ok(if me == A { Lease::Runs } else { Lease::Unchanged }), standing());
        site.tell(Input::LinkUp(1));
        site.hears(Message::Hello { site: if me == A { B } else { A }, standing: Some(standing()) });
        if me == A {
            site.hears(Message::Report(Report { last: true, ..Report::default() }));
        } else {
            site.hears(Message::Settled { osn: Osn::of(Epoch(1), 1) });
        }
        assert!(site.mirror.is_whole());
        site
    }
}

fn hangs(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Hang(_)))
}

fn answers(actions: &[Action]) -> Vec<Answer> {
    actions
        .iter()
        .filter_map(|one| if let Action::Answer(_, answer) = one { Some(answer.clone()) } else { None })
        .collect()
}

fn change(bytes: usize) -> Change {
    Change { request: Buf::new(), body: vec![1; bytes].into(), reply: Buf::new() }
}

/// A command that waits while the witness has no memory is not carried out on what the record
/// says once it has: it was thought on another.
#[test]
fn a_command_of_before_the_witness_lost_its_memory_is_not_asked_after() {
    let mut site = Site::new(B);
    let (number, _) = site.question();
    site.answer(number, Err(Refusal::Amnesia), Standing { version: 1, ..standing() });
    let force = Input::Command(Command::Force { primary_is_off: true });
    let mut told = site.tell(force.clone());
    // The question that is under way is given up after a second.
    (0..12).for_each(|_| told.extend(site.later(100)));
    assert!(told.contains(&Action::NotAsked(AskKind::Force { primary_is_off: true })), "{told:?}");
    for outcome in [Err(Refusal::WaitsForOther), Ok(Lease::Unchanged)] {
        let (number, kind) = site.question();
        assert!(matches!(kind, AskKind::Restore { .. }), "{kind:?}");
        site.answer(number, outcome, Standing { version: 4, ..standing() });
    }
    for _ in 0..3 {
        let (number, kind) = site.question();
        assert_eq!(kind, AskKind::Look);
        site.answer(number, Ok(Lease::Unchanged), Standing { version: 4, ..standing() });
    }
    let mut primary = Site::together(A);
    let mut told = primary.tell(force);
    (0..12).for_each(|_| told.extend(primary.later(100)));
    assert!(told.contains(&Action::NotAsked(AskKind::Force { primary_is_off: true })), "it is primary: {told:?}");
}

/// A refusal or the answer to a retry says what this site holds: it is told when any other answer
/// may be, and not by one whose lease is over.
#[test]
fn a_reply_without_a_change_waits_for_the_lease_like_any_other() {
    let mut site = Site::together(A);
    let wants = vec![Want::whole(FileId(1), Use::Writes)];
    let resolve = site.tell(Input::Client(OpId(1), Request::Change(wants)));
    assert!(resolve.contains(&Action::Resolve(OpId(1))));
    site.now = site.now + Duration::from_secs(60);
    let told = site.tell(Input::Resolved(OpId(1), Err(Buf::from_static(b"no such name"))));
    assert!(answers(&told).is_empty() && !site.mirror.serves(site.now), "{told:?}");
    let (number, _) = site.question();
    let told = site.answer(number, Ok(Lease::Runs), standing());
    assert_eq!(answers(&told), [Answer::Replied(Buf::from_static(b"no such name"))]);
}

#[test]
fn what_no_frame_can_carry_is_refused_before_it_has_a_number() {
    let mut site = Site::together(A);
    let write = |offset_bytes, bytes| {
        Request::Write(Write { file: FileId(1), offset_bytes, payload: vec![0; bytes].into(), at: WallNanos(0) })
    };
    for request in [write(0, WRITE_BYTES_MAX + 1), write(u64::MAX, 2)] {
        let told = site.tell(Input::Client(OpId(1), request));
        assert_eq!(answers(&told), [Answer::TooLarge]);
    }
    site.tell(Input::Client(OpId(2), Request::Change(vec![Want::whole(FileId(1), Use::Writes)])));
    let told = site.tell(Input::Resolved(OpId(2), Ok(change(CHANGE_PART_BYTES_MAX + 1))));
    assert_eq!(answers(&told), [Answer::TooLarge]);
    let told = site.tell(Input::Client(OpId(3), write(0, WRITE_BYTES_MAX)));
    assert!(answers(&told).is_empty() && told.iter().any(|one| matches!(one, Action::Send(..))), "{told:?}");
}

/// A primary that tells of more and more without ever saying what is settled.
#[test]
fn a_secondary_lists_no_more_than_a_map_may() {
    let write = |counter: u64, bytes: usize| {
        let (offset_bytes, payload) = (counter * 2, vec![0; bytes].into());
        let write = Write { file: FileId(1), offset_bytes, payload, at: WallNanos(0) };
        Message::Write { osn: Osn::of(Epoch(1), counter), write }
    };
    let mut site = Site::together(B);
    let mut taken = 0;
    while !hangs(&site.hears(write(taken + 2, 1))) {
        taken += 1;
    }
    assert_eq!((taken, site.mirror.kept().flights.count()), (MAP_MAX.count as u64, MAP_MAX.count));
    let mut site = Site::together(B);
    let large = MAP_MAX.bytes / WRITE_BYTES_MAX as u64;
    assert!((0..large).all(|counter| !hangs(&site.hears(write(counter + 2, WRITE_BYTES_MAX)))));
    assert!(hangs(&site.hears(write(large + 2, 1))));
}

#[test]
fn a_secondary_prepares_no_more_than_it_can_report() {
    let mut site = Site::together(B);
    let mut taken = 0;
    loop {
        let osn = Osn::of(Epoch(1), taken + 2);
        if hangs(&site.hears(Message::Prepare { osn, change: change(1) })) {
            break;
        }
        taken += 1;
        if taken.is_multiple_of(2) {
            site.tell(Input::Checked(osn, true));
        }
    }
    assert_eq!(taken as usize, CHANGES_MAX);
}

/// However the parts of a report are cut.
#[test]
fn a_primary_takes_no_report_of_more_than_a_map() {
    let flight = |length_bytes| {
        let span = Span { file: FileId(1), offset_bytes: 0, length_bytes };
        Flight { osn: Osn::of(Epoch(1), 1), span, check: MediaCheck(0) }
    };
    let part = |flights, prepared| Message::Report(Report { flights, prepared, ..Report::default() });
    let greeted = || {
        let mut site = Site::new(A);
        site.tell(Input::LinkUp(1));
        site.hears(Message::Hello { site: B, standing: Some(standing()) });
        site
    };
    let FlightsMax { count, bytes } = MAP_MAX;
    for (flights, prepared, parts) in [
        (vec![flight(1); 4096], Vec::new(), count / 4096),
        (vec![flight(WRITE_BYTES_MAX as u64); 64], Vec::new(), (bytes >> 20) as usize / 64),
        (Vec::new(), vec![Osn(1); 4096], CHANGES_MAX / 4096),
    ] {
        let mut site = greeted();
        for number in 0..parts {
            let told = site.hears(part(flights.clone(), prepared.clone()));
            assert!(!hangs(&told), "part {number} of {parts}");
        }
        assert!(hangs(&site.hears(part(flights, prepared))));
    }
}

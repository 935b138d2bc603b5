//! Questions of everybody, answered: who may ask what, one change after the other per
//! datastore, and what people are shown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use base::port::Clock;
use base::{Nanos, PairId, SiteId};
use control::access::Secret;
use control::tls::Fingerprint;
use control::{Problem, codes};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Mutex;
use witness::wire::{Answer, Question};
use witness::{
    Ask, AskKind, Grounds, LedgerFault, Standing, Transition, TransitionKind, Verdict, View, Witness, judge,
};

use crate::folder::Folder;
use crate::records::Records;
use crate::roll::{Member, Roll};
use crate::status::{ChangeLine, InvitationMade, PairLine, SiteKnown, SiteLine, WitnessStatus};
use crate::token::Token;

/// Datastores of one witness; a hundred are usual.
const PAIRS_MAX: usize = 4096;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Somebody on this machine who may open the folder.
    Local,
    /// Whoever holds the key of this certificate.
    Shows(Fingerprint),
}

/// How the witness is known.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub fingerprint: Fingerprint,
    /// What join tokens name; none where nobody said how sites reach it.
    pub address: Option<String>,
}

/// Held while a question about the datastore is answered: its changes come one by one.
type Turns = BTreeMap<PairId, Rc<Mutex<()>>>;

/// A question's place at its datastore; the last one takes the entry away.
struct Gate<'a> {
    turns: &'a RefCell<Turns>,
    pair: PairId,
    turn: Rc<Mutex<()>>,
}

impl<'a> Gate<'a> {
    fn of(turns: &'a RefCell<Turns>, pair: PairId) -> Self {
        let turn = turns.borrow_mut().entry(pair).or_default().clone();
        Self { turns, pair, turn }
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        // The table's and this one.
        if Rc::strong_count(&self.turn) == 2 {
            self.turns.borrow_mut().remove(&self.pair);
        }
    }
}

/// See the module's head.
pub(crate) struct Desk {
    identity: Identity,
    clock: Rc<dyn Clock>,
    opened: Nanos,
    witness: Witness<Records>,
    gates: RefCell<Turns>,
    roll: RefCell<Roll>,
    heard: RefCell<BTreeMap<SiteId, Nanos>>,
}

impl Desk {
    /// Reads folder and records.
    pub async fn open(folder: &Folder, identity: Identity, clock: Rc<dyn Clock>) -> Result<Self, Problem> {
        let opened = clock.now();
        let roll = RefCell::new(Roll::open(folder)?);
        let witness = Witness::open(folder.records()?, opened).await.map_err(unusable)?;
        let (gates, heard) = <(RefCell<_>, RefCell<_>)>::default();
        Ok(Self { identity, clock, opened, witness, gates, roll, heard })
    }

    /// Records and sites.
    pub fn counts(&self) -> (usize, usize) {
        (self.witness.view(self.opened).len(), self.roll.borrow().members().len())
    }

    /// Whether a site shows this certificate.
    pub fn knows(&self, caller: Caller) -> bool {
        match caller {
            Caller::Local => true,
            Caller::Shows(fingerprint) => self.roll.borrow().member(fingerprint).is_some(),
        }
    }

    /// Answers one question.
    pub async fn answer(&self, caller: Caller, question: Question) -> Answer {
        let answered = match (caller, question) {
            (Caller::Shows(shown), Question::Ask(ask)) => self.ask(shown, &ask).await.map(Answer::Verdict),
            (Caller::Shows(shown), Question::Enrol { site, secret }) => self.enrol(shown, site, &secret),
            (_, Question::Status) => self.status(caller).map(|status| document(&status)),
            (Caller::Local, Question::Invite { name }) => self.invite(&name),
            (Caller::Local, Question::Remove { name }) => self.remove(&name),
            (Caller::Local, Question::Ask(_) | Question::Enrol { .. }) => Err(not_here("only a site asks this")),
            (Caller::Shows(_), Question::Invite { .. } | Question::Remove { .. }) => {
                Err(not_here("this is asked on the witness's own machine only"))
            }
        };
        answered.unwrap_or_else(|problem| refused(&problem))
    }

    fn member(&self, shown: Fingerprint) -> Result<Member, Problem> {
        let known = self.roll.borrow().member(shown).cloned();
        known.ok_or_else(|| Problem::new(&codes::NOT_ENROLLED, "the witness does not know this site"))
    }

    async fn ask(&self, shown: Fingerprint, ask: &Ask) -> Result<Verdict, Problem> {
        let member = self.member(shown)?;
        if member.site != ask.from {
            return Err(Problem::new(&codes::NOT_ENROLLED, format!("{} may not ask in another's name", member.name)));
        }
        self.heard.borrow_mut().insert(member.site, self.clock.now());
        let makes_record = matches!(ask.kind, AskKind::Found { .. } | AskKind::Restore { .. });
        if self.witness.standing(ask.pair).is_none() && !makes_record {
            // Nothing of it is kept: datastores that nobody has could be named without end.
            let grounds = Grounds { lease_left: Duration::ZERO, told_by_other: None, wall: self.clock.wall() };
            return Ok(judge::judge(None, ask, &grounds));
        }
        self.refuse_if_full(ask.pair)?;
        let gate = Gate::of(&self.gates, ask.pair);
        let _turn = gate.turn.lock().await;
        let before = self.witness.standing(ask.pair);
        // The time is taken when it is this question's turn: a lease counts from its answer.
        let verdict = self.witness.answer(ask, self.clock.now(), self.clock.wall()).await.map_err(unusable)?;
        if let Some(standing) = verdict.standing.filter(|_| verdict.standing != before) {
            tell_change(&standing, &member.name);
        }
        Ok(verdict)
    }

    fn refuse_if_full(&self, pair: PairId) -> Result<(), Problem> {
        if self.witness.keeps(pair) || self.witness.count() < PAIRS_MAX {
            return Ok(());
        }
        Err(Problem::new(&codes::CONFLICT, format!("the witness keeps {PAIRS_MAX} records, the most it may")))
    }

    fn enrol(&self, shown: Fingerprint, site: SiteId, secret: &str) -> Result<Answer, Problem> {
        let enrolled = self.roll.borrow_mut().enrol(site, &Secret::from_text(secret), shown, Timestamp::now());
        let member = enrolled.inspect_err(|problem| tracing::warn!(code = %problem.code(), "a site was not let in"))?;
        tracing::info!(site = member.name, id = %member.site, "a site was let in");
        Ok(document(&SiteKnown { name: member.name, site: Some(member.site.to_string()) }))
    }

    fn invite(&self, name: &str) -> Result<Answer, Problem> {
        let address = self.identity.address.clone().ok_or_else(|| {
            Problem::new(&codes::BAD_INPUT, "a join token would not say how to reach the witness")
                .why("it listens at every address of this machine")
                .step("start it with the one that sites can reach: --advertise HOST:PORT")
        })?;
        let (secret, until) = self.roll.borrow_mut().invite(name, Timestamp::now())?;
        let token = Token { address, witness: self.identity.fingerprint, secret };
        tracing::info!(site = name, "a site was invited");
        Ok(document(&InvitationMade { site: name.to_owned(), token: token.to_string(), until }))
    }

    fn remove(&self, name: &str) -> Result<Answer, Problem> {
        self.roll.borrow_mut().remove(name)?;
        tracing::info!(site = name, "a site was removed");
        Ok(document(&SiteKnown { name: name.to_owned(), site: None }))
    }

    /// What `caller` may see: a site sees its own datastores and who shares them, since one
    /// witness may serve sites that are nothing to each other.
    fn status(&self, caller: Caller) -> Result<WitnessStatus, Problem> {
        let own = match caller {
            Caller::Local => None,
            Caller::Shows(shown) => Some(self.member(shown)?.site),
        };
        let now = self.clock.now();
        let mut views = self.witness.view(now);
        views.retain(|view| own.is_none_or(|site| view.standing.names(site)));
        let mut members = self.roll.borrow().members();
        let shares = |other: SiteId| views.iter().any(|view| view.standing.names(other));
        members.retain(|member| own.is_none_or(|site| member.site == site || shares(member.site)));
        let heard = self.heard.borrow();
        let site = |member: &Member| SiteLine {
            name: member.name.clone(),
            site: member.site.to_string(),
            enrolled_at: member.enrolled_at,
            heard_seconds_ago: heard.get(&member.site).map(|at| now.since(*at).as_secs_f64()),
        };
        Ok(WitnessStatus {
            address: self.identity.address.clone(),
            fingerprint: self.identity.fingerprint,
            uptime_seconds: now.since(self.opened).as_secs_f64(),
            sites: members.iter().map(site).collect(),
            pairs: views.iter().map(|view| pair_line(view, &members)).collect(),
        })
    }
}

fn pair_line(view: &View, members: &[Member]) -> PairLine {
    let name = |site: SiteId| {
        let known = members.iter().find(|member| member.site == site);
        known.map_or_else(|| site.to_string(), |member| member.name.clone())
    };
    let standing = &view.standing;
    PairLine {
        pair: standing.pair.to_string(),
        version: standing.version,
        epoch: standing.epoch.0,
        primary: name(standing.primary),
        secondary: standing.secondary.map(name),
        in_sync: standing.in_sync,
        lease_seconds: standing.lease().as_secs_f64(),
        lease_left_seconds: view.lease_left.as_secs_f64(),
        changes: view.history.iter().map(|standing| change_line(standing, name(standing.last.by))).collect(),
    }
}

fn change_line(standing: &Standing, by: String) -> ChangeLine {
    let Transition { kind, at, .. } = standing.last;
    let at = Timestamp::from_nanosecond(i128::from(at.0)).unwrap_or(Timestamp::MAX);
    ChangeLine { version: standing.version, kind: word(kind).to_owned(), by, at, epoch: standing.epoch.0 }
}

const fn word(kind: TransitionKind) -> &'static str {
    match kind {
        TransitionKind::Found => "found",
        TransitionKind::Join => "join",
        TransitionKind::Leave => "leave",
        TransitionKind::GoAlone => "go alone",
        TransitionKind::InSync => "in sync",
        TransitionKind::TakeOver => "take over",
        TransitionKind::HandOver => "hand over",
        TransitionKind::Force => "force",
        TransitionKind::Restore => "restore",
    }
}

fn tell_change(standing: &Standing, by: &str) {
    let Standing { pair, version, epoch, in_sync, .. } = standing;
    let change = word(standing.last.kind);
    tracing::info!(%pair, version, epoch = epoch.0, in_sync, by, primary = %standing.primary, "{change}");
}

fn not_here(why: &str) -> Problem {
    Problem::new(&codes::BAD_INPUT, "the witness does not answer this here").why(why)
}

pub(crate) fn unusable(fault: LedgerFault) -> Problem {
    tracing::error!(code = %codes::WITNESS_RECORDS_UNUSABLE, "{fault}");
    Problem::new(&codes::WITNESS_RECORDS_UNUSABLE, "the witness cannot use its records").why(fault.to_string())
}

pub(crate) fn refused(problem: &Problem) -> Answer {
    let json = serde_json::to_string(&problem.document(None));
    Answer::Problem(json.expect("problems hold only strings as keys and finite numbers"))
}

fn document<T: Serialize>(data: &T) -> Answer {
    Answer::Document(serde_json::to_string(data).expect("documents hold only strings as keys and finite numbers"))
}

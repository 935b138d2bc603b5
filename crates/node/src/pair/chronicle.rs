//! What becomes of the pair is taken down: in the history of roles, in the event log, in the log.

use std::cell::RefCell;
use std::time::Duration;

use base::{Nanos, SiteId};
use control::codes;
use control::events::News;
use control::replication::Role;
use control::roles::{ClientPause, RoleChange, RoleChangeKind};
use control::server::Books;
use jiff::Timestamp;
use mirror::Turn;
use witness::{Standing, TransitionKind};

/// See the module's head.
pub(super) struct Chronicle {
    me: SiteId,
    /// Name of the site.
    site: String,
    books: Books,
    /// The change that this term began with.
    began: RefCell<Option<RoleChange>>,
}

impl Chronicle {
    pub fn new(me: SiteId, site: &str, books: Books) -> Chronicle {
        Chronicle { me, site: site.to_owned(), books, began: RefCell::default() }
    }

    /// The record has changed.
    pub fn changed(&self, standing: &Standing) {
        let is_primary = standing.primary == self.me;
        let (epoch, in_sync, because) = (standing.epoch.0, standing.in_sync, standing.last.kind);
        let office = if is_primary { "primary" } else { "secondary" };
        if in_sync {
            tracing::info!(code = "VH4013", office, epoch, in_sync, ?because, "how the pair stands has changed");
        } else {
            tracing::warn!(code = "VH4013", office, epoch, in_sync, ?because, "how the pair stands has changed");
        }
        let change = RoleChange {
            version: standing.version,
            at: time_of(standing),
            kind: kind_of(because),
            epoch,
            role: if is_primary { Role::Primary } else { Role::Secondary },
            in_sync,
            pause: None,
        };
        let sync = if in_sync { "in sync" } else { "out of sync" };
        let said = format!("{}; this site is {office}, {sync}, epoch {epoch}", change.kind.words());
        self.books.events.tell(News::happened(&codes::ROLE_CHANGED, &self.site, said), Timestamp::now());
        let begins =
            matches!(change.kind, RoleChangeKind::HandedOver | RoleChangeKind::TookOver | RoleChangeKind::Forced);
        if begins {
            *self.began.borrow_mut() = Some(change.clone());
        }
        self.keep(change);
    }

    /// The doors are open at `now`, in the term that began so.
    pub fn serves(&self, turn: Option<Turn>, now: Nanos, address: &str) {
        let pause = turn.map(|turn| ClientPause {
            noticed_ms: turn.heard.zip(turn.asked).map(|(heard, asked)| ms(asked.since(heard))),
            granted_ms: turn.asked.map(|asked| ms(turn.learned.since(asked))),
            opened_ms: Some(ms(now.since(turn.learned))),
            stopped_ms: None,
        });
        self.measured(turn, pause);
        let took = pause.and_then(|pause| pause.total_ms());
        let took =
            took.map_or_else(String::new, |ms| format!(", {:.1} s after the last sign of the other one", ms / 1000.0));
        let news = News::happened(&codes::SITE_SERVES, &self.site, format!("this site serves at {address}{took}"));
        self.books.events.tell(news, Timestamp::now());
        tracing::info!(
            code = "VH4015",
            nfs = address,
            pause_ms = pause.and_then(|pause| pause.total_ms()),
            "this site serves"
        );
    }

    /// This site has handed over, in the term that began so.
    pub fn handed_over(&self, turn: Option<Turn>) {
        let stopped = turn.and_then(|turn| turn.stopped.map(|stopped| ms(turn.learned.since(stopped))));
        self.measured(turn, stopped.map(|ms| ClientPause { stopped_ms: Some(ms), ..ClientPause::default() }));
    }

    fn measured(&self, turn: Option<Turn>, pause: Option<ClientPause>) {
        let began = self.began.borrow().clone();
        let Some(change) = began.filter(|change| turn.is_some_and(|turn| turn.epoch.0 == change.epoch)) else { return };
        // Doors that were opened again are not the beginning.
        if change.pause.is_none() && pause.is_some() {
            let change = RoleChange { pause, ..change };
            *self.began.borrow_mut() = Some(change.clone());
            self.keep(change);
        }
    }

    fn keep(&self, change: RoleChange) {
        if let Err(error) = self.books.roles.tell(change) {
            tracing::warn!(%error, "a change of the pair is not kept on disk");
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// When the record changed, by the clock of the witness; now where it does not say.
fn time_of(standing: &Standing) -> Timestamp {
    let at = i128::from(standing.last.at.0);
    Timestamp::from_nanosecond(at).ok().filter(|_| at > 0).unwrap_or_else(Timestamp::now)
}

const fn kind_of(kind: TransitionKind) -> RoleChangeKind {
    match kind {
        TransitionKind::Found => RoleChangeKind::Founded,
        TransitionKind::Join => RoleChangeKind::Joined,
        TransitionKind::Leave => RoleChangeKind::Left,
        TransitionKind::GoAlone => RoleChangeKind::WentAlone,
        TransitionKind::InSync => RoleChangeKind::InSync,
        TransitionKind::HandOver => RoleChangeKind::HandedOver,
        TransitionKind::TakeOver => RoleChangeKind::TookOver,
        TransitionKind::Force => RoleChangeKind::Forced,
        TransitionKind::Restore => RoleChangeKind::Restored,
    }
}

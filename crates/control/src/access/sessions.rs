//! One-time logins and the sessions of browsers. All in memory: a restart asks everyone to
//! log in again, and nothing is left behind.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Caller, Digest, Role, Secret};
use crate::codes;
use crate::envelope::Document;
use crate::problem::Problem;

const LOGIN_LIVES: SignedDuration = SignedDuration::from_mins(10);
/// A session ends after this long without a request, and in any case after [`SESSION_MAX`].
const SESSION_IDLE: SignedDuration = SignedDuration::from_hours(12);
const SESSION_MAX: SignedDuration = SignedDuration::from_hours(24 * 7);
const LOGINS_AT_ONCE: usize = 32;
const SESSIONS_AT_ONCE: usize = 256;
/// Tries in vain per minute, from everywhere together.
const VAIN_TRIES_MAX: usize = 20;
/// Requests of strangers that are written down per minute.
const NOTED_MAX: usize = 100;

/// A word that lets a browser in, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Login {
    /// The word. It stands behind `#login=` in the address of the UI.
    pub login: String,
    /// How long it works.
    pub lives_seconds: u32,
}

impl Document for Login {
    const SCHEMA: &'static str = "vmhold.login/v1";
}

/// What begins a session: one of the two.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionStart {
    /// A one-time login.
    #[serde(default)]
    pub login: Option<String>,
    /// The secret of a token.
    #[serde(default)]
    pub token: Option<String>,
}

/// A session, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// Who is logged in.
    pub who: String,
    /// What they may do.
    pub role: Role,
    /// What the certificate of this API is known by: a browser must show the same.
    pub fingerprint: Option<String>,
}

impl Document for Session {
    const SCHEMA: &'static str = "vmhold.session/v1";
}

struct Live {
    who: String,
    role: Role,
    began: Timestamp,
    used: Timestamp,
}

#[derive(Default)]
pub(super) struct Sessions {
    logins: BTreeMap<Digest, Live>,
    live: BTreeMap<Digest, Live>,
    vain: Vec<Timestamp>,
    noted: Vec<Timestamp>,
}

impl Sessions {
    pub fn login(&mut self, caller: &Caller, now: Timestamp) -> Result<Login, Problem> {
        let word = Secret::short()?;
        self.logins.retain(|_, login| now.duration_since(login.began) < LOGIN_LIVES);
        drop_oldest(&mut self.logins, LOGINS_AT_ONCE);
        let (who, role) = (caller.who.clone(), caller.role);
        self.logins.insert(word.digest(), Live { who, role, began: now, used: now });
        Ok(Login { login: word.text().to_owned(), lives_seconds: LOGIN_LIVES.as_secs() as u32 })
    }

    pub fn take_login(&mut self, word: &str, now: Timestamp) -> Option<(String, Role)> {
        let login = self.logins.remove(&Secret::from_text(word).digest())?;
        (now.duration_since(login.began) < LOGIN_LIVES).then_some((login.who, login.role))
    }

    pub fn begin(&mut self, who: String, role: Role, now: Timestamp) -> Result<(Secret, (String, Role)), Problem> {
        let secret = Secret::random()?;
        drop_oldest(&mut self.live, SESSIONS_AT_ONCE);
        self.live.insert(secret.digest(), Live { who: who.clone(), role, began: now, used: now });
        Ok((secret, (who, role)))
    }

    pub fn find(&mut self, digest: &Digest, now: Timestamp) -> Option<(String, Role)> {
        let is_over = |live: &Live| {
            now.duration_since(live.used) >= SESSION_IDLE || now.duration_since(live.began) >= SESSION_MAX
        };
        if self.live.get(digest).is_some_and(is_over) {
            self.live.remove(digest);
        }
        let live = self.live.get_mut(digest)?;
        live.used = now;
        Some((live.who.clone(), live.role))
    }

    pub fn end(&mut self, digest: &Digest) {
        self.live.remove(digest);
    }

    pub fn end_of(&mut self, who: &str) {
        self.live.retain(|_, live| live.who != who);
        self.logins.retain(|_, login| login.who != who);
    }

    pub fn may_try(&mut self, now: Timestamp) -> Result<(), Problem> {
        self.vain.retain(|at| now.duration_since(*at) < SignedDuration::from_mins(1));
        if self.vain.len() < VAIN_TRIES_MAX {
            return Ok(());
        }
        Err(Problem::new(&codes::TOO_MANY_TRIES, "too many logins in vain within a minute").retry_after(60.0))
    }

    pub fn may_be_noted(&mut self, now: Timestamp) -> bool {
        self.noted.retain(|at| now.duration_since(*at) < SignedDuration::from_mins(1));
        let may = self.noted.len() < NOTED_MAX;
        if may {
            self.noted.push(now);
        }
        may
    }

    pub fn tried_in_vain(&mut self, now: Timestamp) {
        self.vain.push(now);
    }
}

fn drop_oldest(live: &mut BTreeMap<Digest, Live>, most: usize) {
    if live.len() >= most {
        let oldest = live.iter().min_by_key(|(_, live)| live.used).map(|(digest, _)| digest.clone());
        oldest.map(|digest| live.remove(&digest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn caller() -> Caller {
        Caller { who: "local".into(), role: Role::Admin, from: None }
    }

    #[test]
    fn a_login_works_once_and_for_ten_minutes() {
        let mut sessions = Sessions::default();
        let word = sessions.login(&caller(), at(0)).unwrap().login;
        assert_eq!(sessions.take_login(&word, at(599)), Some(("local".into(), Role::Admin)));
        assert_eq!(sessions.take_login(&word, at(599)), None, "once");
        let word = sessions.login(&caller(), at(0)).unwrap().login;
        assert_eq!(sessions.take_login(&word, at(600)), None, "too late");
    }

    #[test]
    fn a_session_ends_when_idle_and_at_the_latest_after_a_week() {
        let mut sessions = Sessions::default();
        let (secret, _) = sessions.begin("a".into(), Role::Viewer, at(0)).unwrap();
        let hours = |hours: i64| at(hours * 3600);
        for hour in 1..167 {
            assert!(sessions.find(&secret.digest(), hours(hour)).is_some(), "hour {hour}");
        }
        assert!(sessions.find(&secret.digest(), hours(168)).is_none());
        let (secret, _) = sessions.begin("a".into(), Role::Viewer, at(0)).unwrap();
        assert!(sessions.find(&secret.digest(), hours(12)).is_none());
    }

    #[test]
    fn guessing_is_slow() {
        let mut sessions = Sessions::default();
        (0..VAIN_TRIES_MAX).for_each(|_| sessions.tried_in_vain(at(0)));
        assert_eq!(sessions.may_try(at(59)).unwrap_err().code(), &codes::TOO_MANY_TRIES);
        assert!(sessions.may_try(at(60)).is_ok());
    }
}

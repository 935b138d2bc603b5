//! Who may do what: roles, tokens, one-time logins and sessions.
//!
//! A *token* is for tools: named, with a role and an end, kept as a digest only. A *login*
//! is a short word that works once, within minutes; a browser changes it for a *session*,
//! a cookie that scripts of a page cannot read. The *local token* is new with every start
//! and lies in the state folder: whoever can read that folder owns the store anyway.
//!
//! Decides only: time and randomness come in, the token file goes out through a [`Shelf`].

mod secret;
mod sessions;

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes;
use crate::envelope::Document;
use crate::problem::Problem;
use crate::text::{Table, left};

pub use secret::{Digest, Secret};
pub use sessions::{Login, Session, SessionStart};

/// Tokens that may exist at once.
const TOKENS_MAX: usize = 200;
const NAME_BYTES_MAX: usize = 64;
/// How exact the time of a token's last use is; each change is a write of the file.
const LAST_USED_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// What someone may do; each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Daily changes.
    Operator,
    /// Everything, also what destroys data.
    Admin,
}

impl Role {
    /// The word in texts.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of a token, or whose session it is.
    pub who: String,
    /// What they may do.
    pub role: Role,
    /// From where.
    pub from: Option<IpAddr>,
}

/// A token as people see it: never its secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Its name, also in the audit log.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; `null` is never.
    pub expires_at: Option<Timestamp>,
    /// When it was used last, to about five minutes.
    pub last_used_at: Option<Timestamp>,
}

/// What `token create` sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// How long it lives; `null` is for ever.
    #[serde(default)]
    #[schemars(range(min = 1, max = 315_360_000))]
    pub lifetime_seconds: Option<u32>,
}

/// What `token create` answers: the only time the secret is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenCreated {
    /// The token.
    #[serde(flatten)]
    pub token: Token,
    /// What goes behind `Authorization: Bearer`. It is not kept and cannot be shown again.
    pub secret: String,
}

impl Document for TokenCreated {
    const SCHEMA: &'static str = "vmhold.token.create/v1";
}

/// What `token delete` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenDeleted {
    /// Name of the one that is gone.
    pub name: String,
}

impl Document for TokenDeleted {
    const SCHEMA: &'static str = "vmhold.token.delete/v1";
}

/// `token list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TokenList(pub Vec<Token>);

impl Document for TokenList {
    const SCHEMA: &'static str = "vmhold.token.list/v1";
}

impl TokenList {
    /// `token list`.
    #[must_use]
    pub fn human(&self, width: usize) -> String {
        if self.0.is_empty() {
            return "no tokens; make one for a tool: vmhold token create NAME --role viewer\n".to_owned();
        }
        let mut table =
            Table::new(&[left("TOKEN"), left("ROLE"), left("CREATED (UTC)"), left("ENDS"), left("LAST USED")]);
        let day = |at: Option<Timestamp>, none: &str| {
            at.map_or_else(|| none.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
        };
        for token in &self.0 {
            table.row(vec![
                token.name.clone(),
                token.role.word().to_owned(),
                day(Some(token.created_at), "-"),
                day(token.expires_at, "never"),
                day(token.last_used_at, "never"),
            ]);
        }
        table.render(width)
    }
}

/// A token with the digest of its secret, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    token: Token,
    digest: Digest,
}

/// Where the token file is kept.
pub trait Shelf: Send + Sync {
    /// Replaces the file by `text`; after an error the old one is still whole.
    ///
    /// # Errors
    /// When it is not kept.
    fn put(&self, text: &str) -> std::io::Result<()>;
}

/// Everything that lets someone in.
pub struct Access {
    tokens: Mutex<Vec<Kept>>,
    local: Digest,
    sessions: Mutex<sessions::Sessions>,
    shelf: Box<dyn Shelf>,
}

impl Access {
    /// With the token file of earlier runs, and the local token of this one.
    ///
    /// # Errors
    /// `CONFIG_UNREADABLE` when the file is not what we wrote.
    pub fn open(file: Option<&str>, local: &Secret, shelf: Box<dyn Shelf>) -> Result<Self, Problem> {
        let tokens = file.map(serde_json::from_str).transpose().map_err(|why: serde_json::Error| {
            Problem::new(&codes::CONFIG_UNREADABLE, "the file of tokens cannot be understood").why(why.to_string())
        })?;
        Ok(Self {
            tokens: Mutex::new(tokens.unwrap_or_default()),
            local: local.digest(),
            sessions: Mutex::default(),
            shelf,
        })
    }

    fn tokens(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, sessions::Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, tokens: &[Kept]) -> Result<(), Problem> {
        let text = serde_json::to_string_pretty(tokens).expect("tokens hold only strings");
        self.shelf.put(&text).map_err(|error| {
            Problem::new(&codes::PATH_UNUSABLE, "the file of tokens cannot be written").why(error.to_string())
        })
    }

    /// Who holds a token.
    #[must_use]
    pub fn by_token(&self, secret: &str, from: Option<IpAddr>, now: Timestamp) -> Option<Caller> {
        let digest = Secret::from_text(secret).digest();
        if digest == self.local {
            return Some(Caller { who: "local".to_owned(), role: Role::Admin, from });
        }
        let mut tokens = self.tokens();
        let kept = tokens.iter_mut().find(|kept| kept.digest == digest)?;
        if kept.token.expires_at.is_some_and(|end| end <= now) {
            return None;
        }
        let caller = Caller { who: kept.token.name.clone(), role: kept.token.role, from };
        let is_news = kept.token.last_used_at.is_none_or(|last| now.duration_since(last) >= LAST_USED_EVERY);
        if is_news {
            kept.token.last_used_at = Some(now);
            // Only a convenience for people: the next use tries again.
            let _ = self.keep(&tokens);
        }
        Some(caller)
    }

    /// Who a session belongs to.
    #[must_use]
    pub fn by_session(&self, secret: &str, from: Option<IpAddr>, now: Timestamp) -> Option<Caller> {
        let (who, role) = self.sessions().find(&Secret::from_text(secret).digest(), now)?;
        Some(Caller { who, role, from })
    }

    /// All tokens, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Token> {
        let mut all: Vec<Token> = self.tokens().iter().map(|kept| kept.token.clone()).collect();
        all.sort_by(|left, right| left.name.cmp(&right.name));
        all
    }

    /// Whether a token may be made as asked.
    ///
    /// # Errors
    /// `BAD_INPUT` or `CONFLICT`.
    pub fn check(&self, request: &TokenCreate) -> Result<(), Problem> {
        let name = request.name.as_bytes();
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.iter().all(fits) || request.name == "local" {
            return Err(Problem::new(&codes::BAD_INPUT, format!("token name {:?} cannot be used", request.name))
                .field("name", format!("letters, digits, `-`, `_`, `.`; not `local`; at most {NAME_BYTES_MAX}")));
        }
        let tokens = self.tokens();
        if tokens.iter().any(|kept| kept.token.name == request.name) {
            return Err(Problem::new(&codes::CONFLICT, format!("there is a token {:?} already", request.name))
                .step(format!("vmhold token delete {}", request.name)));
        }
        if tokens.len() >= TOKENS_MAX {
            return Err(Problem::new(&codes::CONFLICT, format!("there are {TOKENS_MAX} tokens already"))
                .step("delete those nobody uses: vmhold token list"));
        }
        Ok(())
    }

    /// Makes a token.
    ///
    /// # Errors
    /// See [`Access::check`]; `PATH_UNUSABLE` when it cannot be kept.
    pub fn create(&self, request: &TokenCreate, now: Timestamp) -> Result<TokenCreated, Problem> {
        self.check(request)?;
        let secret = Secret::random()?;
        let expires_at = request.lifetime_seconds.map(|seconds| now + SignedDuration::from_secs(i64::from(seconds)));
        let (name, role) = (request.name.clone(), request.role);
        let token = Token { name, role, created_at: now, expires_at, last_used_at: None };
        let mut tokens = self.tokens();
        tokens.push(Kept { token: token.clone(), digest: secret.digest() });
        if let Err(problem) = self.keep(&tokens) {
            tokens.pop();
            return Err(problem);
        }
        Ok(TokenCreated { token, secret: secret.text().to_owned() })
    }

    /// Whether there is a token of that name.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn find(&self, name: &str) -> Result<Token, Problem> {
        let tokens = self.tokens();
        let found = tokens.iter().find(|kept| kept.token.name == name);
        found
            .map(|kept| kept.token.clone())
            .ok_or_else(|| Problem::new(&codes::NOT_FOUND, format!("no token {name:?}")).step("vmhold token list"))
    }

    /// Deletes a token and the sessions that were begun with it.
    ///
    /// # Errors
    /// `NOT_FOUND`; `PATH_UNUSABLE` when the file cannot be written, and then it still works.
    pub fn delete(&self, name: &str) -> Result<TokenDeleted, Problem> {
        self.find(name)?;
        let mut tokens = self.tokens();
        let left: Vec<Kept> = tokens.iter().filter(|kept| kept.token.name != name).cloned().collect();
        self.keep(&left)?;
        *tokens = left;
        self.sessions().end_of(name);
        Ok(TokenDeleted { name: name.to_owned() })
    }

    /// A word that lets a browser in once, as `caller`.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn login(&self, caller: &Caller, now: Timestamp) -> Result<Login, Problem> {
        self.sessions().login(caller, now)
    }

    /// Whether a request of nobody we know is still written into the audit log.
    #[must_use]
    pub fn may_be_noted(&self, now: Timestamp) -> bool {
        self.sessions().may_be_noted(now)
    }

    /// Whether someone who has not logged in may try to.
    ///
    /// # Errors
    /// `TOO_MANY_TRIES`.
    pub fn may_try(&self, now: Timestamp) -> Result<(), Problem> {
        self.sessions().may_try(now)
    }

    /// Begins a session with a login or a token. Its secret goes into a cookie.
    ///
    /// # Errors
    /// `LOGIN_REQUIRED` when it is not known (any more); `TOO_MANY_TRIES` after many of those.
    pub fn begin(
        &self,
        start: &SessionStart,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(Secret, Caller), Problem> {
        self.sessions().may_try(now)?;
        let by_login = start.login.as_deref().and_then(|word| self.sessions().take_login(word, now));
        let by_token = || {
            let caller = self.by_token(start.token.as_deref()?, from, now)?;
            Some((caller.who, caller.role))
        };
        let Some((who, role)) = by_login.or_else(by_token) else {
            self.sessions().tried_in_vain(now);
            return Err(Problem::new(&codes::LOGIN_REQUIRED, "this login or token does not work")
                .why("a login works once and for ten minutes; a token until it ends or is deleted")
                .step("a new login, on the store's machine: vmhold ui"));
        };
        let (secret, (who, role)) = self.sessions().begin(who, role, now)?;
        Ok((secret, Caller { who, role, from }))
    }

    /// Ends a session.
    pub fn end(&self, secret: &str) {
        self.sessions().end(&Secret::from_text(secret).digest());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A shelf that keeps the last text, and can be made to fail.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<(String, bool)>>);

    impl Shelf for Paper {
        fn put(&self, text: &str) -> std::io::Result<()> {
            let mut paper = self.0.lock().unwrap();
            if paper.1 {
                return Err(std::io::Error::other("full"));
            }
            paper.0 = text.to_owned();
            Ok(())
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn access(paper: &Paper) -> Access {
        let text = paper.0.lock().unwrap().0.clone();
        let file = (!text.is_empty()).then_some(text);
        Access::open(file.as_deref(), &Secret::from_text("local-secret"), Box::new(paper.clone())).unwrap()
    }

    fn ask(name: &str, lifetime_seconds: Option<u32>) -> TokenCreate {
        TokenCreate { name: name.into(), role: Role::Operator, lifetime_seconds }
    }

    #[test]
    fn a_token_works_until_it_ends_and_its_secret_is_nowhere() {
        let paper = Paper::default();
        let secret = access(&paper).create(&ask("backup", Some(60)), at(0)).unwrap().secret;
        let file = paper.0.lock().unwrap().0.clone();
        assert!(!file.contains(&secret), "only a digest is kept");
        let again = access(&paper);
        let caller = again.by_token(&secret, None, at(59)).unwrap();
        assert_eq!((&*caller.who, caller.role), ("backup", Role::Operator));
        assert_eq!(again.by_token(&secret, None, at(60)), None);
        assert_eq!(again.by_token("else", None, at(0)), None);
        assert_eq!(again.by_token("local-secret", None, at(0)).unwrap().role, Role::Admin);
        assert_eq!(again.list()[0].last_used_at, Some(at(59)));
    }

    #[test]
    fn a_deleted_token_ends_its_sessions_too() {
        let access = access(&Paper::default());
        let token = Some(access.create(&ask("ops", None), at(0)).unwrap().secret);
        let (session, _) = access.begin(&SessionStart { token, login: None }, None, at(1)).unwrap();
        assert_eq!(access.by_session(session.text(), None, at(2)).unwrap().who, "ops");
        access.delete("ops").unwrap();
        assert_eq!(access.by_session(session.text(), None, at(3)), None);
        assert_eq!(access.delete("ops").unwrap_err().code(), &codes::NOT_FOUND);
    }

    #[test]
    fn a_token_that_cannot_be_kept_is_not_made() {
        let paper = Paper::default();
        paper.0.lock().unwrap().1 = true;
        let access = access(&paper);
        assert_eq!(access.create(&ask("x", None), at(0)).unwrap_err().code(), &codes::PATH_UNUSABLE);
        assert!(access.list().is_empty());
    }

    #[test]
    fn names_are_plain_and_unique() {
        let access = access(&Paper::default());
        access.create(&ask("a", None), at(0)).unwrap();
        assert_eq!(access.check(&ask("a", None)).unwrap_err().code(), &codes::CONFLICT);
        for name in ["", "local", "a b", &"x".repeat(65)] {
            assert_eq!(access.check(&ask(name, None)).unwrap_err().code(), &codes::BAD_INPUT, "{name:?}");
        }
    }
}

//! `token`, `audit`, `ui`: who may in, and what they did.

use control::access::{Login, Role, TokenCreate, TokenCreated, TokenDeleted, TokenList};
use control::audit::{AuditList, AuditVerified};
use control::client::{Call, segment};
use control::{Document, Envelope, Exit, Problem, codes, text};
use serde::Serialize;

use crate::appliance::{self, change};
use crate::cli::{AuditAction, AuditCommand, Global, TokenAction, TokenCommand};
use crate::place::Place;
use crate::say::{Say, width};

/// Runs a verb of `token`.
pub fn tokens(command: &TokenCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let client = appliance::client(global)?;
    match &command.action {
        TokenAction::List => {
            let list: Envelope<TokenList> = client.get("/v1/tokens")?;
            say.envelope(&list, |list, _| list.human(width()));
            Ok(Exit::Success)
        }
        TokenAction::Create { name, role, lifetime } => {
            let role = match role.as_str() {
                "admin" => Role::Admin,
                "operator" => Role::Operator,
                _ => Role::Viewer,
            };
            let lifetime_seconds = lifetime.map(|lifetime| u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX));
            let request = TokenCreate { name: name.clone(), role, lifetime_seconds };
            let body = serde_json::to_string(&request).expect("a request holds only strings and numbers");
            let call = Call { method: "POST", path: "/v1/tokens", body: Some(&body), ..change(global) };
            let created = client.change::<TokenCreated>(&call)?;
            // The secret alone on standard output, so that it can go straight into a file.
            Ok(say.changed(&created, |created, _| {
                say.note(&format!("token {} ({}); this secret is not shown again:", name, role.word()));
                format!("{}\n", created.secret)
            }))
        }
        TokenAction::Delete { name } => {
            let path = format!("/v1/tokens/{}", segment(name));
            let deleted = client.change::<TokenDeleted>(&Call { method: "DELETE", path: &path, ..change(global) })?;
            Ok(say.changed(&deleted, |deleted, _| format!("token {} is gone\n", deleted.name)))
        }
    }
}

/// Runs a verb of `audit`.
pub fn audit(command: &AuditCommand, global: &Global, say: &Say) -> Result<Exit, Problem> {
    let client = appliance::client(global)?;
    match &command.action {
        AuditAction::List { limit } => {
            let list: Envelope<AuditList> = client.get(&format!("/v1/audit?limit={limit}"))?;
            say.envelope(&list, |list, _| list.human(width()));
            Ok(Exit::Success)
        }
        AuditAction::Verify => {
            let verified: Envelope<AuditVerified> = client.get("/v1/audit/verification")?;
            say.envelope(&verified, |verified, _| verified_text(verified));
            let is_broken = verified.into_result()?.broken_at_line.is_some();
            Ok(if is_broken { Exit::Failed } else { Exit::Success })
        }
    }
}

fn verified_text(verified: &AuditVerified) -> String {
    let entries = text::count(verified.entries);
    match verified.broken_at_line {
        None => format!("{entries} entries hang together\nnewest hash: {}\n", verified.newest_hash),
        Some(line) => {
            format!("the audit log is broken at line {line}; what it means: vmhold explain {}\n", codes::AUDIT_BROKEN)
        }
    }
}

/// `ui`.
#[derive(Debug, Serialize)]
struct UiAddress {
    /// With a login that works once.
    url: String,
    fingerprint: Option<String>,
    lives_seconds: u32,
}

impl Document for UiAddress {
    const SCHEMA: &'static str = "vmhold.ui/v1";
}

/// An address that logs a browser in.
pub fn login_url(global: &Global) -> Result<(String, u32), Problem> {
    let call = Call { method: "POST", path: "/v1/logins", ..Call::default() };
    let client = appliance::client(global)?;
    let login: Envelope<Login> = client.call(&call)?;
    let login = login.into_result()?;
    Ok((format!("https://{}/#login={}", client.address(), login.login), login.lives_seconds))
}

/// Runs `ui`.
pub fn ui(global: &Global, say: &Say) -> Result<Exit, Problem> {
    let (url, lives_seconds) = login_url(global)?;
    let announced = Place::of(&global.dir).announced();
    let fingerprint = announced.and_then(|here| here.ready.fingerprint).map(|digits| digits.to_string());
    say.document(UiAddress { url, fingerprint, lives_seconds }, |said| {
        let mut out = format!("{}\n", said.url);
        out.push_str(&format!("  works once, for {}\n", text::duration(f64::from(said.lives_seconds))));
        if let Some(digits) = &said.fingerprint {
            out.push_str("  the browser will not know the certificate; it is ours if it shows (SHA-256)\n");
            for half in [&digits[..47], &digits[48..]] {
                out.push_str(&format!("  {half}\n"));
            }
        }
        out
    });
    Ok(Exit::Success)
}

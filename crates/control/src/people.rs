//! Who is let in: sessions of browsers, logins, tokens, and the audit log.

use axum::extract::{Extension, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use jiff::Timestamp;

use crate::access::{Caller, Login, Role, Session, SessionStart, TokenCreate, TokenCreated, TokenDeleted, TokenList};
use crate::audit::{AuditList, AuditVerified};
use crate::codes;
use crate::extract::{Asked, Named, Sent};
use crate::guard::{Credential, DryRun};
use crate::plan::Plan;
use crate::problem::Problem;
use crate::route::Route;
use crate::server::{LISTED, LISTED_MAX, ListQuery, Reply, Shared, envelope};

/// Their rows.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/v1/session", "Who is logged in.", session).answers::<Session>(),
        Route::post("/v1/session", "Logs a browser in with a one-time login or a token.", begin_session)
            .open()
            .takes::<SessionStart>()
            .answers::<Session>()
            .secret()
            .plans(),
        Route::delete("/v1/session", "Logs out.", end_session).role(Role::Viewer).answers::<Session>().plans(),
        Route::post("/v1/logins", "Makes a one-time login with the caller's own role.", login)
            .role(Role::Viewer)
            .answers::<Login>()
            .secret()
            .plans(),
        Route::get("/v1/tokens", "All tokens, without their secrets.", tokens)
            .role(Role::Operator)
            .answers::<TokenList>(),
        Route::post("/v1/tokens", "Makes a token; its secret is shown this once.", create_token)
            .takes::<TokenCreate>()
            .answers::<TokenCreated>()
            .secret()
            .creates()
            .plans(),
        Route::delete("/v1/tokens/{name}", "Deletes a token and ends its sessions.", delete_token)
            .answers::<TokenDeleted>()
            .plans(),
        Route::get("/v1/audit", "Who asked for which change, oldest first.", audit)
            .role(Role::Operator)
            .answers::<AuditList>()
            .parameter("limit", "integer", "At most the newest so many."),
        Route::get("/v1/audit/verification", "Whether the audit log hangs together.", audit_verification)
            .role(Role::Operator)
            .answers::<AuditVerified>(),
    ]
}

async fn session(State(api): Shared, Extension(caller): Extension<Option<Caller>>) -> Reply {
    let caller = caller.ok_or_else(|| Problem::new(&codes::LOGIN_REQUIRED, "nobody is logged in"))?;
    Ok(envelope(None, api.session(caller)))
}

async fn begin_session(
    State(api): Shared,
    Extension(credential): Extension<Credential>,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(start): Sent<SessionStart>,
) -> Reply {
    if dry_run {
        return Ok(envelope(None, Plan::would("log this browser in, if the login or token works")));
    }
    let (secret, caller) = api.access().begin(&start, credential.from(), Timestamp::now())?;
    let cookie = format!("{}={}; Path=/; Secure; HttpOnly; SameSite=Strict", api.cookie_name(), secret.text());
    let mut response = envelope(None, api.session(caller));
    let cookie =
        HeaderValue::from_str(&cookie).map_err(|why| Problem::new(&codes::BUG, "no cookie").why(why.to_string()))?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

async fn end_session(
    State(api): Shared,
    Extension(credential): Extension<Credential>,
    Extension(DryRun(dry_run)): Extension<DryRun>,
) -> Reply {
    let caller = credential.caller(&api);
    let caller = caller.ok_or_else(|| Problem::new(&codes::LOGIN_REQUIRED, "nobody is logged in"))?;
    if dry_run {
        return Ok(envelope(None, Plan::would(format!("log {} out of this browser", caller.who))));
    }
    if let Some(session) = credential.session() {
        api.access().end(session);
    }
    let cookie = format!("{}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0", api.cookie_name());
    let mut response = envelope(None, api.session(caller));
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

async fn login(
    State(api): Shared,
    Extension(credential): Extension<Credential>,
    Extension(DryRun(dry_run)): Extension<DryRun>,
) -> Reply {
    let caller = credential.caller(&api);
    let caller = caller.ok_or_else(|| Problem::new(&codes::LOGIN_REQUIRED, "nobody is logged in"))?;
    if dry_run {
        return Ok(envelope(None, Plan::would(format!("make a login that works once, as {}", caller.role.word()))));
    }
    Ok(envelope(None, api.access().login(&caller, Timestamp::now())?))
}

async fn tokens(State(api): Shared) -> Reply {
    Ok(envelope(None, TokenList(api.access().list())))
}

async fn create_token(
    State(api): Shared,
    Extension(DryRun(dry_run)): Extension<DryRun>,
    Sent(request): Sent<TokenCreate>,
) -> Reply {
    if dry_run {
        api.access().check(&request)?;
        let plan = Plan::would(format!("make token {} with the role {}", request.name, request.role.word()));
        return Ok(envelope(None, plan));
    }
    let created = api.access().create(&request, Timestamp::now())?;
    Ok((StatusCode::CREATED, envelope(None, created)).into_response())
}

async fn delete_token(State(api): Shared, Named(name): Named, Extension(DryRun(dry_run)): Extension<DryRun>) -> Reply {
    if dry_run {
        api.access().find(&name)?;
        return Ok(envelope(None, Plan::would(format!("delete token {name}")).and("end its sessions")));
    }
    Ok(envelope(None, api.access().delete(&name)?))
}

async fn audit(State(api): Shared, Asked(query): Asked<ListQuery>) -> Reply {
    Ok(envelope(None, AuditList(api.audit().newest(query.limit.unwrap_or(LISTED).min(LISTED_MAX)))))
}

async fn audit_verification(State(api): Shared) -> Reply {
    Ok(envelope(None, api.audit().verified()))
}

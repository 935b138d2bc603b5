//! What every request passes before its handler sees it: does the page it comes from belong
//! here, who asks, may they, is it only a plan, was it asked before; and for a change the
//! audit log, before and after.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use crate::access::Caller;
use crate::audit::{AuditOutcome, Said as Written};
use crate::codes;
use crate::extract::{self, cookie, parameter};
use crate::listener::Peer;
use crate::problem::Problem;
use crate::repeats::{Begun, Said};
use crate::route::{Needs, Route};
use crate::server::{Api, Refusal};

const JSON: &str = "application/json";

/// What the guard has to know about a call.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    needs: Needs,
    plans: bool,
    is_change: bool,
    is_secret: bool,
}

impl From<&Route> for Rule {
    fn from(route: &Route) -> Self {
        let Route { needs, plans, is_secret, .. } = *route;
        Self { needs, plans, is_change: route.is_change(), is_secret }
    }
}

/// What lets a request in: kept by streams, which look again from time to time.
#[derive(Clone, Default)]
pub(crate) struct Credential {
    bearer: Option<String>,
    session: Option<String>,
    from: Option<std::net::IpAddr>,
}

impl Credential {
    fn of(request: &Request, cookie_name: &str) -> Self {
        let headers = request.headers();
        let bearer = extract::header(headers, "authorization")
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.to_owned());
        let from = request.extensions().get::<ConnectInfo<Peer>>().map(|peer| peer.0.0.ip().to_canonical());
        Self { bearer, session: cookie(headers, cookie_name).map(str::to_owned), from }
    }

    /// Who that is, now.
    pub fn caller(&self, api: &Api) -> Option<Caller> {
        let now = Timestamp::now();
        match (&self.bearer, &self.session) {
            (Some(token), _) => api.access().by_token(token, self.from, now),
            (None, Some(session)) => api.access().by_session(session, self.from, now),
            (None, None) => None,
        }
    }

    /// The secret of the session, to end it.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// From where.
    pub const fn from(&self) -> Option<std::net::IpAddr> {
        self.from
    }
}

/// Whether a change is only to be planned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DryRun(pub bool);

/// See the module's head.
pub(crate) async fn guard(
    State((api, rule)): State<(Api, Arc<Rule>)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    same_origin(&request)?;
    let credential = Credential::of(&request, api.cookie_name());
    let caller = credential.caller(&api);
    let action = action_of(&request);
    let allowed = may(rule.needs, caller.as_ref());
    if !rule.is_change {
        allowed?;
        request.extensions_mut().insert(credential);
        request.extensions_mut().insert(caller);
        return Ok(next.run(request).await);
    }
    let dry_run = parameter(request.uri(), "dry_run")?.unwrap_or(false);
    let written = Written { caller: caller.as_ref(), action: &action, dry_run, about: None };
    if let Err(problem) = allowed {
        // Nobody may push what others did out of the log by knocking.
        if caller.is_some() || api.access().may_be_noted(Timestamp::now()) {
            let status = problem.code().http;
            api.audit().write(&written, AuditOutcome::Answered { status }, Timestamp::now())?;
        }
        return Err(problem.into());
    }
    if dry_run && !rule.plans {
        return Err(Problem::new(&codes::NOT_SUPPORTED, format!("{action} cannot be planned")).into());
    }
    if caller.is_none() {
        api.access().may_try(Timestamp::now())?;
    }
    let asked = api.audit().write(&written, AuditOutcome::Asked, Timestamp::now())?;
    request.extensions_mut().insert(credential);
    request.extensions_mut().insert(DryRun(dry_run));
    request.extensions_mut().insert(caller.clone());
    let who = caller.as_ref().map_or("-", |caller| caller.who.as_str());
    let response = if rule.is_secret { Ok(next.run(request).await) } else { once(&api, who, request, next).await };
    let status = response.as_ref().map_or_else(Refusal::status, |response| response.status().as_u16());
    let answered = Written { about: Some(asked), ..written };
    // What was done is done; the entry that asked stands already.
    let _ = api.audit().write(&answered, AuditOutcome::Answered { status }, Timestamp::now());
    response
}

/// `DELETE /v1/datastores/prod`, without what stands behind `?`: that may hold secrets of
/// tools that put them there.
fn action_of(request: &Request) -> String {
    let path: String = request.uri().path().chars().take(300).collect();
    format!("{} {path}", request.method())
}

fn may(needs: Needs, caller: Option<&Caller>) -> Result<(), Problem> {
    let Needs::Role(role) = needs else { return Ok(()) };
    let Some(caller) = caller else {
        return Err(Problem::new(&codes::LOGIN_REQUIRED, "this call needs a token or a session"));
    };
    if caller.role >= role {
        return Ok(());
    }
    let (has, needs) = (caller.role.word(), role.word());
    Err(Problem::new(&codes::ROLE_MISSING, format!("{} has the role {has}; this call needs {needs}", caller.who)))
}

/// A page of somebody else must not use the cookie of someone who is logged in here.
fn same_origin(request: &Request) -> Result<(), Problem> {
    let Some(origin) = extract::header(request.headers(), "origin") else { return Ok(()) };
    let authority = request.uri().authority().map(axum::http::uri::Authority::as_str);
    let host = extract::header(request.headers(), "host").or(authority);
    if origin.split_once("://").map(|(_, from)| from) == host && host.is_some() {
        return Ok(());
    }
    Err(Problem::new(&codes::ROLE_MISSING, format!("the API does not answer to pages of {origin}"))
        .why("only its own pages may use the session of a browser"))
}

/// Does a request once, however often it comes with the same `Idempotency-Key`.
async fn once(api: &Api, who: &str, request: Request, next: Next) -> Result<Response, Refusal> {
    let key = extract::header(request.headers(), "idempotency-key").map(str::to_owned);
    let Some(key) = key.filter(|_| request.method() == Method::POST) else {
        return Ok(next.run(request).await);
    };
    let (parts, body) = request.into_parts();
    let bytes = extract::whole(body).await?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(parts.uri.to_string().as_bytes()).update(b"\0").update(&bytes);
    match api.repeats().begin(who, &key, hasher.finalize(), Timestamp::now())? {
        Begun::Again(said) => {
            let status = StatusCode::from_u16(said.status).unwrap_or(StatusCode::OK);
            let content_type = HeaderValue::from_str(&said.content_type).unwrap_or(HeaderValue::from_static(JSON));
            return Ok((status, [(header::CONTENT_TYPE, content_type)], said.body).into_response());
        }
        Begun::New => {}
    }
    let forget = Forget { api: api.clone(), who: who.to_owned(), key: key.clone() };
    let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    let (head, body) = response.into_parts();
    let body = extract::whole(body).await?;
    if !head.status.is_server_error() {
        let content_type = extract::header(&head.headers, "content-type").unwrap_or(JSON).to_owned();
        api.repeats().finish(who, &key, Said { status: head.status.as_u16(), content_type, body: body.to_vec() });
    }
    drop(forget);
    Ok(Response::from_parts(head, Body::from(body)))
}

/// A request that was broken off, or failed on our side, may be tried again.
struct Forget {
    api: Api,
    who: String,
    key: String,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.api.repeats().forget(&self.who, &self.key);
    }
}

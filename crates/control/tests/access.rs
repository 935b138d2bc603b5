//! Who may do what, what is planned and not done, what is written down, and what repeats.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod paper;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use control::access::{Role, Secret};
use control::audit::verify;
use control::route::{Needs, Route};
use control::server::table;
use paper::Running;
use serde_json::Value;

/// Bodies that the calls of the table take.
fn body_of(route: &Route) -> &'static str {
    match route.path {
        "/v1/datastores" => "{\"name\":\"planned\"}",
        "/v1/tokens" => "{\"name\":\"planned\",\"role\":\"viewer\"}",
        "/v1/session" => "{\"token\":\"wrong\"}",
        "/v1/file-clones/{datastore}" => "{\"path\":\"a\",\"to\":\"b\"}",
        _ => "{}",
    }
}

fn path_of(route: &Route) -> String {
    route.path.replace("{name}", "flash0").replace("{id}", "J-1").replace("{code}", "VH1021")
}

/// No call is made without its role: nobody, viewers, operators and admins are told apart
/// by every row of the table.
#[test]
fn no_call_without_its_role() {
    let server = Running::start();
    let roles = [Role::Viewer, Role::Operator, Role::Admin];
    let tokens = roles.map(|role| (role, server.token(role.word(), role)));
    for route in table().iter().filter(|route| !route.streams) {
        let plan = if route.is_change() { "?dry_run=true" } else { "" };
        let request = format!("{} {}{plan}", route.method, path_of(route));
        let nobody = server.as_token(None, &request, body_of(route));
        let stranger = server.as_token(Some(&Secret::from_text("vmh_wrong")), &request, body_of(route));
        let Needs::Role(needed) = route.needs else {
            assert!(nobody.status != 401 && nobody.status != 403, "{request}: {nobody:?}");
            continue;
        };
        assert_eq!((nobody.status, stranger.status), (401, 401), "{request}");
        assert!(nobody.header("www-authenticate").is_some());
        for (role, token) in &tokens {
            let answer = server.as_token(Some(token), &request, body_of(route));
            assert_eq!(answer.status == 403, *role < needed, "{request} as {}: {answer:?}", role.word());
            assert!(answer.status < 500 && answer.status != 401, "{request}: {answer:?}");
        }
    }
    assert_eq!(server.paper.changes.load(Ordering::SeqCst), 0);
}

/// Every change can be planned, and planning changes nothing.
#[test]
fn every_change_can_be_planned_and_planning_changes_nothing() {
    let server = Running::start();
    server.create("flash0").unwrap();
    let token = server.token("flash0", Role::Viewer);
    let before = server.paper.changes.load(Ordering::SeqCst);
    for route in table().iter().filter(|route| route.is_change()) {
        assert!(route.plans, "{} cannot be planned", route.name());
        let request = format!("{} {}?dry_run=true", route.method, path_of(route));
        let answer = server.as_token(Some(&server.admin), &request, body_of(route));
        assert!(answer.status < 500, "{request}: {answer:?}");
        if answer.status < 300 {
            let document: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(document["schema"], "vmhold.plan/v1", "{request}: {document}");
            assert!(document["data"]["would"].as_array().is_some_and(|would| !would.is_empty()), "{document}");
        }
    }
    assert_eq!(server.paper.changes.load(Ordering::SeqCst), before);
    assert_eq!(server.books.access.list().len(), 1, "no token came or went");
    assert!(server.as_token(Some(&token), "GET /v1/status", "").status == 200, "and its holder is still let in");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let server = Running::start();
    let post = |request: &str, body: &str| server.as_token(Some(&server.admin), request, body);
    for (request, body) in [
        ("POST /v1/datastores?dry_run=maybe", "{\"name\":\"x\"}"),
        ("POST /v1/datastores", "{"),
        ("POST /v1/tokens", "{\"name\":\"x\",\"role\":\"god\"}"),
        ("POST /v1/tokens", "{\"name\":\"x\",\"role\":\"viewer\",\"other\":1}"),
        ("GET /v1/events?limit=-1", ""),
        ("GET /v1/vms/demo/100/snapshot-files", ""),
        ("POST /v1/file-clones/demo", "{\"path\":\"a\",\"to\":\"../b\"}"),
        ("GET /v1/stream?topics=gossip", ""),
        ("GET /v1/codes/%ff", ""),
    ] {
        let answer = post(request, body);
        assert_eq!(answer.status, 400, "{request}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{request}: {answer:?}");
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert!(problem["code"].as_str().unwrap().starts_with("VH7"), "{problem}");
    }
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(post("POST /v1/datastores", &long).status, 400);
    assert_eq!(server.paper.changes.load(Ordering::SeqCst), 0);
}

#[test]
fn a_browser_logs_in_once_with_a_word_and_uses_a_cookie() {
    let server = Running::start();
    let login = server.as_token(Some(&server.admin), "POST /v1/logins", "");
    let login: Value = serde_json::from_str(&login.body).unwrap();
    let body = format!("{{\"login\":{}}}", login["data"]["login"]);
    let begun = server.raw("POST /v1/session", &[], &body);
    let cookie = begun.header("set-cookie").unwrap().to_owned();
    for part in ["__Host-vmhold-", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert_eq!(server.raw("POST /v1/session", &[], &body).status, 401, "the word works once");
    let cookie = cookie.split(';').next().unwrap();
    let who = server.raw("GET /v1/session", &[("Cookie", cookie)], "");
    assert!(who.body.contains("\"role\":\"admin\"") && who.body.contains(&server.fingerprint.to_string()), "{who:?}");

    let change = |headers: &[(&str, &str)]| server.raw("POST /v1/checkpoint", headers, "");
    let foreign = change(&[("Cookie", cookie), ("Origin", "https://evil.example")]);
    assert_eq!(foreign.status, 403, "another page must not use the cookie: {foreign:?}");
    let own = format!("https://{}", server.address);
    assert_eq!(change(&[("Cookie", cookie), ("Origin", &own)]).status, 200);
    assert_eq!(server.raw("DELETE /v1/session", &[("Cookie", cookie)], "").status, 200);
    assert_eq!(server.raw("GET /v1/session", &[("Cookie", cookie)], "").status, 401);
}

#[test]
fn guessing_logins_is_slowed_down() {
    let server = Running::start();
    let statuses: BTreeSet<u16> =
        (0..25).map(|_| server.raw("POST /v1/session", &[], "{\"login\":\"guess\"}").status).collect();
    assert_eq!(statuses, BTreeSet::from([401, 429]));
    assert_eq!(server.as_token(Some(&server.admin), "GET /v1/status", "").status, 200, "tokens go on working");
}

#[test]
fn every_change_is_written_down_before_and_after_and_no_secret_with_it() {
    let server = Running::start();
    let viewer = server.token("eyes", Role::Viewer);
    server.create("x").unwrap();
    server.as_token(Some(&viewer), "DELETE /v1/datastores/x?reason=private", "");
    server.as_token(None, "POST /v1/fsck", "");
    let created = server.as_token(Some(&server.admin), "POST /v1/tokens", "{\"name\":\"t\",\"role\":\"viewer\"}");
    let created: Value = serde_json::from_str(&created.body).unwrap();
    server.as_token(Some(&server.admin), "GET /v1/status", "");
    let lines = server.audit.lines();
    let said = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap();
        let outcome = line["outcome"]["answered"]["status"].as_u64();
        (line["who"].as_str().unwrap().to_owned(), line["action"].as_str().unwrap().to_owned(), outcome)
    };
    let said: Vec<_> = lines.iter().map(said).collect();
    let row = |who: &str, action: &str, status: Option<u64>| (who.to_owned(), action.to_owned(), status);
    assert_eq!(
        said,
        [
            row("local", "POST /v1/datastores", None),
            row("local", "POST /v1/datastores", Some(201)),
            row("eyes", "DELETE /v1/datastores/x", Some(403)),
            row("-", "POST /v1/fsck", Some(401)),
            row("local", "POST /v1/tokens", None),
            row("local", "POST /v1/tokens", Some(201)),
        ]
    );
    assert_eq!(verify(lines.iter().map(String::as_str)).broken_at_line, None);
    let all = lines.join("\n");
    for secret in [viewer.text(), server.admin.text(), created["data"]["secret"].as_str().unwrap(), "private"] {
        assert!(!all.contains(secret), "a secret is in the audit log: {all}");
    }
}

#[test]
fn a_request_that_comes_twice_is_done_once() {
    let server = Running::start();
    let bearer = format!("Bearer {}", server.admin.text());
    let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", "k-1")];
    let post = |body: &str| server.raw("POST /v1/datastores", &headers, body);
    let first = post("{\"name\":\"a\"}");
    let again = post("{\"name\":\"a\"}");
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.body, again.body, "the same answer, to the byte");
    assert_eq!(post("{\"name\":\"b\"}").status, 409, "the key is spent");
    assert_eq!(server.paper.changes.load(Ordering::SeqCst), 1);
}

#[test]
fn if_match_names_the_settings_and_not_the_counts() {
    let server = Running::start();
    server.create("a").unwrap();
    let bearer = format!("Bearer {}", server.admin.text());
    let get = server.raw("GET /v1/datastores/a", &[("Authorization", &bearer)], "");
    let etag = get.header("etag").unwrap();
    let delete = |etag: &str| {
        let headers = [("Authorization", bearer.as_str()), ("Confirm", "a"), ("If-Match", etag)];
        server.raw("DELETE /v1/datastores/a", &headers, "").status
    };
    assert_eq!(delete("\"other\""), 412);
    assert_eq!(delete(etag), 200);
}

#[test]
fn the_description_has_every_call_with_its_role_and_every_reference_leads_somewhere() {
    let server = Running::start();
    let text = server.as_token(None, "GET /v1/openapi.json", "").body;
    let document: Value = serde_json::from_str(&text).unwrap();
    for route in table() {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        assert!(operation["summary"].as_str().is_some_and(|says| says.ends_with('.')), "{}", route.name());
        let role = match route.needs {
            Needs::Nothing => Value::Null,
            Needs::Role(role) => serde_json::to_value(role).unwrap(),
        };
        assert_eq!(operation["x-role"], role, "{}", route.name());
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is not described");
    }
    let ids: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

#[test]
fn who_speaks_plain_http_is_told_so() {
    use std::io::{Read, Write};
    let server = Running::start();
    let mut stream = std::net::TcpStream::connect(server.address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.contains("use https://"), "{answer}");
}

#[test]
fn pages_come_with_a_policy_that_allows_nothing_from_elsewhere() {
    let server = Running::start();
    let page = server.raw("GET /", &[], "");
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
}

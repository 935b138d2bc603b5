//! The stream of changes: what was missed comes first, in order, once.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod paper;

use control::access::Role;
use control::client::{Client, Message};
use control::codes;
use control::events::News;
use control::jobs::{JobState, NewJob};
use jiff::Timestamp;
use paper::Running;
use std::time::Duration;

fn tell(server: &Running, detail: &str) -> u64 {
    server.books.events.tell(News::happened(&codes::UNIT_REPAIRED, "flash0", detail), Timestamp::now()).number
}

/// Reads until `enough` messages of a name have come.
fn read(client: &Client, path: &str, name: &str, enough: usize) -> Vec<Message> {
    let mut seen = Vec::new();
    let read = client.stream(path, |message| {
        if message.name == name {
            seen.push(message);
        }
        Ok(seen.len() < enough)
    });
    read.unwrap();
    seen
}

#[test]
fn events_are_resumed_after_the_last_one_seen() {
    let server = Running::start();
    let numbers: Vec<u64> = ["a", "b", "c", "d"].into_iter().map(|detail| tell(&server, detail)).collect();
    let path = format!("/v1/stream?topics=events&after={}", numbers[1]);
    let missed = read(&server.client, &path, "event", 2);
    let ids: Vec<u64> = missed.iter().map(|message| message.id.as_ref().unwrap().parse().unwrap()).collect();
    assert_eq!(ids, numbers[2..]);
    assert!(missed[0].data.contains("\"detail\":\"c\""));
}

#[test]
fn who_cannot_be_given_what_was_missed_is_told_so() {
    let server = Running::start();
    tell(&server, "only one");
    let gap = read(&server.client, "/v1/stream?topics=events&after=999", "gap", 1);
    assert!(gap[0].data.contains("\"newest_event\":"), "a number from another life is a gap: {gap:?}");
}

#[test]
fn what_happens_while_listening_arrives_at_once() {
    let server = Running::start();
    let mut told = 0;
    let mut seen = Vec::new();
    let streamed = server.client.stream("/v1/stream?topics=events", |message| {
        match message.name.as_str() {
            // Only now is the listener known to be there.
            "hello" => told = tell(&server, "now"),
            "event" => seen.push(message),
            _ => {}
        }
        Ok(!seen.iter().any(|message: &Message| message.data.contains("\"detail\":\"now\"")))
    });
    streamed.unwrap();
    assert_eq!(seen.last().unwrap().id.as_deref(), Some(told.to_string().as_str()));
}

#[test]
fn status_and_jobs_come_as_whole_documents() {
    let server = Running::start();
    let status = read(&server.client, "/v1/stream?topics=status", "status", 1);
    assert!(status[0].data.starts_with("{\"schema\":\"vmhold.status/v1\""), "{status:?}");
    let new = NewJob { kind: "rebuild", object: "flash0/7".into(), total_bytes: Some(10), ..NewJob::default() };
    server.books.jobs.start(new, Timestamp::now()).end(JobState::Done, "rebuilt", Timestamp::now());
    let jobs = read(&server.client, "/v1/stream?topics=jobs", "jobs", 1);
    assert!(jobs[0].data.contains("\"percent\":100.0"), "{jobs:?}");
}

/// What lets a stream in is looked at again with every beat.
#[test]
fn a_stream_ends_when_its_token_is_deleted() {
    let server = Running::start();
    let token = server.token("eyes", Role::Viewer);
    let client = Client::new(server.address, server.fingerprint, Duration::from_secs(20)).with_token(token);
    let mut beats = 0;
    let ended = client.stream("/v1/stream?topics=events", |message| {
        if message.name == "hello" {
            server.books.access.delete("eyes").unwrap();
        }
        beats += usize::from(message.name == "beat");
        Ok(beats < 3)
    });
    assert!(ended.is_ok() && beats < 3, "it went on for {beats} beats");
}

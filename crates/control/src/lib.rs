//! What people and programs see of vmhold: codes, messages, exit codes, documents.
//!
//! Promises: one registry of codes; every error says what, why and what to do; every
//! document has the same envelope; unknown is `null` and `-`, never 0 and never green;
//! the same documents are printed by the CLI, served by the API and rendered as text.
//!
//! Must not know: how anything is stored or served. Plain data in, text and JSON out;
//! whoever has the data implements [`server::ControlBackend`].

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod access;
pub mod activity;
pub mod activity_book;
mod activity_routes;
pub mod audit;
pub mod check;
pub mod client;
pub mod codes;
pub mod datastore;
pub mod demo;
mod drive_routes;
pub mod envelope;
pub mod events;
pub mod exit;
pub mod expansion;
mod extract;
pub mod feed;
mod guard;
pub mod health;
pub mod history;
pub mod inject;
mod inject_routes;
pub mod integrity;
mod integrity_routes;
pub mod jobs;
pub mod ledger;
pub mod listener;
pub mod metrics;
pub mod mutual;
pub mod openapi;
mod people;
pub mod plan;
pub mod pool;
pub mod problem;
pub mod repair_scan;
mod repeats;
pub mod replacement;
pub mod replication;
mod replication_routes;
pub mod roles;
pub mod route;
pub mod server;
pub mod signature;
pub mod status;
mod stream;
pub mod text;
pub mod tls;
pub mod ui;
pub mod upkeep;
pub mod vm;
pub mod vm_file;
mod vm_routes;

pub use codes::{Code, Severity};
pub use envelope::{Document, Envelope, Origin, Outcome};
pub use exit::Exit;
pub use problem::{Problem, ProblemDocument};

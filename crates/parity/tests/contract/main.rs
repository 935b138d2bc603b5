//! The promises of the crate, tested through its public face.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod erasures;
mod fuzz;
#[cfg(target_os = "linux")]
mod guard_page;
mod misuse;
mod properties;
mod rows;
mod stripe;
mod vectors;

//! A panic as people see it: code, place and message; never a stack trace.

use std::io::Write;

use control::{Problem, codes};

/// Replaces the standard report. Where a log is kept, it goes into the log.
pub fn install() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message").to_owned();
        let place = panic.location().map_or_else(|| "unknown place".to_owned(), ToString::to_string);
        if tracing::dispatcher::has_been_set() {
            tracing::error!(code = "VH9001", place, "{message}");
            return;
        }
        let problem =
            Problem::new(&codes::BUG, message).why(format!("at {place}, version {}", env!("CARGO_PKG_VERSION")));
        // Nothing can be done about a closed standard error.
        let _ = std::io::stderr().write_all(problem.human().as_bytes());
    }));
}

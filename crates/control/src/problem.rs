//! An error as people and programs see it: what happened, why, what to do.
//!
//! One value, three forms: text for a terminal, `application/problem+json` (RFC 9457)
//! for the API, and the `error` part of the envelope for `--json`; the latter two are
//! the same document.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes::{self, Code, Severity};
use crate::exit::Exit;
use crate::text::wrap;

const WIDTH: usize = 80;

/// Something that stopped a command or request, or a warning about it.
#[derive(Clone, Debug)]
pub struct Problem {
    code: &'static Code,
    said: Box<Said>,
}

/// What one problem says beyond its code.
#[derive(Clone, Debug, Default)]
struct Said {
    what: String,
    why: Vec<String>,
    steps: Vec<String>,
    notes: Vec<String>,
    fields: Vec<FieldProblem>,
    retry_after_seconds: Option<f64>,
    trace_id: Option<String>,
}

/// What is wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldProblem {
    /// Name of the field.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// As a sentence or a command line.
    pub cli: String,
    /// As an API call, where there is one.
    pub api: Option<String>,
}

/// The JSON form of a [`Problem`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemDocument {
    /// Where the code is explained, relative to the API.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the code means in general.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The request it is about, if one is.
    pub instance: Option<String>,
    /// `VH1021`.
    pub code: String,
    /// `DRIVE_FAILED`.
    pub name: String,
    /// How bad.
    pub severity: Severity,
    /// Reasons, one each.
    pub why: Vec<String>,
    /// What to do, most useful first.
    #[serde(rename = "do")]
    pub steps: Vec<Step>,
    /// Further remarks.
    pub notes: Vec<String>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// When to try again.
    pub retry_after_seconds: Option<f64>,
    /// Finds the request in the log.
    pub trace_id: Option<String>,
    /// Fields of the request that are wrong.
    pub fields: Vec<FieldProblem>,
}

impl Problem {
    /// A problem of a registered kind. `what` starts with the object and has no full stop.
    #[must_use]
    pub fn new(code: &'static Code, what: impl Into<String>) -> Self {
        Self { code, said: Box::new(Said { what: what.into(), ..Said::default() }) }
    }

    /// Adds a reason.
    #[must_use]
    pub fn why(mut self, reason: impl Into<String>) -> Self {
        self.said.why.push(reason.into());
        self
    }

    /// Adds something to do; without any, the registry's steps are shown.
    #[must_use]
    pub fn step(mut self, step: impl Into<String>) -> Self {
        self.said.steps.push(step.into());
        self
    }

    /// Adds a remark.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.said.notes.push(note.into());
        self
    }

    /// Names a field of the request that is wrong.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, detail: impl Into<String>) -> Self {
        self.said.fields.push(FieldProblem { field: field.into(), detail: detail.into() });
        self
    }

    /// Says that the same request may succeed after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: f64) -> Self {
        self.said.retry_after_seconds = Some(seconds);
        self
    }

    /// Ties the problem to lines of the log.
    #[must_use]
    pub fn trace(mut self, trace_id: impl Into<String>) -> Self {
        self.said.trace_id = Some(trace_id.into());
        self
    }

    /// Its entry in the registry.
    #[must_use]
    pub const fn code(&self) -> &'static Code {
        self.code
    }

    /// How a command stopped by it ends.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.code.exit
    }

    /// What happened.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.said.what
    }

    /// The first reason, if one is known.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.said.why.first().map(String::as_str)
    }

    /// The text for standard error, with a line break at its end.
    #[must_use]
    pub fn human(&self) -> String {
        let mut out = String::new();
        let head = format!("{}[{}]: {}", self.code.severity.word(), self.code, self.said.what);
        for line in wrap(&head, WIDTH) {
            out.push_str(&line);
            out.push('\n');
        }
        let fields = self.said.fields.iter().map(|field| format!("{}: {}", field.field, field.detail));
        let why: Vec<String> = self.said.why.iter().cloned().chain(fields).collect();
        labelled(&mut out, "why:", &why);
        if self.said.steps.is_empty() {
            let steps: Vec<String> = self.code.act.iter().map(|step| (*step).to_owned()).collect();
            labelled(&mut out, "try:", &steps);
        } else {
            labelled(&mut out, "try:", &self.said.steps);
        }
        labelled(&mut out, "note:", &self.said.notes);
        let trace = self.said.trace_id.as_ref().map(|id| format!("        trace: {id}")).unwrap_or_default();
        out.push_str(&format!("  docs: vmhold explain {}{trace}\n", self.code));
        out
    }

    /// The JSON form; `instance` is the request it is about.
    #[must_use]
    pub fn document(&self, instance: Option<&str>) -> ProblemDocument {
        let own: Vec<&str> = self.said.steps.iter().map(String::as_str).collect();
        let steps = if own.is_empty() { self.code.act } else { own.as_slice() };
        ProblemDocument {
            kind: format!("/v1/codes/{}", self.code),
            title: self.code.what.to_owned(),
            status: self.code.http,
            detail: self.said.what.clone(),
            instance: instance.map(str::to_owned),
            code: self.code.to_string(),
            name: self.code.name.to_owned(),
            severity: self.code.severity,
            why: self.said.why.clone(),
            steps: steps.iter().map(|step| Step { cli: (*step).to_owned(), api: None }).collect(),
            notes: self.said.notes.clone(),
            retryable: self.said.retry_after_seconds.is_some() || self.code.http == 503,
            retry_after_seconds: self.said.retry_after_seconds,
            trace_id: self.said.trace_id.clone(),
            fields: self.said.fields.clone(),
        }
    }
}

impl From<ProblemDocument> for Problem {
    /// A problem as a server sent it. A code this program does not know becomes `BUG` with
    /// the sender's code in a note.
    fn from(document: ProblemDocument) -> Self {
        let known = codes::find(&document.code);
        let mut problem = Self::new(known.unwrap_or(&codes::BUG), document.detail);
        problem.said.why = document.why;
        problem.said.steps = document.steps.into_iter().map(|step| step.cli).collect();
        problem.said.notes = document.notes;
        if known.is_none() {
            problem.said.notes.push(format!("the server calls it {} {}", document.code, document.name));
        }
        problem.said.fields = document.fields;
        problem.said.retry_after_seconds = document.retry_after_seconds;
        problem.said.trace_id = document.trace_id;
        problem
    }
}

/// Lines below one label; continuation lines and further entries stand below the first.
fn labelled(out: &mut String, label: &str, entries: &[String]) {
    let mut label = label;
    for line in entries.iter().flat_map(|entry| wrap(entry, WIDTH - 8)) {
        out.push_str(&format!("  {label:<5} {line}\n"));
        label = "";
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}", self.code.severity.word(), self.code, self.said.what)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Problem {
        Problem::new(
            &codes::WOULD_LOSE_REDUNDANCY,
            "refusing to take flash0/3 offline: pool flash0 cannot lose another drive",
        )
        .why("flash0/7 and flash0/9 are failed; removing a third drive would stop 214 VMs")
        .step("wait for rebuild J-1042 (ETA 09:50), or insert a drive")
        .note("there is no --force for this")
        .trace("7f3a9c12")
    }

    #[test]
    fn the_text_says_what_why_and_what_to_do() {
        assert_eq!(
            sample().human(),
            "error[VH1015]: refusing to take flash0/3 offline: pool flash0 cannot lose\n\
             another drive\n  \
             why:  flash0/7 and flash0/9 are failed; removing a third drive would stop 214\n        \
             VMs\n  \
             try:  wait for rebuild J-1042 (ETA 09:50), or insert a drive\n  \
             note: there is no --force for this\n  \
             docs: vmhold explain VH1015        trace: 7f3a9c12\n"
        );
    }

    #[test]
    fn without_own_steps_those_of_the_registry_are_shown() {
        let text = Problem::new(&codes::DATASTORE_NOT_FOUND, "no datastore named \"dmo\"").human();
        assert!(text.contains("  try:  list them: vmhold datastore list\n"), "{text}");
    }

    #[test]
    fn the_document_survives_the_way_through_the_api() {
        let document = sample().document(Some("/v1/drives/flash0/3:offline"));
        let json = serde_json::to_string(&document).unwrap();
        assert!(json.contains(r#""type":"/v1/codes/VH1015""#) && json.contains(r#""do":["#), "{json}");
        let back: ProblemDocument = serde_json::from_str(&json).unwrap();
        assert_eq!(Problem::from(back).human(), sample().human());
    }

    #[test]
    fn a_code_from_a_newer_server_is_still_shown() {
        let mut document = sample().document(None);
        document.code = "VH1999".into();
        document.name = "FROM_THE_FUTURE".into();
        let text = Problem::from(document).human();
        assert!(text.starts_with("error[VH9001]: refusing") && text.contains("VH1999 FROM_THE_FUTURE"), "{text}");
    }
}

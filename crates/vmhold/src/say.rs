//! What is printed: documents on standard output, problems on standard error, and with
//! `--json` exactly one document on standard output in either case.

use std::io::{IsTerminal, Write};

use control::client::Changed;
use control::envelope::Outcome;
use control::{Document, Envelope, Exit, Origin, Problem};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::Global;

/// Columns when nobody looks: nothing falls off.
const COLUMNS_OFF_TERMINAL: usize = 200;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct Say {
    json: bool,
    quiet: bool,
    progress: bool,
}

/// The document of an error.
#[derive(Debug, Serialize)]
struct Failed;

impl Document for Failed {
    const SCHEMA: &'static str = "vmhold.error/v1";
}

impl Say {
    /// As the options say.
    pub fn of(global: &Global) -> Self {
        Self { json: global.json, quiet: global.quiet, progress: !global.no_color && !global.quiet && !global.json }
    }

    /// For programs.
    pub const fn json() -> Self {
        Self { json: true, quiet: false, progress: false }
    }

    /// Whether programs read it.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether bars may be drawn.
    pub const fn progress(&self) -> bool {
        self.progress
    }

    /// A document in its envelope, or its text.
    pub fn envelope<T: Document + Serialize>(&self, envelope: &Envelope<T>, text: impl FnOnce(&T, &Origin) -> String) {
        if self.json {
            self.raw(format!("{}\n", envelope.line()).as_bytes());
            return;
        }
        if let Outcome::Data(data) = &envelope.outcome {
            let origin = Origin {
                generated_at: envelope.generated_at,
                site: envelope.site.clone(),
                data_age_seconds: envelope.data_age_seconds,
            };
            self.raw(text(data, &origin).as_bytes());
        }
    }

    /// A document made here and now, or its text.
    pub fn document<T: Document + Serialize>(&self, data: T, text: impl FnOnce(&T) -> String) {
        self.envelope(&Envelope::of(data, here()), |data, _| text(data));
    }

    /// A change in its envelope, or the plan of it.
    pub fn changed<T: Document + Serialize>(
        &self,
        changed: &Changed<T>,
        text: impl FnOnce(&T, &Origin) -> String,
    ) -> Exit {
        match changed {
            Changed::Done(envelope) => self.envelope(envelope, text),
            Changed::Planned(plan) => self.envelope(plan, |plan, _| plan.human()),
        }
        Exit::Success
    }

    /// The same of a step that is done: `--quiet` drops the text.
    pub fn done<T: Document + Serialize>(&self, data: T, text: impl FnOnce(&T) -> String) -> Exit {
        if self.json || !self.quiet {
            self.document(data, text);
        }
        Exit::Success
    }

    /// A line beside the document, for people.
    pub fn note(&self, line: &str) {
        if !self.quiet {
            // A closed standard error has no reader to miss it.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// Bytes on standard output. A reader that has gone away has seen enough.
    pub fn raw(&self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }

    /// What went wrong: text for people, and with `--json` the document.
    pub fn problem(&self, problem: &Problem) {
        // Nothing can be done about a closed standard error.
        let _ = std::io::stderr().write_all(problem.human().as_bytes());
        self.problem_document(problem);
    }

    /// Only the document of what went wrong.
    pub fn problem_document(&self, problem: &Problem) {
        if self.json {
            let envelope: Envelope<Failed> = Envelope::failed(problem, here());
            self.raw(format!("{}\n", envelope.line()).as_bytes());
        }
    }
}

fn here() -> Origin {
    Origin { generated_at: Timestamp::now(), site: None, data_age_seconds: Some(0.0) }
}

/// Columns of the terminal.
pub fn width() -> usize {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return COLUMNS_OFF_TERMINAL;
    }
    rustix::termios::tcgetwinsize(out).map_or(80, |size| usize::from(size.ws_col).max(40))
}

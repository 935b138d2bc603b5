//! What a change would do: the answer to `?dry_run=true`, and what a dialog shows before it
//! asks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::Document;

/// All checks passed; this is what would happen now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Effects, one sentence each. Empty: everything is already as asked.
    pub would: Vec<String>,
    /// Name that has to be confirmed when it is really done, if it destroys something.
    pub confirm: Option<String>,
}

impl Document for Plan {
    const SCHEMA: &'static str = "vmhold.plan/v1";
}

impl Plan {
    /// A change that can be taken back.
    #[must_use]
    pub fn would(effect: impl Into<String>) -> Self {
        Self { would: vec![effect.into()], confirm: None }
    }

    /// One more effect.
    #[must_use]
    pub fn and(mut self, effect: impl Into<String>) -> Self {
        self.would.push(effect.into());
        self
    }

    /// It destroys something, so the name has to be confirmed.
    #[must_use]
    pub fn confirmed_by(mut self, name: impl Into<String>) -> Self {
        self.confirm = Some(name.into());
        self
    }

    /// The text for a terminal.
    #[must_use]
    pub fn human(&self) -> String {
        if self.would.is_empty() {
            return "dry run: everything is already as asked\n".to_owned();
        }
        let mut out = String::new();
        for (index, effect) in self.would.iter().enumerate() {
            let head = if index == 0 { "dry run: would " } else { "         and   " };
            for (part, line) in crate::text::wrap(effect, 65).into_iter().enumerate() {
                out.push_str(&format!("{}{line}\n", if part == 0 { head } else { "               " }));
            }
        }
        if let Some(name) = &self.confirm {
            out.push_str(&format!("         it needs confirmation: --confirm={name}\n"));
        }
        out
    }
}

//! The envelope around every JSON document, of the CLI and of the API alike.
//!
//! Within `/v1` fields are only added. Numbers are numbers, names carry the unit, times
//! are RFC 3339 in UTC, unknown is `null`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::{Problem, ProblemDocument};

/// A kind of document that has a name and a version.
pub trait Document {
    /// For instance `vmhold.status/v1`.
    const SCHEMA: &'static str;
}

/// Where and when a document was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// When.
    pub generated_at: Timestamp,
    /// Name of the site; none when no server answered.
    pub site: Option<String>,
    /// Age of the data in it.
    pub data_age_seconds: Option<f64>,
}

/// Either the data or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    /// The data asked for.
    Data(T),
    /// Why there is none.
    Error(Box<ProblemDocument>),
}

/// A document with its origin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Envelope<T> {
    /// Kind and version of the document.
    pub schema: String,
    /// When it was made.
    pub generated_at: Timestamp,
    /// Which site made it.
    pub site: Option<String>,
    /// Age of the data in it.
    pub data_age_seconds: Option<f64>,
    /// `data` or `error`.
    #[serde(flatten)]
    pub outcome: Outcome<T>,
}

impl<T: Document> Envelope<T> {
    /// Around data.
    #[must_use]
    pub fn of(data: T, origin: Origin) -> Self {
        Self::around(Outcome::Data(data), origin)
    }

    /// Around an error.
    #[must_use]
    pub fn failed(problem: &Problem, origin: Origin) -> Self {
        Self::around(Outcome::Error(Box::new(problem.document(None))), origin)
    }

    fn around(outcome: Outcome<T>, origin: Origin) -> Self {
        let Origin { generated_at, site, data_age_seconds } = origin;
        Self { schema: T::SCHEMA.to_owned(), generated_at, site, data_age_seconds, outcome }
    }

    /// The data, or the problem as a [`Problem`].
    ///
    /// # Errors
    /// The problem the sender reported.
    pub fn into_result(self) -> Result<T, Problem> {
        match self.outcome {
            Outcome::Data(data) => Ok(data),
            Outcome::Error(document) => Err(Problem::from(*document)),
        }
    }
}

impl<T: Serialize> Envelope<T> {
    /// One line of JSON, without a line break.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("documents hold only strings as keys and finite numbers")
    }

    /// Indented JSON, without a line break at its end.
    #[must_use]
    pub fn pretty(&self) -> String {
        serde_json::to_string_pretty(self).expect("documents hold only strings as keys and finite numbers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    struct Sample {
        used_bytes: Option<u64>,
    }

    impl Document for Sample {
        const SCHEMA: &'static str = "vmhold.sample/v1";
    }

    fn origin() -> Origin {
        Origin {
            generated_at: "2026-11-20T09:14:07Z".parse().unwrap(),
            site: Some("a".into()),
            data_age_seconds: Some(2.0),
        }
    }

    #[test]
    fn data_stands_under_data_and_unknown_is_null() {
        let line = Envelope::of(Sample { used_bytes: None }, origin()).line();
        assert_eq!(
            line,
            r#"{"schema":"vmhold.sample/v1","generated_at":"2026-11-20T09:14:07Z","site":"a","data_age_seconds":2.0,"data":{"used_bytes":null}}"#
        );
        let back: Envelope<Sample> = serde_json::from_str(&line).unwrap();
        assert_eq!(back.into_result().unwrap(), Sample { used_bytes: None });
    }

    #[test]
    fn an_error_stands_under_error_and_comes_back_as_a_problem() {
        let problem = Problem::new(&codes::DEMO_NOT_FOUND, "no demo in ./x");
        let line = Envelope::<Sample>::failed(&problem, origin()).line();
        assert!(line.contains(r#""error":{"type":"/v1/codes/VH8001""#) && !line.contains(r#""data":"#), "{line}");
        let back: Envelope<Sample> = serde_json::from_str(&line).unwrap();
        assert_eq!(back.into_result().unwrap_err().code().number, 8001);
    }
}

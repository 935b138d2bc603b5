//! Answers kept for requests that come twice: a `POST` with an `Idempotency-Key` is done
//! once; whoever did not hear the answer asks again with the same key and hears it.
//!
//! Kept in memory for a day and for a bounded number of requests. A restart forgets them;
//! creations are then stopped by the name that exists already.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::codes;
use crate::problem::Problem;

const KEPT: usize = 1000;
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(24);
const KEY_BYTES_MAX: usize = 200;

/// An answer that can be given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub status: u16,
    pub content_type: String,
    pub body: Vec<u8>,
}

struct Entry {
    key: (String, String),
    digest: blake3::Hash,
    at: Timestamp,
    said: Option<Said>,
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct Repeats(Mutex<VecDeque<Entry>>);

/// What is to be done with a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// Do it, and tell by [`Repeats::finish`] or [`Repeats::forget`].
    New,
    /// It was done: say this again.
    Again(Said),
}

impl Repeats {
    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the request `digest` of `who` with `key`.
    ///
    /// # Errors
    /// `CONFLICT` when the first one is still at work or was another request.
    pub fn begin(&self, who: &str, key: &str, digest: blake3::Hash, now: Timestamp) -> Result<Begun, Problem> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Problem::new(&codes::BAD_INPUT, "the Idempotency-Key is empty or too long"));
        }
        let mut entries = self.entries();
        while entries.front().is_some_and(|oldest| now.duration_since(oldest.at) >= KEPT_FOR) {
            entries.pop_front();
        }
        let key = (who.to_owned(), key.to_owned());
        if let Some(entry) = entries.iter().find(|entry| entry.key == key) {
            if entry.digest != digest {
                return Err(Problem::new(&codes::CONFLICT, "this Idempotency-Key was used for another request")
                    .step("use a new key for each request that is not a repetition"));
            }
            return match &entry.said {
                Some(said) => Ok(Begun::Again(said.clone())),
                None => {
                    Err(Problem::new(&codes::CONFLICT, "the first request with this key is still at work")
                        .retry_after(1.0))
                }
            };
        }
        if entries.len() == KEPT {
            entries.pop_front();
        }
        entries.push_back(Entry { key, digest, at: now, said: None });
        Ok(Begun::New)
    }

    /// It was answered.
    pub fn finish(&self, who: &str, key: &str, said: Said) {
        let mut entries = self.entries();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.key.0 == who && entry.key.1 == key) {
            entry.said = Some(said);
        }
    }

    /// It was not done after all: the next one with this key is new.
    pub fn forget(&self, who: &str, key: &str) {
        self.entries().retain(|entry| entry.said.is_some() || entry.key.0 != who || entry.key.1 != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn said() -> Said {
        Said { status: 201, content_type: "application/json".into(), body: b"{}".to_vec() }
    }

    #[test]
    fn a_repetition_hears_the_first_answer_and_another_request_is_refused() {
        let repeats = Repeats::default();
        let (one, two) = (blake3::hash(b"1"), blake3::hash(b"2"));
        assert_eq!(repeats.begin("a", "k", one, at(0)).unwrap(), Begun::New);
        assert_eq!(repeats.begin("a", "k", one, at(1)).unwrap_err().code(), &codes::CONFLICT, "still at work");
        repeats.finish("a", "k", said());
        assert_eq!(repeats.begin("a", "k", one, at(2)).unwrap(), Begun::Again(said()));
        assert_eq!(repeats.begin("a", "k", two, at(3)).unwrap_err().code(), &codes::CONFLICT);
        assert_eq!(repeats.begin("b", "k", two, at(3)).unwrap(), Begun::New, "keys are each caller's own");
        assert_eq!(repeats.begin("a", "k", one, at(86_401)).unwrap(), Begun::New, "for a day");
    }

    #[test]
    fn what_was_not_done_may_be_tried_again() {
        let repeats = Repeats::default();
        assert_eq!(repeats.begin("a", "k", blake3::hash(b"1"), at(0)).unwrap(), Begun::New);
        repeats.forget("a", "k");
        assert_eq!(repeats.begin("a", "k", blake3::hash(b"1"), at(1)).unwrap(), Begun::New);
    }

    #[test]
    fn the_oldest_go_first() {
        let repeats = Repeats::default();
        for n in 0..=KEPT {
            let key = n.to_string();
            repeats.begin("a", &key, blake3::hash(b"1"), at(0)).unwrap();
            repeats.finish("a", &key, said());
        }
        assert_eq!(repeats.begin("a", "0", blake3::hash(b"1"), at(0)).unwrap(), Begun::New);
        assert_eq!(repeats.begin("a", "2", blake3::hash(b"1"), at(0)).unwrap(), Begun::Again(said()));
    }
}

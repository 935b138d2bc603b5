//! Secrets: random, shown once, kept as digests.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codes;
use crate::problem::Problem;

/// Tokens and sessions have this much randomness.
const BYTES: usize = 32;
/// Without the letters and digits people take for others.
const LETTERS: &[u8; 32] = b"23456789abcdefghijkmnpqrstuvwxyz";

/// What lets its holder in. `Debug` does not show it, so no log can.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What is kept of a secret. Secrets are long and random, so a plain hash is enough, and
/// comparing digests tells nothing about the secret by the time it takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

fn random_bytes<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::new(&codes::BUG, "the system gives no random numbers").why(error.to_string()))?;
    Ok(bytes)
}

impl Secret {
    /// A new one, `vmh_` and 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn random() -> Result<Self, Problem> {
        let bytes: [u8; BYTES] = random_bytes()?;
        Ok(Self(bytes.iter().fold("vmh_".to_owned(), |text, byte| text + &format!("{byte:02x}"))))
    }

    /// A short one for people to type within minutes: `q7f2-9kdm-x3pa`, 60 bits.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn short() -> Result<Self, Problem> {
        let bytes: [u8; 12] = random_bytes()?;
        let mut text = String::new();
        for (index, byte) in bytes.iter().enumerate() {
            if index > 0 && index % 4 == 0 {
                text.push('-');
            }
            text.push(char::from(LETTERS[usize::from(byte % 32)]));
        }
        Ok(Self(text))
    }

    /// As someone gave it.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The secret itself.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(blake3::hash(self.0.as_bytes()).to_hex().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_by_accident() {
        let secret = Secret::random().unwrap();
        assert!(!format!("{secret:?}").contains(secret.text()));
        assert_eq!(secret.text().len(), 4 + 2 * BYTES);
        assert_ne!(Secret::random().unwrap(), secret);
        assert_eq!(Secret::from_text(&format!(" {}\n", secret.text())).digest(), secret.digest());
    }

    #[test]
    fn a_short_one_can_be_read_aloud() {
        let word = Secret::short().unwrap();
        let parts: Vec<&str> = word.text().split('-').collect();
        assert!(parts.len() == 3 && parts.iter().all(|part| part.len() == 4), "{}", word.text());
        assert!(!word.text().contains(['0', 'o', '1', 'l']));
    }
}

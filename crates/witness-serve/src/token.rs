//! A join token: all that a site needs to trust a witness and to be let in, once.
//!
//! `ADDRESS/FINGERPRINT/SECRET`. The fingerprint comes first in use: a site sends the secret to
//! nobody who does not hold the key of that certificate.

use std::fmt;
use std::str::FromStr;

use control::access::Secret;
use control::tls::Fingerprint;
use control::{Problem, codes};

/// See the module's head. `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Name or number, and port.
    pub address: String,
    /// Of the witness's certificate.
    pub witness: Fingerprint,
    /// Lets its holder in.
    pub secret: Secret,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.witness.to_string().replace(':', "").to_lowercase();
        write!(f, "{}/{digits}/{}", self.address, self.secret.text())
    }
}

impl FromStr for Token {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let no = || {
            Problem::new(&codes::BAD_INPUT, "this is no join token")
                .why("it has three parts with / between them: address, fingerprint, secret")
                .step("paste it whole, as `vmhold witness invite` has printed it")
        };
        let [address, digits, secret] = text.trim().split('/').collect::<Vec<_>>()[..] else { return Err(no()) };
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() || !secret.starts_with("vmh_") || secret.len() > witness::wire::SECRET_BYTES_MAX {
            return Err(no());
        }
        let witness = digits.parse().map_err(|_| no())?;
        Ok(Self { address: address.to_owned(), witness, secret: Secret::from_text(secret) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_shown_and_hides_its_secret_otherwise() {
        let witness: Fingerprint = "ab".repeat(32).parse().unwrap();
        let token = Token { address: "w.example:7440".into(), witness, secret: Secret::random().unwrap() };
        assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        assert!(!format!("{token:?}").contains(token.secret.text()));
        let whole = token.to_string();
        for wrong in ["", "a/b/c", &whole[1..].replace(":7440", ""), &whole.replace('/', " "), &format!("{whole}/x")] {
            assert_eq!(wrong.parse::<Token>().unwrap_err().code(), &codes::BAD_INPUT, "{wrong}");
        }
    }
}

//! What a site keeps to be known at its witness: its id, its certificate, and whom it trusts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base::SiteId;
use control::tls::{self, Fingerprint, Pem};
use control::{Problem, codes};
use serde::{Deserialize, Serialize};
use witness::wire::Question;

use crate::client::WitnessClient;
use crate::folder::{read, unusable, write_json};
use crate::status::SiteKnown;
use crate::token::Token;

/// See the module's head. `Debug` shows no key.
#[derive(Clone, Serialize, Deserialize)]
pub struct Membership {
    /// Where the witness is.
    pub address: String,
    /// Of the witness's certificate.
    pub witness: Fingerprint,
    /// The name that the witness knows the site by.
    pub name: Option<String>,
    site: String,
    certificate: String,
    key: String,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Membership({} at {})", self.site, self.address)
    }
}

impl Membership {
    /// The one of the site in `dir`.
    ///
    /// # Errors
    /// `WITNESS_UNKNOWN` where no site was added to a witness.
    pub fn of(dir: &Path) -> Result<Self, Problem> {
        read(&file(dir))?.ok_or_else(|| {
            Problem::new(&codes::WITNESS_UNKNOWN, format!("no site in {} was added to a witness", dir.display()))
        })
    }

    /// Who the site is.
    ///
    /// # Errors
    /// When the file was changed by hand.
    pub fn site(&self) -> Result<SiteId, Problem> {
        self.site
            .parse()
            .map_err(|_| Problem::new(&codes::CONFIG_UNREADABLE, format!("{:?} is no id of a site", self.site)))
    }

    /// What the certificate of the site is known by.
    ///
    /// # Errors
    /// When the file was changed by hand.
    pub fn fingerprint(&self) -> Result<Fingerprint, Problem> {
        Ok(tls::server(&self.pem())?.1)
    }

    /// What the site shows to its witness and to the other site of a pair.
    #[must_use]
    pub fn pem(&self) -> Pem {
        Pem { certificate: self.certificate.clone(), key: self.key.clone() }
    }

    /// Adds the site in `dir` to the witness of `token`. A site that had a witness before stays
    /// who it is and gets a new certificate. Tried again after a lost answer, it shows the same
    /// certificate as before, since the token is good for that one only.
    ///
    /// # Errors
    /// When the witness does not answer or does not let the site in. An earlier membership
    /// holds then.
    pub async fn join(dir: &Path, token: &Token, within: Duration) -> Result<Self, Problem> {
        std::fs::create_dir_all(dir).map_err(|error| unusable(dir, &error))?;
        let pending_file = dir.join("witness.json.joining");
        let pending: Option<Self> = read(&pending_file)?;
        let again = pending.filter(|one| one.witness == token.witness && one.address == token.address);
        let mut joining = match again {
            Some(joining) => joining,
            None => Self::fresh(dir, token)?,
        };
        write_json(&pending_file, &joining)?;
        let question = Question::Enrol { site: joining.site()?, secret: token.secret.text().to_owned() };
        let known: SiteKnown = WitnessClient::of_site(&joining, within)?.document(&question).await?;
        joining.name = Some(known.name);
        write_json(&file(dir), &joining)?;
        let _ = std::fs::remove_file(&pending_file);
        Ok(joining)
    }

    fn fresh(dir: &Path, token: &Token) -> Result<Self, Problem> {
        let before: Option<Self> = read(&file(dir))?;
        let site = match before {
            Some(before) => before.site()?,
            None => random_site()?,
        };
        let Pem { certificate, key } = tls::make("site", [127, 0, 0, 1].into())?;
        let (address, witness) = (token.address.clone(), token.witness);
        Ok(Self { address, witness, name: None, site: site.to_string(), certificate, key })
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("witness.json")
}

fn random_site() -> Result<SiteId, Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::new(&codes::BUG, "the system gives no random numbers").why(error.to_string()))?;
    Ok(SiteId(bytes))
}

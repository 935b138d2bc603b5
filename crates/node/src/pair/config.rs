//! Who the other half of a pool is, and what two sites tell each other to become a pair.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use base::{PairId, SiteId};
use control::tls::Fingerprint;
use control::{Problem, codes};
use serde::{Deserialize, Serialize};

/// The part `[pair]` of a store's configuration: this pool holds one of two copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairConfig {
    /// The pair, 32 hexadecimal digits, the same at both sites and at the witness.
    #[serde(with = "text")]
    pub id: PairId,
    /// The other site.
    #[serde(with = "text")]
    pub peer: SiteId,
    /// What its certificate is known by.
    pub peer_fingerprint: Fingerprint,
    /// Where it is reached: name or number, and port.
    pub peer_address: String,
    /// Where this site is reached by the other one.
    pub listen: SocketAddr,
    /// Folder of this site's membership at the witness.
    #[serde(default = "beside")]
    pub membership: PathBuf,
    /// A datastore that is made when the pair serves for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// Brings the address of the datastores up on this machine, and down; relative to the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_hook: Option<PathBuf>,
    /// How long the primary waits for its secondary before it asks the witness to go on alone
    /// (R-SYNC; 5 s unless said, 30 s in the documents).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_sync_delay_ms: Option<u64>,
    /// How often the primary compares both sites by itself; a week unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_every_seconds: Option<u64>,
}

fn beside() -> PathBuf {
    ".".into()
}

impl PairConfig {
    /// The other site.
    pub(crate) fn peer(&self) -> Introduction {
        Introduction { site: self.peer, fingerprint: self.peer_fingerprint, address: self.peer_address.clone() }
    }

    /// The same pair with another site as its other one.
    pub(crate) fn with_peer(self, peer: Introduction) -> PairConfig {
        PairConfig { peer: peer.site, peer_fingerprint: peer.fingerprint, peer_address: peer.address, ..self }
    }

    /// How often both sites are compared, if it is said.
    pub(crate) fn check_every(&self) -> Option<Duration> {
        self.check_every_seconds.map(Duration::from_secs)
    }

    /// Times and bounds of the mirror for site `me`.
    pub(crate) fn mirror(&self, me: SiteId) -> mirror::Config {
        let defaults = mirror::Config::new(me, self.peer, self.id);
        let out_of_sync_delay = self.out_of_sync_delay_ms.map_or(defaults.out_of_sync_delay, Duration::from_millis);
        mirror::Config { out_of_sync_delay, ..defaults }
    }
}

/// Ids as their digits.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<T: Display, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// How one site is known and reached by another: `SITE/FINGERPRINT/ADDRESS`. No secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Who it is.
    pub site: SiteId,
    /// What its certificate is known by.
    pub fingerprint: Fingerprint,
    /// Where it is reached: name or number, and port.
    pub address: String,
}

impl fmt::Display for Introduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.fingerprint.to_string().replace(':', "").to_lowercase();
        write!(f, "{}/{digits}/{}", self.site, self.address)
    }
}

impl FromStr for Introduction {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let no = || {
            Problem::new(&codes::BAD_INPUT, "this does not introduce a site")
                .why("it has three parts with / between them: site, fingerprint, address with port")
                .step("on the other site, paste what this prints: vmhold site show --listen ADDRESS")
        };
        let [site, digits, address] = text.trim().split('/').collect::<Vec<_>>()[..] else { return Err(no()) };
        let port =
            address.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
        if port.is_none() {
            return Err(no());
        }
        let site = site.parse().map_err(|_| no())?;
        let fingerprint = digits.parse().map_err(|_| no())?;
        Ok(Self { site, fingerprint, address: address.to_owned() })
    }
}

/// Bytes of the secrets of a pair: the key of its content sums, and the key of its handles' seal.
const KEY_BYTES: usize = 32 + 16;

/// What the other half of a pair finds at whoever invites it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing: both are blank, so both hold the same.
    Nothing,
    /// A copy, of which it is to be given everything.
    Copy,
}

impl Held {
    const fn word(self) -> &'static str {
        match self {
            Self::Nothing => "new",
            Self::Copy => "copy",
        }
    }
}

/// What makes a second pool the other half of a first one: `PAIR/HELD/KEYS/SITE/FINGERPRINT/ADDRESS`. A
/// secret: who has it can make file handles. `Debug` shows no key.
#[derive(Clone, PartialEq, Eq)]
pub struct PairInvitation {
    /// The pair.
    pub pair: PairId,
    /// What whoever invites holds.
    pub held: Held,
    /// Key of the content sums of both engines (`design.md` 11.8).
    pub content_key: [u8; 32],
    /// Key of the seal of file handles, which outlive a change of primary.
    pub handle_key: [u8; 16],
    /// Who invites.
    pub from: Introduction,
}

impl fmt::Debug for PairInvitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairInvitation({} of {})", self.pair, self.from)
    }
}

impl fmt::Display for PairInvitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/", self.pair, self.held.word())?;
        self.content_key.iter().chain(&self.handle_key).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "/{}", self.from)
    }
}

impl FromStr for PairInvitation {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let no = || {
            Problem::new(&codes::BAD_INPUT, "this is no invitation to a pair")
                .why("it has six parts with / between them")
                .step("paste it whole, as `vmhold pool create --pair-with` or `vmhold site replace` has printed it")
        };
        let [pair, held, keys, from] = text.trim().splitn(4, '/').collect::<Vec<_>>()[..] else { return Err(no()) };
        let held = [Held::Nothing, Held::Copy].into_iter().find(|one| one.word() == held).ok_or_else(no)?;
        let keys = key_bytes(keys).ok_or_else(no)?;
        let (content, handle) = keys.split_at(32);
        Ok(Self {
            pair: pair.parse().map_err(|_| no())?,
            held,
            content_key: content.try_into().map_err(|_| no())?,
            handle_key: handle.try_into().map_err(|_| no())?,
            from: from.parse().map_err(|_| no())?,
        })
    }
}

fn key_bytes(digits: &str) -> Option<Vec<u8>> {
    let is_key = digits.len() == 2 * KEY_BYTES && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    is_key.then(|| (0..digits.len()).step_by(2).map(byte).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn introduction() -> Introduction {
        let fingerprint = "ab".repeat(32).parse().unwrap();
        Introduction { site: SiteId([9; 16]), fingerprint, address: "b.example:7441".into() }
    }

    #[test]
    fn an_introduction_is_read_as_it_is_shown_and_nothing_else_is() {
        let whole = introduction().to_string();
        assert_eq!(whole.parse::<Introduction>().unwrap(), introduction());
        for wrong in ["", "a/b/c", &whole[1..], &whole.replace(":7441", ""), &whole.replace("b.example", "")] {
            assert_eq!(wrong.parse::<Introduction>().unwrap_err().code(), &codes::BAD_INPUT, "{wrong}");
        }
    }

    #[test]
    fn an_invitation_is_read_as_it_is_shown_and_hides_its_keys_otherwise() {
        let invitation = PairInvitation {
            pair: PairId([3; 16]),
            held: Held::Copy,
            content_key: [0xc4; 32],
            handle_key: [0xd5; 16],
            from: introduction(),
        };
        let whole = invitation.to_string();
        assert_eq!(whole.parse::<PairInvitation>().unwrap(), invitation);
        assert!(!format!("{invitation:?}").contains("c4c4"), "{invitation:?}");
        for wrong in ["", &whole[1..], &whole.replace("c4", "g4"), &whole.replacen("c4", "", 1), &format!("x/{whole}")]
        {
            assert_eq!(wrong.parse::<PairInvitation>().unwrap_err().code(), &codes::BAD_INPUT, "{wrong}");
        }
    }
}

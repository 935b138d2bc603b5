//! TLS for the API: a certificate of its own, known by its fingerprint.
//!
//! Nobody signs it, so nobody's word is taken for it: at the first start the fingerprint is
//! shown, and clients hold on to it. The CLI reads it from the store's folder or is given
//! it once; a browser shows the same digits. TLS 1.3 only, so there is nothing to choose.
//!
//! The certificate file may be replaced by one that an authority of the user signed; the
//! CLI still compares the fingerprint.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use serde::{Deserialize, Serialize};

use crate::codes;
use crate::problem::Problem;

/// How a server speaks TLS.
pub type TlsConfig = ServerConfig;

/// Versions offered: 1.3 and nothing older.
pub(crate) const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// SHA-256 over a certificate, written as browsers do: `AB:CD:...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl FromStr for Fingerprint {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
        let is_clean = text.chars().all(|digit| digit.is_ascii_hexdigit() || digit == ':');
        let mut bytes = [0; 32];
        if !is_clean || digits.len() != 64 {
            return Err(Problem::new(&codes::BAD_INPUT, format!("{text:?} is no fingerprint"))
                .step("it is SHA-256 as 64 hexadecimal digits, with or without colons"));
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = (pair[0] * 16 + pair[1]) as u8;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = Problem;

    fn try_from(text: String) -> Result<Self, Problem> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// A certificate and its key, as PEM: what lies in the state folder.
pub struct Pem {
    /// The certificate; may hold a chain.
    pub certificate: String,
    /// Its key: a secret.
    pub key: String,
}

/// Makes a certificate for `localhost` and `address`.
///
/// # Errors
/// When the system gives no randomness.
pub fn make(site: &str, address: IpAddr) -> Result<Pem, Problem> {
    let bug = |why: rcgen::Error| Problem::new(&codes::BUG, "no certificate could be made").why(why.to_string());
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).map_err(bug)?;
    let loopback = [IpAddr::from([127, 0, 0, 1]), "::1".parse().expect("an address")];
    for address in [address].into_iter().chain(loopback) {
        let name = SanType::IpAddress(address);
        if !address.is_unspecified() && !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    params.distinguished_name.push(DnType::CommonName, format!("vmhold {site}"));
    // Known by its fingerprint and replaced by hand, so it must not end by itself one day.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    let key = KeyPair::generate().map_err(bug)?;
    let certificate = params.self_signed(&key).map_err(bug)?;
    Ok(Pem { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The server's side, and the fingerprint it will be known by.
///
/// # Errors
/// `CONFIG_UNREADABLE` when the files are not a certificate and its key.
pub fn server(pem: &Pem) -> Result<(Arc<ServerConfig>, Fingerprint), Problem> {
    let unreadable = |why: String| {
        Problem::new(&codes::CONFIG_UNREADABLE, "the certificate of the API cannot be used")
            .why(why)
            .step("remove tls-cert.pem and tls-key.pem from the state folder: the next start makes new ones")
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.certificate.as_bytes()).collect();
    let chain = chain.map_err(|why| unreadable(why.to_string()))?;
    let fingerprint = Fingerprint::of(chain.first().ok_or_else(|| unreadable("it is empty".to_owned()))?);
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(|why| unreadable(why.to_string()))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, key));
    let mut config = config.map_err(|why| unreadable(why.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), fingerprint))
}

/// The client's side: trusts the certificate with this fingerprint and no other.
#[must_use]
pub fn client(fingerprint: Fingerprint) -> Arc<ClientConfig> {
    let provider = provider();
    let verifier = Arc::new(Pinned { fingerprint, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)
        .expect("the provider speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Arc::new(config)
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Compares the fingerprint; checks that the server holds the key by the signature of the
/// handshake. Names and dates say nothing here: the certificate is known, not vouched for.
#[derive(Debug)]
pub(crate) struct Pinned {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    pub(crate) const fn to(fingerprint: Fingerprint, provider: Arc<CryptoProvider>) -> Self {
        Self { fingerprint, provider }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Fingerprint::of(certificate) == self.fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(format!("the server shows fingerprint {}", Fingerprint::of(certificate))))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_certificate_can_be_served_and_keeps_its_fingerprint() {
        let pem = make("site-a", [192, 168, 7, 1].into()).unwrap();
        let (_, first) = server(&pem).unwrap();
        let (_, second) = server(&pem).unwrap();
        assert_eq!(first, second);
        let other = server(&make("site-a", [127, 0, 0, 1].into()).unwrap()).unwrap().1;
        assert_ne!(first, other, "each has its own key");
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_shown() {
        let (_, fingerprint) = server(&make("a", [127, 0, 0, 1].into()).unwrap()).unwrap();
        let shown = fingerprint.to_string();
        assert_eq!(shown.len(), 95);
        assert_eq!(shown.parse::<Fingerprint>().unwrap(), fingerprint);
        assert_eq!(shown.replace(':', "").to_lowercase().parse::<Fingerprint>().unwrap(), fingerprint);
        for wrong in ["", "AB", &shown[3..], &format!("{shown}:00"), &shown.replace('A', "g")] {
            assert!(wrong.parse::<Fingerprint>().is_err() || wrong == shown, "{wrong}");
        }
    }

    #[test]
    fn rubbish_is_no_certificate() {
        let good = make("a", [127, 0, 0, 1].into()).unwrap();
        let empty = Pem { certificate: String::new(), key: good.key.clone() };
        let other = make("a", [127, 0, 0, 1].into()).unwrap();
        let mixed = Pem { certificate: good.certificate, key: other.key };
        for pem in [empty, mixed] {
            assert_eq!(server(&pem).err().unwrap().code(), &codes::CONFIG_UNREADABLE);
        }
    }
}

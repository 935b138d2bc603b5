//! TLS between parts of vmhold: both ends show a certificate of their own and are known by
//! its fingerprint, as the API is (decisions 0041 and 0050). TLS 1.3 only.
//!
//! A server takes any certificate whose key its client holds; *who* that is, and what it may
//! ask, is decided by whoever reads [`peer`]: a stranger may only enrol.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use crate::codes;
use crate::problem::Problem;
use crate::tls::{Fingerprint, Pem, Pinned, VERSIONS, provider};

/// The server's side of `protocol`, and the fingerprint it will be known by.
///
/// # Errors
/// `CONFIG_UNREADABLE` when `pem` is not a certificate and its key.
pub fn server(pem: &Pem, protocol: &str) -> Result<(Arc<ServerConfig>, Fingerprint), Problem> {
    let (chain, key) = parts(pem)?;
    let fingerprint = Fingerprint::of(&chain[0]);
    let provider = provider();
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(VERSIONS)
        .map(|builder| builder.with_client_cert_verifier(Arc::new(Shown { provider })))
        .and_then(|builder| builder.with_single_cert(chain, key));
    let mut config = config.map_err(|why| unreadable(why.to_string()))?;
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Ok((Arc::new(config), fingerprint))
}

/// The client's side of `protocol`: trusts the server with this fingerprint and no other, and
/// shows `pem`.
///
/// # Errors
/// `CONFIG_UNREADABLE` when `pem` is not a certificate and its key.
pub fn client(server: Fingerprint, pem: &Pem, protocol: &str) -> Result<Arc<ClientConfig>, Problem> {
    let (chain, key) = parts(pem)?;
    let provider = provider();
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(VERSIONS)
        .map(|builder| builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned::to(server, provider))))
        .and_then(|builder| builder.with_client_auth_cert(chain, key));
    let mut config = config.map_err(|why| unreadable(why.to_string()))?;
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Ok(Arc::new(config))
}

/// Fingerprint of the certificate that the other end of a connection has shown.
#[must_use]
pub fn peer(connection: &CommonState) -> Option<Fingerprint> {
    connection.peer_certificates().and_then(|chain| chain.first()).map(Fingerprint::of)
}

fn unreadable(why: String) -> Problem {
    Problem::new(&codes::CONFIG_UNREADABLE, "the certificate cannot be used").why(why)
}

fn parts(pem: &Pem) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Problem> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.certificate.as_bytes()).collect();
    let chain = chain.map_err(|why| unreadable(why.to_string()))?;
    if chain.is_empty() {
        return Err(unreadable("it is empty".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(|why| unreadable(why.to_string()))?;
    Ok((chain, key))
}

/// Demands a certificate and, by the signature of the handshake, that the client holds its key.
#[derive(Debug)]
struct Shown {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Shown {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
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

//! Words signed by the key of a certificate, and looked at without anybody else: the certificate that a site
//! shows in handshakes vouches for what it says on paper, too.
//!
//! ECDSA over P-256 with SHA-256, as these certificates are made. What is signed begins with a title of its own,
//! which no handshake's signature does.

use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::codes;
use crate::problem::Problem;
use crate::tls::{Fingerprint, Pem, provider};

/// The certificate of `pem` (DER) and the signature of `words` by its key.
///
/// # Errors
/// `CONFIG_UNREADABLE` where `pem` is no certificate and key of the kind that is made here.
pub fn sign(pem: &Pem, words: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Problem> {
    let unusable = |why: String| Problem::new(&codes::CONFIG_UNREADABLE, "the certificate cannot sign").why(why);
    let certificate =
        CertificateDer::from_pem_slice(pem.certificate.as_bytes()).map_err(|why| unusable(why.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(|why| unusable(why.to_string()))?;
    let key = provider().key_provider.load_private_key(key).map_err(|why| unusable(why.to_string()))?;
    let signer = key
        .choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])
        .ok_or_else(|| unusable("its key is none of P-256".to_owned()))?;
    let signature = signer.sign(words).map_err(|why| unusable(why.to_string()))?;
    Ok((certificate.to_vec(), signature))
}

/// The fingerprint of `certificate` (DER), if `signature` is of `words` and by its key.
///
/// # Errors
/// `RECEIPT_NOT_GOOD`.
pub fn verify(certificate: &[u8], words: &[u8], signature: &[u8]) -> Result<Fingerprint, Problem> {
    let not_good = |why: String| Problem::new(&codes::RECEIPT_NOT_GOOD, "a signature is not good").why(why);
    let der = CertificateDer::from(certificate);
    let parsed = webpki::EndEntityCert::try_from(&der).map_err(|why| not_good(why.to_string()))?;
    parsed
        .verify_signature(webpki::ring::ECDSA_P256_SHA256, words, signature)
        .map_err(|_| not_good("the words are not those that the holder of this certificate signed".to_owned()))?;
    Ok(Fingerprint::of(&der))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signed_words_by_the_certificate_that_signed_them_are_good() {
        let [one, other] = [1, 2].map(|last| crate::tls::make("site", [127, 0, 0, last].into()).unwrap());
        let (certificate, signature) = sign(&one, b"both hold the same").unwrap();
        let fingerprint = verify(&certificate, b"both hold the same", &signature).unwrap();
        assert_eq!(fingerprint, crate::tls::server(&one).unwrap().1);
        let theirs = sign(&other, b"both hold the same").unwrap().0;
        let cases = [
            verify(&certificate, b"both hold the sama", &signature),
            verify(&theirs, b"both hold the same", &signature),
            verify(&certificate, b"both hold the same", &signature[1..]),
            verify(&certificate[1..], b"both hold the same", &signature),
        ];
        for case in cases {
            assert_eq!(case.unwrap_err().code(), &codes::RECEIPT_NOT_GOOD);
        }
    }
}

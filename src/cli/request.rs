//! Keys and certificate requests made on this machine, so that the key never leaves it.

use std::fmt;

use zeroize::Zeroizing;

use crate::{client::Key, model::Digest};

use super::failure::{Failure, Outcome};

/// A P-256 key and a PKCS #10 request for it that asks for no name.
pub struct OwnRequest {
    /// PKCS #8, PEM. Wiped on drop.
    pub key_pem: Zeroizing<String>,
    /// PKCS #10, DER.
    pub csr_der: Vec<u8>,
    /// Of its public half.
    pub spki_sha256: Digest,
}

impl OwnRequest {
    /// With a fresh key.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn fresh() -> Outcome<Self> {
        Self::of(&Key::fresh()?)
    }

    /// With the key of an earlier certificate, for its renewal.
    ///
    /// # Errors
    /// When the PEM holds no key that can sign a request.
    pub fn with_key(key_pem: &[u8]) -> Outcome<Self> {
        let key = Key::from_pem(key_pem).ok_or_else(|| {
            Failure::Usage("the key file has no key that signs; it begins with `-----BEGIN PRIVATE KEY-----`".into())
        })?;
        Self::of(&key)
    }

    fn of(key: &Key) -> Outcome<Self> {
        Ok(Self { key_pem: key.expose_pem(), csr_der: key.request()?, spki_sha256: key.spki_sha256() })
    }
}

impl fmt::Debug for OwnRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnRequest").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, X509CertificationRequest};

    use super::*;

    fn public_key(csr: &[u8]) -> Vec<u8> {
        let (_, parsed) = X509CertificationRequest::from_der(csr).expect("a request");
        assert_eq!(parsed.certification_request_info.subject.iter().count(), 0, "asks for a name");
        parsed.certification_request_info.subject_pki.subject_public_key.data.to_vec()
    }

    #[test]
    fn a_renewal_asks_with_the_same_key_and_a_fresh_request_with_another() {
        let first = OwnRequest::fresh().expect("entropy");
        let again = OwnRequest::with_key(first.key_pem.as_bytes()).expect("the same key");
        let other = OwnRequest::fresh().expect("entropy");
        assert_eq!(public_key(&first.csr_der), public_key(&again.csr_der));
        assert_ne!(public_key(&first.csr_der), public_key(&other.csr_der));
    }

    #[test]
    fn a_request_does_not_show_its_key() {
        let request = OwnRequest::fresh().expect("entropy");
        assert!(!format!("{request:?}").contains("PRIVATE"));
    }
}

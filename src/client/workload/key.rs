//! Keys of workloads, made where they are used.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{CallError, pem};
use crate::model::Digest;

/// A P-256 key that never leaves this process but for its holder's own use.
pub struct Key(KeyPair);

impl Key {
    /// A fresh one.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn fresh() -> Result<Self, CallError> {
        Self::generate().map_err(CallError::Key)
    }

    /// The one of an earlier certificate: the first PKCS #8 key of a PEM text; `None` when there is none that can sign.
    #[must_use]
    pub fn from_pem(text: &[u8]) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text).ok()?;
        KeyPair::try_from(&der).ok().map(Self)
    }

    pub(super) fn generate() -> Result<Self, rcgen::Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self)
    }

    /// A self-signed certificate for it, DER, without names.
    pub(super) fn certificate(&self) -> Result<Vec<u8>, rcgen::Error> {
        Ok(nameless().self_signed(&self.0)?.der().to_vec())
    }

    /// A PKCS #10 request for it, DER, that asks for no name: the broker decides the names.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn request(&self) -> Result<Vec<u8>, CallError> {
        Ok(nameless().serialize_request(&self.0).map_err(CallError::Key)?.der().to_vec())
    }

    /// SHA-256 of its public half, as an X.509 `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn spki_sha256(&self) -> Digest {
        Digest::of(&self.0.subject_public_key_info())
    }

    /// PKCS #8, PEM. Every caller is a place to review.
    #[must_use]
    pub fn expose_pem(&self) -> Zeroizing<String> {
        pem::encode(pem::PRIVATE_KEY, &Zeroizing::new(self.0.serialize_der()))
    }
}

fn nameless() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_nothing_and_signs_its_request() {
        let key = Key::fresh().expect("entropy");
        assert_eq!(format!("{key:?}"), "Key(..)");
        assert!(key.expose_pem().starts_with("-----BEGIN PRIVATE KEY-----"));
        assert!(pem::request_der(&key.request().expect("signs")).is_some());
        let again = Key::from_pem(key.expose_pem().as_bytes()).expect("its own text");
        assert_eq!(again.expose_pem(), key.expose_pem());
        assert!(Key::from_pem(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").is_none());
    }
}

//! Keys of workloads, made where they are used.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use std::fmt;
use zeroize::Zeroizing;

use super::{CallError, pem};

/// A P-256 key that never leaves this process but for its holder's own use.
pub struct Key(KeyPair);

impl Key {
    /// A fresh one.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn fresh() -> Result<Self, CallError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(CallError::Key)
    }

    /// A PKCS #10 request for it, DER, that asks for no name: the broker decides the names.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn request(&self) -> Result<Vec<u8>, CallError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.0).map_err(CallError::Key)?.der().to_vec())
    }

    /// PKCS #8, PEM. Every caller is a place to review.
    #[must_use]
    pub fn expose_pem(&self) -> Zeroizing<String> {
        pem::encode(pem::PRIVATE_KEY, &Zeroizing::new(self.0.serialize_der()))
    }
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
    }
}

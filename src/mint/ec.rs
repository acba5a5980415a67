//! The P-256 keys behind certificates.

use std::fmt;

use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};

use super::SecretBytes;
use crate::model::secret::EntropyUnavailable;

/// A P-256 private key that rcgen can sign with.
///
/// Used instead of rcgen's own key pair, which keeps an unwiped copy of the PKCS#8 bytes.
pub(super) struct EcKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl EcKey {
    /// A new key, and its PKCS#8 form to keep or hand out.
    pub(super) fn generate() -> Result<(Self, SecretBytes), EntropyUnavailable> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(|ring::error::Unspecified| EntropyUnavailable)?;
        let pkcs8 = SecretBytes::new(pkcs8.as_ref().to_vec());
        let key = Self::from_pkcs8(&pkcs8).ok_or(EntropyUnavailable)?;
        Ok((key, pkcs8))
    }

    /// `None` unless it is the PKCS#8 form of a P-256 key.
    pub(super) fn from_pkcs8(pkcs8: &SecretBytes) -> Option<Self> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.expose(), &random).ok()?;
        Some(Self { pair, random })
    }
}

impl PublicKeyData for EcKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for EcKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(&self.random, message);
        signature.map(|s| s.as_ref().to_vec()).map_err(|ring::error::Unspecified| rcgen::Error::RingUnspecified)
    }
}

impl fmt::Debug for EcKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EcKey(..)")
    }
}

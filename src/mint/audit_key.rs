//! The key that signs audit checkpoints.

use std::fmt;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::model::{Digest, id::hex};

/// An Ed25519 key (RFC 8032) for audit checkpoints.
pub struct AuditKey {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

/// Why there is no audit key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuditKeyError {
    /// The system gave no random bytes.
    #[error("the system has no entropy")]
    Entropy,
    /// The bytes are no PKCS #8 v2 Ed25519 key.
    #[error("not a PKCS #8 Ed25519 key")]
    Encoding,
}

impl AuditKey {
    /// A new key, and its PKCS #8 form to be sealed; the form is wiped on drop.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), AuditKeyError> {
        let random = ring::rand::SystemRandom::new();
        let document =
            Ed25519KeyPair::generate_pkcs8(&random).map_err(|ring::error::Unspecified| AuditKeyError::Entropy)?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// From its PKCS #8 form.
    ///
    /// # Errors
    /// When the bytes are no such key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, AuditKeyError> {
        let Ok(pair) = Ed25519KeyPair::from_pkcs8(pkcs8) else {
            return Err(AuditKeyError::Encoding);
        };
        let public = pair.public_key().as_ref().try_into().or(Err(AuditKeyError::Encoding))?;
        Ok(Self { pair, public })
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public
    }

    /// Names the key: the first 16 hex digits of SHA-256 over the public half.
    #[must_use]
    pub fn key_id(&self) -> String {
        key_id(&self.public)
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditKey({}, ..)", self.key_id())
    }
}

/// Names a public key as [`AuditKey::key_id`] does.
#[must_use]
pub fn key_id(public: &[u8]) -> String {
    let digest = Digest::of(public);
    hex(digest.0.first_chunk::<8>().map_or(&[], |head| head.as_slice()))
}

/// Whether `signature` over `message` is by the key with this public half.
#[must_use]
pub fn verify(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_and_message_only() {
        let (key, pkcs8) = AuditKey::generate().expect("entropy");
        let again = AuditKey::from_pkcs8(&pkcs8).expect("same key");
        let signature = again.sign(b"message");
        assert_eq!(key.key_id(), again.key_id());
        assert!(verify(key.public_key(), b"message", &signature));
        assert!(!verify(key.public_key(), b"massage", &signature));
        let (other, _) = AuditKey::generate().expect("entropy");
        assert!(!verify(other.public_key(), b"message", &signature));
        assert!(!verify(b"short", b"message", &signature));
    }

    #[test]
    fn a_key_is_named_by_the_first_half_of_its_hash() {
        // SHA-256 of "abc": FIPS 180-4, as published with it.
        assert_eq!(key_id(b"abc"), "ba7816bf8f01cfea");
        let (key, _) = AuditKey::generate().expect("entropy");
        assert_eq!(key.key_id(), key_id(key.public_key()));
    }

    #[test]
    fn debug_output_does_not_hold_the_key() {
        let (key, pkcs8) = AuditKey::generate().expect("entropy");
        let seed = hex(&pkcs8[16..48]);
        assert!(!format!("{key:?}").contains(&seed));
    }
}

//! Signatures, on ring.

use jsonwebtoken::Algorithm;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};

/// A key that may sign tokens, with the one algorithm that it is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum TokenKey {
    /// ES256: an uncompressed P-256 point (RFC 7518 section 3.4).
    Es256(Vec<u8>),
    /// EdDSA: an Ed25519 public key (RFC 8037).
    EdDsa(Vec<u8>),
}

impl TokenKey {
    /// Whether a header may name this algorithm for this key.
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Es256(_) => algorithm == Algorithm::ES256,
            Self::EdDsa(_) => algorithm == Algorithm::EdDSA,
        }
    }

    /// Whether the signature over the message is by this key.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Es256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
            Self::EdDsa(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
        }
        .is_ok()
    }
}

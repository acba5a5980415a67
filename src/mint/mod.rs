//! Signs it: one file per kind of credential, the keys behind them, and how those keys are kept.
//!
//! Besides `model/secret`, the only place that knows ring and rcgen. Nothing here reads a clock or a store.

pub mod audit_key;
pub mod ca;
mod ec;
pub mod handle;
pub mod jwt;
pub mod keyring;
pub mod opaque;
pub mod pem;
pub mod seal;
mod secret_bytes;
pub mod signing;
pub mod webhook;
pub mod x509;

use crate::model::{Digest, secret::SecretText};

pub use secret_bytes::SecretBytes;

/// The longest token, in bytes; longer ones are neither made nor looked at.
pub const TOKEN_MAX_BYTES: usize = 8_192;

/// A token on its way to its holder, and the hash that the ledger keeps.
#[derive(Debug)]
pub struct Minted {
    /// The token.
    pub text: SecretText,
    /// SHA-256 of the token's text.
    pub sha256: Digest,
}

impl Minted {
    fn new(text: String) -> Self {
        let sha256 = Digest::of(text.as_bytes());
        Self { text: SecretText::new(text), sha256 }
    }
}

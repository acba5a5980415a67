//! Bytes that must not leak, hashes, and where randomness comes from.

use std::fmt;

use ring::{digest, hmac, rand::SecureRandom};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// `N` bytes that must not be logged, copied or compared in variable time.
///
/// Boxed so that a move leaves no copy behind; wiped on drop. There is no `Clone`, `Serialize` or `PartialEq` on
/// purpose: [`Secret::expose`] is the one way in.
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Fills a fresh secret in place, so that the bytes never sit on the stack.
    ///
    /// # Errors
    /// Whatever `fill` returns.
    pub fn try_init<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// `N` random bytes.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn random() -> Result<Self, EntropyUnavailable> {
        Self::try_init(|bytes| fill(bytes))
    }

    /// The bytes. Every caller is a place to review.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>(..)")
    }
}

/// Text that must not be logged: a credential on its way to its holder.
///
/// Wiped on drop.
pub struct SecretText(Box<str>);

impl SecretText {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text.into_boxed_str())
    }

    /// The text. Every caller is a place to review.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// A SHA-256 hash. Public: it names something without giving it away.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Hashes one run of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_parts(&[bytes])
    }

    /// Hashes the concatenation of `parts`; lengths are not marked.
    #[must_use]
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        parts.iter().for_each(|part| context.update(part));
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }

    /// From a record; `None` unless 32 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::id::hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::id::hex(&self.0))
    }
}

/// A key for message authentication codes (HMAC-SHA-256, RFC 2104), cut to 16 bytes.
pub struct MacKey(hmac::Key);

impl MacKey {
    /// Length of a code.
    pub const TAG_BYTES: usize = 16;

    /// From 32 secret bytes.
    #[must_use]
    pub fn new(key: &Secret<32>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    /// The code over the concatenation of `parts`; lengths are not marked.
    #[must_use]
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; Self::TAG_BYTES] {
        let mut context = hmac::Context::with_key(&self.0);
        parts.iter().for_each(|part| context.update(part));
        let full = context.sign();
        let mut tag = [0; Self::TAG_BYTES];
        tag.copy_from_slice(full.as_ref().split_at(Self::TAG_BYTES).0);
        tag
    }

    /// Checks a code in constant time.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        self.tag(parts).ct_eq(tag).into()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(..)")
    }
}

/// The system gave no random bytes: nothing is issued.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the system has no entropy")]
pub struct EntropyUnavailable;

/// Fills `bytes` from the system's random source.
///
/// # Errors
/// When the system has no entropy.
pub fn fill(bytes: &mut [u8]) -> Result<(), EntropyUnavailable> {
    ring::rand::SystemRandom::new().fill(bytes).map_err(|ring::error::Unspecified| EntropyUnavailable)
}

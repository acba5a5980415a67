//! Keys at rest: the seal key, and what is sealed under it.

use ring::{aead, hkdf};
use zeroize::Zeroizing;

use super::SecretBytes;
use crate::model::{
    Secret,
    secret::{self, EntropyUnavailable, MacKey},
};

mod key;
mod stream;

pub use key::{SealKey, SealKeyError};
pub use stream::{Opener, SALT_BYTES, Sealer, StreamError};

/// Seals and opens secrets under keys derived from the seal key (HKDF-SHA-256, RFC 5869).
///
/// A sealed value is a version byte, a random 96-bit nonce, and AES-256-GCM output whose associated data is the version
/// and the location. Random nonces are safe for 2^32 values under one key (NIST SP 800-38D section 8.3); a broker seals
/// a few for each key rotation.
pub struct Seal {
    cipher: Cipher,
    row_key: Secret<32>,
    anchor_key: Secret<32>,
    process_key: Secret<32>,
    value_key: Secret<32>,
    streams: hkdf::Prk,
    check_value: [u8; 32],
}

/// Why something was not sealed or opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SealError {
    /// Changed, moved, or sealed under another key.
    #[error("the sealed value does not open here: it was changed or moved, or the seal key is another; restore it")]
    DoesNotOpen,
    /// The system has no entropy.
    #[error(transparent)]
    EntropyUnavailable(#[from] EntropyUnavailable),
    /// Sealed by a newer broker.
    #[error("the sealed value has version {version}, and this broker reads 1; run the broker that wrote it")]
    Version {
        /// What it says.
        version: u8,
    },
}

impl Seal {
    /// Derives what it needs from `key`.
    #[must_use]
    pub fn new(key: &SealKey) -> Self {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"mayfly seal v1").extract(key.expose());
        let row_key = derive(&root, b"rows");
        let mut check_value = [0; 32];
        check_value.copy_from_slice(derive(&root, b"check").expose());
        let streams = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, derive(&root, b"streams").expose());
        let (anchor_key, process_key) = (derive(&root, b"anchor"), derive(&root, b"processes"));
        let cipher = Cipher::new(&derive(&root, b"values"));
        let value_key = derive(&root, b"values in hand");
        Self { cipher, row_key, anchor_key, process_key, value_key, streams, check_value }
    }

    /// Seals `plaintext` so that it opens only at `location`.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn seal(&self, location: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        self.cipher.seal(location, plaintext)
    }

    /// Opens what was sealed for `location`.
    ///
    /// # Errors
    /// When it was changed, moved, or sealed under another key.
    pub fn open(&self, location: &[u8], sealed: &[u8]) -> Result<SecretBytes, SealError> {
        self.cipher.open(location, sealed)
    }

    /// The key that authenticates rows which give authority.
    #[must_use]
    pub fn row_key(&self) -> MacKey {
        MacKey::new(&self.row_key)
    }

    /// The key that authenticates the anchor.
    #[must_use]
    pub fn anchor_key(&self) -> MacKey {
        MacKey::new(&self.anchor_key)
    }

    /// The key of the names under which local processes find their tasks again.
    #[must_use]
    pub fn process_key(&self) -> MacKey {
        MacKey::new(&self.process_key)
    }

    /// The key of what values of static secrets are recognised by.
    #[must_use]
    pub fn value_key(&self) -> MacKey {
        MacKey::new(&self.value_key)
    }

    /// A public value to store: the same one later proves that the seal key is the same.
    #[must_use]
    pub fn check_value(&self) -> [u8; 32] {
        self.check_value
    }

    /// Seals a stream of chunks under a key of its own, derived from `salt`, which must be random and new.
    #[must_use]
    pub fn sealer(&self, salt: &[u8; SALT_BYTES], preamble: &[u8]) -> Sealer {
        Sealer::new(&derive(&self.streams, salt), preamble)
    }

    /// The inverse of [`Self::sealer`].
    #[must_use]
    pub fn opener(&self, salt: &[u8; SALT_BYTES], preamble: &[u8]) -> Opener {
        Opener::new(&derive(&self.streams, salt), preamble)
    }

    /// A fresh wrapping key, and its sealed form to store at `location`.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn new_wrapping(&self, location: &[u8]) -> Result<(Wrapping, Vec<u8>), SealError> {
        let key = Secret::<WRAPPING_BYTES>::random()?;
        let sealed = self.seal(location, key.expose())?;
        Ok((Wrapping::under(&key), sealed))
    }

    /// The wrapping key stored at `location`.
    ///
    /// # Errors
    /// When it was changed, moved, or sealed under another key.
    pub fn open_wrapping(&self, location: &[u8], sealed: &[u8]) -> Result<Wrapping, SealError> {
        let opened = self.open(location, sealed)?;
        let opened: &[u8; WRAPPING_BYTES] = opened.expose().try_into().map_err(|_| SealError::DoesNotOpen)?;
        let key = Secret::try_init(|bytes| {
            bytes.copy_from_slice(opened);
            Ok::<_, SealError>(())
        })?;
        Ok(Wrapping::under(&key))
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(..)")
    }
}

/// A tenant's own sealing key. Destroying its sealed form destroys what it wrapped, in old copies too.
///
/// Itself it seals a few values for each change that people make. What is sealed at every issue has a key of its own, see
/// [`Self::for_one`].
pub struct Wrapping {
    cipher: Cipher,
    keys: hkdf::Prk,
}

impl Wrapping {
    /// Under a key that is derived for one use.
    pub(super) fn under(key: &Secret<WRAPPING_BYTES>) -> Self {
        let keys = hkdf::Salt::new(hkdf::HKDF_SHA256, b"mayfly wrapping v1").extract(key.expose());
        Self { cipher: Cipher::new(key), keys }
    }

    /// The key for what is sealed at one location and nowhere else (HKDF-SHA-256, RFC 5869): as many as there are locations,
    /// so that no number of them wears a key out.
    #[must_use]
    pub fn for_one(&self, location: &[u8]) -> OneKey {
        OneKey(Cipher::new(&derive(&self.keys, location)))
    }

    /// As [`Seal::seal`].
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn seal(&self, location: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        self.cipher.seal(location, plaintext)
    }

    /// As [`Seal::open`].
    ///
    /// # Errors
    /// When it was changed, moved, or sealed under another key.
    pub fn open(&self, location: &[u8], sealed: &[u8]) -> Result<SecretBytes, SealError> {
        self.cipher.open(location, sealed)
    }
}

/// The key of one location, derived from a tenant's.
pub struct OneKey(Cipher);

impl OneKey {
    /// Seals what lies at the location.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        self.0.seal(b"", plaintext)
    }

    /// The inverse of [`Self::seal`].
    ///
    /// # Errors
    /// When it was changed, moved, or sealed under another key.
    pub fn open(&self, sealed: &[u8]) -> Result<SecretBytes, SealError> {
        self.0.open(b"", sealed)
    }
}

impl std::fmt::Debug for OneKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OneKey(..)")
    }
}

impl std::fmt::Debug for Wrapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wrapping(..)")
    }
}

struct Cipher(aead::LessSafeKey);

impl Cipher {
    #[expect(clippy::expect_used, reason = "the type says 32 bytes, which is what AES-256 takes")]
    fn new(key: &Secret<32>) -> Self {
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, key.expose()).expect("32 bytes");
        Self(aead::LessSafeKey::new(key))
    }

    fn seal(&self, location: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; aead::NONCE_LEN];
        secret::fill(&mut nonce)?;
        // Room for the tag from the start, so that the plaintext is encrypted in place and never moved.
        let mut sealed = Vec::with_capacity(HEADER_BYTES + plaintext.len() + TAG_BYTES);
        sealed.push(VERSION);
        sealed.extend(nonce);
        sealed.extend(plaintext);
        let (_, body) = sealed.split_at_mut(HEADER_BYTES);
        let tag = self
            .0
            .seal_in_place_separate_tag(aead::Nonce::assume_unique_for_key(nonce), associated(location), body)
            // Fails only for plaintexts beyond 64 GiB.
            .map_err(|ring::error::Unspecified| SealError::DoesNotOpen)?;
        sealed.extend(tag.as_ref());
        Ok(sealed)
    }

    fn open(&self, location: &[u8], sealed: &[u8]) -> Result<SecretBytes, SealError> {
        let (version, rest) = sealed.split_first().ok_or(SealError::DoesNotOpen)?;
        if *version != VERSION {
            return Err(SealError::Version { version: *version });
        }
        let (nonce, body) = rest.split_first_chunk::<{ aead::NONCE_LEN }>().ok_or(SealError::DoesNotOpen)?;
        let mut buffer = Zeroizing::new(body.to_vec());
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let plaintext = self
            .0
            .open_in_place(nonce, associated(location), &mut buffer)
            .map_err(|ring::error::Unspecified| SealError::DoesNotOpen)?;
        Ok(SecretBytes::new(plaintext.to_vec()))
    }
}

fn associated(location: &[u8]) -> aead::Aad<Vec<u8>> {
    let mut data = Vec::with_capacity(1 + location.len());
    data.push(VERSION);
    data.extend(location);
    aead::Aad::from(data)
}

#[expect(clippy::expect_used, reason = "HKDF-SHA-256 gives up to 8,160 bytes, and 32 are asked for")]
pub(super) fn derive(root: &hkdf::Prk, use_for: &[u8]) -> Secret<32> {
    Secret::try_init(|bytes| root.expand(&[use_for], hkdf::HKDF_SHA256)?.fill(bytes)).expect("32 bytes of 8,160")
}

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + aead::NONCE_LEN;
const TAG_BYTES: usize = 16;
const WRAPPING_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn seal() -> Seal {
        Seal::new(&SealKey::random().expect("entropy"))
    }

    #[test]
    fn what_is_sealed_opens_at_its_location() {
        let seal = seal();
        for plaintext in [&b""[..], b"x", &[7; 5_000]] {
            let sealed = seal.seal(b"keys/1", plaintext).expect("entropy");
            assert_eq!(seal.open(b"keys/1", &sealed).expect("own").expose(), plaintext);
        }
    }

    #[test]
    fn a_moved_value_does_not_open() {
        let seal = seal();
        let sealed = seal.seal(b"keys/1", b"secret").expect("entropy");
        for elsewhere in [&b"keys/2"[..], b"keys/", b""] {
            assert_eq!(seal.open(elsewhere, &sealed).expect_err("moved"), SealError::DoesNotOpen);
        }
    }

    #[test]
    fn a_value_with_any_changed_bit_or_length_does_not_open() {
        let seal = seal();
        let sealed = seal.seal(b"here", b"secret").expect("entropy");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(seal.open(b"here", &changed).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(seal.open(b"here", &sealed[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn another_seal_key_opens_nothing_and_has_another_check_value() {
        let (one, other) = (seal(), seal());
        let sealed = one.seal(b"here", b"secret").expect("entropy");
        assert_eq!(other.open(b"here", &sealed).expect_err("other key"), SealError::DoesNotOpen);
        assert_ne!(one.check_value(), other.check_value());
        assert!(!other.row_key().verify(&[b"row"], &one.row_key().tag(&[b"row"])));
    }

    #[test]
    fn one_seal_key_always_derives_the_same() {
        let key = SealKey::random().expect("entropy");
        let (one, again) = (Seal::new(&key), Seal::new(&key));
        let sealed = one.seal(b"here", b"secret").expect("entropy");
        assert_eq!(again.open(b"here", &sealed).expect("same key").expose(), b"secret");
        assert_eq!(one.check_value(), again.check_value());
        assert!(again.row_key().verify(&[b"row"], &one.row_key().tag(&[b"row"])));
    }

    #[test]
    fn equal_plaintexts_are_sealed_differently() {
        let seal = seal();
        assert_ne!(seal.seal(b"here", b"x").expect("entropy"), seal.seal(b"here", b"x").expect("entropy"));
    }

    #[test]
    fn what_a_wrapping_key_sealed_opens_under_it_alone() {
        let seal = seal();
        let (wrapping, stored) = seal.new_wrapping(b"tenants/1").expect("entropy");
        let sealed = wrapping.seal(b"keys/1", b"secret").expect("entropy");
        let again = seal.open_wrapping(b"tenants/1", &stored).expect("own");
        assert_eq!(again.open(b"keys/1", &sealed).expect("own").expose(), b"secret");
        assert!(seal.open(b"keys/1", &sealed).is_err());
        assert!(seal.new_wrapping(b"tenants/2").expect("entropy").0.open(b"keys/1", &sealed).is_err());
        assert!(seal.open_wrapping(b"tenants/2", &stored).is_err());
        let not_a_key = seal.seal(b"tenants/1", b"short").expect("entropy");
        assert!(seal.open_wrapping(b"tenants/1", &not_a_key).is_err());
    }

    #[test]
    fn the_key_of_one_location_opens_nothing_of_another_and_nothing_of_the_tenants_own() {
        let (wrapping, stored) = seal_and_wrapping();
        let sealed = wrapping.for_one(b"pickups/1").seal(b"secret").expect("entropy");
        let again = stored.for_one(b"pickups/1");
        assert_eq!(again.open(&sealed).expect("own").expose(), b"secret");
        assert_eq!(wrapping.for_one(b"pickups/2").open(&sealed).expect_err("moved"), SealError::DoesNotOpen);
        let whole = wrapping.seal(b"", b"secret").expect("entropy");
        assert!(wrapping.open(b"", &sealed).is_err() && wrapping.for_one(b"").open(&whole).is_err());
        let other = seal_and_wrapping().0;
        assert!(other.for_one(b"pickups/1").open(&sealed).is_err());
    }

    /// A wrapping key, made and read back.
    fn seal_and_wrapping() -> (Wrapping, Wrapping) {
        let seal = seal();
        let (wrapping, stored) = seal.new_wrapping(b"tenants/1").expect("entropy");
        (wrapping, seal.open_wrapping(b"tenants/1", &stored).expect("own"))
    }

    #[test]
    fn a_newer_version_is_named() {
        assert_eq!(seal().open(b"", &[9; 40]).expect_err("newer"), SealError::Version { version: 9 });
    }

    #[test]
    fn debug_shows_nothing() {
        let seal = seal();
        let (wrapping, stored) = seal.new_wrapping(b"w").expect("entropy");
        let opened = seal.open(b"w", &stored).expect("own");
        let one = wrapping.for_one(b"one");
        let shown = format!("{seal:?} {wrapping:?} {one:?} {opened:?}");
        assert_eq!(shown, "Seal(..) Wrapping(..) OneKey(..) SecretBytes(..)");
    }
}

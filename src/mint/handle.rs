//! Handles of waiting credentials: whoever has one picks the credential up, once.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hkdf;
use zeroize::Zeroizing;

use super::{
    SecretBytes,
    seal::{SealError, Wrapping, derive},
};
use crate::model::{
    Digest, LeaseId, Secret,
    secret::{EntropyUnavailable, SecretText},
};

/// What every handle begins with.
pub const PREFIX: &str = "mfp_";

/// A handle: its lease, and 256 random bits that only its holder has.
///
/// The credential behind it is sealed under a key that is derived from these bits (HKDF-SHA-256, RFC 5869); kept of them is
/// a hash, from which that key does not follow.
#[derive(Debug)]
pub struct Handle {
    lease: LeaseId,
    secret: Secret<SECRET_BYTES>,
}

/// The text is no handle; it was cut, mistyped or never one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is no handle: `mfp_` and 70 characters; paste it whole")]
pub struct Malformed;

impl Handle {
    /// A new one for `lease`.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn fresh(lease: LeaseId) -> Result<Self, EntropyUnavailable> {
        Ok(Self { lease, secret: Secret::random()? })
    }

    /// Reads a handle **without verifying it**: the stored hash decides.
    ///
    /// # Errors
    /// When it has another prefix, length or alphabet.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let body = text.strip_prefix(PREFIX).filter(|body| body.len() == BODY_CHARS).ok_or(Malformed)?;
        let raw = Zeroizing::new(URL_SAFE_NO_PAD.decode(body).map_err(|_| Malformed)?);
        let (lease, rest) = raw.split_at_checked(LeaseId::BYTES).ok_or(Malformed)?;
        let rest: &[u8; SECRET_BYTES] = rest.try_into().map_err(|_| Malformed)?;
        let secret = Secret::try_init(|bytes| {
            bytes.copy_from_slice(rest);
            Ok::<_, Malformed>(())
        })?;
        Ok(Self { lease: LeaseId::from_bytes(lease).ok_or(Malformed)?, secret })
    }

    /// As its holder gets it.
    #[must_use]
    pub fn text(&self) -> SecretText {
        let raw = Zeroizing::new([&self.lease.as_bytes()[..], self.secret.expose()].concat());
        let mut text = String::with_capacity(PREFIX.len() + BODY_CHARS);
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(raw.as_slice(), &mut text);
        SecretText::new(text)
    }

    /// The lease that it claims to be of.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// What is kept of it.
    #[must_use]
    pub fn sha256(&self) -> Digest {
        Digest::of_parts(&[b"mayfly pickup id", self.secret.expose()])
    }

    /// Seals a credential so that only this handle opens it.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        self.key().seal(self.lease.as_bytes(), plaintext)
    }

    /// The inverse of [`Self::seal`].
    ///
    /// # Errors
    /// When it was changed, or sealed for another handle.
    pub fn open(&self, sealed: &[u8]) -> Result<SecretBytes, SealError> {
        self.key().open(self.lease.as_bytes(), sealed)
    }

    fn key(&self) -> Wrapping {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"mayfly pickup v1").extract(self.secret.expose());
        Wrapping::under(&derive(&root, b"credential"))
    }
}

const SECRET_BYTES: usize = 32;
/// Base64url of 52 bytes without padding.
const BODY_CHARS: usize = 70;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TaskId, TenantNumber};

    fn handle() -> Handle {
        let task = TaskId::fresh(TenantNumber::new(3).expect("in range")).expect("entropy");
        Handle::fresh(LeaseId::fresh(task).expect("entropy")).expect("entropy")
    }

    #[test]
    fn a_handle_reads_back_from_its_text_and_says_its_lease() {
        let handle = handle();
        let text = handle.text();
        assert_eq!(text.expose().len(), PREFIX.len() + BODY_CHARS);
        let again = Handle::parse(text.expose()).expect("own");
        assert_eq!((again.lease(), again.sha256()), (handle.lease(), handle.sha256()));
        for bad in ["", "mfp_", text.expose().get(..73).expect("ascii"), &format!("{}A", text.expose()), "mfy_x"] {
            assert_eq!(Handle::parse(bad).err(), Some(Malformed), "{bad}");
        }
    }

    #[test]
    fn only_its_own_handle_opens_what_waits() {
        let (handle, other) = (handle(), handle());
        let sealed = handle.seal(b"credential").expect("entropy");
        assert_eq!(handle.open(&sealed).expect("own").expose(), b"credential");
        assert!(other.open(&sealed).is_err());
        // Another handle for the same lease is another one.
        assert!(Handle::fresh(handle.lease()).expect("entropy").open(&sealed).is_err());
        let mut changed = sealed;
        changed[20] ^= 1;
        assert!(handle.open(&changed).is_err());
    }

    #[test]
    fn what_is_kept_of_a_handle_does_not_open_what_waits() {
        let handle = handle();
        let sealed = handle.seal(b"credential").expect("entropy");
        // Whoever takes the stored hash for the secret gets another key.
        let hash = handle.sha256().0;
        let secret = Secret::try_init(|bytes| {
            bytes.copy_from_slice(&hash);
            Ok::<_, ()>(())
        });
        let forged = Handle { lease: handle.lease(), secret: secret.expect("32 bytes") };
        assert!(forged.open(&sealed).is_err());
    }

    #[test]
    fn debug_shows_no_handle() {
        let handle = handle();
        let shown = format!("{handle:?} {:?}", handle.text());
        let text = handle.text();
        assert!(!shown.contains(text.expose().get(40..60).expect("ascii")), "{shown}");
    }
}

//! The keys that sign tokens and audit checkpoints, and their public halves.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{self, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};

use super::{SecretBytes, jwt::Form};
use crate::model::{Digest, secret::EntropyUnavailable};

/// How tokens are signed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4): what everyone can check.
    Es256,
    /// Ed25519 (RFC 8037): SPIFFE clients and the clouds refuse it.
    EdDsa,
}

impl Algorithm {
    /// The number in records.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Es256 => 1,
            Self::EdDsa => 2,
        }
    }

    /// From a record's number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Es256),
            2 => Some(Self::EdDsa),
            _ => None,
        }
    }

    /// The JOSE name (`alg`).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The inverse of [`Self::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Es256, Self::EdDsa].into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// The public half of a signing key.
///
/// Invariant: the right length for its algorithm: an uncompressed P-256 point (65 bytes), or 32 bytes of Ed25519.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublicJwk {
    algorithm: Algorithm,
    key: Vec<u8>,
}

impl PublicJwk {
    /// From a record; `None` when `key` cannot be one of `algorithm`.
    #[must_use]
    pub fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        let fits = match algorithm {
            Algorithm::Es256 => key.len() == 65 && key.first() == Some(&UNCOMPRESSED),
            Algorithm::EdDsa => key.len() == 32,
        };
        fits.then(|| Self { algorithm, key: key.to_vec() })
    }

    /// How it signs.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The plain bytes, as records keep them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.key
    }

    /// The key id: 12 bytes of the SHA-256 thumbprint (RFC 7638), in base64url.
    #[must_use]
    pub fn key_id(&self) -> String {
        let thumbprint = Digest::of(
            self.members(|crv, kty, x, y| match y {
                Some(y) => format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}"#),
                None => format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}"}}"#),
            })
            .as_bytes(),
        );
        URL_SAFE_NO_PAD.encode(thumbprint.0.split_at(KEY_ID_BYTES).0)
    }

    /// As a member of a JWK set (RFC 7517), for signatures.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut jwk = self.members(|crv, kty, x, y| {
            let mut jwk = serde_json::json!({ "kty": kty, "crv": crv, "x": x });
            if let (Some(y), Some(members)) = (y, jwk.as_object_mut()) {
                members.insert("y".to_owned(), y.into());
            }
            jwk
        });
        if let Some(members) = jwk.as_object_mut() {
            members.insert("alg".to_owned(), self.algorithm.name().into());
            members.insert("kid".to_owned(), self.key_id().into());
            members.insert("use".to_owned(), "sig".into());
        }
        jwk
    }

    /// Whether `signature` over `message` is of this key.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn signature::VerificationAlgorithm = match self.algorithm {
            Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::EdDsa => &signature::ED25519,
        };
        signature::UnparsedPublicKey::new(algorithm, &self.key).verify(message, signature).is_ok()
    }

    /// Gives the JWK members `crv`, `kty`, `x` and `y` to `build`.
    fn members<T>(&self, build: impl FnOnce(&str, &str, &str, Option<&str>) -> T) -> T {
        match self.algorithm {
            Algorithm::Es256 => {
                let point = self.key.split_first().map_or(&[][..], |(_, point)| point);
                let (x, y) = point.split_at(point.len() / 2);
                build("P-256", "EC", &URL_SAFE_NO_PAD.encode(x), Some(&URL_SAFE_NO_PAD.encode(y)))
            }
            Algorithm::EdDsa => build("Ed25519", "OKP", &URL_SAFE_NO_PAD.encode(&self.key), None),
        }
    }
}

/// A private key that signs tokens.
pub struct SigningKey {
    private: Private,
    public: PublicJwk,
    key_id: String,
    token_header: String,
    svid_header: String,
    random: SystemRandom,
}

enum Private {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

impl SigningKey {
    /// Length of a signature of either algorithm.
    pub const SIGNATURE_BYTES: usize = 64;

    /// A new key, and its PKCS#8 form to be sealed.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn generate(algorithm: Algorithm) -> Result<(Self, SecretBytes), EntropyUnavailable> {
        let random = SystemRandom::new();
        let document = match algorithm {
            Algorithm::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random),
            Algorithm::EdDsa => Ed25519KeyPair::generate_pkcs8(&random),
        };
        let document = document.map_err(|ring::error::Unspecified| EntropyUnavailable)?;
        let pkcs8 = SecretBytes::new(document.as_ref().to_vec());
        let key = Self::from_pkcs8(algorithm, &pkcs8).map_err(|NotAKey { .. }| EntropyUnavailable)?;
        Ok((key, pkcs8))
    }

    /// From its PKCS#8 form.
    ///
    /// # Errors
    /// When it is not one of `algorithm`.
    pub fn from_pkcs8(algorithm: Algorithm, pkcs8: &SecretBytes) -> Result<Self, NotAKey> {
        let not_a_key = |_: ring::error::KeyRejected| NotAKey { algorithm: algorithm.name() };
        let random = SystemRandom::new();
        let (private, public) = match algorithm {
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.expose(), &random)
                    .map_err(not_a_key)?;
                let public = PublicJwk::new(algorithm, pair.public_key().as_ref());
                (Private::Es256(pair), public)
            }
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8(pkcs8.expose()).map_err(not_a_key)?;
                let public = PublicJwk::new(algorithm, pair.public_key().as_ref());
                (Private::EdDsa(pair), public)
            }
        };
        let public = public.ok_or(NotAKey { algorithm: algorithm.name() })?;
        let key_id = public.key_id();
        let (token_header, svid_header) = (header(algorithm, &key_id, "at+jwt"), header(algorithm, &key_id, "JWT"));
        Ok(Self { private, public, key_id, token_header, svid_header, random })
    }

    /// Its name in tokens and key sets.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> &PublicJwk {
        &self.public
    }

    /// Signs `message`.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; Self::SIGNATURE_BYTES], EntropyUnavailable> {
        let signature = match &self.private {
            Private::Es256(pair) => {
                pair.sign(&self.random, message).map_err(|ring::error::Unspecified| EntropyUnavailable)?
            }
            Private::EdDsa(pair) => pair.sign(message),
        };
        let mut bytes = [0; Self::SIGNATURE_BYTES];
        bytes.copy_from_slice(signature.as_ref());
        Ok(bytes)
    }

    /// What every token of this key and form begins with: the encoded header and its dot.
    pub(super) fn token_header(&self, form: Form) -> &str {
        match form {
            Form::AccessToken => &self.token_header,
            Form::Svid => &self.svid_header,
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// The Ed25519 key that signs audit checkpoints. Never signs anything else.
pub struct AuditSigner {
    pair: Ed25519KeyPair,
    public: PublicJwk,
}

impl AuditSigner {
    /// A new key, and its PKCS#8 form to be sealed.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn generate() -> Result<(Self, SecretBytes), EntropyUnavailable> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|ring::error::Unspecified| EntropyUnavailable)?;
        let pkcs8 = SecretBytes::new(document.as_ref().to_vec());
        let signer = Self::from_pkcs8(&pkcs8).map_err(|NotAKey { .. }| EntropyUnavailable)?;
        Ok((signer, pkcs8))
    }

    /// From its PKCS#8 form.
    ///
    /// # Errors
    /// When it is no Ed25519 key.
    pub fn from_pkcs8(pkcs8: &SecretBytes) -> Result<Self, NotAKey> {
        let not_a_key = NotAKey { algorithm: Algorithm::EdDsa.name() };
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.expose()).map_err(|_| not_a_key.clone())?;
        let public = PublicJwk::new(Algorithm::EdDsa, pair.public_key().as_ref()).ok_or(not_a_key)?;
        Ok(Self { pair, public })
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> &PublicJwk {
        &self.public
    }

    /// Signs `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SigningKey::SIGNATURE_BYTES] {
        let mut bytes = [0; SigningKey::SIGNATURE_BYTES];
        bytes.copy_from_slice(self.pair.sign(message).as_ref());
        bytes
    }
}

impl fmt::Debug for AuditSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditSigner").field("key_id", &self.public.key_id()).finish_non_exhaustive()
    }
}

/// The bytes are no private key of the algorithm.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the stored bytes are no {algorithm} private key in PKCS#8; restore the row from a backup, or cut the key")]
pub struct NotAKey {
    /// The algorithm that was asked for.
    pub algorithm: &'static str,
}

fn header(algorithm: Algorithm, key_id: &str, typ: &str) -> String {
    let json = format!(r#"{{"alg":"{}","kid":"{key_id}","typ":"{typ}"}}"#, algorithm.name());
    let mut header = URL_SAFE_NO_PAD.encode(json);
    header.push('.');
    header
}

const UNCOMPRESSED: u8 = 4;
const KEY_ID_BYTES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Algorithm; 2] = [Algorithm::Es256, Algorithm::EdDsa];

    #[test]
    fn a_key_is_the_same_after_its_pkcs8_form() {
        for algorithm in BOTH {
            let (key, pkcs8) = SigningKey::generate(algorithm).expect("entropy");
            let again = SigningKey::from_pkcs8(algorithm, &pkcs8).expect("own form");
            assert_eq!(key.public(), again.public());
            assert_eq!(key.key_id(), again.key_id());
            let signature = key.sign(b"message").expect("entropy");
            assert!(again.public().verify(b"message", &signature));
            assert!(!again.public().verify(b"massage", &signature));
            assert!(!again.public().verify(b"message", &signature[..63]));
        }
    }

    #[test]
    fn numbers_and_names_of_algorithms_read_back() {
        for algorithm in BOTH {
            assert_eq!(Algorithm::from_code(algorithm.code().into()), Some(algorithm));
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
        assert_eq!(
            (Algorithm::from_code(0), Algorithm::from_code(3), Algorithm::from_name("none")),
            (None, None, None)
        );
    }

    #[test]
    fn a_key_of_the_other_algorithm_is_refused() {
        let (_, es256) = SigningKey::generate(Algorithm::Es256).expect("entropy");
        let refused = SigningKey::from_pkcs8(Algorithm::EdDsa, &es256).expect_err("other algorithm");
        assert!(refused.to_string().contains("EdDSA"));
        assert!(AuditSigner::from_pkcs8(&es256).is_err());
        assert!(SigningKey::from_pkcs8(Algorithm::Es256, &SecretBytes::new(vec![0x30; 40])).is_err());
    }

    #[test]
    fn the_key_id_is_the_rfc_8037_thumbprint_cut_to_12_bytes() {
        // RFC 8037 appendix A.3: the thumbprint of the key of appendix A.2.
        let x = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").expect("base64url");
        let jwk = PublicJwk::new(Algorithm::EdDsa, &x).expect("32 bytes");
        let whole = URL_SAFE_NO_PAD.decode("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k").expect("base64url");
        assert_eq!(jwk.key_id(), URL_SAFE_NO_PAD.encode(&whole[..12]));
    }

    #[test]
    fn a_jwk_has_the_public_members_and_no_private_one() {
        for (algorithm, names) in [
            (Algorithm::Es256, &["alg", "crv", "kid", "kty", "use", "x", "y"][..]),
            (Algorithm::EdDsa, &["alg", "crv", "kid", "kty", "use", "x"][..]),
        ] {
            let (key, _) = SigningKey::generate(algorithm).expect("entropy");
            let jwk = key.public().to_json();
            let mut members: Vec<_> = jwk.as_object().expect("object").keys().map(String::as_str).collect();
            members.sort_unstable();
            assert_eq!(members, names);
            assert_eq!(jwk["kid"], key.key_id());
            assert_eq!(URL_SAFE_NO_PAD.decode(jwk["x"].as_str().expect("text")).expect("base64url").len(), 32);
        }
    }

    #[test]
    fn debug_shows_no_private_key() {
        let (key, pkcs8) = SigningKey::generate(Algorithm::Es256).expect("entropy");
        let (audit, _) = AuditSigner::generate().expect("entropy");
        assert_eq!(format!("{key:?}"), format!("SigningKey {{ key_id: {:?}, .. }}", key.key_id()));
        assert!(format!("{audit:?}").starts_with("AuditSigner { key_id: "));
        assert_eq!(format!("{pkcs8:?}"), "SecretBytes(..)");
        assert!(audit.public().verify(b"head", &audit.sign(b"head")));
    }

    #[test]
    fn public_keys_of_a_wrong_length_are_refused() {
        assert_eq!(PublicJwk::new(Algorithm::EdDsa, &[0; 31]), None);
        assert_eq!(PublicJwk::new(Algorithm::Es256, &[4; 64]), None);
        assert_eq!(PublicJwk::new(Algorithm::Es256, &[2; 65]), None);
    }
}

//! Key sets of issuers (RFC 7517 section 5).

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    json::{Json, JsonFault},
    signature::PublicKey,
};
use crate::model::SignatureAlgorithm;

/// The keys of an issuer at one time, by key id.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeySet {
    keys: BTreeMap<String, Vec<Key>>,
    skipped: usize,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Key {
    public: PublicKey,
    /// The one algorithm that the issuer says it is for.
    algorithm: Option<SignatureAlgorithm>,
}

/// Why bytes are no usable key set.
#[derive(Debug, thiserror::Error)]
pub enum NoKeySet {
    /// No JSON with one meaning.
    #[error("the key set is no JSON: {0}")]
    Json(#[from] JsonFault),
    /// No `keys`.
    #[error("the key set has no list `keys`")]
    NoKeys,
    /// More than [`KeySet::MAX_KEYS`].
    #[error("the key set has {0} keys, more than {max}", max = KeySet::MAX_KEYS)]
    TooMany(usize),
    /// None of its keys can check signatures.
    #[error("none of the key set's {0} keys can check signatures here")]
    NoneUsable(usize),
}

impl KeySet {
    /// The most keys of one set.
    pub const MAX_KEYS: usize = 64;

    /// Reads a key set. Keys that are for something else, or that nobody here can use, are skipped.
    ///
    /// # Errors
    /// When it is none, or no key is left.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoKeySet> {
        let json = Json::parse(bytes)?;
        let list = json.members().and_then(|members| members.get("keys")).and_then(Json::list);
        let list = list.ok_or(NoKeySet::NoKeys)?;
        if list.len() > Self::MAX_KEYS {
            return Err(NoKeySet::TooMany(list.len()));
        }
        let mut set = Self::default();
        for jwk in list {
            match key(jwk) {
                Some((id, key)) => set.keys.entry(id).or_default().push(key),
                None => set.skipped += 1,
            }
        }
        if set.keys.is_empty() { Err(NoKeySet::NoneUsable(list.len())) } else { Ok(set) }
    }

    /// Whether a key has this id.
    #[must_use]
    pub fn has(&self, key_id: &str) -> bool {
        self.keys.contains_key(key_id)
    }

    /// Ids of the usable keys, in order.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// Keys that were not usable.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Whether a key of this id, meant for this algorithm, made the signature.
    pub(super) fn verifies(
        &self,
        key_id: &str,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let fits = |key: &&Key| key.algorithm.is_none_or(|only| only == algorithm);
        let keys = self.keys.get(key_id).into_iter().flatten();
        keys.filter(fits).any(|key| key.public.verifies(algorithm, message, signature))
    }
}

/// A key with its id, when it is one that can check signatures.
fn key(jwk: &Json) -> Option<(String, Key)> {
    let members = jwk.members()?;
    let text = |name: &str| members.get(name).and_then(Json::text);
    let bytes = |name: &str| text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    // RFC 7517 sections 4.2 and 4.3; SPIFFE bundles write `jwt-svid`.
    if !matches!(text("use"), None | Some("sig" | "jwt-svid")) {
        return None;
    }
    if let Some(uses) = members.get("key_ops")
        && !uses.list()?.iter().any(|one| one.text() == Some("verify"))
    {
        return None;
    }
    let algorithm = match members.get("alg") {
        Some(word) => Some(SignatureAlgorithm::from_word(word.text()?)?),
        None => None,
    };
    let point = |size: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        (x.len() == size && y.len() == size).then(|| [&[4], x.as_slice(), y.as_slice()].concat())
    };
    let public = match (text("kty")?, text("crv")) {
        ("RSA", _) => PublicKey::Rsa { n: unsigned(bytes("n")?)?, e: unsigned(bytes("e")?)? },
        ("EC", Some("P-256")) => PublicKey::P256(point(32)?),
        ("EC", Some("P-384")) => PublicKey::P384(point(48)?),
        ("OKP", Some("Ed25519")) => PublicKey::Ed25519(bytes("x").filter(|key| key.len() == 32)?),
        _ => return None,
    };
    let id = text("kid").filter(|id| !id.is_empty() && id.len() <= KEY_ID_MAX_BYTES)?;
    Some((id.to_owned(), Key { public, algorithm }))
}

/// A number without the zeros in front, which ring refuses and some issuers write; bounded.
fn unsigned(bytes: Vec<u8>) -> Option<Vec<u8>> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).filter(|rest| !rest.is_empty() && rest.len() <= MODULUS_MAX_BYTES).map(<[u8]>::to_vec)
}

/// Bytes of a key id; one is used as a name to look up and nothing else.
pub(super) const KEY_ID_MAX_BYTES: usize = 256;
const MODULUS_MAX_BYTES: usize = 1_024;

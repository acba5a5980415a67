//! The keys and roots of one tenant.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jsonwebtoken::{
    DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use rustls::{
    RootCertStore,
    pki_types::CertificateDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::crypto::TokenKey;
use crate::{
    model::{TenantName, Timestamp},
    pb::GetTrustBundleResponse,
};

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The key set is not JSON of RFC 7517's form.
    #[error("the key set cannot be read")]
    KeySet(#[source] serde_json::Error),
    /// Two keys share an id.
    #[error("two keys share the id `{0}`")]
    TwoKeys(String),
    /// A root certificate cannot be used.
    #[error("a root certificate cannot be used")]
    Root,
    /// Issuer or trust domain is empty.
    #[error("the issuer or trust domain is empty")]
    Empty,
}

/// The keys and roots of one tenant, as the broker gave them at one time.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    pub(super) tenant: TenantName,
    pub(super) issuer: String,
    pub(super) trust_domain: String,
    pub(super) keys: BTreeMap<String, TokenKey>,
    /// `None` when the tenant has no roots: every certificate is refused then.
    pub(super) chains: Option<Arc<dyn ClientCertVerifier>>,
    fetched: Timestamp,
    max_age: Duration,
}

impl TrustBundle {
    /// Parses what `GetTrustBundle` returned for `tenant` at the time `fetched`.
    ///
    /// Keys of other kinds than P-256 and Ed25519, and keys without an id, are left out.
    ///
    /// # Errors
    /// When the key set is malformed or ambiguous, or a root cannot be used.
    pub fn parse(from: &GetTrustBundleResponse, tenant: TenantName, fetched: Timestamp) -> Result<Self, BundleError> {
        if from.issuer.is_empty() || from.trust_domain.is_empty() {
            return Err(BundleError::Empty);
        }
        let set: JwkSet = serde_json::from_str(&from.jwks_json).map_err(BundleError::KeySet)?;
        let mut keys = BTreeMap::new();
        for jwk in &set.keys {
            let (Some(key_id), Some(key)) = (&jwk.common.key_id, token_key(jwk)) else {
                continue;
            };
            if keys.insert(key_id.clone(), key).is_some() {
                return Err(BundleError::TwoKeys(key_id.clone()));
            }
        }
        Ok(Self {
            tenant,
            issuer: from.issuer.clone(),
            trust_domain: from.trust_domain.clone(),
            keys,
            chains: chains(&from.root_der)?,
            fetched,
            max_age: Duration::from_secs(from.max_age_seconds.into()),
        })
    }

    /// The tenant it is for.
    #[must_use]
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// How long a copy may be used.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        self.max_age
    }

    /// Whether it may be used at `now`.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now.since(self.fetched) <= self.max_age
    }
}

fn token_key(jwk: &Jwk) -> Option<TokenKey> {
    if jwk.common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
        return None;
    }
    let named = |algorithm| jwk.common.key_algorithm.is_none_or(|named| named == algorithm);
    let bytes = || match DecodingKey::from_jwk(jwk).ok()?.kind() {
        DecodingKeyKind::SecretOrDer(bytes) => Some(bytes.clone()),
        DecodingKeyKind::RsaModulusExponent { .. } => None,
    };
    match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 && named(KeyAlgorithm::ES256) => {
            bytes().map(TokenKey::Es256)
        }
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 && named(KeyAlgorithm::EdDSA) => {
            bytes().map(TokenKey::EdDsa)
        }
        AlgorithmParameters::EllipticCurve(_) | AlgorithmParameters::OctetKeyPair(_) => None,
        // Other kinds of keys, those the parser does not know included, never sign tokens.
        AlgorithmParameters::RSA(_) | AlgorithmParameters::OctetKey(_) | _ => None,
    }
}

fn chains(roots: &[Vec<u8>]) -> Result<Option<Arc<dyn ClientCertVerifier>>, BundleError> {
    if roots.is_empty() {
        return Ok(None);
    }
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from(root.clone())).or(Err(BundleError::Root))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider).build();
    verifier.map(Some).or(Err(BundleError::Root))
}

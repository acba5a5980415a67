//! What a tenant's SVIDs are checked with.
//!
//! A tenant is a trust domain of its own. Its roots here are its own CAs, each as a root by itself, and not the broker's
//! root above them: who trusts these trusts the tenant's SVIDs alone, even where nobody looks at the names in them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::super::{
    Broker,
    refusal::Refusal,
    registry::Tenant,
    rings::{KeyRow, KeyUse, Ring},
};
use crate::{
    mint::{
        ca::{self, CaName},
        keyring::KeyState,
        signing::Algorithm,
        x509::CaKey,
    },
    model::ScopeId,
};

/// What SVIDs of one trust domain are checked with. Public data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrustBundle {
    /// `spiffe://` and the trust domain.
    pub id: String,
    /// Roots, DER.
    pub roots_der: Vec<Vec<u8>>,
    /// A JWK set.
    pub jwks: String,
}

impl TrustBundle {
    /// The trust domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.id.trim_start_matches("spiffe://")
    }
}

/// Roots of CA keys by key id: each is signed once a run, so that it stays the same for who compares.
#[derive(Debug, Default)]
pub(super) struct Anchors(Mutex<HashMap<String, Vec<u8>>>);

impl Broker {
    /// What a tenant's SVIDs are checked with: by every key that may have signed one that lives, and by the next ones.
    pub(super) fn trust_bundle(&self, tenant: &Tenant) -> Result<Arc<TrustBundle>, Refusal> {
        let ring = self.rings.ring(&self.ledger, tenant.number)?;
        let trusted = |row: &&KeyRow| {
            let is_cut = self.ledger.scope(ScopeId::signing_key(&row.record.key_id)).cut > 0;
            KeyState::from_code(row.record.state).is_published() && !is_cut
        };
        let roots_der = ring.of(KeyUse::Ca).filter(trusted).filter_map(|row| self.anchor(tenant, &ring, row)).collect();
        // SPIFFE knows no EdDSA (JWT-SVID.md section 2.1).
        let keys = ring.published_tokens(&self.ledger);
        let keys: Vec<_> = keys
            .iter()
            .filter(|key| key.algorithm() == Algorithm::Es256)
            .map(|key| {
                let mut jwk = key.to_json();
                if let Some(members) = jwk.as_object_mut() {
                    members.insert("use".to_owned(), "jwt-svid".into());
                }
                jwk
            })
            .collect();
        let domain = self.settings.trust_domain.of_tenant(tenant.trust.name());
        let jwks = serde_json::json!({ "keys": keys }).to_string();
        Ok(Arc::new(TrustBundle { id: format!("spiffe://{domain}"), roots_der, jwks }))
    }

    /// A CA key as a root. One that cannot be opened is left out: its leaves are refused, not believed.
    fn anchor(&self, tenant: &Tenant, ring: &Ring, row: &KeyRow) -> Option<Vec<u8>> {
        let key_id = &row.record.key_id;
        if let Some(known) = self.spiffe.anchors.0.lock().unwrap_or_else(PoisonError::into_inner).get(key_id) {
            return Some(known.clone());
        }
        let domain = self.settings.trust_domain.of_tenant(tenant.trust.name());
        let name = CaName {
            organization: self.settings.trust_domain.as_str(),
            name: tenant.trust.name().as_str(),
            trust_domain: Some(&domain),
        };
        let made = ring.wrapping().and_then(|wrapping| {
            let pkcs8 = self.rings.private(row, Some(wrapping))?;
            let ca = CaKey::from_parts(&pkcs8, row.record.chain_der.clone()).map_err(Refusal::fault)?;
            ca::as_root(&ca, &name).map_err(Refusal::fault)
        });
        match made {
            Ok(root) => {
                let mut known = self.spiffe.anchors.0.lock().unwrap_or_else(PoisonError::into_inner);
                // Another may have been faster: the first one stays.
                Some(known.entry(key_id.clone()).or_insert(root).clone())
            }
            Err(error) => {
                tracing::error!(%error, key_id, "a CA is not served as a root");
                None
            }
        }
    }
}

//! What others need to check a tenant's credentials: public keys and roots. Public data.

use std::{collections::BTreeSet, time::Duration};

use super::{Broker, Refusal, rings::KeyUse};
use crate::{
    identity::Caller,
    mint::{keyring::KeyState, signing::PublicJwk},
    model::TenantName,
    pb,
};

/// What others need to check a tenant's credentials.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Token `iss`.
    pub issuer: String,
    /// The tenant's SPIFFE trust domain, without scheme.
    pub trust_domain: String,
    /// Token keys: prepared, active and retired ones, never cut ones.
    pub keys: Vec<PublicJwk>,
    /// Roots, DER.
    pub roots: Vec<Vec<u8>>,
    /// Certificates between a root and the tenant's leaves, DER.
    pub intermediates: Vec<Vec<u8>>,
    /// How long a copy may be used.
    pub max_age: Duration,
}

impl Bundle {
    /// The token keys as a JWK set (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> serde_json::Value {
        serde_json::json!({ "keys": self.keys.iter().map(PublicJwk::to_json).collect::<Vec<_>>() })
    }
}

impl Broker {
    /// What others need to check a tenant's credentials.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] when there is no such tenant; when the store failed.
    pub fn bundle(&self, tenant: &TenantName) -> Result<Bundle, Refusal> {
        let found = self.registry.tenant(&self.ledger, tenant)?.ok_or(Refusal::Unknown("tenant"))?;
        let ring = self.rings.ring(&self.ledger, found.number)?;
        let roots = self.roots()?;
        let chain = ring.of(KeyUse::Ca).filter(|row| KeyState::from_code(row.record.state).is_published());
        let chain: BTreeSet<&Vec<u8>> = chain.flat_map(|row| &row.record.chain_der).collect();
        let intermediates = chain.into_iter().filter(|der| !roots.contains(der)).cloned().collect();
        Ok(Bundle {
            issuer: self.issuer(&found),
            trust_domain: self.settings.trust_domain.of_tenant(tenant),
            keys: ring.published_tokens(&self.ledger),
            roots,
            intermediates,
            max_age: self.settings.key_set_max_age,
        })
    }

    /// A tenant's bundle, for any proven caller.
    ///
    /// # Errors
    /// As [`Self::bundle`], and when the name is none.
    pub async fn get_trust_bundle(
        &self,
        _caller: &Caller,
        request: pb::GetTrustBundleRequest,
    ) -> Result<pb::GetTrustBundleResponse, Refusal> {
        let tenant = request.tenant.parse::<TenantName>();
        let tenant = tenant.map_err(|error| Refusal::invalid("tenant", error.to_string()))?;
        let bundle = self.bundle(&tenant)?;
        Ok(pb::GetTrustBundleResponse {
            jwks_json: bundle.jwks().to_string(),
            issuer: bundle.issuer,
            root_der: bundle.roots,
            trust_domain: bundle.trust_domain,
            max_age_seconds: u32::try_from(bundle.max_age.as_secs()).unwrap_or(u32::MAX),
        })
    }
}

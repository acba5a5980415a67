//! Keys for one tenant, made and sealed.

use super::{ca_key_id, not_issued};
use crate::{
    broker::{
        Broker,
        found::{KeyPut, blank},
        refusal::Refusal,
        rings::{KeyUse, new_row},
    },
    mint::{
        SecretBytes,
        ca::{self, CaName, Validity},
        keyring::{KeyState, RingPolicy},
        seal::Wrapping,
        signing::{Algorithm, SigningKey},
    },
    model::{TenantName, TenantNumber, Timestamp, time::SKEW},
    records,
};

/// Makes keys for one tenant.
pub(super) struct Maker<'a> {
    pub(super) broker: &'a Broker,
    pub(super) number: TenantNumber,
    pub(super) tenant: &'a TenantName,
    pub(super) algorithm: Algorithm,
    pub(super) wrapping: &'a Wrapping,
    pub(super) now: Timestamp,
}

impl Maker<'_> {
    pub(super) fn make(&self, key_use: KeyUse, state: KeyState) -> Result<KeyPut, Refusal> {
        match key_use {
            KeyUse::Token => self.token(state),
            KeyUse::Ca => self.ca(state),
            KeyUse::Issuing | KeyUse::Root | KeyUse::Audit | KeyUse::Wrapping => {
                Err(Refusal::invalid("use", "is no ring of a tenant; `token` and `ca` are"))
            }
        }
    }

    fn token(&self, state: KeyState) -> Result<KeyPut, Refusal> {
        let (key, pkcs8) = SigningKey::generate(self.algorithm)?;
        let record = records::KeyRecord {
            key_id: key.key_id().to_owned(),
            algorithm: self.algorithm.code().into(),
            public_key: key.public().as_bytes().to_vec(),
            ..blank(state, self.now)
        };
        self.row(KeyUse::Token, record, &pkcs8)
    }

    fn ca(&self, state: KeyState) -> Result<KeyPut, Refusal> {
        let issuing = self.broker.issuing()?;
        let domain = self.broker.settings.trust_domain.of_tenant(self.tenant);
        let name = CaName {
            organization: self.broker.settings.trust_domain.as_str(),
            name: self.tenant.as_str(),
            trust_domain: Some(&domain),
        };
        let not_after = self.now.after(ca_life(&self.broker.settings.ca_ring)).min(issuing.not_after());
        let validity = Validity { not_before: self.now.before(SKEW), not_after: not_after.floor_second() };
        let made = ca::create_tenant(&issuing, &name, validity).map_err(not_issued)?;
        let chain_der = made.key.chain_der().to_vec();
        let key_id = chain_der.first().map(|own| ca_key_id(own)).unwrap_or_default();
        let record = records::KeyRecord { key_id, chain_der, ..blank(state, self.now) };
        self.row(KeyUse::Ca, record, &made.pkcs8)
    }

    fn row(&self, key_use: KeyUse, record: records::KeyRecord, private: &SecretBytes) -> Result<KeyPut, Refusal> {
        let seal = |location: &[u8]| self.wrapping.seal(location, private.expose()).map_err(Refusal::fault);
        new_row(seal, self.number, key_use, record)
    }
}

/// How long a tenant's CA is valid: it stands by for as long as it signs, and what it signed outlives its signing.
fn ca_life(policy: &RingPolicy) -> std::time::Duration {
    policy.active_for() * 2 + policy.publish_before() + policy.retire_keep() * 2
}

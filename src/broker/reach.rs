//! What of the ledger an operator's scope reaches.

use std::collections::BTreeSet;

use super::{Broker, refusal::Refusal, registry::Tenant, who::Operator};
use crate::{
    ledger::{Hold, keys},
    model::{PartnerName, Scope, TenantName, TenantNumber},
    policy::Reach,
};
use std::sync::Arc;

impl Operator {
    /// Whether it may know of a tenant: one in its scope that, when its partners are limited, has a grant for one of
    /// them.
    #[must_use]
    pub fn knows(&self, tenant: &Tenant) -> bool {
        let mut grants = tenant.trust.grants().values();
        self.tenants.includes(tenant.trust.name())
            && (matches!(self.partners, Reach::All) || grants.any(|grant| self.partners.includes(&grant.partner)))
    }

    /// Whether it may see what is written of a tenant and partner by these texts; empty and `-` stand for none.
    #[must_use]
    pub fn sees(&self, tenant: &str, partner: &str) -> bool {
        let (tenant, partner) = (tenant.parse::<TenantName>().ok(), partner.parse::<PartnerName>().ok());
        self.reaches(tenant.as_ref(), partner.as_ref())
    }
}

impl Broker {
    /// Whether an operator's scope holds a scope. What is gone is judged by the tenant that its id says.
    ///
    /// # Errors
    /// When the store failed.
    pub fn in_reach(&self, operator: &Operator, scope: &Scope) -> Result<bool, Refusal> {
        let of_number = |number: TenantNumber| {
            self.registry.name(number).is_some_and(|tenant| operator.reaches(Some(&tenant), None))
        };
        Ok(match scope {
            Scope::Everything | Scope::Issuer(_) | Scope::Proof(_) | Scope::SigningKey(_) => {
                operator.reaches(None, None)
            }
            Scope::Tenant(tenant) | Scope::Workload(tenant, _) => operator.reaches(Some(tenant), None),
            Scope::Partner(partner) => operator.reaches(None, Some(partner)),
            Scope::Secret(tenant, name) => {
                operator.reaches(Some(tenant), self.partner_of_secret(tenant, name)?.as_ref())
            }
            Scope::PartnerInTenant(tenant, partner) => operator.reaches(Some(tenant), Some(partner)),
            Scope::Grant(tenant, name) => {
                let known = self.registry.tenant(&self.ledger, tenant)?;
                let grant = known.as_ref().and_then(|known| known.trust.grants().get(name));
                operator.reaches(Some(tenant), grant.map(|grant| &grant.partner))
                    || grant.is_some_and(|grant| grant.revokers.has(&operator.name))
            }
            Scope::Task(id) => match self.ledger.task(*id)? {
                Some(task) => operator.reaches(Some(&task.tenant), Some(&task.partner)),
                None => of_number(id.tenant()),
            },
            Scope::Lease(id) => match self.ledger.lease(*id)? {
                Some(lease) => operator.reaches(Some(&lease.tenant), Some(&lease.partner)),
                None => of_number(id.tenant()),
            },
        })
    }

    /// A tenant for a list: one that is damaged is left out, and logged, so that it hides no other.
    ///
    /// # Errors
    /// When the store failed.
    pub(super) fn listed(&self, name: &TenantName) -> Result<Option<Arc<Tenant>>, Refusal> {
        match self.registry.tenant(&self.ledger, name) {
            Err(error) if !self.ledger.holds().has(Hold::StoreFailed) => {
                tracing::warn!(%error, tenant = %name, "a tenant's trust map is unreadable: it is closed and not listed");
                Ok(None)
            }
            found => found,
        }
    }

    /// Key prefixes of the leases, or tasks, of one tenant, or of all that an operator's scope names; ascending.
    pub(super) fn tenant_prefixes(&self, operator: &Operator, only: Option<&TenantName>) -> Vec<Vec<u8>> {
        let number = |name: &TenantName| self.registry.number(name);
        let numbers: BTreeSet<TenantNumber> = match (only, &operator.tenants) {
            (None, Reach::All) => return vec![Vec::new()],
            (Some(tenant), reach) => {
                Some(tenant).filter(|tenant| reach.includes(tenant)).and_then(number).into_iter().collect()
            }
            (None, Reach::Only(tenants)) => tenants.iter().filter_map(number).collect(),
        };
        numbers.into_iter().map(keys::tenant).collect()
    }
}

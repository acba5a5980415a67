//! What a tenant's trust map is looked up by; worked out on first use.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use crate::model::{Digest, GrantName, IssuerName, PartnerName, Purpose, WorkloadName};

use super::{
    federated::Binding,
    trust::{Selector, TenantTrust},
};

/// Facts that follow from the trust map alone. Not part of its value.
#[derive(Clone, Debug, Default)]
pub(super) struct Derived(OnceLock<Arc<Index>>);

/// Two trust maps do not differ in what follows from them.
impl PartialEq for Derived {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) hash: Digest,
    pub(super) grants: BTreeMap<PartnerName, BTreeMap<Purpose, Vec<GrantName>>>,
    pub(super) by_spiffe_id: BTreeMap<String, Vec<Vouched>>,
    pub(super) by_dns_name: BTreeMap<String, Vec<Vouched>>,
    pub(super) by_uid: BTreeMap<u32, Vec<(Option<u32>, WorkloadName)>>,
    pub(super) by_issuer: BTreeMap<IssuerName, Vec<Binding>>,
}

/// A workload, and the CA set that must vouch for the name it is looked up by; the broker's own when `None`.
pub(super) type Vouched = (Option<String>, WorkloadName);

impl TenantTrust {
    /// SHA-256 of the canonical JSON; what decisions and events call the trust map by.
    #[must_use]
    pub fn hash(&self) -> Digest {
        self.index().hash
    }

    pub(super) fn index(&self) -> &Index {
        self.derived.0.get_or_init(|| Arc::new(Index::of(self)))
    }
}

impl Index {
    fn of(trust: &TenantTrust) -> Self {
        let mut index = Self { hash: Digest::of(&trust.to_bytes()), ..Self::default() };
        for (name, grant) in &trust.grants {
            let by_purpose = index.grants.entry(grant.partner.clone()).or_default();
            for purpose in grant.purposes.iter() {
                by_purpose.entry(purpose.clone()).or_default().push(name.clone());
            }
        }
        for (name, workload) in &trust.workloads {
            workload.selectors.iter().for_each(|selector| index.add(selector, name));
        }
        index
    }

    fn add(&mut self, selector: &Selector, name: &WorkloadName) {
        match selector {
            Selector::SpiffeId { id, authority } => {
                self.by_spiffe_id.entry(id.clone()).or_default().push((authority.clone(), name.clone()));
            }
            Selector::DnsName { name: dns, authority } => {
                self.by_dns_name.entry(dns.clone()).or_default().push((Some(authority.clone()), name.clone()));
            }
            Selector::Unix { uid, gid } => self.by_uid.entry(*uid).or_default().push((*gid, name.clone())),
            Selector::Federated(federated) => {
                let bindings = self.by_issuer.entry(federated.issuer.clone()).or_default();
                bindings.push(Binding::of(federated, name));
            }
        }
    }
}

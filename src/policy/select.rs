//! Whom a proof selects.

use crate::{
    identity::{Authority, Caller, CertificateProof, Proof, UnixProof},
    model::WorkloadName,
};

use super::{
    decide::Origin,
    denied::Denied,
    index::Index,
    trust::{GlobalTrust, GlobalVerifier, Selector, TenantTrust, Verifier},
};

impl TenantTrust {
    /// The one workload that the caller's proof selects.
    ///
    /// `own_trust_domain` is the tenant's SPIFFE trust domain. A certificate of the broker's own CA counts only with an
    /// ID in it: else a certificate issued for one tenant could ask in another that names the same ID.
    ///
    /// # Errors
    /// [`Denied::UnknownWorkload`] when it selects none, [`Denied::AmbiguousWorkload`] when several.
    pub fn workload_of(&self, caller: &Caller, own_trust_domain: &str) -> Result<&WorkloadName, Denied> {
        let index = self.index();
        let mut found = match caller.proof() {
            Proof::Certificate(certificate) => index.certified(certificate, own_trust_domain),
            Proof::Unix(unix) => index.local(*unix),
            Proof::Federated(token) => index.federated(token),
            // A task's key is that of the task's workload, while that is one.
            Proof::TaskKey(key) => {
                self.workloads.get_key_value(&key.workload).map(|(name, _)| name).into_iter().collect()
            }
        };
        found.retain(|name| self.may_ask_from(name, Origin::of(caller)));
        // Several selectors of one workload are one. Where another comes in between, there are two in any case.
        found.dedup();
        match found.as_slice() {
            [] => Err(Denied::UnknownWorkload),
            [one] => Ok(one),
            [_, _, ..] => Err(Denied::AmbiguousWorkload),
        }
    }

    /// Whether a workload may ask from there.
    #[must_use]
    pub fn may_ask_from(&self, name: &WorkloadName, origin: Origin) -> bool {
        self.workloads.get(name).is_some_and(|workload| origin.is_within(&workload.sources))
    }

    /// Resource servers of this tenant that the caller's proof selects, by name.
    pub fn verifiers_of<'a>(
        &'a self,
        caller: &'a Caller,
        own_trust_domain: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Verifier)> {
        let selected = move |(_, verifier): &(&String, &Verifier)| selects(verifier, caller, own_trust_domain);
        self.verifiers.iter().filter(selected).map(|(name, verifier)| (name.as_str(), verifier))
    }
}

impl GlobalTrust {
    /// Resource servers of several tenants that the caller's proof selects, by name.
    ///
    /// `own_trust_domain` is the broker's own SPIFFE trust domain.
    pub fn verifiers_of<'a>(
        &'a self,
        caller: &'a Caller,
        own_trust_domain: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a GlobalVerifier)> {
        let selected =
            move |(_, global): &(&String, &GlobalVerifier)| selects(&global.verifier, caller, own_trust_domain);
        self.verifiers.iter().filter(selected).map(|(name, global)| (name.as_str(), global))
    }
}

impl Index {
    fn certified(&self, certificate: &CertificateProof, own_trust_domain: &str) -> Vec<&WorkloadName> {
        let by_id = usable_id(certificate, own_trust_domain).and_then(|id| self.by_spiffe_id.get(id));
        let by_dns = usable_dns_names(certificate).iter().filter_map(|name| self.by_dns_name.get(name));
        by_id
            .into_iter()
            .chain(by_dns)
            .flatten()
            .filter(|(authority, _)| vouches(&certificate.authority, authority.as_deref()))
            .map(|(_, name)| name)
            .collect()
    }

    fn local(&self, unix: UnixProof) -> Vec<&WorkloadName> {
        let fits = |gid: Option<u32>| gid.is_none_or(|gid| gid == unix.gid);
        self.by_uid.get(&unix.uid).into_iter().flatten().filter(|(gid, _)| fits(*gid)).map(|(_, name)| name).collect()
    }
}

fn selects(verifier: &Verifier, caller: &Caller, own_trust_domain: &str) -> bool {
    verifier.selectors.iter().any(|selector| match (selector, caller.proof()) {
        (Selector::SpiffeId { id, authority }, Proof::Certificate(certificate)) => {
            usable_id(certificate, own_trust_domain) == Some(id)
                && vouches(&certificate.authority, authority.as_deref())
        }
        (Selector::DnsName { name, authority }, Proof::Certificate(certificate)) => {
            usable_dns_names(certificate).contains(name) && vouches(&certificate.authority, Some(authority))
        }
        (Selector::Unix { uid, gid }, Proof::Unix(unix)) => *uid == unix.uid && gid.is_none_or(|gid| gid == unix.gid),
        (
            Selector::SpiffeId { .. } | Selector::DnsName { .. } | Selector::Unix { .. } | Selector::Federated(_),
            Proof::Certificate(_) | Proof::Unix(_) | Proof::Federated(_) | Proof::TaskKey(_),
        ) => false,
    })
}

fn usable_id<'a>(certificate: &'a CertificateProof, own_trust_domain: &str) -> Option<&'a str> {
    let id = certificate.spiffe_id.as_deref()?;
    let in_domain = || {
        let rest = id.strip_prefix("spiffe://").and_then(|rest| rest.strip_prefix(own_trust_domain));
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    match certificate.authority {
        Authority::Foreign(_) => Some(id),
        Authority::Own => in_domain().then_some(id),
    }
}

/// Certificates of the own CA say who they are by their SPIFFE ID alone: their DNS names are what grants allow a
/// workload to be called by, also for other tenants' names.
fn usable_dns_names(certificate: &CertificateProof) -> &[String] {
    match certificate.authority {
        Authority::Foreign(_) => &certificate.dns_names,
        Authority::Own => &[],
    }
}

fn vouches(authority: &Authority, wanted: Option<&str>) -> bool {
    match authority {
        Authority::Own => wanted.is_none(),
        Authority::Foreign(name) => wanted == Some(name),
    }
}

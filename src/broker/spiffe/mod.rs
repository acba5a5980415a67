//! Identities for processes on this host: what the SPIFFE Workload API and Envoy's SDS serve.
//!
//! A caller does not say who it is or what for: the kernel says which process it is, and the trust map which identities
//! that has. Each of them is a **binding**: a tenant, the caller's workload there, and a grant with `workload_api = true`,
//! which says partner and purpose. What is served under a binding is a lease of a task, as everything is; the task is
//! opened when it is first needed and ends with the process (`residence`). Every SVID is decided about anew.

mod anchors;
mod follow;
mod residence;
mod tokens;
mod validate;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use anchors::TrustBundle;
pub use follow::Update;
pub use residence::X509Svid;
pub use tokens::JwtSvid;
pub use validate::Validated;

use super::{Broker, issue::check_awake, refusal::Refusal, registry::Tenant};
use crate::{
    identity::{Caller, Process},
    model::{CredentialKind, GrantName, LeaseId, PartnerName, Purpose, ScopeId, TenantName, Timestamp, WorkloadName},
    policy::{Denied, Grant},
};

/// What is kept for processes on this host.
#[derive(Debug, Default)]
pub struct Spiffe {
    residences: residence::Residences,
    anchors: anchors::Anchors,
    /// Cancelled when the broker stops: nothing is kept or told from then on. Tasks go on, to be taken up again.
    pub stop: CancellationToken,
}

/// A process that asks over a socket of this host.
#[derive(Clone, Debug)]
pub struct Local {
    /// Who it is to the kernel.
    pub caller: Arc<Caller>,
    /// Which process.
    pub process: Process,
    /// Whose identities the socket serves, the default one's first.
    pub tenants: Arc<[TenantName]>,
}

/// One identity that a process has.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    tenant: Arc<Tenant>,
    workload: WorkloadName,
    name: GrantName,
    partner: PartnerName,
    purpose: Purpose,
    has_x509: bool,
    has_jwt: bool,
    /// Seconds that an SVID lives.
    ttl: u32,
}

impl Binding {
    /// Tells a caller's SVIDs apart.
    fn hint(&self) -> String {
        format!("{}/{}", self.tenant.trust.name(), self.name)
    }
}

impl Broker {
    /// The identities of a process, the default one first: tenants in the order of the config, grants by name.
    ///
    /// # Errors
    /// When it has none, or has ended; when the store failed.
    pub(super) fn identities_of(&self, local: &Local, now: Timestamp) -> Result<Vec<Binding>, Refusal> {
        if !local.process.lives() {
            return Err(ENDED);
        }
        let mut found = Vec::new();
        for name in local.tenants.iter() {
            let workload = match self.workload(&local.caller, name, now) {
                Ok(workload) => workload,
                // Nobody there: it may be somebody in another tenant.
                Err(Refusal::Denied(_) | Refusal::Unproven(_)) => continue,
                Err(other) => return Err(other),
            };
            let grants = workload.tenant.trust.grants().iter();
            let own = grants.filter(|(name, grant)| self.serves(&workload.tenant, &workload.name, name, grant, now));
            found.extend(own.filter_map(|(name, grant)| {
                Some(Binding {
                    tenant: Arc::clone(&workload.tenant),
                    workload: workload.name.clone(),
                    name: name.clone(),
                    partner: grant.partner.clone(),
                    purpose: grant.purposes.first()?.clone(),
                    has_x509: grant.kinds.has(&CredentialKind::X509),
                    has_jwt: grant.kinds.has(&CredentialKind::Jwt),
                    ttl: grant.ttl_default,
                })
            }));
        }
        if found.is_empty() { Err(NOBODY) } else { Ok(found) }
    }

    /// Whether a grant gives a workload an identity now. The decision about each SVID is made apart from this: here it is
    /// only seen what to ask for.
    fn serves(
        &self,
        tenant: &Tenant,
        workload: &WorkloadName,
        name: &GrantName,
        grant: &Grant,
        now: Timestamp,
    ) -> bool {
        let trust = &tenant.trust;
        let environment = trust.workloads().get(workload).map(|workload| &workload.environment);
        grant.workload_api
            && grant.workloads.has(workload)
            && environment == Some(&grant.environment)
            && grant.expires > now
            && tenant.attest_by(name, grant) > now
            && check_awake(tenant, name, now).is_ok()
            && ![
                ScopeId::everything(),
                ScopeId::tenant(trust.name()),
                ScopeId::partner(&grant.partner),
                ScopeId::partner_in_tenant(trust.name(), &grant.partner),
                ScopeId::grant(trust.name(), name),
                ScopeId::workload(trust.name(), workload),
            ]
            .into_iter()
            .any(|scope| self.ledger.scope(scope).is_barred())
    }

    /// Whether a lease lives: what it is of may be served again.
    fn is_live(&self, id: LeaseId, now: Timestamp) -> Result<bool, Refusal> {
        let Some(lease) = self.ledger.lease(id)? else { return Ok(false) };
        Ok(self.ledger.lease_standing(&lease, now)?.is_live())
    }
}

/// When an SVID is replaced: in the middle of its life or up to a tenth of it before, so that those that began together
/// are not replaced together. `spread` is any byte that differs between them.
#[must_use]
pub fn renew_at(issued: Timestamp, expires: Timestamp, spread: u8) -> Timestamp {
    let life = expires.since(issued);
    issued.after(life / 2 - life / 10 * u32::from(spread) / 256)
}

/// Whether it may pass by itself: then what is served stays served until its end.
fn is_transient(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Busy { .. } | Refusal::Fault(_) | Refusal::Held(_) | Refusal::Quota(_) | Refusal::Unavailable(_) => {
            true
        }
        Refusal::Approval(_)
        | Refusal::Barred(_)
        | Refusal::Denied(_)
        | Refusal::Ended { .. }
        | Refusal::Identity(_)
        | Refusal::Invalid { .. }
        | Refusal::NotAllowed(_)
        | Refusal::PickedUp
        | Refusal::Problems(_)
        | Refusal::RetryMismatch
        | Refusal::RevisionGone
        | Refusal::SecretUnavailable(_)
        | Refusal::Suspended(_)
        | Refusal::Unknown(_)
        | Refusal::Unproven(_) => false,
    }
}

const NOBODY: Refusal = Refusal::Denied(Denied::UnknownWorkload);
const ENDED: Refusal = Refusal::Unproven("the process that connected has ended");

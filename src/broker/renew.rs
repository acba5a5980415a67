//! Renewal: a live lease gives way to a successor, and policy is asked again.

use super::{
    Broker,
    decided::decided,
    federate::spend,
    refusal::Refusal,
    who::Workload,
    wish::{Wish, check_idempotency_key, parse_csr, retry, within},
};
use crate::{
    identity::Caller,
    model::{CredentialKind, Digest, EndReason, Lease, LeaseId, Standing, Timestamp},
    pb,
    policy::BindingWish,
};

impl Broker {
    /// Replaces a live lease by a successor for the same workload, task and bound key. Policy is asked again.
    ///
    /// # Errors
    /// When anything refuses; the lease is as it was then.
    pub async fn renew(&self, caller: &Caller, request: pb::RenewRequest) -> Result<pb::IssueResponse, Refusal> {
        let id: LeaseId = request.lease_id.parse().map_err(|_| Refusal::Unknown("lease"))?;
        check_idempotency_key(&request.idempotency_key)?;
        decided(|| async {
            let now = self.now();
            let basis = self.ledger.basis();
            let lease = self.ledger.lease(id)?.ok_or(Refusal::Unknown("lease"))?;
            let workload = self.holder(caller, &lease.tenant, &lease.workload, now, "lease")?;
            within(&workload, lease.id.task(), "lease")?;
            self.check_renewable(caller, &lease, !request.idempotency_key.is_empty(), now)?;
            let tenant = lease.tenant.clone();
            let wish = self.renewal(&request, lease, &workload, caller)?;
            let done = match self.policies_ready(&workload.tenant).await {
                Ok(()) => self.decide_and_issue(caller, &workload, &wish, basis, now).await,
                Err(why) => Err(why),
            };
            done.inspect_err(|why| self.refused(caller, Some(&workload), &tenant, "lease.refused", why, now))
        })
        .await
    }

    fn check_renewable(&self, caller: &Caller, lease: &Lease, retried: bool, now: Timestamp) -> Result<(), Refusal> {
        match self.ledger.lease_standing(lease, now)? {
            Standing::Live => {}
            // Maybe a retry of the very renewal that superseded it: the ledger knows by the idempotency key.
            Standing::Ended(EndReason::Superseded) if retried => {}
            Standing::Suspended => return Err(Refusal::Suspended("lease")),
            Standing::Ended(why) => return Err(Refusal::Ended { what: "lease", why }),
        }
        let presented = caller.shown_certificate();
        match lease.bound {
            Some(bound) if presented.is_none_or(|presented| !presented.matches(&bound)) => {
                Err(Refusal::Unproven("the lease is bound to another certificate than the one you came with"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn renewal(
        &self,
        request: &pb::RenewRequest,
        lease: Lease,
        workload: &Workload,
        caller: &Caller,
    ) -> Result<Wish, Refusal> {
        let csr = parse_csr(&request.csr_der, &self.csrs)?;
        match (&csr, lease.kind, lease.broker_made_key) {
            (Some(csr), CredentialKind::X509, false) if lease.spki == Some(csr.spki_sha256()) => {}
            (None, CredentialKind::X509, true)
            | (None, CredentialKind::Jwt | CredentialKind::Opaque | CredentialKind::Secret, _) => {}
            (Some(_), CredentialKind::X509, _) => {
                return Err(Refusal::invalid("csr_der", "is for another key than the lease; issue a new one instead"));
            }
            (None, CredentialKind::X509, false) => {
                return Err(Refusal::invalid("csr_der", "is missing; give a request with the lease's key"));
            }
            (Some(_), CredentialKind::Jwt | CredentialKind::Opaque | CredentialKind::Secret, _) => {
                return Err(Refusal::invalid("csr_der", "is for certificates only; leave it empty"));
            }
        }
        let task = self.ledger.task(lease.id.task())?.ok_or(Refusal::Unknown("lease"))?;
        let hash =
            Digest::of_parts(&[b"renew", lease.id.as_bytes(), &request.ttl_seconds.to_be_bytes(), &request.csr_der]);
        let binding = if lease.bound.is_some() { BindingWish::Certificate } else { BindingWish::None };
        let is_token = matches!(lease.kind, CredentialKind::Jwt | CredentialKind::Opaque);
        Ok(Wish {
            intent: task.intent.clone(),
            task: Some(task),
            partner: lease.partner.clone(),
            purpose: lease.purpose.clone(),
            grant: Some(lease.grant.clone()),
            kind: lease.kind,
            audiences: lease.audiences.clone(),
            actions: lease.actions.clone(),
            dns_names: lease.dns_names.clone(),
            ttl_seconds: request.ttl_seconds,
            binding: if is_token { binding } else { BindingWish::Default },
            csr,
            task_deadline_seconds: 0,
            retry: retry(&request.idempotency_key, hash, workload, Some(lease.id.task()), caller),
            spend: spend(caller, || None),
            approval: None,
            svid: lease.svid,
            renews: Some(lease),
            pickup: None,
        })
    }
}

//! Revoke: say what would end, or end it in one commit and say what is left.

use std::{sync::Arc, time::Duration};

use super::{Broker, covered::PAGE, event, refusal::Refusal, task::revision, view, who::Operator};
use crate::{
    identity::Caller,
    ledger::{CutDraft, EndLease, EndTask},
    model::{CredentialKind, EndReason, LeaseId, PartnerName, Scope, TaskId, TenantName, Timestamp, Ttl, time::SKEW},
    pb,
    policy::Role,
};

impl Broker {
    /// Ends the past of a scope in one commit, and bars its future unless told otherwise.
    ///
    /// # Errors
    /// When the operator may not, or there is no such thing.
    pub async fn revoke(&self, caller: &Caller, request: pb::RevokeRequest) -> Result<pb::RevokeResponse, Refusal> {
        let operator = self.operator(caller)?;
        let now = self.now();
        let scope = self.target(&operator, &request).await?;
        self.may_end(&operator, &scope)?;
        if request.dry_run {
            let covered = self.covered(std::slice::from_ref(&scope), now).await?;
            return Ok(pb::RevokeResponse {
                revision: None,
                effective: Some(event::stamp(now)),
                leases: covered.leases,
                tasks: covered.tasks,
                changed: covered.leases + covered.tasks > 0,
                barred: is_barrable(&scope) && !request.without_bar,
                exposure: exposure(covered.until, now),
                sample: covered.sample,
            });
        }
        check_reason(&request.reason)?;
        match scope {
            Scope::Lease(id) => self.revoke_lease(caller, &operator, id, &request.reason, now).await,
            Scope::Task(id) => self.revoke_task(caller, &operator, id, &request.reason, now).await,
            Scope::Everything
            | Scope::Grant(..)
            | Scope::Issuer(_)
            | Scope::Partner(_)
            | Scope::PartnerInTenant(..)
            | Scope::Proof(_)
            | Scope::Secret(..)
            | Scope::SigningKey(_)
            | Scope::Tenant(_)
            | Scope::Workload(..) => self.revoke_scope(caller, &operator, scope, &request, now).await,
        }
    }

    /// Refuses unless the operator may end this: by role and reach, or as a named revoker of the grant.
    pub(super) fn may_end(&self, operator: &Operator, scope: &Scope) -> Result<(), Refusal> {
        if let Scope::Grant(tenant, grant) = scope {
            let known = self.registry.tenant(&self.ledger, tenant)?;
            let found = known.as_ref().and_then(|tenant| tenant.trust.grants().get(grant));
            let found = found.ok_or(Refusal::Unknown("grant"))?;
            if found.revokers.has(&operator.name) {
                return Ok(());
            }
            if !operator.reaches(Some(tenant), Some(&found.partner)) {
                return Err(Refusal::Unknown("grant"));
            }
            return operator.require(Role::Revoker);
        }
        let (tenant, partner) = self.whose(scope)?;
        if !operator.reaches(tenant.as_ref(), partner.as_ref()) {
            return Err(match scope {
                Scope::Lease(_) => Refusal::Unknown("lease"),
                Scope::Secret(..) => Refusal::Unknown("secret"),
                Scope::Task(_) => Refusal::Unknown("task"),
                Scope::Everything
                | Scope::Grant(..)
                | Scope::Issuer(_)
                | Scope::Partner(_)
                | Scope::PartnerInTenant(..)
                | Scope::Proof(_)
                | Scope::SigningKey(_)
                | Scope::Tenant(_)
                | Scope::Workload(..) => Refusal::NotAllowed("this concerns more than your scope"),
            });
        }
        operator.require(Role::Revoker)
    }

    /// The tenant and partner that a scope lies within; `None` where it is wider than one.
    fn whose(&self, scope: &Scope) -> Result<(Option<TenantName>, Option<PartnerName>), Refusal> {
        Ok(match scope {
            Scope::Lease(id) => {
                let lease = self.ledger.lease(*id)?.ok_or(Refusal::Unknown("lease"))?;
                (Some(lease.tenant), Some(lease.partner))
            }
            Scope::Task(id) => {
                let task = self.ledger.task(*id)?.ok_or(Refusal::Unknown("task"))?;
                (Some(task.tenant), Some(task.partner))
            }
            Scope::Grant(tenant, _) | Scope::Workload(tenant, _) | Scope::Tenant(tenant) => {
                (Some(tenant.clone()), None)
            }
            Scope::PartnerInTenant(tenant, partner) => (Some(tenant.clone()), Some(partner.clone())),
            Scope::Secret(tenant, name) => (Some(tenant.clone()), self.partner_of_secret(tenant, name)?),
            Scope::Partner(partner) => (None, Some(partner.clone())),
            Scope::Everything | Scope::Issuer(_) | Scope::Proof(_) | Scope::SigningKey(_) => (None, None),
        })
    }

    /// Fills in which scope was cut, and the tenant and partner that it lies within.
    pub(super) fn name_scope(&self, event: &mut pb::Event, scope: &Scope) -> Result<(), Refusal> {
        let (tenant, partner) = self.whose(scope)?;
        event.tenant = tenant.map(|tenant| tenant.to_string()).unwrap_or_default();
        event.partner = partner.filter(|_| !event.tenant.is_empty()).map(|p| p.to_string()).unwrap_or_default();
        event.details.push(format!("scope={scope}"));
        Ok(())
    }

    async fn target(&self, operator: &Operator, request: &pb::RevokeRequest) -> Result<Scope, Refusal> {
        match (&request.scope, request.credential.is_empty()) {
            (Some(scope), true) => {
                let scope = view::scope_of(scope)?;
                // Reach first: who may not see a tenant does not learn whether there is one.
                self.may_end(operator, &scope)?;
                self.known(scope)
            }
            (None, false) => {
                let found = self.find_credential(operator, &request.credential).await?;
                found.map(|lease| Scope::Lease(lease.id)).ok_or(Refusal::Unknown("credential"))
            }
            (Some(_), false) => Err(Refusal::invalid("credential", "is set beside scope; give one of the two")),
            (None, true) => Err(Refusal::invalid("scope", "is missing; say what to end, or give a credential")),
        }
    }

    /// Refuses names that nothing has, so that a slip of the pen does not look like a revocation.
    pub(super) fn known(&self, scope: Scope) -> Result<Scope, Refusal> {
        let tenant = match &scope {
            Scope::Grant(tenant, _) | Scope::Workload(tenant, _) | Scope::PartnerInTenant(tenant, _) => Some(tenant),
            Scope::Tenant(tenant) | Scope::Secret(tenant, _) => Some(tenant),
            Scope::Everything
            | Scope::Issuer(_)
            | Scope::Lease(_)
            | Scope::Partner(_)
            | Scope::Proof(_)
            | Scope::SigningKey(_)
            | Scope::Task(_) => None,
        };
        if let Some(tenant) = tenant
            && self.registry.number(tenant).is_none()
        {
            return Err(Refusal::Unknown("tenant"));
        }
        if let Scope::Partner(partner) | Scope::PartnerInTenant(_, partner) = &scope
            && !self.registry.global().partners.contains_key(partner)
        {
            return Err(Refusal::Unknown("partner"));
        }
        if let Scope::Issuer(issuer) = &scope
            && !self.issuers.knows(issuer)
        {
            return Err(Refusal::Unknown("issuer"));
        }
        if let Scope::Secret(tenant, name) = &scope
            && !self.has_secret(tenant, name)?
        {
            return Err(Refusal::Unknown("secret"));
        }
        if let Scope::Workload(tenant, workload) = &scope {
            let known = self.registry.tenant(&self.ledger, tenant)?;
            if known.is_some_and(|known| !known.trust.workloads().contains_key(workload)) {
                return Err(Refusal::Unknown("workload"));
            }
        }
        Ok(scope)
    }

    async fn revoke_lease(
        &self,
        caller: &Caller,
        operator: &Operator,
        id: LeaseId,
        reason: &str,
        now: Timestamp,
    ) -> Result<pb::RevokeResponse, Refusal> {
        let lease = self.ledger.lease(id)?.ok_or(Refusal::Unknown("lease"))?;
        let mut event = event::by(caller, operator.actor(), "lease.revoked", now);
        event::of_lease(&mut event, &lease);
        event.reason = reason.to_owned();
        let end = EndLease { lease: id, why: EndReason::Revoked, event, now };
        let (changed, receipt) = self.ledger.end_lease(end).await?;
        if lease.kind == CredentialKind::X509 {
            self.close_connections(&lease.credential);
        }
        Ok(pb::RevokeResponse {
            revision: Some(revision(&receipt)),
            effective: Some(event::stamp(now)),
            leases: u64::from(changed),
            changed,
            exposure: if lease.kind == CredentialKind::Secret {
                vec![static_exposure()]
            } else {
                exposure(Some(lease.expires), now)
            },
            ..Default::default()
        })
    }

    async fn revoke_task(
        &self,
        caller: &Caller,
        operator: &Operator,
        id: TaskId,
        reason: &str,
        now: Timestamp,
    ) -> Result<pb::RevokeResponse, Refusal> {
        let task = self.ledger.task(id)?.ok_or(Refusal::Unknown("task"))?;
        let mut event = event::by(caller, operator.actor(), "task.revoked", now);
        event::of_task(&mut event, &task);
        event.reason = reason.to_owned();
        let leases = task.live.iter().map(|bucket| u64::from(bucket.count)).sum();
        let mut exposure = exposure(Some(task.deadline.min(now.after(Ttl::MAX.duration()))), now);
        let (found, _) = self.ledger.leases(id.as_bytes(), &[], PAGE)?;
        exposure.extend(found.iter().any(|lease| lease.kind == CredentialKind::Secret).then(static_exposure));
        let end = EndTask { task: id, why: EndReason::Revoked, event, now };
        let (changed, receipt) = self.ledger.end_task(end).await?;
        Ok(pb::RevokeResponse {
            revision: Some(revision(&receipt)),
            effective: Some(event::stamp(now)),
            leases: if changed { leases } else { 0 },
            tasks: u64::from(changed),
            changed,
            exposure,
            ..Default::default()
        })
    }

    async fn revoke_scope(
        &self,
        caller: &Caller,
        operator: &Operator,
        scope: Scope,
        request: &pb::RevokeRequest,
        now: Timestamp,
    ) -> Result<pb::RevokeResponse, Refusal> {
        let mut event = event::by(caller, operator.actor(), "scope.revoked", now);
        self.name_scope(&mut event, &scope)?;
        event.reason.clone_from(&request.reason);
        let bar = is_barrable(&scope) && !request.without_bar;
        let latest = self.ledger.latest(&scope, now);
        let draft = CutDraft {
            scope: scope.clone(),
            why: EndReason::Revoked,
            bar,
            operator: operator.name.to_string(),
            reason: request.reason.clone(),
            covers_until: covers_until(now),
            event,
            now,
            resets_time: false,
        };
        let (revoked, receipt) = self.ledger.cut(draft).await?;
        match &scope {
            Scope::Proof(digest) => self.close_connections(digest),
            // The ring notices the cut, and puts a successor in the key's place.
            Scope::SigningKey(_) => self.step_rings(now).await,
            Scope::Everything
            | Scope::Grant(..)
            | Scope::Issuer(_)
            | Scope::Lease(_)
            | Scope::Partner(_)
            | Scope::PartnerInTenant(..)
            | Scope::Secret(..)
            | Scope::Task(_)
            | Scope::Tenant(_)
            | Scope::Workload(..) => {}
        }
        let mut at = revision(&receipt);
        at.number = revoked.cut;
        let mut exposure = exposure(Some(latest.unwrap_or_else(|| now.after(Ttl::MAX.duration()))), now);
        exposure.extend(matches!(scope, Scope::Secret(..)).then(static_exposure));
        Ok(pb::RevokeResponse {
            revision: Some(at),
            effective: Some(event::stamp(now)),
            leases: revoked.leases,
            tasks: 0,
            changed: revoked.changed,
            barred: bar,
            exposure,
            sample: Vec::new(),
        })
    }

    /// Streams the progress of a clean-up until it is done.
    ///
    /// # Errors
    /// When there is no such revocation that the operator may see.
    pub async fn watch_revocation(
        self: &Arc<Self>,
        caller: &Caller,
        request: pb::GetRevocationRequest,
    ) -> Result<tokio::sync::mpsc::Receiver<Result<pb::RevocationStatus, Refusal>>, Refusal> {
        let first = self.get_revocation(caller, request).await?;
        let (to, statuses) = tokio::sync::mpsc::channel(4);
        let (broker, caller) = (Arc::clone(self), caller.clone());
        tokio::spawn(async move {
            let mut live = broker.ledger.subscribe();
            let mut status = Ok(first);
            loop {
                let over = !matches!(&status, Ok(status) if !status.done);
                if to.send(status).await.is_err() || over {
                    return;
                }
                // The next commit may be the clean-up's next step; looking twice a second is enough.
                let _lagged = tokio::time::timeout(Duration::from_millis(500), live.recv()).await;
                status = broker.get_revocation(&caller, request).await;
            }
        });
        Ok(statuses)
    }
}

/// The greatest not-after that a cut at `now` can concern: of what a task opened before it may still begin.
#[must_use]
pub fn covers_until(now: Timestamp) -> Timestamp {
    now.after(TASK_MAX + Ttl::MAX.duration() + SKEW)
}

/// Reason texts of operators.
pub(super) fn check_reason(reason: &str) -> Result<(), Refusal> {
    if reason.trim().is_empty() || reason.len() > REASON_MAX {
        return Err(Refusal::invalid("reason", format!("must say why, in 1 to {REASON_MAX} bytes")));
    }
    Ok(())
}

/// What is still possible, by the way a credential is checked.
fn exposure(until: Option<Timestamp>, now: Timestamp) -> Vec<pb::Exposure> {
    let entry = |checked_by: &str, until: Option<Timestamp>, explanation: &str| pb::Exposure {
        checked_by: checked_by.to_owned(),
        until: until.filter(|until| *until > now).map(event::stamp),
        explanation: explanation.to_owned(),
    };
    vec![
        entry("introspection", None, "dead now"),
        entry("watch", None, "dead as soon as the event arrives, within milliseconds on a healthy connection"),
        entry("key set only", until, "verifiers that look at nothing but signature and expiry go on until then"),
        entry(
            "certificate chain only",
            until,
            "peers that look at nothing but the chain and validity go on until then",
        ),
    ]
}

/// What is still possible with a static secret, whatever becomes of its leases.
fn static_exposure() -> pb::Exposure {
    pb::Exposure {
        checked_by: "static secret".to_owned(),
        until: None,
        explanation:
            "needs rotation: whoever had it can use it until its vendor ends it; `mayfly secret holders` says who"
                .to_owned(),
    }
}

pub(super) fn is_barrable(scope: &Scope) -> bool {
    match scope {
        Scope::Lease(_) | Scope::Task(_) | Scope::Everything => false,
        Scope::Grant(..)
        | Scope::Issuer(_)
        | Scope::Partner(_)
        | Scope::PartnerInTenant(..)
        | Scope::Proof(_)
        | Scope::Secret(..)
        | Scope::SigningKey(_)
        | Scope::Tenant(_)
        | Scope::Workload(..) => true,
    }
}

/// Parses the scope of a bar.
pub(super) fn barrable(scope: Option<&pb::Scope>) -> Result<Scope, Refusal> {
    let scope = view::scope_of(scope.ok_or_else(|| Refusal::invalid("scope", "is missing"))?)?;
    if !is_barrable(&scope) {
        return Err(Refusal::invalid("scope.kind", "cannot be barred; revoke it, or bar something wider"));
    }
    Ok(scope)
}

/// Longest task.
const TASK_MAX: Duration = Duration::from_secs(86_400);
/// Bytes of a reason.
const REASON_MAX: usize = 512;

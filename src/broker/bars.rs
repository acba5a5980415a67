//! Bars and attestations: what operators say about the future.

use std::{sync::Arc, time::Duration};

use super::{
    Broker, event,
    refusal::Refusal,
    revoke::{barrable, check_reason},
    task::revision,
    view,
};
use crate::{
    identity::Caller,
    ledger::{BarDraft, TrustCommit},
    model::{GrantName, Scope, TenantName, Timestamp},
    pb,
    policy::Role,
    records,
};

impl Broker {
    /// Forbids issue and renew in a scope until lifted.
    ///
    /// # Errors
    /// When the operator may not.
    pub async fn bar(&self, caller: &Caller, request: pb::BarRequest) -> Result<pb::BarResponse, Refusal> {
        let draft = self.bar_draft(caller, request.scope.as_ref(), request.suspend, request.reason, "scope.barred")?;
        let (changed, receipt) = self.ledger.bar(draft).await?;
        Ok(pb::BarResponse { revision: Some(revision(&receipt)), changed })
    }

    /// Lifts a bar.
    ///
    /// # Errors
    /// When the operator may not: who may bar may lift, but only admins lift.
    pub async fn lift(&self, caller: &Caller, request: pb::LiftRequest) -> Result<pb::LiftResponse, Refusal> {
        self.operator(caller)?.require(Role::Admin)?;
        let draft = self.bar_draft(caller, request.scope.as_ref(), false, request.reason, "scope.lifted")?;
        let (changed, receipt) = self.ledger.lift(draft).await?;
        Ok(pb::LiftResponse { revision: Some(revision(&receipt)), changed })
    }

    fn bar_draft(
        &self,
        caller: &Caller,
        scope: Option<&pb::Scope>,
        suspend: bool,
        reason: String,
        kind: &str,
    ) -> Result<BarDraft, Refusal> {
        let operator = self.operator(caller)?;
        let now = self.now();
        let scope = barrable(scope)?;
        check_reason(&reason)?;
        self.may_end(&operator, &scope)?;
        let mut event = event::by(caller, operator.actor(), kind, now);
        if let Scope::Grant(tenant, _)
        | Scope::PartnerInTenant(tenant, _)
        | Scope::Tenant(tenant)
        | Scope::Workload(tenant, _) = &scope
        {
            event.tenant = tenant.to_string();
        }
        event.reason.clone_from(&reason);
        event.details.push(format!("scope={scope}"));
        if suspend {
            event.details.push("suspend=true".into());
        }
        Ok(BarDraft { scope, suspend, operator: operator.name.to_string(), reason, event, now })
    }

    /// Records that a grant's owner still needs it, until a new date.
    ///
    /// # Errors
    /// When the date is past, too far away or past the grant's expiry.
    pub async fn attest(&self, caller: &Caller, request: pb::AttestRequest) -> Result<pb::AttestResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        check_reason(&request.reason)?;
        let now = self.now();
        let tenant: TenantName = view::id("tenant", &request.tenant)?;
        let grant: GrantName = view::id("grant", &request.grant)?;
        let known = self.registry.tenant(&self.ledger, &tenant)?.ok_or(Refusal::Unknown("grant"))?;
        let found = known.trust.grants().get(&grant).ok_or(Refusal::Unknown("grant"))?;
        if !operator.reaches(Some(&tenant), Some(&found.partner)) {
            return Err(Refusal::Unknown("grant"));
        }
        let attest_by = request.attest_by.as_ref().map(event::unstamp).unwrap_or_default();
        check_date(attest_by, found.expires, now)?;
        let mut event = event::by(caller, operator.actor(), "grant.attested", now);
        (event.tenant, event.partner) = (tenant.to_string(), found.partner.to_string());
        event.grant = grant.to_string();
        event.reason.clone_from(&request.reason);
        event.details.push(format!("attest_by={attest_by}"));
        let record = records::GrantStateRecord {
            attest_by: attest_by.millis(),
            operator: operator.name.to_string(),
            reason: request.reason,
        };
        let commit = TrustCommit {
            basis: self.ledger.basis().1,
            tenants: Vec::new(),
            global: None,
            keys: Vec::new(),
            changed: vec![Scope::Grant(tenant.clone(), grant.clone())],
            cuts: Vec::new(),
            grant_states: vec![(known.number, grant, record)],
            events: vec![event],
            now,
        };
        let (registry, number) = (Arc::clone(&self.registry), known.number);
        let receipt = self.ledger.apply(commit, move || registry.changed(&[(tenant.clone(), number)])).await?;
        Ok(pb::AttestResponse { revision: Some(revision(&receipt)) })
    }
}

fn check_date(attest_by: Timestamp, expires: Timestamp, now: Timestamp) -> Result<(), Refusal> {
    let problem = if attest_by <= now {
        "is not in the future"
    } else if attest_by > expires {
        "is past the grant's expiry"
    } else if attest_by > now.after(ATTEST_MOST) {
        "is more than 400 days away"
    } else {
        return Ok(());
    };
    Err(Refusal::invalid("attest_by", problem))
}

/// How far ahead a grant can be attested.
const ATTEST_MOST: Duration = Duration::from_secs(400 * 86_400);

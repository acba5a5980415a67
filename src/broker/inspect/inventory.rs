//! Every grant with who answers for it, until when, since when unused, and why it is suspended.

use std::time::Duration;

use crate::{
    broker::{Broker, Refusal, event::stamp, registry::Tenant, view},
    identity::Caller,
    model::{GrantName, PartnerName, Scope, Suspension, TenantName, Timestamp},
    pb,
    policy::{Accountability, Grant},
};

impl Broker {
    /// The inventory, in tenant and name order. Who is named as a grant's revoker, or answers for its owner, sees it too.
    ///
    /// # Errors
    /// When the caller is no operator, the page is none, or the store failed.
    pub async fn inventory(
        &self,
        caller: &Caller,
        request: pb::InventoryRequest,
    ) -> Result<pb::InventoryResponse, Refusal> {
        let now = self.now();
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let partner: Option<PartnerName> = view::optional_id("partner", &request.partner)?;
        let tenant: Option<TenantName> = view::optional_id("tenant", &request.tenant)?;
        let global = self.registry.global();
        let own = global.operators.get(&operator.name);
        let due = now.after(Duration::from_secs(request.attest_within_seconds.into()));
        let unused = now.before(Duration::from_secs(request.unused_for_seconds.into()));
        let wanted = |tenant: &Tenant, name: &GrantName, grant: &Grant| {
            let owner = tenant.owner(name, grant);
            let sees = operator.reaches(Some(tenant.trust.name()), Some(&grant.partner))
                || grant.revokers.has(&operator.name)
                || own.is_some_and(|own| own.answers_for(&operator.name, owner));
            let used = tenant.uses.get(name).map_or(Timestamp::default(), |known| known.at().max(known.since()));
            sees && partner.as_ref().is_none_or(|partner| *partner == grant.partner)
                && (request.owner.is_empty() || request.owner == owner)
                && (request.attest_within_seconds == 0 || tenant.attest_by(name, grant) <= due)
                && (request.unused_for_seconds == 0 || used <= unused)
                && (request.state.is_empty() || self.grant_state(tenant, name, now) == request.state)
        };
        let things = |tenant: &Tenant, after: &str, room: usize| {
            let grants = tenant.trust.grants().iter();
            let grants = grants.filter(|(name, grant)| name.as_str() > after && wanted(tenant, name, grant));
            let record =
                |(name, grant): (&GrantName, &Grant)| (name.to_string(), self.record(tenant, name, grant, now));
            grants.take(room).map(record).collect()
        };
        let (records, next_page_token) = self.by_tenant(tenant, &ask, things).await?;
        Ok(pb::InventoryResponse { records, next_page_token })
    }

    fn record(&self, tenant: &Tenant, name: &GrantName, grant: &Grant, now: Timestamp) -> pb::InventoryRecord {
        let time = |at: Timestamp| (at > Timestamp::default()).then(|| stamp(at));
        let used = tenant.uses.get(name);
        let attested = tenant.life.get(name).map_or(0, |life| life.attested);
        let (duties, chain) = duties(tenant.trust.accountability().get(&grant.partner));
        pb::InventoryRecord {
            grant: Some(self.grant_view(tenant, name, grant, now)),
            owner_in_trust_map: grant.owner.clone(),
            attested: time(Timestamp::from_millis(attested)),
            attest_every_seconds: grant.attest_every.unwrap_or(0),
            last_used: used.and_then(|known| time(known.at())),
            used_since: used.and_then(|known| time(known.since())),
            dormant_at: tenant.dormant_at(name).map(stamp),
            suspended_for: self.suspended_for(tenant, name, grant, now),
            test: grant.test,
            duties,
            chain,
        }
    }

    /// Every reason for which what is under a grant is suspended now.
    fn suspended_for(&self, tenant: &Tenant, name: &GrantName, grant: &Grant, now: Timestamp) -> Vec<String> {
        let (tenant_name, partner) = (tenant.trust.name().clone(), grant.partner.clone());
        let scopes = [
            Scope::Everything,
            Scope::Tenant(tenant_name.clone()),
            Scope::Partner(partner.clone()),
            Scope::PartnerInTenant(tenant_name.clone(), partner),
            Scope::Grant(tenant_name, name.clone()),
        ];
        let mut reasons = Vec::new();
        for scope in scopes {
            let state = self.ledger.scope(scope.id());
            if state.bar > 0 {
                reasons.push(format!("bar on {scope}"));
            }
            reasons.extend(state.held.iter().map(|cause| match cause {
                Suspension::Quarantine => format!("quarantine of {scope}"),
                Suspension::AttestationOverdue
                | Suspension::TransferPending
                | Suspension::OwnerLeft
                | Suspension::Dormant
                | Suspension::Velocity => cause.words().to_owned(),
            }));
        }
        // In force before a sweep has written it.
        let overdue = (Suspension::AttestationOverdue, tenant.attest_by(name, grant) <= now);
        let dormant = (Suspension::Dormant, tenant.dormant_at(name).is_some_and(|at| at <= now));
        for (cause, _) in [overdue, dormant].into_iter().filter(|(_, is_so)| *is_so) {
            if !reasons.iter().any(|known| known == cause.words()) {
                reasons.push(cause.words().to_owned());
            }
        }
        reasons
    }
}

/// Who answers for what, and the chain of a resold integration.
pub(super) fn duties(accountability: Option<&Accountability>) -> (Vec<pb::Duty>, Vec<String>) {
    let Some(known) = accountability else { return Default::default() };
    let duty = |(duty, contact): (&str, &crate::policy::Contact)| pb::Duty {
        duty: duty.to_owned(),
        party: contact.party.word().to_owned(),
        who: contact.who.clone(),
        contact: contact.contact.clone(),
    };
    (known.duties().into_iter().map(duty).collect(), known.chain.clone())
}

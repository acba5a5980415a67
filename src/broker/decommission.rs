//! The end of an integration: a partner off-boarded, a tenant or a partner's work in it closed out, a grant retired.

use super::{
    Broker, event,
    owners::{LISTED, part},
    refusal::Refusal,
    registry::Tenant,
    view,
};
use crate::{
    identity::Caller,
    model::{Scope, Timestamp},
    pb,
};

impl Broker {
    /// Ends everything of a partner, a partner in a tenant, a tenant or a grant, and bars it for good: what a revocation
    /// of the scope does, with a report of what it was. Again changes nothing.
    ///
    /// # Errors
    /// As for a revocation.
    pub async fn decommission(
        &self,
        caller: &Caller,
        request: pb::DecommissionRequest,
    ) -> Result<pb::DecommissionResponse, Refusal> {
        let operator = self.operator(caller)?;
        let now = self.now();
        let named = request.scope.as_ref().ok_or_else(|| Refusal::invalid("scope", "is missing"))?;
        let scope = view::scope_of(named)?;
        let kind = match &scope {
            Scope::Partner(_) => "partner.offboarded",
            Scope::PartnerInTenant(..) => "partner.closed_out",
            Scope::Tenant(_) => "tenant.closed_out",
            Scope::Grant(..) => "grant.retired",
            Scope::Everything
            | Scope::Issuer(_)
            | Scope::Lease(_)
            | Scope::Proof(_)
            | Scope::Secret(..)
            | Scope::SigningKey(_)
            | Scope::Task(_)
            | Scope::Workload(..) => {
                return Err(Refusal::invalid("scope.kind", "is none of partner, partner in tenant, tenant and grant"));
            }
        };
        // Reach first: who may not end it does not learn what there is.
        self.may_end(&operator, &scope)?;
        let mut response = self.parts(&scope, now).await?;
        let revoke = pb::RevokeRequest {
            scope: request.scope.clone(),
            dry_run: request.dry_run,
            reason: request.reason.clone(),
            ..Default::default()
        };
        let revoked = self.revoke(caller, revoke).await?;
        (response.leases, response.tasks) = (revoked.leases, revoked.tasks);
        (response.revision, response.changed, response.exposure) =
            (revoked.revision, revoked.changed, revoked.exposure);
        if !request.dry_run && response.changed {
            let mut event = event::by(caller, operator.actor(), kind, now);
            self.name_scope(&mut event, &scope)?;
            if let Scope::Grant(_, grant) = &scope {
                event.grant = grant.to_string();
            }
            event.reason = request.reason;
            event.details.push(format!("grants={}", response.grant_count));
            event.details.push(format!("tenants={}", response.tenants));
            event.details.push(format!("leases={}", response.leases));
            self.ledger.note_act(vec![event], now).await?;
        }
        Ok(response)
    }

    /// The grants that lie within a scope. A tenant that is damaged is not counted, which is logged: it ends all the same.
    async fn parts(&self, scope: &Scope, now: Timestamp) -> Result<pb::DecommissionResponse, Refusal> {
        let mut found = pb::DecommissionResponse::default();
        let names = match scope {
            Scope::Partner(_) => self.registry.names("", None, usize::MAX),
            Scope::PartnerInTenant(tenant, _) | Scope::Tenant(tenant) | Scope::Grant(tenant, _) => {
                self.registry.number(tenant).map(|number| (tenant.clone(), number)).into_iter().collect()
            }
            Scope::Everything
            | Scope::Issuer(_)
            | Scope::Lease(_)
            | Scope::Proof(_)
            | Scope::Secret(..)
            | Scope::SigningKey(_)
            | Scope::Task(_)
            | Scope::Workload(..) => Vec::new(),
        };
        for (at, (_, number)) in names.into_iter().enumerate() {
            let Some(tenant) = self.registry.peek_sound(&self.ledger, number)? else { continue };
            let before = found.grant_count;
            self.parts_of(&tenant, scope, now, &mut found);
            found.tenants += u32::from(found.grant_count > before);
            if at % 256 == 255 {
                tokio::task::yield_now().await;
            }
        }
        Ok(found)
    }

    fn parts_of(&self, tenant: &Tenant, scope: &Scope, now: Timestamp, found: &mut pb::DecommissionResponse) {
        let is_within = |name, partner| match scope {
            Scope::Partner(wanted) | Scope::PartnerInTenant(_, wanted) => wanted == partner,
            Scope::Grant(_, wanted) => wanted == name,
            Scope::Tenant(_) => true,
            Scope::Everything
            | Scope::Issuer(_)
            | Scope::Lease(_)
            | Scope::Proof(_)
            | Scope::Secret(..)
            | Scope::SigningKey(_)
            | Scope::Task(_)
            | Scope::Workload(..) => false,
        };
        for (name, grant) in tenant.trust.grants().iter().filter(|(name, grant)| is_within(*name, &grant.partner)) {
            found.grant_count += 1;
            if found.grants.len() < LISTED {
                let live = self.ledger.live(&Scope::Grant(tenant.trust.name().clone(), name.clone()), now);
                found.grants.push(part(tenant, name, grant, live));
            }
        }
    }
}

//! Who can reach what, through which grant, and who can end it.

use crate::{
    broker::{Broker, Refusal, registry::Tenant, view, who::Operator},
    identity::Caller,
    model::{GrantName, OperatorName, PartnerName, Scope, TenantName, Timestamp, static_secret},
    pb,
    policy::{self, Grant, Role},
};

use super::inventory::duties;

impl Broker {
    /// The trust map's edges, in tenant and grant order.
    ///
    /// # Errors
    /// When the caller is no operator, the page is none, or the store failed.
    pub async fn list_trust_edges(
        &self,
        caller: &Caller,
        request: pb::ListTrustEdgesRequest,
    ) -> Result<pb::ListTrustEdgesResponse, Refusal> {
        let now = self.now();
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let partner: Option<PartnerName> = view::optional_id("partner", &request.partner)?;
        let tenant: Option<TenantName> = view::optional_id("tenant", &request.tenant)?;
        let things = |tenant: &Tenant, after: &str, room: usize| {
            let wanted = |grant: &Grant| {
                partner.as_ref().is_none_or(|partner| *partner == grant.partner)
                    && operator.reaches(Some(tenant.trust.name()), Some(&grant.partner))
            };
            // A page may end within a grant.
            let (last, done) = after.split_once('/').unwrap_or((after, ""));
            let done = done.parse().map_or(usize::MAX, |done: usize| done.saturating_add(1));
            let grants = tenant.trust.grants().iter();
            let grants = grants.filter(|(name, grant)| name.as_str() >= last && wanted(grant));
            let edges = grants.flat_map(|(name, grant)| {
                let skipped = if name.as_str() == last { done } else { 0 };
                let edges = self.edges(tenant, name, grant, now).into_iter().enumerate().skip(skipped);
                edges.map(move |(at, edge)| (format!("{name}/{at}"), edge))
            });
            edges.take(room).collect()
        };
        let (edges, next_page_token) = self.by_tenant(tenant, &ask, things).await?;
        Ok(pb::ListTrustEdgesResponse { edges, next_page_token })
    }

    fn edges(&self, tenant: &Tenant, name: &GrantName, grant: &Grant, now: Timestamp) -> Vec<pb::TrustEdge> {
        let (_, chain) = duties(tenant.trust.accountability().get(&grant.partner));
        let edge = pb::TrustEdge {
            tenant: tenant.trust.name().to_string(),
            partner: grant.partner.to_string(),
            grant: name.to_string(),
            owner: tenant.owner(name, grant).to_owned(),
            environment: grant.environment.clone(),
            state: self.grant_state(tenant, name, now).to_owned(),
            trust_hash: tenant.hash.0.to_vec(),
            chain,
            ..Default::default()
        };
        let of = |workload: &str| {
            let edge = pb::TrustEdge { workload: workload.to_owned(), ..edge.clone() };
            let audiences = grant.audiences.iter().map(ToString::to_string);
            let all = audiences.chain(grant.secrets.iter().map(static_secret::audience));
            all.map(move |audience| pb::TrustEdge { audience, ..edge.clone() })
        };
        grant.workloads.iter().flat_map(|workload| of(workload.as_str())).collect()
    }

    /// Who can end a scope now.
    ///
    /// # Errors
    /// When the caller is no operator, or may not know of the scope.
    pub async fn who_can_revoke(
        &self,
        caller: &Caller,
        request: pb::WhoCanRevokeRequest,
    ) -> Result<pb::WhoCanRevokeResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        let named = request.scope.as_ref().ok_or_else(|| Refusal::invalid("scope", "is missing"))?;
        let scope = view::scope_of(named)?;
        if matches!(scope, Scope::Everything | Scope::Issuer(_) | Scope::Proof(_) | Scope::SigningKey(_)) {
            return Err(Refusal::invalid("scope.kind", "is for admins of everything to end; ask about something else"));
        }
        if !self.in_reach(&operator, &scope)? {
            return Err(Refusal::Unknown("scope"));
        }
        let scope = self.known(scope)?;
        let global = self.registry.global();
        let mut response = pb::WhoCanRevokeResponse::default();
        for (name, other) in &global.operators {
            let Some(because) = self.because(&scope, name, other)? else { continue };
            let within = operator.tenants.covers(&other.tenants) && operator.partners.covers(&other.partners);
            if within || *name == operator.name {
                response.revokers.push(pb::RevokerEntry { operator: name.to_string(), because });
            } else {
                response.others += 1;
            }
        }
        self.fill_contacts(&scope, &mut response)?;
        Ok(response)
    }

    /// Why an operator can end a scope; `None` when it cannot. The very check that a revocation makes is asked.
    fn because(&self, scope: &Scope, name: &OperatorName, other: &policy::Operator) -> Result<Option<String>, Refusal> {
        let asked = Operator {
            name: name.clone(),
            role: other.role,
            tenants: other.tenants.clone(),
            partners: other.partners.clone(),
            person: None,
        };
        match self.may_end(&asked, scope) {
            Ok(()) => {}
            Err(Refusal::NotAllowed(_) | Refusal::Unknown(_)) => return Ok(None),
            Err(other) => return Err(other),
        }
        let by_role = other.role >= Role::Revoker && self.in_reach(&asked, scope)?;
        Ok(Some(match (scope, by_role) {
            (Scope::Grant(tenant, grant), _) if self.names_revoker(tenant, grant, name)? => {
                "named by the grant".to_owned()
            }
            _ => format!("role {}", other.role.word()),
        }))
    }

    fn names_revoker(&self, tenant: &TenantName, grant: &GrantName, name: &OperatorName) -> Result<bool, Refusal> {
        let known = self.registry.tenant(&self.ledger, tenant)?;
        let grant = known.as_ref().and_then(|known| known.trust.grants().get(grant));
        Ok(grant.is_some_and(|grant| grant.revokers.has(name)))
    }

    fn fill_contacts(&self, scope: &Scope, response: &mut pb::WhoCanRevokeResponse) -> Result<(), Refusal> {
        let (tenant, grant, partner) = match scope {
            Scope::Grant(tenant, grant) => (tenant.clone(), Some(grant.clone()), None),
            Scope::PartnerInTenant(tenant, partner) => (tenant.clone(), None, Some(partner.clone())),
            Scope::Lease(id) => {
                let Some(lease) = self.ledger.lease(*id)? else { return Ok(()) };
                (lease.tenant, Some(lease.grant), None)
            }
            Scope::Task(id) => {
                let Some(task) = self.ledger.task(*id)? else { return Ok(()) };
                (task.tenant, None, Some(task.partner))
            }
            Scope::Everything
            | Scope::Issuer(_)
            | Scope::Partner(_)
            | Scope::Proof(_)
            | Scope::Secret(..)
            | Scope::SigningKey(_)
            | Scope::Tenant(_)
            | Scope::Workload(..) => return Ok(()),
        };
        let Some(known) = self.registry.tenant(&self.ledger, &tenant)? else { return Ok(()) };
        let found = grant.as_ref().and_then(|name| Some((name, known.trust.grants().get(name)?)));
        if let Some((name, grant)) = found {
            known.owner(name, grant).clone_into(&mut response.owner);
        }
        let partner = partner.or_else(|| found.map(|(_, grant)| grant.partner.clone()));
        let accountability = partner.and_then(|partner| known.trust.accountability().get(&partner));
        (response.duties, _) = duties(accountability);
        Ok(())
    }
}

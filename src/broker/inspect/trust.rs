//! Tenants, partners, grants, workloads and operators, as the trust map has them.

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use crate::{
    broker::{
        Broker, Refusal,
        page::{self, PageAsk},
        registry::Tenant,
        view,
        who::Operator,
    },
    identity::Caller,
    model::{GrantName, PartnerName, Scope, Suspension, TenantName, Timestamp},
    pb,
    policy::{Grant, Reach, Role},
};

impl Broker {
    /// Tenants, in name order.
    ///
    /// # Errors
    /// When the caller is no operator, the page is none, or the store failed.
    pub async fn list_tenants(
        &self,
        caller: &Caller,
        request: pb::ListTenantsRequest,
    ) -> Result<pb::ListTenantsResponse, Refusal> {
        let now = self.now();
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let (mut tenants, mut next_page_token) = (Vec::new(), String::new());
        let after = name_after(&ask)?;
        for (seen, name) in self.known_names(&operator, &request.name_prefix, after.as_ref()).into_iter().enumerate() {
            if let Some(tenant) = self.listed(&name)?.filter(|tenant| operator.knows(tenant)) {
                tenants.push(self.tenant_view(&operator, &tenant, now));
            }
            if tenants.len() >= ask.size || seen + 1 >= page::SCAN_MOST {
                next_page_token = page::token(name.as_str().as_bytes());
                break;
            }
            breathe(seen).await;
        }
        Ok(pb::ListTenantsResponse { tenants, next_page_token })
    }

    /// Partners, in name order.
    ///
    /// # Errors
    /// As [`Self::list_tenants`].
    pub async fn list_partners(
        &self,
        caller: &Caller,
        request: pb::ListPartnersRequest,
    ) -> Result<pb::ListPartnersResponse, Refusal> {
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let tenant: Option<TenantName> = view::optional_id("tenant", &request.tenant)?;
        let within = match (&tenant, &operator.tenants) {
            (Some(tenant), reach) if reach.includes(tenant) => Some(self.partners_in([tenant])?),
            (Some(_), _) => Some(BTreeSet::new()),
            (None, Reach::Only(tenants)) => Some(self.partners_in(tenants.iter())?),
            (None, Reach::All) => None,
        };
        let after: Option<PartnerName> = view::optional_id("page.token", ask.after_text()?)?;
        let global = self.registry.global();
        let lower = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let visible = global.partners.range((lower, Bound::Unbounded)).filter(|(name, _)| {
            operator.partners.includes(name) && within.as_ref().is_none_or(|within| within.contains(*name))
        });
        let (partners, next_page_token) = page::take(
            &ask,
            visible.map(|(name, partner)| {
                let view = pb::Partner {
                    name: name.to_string(),
                    display_name: partner.display_name.clone(),
                    contact: partner.contact.clone(),
                };
                (name.as_str().as_bytes().to_vec(), view)
            }),
        );
        Ok(pb::ListPartnersResponse { partners, next_page_token })
    }

    /// Grants, in tenant and name order. Who is named as a grant's revoker sees it too.
    ///
    /// # Errors
    /// As [`Self::list_tenants`].
    pub async fn list_grants(
        &self,
        caller: &Caller,
        request: pb::ListGrantsRequest,
    ) -> Result<pb::ListGrantsResponse, Refusal> {
        let now = self.now();
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let partner: Option<PartnerName> = view::optional_id("partner", &request.partner)?;
        let tenant: Option<TenantName> = view::optional_id("tenant", &request.tenant)?;
        let wanted = |tenant: &Tenant, name: &GrantName, grant: &Grant| {
            let sees = operator.reaches(Some(tenant.trust.name()), Some(&grant.partner));
            (sees || grant.revokers.has(&operator.name))
                && partner.as_ref().is_none_or(|partner| *partner == grant.partner)
                && (request.owner.is_empty() || request.owner == tenant.owner(name, grant))
        };
        let things = |tenant: &Tenant, after: &str, room: usize| {
            let grants = tenant
                .trust
                .grants()
                .iter()
                .filter(|(name, grant)| name.as_str() > after && wanted(tenant, name, grant));
            let entry =
                |(name, grant): (&GrantName, &Grant)| (name.to_string(), self.grant_view(tenant, name, grant, now));
            grants.take(room).map(entry).collect()
        };
        let (grants, next_page_token) = self.by_tenant(tenant, &ask, things).await?;
        Ok(pb::ListGrantsResponse { grants, next_page_token })
    }

    /// Workload bindings, in tenant and name order.
    ///
    /// # Errors
    /// As [`Self::list_tenants`].
    pub async fn list_workloads(
        &self,
        caller: &Caller,
        request: pb::ListWorkloadsRequest,
    ) -> Result<pb::ListWorkloadsResponse, Refusal> {
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let tenant: Option<TenantName> = view::optional_id("tenant", &request.tenant)?;
        let things = |tenant: &Tenant, after: &str, room: usize| {
            if !operator.knows(tenant) {
                return Vec::new();
            }
            let visible = |name| {
                let mut grants = tenant.trust.grants().values();
                matches!(operator.partners, Reach::All)
                    || grants.any(|grant| operator.partners.includes(&grant.partner) && grant.workloads.has(name))
            };
            let workloads = tenant.trust.workloads().iter();
            let workloads = workloads.filter(|(name, _)| name.as_str() > after && visible(name)).take(room);
            workloads.map(|(name, workload)| (name.to_string(), view::workload(tenant, name, workload))).collect()
        };
        let (workloads, next_page_token) = self.by_tenant(tenant, &ask, things).await?;
        Ok(pb::ListWorkloadsResponse { workloads, next_page_token })
    }

    /// Operators, in name order: the caller, and those whose scope lies within its own.
    ///
    /// # Errors
    /// As [`Self::list_tenants`].
    pub async fn list_operators(
        &self,
        caller: &Caller,
        request: pb::ListOperatorsRequest,
    ) -> Result<pb::ListOperatorsResponse, Refusal> {
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let after = ask.after_text()?;
        let global = self.registry.global();
        let domain = self.settings.trust_domain.as_str();
        let visible = global.operators.iter().filter(|(name, other)| {
            let within = operator.tenants.covers(&other.tenants) && operator.partners.covers(&other.partners);
            name.as_str() > after && (within || **name == operator.name)
        });
        let entries =
            visible.map(|(name, other)| (name.as_str().as_bytes().to_vec(), view::operator(name, other, domain)));
        let (operators, next_page_token) = page::take(&ask, entries);
        Ok(pb::ListOperatorsResponse { operators, next_page_token })
    }

    /// An operator that may look, and the page it asks for.
    pub(in crate::broker) fn looks(
        &self,
        caller: &Caller,
        page: Option<&pb::Page>,
    ) -> Result<(Operator, PageAsk), Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        Ok((operator, PageAsk::of(page)?))
    }

    /// Whether a grant can be used now, and if not, why.
    pub(in crate::broker) fn grant_state(&self, tenant: &Tenant, name: &GrantName, now: Timestamp) -> &'static str {
        let Some(grant) = tenant.trust.grants().get(name) else { return "removed" };
        let (tenant_name, partner) = (tenant.trust.name(), &grant.partner);
        if grant.expires <= now {
            return "expired";
        }
        if tenant.attested.get(name).copied().unwrap_or(grant.attest_by) <= now {
            return Suspension::AttestationOverdue.words();
        }
        let of_grant = Scope::Grant(tenant_name.clone(), name.clone());
        let (of_tenant, of_partner) = (Scope::Tenant(tenant_name.clone()), Scope::Partner(partner.clone()));
        let in_tenant = Scope::PartnerInTenant(tenant_name.clone(), partner.clone());
        let scopes = [Scope::Everything.id(), of_tenant.id(), of_partner.id(), in_tenant.id(), of_grant.id()];
        if let Some(cause) = scopes.iter().find_map(|id| self.ledger.scope(*id).held.iter().last()) {
            return cause.words();
        }
        if tenant.dormant_at(name).is_some_and(|at| at <= now) {
            return Suspension::Dormant.words();
        }
        if self.ledger.barred(&scopes) {
            return "barred";
        }
        let global = self.registry.global();
        let for_partner = global.partners.get(partner).map_or(0, |partner| partner.max_live_leases);
        let full = |scope: &Scope, most: u64| self.ledger.live(scope, now) >= most;
        match () {
            () if full(&of_grant, grant.max_live_leases) => "quota of the grant used up",
            () if full(&of_tenant, tenant.trust.max_live_leases()) => "quota of the tenant used up",
            () if full(&of_partner, for_partner) => "quota of the partner used up",
            () => "usable",
        }
    }

    pub(super) fn grant_view(&self, tenant: &Tenant, name: &GrantName, grant: &Grant, now: Timestamp) -> pb::Grant {
        let live = self.ledger.live(&Scope::Grant(tenant.trust.name().clone(), name.clone()), now);
        view::grant(tenant, name, grant, live, self.grant_state(tenant, name, now))
    }

    fn tenant_view(&self, operator: &Operator, tenant: &Tenant, now: Timestamp) -> pb::Tenant {
        let name = tenant.trust.name();
        let grants = tenant.trust.grants().values().filter(|grant| operator.partners.includes(&grant.partner));
        pb::Tenant {
            name: name.to_string(),
            issuer: self.issuer(tenant),
            trust_domain: self.settings.trust_domain.of_tenant(name),
            version: tenant.version,
            trust_hash: tenant.hash.0.to_vec(),
            grants: u32::try_from(grants.count()).unwrap_or(u32::MAX),
            workloads: u32::try_from(tenant.trust.workloads().len()).unwrap_or(u32::MAX),
            live_leases: self.live_in(operator, name, now),
        }
    }

    /// Live leases of a tenant that an operator's scope reaches.
    pub(super) fn live_in(&self, operator: &Operator, tenant: &TenantName, now: Timestamp) -> u64 {
        match &operator.partners {
            Reach::All => self.ledger.live(&Scope::Tenant(tenant.clone()), now),
            Reach::Only(partners) => {
                let of = |partner: &PartnerName| Scope::PartnerInTenant(tenant.clone(), partner.clone());
                partners.iter().map(|partner| self.ledger.live(&of(partner), now)).sum()
            }
        }
    }

    /// Names of tenants after `after` within an operator's scope, removed ones among them.
    pub(super) fn known_names(&self, operator: &Operator, prefix: &str, after: Option<&TenantName>) -> Vec<TenantName> {
        let names = self.registry.names(prefix, after, usize::MAX).into_iter().map(|(name, _)| name);
        names.filter(|name| operator.tenants.includes(name)).take(page::SCAN_MOST).collect()
    }

    /// Walks tenants in name order. `things(tenant, after, room)` gives named entries after a name, at most `room`; the
    /// token is `tenant/name`.
    pub(super) async fn by_tenant<T>(
        &self,
        only: Option<TenantName>,
        ask: &PageAsk,
        things: impl Fn(&Tenant, &str, usize) -> Vec<(String, T)>,
    ) -> Result<page::Filled<T>, Refusal> {
        let (begin, after) = ask.after_text()?.split_once('/').unwrap_or_default();
        let begin: Option<TenantName> = view::optional_id("page.token", begin)?;
        let names: Vec<TenantName> = match only {
            Some(only) => vec![only],
            None => {
                let later = self.registry.names("", begin.as_ref(), page::SCAN_MOST).into_iter().map(|(name, _)| name);
                begin.clone().into_iter().chain(later).collect()
            }
        };
        let mut items = Vec::new();
        for (seen, name) in names.iter().enumerate() {
            let after = if begin.as_ref() == Some(name) { after } else { "" };
            let Some(tenant): Option<Arc<Tenant>> = self.listed(name)? else { continue };
            for (thing, item) in things(&tenant, after, ask.size - items.len()) {
                items.push(item);
                if items.len() >= ask.size {
                    return Ok((items, page::token(format!("{name}/{thing}").as_bytes())));
                }
            }
            if seen + 1 >= page::SCAN_MOST {
                // Behind every name of this tenant, before the next one.
                return Ok((items, page::token(format!("{name}/~").as_bytes())));
            }
            breathe(seen).await;
        }
        Ok((items, String::new()))
    }

    fn partners_in<'a>(
        &self,
        tenants: impl IntoIterator<Item = &'a TenantName>,
    ) -> Result<BTreeSet<PartnerName>, Refusal> {
        let mut partners = BTreeSet::new();
        for name in tenants {
            let tenant = self.listed(name)?;
            partners.extend(
                tenant.iter().flat_map(|tenant| tenant.trust.grants().values()).map(|grant| grant.partner.clone()),
            );
        }
        Ok(partners)
    }
}

fn name_after(ask: &PageAsk) -> Result<Option<TenantName>, Refusal> {
    view::optional_id("page.token", ask.after_text()?)
}

/// Lets others run now and then.
async fn breathe(seen: usize) {
    if seen % 256 == 255 {
        tokio::task::yield_now().await;
    }
}

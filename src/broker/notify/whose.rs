//! Whom an event concerns, and which route that is.

use std::collections::BTreeSet;

use super::Notifier;
use crate::{
    broker::{Broker, Refusal, registry::Tenant},
    config::Route,
    model::{GrantName, PartnerName, Purpose, TenantName, Topic, WorkloadName},
    pb,
    policy::Grant,
};

/// Somebody to tell: by which route, and as whom.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Recipient {
    pub(super) route: usize,
    pub(super) owner: String,
}

impl Broker {
    /// Who is told of an event. An owner without a route is reached by the one of whoever answers for the integration, else
    /// by the default one; an alarm goes there in any case.
    pub(super) fn recipients(
        &self,
        notifier: &Notifier,
        event: &pb::Event,
        topic: Topic,
    ) -> Result<BTreeSet<Recipient>, Refusal> {
        let routes = &notifier.config.routes;
        let by_owner = |owner: &str| routes.iter().position(|route| route.owners.iter().any(|known| known == owner));
        let default = routes.iter().position(|route| route.is_default);
        let tenant = self.tenant_of_event(event)?;
        // Who may lift hears of an appeal; whoever is concerned hears of the answer.
        let owners = if event.kind == "appeal.filed" { BTreeSet::new() } else { owners(tenant.as_deref(), event) };
        let contact = || {
            let accountable =
                tenant.as_ref()?.trust.accountability().get(&event.partner.parse::<PartnerName>().ok()?)?;
            let duties = [&accountable.revocation, &accountable.escalation, &accountable.scope, &accountable.storage];
            duties.into_iter().find_map(|duty| by_owner(&duty.contact).or_else(|| by_owner(&duty.who)))
        };
        let mut found = BTreeSet::new();
        for owner in &owners {
            let route = by_owner(owner).or_else(contact).or(default);
            found.extend(route.map(|route| Recipient { route, owner: owner.clone() }));
        }
        if owners.is_empty() {
            let route = contact().or(default);
            found.extend(route.map(|route| Recipient { route, owner: String::new() }));
        }
        if topic == Topic::Alarm
            && let Some(route) = default
            && !found.iter().any(|known| known.route == route)
        {
            found.insert(Recipient { route, owner: String::new() });
        }
        let takes = |route: &Route| route.topics.contains(&topic);
        found.retain(|recipient| routes.get(recipient.route).is_some_and(takes));
        Ok(found)
    }

    fn tenant_of_event(&self, event: &pb::Event) -> Result<Option<std::sync::Arc<Tenant>>, Refusal> {
        let Ok(name) = event.tenant.parse::<TenantName>() else { return Ok(None) };
        match self.registry.number(&name) {
            Some(number) => self.registry.peek_sound(&self.ledger, number),
            None => Ok(None),
        }
    }
}

/// Owners of the grants that an event is about; of one that is gone whoever the event names.
fn owners(tenant: Option<&Tenant>, event: &pb::Event) -> BTreeSet<String> {
    let detail = |name: &str| event.details.iter().find_map(|detail| detail.strip_prefix(name)?.strip_prefix('='));
    let named = || detail("owner").map(str::to_owned).into_iter().collect();
    // A static secret has an owner of its own.
    if event.kind == "secret.needs_rotation" && detail("owner").is_some_and(|owner| !owner.is_empty()) {
        return named();
    }
    let Some(tenant) = tenant else { return named() };
    let scope = detail("scope").unwrap_or_default();
    let of_scope = |kind: &str| scope.strip_prefix(kind)?.strip_prefix(' ')?.split_once('/').map(|(_, name)| name);
    let grant = Some(event.grant.as_str()).filter(|name| !name.is_empty()).or_else(|| of_scope("grant"));
    let workload = Some(event.workload.as_str()).filter(|name| !name.is_empty()).or_else(|| of_scope("workload"));
    if let Some(name) = grant {
        let Ok(name) = name.parse::<GrantName>() else { return named() };
        let known = tenant.trust.grants().get(&name);
        return known.map_or_else(named, |grant| [tenant.owner(&name, grant).to_owned()].into());
    }
    let partner: Option<PartnerName> = event.partner.parse().ok();
    let workload: Option<WorkloadName> = workload.and_then(|name| name.parse().ok());
    let purpose: Option<Purpose> = event.purpose.parse().ok();
    let concerns = |grant: &Grant| {
        partner.as_ref().is_none_or(|partner| grant.partner == *partner)
            && workload.as_ref().is_none_or(|workload| grant.workloads.has(workload))
            && purpose.as_ref().is_none_or(|purpose| grant.purposes.has(purpose))
    };
    let grants = tenant.trust.grants().iter().filter(|(_, grant)| concerns(grant));
    let owners: BTreeSet<&str> = grants.map(|(name, grant)| tenant.owner(name, grant)).collect();
    owners.into_iter().take(OWNERS_MOST).map(str::to_owned).collect()
}

/// Owners that one event is told to.
const OWNERS_MOST: usize = 100;

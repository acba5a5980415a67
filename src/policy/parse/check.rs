//! What only all documents together can get wrong.

use std::collections::BTreeMap;

use crate::{
    model::{CredentialKind, GrantName, OperatorName, PartnerName, TenantName, WorkloadName},
    policy::{
        grant::{Grant, ResourceClass},
        pattern::Pattern,
        problem::Problem,
        sorted::Reach,
        trust::{Selector, TenantTrust},
    },
};

use super::{
    Extent,
    gather::{Draft, Gather, problem_at},
    source::{Place, Source},
};

impl Gather<'_> {
    /// Checks references, counts and what must differ.
    pub(super) fn check(&mut self) {
        let mut found = Vec::new();
        for (name, draft) in &self.tenants {
            self.check_counts(draft, &mut found);
            self.check_selectors(name, draft, &mut found);
            for (name, grant) in &draft.grants {
                if let Some(value) = &grant.value {
                    self.check_grant(draft, value, grant.place, &mut found);
                    self.check_test(draft, name, value, grant.place, &mut found);
                    self.check_classes(draft, value, grant.place, &mut found);
                }
            }
            for (partner, entry) in draft.accountability.iter().filter(|(partner, _)| !self.knows_partner(partner)) {
                let message = format!("partner `{partner}` is not defined");
                found.push(self.at(
                    entry.place,
                    "accountability.partner",
                    &message,
                    "add a [[partner]] with this name",
                ));
            }
        }
        self.check_issuers(&mut found);
        self.check_reaches(&mut found);
        self.problems.extend(found);
    }

    fn at(&self, place: Place, field: &str, message: &str, help: &str) -> Problem {
        problem_at(self.sources, place, field, message, help)
    }

    fn knows_partner(&self, name: &PartnerName) -> bool {
        match self.extent {
            Extent::Whole => self.partners.contains_key(name),
            Extent::NamedTenants(global) => global.partners.contains_key(name),
        }
    }

    fn knows_operator(&self, name: &OperatorName) -> bool {
        match self.extent {
            Extent::Whole => self.operators.contains_key(name),
            Extent::NamedTenants(global) => global.operators.contains_key(name),
        }
    }

    fn check_counts(&self, draft: &Draft, found: &mut Vec<Problem>) {
        let counts = [
            ("tenant.grants", draft.grants.len()),
            ("tenant.workloads", draft.workloads.len()),
            ("tenant.verifiers", draft.verifiers.len()),
        ];
        if draft.resource_classes.len() > ResourceClass::MOST {
            let message = format!("are {}, where {} are allowed", draft.resource_classes.len(), ResourceClass::MOST);
            found.push(self.at(draft.head.place, "tenant.resource_classes", &message, "join some"));
        }
        for (field, count) in counts.into_iter().filter(|(_, count)| *count > TenantTrust::MAX_GRANTS) {
            let message = format!("are {count}, where {} are allowed", TenantTrust::MAX_GRANTS);
            found.push(self.at(draft.head.place, field, &message, "split the tenant"));
        }
    }

    fn check_grant(&self, draft: &Draft, grant: &Grant, place: Place, found: &mut Vec<Problem>) {
        if !self.knows_partner(&grant.partner) {
            let message = format!("partner `{}` is not defined", grant.partner);
            found.push(self.at(place, "grant.partner", &message, "add a [[partner]] with this name"));
        }
        for name in grant.revokers.iter().filter(|name| !self.knows_operator(name)) {
            let message = format!("operator `{name}` is not defined");
            found.push(self.at(place, "grant.revokers", &message, "add an [[operator]] with this name"));
        }
        let approvers = grant.approvals.iter().flat_map(|approvals| approvals.by.iter());
        for name in approvers.filter(|name| !self.knows_operator(name)) {
            let message = format!("operator `{name}` is not defined");
            found.push(self.at(place, "grant.approvals.by", &message, "add an [[operator]] with this name"));
        }
        for name in grant.workloads.iter() {
            match draft.workloads.get(name).map(|workload| &workload.value) {
                None => {
                    let message = format!("workload `{name}` is not defined in this tenant");
                    found.push(self.at(place, "grant.workloads", &message, "add a [[workload]] with this name"));
                }
                Some(Some(workload)) if workload.environment != grant.environment => {
                    let message = format!(
                        "workload `{name}` is in environment `{}`, the grant in `{}`",
                        workload.environment, grant.environment
                    );
                    found.push(self.at(place, "grant.environment", &message, "a grant is for one environment"));
                }
                Some(Some(_) | None) => {}
            }
        }
    }

    /// What is for tests lives shortly, and reaches nothing that another grant does.
    fn check_test(&self, draft: &Draft, name: &GrantName, grant: &Grant, place: Place, found: &mut Vec<Problem>) {
        let Some(head) = &draft.head.value else { return };
        let is_for_tests = |environment: &str| head.test_environments.iter().any(|known| known.0 == environment);
        if !is_for_tests(&grant.environment) {
            if grant.test {
                let message = format!("`{}` is no test environment of the tenant", grant.environment);
                let help = "name one of the tenant's test_environments, or remove test";
                found.push(self.at(place, "grant.environment", &message, help));
            }
            return;
        }
        if grant.ttl_max > head.test_ttl_max {
            let message = format!("{} s exceed the {} s of what is for tests", grant.ttl_max, head.test_ttl_max);
            found.push(self.at(place, "grant.ttl_max", &message, "lower it, or raise the tenant's test_ttl_max"));
        }
        let others = draft.grants.iter().filter_map(|(other, found)| Some((other, found.value.as_ref()?)));
        for (other, real) in others.filter(|(_, other)| !is_for_tests(&other.environment)) {
            if let Some(secret) = grant.secrets.iter().find(|secret| real.secrets.has(secret)) {
                let message =
                    format!("secret `{secret}` of `{name}`, which is for tests, is also one of grant `{other}`");
                found.push(self.at(place, "grant.secrets", &message, "give what is for tests secrets of its own"));
            }
            let meets = |audience: &&Pattern| real.audiences.iter().any(|own| own.meets(audience));
            if let Some(audience) = grant.audiences.iter().find(meets) {
                let message =
                    format!("`{audience}` of `{name}`, which is for tests, is within reach of grant `{other}`");
                let help = "give what is for tests audiences of its own";
                found.push(self.at(place, "grant.audiences", &message, help));
            }
        }
    }

    /// A grant that reaches what is in a class gives no more than the class allows.
    fn check_classes(&self, draft: &Draft, grant: &Grant, place: Place, found: &mut Vec<Problem>) {
        for (name, class) in &draft.resource_classes {
            let Some(class) = class.value.as_ref().filter(|class| class.is_reached_by(grant)) else { continue };
            if grant.ttl_max > class.ttl_max {
                let message = format!("{} s exceed the {} s of resource class `{name}`", grant.ttl_max, class.ttl_max);
                let help = "lower it, or give what is not of the class a grant of its own";
                found.push(self.at(place, "grant.ttl_max", &message, help));
            }
            // Nothing binds a static secret.
            let is_bindable = grant.kinds.iter().any(|kind| *kind != CredentialKind::Secret);
            if class.require_binding && !grant.require_binding && is_bindable {
                let message = format!("is false, and resource class `{name}` asks for bound tokens");
                found.push(self.at(place, "grant.require_binding", &message, "remove it, or write true"));
            }
            let stray = grant.purposes.iter().find(|purpose| !class.purposes.has(purpose));
            if let Some(purpose) = stray.filter(|_| !class.purposes.is_empty()) {
                let message = format!("`{purpose}` is no purpose of resource class `{name}`");
                let help = "remove it, or give it a grant that reaches nothing of the class";
                found.push(self.at(place, "grant.purposes", &message, help));
            }
        }
    }

    /// Two workloads that one caller could be both at once are one credential shared.
    fn check_selectors(&self, tenant: &TenantName, draft: &Draft, found: &mut Vec<Problem>) {
        let mut seen: BTreeMap<Selector, Vec<Claim<'_>>> = BTreeMap::new();
        for (name, workload) in &draft.workloads {
            let selectors = workload.value.iter().flat_map(|workload| workload.selectors.iter());
            for selector in selectors {
                let (key, group) = match selector {
                    Selector::Unix { uid, gid } => (Selector::Unix { uid: *uid, gid: None }, *gid),
                    // What else two bindings share shows when a token fits both: then it fits neither.
                    Selector::Federated(federated) => (Selector::Federated(federated.without_times()), None),
                    Selector::SpiffeId { .. } | Selector::DnsName { .. } => (selector.clone(), None),
                };
                let others = seen.entry(key).or_default();
                let same =
                    |other: &&Claim<'_>| other.1 != name && (other.0.is_none() || group.is_none() || other.0 == group);
                if let Some((_, other, first)) = others.iter().find(same) {
                    let message = format!(
                        "{selector} selects workload `{name}` and workload `{other}` ({}) of tenant `{tenant}`",
                        spell(self.sources, *first)
                    );
                    let help = "give each workload an identity of its own";
                    found.push(self.at(workload.place, "workload.selectors", &message, help));
                }
                others.push((group, name, workload.place));
            }
        }
    }

    /// Two tenants with one issuer could pass each other's tokens for their own.
    fn check_issuers(&self, found: &mut Vec<Problem>) {
        let mut seen: BTreeMap<&str, (&TenantName, Place)> = BTreeMap::new();
        for (name, draft) in &self.tenants {
            let Some(issuer) = draft.head.value.as_ref().and_then(|head| head.issuer.as_deref()) else { continue };
            if let Some((other, first)) = seen.insert(issuer, (name, draft.head.place)) {
                let message = format!("is also that of tenant `{other}` ({})", spell(self.sources, first));
                found.push(self.at(draft.head.place, "tenant.issuer", &message, "give each tenant its own"));
            }
        }
    }

    /// Operators and verifiers must not name what is not there.
    fn check_reaches(&self, found: &mut Vec<Problem>) {
        let help = "define it, or remove it from the list";
        for (name, operator) in &self.operators {
            let Some(value) = &operator.value else { continue };
            for tenant in self.strangers(&value.tenants) {
                let message = format!("of `{name}`: tenant `{tenant}` is not defined");
                found.push(self.at(operator.place, "operator.tenants", &message, help));
            }
            if let Reach::Only(partners) = &value.partners {
                for partner in partners.iter().filter(|partner| !self.knows_partner(partner)) {
                    let message = format!("of `{name}`: partner `{partner}` is not defined");
                    found.push(self.at(operator.place, "operator.partners", &message, help));
                }
            }
        }
        for (name, verifier) in &self.verifiers {
            let Some(value) = &verifier.value else { continue };
            for tenant in self.strangers(&value.tenants) {
                let message = format!("of `{name}`: tenant `{tenant}` is not defined");
                found.push(self.at(verifier.place, "verifier.tenants", &message, help));
            }
        }
    }

    fn strangers<'r>(&self, reach: &'r Reach<TenantName>) -> Vec<&'r TenantName> {
        match reach {
            Reach::All => Vec::new(),
            Reach::Only(names) => names.iter().filter(|name| !self.tenants.contains_key(name)).collect(),
        }
    }
}

/// Who claims a selector, for which group, and where.
type Claim<'a> = (Option<u32>, &'a WorkloadName, Place);

fn spell(sources: &[Source<'_>], place: Place) -> String {
    format!("{}:{}", sources.get(place.document).map_or("-", |source| source.path), place.line)
}

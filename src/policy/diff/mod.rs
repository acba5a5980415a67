//! What changes from one trust map to the next, and what must end because of it.

mod compare;
mod grant;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Digest, GrantName, PartnerName, Scope, TenantName, WorkloadName};

use super::{
    cedar::PolicyTexts,
    trust::{GlobalTrust, Operator, Partner, TenantTrust, TrustMap, Verifier, Workload},
};

use compare::Compared;

/// One difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What it does to authority.
    pub kind: ChangeKind,
    /// What sort of thing changed.
    pub noun: Noun,
    /// Whose it is; `None` for what is global.
    pub tenant: Option<TenantName>,
    /// Its name.
    pub name: String,
    /// Field by field: `ttl_max 300s -> 120s`.
    pub details: Vec<String>,
    scope: Option<Scope>,
}

/// What a change does to authority.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChangeKind {
    /// New.
    Added,
    /// Gone.
    Removed,
    /// More, and nothing taken away.
    Widened,
    /// Something taken away, even when something else was added.
    Narrowed,
    /// Neither more nor less. A lowered quota is one: it ends nothing that lives.
    Edited,
}

impl ChangeKind {
    /// The word in events.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Widened => "widened",
            Self::Narrowed => "narrowed",
            Self::Edited => "edited",
        }
    }
}

/// What sort of thing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Noun {
    /// A tenant.
    Tenant,
    /// A partner.
    Partner,
    /// A workload.
    Workload,
    /// A grant.
    Grant,
    /// A verifier.
    Verifier,
    /// An operator.
    Operator,
    /// A file of policies.
    Policy,
    /// A file of guardrails.
    Guardrail,
}

impl Noun {
    /// The word in replies and messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Partner => "partner",
            Self::Workload => "workload",
            Self::Grant => "grant",
            Self::Verifier => "verifier",
            Self::Operator => "operator",
            Self::Policy => "policy",
            Self::Guardrail => "guardrail",
        }
    }
}

impl Change {
    /// The narrowest scope whose past must end with this change; `None` when nothing has to.
    ///
    /// Operators and verifiers hold nothing that outlives the trust map: their access ends with the apply itself.
    #[must_use]
    pub fn cut_scope(&self) -> Option<Scope> {
        match self.kind {
            ChangeKind::Removed | ChangeKind::Narrowed => self.scope.clone(),
            ChangeKind::Added | ChangeKind::Widened | ChangeKind::Edited => None,
        }
    }

    /// Whether it counts against the removals that an apply allows.
    #[must_use]
    pub fn is_removal(&self) -> bool {
        self.kind == ChangeKind::Removed
    }
}

/// All differences: the global ones, then tenant by tenant in name order.
#[must_use]
pub fn diff(old: &TrustMap, new: &TrustMap) -> Vec<Change> {
    let mut changes = diff_global(&old.global, &new.global);
    let names: BTreeSet<_> = old.tenants.keys().chain(new.tenants.keys()).collect();
    for name in names {
        changes.extend(diff_tenant(old.tenants.get(name), new.tenants.get(name)));
    }
    changes
}

/// Differences in what concerns more than one tenant.
#[must_use]
pub fn diff_global(old: &GlobalTrust, new: &GlobalTrust) -> Vec<Change> {
    let mut list = Listing { tenant: None, changes: Vec::new() };
    let cut = |name: &PartnerName| Some(Scope::Partner(name.clone()));
    list.each(Noun::Partner, &old.partners, &new.partners, partner, cut);
    list.each(Noun::Operator, &old.operators, &new.operators, operator, |_| None);
    let global = |old: &super::GlobalVerifier, new: &super::GlobalVerifier| {
        let mut compared = verifier(&old.verifier, &new.verifier);
        compared.reach("tenants", &old.tenants, &new.tenants);
        compared
    };
    list.each(Noun::Verifier, &old.verifiers, &new.verifiers, global, |_| None);
    list.policies(Noun::Guardrail, old.guardrails.as_ref(), new.guardrails.as_ref());
    list.changes
}

/// Differences in one tenant; `None` where there is no such tenant. A removed tenant is one change.
#[must_use]
pub fn diff_tenant(old: Option<&TenantTrust>, new: Option<&TenantTrust>) -> Vec<Change> {
    let (name, empty) = match (old, new) {
        (None, None) => return Vec::new(),
        (Some(old), None) => return vec![removed_tenant(old)],
        (None, Some(new)) => (&new.name, Some(new.without_contents())),
        (Some(old), Some(_)) => (&old.name, None),
    };
    let (Some(before), Some(after)) = (old.or(empty.as_ref()), new) else { return Vec::new() };
    let mut list = Listing { tenant: Some(name), changes: Vec::new() };
    if old.is_none() {
        list.push(ChangeKind::Added, Noun::Tenant, name.to_string(), Vec::new(), None);
    } else {
        let compared = tenant(before, after);
        list.compared(Noun::Tenant, name.to_string(), compared, Some(Scope::Tenant(name.clone())));
    }
    let cut = |workload: &WorkloadName| Some(Scope::Workload(name.clone(), workload.clone()));
    list.each(Noun::Workload, &before.workloads, &after.workloads, workload, cut);
    let cut = |grant: &GrantName| Some(Scope::Grant(name.clone(), grant.clone()));
    list.each(Noun::Grant, &before.grants, &after.grants, grant::compare, cut);
    list.each(Noun::Verifier, &before.verifiers, &after.verifiers, verifier, |_| None);
    list.policies(Noun::Policy, before.policy.as_ref(), after.policy.as_ref());
    list.changes
}

/// Changes of one tenant, or of what is global.
struct Listing<'a> {
    tenant: Option<&'a TenantName>,
    changes: Vec<Change>,
}

impl Listing<'_> {
    fn each<K: Ord + ToString, V: PartialEq>(
        &mut self,
        noun: Noun,
        old: &BTreeMap<K, V>,
        new: &BTreeMap<K, V>,
        compare: impl Fn(&V, &V) -> Compared,
        cut: impl Fn(&K) -> Option<Scope>,
    ) {
        let names: BTreeSet<&K> = old.keys().chain(new.keys()).collect();
        for name in names {
            match (old.get(name), new.get(name)) {
                (Some(before), Some(after)) if before == after => {}
                (Some(before), Some(after)) => {
                    self.compared(noun, name.to_string(), compare(before, after), cut(name));
                }
                (Some(_), None) => self.push(ChangeKind::Removed, noun, name.to_string(), Vec::new(), cut(name)),
                (None, Some(_)) => self.push(ChangeKind::Added, noun, name.to_string(), Vec::new(), None),
                (None, None) => {}
            }
        }
    }

    /// Files of policies, by use and name. What a change of them does to authority only Cedar knows, request by request:
    /// it is edited, and ends nothing; what lives is asked about again when it is renewed.
    fn policies(&mut self, noun: Noun, old: Option<&PolicyTexts>, new: Option<&PolicyTexts>) {
        let files = |texts: Option<&PolicyTexts>| -> BTreeMap<String, String> {
            let uses = texts.map(|texts| [("enforce", &texts.enforce), ("shadow", &texts.shadow)]);
            let each =
                uses.into_iter().flatten().flat_map(|(r#use, files)| files.iter().map(move |file| (r#use, file)));
            each.map(|(r#use, file)| (format!("{} ({use})", file.path), file.text.clone())).collect()
        };
        let compare = |old: &String, new: &String| {
            let mut compared = Compared::default();
            let spell = |text: &String| format!("{} bytes, {}", text.len(), Digest::of(text.as_bytes()));
            compared.edit("text", &spell(old), &spell(new));
            compared
        };
        self.each(noun, &files(old), &files(new), compare, |_| None);
    }

    fn compared(&mut self, noun: Noun, name: String, compared: Compared, scope: Option<Scope>) {
        if let Some((kind, details)) = compared.result() {
            self.push(kind, noun, name, details, scope);
        }
    }

    fn push(&mut self, kind: ChangeKind, noun: Noun, name: String, details: Vec<String>, scope: Option<Scope>) {
        self.changes.push(Change { kind, noun, tenant: self.tenant.cloned(), name, details, scope });
    }
}

impl TenantTrust {
    fn without_contents(&self) -> Self {
        Self {
            name: self.name.clone(),
            issuer: None,
            token_algorithm: self.token_algorithm,
            max_live_leases: self.max_live_leases,
            workloads: BTreeMap::new(),
            grants: BTreeMap::new(),
            verifiers: BTreeMap::new(),
            dormant_after: None,
            accountability: BTreeMap::new(),
            policy: None,
            resource_classes: BTreeMap::new(),
            derived: super::index::Derived::default(),
            sets: super::cedar::Sets::default(),
        }
    }
}

fn removed_tenant(old: &TenantTrust) -> Change {
    Change {
        kind: ChangeKind::Removed,
        noun: Noun::Tenant,
        tenant: Some(old.name.clone()),
        name: old.name.to_string(),
        details: vec![format!("with {} workloads and {} grants", old.workloads.len(), old.grants.len())],
        scope: Some(Scope::Tenant(old.name.clone())),
    }
}

fn tenant(old: &TenantTrust, new: &TenantTrust) -> Compared {
    let mut compared = Compared::default();
    let spell = |issuer: Option<&str>| issuer.unwrap_or("(default)").to_owned();
    compared.edit("issuer", &spell(old.issuer()), &spell(new.issuer()));
    compared.edit("token_algorithm", &old.token_algorithm.word(), &new.token_algorithm.word());
    compared.quota("max_live_leases", old.max_live_leases, new.max_live_leases);
    let spell = |after: Option<u32>| after.map_or("never".to_owned(), |seconds| format!("{seconds}s"));
    compared.edit("dormant_after", &spell(old.dormant_after), &spell(new.dormant_after));
    if old.accountability != new.accountability {
        let entries = |map: &TenantTrust| format!("{} partners", map.accountability.len());
        compared.change("accountability", &entries(old), &entries(new));
    }
    // What they take, they take from grants, whose own changes say so.
    if old.resource_classes != new.resource_classes {
        let names = |map: &TenantTrust| format!("{:?}", map.resource_classes.keys().collect::<Vec<_>>());
        compared.change("resource_classes", &names(old), &names(new));
    }
    compared
}

fn partner(old: &Partner, new: &Partner) -> Compared {
    let mut compared = Compared::default();
    compared.edit("display_name", &old.display_name, &new.display_name);
    compared.edit("contact", &old.contact, &new.contact);
    compared.quota("max_live_leases", old.max_live_leases, new.max_live_leases);
    compared
}

fn operator(old: &Operator, new: &Operator) -> Compared {
    let mut compared = Compared::default();
    compared.ordered("role", old.role, new.role, |role| role.word().to_owned());
    compared.reach("tenants", &old.tenants, &new.tenants);
    compared.reach("partners", &old.partners, &new.partners);
    compared.set("speaks_for", &old.speaks_for, &new.speaks_for);
    compared
}

fn workload(old: &Workload, new: &Workload) -> Compared {
    let mut compared = Compared::default();
    compared.set("selectors", &old.selectors, &new.selectors);
    compared.moved("environment", &old.environment, &new.environment);
    compared.networks("sources", &old.sources, &new.sources);
    compared
}

fn verifier(old: &Verifier, new: &Verifier) -> Compared {
    let mut compared = Compared::default();
    compared.set("selectors", &old.selectors, &new.selectors);
    compared.reach("audiences", &old.audiences, &new.audiences);
    compared
}

//! Collecting what the documents define, each name once.

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use toml::de::{DeTable, DeValue};

use crate::{
    model::{GrantName, IssuerRules, OperatorName, PartnerName, TenantName, Timestamp, WorkloadName},
    policy::{
        accountability::Accountability,
        cedar::{PolicyTexts, Side},
        grant::{Grant, ResourceClass},
        index::Derived,
        problem::{Problem, Problems},
        trust::{GlobalTrust, GlobalVerifier, Operator, Partner, TenantTrust, TrustMap, Verifier, Workload},
    },
};

use super::{
    Extent, grant,
    item::{self, NAME_HELP, TenantHead},
    policy::Library,
    row::Row,
    source::{Place, Source},
    words::Label,
};

/// What was read so far.
pub(super) struct Gather<'a> {
    pub(super) sources: &'a [Source<'a>],
    pub(super) extent: Extent<'a>,
    pub(super) issuers: &'a [Arc<IssuerRules>],
    pub(super) now: Timestamp,
    pub(super) problems: Vec<Problem>,
    pub(super) tenants: BTreeMap<TenantName, Draft>,
    pub(super) partners: Names<PartnerName, Partner>,
    pub(super) operators: Names<OperatorName, Operator>,
    pub(super) verifiers: Names<String, GlobalVerifier>,
    pub(super) library: Library<'a>,
    guardrails: Option<Found<PolicyTexts>>,
}

/// A tenant in the making.
pub(super) struct Draft {
    pub(super) head: Found<TenantHead>,
    pub(super) workloads: Names<WorkloadName, Workload>,
    pub(super) grants: Names<GrantName, Grant>,
    pub(super) verifiers: Names<String, Verifier>,
    pub(super) accountability: Names<PartnerName, Accountability>,
    pub(super) resource_classes: Names<String, ResourceClass>,
}

pub(super) type Names<K, V> = BTreeMap<K, Found<V>>;

/// Something defined; `None` when it is wrong in itself, so that who refers to it is not blamed as well.
pub(super) struct Found<V> {
    pub(super) place: Place,
    pub(super) value: Option<V>,
}

impl<'a> Gather<'a> {
    pub(super) fn new(
        sources: &'a [Source<'a>],
        extent: Extent<'a>,
        issuers: &'a [Arc<IssuerRules>],
        now: Timestamp,
        problems: Vec<Problem>,
    ) -> Self {
        Self {
            sources,
            extent,
            issuers,
            now,
            problems,
            tenants: BTreeMap::new(),
            partners: BTreeMap::new(),
            operators: BTreeMap::new(),
            verifiers: BTreeMap::new(),
            library: Library::default(),
            guardrails: None,
        }
    }

    /// Reads `[[tenant]]`, which everything else refers to.
    pub(super) fn tenants<'t>(&mut self, source: &'t Source<'t>, document: &'t DeTable<'t>) {
        for row in rows("tenant", source, document, &mut self.problems) {
            let name = item::name::<TenantName>(&row, &mut self.problems);
            let mut head = Found { place: row.place, value: item::tenant(&row, &mut self.problems) };
            if let (true, Some(head)) = (row.has("policy"), &mut head.value) {
                let help = "write policy = { enforce = \"name.cedar\" }";
                let table = row.table("policy", help, &mut self.problems);
                let texts = table.and_then(|table| self.library.texts(&table, Side::Tenant, &mut self.problems));
                head.sets = texts.as_ref().map(|texts| self.library.sets(texts, Side::Tenant)).unwrap_or_default();
                head.policy = texts;
            }
            let Some(name) = name else { continue };
            if let Some(first) = self.tenants.get(&name).map(|draft| draft.head.place) {
                twice(self.sources, &row, &name, None, first, &mut self.problems);
                continue;
            }
            let draft = Draft {
                head,
                workloads: BTreeMap::new(),
                grants: BTreeMap::new(),
                verifiers: BTreeMap::new(),
                accountability: BTreeMap::new(),
                resource_classes: BTreeMap::new(),
            };
            self.tenants.insert(name, draft);
        }
    }

    /// Reads all but tenants and templates; `whole` when every tenant is known by now.
    pub(super) fn items<'t>(&mut self, source: &'t Source<'t>, document: &'t DeTable<'t>, whole: bool) {
        known_sections(source, document, &mut self.problems);
        self.guardrails(source, document);
        for row in rows("partner", source, document, &mut self.problems) {
            self.is_not_global(&row);
            let value = item::partner(&row, &mut self.problems);
            let name = item::name(&row, &mut self.problems);
            define(self.sources, &mut self.partners, &row, None, name, value, &mut self.problems);
        }
        for row in rows("operator", source, document, &mut self.problems) {
            self.is_not_global(&row);
            let value = item::operator(&row, &mut self.problems);
            let name = item::name(&row, &mut self.problems);
            define(self.sources, &mut self.operators, &row, None, name, value, &mut self.problems);
        }
        for row in rows("verifier", source, document, &mut self.problems) {
            self.verifier(&row, whole);
        }
        for row in rows("workload", source, document, &mut self.problems) {
            if let Some(tenant) = self.tenant_of(&row, whole) {
                self.workload(&row, &tenant);
            }
        }
        for row in rows("grant", source, document, &mut self.problems) {
            if let Some(tenant) = self.tenant_of(&row, whole) {
                self.grant(&row, &tenant);
            }
        }
        for row in rows("accountability", source, document, &mut self.problems) {
            if let Some(tenant) = self.tenant_of(&row, whole) {
                self.accountability(&row, &tenant);
            }
        }
        for row in rows("resource_class", source, document, &mut self.problems) {
            if let Some(tenant) = self.tenant_of(&row, whole) {
                self.resource_class(&row, &tenant);
            }
        }
    }

    /// Reads `[guardrails]`, of which there is one.
    fn guardrails<'t>(&mut self, source: &'t Source<'t>, document: &'t DeTable<'t>) {
        let Some(value) = document.get("guardrails") else { return };
        let Some(row) = Row::new("guardrails", value, source, None, &mut self.problems) else { return };
        if let Extent::NamedTenants(_) = self.extent {
            let help = "apply the whole trust map to change them";
            return row.wrong("enforce", "does not belong to one tenant", help, &mut self.problems);
        }
        let value = self.library.texts(&row, Side::Guardrails, &mut self.problems);
        if let Some(first) = &self.guardrails {
            let path = self.sources.get(first.place.document).map_or("-", |source| source.path);
            let message = format!("is defined twice, first at {path}:{}", first.place.line);
            return row.wrong("enforce", message, "keep one, with a list of files", &mut self.problems);
        }
        self.guardrails = Some(Found { place: row.place, value });
    }

    fn verifier(&mut self, row: &Row<'_>, whole: bool) {
        if row.has("tenant") {
            let Some(tenant) = self.tenant_of(row, whole) else { return };
            let value = item::verifier(row, &mut self.problems);
            let name = item::name::<Label>(row, &mut self.problems).map(|name| name.0);
            if let Some(draft) = self.tenants.get_mut(&tenant) {
                let names = &mut draft.verifiers;
                define(self.sources, names, row, Some(&tenant), name, value, &mut self.problems);
            }
            return;
        }
        self.is_not_global(row);
        let value = item::global_verifier(row, &mut self.problems);
        let name = item::name::<Label>(row, &mut self.problems).map(|name| name.0);
        define(self.sources, &mut self.verifiers, row, None, name, value, &mut self.problems);
    }

    pub(super) fn workload(&mut self, row: &Row<'_>, tenant: &TenantName) {
        let value = item::workload(row, self.issuers, &mut self.problems);
        let name = item::name(row, &mut self.problems);
        if let Some(draft) = self.tenants.get_mut(tenant) {
            define(self.sources, &mut draft.workloads, row, Some(tenant), name, value, &mut self.problems);
        }
    }

    pub(super) fn grant(&mut self, row: &Row<'_>, tenant: &TenantName) {
        let value = grant::grant(row, self.now, &mut self.problems);
        let name = item::name(row, &mut self.problems);
        if let Some(draft) = self.tenants.get_mut(tenant) {
            define(self.sources, &mut draft.grants, row, Some(tenant), name, value, &mut self.problems);
        }
    }

    fn accountability(&mut self, row: &Row<'_>, tenant: &TenantName) {
        let value = item::accountability(row, &mut self.problems);
        let partner = row.parsed("partner", "say for which partner", &mut self.problems);
        if let Some(draft) = self.tenants.get_mut(tenant) {
            define(self.sources, &mut draft.accountability, row, Some(tenant), partner, value, &mut self.problems);
        }
    }

    fn resource_class(&mut self, row: &Row<'_>, tenant: &TenantName) {
        let value = item::resource_class(row, &mut self.problems);
        let name = item::name::<Label>(row, &mut self.problems).map(|name| name.0);
        if let Some(draft) = self.tenants.get_mut(tenant) {
            define(self.sources, &mut draft.resource_classes, row, Some(tenant), name, value, &mut self.problems);
        }
    }

    /// The tenant that a row names, when it is defined.
    fn tenant_of(&mut self, row: &Row<'_>, whole: bool) -> Option<TenantName> {
        let name: TenantName = row.parsed("tenant", "say which tenant it is of", &mut self.problems)?;
        if self.tenants.contains_key(&name) {
            return Some(name);
        }
        if whole {
            let message = format!("tenant `{name}` is not defined");
            row.wrong("tenant", message, "add a [[tenant]] with this name", &mut self.problems);
        }
        None
    }

    fn is_not_global(&mut self, row: &Row<'_>) {
        if let Extent::NamedTenants(_) = self.extent {
            let problems = &mut self.problems;
            row.wrong("name", "does not belong to one tenant", "apply the whole trust map to change it", problems);
        }
    }

    /// The trust map, when nothing is wrong.
    pub(super) fn finish(self) -> Result<TrustMap, Problems> {
        let Self {
            sources, extent, mut problems, tenants, partners, operators, verifiers, guardrails, library, ..
        } = self;
        let guardrails = guardrails.and_then(|found| found.value);
        let global = match extent {
            Extent::NamedTenants(global) => global.clone(),
            Extent::Whole => GlobalTrust {
                partners: values(partners),
                operators: values(operators),
                verifiers: values(verifiers),
                sets: guardrails.as_ref().map(|texts| library.sets(texts, Side::Guardrails)).unwrap_or_default(),
                guardrails,
                ..GlobalTrust::default()
            },
        };
        let tenants: BTreeMap<TenantName, TenantTrust> = tenants
            .into_iter()
            .map(|(name, draft)| {
                let place = draft.head.place;
                let trust = draft.finish(&name);
                if problems.is_empty() && trust.to_bytes().len() > TenantTrust::MAX_BYTES {
                    problems.push(problem_at(sources, place, "tenant", "is larger than 1 MiB", "split the tenant"));
                }
                (name, trust)
            })
            .collect();
        if problems.is_empty() && global.to_bytes().len() > TenantTrust::MAX_BYTES {
            let place = Place { document: 0, line: 0 };
            let message = "partners, operators, verifiers and guardrails together are larger than 1 MiB";
            problems.push(problem_at(sources, place, "partner", message, "remove some"));
        }
        match Problems::of(problems) {
            Some(problems) => Err(problems),
            None => Ok(TrustMap { global, tenants }),
        }
    }
}

impl Draft {
    fn finish(self, name: &TenantName) -> TenantTrust {
        let head = self.head.value.unwrap_or_default();
        let mut grants = values(self.grants);
        for grant in grants.values_mut() {
            grant.test |= head.test_environments.iter().any(|environment| environment.0 == grant.environment);
        }
        TenantTrust {
            name: name.clone(),
            dormant_after: head.dormant_after,
            accountability: values(self.accountability),
            issuer: head.issuer,
            token_algorithm: head.token_algorithm,
            max_live_leases: head.max_live_leases,
            workloads: values(self.workloads),
            grants,
            verifiers: values(self.verifiers),
            policy: head.policy,
            resource_classes: values(self.resource_classes),
            derived: Derived::default(),
            sets: head.sets,
        }
    }
}

/// A problem at a place that is known without its row.
pub(super) fn problem_at(
    sources: &[Source<'_>],
    place: Place,
    field: &str,
    message: impl Display,
    help: impl Display,
) -> Problem {
    Problem {
        path: sources.get(place.document).map_or("-", |source| source.path).to_owned(),
        line: place.line,
        field: field.to_owned(),
        message: message.to_string(),
        help: help.to_string(),
    }
}

/// The tables of one section.
pub(super) fn rows<'t>(
    noun: &'static str,
    source: &'t Source<'t>,
    document: &'t DeTable<'t>,
    problems: &mut Vec<Problem>,
) -> Vec<Row<'t>> {
    let Some(section) = document.get(noun) else { return Vec::new() };
    if let DeValue::Array(items) = section.get_ref() {
        return items.iter().filter_map(|item| Row::new(noun, item, source, None, problems)).collect();
    }
    let help = format!("write [[{noun}]], with two brackets");
    let place = source.place(section.span().start);
    problems.push(Problem {
        path: source.path.to_owned(),
        line: place.line,
        field: noun.to_owned(),
        message: format!("is a {}, not a list of tables", section.get_ref().type_str()),
        help,
    });
    Vec::new()
}

fn known_sections<'t>(source: &'t Source<'t>, document: &'t DeTable<'t>, problems: &mut Vec<Problem>) {
    let place = Place { document: source.document, line: 1 };
    Row { noun: "document", table: document, source, place, tenant: None }.only(&SECTIONS, problems);
}

fn define<K: Ord + Display, V>(
    sources: &[Source<'_>],
    names: &mut Names<K, V>,
    row: &Row<'_>,
    tenant: Option<&TenantName>,
    name: Option<K>,
    value: Option<V>,
    problems: &mut Vec<Problem>,
) {
    let Some(name) = name else { return };
    match names.get(&name) {
        Some(first) => twice(sources, row, &name, tenant, first.place, problems),
        None => {
            names.insert(name, Found { place: row.place, value });
        }
    }
}

fn twice(
    sources: &[Source<'_>],
    row: &Row<'_>,
    name: &impl Display,
    tenant: Option<&TenantName>,
    first: Place,
    problems: &mut Vec<Problem>,
) {
    let path = sources.get(first.document).map_or("-", |source| source.path);
    let of = tenant.map(|tenant| format!(" of tenant `{tenant}`")).unwrap_or_default();
    let message = format!("`{name}`{of} is defined twice, first at {path}:{}", first.line);
    row.wrong("name", message, format!("remove one, or {NAME_HELP}"), problems);
}

fn values<K: Ord, V>(names: Names<K, V>) -> BTreeMap<K, V> {
    names.into_iter().filter_map(|(name, found)| Some((name, found.value?))).collect()
}

const SECTIONS: [&str; 10] = [
    "tenant",
    "partner",
    "operator",
    "verifier",
    "workload",
    "grant",
    "accountability",
    "resource_class",
    "template",
    "guardrails",
];

//! The trust map: tenants, partners, grants, workloads, operators, and changes to them.

use crate::{
    cli::cell::{Fields, Record},
    pb,
};

use super::word;

impl Record for pb::Tenant {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("TENANT", "name"),
        ("GRANTS", "grants"),
        ("WORKLOADS", "workloads"),
        ("LIVE", "live_leases"),
        ("VERSION", "version"),
        ("ISSUER", "issuer"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("name", &self.name)
            .text("issuer", &self.issuer)
            .text("trust_domain", &self.trust_domain)
            .number("version", self.version)
            .hex("trust_hash", &self.trust_hash)
            .number("grants", self.grants)
            .number("workloads", self.workloads)
            .number("live_leases", self.live_leases)
    }
}

impl Record for pb::Partner {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("PARTNER", "name"), ("DISPLAY NAME", "display_name"), ("CONTACT", "contact")];

    fn fields(&self) -> Fields {
        Fields::new().text("name", &self.name).text("display_name", &self.display_name).text("contact", &self.contact)
    }
}

impl Record for pb::Grant {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("TENANT", "tenant"),
        ("GRANT", "name"),
        ("PARTNER", "partner"),
        ("KINDS", "kinds"),
        ("OWNER", "owner"),
        ("EXPIRES", "expires"),
        ("ATTEST BY", "attest_by"),
        ("LIVE", "live_leases"),
        ("STATE", "state"),
    ];

    fn fields(&self) -> Fields {
        let kinds: Vec<_> = self.kinds.iter().map(|kind| word::kind(*kind)).collect();
        Fields::new()
            .text("tenant", &self.tenant)
            .text("name", &self.name)
            .text("partner", &self.partner)
            .words("workloads", &self.workloads)
            .words("purposes", &self.purposes)
            .words("audiences", &self.audiences)
            .words("actions", &self.actions)
            .words("kinds", &kinds)
            .number("ttl_default_seconds", self.ttl_default_seconds)
            .number("ttl_max_seconds", self.ttl_max_seconds)
            .number("task_max_seconds", self.task_max_seconds)
            .text("owner", &self.owner)
            .time("expires", self.expires.as_ref())
            .words("revokers", &self.revokers)
            .time("attest_by", self.attest_by.as_ref())
            .text("environment", &self.environment)
            .flag("require_binding", self.require_binding)
            .words("sources", &self.sources)
            .words("secrets", &self.secrets)
            .words("dns_names", &self.dns_names)
            .number("max_live_leases", self.max_live_leases)
            .number("live_leases", self.live_leases)
            .text("state", &self.state)
            .text("max_renewals", &self.max_renewals.map(|most| most.to_string()).unwrap_or_default())
            .words("resource_classes", &self.resource_classes)
            .flag("workload_api", self.workload_api)
    }
}

impl Record for pb::Workload {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("TENANT", "tenant"), ("WORKLOAD", "name"), ("ENVIRONMENT", "environment"), ("PROVEN BY", "selectors")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("tenant", &self.tenant)
            .text("name", &self.name)
            .words("selectors", &self.selectors)
            .text("environment", &self.environment)
            .words("sources", &self.sources)
    }
}

impl Record for pb::Operator {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("OPERATOR", "name"),
        ("ROLE", "role"),
        ("TENANTS", "tenants"),
        ("PARTNERS", "partners"),
        ("SPIFFE ID", "spiffe_id"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("name", &self.name)
            .text("role", &self.role)
            .words("tenants", &self.tenants)
            .words("partners", &self.partners)
            .text("spiffe_id", &self.spiffe_id)
    }
}

impl Record for pb::TrustChange {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("CHANGE", "kind"), ("NOUN", "noun"), ("TENANT", "tenant"), ("NAME", "name"), ("DETAILS", "details")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("record", "change")
            .text("kind", &word::change(self.kind))
            .text("noun", &self.noun)
            .text("tenant", &self.tenant)
            .text("name", &self.name)
            .words("details", &self.details)
    }
}

impl Record for pb::Key {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("KEY", "key_id"),
        ("TENANT", "tenant"),
        ("USE", "use"),
        ("ALGORITHM", "algorithm"),
        ("STATE", "state"),
        ("SINCE", "state_since"),
        ("NEXT STEP", "next_step"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("key_id", &self.key_id)
            .text("tenant", &self.tenant)
            .text("use", &self.r#use)
            .text("algorithm", &self.algorithm)
            .text("state", &self.state)
            .time("created", self.created.as_ref())
            .time("state_since", self.state_since.as_ref())
            .time("next_step", self.next_step.as_ref())
    }
}

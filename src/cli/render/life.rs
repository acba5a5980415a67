//! The trust map's life: the inventory, ownership, edges, who can end what.

use crate::{
    cli::cell::{Fields, Record},
    model::id::hex,
    pb,
};

impl Record for pb::InventoryRecord {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("TENANT", "tenant"),
        ("GRANT", "name"),
        ("PARTNER", "partner"),
        ("OWNER", "owner"),
        ("PURPOSES", "purposes"),
        ("KINDS", "kinds"),
        ("EXPIRES", "expires"),
        ("ATTEST BY", "attest_by"),
        ("LAST USED", "last_used"),
        ("REVOKERS", "revokers"),
        ("STATE", "state"),
        ("SUSPENDED FOR", "suspended_for"),
    ];

    fn fields(&self) -> Fields {
        let grant = self.grant.clone().unwrap_or_default();
        let mut fields = grant.fields();
        fields = fields
            .text("owner_in_trust_map", &self.owner_in_trust_map)
            .time("attested", self.attested.as_ref())
            .number("attest_every_seconds", self.attest_every_seconds)
            .time("last_used", self.last_used.as_ref())
            .time("used_since", self.used_since.as_ref())
            .time("dormant_at", self.dormant_at.as_ref())
            .words("suspended_for", &self.suspended_for)
            .flag("test", self.test)
            .words("chain", &self.chain);
        fields.records("duties", self.duties.iter().map(Record::fields).collect())
    }
}

impl Record for pb::Duty {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("DUTY", "duty"), ("PARTY", "party"), ("WHO", "who"), ("CONTACT", "contact")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("duty", &self.duty)
            .text("party", &self.party)
            .text("who", &self.who)
            .text("contact", &self.contact)
    }
}

impl Record for pb::GrantPart {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("TENANT", "tenant"), ("GRANT", "grant"), ("PARTNER", "partner"), ("OWNER", "owner"), ("LIVE", "leases")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("tenant", &self.tenant)
            .text("grant", &self.grant)
            .text("partner", &self.partner)
            .text("owner", &self.owner)
            .number("leases", self.leases)
    }
}

impl Record for pb::LeaveOwnerResponse {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("GRANTS", "grant_count"), ("LEASES", "leases"), ("SUSPENDED", "suspended")];

    fn fields(&self) -> Fields {
        Fields::new()
            .revision("revision", self.revision.as_ref())
            .number("grant_count", self.grant_count)
            .number("leases", self.leases)
            .number("suspended", self.suspended)
            .flag("noted", self.noted)
            .records("grants", self.grants.iter().map(Record::fields).collect())
    }
}

impl Record for pb::ReturnOwnerResponse {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[("GRANTS", "grant_count"), ("CHANGED", "changed")];

    fn fields(&self) -> Fields {
        Fields::new()
            .revision("revision", self.revision.as_ref())
            .number("grant_count", self.grant_count)
            .flag("changed", self.changed)
            .flag("still_noted", self.still_noted)
            .records("grants", self.grants.iter().map(Record::fields).collect())
    }
}

impl Record for pb::DecommissionResponse {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("GRANTS", "grant_count"), ("LEASES", "leases"), ("TASKS", "tasks")];

    fn fields(&self) -> Fields {
        Fields::new()
            .revision("revision", self.revision.as_ref())
            .flag("changed", self.changed)
            .number("tenants", self.tenants)
            .number("grant_count", self.grant_count)
            .number("leases", self.leases)
            .number("tasks", self.tasks)
            .records("grants", self.grants.iter().map(Record::fields).collect())
            .records("exposure", self.exposure.iter().map(Record::fields).collect())
    }
}

impl Record for pb::TrustEdge {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("WORKLOAD", "workload"), ("GRANT", "grant"), ("AUDIENCE", "audience"), ("STATE", "state")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("tenant", &self.tenant)
            .text("partner", &self.partner)
            .text("workload", &self.workload)
            .text("grant", &self.grant)
            .text("audience", &self.audience)
            .text("owner", &self.owner)
            .text("environment", &self.environment)
            .text("state", &self.state)
            .text("trust_hash", &hex(&self.trust_hash))
            .words("chain", &self.chain)
    }
}

impl Record for pb::WhoCanRevokeResponse {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[("OWNER", "owner"), ("OTHERS", "others")];

    fn fields(&self) -> Fields {
        let entry =
            |entry: &pb::RevokerEntry| Fields::new().text("operator", &entry.operator).text("because", &entry.because);
        Fields::new()
            .text("owner", &self.owner)
            .records("revokers", self.revokers.iter().map(entry).collect())
            .number("others", self.others)
            .records("duties", self.duties.iter().map(Record::fields).collect())
    }
}

impl Record for pb::GetDriftResponse {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[("ISSUES", "issues"), ("UNUSED", "unused")];

    fn fields(&self) -> Fields {
        Fields::new()
            .number("issues", self.issues)
            .flag("truncated", self.truncated)
            .time("since", self.since.as_ref())
            .number("ttl_used_seconds", self.ttl_used_seconds)
            .words("unused", &self.unused)
            .text("proposal", &self.proposal)
    }
}

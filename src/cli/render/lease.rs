//! Tasks, leases and what is said about credentials.

use crate::{
    cli::cell::{Fields, Record},
    pb,
};

use super::word;

impl Record for pb::Task {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("TASK", "task_id"),
        ("TENANT", "tenant"),
        ("PARTNER", "partner"),
        ("PURPOSE", "purpose"),
        ("WORKLOAD", "workload"),
        ("STANDING", "standing"),
        ("WHY", "end_reason"),
        ("LEASES", "leases_issued"),
        ("DEADLINE", "deadline"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("task_id", &self.task_id)
            .text("tenant", &self.tenant)
            .text("partner", &self.partner)
            .text("purpose", &self.purpose)
            .text("workload", &self.workload)
            .text("parent_task_id", &self.parent_task_id)
            .time("opened", self.opened.as_ref())
            .time("deadline", self.deadline.as_ref())
            .text("standing", &word::standing(self.standing))
            .text("end_reason", &word::end_reason(self.end_reason))
            .time("ended", self.ended.as_ref())
            .flag("held", self.held)
            .number("leases_issued", self.leases_issued)
            .text("issuer", &self.issuer)
            .text("subject", &self.subject)
            .hex("token_sha256", &self.token_sha256)
            .text("task_type", &self.task_type)
            .words("parameters", &parameters(self))
            .hex("client_key_sha256", &self.client_key_sha256)
            .time("client_key_until", self.client_key_until.as_ref())
            .text("job_url", &self.job_url)
            .words("delegated_by", &self.delegated_by)
            .words("limits", &limits(self))
    }
}

fn limits(task: &pb::Task) -> Vec<String> {
    let Some(limits) = &task.limits else { return Vec::new() };
    let mut words: Vec<String> = limits.audiences.iter().map(|text| format!("audience={text}")).collect();
    words.extend(limits.actions.iter().map(|text| format!("action={text}")));
    words.extend(limits.kinds.iter().map(|kind| format!("kind={}", word::kind(*kind))));
    if limits.ttl_max_seconds > 0 {
        words.push(format!("ttl_max={}s", limits.ttl_max_seconds));
    }
    words
}

fn parameters(task: &pb::Task) -> Vec<String> {
    task.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

impl Record for pb::Lease {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("LEASE", "lease_id"),
        ("KIND", "kind"),
        ("TENANT", "tenant"),
        ("PARTNER", "partner"),
        ("GRANT", "grant"),
        ("WORKLOAD", "workload"),
        ("STANDING", "standing"),
        ("WHY", "end_reason"),
        ("EXPIRES", "expires"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("lease_id", &self.lease_id)
            .text("task_id", &self.task_id)
            .text("tenant", &self.tenant)
            .text("partner", &self.partner)
            .text("grant", &self.grant)
            .text("workload", &self.workload)
            .text("purpose", &self.purpose)
            .text("kind", &word::kind(self.kind))
            .words("audiences", &self.audiences)
            .words("actions", &self.actions)
            .time("issued", self.issued.as_ref())
            .time("expires", self.expires.as_ref())
            .text("standing", &word::standing(self.standing))
            .text("end_reason", &word::end_reason(self.end_reason))
            .time("ended", self.ended.as_ref())
            .revision("basis", self.basis.as_ref())
            .hex("credential_sha256", &self.credential_sha256)
            .text("key_id", &self.key_id)
            .hex("bound_sha256", &self.bound_sha256)
            .text("parent_lease_id", &self.parent_lease_id)
            .words("policies", &self.policies)
            .hex("policy_set", &self.policy_set)
            .number("renewals", self.renewals)
            .text("secret", &self.secret)
            .number("secret_version", self.secret_version)
            .time("pickup_until", self.pickup_until.as_ref())
            .words("delegated_by", &self.delegated_by)
    }
}

impl Record for pb::IntrospectResponse {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[("ACTIVE", "active"), ("SUBJECT", "subject")];

    fn fields(&self) -> Fields {
        Fields::new()
            .flag("active", self.active)
            .text("issuer", &self.issuer)
            .text("subject", &self.subject)
            .words("actors", &self.actors)
            .words("resellers", &self.resellers)
            .revision("revision", self.revision.as_ref())
            .record("lease", self.lease.as_ref().map(Record::fields))
    }
}

impl Record for pb::IdentifyResponse {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[("FORM", "form"), ("POSSESSION", "possession")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("form", &word::form(self.form))
            .flag("possession", self.possession)
            .record("lease", self.lease.as_ref().map(Record::fields))
            .record("issued", self.issued.as_ref().map(Record::fields))
            .record("secret", self.secret.as_ref().map(Record::fields))
            .number("secret_version", self.secret_version)
    }
}

impl Record for pb::ExplainResponse {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[("ALLOWED", "allowed"), ("REASON", "reason")];

    fn fields(&self) -> Fields {
        Fields::new()
            .flag("allowed", self.allowed)
            .text("reason", &self.reason)
            .text("grant", &self.grant)
            .number("ttl_seconds", self.ttl_seconds)
            .text("bound", &word::bound(self.bound))
            .words("steps", &self.steps)
    }
}

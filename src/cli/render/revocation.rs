//! Scopes, cuts, bars and how far their clean-up is.

use crate::{
    cli::cell::{Fields, Record},
    model::id::hex,
    pb,
};

use super::word;

/// The scope as one would write it on the command line, such as `grant acme/ci-deploy`.
#[must_use]
pub fn scope_text(scope: &pb::Scope) -> String {
    let digest = hex(&scope.proof_sha256);
    let parts = [
        &*scope.tenant,
        &scope.partner,
        &scope.grant,
        &scope.workload,
        &scope.task_id,
        &scope.lease_id,
        &digest,
        &scope.key_id,
        &scope.issuer,
        &scope.secret,
    ];
    let name: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let kind = match pb::ScopeKind::try_from(scope.kind) {
        Ok(pb::ScopeKind::PartnerInTenant) => "partner".to_owned(),
        Ok(pb::ScopeKind::SigningKey) => "key".to_owned(),
        Ok(
            pb::ScopeKind::Unspecified
            | pb::ScopeKind::Lease
            | pb::ScopeKind::Task
            | pb::ScopeKind::Grant
            | pb::ScopeKind::Workload
            | pb::ScopeKind::Proof
            | pb::ScopeKind::Partner
            | pb::ScopeKind::Tenant
            | pb::ScopeKind::Issuer
            | pb::ScopeKind::Secret
            | pb::ScopeKind::Everything,
        )
        | Err(_) => word::scope(scope.kind),
    };
    format!("{kind} {}", name.join("/")).trim().to_owned()
}

impl Record for pb::Scope {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("KIND", "kind"), ("TENANT", "tenant"), ("PARTNER", "partner")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("kind", &word::scope(self.kind))
            .text("tenant", &self.tenant)
            .text("partner", &self.partner)
            .text("grant", &self.grant)
            .text("workload", &self.workload)
            .text("secret", &self.secret)
            .text("task_id", &self.task_id)
            .text("lease_id", &self.lease_id)
            .hex("proof_sha256", &self.proof_sha256)
            .text("key_id", &self.key_id)
            .text("issuer", &self.issuer)
    }
}

impl Record for pb::RevokeResponse {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[("REVISION", "revision"), ("LEASES", "leases")];

    fn fields(&self) -> Fields {
        Fields::new()
            .revision("revision", self.revision.as_ref())
            .time("effective", self.effective.as_ref())
            .number("leases", self.leases)
            .number("tasks", self.tasks)
            .flag("changed", self.changed)
            .flag("barred", self.barred)
            .records("exposure", self.exposure.iter().map(Record::fields).collect())
            .records("sample", self.sample.iter().map(Record::fields).collect())
    }
}

impl Record for pb::Exposure {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("CHECKED BY", "checked_by"), ("USABLE UNTIL", "until"), ("EXPLANATION", "explanation")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("checked_by", &self.checked_by)
            .time("until", self.until.as_ref())
            .text("explanation", &self.explanation)
    }
}

impl Record for pb::RevocationStatus {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("REVISION", "revision"),
        ("SCOPE", "scope_text"),
        ("AT", "at"),
        ("BY", "operator"),
        ("WALKED", "leases_walked"),
        ("ENDED", "leases_ended"),
        ("DONE", "done"),
        ("REASON", "reason"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .revision("revision", self.revision.as_ref())
            .text("scope_text", &self.scope.as_ref().map(scope_text).unwrap_or_default())
            .record("scope", self.scope.as_ref().map(Record::fields))
            .text("reason", &self.reason)
            .text("operator", &self.operator)
            .time("at", self.at.as_ref())
            .number("leases_walked", self.leases_walked)
            .number("leases_ended", self.leases_ended)
            .flag("done", self.done)
            .time("covers_until", self.covers_until.as_ref())
    }
}

impl Record for pb::BarInForce {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("SCOPE", "scope_text"),
        ("SUSPENDS", "suspend"),
        ("CAUSE", "cause"),
        ("UNTIL", "until"),
        ("LAPSED", "lapsed"),
        ("AT", "at"),
        ("BY", "operator"),
        ("REVISION", "revision"),
        ("REASON", "reason"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("scope_text", &self.scope.as_ref().map(scope_text).unwrap_or_default())
            .record("scope", self.scope.as_ref().map(Record::fields))
            .flag("suspend", self.suspend)
            .text("cause", &self.cause)
            .time("until", self.until.as_ref())
            .flag("auto_lift", self.auto_lift)
            .time("lapsed", self.lapsed.as_ref())
            .text("reason", &self.reason)
            .text("operator", &self.operator)
            .time("at", self.at.as_ref())
            .revision("revision", self.revision.as_ref())
    }
}

impl Record for pb::RevocationEvent {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("KIND", "kind"), ("SCOPE ID", "scope_id"), ("REVISION", "revision")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("kind", &word::revocation(self.kind))
            .hex("scope_id", &self.scope_id)
            .revision("revision", self.revision.as_ref())
            .time("covers_until", self.covers_until.as_ref())
    }
}

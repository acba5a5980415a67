//! Audit events, checkpoints and findings.

use crate::{
    cli::cell::{Fields, Record},
    pb,
};

use super::word;

impl Record for pb::Event {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("AT", "at"),
        ("STREAM", "stream"),
        ("#", "sequence"),
        ("KIND", "kind"),
        ("DECISION", "decision"),
        ("ACTOR", "actor"),
        ("LEASE", "lease_id"),
        ("REASON", "reason"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("record", "event")
            .text("stream", &self.stream)
            .number("sequence", self.sequence)
            .revision("revision", self.revision.as_ref())
            .time("at", self.at.as_ref())
            .text("kind", &self.kind)
            .text("decision", &self.decision)
            .text("actor", &self.actor)
            .text("proof", &self.proof)
            .text("source", &self.source)
            .text("tenant", &self.tenant)
            .text("partner", &self.partner)
            .text("workload", &self.workload)
            .text("grant", &self.grant)
            .text("task_id", &self.task_id)
            .text("lease_id", &self.lease_id)
            .text("purpose", &self.purpose)
            .words("audiences", &self.audiences)
            .text("credential_sha256", &self.credential_sha256)
            .text("credential_kind", &word::kind(self.credential_kind))
            .time("expires", self.expires.as_ref())
            .text("trust_hash", &self.trust_hash)
            .text("reason", &self.reason)
            .words("details", &self.details)
            .words("policies", &self.policies)
            .text("policy_set", &self.policy_set)
            .hex("hash", &self.hash)
            .hex("previous_hash", &self.previous_hash)
    }
}

impl Record for pb::Checkpoint {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[("#", "number"), ("AT", "at"), ("KEY", "key_id")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("record", "checkpoint")
            .number("number", self.number)
            .time("at", self.at.as_ref())
            .revision("revision", self.revision.as_ref())
            .records("heads", self.heads.iter().map(Record::fields).collect())
            .hex("merkle_root", &self.merkle_root)
            .hex("previous_hash", &self.previous_hash)
            .hex("hash", &self.hash)
            .hex("signature", &self.signature)
            .text("key_id", &self.key_id)
            .hex("public_key", &self.public_key)
    }
}

impl Record for pb::StreamHead {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[("STREAM", "stream"), ("#", "sequence")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("stream", &self.stream)
            .number("sequence", self.sequence)
            .hex("hash", &self.hash)
            .number("first_sequence", self.first_sequence)
    }
}

impl Record for pb::AuditFinding {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("FINDING", "kind"), ("STREAM", "stream"), ("#", "sequence"), ("EXPLANATION", "explanation")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("record", "finding")
            .text("kind", &self.kind)
            .text("stream", &self.stream)
            .number("sequence", self.sequence)
            .text("explanation", &self.explanation)
    }
}

impl Record for pb::VerifyEventsResponse {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("STREAMS", "streams"), ("EVENTS", "events"), ("CHECKPOINTS", "checkpoints")];

    fn fields(&self) -> Fields {
        Fields::new()
            .number("streams", self.streams)
            .number("events", self.events)
            .number("checkpoints", self.checkpoints)
            .records("findings", self.findings.iter().map(Record::fields).collect())
    }
}

//! Laws of JSON and of tables, for every record.

use crate::{cli::cell::Record, pb};

use super::{revocation::scope_text, word};

/// Every heading names a field, names do not repeat, and a record without anything set has them all.
fn check<R: Record + Default>() {
    let json: serde_json::Value = serde_json::from_str(&R::default().fields().json()).expect("JSON");
    let object = json.as_object().expect("object");
    for (heading, field) in R::COLUMNS {
        assert!(object.contains_key(*field), "{heading}");
        assert_eq!(*heading, heading.to_uppercase());
    }
    assert_eq!(R::default().fields().names().len(), object.len(), "a name repeats");
}

#[test]
fn every_heading_names_a_field_that_is_always_there() {
    check::<pb::Task>();
    check::<pb::Lease>();
    check::<pb::IntrospectResponse>();
    check::<pb::IdentifyResponse>();
    check::<pb::ExplainResponse>();
    check::<pb::Tenant>();
    check::<pb::Partner>();
    check::<pb::Grant>();
    check::<pb::Workload>();
    check::<pb::Operator>();
    check::<pb::TrustChange>();
    check::<pb::Key>();
    check::<pb::Scope>();
    check::<pb::RevokeResponse>();
    check::<pb::Exposure>();
    check::<pb::RevocationStatus>();
    check::<pb::BarInForce>();
    check::<pb::RevocationEvent>();
    check::<pb::Event>();
    check::<pb::Checkpoint>();
    check::<pb::StreamHead>();
    check::<pb::AuditFinding>();
    check::<pb::VerifyEventsResponse>();
    check::<pb::GetStatusResponse>();
    check::<pb::SinkStatus>();
    check::<pb::Approval>();
    check::<pb::PolicyDifference>();
}

#[test]
fn a_lease_in_json_has_words_hex_and_rfc3339_times() {
    let lease = pb::Lease {
        kind: pb::CredentialKind::X509.into(),
        standing: pb::Standing::Ended.into(),
        end_reason: pb::EndReason::Revoked.into(),
        expires: Some(prost_types::Timestamp { seconds: 1_763_000_000, nanos: 0 }),
        basis: Some(pb::Revision { incarnation: 0xfeed_0000_0000_0001, number: 7 }),
        credential_sha256: vec![0xab; 32],
        ..pb::Lease::default()
    };
    let json: serde_json::Value = serde_json::from_str(&lease.fields().json()).expect("JSON");
    assert_eq!(json["kind"], "x509");
    assert_eq!((&json["standing"], &json["end_reason"]), (&"ended".into(), &"revoked".into()));
    assert_eq!(json["expires"], "2025-11-13T02:13:20Z");
    assert_eq!(json["basis"], "feed000000000001:7");
    assert_eq!(json["credential_sha256"], "ab".repeat(32));
    assert!(json["issued"].is_null() && json["bound_sha256"].is_null());
}

#[test]
fn a_word_from_a_newer_broker_keeps_its_number() {
    assert_eq!(word::standing(99), "unknown_99");
    assert_eq!(word::standing(0), "");
    assert_eq!(word::scope(pb::ScopeKind::PartnerInTenant.into()), "partner_in_tenant");
}

#[test]
fn a_scope_is_shown_as_it_is_written() {
    let scope = pb::Scope {
        kind: pb::ScopeKind::Grant.into(),
        tenant: "acme".into(),
        grant: "ci".into(),
        ..pb::Scope::default()
    };
    assert_eq!(scope_text(&scope), "grant acme/ci");
    let everything = pb::Scope { kind: pb::ScopeKind::Everything.into(), ..pb::Scope::default() };
    assert_eq!(scope_text(&everything), "everything");
}

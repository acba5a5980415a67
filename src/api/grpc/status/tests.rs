use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    model::{ApprovalStanding, CredentialKind, Digest, EndReason, Scope, TenantName, Timestamp},
    policy::{self, Bound, Document, Extent, PolicyAction, PolicyRefusal, RefusedBy},
};

fn denials() -> Vec<Denied> {
    let name = |text: &str| text.parse().expect("name");
    let (asked, max, at) = (9, 5, Timestamp::from_seconds(9));
    let text = || "x".to_owned();
    vec![
        Denied::UnknownWorkload,
        Denied::AmbiguousWorkload,
        Denied::PartnerNotGranted("p".parse().expect("name")),
        Denied::UnknownGrant(name("g")),
        Denied::WorkloadNotGranted { grant: name("g"), workload: "w".parse().expect("name") },
        Denied::EnvironmentMismatch { grant: name("g"), granted: text(), actual: text() },
        Denied::SourceNotGranted { grant: name("g") },
        Denied::PurposeNotGranted("sync".parse().expect("name")),
        Denied::KindNotGranted { grant: name("g"), kind: CredentialKind::Jwt },
        Denied::AudienceRequired,
        Denied::AudienceNotGranted { grant: name("g"), audience: text() },
        Denied::ActionNotGranted { grant: name("g"), action: text() },
        Denied::DnsNamesNotForKind { kind: CredentialKind::Jwt },
        Denied::DnsNameNotGranted { grant: name("g"), dns_name: text() },
        Denied::SecretNotGranted { grant: name("g"), secret: "s".parse().expect("name") },
        Denied::GrantExpired { grant: name("g"), at },
        Denied::AttestationOverdue { grant: name("g"), at },
        Denied::GrantDormant { grant: name("g"), at },
        Denied::ApprovalNeeded { grant: name("g"), purpose: "sync".parse().expect("name"), needed: 2 },
        Denied::TtlTooLong { grant: name("g"), asked, max },
        Denied::RenewalsUsedUp { grant: name("g"), max },
        Denied::BindingNotForKind,
        Denied::BindingRequired(name("g")),
        Denied::CertificateRequired,
        Denied::LifetimeTooShort(Bound::TaskDeadline),
        Denied::GrantAmbiguous(name("g"), name("h")),
        Denied::BeyondTask { what: "action", value: text() },
        Denied::TaskTooLong { asked, max },
        Denied::ParentEndsSooner(at),
        Denied::ProofEndsSooner(at),
        policy(RefusedBy::Policy),
        policy(RefusedBy::Error),
        policy(RefusedBy::Unreadable),
    ]
}

fn policy(by: RefusedBy) -> Denied {
    Denied::Policy(Box::new(PolicyRefusal {
        by,
        action: PolicyAction::IssueToken,
        grant: None,
        audience: String::new(),
        policies: vec!["no-debug".into()],
        errors: vec!["a value".into()],
        set: Digest::default(),
        shadow: Vec::new(),
    }))
}

#[test]
fn a_refusal_by_policy_tells_the_caller_neither_policy_nor_value() {
    for by in [RefusedBy::Policy, RefusedBy::Error, RefusedBy::Unreadable] {
        let status = of(&Refusal::Denied(policy(by)));
        let told = format!("{status:?} {:?}", status.get_error_details());
        assert!(!told.contains("no-debug") && !told.contains("a value"), "{told}");
    }
}

fn problems(count: usize) -> Problems {
    let text = "[[grant]]\n".repeat(count);
    let documents = [Document { path: "a.toml", text: &text }];
    policy::parse(&documents, Extent::Whole, Timestamp::from_seconds(9)).expect_err("problems")
}

fn refusals() -> Vec<Refusal> {
    let tenant: TenantName = "acme".parse().expect("name");
    let mut all: Vec<Refusal> = denials().into_iter().map(Refusal::Denied).collect();
    all.extend([
        Refusal::Barred(Scope::Tenant(tenant).id()),
        Refusal::Ended { what: "task", why: EndReason::Revoked },
        Refusal::Ended { what: "lease", why: EndReason::Revoked },
        Refusal::fault("disk on fire"),
        Refusal::Held("the clock jumped"),
        Refusal::Identity(IdentityRefusal::Refused),
        Refusal::Identity(IdentityRefusal::Expired),
        Refusal::Identity(IdentityRefusal::Unavailable),
        Refusal::Identity(IdentityRefusal::KeyRequired),
        Refusal::Identity(IdentityRefusal::Spent),
        Refusal::Identity(IdentityRefusal::Opened),
        Refusal::Identity(IdentityRefusal::NotMapped),
        Refusal::Identity(IdentityRefusal::NotProvisioned),
        Refusal::Identity(IdentityRefusal::Closed),
        Refusal::invalid("ttl_seconds", "is 0; give at least 1"),
        Refusal::NotAllowed("auditors may look"),
        Refusal::Unavailable("the store failed"),
        Refusal::Problems(problems(1)),
        Refusal::Quota("tenant"),
        Refusal::Busy { retry_ms: 50 },
        Refusal::Approval(ApprovalStanding::Open),
        Refusal::Approval(ApprovalStanding::Expired),
        Refusal::RetryMismatch,
        Refusal::PickedUp,
        Refusal::SecretUnavailable("s".parse().expect("name")),
        Refusal::RevisionGone,
        Refusal::Suspended("task"),
        Refusal::Unknown("lease"),
        Refusal::Unproven("show a client certificate"),
    ]);
    all
}

/// Reasons and codes of docs/errors.md.
fn documented() -> BTreeMap<String, String> {
    let text = include_str!("../../../../docs/errors.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(cells.len() == 6 && !cells[3].is_empty() && !cells[4].is_empty(), "{row}");
        (cells[1].trim_matches('`').to_owned(), cells[2].to_owned())
    })
    .collect()
}

/// The texts after `=>` that look like a reason, in the sources that choose reasons.
fn chosen() -> BTreeSet<String> {
    let sources = [
        include_str!("../../../broker/federate.rs"),
        include_str!("../../../broker/refusal.rs"),
        include_str!("../../../policy/denied.rs"),
    ];
    let quoted = sources.iter().flat_map(|text| text.lines()).filter_map(|line| line.split("=> \"").nth(1));
    let words = quoted.filter_map(|rest| rest.split('"').next());
    words.filter(|word| word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')).map(str::to_owned).collect()
}

#[test]
fn every_reason_is_documented_with_its_code() {
    let documented = documented();
    let samples: BTreeSet<String> = refusals().iter().map(|refusal| refusal.reason().to_owned()).collect();
    assert_eq!(samples, chosen(), "a reason without a sample here");
    assert_eq!(documented.keys().cloned().collect::<BTreeSet<_>>(), samples);
    for refusal in refusals() {
        let code = format!("{:?}", code(&refusal));
        let documented = documented[refusal.reason()].to_lowercase().replace('_', "");
        assert_eq!(documented, code.to_lowercase(), "{}", refusal.reason());
    }
}

#[test]
fn every_status_carries_domain_and_reason_and_fits_a_header() {
    for refusal in refusals() {
        let status = of(&refusal);
        let info = status.get_details_error_info().expect("error info");
        assert_eq!(info.domain, "mayfly");
        assert_eq!(info.reason, reason(&refusal));
        assert!(status.details().len() < 6_000 && !status.message().is_empty());
    }
}

#[test]
fn unknown_and_ambiguous_workloads_read_the_same() {
    let [unknown, ambiguous] = [Denied::UnknownWorkload, Denied::AmbiguousWorkload].map(|d| of(&Refusal::Denied(d)));
    let parts = |status: &Status| (status.code(), status.message().to_owned(), status.details().to_vec());
    assert_eq!(parts(&unknown), parts(&ambiguous));
    let [lease, task] = ["lease", "lease or task"].map(|what| of(&Refusal::Unknown(what)));
    assert_eq!(parts(&lease), parts(&task));
}

#[test]
fn a_fault_is_not_told() {
    let status = of(&Refusal::fault("disk on fire"));
    assert_eq!((status.code(), status.message()), (Code::Internal, "internal error"));
    assert!(!String::from_utf8_lossy(status.details()).contains("fire"));
}

#[test]
fn a_denial_names_its_grant_and_a_field_its_violation() {
    let denied = of(&Refusal::Denied(Denied::UnknownGrant("g".parse().expect("name"))));
    assert_eq!(denied.get_details_error_info().expect("info").metadata["grant"], "g");
    let invalid = of(&Refusal::invalid("ttl_seconds", "is 0"));
    let violations = invalid.get_details_bad_request().expect("bad request").field_violations;
    assert_eq!((violations[0].field.as_str(), violations[0].description.as_str()), ("ttl_seconds", "is 0"));
    let busy = of(&Refusal::Busy { retry_ms: 70 });
    let delay = busy.get_details_retry_info().expect("retry info").retry_delay;
    assert_eq!(delay, Some(Duration::from_millis(70)));
}

#[test]
fn problems_name_their_place_and_more_than_a_header_holds_are_counted() {
    let few = of(&Refusal::Problems(problems(1)));
    let violations = few.get_details_bad_request().expect("bad request").field_violations;
    assert!(violations.iter().all(|violation| violation.description.starts_with("a.toml:")), "{violations:?}");
    let many = of(&Refusal::Problems(problems(2_000)));
    assert!(many.details().len() < 6_000, "{}", many.details().len());
    assert!(many.message().contains("these are the first"), "{}", many.message());
}

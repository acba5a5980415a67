//! Approvals and velocity in trust files and decisions.

use std::time::Duration;

use super::{BASE, grant, map, now, problems, tenant};
use crate::{
    model::{CredentialKind, GrantName, Timestamp},
    policy::{
        Asked, BindingWish, Bound, ChangeKind, Decision, Denied, Facts, Origin, Scene, TaskAsked, TaskFacts,
        TenantTrust, decide, decide_task, diff_tenant,
    },
};

const NEED: &str = "purposes = [\"deploy\"]\napprovals = { needed = 1, by = [\"alice\"], valid_seconds = 60, purposes = [\"deploy\"] }";

fn trust(more: &str) -> TenantTrust {
    tenant(&map(&format!("{BASE}{}", grant("g", more))), "acme")
}

fn decided(trust: &TenantTrust, approved: &[(GrantName, Timestamp)]) -> Result<Decision, Denied> {
    let asked = Asked {
        workload: &"ci".parse().expect("a name"),
        partner: &"payco".parse().expect("a name"),
        purpose: &"deploy".parse().expect("a name"),
        grant: None,
        kind: CredentialKind::Jwt,
        audiences: &["https://api.test".to_owned()],
        actions: &[],
        dns_names: &[],
        ttl_seconds: 0,
        binding: BindingWish::Default,
    };
    let facts = Facts {
        basis: (1, 2),
        task_deadline: None,
        proof_expires: None,
        issuer_expires: None,
        has_certificate: true,
        attest_by: &|_| None,
        proofs: vec![],
        origin: Origin::Unknown,
        approved,
        scene: Scene::default(),
    };
    decide(trust, &asked, &facts, now())
}

fn opened(trust: &TenantTrust, approved: &[(GrantName, Timestamp)]) -> Result<(), &'static str> {
    let asked = TaskAsked {
        workload: &"ci".parse().expect("a name"),
        partner: &"payco".parse().expect("a name"),
        purpose: &"deploy".parse().expect("a name"),
        deadline_seconds: 0,
    };
    let (proofs, origin, scene) = (vec![], Origin::Local, Scene::default());
    let facts =
        TaskFacts { basis: (1, 2), parent_deadline: None, attest_by: &|_| None, proofs, origin, approved, scene };
    decide_task(trust, &asked, &facts, now()).map(drop).map_err(|why| why.reason())
}

#[test]
fn a_grant_that_needs_approvals_is_decided_with_one_and_no_longer_than_it() {
    let trust = trust(NEED);
    let name = |name: &str| name.parse::<GrantName>().expect("a name");
    let until = now().after(Duration::from_secs(30));
    assert_eq!(decided(&trust, &[]).map(drop).map_err(|why| why.reason()), Err("APPROVAL_NEEDED"));
    assert_eq!(decided(&trust, &[(name("other"), until)]).expect_err("another grant's").reason(), "APPROVAL_NEEDED");
    let decision = decided(&trust, &[(name("g"), until)]).expect("approved");
    assert!(decision.needs_approval());
    assert_eq!((decision.expires(), decision.bound_by()), (until, Bound::Approval));
    let over = decided(&trust, &[(name("g"), now())]).expect_err("over");
    assert_eq!(over, Denied::LifetimeTooShort(Bound::Approval));
    assert_eq!(opened(&trust, &[]), Err("APPROVAL_NEEDED"));
    assert_eq!(opened(&trust, &[(name("g"), until)]), Ok(()));
}

#[test]
fn a_purpose_that_is_not_named_needs_no_approval() {
    let more = NEED.replace("[\"deploy\"]\n", "[\"deploy\", \"glass\"]\n").replace("[\"deploy\"] }", "[\"glass\"] }");
    let trust = trust(&more);
    assert!(!decided(&trust, &[]).expect("decided").needs_approval());
    assert_eq!(opened(&trust, &[]), Ok(()));
    // One that stands for another purpose does not end it sooner.
    let soon = [("g".parse().expect("a name"), now().after(Duration::from_secs(30)))];
    assert_eq!(decided(&trust, &soon).expect("decided").bound_by(), Bound::GrantDefault);
    assert!(decided(&trust, &[("g".parse().expect("a name"), now())]).is_ok());
}

#[test]
fn approvals_that_nobody_could_give_are_refused_when_they_are_applied() {
    for (bad, told) in [
        ("approvals = { needed = 0, by = [\"alice\"] }", "needed"),
        ("approvals = { needed = 2, by = [\"alice\"] }", "needs 2 approvals of 1 operator(s)"),
        ("approvals = { needed = 2, by = [\"alice\", \"alice\"] }", "needs 2 approvals of 1 operator(s)"),
        ("approvals = { needed = 1, by = [] }", "is empty"),
        ("approvals = { needed = 1, by = [\"nobody\"] }", "operator `nobody` is not defined"),
        ("approvals = { needed = 1, by = [\"alice\"], valid_seconds = 86401 }", "not within its limits"),
        (
            "purposes = [\"deploy\"]\napprovals = { needed = 1, by = [\"alice\"], purposes = [\"glass\"] }",
            "which the grant is not for",
        ),
        ("approvals = { needed = 1, by = [\"alice\"], need = 1 }", "is not known"),
        ("velocity = { derivations = 0 }", "not within its limits"),
        ("velocity = { resources = 65 }", "not within its limits"),
        ("velocity = { speed = 1 }", "is not known"),
    ] {
        let text = format!("{BASE}{}", grant("g", bad));
        let problems = problems(&text).join("\n");
        assert!(problems.contains(told), "{bad}: {problems}");
    }
}

#[test]
fn demanding_more_takes_and_demanding_less_gives_and_limits_end_nothing() {
    let kind = |old: &str, new: &str| {
        let (old, new) = (trust(old), trust(new));
        diff_tenant(Some(&old), Some(&new)).first().map(|change| change.kind)
    };
    let two = NEED.replace("valid_seconds = 60", "valid_seconds = 90");
    assert_eq!(kind("", NEED), Some(ChangeKind::Narrowed));
    assert_eq!(kind(NEED, ""), Some(ChangeKind::Widened));
    assert_eq!(kind(NEED, &two), Some(ChangeKind::Edited));
    assert_eq!(kind(NEED, NEED), None);
    assert_eq!(kind("", "velocity = { derivations = 3 }"), Some(ChangeKind::Edited));
    assert_eq!(kind("velocity = { derivations = 3 }", "velocity = { derivations = 4 }"), Some(ChangeKind::Widened));
    assert_eq!(kind("velocity = { derivations = 3 }", ""), Some(ChangeKind::Widened));
}

#[test]
fn what_is_agreed_to_is_what_the_grant_gives_and_demands() {
    let terms = |more: &str| trust(more).grants().values().next().expect("a grant").terms();
    assert_eq!(terms(NEED), terms(&format!("{NEED}\nowner = \"other\"\nattest_by = 2026-12-01")));
    assert_eq!(terms(NEED), terms(&format!("{NEED}\nvelocity = {{ derivations = 3 }}")));
    for more in ["ttl_max = 599", "audiences = [\"https://api.test\"]", "require_binding = false", "kinds = [\"jwt\"]"]
    {
        assert_ne!(terms(NEED), terms(&format!("{NEED}\n{more}")), "{more}");
    }
    assert_ne!(terms(NEED), terms(&NEED.replace("60", "61")));
}

#[test]
fn a_grant_without_demands_is_spelt_as_before() {
    let bytes = String::from_utf8(trust("").to_bytes()).expect("JSON");
    assert!(!bytes.contains("approvals") && !bytes.contains("velocity"), "{bytes}");
    let full = trust(&format!("{NEED}\nvelocity = {{ derivations = 3 }}"));
    assert_eq!(TenantTrust::from_bytes(&full.to_bytes()).expect("reads"), full);
}

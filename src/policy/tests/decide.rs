use std::time::Duration;

use proptest::prelude::*;

use crate::{
    model::{CredentialKind, GrantName, Scope, Timestamp},
    policy::{
        Asked, BindingWish, Bound, Decision, Denied, Facts, Origin, Scene, TaskAsked, TaskDecision, TaskFacts,
        TenantTrust, decide, decide_task, explain,
    },
};

use super::{BASE, grant, map, now, tenant};

/// One request in words; the fields of the default fit the grant of [`trust`].
#[derive(Clone)]
struct Ask {
    workload: &'static str,
    partner: &'static str,
    purpose: &'static str,
    grant: Option<&'static str>,
    kind: CredentialKind,
    audiences: Vec<String>,
    actions: Vec<String>,
    dns_names: Vec<String>,
    ttl: u32,
    binding: BindingWish,
    certificate: bool,
    at: Timestamp,
    task: Option<Timestamp>,
    proof: Option<Timestamp>,
    issuer: Option<Timestamp>,
    attested: Option<Timestamp>,
    origin: Origin,
}

fn fitting() -> Ask {
    Ask {
        workload: "ci",
        partner: "payco",
        purpose: "deploy",
        grant: None,
        kind: CredentialKind::Jwt,
        audiences: vec!["https://api.test".into()],
        actions: vec!["read".into()],
        dns_names: vec![],
        ttl: 0,
        binding: BindingWish::Default,
        certificate: true,
        at: now(),
        task: None,
        proof: None,
        issuer: None,
        attested: None,
        origin: Origin::Unknown,
    }
}

impl Ask {
    fn with<R>(&self, run: impl FnOnce(&Asked<'_>, &Facts<'_>) -> R) -> R {
        let name: Option<GrantName> = self.grant.map(|name| name.parse().expect("a name"));
        let attested = |_: &GrantName| self.attested;
        let asked = Asked {
            workload: &self.workload.parse().expect("a name"),
            partner: &self.partner.parse().expect("a name"),
            purpose: &self.purpose.parse().expect("a name"),
            grant: name.as_ref(),
            kind: self.kind,
            audiences: &self.audiences,
            actions: &self.actions,
            dns_names: &self.dns_names,
            ttl_seconds: self.ttl,
            binding: self.binding,
        };
        let facts = Facts {
            basis: (1, 2),
            task_deadline: self.task,
            proof_expires: self.proof,
            issuer_expires: self.issuer,
            has_certificate: self.certificate,
            attest_by: &attested,
            proofs: vec![Scope::Everything.id()],
            origin: self.origin,
            approved: &[],
            scene: Scene::default(),
        };
        run(&asked, &facts)
    }

    fn decide(&self, trust: &TenantTrust) -> Result<Decision, Denied> {
        self.with(|asked, facts| decide(trust, asked, facts, self.at))
    }
}

fn trust(more: &str) -> TenantTrust {
    tenant(&map(&format!("{BASE}{}", grant("g", more))), "acme")
}

fn later(seconds: u64) -> Timestamp {
    now().after(Duration::from_secs(seconds))
}

#[test]
fn what_fits_is_decided_as_asked() {
    let mut ask = fitting();
    ask.audiences = vec!["https://api.test/orders/7".into(), "https://api.test".into(), "https://api.test".into()];
    let trust = trust("");
    let decision = ask.decide(&trust).expect("fits");
    assert_eq!(decision.audiences(), ["https://api.test", "https://api.test/orders/7"]);
    assert_eq!((decision.grant().as_str(), decision.bind(), decision.basis()), ("g", true, (1, 2)));
    assert_eq!((decision.expires(), decision.bound_by()), (later(300), Bound::GrantDefault));
    assert_eq!((decision.trust_hash(), decision.ruling()), (trust.hash(), None));
    let task = TaskDecision::with_lease(&decision);
    assert_eq!((task.deadline(), task.workload().as_str()), (later(300), "ci"));
}

#[test]
fn every_misfit_is_refused_with_its_own_reason() {
    type Edit = fn(&mut Ask);
    let table: [(&str, Edit); 23] = [
        ("UNKNOWN_WORKLOAD", |a| a.workload = "nobody"),
        ("WORKLOAD_NOT_GRANTED", |a| a.workload = "lab"),
        ("PARTNER_NOT_GRANTED", |a| a.partner = "other"),
        ("UNKNOWN_GRANT", |a| a.grant = Some("h")),
        ("PURPOSE_NOT_GRANTED", |a| a.purpose = "scan"),
        ("PURPOSE_NOT_GRANTED", |a| (a.purpose, a.grant) = ("scan", Some("g"))),
        ("KIND_NOT_GRANTED", |a| a.kind = CredentialKind::Opaque),
        ("AUDIENCE_REQUIRED", |a| a.audiences.clear()),
        ("AUDIENCE_NOT_GRANTED", |a| a.audiences.push("https://api.test/orders/../x".into())),
        ("ACTION_NOT_GRANTED", |a| a.actions.push("delete".into())),
        ("DNS_NAMES_NOT_FOR_KIND", |a| a.dns_names.push("ci.acme.test".into())),
        ("DNS_NAME_NOT_GRANTED", |a| (a.kind, a.dns_names) = (CredentialKind::X509, vec!["x.test".into()])),
        ("GRANT_EXPIRED", |a| a.at = Timestamp::parse_rfc3339("2027-01-01T00:00:00Z").expect("a time")),
        ("ATTESTATION_OVERDUE", |a| a.at = Timestamp::parse_rfc3339("2026-12-15T00:00:00Z").expect("a time")),
        ("ATTESTATION_OVERDUE", |a| a.attested = Some(a.at)),
        ("TTL_TOO_LONG", |a| a.ttl = 601),
        ("BINDING_REQUIRED", |a| a.certificate = false),
        ("BINDING_REQUIRED", |a| a.binding = BindingWish::None),
        ("CERTIFICATE_REQUIRED", |a| (a.certificate, a.binding) = (false, BindingWish::Certificate)),
        ("BINDING_NOT_FOR_KIND", |a| (a.kind, a.binding) = (CredentialKind::X509, BindingWish::None)),
        ("LIFETIME_TOO_SHORT", |a| a.task = Some(a.at)),
        ("LIFETIME_TOO_SHORT", |a| a.proof = Some(a.at.after(Duration::from_millis(999)))),
        ("LIFETIME_TOO_SHORT", |a| a.issuer = Some(Timestamp::from_millis(0))),
    ];
    let trust = trust("");
    for (reason, edit) in table {
        let mut ask = fitting();
        edit(&mut ask);
        let denied = ask.decide(&trust).expect_err(reason);
        assert_eq!(denied.reason(), reason, "{denied}");
        assert_eq!(denied.is_for_the_caller(), reason != "UNKNOWN_WORKLOAD");
        let steps = ask.with(|asked, facts| explain(&trust, asked, facts, ask.at));
        assert!(steps.last().is_some_and(|last| last.starts_with(&format!("refused {reason}"))), "{steps:?}");
    }
}

#[test]
fn a_grant_of_another_environment_is_refused_even_if_it_names_the_workload() {
    let mut trust = trust("");
    let name: GrantName = "g".parse().expect("a name");
    trust.grants.get_mut(&name).expect("there").environment = "staging".into();
    assert_eq!(fitting().decide(&trust).expect_err("refused").reason(), "ENVIRONMENT_MISMATCH");
}

#[test]
fn the_earliest_limit_decides_the_end_and_is_named() {
    let trust = trust("ttl_default = 120");
    type Edit = fn(&mut Ask);
    let table: [(Bound, u64, Edit); 6] = [
        (Bound::GrantDefault, 120, |_| {}),
        (Bound::Requested, 600, |a| a.ttl = 600),
        (Bound::TaskDeadline, 60, |a| a.task = Some(later(60))),
        (Bound::CallerProof, 50, |a| (a.task, a.proof) = (Some(later(60)), Some(later(50)))),
        (Bound::IssuerCertificate, 40, |a| (a.proof, a.issuer) = (Some(later(50)), Some(later(40)))),
        (Bound::GrantDefault, 120, |a| a.proof = Some(later(120))),
    ];
    for (bound, seconds, edit) in table {
        let mut ask = fitting();
        edit(&mut ask);
        let decision = ask.decide(&trust).expect("fits");
        assert_eq!((decision.bound_by(), decision.expires()), (bound, later(seconds)));
    }
    let mut ask = fitting();
    ask.at = Timestamp::parse_rfc3339("2026-12-31T23:59:30Z").expect("a time");
    ask.attested = Timestamp::parse_rfc3339("2027-01-01T00:00:00Z");
    assert_eq!(ask.decide(&trust).expect("fits").bound_by(), Bound::GrantExpiry);
}

#[test]
fn a_life_of_one_second_is_given_whatever_the_fraction_of_the_second() {
    let trust = trust("");
    for millis in [0, 1, 500, 999] {
        let mut ask = fitting();
        (ask.ttl, ask.at) = (1, now().after(Duration::from_millis(millis)));
        assert_eq!(ask.decide(&trust).expect("fits").expires(), later(1));
    }
}

#[test]
fn two_grants_that_fit_are_ambiguous_until_one_is_named_and_the_closest_misfit_is_told() {
    let text = format!("{BASE}{}{}", grant("g", ""), grant("h", "kinds = [\"jwt\"]"));
    let trust = tenant(&map(&text), "acme");
    let mut ask = fitting();
    assert_eq!(ask.decide(&trust).expect_err("two").reason(), "GRANT_AMBIGUOUS");
    ask.grant = Some("h");
    assert_eq!(ask.decide(&trust).expect("one").grant().as_str(), "h");
    (ask.grant, ask.kind) = (None, CredentialKind::X509);
    assert_eq!(ask.decide(&trust).expect("one").grant().as_str(), "g");
    ask.ttl = 601;
    assert_eq!(ask.decide(&trust).expect_err("too long").reason(), "TTL_TOO_LONG");
    // Of two that come equally close it is the first by name.
    (ask.ttl, ask.kind) = (0, CredentialKind::Opaque);
    let first = Denied::KindNotGranted { grant: "g".parse().expect("a name"), kind: CredentialKind::Opaque };
    assert_eq!(ask.decide(&trust).expect_err("neither"), first);
}

#[test]
fn a_grant_that_is_named_is_still_for_its_own_partner_alone() {
    let trust = tenant(&map(&format!("{BASE}{}{}", grant("g", ""), grant("h", "partner = \"other\""))), "acme");
    for (partner, own, others) in [("payco", "g", "h"), ("other", "h", "g")] {
        let ask = |name| Ask { partner, grant: Some(name), ..fitting() }.decide(&trust);
        assert_eq!(ask(own).expect("its own").grant().as_str(), own);
        assert_eq!(ask(others).expect_err("another's").reason(), "PARTNER_NOT_GRANTED");
    }
}

#[test]
fn a_grant_that_names_networks_is_used_from_within_them_only() {
    let (narrow, free) = (trust("sources = [\"10.0.0.0/8\", \"2001:db8::/32\"]"), trust(""));
    let from = |address: &str| Origin::Network(address.parse().expect("an address"));
    for (origin, within) in [
        (from("10.1.2.3"), true),
        (from("2001:db8::1"), true),
        (from("11.1.2.3"), false),
        (from("2001:db9::1"), false),
        (Origin::Local, false),
        (Origin::Unknown, true),
    ] {
        let told = if within { Ok(()) } else { Err("SOURCE_NOT_GRANTED") };
        let decided = |trust| Ask { origin, ..fitting() }.decide(trust).map(drop).map_err(|why| why.reason());
        assert_eq!((decided(&narrow), decided(&free)), (told, Ok(())), "{origin:?}");
        let asked = TaskAsked {
            workload: &"ci".parse().expect("a name"),
            partner: &"payco".parse().expect("a name"),
            purpose: &"deploy".parse().expect("a name"),
            deadline_seconds: 0,
        };
        let facts = TaskFacts {
            basis: (1, 2),
            parent_deadline: None,
            attest_by: &|_| None,
            proofs: vec![],
            origin,
            approved: &[],
            scene: Scene::default(),
        };
        let opened = |trust| decide_task(trust, &asked, &facts, now()).map(drop).map_err(|why| why.reason());
        assert_eq!((opened(&narrow), opened(&free)), (told, Ok(())), "{origin:?}");
    }
}

#[test]
fn unbound_tokens_need_a_grant_that_allows_them() {
    let trust = trust("require_binding = false");
    let mut ask = fitting();
    ask.binding = BindingWish::None;
    assert!(!ask.decide(&trust).expect("fits").bind());
    (ask.binding, ask.certificate) = (BindingWish::Default, false);
    assert!(!ask.decide(&trust).expect("fits").bind());
    ask.certificate = true;
    assert!(ask.decide(&trust).expect("fits").bind());
    ask.binding = BindingWish::Certificate;
    assert!(ask.decide(&trust).expect("fits").bind());
}

#[test]
fn every_bound_has_its_number_of_the_contract() {
    let contract = include_str!("../../../proto/mayfly/v1/broker.proto");
    for (bound, name) in [
        (Bound::Requested, "BOUND_REQUESTED"),
        (Bound::GrantDefault, "BOUND_GRANT_DEFAULT"),
        (Bound::GrantExpiry, "BOUND_GRANT_EXPIRY"),
        (Bound::TaskDeadline, "BOUND_TASK_DEADLINE"),
        (Bound::CallerProof, "BOUND_CALLER_PROOF"),
        (Bound::IssuerCertificate, "BOUND_ISSUER_CERTIFICATE"),
        (Bound::Approval, "BOUND_APPROVAL"),
    ] {
        assert!(contract.contains(&format!("  {name} = {};", bound.code())), "{name}");
    }
}

#[test]
fn an_explanation_tells_each_check_of_each_grant_also_after_the_first_that_fails() {
    let trust = tenant(&map(&format!("{BASE}{}{}", grant("g", ""), grant("h", ""))), "acme");
    let explained = |ask: Ask| ask.with(|asked, facts| explain(&trust, asked, facts, ask.at));
    let steps = explained(Ask { kind: CredentialKind::Opaque, ttl: 601, ..fitting() });
    assert_eq!((steps.len(), steps[0].as_str()), (32, "workload `ci`: known, environment `prod`"));
    for name in ["g", "h"] {
        for line in ["purpose: ok", "kind: refused KIND_NOT_GRANTED: ", "audiences: ok", "ttl: refused TTL_TOO_LONG: "]
        {
            let line = format!("grant `{name}`: {line}");
            assert_eq!(steps.iter().filter(|step| step.starts_with(&line)).count(), 1, "{line}: {steps:?}");
        }
    }
    let steps = explained(Ask { grant: Some("g"), ..fitting() });
    assert_eq!(steps.iter().filter(|step| step.starts_with("grant `g`: ") && step.ends_with(": ok")).count(), 15);
    let until = format!("allowed by grant `g` until {} (300 s): the grant's default decides", later(300));
    assert_eq!(steps.last(), Some(&until));
    assert_eq!(explained(Ask { workload: "nobody", ..fitting() })[0], "workload `nobody`: not in the trust map");
}

#[test]
fn a_task_fits_its_grants_and_its_parent_or_is_refused() {
    let trust = trust("task_max = 1800");
    let decided = |workload: &str, purpose: &str, seconds, parent, at| {
        let asked = TaskAsked {
            workload: &workload.parse().expect("a name"),
            partner: &"payco".parse().expect("a name"),
            purpose: &purpose.parse().expect("a name"),
            deadline_seconds: seconds,
        };
        let facts = TaskFacts {
            basis: (1, 2),
            parent_deadline: parent,
            attest_by: &|_| None,
            proofs: vec![],
            origin: Origin::Local,
            approved: &[],
            scene: Scene::default(),
        };
        decide_task(&trust, &asked, &facts, at).map(|task| task.deadline()).map_err(|why| why.reason())
    };
    assert_eq!(decided("ci", "deploy", 0, None, now()), Ok(later(1800)));
    assert_eq!(decided("ci", "deploy", 1800, None, now()), Ok(later(1800)));
    assert_eq!(decided("ci", "deploy", 1801, None, now()), Err("TASK_TOO_LONG"));
    assert_eq!(decided("ci", "deploy", 0, Some(later(60)), now()), Ok(later(60)));
    assert_eq!(decided("ci", "deploy", 60, Some(later(60)), now()), Ok(later(60)));
    assert_eq!(decided("ci", "deploy", 61, Some(later(60)), now()), Err("PARENT_ENDS_SOONER"));
    assert_eq!(decided("ci", "deploy", 0, Some(now()), now()), Err("LIFETIME_TOO_SHORT"));
    assert_eq!(decided("ci", "scan", 0, None, now()), Err("PURPOSE_NOT_GRANTED"));
    assert_eq!(decided("lab", "deploy", 0, None, now()), Err("WORKLOAD_NOT_GRANTED"));
    assert_eq!(decided("ci", "deploy", 0, None, later(400 * 86_400)), Err("GRANT_EXPIRED"));
}

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    proptest::sample::subsequence(of, 0..=of.len()).prop_map(|texts| texts.iter().map(ToString::to_string).collect())
}

const AUDIENCES: [&str; 6] = ["https://a/*", "https://a/b", "https://a/b/*", "https://a", "b/*", "c"];
const ASKED: [&str; 7] = ["https://a/b", "https://a/b/c", "https://a", "https://a/../x", "b/x", "c", "*"];

proptest! {
    #[test]
    fn a_decision_is_never_wider_than_its_grant(
        granted in some(&AUDIENCES), actions in some(&AUDIENCES), wanted in some(&ASKED), acts in some(&ASKED),
        ttl in 0u32..700, max in 1u32..700, until in 0u64..700_000, kind in 1u32..=3,
    ) {
        prop_assume!(!granted.is_empty());
        let more = format!("audiences = {granted:?}\nactions = {actions:?}\nttl_max = {max}");
        let trust = trust(&more);
        let mut ask = fitting();
        (ask.audiences, ask.actions, ask.ttl) = (wanted.clone(), acts.clone(), ttl);
        ask.kind = CredentialKind::from_code(kind).expect("a kind");
        ask.task = Some(now().after(Duration::from_millis(until)));
        if let Ok(decision) = ask.decide(&trust) {
            let grant = &trust.grants()[decision.grant()];
            prop_assert!(grant.kinds.has(&decision.kind()));
            prop_assert!(decision.audiences().iter().all(|a| grant.audiences.iter().any(|p| p.fits(a))));
            prop_assert!(decision.actions().iter().all(|a| grant.actions.iter().any(|p| p.fits(a))));
            prop_assert_eq!(decision.audiences().len(), wanted.len());
            prop_assert_eq!(decision.actions().len(), acts.len());
            let life = decision.expires().since(decision.issued());
            prop_assert!(life <= Duration::from_secs(grant.ttl_max.into()) && life > Duration::ZERO);
            prop_assert!(ttl == 0 || life <= Duration::from_secs(ttl.into()));
            prop_assert!(decision.expires() <= now().after(Duration::from_millis(until)));
            prop_assert!(!decision.audiences().iter().any(|a| a.contains("..") || a == "*"));
        }
    }
}

#[test]
fn a_static_secret_is_decided_by_the_grants_secrets_alone() {
    let trust = trust("kinds = [\"secret\", \"jwt\"]\nsecrets = [\"stripe\", \"twilio\"]");
    let ask = |audiences: &[&str]| {
        let audiences = audiences.iter().map(|text| (*text).to_owned()).collect();
        Ask { kind: CredentialKind::Secret, audiences, actions: Vec::new(), ..fitting() }.decide(&trust)
    };
    let decision = ask(&["secret:stripe"]).expect("fits");
    assert_eq!(decision.secret().map(ToString::to_string), Some("stripe".to_owned()));
    assert!(!decision.bind(), "nothing binds a value");
    let reason = |audiences: &[&str]| ask(audiences).map(|_| "").unwrap_or_else(|why| why.reason());
    assert_eq!(reason(&["secret:other"]), "SECRET_NOT_GRANTED");
    assert_eq!(reason(&["https://api.test"]), "AUDIENCE_NOT_GRANTED");
    assert_eq!(reason(&["secret:stripe", "secret:twilio"]), "AUDIENCE_REQUIRED");
    assert_eq!(reason(&[]), "AUDIENCE_REQUIRED");
    // And the other way round: no other kind gets at a secret, and decisions about them name none.
    let token = fitting().decide(&trust).expect("fits");
    assert_eq!(token.secret(), None);
    let token = Ask { audiences: vec!["secret:stripe".into()], ..fitting() }.decide(&trust);
    assert_eq!(token.map(|_| "").unwrap_or_else(|why| why.reason()), "AUDIENCE_NOT_GRANTED");
}

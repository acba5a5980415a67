//! May it? One request against a trust map, and against policies.

use std::hint::black_box;

use criterion::Criterion;
use mayfly::{
    model::{CredentialKind, Intent},
    policy::{self, Asked, BindingWish, Document, Extent, Facts},
};

use crate::sample::now;

/// The twentieth of twenty grants is the one that fits.
pub fn decisions(criterion: &mut Criterion) {
    let mut text = TRUST.to_owned();
    for number in 1..=20 {
        text.push_str(&format!(
            "[[grant]]\ntenant = \"acme\"\nname = \"g{number:02}\"\npartner = \"globex\"\nworkloads = [\"exporter\"]\n\
             purposes = [\"report\"]\naudiences = [\"https://api{number:02}.example\"]\nactions = [\"read\"]\n\
             kinds = [\"jwt\"]\nttl_default = 300\nttl_max = 3600\ntask_max = 7200\nowner = \"owner@example.com\"\n\
             expires = 2027-03-01\nrevokers = [\"admin\"]\nattest_by = 2027-02-01\nenvironment = \"prod\"\n\
             max_live_leases = 100\n"
        ));
    }
    let documents = [Document { path: "trust.toml", text: &text }];
    let map = policy::parse(&documents, Extent::Whole, now()).expect("a sound map");
    let trust = map.tenants.values().next().expect("one tenant");
    let (workload, partner, purpose) =
        ("exporter".parse().expect("name"), "globex".parse().expect("name"), "report".parse().expect("name"));
    let asked = Asked {
        workload: &workload,
        partner: &partner,
        purpose: &purpose,
        grant: None,
        kind: CredentialKind::Jwt,
        audiences: &["https://api20.example".to_owned()],
        actions: &["read".to_owned()],
        dns_names: &[],
        ttl_seconds: 0,
        binding: BindingWish::None,
    };
    let facts = facts(policy::Scene::default());
    let _decision = black_box(policy::decide(trust, &asked, &facts, now()).expect("allowed"));
    criterion.bench_function("decide among 20 grants", |b| {
        b.iter(|| policy::decide(trust, black_box(&asked), &facts, now()));
    });
}

/// Five of twenty policies concern the request; it passes all of them and a guardrail.
pub fn policies(criterion: &mut Criterion) {
    let mut own = String::new();
    for number in 0..16 {
        let (partner, id) = if number < 4 { ("globex", number) } else { ("initech", number) };
        own.push_str(&format!(
            "@id(\"p{id}\") permit(principal in Partner::\"{partner}\", action in Action::\"Issue\", resource)\n\
             when {{ context.purpose == \"report\" && context.ttl_seconds <= 600 && context.actions.contains(\"read\")\n\
             && context.task_type == \"t{id}\" }};\n"
        ));
    }
    for number in 0..4 {
        let action = if number == 0 { "in Action::\"Issue\"" } else { "== Action::\"Renew\"" };
        own.push_str(&format!(
            "@id(\"f{number}\") forbid(principal, action {action}, resource)\n\
             when {{ context.environment == \"lab\" || context.renewals > {number}{number} }};\n"
        ));
    }
    let text = format!(
        "{}{GRANT}",
        TRUST.replacen("name = \"acme\"", "name = \"acme\"\npolicy = { enforce = \"p.cedar\" }", 1)
    );
    let documents = [Document { path: "trust.toml", text: &text }, Document { path: "p.cedar", text: &own }];
    let map = policy::parse(&documents, Extent::Whole, now()).expect("a sound map");
    let trust = map.tenants.values().next().expect("one tenant");
    let (workload, partner, purpose) =
        ("exporter".parse().expect("name"), "globex".parse().expect("name"), "report".parse().expect("name"));
    let asked = Asked {
        workload: &workload,
        partner: &partner,
        purpose: &purpose,
        grant: None,
        kind: CredentialKind::Jwt,
        audiences: &["https://api.example".to_owned()],
        actions: &["read".to_owned()],
        dns_names: &[],
        ttl_seconds: 0,
        binding: BindingWish::None,
    };
    let told = |parameters: &[(&str, &str)]| {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Intent::new("t3", parameters).expect("within limits")
    };
    let (plain, with_parameters) = (told(&[]), told(&[("ticket", "INC-4711"), ("region", "eu")]));
    for (name, intent) in [
        ("decide with 5 relevant of 20 policies", &plain),
        ("decide with 5 relevant of 20 policies and 2 parameters", &with_parameters),
    ] {
        let scene = policy::Scene { global: Some(&map.global), intent: intent.as_ref(), ..policy::Scene::default() };
        let facts = facts(scene);
        let decision = policy::decide(trust, &asked, &facts, now()).expect("allowed");
        assert!(decision.ruling().is_some());
        criterion.bench_function(name, |b| b.iter(|| policy::decide(trust, black_box(&asked), &facts, now())));
    }
}

/// Of a caller that nothing limits.
fn facts(scene: policy::Scene<'_>) -> Facts<'_> {
    Facts {
        basis: (1, 1),
        task_deadline: None,
        proof_expires: None,
        issuer_expires: None,
        has_certificate: false,
        attest_by: &|_| None,
        proofs: Vec::new(),
        origin: policy::Origin::Local,
        approved: &[],
        scene,
    }
}

const GRANT: &str = r#"
[[grant]]
tenant = "acme"
name = "g"
partner = "globex"
workloads = ["exporter"]
purposes = ["report"]
audiences = ["https://api.example"]
actions = ["read"]
kinds = ["jwt"]
ttl_default = 300
ttl_max = 3600
task_max = 7200
owner = "owner@example.com"
expires = 2027-03-01
revokers = ["admin"]
attest_by = 2027-02-01
environment = "prod"
max_live_leases = 100
"#;

const TRUST: &str = r#"
[[operator]]
name = "admin"
role = "admin"
tenants = "all"
partners = "all"
[[partner]]
name = "globex"
display_name = "Globex"
contact = "ops@globex.example"
max_live_leases = 100
[[tenant]]
name = "acme"
max_live_leases = 100
[[workload]]
tenant = "acme"
name = "exporter"
environment = "prod"
selectors = [{ spiffe_id = "spiffe://acme.example/w/exporter", authority = "own" }]
"#;

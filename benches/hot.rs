//! What one request costs on the paths that every request takes.

#![allow(clippy::expect_used, reason = "a benchmark may stop")]

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion};
use mayfly::{
    audit::{chain, page},
    client::Key,
    mint::{
        ca::{self, CaName, Validity},
        jwt, opaque,
        signing::{Algorithm, SigningKey},
        x509::{self, LeafKey, LeafSpec},
    },
    model::{CredentialKind, Digest, Intent, LeaseId, Scope, ScopeId, Stamp, TaskId, TenantNumber, Timestamp},
    pb,
    policy::{self, Asked, BindingWish, Document, Extent, Facts},
    verifier::Revocations,
};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    tokens(&mut criterion);
    certificates(&mut criterion);
    decisions(&mut criterion);
    policies(&mut criterion);
    standings(&mut criterion);
    pages(&mut criterion);
    criterion.final_summary();
}

fn tokens(criterion: &mut Criterion) {
    let (key, _) = SigningKey::generate(Algorithm::Es256).expect("entropy");
    let (audiences, actions, stamp) = (["https://api.example".to_owned()], ["read".to_owned()], stamp());
    let names = ("acme".parse().expect("name"), "globex".parse().expect("name"), "nightly".parse().expect("name"));
    let (workload, purpose) = ("exporter".parse().expect("name"), "export".parse().expect("name"));
    let claims = jwt::TokenClaims {
        issuer: "https://mayfly.example/t/acme",
        subject: "spiffe://acme.example/w/exporter",
        actors: &[],
        resellers: &[],
        audiences: &audiences,
        tenant: &names.0,
        partner: &names.1,
        grant: &names.2,
        workload: &workload,
        purpose: &purpose,
        actions: &actions,
        lease: lease(),
        issued: now(),
        expires: now().after(Duration::from_secs(300)),
        stamp: &stamp,
        bound: None,
    };
    let token = jwt::mint(&key, &claims).expect("minted");
    criterion.bench_function("mint a token, ES256", |b| b.iter(|| jwt::mint(&key, black_box(&claims))));
    criterion.bench_function("peek into a token", |b| b.iter(|| jwt::peek(black_box(token.text.expose()))));
    criterion.bench_function("mint a reference token", |b| b.iter(|| opaque::mint(black_box(claims.lease))));
    let reference = opaque::mint(claims.lease).expect("entropy");
    criterion
        .bench_function("parse a reference token", |b| b.iter(|| opaque::parse(black_box(reference.text.expose()))));
}

fn certificates(criterion: &mut Criterion) {
    let hour = Duration::from_secs(3600);
    let validity = |hours| Validity { not_before: now().before(hour), not_after: now().after(hour * hours) };
    let name = |name, trust_domain| CaName { organization: "Mayfly", name, trust_domain };
    let root = ca::create_root(&name("root", None), validity(3)).expect("root");
    let issuing =
        ca::create_issuing(&root.key, &name("issuing", Some("mayfly.example")), validity(2)).expect("issuing");
    let tenant = ca::create_tenant(&issuing.key, &name("acme", Some("acme.example")), validity(1)).expect("tenant");
    let csr_der = Key::fresh().and_then(|key| key.request()).expect("entropy");
    let stamp = stamp();
    let spec = LeafSpec {
        spiffe_id: "spiffe://acme.example/w/exporter",
        dns_names: &[],
        lease: lease(),
        issued: now(),
        not_after: now().after(Duration::from_secs(300)),
        stamp: &stamp,
    };
    criterion.bench_function("read a certificate request", |b| b.iter(|| x509::parse_csr(black_box(&csr_der))));
    let csr = x509::parse_csr(&csr_der).expect("sound");
    criterion.bench_function("mint a certificate of a request", |b| {
        b.iter(|| x509::mint_leaf(&tenant.key, LeafKey::Request(&csr), black_box(&spec)));
    });
}

/// The twentieth of twenty grants is the one that fits.
fn decisions(criterion: &mut Criterion) {
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

/// Five of twenty policies concern the request; it passes all of them and a guardrail.
fn policies(criterion: &mut Criterion) {
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

/// The ledger's own book is private; a verifier's is the same table.
fn standings(criterion: &mut Criterion) {
    let revision = Some(pb::Revision { incarnation: 1, number: 20_000 });
    let scope = |number: u32| Scope::SigningKey(number.to_string()).id();
    let cut = |number| pb::RevocationEvent {
        kind: pb::RevocationKind::Cut.into(),
        scope_id: scope(number).as_bytes().to_vec(),
        revision,
        covers_until: None,
    };
    let message = pb::WatchRevocationsResponse { revision, events: (0..10_000).map(cut).collect(), complete: true };
    let mut feed = Revocations::default();
    feed.apply(&message, now()).expect("a sound message");
    let asked: Vec<ScopeId> = (10_000..10_010).map(scope).collect();
    criterion.bench_function("standing of 10 scopes among 10,000 cuts", |b| {
        b.iter(|| feed.standing(black_box(&asked), (1, 10)));
    });
}

fn pages(criterion: &mut Criterion) {
    let events: Vec<_> = (1..=64)
        .map(|sequence| pb::Event {
            stream: "acme/globex".into(),
            sequence,
            kind: "lease.issued".into(),
            actor: "spiffe://acme.example/w/exporter".into(),
            lease_id: lease().to_string(),
            ..pb::Event::default()
        })
        .collect();
    criterion.bench_function("append 64 events to an audit page", |b| {
        b.iter_batched(|| chain::GENESIS, |before: Digest| page::append(&events, before), BatchSize::SmallInput);
    });
}

fn now() -> Timestamp {
    Timestamp::from_seconds(1_795_000_000)
}

fn lease() -> LeaseId {
    let tenant = TenantNumber::new(3).expect("in range");
    LeaseId::fresh(TaskId::fresh(tenant).expect("entropy")).expect("entropy")
}

fn stamp() -> Stamp {
    Stamp::new((7, 9), vec![ScopeId::from_slice(&[5; 12]).expect("12 bytes"); 9]).expect("few scopes")
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

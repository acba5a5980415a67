//! What is measured on: ids, rows and a resource server with a feed.

use std::time::Duration;

use mayfly::{
    ledger::{LaneLimits, Ledger, Opening, Quota, engine::Engine},
    mint::signing::SigningKey,
    model::{
        CredentialKind, Digest, Lease, LeaseId, Scope, ScopeId, Secret, Stamp, Task, TaskId, TenantNumber, Timestamp,
        secret::MacKey,
    },
    pb,
    verifier::{Freshness, OfflineVerifier, TrustBundle},
};

pub fn now() -> Timestamp {
    Timestamp::from_seconds(1_795_000_000)
}

pub fn task_id() -> TaskId {
    TaskId::fresh(TenantNumber::new(3).expect("in range")).expect("entropy")
}

pub fn lease() -> LeaseId {
    LeaseId::fresh(task_id()).expect("entropy")
}

/// With so many scopes.
pub fn stamp(scopes: u8) -> Stamp {
    let scope = |number| ScopeId::from_slice(&[number; 12]).expect("12 bytes");
    Stamp::new((1, 20_000), (0..scopes).map(scope).collect()).expect("few scopes")
}

/// A cut of some scope that nothing else names.
pub fn strangers(number: u32) -> Scope {
    Scope::SigningKey(number.to_string())
}

/// A resource server of the tenant `acme` that follows a feed with so many cuts, none of which concerns the samples.
pub fn verifier(key: Option<&SigningKey>, root_der: Vec<Vec<u8>>, cuts: u32) -> OfflineVerifier {
    let tenant: mayfly::model::TenantName = "acme".parse().expect("name");
    let keys: Vec<String> = key.iter().map(|key| key.public().to_json().to_string()).collect();
    let bundle = pb::GetTrustBundleResponse {
        issuer: ISSUER.to_owned(),
        jwks_json: format!(r#"{{"keys":[{}]}}"#, keys.join(",")),
        root_der,
        trust_domain: "acme.example".to_owned(),
        max_age_seconds: 300,
    };
    let verifier = OfflineVerifier::new(tenant.clone(), Freshness::Feed { max_staleness: Duration::from_secs(10) });
    assert!(verifier.install(TrustBundle::parse(&bundle, tenant, now()).expect("a sound bundle")));
    verifier.apply(&feed(cuts), now()).expect("a sound message");
    verifier
}

/// The first message of a feed, with so many cuts.
pub fn feed(cuts: u32) -> pb::WatchRevocationsResponse {
    let revision = Some(pb::Revision { incarnation: 1, number: 20_000 });
    let cut = |number| pb::RevocationEvent {
        kind: pb::RevocationKind::Cut.into(),
        scope_id: strangers(number).id().as_bytes().to_vec(),
        revision,
        covers_until: None,
    };
    pb::WatchRevocationsResponse { revision, events: (0..cuts).map(cut).collect(), complete: true }
}

/// A ledger on an empty engine.
pub fn ledger(engine: std::sync::Arc<dyn Engine>) -> Ledger {
    let lanes = LaneLimits::default();
    let opening =
        Opening { engine, row_key: row_key(), seal_check: [1; 32], ballast: None, anchor: None, lanes, now: now() };
    Ledger::open(opening).expect("an empty store")
}

pub fn row_key() -> MacKey {
    MacKey::new(&Secret::random().expect("entropy"))
}

/// A task that has an hour.
pub fn task(basis: (u64, u64)) -> Task {
    Task {
        id: task_id(),
        tenant: "acme".parse().expect("name"),
        partner: "globex".parse().expect("name"),
        workload: "exporter".parse().expect("name"),
        purpose: "export".parse().expect("name"),
        parent: None,
        opened: now(),
        deadline: now().after(Duration::from_secs(3_600)),
        ended: None,
        held: false,
        leases_issued: 0,
        live: Vec::new(),
        basis,
        proofs: Vec::new(),
        parent_lease: None,
        client_key: None,
        opened_with: None,
        job_url: None,
        intent: None,
        approvals: Vec::new(),
        pace: None,
        limits: None,
        secrets: Vec::new(),
        secrets_overflow: false,
    }
}

/// A lease under it that has ten minutes, and what it was obtained with.
pub fn lease_of(task: &Task, proofs: Vec<ScopeId>) -> Lease {
    Lease {
        id: LeaseId::fresh(task.id).expect("entropy"),
        tenant: task.tenant.clone(),
        partner: task.partner.clone(),
        grant: "nightly".parse().expect("name"),
        workload: task.workload.clone(),
        purpose: task.purpose.clone(),
        kind: CredentialKind::Jwt,
        audiences: vec![AUDIENCE.to_owned()],
        actions: vec!["read".to_owned()],
        dns_names: Vec::new(),
        issued: now(),
        expires: now().after(Duration::from_secs(600)),
        basis: task.basis,
        credential: Digest::of(b"credential"),
        key_id: "k1".to_owned(),
        bound: None,
        spki: None,
        parent: None,
        proofs,
        renewals: 0,
        broker_made_key: false,
        ended: None,
        delegated: Vec::new(),
        ruling: None,
        secret: None,
        pickup_until: None,
        svid: false,
    }
}

pub const ISSUER: &str = "https://mayfly.example/t/acme";
pub const AUDIENCE: &str = "https://api.example";
pub const QUOTA: Quota =
    Quota { task: u32::MAX, grant: u32::MAX, partner: u32::MAX, partner_everywhere: u32::MAX, tenant: u32::MAX };

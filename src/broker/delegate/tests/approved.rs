//! Approvals of those who passed a task on.

use super::{bed_with, named, open};
use crate::{
    broker::{
        Broker,
        testing::{admin, operator, worker},
    },
    identity::{Caller, Proof},
    model::Digest,
    pb,
};

const GLASS: &str = r#"
    [[operator]]
    name = "op-a"
    role = "auditor"
    tenants = ["acme"]
    partners = "all"
    [[operator]]
    name = "op-b"
    role = "auditor"
    tenants = ["acme"]
    partners = "all"
    [[grant]]
    tenant = "acme"
    name = "glass"
    partner = "zeta"
    workloads = ["w", "x"]
    purposes = ["work"]
    audiences = ["https://db.example"]
    actions = ["read"]
    kinds = ["jwt"]
    ttl_default = 300
    ttl_max = 3600
    task_max = 7200
    require_binding = false
    owner = "owner@example.com"
    expires = 2025-12-01
    revokers = ["admin"]
    attest_by = 2025-09-01
    environment = "prod"
    max_live_leases = 100000
    approvals = { needed = 1, by = ["op-a", "op-b"], valid_seconds = 900 }
"#;

/// Asks for leave in a task, has an operator agree, and uses it.
async fn approved(broker: &Broker, by: &Caller, task: &str, agrees: &Caller) -> Result<(), &'static str> {
    let request = pb::RequestApprovalRequest {
        tenant: "acme".into(),
        grant: "glass".into(),
        purpose: "work".into(),
        task_id: task.into(),
        reason: "incident".into(),
    };
    let asked = broker.request_approval(by, request).await.map_err(|why| why.reason())?;
    let approval_id = asked.approval.expect("an approval").approval_id;
    let yes = pb::DecideApprovalRequest { approval_id: approval_id.clone(), approve: true, reason: "seen".into() };
    broker.decide_approval(agrees, yes).await.map_err(|why| why.reason())?;
    used(broker, by, task, &approval_id).await
}

async fn used(broker: &Broker, by: &Caller, task: &str, approval_id: &str) -> Result<(), &'static str> {
    let request = pb::IssueRequest {
        task_id: task.into(),
        kind: pb::CredentialKind::Jwt.into(),
        audiences: vec!["https://db.example".into()],
        actions: vec!["read".into()],
        approval_id: approval_id.into(),
        ..Default::default()
    };
    broker.issue(by, request).await.map(drop).map_err(|why| why.reason())
}

#[tokio::test]
async fn whose_approval_lost_its_words_passes_nothing_on_any_more() {
    let broker = bed_with(GLASS, &[]).await;
    let own = open(&broker, &worker(), "", "").await.expect("opened");
    let child = open(&broker, &worker(), &own, "x").await.expect("passed on");
    assert!(approved(&broker, &named("x"), &child, &operator("op-b")).await.is_err(), "`w` has no leave yet");
    approved(&broker, &worker(), &own, &operator("op-a")).await.expect("`w` has leave");
    approved(&broker, &named("x"), &child, &other_key("op-b")).await.expect("both have leave");
    used(&broker, &named("x"), &child, "").await.expect("and go on with it");
    // Who agreed for `w` is cut off. What `x` has leave for itself is untouched.
    let scope = pb::Scope {
        kind: pb::ScopeKind::Proof.into(),
        proof_sha256: Digest::of(b"op-a").0.to_vec(),
        ..Default::default()
    };
    let revoke = pb::RevokeRequest { scope: Some(scope), reason: "stolen".into(), ..Default::default() };
    broker.revoke(&admin(), revoke).await.expect("revoked");
    assert_eq!(used(&broker, &worker(), &own, "").await, Err("APPROVAL_PENDING"));
    assert_eq!(used(&broker, &named("x"), &child, "").await, Err("APPROVAL_PENDING"), "on whose word?");
}

/// An operator with a key of its own.
fn other_key(name: &str) -> Caller {
    let caller = operator(name);
    let Proof::Certificate(proof) = caller.proof() else { panic!("a certificate") };
    let mut proof = proof.clone();
    proof.key = Digest::of(format!("{name}'s key").as_bytes());
    Caller::for_test(Proof::Certificate(proof))
}

//! What a task above does to one that was passed on.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{API, bed, bed_with, claims, issue, named, open, open_as, renew, standing};
use crate::{
    broker::testing::{admin, worker},
    identity::{Authority, Caller, CertificateProof, Proof},
    model::{Digest, Scope, ScopeId, Standing, Task, Timestamp},
    pb,
};

/// `w` with a certificate of this name.
fn worker_with(name: &str, not_after: Timestamp) -> Caller {
    Caller::for_test(Proof::Certificate(CertificateProof {
        sha256: Digest::of(name.as_bytes()),
        key: Digest::of(format!("{name}'s key").as_bytes()),
        authority: Authority::Foreign("platform".into()),
        spiffe_id: Some("spiffe://platform.example/w".into()),
        dns_names: vec![],
        serial: vec![0x41; 16],
        not_after,
    }))
}

fn far() -> Timestamp {
    Timestamp::from_millis(u64::MAX / 2)
}

fn scopes_of(reply: &pb::IssueResponse) -> Vec<ScopeId> {
    let told = claims(reply);
    let text = told["mf_scopes"].as_str().expect("text");
    ScopeId::split(&URL_SAFE_NO_PAD.decode(text).expect("base64url")).expect("ids")
}

#[tokio::test]
async fn a_bar_on_who_passed_it_on_stops_its_delegate() {
    let broker = bed().await;
    let own = open(&broker, &worker(), "", "").await.expect("opened");
    let child = open(&broker, &worker(), &own, "x").await.expect("passed on");
    let below = open(&broker, &named("x"), &child, "").await.expect("opened");
    let reply = issue(&broker, &named("x"), &child, API).await.expect("issued");
    let mine = open(&broker, &named("x"), "", "").await.expect("opened");
    let workload = pb::Scope {
        kind: pb::ScopeKind::Workload.into(),
        tenant: "acme".into(),
        workload: "w".into(),
        ..Default::default()
    };
    let proof = pb::Scope {
        kind: pb::ScopeKind::Proof.into(),
        proof_sha256: Digest::of(b"worker").0.to_vec(),
        ..Default::default()
    };
    for scope in [workload, proof] {
        let bar = pb::BarRequest { scope: Some(scope.clone()), suspend: false, reason: "test".into() };
        broker.bar(&admin(), bar).await.expect("barred");
        for task in [&child, &below] {
            assert_eq!(issue(&broker, &named("x"), task, API).await.err(), Some("BARRED"));
        }
        assert_eq!(renew(&broker, &named("x"), &reply).await.err(), Some("BARRED"));
        assert_eq!(open(&broker, &named("x"), &child, "").await, Err("BARRED"));
        assert_eq!(open(&broker, &named("x"), &child, "y").await, Err("BARRED"));
        assert_eq!(standing(&broker, &reply), Standing::Live, "a bar ends nothing");
        issue(&broker, &named("x"), &mine, API).await.expect("its own");
        let lift = pb::LiftRequest { scope: Some(scope), reason: "test".into(), only_quarantine: false };
        broker.lift(&admin(), lift).await.expect("lifted");
        issue(&broker, &named("x"), &below, API).await.expect("lifted");
    }
}

#[tokio::test]
async fn a_task_is_passed_on_for_no_longer_than_who_does_so_is_proven() {
    let broker = bed().await;
    let end = Timestamp::from_seconds(broker.now().seconds() + 120);
    let short = worker_with("short", end);
    let deadline = |task: &str| {
        let task = broker.ledger.task(task.parse().expect("an id")).expect("reads").expect("there");
        task.deadline
    };
    let own = open(&broker, &short, "", "").await.expect("opened");
    assert!(deadline(&own) > end, "its own lives on: whoever acts in it proves himself");
    let child = open(&broker, &short, &own, "x").await.expect("passed on");
    assert_eq!(deadline(&child), end);
    assert_eq!(open_as(&broker, &short, &own, "x", 300).await, Err("PROOF_ENDS_SOONER"));
    open_as(&broker, &short, &own, "x", 60).await.expect("shorter than that");
    open_as(&broker, &short, &own, "", 300).await.expect("its own");
    let long = open_as(&broker, &worker(), &own, "x", 300).await.expect("with a longer proof");
    assert!(deadline(&long) > end);
}

#[tokio::test]
async fn policies_hear_of_who_passed_it_on_whether_the_token_is_bound() {
    for (rule, unbound, bound) in [
        ("unless { context.bound }", Some("POLICY_REFUSED"), None),
        ("when { context.bound }", None, Some("POLICY_REFUSED")),
    ] {
        let own = format!(
            "@id(\"some\") permit(principal, action, resource);\n\
             @id(\"not-w\") forbid(principal == Workload::\"w\", action in Action::\"Issue\", resource) {rule};"
        );
        let broker = bed_with("", &[("own.cedar", own.as_str())]).await;
        let task = open(&broker, &worker(), "", "").await.expect("opened");
        let child = open(&broker, &worker(), &task, "x").await.expect("passed on");
        assert_eq!(issue(&broker, &named("x"), &child, API).await.err(), unbound, "{rule}");
        let request = pb::IssueRequest {
            task_id: child,
            kind: pb::CredentialKind::Jwt.into(),
            audiences: vec![API.into()],
            binding: pb::Binding::Certificate.into(),
            ..Default::default()
        };
        let refused = broker.issue(&named("x"), request).await.map_err(|why| why.reason()).err();
        assert_eq!(refused, bound, "{rule}");
    }
}

#[tokio::test]
async fn a_retry_of_the_last_delegation_gets_its_answer() {
    let broker = bed().await;
    let own = open(&broker, &worker(), "", "").await.expect("opened");
    for _ in 1..Task::MAX_DELEGATIONS {
        open(&broker, &worker(), &own, "x").await.expect("passed on");
        open(&broker, &worker(), &own, "").await.expect("its own do not count");
    }
    let request = pb::OpenTaskRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "work".into(),
        parent_task_id: own.clone(),
        for_workload: "x".into(),
        idempotency_key: "the last".into(),
        ..Default::default()
    };
    let last = broker.open_task(&worker(), request.clone()).await.expect("passed on").task.expect("a task");
    let again = broker.open_task(&worker(), request).await.expect("a retry").task.expect("a task");
    assert_eq!(again.task_id, last.task_id);
    assert_eq!(open(&broker, &worker(), &own, "y").await, Err("QUOTA_USED_UP"));
    // One that has ended counts too.
    broker.complete_task(&named("x"), pb::CompleteTaskRequest { task_id: last.task_id }).await.expect("completed");
    assert_eq!(open(&broker, &worker(), &own, "y").await, Err("QUOTA_USED_UP"));
}

#[tokio::test]
async fn who_checks_offline_sees_what_ends_any_task_above() {
    let broker = bed().await;
    let other = || worker_with("another certificate", far());
    let opened_with = Scope::Proof(Digest::of(b"another certificate")).id();
    // The one in the middle is of the same workload as the one below, and was opened by another.
    let own = open(&broker, &worker(), "", "").await.expect("opened");
    let child = open(&broker, &other(), &own, "x").await.expect("passed on");
    let below = open(&broker, &named("x"), &child, "").await.expect("opened");
    let scopes = scopes_of(&issue(&broker, &named("x"), &below, API).await.expect("issued"));
    for task in [&own, &child, &below] {
        assert!(scopes.contains(&ScopeId::task(task.parse().expect("an id"))), "{task}");
    }
    assert!(scopes.contains(&opened_with) && scopes.contains(&Scope::Proof(Digest::of(b"worker")).id()));
    assert!(scopes.contains(&ScopeId::workload(&"acme".parse().expect("name"), &"w".parse().expect("name"))));
    let once: std::collections::BTreeSet<ScopeId> = scopes.iter().copied().collect();
    assert_eq!(once.len(), scopes.len(), "each once");
    // Also where nothing was passed on.
    let own = open(&broker, &other(), "", "").await.expect("opened");
    let below = open(&broker, &worker(), &own, "").await.expect("opened");
    let reply = issue(&broker, &worker(), &below, API).await.expect("issued");
    assert!(scopes_of(&reply).contains(&opened_with));
}

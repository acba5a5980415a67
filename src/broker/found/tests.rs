use super::*;
use crate::broker::testing::{admin, bare, founded};

#[tokio::test]
async fn founding_twice_changes_nothing() {
    let (broker, _) = bare();
    let first = ensure(&broker, &Founding::default()).await.expect("founds");
    let before = (broker.ledger.basis(), broker.roots().expect("roots"));
    let second = ensure(&broker, &Founding::default()).await.expect("is there");
    assert!(first.is_new && !second.is_new && second.has_issuing);
    assert_eq!(before, (broker.ledger.basis(), broker.roots().expect("roots")));
    assert_eq!(before.1.len(), 1);
    assert_eq!(broker.operator(&admin()).expect("operator").role, Role::Admin);
}

#[tokio::test]
async fn an_admin_is_put_again_when_the_trust_map_changed_on_the_way() {
    let (broker, _) = founded().await;
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let change = TrustCommit {
        events: vec![event::own("test.event", broker.now())],
        ..TrustCommit::new(broker.ledger.basis().1, broker.now())
    };
    let names: Vec<OperatorName> = ["ann", "bob"].iter().map(|name| name.parse().expect("name")).collect();
    let put = |at: usize| broker.put_admin(&names[at], "operator.restored", broker.now());
    // The change is not published before both have read what they build upon.
    let changed = broker.ledger.apply(change, move || {
        let _released = released.lock().expect("lock").recv();
    });
    let ((changed, first), (second, ())) =
        tokio::join!(async { tokio::join!(changed, put(0)) }, async { tokio::join!(put(1), async { drop(release) }) });
    changed.expect("changes");
    first.expect("put");
    second.expect("put");
    let global = broker.registry.global();
    assert!(names.iter().all(|name| global.operators.contains_key(name)), "{:?}", global.operators);
}

#[tokio::test]
async fn an_external_root_signs_the_waiting_key_and_its_root_is_published() {
    let (broker, _) = bare();
    let founding = Founding { external_root: true };
    assert!(!ensure(&broker, &founding).await.expect("founds").has_issuing);
    assert!(broker.issuing().is_err() && broker.roots().expect("roots").is_empty());
    // A chain for another key is refused.
    let (root, issuing) = broker.new_cas(broker.now()).expect("cas");
    let chain = [issuing.key.chain_der(), root.key.chain_der()].concat();
    assert!(matches!(broker.adopt_issuing(&chain).await, Err(Refusal::Invalid { field: "chain", .. })));
    assert!(!ensure(&broker, &founding).await.expect("waits").is_new);
    // The waiting row gets the key that the root signed.
    let record = records::KeyRecord { key_id: "waits".into(), ..blank(KeyState::Prepared, broker.now()) };
    let row = broker.sealed_row(KeyUse::Issuing, record, &issuing.pkcs8).expect("row");
    broker.commit_own_keys(vec![row], event::own("test", broker.now()), broker.now()).await.expect("put");
    broker.adopt_issuing(&chain).await.expect("adopts");
    assert_eq!(broker.roots().expect("roots"), root.key.chain_der());
    // The root is not among what leaves carry.
    assert_eq!(broker.issuing().expect("issuing").chain_der(), issuing.key.chain_der());
}

#[tokio::test]
async fn an_operator_that_the_trust_map_lost_is_recovered_as_an_admin() {
    let (broker, _) = founded().await;
    let name: OperatorName = "second".parse().expect("name");
    let minted = broker.recover_operator(&name).await.expect("recovers");
    assert!(minted.private_key_der.is_some());
    assert_eq!(broker.registry.global().operators[&name].role, Role::Admin);
}

#[tokio::test]
async fn only_operators_of_the_trust_map_are_certified() {
    let (broker, _) = founded().await;
    let request = pb::IssueOperatorCertificateRequest { operator: "nobody".into(), csr_der: vec![], ttl_seconds: 0 };
    let refusal = broker.issue_operator_certificate(&admin(), request.clone()).await.expect_err("refused");
    assert!(matches!(refusal, Refusal::Unknown("operator")));
    let request = pb::IssueOperatorCertificateRequest { operator: "admin".into(), ..request };
    let refusal = broker.issue_operator_certificate(&admin(), request).await.expect_err("refused");
    assert!(matches!(refusal, Refusal::Invalid { field: "csr_der", .. }));
    let server = broker.server_certificate(&["localhost".into()], &[]).expect("server");
    assert_eq!(server.chain_der.len(), 2);
}

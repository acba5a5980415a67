use super::*;
use crate::{
    broker::testing::{TRUST, apply, founded, told, worker},
    identity::{Authority, CertificateProof, Proof},
    pb::issue_response::Credential,
};

async fn issue(broker: &Broker, kind: pb::CredentialKind) -> (pb::Lease, Credential) {
    let request = pb::IssueRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "work".into(),
        audiences: vec!["https://api.example".into()],
        actions: vec!["read".into()],
        kind: kind.into(),
        generate_key: kind == pb::CredentialKind::X509,
        ..Default::default()
    };
    let reply = broker.issue(&worker(), request).await.expect("issued");
    (reply.lease.expect("lease"), reply.credential.expect("credential"))
}

#[tokio::test]
async fn a_certificate_of_ours_asks_about_credentials_only_while_its_lease_lives() {
    let (broker, _) = founded().await;
    apply(&broker, TRUST).await;
    let (lease, credential) = issue(&broker, pb::CredentialKind::X509).await;
    let Credential::X509(issued) = credential else { panic!("a certificate") };
    let id = &issued.spiffe_id;
    let verifier = format!(
        "{TRUST}\n[[verifier]]\ntenant = \"acme\"\nname = \"api\"\naudiences = [\"https://api.example\"]\n\
         selectors = [{{ spiffe_id = {id:?} }}]\n"
    );
    apply(&broker, &verifier).await;
    let serial: LeaseId = lease.lease_id.parse().expect("an id");
    let caller = Caller::for_test(Proof::Certificate(CertificateProof {
        sha256: Digest::of(&issued.chain_der[0]),
        key: Digest::of(b"its key"),
        authority: Authority::Own,
        spiffe_id: Some(id.clone()),
        dns_names: vec![],
        serial: serial.as_bytes().to_vec(),
        not_after: Timestamp::from_millis(u64::MAX / 2),
    }));
    let (_, other) = issue(&broker, pb::CredentialKind::Opaque).await;
    let Credential::Token(token) = other else { panic!("a token") };
    let ask = || pb::IntrospectRequest {
        credential: Some(pb::introspect_request::Credential::Token(token.clone())),
        presented_certificate_sha256: Digest::of(b"worker").0.to_vec(),
        ..Default::default()
    };
    assert!(broker.introspect(&caller, ask()).await.expect("answers").active);

    let done = pb::CompleteTaskRequest { task_id: lease.task_id };
    broker.complete_task(&worker(), done).await.expect("completes");
    let refused = broker.introspect(&caller, ask()).await;
    assert!(matches!(refused, Err(Refusal::Unproven(_))), "{refused:?}");
}

#[tokio::test]
async fn a_credential_in_other_hands_is_refused_and_told_once_and_then_counted() {
    let (broker, _) = founded().await;
    let verifier = format!(
        "{TRUST}\n[[verifier]]\ntenant = \"acme\"\nname = \"api\"\naudiences = [\"https://api.example\"]\n\
         selectors = [{{ spiffe_id = \"spiffe://platform.example/w\", authority = \"platform\" }}]\n"
    );
    apply(&broker, &verifier).await;
    let (lease, credential) = issue(&broker, pb::CredentialKind::Opaque).await;
    let Credential::Token(token) = credential else { panic!("a token") };
    let ask = async |presented: &[u8]| {
        let request = pb::IntrospectRequest {
            credential: Some(pb::introspect_request::Credential::Token(token.clone())),
            presented_certificate_sha256: presented.to_vec(),
            ..Default::default()
        };
        broker.introspect(&worker(), request).await.expect("answers").active
    };
    assert!(ask(&Digest::of(b"worker").0).await, "its own");
    assert!(told(&broker, "credential.reused").await.is_empty());
    let thief = Digest::of(b"thief");
    assert!(!ask(&thief.0).await && !ask(&thief.0).await && !ask(&[]).await);
    let events = told(&broker, "credential.reused").await;
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((event.lease_id.as_str(), event.actor.as_str()), (lease.lease_id.as_str(), "verifier:acme/api"));
    assert!(event.details.contains(&format!("presented={thief}")), "{event:?}");
    broker.write_uses().await.expect("written");
    let events = told(&broker, "credential.reused").await;
    assert_eq!(events.len(), 2);
    assert!(events.iter().any(|event| event.details.contains(&"times=2".to_owned())), "{events:?}");
    // Of what is over nobody is told: it is of no use to whoever has it.
    broker.complete_task(&worker(), pb::CompleteTaskRequest { task_id: lease.task_id }).await.expect("completes");
    assert!(!ask(&thief.0).await);
    broker.write_uses().await.expect("written");
    assert_eq!(told(&broker, "credential.reused").await.len(), 2);
}

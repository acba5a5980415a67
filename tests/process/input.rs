//! Bad input gets a stable reason, and nothing is issued.

use mayfly::pb::{self, CredentialKind, IssueRequest};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use super::{
    rig::{refused, told},
    world::{World, issue, request},
};
use crate::support::signing_request;

type Change = fn(&mut IssueRequest);

/// What is wrong, how, with which kind, and the reason it gets.
const BAD: &[(&str, CredentialKind, Change, &str)] = &[
    ("no kind", CredentialKind::Unspecified, |_| {}, "INVALID_FIELD"),
    ("a kind of the future", CredentialKind::Jwt, |r| r.kind = 99, "INVALID_FIELD"),
    ("no tenant", CredentialKind::Jwt, |r| r.tenant.clear(), "INVALID_FIELD"),
    ("a tenant in capitals", CredentialKind::Jwt, |r| r.tenant = "Alpha".into(), "INVALID_FIELD"),
    ("a tenant of 64 bytes", CredentialKind::Jwt, |r| r.tenant = "a".repeat(64), "INVALID_FIELD"),
    ("an unknown tenant", CredentialKind::Jwt, |r| r.tenant = "nowhere".into(), "UNKNOWN_WORKLOAD"),
    ("an unknown partner", CredentialKind::Jwt, |r| r.partner = "nobody".into(), "PARTNER_NOT_GRANTED"),
    ("another partner", CredentialKind::Jwt, |r| r.partner = "other".into(), "PARTNER_NOT_GRANTED"),
    ("an unknown purpose", CredentialKind::Jwt, |r| r.purpose = "fun".into(), "PURPOSE_NOT_GRANTED"),
    ("an unknown grant", CredentialKind::Jwt, |r| r.grant = "nothing".into(), "UNKNOWN_GRANT"),
    ("a malformed task", CredentialKind::Jwt, |r| r.task_id = "xyz".into(), "NOT_FOUND"),
    ("an unknown task", CredentialKind::Jwt, |r| r.task_id = "0".repeat(24), "NOT_FOUND"),
    ("no audience", CredentialKind::Jwt, |r| r.audiences.clear(), "INVALID_FIELD"),
    ("nine audiences", CredentialKind::Jwt, |r| r.audiences = vec!["a".into(); 9], "INVALID_FIELD"),
    ("a long audience", CredentialKind::Jwt, |r| r.audiences = vec!["a".repeat(256)], "INVALID_FIELD"),
    ("a line break", CredentialKind::Jwt, |r| r.audiences = vec!["a\nb".into()], "INVALID_FIELD"),
    (
        "another audience",
        CredentialKind::Jwt,
        |r| r.audiences = vec!["https://x.example".into()],
        "AUDIENCE_NOT_GRANTED",
    ),
    ("33 actions", CredentialKind::Jwt, |r| r.actions = vec!["read".into(); 33], "INVALID_FIELD"),
    ("an action with a space", CredentialKind::Jwt, |r| r.actions = vec!["re ad".into()], "INVALID_FIELD"),
    ("another action", CredentialKind::Jwt, |r| r.actions = vec!["write".into()], "ACTION_NOT_GRANTED"),
    ("a second too long", CredentialKind::Jwt, |r| r.ttl_seconds = 3601, "TTL_TOO_LONG"),
    ("a TTL of 136 years", CredentialKind::Jwt, |r| r.ttl_seconds = u32::MAX, "TTL_TOO_LONG"),
    ("a long idempotency key", CredentialKind::Jwt, |r| r.idempotency_key = "k".repeat(65), "INVALID_FIELD"),
    ("an endless task", CredentialKind::Jwt, |r| r.task_deadline_seconds = 86_401, "INVALID_FIELD"),
    ("a request with a token", CredentialKind::Jwt, |r| r.csr_der = csr().into(), "INVALID_FIELD"),
    ("a key with a token", CredentialKind::Jwt, |r| r.generate_key = true, "INVALID_FIELD"),
    (
        "DNS names with a token",
        CredentialKind::Jwt,
        |r| r.dns_names = vec!["a.example".into()],
        "DNS_NAMES_NOT_FOR_KIND",
    ),
    ("binding a certificate", CredentialKind::X509, |r| r.binding = 1, "BINDING_NOT_FOR_KIND"),
    ("neither request nor key", CredentialKind::X509, |r| r.generate_key = false, "INVALID_FIELD"),
    ("request and key", CredentialKind::X509, |r| r.csr_der = csr().into(), "INVALID_FIELD"),
    ("a request of 8,193 bytes", CredentialKind::X509, |r| with_csr(r, vec![0x30; 8_193]), "INVALID_FIELD"),
    ("a request of rubbish", CredentialKind::X509, |r| with_csr(r, vec![0x30; 100]), "INVALID_FIELD"),
    ("an RSA key of 1024 bits", CredentialKind::X509, |r| with_csr(r, RSA_1024.to_vec()), "INVALID_FIELD"),
    ("a request of 8,192 bytes of rubbish", CredentialKind::X509, |r| with_csr(r, vec![0x30; 8_192]), "INVALID_FIELD"),
    ("a broken signature", CredentialKind::X509, |r| with_csr(r, broken_csr()), "INVALID_FIELD"),
    ("a request for another name", CredentialKind::X509, |r| with_csr(r, named_csr()), "INVALID_FIELD"),
    ("nine DNS names", CredentialKind::X509, |r| r.dns_names = vec!["a.example".into(); 9], "INVALID_FIELD"),
    ("another DNS name", CredentialKind::X509, |r| r.dns_names = vec!["a.example".into()], "DNS_NAME_NOT_GRANTED"),
];

const RSA_1024: &[u8] = include_bytes!("../golden/csr/rsa_1024.der");

fn with_csr(request: &mut IssueRequest, csr: Vec<u8>) {
    (request.csr_der, request.generate_key) = (csr.into(), false);
}

fn csr() -> Vec<u8> {
    signing_request(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key")).expect("request")
}

fn broken_csr() -> Vec<u8> {
    let mut csr = csr();
    *csr.last_mut().expect("bytes") ^= 1;
    csr
}

fn named_csr() -> Vec<u8> {
    let params = rcgen::CertificateParams::new(vec!["evil.example".to_owned()]).expect("params");
    params.serialize_request(&KeyPair::generate().expect("key")).expect("request").der().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_their_reason_and_issue_nothing() {
    let world = World::new().await;
    let mut broker = world.broker("alpha").await;
    let mut wrong = Vec::new();
    let before = world.live().await;
    for (what, kind, change, expected) in BAD {
        let mut bad = request("alpha", *kind);
        change(&mut bad);
        match issue(&mut broker, bad).await {
            Ok(_) => wrong.push(format!("{what}: issued")),
            Err(status) => {
                let (code, message, reason) = told(&status);
                if reason != *expected {
                    wrong.push(format!("{what}: {code:?} {reason} `{message}`, not {expected}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.live().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_ids_get_their_reason() {
    let world = World::new().await;
    let (mut broker, mut admin) = (world.broker("alpha").await, world.admin().await);
    for id in ["", "xyz", &"0".repeat(39), &"0".repeat(40), &"F".repeat(40), &"0".repeat(1_000)] {
        let renewed = broker.renew(pb::RenewRequest { lease_id: id.into(), ..Default::default() }).await;
        assert_eq!(told(&refused(renewed, id)).2, "NOT_FOUND", "{id}");
        let released = broker.release(pb::ReleaseRequest { lease_id: id.into() }).await;
        assert_eq!(told(&released.expect_err(id)).2, "NOT_FOUND", "{id}");
        let completed = broker.complete_task(pb::CompleteTaskRequest { task_id: id.into() }).await;
        assert_eq!(told(&completed.expect_err(id)).2, "NOT_FOUND", "{id}");
    }
    let revoke = |request: pb::RevokeRequest| request;
    let empty = admin.revoke(revoke(pb::RevokeRequest { reason: "test".into(), ..Default::default() })).await;
    assert_eq!(told(&empty.expect_err("no scope")).2, "INVALID_FIELD");
    let scope = super::world::partner_scope("alpha");
    let silent = admin.revoke(pb::RevokeRequest { scope: Some(scope.clone()), ..Default::default() }).await;
    assert_eq!(told(&silent.expect_err("no reason")).2, "INVALID_FIELD");
    let talkative = pb::RevokeRequest { scope: Some(scope), reason: "r".repeat(513), ..Default::default() };
    assert_eq!(told(&admin.revoke(talkative).await.expect_err("a long reason")).2, "INVALID_FIELD");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_of_zero_is_the_grants_default_and_the_cap_is_allowed() {
    let world = World::new().await;
    let mut broker = world.broker("alpha").await;
    for (asked, expected) in [(0, 300), (1, 1), (3600, 3600)] {
        let reply =
            issue(&mut broker, IssueRequest { ttl_seconds: asked, ..request("alpha", CredentialKind::Jwt) }).await;
        let lease = super::world::lease_of(&reply.expect("issued"));
        let lived = lease.expires.expect("set").seconds - lease.issued.expect("set").seconds;
        assert_eq!(lived, expected, "asked for {asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rsa_key_of_2048_bits_is_taken_and_a_weaker_one_is_told_why_not() {
    let world = World::new().await;
    let mut broker = world.broker("alpha").await;
    let asked = |csr: &[u8]| {
        let mut asked = request("alpha", CredentialKind::X509);
        with_csr(&mut asked, csr.to_vec());
        asked
    };
    issue(&mut broker, asked(include_bytes!("../golden/csr/rsa_2048.der"))).await.expect("issued");
    let (code, message, reason) = told(&refused(issue(&mut broker, asked(RSA_1024)).await, "a weak key"));
    assert_eq!((code, reason.as_str()), (tonic::Code::InvalidArgument, "INVALID_FIELD"));
    assert!(message.contains("csr_der") && message.contains("1024 bits"), "{message}");
}

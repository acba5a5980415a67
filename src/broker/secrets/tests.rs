//! The life of a static secret in a broker: put, handed out, rotated, cut, retired; and one-time pickup of any credential.

use std::{sync::Arc, time::Duration};

use pb::issue_response::Credential;

use crate::{
    broker::{
        Broker, Refusal, event,
        testing::{TRUST, admin, apply, founded, operator, worker},
        trail,
    },
    identity::{Authority, Caller, CertificateProof, Proof},
    ledger::stream_id,
    model::{Digest, Timestamp},
    pb,
};

mod bounds;
mod recognise;

const VALUE: &[u8] = b"sk_the-first-value\xff";

/// [`TRUST`] with a grant that hands `stripe` out, an auditor, and a second workload.
fn trust() -> String {
    format!(
        r#"{TRUST}
    [[grant]]
    tenant = "acme"
    name = "pay"
    partner = "zeta"
    workloads = ["w"]
    purposes = ["pay"]
    kinds = ["secret"]
    secrets = ["stripe", "never-put"]
    ttl_default = 300
    ttl_max = 3600
    task_max = 7200
    owner = "owner@example.com"
    expires = 2025-12-01
    revokers = ["admin"]
    attest_by = 2025-09-01
    environment = "prod"
    [[workload]]
    tenant = "acme"
    name = "v"
    environment = "prod"
    selectors = [{{ spiffe_id = "spiffe://platform.example/v", authority = "platform" }}]
    [[partner]]
    name = "eta"
    display_name = "Eta"
    contact = "eta@example.com"
    [[operator]]
    name = "looker"
    role = "auditor"
    tenants = ["acme"]
    partners = ["zeta"]
    [[operator]]
    name = "other"
    role = "admin"
    tenants = ["acme"]
    partners = ["eta"]
"#
    )
}

struct Bed {
    broker: Arc<Broker>,
    hands: Arc<crate::broker::testing::Hands>,
}

impl Bed {
    /// With `stripe` put.
    async fn new() -> Self {
        let (broker, hands) = founded().await;
        apply(&broker, &trust()).await;
        let bed = Self { broker, hands };
        bed.broker.put_secret(&admin(), put("stripe", VALUE)).await.expect("put");
        bed
    }

    async fn issue(&self) -> Result<pb::IssueResponse, Refusal> {
        self.broker.issue(&worker(), asked()).await
    }

    async fn rotate(&self, value: &[u8], revoke_old: bool) -> Result<pb::RotateSecretResponse, Refusal> {
        let request = pb::RotateSecretRequest {
            tenant: "acme".into(),
            name: "stripe".into(),
            value: value.to_vec(),
            revoke_old,
            reason: "test".into(),
        };
        self.broker.rotate_secret(&admin(), request).await
    }

    async fn holders(&self, live: bool) -> Vec<pb::SecretHolder> {
        let request =
            pb::ListSecretHoldersRequest { tenant: "acme".into(), name: "stripe".into(), live, ..Default::default() };
        self.broker.list_secret_holders(&operator("looker"), request).await.expect("lists").holders
    }

    fn is_live(&self, lease: &pb::Lease) -> bool {
        let id = lease.lease_id.parse().expect("id");
        let lease = self.broker.ledger.lease(id).expect("reads").expect("there");
        self.broker.ledger.lease_standing(&lease, self.broker.now()).expect("reads").is_live()
    }

    fn events(&self, kind: &str) -> Vec<pb::Event> {
        let id = stream_id("acme", "zeta");
        let (events, _) = trail::events_from(&self.broker.ledger, &id, 0, usize::MAX).expect("reads");
        events.into_iter().filter(|event| event.kind == kind).collect()
    }
}

fn put(name: &str, value: &[u8]) -> pb::PutSecretRequest {
    pb::PutSecretRequest {
        tenant: "acme".into(),
        name: name.into(),
        partner: "zeta".into(),
        owner: "pay@example.com".into(),
        purpose: "charges".into(),
        value: value.to_vec(),
        reason: "test".into(),
    }
}

fn asked() -> pb::IssueRequest {
    pb::IssueRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "pay".into(),
        kind: pb::CredentialKind::Secret.into(),
        secret: "stripe".into(),
        ..Default::default()
    }
}

fn token() -> pb::IssueRequest {
    pb::IssueRequest {
        purpose: "work".into(),
        kind: pb::CredentialKind::Opaque.into(),
        secret: String::new(),
        audiences: vec!["https://api.example".into()],
        actions: vec!["read".into()],
        pickup: Some(pb::PickupWish::default()),
        ..asked()
    }
}

fn value(reply: &pb::IssueResponse) -> (u32, Vec<u8>) {
    match &reply.credential {
        Some(Credential::Secret(secret)) => (secret.version, secret.value.clone()),
        Some(_) | None => panic!("no secret"),
    }
}

fn handle(reply: &pb::IssueResponse) -> pb::PickupRequest {
    match &reply.credential {
        Some(Credential::Pickup(pickup)) => pb::PickupRequest { handle: pickup.handle.clone() },
        Some(_) | None => panic!("no handle"),
    }
}

fn lease(reply: &pb::IssueResponse) -> pb::Lease {
    reply.lease.clone().expect("a lease")
}

fn reason<T>(result: Result<T, Refusal>) -> &'static str {
    result.err().map_or("", |refusal| refusal.reason())
}

/// A workload by its SPIFFE ID's last part; one that nobody knows is a stranger.
fn workload(name: &str) -> Caller {
    Caller::for_test(Proof::Certificate(CertificateProof {
        sha256: Digest::of(name.as_bytes()),
        key: Digest::of(b"its key"),
        authority: Authority::Foreign("platform".into()),
        spiffe_id: Some(format!("spiffe://platform.example/{name}")),
        dns_names: vec![],
        serial: vec![0x43; 16],
        not_after: Timestamp::from_millis(u64::MAX / 2),
    }))
}

#[tokio::test]
async fn what_was_put_is_handed_out_to_a_task_under_its_grant_and_it_is_known_who_has_it() {
    let bed = Bed::new().await;
    let reply = bed.issue().await.expect("issued");
    assert_eq!(value(&reply), (1, VALUE.to_vec()));
    let lease = lease(&reply);
    assert_eq!((lease.secret.as_str(), lease.secret_version), ("stripe", 1));
    assert_eq!(lease.audiences, ["secret:stripe"]);
    // Not a hash of the value, which could be tried out.
    assert_ne!(lease.credential_sha256, Digest::of(VALUE).0);
    let [holder] = bed.holders(true).await.try_into().expect("one");
    assert_eq!((holder.version, holder.workload.as_str(), &holder.task_id), (1, "w", &lease.task_id));
    assert_eq!((holder.standing(), holder.superseded, holder.times), (pb::Standing::Live, false, 1));
    let [issued] = bed.events("lease.issued").try_into().expect("one");
    assert!(issued.details.contains(&"secret=stripe".into()) && issued.details.contains(&"secret_version=1".into()));

    let done = pb::CompleteTaskRequest { task_id: lease.task_id.clone() };
    bed.broker.complete_task(&worker(), done).await.expect("completed");
    assert!(bed.holders(true).await.is_empty());
    let [holder] = bed.holders(false).await.try_into().expect("one");
    assert_eq!(holder.standing(), pb::Standing::Ended);
    // Completed as it should be: nothing has to be rotated.
    assert!(bed.events("secret.needs_rotation").is_empty());
}

#[tokio::test]
async fn nothing_is_handed_out_that_the_grant_does_not_name_or_that_is_not_there_for_its_partner() {
    let bed = Bed::new().await;
    let ask = |name: &str| pb::IssueRequest { secret: name.into(), ..asked() };
    let of_eta = pb::PutSecretRequest { partner: "eta".into(), ..put("never-put", b"theirs") };
    let issue = async |request| reason(bed.broker.issue(&worker(), request).await);
    assert_eq!(issue(ask("other")).await, "SECRET_NOT_GRANTED");
    assert_eq!(issue(ask("never-put")).await, "SECRET_UNAVAILABLE");
    bed.broker.put_secret(&admin(), of_eta).await.expect("put");
    assert_eq!(issue(ask("never-put")).await, "SECRET_UNAVAILABLE", "of another partner");
    assert_eq!(issue(ask("")).await, "INVALID_FIELD");
    assert_eq!(issue(pb::IssueRequest { audiences: vec!["secret:stripe".into()], ..asked() }).await, "INVALID_FIELD");
    // A grant that names none hands none out, and a token does not get one by its audience.
    assert_eq!(issue(pb::IssueRequest { purpose: "work".into(), ..asked() }).await, "KIND_NOT_GRANTED");
    let by_audience = pb::IssueRequest { pickup: None, audiences: vec!["secret:stripe".into()], ..token() };
    assert_eq!(issue(by_audience).await, "AUDIENCE_NOT_GRANTED");
}

#[tokio::test]
async fn a_rotation_reaches_who_renews_and_says_who_still_has_the_old_one() {
    let bed = Bed::new().await;
    let old = bed.issue().await.expect("issued");
    let rotated = bed.rotate(b"second", false).await.expect("rotated");
    assert_eq!((rotated.live_holders, rotated.secret.expect("told").version), (1, 2));
    assert!(bed.is_live(&lease(&old)), "without being asked to, a rotation ends nothing");
    let [holder] = bed.holders(true).await.try_into().expect("one");
    assert!(holder.version == 1 && holder.superseded);
    let renew = pb::RenewRequest { lease_id: lease(&old).lease_id, ..Default::default() };
    let new = bed.broker.renew(&worker(), renew).await.expect("renewed");
    assert_eq!(value(&new), (2, b"second".to_vec()));
    let [before, now] = bed.holders(false).await.try_into().expect("two");
    assert_eq!((before.version, before.standing()), (1, pb::Standing::Ended));
    assert_eq!((now.version, now.standing(), now.superseded), (2, pb::Standing::Live, false));
    assert_eq!(reason(bed.rotate(b"second", false).await), "INVALID_FIELD", "that is no rotation");
}

#[tokio::test]
async fn a_rotation_that_revokes_the_old_version_ends_its_leases_at_once_and_no_other() {
    let bed = Bed::new().await;
    let old = lease(&bed.issue().await.expect("issued"));
    let other = pb::IssueRequest { pickup: None, ..token() };
    let other = lease(&bed.broker.issue(&worker(), other).await.expect("issued"));
    bed.rotate(b"second", true).await.expect("rotated");
    assert!(!bed.is_live(&old) && bed.is_live(&other));
    let new = bed.issue().await.expect("issued");
    assert_eq!(value(&new), (2, b"second".to_vec()));
    bed.broker.walk_cuts().await.expect("walks");
    assert!(bed.is_live(&lease(&new)));
    // It was just rotated: nobody has to be told that it must be.
    assert!(bed.events("secret.needs_rotation").is_empty());
}

#[tokio::test]
async fn what_is_revoked_is_told_to_need_rotation_by_every_way_of_revoking() {
    let bed = Bed::new().await;
    let revoke = async |scope| {
        let request = pb::RevokeRequest { scope: Some(scope), reason: "gone bad".into(), ..Default::default() };
        let reply = bed.broker.revoke(&admin(), request).await.expect("revoked");
        bed.broker.walk_cuts().await.expect("walks");
        reply
    };
    let scope = |kind: pb::ScopeKind| pb::Scope { kind: kind.into(), ..Default::default() };
    let one = lease(&bed.issue().await.expect("issued"));
    let reply = revoke(pb::Scope { lease_id: one.lease_id.clone(), ..scope(pb::ScopeKind::Lease) }).await;
    assert!(reply.exposure.iter().any(|entry| entry.explanation.contains("needs rotation")), "{reply:?}");
    let two = lease(&bed.issue().await.expect("issued"));
    revoke(pb::Scope { task_id: two.task_id.clone(), ..scope(pb::ScopeKind::Task) }).await;
    bed.issue().await.expect("issued");
    revoke(pb::Scope { tenant: "acme".into(), secret: "stripe".into(), ..scope(pb::ScopeKind::Secret) }).await;
    let told = bed.events("secret.needs_rotation");
    assert_eq!(told.len(), 3, "{told:?}");
    for event in &told {
        assert!(event.details.contains(&"owner=pay@example.com".into()), "{event:?}");
        assert!(event.details.contains(&"scope=secret acme/stripe".into()), "{event:?}");
    }
    assert_eq!((told[0].lease_id.as_str(), told[1].task_id.as_str()), (one.lease_id.as_str(), two.task_id.as_str()));
    // And with the cut went a bar.
    assert_eq!(reason(bed.issue().await), "BARRED");
}

#[tokio::test]
async fn a_retired_secret_is_gone_its_holders_stay_known_and_its_version_numbers_are_not_used_again() {
    let bed = Bed::new().await;
    let had = lease(&bed.issue().await.expect("issued"));
    let retire = pb::RetireSecretRequest { tenant: "acme".into(), name: "stripe".into(), reason: "test".into() };
    let reply = bed.broker.retire_secret(&admin(), retire.clone()).await.expect("retired");
    assert_eq!(reply.live_holders, 1);
    assert!(!bed.is_live(&had));
    assert_eq!(reason(bed.issue().await), "SECRET_UNAVAILABLE");
    assert_eq!(bed.holders(false).await.len(), 1);
    let number = bed.broker.registry.number(&"acme".parse().expect("name")).expect("known");
    assert!(bed.broker.ledger.secret_value(number, &"stripe".parse().expect("name")).expect("reads").is_none());
    assert_eq!(reason(bed.broker.retire_secret(&admin(), retire).await), "INVALID_FIELD");
    bed.broker.put_secret(&admin(), put("stripe", b"anew")).await.expect("put");
    assert_eq!(value(&bed.issue().await.expect("issued")), (2, b"anew".to_vec()));
}

#[tokio::test]
async fn only_admins_within_their_scope_change_a_secret_and_nobody_reads_its_value() {
    let bed = Bed::new().await;
    let (looker, other) = (operator("looker"), operator("other"));
    assert_eq!(reason(bed.broker.put_secret(&looker, put("a", b"x")).await), "NOT_ALLOWED");
    assert_eq!(reason(bed.broker.put_secret(&other, put("a", b"x")).await), "NOT_FOUND");
    let taken = pb::PutSecretRequest { partner: "eta".into(), ..put("stripe", b"x") };
    assert_eq!(reason(bed.broker.put_secret(&other, taken).await), "INVALID_FIELD");
    let rotate = pb::RotateSecretRequest {
        tenant: "acme".into(),
        name: "stripe".into(),
        value: b"x".to_vec(),
        revoke_old: true,
        reason: "test".into(),
    };
    assert_eq!(reason(bed.broker.rotate_secret(&looker, rotate.clone()).await), "NOT_ALLOWED");
    assert_eq!(reason(bed.broker.rotate_secret(&other, rotate).await), "NOT_FOUND");
    let all = pb::ListSecretsRequest::default();
    let [seen] = bed.broker.list_secrets(&looker, all.clone()).await.expect("lists").secrets.try_into().expect("one");
    assert_eq!(
        (seen.version, seen.owner.as_str(), seen.grants.as_slice()),
        (1, "pay@example.com", &["pay".into()][..])
    );
    assert!(bed.broker.list_secrets(&other, all).await.expect("lists").secrets.is_empty());
    let holders = pb::ListSecretHoldersRequest { tenant: "acme".into(), name: "stripe".into(), ..Default::default() };
    assert_eq!(reason(bed.broker.list_secret_holders(&other, holders).await), "NOT_FOUND");
}

#[tokio::test]
async fn a_value_has_its_limits_and_texts_are_no_place_for_it() {
    let bed = Bed::new().await;
    let put = async |request| reason(bed.broker.put_secret(&admin(), request).await);
    assert_eq!(put(put_of(vec![7; 65_536], "a")).await, "");
    assert_eq!(put(put_of(vec![7; 65_537], "b")).await, "INVALID_FIELD");
    assert_eq!(put(put_of(Vec::new(), "b")).await, "INVALID_FIELD");
    let secret = concat!("sk", "_live_4eC39HqLyjWDarjtT1zdp7dc");
    let wrong = pb::PutSecretRequest { purpose: secret.into(), ..put_of(vec![7], "b") };
    let refusal = bed.broker.put_secret(&admin(), wrong).await.expect_err("refused");
    assert!(!refusal.to_string().contains(secret));
    assert_eq!(put(pb::PutSecretRequest { owner: String::new(), ..put_of(vec![7], "b") }).await, "INVALID_FIELD");
    assert_eq!(put(pb::PutSecretRequest { purpose: " ".into(), ..put_of(vec![7], "b") }).await, "INVALID_FIELD");
}

fn put_of(value: Vec<u8>, name: &str) -> pb::PutSecretRequest {
    put(name, &value)
}

#[tokio::test]
async fn a_repeated_request_reads_the_sealed_value_again_and_the_first_lease_ends() {
    let bed = Bed::new().await;
    let request = pb::IssueRequest { idempotency_key: "once".into(), ..asked() };
    let first = bed.broker.issue(&worker(), request.clone()).await.expect("issued");
    let again = bed.broker.issue(&worker(), request).await.expect("issued");
    assert_eq!(value(&first), value(&again));
    assert!(!bed.is_live(&lease(&first)) && bed.is_live(&lease(&again)));
}

#[tokio::test]
async fn holders_are_remembered_as_long_as_the_audit_and_no_longer() {
    let bed = Bed::new().await;
    bed.issue().await.expect("issued");
    bed.hands.advance(Duration::from_secs(86_400 * 399));
    bed.broker.sweep_all().await.expect("sweeps");
    assert_eq!(bed.holders(false).await.len(), 1, "the lease is long gone, who had it is not");
    bed.hands.advance(Duration::from_secs(86_400 * 2));
    bed.broker.sweep_all().await.expect("sweeps");
    assert!(bed.holders(false).await.is_empty());
}

#[tokio::test]
async fn introspection_knows_nothing_of_a_static_secret() {
    let bed = Bed::new().await;
    let reply = bed.issue().await.expect("issued");
    let text = String::from_utf8_lossy(&value(&reply).1).into_owned();
    let credential = Some(pb::introspect_request::Credential::Token(text));
    let request = pb::IntrospectRequest { credential, ..Default::default() };
    assert!(!bed.broker.introspect(&admin(), request).await.expect("answers").active);
}

#[tokio::test]
async fn a_handle_hands_its_credential_out_once_and_a_second_time_ends_it_and_is_an_alarm() {
    let bed = Bed::new().await;
    let reply = bed.broker.issue(&worker(), token()).await.expect("issued");
    let waiting = lease(&reply);
    let until = event::unstamp(waiting.pickup_until.as_ref().expect("waits"));
    assert_eq!(until.since(bed.broker.now()), Duration::from_secs(60));
    // Another workload of the tenant takes it.
    let taken = bed.broker.pick_up(&workload("v"), handle(&reply)).await.expect("picked up");
    let Some(Credential::Token(text)) = &taken.credential else { panic!("no token") };
    assert_eq!(lease(&taken).lease_id, waiting.lease_id);
    let credential = Some(pb::introspect_request::Credential::Token(text.clone()));
    let active = async || {
        let request = pb::IntrospectRequest { credential: credential.clone(), ..Default::default() };
        bed.broker.introspect(&admin(), request).await.expect("answers").active
    };
    assert!(active().await);
    bed.hands.advance(Duration::from_secs(120));
    assert!(active().await, "what was picked up lives as long as its lease");
    assert_eq!(reason(bed.broker.pick_up(&workload("v"), handle(&reply)).await), "PICKED_UP");
    assert!(!active().await);
    let [alarm] = bed.events("pickup.misused").try_into().expect("one");
    assert!(alarm.details.contains(&"why=second".into()) && alarm.details.contains(&"taken_by=v".into()), "{alarm:?}");
    // A third time says no more than that it is over.
    assert_eq!(reason(bed.broker.pick_up(&workload("v"), handle(&reply)).await), "LEASE_ENDED");
    assert_eq!(bed.events("pickup.misused").len(), 1);
}

#[tokio::test]
async fn a_handle_that_nobody_uses_in_time_is_dead_and_so_is_its_lease_whether_or_not_anything_ran() {
    let bed = Bed::new().await;
    let reply = bed.broker.issue(&worker(), token()).await.expect("issued");
    bed.hands.advance(Duration::from_secs(60));
    assert!(!bed.is_live(&lease(&reply)));
    assert_eq!(reason(bed.broker.pick_up(&worker(), handle(&reply)).await), "LEASE_ENDED");
    bed.broker.lapse_pickups().await.expect("lapses");
    bed.broker.lapse_pickups().await.expect("lapses");
    let [expired] = bed.events("pickup.expired").try_into().expect("one");
    assert_eq!(expired.lease_id, lease(&reply).lease_id);
    assert_eq!(reason(bed.broker.pick_up(&worker(), handle(&reply)).await), "LEASE_ENDED");
}

#[tokio::test]
async fn a_handle_is_for_the_workload_that_it_names_and_for_nobody_outside_of_the_tenant() {
    let bed = Bed::new().await;
    let for_v = pb::IssueRequest { pickup: Some(pb::PickupWish { workload: "v".into(), ttl_seconds: 600 }), ..token() };
    let reply = bed.broker.issue(&worker(), for_v.clone()).await.expect("issued");
    assert_eq!(reason(bed.broker.pick_up(&worker(), handle(&reply)).await), "PICKED_UP");
    assert!(!bed.is_live(&lease(&reply)), "somebody has it who should not");
    let reply = bed.broker.issue(&worker(), for_v.clone()).await.expect("issued");
    assert_eq!(reason(bed.broker.pick_up(&workload("stranger"), handle(&reply)).await), "NOT_FOUND");
    assert!(!bed.is_live(&lease(&reply)));
    let reply = bed.broker.issue(&worker(), for_v).await.expect("issued");
    bed.broker.pick_up(&workload("v"), handle(&reply)).await.expect("picked up");
    assert_eq!(bed.events("pickup.misused").len(), 2);
    let nobody =
        pb::IssueRequest { pickup: Some(pb::PickupWish { workload: "nobody".into(), ttl_seconds: 0 }), ..token() };
    assert_eq!(reason(bed.broker.issue(&worker(), nobody).await), "INVALID_FIELD");
    let long = pb::IssueRequest { pickup: Some(pb::PickupWish { ttl_seconds: 601, ..Default::default() }), ..token() };
    assert_eq!(reason(bed.broker.issue(&worker(), long).await), "INVALID_FIELD");
}

#[tokio::test]
async fn a_guessed_handle_ends_nothing_though_lease_ids_are_no_secret() {
    let bed = Bed::new().await;
    let reply = bed.broker.issue(&worker(), token()).await.expect("issued");
    let id = lease(&reply).lease_id.parse().expect("id");
    let forged = crate::mint::handle::Handle::fresh(id).expect("entropy").text().expose().to_owned();
    let forged = pb::PickupRequest { handle: forged };
    assert_eq!(reason(bed.broker.pick_up(&workload("v"), forged.clone()).await), "NOT_FOUND");
    // It does not come to the committer, which would say that it is held.
    bed.broker.ledger.holds().set(crate::ledger::Hold::Clock);
    assert_eq!(reason(bed.broker.pick_up(&workload("v"), forged).await), "NOT_FOUND");
    assert_ne!(reason(bed.broker.pick_up(&workload("v"), handle(&reply)).await), "NOT_FOUND");
    bed.broker.ledger.holds().clear(crate::ledger::Hold::Clock);
    assert!(bed.is_live(&lease(&reply)) && bed.events("pickup.misused").is_empty());
    bed.broker.pick_up(&workload("v"), handle(&reply)).await.expect("picked up");
}

#[tokio::test]
async fn a_secret_that_waits_is_in_nobodys_hands_until_it_is_taken_and_then_in_those_of_who_took_it() {
    let bed = Bed::new().await;
    let wished = pb::IssueRequest { pickup: Some(pb::PickupWish::default()), ..asked() };
    let reply = bed.broker.issue(&worker(), wished.clone()).await.expect("issued");
    assert!(bed.holders(false).await.is_empty());
    let taken = bed.broker.pick_up(&workload("v"), handle(&reply)).await.expect("picked up");
    assert_eq!(value(&taken), (1, VALUE.to_vec()));
    let [holder] = bed.holders(true).await.try_into().expect("one");
    assert_eq!((holder.workload.as_str(), holder.taken_by.as_str()), ("w", "v"));
    // Never taken: it went to nobody, so nothing needs to be rotated.
    bed.broker.issue(&worker(), wished).await.expect("issued");
    bed.hands.advance(Duration::from_secs(61));
    bed.broker.lapse_pickups().await.expect("lapses");
    assert_eq!(bed.holders(false).await.len(), 1);
    assert!(bed.events("secret.needs_rotation").is_empty());
    assert_eq!(reason(bed.broker.pick_up(&workload("v"), handle(&reply)).await), "PICKED_UP");
    assert_eq!(bed.events("secret.needs_rotation").len(), 1, "two have had it");
}

#[tokio::test]
async fn a_token_that_waits_is_bound_to_nobodys_certificate_unless_that_is_asked_for() {
    let bed = Bed::new().await;
    let reply = bed.broker.issue(&worker(), token()).await.expect("issued");
    assert!(lease(&reply).bound_sha256.is_empty());
    let bound = pb::IssueRequest { binding: pb::Binding::Certificate.into(), ..token() };
    assert!(!lease(&bed.broker.issue(&worker(), bound).await.expect("issued")).bound_sha256.is_empty());
}

#[tokio::test]
async fn an_explanation_says_whether_there_is_a_secret_to_hand_out() {
    let bed = Bed::new().await;
    let explain = async |name: &str| {
        let request = pb::ExplainRequest {
            tenant: "acme".into(),
            partner: "zeta".into(),
            workload: "w".into(),
            request: Some(pb::IssueRequest { secret: name.into(), ..asked() }),
        };
        bed.broker.explain(&operator("looker"), request).await.expect("explains")
    };
    assert!(explain("stripe").await.allowed);
    assert_eq!(explain("never-put").await.reason, "SECRET_UNAVAILABLE");
    assert_eq!(explain("other").await.reason, "SECRET_NOT_GRANTED");
}

#[tokio::test]
async fn an_explanation_for_who_comes_by_a_socket_alone_is_by_a_socket() {
    let bed = Bed::new().await;
    // A class whose secrets are given to who holds a key, or to a process of this host.
    let class = "[[resource_class]]\ntenant = \"acme\"\nname = \"financial\"\naudiences = [\"secret:stripe\"]\n\
                 ttl_max = \"1h\"\npurposes = [\"pay\"]\n";
    let job = |name: &str, selectors: &str| {
        format!(
            "[[workload]]\ntenant = \"acme\"\nname = \"{name}\"\nenvironment = \"prod\"\nselectors = [{selectors}]\n"
        )
    };
    let named = "workloads = [\"w\"]\n    purposes = [\"pay\"]";
    assert!(trust().contains(named));
    let text = trust().replace(named, "workloads = [\"w\", \"job\"]\n    purposes = [\"pay\"]");
    apply(&bed.broker, &format!("{text}{class}{}", job("job", "{ unix_uid = 1000 }"))).await;
    let explain = async |workload: &str| {
        let request = pb::ExplainRequest {
            tenant: "acme".into(),
            partner: "zeta".into(),
            workload: workload.into(),
            request: Some(pb::IssueRequest { secret: "stripe".into(), ..asked() }),
        };
        bed.broker.explain(&operator("looker"), request).await.expect("explains").reason
    };
    assert_eq!((explain("job").await.as_str(), explain("w").await.as_str()), ("", ""));
}

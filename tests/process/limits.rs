//! At a limit all is well; one past it is a clear refusal. A retry never leaves two live.

use mayfly::pb::{self, ApplyOptions, CredentialKind, IssueRequest};

use rcgen::KeyPair;
use time::{Duration, OffsetDateTime};

use super::{
    rig::{reason, refused, told},
    world::{World, is_active, issue, lease_of, request},
};

/// The world's trust map with another quota for each grant.
fn with_quota(world: &World, most: u32) -> String {
    let mut trust = String::new();
    // Only grants: the last `max_live_leases` of a table is theirs.
    for (at, table) in world.trust.split("[[").enumerate() {
        let table = if table.starts_with("grant]]") {
            table.replace("max_live_leases = 20000000", &format!("max_live_leases = {most}"))
        } else {
            table.to_owned()
        };
        trust += &if at == 0 { table } else { format!("[[{table}") };
    }
    assert_ne!(trust, world.trust);
    trust
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_refused_one_past_it_and_free_again_after_a_release() {
    let world = World::new().await;
    let trust = with_quota(&world, 3);
    world.apply(&trust, ApplyOptions::default()).await.expect("applies");
    let mut broker = world.broker("alpha").await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("within the quota"));
    }
    let past = issue(&mut broker, request("alpha", CredentialKind::Opaque)).await;
    assert_eq!(reason(&past), "QUOTA_USED_UP");
    issue(&mut world.broker("beta").await, request("beta", CredentialKind::Opaque)).await.expect("another grant");
    broker.release(pb::ReleaseRequest { lease_id: lease_of(&held[0]).lease_id }).await.expect("released");
    issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_never_leaves_two_live() {
    let world = World::new().await;
    let (mut broker, mut verifier) = (world.broker("alpha").await, world.verifier("alpha").await);
    for kind in super::world::KINDS {
        let keyed = IssueRequest { idempotency_key: format!("key-{kind:?}"), ..request("alpha", kind) };
        let first = issue(&mut broker, keyed.clone()).await.expect("issued");
        let second = issue(&mut broker, keyed.clone()).await.expect("retried");
        assert_ne!(lease_of(&first).lease_id, lease_of(&second).lease_id);
        assert!(!is_active(&mut verifier, &first).await, "{kind:?}: two are live");
        assert!(is_active(&mut verifier, &second).await, "{kind:?}: none is live");
        let other = IssueRequest { ttl_seconds: 77, ..keyed };
        assert_eq!(reason(&issue(&mut broker, other).await), "IDEMPOTENCY_KEY_REUSED");
        assert!(is_active(&mut verifier, &second).await, "{kind:?}: a mismatch ended a lease");
    }
    // Many at once: exactly one is left.
    let (keyed, mut calls) = (request("alpha", CredentialKind::Opaque), Vec::new());
    let keyed = IssueRequest { idempotency_key: "together".into(), ..keyed };
    for _ in 0..16 {
        let (mut broker, keyed) = (broker.clone(), keyed.clone());
        calls.push(tokio::spawn(async move { issue(&mut broker, keyed).await }));
    }
    let mut live = 0;
    let mut replies = Vec::new();
    for call in calls {
        replies.extend(call.await.expect("asked").ok());
    }
    for reply in &replies {
        live += usize::from(is_active(&mut verifier, reply).await);
    }
    assert_eq!(live, 1, "of {} answers", replies.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_beyond_its_rate_is_told_so_and_others_are_not() {
    let world = World::configured("[limits]\nrate_per_caller_per_second = 1\nrate_burst = 10\n").await;
    let mut broker = world.broker("alpha").await;
    let mut reasons = Vec::new();
    for _ in 0..30 {
        reasons.push(reason(&issue(&mut broker, request("alpha", CredentialKind::Opaque)).await));
    }
    assert!(reasons[..10].iter().all(String::is_empty), "refused within the burst: {reasons:?}");
    assert!(reasons.iter().any(|reason| reason == "TOO_MANY_REQUESTS"), "{reasons:?}");
    issue(&mut world.broker("beta").await, request("beta", CredentialKind::Opaque)).await.expect("another caller");
}

#[tokio::test(flavor = "multi_thread")]
async fn completing_a_task_frees_the_quota_of_its_child_tasks() {
    let world = World::new().await;
    world.apply(&with_quota(&world, 3), ApplyOptions::default()).await.expect("applies");
    let mut broker = world.broker("alpha").await;
    let (mut above, mut all) = (String::new(), Vec::new());
    for _ in 0..3 {
        let open = pb::OpenTaskRequest {
            tenant: "alpha".into(),
            partner: "courier".into(),
            purpose: "report".into(),
            parent_task_id: above,
            ..Default::default()
        };
        above = broker.open_task(open).await.expect("opened").into_inner().task.expect("a task").task_id;
        all.push(above.clone());
        let under = IssueRequest { task_id: above.clone(), ..request("alpha", CredentialKind::Opaque) };
        issue(&mut broker, under).await.expect("within the quota");
    }
    let past = issue(&mut broker, request("alpha", CredentialKind::Opaque)).await;
    assert_eq!(reason(&past), "QUOTA_USED_UP");
    broker.complete_task(pb::CompleteTaskRequest { task_id: all[0].clone() }).await.expect("completed");
    for _ in 0..3 {
        issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("room again");
    }
    let past = issue(&mut broker, request("alpha", CredentialKind::Opaque)).await;
    assert_eq!(reason(&past), "QUOTA_USED_UP", "freed twice");
    let again = broker.complete_task(pb::CompleteTaskRequest { task_id: all[2].clone() }).await.expect("completed");
    assert!(!again.into_inner().ended_now);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_known_by_the_clients_key_and_not_by_its_certificate() {
    let world = World::new().await;
    let (id, end) = ("spiffe://platform.example/alpha/worker", OffsetDateTime::now_utc() + Duration::days(1));
    let (key, other) = (KeyPair::generate().expect("key"), KeyPair::generate().expect("key"));
    let certified = |key: &KeyPair| world.authority.identity_of(key, id, end).expect("identity");
    let keyed = IssueRequest { idempotency_key: "renewed".into(), ..request("alpha", CredentialKind::Opaque) };
    let mut verifier = world.verifier("alpha").await;
    let first = issue(&mut world.broker_as(&certified(&key)).await, keyed.clone()).await.expect("issued");
    let second = issue(&mut world.broker_as(&certified(&key)).await, keyed.clone()).await.expect("retried");
    assert!(!is_active(&mut verifier, &first).await, "a renewed certificate made the retry a new request");
    let third = issue(&mut world.broker_as(&certified(&other)).await, keyed).await.expect("issued");
    assert!(is_active(&mut verifier, &second).await, "another key's request ended this lease");
    assert!(is_active(&mut verifier, &third).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_cannot_be_held_is_not_opened() {
    let world = World::configured("[limits]\nholds = 1\nhold_grace_seconds = 60\n").await;
    let mut broker = world.broker("alpha").await;
    let open = pb::OpenTaskRequest {
        tenant: "alpha".into(),
        partner: "courier".into(),
        purpose: "report".into(),
        hold: true,
        ..Default::default()
    };
    broker.open_task(open.clone()).await.expect("the one that may be held");
    let past = broker.open_task(open.clone()).await;
    assert_eq!(reason(&past), "UNAVAILABLE");
    let tasks = world.admin().await.list_tasks(pb::ListTasksRequest::default()).await.expect("listed");
    assert_eq!(tasks.into_inner().tasks.len(), 1, "it was opened all the same");
    broker.open_task(pb::OpenTaskRequest { hold: false, ..open }).await.expect("one that nobody holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_at_the_limit_is_read_and_one_past_it_is_not() {
    use prost::Message;
    let world = World::configured("[limits]\nrequest_bytes = 4096\n").await;
    let mut broker = world.broker("alpha").await;
    for (bytes, code) in [(4_096, tonic::Code::InvalidArgument), (4_097, tonic::Code::OutOfRange)] {
        let mut long = IssueRequest { generate_key: false, ..request("alpha", CredentialKind::X509) };
        long.csr_der = vec![0x30; 3_000].into();
        long.csr_der = vec![0x30; 3_000 + bytes - long.encoded_len()].into();
        assert_eq!(long.encoded_len(), bytes);
        let (found, message, _) = told(&refused(issue(&mut broker, long).await, "rubbish"));
        assert_eq!(found, code, "{bytes}: {message}");
        assert!(code != tonic::Code::OutOfRange || message.contains("4096"), "{message}");
    }
    issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("the connection goes on");
}

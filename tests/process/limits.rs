//! At a limit all is well; one past it is a clear refusal. A retry never leaves two live.

use mayfly::pb::{self, ApplyOptions, CredentialKind, IssueRequest};

use super::{
    rig::reason,
    world::{World, is_active, issue, lease_of, request},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_refused_one_past_it_and_free_again_after_a_release() {
    let world = World::new().await;
    let mut trust = String::new();
    // Only grants: the last `max_live_leases` of a table is theirs.
    for (at, table) in world.trust.split("[[").enumerate() {
        let table = if table.starts_with("grant]]") {
            table.replace("max_live_leases = 4000000", "max_live_leases = 3")
        } else {
            table.to_owned()
        };
        trust += &if at == 0 { table } else { format!("[[{table}") };
    }
    assert_ne!(trust, world.trust);
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

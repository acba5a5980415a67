//! Once a revoke has returned, nothing that it covers is live, and nothing of it comes back by itself.

use std::sync::{Arc, Mutex};

use mayfly::pb::{self, CredentialKind};

use super::{
    rig::{refused, told, until},
    world::{World, holder, is_active, issue, lease_of, lease_scope, partner_scope, request, revocation},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_partner_that_keeps_asking_obtains_nothing_live() {
    let world = World::new().await;
    let obtained = Arc::new(Mutex::new(Vec::new()));
    let mut asking = Vec::new();
    for at in 0..16 {
        let (mut broker, obtained) = (world.broker("alpha").await, Arc::clone(&obtained));
        let kind = [CredentialKind::Opaque, CredentialKind::Jwt][at % 2];
        asking.push(tokio::spawn(async move {
            let mut refused = 0;
            while refused < 20 {
                match issue(&mut broker, request("alpha", kind)).await {
                    Ok(reply) => obtained.lock().unwrap().push(reply),
                    Err(status) => {
                        assert_eq!(told(&status).2, "BARRED");
                        refused += 1;
                    }
                }
            }
        }));
    }
    until("300 credentials", || async { (obtained.lock().unwrap().len() >= 300).then_some(()) }).await;
    let mut admin = world.admin().await;
    let first = admin.revoke(revocation(partner_scope("alpha"))).await.expect("revoked").into_inner();
    let mut verifier = world.verifier("alpha").await;
    // Whatever was handed out until now, and whatever comes yet, is dead.
    let so_far = obtained.lock().unwrap().clone();
    for reply in so_far {
        assert!(!is_active(&mut verifier, &reply).await, "live after the revoke: {:?}", reply.lease);
    }
    for task in asking {
        task.await.expect("asked");
    }
    let all = obtained.lock().unwrap().clone();
    for reply in &all {
        assert!(!is_active(&mut verifier, reply).await, "live after the revoke: {:?}", reply.lease);
    }
    assert!(first.changed && first.barred);

    let again = admin.revoke(revocation(partner_scope("alpha"))).await.expect("revoked").into_inner();
    assert!(!again.changed, "a second revoke of the same changed something");
    assert_eq!((again.leases, again.revision), (0, first.revision));
    issue(&mut world.broker("beta").await, request("beta", CredentialKind::Jwt)).await.expect("another tenant's");

    let lift = pb::LiftRequest { scope: Some(partner_scope("alpha")), reason: "test".into(), ..Default::default() };
    admin.lift(lift).await.expect("lifted");
    let after = issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Jwt)).await.expect("issued");
    assert!(is_active(&mut verifier, &after).await);
    assert!(!is_active(&mut verifier, &all[0]).await, "lifting a bar revived what the cut had ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_exactly_what_ends_and_ends_nothing() {
    let world = World::new().await;
    let mut broker = world.broker("alpha").await;
    let mut all = Vec::new();
    for _ in 0..7 {
        all.push(issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("issued"));
    }
    broker.release(pb::ReleaseRequest { lease_id: lease_of(&all[0]).lease_id }).await.expect("released");
    issue(&mut world.broker("beta").await, request("beta", CredentialKind::Opaque)).await.expect("issued");
    let (mut admin, mut verifier) = (world.admin().await, world.verifier("alpha").await);
    let dry = pb::RevokeRequest { dry_run: true, ..revocation(partner_scope("alpha")) };
    let dry = admin.revoke(dry).await.expect("counted").into_inner();
    assert_eq!((dry.leases, dry.sample.len()), (6, 6));
    assert!(is_active(&mut verifier, &all[1]).await);
    let real = admin.revoke(revocation(partner_scope("alpha"))).await.expect("revoked").into_inner();
    assert_eq!(real.leases, dry.leases);
    for reply in &all {
        assert!(!is_active(&mut verifier, reply).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_certificate_and_all_that_came_of_it_die_together() {
    let world = World::new().await;
    let parent = issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::X509)).await.expect("issued");
    let mut thief = world.broker_as(&holder(&parent)).await;
    let offspring = issue(&mut thief, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    let nested = issue(&mut thief, request("alpha", CredentialKind::X509)).await.expect("issued");
    let grandchild =
        issue(&mut world.broker_as(&holder(&nested)).await, request("alpha", CredentialKind::Opaque)).await;
    let innocent =
        issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await.expect("own");

    let lease_id = lease_of(&parent).lease_id;
    world.admin().await.revoke(revocation(lease_scope(&lease_id))).await.expect("revoked");

    let mut verifier = world.verifier("alpha").await;
    for (what, reply) in [("certificate", &parent), ("token", &offspring), ("second certificate", &nested)] {
        assert!(!is_active(&mut verifier, reply).await, "the {what} lives on");
    }
    if let Ok(grandchild) = &grandchild {
        assert!(!is_active(&mut verifier, grandchild).await, "the grandchild lives on");
    }
    assert!(is_active(&mut verifier, &innocent).await, "another caller's lease ended too");
    refused(issue(&mut thief, request("alpha", CredentialKind::Opaque)).await, "the open connection is of no use");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_connection_of_a_cut_caller_is_of_no_use() {
    let world = World::new().await;
    let identity = world.identity("alpha/worker");
    let mut broker = world.broker_as(&identity).await;
    let reply = issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    let scope = pb::Scope { kind: pb::ScopeKind::Proof.into(), proof_sha256: identity.sha256(), ..Default::default() };
    world.admin().await.revoke(revocation(scope)).await.expect("revoked");
    for _ in 0..3 {
        refused(issue(&mut broker, request("alpha", CredentialKind::Opaque)).await, "cut");
    }
    assert!(!is_active(&mut world.verifier("alpha").await, &reply).await);
    let mut other = world.broker("alpha").await;
    issue(&mut other, request("alpha", CredentialKind::Opaque))
        .await
        .expect("another certificate of the same workload");
}

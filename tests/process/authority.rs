//! Changing the trust map: what it takes away ends in the same commit, and what operators closed stays closed.

use mayfly::pb::{self, ApplyOptions, CredentialKind};

use super::{
    rig::reason,
    world::{World, is_active, issue, partner_scope, request},
};

#[tokio::test(flavor = "multi_thread")]
async fn apply_does_not_lift_a_bar() {
    let world = World::new().await;
    let bar = pb::BarRequest { scope: Some(partner_scope("alpha")), suspend: true, reason: "test".into() };
    let mut broker = world.broker("alpha").await;
    let reply = issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    world.admin().await.bar(bar).await.expect("barred");
    let changed = world.trust.replace("task_max = 7200", "task_max = 7000");
    world.apply(&changed, ApplyOptions::default()).await.expect("applies");
    world.apply(&world.trust, ApplyOptions::default()).await.expect("applies");
    assert_eq!(reason(&issue(&mut broker, request("alpha", CredentialKind::Opaque)).await), "BARRED");
    assert!(!is_active(&mut world.verifier("alpha").await, &reply).await, "apply lifted a suspension");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrowed_or_removed_grant_ends_its_leases_in_the_same_commit() {
    let world = World::new().await;
    let narrowed = world.trust.replacen("kinds = [\"jwt\", \"opaque\", \"x509\"]", "kinds = [\"opaque\"]", 1);
    // The last grant of the map goes.
    let (before, grant) = world.trust.rsplit_once("[[grant]]").expect("a grant");
    let rest = grant.find("[[").map_or("", |at| &grant[at..]);
    let removed = format!("{before}{rest}");
    for (what, tenant, trust) in [("narrowed", "alpha", narrowed), ("removed", "gamma", removed)] {
        let mut broker = world.broker(tenant).await;
        let mut verifier = world.verifier(tenant).await;
        let reply = issue(&mut broker, request(tenant, CredentialKind::Opaque)).await.expect("issued");
        let dry = world.apply(&trust, ApplyOptions { dry_run: true, ..Default::default() }).await.expect("told");
        assert_eq!(dry.leases_ended, 1, "{what}: {:?}", dry.changes);
        assert!(is_active(&mut verifier, &reply).await, "{what}: a dry run ended a lease");
        let real = world.apply(&trust, ApplyOptions::default()).await.expect("applies");
        assert_eq!(real.leases_ended, 1, "{what}");
        assert!(!is_active(&mut verifier, &reply).await, "{what}: the lease lives on");
        world.apply(&world.trust, ApplyOptions::default()).await.expect("applies");
        assert!(!is_active(&mut verifier, &reply).await, "{what}: giving back revived what had ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_five_removals_need_the_flag() {
    let world = World::new().await;
    let extra = |count: usize| {
        (0..count).fold(world.trust.clone(), |text, at| {
            text + &format!(
                "[[workload]]\ntenant = \"alpha\"\nname = \"extra-{at}\"\nenvironment = \"prod\"\n\
                 selectors = [{{ spiffe_id = \"spiffe://platform.example/extra/{at}\", authority = \"platform\" }}]\n"
            )
        })
    };
    let options = |allow_removals| ApplyOptions { allow_removals, ..Default::default() };
    world.apply(&extra(5), options(0)).await.expect("adds");
    world.apply(&world.trust, options(0)).await.expect("five removals");
    world.apply(&extra(6), options(0)).await.expect("adds");
    let before = world.apply(&extra(6), options(0)).await.expect("the same again");
    assert_eq!(before.change_count, 0);
    world.apply(&world.trust, options(0)).await.expect_err("six removals");
    assert_eq!(world.apply(&extra(6), options(0)).await.expect("still there").change_count, 0, "half applied");
    world.apply(&world.trust, options(6)).await.expect("six removals, meant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trust_file_with_an_unknown_field_changes_nothing() {
    let world = World::new().await;
    let broken = world.trust.replacen("[[tenant]]", "[[tenant]]\ncolour = \"red\"", 1);
    world.apply(&broken, ApplyOptions::default()).await.expect_err("an unknown field");
    for missing in ["owner = ", "expires = ", "revokers = ", "purposes = "] {
        let at = world.trust.find(missing).expect("a field");
        let end = at + world.trust[at..].find('\n').expect("a line") + 1;
        let text = format!("{}{}", &world.trust[..at], &world.trust[end..]);
        world.apply(&text, ApplyOptions::default()).await.expect_err(missing);
    }
    let same = world.apply(&world.trust, ApplyOptions::default()).await.expect("applies");
    assert_eq!(same.change_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_scope_that_an_apply_cuts_has_its_event_in_the_same_commit() {
    let world = World::new().await;
    let narrowed = world.trust.replacen("ttl_max = 3600", "ttl_max = 600", 2);
    let options = ApplyOptions { reason: "shorter".into(), ..Default::default() };
    let revision = world.apply(&narrowed, options).await.expect("applies").revision;
    let asked = pb::ListEventsRequest { kind_prefix: "scope.narrowed".into(), ..Default::default() };
    let events = world.admin().await.list_events(asked).await.expect("listed").into_inner().events;
    let mut told: Vec<_> = events.iter().map(|event| (event.tenant.as_str(), event.details[0].as_str())).collect();
    told.sort_unstable();
    assert_eq!(told, [("alpha", "scope=grant alpha/report"), ("beta", "scope=grant beta/report")]);
    for event in &events {
        assert_eq!((event.actor.as_str(), event.reason.as_str()), ("operator:admin", "shorter"));
        assert_eq!(event.revision, revision);
    }
}

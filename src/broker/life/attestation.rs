//! Attestation and dormancy.

use super::*;

#[tokio::test]
async fn a_missed_attestation_suspends_what_lives_and_begins_nothing_though_no_sweep_ran() {
    let stage = Stage::new(TRUST).await;
    stage.pass(before_deadline(&stage));
    let issued = stage.issue().await;
    assert!(stage.is_active(&issued).await);
    stage.pass(minutes(11));
    assert!(!stage.is_active(&issued).await, "active after the deadline");
    assert_eq!(stage.standing(&issued, stage.broker.now()), Standing::Suspended);
    assert_eq!(stage.refusal("g").await, "ATTESTATION_OVERDUE");
    let renew = pb::RenewRequest { lease_id: issued.lease.to_string(), ..Default::default() };
    let refused = stage.broker.renew(&worker(), renew.clone()).await.err().expect("refused");
    assert_eq!(refused.reason(), "SUSPENDED");

    stage.attest(&admin(), "g", "2025-11-01T00:00:00Z").await.expect("attested");
    assert!(stage.is_active(&issued).await, "an attestation did not revive it");
    stage.issue().await;
    stage.broker.renew(&worker(), renew).await.expect("renewed");
}

#[tokio::test]
async fn a_written_lapse_outlasts_an_apply_and_an_earlier_clock_until_it_is_attested() {
    let stage = Stage::new(TRUST).await;
    stage.pass(before_deadline(&stage));
    let (issued, then) = (stage.issue().await, stage.broker.now());
    stage.pass(minutes(11));
    stage.tend().await;
    stage.tend().await;
    assert_eq!(stage.told("scope.suspended").await, 1);
    assert_eq!(stage.standing(&issued, then), Standing::Suspended, "an earlier time revives it");
    assert_eq!(stage.broker.ledger.suspensions().len(), 1, "offline verifiers are not told");

    apply(&stage.broker, &TRUST.replace("attest_by = 2025-09-01", "attest_by = 2025-11-30")).await;
    assert!(!stage.is_active(&issued).await, "an apply lifted a lapse");
    assert_eq!(stage.refusal("g").await, "ATTESTATION_OVERDUE");

    let reply = stage.attest(&admin(), "g", "2025-11-01T00:00:00Z").await.expect("attested");
    assert_eq!(reply.lifted, ["attestation overdue"]);
    assert!(stage.is_active(&issued).await && stage.broker.ledger.suspensions().is_empty());
    // What was attested at run time is not reset by the files: their date is past, and counts no more.
    apply(&stage.broker, TRUST).await;
    stage.issue().await;
}

#[tokio::test]
async fn only_who_speaks_for_the_owner_attests_where_the_trust_map_names_somebody() {
    let speaker = "[[operator]]\nname = \"ann\"\nrole = \"auditor\"\ntenants = \"all\"\npartners = \"all\"\n\
                   speaks_for = [\"owner@example.com\"]\n";
    let stage = Stage::new(&format!("{TRUST}\n{speaker}")).await;
    let refused = stage.attest(&admin(), "g", "2025-11-01T00:00:00Z").await.expect_err("refused");
    assert!(matches!(refused, Refusal::NotAllowed(_)), "{refused:?}");
    let refused = stage.attest(&operator("bob"), "g", "2025-11-01T00:00:00Z").await.expect_err("refused");
    assert!(matches!(refused, Refusal::Unproven(_)), "{refused:?}");
    stage.attest(&operator("ann"), "g", "2025-11-01T00:00:00Z").await.expect("attested");
}

#[tokio::test]
async fn an_attestation_without_a_date_takes_the_period_of_the_grant() {
    let stage = Stage::new(&TRUST.replace("owner = ", "attest_every = \"30d\"\n    owner = ")).await;
    let reply = stage.attest(&admin(), "g", "").await.expect("attested");
    let by = crate::broker::event::unstamp(&reply.attest_by.expect("a date"));
    assert_eq!(by, stage.broker.now().after(days(30)));
    let without = Stage::new(TRUST).await;
    let refused = without.attest(&admin(), "g", "").await.expect_err("refused");
    assert!(matches!(refused, Refusal::Invalid { field: "attest_by", .. }), "{refused:?}");
}

/// With a rule about use.
pub(super) fn sleepy() -> String {
    TRUST.replace("name = \"acme\"\n    max", "name = \"acme\"\n    dormant_after = \"30d\"\n    max")
}

#[tokio::test]
async fn a_grant_that_is_not_used_for_long_is_suspended_and_refuses_before_any_sweep() {
    let stage = Stage::new(&sleepy()).await;
    stage.tend().await;
    stage.pass(days(20));
    stage.issue().await;
    stage.pass(days(20));
    stage.tend().await;
    stage.issue().await;
    stage.pass(days(30));
    // No sweep has run since.
    assert_eq!(stage.refusal("g").await, "GRANT_DORMANT");
    stage.tend().await;
    assert_eq!(stage.broker.ledger.held_for(Suspension::Dormant), [grant().id()]);
    let listed = stage.inventory(pb::InventoryRequest { state: "dormant".into(), ..Default::default() }).await;
    assert_eq!(listed[0].suspended_for, ["dormant"]);
    let reply = stage.attest(&admin(), "g", "2025-11-01T00:00:00Z").await.expect("attested");
    assert_eq!(reply.lifted, ["dormant"]);
    stage.issue().await;
}

#[tokio::test]
async fn a_grant_that_was_never_used_becomes_dormant_and_without_a_rule_none_does() {
    let stage = Stage::new(&sleepy()).await;
    stage.pass(days(31));
    stage.tend().await;
    assert_eq!(stage.broker.ledger.held_for(Suspension::Dormant).len(), 1);
    let awake = Stage::new(TRUST).await;
    awake.tend().await;
    awake.pass(days(70));
    awake.tend().await;
    awake.issue().await;
}

#[tokio::test]
async fn the_last_use_is_read_back_from_its_row() {
    let stage = Stage::new(&sleepy()).await;
    stage.pass(days(10));
    stage.issue().await;
    let used = stage.broker.now();
    stage.broker.write_last_uses(false).await.expect("writes");
    let number = stage.broker.registry.number(&"acme".parse().expect("name")).expect("a number");
    let rows = stage.broker.ledger.grant_uses(number).expect("reads");
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].0.as_str(), rows[0].1.last_used), ("g", used.millis()));
    // Within the hour nothing is written again, but for a stop.
    stage.pass(minutes(5));
    stage.issue().await;
    stage.broker.write_last_uses(false).await.expect("writes");
    assert_eq!(stage.broker.ledger.grant_uses(number).expect("reads")[0].1.last_used, used.millis());
    stage.broker.write_last_uses(true).await.expect("writes");
    assert_eq!(stage.broker.ledger.grant_uses(number).expect("reads")[0].1.last_used, stage.broker.now().millis());
    // A registry that knows nothing yet learns it from the rows.
    let fresh = crate::broker::registry::Registry::load(&stage.broker.ledger).expect("loads");
    let tenant = fresh.by_number(&stage.broker.ledger, number).expect("reads").expect("is there");
    assert_eq!(tenant.uses[&"g".parse().expect("name")].at(), stage.broker.now());
}

#[tokio::test]
async fn a_tenant_that_was_never_asked_for_lapses_too() {
    let stage = Stage::new(TRUST).await;
    add_tenant(&stage.broker, "idle").await;
    let number = stage.broker.registry.number(&"acme".parse().expect("name")).expect("a number");
    stage.broker.registry.changed(&[("acme".parse().expect("name"), number)]);
    stage.pass(days(100));
    stage.tend().await;
    assert_eq!(stage.broker.ledger.held_for(Suspension::AttestationOverdue), [grant().id()]);
}

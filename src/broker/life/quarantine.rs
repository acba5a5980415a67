//! Quarantine, and reasons beside each other.

use super::*;
use crate::ledger::{Custody, CustodyDraft};

#[tokio::test]
async fn a_quarantine_suspends_until_it_is_lifted_and_an_apply_does_not_lift_it() {
    let workload = Scope::Workload("acme".parse().expect("name"), "w".parse().expect("name"));
    let tenant = Scope::Tenant("acme".parse().expect("name"));
    let in_tenant = Scope::PartnerInTenant("acme".parse().expect("name"), "zeta".parse().expect("name"));
    let partner = Scope::Partner("zeta".parse().expect("name"));
    for scope in [grant(), workload, tenant, in_tenant, partner] {
        let stage = Stage::new(TRUST).await;
        let issued = stage.issue().await;
        assert!(stage.quarantine(&scope, minutes(30), false).await.changed);
        assert!(!stage.is_active(&issued).await, "{scope}");
        assert_eq!(stage.refusal("g").await, "BARRED", "{scope}");
        apply(&stage.broker, &TRUST.replace("Zeta", "Zeta Ltd")).await;
        assert!(!stage.is_active(&issued).await, "an apply lifted the quarantine of {scope}");
        let lift = pb::LiftRequest {
            scope: Some(crate::broker::view::scope(&scope)),
            reason: "clean".into(),
            only_quarantine: true,
        };
        assert!(stage.broker.lift(&admin(), lift).await.expect("lifted").changed, "{scope}");
        assert!(stage.is_active(&issued).await, "{scope}");
        stage.issue().await;
    }
}

#[tokio::test]
async fn a_quarantine_whose_time_is_over_stays_closed_and_is_told_once() {
    let stage = Stage::new(TRUST).await;
    let issued = stage.issue().await;
    stage.quarantine(&grant(), minutes(10), false).await;
    for _ in 0..3 {
        stage.pass(minutes(10));
        stage.tend().await;
    }
    assert!(!stage.is_active(&issued).await && stage.refusal("g").await == "BARRED");
    assert_eq!((stage.told("quarantine.lapsed").await, stage.broker.lapsed_quarantines()), (1, 1));
}

#[tokio::test]
async fn an_automatic_lift_waits_for_its_time_and_for_a_clock_that_is_believed() {
    let stage = Stage::new(TRUST).await;
    let issued = stage.issue().await;
    stage.quarantine(&grant(), minutes(10), true).await;
    stage.pass(minutes(9));
    stage.tend().await;
    assert!(!stage.is_active(&issued).await, "lifted before its time");
    stage.pass(minutes(2));
    stage.broker.ledger.holds().set(Hold::Clock);
    stage.tend().await;
    assert!(!stage.is_active(&issued).await, "lifted on a time that nobody has confirmed");
    stage.broker.ledger.holds().clear(Hold::Clock);
    stage.tend().await;
    assert!(stage.is_active(&issued).await, "not lifted");
    assert_eq!(stage.told("quarantine.lapsed").await, 0);
}

#[tokio::test]
async fn a_bar_and_a_quarantine_of_one_scope_do_not_lift_each_other() {
    let stage = Stage::new(TRUST).await;
    let issued = stage.issue().await;
    let scope = Some(crate::broker::view::scope(&grant()));
    let bar = pb::BarRequest { scope: scope.clone(), suspend: true, reason: "for good".into() };
    stage.broker.bar(&admin(), bar).await.expect("barred");
    stage.quarantine(&grant(), minutes(1), true).await;
    stage.pass(minutes(2));
    stage.tend().await;
    assert!(stage.broker.ledger.held_for(Suspension::Quarantine).is_empty(), "the quarantine was not lifted");
    assert!(!stage.is_active(&issued).await, "the end of a quarantine lifted a bar");
    let bars = stage.broker.list_bars(&admin(), pb::ListBarsRequest::default()).await.expect("lists").bars;
    assert_eq!((bars.len(), bars[0].cause.as_str()), (1, ""));
}

#[tokio::test]
async fn each_reason_is_listed_once_whatever_the_size_of_the_page() {
    let stage = Stage::new(TRUST).await;
    stage.leave("owner@example.com", false).await;
    stage.quarantine(&grant(), minutes(10), false).await;
    let bar =
        pb::BarRequest { scope: Some(crate::broker::view::scope(&grant())), suspend: false, reason: "test".into() };
    stage.broker.bar(&admin(), bar).await.expect("barred");
    let (mut causes, mut token) = (Vec::new(), String::new());
    for _ in 0..9 {
        let page = Some(pb::Page { size: 1, token });
        let reply = stage.broker.list_bars(&admin(), pb::ListBarsRequest { page }).await.expect("lists");
        causes.extend(reply.bars.into_iter().map(|bar| bar.cause));
        token = reply.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(causes, ["", "quarantine", "owner left"]);
}

#[tokio::test]
async fn a_revoker_adds_to_a_quarantine_and_takes_nothing_from_it() {
    let revoker = "[[operator]]\nname = \"rita\"\nrole = \"revoker\"\ntenants = \"all\"\npartners = \"all\"\n";
    let stage = Stage::new(&format!("{TRUST}\n{revoker}")).await;
    let (rita, issued) = (operator("rita"), stage.issue().await);
    let stands = stage.quarantine(&grant(), minutes(10), false).await;
    let less = stage.quarantine_by(&rita, &grant(), minutes(1), true).await;
    assert!(!less.changed && less.until == stands.until, "{less:?}");
    stage.pass(minutes(2));
    stage.tend().await;
    assert!(!stage.is_active(&issued).await, "a revoker made it shorter");
    // Neither once its time is over.
    stage.pass(minutes(10));
    stage.tend().await;
    assert!(stage.quarantine_by(&rita, &grant(), minutes(1), true).await.changed);
    stage.pass(minutes(2));
    stage.tend().await;
    assert!(!stage.is_active(&issued).await, "a revoker had it lifted by itself");
    assert_eq!((stage.told("quarantine.lapsed").await, stage.broker.lapsed_quarantines()), (2, 1));
    stage.quarantine(&grant(), minutes(1), true).await;
    stage.pass(minutes(2));
    stage.tend().await;
    assert!(stage.is_active(&issued).await, "an admin may do both");
}

#[tokio::test]
async fn what_was_found_over_does_nothing_to_a_quarantine_that_was_changed_meanwhile() {
    for auto_lift in [true, false] {
        let stage = Stage::new(TRUST).await;
        let issued = stage.issue().await;
        stage.quarantine(&grant(), minutes(10), auto_lift).await;
        let row = stage.broker.ledger.suspension(grant().id(), Suspension::Quarantine).expect("reads").expect("stands");
        let seen = row.record.revision;
        stage.pass(minutes(11));
        stage.quarantine(&grant(), minutes(10), auto_lift).await;
        let act =
            if auto_lift { Custody::Expire { scope: grant(), seen } } else { Custody::Lapse { scope: grant(), seen } };
        let acts = vec![(act, pb::Event { kind: "test".into(), ..Default::default() })];
        let draft = CustodyDraft { acts, basis: None, now: stage.broker.now() };
        assert_eq!(stage.broker.ledger.custody(draft).await.expect("answers").0, 0, "{auto_lift}");
        assert!(!stage.is_active(&issued).await && stage.broker.lapsed_quarantines() == 0, "{auto_lift}");
    }
}

#[tokio::test]
async fn a_bar_goes_only_when_it_is_meant() {
    let stage = Stage::new(TRUST).await;
    let scope = Some(crate::broker::view::scope(&grant()));
    let bar = pb::BarRequest { scope: scope.clone(), suspend: true, reason: "for good".into() };
    stage.broker.bar(&admin(), bar).await.expect("barred");
    stage.quarantine(&grant(), minutes(10), false).await;
    let lift = |only_quarantine| pb::LiftRequest { scope: scope.clone(), reason: "clean".into(), only_quarantine };
    let refused = stage.broker.lift(&admin(), lift(false)).await.expect_err("refused");
    assert!(matches!(refused, Refusal::Invalid { field: "only_quarantine", .. }), "{refused:?}");
    assert!(stage.broker.lift(&admin(), lift(true)).await.expect("lifted").changed);
    assert_eq!(stage.refusal("g").await, "BARRED", "the bar went with the quarantine");
    assert!(stage.broker.lift(&admin(), lift(false)).await.expect("lifted").changed);
    stage.issue().await;
}

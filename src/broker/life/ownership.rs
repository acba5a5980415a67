//! Owners, and the end of integrations.

use super::*;
use crate::ledger::{Custody, CustodyDraft, Refused, TenantChange, TrustCommit};

#[tokio::test]
async fn a_transferred_grant_is_suspended_until_its_new_owner_attests() {
    let stage = Stage::new(&two()).await;
    let (issued, other) = (stage.issue().await, stage.ask("h").await.expect("issued"));
    let reply = stage.transfer("g", "new@example.com").await;
    assert_eq!((reply.owner_before.as_str(), reply.leases, reply.changed), ("owner@example.com", 1, true));
    assert!(!stage.is_active(&issued).await && stage.is_active(&other).await);
    assert_eq!(stage.refusal("g").await, "BARRED");
    assert!(!stage.transfer("g", "new@example.com").await.changed, "again changed something");
    let listed = stage.inventory(pb::InventoryRequest { owner: "new@example.com".into(), ..Default::default() }).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].suspended_for, ["transfer pending"]);
    assert_eq!(listed[0].owner_in_trust_map, "owner@example.com");
    // The files catch up: nothing more to attest than there is.
    apply(&stage.broker, &two().replace("owner = \"owner@example.com\"", "owner = \"new@example.com\"")).await;
    assert!(!stage.is_active(&issued).await, "an apply lifted it");
    let reply = stage.attest(&admin(), "g", "2025-08-01T00:00:00Z").await.expect("attested");
    assert_eq!(reply.lifted, ["transfer pending"]);
    assert!(stage.is_active(&issued).await);
}

const SECOND: &str = "[[operator]]\nname = \"olga\"\nrole = \"admin\"\ntenants = [\"acme\"]\npartners = \"all\"\n";

#[tokio::test]
async fn who_hands_a_grant_over_does_not_attest_it_too_where_somebody_else_can() {
    let until = "2025-08-01T00:00:00Z";
    let olga = operator("olga");
    // To itself, and to a name that nobody answers for, which is as good.
    for (to, by_apply) in [("admin", false), ("new@example.com", false), ("admin", true), ("new@example.com", true)] {
        let stage = Stage::new(&format!("{TRUST}{SECOND}")).await;
        if by_apply {
            let owner = format!("owner = \"{to}\"");
            let files = format!("{}{SECOND}", TRUST.replace("owner = \"owner@example.com\"", &owner));
            apply(&stage.broker, &files).await;
        } else {
            stage.transfer("g", to).await;
        }
        let refused = stage.attest(&admin(), "g", until).await.expect_err(to);
        assert!(matches!(refused, Refusal::NotAllowed(_)), "{refused:?}");
        assert_eq!(stage.refusal("g").await, "BARRED", "{to} {by_apply}");
        stage.attest(&olga, "g", until).await.expect(to);
        stage.issue().await;
        // Later it attests as ever.
        if to == "admin" {
            stage.attest(&admin(), "g", until).await.expect("the owner");
        }
    }
    // What counts is the last hand-over: who took it over from who had handed it over before is no way around.
    let stage = Stage::new(&format!("{TRUST}{SECOND}")).await;
    stage.transfer("g", "new@example.com").await;
    let to_olga = pb::TransferGrantRequest {
        tenant: "acme".into(),
        grant: "g".into(),
        owner: "olga".into(),
        dry_run: false,
        reason: "hers".into(),
    };
    stage.broker.transfer_grant(&olga, to_olga).await.expect("transferred");
    let refused = stage.attest(&olga, "g", until).await.expect_err("olga gave it to herself");
    assert!(matches!(refused, Refusal::NotAllowed(_)), "{refused:?}");
    stage.attest(&admin(), "g", until).await.expect("handed over only before");
    // Who is alone does both, and the audit says so.
    let stage = Stage::new(TRUST).await;
    stage.transfer("g", "admin").await;
    stage.attest(&admin(), "g", until).await.expect("nobody else is there");
}

#[tokio::test]
async fn people_of_one_operator_are_told_apart_when_a_grant_changes_hands() {
    let company = crate::broker::testing::Company::new(|_| ()).await;
    let stage = Stage { broker: Arc::clone(&company.broker), hands: Arc::clone(&company.hands) };
    apply(&stage.broker, &format!("{TRUST}{}", SECOND.replace("olga", "op-a"))).await;
    let (ann, bob) = (company.sign_in("ann", "a").await, company.sign_in("bob", "a").await);
    for to in ["ann@acme.example", "bob@acme.example"] {
        let request = pb::TransferGrantRequest {
            tenant: "acme".into(),
            grant: "g".into(),
            owner: to.into(),
            dry_run: false,
            reason: "team was split".into(),
        };
        stage.broker.transfer_grant(&ann, request).await.expect("transferred");
        let refused = stage.attest(&ann, "g", "2025-08-01T00:00:00Z").await.expect_err(to);
        assert!(matches!(refused, Refusal::NotAllowed(_)), "{to}: {refused:?}");
        stage.attest(&bob, "g", "2025-08-01T00:00:00Z").await.expect(to);
    }
}

#[tokio::test]
async fn an_apply_that_names_another_owner_suspends_until_that_owner_attests() {
    let stage = Stage::new(TRUST).await;
    let issued = stage.issue().await;
    apply(&stage.broker, &TRUST.replace("owner@example.com", "new@example.com")).await;
    assert!(!stage.is_active(&issued).await);
    assert_eq!(stage.told("grant.transferred").await, 1);
    stage.attest(&admin(), "g", "2025-08-01T00:00:00Z").await.expect("attested");
    assert!(stage.is_active(&issued).await);
}

#[tokio::test]
async fn an_owner_who_leaves_takes_nothing_of_other_owners_along() {
    let stage = Stage::new(&two()).await;
    let (issued, other) = (stage.issue().await, stage.ask("h").await.expect("issued"));
    let dry = stage.leave("owner@example.com", true).await;
    assert_eq!((dry.grant_count, dry.leases, dry.suspended), (1, 1, 0));
    assert!(stage.is_active(&issued).await, "a dry run suspended");
    assert_eq!(stage.leave("owner@example.com", false).await.suspended, 1);
    assert_eq!(stage.leave("owner@example.com", false).await.suspended, 0, "again changed something");
    assert!(!stage.is_active(&issued).await && stage.is_active(&other).await);
    assert_eq!(stage.told("owner.left").await, 1);
    // Who has left attests nothing, and it cannot be given back to who has left.
    let refused = stage.attest(&admin(), "g", "2025-08-01T00:00:00Z").await.expect_err("refused");
    assert!(matches!(refused, Refusal::Invalid { field: "grant", .. }), "{refused:?}");
    stage.transfer("g", "new@example.com").await;
    assert!(!stage.is_active(&issued).await, "a transfer alone lifted it");
    stage.attest(&admin(), "g", "2025-08-01T00:00:00Z").await.expect("attested");
    assert!(stage.is_active(&issued).await);
}

#[tokio::test]
async fn a_grant_that_is_named_after_who_has_left_waits_from_its_first_moment_for_somebody_else() {
    let stage = Stage::new(TRUST).await;
    let change = crate::broker::directory::UserChange {
        user_name: Some("other@example.com".to_owned()),
        active: Some(false),
        ..Default::default()
    };
    let user = stage.broker.add_user(change.clone(), None).await.expect("added");
    // Added in that name: closed at once. The other grant is untouched.
    apply(&stage.broker, &two()).await;
    assert_eq!((stage.refusal("h").await, stage.refusal("g").await), ("BARRED", ""));
    assert_eq!(stage.told("scope.suspended").await, 1);
    let request = pb::TransferGrantRequest {
        tenant: "acme".into(),
        grant: "g".into(),
        owner: "Other@example.com".into(),
        dry_run: false,
        reason: "by mistake".into(),
    };
    let refused = stage.broker.transfer_grant(&admin(), request).await.expect_err("refused");
    assert!(matches!(refused, Refusal::Invalid { field: "owner", .. }), "{refused:?}");
    // Given to somebody who is there, and attested, it goes on; an apply of the same files closes nothing again.
    apply(&stage.broker, &two().replace("other@example.com", "new@example.com")).await;
    stage.attest(&admin(), "h", "2025-08-01T00:00:00Z").await.expect("attested");
    assert_eq!(stage.refusal("h").await, "");
    // Back under the old owner while that one is gone, and then once the directory has that one again.
    apply(&stage.broker, &two()).await;
    assert_eq!(stage.refusal("h").await, "BARRED");
    let back = crate::broker::directory::UserChange { active: Some(true), ..Default::default() };
    stage.broker.change_user(&user.id.to_string(), back, None).await.expect("changed");
    apply(&stage.broker, &two().replace("name = \"h\"", "name = \"h2\"")).await;
    let held = |name: &str| {
        let scope = Scope::Grant("acme".parse().expect("name"), name.parse().expect("name"));
        stage.broker.ledger.scope(scope.id()).held.has(Suspension::OwnerLeft)
    };
    assert!(!held("h2"), "of who is there again");
}

#[tokio::test]
async fn an_offboarded_partner_ends_everywhere_stays_barred_and_takes_no_other_along() {
    let stage = Stage::new(&two()).await;
    let (issued, other) = (stage.issue().await, stage.ask("h").await.expect("issued"));
    let scope = Some(crate::broker::view::scope(&Scope::Partner("zeta".parse().expect("name"))));
    let request = |dry_run| pb::DecommissionRequest { scope: scope.clone(), dry_run, reason: "contract ended".into() };
    let dry = stage.broker.decommission(&admin(), request(true)).await.expect("counted");
    assert_eq!((dry.leases, dry.grant_count, dry.tenants), (1, 1, 1));
    assert!(stage.is_active(&issued).await, "a dry run ended");
    let real = stage.broker.decommission(&admin(), request(false)).await.expect("ended");
    assert!(real.changed && real.grants[0].grant == "g");
    assert!(!stage.broker.decommission(&admin(), request(false)).await.expect("again").changed);
    assert!(!stage.is_active(&issued).await && stage.is_active(&other).await);
    apply(&stage.broker, &two().replace("Zeta", "Zeta Ltd")).await;
    assert_eq!(stage.refusal("g").await, "BARRED");
    stage.ask("h").await.expect("another partner's");
    assert_eq!(stage.told("partner.offboarded").await, 1);
}

#[tokio::test]
async fn a_retired_grant_ends_and_a_closed_project_and_tenant_too() {
    let (tenant, partner) = ("acme".parse().expect("name"), "zeta".parse().expect("name"));
    let project = Scope::PartnerInTenant("acme".parse().expect("name"), partner);
    for (scope, kind, other_lives) in [
        (grant(), "grant.retired", true),
        (project, "partner.closed_out", true),
        (Scope::Tenant(tenant), "tenant.closed_out", false),
    ] {
        let stage = Stage::new(&two()).await;
        let (issued, other) = (stage.issue().await, stage.ask("h").await.expect("issued"));
        let request = pb::DecommissionRequest {
            scope: Some(crate::broker::view::scope(&scope)),
            dry_run: false,
            reason: "done".into(),
        };
        stage.broker.decommission(&admin(), request).await.expect("ended");
        assert!(!stage.is_active(&issued).await, "{scope}");
        assert_eq!(stage.is_active(&other).await, other_lives, "{scope}");
        assert_eq!(stage.told(kind).await, 1, "{scope}");
    }
}

/// The trust map up to its first table of a kind.
fn before(table: &str) -> &'static str {
    TRUST.split_once(table).expect("a table").0
}

#[tokio::test]
async fn who_takes_a_grant_away_and_puts_it_back_does_not_get_round_its_owner() {
    let other = TRUST.replace("owner@example.com", "new@example.com");
    for gone in ["[[grant]]", "[[tenant]]"] {
        let stage = Stage::new(TRUST).await;
        apply(&stage.broker, before(gone)).await;
        apply(&stage.broker, &other).await;
        assert_eq!(stage.refusal("g").await, "BARRED", "{gone}");
        assert_eq!(stage.told("grant.transferred").await, 1, "{gone}");
        stage.attest(&admin(), "g", "2025-08-01T00:00:00Z").await.expect("attested");
        stage.issue().await;
        // The same owner waits for nobody, one that it was transferred from does.
        apply(&stage.broker, before(gone)).await;
        apply(&stage.broker, &other).await;
        stage.issue().await;
        stage.transfer("g", "owner@example.com").await;
        stage.attest(&admin(), "g", "2025-08-01T00:00:00Z").await.expect("attested");
        stage.issue().await;
        apply(&stage.broker, before(gone)).await;
        apply(&stage.broker, &other).await;
        assert_eq!(stage.refusal("g").await, "BARRED", "{gone}");
    }
}

#[tokio::test]
async fn a_grant_that_comes_back_keeps_a_missed_date_and_no_later_one() {
    for tends in [false, true] {
        let stage = Stage::new(TRUST).await;
        stage.pass(days(100));
        if tends {
            stage.tend().await;
        }
        apply(&stage.broker, before("[[grant]]")).await;
        apply(&stage.broker, &TRUST.replace("attest_by = 2025-09-01", "attest_by = 2025-11-30")).await;
        assert_eq!(stage.refusal("g").await, "ATTESTATION_OVERDUE", "{tends}");
        stage.attest(&admin(), "g", "2025-11-01T00:00:00Z").await.expect("attested");
        stage.issue().await;
    }
    let stage = Stage::new(TRUST).await;
    stage.attest(&admin(), "g", "2025-11-30T00:00:00Z").await.expect("attested");
    apply(&stage.broker, before("[[grant]]")).await;
    apply(&stage.broker, TRUST).await;
    stage.issue().await;
    stage.pass(days(100));
    assert_eq!(stage.refusal("g").await, "ATTESTATION_OVERDUE", "it has inherited an attestation");
}

#[tokio::test]
async fn a_damaged_tenant_keeps_nobody_else_from_being_seen_to() {
    let stage = Stage::new(TRUST).await;
    let number = add_tenant(&stage.broker, "aaa").await;
    let name: crate::model::TenantName = "aaa".parse().expect("name");
    let damaged = TenantChange {
        number,
        name: name.clone(),
        trust: b"{".to_vec(),
        hash: Digest::default(),
        version: 2,
        removed: false,
        gone: vec![],
    };
    let commit =
        TrustCommit { tenants: vec![damaged], ..TrustCommit::new(stage.broker.ledger.basis().1, stage.broker.now()) };
    stage.broker.ledger.apply(commit, || ()).await.expect("applies");
    stage.broker.registry.changed(&[(name, number)]);
    assert_eq!(stage.leave("owner@example.com", false).await.suspended, 1);
    let partner = crate::broker::view::scope(&Scope::Partner("zeta".parse().expect("name")));
    let request = pb::DecommissionRequest { scope: Some(partner), dry_run: false, reason: "contract ended".into() };
    assert!(stage.broker.decommission(&admin(), request).await.expect("ended").changed);
    stage.pass(days(100));
    stage.tend().await;
    assert_eq!(stage.broker.ledger.held_for(Suspension::AttestationOverdue), [grant().id()]);
}

#[tokio::test]
async fn what_was_found_before_an_attestation_or_an_apply_suspends_nothing_after_it() {
    for attests in [true, false] {
        let stage = Stage::new(TRUST).await;
        let basis = Some(stage.broker.ledger.basis().1);
        if attests {
            stage.attest(&admin(), "g", "2025-08-01T00:00:00Z").await.expect("attested");
        } else {
            apply(&stage.broker, &TRUST.replace("attest_by = 2025-09-01", "attest_by = 2025-11-30")).await;
        }
        let act = Custody::Suspend {
            scope: grant(),
            cause: Suspension::AttestationOverdue,
            until: None,
            auto_lift: false,
            may_shorten: false,
            operator: "test".into(),
            reason: "test".into(),
        };
        let acts = vec![(act, pb::Event { kind: "test".into(), ..Default::default() })];
        let draft = CustodyDraft { acts, basis, now: stage.broker.now() };
        assert_eq!(stage.broker.ledger.custody(draft).await.map(|(changed, _)| changed), Err(Refused::Moved));
        stage.issue().await;
    }
}

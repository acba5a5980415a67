//! Owners who left, by an operator's word alone.

use super::*;
use crate::broker::people::Called;

const OWNER: &str = "owner@example.com";
const UNTIL: &str = "2025-08-01T00:00:00Z";
/// An admin of one partner's grants.
const LOCAL: &str = "[[operator]]\nname = \"local\"\nrole = \"admin\"\ntenants = [\"acme\"]\npartners = [\"zeta\"]\n";

/// [`two`] whose second grant is the owner's, too, of this partner.
fn both(partner: &str) -> String {
    let text = two().replace("other@example.com", OWNER);
    let (first, second) = text.rsplit_once("[[grant]]").expect("a grant");
    format!("{LOCAL}{first}[[grant]]{}", second.replace("partner = \"eta\"", &format!("partner = \"{partner}\"")))
}

impl Stage {
    async fn give(&self, grant: &str, owner: &str) -> Result<pb::TransferGrantResponse, Refusal> {
        let request = pb::TransferGrantRequest {
            tenant: "acme".into(),
            grant: grant.into(),
            owner: owner.into(),
            dry_run: false,
            reason: "moved".into(),
        };
        self.broker.transfer_grant(&admin(), request).await
    }

    async fn comes_back(&self, who: &Caller, dry_run: bool) -> pb::ReturnOwnerResponse {
        let request = pb::ReturnOwnerRequest { owner: OWNER.into(), dry_run, reason: "is back".into() };
        self.broker.return_owner(who, request).await.expect("returned")
    }

    async fn said_by(&self, who: &Caller) -> pb::LeaveOwnerResponse {
        let request = pb::LeaveOwnerRequest { owner: OWNER.into(), dry_run: false, reason: "left".into() };
        self.broker.leave_owner(who, request).await.expect("left")
    }

    fn held(&self, grant: &str) -> bool {
        let scope = Scope::Grant("acme".parse().expect("name"), grant.parse().expect("name"));
        self.broker.ledger.scope(scope.id()).held.has(Suspension::OwnerLeft)
    }
}

#[tokio::test]
async fn who_left_by_an_operators_word_is_given_no_grant_until_one_says_that_it_is_back() {
    let stage = Stage::new(TRUST).await;
    assert!(!stage.leave(OWNER, true).await.noted, "a dry run notes nothing");
    assert!(stage.leave(OWNER, false).await.noted);
    assert!(!stage.leave(&OWNER.to_uppercase(), false).await.noted, "it is known");
    stage.transfer("g", "new@example.com").await;
    stage.attest(&admin(), "g", UNTIL).await.expect("attested");
    assert_eq!(stage.refusal("g").await, "", "the file still names who left, and the transfer stands above it");
    // Added in that name, as often as it is applied; however it is spelt.
    let again = two().replace("other@example.com", "Owner@Example.com");
    for _ in 0..2 {
        apply(&stage.broker, &again).await;
        assert_eq!((stage.refusal("h").await, stage.refusal("g").await), ("BARRED", ""));
    }
    // Taken away and put back, and given by a file or by command.
    apply(&stage.broker, TRUST).await;
    apply(&stage.broker, &again).await;
    assert_eq!(stage.refusal("h").await, "BARRED");
    assert!(stage.attest(&admin(), "h", UNTIL).await.is_err(), "nobody attests for who has left");
    stage.transfer("h", "new@example.com").await;
    stage.attest(&admin(), "h", UNTIL).await.expect("attested");
    assert_eq!(stage.refusal("h").await, "");
    for grant in ["g", "h"] {
        let refused = stage.give(grant, OWNER).await.expect_err("refused");
        assert!(matches!(refused, Refusal::Invalid { field: "owner", .. }), "{refused:?}");
    }
    apply(&stage.broker, &two()).await;
    apply(&stage.broker, &again).await;
    assert!(stage.held("h"), "a file gave it back");
    // A directory that has somebody of the name does not undo an operator's word.
    let there = crate::broker::directory::UserChange {
        user_name: Some(OWNER.to_owned()),
        active: Some(true),
        ..Default::default()
    };
    stage.broker.add_user(there, None).await.expect("added");
    assert!(stage.give("g", OWNER).await.is_err());
    // Back: what was suspended for its leaving waits for its word, and what is given to it now as any hand-over.
    let dry = stage.comes_back(&admin(), true).await;
    assert_eq!((dry.changed, dry.grant_count, dry.revision), (true, 1, None));
    assert!(stage.held("h"), "a dry run changed something");
    let back = stage.comes_back(&admin(), false).await;
    assert_eq!((back.changed, back.still_noted, back.grants[0].grant.as_str()), (true, false, "h"));
    assert_eq!((stage.held("h"), stage.refusal("h").await), (false, "BARRED"), "it waits");
    assert_eq!(stage.attest(&admin(), "h", UNTIL).await.expect("attested").lifted, ["transfer pending"]);
    assert_eq!(stage.refusal("h").await, "");
    assert_eq!(stage.comes_back(&admin(), false).await, pb::ReturnOwnerResponse::default(), "again changed something");
    stage.give("g", OWNER).await.expect("transferred");
    assert_eq!((stage.told("owner.noted").await, stage.told("owner.returned").await), (1, 1));
}

#[tokio::test]
async fn an_operators_word_holds_within_its_scope_and_as_wide_a_one_takes_it_back() {
    let local = operator("local");
    let stage = Stage::new(&format!("{LOCAL}{TRUST}")).await;
    assert!(stage.said_by(&local).await.noted);
    apply(&stage.broker, &both("eta")).await;
    assert!(!stage.held("h"), "of another partner");
    assert!(stage.give("h", "new@example.com").await.is_ok() && stage.give("h", OWNER).await.is_ok());
    apply(&stage.broker, &both("zeta")).await;
    assert!(stage.held("h"), "moved to where it has left");
    // An admin of everything says so, too: that is not the other's to take back.
    assert!(stage.said_by(&admin()).await.noted);
    assert!(!stage.said_by(&local).await.noted, "it is known there");
    let little = stage.comes_back(&local, false).await;
    assert_eq!((little.changed, little.still_noted, little.grant_count), (false, true, 0));
    assert!(stage.held("g") && stage.held("h"));
    let all = stage.comes_back(&admin(), false).await;
    assert_eq!((all.changed, all.still_noted, all.grant_count), (true, false, 2));
    // Who looks only says nothing.
    let auditor = Stage::new(&format!("{}{TRUST}", LOCAL.replace("\"admin\"", "\"auditor\""))).await;
    let request = pb::LeaveOwnerRequest { owner: OWNER.into(), dry_run: false, reason: "left".into() };
    assert!(auditor.broker.leave_owner(&local, request).await.is_err());
    let request = pb::ReturnOwnerRequest { owner: OWNER.into(), dry_run: false, reason: "is back".into() };
    assert!(auditor.broker.return_owner(&local, request).await.is_err());
    assert!(auditor.leave(OWNER, false).await.noted, "nothing was noted before");
}

#[tokio::test]
async fn a_grant_that_one_who_left_hands_to_another_who_left_stays_suspended_for_it() {
    let stage = Stage::new(TRUST).await;
    for owner in [OWNER, "next@example.com"] {
        stage.leave(owner, false).await;
    }
    apply(&stage.broker, &TRUST.replace(OWNER, "next@example.com")).await;
    assert!(stage.held("g"));
    assert!(stage.attest(&admin(), "g", UNTIL).await.is_err());
    assert_eq!(stage.refusal("g").await, "BARRED");
}

#[tokio::test]
async fn that_an_owner_left_says_nothing_of_its_sign_in_and_outlasts_what_does() {
    let stage = Stage::new(TRUST).await;
    stage.leave(OWNER, false).await;
    let called = Called::by_name(OWNER);
    assert!(!stage.broker.people.is_closed_to(&called, stage.broker.now()));
    // What ends the sign-ins of the same person is a mark of its own, and is forgotten once it says nothing more.
    let out = pb::EndSignInsRequest { person: OWNER.into(), operator: String::new(), reason: "lost".into() };
    stage.broker.end_sign_ins(&admin(), out).await.expect("ended");
    assert_eq!(stage.broker.people.about(&called).len(), 2);
    stage.pass(days(10));
    let out = pb::EndSignInsRequest { person: "another".into(), operator: String::new(), reason: "lost".into() };
    stage.broker.end_sign_ins(&admin(), out).await.expect("ended");
    assert_eq!(stage.broker.people.about(&called).len(), 1);
    let (tenant, partner) = ("acme".parse().expect("name"), "zeta".parse().expect("name"));
    assert!(stage.broker.people.is_noted_as_left(OWNER, &tenant, &partner), "it was forgotten");
    assert_eq!(stage.broker.people.count(), 1, "it takes the room of nobody");
}

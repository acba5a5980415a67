//! Appeals against grants that were taken out of the trust map.

use super::*;
use crate::broker::testing::slip_in;

const NARROW: &str = r#"
    [[operator]]
    name = "of-zeta"
    role = "admin"
    tenants = ["acme"]
    partners = ["zeta"]
"#;

/// The trust map with its grant, or without.
fn files(has_grant: bool) -> String {
    let (before, _) = TRUST.split_once("[[grant]]").expect("a grant");
    format!("{OPERATORS}{NARROW}{}", if has_grant { TRUST } else { before })
}

impl Bed {
    /// With a grant in quarantine, and an appeal against that.
    async fn appealed() -> (Self, String) {
        let bed = Self::new().await;
        apply(&bed.broker, &files(true)).await;
        bed.broker.quarantine(&admin(), quarantine("odd", 20)).await.expect("quarantined");
        let filed = bed.file(&operator("op-z"), grant_scope()).await.expect("filed");
        (bed, id_of(&filed.appeal))
    }

    fn is_in_quarantine(&self) -> bool {
        let scope = Scope::Grant("acme".parse().expect("name"), "g".parse().expect("name"));
        self.broker.ledger.scope(scope.id()).held.has(Suspension::Quarantine)
    }

    /// Takes the grant away without telling the ledger, as a version before this one did.
    async fn take_away_quietly(&self) {
        slip_in(&self.broker, |text| {
            let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            json["grants"] = serde_json::json!({});
            json.to_string()
        })
        .await;
    }
}

#[tokio::test]
async fn an_appeal_ends_with_its_grant_and_lets_nothing_go_that_comes_back_under_the_name() {
    let (bed, id) = Bed::appealed().await;
    apply(&bed.broker, &files(false)).await;
    assert!(bed.listed(&admin()).await.is_empty());
    let closed = told(&bed.broker, "appeal.closed").await.pop().expect("told");
    assert_eq!((closed.tenant.as_str(), closed.grant.as_str(), closed.actor.as_str()), ("acme", "g", "broker"));
    assert!(closed.reason.contains("taken out of the trust map"), "{closed:?}");
    assert!(closed.details.contains(&format!("appeal={id}")), "{closed:?}");
    for granted in [true, false] {
        assert_eq!(bed.answer(&admin(), &id, granted).await, Err("NOT_FOUND"));
    }
    assert_eq!(bed.file(&operator("op-z"), grant_scope()).await.map(drop), Err("NOT_FOUND"), "nothing is there");
    apply(&bed.broker, &files(true)).await;
    assert_eq!(bed.answer(&admin(), &id, true).await, Err("NOT_FOUND"), "it was for what was there before");
    assert!(bed.is_in_quarantine(), "what is suspended stays so");
    bed.hands.advance(Duration::from_secs(1));
    let anew = bed.file(&operator("op-z"), grant_scope()).await.expect("against what stands now");
    assert!(anew.changed && id_of(&anew.appeal) != id);
    bed.answer(&admin(), &id_of(&anew.appeal), true).await.expect("granted");
    assert!(!bed.is_in_quarantine());
}

#[tokio::test]
async fn one_whose_grant_went_without_a_word_is_seen_and_refused_where_it_was_and_not_granted() {
    let (bed, id) = Bed::appealed().await;
    bed.take_away_quietly().await;
    for who in [admin(), operator("of-zeta"), operator("op-z")] {
        assert_eq!(bed.listed(&who).await.len(), 1);
    }
    assert!(bed.listed(&operator("op-y")).await.is_empty());
    for granted in [true, false] {
        assert_eq!(bed.answer(&operator("op-y"), &id, granted).await, Err("NOT_FOUND"));
        assert_eq!(bed.answer(&operator("op-z"), &id, granted).await, Err("NOT_ALLOWED"));
    }
    assert_eq!(bed.answer(&operator("of-zeta"), &id, true).await, Err("INVALID_FIELD"));
    assert!(bed.is_in_quarantine());
    bed.answer(&operator("of-zeta"), &id, false).await.expect("refused");
    assert_eq!(bed.listed(&admin()).await[0].standing, "refused");
}

#[tokio::test]
async fn what_was_looked_at_before_the_grant_went_is_neither_filed_nor_granted_after() {
    let (bed, id) = Bed::appealed().await;
    let basis = bed.broker.ledger.basis().1;
    let seen = bed.broker.ledger.appeals(&[], 16).expect("reads").0.pop().expect("one waits");
    assert_eq!(appeal_id(&seen), id);
    // Away and back again: the suspension is the same row.
    bed.take_away_quietly().await;
    apply(&bed.broker, &files(true)).await;
    let (scope, cause) = appealed(&seen).expect("named");
    let now = bed.broker.now();
    let answer = AppealAnswer {
        seen: seen.clone(),
        granted: true,
        by: "operator:admin".into(),
        reason: "seen".into(),
        event: event::own("appeal.granted", now),
        released: event::own("scope.released", now),
        basis,
        now,
    };
    assert_eq!(bed.broker.ledger.answer_appeal(answer).await.map(drop), Err(Refused::Moved));
    assert!(bed.is_in_quarantine());
    bed.answer(&admin(), &id, false).await.expect("refused");
    bed.hands.advance(days(1));
    let filing = |basis| AppealDraft {
        scope: scope.clone(),
        cause,
        tenant: "acme".into(),
        partner: "zeta".into(),
        appellant: "operator:op-z".into(),
        reason: "please".into(),
        event: event::own("appeal.filed", now),
        basis,
        now: bed.broker.now(),
    };
    assert_eq!(bed.broker.ledger.file_appeal(filing(basis)).await.map(drop), Err(Refused::Moved));
    bed.broker.ledger.file_appeal(filing(bed.broker.ledger.basis().1)).await.expect("looked at now");
}

mod gone;
mod people;

use std::{sync::Arc, time::Duration};

use super::*;
use crate::broker::testing::{Hands, TRUST, admin, apply, days, founded, operator, told, worker};

/// `op-z` may look at partner `zeta`, `op-y` may not; `lead` is a second admin; `who` speaks for the grant's owner and
/// reaches nothing.
const OPERATORS: &str = r#"
    [[operator]]
    name = "lead"
    role = "admin"
    tenants = "all"
    partners = "all"
    [[operator]]
    name = "op-z"
    role = "auditor"
    tenants = ["acme"]
    partners = ["zeta"]
    [[operator]]
    name = "op-y"
    role = "admin"
    tenants = ["elsewhere"]
    partners = ["zeta"]
    [[operator]]
    name = "who"
    role = "auditor"
    tenants = ["elsewhere"]
    partners = "all"
    speaks_for = ["owner@example.com"]
    [[tenant]]
    name = "elsewhere"
"#;

struct Bed {
    broker: Arc<Broker>,
    hands: Arc<Hands>,
    /// Suspended for its speed.
    task: String,
}

fn asking(task: &str) -> pb::IssueRequest {
    pb::IssueRequest {
        task_id: task.into(),
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "work".into(),
        kind: pb::CredentialKind::Opaque.into(),
        audiences: vec!["https://api.example".into()],
        ..Default::default()
    }
}

fn task_scope(task: &str) -> pb::Scope {
    pb::Scope { kind: pb::ScopeKind::Task.into(), task_id: task.into(), ..Default::default() }
}

fn grant_scope() -> pb::Scope {
    view::scope(&Scope::Grant("acme".parse().expect("name"), "g".parse().expect("name")))
}

fn filing(scope: pb::Scope) -> pb::FileAppealRequest {
    pb::FileAppealRequest { scope: Some(scope), cause: String::new(), reason: "a release, not a loop".into() }
}

fn own(task: &str) -> pb::AppealRequest {
    pb::AppealRequest { task_id: task.into(), reason: "a release, not a loop".into(), ..Default::default() }
}

impl Bed {
    async fn new() -> Self {
        let (broker, hands) = founded().await;
        // Operators go by the whole map: the tables of tenants come first.
        apply(&broker, &format!("{OPERATORS}{TRUST}velocity = {{ derivations = 1 }}\n")).await;
        let mut bed = Self { broker, hands, task: String::new() };
        bed.task = bed.suspended().await;
        bed
    }

    /// One more task that went too fast.
    async fn suspended(&self) -> String {
        let request = pb::OpenTaskRequest {
            tenant: "acme".into(),
            partner: "zeta".into(),
            purpose: "work".into(),
            ..Default::default()
        };
        let task = self.broker.open_task(&worker(), request).await.expect("opened").task.expect("a task").task_id;
        self.broker.issue(&worker(), asking(&task)).await.expect("the first");
        assert_eq!(self.tries(&task).await, "SUSPENDED");
        task
    }

    async fn tries(&self, task: &str) -> &'static str {
        self.broker.issue(&worker(), asking(task)).await.err().map_or("", |why| why.reason())
    }

    async fn listed(&self, who: &Caller) -> Vec<pb::Appeal> {
        self.broker.list_appeals(who, pb::ListAppealsRequest::default()).await.expect("lists").appeals
    }

    async fn answer(&self, who: &Caller, id: &str, granted: bool) -> Result<(), &'static str> {
        let request = pb::AnswerAppealRequest { appeal_id: id.into(), granted, reason: "looked at it".into() };
        self.broker.answer_appeal(who, request).await.map(drop).map_err(|why| why.reason())
    }

    async fn file(&self, who: &Caller, scope: pb::Scope) -> Result<pb::FileAppealResponse, &'static str> {
        self.broker.file_appeal(who, filing(scope)).await.map_err(|why| why.reason())
    }
}

fn id_of(appeal: &Option<pb::Appeal>) -> String {
    appeal.as_ref().expect("an appeal").appeal_id.clone()
}

#[tokio::test]
async fn what_the_broker_suspended_by_itself_says_by_which_rule_on_what_evidence_and_how_to_appeal() {
    let bed = Bed::new().await;
    let event = told(&bed.broker, "task.suspended").await.pop().expect("told");
    assert_eq!(event.actor, "broker");
    let way_out = format!("way_out=mayfly appeal file task {}", bed.task);
    for detail in ["rule=velocity.derivations", "limit=1", "count=2", "asked_by=workload:w", &way_out] {
        assert!(event.details.iter().any(|told| told == detail), "{detail} in {:?}", event.details);
    }
    bed.hands.advance(days(100));
    bed.broker.tend().await.expect("tends");
    let event = told(&bed.broker, "scope.suspended").await.pop().expect("told");
    assert_eq!(event.actor, "broker");
    for detail in ["rule=attest_by", "cause=attestation overdue", "way_out=mayfly appeal file grant acme/g"] {
        assert!(event.details.iter().any(|told| told == detail), "{detail} in {:?}", event.details);
    }
    assert!(event.details.iter().any(|told| told.starts_with("attest_by=2025-09-01")), "{:?}", event.details);
}

#[tokio::test]
async fn a_suspended_workload_asks_and_a_granted_appeal_lets_its_task_go_on() {
    let bed = Bed::new().await;
    let filed = bed.broker.appeal(&worker(), own(&bed.task)).await.expect("filed");
    assert!(filed.changed);
    assert_eq!(bed.tries(&bed.task).await, "SUSPENDED", "an appeal gives nothing");
    let seen = bed.listed(&admin()).await.pop().expect("listed");
    assert_eq!((seen.standing.as_str(), seen.cause.as_str()), ("open", "velocity"));
    assert_eq!((seen.appellant.as_str(), seen.suspended_by.as_str()), ("workload:w", "broker"));
    assert_eq!(seen.suspended_for, "velocity.derivations: 2 of at most 1");
    let id = id_of(&filed.appeal);
    bed.answer(&admin(), &id, true).await.expect("granted");
    assert_eq!(bed.tries(&bed.task).await, "", "it goes on");
    assert!(bed.listed(&admin()).await.is_empty());
    assert_eq!(bed.answer(&admin(), &id, true).await, Err("NOT_FOUND"), "once");
    let of_appeal = |event: &pb::Event| event.details.contains(&format!("appeal={id}"));
    let kinds = ["appeal.filed", "appeal.granted", "task.resumed"];
    for kind in kinds {
        let event = told(&bed.broker, kind).await.into_iter().find(of_appeal).expect(kind);
        assert_eq!(
            (event.tenant.as_str(), event.partner.as_str(), event.task_id.as_str()),
            ("acme", "zeta", &*bed.task)
        );
        assert!(!event.reason.is_empty());
    }
}

#[tokio::test]
async fn a_refused_appeal_stays_refused_for_a_day_and_is_told_with_its_reason() {
    let bed = Bed::new().await;
    let first = bed.broker.appeal(&worker(), own(&bed.task)).await.expect("filed");
    bed.answer(&admin(), &id_of(&first.appeal), false).await.expect("refused");
    assert_eq!(bed.tries(&bed.task).await, "SUSPENDED");
    let refused = bed.listed(&admin()).await.pop().expect("listed");
    assert_eq!((refused.standing.as_str(), refused.answer.as_str()), ("refused", "looked at it"));
    assert_eq!(refused.answered_by, "operator:admin");
    let only_open = pb::ListAppealsRequest { only_open: true, ..Default::default() };
    assert!(bed.broker.list_appeals(&admin(), only_open).await.expect("lists").appeals.is_empty());
    assert_eq!(bed.answer(&admin(), &id_of(&first.appeal), true).await, Err("NOT_FOUND"), "it was answered");
    // The task lives two hours; a quarantine stands longer.
    let scope = Scope::Grant("acme".parse().expect("name"), "g".parse().expect("name"));
    let quarantine = pb::QuarantineRequest {
        scope: Some(view::scope(&scope)),
        duration_seconds: 5 * 86_400,
        auto_lift: false,
        reason: "odd".into(),
    };
    bed.broker.quarantine(&admin(), quarantine).await.expect("quarantined");
    let filed = bed.file(&operator("op-z"), grant_scope()).await.expect("filed");
    bed.answer(&admin(), &id_of(&filed.appeal), false).await.expect("refused");
    bed.hands.advance(days(1) - Duration::from_secs(1));
    assert_eq!(bed.file(&operator("op-z"), grant_scope()).await.map(drop), Err("INVALID_FIELD"));
    bed.hands.advance(Duration::from_secs(1));
    let again = bed.file(&operator("op-z"), grant_scope()).await.expect("a day later");
    assert!(again.changed && id_of(&again.appeal) != id_of(&filed.appeal));
    let filings = told(&bed.broker, "appeal.filed").await;
    assert_eq!(filings.iter().filter(|event| event.grant == "g").count(), 2, "what was not taken is not told");
}

#[tokio::test]
async fn one_appeal_waits_against_one_suspension_whoever_asks_and_it_is_told_once() {
    let bed = Bed::new().await;
    let first = bed.broker.appeal(&worker(), own(&bed.task)).await.expect("filed");
    let second = bed.file(&operator("op-z"), task_scope(&bed.task)).await.expect("the same");
    assert!(!second.changed && second.appeal == first.appeal);
    assert!(!bed.broker.appeal(&worker(), own(&bed.task)).await.expect("the same").changed);
    assert_eq!(told(&bed.broker, "appeal.filed").await.len(), 1);
    let other = bed.suspended().await;
    assert!(bed.broker.appeal(&worker(), own(&other)).await.expect("another suspension").changed);
}

#[tokio::test]
async fn who_filed_an_appeal_does_not_answer_it_nor_who_may_not_lift() {
    let bed = Bed::new().await;
    let filed = bed.file(&admin(), task_scope(&bed.task)).await.expect("filed");
    let id = id_of(&filed.appeal);
    for (who, reason) in
        [("admin", "NOT_ALLOWED"), ("op-z", "NOT_ALLOWED"), ("op-y", "NOT_FOUND"), ("who", "NOT_FOUND")]
    {
        let who = if who == "admin" { admin() } else { operator(who) };
        for granted in [true, false] {
            assert_eq!(bed.answer(&who, &id, granted).await, Err(reason));
        }
    }
    assert!(bed.answer(&worker(), &id, true).await.is_err());
    assert_eq!(bed.tries(&bed.task).await, "SUSPENDED");
    bed.answer(&operator("lead"), &id, true).await.expect("somebody else");
    assert_eq!(bed.tries(&bed.task).await, "");
}

#[tokio::test]
async fn who_is_not_concerned_learns_nothing_and_who_speaks_for_the_owner_is() {
    let bed = Bed::new().await;
    let nobody = task_scope("400000010000000000000001");
    for who in ["op-y", "who"] {
        let why = bed.file(&operator(who), task_scope(&bed.task)).await.map(drop);
        assert_eq!(why, bed.file(&operator(who), nobody.clone()).await.map(drop), "{who}");
        assert_eq!(why, Err("NOT_FOUND"), "{who}");
    }
    // Not suspended, not there and not theirs look the same, to workloads too.
    let of_grant = |grant: &str| pb::AppealRequest {
        tenant: "acme".into(),
        grant: grant.into(),
        reason: "please".into(),
        ..Default::default()
    };
    for grant in ["g", "none"] {
        let why = bed.broker.appeal(&worker(), of_grant(grant)).await.expect_err("nothing is suspended");
        assert_eq!(why.to_string(), "no such suspension");
    }
    bed.hands.advance(days(100));
    bed.broker.tend().await.expect("tends");
    let filed = bed.file(&operator("who"), grant_scope()).await.expect("the owner's voice");
    assert!(filed.changed);
    assert_eq!(bed.listed(&operator("who")).await.len(), 1);
    assert!(bed.listed(&operator("op-y")).await.is_empty());
    assert!(!bed.broker.appeal(&worker(), of_grant("g")).await.expect("concerned").changed);
}

#[tokio::test]
async fn an_appeal_is_no_way_around_an_attestation_and_an_attestation_answers_it() {
    let bed = Bed::new().await;
    bed.hands.advance(days(100));
    bed.broker.tend().await.expect("tends");
    let id = id_of(&bed.file(&operator("op-z"), grant_scope()).await.expect("filed").appeal);
    assert_eq!(bed.answer(&admin(), &id, true).await, Err("INVALID_FIELD"));
    assert_eq!(bed.listed(&admin()).await.len(), 1, "it still waits");
    let attest = pb::AttestRequest {
        tenant: "acme".into(),
        grant: "g".into(),
        attest_by: Timestamp::parse_rfc3339("2025-11-01T00:00:00Z").map(event::stamp),
        reason: "still needed".into(),
    };
    bed.broker.attest(&operator("who"), attest).await.expect("attests");
    assert!(bed.listed(&admin()).await.is_empty());
    let closed = told(&bed.broker, "appeal.closed").await.pop().expect("answered");
    assert_eq!((closed.tenant.as_str(), closed.actor.as_str()), ("acme", "broker"));
    assert!(
        closed.details.contains(&format!("appeal={id}"))
            && closed.details.contains(&"filed_by=operator:op-z".to_owned())
    );
    assert_eq!(bed.answer(&admin(), &id, true).await, Err("NOT_FOUND"));
}

#[tokio::test]
async fn a_lift_answers_an_appeal_and_one_that_was_refused_is_forgotten_without_a_word() {
    let bed = Bed::new().await;
    let lift =
        |task: &str| pb::LiftRequest { scope: Some(task_scope(task)), reason: "looked".into(), only_quarantine: false };
    bed.broker.appeal(&worker(), own(&bed.task)).await.expect("filed");
    bed.broker.lift(&admin(), lift(&bed.task)).await.expect("lifted");
    assert!(bed.listed(&admin()).await.is_empty());
    assert_eq!(told(&bed.broker, "appeal.closed").await.len(), 1);
    let other = bed.suspended().await;
    let filed = bed.broker.appeal(&worker(), own(&other)).await.expect("filed");
    bed.answer(&admin(), &id_of(&filed.appeal), false).await.expect("refused");
    bed.broker.lift(&admin(), lift(&other)).await.expect("lifted");
    assert!(bed.listed(&admin()).await.is_empty());
    assert_eq!(told(&bed.broker, "appeal.closed").await.len(), 1, "it had its answer");
    // One whose task is over and swept is over, too.
    let last = bed.suspended().await;
    bed.broker.appeal(&worker(), own(&last)).await.expect("filed");
    bed.hands.advance(days(1));
    bed.broker.sweep_all().await.expect("sweeps");
    assert!(bed.listed(&admin()).await.is_empty());
    assert_eq!(told(&bed.broker, "appeal.closed").await.len(), 2);
}

#[tokio::test]
async fn words_are_one_line_and_bounded_and_no_secret() {
    let bed = Bed::new().await;
    let long = "x".repeat(513);
    let secret = format!("token ghp_{}", "a1B2".repeat(9));
    for bad in ["", "   ", "a\nb", &long, &secret] {
        let request = pb::AppealRequest { reason: bad.into(), ..own(&bed.task) };
        assert_eq!(
            bed.broker.appeal(&worker(), request).await.expect_err("refused").reason(),
            "INVALID_FIELD",
            "{bad}"
        );
        let request = pb::FileAppealRequest { reason: bad.into(), ..filing(task_scope(&bed.task)) };
        assert_eq!(
            bed.broker.file_appeal(&admin(), request).await.expect_err("refused").reason(),
            "INVALID_FIELD",
            "{bad}"
        );
    }
    let most = pb::AppealRequest { reason: "x".repeat(512), ..own(&bed.task) };
    let id = id_of(&bed.broker.appeal(&worker(), most).await.expect("512 bytes").appeal);
    let answer = pb::AnswerAppealRequest { appeal_id: id, granted: true, reason: "a\nb".into() };
    assert_eq!(bed.broker.answer_appeal(&admin(), answer).await.expect_err("refused").reason(), "INVALID_FIELD");
}

#[tokio::test]
async fn one_caller_has_sixteen_appeals_waiting_and_not_one_more() {
    let bed = Bed::new().await;
    let mut ids = vec![id_of(&bed.broker.appeal(&worker(), own(&bed.task)).await.expect("1").appeal)];
    for at in 2..=16 {
        let task = bed.suspended().await;
        ids.push(id_of(
            &bed.broker.appeal(&worker(), own(&task)).await.unwrap_or_else(|why| panic!("{at}: {why}")).appeal,
        ));
    }
    let task = bed.suspended().await;
    assert_eq!(bed.broker.appeal(&worker(), own(&task)).await.expect_err("the 17th").reason(), "QUOTA_USED_UP");
    bed.file(&operator("op-z"), task_scope(&task)).await.expect("others have room of their own");
    bed.answer(&admin(), &ids[0], false).await.expect("answered");
    let task = bed.suspended().await;
    assert!(bed.broker.appeal(&worker(), own(&task)).await.expect("room again").changed);
}

fn quarantine(reason: &str, for_days: u32) -> pb::QuarantineRequest {
    pb::QuarantineRequest {
        scope: Some(grant_scope()),
        duration_seconds: for_days * 86_400,
        auto_lift: false,
        reason: reason.into(),
    }
}

#[tokio::test]
async fn an_appeal_that_is_granted_lifts_what_it_was_against_and_nothing_declared_since() {
    let bed = Bed::new().await;
    bed.broker.quarantine(&admin(), quarantine("odd", 2)).await.expect("quarantined");
    let first = bed.file(&operator("op-z"), grant_scope()).await.expect("filed");
    bed.broker.quarantine(&operator("lead"), quarantine("a leak, confirmed", 20)).await.expect("again");
    assert_eq!(bed.answer(&admin(), &id_of(&first.appeal), true).await, Err("NOT_FOUND"));
    let held = bed.file(&operator("op-z"), grant_scope()).await.expect("against what stands now");
    assert!(held.changed && held.appeal.as_ref().expect("one").suspended_for == "a leak, confirmed");
    bed.answer(&admin(), &id_of(&held.appeal), true).await.expect("granted");
    assert_eq!(bed.file(&operator("op-z"), grant_scope()).await.map(drop), Err("NOT_FOUND"), "it is lifted");
}

#[tokio::test]
async fn a_workload_is_not_told_which_person_suspended_it_and_in_which_words_and_operators_are() {
    let bed = Bed::new().await;
    bed.broker.quarantine(&admin(), quarantine("the runner is suspected", 2)).await.expect("quarantined");
    let of_grant = pb::AppealRequest {
        tenant: "acme".into(),
        grant: "g".into(),
        reason: "please".into(),
        cause: "quarantine".into(),
        ..Default::default()
    };
    let told = bed.broker.appeal(&worker(), of_grant.clone()).await.expect("filed").appeal.expect("one");
    assert_eq!((told.suspended_by.as_str(), told.suspended_for.as_str(), told.reason.as_str()), ("", "", "please"));
    let listed = bed.listed(&operator("op-z")).await.pop().expect("of its partner");
    assert_eq!((listed.suspended_by.as_str(), listed.suspended_for.as_str()), ("admin", "the runner is suspected"));
    assert_eq!((listed.partner.as_str(), listed.appellant.as_str()), ("zeta", "workload:w"));
    // What somebody else has said for it is not the workload's either.
    bed.answer(&admin(), &listed.appeal_id, false).await.expect("refused");
    bed.hands.advance(days(1));
    bed.file(&operator("op-z"), grant_scope()).await.expect("filed");
    let waits = bed.broker.appeal(&worker(), of_grant).await.expect("it waits").appeal.expect("one");
    assert_eq!((waits.appellant.as_str(), waits.reason.as_str()), ("", ""));
}

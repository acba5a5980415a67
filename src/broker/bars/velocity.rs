//! Limits of speed and reach as laws.

use std::sync::Arc;

use crate::{
    broker::{
        Broker,
        testing::{TRUST, admin, apply, founded, worker},
    },
    model::{Lease, LeaseId, Standing},
    pb,
};

async fn bed(limits: &str) -> (Arc<Broker>, impl Fn(u64)) {
    let (broker, hands) = founded().await;
    let trust = TRUST.replace(
        "[\"https://api.example\"]",
        "[\"https://a\", \"https://b\", \"https://c\", \"https://d\", \"https://api.example\"]",
    );
    apply(&broker, &format!("{trust}velocity = {{ {limits} }}\n")).await;
    (broker, move |seconds| hands.advance(std::time::Duration::from_secs(seconds)))
}

fn asking(task: &str, audience: &str) -> pb::IssueRequest {
    pb::IssueRequest {
        task_id: task.into(),
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "work".into(),
        kind: pb::CredentialKind::Opaque.into(),
        audiences: vec![audience.into()],
        ..Default::default()
    }
}

async fn open(broker: &Broker, parent: &str) -> Result<String, &'static str> {
    let request = pb::OpenTaskRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "work".into(),
        parent_task_id: parent.into(),
        ..Default::default()
    };
    let opened = broker.open_task(&worker(), request).await.map_err(|why| why.reason())?;
    Ok(opened.task.expect("task").task_id)
}

async fn issue(broker: &Broker, task: &str, audience: &str) -> Result<Lease, &'static str> {
    let issued = broker.issue(&worker(), asking(task, audience)).await.map_err(|why| why.reason())?;
    let id: LeaseId = issued.lease.expect("lease").lease_id.parse().expect("id");
    Ok(broker.ledger.lease(id).expect("reads").expect("there"))
}

fn standing(broker: &Broker, lease: &Lease) -> Standing {
    broker.ledger.lease_standing(lease, broker.now()).expect("reads")
}

fn scope(task: &str) -> Option<pb::Scope> {
    Some(pb::Scope { kind: pb::ScopeKind::Task.into(), task_id: task.into(), ..Default::default() })
}

async fn told(broker: &Broker) -> Vec<pb::Event> {
    let request = pb::ListEventsRequest { kind_prefix: "task.".into(), ..Default::default() };
    broker.list_events(&admin(), request).await.expect("listed").events
}

#[tokio::test]
async fn a_task_that_goes_too_fast_is_suspended_and_told_until_an_operator_lets_it_go_on() {
    let (broker, wait) = bed("derivations_per_minute = 3").await;
    let task = open(&broker, "").await.expect("opened");
    let first = issue(&broker, &task, "https://a").await.expect("1");
    issue(&broker, &task, "https://a").await.expect("2");
    issue(&broker, &task, "https://a").await.expect("3");
    assert_eq!(issue(&broker, &task, "https://a").await, Err("SUSPENDED"));
    assert_eq!(standing(&broker, &first), Standing::Suspended, "what it has, too");
    wait(120);
    assert_eq!(issue(&broker, &task, "https://a").await, Err("SUSPENDED"), "time alone lifts nothing");

    let events = told(&broker).await;
    let event = events.iter().find(|event| event.kind == "task.suspended").expect("told");
    assert_eq!(event.task_id, task);
    for detail in
        ["rule=velocity.derivations_per_minute", "limit=3", "count=4", "cause=velocity", "asked_by=workload:w"]
    {
        assert!(event.details.iter().any(|told| told == detail), "{detail} in {:?}", event.details);
    }

    let lift = pb::LiftRequest { scope: scope(&task), reason: "looked".into(), only_quarantine: false };
    assert!(broker.lift(&admin(), lift.clone()).await.expect("lifted").changed);
    assert!(!broker.lift(&admin(), lift).await.expect("again").changed);
    assert_eq!(standing(&broker, &first), Standing::Live);
    issue(&broker, &task, "https://a").await.expect("it goes on");
    assert!(told(&broker).await.iter().any(|event| event.kind == "task.resumed"));
}

#[tokio::test]
async fn child_tasks_are_no_way_around_a_limit() {
    let (broker, _) = bed("derivations = 4").await;
    let task = open(&broker, "").await.expect("opened");
    let child = open(&broker, &task).await.expect("1");
    let below = open(&broker, &child).await.expect("2");
    let lease = issue(&broker, &below, "https://a").await.expect("3");
    issue(&broker, &task, "https://a").await.expect("4");
    assert_eq!(open(&broker, &below).await, Err("SUSPENDED"));
    assert_eq!(standing(&broker, &lease), Standing::Suspended, "the whole tree");
    open(&broker, "").await.expect("other tasks go on");
}

#[tokio::test]
async fn a_task_that_reaches_too_far_is_suspended() {
    let (broker, wait) = bed("resources_per_minute = 2, resources = 3").await;
    let task = open(&broker, "").await.expect("opened");
    for audience in ["https://a", "https://b", "https://a"] {
        issue(&broker, &task, audience).await.expect(audience);
    }
    wait(61);
    issue(&broker, &task, "https://c").await.expect("a minute later");
    wait(61);
    assert_eq!(issue(&broker, &task, "https://d").await, Err("SUSPENDED"), "the fourth in all");

    let fast = open(&broker, "").await.expect("opened");
    issue(&broker, &fast, "https://a").await.expect("1");
    issue(&broker, &fast, "https://b").await.expect("2");
    assert_eq!(issue(&broker, &fast, "https://c").await, Err("SUSPENDED"), "the third in a minute");
}

#[tokio::test]
async fn without_limits_nothing_is_counted() {
    let (broker, _) = bed("derivations = 1").await;
    apply(&broker, TRUST).await;
    let task = open(&broker, "").await.expect("opened");
    for _ in 0..5 {
        issue(&broker, &task, "https://api.example").await.expect("free");
    }
    let row = broker.ledger.task(task.parse().expect("id")).expect("reads").expect("there");
    assert_eq!(row.pace, None);
}

use super::*;
use crate::{
    broker::testing::{add_tenant, founded},
    ledger::OpenDraft,
    model::{TenantNumber, Velocity},
};

async fn open(broker: &Broker, number: TenantNumber) -> Task {
    let now = broker.now();
    let task = Task {
        id: TaskId::fresh(number).expect("entropy"),
        tenant: "acme".parse().expect("name"),
        partner: "zeta".parse().expect("name"),
        workload: "w".parse().expect("name"),
        purpose: "work".parse().expect("name"),
        parent: None,
        opened: now,
        deadline: now.after(Duration::from_secs(3_600)),
        ended: None,
        held: false,
        leases_issued: 0,
        live: vec![],
        basis: broker.ledger.basis(),
        proofs: vec![],
        parent_lease: None,
        client_key: None,
        opened_with: None,
        job_url: None,
        intent: None,
        approvals: vec![],
        pace: None,
        limits: None,
        secrets: Vec::new(),
        secrets_overflow: false,
    };
    let draft = OpenDraft {
        task: task.clone(),
        through: Vec::new(),
        retry: None,
        spend: None,
        approval: None,
        velocity: Velocity::default(),
        event: event::own("task.opened", now),
        now,
    };
    broker.ledger.open_task(draft).await.expect("opens");
    broker.ledger.hold(task.id, now).await.expect("held");
    task
}

fn standing(broker: &Broker, task: &Task) -> Standing {
    let task = broker.ledger.task(task.id).expect("reads").expect("is there");
    broker.ledger.task_standing(&task, broker.now()).expect("reads")
}

#[tokio::test]
async fn an_abandoned_task_ends_once_and_says_so() {
    let (broker, _) = founded().await;
    let task = open(&broker, add_tenant(&broker, "acme").await).await;
    assert!(standing(&broker, &task).is_live());
    broker.abandon(task.id).await;
    assert_eq!(standing(&broker, &task), Standing::Ended(EndReason::Abandoned));
    let before = broker.ledger.basis();
    broker.abandon(task.id).await;
    assert!(!broker.holds.book().knows(task.id));
    assert!(broker.ledger.log_after(before.1, 9).expect("reads").is_empty());
}

#[tokio::test]
async fn holds_of_before_a_restart_are_expected_again() {
    let (broker, _) = founded().await;
    let task = open(&broker, add_tenant(&broker, "acme").await).await;
    broker.resume_holds().await.expect("reads");
    assert!(broker.holds.book().knows(task.id));
    assert!(broker.holds.book().next_due().expect("due") >= broker.settings.hold_grace);
}

#[tokio::test]
async fn when_a_held_task_ends_its_stream_gets_a_last_message() {
    let (broker, _) = founded().await;
    let task = open(&broker, add_tenant(&broker, "acme").await).await;
    let (beats, received) = mpsc::channel(4);
    let (told, mut answers) = mpsc::channel(4);
    let stream = broker.holds.book().attach(task.id, Duration::from_secs(1_000));
    let caller = crate::broker::testing::admin();
    let keeper = tokio::spawn(Arc::clone(&broker).keep(caller, task.id, stream, received, told));
    beats.send(()).await.expect("open");
    let answer = answers.recv().await.expect("answer").expect("lives");
    assert_eq!((answer.heartbeat_seconds, answer.grace_seconds), (3, 10));
    let now = broker.now();
    let end = EndTask { task: task.id, why: EndReason::Completed, event: event::own("task.completed", now), now };
    let mut feed = broker.ledger.subscribe();
    broker.ledger.end_task(end).await.expect("ends");
    broker.wake(feed.recv().await);
    let last = answers.recv().await.expect("answer").expect("ended");
    assert_eq!(last.end_reason(), pb::EndReason::Completed);
    assert!(answers.recv().await.is_none());
    keeper.await.expect("ends");
    assert!(!broker.holds.book().knows(task.id));
}

#[tokio::test]
async fn a_stream_that_closes_leaves_its_task_the_grace() {
    let (broker, _) = founded().await;
    let task = open(&broker, add_tenant(&broker, "acme").await).await;
    let (beats, received) = mpsc::channel(4);
    let (told, _answers) = mpsc::channel(4);
    let stream = broker.holds.book().attach(task.id, Duration::from_secs(1_000));
    let before = broker.holds.at();
    drop(beats);
    Arc::clone(&broker).keep(crate::broker::testing::admin(), task.id, stream, received, told).await;
    let due = broker.holds.book().next_due().expect("due");
    assert!(due >= before + broker.settings.hold_grace && due < Duration::from_secs(1_000));
    assert!(standing(&broker, &task).is_live());
}

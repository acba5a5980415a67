use super::*;
use crate::broker::testing::{admin, days, founded};

fn confirm(now: Timestamp) -> pb::ConfirmTimeRequest {
    pb::ConfirmTimeRequest { now: Some(event::stamp(now)), reason: "checked".into() }
}

#[tokio::test]
async fn a_start_behind_the_mark_ends_everything() {
    let (broker, _) = founded().await;
    broker.settle_start(Start::Continues).await.expect("settles");
    assert_eq!(broker.ledger.scope(Scope::Everything.id()).cut, 0);
    broker.settle_start(Start::Behind).await.expect("settles");
    assert!(broker.ledger.scope(Scope::Everything.id()).cut > 0);
    broker.walk_cuts().await.expect("walks");
    assert!(broker.ledger.cuts(&[], 9).expect("reads").0[0].record.done);
}

#[tokio::test]
async fn a_held_clock_is_lifted_only_by_an_operator_who_knows_the_time() {
    let (broker, _) = founded().await;
    broker.settle_start(Start::Jumped).await.expect("settles");
    broker.observe_time().await;
    assert!(broker.ledger.holds().has(Hold::Clock));
    let wrong = confirm(broker.now().after(Duration::from_secs(61)));
    assert!(matches!(broker.confirm_time(&admin(), wrong).await, Err(Refusal::Invalid { field: "now", .. })));
    assert!(broker.ledger.holds().has(Hold::Clock));
    let right = confirm(broker.now().after(Duration::from_secs(59)));
    broker.confirm_time(&admin(), right).await.expect("confirms");
    assert!(!broker.ledger.holds().has(Hold::Clock));
}

#[tokio::test]
async fn audit_that_a_sink_waits_for_is_not_trimmed() {
    let (broker, hands) = founded().await;
    for _ in 0..3 {
        let now = broker.now();
        broker.ledger.note(vec![event::own("test.event", now)], now).await.expect("notes");
        hands.advance(days(1));
    }
    let first = |broker: &Broker| broker.ledger.streams(&[], 9).expect("reads").0[0].1.first_sequence.max(1);
    hands.advance(days(500));
    let stop = CancellationToken::new();
    stop.cancel();
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("missing/audit.jsonl");
    let config = crate::sink::FileSinkConfig { name: "f".into(), path, deadline: PACE };
    let sink = crate::sink::AnySink::File(crate::sink::FileSink::new(config));
    crate::broker::ship::start(&broker, vec![sink], &stop).join_all().await;
    broker.trim_audit(&key(&broker)).await.expect("trims");
    assert_eq!(first(&broker), 1);
    let (without, hands) = founded().await;
    for _ in 0..3 {
        let now = without.now();
        without.ledger.note(vec![event::own("test.event", now)], now).await.expect("notes");
        hands.advance(days(1));
    }
    hands.advance(days(500));
    without.trim_audit(&key(&without)).await.expect("trims");
    assert!(first(&without) > 1);
}

fn key(broker: &Broker) -> Arc<AuditKey> {
    Arc::new(broker.audit_key().expect("opens"))
}

#[tokio::test]
async fn what_retention_leaves_verifies_after_a_crash_at_any_step() {
    let (broker, hands) = founded().await;
    for _ in 0..3 {
        let now = broker.now();
        broker.ledger.note(vec![event::own("test.event", now)], now).await.expect("notes");
        hands.advance(days(1));
    }
    broker.checkpoint(key(&broker)).await.expect("signs");
    hands.advance(days(500));
    let sound = async |step: &str| {
        let found = broker.verify_events(&admin(), pb::VerifyEventsRequest::default()).await.expect("reads");
        assert!(found.findings.is_empty(), "{step}: {:?}", found.findings);
        found.events
    };
    let all = sound("before").await;
    let before = broker.now().before(days(400));
    let trimmed = broker.trim_streams(before).await.expect("says");
    assert_eq!(trimmed.len(), 1);
    assert_eq!(sound("said").await, all, "removed before it was signed");
    assert_eq!(broker.trim_streams(before).await.expect("says"), trimmed, "forgotten by a crash");
    broker.checkpoint(key(&broker)).await.expect("signs");
    assert_eq!(sound("signed").await, all);
    while broker.ledger.drop_trimmed(trimmed[0]).await.expect("removes") > 0 {}
    assert_eq!(sound("removed").await, 1);
    assert!(broker.trim_streams(before).await.expect("says").is_empty());
}

#[tokio::test]
async fn checkpoints_are_signed_by_the_audit_key() {
    let (broker, _) = founded().await;
    let key = Arc::new(broker.audit_key().expect("opens"));
    broker.checkpoint(Arc::clone(&key)).await.expect("signs");
    let made = broker.ledger.checkpoints(0, 9).expect("reads");
    assert_eq!((made.len(), made[0].key_id.as_str()), (1, key.key_id().as_str()));
}

#[tokio::test]
async fn what_runs_by_itself_stops() {
    let (broker, _) = founded().await;
    let stop = CancellationToken::new();
    let tasks = start(&broker, &stop).expect("starts");
    stop.cancel();
    tasks.join_all().await;
}

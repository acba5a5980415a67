//! A stream ends with what its caller stands on: its scope, its certificate's lease, its place in the trust map.

use std::time::Duration;

use mayfly::pb::{self, ApplyOptions, CredentialKind, broker_client::BrokerClient};
use tokio::sync::mpsc::Sender;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{
    rig::told,
    world::{World, holder, issue, partner_scope, request, revocation},
};

async fn open(broker: &mut BrokerClient<Channel>) -> String {
    let open = pb::OpenTaskRequest {
        tenant: "alpha".into(),
        partner: "courier".into(),
        purpose: "report".into(),
        hold: true,
        ..Default::default()
    };
    broker.open_task(open).await.expect("opened").into_inner().task.expect("a task").task_id
}

/// A held task's stream, after its first answer.
async fn hold(
    broker: &mut BrokerClient<Channel>,
    task_id: &str,
) -> (Sender<pb::HoldTaskRequest>, Streaming<pb::HoldTaskResponse>) {
    let (beat, beats) = tokio::sync::mpsc::channel(4);
    beat.send(pb::HoldTaskRequest { task_id: task_id.into() }).await.expect("room");
    let mut told = broker.hold_task(ReceiverStream::new(beats)).await.expect("held").into_inner();
    told.message().await.expect("answers").expect("a message");
    (beat, told)
}

/// How a stream ends: its last message and its error, if any.
async fn end_of<T>(mut stream: Streaming<T>) -> (Option<T>, Option<tonic::Status>) {
    let mut last = None;
    let read = async {
        loop {
            match stream.message().await {
                Ok(Some(message)) => last = Some(message),
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, read).await.expect("the stream goes on");
    (last, error)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holders_stream_ends_with_its_partner_or_workload() {
    let world = World::new().await;
    let workload = pb::Scope {
        kind: pb::ScopeKind::Workload.into(),
        tenant: "alpha".into(),
        workload: "worker".into(),
        ..Default::default()
    };
    for scope in [partner_scope("alpha"), workload] {
        let mut broker = world.broker("alpha").await;
        let task = open(&mut broker).await;
        let (_beat, stream) = hold(&mut broker, &task).await;
        let mut admin = world.admin().await;
        admin.revoke(revocation(scope.clone())).await.expect("revoked");
        let (last, error) = end_of(stream).await;
        assert_eq!(last.expect("a last message").end_reason(), pb::EndReason::Revoked, "{scope:?}");
        assert!(error.is_none(), "{error:?}");
        let shown =
            world.process.ask(&world.launch.data().join("operator"), &["--output", "json", "task", "show", &task]);
        assert!(shown.code == 0 && shown.out.contains(&task) && shown.out.contains("revoked"), "{shown:?}");
        admin
            .lift(pb::LiftRequest { scope: Some(scope), reason: "test".into(), ..Default::default() })
            .await
            .expect("lifted");
    }
    let nothing = world.process.ask(&world.launch.data().join("operator"), &["task", "show", &"40".repeat(12)]);
    assert!(nothing.code == 1 && nothing.errors.contains("NOT_FOUND"), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holders_stream_ends_with_the_lease_of_its_certificate() {
    let world = World::new().await;
    let mut own = world.broker("alpha").await;
    let task = open(&mut own).await;
    let kept = hold(&mut own, &task).await;
    let under = pb::IssueRequest { task_id: task.clone(), ..request("alpha", CredentialKind::X509) };
    let certificate = issue(&mut own, under).await.expect("issued");
    let mut broker = world.broker_as(&holder(&certificate)).await;
    let (beat, stream) = hold(&mut broker, &task).await;
    // Given back: nothing is cut, and no connection is closed.
    let lease_id = super::world::lease_of(&certificate).lease_id;
    own.release(pb::ReleaseRequest { lease_id }).await.expect("released");
    beat.send(pb::HoldTaskRequest::default()).await.expect("room");
    let (_, error) = end_of(stream).await;
    assert_eq!(told(&error.expect("refused")).2, "UNPROVEN");
    drop(kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_the_trust_map_names_no_more_hears_no_more() {
    let world = World::new().await;
    let watch = |tenant: &str| pb::WatchRevocationsRequest { tenant: tenant.into(), after: None };
    let mut removed = world.verifier("alpha").await;
    let mut removed = removed.watch_revocations(watch("alpha")).await.expect("watches").into_inner();
    let mut kept = world.verifier("beta").await;
    let mut kept = kept.watch_revocations(watch("beta")).await.expect("watches").into_inner();
    removed.message().await.expect("answers").expect("a message");
    let from = world.trust.find("[[verifier]]\nname = \"shop-alpha\"").expect("the verifier");
    let to = from + 1 + world.trust[from + 1..].find("[[").expect("another table");
    let trust = format!("{}{}", &world.trust[..from], &world.trust[to..]);
    world.apply(&trust, ApplyOptions::default()).await.expect("applies");
    let (_, error) = end_of(removed).await;
    assert_eq!(told(&error.expect("refused")).2, "UNPROVEN");
    tokio::time::timeout(PATIENCE, kept.message()).await.expect("in time").expect("answers").expect("goes on");
}

/// A quiet watcher is looked at with its heartbeat, every 5 seconds.
const PATIENCE: Duration = Duration::from_secs(20);

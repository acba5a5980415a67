//! How long what is issued in a task lives at most.

use super::{API, bed, named, open, renew};
use crate::{
    broker::{Broker, testing::worker},
    identity::Caller,
    pb,
};

async fn issue_for(
    broker: &Broker,
    by: &Caller,
    task: &str,
    ttl_seconds: u32,
) -> Result<pb::IssueResponse, &'static str> {
    let request = pb::IssueRequest {
        task_id: task.into(),
        kind: pb::CredentialKind::Jwt.into(),
        audiences: vec![API.into()],
        ttl_seconds,
        ..Default::default()
    };
    broker.issue(by, request).await.map_err(|why| why.reason())
}

/// Seconds.
fn life(reply: &pb::IssueResponse) -> i64 {
    let lease = reply.lease.as_ref().expect("a lease");
    let at = |time: &Option<prost_types::Timestamp>| time.as_ref().expect("a time").seconds;
    at(&lease.expires) - at(&lease.issued)
}

#[tokio::test]
async fn a_longer_life_than_the_task_allows_is_refused_and_not_cut_down() {
    let broker = bed().await;
    let request = pb::OpenTaskRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "work".into(),
        limits: Some(pb::TaskLimits { ttl_max_seconds: 60, ..Default::default() }),
        ..Default::default()
    };
    let own = broker.open_task(&worker(), request).await.expect("opened").task.expect("a task").task_id;
    let child = open(&broker, &worker(), &own, "x").await.expect("passed on");
    for (by, task) in [(worker(), &own), (named("x"), &child)] {
        for beyond in [61, 120, 300] {
            assert_eq!(issue_for(&broker, &by, task, beyond).await.map(drop), Err("BEYOND_TASK"), "{beyond}");
        }
        let most = issue_for(&broker, &by, task, 60).await.expect("as long as the task allows");
        assert_eq!(life(&most), 60);
        let unsaid = issue_for(&broker, &by, task, 0).await.expect("who names no time gets what there is");
        assert_eq!(life(&unsaid), 60);
        let lease_id = || most.lease.as_ref().expect("a lease").lease_id.clone();
        let longer = pb::RenewRequest { lease_id: lease_id(), ttl_seconds: 61, ..Default::default() };
        let refused = broker.renew(&by, longer).await.map(drop).map_err(|why| why.reason());
        assert_eq!(refused, Err("BEYOND_TASK"), "a renewal is no way around it");
        assert_eq!(life(&renew(&broker, &by, &most).await.expect("renewed")), 60);
    }
}

//! What is counted of a secret, and what a task may be denied of it.

use super::{Bed, asked, lease, reason};
use crate::{broker::testing::worker, pb};

#[tokio::test]
async fn of_outstanding_copies_512_are_counted_before_a_rotation_and_no_more() {
    let bed = Bed::new().await;
    for _ in 0..514 {
        bed.issue().await.expect("issued");
    }
    let reply = bed.rotate(b"sk_second", false).await.expect("rotated");
    assert_eq!(reply.live_holders, 512);
    // Those that live are counted, whatever lies before them.
    let gone = bed.issue().await.expect("issued");
    let kept = bed.issue().await.expect("issued");
    let done = pb::CompleteTaskRequest { task_id: lease(&gone).task_id };
    bed.broker.complete_task(&worker(), done).await.expect("completed");
    assert!(bed.is_live(&lease(&kept)));
    assert_eq!(bed.rotate(b"sk_third", false).await.expect("rotated").live_holders, 1);
}

#[tokio::test]
async fn limits_of_a_task_hold_for_static_secrets_too() {
    let bed = Bed::new().await;
    let secret: i32 = pb::CredentialKind::Secret.into();
    let limits = |audiences: &[&str], actions: &[&str], kinds: &[i32], ttl_max_seconds| pb::TaskLimits {
        audiences: audiences.iter().map(|text| (*text).to_owned()).collect(),
        actions: actions.iter().map(|text| (*text).to_owned()).collect(),
        kinds: kinds.to_vec(),
        ttl_max_seconds,
    };
    let within = async |limits: pb::TaskLimits, ttl_seconds| {
        let open = pb::OpenTaskRequest {
            tenant: "acme".into(),
            partner: "zeta".into(),
            purpose: "pay".into(),
            limits: Some(limits),
            ..Default::default()
        };
        let task_id = bed.broker.open_task(&worker(), open).await.expect("opened").task.expect("a task").task_id;
        let ask = pb::IssueRequest { task_id, ttl_seconds, ..asked() };
        bed.broker.issue(&worker(), ask).await
    };
    for (narrow, ttl) in [
        (limits(&["https://api.example"], &[], &[], 0), 0),
        (limits(&["secret:other"], &[], &[], 0), 0),
        // A value can do whatever it can: who limits actions means to limit it, too.
        (limits(&[], &["read"], &[], 0), 0),
        (limits(&[], &["read"], &[pb::CredentialKind::Jwt.into()], 0), 0),
        (limits(&[], &[], &[pb::CredentialKind::Opaque.into()], 0), 0),
        (limits(&[], &[], &[], 60), 61),
    ] {
        assert_eq!(reason(within(narrow.clone(), ttl).await), "BEYOND_TASK", "{narrow:?}");
    }
    for wide in
        [limits(&["secret:stripe"], &[], &[], 0), limits(&[], &["read"], &[secret], 0), limits(&[], &[], &[secret], 0)]
    {
        within(wide.clone(), 0).await.expect("within");
    }
    let short = lease(&within(limits(&[], &[], &[], 60), 0).await.expect("within"));
    let at = |time: Option<prost_types::Timestamp>| time.expect("a time").seconds;
    assert_eq!(at(short.expires) - at(short.issued), 60);
}

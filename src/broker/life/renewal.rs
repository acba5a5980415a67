//! What a credential rests on from its issue to its last renewal.

use super::*;

/// A token that was issued and not renewed yet.
async fn issued(stage: &Stage) -> (String, String) {
    let request = pb::IssueRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "work".into(),
        audiences: vec!["https://api.example".into()],
        kind: pb::CredentialKind::Opaque.into(),
        task_deadline_seconds: 7_200,
        ..Default::default()
    };
    let lease = stage.broker.issue(&worker(), request).await.expect("issued").lease.expect("a lease");
    (lease.lease_id, lease.task_id)
}

async fn renew(stage: &Stage, lease: &str) -> Result<String, &'static str> {
    let request = pb::RenewRequest { lease_id: lease.into(), ..Default::default() };
    let reply = stage.broker.renew(&worker(), request).await.map_err(|why| why.reason())?;
    Ok(reply.lease.expect("a lease").lease_id)
}

/// Puts another trust map in the place of the tenant's, as if what lived had not been ended by an apply.
async fn slip_in(stage: &Stage, from: &str, to: &str) {
    crate::broker::testing::slip_in(&stage.broker, |text| {
        assert!(text.contains(from), "{from}: {text}");
        text.replace(from, to)
    })
    .await;
}

#[tokio::test]
async fn a_renewal_is_refused_once_anything_that_it_rests_on_is_gone() {
    // Each in the trust map, and the reason that operators see.
    let trust = TRUST.replace("max_live_leases = 100000\n", "max_live_leases = 100000\nmax_renewals = 2\n");
    let trust = trust.replacen("max_live_leases = 100000\nmax_renewals = 2\n", "max_live_leases = 100000\n", 2);
    for (from, to, reason) in [
        ("\"purposes\":[\"work\"]", "\"purposes\":[\"play\"]", "PURPOSE_NOT_GRANTED"),
        ("\"workloads\":[\"w\"]", "\"workloads\":[\"v\"]", "WORKLOAD_NOT_GRANTED"),
        ("https://api.example", "https://else.example", "AUDIENCE_NOT_GRANTED"),
        ("\"kinds\":[\"jwt\",\"opaque\",\"x509\"]", "\"kinds\":[\"jwt\"]", "KIND_NOT_GRANTED"),
        ("2025-12-01T00:00:00Z", "2025-01-01T00:00:00Z", "GRANT_EXPIRED"),
        ("2025-09-01T00:00:00Z", "2025-01-01T00:00:00Z", "SUSPENDED"),
        (
            "\"environment\":\"prod\",\"require_binding\"",
            "\"environment\":\"lab\",\"require_binding\"",
            "ENVIRONMENT_MISMATCH",
        ),
        ("\"max_renewals\":2", "\"max_renewals\":0", "RENEWALS_USED_UP"),
    ] {
        let stage = Stage::new(&trust).await;
        let (lease, _) = issued(&stage).await;
        slip_in(&stage, from, to).await;
        assert_eq!(renew(&stage, &lease).await, Err(reason), "{from}");
    }
    // By what is done at run time.
    let stage = Stage::new(&trust).await;
    let (lease, task) = issued(&stage).await;
    let lease = renew(&stage, &lease).await.expect("once");
    let lease = renew(&stage, &lease).await.expect("twice");
    assert_eq!(renew(&stage, &lease).await, Err("RENEWALS_USED_UP"));
    let (other, _) = issued(&stage).await;
    stage.leave("owner@example.com", false).await;
    assert_eq!(renew(&stage, &other).await, Err("SUSPENDED"), "its owner left");
    let done = pb::CompleteTaskRequest { task_id: task };
    stage.broker.complete_task(&worker(), done).await.expect("completes");
    assert_eq!(renew(&stage, &lease).await, Err("LEASE_ENDED"));
}

#[tokio::test]
async fn a_lease_names_the_trust_map_that_somebody_applied_and_without_it_nothing_is_issued() {
    let stage = Stage::new(TRUST).await;
    let events = async |kind: &str| {
        let request = pb::ListEventsRequest { kind_prefix: kind.into(), ..Default::default() };
        stage.broker.list_events(&admin(), request).await.expect("lists").events
    };
    let (lease, _) = issued(&stage).await;
    let [applied] = events("trust.changed").await.try_into().expect("one");
    let [told] = events("lease.issued").await.try_into().expect("one");
    assert_eq!((told.lease_id.as_str(), told.trust_hash.is_empty()), (lease.as_str(), false));
    assert_eq!((applied.actor.as_str(), &applied.trust_hash), ("operator:admin", &told.trust_hash));
    // Deleted, there is nothing to issue by, and what lived has ended; expired, likewise.
    let at = TRUST.rfind("[[grant]]").expect("a grant");
    apply(&stage.broker, TRUST.split_at(at).0).await;
    assert_eq!(stage.refusal("g").await, "PARTNER_NOT_GRANTED");
    assert_eq!(renew(&stage, &lease).await, Err("LEASE_ENDED"));
    let stage = Stage::new(TRUST).await;
    let (lease, _) = issued(&stage).await;
    let expires = Timestamp::parse_rfc3339("2025-12-01T00:00:00Z").expect("a time");
    stage.pass(expires.since(stage.broker.now()));
    assert_eq!(stage.refusal("g").await, "GRANT_EXPIRED");
    assert!(renew(&stage, &lease).await.is_err());
}

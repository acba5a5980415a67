//! Mini Shai-Hulud at TanStack, 11 May 2026 (CVE-2026-45321): code of strangers ran with the repository's identity through
//! `pull_request_target`, took the job's identity token out of the runner's memory, and published with it.
//!
//! Replayed: another process with the very same token races the real step.

use mayfly::{
    client::{FederatedCalls, Identity},
    pb,
};
use serde_json::json;

use crate::process::{
    federated::{Setting, opening, under},
    rig::reason,
    world::is_active,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_out_of_the_runners_memory_publishes_nothing() {
    let setting = Setting::with("on_reuse = \"suspend\"\n").await;
    let mine = || Identity::ephemeral().expect("a key");

    // 1. Events that run code of strangers obtain nothing, whatever else their token says.
    for event in ["pull_request_target", "workflow_run"] {
        let mut claims = setting.claims();
        claims["event_name"] = json!(event);
        let calls = FederatedCalls::new(&setting.signer.rs256(&claims)).expect("a token");
        let refused = setting.job(&mine(), &calls).await.open_task(opening()).await;
        assert_eq!(reason(&refused), "IDENTITY_TOKEN_REFUSED", "{event}");
    }
    // Nor does a repository of the same name, or a branch that a poisoned cache was saved from.
    for (name, value) in [("repository_id", "75"), ("ref", "refs/heads/evil")] {
        let mut claims = setting.claims();
        claims[name] = json!(value);
        let calls = FederatedCalls::new(&setting.signer.rs256(&claims)).expect("a token");
        assert_eq!(
            reason(&setting.job(&mine(), &calls).await.open_task(opening()).await),
            "UNKNOWN_WORKLOAD",
            "{name}"
        );
    }

    // 2. The real step asks first. The attacker reads the same token from memory, and comes second.
    let token = setting.signer.rs256(&setting.claims());
    let (own, thief) = (mine(), mine());
    let calls = FederatedCalls::new(&token).expect("a token");
    let mut job = setting.job(&own, &calls).await;
    let task = job.open_task(pb::OpenTaskRequest { hold: false, ..opening() }).await.expect("opened");
    let task = task.into_inner().task.expect("a task");
    calls.carry_task(&task.task_id, false).expect("an id");
    let reply = job.issue(under(&task)).await.expect("issued").into_inner();
    let mut verifier = setting.world.verifier("alpha").await;
    assert!(is_active(&mut verifier, &reply).await);

    let stolen = FederatedCalls::new(&token).expect("a token");
    let mut attacker = setting.job(&thief, &stolen).await;
    assert_eq!(reason(&attacker.open_task(opening()).await), "IDENTITY_TOKEN_SPENT");
    // 3. Two have it: what the first one got is suspended too, until somebody has looked which of them was which.
    assert!(!is_active(&mut verifier, &reply).await);
    assert!(job.issue(under(&task)).await.is_err(), "nor does anything new come of it");
    assert!(attacker.issue(under(&task)).await.is_err());
    let events = pb::ListEventsRequest { kind_prefix: "identity.".into(), ..Default::default() };
    let told = setting.world.admin().await.list_events(events).await.expect("listed").into_inner().events;
    let alarm = told.iter().find(|event| event.kind == "identity.token_reused").expect("an alarm");
    assert!(alarm.details.iter().any(|detail| *detail == format!("first_task={}", task.task_id)), "{alarm:?}");
    assert!(alarm.details.iter().any(|detail| detail == "suspend=true"), "{alarm:?}");

    // 4. The attacker was first another time: the real step is then the one who finds out, and the attacker loses what he got.
    let mut claims = setting.claims();
    claims["jti"] = json!("another run");
    let token = setting.signer.rs256(&claims);
    let stolen = FederatedCalls::new(&token).expect("a token");
    let mut attacker = setting.job(&thief, &stolen).await;
    let taken = attacker.issue(pb::IssueRequest { task_id: String::new(), ..under(&task) }).await;
    let taken = taken.expect("nobody has used it").into_inner();
    assert!(is_active(&mut verifier, &taken).await);
    let calls = FederatedCalls::new(&token).expect("a token");
    assert_eq!(reason(&setting.job(&own, &calls).await.open_task(opening()).await), "IDENTITY_TOKEN_SPENT");
    assert!(!is_active(&mut verifier, &taken).await, "publishing stops with the first sign");
}

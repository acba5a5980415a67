//! LiteLLM on PyPI, 24 March 2026 (PYSEC-2026-2): a scanner with a backdoor ran in the same CI as publishing, found a
//! long-lived upload token there, and published with it.
//!
//! Replayed: the scanner step, taken over, tries to publish. Its purpose is `scan`; a token to publish exists only while
//! the publish step runs, for the index alone, and for the key that asked.

use mayfly::pb::{self, ApplyOptions, CredentialKind, verifier_client::VerifierClient};

use crate::{
    process::{
        rig::reason,
        world::{PARTNER, World, issue, lease_of, presented},
    },
    support::{Grant, Trust},
};

const INDEX: &str = "https://upload.index.example";
const SCANNER: &str = "https://reports.example";

async fn ci() -> World {
    let world = World::new().await;
    let mut more = Trust::default();
    for step in ["scanner", "publisher"] {
        more.workload("alpha", step, &format!("spiffe://platform.example/alpha/{step}"), "platform");
    }
    more.verifier("index", "spiffe://platform.example/alpha/index", "platform", INDEX, &["alpha"]);
    let grant = |name, workload: &str, audience| {
        let mut one = Trust::default();
        one.grant(&Grant { tenant: "alpha", name, partner: PARTNER, workloads: &[workload], audience });
        one.text().replace("[\"report\"]", &format!("[{name:?}]"))
    };
    let trust = [
        world.trust.clone(),
        more.text().to_owned(),
        grant("scan", "scanner", SCANNER),
        grant("publish", "publisher", INDEX),
    ]
    .concat();
    world.apply(&trust, ApplyOptions::default()).await.expect("applies");
    world
}

fn asking(purpose: &str, audience: &str) -> pb::IssueRequest {
    pb::IssueRequest {
        tenant: "alpha".into(),
        partner: PARTNER.into(),
        purpose: purpose.into(),
        kind: CredentialKind::Opaque.into(),
        audiences: vec![audience.into()],
        actions: vec!["read".into()],
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scanner_that_was_taken_over_publishes_nothing() {
    let world = ci().await;
    let (scanner, publisher) = (world.identity("alpha/scanner"), world.identity("alpha/publisher"));

    // 1. The scanner does its own work, and then what it was not put there for.
    let mut attacker = world.broker_as(&scanner).await;
    issue(&mut attacker, asking("scan", SCANNER)).await.expect("its own work");
    assert_eq!(reason(&issue(&mut attacker, asking("publish", INDEX)).await), "WORKLOAD_NOT_GRANTED");
    assert_eq!(reason(&issue(&mut attacker, asking("scan", INDEX)).await), "AUDIENCE_NOT_GRANTED");
    let named = pb::IssueRequest { grant: "publish".into(), ..asking("scan", INDEX) };
    assert_eq!(reason(&issue(&mut attacker, named).await), "WORKLOAD_NOT_GRANTED");

    // 2. It looks for a token to publish: there is none before the publish step.
    let leases = pb::ListLeasesRequest { tenant: "alpha".into(), grant: "publish".into(), ..Default::default() };
    let found = world.admin().await.list_leases(leases).await.expect("listed").into_inner().leases;
    assert!(found.is_empty(), "{found:?}");

    // 3. It waits for the publish step and takes the token out of its memory.
    let mut step = world.broker_as(&publisher).await;
    let open = pb::OpenTaskRequest {
        tenant: "alpha".into(),
        partner: PARTNER.into(),
        purpose: "publish".into(),
        ..Default::default()
    };
    let task = step.open_task(open).await.expect("opened").into_inner().task.expect("a task").task_id;
    let wanted = pb::IssueRequest {
        task_id: task.clone(),
        binding: pb::Binding::Certificate.into(),
        ..asking("publish", INDEX)
    };
    let token = issue(&mut step, wanted).await.expect("issued");
    let mut index = VerifierClient::new(world.channel(Some(&world.identity("alpha/index"))).await);
    let mut shown = async |audience: &str, certificate: Vec<u8>| {
        let request = pb::IntrospectRequest {
            credential: Some(presented(&token)),
            audience: audience.into(),
            presented_certificate_sha256: certificate,
        };
        index.introspect(request).await.expect("answers").into_inner().active
    };
    assert!(shown(INDEX, publisher.sha256()).await, "the step itself publishes");
    assert!(!shown(INDEX, scanner.sha256()).await, "with the attacker's key");
    assert!(!shown(INDEX, Vec::new()).await, "with no key");
    assert!(!shown(SCANNER, publisher.sha256()).await, "anywhere else");
    // Nor does it act in the step's task, or renew what it found.
    let within = pb::IssueRequest { task_id: task.clone(), ..asking("publish", INDEX) };
    assert_eq!(reason(&issue(&mut attacker, within).await), "NOT_FOUND");
    let renew = pb::RenewRequest { lease_id: lease_of(&token).lease_id, ..Default::default() };
    assert_eq!(reason(&attacker.renew(renew).await), "NOT_FOUND");

    // 4. The step is done, and so is the token, wherever it was copied to.
    step.complete_task(pb::CompleteTaskRequest { task_id: task }).await.expect("completed");
    assert!(!shown(INDEX, publisher.sha256()).await);
    let events =
        pb::ListEventsRequest { kind_prefix: "lease.refused".into(), tenant: "alpha".into(), ..Default::default() };
    let told = world.admin().await.list_events(events).await.expect("listed").into_inner().events;
    assert!(told.iter().any(|event| event.actor == "workload:scanner" && event.reason == "WORKLOAD_NOT_GRANTED"));
}

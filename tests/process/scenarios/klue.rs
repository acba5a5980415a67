//! Klue, June 2026: an abandoned prototype credential of an integration, of somebody who had left, led to the customers'
//! tokens that the integration kept, and these to the customers' data.
//!
//! Replayed: a test credential of an owner who left, whose attestation lapsed. That it would be dormant too after so long
//! is shown with a virtual clock in `broker::life`.

use mayfly::pb::{self, ApplyOptions, CredentialKind};

use crate::{
    process::{
        rig::reason,
        world::{PARTNER, World, audience, is_active, issue, request},
    },
    support::{Grant, Trust},
};

const SANDBOX: &str = "https://sandbox.example";

/// The world with a prototype in a test environment of `alpha`; `change` edits its grant.
fn trust(world: &World, change: impl Fn(String) -> String) -> String {
    let head = world.trust.replacen("name = \"alpha\"\n", "name = \"alpha\"\ntest_environments = [\"lab\"]\n", 1);
    let mut workload = Trust::default();
    workload.workload("alpha", "prototype", "spiffe://platform.example/alpha/prototype", "platform");
    workload.verifier("sandbox", "spiffe://platform.example/alpha/sandbox", "platform", SANDBOX, &["alpha"]);
    let mut grant = Trust::default();
    let name = "prototype";
    grant.grant(&Grant { tenant: "alpha", name, partner: PARTNER, workloads: &[name], audience: SANDBOX });
    let grant = grant.text().replace("[\"report\"]", "[\"try-out\"]").replace("ttl_max = 3600", "ttl_max = 300");
    let grant = grant.replace("owner@example.com", "gone@example.com") + "require_binding = false\n";
    let text = workload.text().replace("\"prod\"", "\"lab\"") + &change(grant.replace("\"prod\"", "\"lab\""));
    format!("{head}{text}")
}

fn asking(audience: &str) -> pb::IssueRequest {
    pb::IssueRequest {
        purpose: "try-out".into(),
        audiences: vec![audience.into()],
        ..request("alpha", CredentialKind::Opaque)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_test_credential_leads_nowhere() {
    let world = World::new().await;
    // 0. What is for tests never reached what is not, nor lived long: such a grant is not taken.
    let reach = trust(&world, |grant| grant.replace(SANDBOX, &audience("alpha")));
    let refused = world.apply(&reach, ApplyOptions::default()).await.expect_err("reaches production");
    assert!(refused.contains("the trust map has"), "{refused}");
    let long = trust(&world, |grant| grant.replace("ttl_max = 300", "ttl_max = 3600"));
    world.apply(&long, ApplyOptions::default()).await.expect_err("lives long");
    world.apply(&trust(&world, |grant| grant), ApplyOptions::default()).await.expect("applies");

    // 1. The prototype works, for its sandbox alone.
    let mut prototype = world.broker_as(&world.identity("alpha/prototype")).await;
    let reply = issue(&mut prototype, asking(SANDBOX)).await.expect("issued");
    let mut sandbox =
        pb::verifier_client::VerifierClient::new(world.channel(Some(&world.identity("alpha/sandbox"))).await);
    assert!(is_active(&mut sandbox, &reply).await);
    assert_eq!(reason(&issue(&mut prototype, asking(&audience("alpha"))).await), "AUDIENCE_NOT_GRANTED");

    // 2. Its owner leaves: at that moment it is suspended, what it has obtained too.
    let operator = world.launch.data().join("operator");
    let left = world.process.ask(&operator, &["owner", "leave", "gone@example.com", "--reason", "left the company"]);
    assert_eq!(left.code, 0, "{left:?}");
    assert!(!is_active(&mut sandbox, &reply).await);

    let closed = || world.process.ask(&operator, &["--output", "json", "inventory", "--tenant", "alpha"]).out;
    assert!(closed().contains("owner left"), "{}", closed());

    // 3. Months later somebody finds the credential and tries it: for the sandbox, for the customer, by its grant's name.
    assert_eq!(reason(&issue(&mut prototype, asking(SANDBOX)).await), "BARRED");
    assert_eq!(reason(&issue(&mut prototype, asking(&audience("alpha"))).await), "AUDIENCE_NOT_GRANTED");
    assert_eq!(reason(&issue(&mut prototype, request("alpha", CredentialKind::Opaque)).await), "WORKLOAD_NOT_GRANTED");
    assert_eq!(reason(&issue(&mut prototype, request("beta", CredentialKind::Opaque)).await), "UNKNOWN_WORKLOAD");

    // 4. Putting the grant under a new owner's name revives nothing, and a date that was missed closes it by itself.
    let revived = trust(&world, |grant| grant.replace("gone@example.com", "new@example.com"));
    world.apply(&revived, ApplyOptions::default()).await.expect("applies");
    assert_eq!(reason(&issue(&mut prototype, asking(SANDBOX)).await), "BARRED", "it waits for its owner's word");
    let lapsed = trust(&world, |grant| {
        let at = grant.find("attest_by = ").expect("a date");
        let end = at + grant[at..].find('\n').expect("a line");
        format!("{}attest_by = 2026-01-01{}", &grant[..at], &grant[end..])
    });
    world.apply(&lapsed, ApplyOptions::default()).await.expect("applies");
    assert_eq!(reason(&issue(&mut prototype, asking(SANDBOX)).await), "ATTESTATION_OVERDUE");

    // 5. The attempts are told, the inventory says why it is closed, and nobody else noticed.
    let events =
        pb::ListEventsRequest { kind_prefix: "lease.refused".into(), tenant: "alpha".into(), ..Default::default() };
    let told = world.admin().await.list_events(events).await.expect("listed").into_inner().events;
    assert!(told.iter().any(|event| event.actor == "workload:prototype" && event.reason == "BARRED"), "{told:?}");
    assert!(closed().contains("transfer pending") && closed().contains("attestation overdue"), "{}", closed());
    issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await.expect("goes on");
}

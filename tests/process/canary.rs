//! No secret shows in a log, a metric, an error or the audit.

use base64::{Engine, engine::general_purpose::STANDARD};
use mayfly::pb::{self, issue_response::Credential};

use super::{
    rig::{get_plain, refused, told},
    world::{KINDS, World, introspect, issue, lease_of, lease_scope, presented, request, revocation},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_session_at_trace_shows_no_secret() {
    let mut world = World::configured("[telemetry]\nlog = \"trace\"\n").await;
    let (mut secrets, mut said) = (Vec::new(), String::new());
    let seal = std::fs::read(world.seal_key()).expect("the seal key");
    secrets.push(("seal key", String::from_utf8_lossy(&seal).trim().to_owned()));
    let operator = std::fs::read_to_string(world.launch.data().join("operator/key.pem")).expect("the operator's key");
    secrets.push(("operator's key", operator.lines().nth(1).expect("a line").to_owned()));

    let (mut broker, mut verifier) = (world.broker("alpha").await, world.verifier("alpha").await);
    let mut foreign = world.verifier("beta").await;
    for kind in KINDS {
        let reply = issue(&mut broker, request("alpha", kind)).await.expect("issued");
        match reply.credential.as_ref().expect("a credential") {
            Credential::Token(token) => {
                // A JWT's header and claims are no secret; its signature is what makes it one.
                let secret = token.rsplit('.').next().expect("a part").to_owned();
                secrets.push(("token", secret));
                let found = world.admin().await.identify(pb::IdentifyRequest { found: token.clone() }).await;
                said += &format!("{:?}", found.map(tonic::Response::into_inner));
                let bad = token.replace('a', "b");
                said += &format!("{:?}", world.admin().await.identify(pb::IdentifyRequest { found: bad }).await.err());
            }
            Credential::X509(x509) => {
                let key = STANDARD.encode(&x509.private_key_der);
                secrets.push(("private key", key[key.len() / 2..key.len() / 2 + 40].to_owned()));
                secrets.push(("private key as numbers", numbers(&x509.private_key_der[40..60])));
            }
            Credential::Secret(_) | Credential::Pickup(_) => panic!("not asked for"),
        }
        introspect(&mut verifier, presented(&reply)).await;
        introspect(&mut foreign, presented(&reply)).await;
        let lease_id = lease_of(&reply).lease_id;
        let renewed = broker.renew(pb::RenewRequest { lease_id: lease_id.clone(), ..Default::default() }).await;
        let renewed = renewed.expect("renewed").into_inner();
        if let Some(Credential::Token(token)) = &renewed.credential {
            secrets.push(("renewed token", token.rsplit('.').next().expect("a part").to_owned()));
        }
        world.admin().await.revoke(revocation(lease_scope(&lease_id))).await.expect("revoked");
        let refusal = broker.renew(pb::RenewRequest { lease_id, ..Default::default() }).await;
        said += &format!("{:?}", told(&refused(refusal, "a revoked lease")));
    }
    let (mut export, mut events) = (String::new(), 0);
    let request = pb::ExportEventsRequest::default();
    let mut stream = world.admin().await.export_events(request).await.expect("exports").into_inner();
    while let Some(item) = stream.message().await.expect("an item") {
        export += &format!("{item:?}\n");
        events += 1;
    }
    assert!(events > 10, "only {events} events");
    let (_, metrics) = get_plain(world.process.metrics, "/metrics").await;
    assert!(metrics.contains("mayfly_"), "no metrics: {metrics}");
    assert!(world.process.stop().success());
    let log = world.process.log();
    assert!(log.contains("TRACE"), "the log is not at trace");

    for (what, secret) in &secrets {
        assert!(secret.len() > 10, "the {what} is too short to look for");
        for (place, text) in [("log", &log), ("metrics", &metrics), ("answers", &said), ("audit", &export)] {
            assert!(!text.contains(secret.as_str()), "the {what} shows in the {place}");
        }
    }
}

/// Bytes as `Debug` writes them.
fn numbers(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ")
}

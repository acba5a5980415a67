//! Callers on a Unix socket: the kernel says who they are.

use std::os::unix::fs::PermissionsExt;

use mayfly::{
    client::{ClientConfig, Connection},
    pb::{self, ApplyOptions, CredentialKind, broker_client::BrokerClient},
};

use super::{
    rig::{reason, refused},
    world::{TENANTS, World, is_active, issue, lease_of, request},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_the_workload_of_its_user_and_nobody_elses() {
    let socket_folder = tempfile::tempdir().expect("folder");
    let socket = socket_folder.path().join("m.sock");
    let world =
        World::configured(&format!("[[listener]]\nunix = {socket:?}\nservices = [\"broker\", \"admin\"]\n")).await;
    assert_eq!(std::fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777, 0o600);
    let uid = rustix::process::getuid().as_raw();
    let mut trust = world.trust.replace("workloads = [\"worker\"]", "workloads = [\"worker\", \"local\"]");
    for tenant in TENANTS {
        // Its own user in alpha, another one elsewhere.
        let uid = if tenant == "alpha" { uid } else { uid + 1 };
        trust += &format!(
            "[[workload]]\ntenant = \"{tenant}\"\nname = \"local\"\nenvironment = \"prod\"\n\
             selectors = [{{ unix_uid = {uid} }}]\n"
        );
    }
    world.apply(&trust, ApplyOptions::default()).await.expect("applies");
    let config = ClientConfig {
        address: format!("unix://{}", socket.display()).parse().expect("an address"),
        ca_pem: Vec::new(),
        identity: None,
        server_name: None,
    };
    let channel = Connection::open(&config).await.expect("connects").channel();
    let mut broker = BrokerClient::new(channel.clone());
    let reply = issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    let lease = lease_of(&reply);
    assert_eq!(lease.workload, "local");
    let mut verifier = world.verifier("alpha").await;
    assert!(is_active(&mut verifier, &reply).await);
    let foreign = issue(&mut broker, request("beta", CredentialKind::Opaque)).await;
    assert_eq!(reason(&foreign), "UNKNOWN_WORKLOAD");
    let done =
        broker.complete_task(pb::CompleteTaskRequest { task_id: lease.task_id.clone() }).await.expect("completed");
    assert!(done.into_inner().ended_now && !is_active(&mut verifier, &reply).await);
    // A user is no operator, whoever he is.
    let mut admin = pb::admin_client::AdminClient::new(channel);
    refused(admin.get_status(pb::GetStatusRequest {}).await, "an operator without a certificate");
    let events = pb::ListEventsRequest { task_id: lease.task_id, ..Default::default() };
    let events = world.admin().await.list_events(events).await.expect("listed").into_inner().events;
    assert!(events.iter().all(|event| event.proof == format!("uid:{uid}") && event.source == "unix"), "{events:?}");
    assert!(events.iter().any(|event| event.kind == "task.completed"));
}

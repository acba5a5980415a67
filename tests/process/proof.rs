//! Who proves nothing, or with something that is over, gets nothing.

use mayfly::pb::{CredentialKind, GetStatusRequest, admin_client::AdminClient, broker_client::BrokerClient};
use time::{Duration, OffsetDateTime};

use super::{
    rig::refused,
    world::{World, issue, request},
};
use crate::support::{Authority, Identity, dial};

#[tokio::test(flavor = "multi_thread")]
async fn expired_foreign_and_missing_certificates_get_nothing() {
    let world = World::new().await;
    let id = "spiffe://platform.example/alpha/worker";
    let past = OffsetDateTime::now_utc() - Duration::minutes(10);
    let expired = world.authority.identity_until(id, past).expect("identity");
    let foreign = Authority::new("platform").expect("authority").identity(id).expect("identity");
    for (what, identity) in [("expired", Some(expired)), ("foreign", Some(foreign)), ("missing", None)] {
        // Either the handshake or the call refuses.
        if let Ok(channel) = dial(world.process.address, &world.roots(), identity.as_ref()).await {
            refused(issue(&mut BrokerClient::new(channel), request("alpha", CredentialKind::Jwt)).await, what);
        }
    }
    assert_eq!(world.live().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workloads_certificate_is_no_operators() {
    let world = World::new().await;
    let claims = world.authority.identity("spiffe://mayfly.internal/operator/admin").expect("identity");
    for identity in [world.identity("alpha/worker"), claims] {
        let mut admin = AdminClient::new(world.channel(Some(&identity)).await);
        admin.get_status(GetStatusRequest {}).await.expect_err("no operator");
    }
    let mut admin = AdminClient::new(world.channel(None::<&Identity>).await);
    admin.get_status(GetStatusRequest {}).await.expect_err("nobody");
}

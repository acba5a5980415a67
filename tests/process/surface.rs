//! What others speak: health, reflection, discovery and key sets.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mayfly::pb::{CredentialKind, IssueResponse, issue_response::Credential};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::{
    rig,
    world::{World, is_active, issue, request},
};
use crate::support::tls_client;

async fn get(world: &World, path: &str) -> (String, String) {
    let mut config = tls_client(&world.roots(), None).expect("config");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tcp = TcpStream::connect(world.process.address).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("TLS");
    rig::get(stream, path).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_verifies_with_the_key_set_that_discovery_leads_to() {
    let world = World::new().await;
    let reply = issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Jwt)).await.expect("issued");
    let Some(Credential::Token(token)) = reply.credential else { panic!("no token") };
    let (head, body) = get(&world, "/t/alpha/.well-known/openid-configuration").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("cache-control:"), "{head}");
    let discovery: Value = serde_json::from_str(&body).expect("JSON");

    let parts: Vec<&str> = token.split('.').collect();
    let part = |at: usize| URL_SAFE_NO_PAD.decode(parts[at]).expect("Base64url");
    let claims: Value = serde_json::from_slice(&part(1)).expect("claims");
    let header: Value = serde_json::from_slice(&part(0)).expect("header");
    assert_eq!(claims["iss"], discovery["issuer"]);
    assert_eq!(header["alg"], "ES256");

    let jwks = discovery["jwks_uri"].as_str().expect("a URL");
    let path = jwks.splitn(4, '/').nth(3).map(|path| format!("/{path}")).expect("a path");
    let (head, body) = get(&world, &path).await;
    assert!(head.contains("cache-control:") && head.contains("max-age="), "{head}");
    let set: Value = serde_json::from_str(&body).expect("JSON");
    let keys = set["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).expect("the key of the token");
    assert!(key.get("d").is_none(), "a private key is published");
    let mut point = vec![4];
    for coordinate in ["x", "y"] {
        point.extend(URL_SAFE_NO_PAD.decode(key[coordinate].as_str().expect("text")).expect("Base64url"));
    }
    let message = token.rsplit_once('.').expect("a signature").0;
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    public.verify(message.as_bytes(), &part(2)).expect("the signature is good");

    let (foreign, _) = get(&world, "/t/nowhere/.well-known/openid-configuration").await;
    assert!(foreign.starts_with("http/1.1 404"), "{foreign}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_by_command_keeps_old_tokens_and_a_revoked_key_ends_them() {
    let world = World::new().await;
    let (mut broker, mut verifier) = (world.broker("alpha").await, world.verifier("alpha").await);
    let old = issue(&mut broker, request("alpha", CredentialKind::Jwt)).await.expect("issued");
    let operator = world.launch.data().join("operator");
    let rotate = ["key", "rotate", "--tenant", "alpha", "--use", "token", "--step"];
    let early = world.process.ask(&operator, &[&rotate[..], &["activate"]].concat());
    assert!(early.code == 1 && early.errors.contains("INVALID_FIELD"), "{early:?}");
    let now = world.process.ask(&operator, &[&rotate[..], &["now"]].concat());
    assert_eq!(now.code, 0, "{now:?}");
    let new = issue(&mut broker, request("alpha", CredentialKind::Jwt)).await.expect("issued");
    assert_ne!(key_id(&old), key_id(&new));
    let (_, keys) = get(&world, "/t/alpha/jwks.json").await;
    assert!(keys.contains(&key_id(&old)) && keys.contains(&key_id(&new)), "{keys}");
    assert!(is_active(&mut verifier, &old).await && is_active(&mut verifier, &new).await);

    let revoke = world.process.ask(&operator, &["revoke", "key", &key_id(&old), "--reason", "leaked"]);
    assert_eq!(revoke.code, 0, "{revoke:?}");
    assert!(!is_active(&mut verifier, &old).await && is_active(&mut verifier, &new).await);
    let (_, keys) = get(&world, "/t/alpha/jwks.json").await;
    assert!(!keys.contains(&key_id(&old)) && keys.contains(&key_id(&new)), "{keys}");
}

/// The key that signed a token.
fn key_id(reply: &IssueResponse) -> String {
    let Some(Credential::Token(token)) = &reply.credential else { panic!("no token") };
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().expect("a header")).expect("Base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    header["kid"].as_str().expect("a key id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer() {
    let world = World::new().await;
    let channel = world.channel(Some(&world.identity("alpha/worker"))).await;
    let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.expect("answers");
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);

    let ask = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let call = ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::iter([ask])).await;
    let reply = call.expect("answers").into_inner().message().await.expect("a message").expect("one");
    let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else { panic!("{reply:?}") };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.iter().any(|name| name == "mayfly.v1.Broker"), "{names:?}");
}

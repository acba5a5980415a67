//! The SPIFFE Workload API and Envoy's SDS over the real socket, as their clients see them.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use mayfly::{
    client::{ClientConfig, Connection},
    foreign::{
        envoy::{
            extensions::transport_sockets::tls::v3::{Secret, secret::Type},
            service::{
                discovery::v3::DiscoveryRequest,
                secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
            },
        },
        workload::{
            JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509svidRequest,
            X509svidResponse, spiffe_workload_api_client::SpiffeWorkloadApiClient,
        },
    },
    pb::{self, ApplyOptions, IntrospectRequest, introspect_request::Credential as Presented},
};
use prost::Message as _;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};
use tonic::{Code, Request, Status, Streaming, transport::Channel};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::world::{PARTNER, World, audience, revocation};

/// A daemon with a socket for the tenant alpha, in which this user has an identity, and one for beta, where it has none.
struct Stage {
    world: World,
    folder: TempDir,
}

type Api = SpiffeWorkloadApiClient<Channel>;

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let listener = |tenant: &str| {
            let socket = folder.path().join(format!("{tenant}.sock"));
            format!(
                "[[listener]]\nunix = {socket:?}\nmode = \"0666\"\nservices = [\"workload_api\", \"sds\"]\n\
                 tenants = [\"{tenant}\"]\n"
            )
        };
        let world = World::configured(&(listener("alpha") + &listener("beta"))).await;
        let uid = rustix::process::getuid().as_raw();
        let mut trust = world.trust.clone();
        for (tenant, uid) in [("alpha", uid), ("beta", uid + 1)] {
            let audiences = [format!("spiffe://{tenant}.mayfly.internal"), audience(tenant)];
            trust += &format!(
                "[[workload]]\ntenant = \"{tenant}\"\nname = \"local\"\nenvironment = \"prod\"\n\
                 selectors = [{{ unix_uid = {uid} }}]\n\
                 [[grant]]\ntenant = \"{tenant}\"\nname = \"mesh\"\npartner = \"{PARTNER}\"\nworkloads = [\"local\"]\n\
                 purposes = [\"serve\"]\naudiences = {audiences:?}\nkinds = [\"jwt\", \"x509\"]\nttl_default = 300\n\
                 ttl_max = 3600\ntask_max = 7200\nrequire_binding = false\nowner = \"owner@example.com\"\n\
                 expires = {expires}\nrevokers = [\"admin\"]\nattest_by = {expires}\nenvironment = \"prod\"\n\
                 workload_api = true\n",
                expires = (time::OffsetDateTime::now_utc() + time::Duration::days(60)).date(),
            );
        }
        world.apply(&trust, ApplyOptions::default()).await.expect("applies");
        Self { world, folder }
    }

    fn socket(&self, tenant: &str) -> PathBuf {
        self.folder.path().join(format!("{tenant}.sock"))
    }

    async fn channel(&self, tenant: &str) -> Channel {
        let config = ClientConfig {
            address: format!("unix://{}", self.socket(tenant).display()).parse().expect("an address"),
            ca_pem: Vec::new(),
            identity: None,
            server_name: None,
        };
        Connection::open(&config).await.expect("connects").channel()
    }

    async fn api(&self, tenant: &str) -> Api {
        Api::new(self.channel(tenant).await)
    }

    /// Revokes what was had under the grant behind alpha's identity; `without_bar` leaves the way to more open.
    async fn revoke(&self, without_bar: bool) {
        let scope = pb::Scope {
            kind: pb::ScopeKind::Grant.into(),
            tenant: "alpha".into(),
            grant: "mesh".into(),
            ..Default::default()
        };
        let revocation = pb::RevokeRequest { without_bar, ..revocation(scope) };
        self.world.admin().await.revoke(revocation).await.expect("revoked");
    }
}

fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().expect("ASCII"));
    request
}

async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    timeout(Duration::from_secs(20), stream.message()).await.expect("told in time")
}

async fn begin(api: &mut Api) -> (Streaming<X509svidResponse>, X509svidResponse) {
    let mut stream = api.fetch_x509svid(with_header(X509svidRequest {})).await.expect("begins").into_inner();
    let first = next(&mut stream).await.expect("served").expect("a message");
    (stream, first)
}

/// The task of an SVID: the first half of its serial number.
fn task(response: &X509svidResponse) -> Vec<u8> {
    let (_, leaf) = X509Certificate::from_der(&response.svids[0].x509_svid).expect("DER");
    leaf.raw_serial()[..12].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_are_those_that_spiffe_clients_go_by() {
    let stage = Stage::new().await;
    assert_eq!(std::fs::metadata(stage.socket("alpha")).expect("a socket").permissions().mode() & 0o777, 0o666);
    let (mut api, mut nobody) = (stage.api("alpha").await, stage.api("beta").await);
    // The header comes first, whoever asks.
    for api in [&mut api, &mut nobody] {
        for values in [&[][..], &["false"], &["TRUE"], &["true", "true"]] {
            let mut request = Request::new(X509svidRequest {});
            for value in values {
                request.metadata_mut().append("workload.spiffe.io", value.parse().expect("ASCII"));
            }
            let refused = api.fetch_x509svid(request).await.expect_err("without the header");
            assert_eq!(refused.code(), Code::InvalidArgument, "{values:?}");
        }
    }
    let none: Vec<Status> = vec![
        nobody.fetch_x509svid(with_header(X509svidRequest {})).await.map(drop).expect_err("nobody"),
        nobody.fetch_x509_bundles(with_header(X509BundlesRequest {})).await.map(drop).expect_err("nobody"),
        nobody.fetch_jwt_bundles(with_header(JwtBundlesRequest {})).await.map(drop).expect_err("nobody"),
        nobody
            .fetch_jwtsvid(with_header(JwtsvidRequest { audience: vec![audience("beta")], ..Default::default() }))
            .await
            .map(drop)
            .expect_err("nobody"),
        nobody
            .validate_jwtsvid(with_header(ValidateJwtsvidRequest { audience: "a".into(), svid: "a.b.c".into() }))
            .await
            .map(drop)
            .expect_err("nobody"),
        api.fetch_jwtsvid(with_header(JwtsvidRequest { audience: vec!["https://x".into()], ..Default::default() }))
            .await
            .map(drop)
            .expect_err("not granted"),
    ];
    for status in none {
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
    }
    let asked = JwtsvidRequest { audience: vec![], ..Default::default() };
    let refused = api.fetch_jwtsvid(with_header(asked)).await.map(drop).expect_err("no audience");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let asked = ValidateJwtsvidRequest { audience: audience("alpha"), svid: "a.b.c".into() };
    let refused = api.validate_jwtsvid(with_header(asked)).await.map(drop).expect_err("no token");
    assert_eq!(refused.code(), Code::InvalidArgument);
    // WIT-SVIDs are optional.
    let mut raw = tonic::client::Grpc::new(stage.channel("alpha").await);
    raw.ready().await.expect("ready");
    let codec = tonic_prost::ProstCodec::<X509svidRequest, X509svidResponse>::default();
    let path = "/SpiffeWorkloadAPI/FetchWITSVID".parse().expect("a path");
    let refused =
        raw.server_streaming(with_header(X509svidRequest {}), path, codec).await.map(drop).expect_err("not there");
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_what_the_standards_say_and_a_revocation_ends_it_all() {
    let stage = Stage::new().await;
    let mut api = stage.api("alpha").await;
    let (mut stream, first) = begin(&mut api).await;
    let svid = &first.svids[0];
    assert_eq!(svid.spiffe_id, format!("spiffe://alpha.mayfly.internal/partner/{PARTNER}/workload/local"));
    assert_eq!(svid.hint, "alpha/mesh");
    let mut bundles = api.fetch_x509_bundles(with_header(X509BundlesRequest {})).await.expect("begins").into_inner();
    let roots = next(&mut bundles).await.expect("served").expect("a message").bundles;
    assert_eq!(roots.get("spiffe://alpha.mayfly.internal"), Some(&svid.bundle));
    let (rest, leaf) = X509Certificate::from_der(&svid.x509_svid).expect("DER");
    assert!(!rest.is_empty(), "its issuers follow");
    let mut roots = svid.bundle.as_slice();
    let mut vouched = false;
    while !roots.is_empty() {
        let (rest, root) = X509Certificate::from_der(roots).expect("DER");
        vouched |= leaf.verify_signature(Some(root.public_key())).is_ok();
        roots = rest;
    }
    assert!(vouched);
    rcgen::KeyPair::try_from(svid.x509_svid_key.as_slice()).expect("PKCS#8");

    let asked = JwtsvidRequest { audience: vec![audience("alpha")], spiffe_id: svid.spiffe_id.clone() };
    let token = api.fetch_jwtsvid(with_header(asked)).await.expect("issued").into_inner().svids.remove(0);
    assert_eq!((&token.spiffe_id, token.hint.as_str()), (&svid.spiffe_id, "alpha/mesh"));
    let mut keys = api.fetch_jwt_bundles(with_header(JwtBundlesRequest {})).await.expect("begins").into_inner();
    let keys = next(&mut keys).await.expect("served").expect("a message").bundles;
    let keys: serde_json::Value = serde_json::from_slice(&keys["spiffe://alpha.mayfly.internal"]).expect("JSON");
    assert!(
        keys["keys"].as_array().expect("a list").iter().all(|key| key["use"] == "jwt-svid" && key["kid"].is_string())
    );
    let asked = || with_header(ValidateJwtsvidRequest { audience: audience("alpha"), svid: token.svid.clone() });
    let found = api.validate_jwtsvid(asked()).await.expect("good").into_inner();
    assert_eq!(found.spiffe_id, svid.spiffe_id);
    assert!(found.claims.expect("claims").fields.contains_key("exp"));
    // A resource server sees it as it sees every token, under the same name.
    let mut verifier = stage.world.verifier("alpha").await;
    let request = || IntrospectRequest { credential: Some(Presented::Token(token.svid.clone())), ..Default::default() };
    assert!(verifier.introspect(request()).await.expect("asked").into_inner().active);

    stage.revoke(false).await;
    for end in [next(&mut stream).await.map(drop), next(&mut bundles).await.map(drop)] {
        let end = end.expect_err("the identity is gone");
        assert_eq!((end.code(), end.message()), (Code::PermissionDenied, "no identity issued"));
    }
    assert_eq!(api.validate_jwtsvid(asked()).await.map(drop).expect_err("nobody").code(), Code::PermissionDenied);
    assert!(!verifier.introspect(request()).await.expect("asked").into_inner().active);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_ends_streams_as_unavailable_and_the_process_finds_its_task_again() {
    let mut stage = Stage::new().await;
    let (mut stream, first) = begin(&mut stage.api("alpha").await).await;
    assert!(stage.world.process.stop().success());
    // What go-spiffe takes for a reason to come again, unlike a cancelled stream.
    assert_eq!(next(&mut stream).await.map(drop).expect_err("stopped").code(), Code::Unavailable);
    stage.world.restart().await;
    let (_stream, second) = begin(&mut stage.api("alpha").await).await;
    assert_eq!(task(&first), task(&second));
    assert_ne!(first.svids[0].x509_svid, second.svids[0].x509_svid);
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_gets_the_same_identity_over_sds_and_loses_it_with_the_grant() {
    let stage = Stage::new().await;
    let mut sds = SecretDiscoveryServiceClient::new(stage.channel("alpha").await);
    let asked = |names: &[&str]| DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret".into(),
        ..Default::default()
    };
    let fetched = sds.fetch_secrets(asked(&["default"])).await.expect("served").into_inner();
    let secret = Secret::decode(fetched.resources[0].value.as_slice()).expect("a secret");
    let Some(Type::TlsCertificate(_)) = secret.r#type else { panic!("no certificate") };
    let unknown = sds.fetch_secrets(asked(&["nobody"])).await.map(drop).expect_err("unknown");
    assert_eq!(unknown.code(), Code::InvalidArgument);

    let (to, requests) = tokio::sync::mpsc::channel(2);
    to.send(asked(&["ROOTCA", "default"])).await.expect("open");
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut stream = sds.stream_secrets(requests).await.expect("begins").into_inner();
    let first = next(&mut stream).await.expect("served").expect("a message");
    assert_eq!(first.resources.len(), 2);
    let known = DiscoveryRequest {
        response_nonce: first.nonce,
        version_info: first.version_info,
        ..asked(&["ROOTCA", "default"])
    };
    to.send(known).await.expect("open");
    stage.revoke(false).await;
    assert_eq!(next(&mut stream).await.map(drop).expect_err("gone").code(), Code::PermissionDenied);
    let mut nobody = SecretDiscoveryServiceClient::new(stage.channel("beta").await);
    let refused = nobody.fetch_secrets(asked(&["default"])).await.map(drop).expect_err("nobody");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_rust_crate_fetches_checks_and_follows_what_is_replaced() {
    let stage = Stage::new().await;
    let endpoint = format!("unix:{}", stage.socket("alpha").display());
    let source = spiffe::X509Source::builder().endpoint(&endpoint).build().await.expect("a source");
    let first = source.svid().expect("an SVID");
    let own = format!("spiffe://alpha.mayfly.internal/partner/{PARTNER}/workload/local");
    assert_eq!((first.spiffe_id().to_string(), first.hint()), (own.clone(), Some("alpha/mesh")));
    let domain = spiffe::TrustDomain::new("alpha.mayfly.internal").expect("a name");
    assert!(source.try_bundle_for_trust_domain(&domain).is_some());

    let api = spiffe::WorkloadApiClient::connect_to(&endpoint).await.expect("connects");
    let token = api.fetch_jwt_svid([audience("alpha")], None).await.expect("a JWT-SVID");
    assert_eq!(token.spiffe_id().to_string(), own);
    let checked = api.validate_jwt_token(&audience("alpha"), token.token()).await.expect("good");
    assert_eq!(checked.spiffe_id(), token.spiffe_id());
    api.validate_jwt_token("https://other.example", token.token()).await.map(drop).expect_err("another audience");
    let keys = api.fetch_jwt_bundles().await.expect("key sets");
    assert_eq!(keys.len(), 1);

    let mut updates = source.updated();
    stage.revoke(true).await;
    timeout(Duration::from_secs(20), updates.changed()).await.expect("in time").expect("replaced");
    let second = source.svid().expect("an SVID");
    assert_eq!(second.spiffe_id(), first.spiffe_id());
    assert_ne!(second.leaf().as_bytes(), first.leaf().as_bytes());
    api.validate_jwt_token(&audience("alpha"), token.token()).await.map(drop).expect_err("revoked");
    source.shutdown().await;
}

/// What grpc-core, grpc-java and others send: the socket's path where HTTP/2 wants a host.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_send_the_sockets_path_as_authority_are_served() {
    let stage = Stage::new().await;
    let socket = stage.socket("alpha");
    let path = socket.to_str().expect("UTF-8");
    for authority in [path.to_owned(), path.replace('/', "%2F"), "localhost".to_owned()] {
        let mut io = UnixStream::connect(&socket).await.expect("connects");
        let mut block = vec![0x83, 0x86];
        for (name, value) in [
            (":authority", authority.as_str()),
            (":path", "/SpiffeWorkloadAPI/FetchX509SVID"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("workload.spiffe.io", "true"),
        ] {
            // A literal without indexing (RFC 7541 section 6.2.2), as grpc-core writes the authority.
            for text in [name, value] {
                if text == name {
                    block.push(0);
                }
                block.push(u8::try_from(text.len()).expect("short"));
                block.extend_from_slice(text.as_bytes());
            }
        }
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            let [high, low] = u16::try_from(payload.len()).expect("short").to_be_bytes();
            bytes.extend_from_slice(&[0, high, low, kind, flags, 0, 0, 0, stream]);
            bytes.extend_from_slice(payload);
        };
        frame(4, 0, 0, &[]);
        frame(1, 4, 1, &block);
        // An empty message in five bytes, and no more.
        frame(0, 1, 1, &[0; 5]);
        io.write_all(&bytes).await.expect("sent");
        let answer = timeout(Duration::from_secs(20), async {
            loop {
                let mut head = [0; 9];
                io.read_exact(&mut head).await.expect("a frame");
                let length = usize::from(head[1]) << 8 | usize::from(head[2]);
                let mut payload = vec![0; length];
                io.read_exact(&mut payload).await.expect("its payload");
                // Of the one stream: headers, or a reset.
                if head[8] == 1 {
                    return head[3];
                }
            }
        });
        assert_eq!(answer.await.expect("answered"), 1, "{authority}");
    }
}

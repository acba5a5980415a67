//! Every reader of bytes that an outsider can write: what fuzz/ drives without end, tests/edges.rs drives for a moment.
//!
//! Only a panic is wrong.

#![allow(dead_code, reason = "each target uses one")]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, OnceLock},
    time::Duration,
};

use base64::Engine as _;
use mayfly::{
    audit::{Start, Verifier, export, verify::Coverage},
    broker::time::SystemClock,
    config::{Config, Engine as EngineKind, Listener, Service, Socket},
    identity::{
        ClientAuthorities, PeerCertificate,
        oidc::{KeySet, UnverifiedToken},
    },
    ledger::{
        self,
        engine::{Batch, Engine, Op, Table, memory::Memory},
    },
    mint::{jwt, opaque, seal::SealKey, x509},
    model::{
        Stamp, Timestamp,
        secret::{MacKey, Secret},
    },
    policy,
    server::Server,
};
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use tokio::{net::UnixStream, runtime::Runtime, time::timeout};
use tonic::{
    Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

/// A signed token, a reference token, and what a token claims.
pub fn token(text: &str) {
    let _ = jwt::peek(text);
    let _ = opaque::parse(text);
    let (basis, scopes) = text.split_once(' ').unwrap_or((text, ""));
    let _ = Stamp::from_claims(basis, scopes);
}

/// An identity token, the header, claims or key set in one, and a pattern for claims.
pub fn identity_token(text: &str) {
    let _ = UnverifiedToken::parse(text).map(|token| token.unverified_claims());
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let _ = UnverifiedToken::parse(&format!("{}.{}.", part(r#"{"alg":"RS256","kid":"k"}"#), part(text)));
    let _ = UnverifiedToken::parse(&format!("{}.{}.", part(text), part(r#"{"iss":"x"}"#)));
    let _ = KeySet::parse(text.as_bytes());
    let _ = text.parse::<policy::ClaimPattern>();
}

/// A certificate request.
pub fn csr(bytes: &[u8]) {
    let _ = x509::parse_csr(bytes);
}

/// A certificate's stamp.
pub fn stamp(bytes: &[u8]) {
    let _ = Stamp::from_extension(bytes);
    let _ = Stamp::from_bytes(bytes);
}

/// A line of an audit export, and a whole one.
pub fn audit_export(bytes: &[u8]) {
    let _ = export::parse(bytes);
    let verifier = Verifier::new(Start::Genesis, Coverage::All, Vec::new(), |_, _, _| true);
    let _ = export::verify_lines(|| Ok(bytes), verifier);
}

/// A trust document, of the whole map and of named tenants.
pub fn trust(text: &str) {
    let now = Timestamp::from_seconds(1_800_000_000);
    let document = policy::Document { path: "trust.toml", text };
    let _ = policy::parse(&[document], policy::Extent::Whole, now);
}

/// Policies, as a tenant's and as guardrails.
pub fn policies(text: &str) {
    let now = Timestamp::from_seconds(1_800_000_000);
    let file = policy::Document { path: "p.cedar", text };
    let own = "[[tenant]]\nname = \"acme\"\npolicy = { enforce = \"p.cedar\" }\n[guardrails]\nenforce = \"p.cedar\"\n";
    let _ = policy::parse(&[policy::Document { path: "trust.toml", text: own }, file], policy::Extent::Whole, now);
}

/// The server's configuration.
pub fn config(text: &str) {
    let _ = Config::parse(text, Path::new("mayfly.toml"));
}

/// A client's certificate: the bytes as one, and the bytes as the names within one that a believed CA has signed.
pub fn certificate(bytes: &[u8]) {
    static BELIEVED: LazyLock<Believed> = LazyLock::new(Believed::new);
    let now = Timestamp::from_seconds(1_800_000_000);
    let raw = CertificateDer::from(bytes.to_vec());
    let _ = PeerCertificate::from_chain(std::slice::from_ref(&raw), &BELIEVED.authorities, now);
    let _ = PeerCertificate::from_chain(&[BELIEVED.leaf(bytes), raw], &BELIEVED.authorities, now);
}

struct Believed {
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
    authorities: ClientAuthorities,
}

impl Believed {
    fn new() -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("root").der().clone();
        let domain = Config::dev(Path::new("data"), 0).trust_domain;
        let foreign = [("foreign".to_owned(), vec![root])];
        let own = CertificateParams::default().self_signed(&KeyPair::generate().expect("key")).expect("root");
        let authorities = ClientAuthorities::new(domain, &[own.der().clone()], &foreign).expect("authorities");
        Self { issuer: Issuer::new(params, key), key: KeyPair::generate().expect("key"), authorities }
    }

    fn leaf(&self, names: &[u8]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], names.to_vec())];
        params.signed_by(&self.key, &self.issuer).expect("a leaf").der().clone()
    }
}

/// A row of the store whose MAC is right: the table, the length of the key, the key, the value.
pub fn row(bytes: &[u8]) {
    let [table, length, rest @ ..] = bytes else { return };
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    let Some(table) = Table::ALL.get(usize::from(*table) % Table::ALL.len()).copied() else { return };
    let secret = Secret::<32>::try_init(|bytes| {
        bytes.fill(7);
        Ok::<_, ()>(())
    });
    let Ok(secret) = secret else { return };
    let tag = MacKey::new(&secret).tag(&[&[table as u8], key, value]);
    for value in [value.to_vec(), [value, &tag].concat()] {
        let engine = Memory::new();
        let ops = vec![Op::Put(table, key.to_vec(), value)];
        if engine.commit(&Batch { compares: Vec::new(), ops }).is_err() {
            return;
        }
        let _ = ledger::check(&engine, MacKey::new(&secret), |_, _| {});
    }
}

/// One gRPC message to a method of a real server, through all layers: the method, then the message.
pub fn message(bytes: &[u8]) {
    static SERVED: OnceLock<Served> = OnceLock::new();
    let Some((method, message)) = bytes.split_first() else { return };
    let served = SERVED.get_or_init(Served::start);
    let path = METHODS[usize::from(*method) % METHODS.len()];
    let asked = async { timeout(Duration::from_millis(500), served.ask(path, message.to_vec())).await };
    let _ = served.runtime.block_on(asked);
}

struct Served {
    runtime: Runtime,
    channel: Channel,
    _folder: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("mayfly.sock");
        let channel = runtime.block_on(serve(folder.path(), path));
        Self { runtime, channel, _folder: folder }
    }

    async fn ask(&self, path: &'static str, message: Vec<u8>) -> Result<(), Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = http::uri::PathAndQuery::from_static(path);
        // One message, and no more: what a unary call and the beginning of a stream look like alike.
        let mut replies = grpc.server_streaming(tonic::Request::new(message), path, Plain).await?.into_inner();
        replies.message().await.map(drop)
    }
}

async fn serve(folder: &Path, socket: PathBuf) -> Channel {
    let data = folder.join("data");
    std::fs::create_dir_all(&data).expect("folder");
    SealKey::create(&data.join("seal.key")).expect("a seal key");
    let mut config = Config::dev(&data, 0);
    config.engine = EngineKind::Memory;
    let place = Socket::Unix { path: socket.clone(), mode: 0o600 };
    config.listeners = vec![Listener { socket: place, services: Service::ALL.to_vec(), tenants: Vec::new() }];
    let server = Server::build(config, Arc::new(SystemClock)).await.expect("serves");
    tokio::spawn(server.run_until(Arc::new(String::new), std::future::pending()));
    let connect = move |_: http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    };
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(tower::service_fn(connect)).await.expect("connects")
}

/// Bytes as they are.
#[derive(Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = prost::bytes::Buf::remaining(from);
        Ok(Some(prost::bytes::Buf::copy_to_bytes(from, length).to_vec()))
    }
}

/// All of the contract.
pub const METHODS: [&str; 41] = [
    "/mayfly.v1.Broker/OpenTask",
    "/mayfly.v1.Broker/Issue",
    "/mayfly.v1.Broker/Renew",
    "/mayfly.v1.Broker/Release",
    "/mayfly.v1.Broker/CompleteTask",
    "/mayfly.v1.Broker/HoldTask",
    "/mayfly.v1.Verifier/Introspect",
    "/mayfly.v1.Verifier/WatchRevocations",
    "/mayfly.v1.Verifier/GetTrustBundle",
    "/mayfly.v1.Admin/Apply",
    "/mayfly.v1.Admin/ListTenants",
    "/mayfly.v1.Admin/ListPartners",
    "/mayfly.v1.Admin/ListIssuers",
    "/mayfly.v1.Admin/TestIdentityToken",
    "/mayfly.v1.Admin/ListGrants",
    "/mayfly.v1.Admin/ListWorkloads",
    "/mayfly.v1.Admin/ListOperators",
    "/mayfly.v1.Admin/ListTasks",
    "/mayfly.v1.Admin/GetTask",
    "/mayfly.v1.Admin/ListLeases",
    "/mayfly.v1.Admin/Identify",
    "/mayfly.v1.Admin/Revoke",
    "/mayfly.v1.Admin/GetRevocation",
    "/mayfly.v1.Admin/WatchRevocation",
    "/mayfly.v1.Admin/ListRevocations",
    "/mayfly.v1.Admin/Bar",
    "/mayfly.v1.Admin/Lift",
    "/mayfly.v1.Admin/ListBars",
    "/mayfly.v1.Admin/Attest",
    "/mayfly.v1.Admin/Explain",
    "/mayfly.v1.Admin/ListEvents",
    "/mayfly.v1.Admin/TailEvents",
    "/mayfly.v1.Admin/ExportEvents",
    "/mayfly.v1.Admin/VerifyEvents",
    "/mayfly.v1.Admin/ListKeys",
    "/mayfly.v1.Admin/RotateKeys",
    "/mayfly.v1.Admin/IssueOperatorCertificate",
    "/mayfly.v1.Admin/GetStatus",
    "/mayfly.v1.Admin/ConfirmTime",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

//! A real server behind its sockets, asked by a workload, an operator, a directory and an identity provider.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use mayfly::{
    audit::export::{self, Item},
    broker::{Broker, backup::replay::Replayed, time::SystemClock},
    client::{Address, ClientConfig, Connection, Identity, read_ca},
    config::{Config, Engine, Issuer, KeySource, Listener, Scim, Service, SharedSignals, Socket, SubjectFormat},
    foreign,
    model::{Clock, Digest, IssuerKind},
    pb::{self, admin_client::AdminClient},
    server::{Dev, Server, host, prepare},
};
use prost::Message as _;
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle, time::timeout};
use tonic::{
    Code, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataValue,
    transport::Channel,
};

use super::{
    credentials::{ISSUER, rules},
    wire::exchange,
};

/// One gRPC message to a method of a real server, through all layers: the method's name and a line end, or a byte that
/// stands for one of them, then the message. What came of it, unless that takes long.
pub fn message(bytes: &[u8]) -> Option<Code> {
    let (number, after) = bytes.split_first()?;
    let named = bytes.iter().position(|byte| *byte == b'\n').map(|end| (&bytes[..end], &bytes[end + 1..]));
    let called = |name: &[u8]| METHODS.iter().find(|path| path.rsplit('/').next().map(str::as_bytes) == Some(name));
    let (path, message) = match named.and_then(|(name, message)| Some((called(name)?, message))) {
        Some(found) => found,
        None => (METHODS.get(usize::from(*number) % METHODS.len())?, after),
    };
    served(|served| {
        let asked = async { timeout(PATIENCE, served.ask(path, message.to_vec())).await };
        let answer = served.runtime.block_on(asked).ok()?;
        let blame = answer.as_ref().err().map_or("", Status::message);
        assert!(!blame.starts_with("internal error"), "the server blames itself for what it was asked");
        Some(answer.map_or_else(|status| status.code(), |()| Code::Ok))
    })
}

/// One request of HTTP to a real server: which, then its body, its query, or the claims of the event in it.
pub fn http(bytes: &[u8]) -> Vec<u8> {
    let Some((which, given)) = bytes.split_first() else { return Vec::new() };
    served(|served| {
        let reply = exchange(&served.socket, &served.request(*which, given), false);
        let line = reply.split(|byte| *byte == b'\r').next().unwrap_or_default();
        assert!(!line.starts_with(b"HTTP/1.1 500"), "the server blames itself for what it was asked");
        reply
    })
}

/// All that comes over one connection, of whatever protocol.
pub fn connection(bytes: &[u8]) {
    served(|served| exchange(&served.socket, bytes, true));
}

/// A line of a shipped audit, made again in a broker.
pub fn replay(line: &[u8]) {
    let Ok(Item::Event(event)) = export::parse(line) else { return };
    served(|served| {
        let mut done = Replayed::default();
        let outcome = served.runtime.block_on(served.broker.replay(&event, &mut done));
        assert!(outcome.is_ok(), "{outcome:?}");
    });
}

/// What is asked next is asked of another server.
pub fn restart() {
    let before = SERVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(before);
}

/// Asks a server. After some thousands of questions another one takes its place, so that what questions leave behind is
/// bounded.
fn served<T>(ask: impl FnOnce(&Served) -> T) -> T {
    let mut held = SERVED.lock().unwrap_or_else(PoisonError::into_inner);
    let (served, asked) = match held.take() {
        Some((served, asked)) if asked < QUESTIONS => (served, asked),
        Some(_) | None => (Served::start(), 0),
    };
    let answer = ask(&served);
    *held = Some((served, asked + 1));
    answer
}

/// The server, and how often it was asked.
static SERVED: Mutex<Option<(Served, usize)>> = Mutex::new(None);

struct Served {
    socket: PathBuf,
    local: Channel,
    operator: Channel,
    broker: Arc<Broker>,
    /// Whom the directory knows.
    user: String,
    stop: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    runtime: Runtime,
    _folder: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        let folder = tempfile::tempdir().expect("folder");
        let config = config(folder.path());
        let (socket, user_id) = (socket(folder.path()), std::fs::metadata(folder.path()).expect("a folder").uid());
        let (broker, local, operator, stop) = runtime.block_on(async {
            let server = Server::build(config, Arc::new(SystemClock)).await.expect("serves");
            host::dev_operator(server.broker(), &folder.path().join("data")).await.expect("an operator");
            let tls = server.addresses().listeners.first().copied().expect("an address");
            let broker = Arc::clone(server.broker());
            let (stop, stopped) = oneshot::channel();
            let running = tokio::spawn(server.run_until(Arc::new(String::new), async { drop(stopped.await) }));
            let local = dial(Address::Unix(socket.clone()), None).await;
            let own = folder.path().join("data/operator");
            let tls = Address::Https { host: tls.ip().to_string(), port: tls.port() };
            let operator = dial(tls, Some(&own)).await;
            apply(operator.clone(), trust(user_id)).await;
            (broker, local, operator, (stop, running))
        });
        let mut served =
            Self { socket, local, operator, broker, user: String::new(), stop: Some(stop), runtime, _folder: folder };
        let reply = exchange(&served.socket, &served.request(0, br#"{"userName":"ann@acme.example"}"#), false);
        assert!(reply.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&reply));
        served.user = served.broker.users(|_| true).first().expect("ann").id.to_string();
        served
    }

    async fn ask(&self, path: &'static str, message: Vec<u8>) -> Result<(), Status> {
        let channel = if path.starts_with("/mayfly.v1.Admin/") { &self.operator } else { &self.local };
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
        let path = http::uri::PathAndQuery::from_static(path);
        // One message, and no more: what a unary call and the beginning of a stream look like alike.
        let mut replies = grpc.server_streaming(request, path, Plain).await?.into_inner();
        replies.message().await.map(drop)
    }

    /// A request of a directory or an identity provider, for one answer.
    fn request(&self, which: u8, given: &[u8]) -> Vec<u8> {
        let user = format!("/scim/v2/Users/{}", self.user);
        let (scim, event) = ("application/scim+json", "application/secevent+jwt");
        let (method, path, kind, body) = match which % 7 {
            0 => ("POST", "/scim/v2/Users".to_owned(), scim, given.to_vec()),
            1 => ("PUT", user, scim, given.to_vec()),
            2 => ("PATCH", user, scim, given.to_vec()),
            3 => ("GET", format!("/scim/v2/Users?filter={}", escaped(given)), scim, Vec::new()),
            4 => ("POST", "/shared-signals/events".to_owned(), event, given.to_vec()),
            5 => {
                let signed = ISSUER.sign("secevent+jwt", given);
                ("POST", "/shared-signals/events".to_owned(), event, signed.into_bytes())
            }
            _ => ("GET", format!("/{}", escaped(given)), scim, Vec::new()),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {DIRECTORY}\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some((stop, running)) = self.stop.take() {
            drop(stop);
            let _ = self.runtime.block_on(async { timeout(Duration::from_secs(5), running).await });
        }
    }
}

/// Everything is offered, nothing is limited by rate, and what lasts is in memory.
fn config(folder: &Path) -> Config {
    let key_set = folder.join("keys.json");
    std::fs::write(&key_set, &ISSUER.key_set).expect("written");
    let token_hashes_file = folder.join("scim.sha256");
    std::fs::write(&token_hashes_file, Digest::of(DIRECTORY.as_bytes()).to_string()).expect("written");
    let issuer = |url: &str| {
        let rules = mayfly::model::IssuerRules { url: url.to_owned(), ..rules(IssuerKind::Generic) };
        let hour = Duration::from_secs(3_600);
        Issuer { rules: Arc::new(rules), keys: KeySource::Pinned(key_set.clone()), refresh: hour, stale: hour }
    };
    let mut config = prepare(&Dev {
        data: folder.join("data"),
        port: 0,
        engine: Engine::Memory,
        client_cas: Vec::new(),
        issuers: vec![issuer("https://jobs.example")],
        unlimited: true,
    })
    .expect("a folder of its own");
    let unix = Socket::Unix { path: socket(folder), mode: 0o600 };
    config.listeners.push(Listener {
        socket: unix,
        services: Service::ALL.to_vec(),
        tenants: vec!["acme".parse().expect("a name")],
    });
    config.scim = Some(Scim { token_hashes_file });
    config.shared_signals = Some(SharedSignals {
        issuer: issuer("https://issuer.example"),
        subjects: SubjectFormat::ALL.iter().map(|(_, format)| *format).collect(),
        session_revoked_leaves: true,
    });
    config.limits.drain = Duration::from_millis(100);
    config
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("mayfly.sock")
}

async fn dial(address: Address, own: Option<&Path>) -> Channel {
    let identity = own.map(|own| Identity::from_files(&own.join("cert.pem"), &own.join("key.pem")).expect("own files"));
    let ca_pem = own.map(|own| read_ca(&own.join("ca.pem")).expect("own file")).unwrap_or_default();
    let config = ClientConfig { address, ca_pem, identity, server_name: None };
    Connection::open(&config).await.expect("connects").channel()
}

async fn apply(operator: Channel, text: String) {
    let document = Some(pb::TrustDocument { path: "trust.toml".to_owned(), text });
    let options = Some(pb::ApplyOptions { reason: "a test".to_owned(), ..pb::ApplyOptions::default() });
    let applied = AdminClient::new(operator).apply(tokio_stream::iter([pb::ApplyRequest { options, document }])).await;
    applied.expect("a sound trust map");
}

/// A trust map whose workload is whoever runs this.
fn trust(user_id: u32) -> String {
    let day = Duration::from_secs(86_400);
    let date = |days: u32| SystemClock.wall().after(day * days).rfc3339().chars().take(10).collect::<String>();
    let grant = |name: &str, rest: &str| {
        format!(
            "[[grant]]\ntenant = \"acme\"\nname = \"{name}\"\npartner = \"globex\"\nworkloads = [\"exporter\"]\n\
             purposes = [\"export\"]\nttl_max = \"5m\"\ntask_max = \"1h\"\nowner = \"ann@acme.example\"\n\
             expires = {}\nattest_by = {}\nrevokers = [\"admin\"]\nenvironment = \"prod\"\nrequire_binding = false\n\
             max_live_leases = 1000\n{rest}\n",
            date(300),
            date(200)
        )
    };
    let (tokens, certificates) = (
        grant("tokens", "audiences = [\"https://api.example\"]\nactions = [\"read\"]\nkinds = [\"jwt\", \"opaque\"]"),
        grant("certificates", "audiences = [\"https://mtls.example\"]\nkinds = [\"x509\"]"),
    );
    format!(
        "[[operator]]\nname = \"admin\"\nrole = \"admin\"\ntenants = \"all\"\npartners = \"all\"\n\
         [[partner]]\nname = \"globex\"\ndisplay_name = \"Globex\"\ncontact = \"ops@globex.example\"\n\
         max_live_leases = 1000\n[[tenant]]\nname = \"acme\"\nmax_live_leases = 1000\n\
         [[workload]]\ntenant = \"acme\"\nname = \"exporter\"\nenvironment = \"prod\"\n\
         selectors = [{{ unix_uid = {user_id} }}]\n{tokens}{certificates}"
    )
}

/// In a query, or in a path with its slashes.
fn escaped(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'/' | b'_' => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    bytes.iter().map(one).collect()
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

/// Every method that the server has: of the contract, of the contracts of others, health and reflection.
pub static METHODS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut methods = OTHERS.to_vec();
    for descriptors in [pb::DESCRIPTORS, foreign::DESCRIPTORS] {
        let set = prost_types::FileDescriptorSet::decode(descriptors).expect("own descriptors");
        for file in &set.file {
            for service in &file.service {
                let package = if file.package().is_empty() { String::new() } else { format!("{}.", file.package()) };
                let path = |method: &str| format!("/{package}{}/{method}", service.name());
                let paths = service.method.iter().map(|method| &*path(method.name()).leak());
                methods.extend(paths);
            }
        }
    }
    methods
});

const OTHERS: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// What the directory comes with.
const DIRECTORY: &str = "0123456789abcdef0123456789abcdef";
/// For the first answer; a stream that has nothing to tell is left.
const PATIENCE: Duration = Duration::from_millis(100);
/// That one server is asked.
const QUESTIONS: usize = 20_000;

use std::os::unix::fs::PermissionsExt;

use axum::{Extension, body::Body, extract::Request, routing::get};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::{
    identity::{
        Authority, ClientAuthorities,
        testing::{LeafNames, TestCa, TestLeaf},
    },
    model::{Timestamp, TrustDomain, time::system_wall},
};

#[derive(Debug)]
struct Wall;

impl Clock for Wall {
    fn wall(&self) -> Timestamp {
        system_wall()
    }
    fn boot(&self) -> Duration {
        Duration::ZERO
    }
}

struct Fixture {
    own: TestCa,
    corp: TestCa,
    tls: Arc<TlsSwap>,
    edge: Arc<Edge>,
    stop: CancellationToken,
    address: SocketAddr,
    served: tokio::task::JoinHandle<()>,
}

const WORKLOAD: &str = "spiffe://acme.mayfly.internal/w/build";

fn authorities(own: &TestCa, corp: &TestCa) -> Arc<ClientAuthorities> {
    let foreign = [("corp".to_owned(), vec![corp.root()])];
    Arc::new(ClientAuthorities::new(TrustDomain::default(), &[own.root()], &foreign).expect("sets"))
}

fn identity(leaf: &TestLeaf) -> ServerIdentity {
    ServerIdentity::new(leaf.chain.clone(), leaf.key())
}

fn limits() -> EdgeLimits {
    EdgeLimits {
        connections: 8,
        streams_per_connection: 16,
        frames_per_caller_per_second: 500,
        handshake: Duration::from_secs(10),
        first_request: Duration::from_secs(10),
        drain: Duration::from_secs(10),
    }
}

fn router() -> Router {
    router_that_hangs(Arc::default())
}

/// `/hang` never answers, and says on `asked` that it was asked.
fn router_that_hangs(asked: Arc<Notify>) -> Router {
    let hang = get(move || async move {
        asked.notify_one();
        std::future::pending::<()>().await;
    });
    Router::new().route("/who", get(who)).route("/hang", hang)
}

async fn who(Extension(peer): Extension<Arc<Peer>>) -> String {
    match peer.caller(system_wall()) {
        Ok(Some(caller)) => match caller.certificate() {
            Some(proof) => {
                let by = match &proof.authority {
                    Authority::Own => "own",
                    Authority::Foreign(name) => name,
                };
                format!("{} by {by}", proof.spiffe_id.as_deref().unwrap_or("-"))
            }
            None => caller.proof_text(),
        },
        Ok(None) => "nobody".to_owned(),
        Err(error) => error.to_string(),
    }
}

async fn start(limits: EdgeLimits) -> Fixture {
    start_with(limits, router()).await
}

async fn start_with(limits: EdgeLimits, router: Router) -> Fixture {
    start_on(limits, router, Workers::all_on(Handle::current())).await
}

/// Whoever has `operator` in his name counts as one.
async fn start_on(limits: EdgeLimits, router: Router, workers: Workers) -> Fixture {
    let (own, corp) = (TestCa::new("own"), TestCa::new("corp"));
    let tls = Arc::new(TlsSwap::new(identity(&own.server()), authorities(&own, &corp)).expect("tls"));
    let stop = CancellationToken::new();
    let is_operator: OperatorCheck = Arc::new(|caller| {
        let id = caller.certificate().and_then(|certificate| certificate.spiffe_id.as_deref());
        id.is_some_and(|id| id.contains("operator"))
    });
    let edge = Arc::new(Edge::new(Arc::clone(&tls), limits, Arc::new(Wall), stop.clone(), workers, is_operator, true));
    let listener = Listener::bind(&Socket::Tls(([127, 0, 0, 1], 0).into())).await.expect("bind");
    let address = listener.local_address().expect("address");
    let served = tokio::spawn(listener.serve(router, Arc::clone(&edge)));
    Fixture { own, corp, tls, edge, stop, address, served }
}

impl Fixture {
    async fn connect(&self, leaf: Option<&TestLeaf>, alpn: &[u8]) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.own.root()).expect("root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match leaf {
            Some(leaf) => builder.with_client_auth_cert(leaf.chain.clone(), leaf.key()).expect("client"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// What the server takes the client for.
    async fn who(&self, leaf: Option<&TestLeaf>, alpn: &[u8]) -> io::Result<String> {
        ask(self.connect(leaf, alpn).await?, alpn, "/who").await
    }
}

async fn ask<I>(io: I, alpn: &[u8], path: &str) -> io::Result<String>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = Request::get(format!("https://localhost{path}")).header("host", "localhost");
    let request = request.body(Body::empty()).expect("request");
    let io = TokioIo::new(io);
    let reply = if alpn == b"h2" {
        let (mut sender, connection) =
            conn::http2::handshake(TokioExecutor::new(), io).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = conn::http1::handshake(io).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    let body = Body::new(reply.map_err(io::Error::other)?.into_body());
    let bytes = axum::body::to_bytes(body, 1024).await.map_err(io::Error::other)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Polls a value until it holds.
async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.expect("in time");
}

#[tokio::test]
async fn handlers_see_who_is_at_the_other_end_over_http_1_and_2() {
    let f = start(limits()).await;
    let (own, corp) = (f.own.workload(WORKLOAD), f.corp.workload("spiffe://corp.example/ci"));
    for alpn in [&b"h2"[..], b"http/1.1"] {
        assert_eq!(f.who(Some(&own), alpn).await.expect("own"), format!("{WORKLOAD} by own"));
        assert_eq!(f.who(Some(&corp), alpn).await.expect("corp"), "spiffe://corp.example/ci by corp");
        assert_eq!(f.who(None, alpn).await.expect("anonymous"), "nobody");
    }
}

#[tokio::test]
async fn an_operator_is_served_while_the_callers_threads_are_stuck() {
    let callers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let workers = Workers { callers: callers.handle().clone(), ..Workers::all_on(Handle::current()) };
    let f = start_on(EdgeLimits { connections: 64, ..limits() }, router(), workers).await;
    let (workload, operator) = (f.own.workload(WORKLOAD), f.own.workload("spiffe://acme.mayfly.internal/w/operator"));
    let (go_on, stuck) = std::sync::mpsc::channel::<()>();
    callers.spawn(async move { stuck.recv() });
    let waits = f.who(Some(&workload), b"h2");
    let mut waits = std::pin::pin!(waits);
    for _ in 0..3 {
        let served = tokio::select! {
            biased;
            served = waits.as_mut() => Err(served),
            operator = f.who(Some(&operator), b"h2") => Ok(operator.expect("served")),
            nobody = f.who(None, b"http/1.1") => Ok(nobody.expect("served")),
        };
        assert!(served.is_ok(), "the workload was served by threads that are stuck: {served:?}");
    }
    go_on.send(()).expect("stuck until now");
    assert_eq!(waits.await.expect("served at last"), format!("{WORKLOAD} by own"));
    callers.shutdown_background();
}

#[tokio::test]
async fn strange_expired_and_overreaching_certificates_are_refused_not_anonymous() {
    let f = start(limits()).await;
    let stranger = TestCa::new("own").workload(WORKLOAD);
    let expired = f.own.leaf(LeafNames { uris: &[WORKLOAD], dns: &[], not_after_seconds: 1_600_000_000 });
    let overreaching = f.corp.workload(WORKLOAD);
    for leaf in [&stranger, &expired, &overreaching] {
        assert!(f.who(Some(leaf), b"h2").await.is_err());
        assert!(f.who(Some(leaf), b"http/1.1").await.is_err());
    }
}

#[tokio::test]
async fn a_swap_changes_the_certificate_and_the_trust_of_new_connections() {
    let f = start(limits()).await;
    let corp = f.corp.workload("spiffe://corp.example/ci");
    let shown = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().map(|c| c[0].clone());
    let before = f.connect(None, b"h2").await.expect("before");
    let fresh = f.own.server();
    let narrower = ClientAuthorities::new(TrustDomain::default(), &[f.own.root()], &[]).expect("own only");
    f.tls.swap(identity(&fresh), Arc::new(narrower)).expect("swap");
    let after = f.connect(None, b"h2").await.expect("after");
    assert_ne!(shown(&before), shown(&after));
    assert_eq!(shown(&after).as_ref(), fresh.chain.first());
    assert!(f.who(Some(&corp), b"h2").await.is_err());
    assert_eq!(ask(before, b"h2", "/who").await.expect("open connections stay"), "nobody");
}

#[tokio::test]
async fn who_stays_silent_is_cut_off_in_the_handshake_and_before_the_first_request() {
    let short = Duration::from_millis(50);
    let f = start(EdgeLimits { handshake: short, ..limits() }).await;
    let mut silent = TcpStream::connect(f.address).await.expect("connect");
    let read = timeout(Duration::from_secs(10), silent.read(&mut [0; 1])).await.expect("in time");
    assert!(matches!(read, Ok(0) | Err(_)));

    let f = start(EdgeLimits { first_request: short, ..limits() }).await;
    let mut silent = f.connect(None, b"http/1.1").await.expect("connect");
    let read = timeout(Duration::from_secs(10), silent.read(&mut [0; 1])).await.expect("in time");
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn anonymous_connections_leave_half_of_the_room_to_proven_ones() {
    let f = start(EdgeLimits { connections: 4, ..limits() }).await;
    let (_one, _two) = (f.connect(None, b"h2").await.expect("one"), f.connect(None, b"h2").await.expect("two"));
    until(|| f.edge.connections().count() == 2).await;
    assert!(f.who(None, b"h2").await.is_err());
    let own = f.own.workload(WORKLOAD);
    let proven = f.connect(Some(&own), b"h2").await.expect("proven");
    let other = f.connect(Some(&own), b"h2").await.expect("other");
    until(|| f.edge.connections().count() == 4).await;
    assert!(f.who(Some(&own), b"h2").await.is_err(), "one past the limit");
    drop(proven);
    until(|| f.edge.connections().count() == 3).await;
    drop(other);
}

#[tokio::test]
async fn one_caller_has_half_of_the_room_whatever_certificate_it_comes_with() {
    let f = start(EdgeLimits { connections: 8, ..limits() }).await;
    let (one, renewed) = (f.own.workload(WORKLOAD), f.own.workload(WORKLOAD));
    let mut open = Vec::new();
    for leaf in [&one, &renewed, &one, &renewed] {
        open.push(f.connect(Some(leaf), b"h2").await.expect("room"));
    }
    until(|| f.edge.connections().count() == 4).await;
    for leaf in [&one, &renewed] {
        assert!(f.who(Some(leaf), b"h2").await.is_err(), "one past its half");
    }
    let other = f.own.workload("spiffe://acme.mayfly.internal/w/other");
    assert!(f.who(Some(&other), b"h2").await.is_ok());
    open.pop();
    until(|| f.edge.connections().count() == 3).await;
    assert!(f.who(Some(&one), b"h2").await.is_ok(), "one that has ended leaves room");
}

#[tokio::test]
async fn a_key_of_ones_own_counts_among_the_anonymous_and_is_nobody() {
    let f = start(EdgeLimits { connections: 4, ..limits() }).await;
    let own = TestLeaf::self_signed(&[WORKLOAD]);
    assert!(f.who(Some(&own), b"h2").await.is_err(), "where no identity token counts it is refused");
    let taking = ClientAuthorities::new(TrustDomain::default(), &[f.own.root()], &[]).expect("sets").taking_keys();
    f.tls.swap(identity(&f.own.server()), Arc::new(taking)).expect("swaps");
    assert_eq!(f.who(Some(&own), b"h2").await.expect("let through"), "nobody");
    until(|| f.edge.connections().count() == 0).await;
    let one = f.connect(Some(&own), b"h2").await.expect("one");
    let _two = f.connect(Some(&TestLeaf::self_signed(&[])), b"h2").await.expect("two");
    until(|| f.edge.connections().count() == 2).await;
    assert!(f.who(Some(&TestLeaf::self_signed(&[])), b"h2").await.is_err(), "half of the room is for proven ones");
    let _proven = f.connect(Some(&f.own.workload(WORKLOAD)), b"h2").await.expect("proven");
    until(|| f.edge.connections().count() == 3).await;
    drop(one);
    until(|| f.edge.connections().count() == 2).await;
}

#[tokio::test]
async fn cutting_a_proof_closes_its_connections_and_no_others() {
    let f = start(limits()).await;
    let (cut, kept) = (f.own.workload(WORKLOAD), f.own.workload(WORKLOAD));
    let mut gone = f.connect(Some(&cut), b"http/1.1").await.expect("cut");
    let stays = f.connect(Some(&kept), b"http/1.1").await.expect("kept");
    until(|| f.edge.connections().count() == 2).await;
    let proof = crate::model::Digest::of(&cut.chain[0]);
    assert_eq!(f.edge.connections().close_proof(&proof), 1);
    assert!(matches!(gone.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert_eq!(ask(stays, b"http/1.1", "/who").await.expect("kept"), format!("{WORKLOAD} by own"));
    assert_eq!(f.edge.connections().close_proof(&proof), 0);
}

#[tokio::test]
async fn the_stop_ends_idle_connections_at_once() {
    // A drain time far beyond the test's patience: nothing here may wait for it.
    let f = start(EdgeLimits { drain: Duration::from_secs(600), ..limits() }).await;
    let leaf = f.own.workload(WORKLOAD);
    let _unused = f.connect(Some(&leaf), b"h2").await.expect("unused");
    let io = TokioIo::new(f.connect(Some(&leaf), b"h2").await.expect("used"));
    let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await.expect("h2");
    tokio::spawn(connection);
    let request = Request::get("https://localhost/who").body(Body::empty()).expect("request");
    assert_eq!(sender.send_request(request).await.expect("reply").status(), 200);
    until(|| f.edge.connections().count() == 2).await;
    f.stop.cancel();
    timeout(Duration::from_secs(10), f.served).await.expect("at once").expect("drained");
}

#[tokio::test]
async fn the_stop_cuts_off_hanging_requests_after_the_drain() {
    let asked = Arc::new(Notify::new());
    let router = router_that_hangs(Arc::clone(&asked));
    let f = start_with(EdgeLimits { drain: Duration::from_millis(50), ..limits() }, router).await;
    let mut hanging = f.connect(Some(&f.own.workload(WORKLOAD)), b"http/1.1").await.expect("hanging");
    hanging.write_all(b"GET /hang HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("ask");
    asked.notified().await;
    f.stop.cancel();
    timeout(Duration::from_secs(10), f.served).await.expect("in time").expect("drained");
    assert_eq!(f.edge.connections().count(), 0);
}

#[tokio::test]
async fn behind_a_proxy_nobody_is_proven() {
    let f = start(limits()).await;
    let listener = Listener::bind(&Socket::BehindProxy(([127, 0, 0, 1], 0).into())).await.expect("bind");
    let address = listener.local_address().expect("address");
    tokio::spawn(listener.serve(router(), Arc::clone(&f.edge)));
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let stream = TcpStream::connect(address).await.expect("connect");
        assert_eq!(ask(stream, alpn, "/who").await.expect("reply"), "nobody");
    }
}

#[tokio::test]
async fn a_unix_socket_has_its_mode_replaces_a_stale_one_and_leaves_a_served_one() {
    let f = start(limits()).await;
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("mayfly.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("stale"));
    let socket = Socket::Unix { path: path.clone(), mode: 0o660 };
    let listener = Listener::bind(&socket).await.expect("replaced");
    assert_eq!(std::fs::metadata(&path).expect("socket").permissions().mode() & 0o777, 0o660);
    let second = Listener::bind(&socket).await.expect_err("served");
    assert_eq!(second.source.kind(), io::ErrorKind::AddrInUse);

    let served = tokio::spawn(listener.serve(router(), Arc::clone(&f.edge)));
    let stream = UnixStream::connect(&path).await.expect("connect");
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(ask(stream, b"h2", "/who").await.expect("reply"), format!("uid:{uid}"));
    f.stop.cancel();
    served.await.expect("drained");
    assert!(!path.exists());

    std::fs::write(&path, "").expect("a file");
    let other = Listener::bind(&socket).await.expect_err("not a socket");
    assert_eq!(other.source.kind(), io::ErrorKind::AlreadyExists);
}

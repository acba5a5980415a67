//! The pages for operators against a running daemon: metrics, runbooks and traces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use mayfly::pb::{CredentialKind, issue_response::Credential};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    rig::{get_plain, until},
    world::{PARTNER, World, issue, partner_scope, request, revocation},
};

/// What a collector was sent.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Taken {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Taken {
    fn spans(&self) -> Vec<Span> {
        let taken = self.0.lock().unwrap();
        let resources = taken.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    /// All that was sent: as bytes, and as `Debug` writes it.
    fn everything(&self) -> String {
        let taken = self.0.lock().unwrap();
        let bytes = taken.iter().flat_map(Message::encode_to_vec).collect::<Vec<_>>();
        format!("{}{:?}", String::from_utf8_lossy(&bytes), *taken)
    }
}

/// A collector on loopback, until the token is dropped.
async fn collector() -> (SocketAddr, Taken, tokio_util::sync::DropGuard) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let (address, taken, stop) = (listener.local_addr().expect("address"), Taken::default(), CancellationToken::new());
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(taken.clone()));
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(async move { server.serve_with_incoming_shutdown(incoming, stopped).await });
    (address, taken, stop.drop_guard())
}

fn traced(collector: SocketAddr, ratio: &str) -> String {
    format!("[telemetry.otlp]\nendpoint = \"http://{collector}\"\nsampling_ratio = {ratio}\n")
}

/// Names and labels that `metrics.md` promises.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = include_str!("../../docs/operations/metrics.md");
    let cells = text.lines().filter(|line| line.starts_with("| `mayfly_")).map(|line| line.split('|'));
    let cells = cells.map(|cells| cells.map(|cell| cell.replace('`', "").trim().to_owned()).collect::<Vec<_>>());
    let labels = |cell: &str| cell.split(", ").filter(|label| *label != "-").map(str::to_owned).collect();
    cells.map(|cells| (cells[1].clone(), labels(&cells[4]))).collect()
}

/// Names and labels that a scrape shows.
fn exported(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut found: BTreeMap<String, BTreeSet<String>> =
        types.map(|(name, _)| (name.to_owned(), BTreeSet::new())).collect();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, labels)) = line.split_once('{') else { continue };
        let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| found.get_key_value(name.strip_suffix(end)?));
        let plain = plain.map_or_else(|| name.to_owned(), |(plain, _)| plain.clone());
        let keys = labels.split("=\"").filter_map(|part| part.rsplit([',', '"', '{']).next()).map(str::to_owned);
        let keys = keys.filter(|key| key != "le" && !key.contains(['}', ' ']));
        found.entry(plain).or_default().extend(keys);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_exports_what_is_documented_and_nothing_else() {
    let (address, _taken, _serving) = collector().await;
    let sink = "[[audit_sink]]\nname = \"copy\"\nkind = \"file\"\npath = \"audit.jsonl\"\n";
    // Nobody is there to be told, and nothing is.
    let notify = "[notify.smtp]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\nfrom = \"mayfly@example.com\"\n\
                  ca_file = \"platform.pem\"\n[[notify.route]]\nname = \"all\"\ndefault = true\n\
                  mail = [\"owner@example.com\"]\n";
    let world = World::configured(&format!("{sink}{notify}{}", traced(address, "1.0"))).await;
    let mut broker = world.broker("alpha").await;
    issue(&mut broker, request("alpha", CredentialKind::Jwt)).await.expect("issued");
    assert!(issue(&mut broker, request("beta", CredentialKind::Jwt)).await.is_err());
    world.admin().await.revoke(revocation(partner_scope("alpha"))).await.expect("revoked");
    let mut stranger = tokio::net::TcpStream::connect(world.process.address).await.expect("connects");
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    let want = documented();
    assert!(want.len() > 30, "only {} metrics are documented", want.len());
    let metrics = world.process.metrics;
    until("every documented metric", async || {
        let found = exported(&get_plain(metrics, "/metrics").await.1);
        let missing: Vec<_> = want.keys().filter(|name| !found.contains_key(*name)).collect();
        missing.is_empty().then_some(()).or_else(|| {
            eprintln!("not yet: {missing:?}");
            None
        })
    })
    .await;
    assert_eq!(exported(&get_plain(metrics, "/metrics").await.1), want);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_runbooks_have_run_does_what_they_say() {
    let world = World::new().await;
    let identity = world.launch.data().join("operator");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations/runbooks");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("runbooks") {
        let path = entry.expect("entry").path();
        let text = std::fs::read_to_string(&path).expect("text");
        for block in text.split("```console run\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let (command, expected) = block.split_once('\n').expect("a line");
            let command = command.strip_prefix("$ mayfly ").expect("a command");
            let said = world.process.ask(&identity, &command.split(' ').collect::<Vec<_>>());
            assert_eq!(said.code, 0, "{}: {command}: {}", path.display(), said.errors);
            for field in expected.lines().filter_map(|line| line.split_whitespace().next()) {
                let shown = said.out.lines().any(|line| line.split_whitespace().next() == Some(field));
                assert!(shown, "{}: {command} does not show `{field}`:\n{}", path.display(), said.out);
            }
            count += 1;
        }
    }
    assert!(count > 8, "only {count} commands were run");
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn with_parent<T>(message: T, flags: &str) -> Request<T> {
    let mut request = Request::new(message);
    let parent = format!("00-{TRACE}-{PARENT}-{flags}").parse().expect("ASCII");
    request.metadata_mut().insert("traceparent", parent);
    request
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spans_of_an_issue_are_a_tree_below_the_callers_and_hold_no_secret() {
    let (address, taken, _serving) = collector().await;
    let mut world = World::configured(&traced(address, "1.0")).await;
    let mut broker = world.broker("alpha").await;
    let mut secrets = Vec::new();
    let mut wish = request("alpha", CredentialKind::Jwt);
    wish.idempotency_key = "canary-idempotency-key".into();
    let reply = broker.issue(with_parent(wish, "01")).await.expect("issued").into_inner();
    let Some(Credential::Token(token)) = reply.credential else { panic!("no token") };
    secrets.extend(token.split('.').map(str::to_owned));
    let reply = issue(&mut broker, request("alpha", CredentialKind::X509)).await.expect("issued");
    let Some(Credential::X509(x509)) = reply.credential else { panic!("no certificate") };
    let key = STANDARD.encode(&x509.private_key_der);
    secrets.push(key[key.len() / 2..key.len() / 2 + 40].to_owned());
    secrets.extend(["canary-idempotency-key", PARTNER, "alpha.example"].map(str::to_owned));
    // Stopping sends what waits.
    assert!(world.process.stop().success());

    let spans = taken.spans();
    let ours: Vec<&Span> = spans.iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let root = ours.iter().find(|span| hex(&span.parent_span_id) == PARENT).expect("a child of the caller's span");
    assert_eq!((root.name.as_str(), ours.len()), ("issue", 5));
    let steps: BTreeSet<&str> =
        ours.iter().filter(|span| span.parent_span_id == root.span_id).map(|span| span.name.as_str()).collect();
    assert_eq!(steps, BTreeSet::from(["identity", "decide", "mint", "commit"]));
    assert!(spans.iter().all(|span| span.events.is_empty()), "a line of the log is in a span");
    let everything = taken.everything();
    assert!(everything.contains("rpc.method"), "{everything}");
    for secret in secrets {
        assert!(!everything.contains(&secret), "{secret} is in the spans");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_can_turn_its_trace_off_and_not_on() {
    let (address, taken, _serving) = collector().await;
    let mut world = World::configured(&traced(address, "1.0")).await;
    let mut broker = world.broker("alpha").await;
    broker.issue(with_parent(request("alpha", CredentialKind::Jwt), "00")).await.expect("issued");
    broker.issue(request("alpha", CredentialKind::Jwt)).await.expect("issued");
    assert!(world.process.stop().success());
    let spans = taken.spans();
    assert!(spans.iter().any(|span| span.name == "issue"));
    assert!(spans.iter().all(|span| hex(&span.trace_id) != TRACE));

    let (address, taken, _serving) = collector().await;
    let mut world = World::configured(&traced(address, "0")).await;
    let mut broker = world.broker("alpha").await;
    broker.issue(with_parent(request("alpha", CredentialKind::Jwt), "01")).await.expect("issued");
    assert!(world.process.stop().success());
    assert!(taken.spans().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_folded_although_nobody_asks_for_the_metrics() {
    let world = World::configured("[telemetry]\nlog = \"mayfly::telemetry=trace\"\n").await;
    until("a fold", || async { world.process.log().contains("histograms were folded").then_some(()) }).await;
}

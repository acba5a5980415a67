//! Audit sinks of a running daemon: everything arrives, in order and without a gap, also after an outage.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use mayfly::pb::{self, CredentialKind};
use rustls::ServerConfig;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{
    rig::{arg, mayfly, until},
    world::{World, issue, request},
};

/// A collector on loopback that can be away for a while.
struct Collector {
    port: u16,
    kind: Kind,
    acceptor: TlsAcceptor,
    lines: Arc<Mutex<Vec<String>>>,
    away: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Https,
    Syslog,
}

impl Collector {
    /// Listens, with its certificate in `folder`.
    async fn start(kind: Kind, folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
        std::fs::write(folder.join(format!("{kind:?}.pem")), made.cert.pem()).expect("written");
        let key = made.signing_key.serialize_der().try_into().expect("key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("certificate and key");
        let mut collector = Self {
            port: 0,
            kind,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            lines: Arc::default(),
            away: Arc::default(),
            serving: None,
        };
        collector.serve().await;
        collector
    }

    async fn serve(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("bound");
        self.port = listener.local_addr().expect("address").port();
        let (acceptor, lines, away) = (self.acceptor.clone(), Arc::clone(&self.lines), Arc::clone(&self.away));
        let kind = self.kind;
        self.serving = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let taken = take(acceptor.clone(), socket, kind, Arc::clone(&lines), Arc::clone(&away));
                connections.spawn(taken);
            }
        }));
    }

    /// Refuses from now on: by its answer over HTTPS, by being gone over syslog.
    async fn leave(&mut self) {
        self.away.store(true, Ordering::SeqCst);
        if self.kind == Kind::Syslog
            && let Some(serving) = self.serving.take()
        {
            serving.abort();
            let _ = serving.await;
        }
    }

    async fn come_back(&mut self) {
        self.away.store(false, Ordering::SeqCst);
        if self.serving.is_none() {
            self.serve().await;
        }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

async fn take(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    kind: Kind,
    lines: Arc<Mutex<Vec<String>>>,
    away: Arc<AtomicBool>,
) {
    let Ok(stream) = acceptor.accept(socket).await else { return };
    let mut stream = BufReader::new(stream);
    loop {
        let batch = match kind {
            Kind::Https => post(&mut stream).await,
            Kind::Syslog => message(&mut stream).await.map(|line| vec![line]),
        };
        let Some(batch) = batch else { return };
        let is_away = away.load(Ordering::SeqCst);
        if !is_away {
            lines.lock().unwrap().extend(batch);
        }
        if kind == Kind::Https {
            let status = if is_away { "503 Away" } else { "204 No Content" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

/// The lines of one POST.
async fn post(stream: &mut (impl AsyncBufReadExt + AsyncRead + Unpin)) -> Option<Vec<String>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(String::from_utf8(body).ok()?.lines().map(str::to_owned).collect())
}

/// What one syslog message carries.
async fn message(stream: &mut (impl AsyncBufReadExt + AsyncRead + Unpin)) -> Option<String> {
    let mut length = Vec::new();
    stream.read_until(b' ', &mut length).await.ok().filter(|read| *read > 1)?;
    let length = String::from_utf8(length).ok()?.trim().parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    String::from_utf8(body).ok()?.split_once('\u{feff}').map(|(_, line)| line.to_owned())
}

/// Event places, each once, in the order in which they first came.
fn places(lines: &[String]) -> Vec<(String, u64)> {
    let mut places = Vec::new();
    for line in lines {
        let line: Value = serde_json::from_str(line).expect("JSON");
        if line["type"] == "checkpoint" {
            continue;
        }
        let sequence = &line["sequence"];
        let sequence = sequence.as_u64().or_else(|| sequence.as_str()?.parse().ok()).expect("a sequence");
        let place = (line["stream"].as_str().expect("a stream").to_owned(), sequence);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

async fn sinks(world: &World) -> Vec<pb::SinkStatus> {
    world.admin().await.get_status(pb::GetStatusRequest {}).await.expect("status").into_inner().sinks
}

async fn all_shipped(world: &World) {
    until("every sink to have acknowledged everything", || async {
        let sinks = sinks(world).await;
        (sinks.len() == 3 && sinks.iter().all(|sink| sink.behind == 0 && sink.acknowledged > 0)).then_some(())
    })
    .await;
}

async fn issue_some(world: &World) {
    let mut broker = world.broker("alpha").await;
    for _ in 0..10 {
        issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_a_sink_loses_nothing_and_leaves_no_gap() {
    let folder = tempfile::tempdir().expect("folder");
    let mut https = Collector::start(Kind::Https, folder.path()).await;
    let mut syslog = Collector::start(Kind::Syslog, folder.path()).await;
    let file = folder.path().join("audit.jsonl");
    let config = format!(
        "[[audit_sink]]\nkind = \"file\"\npath = {file:?}\n\
         [[audit_sink]]\nkind = \"https\"\nurl = \"https://localhost:{}/in\"\nca_file = {:?}\n\
         [[audit_sink]]\nkind = \"syslog\"\naddress = \"localhost:{}\"\nca_file = {:?}\n",
        https.port,
        folder.path().join("Https.pem"),
        syslog.port,
        folder.path().join("Syslog.pem"),
    );
    let mut world = World::configured(&config).await;
    issue_some(&world).await;
    all_shipped(&world).await;

    https.leave().await;
    syslog.leave().await;
    issue_some(&world).await;
    until("the outage to show", || async {
        let sinks = sinks(&world).await;
        let away = sinks.iter().filter(|sink| sink.behind > 0 && !sink.last_error.is_empty()).count();
        (away == 2 && sinks.iter().any(|sink| sink.behind == 0)).then_some(())
    })
    .await;
    // The position outlives the process.
    world.process.kill();
    world.restart().await;
    issue_some(&world).await;
    https.come_back().await;
    syslog.come_back().await;
    all_shipped(&world).await;

    let written = std::fs::read_to_string(&file).expect("the file");
    let written: Vec<String> = written.lines().map(str::to_owned).collect();
    let expected = places(&written);
    assert!(expected.len() > 30, "{expected:?}");
    for (what, lines) in [("file", written), ("https", https.lines()), ("syslog", syslog.lines())] {
        assert_eq!(places(&lines), expected, "{what} holds other events, or in another order");
        let copy = folder.path().join(format!("{what}.copy"));
        std::fs::write(&copy, lines.join("\n") + "\n").expect("written");
        let verified = mayfly(&["events", "verify", "--from-first", arg(&copy)]);
        assert_eq!(verified.code, 0, "{what}: {verified:?}");
    }
}

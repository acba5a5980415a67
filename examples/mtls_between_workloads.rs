//! Two workloads, each within a task of its own, talk over mutual TLS with certificates of the broker's that renew themselves.
//!
//! `cargo run --example mtls_between_workloads`, after `cargo build`.

mod support;

use std::sync::Arc;
use std::time::Duration;

use mayfly::client::{Body, Link, LiveCertificate, Task, Wanted, Work};
use mayfly::pb::CredentialKind;
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use support::{Fallible, SpiffeServer, Stage, spiffe_id};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[tokio::main]
async fn main() -> Fallible<()> {
    let stage = Stage::set().await?;
    let worker = Party::certified(&stage, "worker").await?;
    let peer = Party::certified(&stage, "peer").await?;
    println!("worker is {}\npeer is {}", worker.name, peer.name);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let peer_name = peer.name.clone();
    let server = tokio::spawn(peer.answer_once(listener));

    // The peer is known by its SPIFFE ID and not by a host name, so the check of its name is ours.
    let roots = worker.certificate.roots()?;
    let expected = SpiffeServer::new(peer_name, Arc::new(roots.clone()));
    let mut config = worker.certificate.client(roots)?;
    config.dangerous().set_certificate_verifier(Arc::new(expected));
    let stream = TcpStream::connect(address).await?;
    let host = ServerName::IpAddress(address.ip().into());
    let mut tls = TlsConnector::from(Arc::new(config)).connect(host, stream).await?;
    let mut greeting = String::new();
    tls.read_to_string(&mut greeting).await?;
    server.await??;
    println!("peer says: {greeting}");
    let is_greeted = greeting == format!("hello {}", worker.name);
    worker.task.complete(PATIENCE).await?;
    if is_greeted { Ok(()) } else { Err("the peer took the worker for another".into()) }
}

/// A workload in a task, with a leaf certificate from the broker.
struct Party {
    name: String,
    task: Task,
    /// The leaf of now, for as long as the task lives.
    certificate: Arc<LiveCertificate>,
}

impl Party {
    /// Opens a task and has a fresh key certified under it. The key never leaves this process.
    async fn certified(stage: &Stage, workload: &str) -> Fallible<Self> {
        let link = Arc::new(Link::to(stage.config(&stage.identity(workload)?)));
        let (tenant, partner, purpose) = ("acme".into(), "courier".into(), "report".into());
        let task = Task::open(link, &Work { tenant, partner, purpose, ..Work::default() }, PATIENCE).await?;
        let audiences = vec![Stage::AUDIENCE.to_owned()];
        let wanted = Wanted { kind: CredentialKind::X509, audiences, ..Wanted::default() };
        let renewing = Arc::new(task.renewing(wanted, PATIENCE, |_| Ok(())).await?);
        let first = renewing.current();
        let Body::Certificate { spiffe_id, .. } = &first.body else {
            return Err("a reply without a certificate".into());
        };
        let name = spiffe_id.clone();
        Ok(Self { name, task, certificate: LiveCertificate::new(renewing)? })
    }

    /// Accepts one connection and greets the caller by the name that its certificate proves.
    async fn answer_once(self, listener: TcpListener) -> Fallible<()> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(self.certificate.roots()?);
        let callers = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
        let config = self.certificate.server(callers)?;
        let (stream, _) = listener.accept().await?;
        let mut tls = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        let caller = tls.get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or("an anonymous caller")?;
        let greeting = format!("hello {}", spiffe_id(caller)?);
        tls.write_all(greeting.as_bytes()).await?;
        tls.shutdown().await?;
        self.task.complete(PATIENCE).await?;
        Ok(())
    }
}

/// How long a broker that is away is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

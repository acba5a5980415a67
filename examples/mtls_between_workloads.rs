//! Two workloads obtain leaf certificates from the broker and talk to each other over mutual TLS with them.
//!
//! `cargo run --example mtls_between_workloads`, after `cargo build`.

mod support;

use std::sync::Arc;

use mayfly::pb::issue_response::Credential;
use mayfly::pb::{CredentialKind, IssueRequest};
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use support::{Fallible, Identity, SpiffeServer, Stage, signing_request, spiffe_id, store, tls_client};
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
    let mut config = tls_client(&worker.roots, Some(&worker.identity))?;
    let expected = SpiffeServer::new(peer_name, store(&worker.roots)?);
    config.dangerous().set_certificate_verifier(Arc::new(expected));
    let stream = TcpStream::connect(address).await?;
    let host = ServerName::IpAddress(address.ip().into());
    let mut tls = TlsConnector::from(Arc::new(config)).connect(host, stream).await?;
    let mut greeting = String::new();
    tls.read_to_string(&mut greeting).await?;
    server.await??;
    println!("peer says: {greeting}");
    if greeting == format!("hello {}", worker.name) {
        Ok(())
    } else {
        Err("the peer took the worker for another".into())
    }
}

/// A workload with a leaf certificate from the broker.
struct Party {
    name: String,
    identity: Identity,
    roots: Vec<CertificateDer<'static>>,
}

impl Party {
    /// Has a fresh key certified by the broker. The key never leaves this process.
    async fn certified(stage: &Stage, workload: &str) -> Fallible<Self> {
        let key = KeyPair::generate()?;
        let request = IssueRequest { csr_der: signing_request(&key)?.into(), ..Stage::request(CredentialKind::X509) };
        let mut broker = stage.workload(&stage.identity(workload)?).await?;
        let Some(Credential::X509(issued)) = broker.issue(request).await?.into_inner().credential else {
            return Err("a reply without a certificate".into());
        };
        let chain: Vec<_> = issued.chain_der.into_iter().map(CertificateDer::from).collect();
        let name = spiffe_id(chain.first().ok_or("an empty chain")?)?;
        let identity = Identity { chain, key: PrivateKeyDer::try_from(key.serialize_der())? };
        Ok(Self { name, identity, roots: issued.bundle_der.into_iter().map(CertificateDer::from).collect() })
    }

    /// Accepts one connection and greets the caller by the name that its certificate proves.
    async fn answer_once(self, listener: TcpListener) -> Fallible<()> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let callers = WebPkiClientVerifier::builder_with_provider(store(&self.roots)?, provider.clone()).build()?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(callers)
            .with_single_cert(self.identity.chain, self.identity.key)?;
        let (stream, _) = listener.accept().await?;
        let mut tls = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        let caller = tls.get_ref().1.peer_certificates().and_then(<[_]>::first).ok_or("an anonymous caller")?;
        let greeting = format!("hello {}", spiffe_id(caller)?);
        tls.write_all(greeting.as_bytes()).await?;
        Ok(tls.shutdown().await?)
    }
}

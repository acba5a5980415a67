//! `mayfly demo-resource-server`: a service that somebody else would run, in a process of its own.
//!
//! It answers 200 to whoever comes with a good credential, 401 to all others, and knows of good only what the broker
//! says. This file alone serves HTTP with bare hyper: the command line knows no axum, and one route needs none.

use std::{collections::HashSet, convert::Infallible, net::SocketAddr, path::Path, sync::Arc};

use clap::Args;
use hyper::{Request, Response, StatusCode, body::Incoming, header::AUTHORIZATION, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::Mutex,
};
use tokio_rustls::TlsAcceptor;
use tonic::transport::Channel;

use crate::{
    cli::{
        failure::{Failure, Outcome},
        session::Session,
    },
    client::{self, pem},
    model::Digest,
    pb::{IntrospectRequest, introspect_request::Credential, verifier_client::VerifierClient},
};

use super::authority::{CLIENT_ROOTS_FILE, SERVER_CERTIFICATE_FILE, SERVER_KEY_FILE};

/// Answers 200 to good credentials and 401 to others; for the demo. Ends when its stdin closes.
///
/// `--identity` is the folder of the certificates and keys that it shows to the broker and to its visitors.
#[derive(Args, Clone, Debug)]
pub struct ResourceServerArgs {
    /// Where to listen; port 0 takes a free one and prints it.
    #[arg(long, value_name = "IP:PORT")]
    address: SocketAddr,
    /// An audience that it answers to; repeat for more.
    #[arg(long = "audience", value_name = "AUDIENCE", required = true)]
    audiences: Vec<String>,
    /// Sabotage: believe a good answer for ever.
    #[arg(long)]
    trust_forever: bool,
}

impl ResourceServerArgs {
    /// Serves until stdin closes.
    ///
    /// # Errors
    /// When its files cannot be used, the broker cannot be reached or the port is taken.
    pub async fn run(self, session: &Session) -> Outcome {
        let folder = session.identity_folder();
        let folder = folder.ok_or_else(|| Failure::Usage("name the server's folder with --identity".into()))?;
        let acceptor = TlsAcceptor::from(Arc::new(tls(folder)?));
        let judge = Arc::new(Judge {
            broker: session.verifier().await?,
            audiences: self.audiences,
            believed: self.trust_forever.then(Mutex::default),
        });
        let listener = TcpListener::bind(self.address).await.map_err(|error| Failure::io("listen", error))?;
        let address = listener.local_addr().map_err(|error| Failure::io("listen", error))?;
        session.output.line(&format!("ready https://{address}"))?;
        tokio::select! {
            () = serve(listener, acceptor, judge) => Ok(()),
            () = stdin_closed() => Ok(()),
        }
    }
}

/// Shows its own certificate, and asks visitors for one without insisting.
pub(super) fn tls(folder: &Path) -> Outcome<ServerConfig> {
    let unusable = || Failure::Usage(format!("{} does not hold a usable server identity", folder.display()));
    let read = |name| client::read_ca(&folder.join(name));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in pem::certificates(&read(CLIENT_ROOTS_FILE)?).ok_or_else(unusable)? {
        roots.add(root).map_err(|_| unusable())?;
    }
    let visitors = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|_| unusable())?;
    let chain = pem::certificates(&read(SERVER_CERTIFICATE_FILE)?).ok_or_else(unusable)?;
    let key = client::read_key(&folder.join(SERVER_KEY_FILE))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| unusable())?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| unusable())?
        .with_client_cert_verifier(visitors);
    builder.with_single_cert(chain, key).map_err(|_| unusable())
}

/// Says who is let in.
struct Judge {
    broker: VerifierClient<Channel>,
    audiences: Vec<String>,
    /// Sabotage: what was good once.
    believed: Option<Mutex<HashSet<Digest>>>,
}

impl Judge {
    /// Asks the broker anew each time. No answer is a no.
    async fn lets_in(&self, token: Option<String>, certificate: Option<&CertificateDer<'static>>) -> bool {
        let credential = match (token, certificate) {
            (Some(token), _) => Credential::Token(token),
            (None, Some(certificate)) => Credential::CertificateDer(certificate.to_vec()),
            (None, None) => return false,
        };
        let name = match &credential {
            Credential::Token(token) => Digest::of(token.as_bytes()),
            Credential::CertificateDer(der) => Digest::of(der),
        };
        if let Some(believed) = &self.believed
            && believed.lock().await.contains(&name)
        {
            return true;
        }
        let presented = certificate.map(|der| Digest::of(der).0.to_vec()).unwrap_or_default();
        for audience in &self.audiences {
            let request = IntrospectRequest {
                credential: Some(credential.clone()),
                audience: audience.clone(),
                presented_certificate_sha256: presented.clone(),
            };
            match self.broker.clone().introspect(request).await {
                Ok(reply) if reply.get_ref().active => {
                    if let Some(believed) = &self.believed {
                        believed.lock().await.insert(name);
                    }
                    return true;
                }
                Ok(_) => {}
                // Never the request itself, which holds a credential.
                Err(status) => tracing::warn!(code = ?status.code(), "the broker gave no answer"),
            }
        }
        false
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, judge: Arc<Judge>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let (acceptor, judge) = (acceptor.clone(), Arc::clone(&judge));
            tokio::spawn(async move {
                // A visitor that breaks off concerns nobody else.
                let _ = attend(stream, acceptor, judge).await;
            });
        }
    }
}

async fn attend(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    judge: Arc<Judge>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let tls = acceptor.accept(stream).await?;
    let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
    let answer = service_fn(move |request: Request<Incoming>| {
        let (judge, certificate) = (Arc::clone(&judge), certificate.clone());
        async move {
            let good = judge.lets_in(bearer(&request), certificate.as_ref()).await;
            let (status, text) = if good { (StatusCode::OK, "welcome\n") } else { (StatusCode::UNAUTHORIZED, "no\n") };
            let mut response = Response::new(text.to_owned());
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    Ok(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), answer).await?)
}

fn bearer(request: &Request<Incoming>) -> Option<String> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::to_owned)
}

async fn stdin_closed() {
    let mut buffer = [0; 64];
    // An error says as much as the end: whoever started this is gone.
    while matches!(tokio::io::stdin().read(&mut buffer).await, Ok(1..)) {}
}

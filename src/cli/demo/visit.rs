//! A visitor of a resource server: HTTPS with a bearer token, a client certificate, both or neither.

use std::{io, sync::Arc, time::Duration};

use rustls::{
    RootCertStore,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    cli::failure::{Failure, Outcome},
    client::{Address, Identity, pem},
};

/// TLS settings of one visitor.
#[derive(Clone)]
pub struct Visitor {
    tls: TlsConnector,
}

/// What a resource server said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// 200.
    Welcome,
    /// 401.
    Refused,
}

impl Visitor {
    /// A visitor who believes `roots_pem` and shows `identity`, if any.
    ///
    /// # Errors
    /// When roots or identity cannot be used.
    pub fn new(roots_pem: &[u8], identity: Option<&Identity>) -> Outcome<Self> {
        let mut roots = RootCertStore::empty();
        for root in pem::certificates(roots_pem).ok_or_else(|| unusable("roots"))? {
            roots.add(root).map_err(|_| unusable("roots"))?;
        }
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| unusable("TLS versions"))?
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = pem::certificates(identity.certificate_pem()).ok_or_else(|| unusable("certificate"))?;
                let key =
                    PrivateKeyDer::from_pem_slice(identity.expose_key_pem()).map_err(|_| unusable("private key"))?;
                builder.with_client_auth_cert(chain, key).map_err(|_| unusable("identity"))?
            }
        };
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Asks for `/`, over a connection of its own.
    ///
    /// # Errors
    /// When the server cannot be reached, breaks off, or says something else than 200 and 401.
    pub async fn visit(&self, server: &Address, token: Option<&str>) -> Outcome<Answer> {
        let asked = tokio::time::timeout(VISIT_WITHIN, self.ask(server, token)).await;
        let reply = asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let reply = reply.map_err(|error| Failure::io(format!("ask the resource server at {server}"), error))?;
        match reply.get(..STATUS_BYTES) {
            Some(b"HTTP/1.1 200") => Ok(Answer::Welcome),
            Some(b"HTTP/1.1 401") => Ok(Answer::Refused),
            Some(_) | None => Err(Failure::Internal("the resource server answered neither 200 nor 401".into())),
        }
    }

    async fn ask(&self, server: &Address, token: Option<&str>) -> io::Result<Vec<u8>> {
        let Address::Https { host, port } = server else {
            return Err(io::Error::other("not an https address"));
        };
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        let tcp = TcpStream::connect((host.as_str(), *port)).await?;
        tcp.set_nodelay(true)?;
        let mut tls = self.tls.connect(name, tcp).await?;
        let bearer = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n{bearer}connection: close\r\n\r\n");
        tls.write_all(request.as_bytes()).await?;
        tls.flush().await?;
        let mut reply = Vec::new();
        tls.read_to_end(&mut reply).await?;
        Ok(reply)
    }
}

impl std::fmt::Debug for Visitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visitor").finish_non_exhaustive()
    }
}

fn unusable(what: &str) -> Failure {
    Failure::Internal(format!("a visitor's {what} cannot be used"))
}

const STATUS_BYTES: usize = "HTTP/1.1 200".len();
const VISIT_WITHIN: Duration = Duration::from_secs(10);

//! One HTTP/2 connection to a broker, over TLS or a Unix socket.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{
    RootCertStore,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{Address, Identity, pem};

/// Whom to connect to, whom to trust and who to be.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where the broker listens.
    pub address: Address,
    /// The roots that the broker's certificate must come from, PEM. Not used on a Unix socket.
    pub ca_pem: Vec<u8>,
    /// The client certificate to show; `None` stays anonymous. Not used on a Unix socket.
    pub identity: Option<Identity>,
    /// The name that the broker's certificate must carry; `None` expects the address's host.
    pub server_name: Option<String>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The CA file holds no usable certificate.
    #[error("the CA file holds no usable certificate")]
    NoRoots,
    /// The certificate file holds no certificate.
    #[error("the certificate file holds no certificate")]
    NoCertificate,
    /// The key file holds no private key.
    #[error("the key file holds no private key")]
    NoKey,
    /// The key does not fit the certificate, or TLS cannot use them.
    #[error("the certificate and key cannot be used")]
    UnusableIdentity(#[source] rustls::Error),
    /// The name is neither a DNS name nor an IP address.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    ServerName(String),
    /// The broker does not answer, or is not whom it should be.
    #[error("cannot reach {address}")]
    Unreachable {
        /// Where it was tried.
        address: Address,
        /// What the transport said.
        #[source]
        source: tonic::transport::Error,
    },
}

/// A connection to a broker, which opens itself anew when it breaks. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Connection {
    channel: Channel,
}

impl Connection {
    /// Connects, and waits until the connection stands.
    ///
    /// # Errors
    /// When the roots or the identity cannot be used, or the broker cannot be reached within 10 seconds.
    pub async fn open(config: &ClientConfig) -> Result<Self, ConnectError> {
        let unreachable = |source| ConnectError::Unreachable { address: config.address.clone(), source };
        let endpoint = endpoint(config).map_err(unreachable)?;
        let channel = match &config.address {
            Address::Unix(path) => endpoint.connect_with_connector(unix(path.clone())).await,
            Address::Https { host, port } => {
                let tls = TlsConnector::from(Arc::new(tls_config(config)?));
                let name = config.server_name.as_deref().unwrap_or(host);
                let name =
                    ServerName::try_from(name.to_owned()).map_err(|_| ConnectError::ServerName(name.to_owned()))?;
                endpoint.connect_with_connector(https(tls, name, host.clone(), *port)).await
            }
        };
        channel.map(|channel| Self { channel }).map_err(unreachable)
    }

    /// The channel, for the generated clients.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

/// The TLS side of a client: TLS 1.2 and 1.3 with ring, HTTP/2 only.
///
/// # Errors
/// When the roots or the identity cannot be used.
fn tls_config(config: &ClientConfig) -> Result<rustls::ClientConfig, ConnectError> {
    let mut roots = RootCertStore::empty();
    for root in pem::certificates(&config.ca_pem).ok_or(ConnectError::NoRoots)? {
        roots.add(root).map_err(|_| ConnectError::NoRoots)?;
    }
    if roots.is_empty() {
        return Err(ConnectError::NoRoots);
    }
    // Named, because a process may hold several providers and has no default one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ConnectError::UnusableIdentity)?
        .with_root_certificates(roots);
    let mut tls = match &config.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = pem::certificates(identity.certificate_pem()).filter(|chain| !chain.is_empty());
            let chain = chain.ok_or(ConnectError::NoCertificate)?;
            let key = PrivateKeyDer::from_pem_slice(identity.expose_key_pem()).map_err(|_| ConnectError::NoKey)?;
            builder.with_client_auth_cert(chain, key).map_err(ConnectError::UnusableIdentity)?
        }
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

fn endpoint(config: &ClientConfig) -> Result<Endpoint, tonic::transport::Error> {
    let origin = match &config.address {
        Address::Https { .. } => config.address.to_string(),
        Address::Unix(_) => "http://localhost".to_owned(),
    };
    // The connector below does the TLS, so the endpoint must not ask tonic for it: its own URI says http, and only
    // the origin, which requests carry, says https.
    let endpoint = Endpoint::from_static("http://localhost")
        .user_agent(concat!("mayfly/", env!("CARGO_PKG_VERSION")))?
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(CONNECT_TIMEOUT);
    Ok(match origin.parse() {
        Ok(uri) => endpoint.origin(uri),
        Err(_) => endpoint,
    })
}

/// What tonic wants of a connector, spelled once.
trait Connector<S>:
    tower::Service<http::Uri, Response = TokioIo<S>, Error = io::Error, Future: Send> + Send + 'static
{
}

impl<S, C> Connector<S> for C where
    C: tower::Service<http::Uri, Response = TokioIo<S>, Error = io::Error, Future: Send> + Send + 'static
{
}

fn unix(path: PathBuf) -> impl Connector<UnixStream> {
    service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { Ok(TokioIo::new(timely(UnixStream::connect(path)).await?)) }
    })
}

fn https(
    tls: TlsConnector,
    name: ServerName<'static>,
    host: String,
    port: u16,
) -> impl Connector<tokio_rustls::client::TlsStream<TcpStream>> {
    service_fn(move |_: http::Uri| {
        let (tls, name, host) = (tls.clone(), name.clone(), host.clone());
        async move {
            let stream = timely(async {
                let tcp = TcpStream::connect((host, port)).await?;
                tcp.set_nodelay(true)?;
                tls.connect(name, tcp).await
            });
            Ok(TokioIo::new(stream.await?))
        }
    })
}

/// Gives up after [`CONNECT_TIMEOUT`], TLS handshake included.
async fn timely<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no connection within 10 seconds")),
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn config(address: &str, ca_pem: &[u8]) -> ClientConfig {
        ClientConfig {
            address: address.parse().expect("address"),
            ca_pem: ca_pem.to_vec(),
            identity: None,
            server_name: None,
        }
    }

    #[tokio::test]
    async fn without_a_root_to_trust_nothing_is_dialled() {
        for ca in [&b""[..], b"not pem"] {
            let refused = Connection::open(&config("https://127.0.0.1:1", ca)).await;
            assert!(matches!(refused, Err(ConnectError::NoRoots)));
        }
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_unreachable() {
        let folder = tempfile::tempdir().expect("folder");
        let address = format!("unix://{}/absent.sock", folder.path().display());
        let refused = Connection::open(&config(&address, b"")).await;
        assert!(matches!(refused, Err(ConnectError::Unreachable { .. })));
    }
}

//! One mutually authenticated connection.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::{Fallible, Identity};

/// Opens one HTTP/2 connection and waits until TLS is up. Without an identity the caller stays anonymous.
pub async fn dial(
    address: SocketAddr,
    roots: &[CertificateDer<'static>],
    identity: Option<&Identity>,
) -> Fallible<Channel> {
    let mut config = tls_client(roots, identity)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let connect = move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::IpAddress(address.ip().into());
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    };
    // The connector speaks TLS; the scheme here would only ask tonic to do it a second time.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.connect_with_connector(tower::service_fn(connect)).await?)
}

/// TLS settings of a client that believes `roots`.
pub fn tls_client(roots: &[CertificateDer<'static>], identity: Option<&Identity>) -> Fallible<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store(roots)?);
    Ok(match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?,
        None => builder.with_no_client_auth(),
    })
}

/// The roots as TLS wants them.
pub fn store(roots: &[CertificateDer<'static>]) -> Fallible<Arc<RootCertStore>> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    Ok(Arc::new(store))
}

//! TLS towards a collector.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use super::SinkError;

/// Whom a sink trusts, and as whom it connects.
#[derive(Debug)]
pub struct TlsTrust {
    /// Roots that the collector's certificate must lead to; at least one. The system's roots are never used.
    pub roots: Vec<CertificateDer<'static>>,
    /// The certificate shown to the collector, when it asks.
    pub identity: Option<ClientIdentity>,
}

/// A client certificate and its key.
pub struct ClientIdentity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientIdentity({} certificates, ..)", self.chain.len())
    }
}

impl TlsTrust {
    /// The client configuration: TLS 1.2 or 1.3.
    pub(super) fn client(self) -> Result<ClientConfig, SinkError> {
        let mut roots = RootCertStore::empty();
        for root in self.roots {
            roots.add(root).map_err(SinkError::Tls)?;
        }
        if roots.is_empty() {
            return Err(SinkError::Tls(rustls::Error::General("no root certificate".to_owned())));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(SinkError::Tls)?
            .with_root_certificates(roots);
        match self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some(ClientIdentity { chain, key }) => builder.with_client_auth_cert(chain, key).map_err(SinkError::Tls),
        }
    }
}

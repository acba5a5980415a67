//! Our end of TLS: which certificate we show and whom we believe, both swapped while connections live.

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

use crate::{
    identity::{ClientAuthorities, IdentityError, Shown},
    model::Timestamp,
};

/// A certificate chain, leaf first, and its private key.
#[derive(Debug)]
pub struct ServerIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why our end of TLS cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file is none.
    #[error("{file} holds no usable PEM")]
    Pem {
        /// The file.
        file: String,
        /// What was wrong.
        #[source]
        source: pem::Error,
    },
    /// A PEM file holds no certificate.
    #[error("{file} holds no certificate")]
    NoCertificate {
        /// The file.
        file: String,
    },
    /// Certificate and key do not fit together, or their kind is not supported.
    #[error("the server certificate and its key cannot be used")]
    Identity(#[source] rustls::Error),
}

impl ServerIdentity {
    /// From DER.
    #[must_use]
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key }
    }

    /// From PEM files.
    ///
    /// # Errors
    /// When one cannot be read or holds nothing usable.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = certificates(certificate)?;
        let key = PrivateKeyDer::from_pem_file(key)
            .map_err(|source| TlsError::Pem { file: key.display().to_string(), source })?;
        Ok(Self { chain, key })
    }
}

/// Reads every certificate of a PEM file.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let named = |source| TlsError::Pem { file: file.display().to_string(), source };
    let found: Vec<_> = CertificateDer::pem_file_iter(file).map_err(named)?.collect::<Result<_, _>>().map_err(named)?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { file: file.display().to_string() });
    }
    Ok(found)
}

/// What new connections get: our certificate and the CAs whose clients we believe.
///
/// Each handshake takes one snapshot of both, and judges the client by the CAs of that snapshot. A swap does not touch
/// open connections, and no session of before a swap is resumed after it: session memory belongs to the snapshot.
/// Within a snapshot a resumed session keeps the client certificate of its first handshake, which is judged again.
#[derive(Debug)]
pub struct TlsSwap(ArcSwap<TlsEnd>);

#[derive(Debug)]
pub(super) struct TlsEnd {
    pub(super) config: Arc<ServerConfig>,
    authorities: Arc<ClientAuthorities>,
}

impl TlsSwap {
    /// Begins with these.
    ///
    /// # Errors
    /// When certificate and key cannot be used.
    pub fn new(identity: ServerIdentity, authorities: Arc<ClientAuthorities>) -> Result<Self, TlsError> {
        Ok(Self(ArcSwap::from_pointee(TlsEnd::new(identity, authorities)?)))
    }

    /// Gives new connections these from now on.
    ///
    /// # Errors
    /// When certificate and key cannot be used; then everything stays as it was.
    pub fn swap(&self, identity: ServerIdentity, authorities: Arc<ClientAuthorities>) -> Result<(), TlsError> {
        self.0.store(Arc::new(TlsEnd::new(identity, authorities)?));
        Ok(())
    }

    pub(super) fn current(&self) -> Arc<TlsEnd> {
        self.0.load_full()
    }
}

impl TlsEnd {
    fn new(identity: ServerIdentity, authorities: Arc<ClientAuthorities>) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Identity)?
            .with_client_cert_verifier(authorities.verifier())
            .with_single_cert(identity.chain, identity.key)
            .map_err(TlsError::Identity)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), authorities })
    }

    /// The client of a finished handshake.
    pub(super) fn judge(&self, session: &rustls::ServerConnection, now: Timestamp) -> Result<Shown, IdentityError> {
        self.authorities.judge(session.peer_certificates().unwrap_or_default(), now)
    }
}

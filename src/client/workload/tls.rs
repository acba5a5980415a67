//! A certificate that renews itself, in TLS handshakes of one's own.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use tokio::time::Instant;

use super::{Body, Credential, Renewing, pem};

/// The newest leaf of a certificate that renews itself, for each handshake anew, as client and as server.
///
/// One that has ended is not shown: a client then comes without a certificate, and a server refuses the handshake. What was
/// connected before stays connected; the peer decides for how long it believes a certificate that it has seen.
pub struct LiveCertificate {
    renewing: Arc<Renewing>,
    /// As rustls takes it, made once for each successor.
    ready: Mutex<Option<Ready>>,
}

struct Ready {
    of: Arc<Credential>,
    key: Arc<CertifiedKey>,
}

/// A credential that is no certificate, or not one that TLS can use.
#[derive(Debug, thiserror::Error)]
pub enum NotForTls {
    /// A token or the like.
    #[error("the credential is no certificate: ask for `CredentialKind::X509`")]
    NotACertificate,
    /// Its chain, key or roots are not what they should be.
    #[error("the broker's certificate cannot be used for TLS")]
    Unusable(#[source] rustls::Error),
}

impl LiveCertificate {
    /// Of a credential that renews itself, for as long as this lives.
    ///
    /// # Errors
    /// When it is none that TLS can use.
    pub fn new(renewing: Arc<Renewing>) -> Result<Arc<Self>, NotForTls> {
        let of = renewing.current();
        let key = Arc::new(certified(&of)?);
        Ok(Arc::new(Self { renewing, ready: Mutex::new(Some(Ready { of, key })) }))
    }

    /// Chain and key as they are now; `None` when they have ended.
    #[must_use]
    pub fn current(&self) -> Option<Arc<CertifiedKey>> {
        let of = self.renewing.current();
        if of.ends() <= Instant::now() {
            return None;
        }
        // Every change under the lock leaves it whole.
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = ready.as_ref().filter(|ready| Arc::ptr_eq(&ready.of, &of)) {
            return Some(Arc::clone(&ready.key));
        }
        let key = Arc::new(certified(&of).ok()?);
        *ready = Some(Ready { of, key: Arc::clone(&key) });
        Some(key)
    }

    /// The roots of the tenant, which its other workloads' certificates come from.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn roots(&self) -> Result<RootCertStore, NotForTls> {
        let current = self.renewing.current();
        let Body::Certificate { roots_pem, .. } = &current.body else { return Err(NotForTls::NotACertificate) };
        let mut roots = RootCertStore::empty();
        for root in pem::certificates(roots_pem.as_bytes()).unwrap_or_default() {
            roots.add(root).map_err(NotForTls::Unusable)?;
        }
        Ok(roots)
    }

    /// A client that shows it to servers that `roots` vouch for, with ring. Sessions are not resumed: a resumed one would
    /// go on with the certificate of the first.
    ///
    /// # Errors
    /// When the provider has no protocol version.
    pub fn client(self: &Arc<Self>, roots: RootCertStore) -> Result<ClientConfig, NotForTls> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(NotForTls::Unusable)?;
        let resolver: Arc<dyn ResolvesClientCert> = Arc::<Self>::clone(self);
        let mut config = builder.with_root_certificates(roots).with_client_cert_resolver(resolver);
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// A server that shows it to clients that `callers` lets in, with ring. Sessions are not resumed: a resumed one would
    /// be believed by the client's certificate of the first.
    ///
    /// # Errors
    /// When the provider has no protocol version.
    pub fn server(self: &Arc<Self>, callers: Arc<dyn ClientCertVerifier>) -> Result<ServerConfig, NotForTls> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(NotForTls::Unusable)?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        let mut config = builder.with_client_cert_verifier(callers).with_cert_resolver(resolver);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl ResolvesClientCert for LiveCertificate {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

impl fmt::Debug for LiveCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveCertificate").field("renewing", &self.renewing).finish_non_exhaustive()
    }
}

fn certified(credential: &Credential) -> Result<CertifiedKey, NotForTls> {
    let Body::Certificate { chain_pem, key_pem, .. } = &credential.body else { return Err(NotForTls::NotACertificate) };
    let unusable = |what: &str| NotForTls::Unusable(rustls::Error::General(what.to_owned()));
    let chain = pem::certificates(chain_pem.as_bytes()).ok_or_else(|| unusable("its chain is not PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| unusable("its key is not PEM"))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(NotForTls::Unusable)
}

/// Named, because a process may hold several and has no default one.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

//! Clients that show a key of their own in TLS: a self-signed certificate, which is no identity.
//!
//! TLS proves that the key is there; an identity token beside it can then be bound to it (in the spirit of RFC 8705
//! section 2.2).

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::oidc::PeerKey;
use crate::model::Digest;

/// The key of a lone self-issued certificate; `None` for every other chain.
///
/// Names, dates and usages of the certificate are not looked at, for nothing follows from them.
pub(super) fn lone_key(chain: &[CertificateDer<'_>]) -> Option<PeerKey> {
    let [leaf] = chain else { return None };
    let (rest, certificate) = X509Certificate::from_der(leaf).ok()?;
    let self_issued = certificate.issuer().as_raw() == certificate.subject().as_raw();
    (rest.is_empty() && self_issued)
        .then(|| PeerKey { spki: Digest::of(certificate.public_key().raw), certificate: Digest::of(leaf) })
}

/// Lets lone keys through the handshake beside what `inner` accepts.
///
/// INVARIANT: who is let through here is judged again by [`super::ClientAuthorities`] and is no identity there.
#[derive(Debug)]
pub(super) struct OrOwnKey {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for OrOwnKey {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: many clients keep a certificate back whose issuer is not hinted at.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.inner.verify_client_cert(leaf, intermediates, now).or_else(|refused| {
            let lone = intermediates.is_empty() && lone_key(std::slice::from_ref(leaf)).is_some();
            if lone { Ok(ClientCertVerified::assertion()) } else { Err(refused) }
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

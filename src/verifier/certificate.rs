//! Certificates of the broker's making, checked against a bundle.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{
    FeedStanding,
    bundle::TrustBundle,
    offline::{Question, Unusable},
};
use crate::model::{Digest, LeaseId, Scope, Stamp, Timestamp};

/// Why a certificate is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CertificateRefusal {
    /// No leaf, or one that cannot be read.
    #[error("the certificate is malformed")]
    Malformed,
    /// No valid chain to the tenant's roots now, for client authentication (RFC 5280 section 6).
    #[error("the certificate has no valid chain")]
    Chain,
    /// Not exactly one SPIFFE ID of the tenant's trust domain.
    #[error("the certificate is of another tenant")]
    Tenant,
    /// The serial number is no lease id, or the stamp is missing or malformed.
    #[error("the certificate does not carry what the broker puts in")]
    Unstamped,
    /// Held by a bar.
    #[error("the certificate is suspended")]
    Suspended,
    /// Revoked.
    #[error("the certificate has ended")]
    Ended,
    /// Decided in another incarnation of the broker's store.
    #[error("the certificate is of another incarnation of the broker")]
    OtherIncarnation,
    /// Decided before the feed began here; `Introspect` can answer.
    #[error("the revocation feed does not reach back to the certificate")]
    NotCovered,
    /// Bundle or feed are missing or too old.
    #[error("nothing can be checked now")]
    Unusable(#[from] Unusable),
}

/// A certificate that holds.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct VerifiedCertificate {
    /// The workload's SPIFFE ID.
    pub subject: String,
    /// Its serial number.
    pub lease: LeaseId,
    /// Its not-after time.
    pub expires: Timestamp,
    /// SHA-256 of its DER; what a bound token's `cnf` names.
    pub sha256: Digest,
}

/// Checks everything that needs no feed; `chain` is leaf first.
pub(super) fn check(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: Timestamp,
) -> Result<(VerifiedCertificate, Question), CertificateRefusal> {
    let (leaf, intermediates) = chain.split_first().ok_or(CertificateRefusal::Malformed)?;
    let verifier = bundle.chains.as_ref().ok_or(CertificateRefusal::Chain)?;
    let at = UnixTime::since_unix_epoch(Duration::from_millis(now.millis()));
    verifier.verify_client_cert(leaf, intermediates, at).or(Err(CertificateRefusal::Chain))?;

    let (_, parsed) = X509Certificate::from_der(leaf).or(Err(CertificateRefusal::Malformed))?;
    let subject = spiffe_id(&parsed).ok_or(CertificateRefusal::Tenant)?;
    let path = subject.strip_prefix("spiffe://").and_then(|rest| rest.strip_prefix(bundle.trust_domain.as_str()));
    if !path.is_some_and(|path| path.starts_with('/')) {
        return Err(CertificateRefusal::Tenant);
    }
    let lease = LeaseId::from_bytes(parsed.raw_serial()).ok_or(CertificateRefusal::Unstamped)?;
    let stamp = stamp(&parsed).ok_or(CertificateRefusal::Unstamped)?;
    let expires = u64::try_from(parsed.validity().not_after.timestamp()).or(Err(CertificateRefusal::Malformed))?;
    let verified =
        VerifiedCertificate { subject, lease, expires: Timestamp::from_seconds(expires), sha256: Digest::of(leaf) };
    let named = [
        Scope::Everything.id(),
        Scope::Tenant(bundle.tenant.clone()).id(),
        Scope::Task(lease.task()).id(),
        Scope::Lease(lease).id(),
        Scope::Proof(verified.sha256).id(),
    ];
    Ok((verified, ([named.as_slice(), stamp.scopes()].concat(), stamp.basis())))
}

/// What the feed said, as a verdict on the certificate.
pub(super) fn verdict(standing: FeedStanding) -> Result<(), CertificateRefusal> {
    match standing {
        FeedStanding::Live => Ok(()),
        FeedStanding::Suspended => Err(CertificateRefusal::Suspended),
        FeedStanding::Ended => Err(CertificateRefusal::Ended),
        FeedStanding::OtherIncarnation => Err(CertificateRefusal::OtherIncarnation),
        FeedStanding::NotCovered => Err(CertificateRefusal::NotCovered),
    }
}

/// The one URI name; `None` when there are none or several.
fn spiffe_id(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None });
    uris.next().filter(|_| uris.next().is_none())
}

fn stamp(certificate: &X509Certificate<'_>) -> Option<Stamp> {
    let mut found = certificate.extensions().iter().filter(|extension| extension.oid.as_bytes() == Stamp::OID_DER);
    let stamp = Stamp::from_extension(found.next()?.value)?;
    found.next().is_none().then_some(stamp)
}

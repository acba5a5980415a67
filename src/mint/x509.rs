//! Certificates: leaves of one SPIFFE ID, minted from a request or with a new key. Profile: docs/token-format.md.

use std::{fmt, net::IpAddr};

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{SecretBytes, ec::EcKey};
use crate::model::{Digest, LeaseId, Stamp, Timestamp, secret::EntropyUnavailable, time::SKEW};

mod csr;
mod known;

pub use csr::{CSR_MAX_BYTES, Csr, CsrRefusal, parse_csr};
pub use known::KnownCsrs;

/// A CA that signs: its private key and its certificate with its issuers.
pub struct CaKey {
    issuer: Issuer<'static, EcKey>,
    chain_der: Vec<Vec<u8>>,
    not_after: Timestamp,
    self_signed: bool,
    path_len: Option<u32>,
}

/// Why key and certificates make no CA.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CaRefusal {
    /// A certificate was not signed by the next one.
    #[error(
        "certificate {at} of the chain is not signed by the one after it; order them leaf first and leave none out"
    )]
    BrokenChain {
        /// Its place, from 0.
        at: usize,
    },
    /// The chain is empty.
    #[error("the chain has no certificate; give the CA's own first, then its issuers")]
    Empty,
    /// It is over.
    #[error("the CA certificate ended at {not_after}; have it renewed")]
    Expired {
        /// Its end.
        not_after: Timestamp,
    },
    /// The certificate is for another key.
    #[error("the CA certificate is for another key; sign the request that was made with this key")]
    KeyMismatch,
    /// The private key is no P-256 key.
    #[error("the CA's private key is no P-256 key in PKCS#8; make one with `openssl genpkey -algorithm EC`")]
    Key,
    /// No certificate at this place.
    #[error("certificate {at} of the chain is malformed; give DER or PEM of X.509 version 3")]
    Malformed {
        /// Its place, from 0.
        at: usize,
    },
    /// Not allowed to sign certificates.
    #[error("certificate {at} of the chain is no CA; it needs basic constraints CA:TRUE, keyCertSign and a subject")]
    NotACa {
        /// Its place, from 0.
        at: usize,
    },
    /// No room for a tenant CA below.
    #[error("the CA certificate allows {path_len} CAs below it, and 1 is needed; sign it with a pathLen of 1 or more")]
    PathLength {
        /// What it allows.
        path_len: u32,
    },
}

impl CaKey {
    /// From the private key in PKCS#8 and the chain: the CA's own certificate first, then its issuers, without the
    /// root (but for a root itself).
    ///
    /// # Errors
    /// When key and chain do not fit, or the first certificate is no CA. The issuers are not checked here:
    /// [`super::ca::adopt_issuing`] does.
    pub fn from_parts(pkcs8: &SecretBytes, chain_der: Vec<Vec<u8>>) -> Result<Self, CaRefusal> {
        let key = EcKey::from_pkcs8(pkcs8).ok_or(CaRefusal::Key)?;
        let own = chain_der.first().ok_or(CaRefusal::Empty)?;
        let malformed = CaRefusal::Malformed { at: 0 };
        let (_, parsed) = X509Certificate::from_der(own).map_err(|_| malformed.clone())?;
        if !is_ca(&parsed) {
            return Err(CaRefusal::NotACa { at: 0 });
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CaRefusal::KeyMismatch);
        }
        let not_after = timestamp(parsed.validity().not_after.timestamp());
        let self_signed = parsed.subject().as_raw() == parsed.issuer().as_raw();
        let path_len = path_len(&parsed);
        let own = CertificateDer::from(own.as_slice());
        let issuer = Issuer::from_ca_cert_der(&own, key).map_err(|_| malformed)?;
        Ok(Self { issuer, chain_der, not_after, self_signed, path_len })
    }

    /// Its own certificate first, then its issuers without the root.
    #[must_use]
    pub fn chain_der(&self) -> &[Vec<u8>] {
        &self.chain_der
    }

    /// The last moment its certificate is valid.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    pub(super) fn key(&self) -> &EcKey {
        self.issuer.key()
    }

    /// When a certificate ends; `None` when it cannot be read.
    #[must_use]
    pub fn end_of(der: &[u8]) -> Option<Timestamp> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        Some(timestamp(parsed.validity().not_after.timestamp()))
    }

    /// How many CAs may come below it; `None` when that is not limited.
    #[must_use]
    pub fn path_len(&self) -> Option<u32> {
        self.path_len
    }

    /// What follows a certificate it signs. Roots are left out: who checks has them or does not trust them.
    pub(super) fn issuers_of_a_child(&self) -> &[Vec<u8>] {
        if self.self_signed { &[] } else { &self.chain_der }
    }
}

impl fmt::Debug for CaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaKey").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// What a leaf says.
#[derive(Clone, Copy, Debug)]
pub struct LeafSpec<'a> {
    /// Its one URI name.
    pub spiffe_id: &'a str,
    /// Its DNS names, lower case.
    pub dns_names: &'a [String],
    /// Its serial number.
    pub lease: LeaseId,
    /// When it is issued; valid from [`SKEW`] before.
    pub issued: Timestamp,
    /// The last second it is valid.
    pub not_after: Timestamp,
    /// Basis and scopes, in our extension.
    pub stamp: &'a Stamp,
}

/// Whose key a certificate is for.
#[derive(Clone, Copy, Debug)]
pub enum LeafKey<'a> {
    /// The requester's own: it never leaves the requester.
    Request(&'a Csr),
    /// A new P-256 key that is handed out with the certificate.
    Generate,
}

/// A certificate on its way to its holder.
#[derive(Debug)]
pub struct MintedLeaf {
    /// The certificate first, then its issuers without the root.
    pub chain_der: Vec<Vec<u8>>,
    /// The private key in PKCS#8, when it was made here.
    pub private_key_der: Option<SecretBytes>,
    /// SHA-256 of the certificate's DER.
    pub sha256: Digest,
    /// SHA-256 of its subject public key info.
    pub spki_sha256: Digest,
}

/// Why no certificate was made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotIssued {
    /// The request does not fit what is granted.
    #[error(transparent)]
    Csr(#[from] CsrRefusal),
    /// It would end before it begins.
    #[error("the certificate would end at {not_after}, before it begins; ask for a longer life")]
    Empty {
        /// Its end.
        not_after: Timestamp,
    },
    /// The encoder refused it.
    #[error("the certificate could not be encoded: {why}; report this as a defect")]
    Encoding {
        /// What the encoder says.
        why: String,
    },
    /// The system has no entropy.
    #[error(transparent)]
    EntropyUnavailable(#[from] EntropyUnavailable),
    /// A name that X.509 cannot hold.
    #[error("the name `{name}` is not ASCII; write it in its ASCII form")]
    Name {
        /// The name.
        name: String,
    },
    /// A certificate that names nobody.
    #[error("the certificate has no name; give at least one DNS name or address")]
    NoName,
    /// It would outlive its issuer.
    #[error("the certificate would end at {not_after}, after its issuer at {issuer}; renew the issuer")]
    OutlivesIssuer {
        /// Its end.
        not_after: Timestamp,
        /// The issuer's end.
        issuer: Timestamp,
    },
}

/// Makes a leaf for a workload.
///
/// # Errors
/// When the request asks for a name that `spec` does not have, or the times do not fit the CA.
pub fn mint_leaf(ca: &CaKey, key: LeafKey<'_>, spec: &LeafSpec<'_>) -> Result<MintedLeaf, NotIssued> {
    if let LeafKey::Request(csr) = key {
        csr.check_names(spec.spiffe_id, spec.dns_names)?;
    }
    let mut names = vec![uri(spec.spiffe_id)?];
    for name in spec.dns_names {
        names.push(dns(name)?);
    }
    let mut stamp = CustomExtension::from_oid_content(&Stamp::OID, spec.stamp.to_extension());
    stamp.set_criticality(false);
    let leaf = Leaf {
        serial: spec.lease.as_bytes(),
        names,
        usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        not_before: spec.issued.before(SKEW),
        not_after: spec.not_after,
        extensions: vec![stamp],
    };
    sign_leaf(ca, key, leaf)
}

/// A certificate's serial number, big-endian; `None` when it is no certificate.
#[must_use]
pub fn serial(certificate_der: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate_der).ok()?;
    Some(parsed.raw_serial().to_vec())
}

/// Our extension of a certificate; `None` when it has none or a damaged one.
#[must_use]
pub fn read_extension(certificate_der: &[u8]) -> Option<Stamp> {
    let (_, parsed) = X509Certificate::from_der(certificate_der).ok()?;
    let mut ours = parsed.extensions().iter().filter(|extension| extension.oid.as_bytes() == Stamp::OID_DER);
    let (first, None) = (ours.next()?, ours.next()) else { return None };
    Stamp::from_extension(first.value)
}

/// Any end-entity certificate of ours: empty subject, critical names, digitalSignature.
pub(super) struct Leaf<'a> {
    pub(super) serial: &'a [u8],
    pub(super) names: Vec<SanType>,
    pub(super) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) extensions: Vec<CustomExtension>,
}

pub(super) fn sign_leaf(ca: &CaKey, key: LeafKey<'_>, leaf: Leaf<'_>) -> Result<MintedLeaf, NotIssued> {
    match key {
        LeafKey::Request(csr) => sign_with(ca, csr.public_key(), leaf, None),
        LeafKey::Generate => {
            let (key, pkcs8) = EcKey::generate()?;
            sign_with(ca, &key, leaf, Some(pkcs8))
        }
    }
}

fn sign_with(
    ca: &CaKey,
    public: &impl PublicKeyData,
    leaf: Leaf<'_>,
    private_key_der: Option<SecretBytes>,
) -> Result<MintedLeaf, NotIssued> {
    let mut params = params(leaf.not_before, leaf.not_after, leaf.serial)?;
    params.subject_alt_names = leaf.names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = leaf.usages;
    params.custom_extensions = leaf.extensions;
    let der = sign_params(params, public, ca)?;
    let sha256 = Digest::of(&der);
    let mut chain_der = Vec::with_capacity(1 + ca.chain_der.len());
    chain_der.push(der);
    chain_der.extend_from_slice(ca.issuers_of_a_child());
    let spki_sha256 = Digest::of(&public.subject_public_key_info());
    Ok(MintedLeaf { chain_der, private_key_der, sha256, spki_sha256 })
}

/// Certificate parameters in which no default of rcgen survives that matters: its validity, subject and serial.
pub(super) fn params(
    not_before: Timestamp,
    not_after: Timestamp,
    serial: &[u8],
) -> Result<CertificateParams, NotIssued> {
    if not_after <= not_before {
        return Err(NotIssued::Empty { not_after });
    }
    let mut params = CertificateParams::default();
    params.not_before = date(not_before)?;
    params.not_after = date(not_after)?;
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

pub(super) fn sign_params(
    mut params: CertificateParams,
    public: &impl PublicKeyData,
    ca: &CaKey,
) -> Result<Vec<u8>, NotIssued> {
    let not_after = timestamp(params.not_after.unix_timestamp());
    if not_after > ca.not_after {
        return Err(NotIssued::OutlivesIssuer { not_after, issuer: ca.not_after });
    }
    params.key_identifier_method = KeyIdMethod::PreSpecified(subject_key_id(public));
    let certificate = params.signed_by(public, &ca.issuer).map_err(encoding)?;
    Ok(certificate.der().to_vec())
}

/// RFC 7093 section 2 method 1: SHA-256 over the public key's bits, cut to 20 bytes.
pub(super) fn subject_key_id(public: &impl PublicKeyData) -> Vec<u8> {
    let Digest(hash) = Digest::of(public.der_bytes());
    hash.split_at(20).0.to_vec()
}

pub(super) fn encoding(error: rcgen::Error) -> NotIssued {
    NotIssued::Encoding { why: error.to_string() }
}

pub(super) fn uri(name: &str) -> Result<SanType, NotIssued> {
    name.try_into().map(SanType::URI).map_err(|_| NotIssued::Name { name: name.to_owned() })
}

pub(super) fn dns(name: &str) -> Result<SanType, NotIssued> {
    name.try_into().map(SanType::DnsName).map_err(|_| NotIssued::Name { name: name.to_owned() })
}

pub(super) fn ip(address: IpAddr) -> SanType {
    SanType::IpAddress(address)
}

/// Whether it may sign certificates and says who it is.
pub(super) fn is_ca(certificate: &X509Certificate<'_>) -> bool {
    let signs = certificate.key_usage().ok().flatten().is_some_and(|usage| usage.value.key_cert_sign());
    certificate.is_ca() && signs && certificate.subject().iter().next().is_some()
}

pub(super) fn path_len(certificate: &X509Certificate<'_>) -> Option<u32> {
    certificate.basic_constraints().ok().flatten().and_then(|basic| basic.value.path_len_constraint)
}

/// Before 1970 counts as 1970.
pub(super) fn timestamp(unix_seconds: i64) -> Timestamp {
    Timestamp::from_seconds(u64::try_from(unix_seconds).unwrap_or(0))
}

fn date(at: Timestamp) -> Result<time::OffsetDateTime, NotIssued> {
    let seconds = i64::try_from(at.seconds()).ok();
    let date = seconds.and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
    date.ok_or_else(|| NotIssued::Encoding { why: format!("{at} is past the year 9999") })
}

#[cfg(test)]
mod tests;

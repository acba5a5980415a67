//! CAs: root, issuing CA, one CA per tenant; and the few certificates that are no leases.
//!
//! ```text
//! root (pathLen 2, may be kept offline) -> issuing CA (1) -> tenant CA (0) -> leaves
//!                                                |
//!                                                +-> the broker's own TLS certificate, operators
//! ```

use std::{fmt, net::IpAddr};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod,
    KeyUsagePurpose, PublicKeyData,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    SecretBytes,
    ec::EcKey,
    x509::{self, CaKey, CaRefusal, Csr, Leaf, LeafKey, MintedLeaf, NotIssued},
};
use crate::model::{OperatorName, Timestamp, id::hex, secret};

/// How a CA is named.
#[derive(Clone, Copy, Debug)]
pub struct CaName<'a> {
    /// The organisation (O).
    pub organization: &'a str,
    /// What the common name (CN) begins with; a part of the key's hash follows, so that every key has its own name.
    pub name: &'a str,
    /// The trust domain it signs for, as `spiffe://NAME` without a path; none for roots.
    pub trust_domain: Option<&'a str>,
}

/// From when until when a certificate is valid, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// First second.
    pub not_before: Timestamp,
    /// Last second.
    pub not_after: Timestamp,
}

/// A CA that was just made: its private key is to be sealed.
pub struct NewCa {
    /// The private key in PKCS#8.
    pub pkcs8: SecretBytes,
    /// The CA, ready to sign.
    pub key: CaKey,
}

impl fmt::Debug for NewCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewCa").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Makes a root: three levels fit below it.
///
/// # Errors
/// When the names or times make no certificate.
pub fn create_root(name: &CaName<'_>, validity: Validity) -> Result<NewCa, NotIssued> {
    let (key, pkcs8) = EcKey::generate()?;
    let mut params = ca_params(name, &key, validity, Depth::Root)?;
    params.key_identifier_method = KeyIdMethod::PreSpecified(x509::subject_key_id(&key));
    let certificate = params.self_signed(&key).map_err(x509::encoding)?;
    new_ca(pkcs8, vec![certificate.der().to_vec()])
}

/// Makes the issuing CA below `root`.
///
/// # Errors
/// When the names or times make no certificate.
pub fn create_issuing(root: &CaKey, name: &CaName<'_>, validity: Validity) -> Result<NewCa, NotIssued> {
    create_below(root, name, validity, Depth::Issuing)
}

/// Makes a tenant's CA below `issuing`.
///
/// # Errors
/// When the names or times make no certificate.
pub fn create_tenant(issuing: &CaKey, name: &CaName<'_>, validity: Validity) -> Result<NewCa, NotIssued> {
    create_below(issuing, name, validity, Depth::Tenant)
}

/// The same CA as a root of its own: its name, key and life, signed by itself.
///
/// What trusts this root trusts this CA's leaves and nobody else's, also where it looks at no name in them, and it builds
/// a chain that ends here with every library, as it would not below a certificate that another CA signed.
///
/// # Errors
/// When `name` is not the one that the CA was made with, or there is no entropy.
pub fn as_root(ca: &CaKey, name: &CaName<'_>) -> Result<Vec<u8>, NotIssued> {
    let encoding = |why: &str| NotIssued::Encoding { why: why.to_owned() };
    let own = ca.chain_der().first().ok_or_else(|| encoding("the CA has no certificate"))?;
    let (_, own) = X509Certificate::from_der(own).map_err(|_| encoding("the CA's certificate is malformed"))?;
    let not_before = x509::timestamp(own.validity().not_before.timestamp());
    let validity = Validity { not_before, not_after: ca.not_after() };
    let mut params = ca_params(name, ca.key(), validity, Depth::Tenant)?;
    params.key_identifier_method = KeyIdMethod::PreSpecified(x509::subject_key_id(ca.key()));
    let root = params.self_signed(ca.key()).map_err(x509::encoding)?.der().to_vec();
    let (_, made) = X509Certificate::from_der(&root).map_err(|_| encoding("the root is malformed"))?;
    if made.subject().as_raw() != own.subject().as_raw() {
        return Err(encoding("the CA was made with another name"));
    }
    Ok(root)
}

/// Makes the private key of an issuing CA and the request for a root elsewhere to sign.
///
/// # Errors
/// When the names make no request.
pub fn issuing_request(name: &CaName<'_>) -> Result<(SecretBytes, Vec<u8>), NotIssued> {
    let (key, pkcs8) = EcKey::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(name, &key);
    params.subject_alt_names = trust_domain(name)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(Depth::Issuing.path_len()));
    params.key_usages = CA_USAGES.to_vec();
    let request = params.serialize_request(&key).map_err(x509::encoding)?;
    Ok((pkcs8, request.der().to_vec()))
}

/// Takes over an issuing CA that a root elsewhere signed: `chain_der` is its certificate, its issuers, the root last.
///
/// # Errors
/// Unless it is a CA for this key that is valid now and allows a tenant CA below it, and each certificate is signed by
/// the next, up to a self-signed root.
pub fn adopt_issuing(pkcs8: &SecretBytes, chain_der: &[Vec<u8>], now: Timestamp) -> Result<CaKey, CaRefusal> {
    let mut chain = Vec::with_capacity(chain_der.len());
    for (at, der) in chain_der.iter().enumerate() {
        let parsed = X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty());
        chain.push(parsed.ok_or(CaRefusal::Malformed { at })?.1);
    }
    for (at, certificate) in chain.iter().enumerate() {
        if !x509::is_ca(certificate) {
            return Err(CaRefusal::NotACa { at });
        }
        let issuer = chain.get(at + 1).unwrap_or(certificate);
        let named = certificate.issuer().as_raw() == issuer.subject().as_raw();
        if !named || certificate.verify_signature(Some(issuer.public_key())).is_err() {
            return Err(CaRefusal::BrokenChain { at });
        }
        let not_after = x509::timestamp(certificate.validity().not_after.timestamp());
        if not_after <= now {
            return Err(CaRefusal::Expired { not_after });
        }
        // `at` CAs of the chain lie between this one and the issuing CA, and the tenants' come below.
        match x509::path_len(certificate) {
            Some(path_len) if usize::try_from(path_len).unwrap_or(usize::MAX) < at + 1 => {
                return Err(CaRefusal::PathLength { path_len });
            }
            Some(_) | None => {}
        }
    }
    let (_root, below) = chain_der.split_last().ok_or(CaRefusal::Empty)?;
    if below.is_empty() {
        // A root that signs tenants' CAs itself.
        return CaKey::from_parts(pkcs8, chain_der.to_vec());
    }
    CaKey::from_parts(pkcs8, below.to_vec())
}

/// Makes the broker's own TLS certificate, with a new key.
///
/// # Errors
/// When the names or times make no certificate.
pub fn mint_server(
    issuing: &CaKey,
    dns_names: &[String],
    addresses: &[IpAddr],
    validity: Validity,
) -> Result<MintedLeaf, NotIssued> {
    let mut names = Vec::with_capacity(dns_names.len() + addresses.len());
    for name in dns_names {
        names.push(x509::dns(name)?);
    }
    names.extend(addresses.iter().copied().map(x509::ip));
    if names.is_empty() {
        return Err(NotIssued::NoName);
    }
    let leaf = Leaf {
        serial: &fresh_serial()?,
        names,
        usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
        not_before: validity.not_before,
        not_after: validity.not_after,
        extensions: vec![],
    };
    x509::sign_leaf(issuing, LeafKey::Generate, leaf)
}

/// The name of an operator in certificates.
#[must_use]
pub fn operator_spiffe_id(base_trust_domain: &str, operator: &OperatorName) -> String {
    format!("spiffe://{base_trust_domain}/operator/{operator}")
}

/// Makes an operator's client certificate.
///
/// # Errors
/// When the request asks for another name, or the times make no certificate.
pub fn mint_operator(
    issuing: &CaKey,
    key: LeafKey<'_>,
    base_trust_domain: &str,
    operator: &OperatorName,
    validity: Validity,
) -> Result<MintedLeaf, NotIssued> {
    mint_client(issuing, key, &operator_spiffe_id(base_trust_domain, operator), validity)
}

/// Makes an operator's client certificate for one sign-in.
///
/// # Errors
/// As [`mint_operator`].
pub fn mint_sign_in(
    issuing: &CaKey,
    csr: &Csr,
    base_trust_domain: &str,
    operator: &OperatorName,
    path: &str,
    validity: Validity,
) -> Result<MintedLeaf, NotIssued> {
    let id = format!("{}{path}", operator_spiffe_id(base_trust_domain, operator));
    mint_client(issuing, LeafKey::Request(csr), &id, validity)
}

/// Makes a client certificate that is no lease: an operator's, or one of a platform's CA.
///
/// # Errors
/// When the request asks for another name, or the times make no certificate.
pub fn mint_client(ca: &CaKey, key: LeafKey<'_>, spiffe_id: &str, validity: Validity) -> Result<MintedLeaf, NotIssued> {
    if let LeafKey::Request(csr) = key {
        csr.check_names(spiffe_id, &[])?;
    }
    let leaf = Leaf {
        serial: &fresh_serial()?,
        names: vec![x509::uri(spiffe_id)?],
        usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
        not_before: validity.not_before,
        not_after: validity.not_after,
        extensions: vec![],
    };
    x509::sign_leaf(ca, key, leaf)
}

#[derive(Clone, Copy)]
enum Depth {
    Root,
    Issuing,
    Tenant,
}

impl Depth {
    /// How many CAs may come below.
    fn path_len(self) -> u8 {
        match self {
            Self::Root => 2,
            Self::Issuing => 1,
            Self::Tenant => 0,
        }
    }
}

fn create_below(parent: &CaKey, name: &CaName<'_>, validity: Validity, depth: Depth) -> Result<NewCa, NotIssued> {
    let (key, pkcs8) = EcKey::generate()?;
    let params = ca_params(name, &key, validity, depth)?;
    let mut chain = vec![x509::sign_params(params, &key, parent)?];
    chain.extend_from_slice(parent.issuers_of_a_child());
    new_ca(pkcs8, chain)
}

/// Reads the new CA back as a start would, so that one that cannot be read is never kept.
fn new_ca(pkcs8: SecretBytes, chain_der: Vec<Vec<u8>>) -> Result<NewCa, NotIssued> {
    let key = CaKey::from_parts(&pkcs8, chain_der).map_err(|why| NotIssued::Encoding { why: why.to_string() })?;
    Ok(NewCa { pkcs8, key })
}

fn ca_params(name: &CaName<'_>, key: &EcKey, validity: Validity, depth: Depth) -> Result<CertificateParams, NotIssued> {
    let mut params = x509::params(validity.not_before, validity.not_after, &fresh_serial()?)?;
    params.distinguished_name = distinguished_name(name, key);
    params.subject_alt_names = trust_domain(name)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth.path_len()));
    params.key_usages = CA_USAGES.to_vec();
    Ok(params)
}

fn distinguished_name(name: &CaName<'_>, key: &impl PublicKeyData) -> DistinguishedName {
    let id = x509::subject_key_id(key);
    let mark = hex(id.split_at_checked(MARK_BYTES).map_or(&id, |(mark, _)| mark));
    let limited = |text: &str, limit: usize| text.chars().take(limit).collect::<String>();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, limited(name.organization, NAME_MAX_CHARS));
    // One space before the mark.
    let room = NAME_MAX_CHARS - 1 - MARK_BYTES * 2;
    subject.push(DnType::CommonName, format!("{} {mark}", limited(name.name, room)));
    subject
}

fn trust_domain(name: &CaName<'_>) -> Result<Vec<rcgen::SanType>, NotIssued> {
    name.trust_domain.map(|domain| x509::uri(&format!("spiffe://{domain}"))).transpose().map(Vec::from_iter)
}

/// 16 random bytes, positive and never zero; leases have 20, so the two never meet.
fn fresh_serial() -> Result<[u8; 16], NotIssued> {
    let mut serial = [0; 16];
    secret::fill(&mut serial)?;
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    Ok(serial)
}

const CA_USAGES: [KeyUsagePurpose; 2] = [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
/// RFC 5280 appendix A.1: ub-common-name and ub-organization-name.
const NAME_MAX_CHARS: usize = 64;
const MARK_BYTES: usize = 4;

#[cfg(test)]
mod tests;

//! Certificate requests (PKCS#10, RFC 2986), read with suspicion.

use rcgen::{PublicKeyData, SignatureAlgorithm};
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension, X509Extension},
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
        OID_SIG_ED25519, Oid,
    },
    prelude::FromDer as _,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use crate::model::Digest;

/// The longest request, in bytes.
pub const CSR_MAX_BYTES: usize = 8_192;

/// A request whose signature proves the private key, and that asks for nothing but names.
///
/// Its subject is not used: our certificates have none.
#[derive(Clone, Debug)]
pub struct Csr {
    key: CsrKey,
    uris: Vec<String>,
    dns_names: Vec<String>,
    spki_sha256: Digest,
}

/// Why a request is not taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CsrRefusal {
    /// An attribute other than the extension request.
    #[error("the request has attribute {oid}; leave it out")]
    Attribute {
        /// Which.
        oid: String,
    },
    /// It asks to be a CA.
    #[error("the request asks for a CA certificate; leave out CA:TRUE, keyCertSign and cRLSign")]
    CaRequested,
    /// An extension that is not taken from requests.
    #[error("the request has extension {oid}; leave it out")]
    Extension {
        /// Which.
        oid: String,
    },
    /// A name that was not granted.
    #[error("the request names `{name}`, which the grant does not; leave it out or have the grant changed")]
    ForeignName {
        /// The name.
        name: String,
    },
    /// Not a request.
    #[error("the request is no DER of PKCS#10; send the bytes of `openssl req -new -outform DER`")]
    Malformed,
    /// A name that is neither URI nor DNS name.
    #[error("the request has a name that is neither a URI nor a DNS name; leave it out")]
    NameKind,
    /// Too long.
    #[error("the request has {bytes} bytes, and {CSR_MAX_BYTES} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// A kind of key or signature that is not taken.
    #[error("the request's key or signature is of no kind that is taken; use P-256, P-384, Ed25519 or RSA with SHA-2")]
    UnsupportedKey,
    /// A usage other than that of a TLS server or client.
    #[error("the request asks for a key usage other than TLS server or client; leave it out")]
    Usage,
    /// An RSA key that is too short or too long.
    #[error("the request's RSA key has {bits} bits, and 2048 to 4096 are taken; make a P-256 key")]
    WeakKey {
        /// Its length.
        bits: usize,
    },
    /// The signature does not hold.
    #[error("the request's signature does not hold; sign it with the private key of its public key")]
    WrongSignature,
}

/// Reads a request and checks its signature.
///
/// # Errors
/// When it is not sound, or asks for more than names.
pub fn parse_csr(der: &[u8]) -> Result<Csr, CsrRefusal> {
    if der.len() > CSR_MAX_BYTES {
        return Err(CsrRefusal::TooLarge { bytes: der.len() });
    }
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrRefusal::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrRefusal::Malformed);
    }
    let info = &request.certification_request_info;
    let (algorithm, signatures) = key_kind(&info.subject_pki)?;
    if !signatures.contains(&request.signature_algorithm.algorithm) {
        return Err(CsrRefusal::UnsupportedKey);
    }
    // What it asks for is cheap to look at, its signature is not.
    let mut names = Names::default();
    let mut extension_requests = 0;
    for attribute in info.iter_attributes() {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(asked) => {
                extension_requests += 1;
                asked.extensions.iter().try_for_each(|extension| names.take(extension))?;
            }
            ParsedCriAttribute::ChallengePassword(_) | ParsedCriAttribute::UnsupportedAttribute => {
                return Err(CsrRefusal::Attribute { oid: attribute.oid.to_id_string() });
            }
        }
    }
    if extension_requests > 1 {
        return Err(CsrRefusal::Malformed);
    }
    request.verify_signature().map_err(|_| CsrRefusal::WrongSignature)?;
    let key = CsrKey { algorithm, bits: info.subject_pki.subject_public_key.data.to_vec() };
    // Over what the certificate will hold, which for RSA may be spelt otherwise than in the request.
    let spki_sha256 = Digest::of(&key.subject_public_key_info());
    Ok(Csr { key, uris: names.uris, dns_names: names.dns_names, spki_sha256 })
}

impl Csr {
    /// SHA-256 of its subject public key info, as the certificate will hold it.
    #[must_use]
    pub fn spki_sha256(&self) -> Digest {
        self.spki_sha256
    }

    /// Checks that it asks for no other names than these; asking for none is right too.
    ///
    /// # Errors
    /// With the first name that is not among them.
    pub fn check_names(&self, spiffe_id: &str, dns_names: &[String]) -> Result<(), CsrRefusal> {
        let foreign_uri = self.uris.iter().find(|uri| *uri != spiffe_id);
        let known = |asked: &&String| dns_names.iter().any(|name| name.eq_ignore_ascii_case(asked));
        match foreign_uri.or_else(|| self.dns_names.iter().find(|asked| !known(asked))) {
            Some(name) => Err(CsrRefusal::ForeignName { name: name.clone() }),
            None => Ok(()),
        }
    }

    pub(super) fn public_key(&self) -> &impl PublicKeyData {
        &self.key
    }
}

#[derive(Clone, Debug)]
struct CsrKey {
    algorithm: &'static SignatureAlgorithm,
    bits: Vec<u8>,
}

impl PublicKeyData for CsrKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

#[derive(Default)]
struct Names {
    uris: Vec<String>,
    dns_names: Vec<String>,
}

impl Names {
    fn take(&mut self, extension: &X509Extension<'_>) -> Result<(), CsrRefusal> {
        let parsed = extension.parsed_extension();
        if let ParsedExtension::SubjectAlternativeName(asked) = parsed {
            asked.general_names.iter().try_for_each(|name| self.take_name(name))
        } else if let ParsedExtension::BasicConstraints(basic) = parsed {
            if basic.ca { Err(CsrRefusal::CaRequested) } else { Ok(()) }
        } else if let ParsedExtension::KeyUsage(usage) = parsed {
            if usage.key_cert_sign() || usage.crl_sign() { Err(CsrRefusal::CaRequested) } else { Ok(()) }
        } else if let ParsedExtension::ExtendedKeyUsage(usage) = parsed {
            let others =
                [usage.any, usage.code_signing, usage.email_protection, usage.time_stamping, usage.ocsp_signing];
            if others.contains(&true) || !usage.other.is_empty() { Err(CsrRefusal::Usage) } else { Ok(()) }
        } else if let ParsedExtension::SubjectKeyIdentifier(_) = parsed {
            // Stock tools write it; ours is computed anew.
            Ok(())
        } else {
            Err(CsrRefusal::Extension { oid: extension.oid.to_id_string() })
        }
    }

    fn take_name(&mut self, name: &GeneralName<'_>) -> Result<(), CsrRefusal> {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_)
            | GeneralName::Invalid(..) => return Err(CsrRefusal::NameKind),
        }
        Ok(())
    }
}

/// How rcgen spells the key, and the signatures that fit it.
fn key_kind(
    spki: &SubjectPublicKeyInfo<'_>,
) -> Result<(&'static SignatureAlgorithm, &'static [Oid<'static>]), CsrRefusal> {
    let kind = &spki.algorithm.algorithm;
    if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        return match curve.ok_or(CsrRefusal::UnsupportedKey)? {
            curve if curve == OID_EC_P256 => Ok((&rcgen::PKCS_ECDSA_P256_SHA256, ECDSA_SIGNATURES)),
            curve if curve == OID_NIST_EC_P384 => Ok((&rcgen::PKCS_ECDSA_P384_SHA384, ECDSA_SIGNATURES)),
            _ => Err(CsrRefusal::UnsupportedKey),
        };
    }
    if *kind == OID_SIG_ED25519 {
        return Ok((&rcgen::PKCS_ED25519, ED25519_SIGNATURES));
    }
    if *kind == OID_PKCS1_RSAENCRYPTION {
        return match spki.parsed().map_err(|_| CsrRefusal::Malformed)? {
            PublicKey::RSA(rsa) if (2048..=4096).contains(&rsa.key_size()) => {
                Ok((&rcgen::PKCS_RSA_SHA256, RSA_SIGNATURES))
            }
            PublicKey::RSA(rsa) => Err(CsrRefusal::WeakKey { bits: rsa.key_size() }),
            PublicKey::EC(_)
            | PublicKey::DSA(_)
            | PublicKey::GostR3410(_)
            | PublicKey::GostR3410_2012(_)
            | PublicKey::Unknown(_) => Err(CsrRefusal::UnsupportedKey),
        };
    }
    Err(CsrRefusal::UnsupportedKey)
}

const ECDSA_SIGNATURES: &[Oid<'static>] = &[OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384];
const ED25519_SIGNATURES: &[Oid<'static>] = &[OID_SIG_ED25519];
const RSA_SIGNATURES: &[Oid<'static>] = &[OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA];

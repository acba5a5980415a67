//! Client identities: a certificate authority of the examples' own, and certificates from it.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use time::{Duration, OffsetDateTime};

use super::Fallible;

/// A foreign certificate authority, such as a platform has one. The daemon is told to believe it under `name`.
pub struct Authority {
    pub name: &'static str,
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as a TLS client presents them.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

// === impl Authority ===

impl Authority {
    /// Makes a new authority with its own key.
    pub fn new(name: &'static str) -> Fallible<Self> {
        let key = KeyPair::generate()?;
        let mut params = dated(CertificateParams::default())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("example authority {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { name, pem, issuer: Issuer::new(params, key) })
    }

    /// Certifies a fresh key for a SPIFFE ID, for two days.
    pub fn identity(&self, spiffe_id: &str) -> Fallible<Identity> {
        self.identity_until(spiffe_id, OffsetDateTime::now_utc() + Duration::days(2))
    }

    /// Certifies a fresh key for a SPIFFE ID, from an hour ago until `not_after`.
    pub fn identity_until(&self, spiffe_id: &str, not_after: OffsetDateTime) -> Fallible<Identity> {
        self.identity_of(&KeyPair::generate()?, spiffe_id, not_after)
    }

    /// The same for a given key: a renewal.
    pub fn identity_of(&self, key: &KeyPair, spiffe_id: &str, not_after: OffsetDateTime) -> Fallible<Identity> {
        let mut params = dated(CertificateParams::default())?;
        params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
        params.not_after = not_after;
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, &self.issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())?;
        Ok(Identity { chain: vec![leaf.der().clone()], key })
    }
}

// === impl Identity ===

impl Identity {
    /// Reads `cert.pem` and `key.pem` from a folder.
    pub fn read(folder: &Path) -> Fallible<Self> {
        let chain = certificates(&folder.join("cert.pem"))?;
        let file = folder.join("key.pem");
        let key = PrivateKeyDer::from_pem_file(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Self { chain, key })
    }

    /// The name by which bound credentials know this certificate (RFC 8705 section 3.1).
    pub fn sha256(&self) -> Vec<u8> {
        let leaf = self.chain.first().map_or(&[][..], |leaf| leaf.as_ref());
        ring::digest::digest(&ring::digest::SHA256, leaf).as_ref().to_vec()
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// Reads every certificate of a PEM file.
pub fn certificates(file: &Path) -> Fallible<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    Ok(read().map_err(|error| format!("{}: {error}", file.display()))?)
}

/// A PKCS #10 request in DER that names nothing: the broker decides what the certificate says.
pub fn signing_request(key: &KeyPair) -> Fallible<Vec<u8>> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Sets what rcgen would default to 1975, 4096 and a repeating serial number.
fn dated(mut params: CertificateParams) -> Fallible<CertificateParams> {
    let mut serial = [0_u8; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut serial).map_err(|_| "no entropy")?;
    // A positive number of fixed length.
    serial[0] = (serial[0] & 0x3f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = OffsetDateTime::now_utc() - Duration::minutes(5);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(2);
    Ok(params)
}

//! Certificates for tests of this layer and those above.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A CA of one certificate.
pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

/// What a test leaf says.
#[derive(Clone, Copy)]
pub(crate) struct LeafNames<'a> {
    pub(crate) uris: &'a [&'a str],
    pub(crate) dns: &'a [&'a str],
    /// Unix seconds.
    pub(crate) not_after_seconds: i64,
}

/// A leaf and its key.
pub(crate) struct TestLeaf {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

/// In 2040.
pub(crate) const FAR_SECONDS: i64 = 2_208_988_800;

impl TestCa {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = named(name);
        let root = params.self_signed(&key).expect("root").der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.root.clone()
    }

    pub(crate) fn leaf(&self, names: LeafNames<'_>) -> TestLeaf {
        let key = KeyPair::generate().expect("key");
        let mut params =
            CertificateParams::new(names.dns.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).expect("names");
        let uris = names.uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("uri")));
        params.subject_alt_names.extend(uris);
        params.distinguished_name = named("leaf");
        params.is_ca = IsCa::ExplicitNoCa;
        params.not_before = time::OffsetDateTime::from_unix_timestamp(1_577_836_800).expect("2020");
        params.not_after = time::OffsetDateTime::from_unix_timestamp(names.not_after_seconds).expect("end");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, &self.issuer).expect("leaf");
        TestLeaf { chain: vec![leaf.der().clone()], key: key.serialize_der() }
    }

    /// A leaf that names one workload.
    pub(crate) fn workload(&self, uri: &str) -> TestLeaf {
        self.leaf(LeafNames { uris: &[uri], dns: &[], not_after_seconds: FAR_SECONDS })
    }

    /// A leaf for `localhost`.
    pub(crate) fn server(&self) -> TestLeaf {
        self.leaf(LeafNames { uris: &[], dns: &["localhost"], not_after_seconds: FAR_SECONDS })
    }
}

impl TestLeaf {
    /// A key of one's own, in a certificate that nobody else vouches for.
    pub(crate) fn self_signed(uris: &[&str]) -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("uri"))).collect();
        params.distinguished_name = DistinguishedName::new();
        let leaf = params.self_signed(&key).expect("self-signed");
        Self { chain: vec![leaf.der().clone()], key: key.serialize_der() }
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.clone()).expect("key")
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

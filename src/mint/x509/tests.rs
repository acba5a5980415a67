use std::{sync::Arc, time::Duration};

use rcgen::{Attribute, BasicConstraints, KeyPair};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
    server::WebPkiClientVerifier,
};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
};

use super::*;
use crate::{
    mint::ca::{self, CaName, NewCa, Validity},
    model::{ScopeId, TaskId, TenantNumber},
};

const SPIFFE_ID: &str = "spiffe://acme.example/globex/exporter";

struct Pki {
    root: NewCa,
    tenant: NewCa,
}

fn now() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn pki() -> Pki {
    let name = |name, trust_domain| CaName { organization: "Mayfly", name, trust_domain };
    let validity =
        |hours: u64| Validity { not_before: now().before(SKEW), not_after: now().after(seconds(hours * 3600)) };
    let root = ca::create_root(&name("root", None), validity(100)).expect("root");
    let issuing =
        ca::create_issuing(&root.key, &name("issuing", Some("mayfly.example")), validity(10)).expect("issuing");
    let tenant = ca::create_tenant(&issuing.key, &name("acme", Some("acme.example")), validity(5)).expect("tenant");
    Pki { root, tenant }
}

fn stamp() -> Stamp {
    let scope = ScopeId::from_slice(&[5; 12]).expect("12 bytes");
    Stamp::new((0xfeed, 99), vec![scope; 9]).expect("few scopes")
}

fn lease() -> LeaseId {
    LeaseId::fresh(TaskId::fresh(TenantNumber::new(3).expect("in range")).expect("entropy")).expect("entropy")
}

fn spec<'a>(stamp: &'a Stamp, dns_names: &'a [String]) -> LeafSpec<'a> {
    LeafSpec {
        spiffe_id: SPIFFE_ID,
        dns_names,
        lease: lease(),
        issued: now(),
        not_after: now().after(seconds(300)),
        stamp,
    }
}

fn csr_of(params: CertificateParams) -> Vec<u8> {
    params.serialize_request(&KeyPair::generate().expect("key")).expect("request").der().to_vec()
}

fn plain() -> CertificateParams {
    CertificateParams::default()
}

/// Whether a TLS server that trusts `root` takes the chain of a client at `at`.
fn is_taken(root: &[u8], chain: &[Vec<u8>], at: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(root.to_vec())).expect("root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().expect("verifier");
    let mut chain = chain.iter().map(|der| CertificateDer::from(der.clone()));
    let leaf = chain.next().expect("leaf");
    let issuers: Vec<_> = chain.collect();
    verifier.verify_client_cert(&leaf, &issuers, UnixTime::since_unix_epoch(seconds(at.seconds()))).is_ok()
}

#[test]
#[expect(clippy::wildcard_enum_match_arm, reason = "x509-parser's enum: every other extension must be ours")]
fn a_leaf_has_exactly_the_documented_fields() {
    let pki = pki();
    let csr = parse_csr(&csr_of(plain())).expect("sound request");
    let (stamp, dns_names) = (stamp(), ["exporter.acme.example".to_owned()]);
    let spec = spec(&stamp, &dns_names);
    let minted = mint_leaf(&pki.tenant.key, LeafKey::Request(&csr), &spec).expect("minted");
    assert!(minted.private_key_der.is_none());
    assert_eq!(minted.chain_der.len(), 3, "leaf, tenant CA, issuing CA; no root");
    let der = &minted.chain_der[0];
    assert_eq!(minted.sha256, Digest::of(der));
    let (rest, leaf) = X509Certificate::from_der(der).expect("DER");
    assert!(rest.is_empty());
    assert_eq!(serial(der).as_deref(), Some(&spec.lease.as_bytes()[..]));
    assert_eq!(leaf.subject().iter().count(), 0);
    assert_eq!(leaf.validity().not_before.timestamp(), 1_800_000_000 - 30);
    assert_eq!(leaf.validity().not_after.timestamp(), 1_800_000_300);
    assert_eq!(minted.spki_sha256, Digest::of(leaf.public_key().raw));
    assert_eq!(minted.spki_sha256, csr.spki_sha256());
    let mut seen = Vec::new();
    for extension in leaf.extensions() {
        let name = match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                let want = [GeneralName::URI(SPIFFE_ID), GeneralName::DNSName("exporter.acme.example")];
                assert_eq!(names.general_names, want);
                "names"
            }
            ParsedExtension::BasicConstraints(_) => {
                assert_eq!(extension.value, [0x30, 0], "CA:FALSE is the default, which DER leaves out");
                "basic constraints"
            }
            ParsedExtension::KeyUsage(usage) => {
                assert_eq!(usage.flags, 1, "digitalSignature alone");
                "key usage"
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                assert!(usage.server_auth && usage.client_auth && !usage.any && usage.other.is_empty());
                "extended key usage"
            }
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                assert_eq!(id.key_identifier.as_ref().expect("id").0, key_id(pki.tenant.key.chain_der()));
                "authority key id"
            }
            ParsedExtension::SubjectKeyIdentifier(id) => {
                assert_eq!(id.0, &Digest::of(&leaf.public_key().subject_public_key.data).0[..20]);
                "subject key id"
            }
            _ => {
                assert_eq!(extension.oid.as_bytes(), Stamp::OID_DER);
                assert_eq!(extension.oid.to_id_string(), "2.25.5575871294474878977");
                "stamp"
            }
        };
        seen.push((name, extension.critical));
    }
    seen.sort_unstable();
    let want = [
        ("authority key id", false),
        ("basic constraints", true),
        ("extended key usage", false),
        ("key usage", true),
        ("names", true),
        ("stamp", false),
        ("subject key id", false),
    ];
    assert_eq!(seen, want);
    assert_eq!(read_extension(der), Some(stamp));
}

fn key_id(chain: &[Vec<u8>]) -> Vec<u8> {
    let (_, own) = X509Certificate::from_der(&chain[0]).expect("DER");
    let id = own.iter_extensions().find_map(|extension| {
        let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() else { return None };
        Some(id.0.to_vec())
    });
    id.expect("subject key id")
}

#[test]
fn a_leaf_is_taken_by_webpki_within_its_life_and_under_its_root_alone() {
    let (pki, stamp) = (pki(), stamp());
    let minted = mint_leaf(&pki.tenant.key, LeafKey::Generate, &spec(&stamp, &[])).expect("minted");
    let root = &pki.root.key.chain_der()[0];
    for (offset, taken) in [(0, true), (29, true), (30, true), (31, false)] {
        assert_eq!(is_taken(root, &minted.chain_der, now().before(seconds(offset))), taken, "{offset} s before");
    }
    assert!(is_taken(root, &minted.chain_der, now().after(seconds(300))));
    assert!(!is_taken(root, &minted.chain_der, now().after(seconds(301))));
    assert!(!is_taken(&self::pki().root.key.chain_der()[0], &minted.chain_der, now()));
}

#[test]
fn a_generated_key_is_the_one_certified_and_is_not_shown() {
    let (pki, stamp) = (pki(), stamp());
    let minted = mint_leaf(&pki.tenant.key, LeafKey::Generate, &spec(&stamp, &[])).expect("minted");
    let key = EcKey::from_pkcs8(minted.private_key_der.as_ref().expect("made here")).expect("P-256");
    assert_eq!(minted.spki_sha256, Digest::of(&key.subject_public_key_info()));
    assert!(format!("{minted:?}").contains("private_key_der: Some(SecretBytes(..))"));
    assert!(format!("{:?} {:?}", pki.tenant, key).contains("EcKey(..)"));
}

#[test]
fn every_kind_of_key_that_is_taken_can_be_certified() {
    let (pki, stamp) = (pki(), stamp());
    let mut requests = vec![include_bytes!("../../../tests/golden/csr/rsa_2048.der").to_vec()];
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).expect("key");
        requests.push(plain().serialize_request(&key).expect("request").der().to_vec());
    }
    for request in requests {
        let csr = parse_csr(&request).expect("sound request");
        let minted = mint_leaf(&pki.tenant.key, LeafKey::Request(&csr), &spec(&stamp, &[])).expect("minted");
        let (_, leaf) = X509Certificate::from_der(&minted.chain_der[0]).expect("DER");
        assert_eq!(Digest::of(leaf.public_key().raw), csr.spki_sha256());
        assert!(is_taken(&pki.root.key.chain_der()[0], &minted.chain_der, now()));
    }
}

#[test]
fn a_request_may_ask_for_some_of_the_granted_names_and_for_no_others() {
    let csr = parse_csr(include_bytes!("../../../tests/golden/csr/p256_names.der")).expect("sound request");
    let granted = ["w.acme.example".to_owned(), "v.acme.example".to_owned()];
    assert_eq!(csr.check_names("spiffe://acme.example/w", &granted), Ok(()));
    let foreign = |name: &str| Err(CsrRefusal::ForeignName { name: name.to_owned() });
    assert_eq!(csr.check_names("spiffe://acme.example/w2", &granted), foreign("spiffe://acme.example/w"));
    assert_eq!(csr.check_names("spiffe://acme.example/w", &granted[1..]), foreign("W.acme.example"));
    let (pki, stamp) = (pki(), stamp());
    let refused =
        mint_leaf(&pki.tenant.key, LeafKey::Request(&csr), &spec(&stamp, &granted)).expect_err("foreign name");
    assert!(matches!(refused, NotIssued::Csr(CsrRefusal::ForeignName { .. })));
}

#[test]
fn a_request_for_a_ca_is_refused() {
    let mut ca = plain();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(parse_csr(&csr_of(ca)).expect_err("CA:TRUE"), CsrRefusal::CaRequested);
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        let mut signs = plain();
        signs.key_usages = vec![KeyUsagePurpose::DigitalSignature, usage];
        assert_eq!(parse_csr(&csr_of(signs)).expect_err("usage"), CsrRefusal::CaRequested);
    }
}

#[test]
fn a_request_with_any_changed_byte_in_its_signed_part_is_refused() {
    let good = csr_of(plain());
    assert!(parse_csr(&good).is_ok());
    let (_, parsed) = X509CertificationRequest::from_der(&good).expect("DER");
    let signed = parsed.certification_request_info.raw;
    let start = good.windows(signed.len()).position(|window| window == signed).expect("part of it");
    for at in start..start + signed.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        assert!(parse_csr(&changed).is_err(), "byte {at}");
    }
    let mut last = good.clone();
    *last.last_mut().expect("bytes") ^= 1;
    assert_eq!(parse_csr(&last).expect_err("signature"), CsrRefusal::WrongSignature);
}

#[test]
fn bad_requests_are_refused_by_their_defect() {
    let mut usage = plain();
    usage.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let (usage, mut trailing) = (csr_of(usage), csr_of(plain()));
    trailing.push(0);
    let cases: [(&[u8], CsrRefusal); 9] = [
        (include_bytes!("../../../tests/golden/csr/rsa_1024.der"), CsrRefusal::WeakKey { bits: 1024 }),
        (include_bytes!("../../../tests/golden/csr/rsa_2048_sha1.der"), CsrRefusal::UnsupportedKey),
        (include_bytes!("../../../tests/golden/csr/p521.der"), CsrRefusal::UnsupportedKey),
        (include_bytes!("../../../tests/golden/csr/email_name.der"), CsrRefusal::NameKind),
        (
            include_bytes!("../../../tests/golden/csr/challenge_password.der"),
            CsrRefusal::Attribute { oid: "1.2.840.113549.1.9.7".to_owned() },
        ),
        (
            include_bytes!("../../../tests/golden/csr/must_staple.der"),
            CsrRefusal::Extension { oid: "1.3.6.1.5.5.7.1.24".to_owned() },
        ),
        (&usage, CsrRefusal::Usage),
        (&trailing, CsrRefusal::Malformed),
        (b"-----BEGIN CERTIFICATE REQUEST-----", CsrRefusal::Malformed),
    ];
    for (der, want) in cases {
        assert_eq!(parse_csr(der).expect_err(&want.to_string()), want);
    }
}

#[test]
fn a_request_that_asks_for_extensions_twice_is_refused() {
    // PKCS#9 extensionRequest (RFC 2985 section 5.4.2) of one subject key identifier, which is taken.
    let asked = || Attribute {
        oid: &[1, 2, 840, 113_549, 1, 9, 14],
        values: [&[0x31, 0x11, 0x30, 0x0f, 0x30, 0x0d, 6, 3, 0x55, 0x1d, 0x0e, 4, 6, 4, 4][..], b"skid"].concat(),
    };
    for (times, taken) in [(0, true), (1, true), (2, false)] {
        let attributes = (0..times).map(|_| asked()).collect();
        let key = KeyPair::generate().expect("key");
        let request = plain().serialize_request_with_attributes(&key, attributes).expect("request");
        let refused = parse_csr(request.der()).err();
        assert_eq!(refused, (!taken).then_some(CsrRefusal::Malformed), "{times} times");
    }
}

#[test]
fn a_request_past_the_limit_is_not_looked_at() {
    let bytes = CSR_MAX_BYTES + 1;
    assert_eq!(parse_csr(&vec![0x30; bytes]).expect_err("too long"), CsrRefusal::TooLarge { bytes });
    assert_eq!(parse_csr(&vec![0x30; CSR_MAX_BYTES]).expect_err("not DER"), CsrRefusal::Malformed);
}

#[test]
fn a_leaf_never_outlives_its_issuer() {
    let (pki, stamp) = (pki(), stamp());
    let until = |not_after| {
        mint_leaf(&pki.tenant.key, LeafKey::Generate, &LeafSpec { not_after, ..spec(&stamp, &[]) }).map(|_| ())
    };
    let end = pki.tenant.key.not_after();
    assert_eq!(end, now().after(seconds(5 * 3600)));
    assert_eq!((CaKey::end_of(&pki.tenant.key.chain_der()[0]), CaKey::end_of(b"no certificate")), (Some(end), None));
    assert_eq!(until(end), Ok(()));
    let past = end.after(seconds(1));
    assert_eq!(until(past), Err(NotIssued::OutlivesIssuer { not_after: past, issuer: end }));
    let none = now().before(SKEW);
    assert_eq!(until(none), Err(NotIssued::Empty { not_after: none }));
}

#[test]
fn a_name_that_x509_cannot_hold_is_refused() {
    let (pki, stamp) = (pki(), stamp());
    let names = ["exportér.example".to_owned()];
    let refused = mint_leaf(&pki.tenant.key, LeafKey::Generate, &spec(&stamp, &names)).expect_err("not ASCII");
    assert_eq!(refused, NotIssued::Name { name: names[0].clone() });
}

#[test]
fn a_ca_key_takes_only_its_own_ca_certificate() {
    let (pki, stamp) = (pki(), stamp());
    let chain = pki.tenant.key.chain_der().to_vec();
    assert!(CaKey::from_parts(&pki.tenant.pkcs8, chain.clone()).is_ok());
    let refused = |pkcs8: &SecretBytes, chain| CaKey::from_parts(pkcs8, chain).expect_err("refused");
    assert_eq!(refused(&pki.root.pkcs8, chain.clone()), CaRefusal::KeyMismatch);
    assert_eq!(refused(&SecretBytes::new(vec![1]), chain), CaRefusal::Key);
    assert_eq!(refused(&pki.root.pkcs8, vec![]), CaRefusal::Empty);
    assert_eq!(refused(&pki.root.pkcs8, vec![vec![1]]), CaRefusal::Malformed { at: 0 });
    let leaf = mint_leaf(&pki.tenant.key, LeafKey::Generate, &spec(&stamp, &[])).expect("minted");
    let key = leaf.private_key_der.expect("made here");
    assert_eq!(refused(&key, leaf.chain_der), CaRefusal::NotACa { at: 0 });
}

#[test]
fn a_certificate_without_our_extension_has_no_stamp() {
    assert_eq!(read_extension(&pki().root.key.chain_der()[0]), None);
    assert_eq!((read_extension(b"no certificate"), serial(b"no certificate")), (None, None));
}

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::WebPkiClientVerifier,
};
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::*;
use crate::mint::x509::parse_csr;

fn now() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

fn hours(count: u64) -> Validity {
    Validity { not_before: now(), not_after: now().after(Duration::from_secs(count * 3600)) }
}

fn named<'a>(name: &'a str, trust_domain: Option<&'a str>) -> CaName<'a> {
    CaName { organization: "Mayfly", name, trust_domain }
}

fn root() -> NewCa {
    create_root(&named("root", None), hours(100)).expect("root")
}

fn issuing(root: &NewCa) -> NewCa {
    create_issuing(&root.key, &named("issuing", Some("mayfly.example")), hours(50)).expect("issuing")
}

fn roots(root: &[u8]) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(root.to_vec())).expect("root");
    roots.into()
}

fn split(chain: &[Vec<u8>]) -> (CertificateDer<'_>, Vec<CertificateDer<'_>>) {
    let mut chain = chain.iter().map(|der| CertificateDer::from(der.as_slice()));
    (chain.next().expect("leaf"), chain.collect())
}

fn clock() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now().seconds()))
}

#[test]
fn each_ca_has_the_documented_profile() {
    let root = root();
    let issuing = issuing(&root);
    let tenant = create_tenant(&issuing.key, &named("acme", Some("acme.example")), hours(10)).expect("tenant");
    for (ca, path_len, domain, chain) in [
        (&root, 2, None, 1),
        (&issuing, 1, Some("spiffe://mayfly.example"), 1),
        (&tenant, 0, Some("spiffe://acme.example"), 2),
    ] {
        assert_eq!(ca.key.path_len(), Some(path_len));
        assert_eq!(ca.key.chain_der().len(), chain, "without the root");
        let (_, certificate) = X509Certificate::from_der(&ca.key.chain_der()[0]).expect("DER");
        assert!(certificate.is_ca());
        assert!(certificate.basic_constraints().expect("one").expect("there").critical);
        let usage = certificate.key_usage().expect("one").expect("there");
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert_eq!(usage.value.flags.count_ones(), 2);
        assert!(certificate.extended_key_usage().expect("one").is_none());
        let names = certificate.subject_alternative_name().expect("one").map(|names| names.value.general_names.clone());
        assert_eq!(names, domain.map(|domain| vec![GeneralName::URI(domain)]));
        assert_eq!(certificate.raw_serial().len(), 16);
        let ids = |wanted: fn(&ParsedExtension<'_>) -> bool| {
            certificate.extensions().iter().filter(|extension| wanted(extension.parsed_extension())).count()
        };
        assert_eq!(ids(|e| matches!(e, ParsedExtension::SubjectKeyIdentifier(_))), 1);
        assert_eq!(ids(|e| matches!(e, ParsedExtension::AuthorityKeyIdentifier(_))), 1);
    }
}

#[test]
fn two_keys_never_have_one_subject() {
    let root = root();
    let subjects: BTreeSet<_> = (0..20)
        .map(|_| {
            let ca = issuing(&root);
            let (_, certificate) = X509Certificate::from_der(&ca.key.chain_der()[0]).expect("DER");
            certificate.subject().to_string()
        })
        .collect();
    assert_eq!(subjects.len(), 20);
    assert_eq!((0..20).map(|_| fresh_serial().expect("entropy")).collect::<BTreeSet<_>>().len(), 20);
    assert!(subjects.iter().all(|subject| subject.starts_with("O=Mayfly, CN=issuing ")), "{subjects:?}");
}

#[test]
fn a_long_name_is_cut_and_keeps_its_mark() {
    let long = "x".repeat(100);
    let ca = create_root(&named(&long, None), hours(1)).expect("root");
    let (_, certificate) = X509Certificate::from_der(&ca.key.chain_der()[0]).expect("DER");
    let name = certificate.subject().iter_common_name().next().expect("CN").as_str().expect("text").to_owned();
    assert_eq!(name.len(), 64);
    assert_eq!(name.split_once(' ').expect("mark").1.len(), 8);
}

#[test]
fn a_ca_never_outlives_its_issuer() {
    let root = root();
    let refused = create_issuing(&root.key, &named("issuing", None), hours(101)).expect_err("too long");
    assert!(matches!(refused, NotIssued::OutlivesIssuer { .. }));
    let refused = create_root(&named("root", None), hours(0)).expect_err("no life");
    assert!(matches!(refused, NotIssued::Empty { .. }));
}

#[test]
fn the_brokers_certificate_serves_its_names_and_addresses_and_nothing_else() {
    let root = root();
    let issuing = issuing(&root);
    let names = ["mayfly.example".to_owned()];
    let minted = mint_server(&issuing.key, &names, &["127.0.0.1".parse().expect("address")], hours(1)).expect("minted");
    assert!(minted.private_key_der.is_some());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trusted = roots(&root.key.chain_der()[0]);
    let server =
        WebPkiServerVerifier::builder_with_provider(trusted.clone(), provider.clone()).build().expect("verifier");
    let (leaf, issuers) = split(&minted.chain_der);
    let serves = |name: &str| {
        let name = ServerName::try_from(name.to_owned()).expect("name");
        server.verify_server_cert(&leaf, &issuers, &name, &[], clock()).is_ok()
    };
    assert!(serves("mayfly.example") && serves("127.0.0.1"));
    assert!(!serves("other.example") && !serves("127.0.0.2"));
    let client = WebPkiClientVerifier::builder_with_provider(trusted, provider).build().expect("verifier");
    assert!(client.verify_client_cert(&leaf, &issuers, clock()).is_err());
    assert!(matches!(mint_server(&issuing.key, &[], &[], hours(1)), Err(NotIssued::NoName)));
}

#[test]
fn an_operators_certificate_is_a_client_of_its_name() {
    let root = root();
    let issuing = issuing(&root);
    let operator: OperatorName = "alice".parse().expect("name");
    let minted = mint_operator(&issuing.key, LeafKey::Generate, "mayfly.example", &operator, hours(8)).expect("minted");
    let (leaf, issuers) = split(&minted.chain_der);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trusted = roots(&root.key.chain_der()[0]);
    let client = WebPkiClientVerifier::builder_with_provider(trusted, provider).build().expect("verifier");
    assert!(client.verify_client_cert(&leaf, &issuers, clock()).is_ok());
    let (_, parsed) = X509Certificate::from_der(&minted.chain_der[0]).expect("DER");
    let names = parsed.subject_alternative_name().expect("one").expect("there");
    assert_eq!(names.value.general_names, [GeneralName::URI("spiffe://mayfly.example/operator/alice")]);
    let usage = parsed.extended_key_usage().expect("one").expect("there");
    assert!(usage.value.client_auth && !usage.value.server_auth);
    let foreign = parse_csr(include_bytes!("../../../tests/golden/csr/p256_names.der")).expect("sound request");
    let refused = mint_operator(&issuing.key, LeafKey::Request(&foreign), "mayfly.example", &operator, hours(8));
    assert!(matches!(refused, Err(NotIssued::Csr(_))));
}

/// Signs an issuing request with `root` as an external root would.
fn signed_elsewhere(request: &[u8], root: &NewCa, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let der = rustls::pki_types::CertificateSigningRequestDer::from(request.to_vec());
    let mut request = rcgen::CertificateSigningRequestParams::from_der(&der).expect("request");
    let validity = hours(20);
    let sound = x509::params(validity.not_before, validity.not_after, &[0x41; 16]).expect("sound times");
    request.params.not_before = sound.not_before;
    request.params.not_after = sound.not_after;
    request.params.serial_number = sound.serial_number;
    change(&mut request.params);
    let key = rcgen::KeyPair::try_from(root.pkcs8.expose()).expect("key");
    let certificate = CertificateDer::from(root.key.chain_der()[0].as_slice());
    let issuer = rcgen::Issuer::from_ca_cert_der(&certificate, key).expect("issuer");
    request.signed_by(&issuer).expect("signed").der().to_vec()
}

#[test]
fn an_issuing_ca_signed_elsewhere_is_adopted_and_signs() {
    let (outside, name) = (root(), named("issuing", Some("mayfly.example")));
    let (pkcs8, request) = issuing_request(&name).expect("request");
    let own = signed_elsewhere(&request, &outside, |_| ());
    let chain = [own.clone(), outside.key.chain_der()[0].clone()];
    let ca = adopt_issuing(&pkcs8, &chain, now()).expect("adopted");
    assert_eq!(ca.chain_der(), [own]);
    let server = mint_server(&ca, &["mayfly.example".to_owned()], &[], hours(1)).expect("minted");
    assert_eq!(server.chain_der.len(), 2);
    assert!(create_tenant(&ca, &named("acme", Some("acme.example")), hours(1)).is_ok());
}

#[test]
fn a_root_may_sign_the_tenants_cas_itself() {
    let outside = root();
    let ca = adopt_issuing(&outside.pkcs8, outside.key.chain_der(), now()).expect("sound");
    let tenant = create_tenant(&ca, &named("acme", Some("acme.example")), hours(1)).expect("tenant");
    assert_eq!((ca.chain_der().len(), tenant.key.chain_der().len()), (1, 1), "who checks has the root");
}

#[test]
fn a_chain_that_does_not_hold_is_not_adopted() {
    let (outside, other, name) = (root(), root(), named("issuing", None));
    let (pkcs8, request) = issuing_request(&name).expect("request");
    let top = outside.key.chain_der()[0].clone();
    let refused = |own: Vec<u8>, top: Vec<u8>| adopt_issuing(&pkcs8, &[own, top], now()).expect_err("refused");
    let good = signed_elsewhere(&request, &outside, |_| ());
    assert_eq!(refused(good.clone(), other.key.chain_der()[0].clone()), CaRefusal::BrokenChain { at: 0 });
    assert_eq!(
        adopt_issuing(&pkcs8, std::slice::from_ref(&good), now()).expect_err("no root"),
        CaRefusal::BrokenChain { at: 0 }
    );
    assert_eq!(adopt_issuing(&pkcs8, &[], now()).expect_err("empty"), CaRefusal::Empty);
    assert_eq!(refused(good.clone(), vec![0]), CaRefusal::Malformed { at: 1 });
    let no_ca = signed_elsewhere(&request, &outside, |params| params.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(refused(no_ca, top.clone()), CaRefusal::NotACa { at: 0 });
    let no_signer = signed_elsewhere(&request, &outside, |params| params.key_usages = Vec::new());
    assert_eq!(refused(no_signer, top.clone()), CaRefusal::NotACa { at: 0 }, "its usages do not say that it signs");
    let narrow = signed_elsewhere(&request, &outside, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    assert_eq!(refused(narrow, top.clone()), CaRefusal::PathLength { path_len: 0 });
    let late = now().after(Duration::from_secs(21 * 3600));
    assert!(matches!(adopt_issuing(&pkcs8, &[good.clone(), top.clone()], late), Err(CaRefusal::Expired { .. })));
    let end = now().after(Duration::from_secs(20 * 3600));
    let adopted = |at| adopt_issuing(&pkcs8, &[good.clone(), top.clone()], at).map(drop);
    assert_eq!(adopted(end.before(Duration::from_secs(1))), Ok(()));
    assert_eq!(adopted(end), Err(CaRefusal::Expired { not_after: end }), "on its last second nothing can be signed");
    let mut forged = good.clone();
    *forged.last_mut().expect("bytes") ^= 1;
    assert_eq!(refused(forged, top.clone()), CaRefusal::BrokenChain { at: 0 }, "named right, signed wrong");
    // The root's own key and name in a certificate that is no CA's, and its key under another name.
    let signed_by_itself = |name: &CaName<'_>, is_ca: IsCa| {
        let validity = hours(20);
        let mut params = x509::params(validity.not_before, validity.not_after, &[0x42; 16]).expect("sound times");
        params.distinguished_name = distinguished_name(name, outside.key.key());
        (params.is_ca, params.key_usages) = (is_ca, CA_USAGES.to_vec());
        params.self_signed(outside.key.key()).expect("signed").der().to_vec()
    };
    let no_ca = signed_by_itself(&named("root", None), IsCa::ExplicitNoCa);
    assert_eq!(refused(good.clone(), no_ca), CaRefusal::NotACa { at: 1 });
    let renamed = signed_by_itself(&named("other", None), IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(refused(good.clone(), renamed), CaRefusal::BrokenChain { at: 0 });
    let (another, _) = issuing_request(&name).expect("request");
    assert_eq!(adopt_issuing(&another, &[good, top], now()).expect_err("other key"), CaRefusal::KeyMismatch);
}

#[test]
fn a_tenants_ca_as_a_root_has_its_name_key_and_end_and_another_name_is_refused() {
    let (root, name) = (root(), named("acme", Some("acme.example")));
    let issuing = issuing(&root);
    let ca = create_tenant(&issuing.key, &name, hours(1)).expect("made");
    let alone = as_root(&ca.key, &name).expect("made");
    let read = |der| X509Certificate::from_der(der).expect("DER").1;
    let (own, below) = (read(&alone), read(&ca.key.chain_der()[0]));
    assert_eq!(own.subject().as_raw(), below.subject().as_raw());
    assert_eq!(own.public_key().raw, below.public_key().raw);
    assert_eq!((own.validity().not_after, own.subject().as_raw()), (below.validity().not_after, own.issuer().as_raw()));
    assert!(own.verify_signature(None).is_ok() && own.is_ca() && own.raw_serial() != below.raw_serial());
    let names = own.subject_alternative_name().expect("one").expect("there").value.general_names.clone();
    assert_eq!(names, [GeneralName::URI("spiffe://acme.example")]);
    assert!(as_root(&ca.key, &named("globex", None)).is_err());
}

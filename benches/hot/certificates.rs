//! Certificates: minted by the broker, checked by a resource server.

use std::{hint::black_box, time::Duration};

use criterion::Criterion;
use mayfly::{
    client::Key,
    mint::{
        ca::{self, CaName, Validity},
        x509::{self, LeafKey, LeafSpec},
    },
};
use rustls::pki_types::CertificateDer;

use crate::sample::{self, lease, now, stamp};

pub fn certificates(criterion: &mut Criterion) {
    let hour = Duration::from_secs(3600);
    let validity = |hours| Validity { not_before: now().before(hour), not_after: now().after(hour * hours) };
    let name = |name, trust_domain| CaName { organization: "Mayfly", name, trust_domain };
    let root = ca::create_root(&name("root", None), validity(3)).expect("root");
    let issuing =
        ca::create_issuing(&root.key, &name("issuing", Some("mayfly.example")), validity(2)).expect("issuing");
    let tenant = ca::create_tenant(&issuing.key, &name("acme", Some("acme.example")), validity(1)).expect("tenant");
    let csr_der = Key::fresh().and_then(|key| key.request()).expect("entropy");
    let stamp = stamp(9);
    let spec = LeafSpec {
        spiffe_id: "spiffe://acme.example/w/exporter",
        dns_names: &[],
        lease: lease(),
        issued: now(),
        not_after: now().after(Duration::from_secs(300)),
        stamp: &stamp,
    };
    criterion.bench_function("read a certificate request", |b| b.iter(|| x509::parse_csr(black_box(&csr_der))));
    let csr = x509::parse_csr(&csr_der).expect("sound");
    criterion.bench_function("mint a certificate of a request", |b| {
        b.iter(|| x509::mint_leaf(&tenant.key, LeafKey::Request(&csr), black_box(&spec)));
    });
    let minted = x509::mint_leaf(&tenant.key, LeafKey::Request(&csr), &spec).expect("minted");
    let chain: Vec<CertificateDer<'_>> = minted.chain_der.into_iter().map(CertificateDer::from).collect();
    let verifier = sample::verifier(None, root.key.chain_der().to_vec(), 10_000);
    verifier.check_certificate(&chain, now()).expect("good");
    criterion.bench_function("verify a certificate offline", |b| {
        b.iter(|| verifier.check_certificate(black_box(&chain), now()));
    });
}

//! Tokens: minted by the broker, checked by a resource server.

use std::{hint::black_box, time::Duration};

use criterion::Criterion;
use mayfly::{
    mint::{
        jwt, opaque,
        signing::{Algorithm, SigningKey},
    },
    model::Digest,
};

use crate::sample::{self, AUDIENCE, ISSUER, lease, now, stamp};

pub fn tokens(criterion: &mut Criterion) {
    let names = ("acme".parse().expect("name"), "globex".parse().expect("name"), "nightly".parse().expect("name"));
    let (workload, purpose) = ("exporter".parse().expect("name"), "export".parse().expect("name"));
    let (audiences, actions, stamp) = ([AUDIENCE.to_owned()], ["read".to_owned()], stamp(9));
    let certificate = Digest::of(b"a certificate");
    let claims = jwt::TokenClaims {
        issuer: ISSUER,
        subject: "spiffe://acme.example/w/exporter",
        actors: &[],
        resellers: &[],
        audiences: &audiences,
        tenant: &names.0,
        partner: &names.1,
        grant: &names.2,
        workload: &workload,
        purpose: &purpose,
        actions: &actions,
        lease: lease(),
        issued: now(),
        expires: now().after(Duration::from_secs(300)),
        stamp: &stamp,
        bound: None,
    };
    for (name, algorithm) in [("ES256", Algorithm::Es256), ("EdDSA", Algorithm::EdDsa)] {
        let (key, _) = SigningKey::generate(algorithm).expect("entropy");
        criterion.bench_function(&format!("mint a token, {name}"), |b| b.iter(|| jwt::mint(&key, black_box(&claims))));
        let verifier = sample::verifier(Some(&key), Vec::new(), 10_000);
        for (form, bound) in [("a token", None), ("a bound token", Some(certificate))] {
            let claims = jwt::TokenClaims { bound, ..claims };
            let token = jwt::mint(&key, &claims).expect("minted").text;
            verifier.check_token(token.expose(), AUDIENCE, bound, now()).expect("good");
            criterion.bench_function(&format!("verify {form} offline, {name}"), |b| {
                b.iter(|| verifier.check_token(black_box(token.expose()), AUDIENCE, bound, now()));
            });
        }
        let token = jwt::mint(&key, &claims).expect("minted").text;
        criterion.bench_function(&format!("refuse a token for another audience, {name}"), |b| {
            b.iter(|| verifier.check_token(black_box(token.expose()), "https://other.example", None, now()));
        });
        if algorithm == Algorithm::Es256 {
            criterion.bench_function("peek into a token", |b| b.iter(|| jwt::peek(black_box(token.expose()))));
        }
    }
    criterion.bench_function("mint a reference token", |b| b.iter(|| opaque::mint(black_box(claims.lease))));
    let reference = opaque::mint(claims.lease).expect("entropy").text;
    criterion.bench_function("parse a reference token", |b| b.iter(|| opaque::parse(black_box(reference.expose()))));
}

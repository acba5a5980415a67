//! Rows as bytes: framed, authenticated, and read again; and a page of the audit.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use mayfly::{
    audit::{chain, page},
    ledger::Codec,
    model::{Digest, Scope},
    pb,
};

use crate::sample::{lease, lease_of, row_key, strangers, task};

pub fn rows(criterion: &mut Criterion) {
    let codec = Codec::new(row_key());
    let task = task((1, 20_000));
    let proofs = |count: u32| (0..count).map(|number| strangers(number).id()).collect();
    for (name, lease) in
        [("a lease", lease_of(&task, proofs(1))), ("a lease with 32 proofs", lease_of(&task, proofs(32)))]
    {
        criterion.bench_function(&format!("encode {name}"), |b| b.iter(|| codec.encode_lease(black_box(&lease))));
        let row = codec.encode_lease(&lease);
        codec.decode_lease(lease.id, &row).expect("own form");
        criterion
            .bench_function(&format!("decode {name}"), |b| b.iter(|| codec.decode_lease(lease.id, black_box(&row))));
        criterion.bench_function(&format!("the scopes of {name}"), |b| b.iter(|| black_box(&lease).scopes()));
    }
    criterion.bench_function("encode a task", |b| b.iter(|| codec.encode_task(black_box(&task))));
    let row = codec.encode_task(&task);
    codec.decode_task(task.id, &row).expect("own form");
    criterion.bench_function("decode a task", |b| b.iter(|| codec.decode_task(task.id, black_box(&row))));
    criterion.bench_function("the id of a scope", |b| b.iter(|| black_box(Scope::Task(task.id)).id()));
}

pub fn pages(criterion: &mut Criterion) {
    let events: Vec<_> = (1..=64)
        .map(|sequence| pb::Event {
            stream: "acme/globex".into(),
            sequence,
            kind: "lease.issued".into(),
            actor: "spiffe://acme.example/w/exporter".into(),
            lease_id: lease().to_string(),
            ..pb::Event::default()
        })
        .collect();
    criterion.bench_function("append 64 events to an audit page", |b| {
        b.iter_batched(|| chain::GENESIS, |before: Digest| page::append(&events, before), BatchSize::SmallInput);
    });
}

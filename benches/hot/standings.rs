//! Does it live? What a resource server asks its feed, and a check asks the ledger.

use std::{hint::black_box, sync::Arc};

use criterion::Criterion;
use mayfly::{
    ledger::{CutDraft, IssueDraft, Ledger, engine::memory::Memory},
    model::{EndReason, Lease, ScopeId, Standing, Velocity},
    pb,
    verifier::Revocations,
};
use tokio::task::JoinSet;

use crate::sample::{QUOTA, feed, lease_of, ledger, now, strangers, task};

pub fn of_a_feed(criterion: &mut Criterion) {
    let mut known = Revocations::default();
    known.apply(&feed(10_000), now()).expect("a sound message");
    for count in [10, 64] {
        let asked: Vec<ScopeId> = (10_000..10_000 + count).map(|number| strangers(number).id()).collect();
        criterion.bench_function(&format!("standing of {count} scopes among 10,000 cuts"), |b| {
            b.iter(|| known.standing(black_box(&asked), (1, 10)));
        });
    }
}

/// A lease whose every scope is looked up among cuts, and whose task is read with it.
pub fn of_a_ledger(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let ledger = Arc::new(ledger(Arc::new(Memory::new())));
    runtime.block_on(cut(&ledger, 10_000));
    for count in [1, 32] {
        let lease = runtime.block_on(begin(&ledger, count));
        assert_eq!(ledger.lease_standing(&lease, now()).expect("reads"), Standing::Live);
        criterion.bench_function(&format!("standing of a lease with {count} proofs among 10,000 cuts"), |b| {
            b.iter(|| ledger.lease_standing(black_box(&lease), now()));
        });
    }
}

/// Cuts so many scopes, many at a time.
async fn cut(ledger: &Arc<Ledger>, count: u32) {
    let mut running = JoinSet::new();
    for number in 0..count {
        let ledger = Arc::clone(ledger);
        let draft = CutDraft {
            scope: strangers(number),
            why: EndReason::Revoked,
            bar: false,
            operator: "admin".to_owned(),
            reason: "a benchmark".to_owned(),
            covers_until: now().after(std::time::Duration::from_secs(86_400)),
            event: pb::Event { kind: "scope.revoked".to_owned(), ..pb::Event::default() },
            now: now(),
            resets_time: false,
        };
        running.spawn(async move { ledger.cut(draft).await.expect("room in the lane") });
        if running.len() == 128 {
            running.join_next().await;
        }
    }
    running.join_all().await;
}

/// A lease with so many proofs.
async fn begin(ledger: &Ledger, proofs: u32) -> Lease {
    let task = task(ledger.basis());
    let lease = lease_of(&task, (10_000..10_000 + proofs).map(|number| strangers(number).id()).collect());
    ledger.issue(draft(lease.clone(), task)).await.expect("begun");
    lease
}

/// A lease that opens its task.
pub fn draft(lease: Lease, task: mayfly::model::Task) -> IssueDraft {
    IssueDraft {
        event: pb::Event {
            kind: "lease.issued".to_owned(),
            tenant: "acme".to_owned(),
            partner: "globex".to_owned(),
            lease_id: lease.id.to_string(),
            ..pb::Event::default()
        },
        lease,
        through: Vec::new(),
        new_task: Some(task),
        retry: None,
        supersedes: None,
        approval: None,
        velocity: Velocity::default(),
        spend: None,
        hand_out: None,
        quota: QUOTA,
        now: now(),
    }
}

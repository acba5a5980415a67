//! Made durable: one lease by itself, and many that go into one commit.

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput};
use mayfly::ledger::{
    IssueDraft, Ledger,
    engine::{Engine, fjall::Fjall, memory::Memory},
};
use tokio::task::JoinSet;

use crate::{
    sample::{lease_of, ledger, task},
    standings::draft,
};

/// With their tasks, counts and events: all that an issue writes. On a disk most of it is the flush.
pub fn commits(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let fjall = Fjall::open(folder.path()).expect("an empty store");
    let engines: [(&str, Arc<dyn Engine>); 2] = [("memory", Arc::new(Memory::new())), ("fjall", Arc::new(fjall))];
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let mut group = criterion.benchmark_group("commit");
    for (name, engine) in engines {
        let ledger = Arc::new(ledger(engine));
        for count in [1, 64] {
            group.throughput(Throughput::Elements(count));
            group.bench_function(format!("leases that begin together, {name}, {count}"), |b| {
                b.iter_batched(
                    || (0..count).map(|_| fresh(&ledger)).collect::<Vec<_>>(),
                    |drafts| runtime.block_on(begin(&ledger, drafts)),
                    BatchSize::LargeInput,
                );
            });
        }
        ledger.close();
    }
    group.finish();
}

fn fresh(ledger: &Ledger) -> IssueDraft {
    let task = task(ledger.basis());
    draft(lease_of(&task, Vec::new()), task)
}

async fn begin(ledger: &Arc<Ledger>, drafts: Vec<IssueDraft>) {
    let mut running = JoinSet::new();
    for draft in drafts {
        let ledger = Arc::clone(ledger);
        running.spawn(async move { ledger.issue(draft).await.expect("room in the lane") });
    }
    running.join_all().await;
}

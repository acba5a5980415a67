//! Walks, sweeps and what they cost.

use super::{
    harness::{Bed, Kind, partner, tenant, wait},
    on_each_engine,
    tells::open,
};
use crate::{
    ledger::{
        Hold, IssueDraft, Retry, TrimReport, WalkReport,
        engine::{Op, Table},
        keys, stream_id,
    },
    model::{Digest, EndReason, Lease, Scope, Task, TaskId, TenantNumber},
};

on_each_engine! {
    a_cut_is_one_write_whatever_it_covers,
    a_walk_marks_what_the_cut_covers_and_goes_on_after_reopening,
    a_sweep_removes_what_is_over_and_nothing_while_the_clock_is_in_doubt,
    a_sweep_keeps_the_time_mark_though_nothing_is_due,
    a_cut_is_forgotten_only_when_it_can_concern_nothing_and_its_walk_is_done,
    an_older_cut_that_is_walked_or_forgotten_takes_no_newer_one_along,
    a_walk_within_a_tenant_looks_at_no_other_tenants_leases,
    an_idempotency_key_is_kept_as_long_as_what_it_began_last,
    a_stream_whose_pages_are_gone_has_nothing_to_trim,
    churn_leaves_nothing_behind,
}

/// Many live leases, several to a commit.
fn leases(bed: &Bed, task: &Task, count: usize) -> Vec<Lease> {
    let leases: Vec<_> = (0..count).map(|_| bed.new_lease(task)).collect();
    wait(async {
        for part in leases.chunks(256) {
            let mut asked: Vec<_> = part.iter().map(|lease| Box::pin(bed.ledger().issue(bed.draft(lease)))).collect();
            std::future::poll_fn(|context| {
                asked.retain_mut(|ask| match ask.as_mut().poll(context) {
                    std::task::Poll::Ready(answer) => {
                        answer.unwrap();
                        false
                    }
                    std::task::Poll::Pending => true,
                });
                if asked.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
        }
    });
    leases
}

fn a_cut_is_one_write_whatever_it_covers(bed: &mut Bed) {
    let task = bed.task();
    let first = bed.lease(&task);
    let one = bed.ops(|| assert!(bed.cut(partner(), false).unwrap().changed));
    assert!(!bed.is_live(first.id));
    let task = bed.task();
    let many = leases(bed, &task, 10_000);
    let all = bed.ops(|| assert!(bed.cut(partner(), false).unwrap().changed));
    assert_eq!(one, all);
    assert!(many.iter().step_by(997).all(|lease| !bed.is_live(lease.id)));
}

fn a_walk_marks_what_the_cut_covers_and_goes_on_after_reopening(bed: &mut Bed) {
    let task = bed.task();
    let covered = leases(bed, &task, 1_200);
    let released = bed.lease(&task);
    bed.release(released.id).unwrap();
    let grant = Scope::Grant("acme".parse().unwrap(), "read".parse().unwrap());
    let other = Lease { grant: "write".parse().unwrap(), ..bed.new_lease(&task) };
    bed.issue(&other).unwrap();
    let cut = bed.cut(grant.clone(), false).unwrap().cut;
    let later = bed.lease(&task);
    let step = wait(bed.ledger().walk(grant.id(), cut, None)).unwrap();
    assert!(!step.done);
    bed.reopen();
    assert_eq!(bed.walk(&grant, cut), 1_200);
    assert_eq!(bed.walk(&grant, cut), 1_200);
    let ended = |bed: &Bed, lease: &Lease| bed.ledger().lease(lease.id).unwrap().unwrap().ended.map(|(why, _)| why);
    assert!(covered.iter().all(|lease| ended(bed, lease) == Some(EndReason::Revoked)));
    assert_eq!(ended(bed, &released), Some(EndReason::Released));
    assert_eq!([ended(bed, &other), ended(bed, &later)], [None, None]);
    assert_eq!((bed.live(&grant), bed.live(&tenant())), (1, 2));
}

fn a_sweep_removes_what_is_over_and_nothing_while_the_clock_is_in_doubt(bed: &mut Bed) {
    let task = bed.task();
    let early = bed.lease(&task);
    bed.advance(300);
    let late = bed.lease(&task);
    bed.advance(400);
    bed.ledger().holds().set(Hold::Clock);
    assert_eq!(bed.sweep(), 0);
    bed.ledger().holds().clear(Hold::Clock);
    assert_eq!(bed.sweep(), 1);
    assert_eq!(bed.ledger().lease(early.id).unwrap(), None);
    assert!(bed.is_live(late.id));
    bed.advance(4_000);
    assert_eq!(bed.sweep(), 2);
    for table in [Table::Leases, Table::Tasks, Table::Expiry, Table::Counts, Table::Feed] {
        assert!(bed.rows(table).is_empty(), "{table:?}");
    }
}

fn a_sweep_keeps_the_time_mark_though_nothing_is_due(bed: &mut Bed) {
    bed.lease(&bed.task());
    for is_doubted in [false, true] {
        if is_doubted {
            bed.ledger().holds().set(Hold::Clock);
        }
        bed.advance(60);
        assert_eq!(bed.sweep(), 0);
        bed.reopen();
        assert_eq!(bed.ledger().opened_mark, bed.now);
    }
}

fn a_cut_is_forgotten_only_when_it_can_concern_nothing_and_its_walk_is_done(bed: &mut Bed) {
    bed.lease(&bed.task());
    let walked = bed.cut(tenant(), false).unwrap().cut;
    bed.cut(partner(), false).unwrap();
    bed.walk(&tenant(), walked);
    bed.sweep();
    assert_eq!(bed.ledger().cuts_and_bars(), (2, 0));
    bed.advance(3_631);
    bed.sweep();
    for _ in 0..2 {
        assert_eq!(bed.ledger().cuts_and_bars(), (1, 0));
        assert_eq!(bed.ledger().scope(tenant().id()).cut, 0);
        assert!(bed.ledger().doubt.is_none());
        bed.reopen();
    }
    assert!(bed.ledger().feed_after(0, 9).unwrap().is_empty());
}

fn an_older_cut_that_is_walked_or_forgotten_takes_no_newer_one_along(bed: &mut Bed) {
    let older = bed.cut(tenant(), false).unwrap().cut;
    bed.advance(3_000);
    let newer = bed.cut(tenant(), false).unwrap().cut;
    bed.walk(&tenant(), older);
    assert_eq!(bed.ledger().pending_cuts(), 1, "the newer one's walk is still to come");
    bed.advance(1_000);
    bed.sweep();
    for _ in 0..2 {
        assert_eq!((bed.ledger().scope(tenant().id()).cut, bed.ledger().pending_cuts()), (newer, 1));
        assert_eq!(bed.rows(Table::Cuts).len(), 1);
        bed.reopen();
    }
}

fn a_walk_within_a_tenant_looks_at_no_other_tenants_leases(bed: &mut Bed) {
    let number = TenantNumber::new(2).unwrap();
    let globex = Task { id: TaskId::fresh(number).unwrap(), tenant: "globex".parse().unwrap(), ..bed.new_task() };
    let (own, other) = (bed.open_task(globex), bed.task());
    leases(bed, &other, 3);
    leases(bed, &own, 2);
    let cut = bed.cut(Scope::Tenant(own.tenant.clone()), false).unwrap().cut;
    let scope = Scope::Tenant(own.tenant).id();
    let walked = wait(bed.ledger().walk(scope, cut, Some(number)));
    assert_eq!(walked, Ok(WalkReport { walked: 2, ended: 2, done: true }));
    assert_eq!(bed.live(&tenant()), 3);
}

fn an_idempotency_key_is_kept_as_long_as_what_it_began_last(bed: &mut Bed) {
    let task = bed.task();
    open(bed, b"asked").unwrap();
    let retry = Some(Retry { key: [9; 16], request: Digest::of(b"one") });
    let issue = |bed: &Bed| {
        let lease = bed.new_lease(&task);
        wait(bed.ledger().issue(IssueDraft { retry, ..bed.draft(&lease) })).unwrap();
        lease.id
    };
    issue(bed);
    bed.advance(300);
    let second = issue(bed);
    bed.advance(400);
    assert!(bed.sweep() > 0, "the first is over");
    assert_eq!(bed.rows(Table::Retries).len(), 2);
    bed.reopen();
    let third = issue(bed);
    assert_eq!([second, third].map(|id| bed.is_live(id)), [false, true], "it still knows the second");
    bed.advance(4_000);
    bed.sweep();
    assert!(bed.rows(Table::Retries).is_empty());
}

fn a_stream_whose_pages_are_gone_has_nothing_to_trim(bed: &mut Bed) {
    bed.task();
    let later = bed.now.after(std::time::Duration::from_hours(1));
    let rows = bed.rows(Table::Audit);
    bed.edit(rows.into_iter().map(|(key, _)| Op::Delete(Table::Audit, key)));
    bed.reopen();
    let trimmed = wait(bed.ledger().trim_stream(stream_id("acme", "north"), later));
    assert_eq!(trimmed, Ok(TrimReport::default()));
}

fn churn_leaves_nothing_behind(bed: &mut Bed) {
    const MOST: u64 = 128 << 20;
    for _ in 0..20 {
        let task = bed.task();
        bed.child(&task);
        leases(bed, &task, 200);
        bed.complete(task.id).unwrap();
        bed.advance(3_700);
        bed.sweep();
        let usage = bed.ledger().usage();
        assert!(usage.disk_bytes < MOST, "{usage:?}");
    }
    let streams = bed.rows(Table::Streams).len();
    assert_eq!(streams, 1);
    for table in [Table::Leases, Table::Tasks, Table::Children, Table::Expiry, Table::Counts, Table::Retries] {
        assert!(bed.rows(table).is_empty(), "{table:?}");
    }
    assert!(bed.rows(Table::Log).iter().all(|(key, _)| keys::leading_revision(key).is_some()));
}

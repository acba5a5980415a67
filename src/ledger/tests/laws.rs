//! What ends, what lives, and what a commit holds.

use super::{
    harness::{Bed, Kind, QUOTA, partner, tenant, wait},
    on_each_engine,
    tells::trust_commit,
};
use crate::{
    ledger::{Custody, CustodyDraft, IssueDraft, OpenDraft, Quota, Refused, Retry, TrustCommit},
    model::{Digest, EndReason, Lease, Scope, Standing, Suspension, Task, Timestamp},
};

on_each_engine! {
    a_lease_that_was_issued_has_its_row_and_its_event,
    a_revocation_is_in_force_for_the_next_check_and_after_reopening,
    once_a_revoke_has_returned_a_caller_in_a_loop_has_nothing_live,
    an_issue_decided_before_a_cut_is_refused_after_it,
    a_revoke_behind_a_bar_younger_than_the_cut_ends_what_began_between,
    expiry_beats_stored_state,
    a_completed_task_ends_its_leases_and_children_for_good,
    a_renewal_ends_the_old_lease_in_the_same_commit,
    what_a_cut_or_a_task_above_ended_keeps_that_reason_whatever_its_holder_says_later,
    what_a_cut_ended_has_no_successor,
    a_retry_never_leaves_two_live_and_another_request_is_refused,
    quotas_are_exact_under_concurrency,
    quotas_are_freed_by_release_completion_and_expiry,
    counts_equal_a_recount_after_reopening,
    what_was_obtained_through_a_lease_ends_with_it,
    what_was_obtained_through_a_proof_ends_with_it,
    a_suspension_suspends_until_it_is_lifted,
    suspensions_for_several_reasons_are_lifted_one_by_one_and_outlast_reopening,
    a_bar_refuses_beginnings_and_apply_does_not_lift_it,
    a_chain_of_leases_longer_than_is_followed_counts_as_ended,
    what_is_barred_or_cut_above_a_task_that_was_passed_on_refuses_beginnings,
    a_change_that_says_nothing_and_writes_no_row_is_in_force_all_the_same,
}

fn a_lease_that_was_issued_has_its_row_and_its_event(bed: &mut Bed) {
    let lease = bed.lease(&bed.task());
    bed.reopen();
    assert_eq!(bed.ledger().lease(lease.id).unwrap(), Some(lease.clone()));
    assert!(bed.audited().contains(&lease.id.to_string()));
}

fn a_revocation_is_in_force_for_the_next_check_and_after_reopening(bed: &mut Bed) {
    for scope in [tenant(), partner(), Scope::Workload("acme".parse().unwrap(), "runner".parse().unwrap())] {
        let lease = bed.lease(&bed.task());
        assert!(bed.is_live(lease.id));
        bed.cut(scope, false).unwrap();
        assert_eq!(bed.standing(lease.id), Standing::Ended(EndReason::Revoked));
        bed.reopen();
        assert_eq!(bed.standing(lease.id), Standing::Ended(EndReason::Revoked));
    }
}

fn once_a_revoke_has_returned_a_caller_in_a_loop_has_nothing_live(bed: &mut Bed) {
    let task = bed.task();
    let issued = std::sync::Mutex::new(Vec::new());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let bed = &*bed;
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let lease = bed.new_lease(&task);
                if bed.issue(&lease).is_ok() {
                    issued.lock().unwrap().push(lease.id);
                }
            }
        });
        while issued.lock().unwrap().len() < 10 {
            std::thread::yield_now();
        }
        bed.cut(partner(), true).unwrap();
        for _ in 0..20 {
            assert!(!issued.lock().unwrap().iter().any(|&id| bed.is_live(id)));
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert!(matches!(bed.issue(&bed.new_lease(&task)), Err(Refused::Barred(_))));
    assert!(!issued.lock().unwrap().iter().any(|&id| bed.is_live(id)));
}

fn an_issue_decided_before_a_cut_is_refused_after_it(bed: &mut Bed) {
    let task = bed.new_task();
    let early = Lease { expires: task.deadline, ..bed.new_lease(&task) };
    bed.cut(tenant(), false).unwrap();
    let draft = IssueDraft { new_task: Some(task), ..bed.draft(&early) };
    assert_eq!(wait(bed.ledger().issue(draft)).unwrap_err(), Refused::Moved);

    // In one batch the end goes first, whatever came first.
    let task = bed.task();
    let lease = bed.new_lease(&task);
    let both = wait(async {
        tokio::join!(bed.ledger().issue(bed.draft(&lease)), bed.ledger().cut(bed.cut_draft(tenant(), false)))
    });
    both.1.unwrap();
    assert!(!bed.is_live(lease.id));
}

fn a_revoke_behind_a_bar_younger_than_the_cut_ends_what_began_between(bed: &mut Bed) {
    bed.cut(tenant(), false).unwrap();
    let lease = bed.lease(&bed.task());
    bed.bar(tenant(), false).unwrap();
    assert!(bed.is_live(lease.id));
    assert!(bed.cut(tenant(), true).unwrap().changed);
    assert!(!bed.is_live(lease.id));
    assert!(!bed.cut(tenant(), true).unwrap().changed);
}

fn expiry_beats_stored_state(bed: &mut Bed) {
    let task = bed.task();
    let lease = bed.lease(&task);
    bed.now = Timestamp::from_millis(lease.expires.millis() - 1);
    assert!(bed.is_live(lease.id));
    bed.now = lease.expires;
    assert_eq!(bed.standing(lease.id), Standing::Ended(EndReason::Expired));
    assert_eq!(bed.release(lease.id), Ok(false));
    bed.now = task.deadline;
    assert_eq!(bed.issue(&bed.new_lease(&task)), Err(Refused::TaskEnded(EndReason::Expired)));
}

fn a_completed_task_ends_its_leases_and_children_for_good(bed: &mut Bed) {
    let mut tasks = vec![bed.task()];
    for level in 0..4 {
        tasks.push(bed.child(&tasks[level]));
    }
    let leases: Vec<_> = tasks.iter().map(|task| bed.lease(task)).collect();
    assert!(leases.iter().all(|lease| bed.is_live(lease.id)));
    assert_eq!(bed.release(leases[4].id), Ok(true));
    assert_eq!(bed.release(leases[4].id), Ok(false));
    assert_eq!(bed.complete(tasks[0].id), Ok(true));
    assert_eq!(bed.complete(tasks[0].id), Ok(false));
    for _ in 0..2 {
        assert!(!leases.iter().any(|lease| bed.is_live(lease.id)));
        for task in &tasks {
            let refused = bed.issue(&bed.new_lease(task));
            assert_eq!(refused, Err(Refused::TaskEnded(EndReason::Completed)));
        }
        bed.reopen();
    }
}

fn what_a_cut_or_a_task_above_ended_keeps_that_reason_whatever_its_holder_says_later(bed: &mut Bed) {
    let (above, task) = (bed.task(), bed.task());
    let (child, below) = (bed.child(&above), bed.child(&task));
    let leases = [&child, &task, &below].map(|task| bed.lease(task));
    bed.complete(above.id).unwrap();
    let events = bed.audited().len();
    let is_late = |bed: &Bed, lease: &Lease| {
        assert_eq!((bed.release(lease.id), bed.complete(lease.id.task())), (Ok(false), Ok(false)));
    };
    is_late(bed, &leases[0]);
    bed.cut(Scope::Workload("acme".parse().unwrap(), "runner".parse().unwrap()), false).unwrap();
    leases[1..].iter().for_each(|lease| is_late(bed, lease));
    assert_eq!(bed.audited().len(), events + 1, "the cut's event, and none that says otherwise");
    let after = [EndReason::Completed, EndReason::Revoked, EndReason::Revoked];
    for _ in 0..2 {
        for (lease, why) in leases.iter().zip(after) {
            assert_eq!(bed.standing(lease.id), Standing::Ended(why));
            assert_eq!(bed.ledger().lease(lease.id).unwrap().unwrap().ended.map(|(why, _)| why), Some(why));
            let row = bed.ledger().task(lease.id.task()).unwrap().unwrap();
            assert_eq!(row.ended.map(|(why, _)| why), Some(why));
        }
        assert_eq!(bed.live(&tenant()), 0);
        bed.reopen();
    }
}

fn a_renewal_ends_the_old_lease_in_the_same_commit(bed: &mut Bed) {
    let task = bed.task();
    let (old, new) = (bed.lease(&task), bed.new_lease(&task));
    let draft = |lease: &Lease| IssueDraft { supersedes: Some(old.id), ..bed.draft(lease) };
    let before = bed.ledger().basis().1;
    let receipt = wait(bed.ledger().issue(draft(&new))).unwrap();
    assert_eq!(receipt.number(), before + 1);
    assert_eq!(bed.standing(old.id), Standing::Ended(EndReason::Superseded));
    assert!(bed.is_live(new.id));
    assert_eq!(bed.live(&tenant()), 1);
    let again = wait(bed.ledger().issue(draft(&bed.new_lease(&task))));
    assert_eq!(again, Err(Refused::LeaseEnded(EndReason::Superseded)));
}

fn what_a_cut_ended_has_no_successor(bed: &mut Bed) {
    let task = bed.task();
    let old = bed.lease(&task);
    bed.cut(Scope::Grant("acme".parse().unwrap(), "read".parse().unwrap()), false).unwrap();
    let draft = IssueDraft { supersedes: Some(old.id), ..bed.draft(&bed.new_lease(&task)) };
    assert_eq!(wait(bed.ledger().issue(draft)), Err(Refused::LeaseEnded(EndReason::Revoked)));
}

fn a_retry_never_leaves_two_live_and_another_request_is_refused(bed: &mut Bed) {
    let task = bed.task();
    let retry = |request: &[u8]| Some(Retry { key: [9; 16], request: Digest::of(request) });
    let leases: Vec<_> = (0..5).map(|_| bed.new_lease(&task)).collect();
    for lease in &leases {
        wait(bed.ledger().issue(IssueDraft { retry: retry(b"one"), ..bed.draft(lease) })).unwrap();
        assert!(bed.is_live(lease.id));
        assert_eq!(leases.iter().filter(|lease| bed.is_live(lease.id)).count(), 1);
        assert_eq!(bed.live(&tenant()), 1);
        bed.reopen();
    }
    let other = IssueDraft { retry: retry(b"two"), ..bed.draft(&bed.new_lease(&task)) };
    assert_eq!(wait(bed.ledger().issue(other)), Err(Refused::RetryMismatch));
    assert!(bed.is_live(leases[4].id));
}

fn quotas_are_exact_under_concurrency(bed: &mut Bed) {
    let task = bed.task();
    let limits = [
        Quota { task: 10, ..QUOTA },
        Quota { grant: 20, ..QUOTA },
        Quota { partner: 30, ..QUOTA },
        Quota { partner_everywhere: 40, ..QUOTA },
        Quota { tenant: 50, ..QUOTA },
    ];
    for quota in limits {
        let granted = std::thread::scope(|threads| {
            let (bed, task) = (&*bed, &task);
            let ask = move || wait(bed.ledger().issue(IssueDraft { quota, ..bed.draft(&bed.new_lease(task)) })).is_ok();
            let asked: Vec<_> = (0..64).map(|_| threads.spawn(ask)).collect();
            asked.into_iter().map(|thread| thread.join().unwrap()).filter(|&ok| ok).count()
        });
        assert_eq!(granted, 10);
    }
}

fn quotas_are_freed_by_release_completion_and_expiry(bed: &mut Bed) {
    let quota = Quota { tenant: 2, ..QUOTA };
    let ask = |bed: &Bed, lease: &Lease| wait(bed.ledger().issue(IssueDraft { quota, ..bed.draft(lease) }));
    let task = bed.task();
    let leases = [bed.new_lease(&task), bed.new_lease(&task)];
    for lease in &leases {
        ask(bed, lease).unwrap();
    }
    assert_eq!(ask(bed, &bed.new_lease(&task)), Err(Refused::Quota("tenant")));
    bed.release(leases[0].id).unwrap();
    ask(bed, &bed.new_lease(&task)).unwrap();
    assert_eq!(ask(bed, &bed.new_lease(&task)), Err(Refused::Quota("tenant")));
    bed.complete(task.id).unwrap();
    assert_eq!(bed.live(&tenant()), 0);
    let task = bed.task();
    for _ in 0..2 {
        ask(bed, &bed.new_lease(&task)).unwrap();
    }
    assert_eq!(ask(bed, &bed.new_lease(&task)), Err(Refused::Quota("tenant")));
    // A lease counts until its minute is over.
    bed.advance(600 + 60);
    ask(bed, &bed.new_lease(&task)).unwrap();
}

fn counts_equal_a_recount_after_reopening(bed: &mut Bed) {
    let tasks = [bed.task(), bed.task(), bed.task()];
    for n in 0..40_u64 {
        let lease = bed.new_lease(&tasks[usize::try_from(n % 3).unwrap()]);
        let lease = Lease { expires: bed.now.after(std::time::Duration::from_secs(30 + 40 * n)), ..lease };
        bed.issue(&lease).unwrap();
        if n % 4 == 0 {
            bed.release(lease.id).unwrap();
        }
    }
    bed.complete(tasks[1].id).unwrap();
    bed.cut(partner(), false).map(|revoked| bed.walk(&partner(), revoked.cut)).unwrap();
    for _ in 0..12 {
        let lease = bed.lease(&bed.task());
        assert!(bed.is_live(lease.id));
    }
    bed.reopen();
    let (leases, _) = bed.ledger().leases(&[], &[], usize::MAX).unwrap();
    let counts = leases.iter().filter(|lease| bed.is_live(lease.id)).count() as u64;
    assert_eq!(counts, 12);
    assert_eq!(bed.live(&tenant()), counts);
    assert_eq!(bed.live(&partner()), counts);
    assert_eq!(bed.live(&Scope::PartnerInTenant("acme".parse().unwrap(), "north".parse().unwrap())), counts);
    assert_eq!(bed.live(&Scope::Grant("acme".parse().unwrap(), "read".parse().unwrap())), counts);
}

fn what_was_obtained_through_a_lease_ends_with_it(bed: &mut Bed) {
    for by_task in [false, true] {
        let task = bed.task();
        let proof = bed.lease(&task);
        let opened = bed.open_task(Task { parent_lease: Some(proof.id), ..bed.new_task() });
        let below = bed.child(&opened);
        let direct = Lease { parent: Some(proof.id), ..bed.new_lease(&bed.task()) };
        bed.issue(&direct).unwrap();
        let offspring = [direct.id, bed.lease(&opened).id, bed.lease(&below).id];
        assert!(offspring.iter().all(|&id| bed.is_live(id)));
        let ended = if by_task { bed.complete(task.id) } else { bed.release(proof.id) };
        assert_eq!(ended, Ok(true));
        assert!(!offspring.iter().any(|&id| bed.is_live(id)));
        assert!(bed.issue(&Lease { parent: Some(proof.id), ..bed.new_lease(&bed.task()) }).is_err());
        assert!(bed.issue(&bed.new_lease(&below)).is_err());
    }
}

fn what_was_obtained_through_a_proof_ends_with_it(bed: &mut Bed) {
    let proof = Scope::Proof(Digest::of(b"certificate"));
    let task = bed.task();
    let lease = Lease { proofs: vec![proof.id()], ..bed.new_lease(&task) };
    bed.issue(&lease).unwrap();
    let other = bed.lease(&task);
    bed.cut(proof, true).unwrap();
    assert!(!bed.is_live(lease.id));
    assert!(bed.is_live(other.id));
}

fn a_suspension_suspends_until_it_is_lifted(bed: &mut Bed) {
    let task = bed.task();
    let lease = bed.lease(&task);
    assert_eq!(bed.bar(partner(), true), Ok(true));
    assert_eq!(bed.bar(partner(), true), Ok(false));
    bed.reopen();
    assert_eq!(bed.standing(lease.id), Standing::Suspended);
    let early = bed.new_lease(&task);
    assert_eq!(bed.lift(partner()), Ok(true));
    assert_eq!(bed.lift(partner()), Ok(false));
    assert!(bed.is_live(lease.id));
    assert_eq!(bed.issue(&early), Err(Refused::Moved));
    bed.lease(&task);
}

fn suspensions_for_several_reasons_are_lifted_one_by_one_and_outlast_reopening(bed: &mut Bed) {
    let task = bed.task();
    let lease = bed.lease(&task);
    let causes = [Suspension::Quarantine, Suspension::OwnerLeft];
    let act = |bed: &Bed, custody: Custody| {
        let acts = vec![(custody, crate::pb::Event { kind: "test".into(), ..Default::default() })];
        wait(bed.ledger().custody(CustodyDraft { acts, basis: None, now: bed.now })).unwrap().0
    };
    let suspend = |cause| Custody::Suspend {
        scope: partner(),
        cause,
        until: None,
        auto_lift: false,
        may_shorten: true,
        operator: "test".into(),
        reason: "test".into(),
    };
    for cause in causes {
        assert_eq!((act(bed, suspend(cause)), act(bed, suspend(cause))), (1, 0), "{cause:?}");
    }
    assert_eq!(bed.bar(partner(), true), Ok(true));
    bed.reopen();
    for cause in causes {
        assert_eq!(bed.standing(lease.id), Standing::Suspended);
        assert_eq!(bed.issue(&bed.new_lease(&task)), Err(Refused::Barred(partner().id())));
        let release = || Custody::Release { scope: partner(), causes: [cause].into_iter().collect() };
        assert_eq!((act(bed, release()), act(bed, release())), (1, 0), "{cause:?}");
        bed.reopen();
    }
    assert_eq!(bed.standing(lease.id), Standing::Suspended, "the bar was lifted with them");
    assert_eq!(bed.lift(partner()), Ok(true));
    assert!(bed.is_live(lease.id));
    bed.lease(&task);
}

fn a_bar_refuses_beginnings_and_apply_does_not_lift_it(bed: &mut Bed) {
    let task = bed.task();
    let lease = bed.lease(&task);
    bed.bar(tenant(), false).unwrap();
    let commit = TrustCommit { global: Some(b"{}".to_vec()), changed: vec![tenant()], ..trust_commit(bed) };
    wait(bed.ledger().apply(commit, || ())).unwrap();
    for _ in 0..2 {
        assert!(bed.is_live(lease.id));
        assert_eq!(bed.issue(&bed.new_lease(&task)), Err(Refused::Barred(tenant().id())));
        bed.reopen();
    }
}

fn a_change_that_says_nothing_and_writes_no_row_is_in_force_all_the_same(bed: &mut Bed) {
    let task = bed.task();
    let (early, before) = (bed.new_lease(&task), bed.ledger().basis().1);
    let published = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&published);
    let commit = TrustCommit { changed: vec![tenant()], ..trust_commit(bed) };
    let publish = move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let receipt = wait(bed.ledger().apply(commit, publish)).unwrap();
    assert!(receipt.number() > before, "it has a revision of its own");
    assert_eq!(published.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(bed.issue(&early), Err(Refused::Moved), "decided before the change");
    let stale = TrustCommit { basis: before, ..trust_commit(bed) };
    assert_eq!(wait(bed.ledger().apply(stale, || ())).map(drop), Err(Refused::Moved), "computed before the change");
    bed.lease(&task);
}

fn what_is_barred_or_cut_above_a_task_that_was_passed_on_refuses_beginnings(bed: &mut Bed) {
    let above = Scope::Workload("acme".parse().unwrap(), "another".parse().unwrap());
    let task = bed.task();
    let issue = |bed: &Bed, lease: &Lease| {
        wait(bed.ledger().issue(IssueDraft { through: vec![above.id()], ..bed.draft(lease) })).map(drop)
    };
    let open = |bed: &Bed, task: Task| {
        let draft = OpenDraft { through: vec![above.id()], ..bed.opening(task) };
        wait(bed.ledger().open_task(draft)).map(drop)
    };
    bed.bar(above.clone(), false).unwrap();
    assert_eq!(issue(bed, &bed.new_lease(&task)), Err(Refused::Barred(above.id())));
    assert_eq!(open(bed, bed.new_task()), Err(Refused::Barred(above.id())));
    bed.issue(&bed.new_lease(&task)).unwrap();
    bed.lift(above.clone()).unwrap();
    let (lease, child) = (bed.new_lease(&task), bed.new_task());
    bed.cut(above.clone(), false).unwrap();
    assert_eq!(issue(bed, &lease), Err(Refused::Moved), "decided before the cut");
    assert_eq!(open(bed, child), Err(Refused::Moved));
    assert_eq!(issue(bed, &bed.new_lease(&task)), Ok(()));
    assert_eq!(open(bed, bed.new_task()), Ok(()));
}

fn a_chain_of_leases_longer_than_is_followed_counts_as_ended(bed: &mut Bed) {
    let task = bed.task();
    let mut chain = vec![bed.lease(&task)];
    while chain.len() < 5 {
        let lease = Lease { parent: chain.last().map(|above| above.id), ..bed.new_lease(&task) };
        bed.issue(&lease).unwrap();
        chain.push(lease);
    }
    assert!(bed.is_live(chain[4].id));
    let sixth = Lease { parent: Some(chain[4].id), ..bed.new_lease(&task) };
    assert!(bed.issue(&sixth).is_err());
    bed.release(chain[0].id).unwrap();
    assert!(!chain.iter().any(|lease| bed.is_live(lease.id)));
    assert!(!bed.is_live(sixth.id));
}

//! How much there may be of something, exactly, also when it is asked for in one commit.

use std::time::Duration;

use super::{
    approve::{agreeing, asked, asking},
    harness::{Bed, Kind, Proposal, QUOTA, tenant, wait},
    on_each_engine,
};
use crate::{
    ledger::{IssueDraft, Quota, Refused},
    model::{Approval, Digest, Lease, LeaseId, Scope, Task, TenantNumber},
};

on_each_engine! {
    a_renewal_needs_no_room_beside_what_it_replaces,
    what_ends_within_the_minute_takes_room_in_the_very_commit_that_begins_it,
    of_approvals_that_are_asked_for_in_one_commit_as_many_are_taken_as_there_is_room_for,
    an_approval_that_is_agreed_to_in_the_same_commit_takes_room_once,
}

/// Room for one in every respect.
const ONE: Quota = Quota { task: 1, grant: 1, partner: 1, partner_everywhere: 1, tenant: 1 };

fn issue(bed: &Bed, lease: &Lease, quota: Quota, supersedes: Option<LeaseId>) -> Result<(), Refused> {
    wait(bed.ledger().issue(IssueDraft { quota, supersedes, ..bed.draft(lease) })).map(drop)
}

fn a_renewal_needs_no_room_beside_what_it_replaces(bed: &mut Bed) {
    let task = bed.task();
    let mut last = bed.new_lease(&task);
    issue(bed, &last, ONE, None).unwrap();
    for _ in 0..2 {
        let next = bed.new_lease(&task);
        assert_eq!(issue(bed, &next, ONE, Some(last.id)), Ok(()));
        assert!(bed.is_live(next.id) && !bed.is_live(last.id));
        last = next;
        bed.reopen();
    }
    let full = [
        (Quota { task: 1, ..QUOTA }, "task"),
        (Quota { grant: 1, ..QUOTA }, "grant"),
        (Quota { partner: 1, ..QUOTA }, "partner in the tenant"),
        (Quota { partner_everywhere: 1, ..QUOTA }, "partner"),
        (Quota { tenant: 1, ..QUOTA }, "tenant"),
    ];
    for (quota, whose) in full {
        assert_eq!(issue(bed, &bed.new_lease(&task), quota, None), Err(Refused::Quota(whose)));
    }
}

fn what_ends_within_the_minute_takes_room_in_the_very_commit_that_begins_it(bed: &mut Bed) {
    let tasks: Vec<Task> = (0..4).map(|_| bed.task()).collect();
    let quota = Quota { tenant: 2, ..QUOTA };
    let lease = |task: &Task| Lease { expires: bed.now.after(Duration::from_secs(30)), ..bed.new_lease(task) };
    let asked = tasks.iter().map(|task| -> Proposal<'_, bool> {
        let draft = IssueDraft { quota, ..bed.draft(&lease(task)) };
        Box::pin(async { bed.ledger().issue(draft).await.is_ok() })
    });
    assert_eq!(bed.in_one_commit(asked.collect()), [true, true, false, false]);
    assert_eq!((bed.live(&tenant()), issue(bed, &lease(&tasks[0]), quota, None)), (2, Err(Refused::Quota("tenant"))));
}

/// One less than a workload may have asked for and not got.
fn all_but_one(bed: &Bed) -> Vec<Approval> {
    let approvals: Vec<_> = (1..Approval::OPEN_PER_WORKLOAD).map(|_| asked(bed)).collect();
    for approval in &approvals {
        wait(bed.ledger().ask_approval(asking(bed, approval))).unwrap();
    }
    approvals
}

fn of_approvals_that_are_asked_for_in_one_commit_as_many_are_taken_as_there_is_room_for(bed: &mut Bed) {
    all_but_one(bed);
    let asked = (0..3).map(|_| -> Proposal<'_, Result<(), Refused>> {
        let draft = asking(bed, &asked(bed));
        Box::pin(async { bed.ledger().ask_approval(draft).await.map(drop) })
    });
    let full = || Err(Refused::Quota("workload's open approvals"));
    assert_eq!(bed.in_one_commit(asked.collect()), [Ok(()), full(), full()]);
}

fn an_approval_that_is_agreed_to_in_the_same_commit_takes_room_once(bed: &mut Bed) {
    let open = all_but_one(bed);
    let agree = open.iter().map(|one| -> Proposal<'_, Result<(), Refused>> {
        // Of two that are needed: it stays open.
        let draft = agreeing(bed, one.id, Scope::Proof(Digest::of(b"anna")), 2);
        Box::pin(async { bed.ledger().agree_approval(draft).await.map(drop) })
    });
    let last = asking(bed, &asked(bed));
    let ask: Proposal<'_, Result<(), Refused>> = Box::pin(async { bed.ledger().ask_approval(last).await.map(drop) });
    let answers = bed.in_one_commit(agree.chain([ask]).collect());
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[test]
fn of_tasks_that_are_passed_on_in_one_commit_as_many_are_opened_as_there_is_room_for_and_own_ones_take_none() {
    let bed = Bed::new(Kind::Memory);
    let parent = bed.task();
    let below = |workload: &str| {
        bed.opening(Task { parent: Some(parent.id), workload: workload.parse().unwrap(), ..bed.new_task() })
    };
    for _ in 1..Task::MAX_DELEGATIONS {
        wait(bed.ledger().open_task(below("another"))).unwrap();
    }
    let opened = ["runner", "another", "another"].map(|workload| -> Proposal<'_, Result<(), Refused>> {
        let draft = below(workload);
        Box::pin(async { bed.ledger().open_task(draft).await.map(drop) })
    });
    let full = || Err(Refused::Quota("task's delegations"));
    assert_eq!(bed.in_one_commit(opened.into()), [Ok(()), Ok(()), full()]);
    assert_eq!(wait(bed.ledger().open_task(below("another"))).map(drop), full());
    assert_eq!(wait(bed.ledger().open_task(below("runner"))).map(drop), Ok(()));
}

#[test]
fn a_lease_that_ends_within_the_minute_still_takes_its_room_in_its_task() {
    let mut bed = Bed::new(Kind::Memory);
    let (task, quota) = (bed.task(), Quota { task: 1, ..QUOTA });
    let lease = Lease { expires: bed.now.after(Duration::from_secs(30)), ..bed.new_lease(&task) };
    assert_eq!(issue(&bed, &lease, quota, None), Ok(()));
    bed.advance(59);
    assert_eq!(issue(&bed, &bed.new_lease(&task), quota, None), Err(Refused::Quota("task")));
    bed.advance(1);
    assert_eq!(issue(&bed, &bed.new_lease(&task), quota, None), Ok(()));
}

#[test]
fn tenants_are_numbered_up_to_the_last_number_and_no_further() {
    let mut bed = Bed::new(Kind::Memory);
    let reserve = |bed: &Bed, count| wait(bed.ledger().reserve_tenants(count));
    let full = || Err(Refused::Quota("tenant numbers"));
    let first = reserve(&bed, 2).unwrap();
    assert_eq!(reserve(&bed, u32::MAX), full());
    bed.reopen();
    assert_eq!(reserve(&bed, TenantNumber::MAX - first - 2), Ok(first + 2));
    bed.reopen();
    assert_eq!(reserve(&bed, 1), full());
}

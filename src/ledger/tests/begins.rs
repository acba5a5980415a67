//! What stands in the way of a beginning, and what does not.

use std::time::Duration;

use super::{
    approve::{agree, agreeing, ask, asked, asking, granted},
    harness::{Bed, Kind, partner, tenant, wait},
    secrets::{pickup, take, taker, waiting_for},
};
use crate::{
    ledger::{
        AgreeDraft, ApprovalUse, Hold, IssueDraft, PickedUp, PickupDraft, Refused, Terms, ops::approve::check_room,
    },
    model::{
        Approval, ApprovalId, ApprovalStanding, ApprovalVote, Digest, EndReason, Scope, Standing, Suspension, Task,
        Velocity, approval::Closed,
    },
};

fn bed() -> Bed {
    Bed::new(Kind::Memory)
}

fn anna() -> Scope {
    Scope::Proof(Digest::of(b"anna"))
}

/// Issues under a task that is there, or with a new one, by an approval.
fn using(bed: &Bed, task: &Task, is_new: bool, id: ApprovalId) -> Result<(), Refused> {
    let lease = bed.new_lease(task);
    let (by, basis) = (vec!["anna".parse().unwrap()], bed.ledger().basis().1);
    let terms = Terms { needed: 1, by, hash: Digest::of(b"terms"), basis };
    let approval = Some(ApprovalUse { id, grant: lease.grant.clone(), terms });
    let new_task = is_new.then(|| task.clone());
    wait(bed.ledger().issue(IssueDraft { new_task, approval, ..bed.draft(&lease) })).map(drop)
}

fn request(bed: &Bed, approval: &Approval) -> Result<(), Refused> {
    wait(bed.ledger().ask_approval(asking(bed, approval))).map(drop)
}

#[test]
fn an_approval_is_for_what_it_was_asked_for_and_for_nothing_beside() {
    let bed = bed();
    let id = granted(&bed);
    let edits: [fn(&mut Task); 4] = [
        |task| task.tenant = "globex".parse().unwrap(),
        |task| task.partner = "south".parse().unwrap(),
        |task| task.workload = "another".parse().unwrap(),
        |task| task.purpose = "else".parse().unwrap(),
    ];
    for edit in edits {
        let mut task = bed.new_task();
        edit(&mut task);
        assert_eq!(using(&bed, &task, true, id), Err(Refused::Unknown), "{task:?}");
    }
    assert_eq!(using(&bed, &bed.new_task(), true, id), Ok(()));
}

#[test]
fn an_approval_for_one_task_is_used_in_that_and_one_for_none_opens_its_own() {
    let bed = bed();
    let (task, other) = (bed.task(), bed.task());
    let named = Approval { task: Some(task.id), ..asked(&bed) };
    request(&bed, &named).unwrap();
    agree(&bed, named.id, anna()).unwrap();
    let used = Err(Refused::Approval(ApprovalStanding::Used));
    assert_eq!(using(&bed, &other, false, named.id), used);
    assert_eq!(using(&bed, &bed.new_task(), true, named.id), used);
    assert_eq!(using(&bed, &task, false, named.id), Ok(()));
    let free = granted(&bed);
    assert_eq!(using(&bed, &other, false, free), used);
    assert_eq!(using(&bed, &bed.new_task(), true, free), Ok(()));
}

#[test]
fn a_task_uses_as_many_approvals_as_it_may_and_not_one_more() {
    let bed = bed();
    let task = bed.task();
    let leave = || {
        let approval = Approval { task: Some(task.id), ..asked(&bed) };
        request(&bed, &approval).unwrap();
        agree(&bed, approval.id, anna()).unwrap();
        approval.id
    };
    let used: Vec<ApprovalId> = (0..Task::MAX_APPROVALS).map(|_| leave()).collect();
    for id in used.iter().chain(&used) {
        assert_eq!(using(&bed, &task, false, *id), Ok(()));
    }
    assert_eq!(using(&bed, &task, false, leave()), Err(Refused::Quota("task's approvals")));
}

#[test]
fn nobody_asks_for_leave_where_nothing_may_begin() {
    let bed = bed();
    let scopes = [
        tenant(),
        partner(),
        Scope::PartnerInTenant("acme".parse().unwrap(), "north".parse().unwrap()),
        Scope::Grant("acme".parse().unwrap(), "read".parse().unwrap()),
        Scope::Workload("acme".parse().unwrap(), "runner".parse().unwrap()),
    ];
    for scope in scopes {
        bed.bar(scope.clone(), false).unwrap();
        assert_eq!(request(&bed, &asked(&bed)), Err(Refused::Barred(scope.id())), "{scope}");
        bed.lift(scope).unwrap();
    }
    let early = asked(&bed);
    bed.cut(partner(), false).unwrap();
    assert_eq!(request(&bed, &early), Err(Refused::Moved));
    let task = bed.task();
    let for_task = || Approval { task: Some(task.id), ..asked(&bed) };
    assert_eq!(request(&bed, &for_task()), Ok(()));
    bed.complete(task.id).unwrap();
    assert_eq!(request(&bed, &for_task()), Err(Refused::TaskEnded(EndReason::Completed)));
}

#[test]
fn as_many_requests_wait_and_are_kept_as_their_bounds_say() {
    let bed = bed();
    let room = |kept: &[Approval]| check_room(kept, &asked(&bed), bed.ledger().basis().0, bed.now);
    for (workload, is_closed, most, whose) in [
        ("runner", false, Approval::OPEN_PER_WORKLOAD, "workload's open approvals"),
        ("runner", true, Approval::KEPT_PER_WORKLOAD, "workload's approvals of a day"),
        ("another", false, Approval::OPEN_PER_TENANT, "tenant's open approvals"),
        ("another", true, Approval::KEPT_PER_TENANT, "tenant's approvals of a day"),
    ] {
        let closed = is_closed.then_some((Closed::Withdrawn, bed.now));
        let one = || Approval { workload: workload.parse().unwrap(), closed, ..asked(&bed) };
        let mut kept: Vec<Approval> = (1..most).map(|_| one()).collect();
        assert_eq!(room(&kept), Ok(()), "{whose}");
        kept.push(one());
        assert_eq!(room(&kept), Err(Refused::Quota(whose)));
    }
}

#[test]
fn a_word_counts_once_comes_from_who_did_not_ask_and_goes_to_what_is_open() {
    let mut bed = bed();
    let id = ask(&bed);
    let by = |bed: &Bed, operator: &str, key: &str| {
        let draft = agreeing(bed, id, anna(), 2);
        let vote = ApprovalVote { operator: operator.parse().unwrap(), key: key.into(), ..draft.vote.clone() };
        wait(bed.ledger().agree_approval(AgreeDraft { vote, ..draft })).map(|(approval, _)| approval.until)
    };
    assert_eq!(by(&bed, "bert", "k0"), Err(Refused::Involved), "the asker's key");
    assert_eq!(by(&bed, "anna", "k1"), Ok(None));
    assert_eq!(by(&bed, "anna", "k2"), Err(Refused::Involved));
    assert_eq!(by(&bed, "bert", "k1"), Err(Refused::Involved));
    assert_eq!(by(&bed, "bert", "k2"), Ok(Some(bed.now.after(Duration::from_secs(900)))));
    assert_eq!(by(&bed, "carl", "k3"), Err(Refused::Approval(ApprovalStanding::Granted)));
    let late = ask(&bed);
    bed.advance(3_600);
    assert_eq!(agree(&bed, late, anna()).map(drop), Err(Refused::Approval(ApprovalStanding::Expired)));
}

#[test]
fn what_waits_for_one_workload_is_nobody_elses_and_who_tries_ends_it() {
    let mut bed = bed();
    let lease = waiting_for(&bed, "taker");
    assert!(matches!(wait(bed.ledger().pick_up(taker(&bed, &lease))).unwrap().0, PickedUp::Taken(_)));
    for anyone in [false, true] {
        let lease = waiting_for(&bed, if anyone { "" } else { "taker" });
        let by = pickup(&bed, &lease).by.filter(|_| !anyone);
        bed.advance(30);
        let stranger = PickupDraft { by, ..pickup(&bed, &lease) };
        assert_eq!(wait(bed.ledger().pick_up(stranger)).unwrap().0, PickedUp::Misused);
        assert_eq!(bed.standing(lease.id), Standing::Ended(EndReason::Revoked));
        bed.reopen();
        assert_eq!(bed.ledger().opened_mark, bed.now);
    }
}

#[test]
fn nothing_is_picked_up_of_what_is_suspended_or_over_nor_with_a_proof_that_is() {
    let bed = bed();
    let lease = waiting_for(&bed, "");
    bed.bar(partner(), true).unwrap();
    assert_eq!(take(&bed, &lease), Err(Refused::TaskSuspended));
    bed.lift(partner()).unwrap();
    let proof = bed.lease(&bed.task());
    bed.release(proof.id).unwrap();
    let by_proof = PickupDraft { parent: Some(proof.id), ..pickup(&bed, &lease) };
    assert_eq!(wait(bed.ledger().pick_up(by_proof)).map(drop), Err(Refused::LeaseEnded(EndReason::Revoked)));
    assert_eq!(take(&bed, &lease), Ok(PickedUp::Taken(vec![9; 40])), "it waited all the while");
    let (one, other) = (waiting_for(&bed, ""), waiting_for(&bed, ""));
    bed.release(one.id).unwrap();
    bed.complete(other.id.task()).unwrap();
    assert_eq!(take(&bed, &one), Err(Refused::LeaseEnded(EndReason::Released)));
    assert_eq!(take(&bed, &other), Err(Refused::LeaseEnded(EndReason::Completed)));
}

#[test]
fn what_was_picked_up_in_time_lives_on_after_it() {
    let mut bed = bed();
    let lease = waiting_for(&bed, "");
    take(&bed, &lease).unwrap();
    bed.advance(61);
    wait(bed.ledger().lapse_pickups(bed.now)).unwrap();
    bed.reopen();
    assert!(bed.is_live(lease.id));
}

#[test]
fn a_task_and_all_below_it_go_on_at_one_pace() {
    let bed = bed();
    let velocity = Velocity { derivations: Some(3), ..Velocity::default() };
    let top = bed.task();
    let mut tasks = vec![top.clone()];
    for level in 0..Task::MAX_ANCESTORS {
        tasks.push(bed.child(&tasks[level]));
    }
    let derive = |task: &Task| {
        let draft = IssueDraft { velocity, ..bed.draft(&bed.new_lease(task)) };
        wait(bed.ledger().issue(draft)).map(drop)
    };
    for level in [0, 2, 4] {
        assert_eq!(derive(&tasks[level]), Ok(()), "{level} below");
    }
    assert!(matches!(derive(&tasks[3]), Err(Refused::TooFast(_))));
    assert_eq!(bed.ledger().held_for(Suspension::Velocity), [Scope::Task(top.id).id()]);
}

#[test]
fn a_bar_becomes_a_suspension_and_no_suspension_a_mere_bar() {
    for (stands, asked, changes) in [
        (None, false, true),
        (None, true, true),
        (Some(false), false, false),
        (Some(false), true, true),
        (Some(true), false, false),
        (Some(true), true, false),
    ] {
        let bed = bed();
        let lease = bed.lease(&bed.task());
        if let Some(suspends) = stands {
            bed.bar(partner(), suspends).unwrap();
        }
        assert_eq!(bed.bar(partner(), asked), Ok(changes), "{stands:?} {asked}");
        assert_eq!([partner(), tenant()].map(|scope| bed.ledger().barred(&[scope.id()])), [true, false]);
        assert!(bed.ledger().barred(&[tenant().id(), partner().id()]));
        let suspended = asked || stands == Some(true);
        assert_eq!(
            bed.ledger().feed_after(0, 9).unwrap().len(),
            usize::from(suspended),
            "what suspends nothing is not told"
        );
        assert_eq!(bed.standing(lease.id), if suspended { Standing::Suspended } else { Standing::Live });
    }
}

#[test]
fn while_the_clock_is_in_doubt_things_end_and_nothing_begins() {
    let bed = bed();
    let (task, lease, open) = (bed.task(), waiting_for(&bed, ""), ask(&bed));
    bed.ledger().holds().set(Hold::Clock);
    let opening = bed.opening(bed.new_task());
    for (what, refused) in [
        ("issue", bed.issue(&bed.new_lease(&task)).map(drop)),
        ("open", wait(bed.ledger().open_task(opening)).map(drop)),
        ("ask", request(&bed, &asked(&bed))),
        ("agree", agree(&bed, open, anna()).map(drop)),
        ("pick up", take(&bed, &lease).map(drop)),
    ] {
        assert!(matches!(refused, Err(Refused::Held(_))), "{what}: {refused:?}");
    }
    assert_eq!(bed.release(lease.id), Ok(true));
    assert_eq!(bed.complete(task.id), Ok(true));
    bed.cut(tenant(), true).unwrap();
}

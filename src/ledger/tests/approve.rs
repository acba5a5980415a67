//! Approvals and a task's pace.

use std::time::Duration;

use super::{
    harness::{Bed, Kind, wait},
    on_each_engine,
    tells::{change_trust, trust_commit},
};
use crate::{
    ledger::{
        AgreeDraft, ApprovalUse, AskDraft, CloseDraft, IssueDraft, Refused, Retry, SweepReport, Terms, TrustCommit,
        engine::Table,
    },
    model::{
        Approval, ApprovalId, ApprovalStanding, ApprovalVote, Digest, EndReason, Lease, Pace, Scope, Standing,
        Suspension, Task, TenantNumber, Tripped, Velocity, approval::Closed,
    },
};

on_each_engine! {
    an_approval_is_used_by_one_task_in_the_commit_of_its_lease_and_stays_so_after_reopening,
    of_many_tasks_that_come_at_once_one_uses_an_approval,
    a_retry_takes_an_approval_along_and_ends_the_task_it_had_unless_that_is_over,
    what_was_withdrawn_or_changed_between_decision_and_commit_refuses,
    what_was_decided_before_the_trust_map_changed_uses_no_approval_and_gives_none,
    a_word_whose_proof_was_cut_no_longer_counts,
    a_word_that_is_given_after_the_cut_counts,
    what_becomes_of_an_approval_is_in_the_audit_and_what_is_over_stays_as_it_ended,
    a_damaged_approval_gives_nothing,
    who_is_written_down_twice_counts_once,
    what_was_passed_on_rests_on_the_words_that_still_count_for_who_passed_it_on,
    an_approval_is_swept_when_nobody_can_use_it,
    a_task_that_would_open_beyond_its_pace_leaves_no_row,
    a_task_beyond_its_pace_is_suspended_after_reopening_too_and_forgotten_with_its_row,
}

fn terms(bed: &Bed) -> Terms {
    let by = vec!["anna".parse().unwrap(), "bert".parse().unwrap()];
    Terms { needed: 1, by, hash: Digest::of(b"terms"), basis: bed.ledger().basis().1 }
}

/// A request that was not made yet.
pub(super) fn asked(bed: &Bed) -> Approval {
    let task = bed.new_task();
    Approval {
        id: ApprovalId::fresh(TenantNumber::new(1).unwrap()).unwrap(),
        tenant: task.tenant.clone(),
        partner: task.partner.clone(),
        grant: bed.new_lease(&task).grant,
        workload: task.workload.clone(),
        purpose: task.purpose.clone(),
        task: None,
        reason: "test".into(),
        asked_by: "workload:runner".into(),
        asked_key: "k0".into(),
        asked_person: None,
        asked: bed.now,
        waits_until: bed.now.after(Duration::from_secs(3_600)),
        votes: Vec::new(),
        until: None,
        used_by: None,
        closed: None,
        terms: Digest::of(b"terms"),
        basis: bed.ledger().basis(),
    }
}

pub(super) fn asking(bed: &Bed, approval: &Approval) -> AskDraft {
    AskDraft { approval: approval.clone(), event: bed.event("approval.requested", None), now: bed.now }
}

/// One yes of `needed`.
pub(super) fn agreeing(bed: &Bed, id: ApprovalId, proof: Scope, needed: u32) -> AgreeDraft {
    let vote = ApprovalVote {
        operator: "anna".parse().unwrap(),
        at: bed.now,
        key: "k1".into(),
        person: None,
        voter: None,
        proofs: vec![proof.id()],
        basis: bed.ledger().basis().1,
    };
    let event = bed.event("approval.approved", None);
    let terms = Terms { needed, ..terms(bed) };
    AgreeDraft { id, vote, terms, valid: Duration::from_secs(900), event, now: bed.now }
}

pub(super) fn agree(bed: &Bed, id: ApprovalId, proof: Scope) -> Result<Approval, Refused> {
    wait(bed.ledger().agree_approval(agreeing(bed, id, proof, 1))).map(|(approval, _)| approval)
}

pub(super) fn ask(bed: &Bed) -> ApprovalId {
    let approval = asked(bed);
    wait(bed.ledger().ask_approval(asking(bed, &approval))).unwrap();
    approval.id
}

/// One that says twice over who has agreed.
fn who_is_written_down_twice_counts_once(bed: &mut Bed) {
    let person = Some(Digest::of(b"anna"));
    let vote = |operator: &str, key: &str, person| ApprovalVote {
        operator: operator.parse().unwrap(),
        at: bed.now,
        key: key.into(),
        person,
        voter: None,
        proofs: Vec::new(),
        basis: bed.ledger().basis().1,
    };
    let both = |second: ApprovalVote, first_person| {
        let votes = vec![vote("anna", "k1", first_person), second];
        let approval = Approval { votes, until: Some(bed.now.after(Duration::from_secs(900))), ..asked(bed) };
        let id = approval.id;
        let event = bed.event("approval.requested", None);
        wait(bed.ledger().ask_approval(AskDraft { approval, event, now: bed.now })).unwrap();
        let (_, mut draft) = draft(bed, id);
        draft.approval.as_mut().unwrap().terms.needed = 2;
        wait(bed.ledger().issue(draft)).map(drop)
    };
    let open = Err(Refused::Approval(ApprovalStanding::Open));
    assert_eq!(both(vote("anna", "k2", None), None), open, "one operator");
    assert_eq!(both(vote("bert", "k1", None), None), open, "one key");
    assert_eq!(both(vote("bert", "k2", person), person), open, "one person");
    assert_eq!(both(vote("bert", "k2", Some(Digest::of(b"bert"))), person), Ok(()));
}

fn what_was_passed_on_rests_on_the_words_that_still_count_for_who_passed_it_on(bed: &mut Bed) {
    let id = granted(bed);
    let above = issue(bed, id).unwrap();
    let child = bed.child(&above);
    let below = |bed: &Bed, user: &Task| {
        let lease = bed.new_lease(&child);
        let wanted = ApprovalUse { id, grant: lease.grant.clone(), terms: terms(bed) };
        wait(bed.ledger().issue(IssueDraft { above: vec![(user.id, wanted)], ..bed.draft(&lease) })).map(drop)
    };
    below(bed, &above).unwrap();
    assert_eq!(below(bed, &child), Err(Refused::Approval(ApprovalStanding::Used)), "it is another task's");
    bed.cut(Scope::Proof(Digest::of(b"anna")), false).unwrap();
    for _ in 0..2 {
        assert_eq!(below(bed, &above), Err(Refused::Approval(ApprovalStanding::Open)), "anna's word is gone");
        bed.reopen();
    }
}

/// A request that enough have agreed to.
pub(super) fn granted(bed: &Bed) -> ApprovalId {
    let id = ask(bed);
    assert!(agree(bed, id, Scope::Proof(Digest::of(b"anna"))).unwrap().until.is_some());
    id
}

pub(super) fn close(bed: &Bed, id: ApprovalId) {
    let event = bed.event("approval.withdrawn", None);
    wait(bed.ledger().close_approval(CloseDraft { id, why: Closed::Withdrawn, event, now: bed.now })).unwrap();
}

/// A lease that opens its task with an approval.
fn draft(bed: &Bed, id: ApprovalId) -> (Task, IssueDraft) {
    let task = bed.new_task();
    let lease = bed.new_lease(&task);
    let approval = Some(ApprovalUse { id, grant: lease.grant.clone(), terms: terms(bed) });
    (task.clone(), IssueDraft { new_task: Some(task), approval, ..bed.draft(&lease) })
}

fn issue(bed: &Bed, id: ApprovalId) -> Result<Task, Refused> {
    let (task, draft) = draft(bed, id);
    wait(bed.ledger().issue(draft)).map(|_| task)
}

fn an_approval_is_used_by_one_task_in_the_commit_of_its_lease_and_stays_so_after_reopening(bed: &mut Bed) {
    let id = granted(bed);
    let task = issue(bed, id).unwrap();
    for _ in 0..2 {
        assert_eq!(issue(bed, id), Err(Refused::Approval(ApprovalStanding::Used)));
        assert_eq!(bed.ledger().approval(id).unwrap().unwrap().used_by, Some(task.id));
        assert_eq!(bed.ledger().task(task.id).unwrap().unwrap().approvals, [id]);
        let lease = bed.new_lease(&task);
        let approval = Some(ApprovalUse { id, grant: lease.grant.clone(), terms: terms(bed) });
        wait(bed.ledger().issue(IssueDraft { approval, ..bed.draft(&lease) })).unwrap();
        bed.reopen();
    }
}

fn of_many_tasks_that_come_at_once_one_uses_an_approval(bed: &mut Bed) {
    let id = granted(bed);
    let bed = &*bed;
    let won: Vec<bool> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..16).map(|_| scope.spawn(move || issue(bed, id).is_ok())).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
}

fn a_retry_takes_an_approval_along_and_ends_the_task_it_had_unless_that_is_over(bed: &mut Bed) {
    let again = |bed: &Bed, id: ApprovalId| {
        let (task, draft) = draft(bed, id);
        let retry = Some(Retry { key: *b"sixteen bytes ok", request: Digest::of(b"asked") });
        let lease = draft.lease.id;
        wait(bed.ledger().issue(IssueDraft { retry, ..draft })).map(|_| (task, lease))
    };
    let id = granted(bed);
    let (before, first) = again(bed, id).unwrap();
    let more = bed.new_lease(&before);
    bed.issue(&more).unwrap();
    let (after, second) = again(bed, id).unwrap();
    let row = bed.ledger().task(before.id).unwrap().unwrap();
    assert_eq!(row.ended.map(|(why, _)| why), Some(EndReason::Superseded));
    assert_eq!(bed.ledger().approval(id).unwrap().unwrap().used_by, Some(after.id));
    bed.reopen();
    assert!(!bed.standing(first).is_live() && !bed.standing(more.id).is_live());
    assert!(bed.standing(second).is_live());
    // What was ended on purpose is not begun anew by asking again.
    bed.complete(after.id).unwrap();
    assert_eq!(again(bed, id), Err(Refused::TaskEnded(EndReason::Completed)));
    close(bed, id);
    assert!([first, more.id, second].into_iter().all(|lease| !bed.standing(lease).is_live()));
}

fn what_was_withdrawn_or_changed_between_decision_and_commit_refuses(bed: &mut Bed) {
    let id = granted(bed);
    let (_, decided) = draft(bed, id);
    close(bed, id);
    assert_eq!(wait(bed.ledger().issue(decided)), Err(Refused::Approval(ApprovalStanding::Withdrawn)));

    let id = granted(bed);
    let (task, mut decided) = draft(bed, id);
    decided.approval.as_mut().unwrap().terms.hash = Digest::of(b"others");
    assert_eq!(wait(bed.ledger().issue(decided)), Err(Refused::Approval(ApprovalStanding::Void)));
    let (_, mut decided) = draft(bed, id);
    decided.approval.as_mut().unwrap().grant = "other".parse().unwrap();
    assert_eq!(wait(bed.ledger().issue(decided)), Err(Refused::Unknown));
    let (_, mut decided) = draft(bed, id);
    decided.approval.as_mut().unwrap().terms.needed = 2;
    assert_eq!(wait(bed.ledger().issue(decided)), Err(Refused::Approval(ApprovalStanding::Open)));
    assert_eq!(bed.ledger().task(task.id).unwrap(), None, "nothing of it is there");

    // With a task that uses it, a withdrawal ends that.
    let task = issue(bed, id).unwrap();
    close(bed, id);
    assert!(!bed.ledger().task_standing(&bed.ledger().task(task.id).unwrap().unwrap(), bed.now).unwrap().is_live());
}

fn what_was_decided_before_the_trust_map_changed_uses_no_approval_and_gives_none(bed: &mut Bed) {
    let id = granted(bed);
    let (_, decided) = draft(bed, id);
    let (open, before) = (asked(bed), terms(bed));
    change_trust(bed);
    assert_eq!(wait(bed.ledger().issue(decided)), Err(Refused::Moved));
    let open = Approval { basis: bed.ledger().basis(), ..open };
    wait(bed.ledger().ask_approval(asking(bed, &open))).unwrap();
    let agree = AgreeDraft { terms: before, ..agreeing(bed, open.id, Scope::Proof(Digest::of(b"anna")), 1) };
    assert_eq!(wait(bed.ledger().agree_approval(agree)), Err(Refused::Moved));
    // Decided anew, both go on.
    issue(bed, id).unwrap();
}

fn a_word_whose_proof_was_cut_no_longer_counts(bed: &mut Bed) {
    let id = granted(bed);
    bed.cut(Scope::Proof(Digest::of(b"anna")), false).unwrap();
    assert_eq!(issue(bed, id), Err(Refused::Approval(ApprovalStanding::Open)));
    assert_eq!(agree(bed, id, Scope::Proof(Digest::of(b"new"))), Err(Refused::Approval(ApprovalStanding::Granted)));
    // One of several proofs is enough.
    let (basis, id) = (bed.ledger().basis().1, ask(bed));
    let proofs = [b"bert", b"root"].map(|proof| Scope::Proof(Digest::of(proof)).id()).to_vec();
    let vote = ApprovalVote {
        operator: "bert".parse().unwrap(),
        at: bed.now,
        key: "k2".into(),
        person: None,
        voter: None,
        proofs,
        basis,
    };
    let event = bed.event("approval.approved", None);
    let draft = AgreeDraft { id, vote, terms: terms(bed), valid: Duration::from_secs(900), event, now: bed.now };
    wait(bed.ledger().agree_approval(draft)).unwrap();
    bed.cut(Scope::Proof(Digest::of(b"root")), false).unwrap();
    assert_eq!(issue(bed, id), Err(Refused::Approval(ApprovalStanding::Open)));
}

fn a_word_that_is_given_after_the_cut_counts(bed: &mut Bed) {
    let (id, anna) = (ask(bed), Scope::Proof(Digest::of(b"anna")));
    let cut = bed.cut(anna.clone(), false).unwrap().cut;
    assert_eq!(bed.ledger().basis().1, cut, "the word is given knowing of it");
    assert!(agree(bed, id, anna).unwrap().until.is_some());
    issue(bed, id).unwrap();
}

fn what_becomes_of_an_approval_is_in_the_audit_and_what_is_over_stays_as_it_ended(bed: &mut Bed) {
    let (withdrawn, open) = (granted(bed), granted(bed));
    assert_eq!(bed.audited().len(), 4, "asked for and agreed to");
    close(bed, withdrawn);
    assert_eq!(bed.audited().len(), 5);
    let closed_at = bed.now;
    bed.advance(60);
    for _ in 0..2 {
        let voided = [withdrawn, open].map(|id| (id, bed.event("approval.void", None))).to_vec();
        wait(bed.ledger().apply(TrustCommit { voided, ..trust_commit(bed) }, || {})).unwrap();
        assert_eq!(bed.audited().len(), 6, "one of them was not over");
        let closed = [withdrawn, open].map(|id| bed.ledger().approval(id).unwrap().unwrap().closed.unwrap());
        assert_eq!(closed, [(Closed::Withdrawn, closed_at), (Closed::Void, closed_at.after(Duration::from_secs(60)))]);
        bed.advance(60);
        bed.reopen();
    }
}

fn a_damaged_approval_gives_nothing(bed: &mut Bed) {
    let id = granted(bed);
    bed.damage(Table::Approvals);
    bed.reopen();
    assert_eq!(issue(bed, id), Err(Refused::Approval(ApprovalStanding::Void)));
    assert_eq!(bed.ledger().approval(id).unwrap(), None);
}

fn sweep(bed: &Bed) -> SweepReport {
    wait(bed.ledger().sweep(bed.now, bed.now, 0)).unwrap()
}

fn an_approval_is_swept_when_nobody_can_use_it(bed: &mut Bed) {
    let id = granted(bed);
    bed.advance(3_600 + 86_400);
    sweep(bed);
    assert!(bed.ledger().approval(id).unwrap().is_some());
    bed.advance(3_600 + 61);
    sweep(bed);
    assert_eq!(bed.ledger().approval(id).unwrap(), None);
}

fn a_task_that_would_open_beyond_its_pace_leaves_no_row(bed: &mut Bed) {
    let velocity = Velocity { resources: Some(1), ..Velocity::default() };
    let tripped = Tripped { rule: "resources", limit: 1, count: 2 };
    for _ in 0..3 {
        let task = bed.new_task();
        let mut lease = bed.new_lease(&task);
        lease.audiences.push("https://other.example".into());
        let draft = IssueDraft { new_task: Some(task), velocity, ..bed.draft(&lease) };
        assert_eq!(wait(bed.ledger().issue(draft)), Err(Refused::TooFast(tripped)));
    }
    assert!(bed.rows(Table::Bars).is_empty() && bed.rows(Table::Tasks).is_empty());
    bed.reopen();
    assert_eq!(bed.ledger().held_for(Suspension::Velocity), []);
    // Below a task that is there, that one is suspended.
    let above = bed.task();
    let child = Task { parent: Some(above.id), ..bed.new_task() };
    let mut lease = bed.new_lease(&child);
    lease.audiences.push("https://other.example".into());
    let draft = IssueDraft { new_task: Some(child), velocity, ..bed.draft(&lease) };
    assert_eq!(wait(bed.ledger().issue(draft)), Err(Refused::TooFast(tripped)));
    assert_eq!(bed.ledger().held_for(Suspension::Velocity), [Scope::Task(above.id).id()]);
}

fn a_task_beyond_its_pace_is_suspended_after_reopening_too_and_forgotten_with_its_row(bed: &mut Bed) {
    let velocity = Velocity { derivations: Some(1), ..Velocity::default() };
    let (task, other) = (bed.task(), bed.task());
    let one = |bed: &Bed, lease: &Lease| wait(bed.ledger().issue(IssueDraft { velocity, ..bed.draft(lease) }));
    let first = bed.new_lease(&task);
    one(bed, &first).unwrap();
    let tripped = Tripped { rule: "derivations", limit: 1, count: 2 };
    assert_eq!(one(bed, &bed.new_lease(&task)), Err(Refused::TooFast(tripped)));
    let scope = Scope::Task(task.id).id();
    for _ in 0..2 {
        assert_eq!(bed.standing(first.id), Standing::Suspended);
        assert_eq!(bed.issue(&bed.new_lease(&task)), Err(Refused::TaskSuspended));
        assert_eq!(bed.ledger().held_for(Suspension::Velocity), [scope]);
        bed.reopen();
    }
    let pace = bed.ledger().task(task.id).unwrap().unwrap().pace;
    assert_eq!(pace.map(|pace: Box<Pace>| pace.total), Some(1));
    one(bed, &bed.new_lease(&other)).unwrap();
    bed.advance(3_600 + 120);
    sweep(bed);
    assert_eq!(bed.ledger().held_for(Suspension::Velocity), []);
    bed.reopen();
    assert_eq!((bed.ledger().doubt, bed.ledger().held_for(Suspension::Velocity)), (None, vec![]));
}

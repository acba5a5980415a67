//! Suspensions by reason: what holds them up, what lifts them, who is told.

use super::{
    harness::{Bed, Kind, partner, tenant, wait},
    on_each_engine,
    tells::trust_commit,
};
use crate::{
    ledger::{Custody, CustodyDraft, IssueDraft, Refused, TrustCommit},
    model::{Lease, Scope, Standing, Suspension, Velocity},
    pb,
};

on_each_engine! {
    acts_that_were_computed_before_one_of_their_grants_changed_do_nothing,
    who_is_let_go_by_an_operator_counts_anew,
    a_lift_is_told_when_nothing_suspends_any_more,
}

/// Suspends for a reason that has no end of its own.
pub(super) fn suspend(scope: Scope, cause: Suspension) -> Custody {
    let (operator, reason) = ("test".to_owned(), "test".to_owned());
    Custody::Suspend { scope, cause, until: None, auto_lift: false, may_shorten: true, operator, reason }
}

fn release(scope: Scope, cause: Suspension) -> Custody {
    Custody::Release { scope, causes: [cause].into_iter().collect() }
}

/// Carries an act out; whether it changed something.
pub(super) fn act(bed: &Bed, custody: Custody) -> Result<usize, Refused> {
    acts(bed, vec![custody], None)
}

fn acts(bed: &Bed, acts: Vec<Custody>, basis: Option<u64>) -> Result<usize, Refused> {
    let acts = acts.into_iter().map(|act| (act, bed.event("test", None))).collect();
    wait(bed.ledger().custody(CustodyDraft { acts, basis, now: bed.now })).map(|(changed, _)| changed)
}

fn grant(name: &str) -> Scope {
    Scope::Grant("acme".parse().unwrap(), name.parse().unwrap())
}

/// Has the trust map change a scope.
fn change(bed: &Bed, scope: Scope) {
    let events = vec![bed.event("trust.applied", None)];
    let commit = TrustCommit { changed: vec![scope], events, ..trust_commit(bed) };
    wait(bed.ledger().apply(commit, || {})).unwrap();
}

fn acts_that_were_computed_before_one_of_their_grants_changed_do_nothing(bed: &mut Bed) {
    let all = || ["read", "write"].map(|name| suspend(grant(name), Suspension::Dormant)).to_vec();
    for changed in [grant("write"), grant("read"), tenant()] {
        let basis = bed.ledger().basis().1;
        change(bed, changed.clone());
        assert_eq!(acts(bed, all(), Some(basis)), Err(Refused::Moved), "{changed}");
        assert_eq!(bed.ledger().held_for(Suspension::Dormant), [], "{changed}");
    }
    // A change of something else is none of theirs.
    let basis = bed.ledger().basis().1;
    change(bed, grant("other"));
    assert_eq!(acts(bed, all(), Some(basis)), Ok(2));
}

fn who_is_let_go_by_an_operator_counts_anew(bed: &mut Bed) {
    let velocity = Velocity { derivations: Some(1), ..Velocity::default() };
    let task = bed.task();
    let scope = Scope::Task(task.id);
    let one = |bed: &Bed, lease: &Lease| wait(bed.ledger().issue(IssueDraft { velocity, ..bed.draft(lease) }));
    for _ in 0..2 {
        one(bed, &bed.new_lease(&task)).unwrap();
        assert!(matches!(one(bed, &bed.new_lease(&task)), Err(Refused::TooFast(_))));
        // Let go for another reason it stays suspended, and its count as it was.
        assert_eq!(act(bed, release(scope.clone(), Suspension::Dormant)), Ok(0));
        assert_eq!(one(bed, &bed.new_lease(&task)), Err(Refused::TaskSuspended));
        assert_eq!(act(bed, release(scope.clone(), Suspension::Velocity)), Ok(1));
        bed.reopen();
    }
}

fn a_lift_is_told_when_nothing_suspends_any_more(bed: &mut Bed) {
    let lease = bed.lease(&bed.task());
    let lifts = |bed: &Bed| {
        let kind = i32::from(pb::RevocationKind::Lift).unsigned_abs();
        bed.ledger().feed_after(0, usize::MAX).unwrap().iter().filter(|(_, record)| record.kind == kind).count()
    };
    let causes = [Suspension::Dormant, Suspension::OwnerLeft];
    causes.iter().for_each(|&cause| assert_eq!(act(bed, suspend(partner(), cause)), Ok(1)));
    for (cause, told, standing) in [(causes[0], 0, Standing::Suspended), (causes[1], 1, Standing::Live)] {
        assert_eq!(act(bed, release(partner(), cause)), Ok(1));
        assert_eq!((lifts(bed), bed.standing(lease.id)), (told, standing), "{cause:?}");
    }
}

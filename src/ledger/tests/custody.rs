//! Suspensions by reason: what holds them up, what lifts them, who is told.

use std::time::Duration;

use super::{
    harness::{Bed, Kind, partner, tenant, wait},
    on_each_engine,
    tells::trust_commit,
};
use crate::{
    ledger::{Custody, CustodyDraft, IssueDraft, Refused, TrustCommit},
    model::{Lease, Scope, Standing, Suspension, Timestamp, Velocity},
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

/// The end, the way out and the lapse of the quarantine that stands.
fn quarantined(bed: &Bed) -> (u64, bool, u64) {
    let row = bed.ledger().suspension(partner().id(), Suspension::Quarantine).unwrap().unwrap();
    (row.record.until, row.record.auto_lift, row.record.lapsed)
}

fn quarantine(until: Timestamp, auto_lift: bool, may_shorten: bool) -> Custody {
    let (operator, reason) = ("test".to_owned(), "test".to_owned());
    let (scope, cause, until) = (partner(), Suspension::Quarantine, Some(until));
    Custody::Suspend { scope, cause, until, auto_lift, may_shorten, operator, reason }
}

#[test]
fn who_may_not_shorten_a_quarantine_only_adds_to_it() {
    let bed = Bed::new(Kind::Memory);
    let at = |seconds| bed.now.after(Duration::from_secs(seconds));
    for (until, auto_lift, may_shorten, changes, stands) in [
        (100, true, false, 1, (100, true)),
        (100, true, false, 0, (100, true)),
        (50, true, false, 0, (100, true)),
        (200, true, false, 1, (200, true)),
        (200, false, false, 1, (200, false)),
        (300, true, false, 1, (300, false)),
        (50, true, true, 1, (50, true)),
        (50, true, true, 0, (50, true)),
    ] {
        assert_eq!(act(&bed, quarantine(at(until), auto_lift, may_shorten)), Ok(changes), "{until} {auto_lift}");
        assert_eq!(quarantined(&bed), (at(stands.0).millis(), stands.1, 0), "{until} {auto_lift}");
    }
}

#[test]
fn a_quarantine_lapses_once_and_is_lifted_only_as_it_was_seen() {
    let bed = Bed::new(Kind::Memory);
    let seen =
        |bed: &Bed| bed.ledger().suspension(partner().id(), Suspension::Quarantine).unwrap().unwrap().record.revision;
    act(&bed, quarantine(bed.now, false, false)).unwrap();
    let first = seen(&bed);
    let (lapse, expire) =
        (|seen| Custody::Lapse { scope: partner(), seen }, |seen| Custody::Expire { scope: partner(), seen });
    assert_eq!((act(&bed, lapse(first + 1)), act(&bed, expire(first + 1))), (Ok(0), Ok(0)));
    assert_eq!(act(&bed, lapse(first)), Ok(1));
    assert_eq!(quarantined(&bed), (bed.now.millis(), false, bed.now.millis()));
    assert_eq!(act(&bed, lapse(first)), Ok(0), "it was told");
    // Added to without more time, that stays told; with more, it has not lapsed.
    let later = bed.now.after(Duration::from_secs(60));
    assert_eq!(act(&bed, quarantine(bed.now, false, false)), Ok(0));
    assert_eq!(act(&bed, quarantine(later, false, false)), Ok(1));
    assert_eq!(quarantined(&bed), (later.millis(), false, 0));
    assert_eq!(act(&bed, expire(first)), Ok(0), "it was changed since");
    assert_eq!(act(&bed, expire(seen(&bed))), Ok(1));
    assert_eq!(bed.ledger().held_for(Suspension::Quarantine), []);
}

#[test]
fn a_grant_that_is_handed_over_again_waits_for_the_last_one_named() {
    let bed = Bed::new(Kind::Memory);
    let to = |operator: &str| {
        let Custody::Suspend { scope, cause, until, auto_lift, may_shorten, reason, .. } =
            suspend(grant("read"), Suspension::TransferPending)
        else {
            panic!("a suspension")
        };
        Custody::Suspend { scope, cause, until, auto_lift, may_shorten, operator: operator.to_owned(), reason }
    };
    for (operator, changes) in [("anna", 1), ("anna", 0), ("bert", 1), ("bert", 0)] {
        assert_eq!(act(&bed, to(operator)), Ok(changes), "{operator}");
        let row = bed.ledger().suspension(grant("read").id(), Suspension::TransferPending).unwrap().unwrap();
        assert_eq!(row.record.operator, operator);
    }
}

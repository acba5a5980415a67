//! What every act does beside what it is for: its event, the time mark, what is told; and what ends with it.

use super::{
    approve::{agree, ask, close},
    harness::{Bed, Kind, partner, tenant, wait},
    on_each_engine,
    tells::change_trust,
};
use crate::{
    ledger::{CutDraft, KeyCommit, keys},
    model::{Digest, Lease, Scope, Task, TenantNumber},
    records,
};

on_each_engine! {
    every_act_moves_the_time_mark_so_that_nothing_lives_again_after_a_restart,
    only_a_cut_that_confirms_the_time_sets_the_mark_back,
    of_several_cuts_the_latest_time_counts_though_it_was_not_the_last_one,
    a_step_of_a_key_ring_is_in_the_audit_and_has_decisions_made_anew,
}

fn every_act_moves_the_time_mark_so_that_nothing_lives_again_after_a_restart(bed: &mut Bed) {
    let (task, other) = (bed.task(), bed.task());
    let [first, approval] = [ask(bed), ask(bed)];
    let lease = bed.lease(&task);
    type Act<'a> = Box<dyn Fn(&Bed) + 'a>;
    let acts: [(&str, Act<'_>); 12] = [
        ("open", Box::new(|bed| drop(bed.task()))),
        ("issue", Box::new(|bed| drop(bed.lease(&task)))),
        ("release", Box::new(|bed| assert_eq!(bed.release(lease.id), Ok(true)))),
        ("complete", Box::new(|bed| assert_eq!(bed.complete(other.id), Ok(true)))),
        ("bar", Box::new(|bed| assert_eq!(bed.bar(partner(), true), Ok(true)))),
        ("lift", Box::new(|bed| assert_eq!(bed.lift(partner()), Ok(true)))),
        ("ask", Box::new(|bed| _ = ask(bed))),
        ("agree", Box::new(|bed| drop(agree(bed, approval, Scope::Proof(Digest::of(b"anna"))).unwrap()))),
        ("close", Box::new(|bed| close(bed, first))),
        ("apply", Box::new(change_trust)),
        ("note", Box::new(|bed| _ = wait(bed.ledger().note(vec![bed.event("x", None)], bed.now)).unwrap())),
        ("cut", Box::new(|bed| assert!(bed.cut(tenant(), false).unwrap().changed))),
    ];
    for (what, act) in acts {
        bed.advance(30);
        act(bed);
        bed.reopen();
        assert_eq!(bed.ledger().opened_mark, bed.now, "{what}");
    }
}

fn only_a_cut_that_confirms_the_time_sets_the_mark_back(bed: &mut Bed) {
    let early = bed.now;
    bed.advance(600);
    bed.task();
    for (resets_time, mark) in [(false, bed.now), (true, early)] {
        let draft = CutDraft { now: early, resets_time, ..bed.cut_draft(tenant(), false) };
        wait(bed.ledger().cut(draft)).unwrap();
        bed.reopen();
        assert_eq!(bed.ledger().opened_mark, mark, "{resets_time}");
    }
}

fn of_several_cuts_the_latest_time_counts_though_it_was_not_the_last_one(bed: &mut Bed) {
    let cut_at = |bed: &Bed| bed.ledger().scope(tenant().id()).cut_at;
    let (early, late) = (bed.now, bed.now.after(std::time::Duration::from_secs(60)));
    for (now, latest) in [(early, early), (late, late), (early, late)] {
        wait(bed.ledger().cut(CutDraft { now, ..bed.cut_draft(tenant(), false) })).unwrap();
        for _ in 0..2 {
            assert_eq!(cut_at(bed), latest);
            bed.reopen();
        }
    }
}

fn a_step_of_a_key_ring_is_in_the_audit_and_has_decisions_made_anew(bed: &mut Bed) {
    let task = bed.task();
    let decided = Lease { key_id: "k1".into(), ..bed.new_lease(&task) };
    let by_another = Lease { key_id: "k2".into(), ..bed.new_lease(&task) };
    let key = keys::key(TenantNumber::new(1).unwrap(), 1, "k1");
    let record = records::KeyRecord { key_id: "k1".into(), ..Default::default() };
    let commit = KeyCommit {
        puts: vec![(key.clone(), record)],
        deletes: Vec::new(),
        changed: vec!["k1".into()],
        events: vec![bed.event("key.retired", None)],
        now: bed.now,
    };
    let before = bed.audited().len();
    wait(bed.ledger().step_keys(commit, || {})).unwrap();
    assert_eq!(bed.audited().len(), before + 1);
    assert_eq!(bed.issue(&decided).map(drop), Err(crate::ledger::Refused::Moved));
    assert_eq!(bed.issue(&by_another).map(drop), Ok(()));
    assert_eq!(bed.issue(&Lease { basis: bed.ledger().basis(), ..decided }).map(drop), Ok(()));
    let kept = |bed: &Bed| bed.ledger().tenant_keys(TenantNumber::new(1).unwrap()).unwrap().len();
    assert_eq!(kept(bed), 1);
    let (puts, changed, events) = (Vec::new(), Vec::new(), Vec::new());
    wait(bed.ledger().step_keys(KeyCommit { puts, deletes: vec![key], changed, events, now: bed.now }, || {})).unwrap();
    assert_eq!(kept(bed), 0);
}

#[test]
fn an_end_reaches_all_that_is_below_and_writes_no_more_than_sixty_four_of_it() {
    let bed = Bed::new(Kind::Memory);
    let top = bed.task();
    let mut below: Vec<Task> = (0..9).map(|_| bed.child(&top)).collect();
    for at in 0..9 {
        let grandchildren: Vec<Task> = (0..9).map(|_| bed.child(&below[at])).collect();
        below.extend(grandchildren);
    }
    let lease = bed.lease(below.last().unwrap());
    assert_eq!(bed.complete(top.id), Ok(true));
    assert!(!bed.is_live(lease.id));
    let rows = below.iter().map(|task| bed.ledger().task(task.id).unwrap().unwrap());
    let (marked, others): (Vec<Task>, Vec<Task>) = rows.partition(|task| task.ended.is_some());
    assert_eq!((marked.len(), others.len()), (64, 26));
    assert!(others.iter().all(|task| !bed.ledger().task_standing(task, bed.now).unwrap().is_live()));
}

//! A store that fails.

use super::{
    harness::{Bed, Kind, tenant, wait},
    on_each_engine,
};
use crate::{
    ledger::{Refused, engine::faulty::Fault},
    model::Lease,
};

on_each_engine! {
    a_full_store_begins_nothing_and_still_ends,
    a_commit_that_was_written_after_all_is_answered_as_success,
    a_commit_that_was_lost_leaves_neither_row_nor_event,
    an_end_is_tried_again_after_a_fault,
    a_store_that_comes_back_late_goes_on_with_what_it_holds,
    revisions_never_go_back,
}

fn fail(bed: &Bed, faults: impl IntoIterator<Item = Fault>) {
    bed.plan.lock().unwrap().extend(faults);
}

fn traces(bed: &Bed, lease: &Lease) -> (bool, bool) {
    let has_row = bed.ledger().lease(lease.id).unwrap().is_some();
    (has_row, bed.audited().contains(&lease.id.to_string()))
}

fn a_full_store_begins_nothing_and_still_ends(bed: &mut Bed) {
    let task = bed.task();
    let (live, lease) = (bed.lease(&task), bed.new_lease(&task));
    fail(bed, [Fault::Full]);
    assert_eq!(bed.issue(&lease), Err(Refused::StoreFull));
    assert_eq!(traces(bed, &lease), (false, false));
    assert_eq!(bed.release(live.id), Ok(true));
    assert!(!bed.is_live(live.id));
    assert_eq!(bed.live(&tenant()), 0);
    bed.issue(&lease).unwrap();
}

fn a_commit_that_was_written_after_all_is_answered_as_success(bed: &mut Bed) {
    let lease = bed.new_lease(&bed.task());
    fail(bed, [Fault::UnknownApplied]);
    bed.issue(&lease).unwrap();
    for _ in 0..2 {
        assert!(bed.is_live(lease.id));
        assert_eq!(traces(bed, &lease), (true, true));
        assert_eq!(bed.live(&tenant()), 1);
        bed.reopen();
    }
}

fn a_commit_that_was_lost_leaves_neither_row_nor_event(bed: &mut Bed) {
    let task = bed.task();
    let lease = bed.new_lease(&task);
    let before = bed.ledger().basis();
    fail(bed, [Fault::UnknownLost]);
    assert_eq!(bed.issue(&lease), Err(Refused::StoreFailed));
    for _ in 0..2 {
        assert_eq!(traces(bed, &lease), (false, false));
        assert_eq!(bed.live(&tenant()), 0);
        assert_eq!(bed.ledger().basis(), before);
        bed.reopen();
    }
    bed.lease(&task);
}

fn an_end_is_tried_again_after_a_fault(bed: &mut Bed) {
    for fault in [Fault::Full, Fault::UnknownApplied, Fault::UnknownLost] {
        let lease = bed.lease(&bed.task());
        fail(bed, [fault]);
        bed.cut(tenant(), false).unwrap();
        assert!(!bed.is_live(lease.id));
        bed.reopen();
        assert!(!bed.is_live(lease.id));
        // Twice is a failure, said as one; what is live stays so.
        let lease = bed.lease(&bed.task());
        fail(bed, [Fault::UnknownLost, fault]);
        assert_eq!(bed.cut(tenant(), false).is_ok(), !bed.is_live(lease.id));
    }
    fail(bed, [Fault::Full, Fault::Full]);
    assert_eq!(bed.cut(tenant(), false), Err(Refused::StoreFull));
}

fn a_store_that_comes_back_late_goes_on_with_what_it_holds(bed: &mut Bed) {
    for (fault, written) in [(Fault::StuckApplied, true), (Fault::StuckLost, false)] {
        let task = bed.task();
        let lease = bed.new_lease(&task);
        fail(bed, [fault]);
        assert_eq!(bed.issue(&lease), Err(Refused::StoreFailed));
        // The next proposal brings the store back; what it held is known by then.
        let next = bed.lease(&task);
        assert_eq!(traces(bed, &lease), (written, written));
        assert_eq!(bed.live(&tenant()), 1 + u64::from(written));
        // An end that is on disk after all is answered as done, not as done before.
        fail(bed, [fault]);
        assert_eq!(bed.release(next.id), Ok(true));
        assert_eq!(bed.complete(task.id), Ok(true));
        bed.reopen();
        assert!(!bed.is_live(lease.id) && !bed.is_live(next.id));
        assert_eq!(bed.live(&tenant()), 0);
    }
}

fn revisions_never_go_back(bed: &mut Bed) {
    let task = bed.task();
    let mut last = bed.ledger().basis();
    for n in 0..24 {
        let fault = [Fault::None, Fault::Full, Fault::UnknownApplied, Fault::UnknownLost][n % 4];
        fail(bed, [fault]);
        let answer = bed.issue(&bed.new_lease(&task));
        assert_eq!(answer.is_ok(), matches!(fault, Fault::None | Fault::UnknownApplied));
        if n % 5 == 0 {
            bed.reopen();
        }
        let next = bed.ledger().basis();
        assert_eq!(next.0, last.0);
        assert_eq!(next.1, last.1 + u64::from(answer.is_ok()));
        if let Ok(receipt) = answer {
            assert_eq!((receipt.incarnation(), receipt.number()), next);
        }
        last = next;
    }
    let late = wait(bed.ledger().note(vec![bed.event("x", None)], bed.now)).unwrap();
    assert_eq!(late.number(), last.1 + 1);
}

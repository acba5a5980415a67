//! What is read beside single rows: pages, the log, chains of leases and tasks.

use std::{collections::BTreeSet, time::Duration};

use super::{
    custody::{act, suspend},
    harness::{Bed, Kind, partner, tenant, wait},
    on_each_engine,
    tells::sign,
};
use crate::{
    ledger::{
        Refused,
        engine::{Op, Table},
        stream_id,
    },
    model::{EndReason, Lease, LeaseId, Standing, Suspension, Timestamp},
};

on_each_engine! {
    the_log_is_entered_behind_the_last_commit_before_a_time,
    pages_of_any_size_hold_every_row_once,
    a_page_of_the_audit_is_found_by_any_sequence_in_it,
    the_last_checkpoint_is_as_old_as_it_says,
    a_suspension_is_as_young_as_the_latest_of_its_reasons,
    a_lease_that_hangs_on_more_than_is_followed_has_ended,
    a_task_that_hangs_on_more_than_is_followed_has_ended,
}

fn the_log_is_entered_behind_the_last_commit_before_a_time(bed: &mut Bed) {
    assert_eq!(bed.ledger().log_before(bed.now), Ok(0), "it is empty");
    let begun = bed.now;
    for n in 0..9 {
        bed.advance(10);
        wait(bed.ledger().note(vec![bed.event("tested", None)], bed.now)).unwrap();
        // Commits that write no event are not in the log.
        (0..n % 3).for_each(|_| wait(bed.ledger().acknowledge("sink".into(), n)).unwrap());
    }
    let log = bed.ledger().log_after(0, usize::MAX).unwrap();
    assert_eq!(log.len(), 9);
    for seconds in (0..110).step_by(5) {
        let at = begun.after(Duration::from_secs(seconds));
        let last = log.iter().rev().find(|row| row.at < at).unwrap_or(&log[0]);
        assert_eq!(bed.ledger().log_before(at), Ok(last.number), "{seconds} s");
    }
}

fn pages_of_any_size_hold_every_row_once(bed: &mut Bed) {
    let task = bed.task();
    let issued: BTreeSet<LeaseId> = (0..5).map(|_| bed.lease(&task).id).collect();
    for limit in 1..7 {
        let (mut found, mut after, mut pages) = (Vec::new(), Vec::new(), 0);
        loop {
            let (page, next) = bed.ledger().leases(task.id.as_bytes(), &after, limit).unwrap();
            found.extend(page.into_iter().map(|lease| lease.id));
            pages += 1;
            let Some(next) = next else { break };
            after = next;
        }
        assert!(found.iter().copied().eq(issued.iter().copied()), "{limit} at a time: {found:?}");
        assert_eq!(pages, 5 / limit + 1, "{limit} at a time");
    }
}

fn a_page_of_the_audit_is_found_by_any_sequence_in_it(bed: &mut Bed) {
    let stream = stream_id("acme", "north");
    let first = |bed: &Bed, at| bed.ledger().audit_page_at(&stream, at).unwrap().map(|(first, _)| first);
    assert_eq!(first(bed, 1), None);
    for events in [1, 3, 1] {
        let events = (0..events).map(|_| bed.event("tested", None)).collect();
        wait(bed.ledger().note(events, bed.now)).unwrap();
    }
    assert_eq!(
        [0, 1, 2, 3, 4, 5, 99].map(|at| first(bed, at)),
        [None, Some(1), Some(2), Some(2), Some(2), Some(5), Some(5)]
    );
    let (_, page) = bed.ledger().audit_page_at(&stream, 3).unwrap().unwrap();
    assert_eq!(page.unwrap().events.len(), 3);
}

fn the_last_checkpoint_is_as_old_as_it_says(bed: &mut Bed) {
    assert_eq!(bed.ledger().last_checkpoint(), Ok(None));
    for _ in 0..2 {
        bed.task();
        sign(bed).unwrap();
        let at = Timestamp::from_seconds(bed.now.seconds());
        assert_eq!(bed.ledger().last_checkpoint(), Ok(Some(at)));
        bed.advance(60);
        assert_eq!(bed.ledger().last_checkpoint(), Ok(Some(at)));
    }
}

fn a_suspension_is_as_young_as_the_latest_of_its_reasons(bed: &mut Bed) {
    let id = tenant().id();
    bed.bar(partner(), false).unwrap();
    assert_eq!((bed.ledger().suspensions(), bed.ledger().pending_cuts()), (vec![], 0), "a bar alone suspends nothing");
    for bar_is_last in [false, true] {
        let bar = |bed: &Bed| assert_eq!(bed.bar(tenant(), true), Ok(true));
        let hold = |bed: &Bed| assert_eq!(act(bed, suspend(tenant(), Suspension::Dormant)), Ok(1));
        if bar_is_last {
            hold(bed)
        } else {
            bar(bed)
        }
        assert_eq!(bed.ledger().suspensions(), [(id, bed.ledger().basis().1)]);
        if bar_is_last {
            bar(bed)
        } else {
            hold(bed)
        }
        let latest = bed.ledger().basis().1;
        for _ in 0..2 {
            assert_eq!(bed.ledger().suspensions(), [(id, latest)]);
            bed.reopen();
        }
        bed.lift(tenant()).unwrap();
        assert_eq!(bed.ledger().suspensions().len(), 1);
        let causes = [Suspension::Dormant].into_iter().collect();
        act(bed, crate::ledger::Custody::Release { scope: tenant(), causes }).unwrap();
        assert_eq!(bed.ledger().suspensions(), []);
    }
}

#[test]
fn a_stream_goes_on_far_behind_a_last_page_that_cannot_be_read() {
    let mut bed = Bed::new(Kind::Memory);
    bed.task();
    bed.task();
    let last = bed.rows(Table::Audit).pop().unwrap().0;
    bed.edit([Op::Put(Table::Audit, last, vec![0xff])]);
    bed.reopen();
    bed.task();
    let pages = bed.ledger().audit_pages(&stream_id("acme", "north"), 0, usize::MAX).unwrap();
    let sequences: Vec<u64> = pages.iter().map(|(first, _)| *first).collect();
    assert_eq!(sequences, [1, 2, 2 + (1 << 20) + 1]);
}

#[test]
fn a_bar_that_suspends_nothing_makes_no_suspension_younger() {
    let mut bed = Bed::new(Kind::Memory);
    act(&bed, suspend(tenant(), Suspension::Dormant)).unwrap();
    let since = bed.ledger().basis().1;
    bed.bar(tenant(), false).unwrap();
    for _ in 0..2 {
        assert_eq!(bed.ledger().suspensions(), [(tenant().id(), since)]);
        bed.reopen();
    }
}

fn a_lease_that_hangs_on_more_than_is_followed_has_ended(bed: &mut Bed) {
    let task = bed.task();
    let mut chain = vec![bed.lease(&task)];
    while chain.len() < 5 {
        let lease = Lease { parent: chain.last().map(|above| above.id), ..bed.new_lease(&task) };
        bed.issue(&lease).unwrap();
        chain.push(lease);
    }
    // No ledger writes these; a store that was tampered with may hold them.
    let own = bed.new_lease(&task);
    let beyond = [Lease { parent: Some(chain[4].id), ..bed.new_lease(&task) }, Lease { parent: Some(own.id), ..own }];
    bed.put_leases(&beyond);
    assert!(bed.is_live(chain[4].id));
    for lease in beyond {
        assert_eq!(bed.standing(lease.id), Standing::Ended(EndReason::Damaged));
        assert!(bed.issue(&Lease { parent: Some(lease.id), ..bed.new_lease(&task) }).is_err());
    }
}

fn a_task_that_hangs_on_more_than_is_followed_has_ended(bed: &mut Bed) {
    let mut tasks = vec![bed.task()];
    for level in 0..5 {
        tasks.push(bed.child(&tasks[level]));
    }
    let standing = |bed: &Bed, level: usize| bed.ledger().task_standing(&tasks[level], bed.now);
    assert_eq!(standing(bed, 4), Ok(Standing::Live));
    bed.lease(&tasks[4]);
    assert_eq!(standing(bed, 5), Ok(Standing::Ended(EndReason::Damaged)));
    assert_eq!(bed.issue(&bed.new_lease(&tasks[5])), Err(Refused::TaskEnded(EndReason::Damaged)));
}

//! What the ledger tells those who ask it, and what it refuses because the asker knows an older state.

use std::{sync::Arc, time::Duration};

use super::{
    harness::{Bed, Kind, partner, row_key, tenant, wait},
    on_each_engine,
};
use crate::{
    ledger::{
        CheckpointDraft, Hold, IssueDraft, NoticeCommit, OpenDraft, OpenError, Refused, Retry, TrustCommit, check,
        codec::Codec,
        engine::{Op, Table},
        fits, hold_restored, keys, stream_name,
    },
    model::{Digest, EndReason, GrantName, Lease, Task, TaskId, TenantNumber, Timestamp},
    pb, records,
};

on_each_engine! {
    the_feed_tells_every_end_after_a_revision_in_order,
    what_was_decided_under_another_incarnation_is_not_begun,
    a_task_is_not_opened_below_one_that_has_ended_nor_past_a_cut_that_it_does_not_know,
    a_key_that_is_used_for_another_task_is_refused,
    cuts_wait_for_their_walk,
    every_act_is_in_the_audit,
    a_check_is_not_begun_with_another_seal_key_or_a_newer_schema,
    a_checkpoint_covers_what_moved_before_a_restart,
    a_held_task_that_has_ended_is_held_no_more,
    a_restored_store_is_held_and_nothing_of_before_lives,
    an_owner_is_reminded_once_for_a_date,
    a_store_in_use_has_no_unreadable_row_and_each_changed_one_is_found,
}

fn the_feed_tells_every_end_after_a_revision_in_order(bed: &mut Bed) {
    let lease = bed.lease(&bed.task());
    let before = bed.ledger().basis().1;
    bed.release(lease.id).unwrap();
    let released = bed.ledger().basis().1;
    bed.bar(tenant(), true).unwrap();
    let suspended = bed.ledger().basis().1;
    let cut = bed.cut(partner(), false).unwrap().cut;
    assert!(before < released && released < cut);
    for _ in 0..2 {
        let numbers = |after, limit| -> Vec<u64> {
            bed.ledger().feed_after(after, limit).unwrap().into_iter().map(|(number, _)| number).collect()
        };
        assert_eq!(numbers(before, 9), [released, suspended, cut]);
        assert_eq!(numbers(before, 1), [released]);
        assert_eq!(numbers(suspended, 9), [cut]);
        assert_eq!((numbers(cut, 9), bed.ledger().feed_floor()), (vec![], Ok(0)));
        bed.reopen();
    }
    bed.sweep();
    assert_eq!(bed.ledger().feed_after(0, 9).unwrap().len(), 3, "as long as one of them concerns something");
    bed.advance(30 * 3_600);
    bed.sweep();
    assert_eq!(bed.ledger().feed_floor(), Ok(cut), "who has seen less has missed something");
}

#[test]
fn a_stream_waits_for_its_signature_until_it_has_one() {
    let bed = Bed::new(Kind::Memory);
    assert_eq!(bed.ledger().unsigned_streams(), 0);
    bed.task();
    assert_eq!(bed.ledger().unsigned_streams(), 1);
    sign(&bed).unwrap();
    assert_eq!(bed.ledger().unsigned_streams(), 0);
}

#[test]
fn the_last_lease_of_a_scope_ends_with_its_minute() {
    let mut bed = Bed::new(Kind::Memory);
    let task = bed.task();
    assert_eq!(bed.ledger().latest(&tenant(), bed.now), None);
    for seconds in [600, 61] {
        let lease = Lease { expires: bed.now.after(Duration::from_secs(seconds)), ..bed.new_lease(&task) };
        bed.issue(&lease).unwrap();
        assert_eq!(bed.ledger().latest(&tenant(), bed.now), Some(Timestamp::from_seconds(1_800_000_660)));
    }
    bed.advance(660);
    assert_eq!(bed.ledger().latest(&tenant(), bed.now), None);
}

fn what_was_decided_under_another_incarnation_is_not_begun(bed: &mut Bed) {
    let task = bed.task();
    let (incarnation, number) = bed.ledger().basis();
    let lease = Lease { basis: (incarnation ^ 1, number), ..bed.new_lease(&task) };
    assert_eq!(bed.issue(&lease).map(|_| ()), Err(Refused::Moved));
    let new = Task { basis: (incarnation ^ 1, number), ..bed.new_task() };
    let draft = IssueDraft { new_task: Some(new.clone()), ..bed.draft(&bed.new_lease(&new)) };
    assert_eq!(wait(bed.ledger().issue(draft)).map(|_| ()), Err(Refused::Moved));
    assert_eq!(bed.ledger().task(new.id), Ok(None));
}

fn a_task_is_not_opened_below_one_that_has_ended_nor_past_a_cut_that_it_does_not_know(bed: &mut Bed) {
    let issue = |bed: &Bed, task: &Task| {
        let draft = IssueDraft { new_task: Some(task.clone()), ..bed.draft(&bed.new_lease(task)) };
        wait(bed.ledger().issue(draft)).map(|_| ())
    };
    let parent = bed.task();
    let child = |bed: &Bed| Task { parent: Some(parent.id), ..bed.new_task() };
    assert_eq!(issue(bed, &child(bed)), Ok(()));
    bed.complete(parent.id).unwrap();
    assert_eq!(issue(bed, &child(bed)), Err(Refused::TaskEnded(EndReason::Completed)));

    // It outlives its task.
    let task = bed.task();
    let lease = Lease { expires: task.deadline.after(Duration::from_millis(1)), ..bed.new_lease(&task) };
    assert_eq!(bed.issue(&lease).map(|_| ()), Err(Refused::Moved));
    bed.issue(&Lease { expires: task.deadline, ..lease }).unwrap();

    // The lease was decided after the cut, its task before.
    let task = bed.new_task();
    bed.cut(partner(), false).unwrap();
    assert_eq!(issue(bed, &task), Err(Refused::Moved));
    assert_eq!(bed.ledger().task(task.id), Ok(None));
    assert_eq!(issue(bed, &bed.new_task()), Ok(()));
}

fn cuts_wait_for_their_walk(bed: &mut Bed) {
    assert_eq!(bed.ledger().pending_cuts(), 0);
    let cuts = [tenant(), partner()].map(|scope| (bed.cut(scope.clone(), false).unwrap().cut, scope));
    for (left, (number, scope)) in [2, 1].into_iter().zip(cuts) {
        assert_eq!(bed.ledger().pending_cuts(), left);
        bed.walk(&scope, number);
    }
    bed.reopen();
    assert_eq!((bed.ledger().pending_cuts(), bed.ledger().cuts_and_bars()), (0, (2, 0)));
}

fn every_act_is_in_the_audit(bed: &mut Bed) {
    let mut before = 0;
    let mut one_more = |bed: &Bed, act: &str| {
        before += 1;
        assert_eq!(bed.audited().len(), before, "{act}");
    };
    let task = bed.task();
    one_more(bed, "open");
    let lease = bed.lease(&task);
    one_more(bed, "issue");
    assert!(bed.release(lease.id).unwrap());
    one_more(bed, "release");
    bed.cut(tenant(), false).unwrap();
    one_more(bed, "cut");
    assert!(bed.bar(partner(), true).unwrap());
    one_more(bed, "bar");
    assert!(bed.lift(partner()).unwrap());
    one_more(bed, "lift");
    let task = bed.task();
    one_more(bed, "open again");
    bed.complete(task.id).unwrap();
    one_more(bed, "complete");
    change_trust(bed);
    one_more(bed, "apply");
    let event = bed.event("tested", None);
    wait(bed.ledger().note(vec![event], bed.now)).unwrap();
    one_more(bed, "note");
    // What changes nothing is no act.
    assert_eq!((bed.release(lease.id), bed.complete(task.id), bed.lift(partner())), (Ok(false), Ok(false), Ok(false)));
    assert_eq!(bed.audited().len(), before);
}

#[test]
fn a_tenants_damaged_row_is_told_from_a_missing_one() {
    let mut bed = Bed::new(Kind::Memory);
    let [there, gone] = [1, 2].map(|number| TenantNumber::new(number).unwrap());
    let row = Codec::new(row_key()).encode(Table::Trust, &keys::tenant(there), &records::TenantRecord::default());
    bed.edit([Op::Put(Table::Trust, keys::tenant(there).to_vec(), row)]);
    bed.reopen();
    let is_damaged = |bed: &Bed| [there, gone].map(|number| bed.ledger().is_trust_damaged(number));
    assert_eq!(is_damaged(&bed), [false, false]);
    bed.damage(Table::Trust);
    bed.reopen();
    assert_eq!(is_damaged(&bed), [true, false]);
    assert!(bed.ledger().trust(there).is_err() && bed.ledger().trust(gone).unwrap().is_none());
}

#[test]
fn the_last_tenant_number_is_given_and_none_beyond() {
    let bed = Bed::new(Kind::Memory);
    let first = wait(bed.ledger().reserve_tenants(1)).unwrap();
    let rest = TenantNumber::MAX - first - 1;
    assert_eq!(wait(bed.ledger().reserve_tenants(rest + 1)), Err(Refused::Quota("tenant numbers")));
    assert_eq!(wait(bed.ledger().reserve_tenants(rest)), Ok(first + 1));
    assert_eq!(wait(bed.ledger().reserve_tenants(1)), Err(Refused::Quota("tenant numbers")));
}

fn a_check_is_not_begun_with_another_seal_key_or_a_newer_schema(bed: &mut Bed) {
    bed.lease(&bed.task());
    bed.close();
    let try_with = |bed: &Bed, seal: u8| fits(bed.store.engine().as_ref(), row_key(), &[seal; 32]);
    assert!(try_with(bed, 1).is_ok());
    assert!(matches!(try_with(bed, 2), Err(OpenError::WrongSealKey)));
    let record = records::MetaRecord { schema: u32::MAX, ..Default::default() };
    let meta = Codec::new(row_key()).encode(Table::Meta, keys::META, &record);
    for (row, is_newer) in [(b"damaged".to_vec(), false), (meta, true)] {
        bed.edit([Op::Put(Table::Meta, keys::META.to_vec(), row)]);
        let refused = matches!(try_with(bed, 1), Err(OpenError::Schema(_)));
        assert_eq!(refused, is_newer, "a damaged row is for the check to report");
    }
}

/// Opens a task with an idempotency key that is the same for all.
pub(super) fn open(bed: &Bed, request: &[u8]) -> Result<TaskId, Refused> {
    let retry = Some(Retry { key: *b"sixteen bytes ok", request: Digest::of(request) });
    let draft = OpenDraft { retry, ..bed.opening(bed.new_task()) };
    wait(bed.ledger().open_task(draft)).map(|(id, _)| id)
}

fn a_key_that_is_used_for_another_task_is_refused(bed: &mut Bed) {
    let first = open(bed, b"asked").unwrap();
    for _ in 0..2 {
        assert_eq!(open(bed, b"asked"), Ok(first));
        assert_eq!(open(bed, b"something else"), Err(Refused::RetryMismatch));
        bed.reopen();
    }
    bed.damage(Table::Retries);
    bed.reopen();
    assert_eq!(open(bed, b"asked"), Err(Refused::RetryMismatch), "nobody can say what it was used for");
}

pub(super) fn sign(bed: &Bed) -> Option<pb::Checkpoint> {
    let now = bed.now.after(Duration::from_millis(250));
    let draft = CheckpointDraft { key_id: "k".into(), public_key: [0; 32], sign: Arc::new(|_| [0; 64]), now };
    wait(bed.ledger().checkpoint(draft)).unwrap()
}

fn a_checkpoint_covers_what_moved_before_a_restart(bed: &mut Bed) {
    bed.task();
    let first = sign(bed).unwrap();
    bed.lease(&bed.task());
    let moved = bed.ledger().basis().1;
    bed.reopen();
    let second = sign(bed).unwrap();
    assert_eq!((first.number, second.number, sign(bed)), (1, 2, None), "nothing has moved since");
    assert_eq!((second.previous_hash, second.revision.unwrap().number), (first.hash, moved));
    assert_eq!(second.at, Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 250_000_000 }));
    let heads = |heads: Vec<pb::StreamHead>| -> Vec<(String, u64, u64)> {
        heads.into_iter().map(|head| (head.stream, head.sequence, head.first_sequence)).collect()
    };
    assert_eq!(heads(first.heads), [("acme/north".to_owned(), 1, 1)]);
    assert_eq!(heads(second.heads), [("acme/north".to_owned(), 3, 1)]);
}

#[test]
fn a_stream_is_named_by_tenant_and_partner() {
    let names = [("acme", "north"), ("acme", ""), ("", "north"), ("", "")].map(|(t, p)| stream_name(t, p));
    assert_eq!(names, ["acme/north", "acme/-", "-/north", "-/-"]);
}

fn a_held_task_that_has_ended_is_held_no_more(bed: &mut Bed) {
    let (ended, lives) = (bed.task(), bed.task());
    for task in [&ended, &lives] {
        assert!(wait(bed.ledger().hold(task.id, bed.now)).unwrap().held);
    }
    let from_the_start = bed.open_task(Task { held: true, ..bed.new_task() });
    bed.complete(ended.id).unwrap();
    let mut held = [lives.id, from_the_start.id];
    held.sort_unstable();
    for _ in 0..2 {
        assert_eq!(bed.ledger().held(&[], 9).unwrap().0, held);
        assert!(!bed.ledger().task(ended.id).unwrap().unwrap().held);
        bed.reopen();
    }
}

fn a_restored_store_is_held_and_nothing_of_before_lives(bed: &mut Bed) {
    let lease = bed.lease(&bed.task());
    let (incarnation, number) = bed.ledger().basis();
    bed.close();
    let past = number + 1_000;
    hold_restored(bed.store.engine().as_ref(), row_key(), past, bed.now, bed.now).unwrap();
    for _ in 0..2 {
        bed.reopen();
        assert_eq!(bed.ledger().holds().first(), Some(Hold::Restored));
        let (now, at) = bed.ledger().basis();
        assert!(now != incarnation && at > past, "{at}");
        assert!(!bed.is_live(lease.id));
        assert!(matches!(bed.issue(&bed.new_lease(&bed.new_task())), Err(Refused::Held(_))));
    }
    // Also when the row that says so is damaged.
    bed.edit([Op::Put(Table::Meta, keys::HOLD.to_vec(), b"damaged".to_vec())]);
    bed.reopen();
    assert_eq!(bed.ledger().holds().first(), Some(Hold::PutBack));
}

fn an_owner_is_reminded_once_for_a_date(bed: &mut Bed) {
    let number = TenantNumber::new(1).unwrap();
    let [read, write]: [GrantName; 2] = ["read", "write"].map(|name| name.parse().unwrap());
    let date = bed.now.after(Duration::from_hours(48));
    let reminded = vec![(number, read.clone(), date)];
    wait(bed.ledger().step_notices(NoticeCommit { reminded, now: bed.now, ..NoticeCommit::default() })).unwrap();
    for _ in 0..2 {
        assert_eq!(bed.ledger().reminded(number, &read), Ok(Some(date)));
        assert_eq!(bed.ledger().reminded(number, &write), Ok(None));
        bed.reopen();
    }
    assert_eq!(bed.ledger().reminders_before(date), Ok(vec![]));
    let done = bed.ledger().reminders_before(date.after(Duration::from_millis(1))).unwrap();
    assert_eq!(done.len(), 1);
    wait(bed.ledger().step_notices(NoticeCommit { done, now: bed.now, ..NoticeCommit::default() })).unwrap();
    assert_eq!(bed.ledger().reminded(number, &read), Ok(None));
}

fn a_store_in_use_has_no_unreadable_row_and_each_changed_one_is_found(bed: &mut Bed) {
    let lease = bed.lease(&bed.task());
    open(bed, b"asked").unwrap();
    bed.cut(partner(), true).unwrap();
    bed.release(lease.id).unwrap();
    sign(bed).unwrap();
    let commit = NoticeCommit {
        reminded: vec![(TenantNumber::new(1).unwrap(), "read".parse().unwrap(), bed.now)],
        now: bed.now,
        ..NoticeCommit::default()
    };
    wait(bed.ledger().step_notices(commit)).unwrap();
    bed.close();
    hold_restored(bed.store.engine().as_ref(), row_key(), 0, bed.now, bed.now).unwrap();
    let mut seen = 0;
    let report = check(bed.store.engine().as_ref(), row_key(), |_, rows| seen += rows).unwrap();
    assert_eq!((report.unreadable_total, report.unreadable.len()), (0, 0), "{:?}", report.unreadable);
    assert_eq!(report.rows.iter().map(|(_, rows)| rows).sum::<u64>(), seen);
    for (table, rows) in report.rows {
        assert_eq!(rows, bed.rows(table).len() as u64, "{table:?}");
    }
    // Rows that give authority, or take it.
    for table in [Table::Leases, Table::Tasks, Table::Cuts, Table::Bars, Table::Retries, Table::Streams, Table::Notices]
    {
        let rows = bed.rows(table);
        bed.damage(table);
        let report = check(bed.store.engine().as_ref(), row_key(), |_, _| {}).unwrap();
        assert_eq!(report.unreadable_total, rows.len() as u64, "{table:?}");
        assert!(report.unreadable.iter().all(|row| row.table == table), "{:?}", report.unreadable);
        bed.edit(rows.into_iter().map(|(key, value)| Op::Put(table, key, value)));
    }
}

/// A change of the trust map that writes no row but its own.
pub(super) fn change_trust(bed: &Bed) {
    let events = vec![bed.event("trust.applied", None)];
    wait(bed.ledger().apply(TrustCommit { events, ..trust_commit(bed) }, || {})).unwrap();
}

/// A change of the trust map in which nothing changes.
pub(super) fn trust_commit(bed: &Bed) -> TrustCommit {
    TrustCommit::new(bed.ledger().basis().1, bed.now)
}

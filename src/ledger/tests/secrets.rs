//! Static secrets and waiting credentials as rows.

use super::{
    harness::{Bed, Kind, row_key, wait},
    on_each_engine,
};
use crate::{
    ledger::{
        EndTask, HandOut, IssueDraft, PickedUp, PickupDraft, Refused, SecretCommit, Spend, ValueChange, Waiting, check,
        engine::Table,
    },
    model::{
        CredentialKind, Digest, EndReason, Lease, Scope, ScopeId, SecretVersion, Standing, Task, TenantNumber,
        WorkloadName,
    },
    pb, records,
};

on_each_engine! {
    what_was_put_and_who_has_it_outlives_a_restart,
    a_change_made_from_an_older_state_is_refused,
    a_hand_out_that_was_decided_before_a_rotation_is_refused_after_it,
    a_damaged_secret_is_handed_out_by_nobody_and_concerns_no_other,
    a_damaged_handle_is_nobodys,
    a_waiting_credential_is_taken_once_also_by_many_at_a_time,
    what_nobody_took_frees_its_quota,
    what_was_picked_up_ends_with_who_took_it,
    who_is_barred_picks_nothing_up,
    a_token_that_others_used_up_picks_nothing_up,
    what_waits_for_a_lease_that_ended_is_gone,
    what_a_revoked_task_got_is_told_whatever_was_begun_since,
    what_is_not_noted_is_told_to_be_missing,
    a_secret_whose_lease_is_released_after_a_cut_is_told_of,
    a_token_that_only_took_something_is_used_up_for_others_and_opens_one_task_for_its_own_key,
}

/// Another workload that comes with the handle.
pub(super) fn taker(bed: &Bed, lease: &Lease) -> PickupDraft {
    let by: WorkloadName = "taker".parse().unwrap();
    PickupDraft { proofs: vec![ScopeId::workload(&lease.tenant, &by)], by: Some(by), ..pickup(bed, lease) }
}

fn taker_scope() -> Scope {
    Scope::Workload("acme".parse().unwrap(), "taker".parse().unwrap())
}

fn what_was_picked_up_ends_with_who_took_it(bed: &mut Bed) {
    let lease = waiting(bed);
    wait(bed.ledger().pick_up(taker(bed, &lease))).unwrap();
    assert!(bed.is_live(lease.id));
    bed.cut(taker_scope(), false).unwrap();
    assert!(!bed.is_live(lease.id));
    bed.reopen();
    assert!(!bed.is_live(lease.id));
}

fn who_is_barred_picks_nothing_up(bed: &mut Bed) {
    let lease = waiting(bed);
    bed.bar(taker_scope(), false).unwrap();
    let refused = wait(bed.ledger().pick_up(taker(bed, &lease))).map(drop);
    assert_eq!(refused, Err(Refused::Barred(taker_scope().id())));
    assert!(bed.is_live(lease.id), "who may still takes it");
    assert_eq!(take(bed, &lease), Ok(PickedUp::Taken(vec![9; 40])));
}

fn a_token_that_others_used_up_picks_nothing_up(bed: &mut Bed) {
    let lease = waiting(bed);
    let by = |key: &[u8]| Spend {
        token: Digest::of(b"token"),
        key: Digest::of(key),
        keys: 1,
        opens: None,
        until: lease.expires,
    };
    let mine = IssueDraft { spend: Some(by(b"mine")), ..bed.draft(&bed.new_lease(&bed.task())) };
    wait(bed.ledger().issue(mine)).unwrap();
    let with = |key: &[u8]| PickupDraft { spend: Some(by(key)), ..pickup(bed, &lease) };
    let refused = wait(bed.ledger().pick_up(with(b"a thief's"))).map(drop);
    assert!(matches!(refused, Err(Refused::TokenSpent { .. })), "{refused:?}");
    assert!(wait(bed.ledger().pick_up(with(b"mine"))).is_ok());
}

fn what_waits_for_a_lease_that_ended_is_gone(bed: &mut Bed) {
    let lease = waiting(bed);
    assert_eq!(bed.release(lease.id), Ok(true));
    let rows = bed.rows(Table::Pickups);
    assert!(rows.iter().all(|(_, value)| !value.windows(40).any(|part| part == [9; 40])));
}

fn a_token_that_only_took_something_is_used_up_for_others_and_opens_one_task_for_its_own_key(bed: &mut Bed) {
    let lease = waiting(bed);
    let by = |key: &[u8], opens: Option<&[u8]>| Spend {
        token: Digest::of(b"token"),
        key: Digest::of(key),
        keys: 1,
        opens: opens.map(Digest::of),
        until: lease.expires,
    };
    let taking = PickupDraft { spend: Some(by(b"mine", None)), ..pickup(bed, &lease) };
    wait(bed.ledger().pick_up(taking)).unwrap();
    bed.reopen();
    let open = |bed: &Bed, spend: Spend| {
        let task = bed.new_task();
        let lease = bed.new_lease(&task);
        let draft = IssueDraft { new_task: Some(task.clone()), spend: Some(spend), ..bed.draft(&lease) };
        wait(bed.ledger().issue(draft)).map(|_| task.id)
    };
    assert_eq!(open(bed, by(b"a thief's", Some(b"a"))), Err(Refused::TokenSpent { first: None }));
    let task = open(bed, by(b"mine", Some(b"a"))).unwrap();
    assert_eq!(open(bed, by(b"mine", Some(b"b"))), Err(Refused::TokenOpened), "one task, and no second one");
    assert_eq!(open(bed, by(b"a thief's", Some(b"a"))), Err(Refused::TokenSpent { first: Some(task) }));
    // When the token is over, nothing is left of it.
    bed.advance(3_600);
    bed.sweep();
    assert!(bed.rows(Table::Spent).is_empty());
}

fn a_secret_whose_lease_is_released_after_a_cut_is_told_of(bed: &mut Bed) {
    put(bed, "stripe");
    let lease = secret_lease(bed, &bed.task(), "stripe");
    issue(bed, &lease).unwrap();
    bed.cut(super::harness::partner(), false).unwrap();
    // The walk behind the cut finds it ended.
    assert_eq!(bed.release(lease.id), Ok(false));
    let [told] = rotations(bed).try_into().unwrap();
    assert_eq!(
        (told.lease_id.as_str(), told.reason.as_str()),
        (lease.id.to_string().as_str(), "its lease was revoked")
    );
    // What its own holder ends before a cut is nobody's concern.
    let lease = secret_lease(bed, &bed.task(), "stripe");
    issue(bed, &lease).unwrap();
    assert_eq!(bed.release(lease.id), Ok(true));
    bed.cut(super::harness::partner(), false).unwrap();
    assert_eq!(rotations(bed).len(), 1);
}

/// Revokes a task, and says which events ask for a rotation then.
fn told_by_revoking(bed: &Bed, task: &Task) -> Vec<pb::Event> {
    let event = pb::Event { reason: "leaked".into(), ..bed.event("task.revoked", None) };
    let end = EndTask { task: task.id, why: EndReason::Revoked, event, now: bed.now };
    assert!(wait(bed.ledger().end_task(end)).unwrap().0);
    rotations(bed)
}

/// Events that ask for a rotation.
fn rotations(bed: &Bed) -> Vec<pb::Event> {
    let pages = bed.ledger().audit_pages(&crate::ledger::stream_id("acme", "north"), 0, usize::MAX).unwrap();
    let events = pages.into_iter().flat_map(|(_, page)| page.unwrap().events);
    let events = events.map(|bytes| <pb::Event as prost::Message>::decode(bytes.as_slice()).unwrap());
    events.filter(|event| event.kind == "secret.needs_rotation").collect()
}

fn what_a_revoked_task_got_is_told_whatever_was_begun_since(bed: &mut Bed) {
    put(bed, "stripe");
    let above = bed.task();
    let child = bed.child(&above);
    let stolen = secret_lease(bed, &child, "stripe");
    issue(bed, &stolen).unwrap();
    // It hides among many tasks, and what it had is over.
    for _ in 0..70 {
        bed.child(&above);
    }
    assert_eq!(bed.release(stolen.id), Ok(true));
    assert_eq!(bed.complete(child.id), Ok(true));
    bed.reopen();
    let [told] = told_by_revoking(bed, &above).try_into().unwrap();
    assert_eq!((told.lease_id, told.task_id), (stolen.id.to_string(), child.id.to_string()));
    for detail in ["secret=stripe", "secret_version=1", "scope=secret acme/stripe", "leases=1"] {
        assert!(told.details.iter().any(|said| said == detail), "{detail}: {:?}", told.details);
    }
}

fn what_is_not_noted_is_told_to_be_missing(bed: &mut Bed) {
    let task = bed.task();
    for at in 0..=Task::MAX_SECRETS {
        let name = format!("key-{at}");
        put(bed, &name);
        issue(bed, &secret_lease(bed, &task, &name)).unwrap();
    }
    let told = told_by_revoking(bed, &task);
    assert_eq!(told.len(), Task::MAX_SECRETS + 1);
    assert!(told.iter().all(|event| event.reason == "leaked" && event.at.is_some()));
    let partly = |event: &&pb::Event| event.details.iter().any(|detail| detail == "incomplete=true");
    assert_eq!(told.iter().filter(partly).count(), 1);
}

fn number() -> TenantNumber {
    TenantNumber::new(1).unwrap()
}

fn commit(bed: &Bed, name: &str, version: u32, before: Option<u64>) -> SecretCommit {
    let row = records::SecretVersionRecord { number: version, made: bed.now.millis(), ..Default::default() };
    SecretCommit {
        tenant: number(),
        name: name.parse().unwrap(),
        scope: Scope::Secret("acme".parse().unwrap(), name.parse().unwrap()).id(),
        before,
        record: records::SecretRecord {
            name: name.into(),
            versions: vec![row],
            changes: before.unwrap_or(0) + 1,
            ..Default::default()
        },
        value: ValueChange::Put(records::SecretValueRecord { version, sealed: vec![7; 40] }),
        cut: None,
        event: bed.event("secret.put", None),
        now: bed.now,
    }
}

fn put(bed: &Bed, name: &str) {
    wait(bed.ledger().change_secret(commit(bed, name, 1, None))).unwrap();
}

fn secret_lease(bed: &Bed, task: &Task, name: &str) -> Lease {
    let secret = SecretVersion { name: name.parse().unwrap(), number: 1 };
    Lease { kind: CredentialKind::Secret, secret: Some(Box::new(secret)), ..bed.new_lease(task) }
}

fn issue(bed: &Bed, lease: &Lease) -> Result<(), Refused> {
    remembered_for(bed, lease, 1)
}

fn remembered_for(bed: &Bed, lease: &Lease, hours: u64) -> Result<(), Refused> {
    let hand_out = HandOut { holder_until: bed.now.after(std::time::Duration::from_hours(hours)), waits: None };
    let draft = IssueDraft { hand_out: Some(hand_out), ..bed.draft(lease) };
    wait(bed.ledger().issue(draft)).map(drop)
}

/// A lease that waits a minute, for whoever has its handle.
fn waiting(bed: &Bed) -> Lease {
    waiting_for(bed, "")
}

/// A lease that waits a minute; for one workload alone, unless it is empty.
pub(super) fn waiting_for(bed: &Bed, workload: &str) -> Lease {
    let lease =
        Lease { pickup_until: Some(bed.now.after(std::time::Duration::from_mins(1))), ..bed.new_lease(&bed.task()) };
    let waits = Waiting { handle: Digest::of(b"handle"), sealed: vec![9; 40], workload: workload.to_owned() };
    let hand_out = HandOut { holder_until: bed.now, waits: Some(waits) };
    wait(bed.ledger().issue(IssueDraft { hand_out: Some(hand_out), ..bed.draft(&lease) })).unwrap();
    lease
}

pub(super) fn pickup(bed: &Bed, lease: &Lease) -> PickupDraft {
    let by: WorkloadName = "runner".parse().unwrap();
    PickupDraft {
        lease: lease.id,
        handle: Digest::of(b"handle"),
        by: Some(by),
        needs_key: false,
        proofs: vec![ScopeId::workload(&lease.tenant, &"runner".parse().unwrap())],
        parent: None,
        spend: None,
        basis: bed.ledger().basis(),
        taken: bed.event("pickup.taken", Some(lease.id)),
        misused: bed.event("pickup.misused", Some(lease.id)),
        now: bed.now,
    }
}

pub(super) fn take(bed: &Bed, lease: &Lease) -> Result<PickedUp, Refused> {
    wait(bed.ledger().pick_up(pickup(bed, lease))).map(|(outcome, _)| outcome)
}

fn holders(bed: &Bed, name: &str) -> usize {
    let prefix = crate::ledger::keys::secret_holders(number(), &name.parse().unwrap());
    bed.ledger().secret_holders(&prefix, &[], 100).unwrap().0.len()
}

fn what_was_put_and_who_has_it_outlives_a_restart(bed: &mut Bed) {
    put(bed, "stripe");
    put(bed, "stripe-2");
    let lease = secret_lease(bed, &bed.task(), "stripe");
    issue(bed, &lease).unwrap();
    bed.reopen();
    let name = "stripe".parse().unwrap();
    assert_eq!(bed.ledger().secret(number(), &name).unwrap().flatten().unwrap().name, "stripe");
    assert_eq!(bed.ledger().secret_value(number(), &name).unwrap().unwrap().sealed, [7; 40]);
    // A name that another one begins with is another secret.
    assert_eq!((holders(bed, "stripe"), holders(bed, "stripe-2")), (1, 0));
    assert_eq!(bed.ledger().last_held_version(number(), &name), Ok(1));
    assert_eq!(bed.ledger().lease(lease.id).unwrap().unwrap().secret, lease.secret);
}

fn a_change_made_from_an_older_state_is_refused(bed: &mut Bed) {
    put(bed, "stripe");
    let again = wait(bed.ledger().change_secret(commit(bed, "stripe", 1, None)));
    assert_eq!(again.map(drop), Err(Refused::Moved));
    wait(bed.ledger().change_secret(commit(bed, "stripe", 2, Some(1)))).unwrap();
    let late = wait(bed.ledger().change_secret(commit(bed, "stripe", 2, Some(1))));
    assert_eq!(late.map(drop), Err(Refused::Moved));
}

fn a_hand_out_that_was_decided_before_a_rotation_is_refused_after_it(bed: &mut Bed) {
    put(bed, "stripe");
    let lease = secret_lease(bed, &bed.task(), "stripe");
    wait(bed.ledger().change_secret(commit(bed, "stripe", 2, Some(1)))).unwrap();
    assert_eq!(issue(bed, &lease), Err(Refused::Moved));
    assert_eq!(holders(bed, "stripe"), 0);
    issue(bed, &secret_lease(bed, &bed.task(), "stripe")).unwrap();
}

fn a_damaged_secret_is_handed_out_by_nobody_and_concerns_no_other(bed: &mut Bed) {
    put(bed, "stripe");
    let lease = bed.lease(&bed.task());
    for table in [Table::Secrets, Table::SecretValues] {
        bed.damage(table);
        bed.reopen();
        let report = {
            bed.close();
            check(&*bed.store.engine(), row_key(), |_, _| ()).unwrap()
        };
        assert!(report.unreadable.iter().any(|row| row.table == table), "{report:?}");
        bed.reopen();
    }
    let name = "stripe".parse().unwrap();
    assert_eq!(bed.ledger().secret(number(), &name), Ok(Some(None)));
    assert_eq!(bed.ledger().secret_value(number(), &name), Ok(None));
    assert!(bed.is_live(lease.id));
    // It can be put anew.
    put(bed, "stripe");
    assert!(bed.ledger().secret(number(), &name).unwrap().flatten().is_some());
}

fn a_damaged_handle_is_nobodys(bed: &mut Bed) {
    let lease = waiting(bed);
    bed.damage(Table::Pickups);
    bed.reopen();
    assert_eq!(take(bed, &lease), Err(Refused::Unknown));
}

fn a_waiting_credential_is_taken_once_also_by_many_at_a_time(bed: &mut Bed) {
    let lease = waiting(bed);
    // Who has not the key that it asks for ends nothing while it waits, and is a second one afterwards.
    let keyless = || PickupDraft { needs_key: true, ..pickup(bed, &lease) };
    assert_eq!(wait(bed.ledger().pick_up(keyless())).map(drop), Err(Refused::KeyNeeded));
    assert!(bed.is_live(lease.id));
    let wrong = PickupDraft { handle: Digest::of(b"another"), ..pickup(bed, &lease) };
    assert_eq!(wait(bed.ledger().pick_up(wrong)).map(drop), Err(Refused::Unknown));
    let ledger = bed.ledger();
    let all = std::thread::scope(|scope| {
        let drafts: Vec<_> = (0..8).map(|_| pickup(bed, &lease)).collect();
        let run: Vec<_> = drafts.into_iter().map(|draft| scope.spawn(move || wait(ledger.pick_up(draft)))).collect();
        run.into_iter().map(|run| run.join().unwrap().map(|(outcome, _)| outcome)).collect::<Vec<_>>()
    });
    let count = |wanted: &Result<PickedUp, Refused>| all.iter().filter(|one| *one == wanted).count();
    assert_eq!(count(&Ok(PickedUp::Taken(vec![9; 40]))), 1, "{all:?}");
    assert_eq!(count(&Ok(PickedUp::Misused)), 1, "{all:?}");
    assert_eq!(count(&Err(Refused::LeaseEnded(EndReason::Revoked))), 6, "{all:?}");
    assert!(!bed.is_live(lease.id));
    // And nothing is kept of it.
    let rows = bed.rows(Table::Pickups);
    assert!(rows.iter().all(|(_, value)| !value.windows(40).any(|part| part == [9; 40])));
}

fn what_nobody_took_frees_its_quota(bed: &mut Bed) {
    let lease = waiting(bed);
    let tenant = super::harness::tenant();
    assert_eq!(bed.live(&tenant), 1);
    bed.advance(59);
    assert_eq!(wait(bed.ledger().lapse_pickups(bed.now)), Ok(false));
    assert!(bed.is_live(lease.id));
    bed.advance(1);
    assert_eq!(bed.standing(lease.id), Standing::Ended(EndReason::NotPickedUp));
    assert_eq!(wait(bed.ledger().lapse_pickups(bed.now)), Ok(false));
    assert_eq!((bed.live(&tenant), bed.standing(lease.id)), (0, Standing::Ended(EndReason::NotPickedUp)));
    let kept: Vec<_> = bed.audited();
    assert_eq!(kept.iter().filter(|id| **id == lease.id.to_string()).count(), 2, "issued and expired");
    bed.advance(1_000);
    bed.sweep();
    assert!(bed.rows(Table::Pickups).is_empty());
}

#[test]
fn who_has_a_secret_is_remembered_from_the_first_time_to_the_last_and_for_as_long_as_the_longest() {
    for (hours, then, kept_seconds) in [(3, 1, 3 * 3_600), (1, 3, 60 + 3 * 3_600)] {
        let mut bed = Bed::new(Kind::Memory);
        put(&bed, "stripe");
        let (task, first) = (bed.task(), bed.now);
        remembered_for(&bed, &secret_lease(&bed, &task, "stripe"), hours).unwrap();
        bed.advance(60);
        let last = secret_lease(&bed, &task, "stripe");
        remembered_for(&bed, &last, then).unwrap();
        let prefix = crate::ledger::keys::secret_holders(number(), &"stripe".parse().unwrap());
        let record = bed.ledger().secret_holders(&prefix, &[], 9).unwrap().0.remove(0).record;
        let kept_until = first.after(std::time::Duration::from_secs(kept_seconds));
        assert_eq!((record.first, record.last, record.times), (first.millis(), bed.now.millis(), 2));
        assert_eq!((record.kept_until, record.lease), (kept_until.millis(), last.id.as_bytes().to_vec()));
        bed.advance(2 * 3_600);
        bed.sweep();
        assert_eq!(holders(&bed, "stripe"), 1, "{hours}, then {then}");
        bed.advance(3_600 + 60);
        bed.sweep();
        assert_eq!(holders(&bed, "stripe"), 0, "{hours}, then {then}");
    }
}

#[test]
fn of_what_was_rotated_nobody_needs_to_be_told() {
    for (ended, told) in [(1, 0), (2, 1)] {
        let bed = Bed::new(Kind::Memory);
        put(&bed, "stripe");
        let task = bed.task();
        issue(&bed, &secret_lease(&bed, &task, "stripe")).unwrap();
        let mut change = commit(&bed, "stripe", 2, Some(1));
        let version = |number| records::SecretVersionRecord {
            number,
            ended: if number == ended { bed.now.millis() } else { 0 },
            ..Default::default()
        };
        change.record.versions = vec![version(1), version(2)];
        wait(bed.ledger().change_secret(change)).unwrap();
        assert_eq!(told_by_revoking(&bed, &task).len(), told, "{ended} is over");
    }
}

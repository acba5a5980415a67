//! Rows that were changed behind the ledger's back.

use super::{
    harness::{Bed, Kind, row_key, tenant},
    on_each_engine,
};
use crate::{
    ledger::{
        OpenError, Refused, check,
        engine::{Op, Table},
        keys,
    },
    model::{EndReason, Standing},
};

on_each_engine! {
    a_damaged_lease_is_not_live,
    a_damaged_task_has_ended,
    a_damaged_cut_still_cuts,
    a_damaged_bar_bars_and_suspends,
    a_damaged_suspension_suspends_for_its_reason,
    a_removed_cut_or_bar_is_noticed,
    a_bar_that_was_put_back_to_a_milder_one_is_noticed,
    a_damaged_ledger_row_begins_a_new_incarnation_in_which_the_old_leases_are_dead,
    a_wrong_seal_key_opens_nothing,
    a_newer_schema_is_refused,
    a_check_reports_every_kind_of_damaged_row,
}

fn a_damaged_lease_is_not_live(bed: &mut Bed) {
    let lease = bed.lease(&bed.task());
    bed.damage(Table::Leases);
    bed.reopen();
    assert!(!bed.is_live(lease.id));
    assert_eq!(bed.ledger().aside().total(), 1);
    assert_eq!(bed.release(lease.id), Ok(false));
}

fn a_damaged_task_has_ended(bed: &mut Bed) {
    let task = bed.task();
    let lease = bed.lease(&task);
    bed.damage(Table::Tasks);
    bed.reopen();
    assert!(!bed.is_live(lease.id));
    assert_eq!(bed.issue(&bed.new_lease(&task)), Err(Refused::TaskEnded(EndReason::Damaged)));
    assert_eq!(bed.complete(task.id), Ok(false));
}

fn a_damaged_cut_still_cuts(bed: &mut Bed) {
    let lease = bed.lease(&bed.task());
    bed.cut(tenant(), false).unwrap();
    let later = bed.lease(&bed.task());
    bed.damage(Table::Cuts);
    bed.reopen();
    assert!(!bed.is_live(lease.id));
    assert!(bed.is_live(later.id));
    bed.advance(4_000);
    bed.sweep();
    assert_eq!(bed.ledger().cuts_and_bars().0, 1);
}

fn a_damaged_bar_bars_and_suspends(bed: &mut Bed) {
    let task = bed.task();
    let lease = bed.lease(&task);
    bed.bar(tenant(), false).unwrap();
    bed.damage(Table::Bars);
    bed.reopen();
    assert_eq!(bed.standing(lease.id), Standing::Suspended);
    assert_eq!(bed.issue(&bed.new_lease(&task)), Err(Refused::Barred(tenant().id())));
    assert_eq!(bed.lift(tenant()), Ok(true));
    assert!(bed.is_live(lease.id));
}

fn a_damaged_suspension_suspends_for_its_reason(bed: &mut Bed) {
    let lease = bed.lease(&bed.task());
    let now = bed.now;
    let custody = |may_shorten| crate::ledger::Custody::Suspend {
        scope: tenant(),
        cause: crate::model::Suspension::Quarantine,
        until: Some(now),
        auto_lift: true,
        may_shorten,
        operator: "test".into(),
        reason: "test".into(),
    };
    let act = |bed: &Bed, may_shorten| {
        let acts = vec![(custody(may_shorten), crate::pb::Event { kind: "test".into(), ..Default::default() })];
        let draft = crate::ledger::CustodyDraft { acts, basis: None, now: bed.now };
        super::harness::wait(bed.ledger().custody(draft)).map(|(changed, _)| changed)
    };
    act(bed, true).unwrap();
    bed.damage(Table::Bars);
    bed.reopen();
    assert_eq!(bed.standing(lease.id), Standing::Suspended);
    assert_eq!(bed.ledger().held_for(crate::model::Suspension::Quarantine), [tenant().id()]);
    // Nobody knows what it was, so only who may lift it may put another in its place.
    assert_eq!(act(bed, false), Err(Refused::Barred(tenant().id())));
    assert_eq!(act(bed, true), Ok(1));
    assert_eq!(bed.ledger().doubt, None);
}

fn a_removed_cut_or_bar_is_noticed(bed: &mut Bed) {
    for table in [Table::Cuts, Table::Bars] {
        bed.cut(tenant(), true).unwrap();
        bed.reopen();
        assert_eq!(bed.ledger().doubt, None);
        let rows = bed.rows(table);
        bed.edit([Op::Delete(table, rows[0].0.clone())]);
        bed.reopen();
        assert!(bed.ledger().doubt.is_some());
        bed.edit([Op::Put(table, rows[0].0.clone(), rows[0].1.clone())]);
        bed.reopen();
        assert_eq!(bed.ledger().doubt, None);
    }
}

fn a_bar_that_was_put_back_to_a_milder_one_is_noticed(bed: &mut Bed) {
    bed.bar(tenant(), false).unwrap();
    assert_eq!(bed.ledger().cuts_and_bars(), (0, 1));
    let milder = bed.rows(Table::Bars);
    bed.reopen();
    assert!(bed.bar(tenant(), true).unwrap());
    assert_eq!(bed.rows(Table::Bars).len(), milder.len());
    bed.reopen();
    assert_eq!(bed.ledger().doubt, None);
    bed.edit(milder.into_iter().map(|(key, value)| Op::Put(Table::Bars, key, value)));
    bed.reopen();
    assert!(bed.ledger().doubt.is_some());
}

fn a_damaged_ledger_row_begins_a_new_incarnation_in_which_the_old_leases_are_dead(bed: &mut Bed) {
    let task = bed.task();
    let lease = bed.lease(&task);
    let before = bed.ledger().basis();
    bed.edit([Op::Put(Table::Meta, keys::META.to_vec(), b"damaged".to_vec())]);
    bed.reopen();
    assert!(bed.ledger().doubt.is_some());
    let after = bed.ledger().basis();
    assert_ne!(after.0, before.0);
    assert!(after.1 > before.1);
    assert!(!bed.is_live(lease.id));
    assert_eq!(bed.ledger().task_standing(&task, bed.now), Ok(Standing::Ended(EndReason::Revoked)));
    // Nothing begins under what is dead, and everything else goes on.
    assert_eq!(bed.issue(&bed.new_lease(&task)), Err(Refused::TaskEnded(EndReason::Revoked)));
    let lease = bed.lease(&bed.task());
    bed.reopen();
    assert!(bed.is_live(lease.id));
    assert_eq!(bed.ledger().basis().0, after.0);
}

fn a_wrong_seal_key_opens_nothing(bed: &mut Bed) {
    assert!(matches!(bed.open(2), Err(OpenError::WrongSealKey)));
    bed.reopen();
}

fn a_newer_schema_is_refused(bed: &mut Bed) {
    let codec = crate::ledger::codec::Codec::new(row_key());
    let record = crate::records::MetaRecord { schema: u32::MAX, ..Default::default() };
    let value = codec.encode(Table::Meta, keys::META, &record);
    bed.edit([Op::Put(Table::Meta, keys::META.to_vec(), value)]);
    assert!(matches!(bed.open(1), Err(OpenError::Schema(_))));
}

fn a_check_reports_every_kind_of_damaged_row(bed: &mut Bed) {
    bed.lease(&bed.task());
    bed.cut(tenant(), true).unwrap();
    bed.close();
    let engine = bed.store.engine();
    assert_eq!(check(engine.as_ref(), row_key(), |_, _| ()).unwrap().unreadable_total, 0);
    drop(engine);
    let is_framed = |table: Table, key: &[u8]| !(table == Table::Meta && key == keys::FOUNDING);
    let mut damaged = 0;
    for table in Table::ALL {
        let rows: Vec<_> =
            bed.rows(table).into_iter().filter(|(key, value)| is_framed(table, key) && !value.is_empty()).collect();
        damaged += rows.len() as u64;
        bed.edit(rows.into_iter().map(|(key, mut value)| {
            value[0] ^= 0x40;
            Op::Put(table, key, value)
        }));
    }
    let report = check(bed.store.engine().as_ref(), row_key(), |_, _| ()).unwrap();
    assert!(damaged >= 8);
    assert_eq!(report.unreadable_total, damaged);
}

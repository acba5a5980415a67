//! `mayfly store check`: every row is read as what it is.

use super::{
    harness::{Bed, Kind, row_key, wait},
    on_each_engine,
    sign_ins::draft,
    tells::trust_commit,
};
use crate::{
    ledger::{
        CheckReport, PeopleCommit, SignInDraft, TenantChange, TrustCommit, UseRow, check,
        engine::{Op, Table, memory::Memory},
        fits, keys,
    },
    model::{Digest, PersonId, TenantNumber, id::hex},
    records,
};

on_each_engine! {
    rows_that_share_a_table_are_each_read_as_what_they_are,
}

fn checked(bed: &Bed) -> CheckReport {
    check(bed.store.engine().as_ref(), row_key(), |_, _| ()).unwrap()
}

/// A tenant and its name, what is known of a grant and when it was used, a person, what finds it, and a sign-in.
fn rows_that_share_a_table_are_each_read_as_what_they_are(bed: &mut Bed) {
    let number = TenantNumber::new(1).unwrap();
    let (tenant, grant) = ("acme".parse().unwrap(), "read".parse().unwrap());
    let change = TenantChange {
        number,
        name: tenant,
        trust: b"{}".to_vec(),
        hash: Digest::of(b"{}"),
        version: 1,
        removed: false,
        gone: vec![],
    };
    let state = records::GrantStateRecord { attest_by: 1, operator: "olga".into(), ..Default::default() };
    let uses = vec![UseRow { tenant: number, grant: "read".parse().unwrap(), since: bed.now, last_used: bed.now }];
    let grant_states = vec![(number, grant, state)];
    let commit = TrustCommit { tenants: vec![change], grant_states, uses, ..trust_commit(bed) };
    wait(bed.ledger().apply(commit, || {})).unwrap();
    let record = records::PersonRecord { user_name: "anna@example.com".into(), active: true, ..Default::default() };
    let puts = vec![(PersonId([7; 16]), record)];
    wait(bed.ledger().put_people(PeopleCommit { puts, now: bed.now, ..Default::default() }, || {})).unwrap();
    let mut sign_in: SignInDraft = draft(bed, 1, b"token");
    sign_in.record.rule_sha256 = vec![0xff; 32];
    wait(bed.ledger().sign_in(sign_in)).unwrap();
    bed.close();
    let report = checked(bed);
    assert_eq!(report.unreadable_total, 0, "{:?}", report.unreadable);
    // What only finds another row has no code of its own; of the others each changed one is found.
    for (table, finders) in [(Table::Trust, 1), (Table::GrantStates, 0), (Table::People, 1)] {
        let rows = bed.rows(table);
        assert!(rows.len() >= 2, "{table:?}");
        bed.damage(table);
        assert_eq!(checked(bed).unreadable_total, rows.len() as u64 - finders, "{table:?}");
        bed.edit(rows.into_iter().map(|(key, value)| Op::Put(table, key, value)));
    }
}

#[test]
fn a_thousand_unreadable_rows_are_listed_and_all_are_counted() {
    let mut bed = Bed::new(Kind::Memory);
    let key = |n: u32| n.to_be_bytes().to_vec();
    for (damaged, listed) in [(999, 999), (1_000, 1_000), (1_001, 1_000)] {
        bed.edit((0..damaged).map(|n| Op::Put(Table::Sinks, key(n), b"junk".to_vec())));
        let report = checked(&bed);
        assert_eq!((report.unreadable_total, report.unreadable.len()), (u64::from(damaged), listed));
        let first = &report.unreadable[0];
        assert_eq!((first.table, &first.key), (Table::Sinks, &hex(&key(0))));
    }
}

#[test]
fn a_store_that_does_not_say_under_which_key_it_was_made_is_for_the_check_to_judge() {
    let (empty, seal_check) = (Memory::new(), [1; 32]);
    assert!(fits(&empty, row_key(), &seal_check).is_ok());
    let mut bed = Bed::new(Kind::Memory);
    bed.edit([Op::Delete(Table::Meta, keys::FOUNDING.to_vec())]);
    let engine = bed.store.engine();
    assert_eq!(engine.get(Table::Meta, keys::FOUNDING).unwrap(), None);
    assert!(fits(engine.as_ref(), row_key(), &seal_check).is_ok());
}

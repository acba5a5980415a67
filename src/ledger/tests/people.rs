//! People and their sign-ins: what is told of them lasts, whole or not at all, and what cannot be read takes nothing of
//! others along.

use std::{collections::BTreeSet, time::Duration};

use super::{
    harness::{Bed, Kind, wait},
    on_each_engine,
};
use crate::{
    ledger::{
        PeopleCommit, Refused, SignInDraft,
        engine::{Op, Table, faulty::Fault},
        keys, person_keys,
    },
    model::{Digest, PersonId, PersonKey},
    records::{OwnerLeftRecord, PersonRecord, SignInRecord},
};

on_each_engine! {
    what_is_told_of_people_reads_back_after_reopening,
    what_a_person_is_found_by_follows_its_row,
    whose_row_is_damaged_is_known_and_nobody_else_is_touched,
    what_is_told_of_people_happens_whole_or_not_at_all,
    a_token_signs_in_once_in_the_commit_of_its_sign_in_and_after_reopening,
    a_sign_in_that_is_over_leaves_nothing_behind_and_one_that_is_damaged_is_over,
    a_sign_in_ends_once,
}

fn id(byte: u8) -> PersonId {
    PersonId([byte; PersonId::BYTES])
}

/// A row with all its fields.
fn person(name: &str) -> PersonRecord {
    PersonRecord {
        user_name: format!("{name}@acme.example"),
        former: vec![format!("Old.{name}@acme.example")],
        external_id: format!("e-{name}"),
        subject: format!("00u-{name}"),
        operator: "oncall".into(),
        active: true,
        provisioned: true,
        ended_until: 3,
        created: 1,
        changed: 2,
        removed: true,
        left: vec![OwnerLeftRecord {
            all_tenants: false,
            tenants: vec!["acme".into()],
            all_partners: true,
            partners: vec![],
            at: 4,
            by: "olga".into(),
        }],
    }
}

fn told(bed: &Bed, puts: Vec<(PersonId, PersonRecord)>, deletes: Vec<PersonId>) -> PeopleCommit {
    PeopleCommit { puts, deletes, events: vec![bed.event("person.changed", None)], now: bed.now }
}

fn tell(bed: &Bed, puts: Vec<(PersonId, PersonRecord)>, deletes: Vec<PersonId>) -> Result<(), Refused> {
    wait(bed.ledger().put_people(told(bed, puts, deletes), || ())).map(drop)
}

fn found_by(bed: &Bed, of: PersonId) -> BTreeSet<PersonKey> {
    bed.ledger().people_keys().unwrap().into_iter().filter(|(id, _)| *id == of).map(|(_, key)| key).collect()
}

fn what_is_told_of_people_reads_back_after_reopening(bed: &mut Bed) {
    let (ann, bob) = (person("ann"), person("bob"));
    tell(bed, vec![(id(2), bob.clone()), (id(1), ann.clone())], vec![]).unwrap();
    for _ in 0..2 {
        let people = bed.ledger().people().unwrap();
        assert_eq!(people, [(id(1), Some(ann.clone())), (id(2), Some(bob.clone()))]);
        bed.reopen();
    }
    tell(bed, vec![], vec![id(1)]).unwrap();
    bed.reopen();
    assert_eq!(bed.ledger().people().unwrap(), [(id(2), Some(bob))]);
}

fn what_a_person_is_found_by_follows_its_row(bed: &mut Bed) {
    tell(bed, vec![(id(1), person("ann")), (id(2), person("bob"))], vec![]).unwrap();
    assert_eq!(found_by(bed, id(1)), person_keys(&person("ann")));
    assert!(found_by(bed, id(1)).contains(&PersonKey::name("ANN@acme.example")));
    let renamed = PersonRecord { former: vec![], ..person("cleo") };
    // Twice in one commit: the last word counts.
    tell(bed, vec![(id(1), person("dora")), (id(1), renamed.clone())], vec![]).unwrap();
    bed.reopen();
    assert_eq!(found_by(bed, id(1)), person_keys(&renamed));
    assert_eq!(found_by(bed, id(2)), person_keys(&person("bob")));
    tell(bed, vec![], vec![id(1), id(2)]).unwrap();
    bed.reopen();
    assert!(bed.rows(Table::People).is_empty(), "something is left of who is gone");
}

fn whose_row_is_damaged_is_known_and_nobody_else_is_touched(bed: &mut Bed) {
    tell(bed, vec![(id(1), person("ann")), (id(2), person("bob"))], vec![]).unwrap();
    bed.edit([Op::Put(Table::People, keys::person(&id(1)), b"damaged".to_vec())]);
    bed.reopen();
    assert_eq!(bed.ledger().people().unwrap(), [(id(1), None), (id(2), Some(person("bob")))]);
    assert_eq!(found_by(bed, id(1)), person_keys(&person("ann")), "nobody can say whose it was");
    assert_eq!(bed.ledger().aside().total(), 1);
    // Taken away with all that it was found by.
    tell(bed, vec![], vec![id(1)]).unwrap();
    bed.reopen();
    assert_eq!(bed.ledger().people().unwrap().len(), 1);
    assert!(found_by(bed, id(1)).is_empty());
    // A row of another's making is no row.
    let rows = bed.rows(Table::People);
    let (_, value) = rows.iter().find(|(key, _)| *key == keys::person(&id(2))).unwrap();
    bed.edit([Op::Put(Table::People, keys::person(&id(3)), value.clone())]);
    bed.reopen();
    assert_eq!(bed.ledger().people().unwrap().last(), Some(&(id(3), None)), "a moved row counts");
}

fn what_is_told_of_people_happens_whole_or_not_at_all(bed: &mut Bed) {
    tell(bed, vec![(id(1), person("ann"))], vec![]).unwrap();
    for (fault, happens) in [(Fault::UnknownLost, false), (Fault::UnknownApplied, true)] {
        let before = bed.ledger().people().unwrap();
        // An end is tried once more by itself.
        bed.plan.lock().unwrap().extend([fault, Fault::UnknownLost]);
        let said = tell(bed, vec![(id(2), person("bob"))], vec![id(1)]);
        assert_eq!(said.is_ok(), happens, "{fault:?}");
        bed.plan.lock().unwrap().clear();
        for _ in 0..2 {
            let people = bed.ledger().people().unwrap();
            if happens {
                assert_eq!(people, [(id(2), Some(person("bob")))]);
                assert_eq!((found_by(bed, id(1)).len(), found_by(bed, id(2))), (0, person_keys(&person("bob"))));
            } else {
                assert_eq!(people, before, "half of it is there");
                assert_eq!((found_by(bed, id(1)), found_by(bed, id(2)).len()), (person_keys(&person("ann")), 0));
            }
            bed.reopen();
        }
    }
}

fn sign_in(bed: &Bed, byte: u8, token: &[u8]) -> SignInDraft {
    let record = SignInRecord {
        operator: "oncall".into(),
        subject: "00u-ann".into(),
        email: "ann@acme.example".into(),
        names: vec!["ann@acme.example".into(), "asmith".into()],
        rule_sha256: vec![1; 32],
        certificate_sha256: vec![2; 32],
        issued: bed.now.millis(),
        expires: bed.now.after(Duration::from_secs(600)).millis(),
        incarnation: bed.ledger().basis().0,
        directory_id: "oid-ann".into(),
    };
    SignInDraft {
        id: id(byte),
        record,
        token: Digest::of(token),
        key: Digest::of(b"key"),
        token_until: bed.now.after(Duration::from_secs(300)),
        event: bed.event("sign_in.began", None),
        now: bed.now,
    }
}

fn a_token_signs_in_once_in_the_commit_of_its_sign_in_and_after_reopening(bed: &mut Bed) {
    let first = sign_in(bed, 1, b"token");
    // An end is tried once more by itself.
    bed.plan.lock().unwrap().extend([Fault::UnknownLost, Fault::UnknownLost]);
    assert!(wait(bed.ledger().sign_in(first.clone())).is_err());
    bed.plan.lock().unwrap().clear();
    assert_eq!(bed.ledger().sign_in_row(&id(1)).unwrap(), None);
    wait(bed.ledger().sign_in(first.clone())).expect("what was lost used up nothing");
    for _ in 0..2 {
        assert_eq!(bed.ledger().sign_in_row(&id(1)).unwrap(), Some(first.record.clone()));
        let again = wait(bed.ledger().sign_in(sign_in(bed, 2, b"token"))).map(drop);
        assert_eq!(again, Err(Refused::TokenSpent { first: None }));
        assert_eq!(bed.ledger().sign_in_row(&id(2)).unwrap(), None);
        bed.reopen();
    }
    assert_eq!(bed.ledger().sign_ins().unwrap(), [first.record]);
}

fn a_sign_in_that_is_over_leaves_nothing_behind_and_one_that_is_damaged_is_over(bed: &mut Bed) {
    tell(bed, vec![(id(9), person("bob"))], vec![]).unwrap();
    wait(bed.ledger().sign_in(sign_in(bed, 1, b"one"))).unwrap();
    wait(bed.ledger().sign_in(sign_in(bed, 2, b"two"))).unwrap();
    bed.edit([Op::Put(Table::People, keys::sign_in(&id(2)), b"damaged".to_vec())]);
    bed.reopen();
    assert_eq!(bed.ledger().sign_in_row(&id(2)).unwrap(), None);
    assert_eq!(bed.ledger().sign_ins().unwrap().len(), 1);
    bed.advance(599);
    bed.sweep();
    assert!(bed.ledger().sign_in_row(&id(1)).unwrap().is_some(), "swept before its time");
    bed.advance(3_600);
    bed.sweep();
    bed.reopen();
    assert_eq!(bed.ledger().sign_in_row(&id(1)).unwrap(), None);
    assert_eq!(bed.ledger().people().unwrap(), [(id(9), Some(person("bob")))], "a sweep took a person along");
    let left: Vec<_> = bed.rows(Table::People).into_iter().map(|(key, _)| key).collect();
    assert!(left.iter().all(|key| key[0] != keys::SIGN_INS), "{left:?}");
}

fn a_sign_in_ends_once(bed: &mut Bed) {
    wait(bed.ledger().sign_in(sign_in(bed, 1, b"token"))).unwrap();
    let out = |bed: &Bed| {
        let event = bed.event("sign_in.ended", None);
        wait(bed.ledger().sign_out(id(1), event, bed.now)).map(|(changed, _)| changed)
    };
    assert_eq!(out(bed), Ok(true));
    for _ in 0..2 {
        assert_eq!(out(bed), Ok(false));
        assert_eq!(bed.ledger().sign_in_row(&id(1)).unwrap(), None);
        bed.reopen();
    }
}

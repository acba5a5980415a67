//! People's sign-ins, and tokens that may come once.

use std::time::Duration;

use super::{
    harness::{Bed, Kind, wait},
    on_each_engine,
};
use crate::{
    ledger::{Hold, PeopleCommit, Refused, SignInDraft, engine::Table},
    model::{Digest, PersonId},
    records,
};

on_each_engine! {
    a_token_signs_in_once_and_stays_used_after_reopening_and_damage,
    a_use_is_forgotten_with_the_token,
    a_sign_in_lasts_until_it_ends_or_is_ended,
    nobody_signs_in_while_the_store_is_held,
    what_happens_to_people_is_in_the_audit,
}

pub(super) fn draft(bed: &Bed, id: u8, token: &[u8]) -> SignInDraft {
    let record =
        records::SignInRecord { operator: "anna".into(), expires: bed.now.after(HOUR).millis(), ..Default::default() };
    SignInDraft {
        id: PersonId([id; 16]),
        record,
        token: Digest::of(token),
        key: Digest::of(b"key"),
        token_until: bed.now.after(Duration::from_mins(5)),
        event: bed.event("person.signed_in", None),
        now: bed.now,
    }
}

fn sign_in(bed: &Bed, id: u8, token: &[u8]) -> Result<(), Refused> {
    wait(bed.ledger().sign_in(draft(bed, id, token))).map(|_| ())
}

fn spend(bed: &Bed, what: &[u8]) -> Result<(), Refused> {
    wait(bed.ledger().spend_once(Digest::of(what), bed.now.after(Duration::from_mins(5)), bed.now)).map(|_| ())
}

const HOUR: Duration = Duration::from_hours(1);
const USED: Refused = Refused::TokenSpent { first: None };

fn a_token_signs_in_once_and_stays_used_after_reopening_and_damage(bed: &mut Bed) {
    sign_in(bed, 1, b"token").unwrap();
    spend(bed, b"once").unwrap();
    for round in 0..3 {
        assert_eq!(
            [sign_in(bed, 2, b"token"), spend(bed, b"token"), spend(bed, b"once")],
            [Err(USED), Err(USED), Err(USED)],
            "{round}"
        );
        assert!(bed.ledger().sign_in_row(&PersonId([2; 16])).unwrap().is_none(), "nothing of it is there");
        if round == 1 {
            bed.damage(Table::Spent);
        }
        bed.reopen();
    }
    sign_in(bed, 2, b"another").unwrap();
}

fn a_use_is_forgotten_with_the_token(bed: &mut Bed) {
    sign_in(bed, 1, b"token").unwrap();
    bed.advance(5 * 60 - 1);
    bed.sweep();
    assert_eq!((bed.ledger().is_spent(&Digest::of(b"token")), spend(bed, b"token")), (Ok(true), Err(USED)));
    bed.advance(120);
    bed.sweep();
    assert_eq!(bed.ledger().is_spent(&Digest::of(b"token")), Ok(false));
}

fn a_sign_in_lasts_until_it_ends_or_is_ended(bed: &mut Bed) {
    let is_there = |bed: &Bed, id: u8| bed.ledger().sign_in_row(&PersonId([id; 16])).unwrap().is_some();
    sign_in(bed, 1, b"one").unwrap();
    sign_in(bed, 2, b"two").unwrap();
    let out =
        |bed: &Bed| wait(bed.ledger().sign_out(PersonId([1; 16]), bed.event("person.out", None), bed.now)).unwrap().0;
    assert_eq!((out(bed), out(bed)), (true, false), "once");
    for _ in 0..2 {
        assert_eq!((is_there(bed, 1), is_there(bed, 2)), (false, true));
        bed.reopen();
    }
    assert_eq!(bed.audited().len(), 3);
    bed.advance(3_600 + 60);
    bed.sweep();
    assert!(bed.rows(Table::People).is_empty());
}

fn nobody_signs_in_while_the_store_is_held(bed: &mut Bed) {
    bed.ledger().holds().set(Hold::Restored);
    assert_eq!(sign_in(bed, 1, b"token"), Err(Refused::Held(Hold::Restored.explanation())));
    bed.ledger().holds().clear(Hold::Restored);
    sign_in(bed, 1, b"token").unwrap();
}

fn what_happens_to_people_is_in_the_audit(bed: &mut Bed) {
    let id = PersonId([7; 16]);
    let event = |kind: &str| vec![bed.event(kind, None)];
    let record = records::PersonRecord::default();
    let put =
        PeopleCommit { puts: vec![(id, record)], events: event("person.changed"), now: bed.now, ..Default::default() };
    wait(bed.ledger().put_people(put, || {})).unwrap();
    assert_eq!((bed.audited().len(), bed.ledger().people().unwrap().len()), (1, 1));
    let delete =
        PeopleCommit { deletes: vec![id], events: event("person.removed"), now: bed.now, ..Default::default() };
    wait(bed.ledger().put_people(delete, || {})).unwrap();
    assert_eq!((bed.audited().len(), bed.ledger().people().unwrap().len()), (2, 0));
}

//! How many appeals wait, and which stands in the way of another.

use std::time::Duration;

use super::harness::tenant;
use crate::{
    ledger::Refused,
    ledger::ops::appeals::{AGAIN, APPELLANT_MOST, FileDraft, Filed, TENANT_MOST, check_counts, stands_in_the_way},
    model::{Suspension, Timestamp},
    pb,
    records::AppealRecord,
};

fn kept(tenant: &str, appellant: &str, answered: u64) -> AppealRecord {
    AppealRecord {
        tenant: tenant.to_owned(),
        appellant: appellant.to_owned(),
        against: 7,
        answered,
        ..AppealRecord::default()
    }
}

#[test]
fn as_many_appeals_are_kept_as_their_bounds_say() {
    let draft = FileDraft {
        scope: tenant(),
        cause: Suspension::Dormant,
        tenant: "acme".to_owned(),
        partner: String::new(),
        appellant: "anna".to_owned(),
        reason: String::new(),
        event: pb::Event::default(),
        now: Timestamp::from_seconds(1_800_000_000),
    };
    let counts = |kept: &[AppealRecord]| check_counts(kept.iter(), &draft);
    // Those of others, and in other tenants, and what was answered, take nobody's place.
    let beside = [kept("acme", "bert", 0), kept("globex", "anna", 0), kept("acme", "anna", 1)];
    let mut all: Vec<AppealRecord> = (1..APPELLANT_MOST).map(|_| kept("acme", "anna", 0)).chain(beside).collect();
    assert_eq!(counts(&all), Ok(()));
    all.push(kept("acme", "anna", 0));
    assert_eq!(counts(&all), Err(Refused::Quota("appeals that one may have waiting")));
    let mut all: Vec<AppealRecord> = (1..TENANT_MOST).map(|_| kept("acme", "bert", 1)).collect();
    all.extend((0..TENANT_MOST).map(|_| kept("globex", "bert", 1)));
    assert_eq!(counts(&all), Ok(()));
    all.push(kept("acme", "bert", 1));
    assert_eq!(counts(&all), Err(Refused::Quota("tenant's appeals")));
}

#[test]
fn an_appeal_waits_or_was_refused_within_a_day_and_stands_in_no_other_way() {
    let answered = Timestamp::from_seconds(1_800_000_000);
    let (again, millisecond) = (answered.after(AGAIN), Duration::from_millis(1));
    let (waits, refused) = (kept("acme", "anna", 0), kept("acme", "anna", answered.millis()));
    for (known, against, now, way) in [
        (&waits, 7, again, Some(Filed::Waits(waits.clone()))),
        (&waits, 8, again, None),
        (&refused, 7, answered, Some(Filed::Refused(refused.clone(), again))),
        (&refused, 7, again.before(millisecond), Some(Filed::Refused(refused.clone(), again))),
        (&refused, 7, again, None),
        (&refused, 8, answered, None),
    ] {
        assert_eq!(stands_in_the_way(known, against, now), way);
    }
}

//! How many appeals wait, and which stands in the way of another.

use std::time::Duration;

use super::{
    custody::{act, suspend},
    harness::{Bed, Kind, tenant, wait},
};
use crate::{
    ledger::ops::appeals::{
        AGAIN, APPELLANT_MOST, AnswerDraft, FileDraft, Filed, TENANT_MOST, check_counts, stands_in_the_way,
    },
    ledger::{Custody, Refused, stream_id},
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

fn draft(now: Timestamp) -> FileDraft {
    FileDraft {
        scope: tenant(),
        cause: Suspension::Dormant,
        tenant: "acme".to_owned(),
        partner: String::new(),
        appellant: "anna".to_owned(),
        reason: String::new(),
        event: pb::Event { kind: "appeal.filed".into(), tenant: "acme".into(), ..Default::default() },
        // What was looked at is as it was.
        basis: u64::MAX,
        now,
    }
}

#[test]
fn an_appeal_is_answered_once_by_its_answer_or_by_the_end_of_what_it_is_against() {
    for granted in [true, false] {
        let bed = Bed::new(Kind::Memory);
        act(&bed, suspend(tenant(), Suspension::Dormant)).unwrap();
        let (Filed::New(seen), _) = wait(bed.ledger().file_appeal(draft(bed.now))).unwrap() else { panic!("filed") };
        let event = |kind: &str| pb::Event { kind: kind.into(), tenant: "acme".into(), ..Default::default() };
        let release = || {
            let causes = [Suspension::Dormant].into_iter().collect();
            act(&bed, Custody::Release { scope: tenant(), causes })
        };
        if granted {
            let (event, released) = (event("appeal.granted"), event("scope.lifted"));
            let answer = AnswerDraft {
                seen,
                granted,
                by: String::new(),
                reason: String::new(),
                event,
                released,
                basis: u64::MAX,
                now: bed.now,
            };
            assert!(wait(bed.ledger().answer_appeal(answer)).unwrap().0);
            assert_eq!(release(), Ok(0));
        } else {
            assert_eq!(release(), Ok(1));
        }
        let pages = bed.ledger().audit_pages(&stream_id("acme", ""), 0, usize::MAX).unwrap();
        let events = pages.into_iter().flat_map(|(_, page)| page.unwrap().events);
        let kinds: Vec<String> =
            events.map(|bytes| <pb::Event as prost::Message>::decode(bytes.as_slice()).unwrap().kind).collect();
        let told: &[&str] = if granted {
            &["appeal.filed", "appeal.granted", "scope.lifted"]
        } else {
            &["appeal.filed", "appeal.closed"]
        };
        assert_eq!(kinds, told);
        assert_eq!(bed.ledger().appeals(&[], 9).unwrap().0, []);
    }
}

#[test]
fn as_many_appeals_are_kept_as_their_bounds_say() {
    let draft = draft(Timestamp::from_seconds(1_800_000_000));
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

//! Keys: what is in them comes back, and none is taken for another's.

use crate::{
    ledger::{
        counts::Counts,
        keys::{self, Notice, Urgency},
    },
    model::{LeaseId, PersonId, PersonKey, ScopeId, SecretName, Suspension, TaskId, TenantNumber, Timestamp},
};

fn tenant(number: u32) -> TenantNumber {
    TenantNumber::new(number).unwrap()
}

/// That `parse` reads the key, and nothing that is a byte shorter or longer.
fn comes_back<T: PartialEq + std::fmt::Debug>(key: &[u8], parse: impl Fn(&[u8]) -> Option<T>, whole: T) {
    assert_eq!(parse(key), Some(whole), "{key:?}");
    let longer = [key, &[0]].concat();
    for other in [key.split_last().unwrap().1, &longer[..], &[][..]] {
        assert_eq!(parse(other), None, "{other:?}");
    }
}

#[test]
fn what_is_in_a_key_comes_back_and_from_no_key_of_another_length() {
    let (scope, task) = (ScopeId::signing_key("k"), TaskId::fresh(tenant(7)).unwrap());
    let (lease, at) = (LeaseId::fresh(task).unwrap(), Timestamp::from_millis(1_800_000_000_001));
    let (person, found_by) = (PersonId([3; 16]), PersonKey([4; 16]));
    comes_back(&keys::cut(scope, u64::MAX - 1), keys::parse_cut, (scope, u64::MAX - 1));
    comes_back(&keys::count(scope, 9), keys::parse_count, (scope, 9));
    comes_back(&keys::audit(&[5; 12], 6), keys::parse_audit, ([5; 12], 6));
    comes_back(&keys::person_key(&person, found_by), keys::parse_person_key, (person, found_by));
    comes_back(&keys::pickup_due(at, lease), keys::parse_pickup_due, (at, lease));
    assert_eq!(keys::parse_pickup_due(&keys::pickup(lease)), None);
    for cause in [None, Some(Suspension::Quarantine.code())] {
        let key = cause.map_or(keys::bar(scope), |_| keys::suspension(scope, Suspension::Quarantine));
        assert_eq!(keys::parse_bar(&key), Some((scope, cause)));
    }
    assert_eq!(keys::parse_bar(&[0; 11]), None);
    assert_eq!(keys::parse_bar(&[0; 14]), None);
    let name: SecretName = "stripe".parse().unwrap();
    assert_eq!(keys::parse_secret(&keys::secret(tenant(7), &name)), Some((tenant(7), name.clone())));
    assert_eq!(keys::parse_secret(&[0; 4]), None);
    assert_eq!(keys::parse_secret_holder(&keys::secret_holder(&name, 2, task)), Some((2, task)));
    assert_eq!(keys::parse_secret_holder(task.as_bytes()), None);
    assert_eq!(keys::leading_revision(&keys::feed(8, 1)), Some(8));
    assert_eq!((keys::leading_revision(&[0; 7]), keys::leading_minute(&[0; 3])), (None, None));
    assert_eq!(keys::leading_minute(&keys::expiry(8, 1)), Some(8));
}

#[test]
fn what_begins_alike_is_not_one() {
    let name = |text: &str| text.parse::<SecretName>().unwrap();
    for (of, others) in [
        (keys::notices("a"), keys::notice("ab", Urgency::First, 1, 1)),
        (keys::urgent_notices("a", Urgency::First), keys::notice("a", Urgency::Then, 1, 1)),
        (keys::secret_holders(tenant(1), &name("a")), keys::secret_holders(tenant(1), &name("ab"))),
        (keys::secret_holders_of(tenant(1), &name("a"), 1), keys::secret_holders_of(tenant(1), &name("a"), 2)),
        (keys::person_keys(&PersonId([1; 16])), keys::person_key(&PersonId([2; 16]), PersonKey([1; 16]))),
        (keys::grant_uses(tenant(1)), keys::grant_use(tenant(2), &"a".parse().unwrap())),
    ] {
        assert!(!others.starts_with(&of), "{of:?} {others:?}");
    }
    for (of, own) in [
        (keys::notices("a"), keys::notice("a", Urgency::Then, 1, 1)),
        (keys::secret_holders(tenant(1), &name("a")), keys::secret_holders_of(tenant(1), &name("a"), 7)),
        (keys::grant_uses(tenant(1)), keys::grant_use(tenant(1), &"a".parse().unwrap())),
    ] {
        assert!(own.starts_with(&of), "{of:?} {own:?}");
    }
    assert_ne!(keys::unmanaged("a", "b"), keys::unmanaged("", "ab"));
}

#[test]
fn a_notices_key_says_what_it_is_and_whose_and_alarms_come_first() {
    let (alarm, other) = (keys::notice("desk", Urgency::First, 9, 9), keys::notice("desk", Urgency::Then, 1, 1));
    assert!(alarm < other && alarm < keys::notice("desk", Urgency::First, 10, 0));
    for (key, kind) in [
        (alarm.clone(), Some(Notice::Queued)),
        (keys::outlet("desk"), Some(Notice::Outlet)),
        (keys::reminded(tenant(1), &"g".parse().unwrap()), Some(Notice::Reminded)),
        (vec![4], None),
        (vec![], None),
    ] {
        assert_eq!(keys::notice_kind(&key), kind, "{key:?}");
    }
    assert_eq!((keys::notice_outlet(&alarm), keys::notice_outlet(&[])), (Some("desk"), None));
}

#[test]
fn a_count_holds_until_its_minute_is_over_and_then_is_stale() {
    let (scope, other) = (ScopeId::signing_key("a"), ScopeId::signing_key("b"));
    let mut counts = Counts::default();
    for (minute, count) in [(5, 2), (6, 3), (9, 1)] {
        counts.set(scope, minute, count);
    }
    counts.set(other, 6, 7);
    assert_eq!([5, 6, 7, 9, 10].map(|now| counts.live(scope, now)), [6, 4, 1, 1, 0]);
    assert_eq!([4, 5, 6, 9].map(|minute| counts.at(scope, minute)), [0, 2, 3, 1]);
    assert_eq!([5, 9, 10].map(|now| counts.latest(scope, now)), [Some(9), Some(9), None]);
    let stale = |counts: &Counts, now, most| {
        let mut stale = counts.stale(now, most);
        stale.sort_unstable();
        stale
    };
    assert_eq!(stale(&counts, 5, 9), []);
    let mut both = vec![(scope, 5), (scope, 6), (other, 6)];
    both.sort_unstable();
    assert_eq!(stale(&counts, 7, 9), both);
    assert_eq!(stale(&counts, 7, 2).len(), 2);
    counts.set(scope, 9, 0);
    assert_eq!((counts.at(scope, 9), counts.latest(scope, 5)), (0, Some(6)));
}

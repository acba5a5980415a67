use proptest::prelude::*;

use super::*;

const PUBLISH: Duration = Duration::from_secs(600);
const ACTIVE: Duration = Duration::from_secs(86_400);
const KEEP: Duration = Duration::from_secs(3_630);

fn policy() -> RingPolicy {
    RingPolicy::new(PUBLISH, ACTIVE, KEEP).expect("sound times")
}

fn key(id: &str, state: KeyState, since: u64) -> KeyFacts {
    KeyFacts { key_id: id.to_owned(), state, since: Timestamp::from_seconds(since) }
}

/// Does what the steps say, as the broker would.
fn apply(keys: &mut Vec<KeyFacts>, steps: &[Step], now: Timestamp, made: &mut u32) {
    for step in steps {
        let mut set = |id: &String, state| {
            let key = keys.iter_mut().find(|key| key.key_id == *id).expect("a key of the ring");
            (key.state, key.since) = (state, now);
        };
        match step {
            Step::Activate(id) => set(id, KeyState::Active),
            Step::Retire(id) => set(id, KeyState::Retired),
            Step::Destroy(id) => keys.retain(|key| key.key_id != *id),
            Step::Prepare => {
                *made += 1;
                keys.push(KeyFacts { key_id: format!("k{made}"), state: KeyState::Prepared, since: now });
            }
        }
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

#[test]
fn a_new_ring_gets_an_active_key_and_one_standing_by_at_once() {
    let (mut keys, mut made) = (Vec::new(), 0);
    assert_eq!(next_steps(&keys, &policy(), at(0)), [Step::Prepare]);
    apply(&mut keys, &[Step::Prepare], at(0), &mut made);
    let steps = next_steps(&keys, &policy(), at(0));
    assert_eq!(steps, [Step::Activate("k1".to_owned()), Step::Prepare]);
    apply(&mut keys, &steps, at(0), &mut made);
    assert_eq!(next_steps(&keys, &policy(), at(0)), []);
    assert_eq!(active(&keys).expect("active").key_id, "k1");
    assert_eq!(published(&keys).count(), 2);
}

#[test]
fn an_old_key_hands_over_only_to_one_published_long_enough() {
    let ring = |prepared| [key("a", KeyState::Active, 0), key("b", KeyState::Prepared, prepared)];
    let due = 86_400;
    assert_eq!(next_steps(&ring(0), &policy(), at(due - 1)), []);
    assert_eq!(next_steps(&ring(due - 599), &policy(), at(due)), []);
    assert_eq!(
        next_steps(&ring(due - 600), &policy(), at(due)),
        [Step::Activate("b".to_owned()), Step::Retire("a".to_owned()), Step::Prepare]
    );
}

#[test]
fn after_a_cut_of_the_active_key_the_one_standing_by_signs_at_once() {
    let keys = [key("a", KeyState::Cut, 100), key("b", KeyState::Prepared, 99)];
    assert_eq!(next_steps(&keys, &policy(), at(100)), [Step::Activate("b".to_owned()), Step::Prepare]);
    assert!(published(&keys).all(|key| key.key_id == "b"));
}

#[test]
fn of_two_active_keys_the_older_is_retired() {
    let keys = [key("a", KeyState::Active, 5), key("b", KeyState::Active, 6), key("c", KeyState::Prepared, 6)];
    assert_eq!(next_steps(&keys, &policy(), at(7)), [Step::Retire("a".to_owned())]);
    assert_eq!(active(&keys).expect("active").key_id, "b");
}

#[test]
fn a_retired_key_is_destroyed_when_its_keep_is_over_and_not_before() {
    let keys = [key("a", KeyState::Active, 0), key("b", KeyState::Prepared, 0), key("r", KeyState::Retired, 0)];
    assert_eq!(next_steps(&keys, &policy(), at(3_629)), []);
    assert_eq!(next_steps(&keys, &policy(), at(3_630)), [Step::Destroy("r".to_owned())]);
}

#[test]
fn times_that_rotate_too_fast_are_refused() {
    assert!(RingPolicy::new(PUBLISH, PUBLISH, KEEP).is_err());
    let error = RingPolicy::new(PUBLISH, Duration::from_secs(1), KEEP).expect_err("too fast");
    assert!(error.to_string().contains("600s"));
}

#[test]
fn an_unknown_state_is_not_published() {
    for state in [KeyState::Prepared, KeyState::Active, KeyState::Retired, KeyState::Cut] {
        assert_eq!(KeyState::from_code(state.code().into()), state);
    }
    assert!(!KeyState::from_code(0).is_published());
    assert!(!KeyState::from_code(99).is_published());
}

#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    ClockBack(u64),
    CutActive,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0_u64..100_000).prop_map(Event::Wait),
        1 => (0_u64..10_000).prop_map(Event::ClockBack),
        1 => Just(Event::CutActive),
    ];
    proptest::collection::vec(event, 1..60)
}

proptest! {
    #[test]
    fn a_ring_keeps_its_laws_through_any_life(events in events()) {
        let (mut keys, mut made, mut now) = (Vec::<KeyFacts>::new(), 0, 1_000_000_u64);
        for event in events {
            match event {
                Event::Wait(seconds) => now += seconds,
                Event::ClockBack(seconds) => now -= seconds.min(now),
                Event::CutActive => {
                    if let Some(key) = keys.iter_mut().find(|key| key.state == KeyState::Active) {
                        (key.state, key.since) = (KeyState::Cut, at(now));
                    }
                }
            }
            // A ring settles: the steps run out.
            for round in 0.. {
                prop_assert!(round < 5);
                let steps = next_steps(&keys, &policy(), at(now));
                if steps.is_empty() {
                    break;
                }
                let before = keys.clone();
                apply(&mut keys, &steps, at(now), &mut made);
                check(&before, &steps, &keys, at(now))?;
            }
            prop_assert_eq!(keys.iter().filter(|key| key.state == KeyState::Active).count(), 1);
            prop_assert_eq!(keys.iter().filter(|key| key.state == KeyState::Prepared).count(), 1);
        }
    }

    #[test]
    fn any_ring_is_answered_with_steps_that_fit_it(
        raw in proptest::collection::vec((1_u32..5, 0_u64..200_000), 0..8), now in 0_u64..200_000
    ) {
        let mut keys: Vec<_> = raw.iter().enumerate()
            .map(|(i, (state, since))| key(&format!("x{i}"), KeyState::from_code(*state), *since))
            .collect();
        let before = keys.clone();
        let steps = next_steps(&keys, &policy(), at(now));
        apply(&mut keys, &steps, at(now), &mut 100);
        check(&before, &steps, &keys, at(now))?;
        prop_assert!(keys.iter().filter(|key| key.state == KeyState::Active).count() <= 1);
    }
}

/// The laws of [`next_steps`].
fn check(before: &[KeyFacts], steps: &[Step], after: &[KeyFacts], now: Timestamp) -> Result<(), TestCaseError> {
    let had_active = active(before).is_some();
    prop_assert!(!had_active || active(after).is_some(), "left without an active key");
    for step in steps {
        let of = |id: &String| before.iter().find(|key| key.key_id == *id).expect("a key of the ring");
        match step {
            Step::Prepare => {}
            Step::Activate(id) => {
                prop_assert_eq!(of(id).state, KeyState::Prepared);
                prop_assert!(!had_active || now >= of(id).since.after(PUBLISH), "signs too early");
            }
            Step::Retire(id) => prop_assert_eq!(of(id).state, KeyState::Active),
            Step::Destroy(id) => {
                prop_assert!(matches!(of(id).state, KeyState::Retired | KeyState::Cut));
                prop_assert!(now >= of(id).since.after(KEEP), "destroyed too early");
            }
        }
    }
    Ok(())
}

use proptest::prelude::*;
use prost_types::Timestamp;

use super::*;
use crate::audit::chain::{self, GENESIS};

fn arb_event() -> impl Strategy<Value = Event> {
    let time = || prop::option::of((0_i64..4_000_000_000, 0_i32..1_000_000_000));
    let texts = || prop::collection::vec(".{0,8}", 0..3);
    let revision = prop::option::of((any::<u64>(), any::<u64>()));
    (texts(), any::<u64>(), revision, time(), time(), texts(), prop::collection::vec(".{0,8}", 16), -2_i32..6).prop_map(
        |(audiences, sequence, revision, at, expires, details, words, credential_kind)| {
            let stamp = |at: Option<(i64, i32)>| at.map(|(seconds, nanos)| Timestamp { seconds, nanos });
            let mut words = words.into_iter();
            let mut word = || words.next().unwrap_or_default();
            let mut event = Event {
                stream: word(),
                sequence,
                revision: revision.map(|(incarnation, number)| Revision { incarnation, number }),
                at: stamp(at),
                kind: word(),
                decision: word(),
                actor: word(),
                proof: word(),
                source: word(),
                tenant: word(),
                partner: word(),
                workload: word(),
                grant: word(),
                task_id: word(),
                lease_id: word(),
                purpose: word(),
                audiences,
                credential_sha256: word(),
                credential_kind,
                expires: stamp(expires),
                trust_hash: word(),
                reason: "\u{2028}\"\\".into(),
                policies: details.clone(),
                policy_set: word(),
                details,
                hash: Vec::new(),
                previous_hash: Vec::new(),
            };
            chain::seal_event(&mut event, GENESIS);
            event
        },
    )
}

proptest! {
    #[test]
    fn an_exported_event_parses_back_to_the_same_message_and_hash(event in arb_event()) {
        let line = event_line(&event).expect("in range");
        prop_assert!(!line.contains('\n'));
        let Item::Event(back) = parse(line.as_bytes()).expect("own line") else { panic!("not an event") };
        prop_assert_eq!(&*back, &event);
        prop_assert_eq!(chain::hash(GENESIS, &chain::canonical(&back)).0.to_vec(), event.hash);
    }
}

#[test]
fn only_the_one_form_of_a_line_is_taken() {
    let mut event = Event {
        stream: "acme/zeta".into(),
        sequence: 1,
        at: Some(Timestamp { seconds: 1, nanos: 500_000_000 }),
        revision: Some(Revision { incarnation: 1, number: 2 }),
        ..Event::default()
    };
    chain::seal_event(&mut event, GENESIS);
    let line = event_line(&event).expect("line");
    assert!(line.starts_with(r#"{"type":"event","stream":"acme/zeta","sequence":1,"revision":"0000000000000001.2","at":"1970-01-01T00:00:01.5Z""#), "{line}");
    for (from, to) in [
        ("1970-01-01T00:00:01.5Z", "1970-01-01T01:00:01.5+01:00"),
        ("1970-01-01T00:00:01.5Z", "1970-01-01T00:00:01.50Z"),
        ("0000000000000001.2", "1.2"),
        (r#""sequence":1"#, r#""sequence":1,"sequence":1"#),
        (r#""sequence":1"#, r#""sequence":1,"note":"x""#),
        (r#""type":"event""#, r#""type":"thing""#),
    ] {
        assert!(parse(line.replace(from, to).as_bytes()).is_err(), "{to}");
    }
    assert!(parse(&vec![b' '; MAX_LINE_BYTES + 1]).is_err());
}

use super::*;

const NOW: Timestamp = Timestamp::from_seconds(1_000_000);
const SCOPE: [u8; 12] = [7; 12];

fn at(number: u64) -> Revision {
    Revision { incarnation: 1, number }
}

fn event(kind: RevocationKind, number: u64, until: Option<i64>) -> RevocationEvent {
    RevocationEvent {
        kind: kind.into(),
        scope_id: SCOPE.to_vec(),
        revision: Some(at(number)),
        covers_until: until.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
    }
}

fn message(number: u64, events: Vec<RevocationEvent>) -> WatchRevocationsResponse {
    WatchRevocationsResponse { revision: Some(at(number)), events }
}

fn started() -> Revocations {
    let mut feed = Revocations::default();
    feed.apply(&message(10, vec![]), NOW).expect("first");
    feed
}

fn standing(feed: &Revocations, number: u64) -> FeedStanding {
    feed.standing(&[ScopeId::from_slice(&SCOPE).expect("12")], (1, number))
}

#[test]
fn a_cut_ends_what_was_decided_below_it_and_nothing_else() {
    let mut feed = started();
    feed.apply(&message(20, vec![event(RevocationKind::Cut, 20, None)]), NOW).expect("next");
    assert_eq!(standing(&feed, 19), FeedStanding::Ended);
    assert_eq!(standing(&feed, 20), FeedStanding::Live);
    assert_eq!(feed.standing(&[], (1, 19)), FeedStanding::Live);
    feed.apply(&message(21, vec![event(RevocationKind::Cut, 15, None)]), NOW).expect("next");
    assert_eq!(standing(&feed, 19), FeedStanding::Ended);
}

#[test]
fn a_suspension_holds_until_it_is_lifted() {
    let mut feed = started();
    feed.apply(&message(20, vec![event(RevocationKind::Suspend, 20, None)]), NOW).expect("next");
    assert_eq!(standing(&feed, 15), FeedStanding::Suspended);
    feed.apply(&message(21, vec![event(RevocationKind::Lift, 21, None)]), NOW).expect("next");
    assert_eq!(standing(&feed, 15), FeedStanding::Live);
}

#[test]
fn nothing_is_said_of_what_was_decided_before_the_feed_began() {
    let feed = started();
    assert_eq!(standing(&feed, 9), FeedStanding::NotCovered);
    assert_eq!(standing(&feed, 10), FeedStanding::Live);
    assert_eq!(standing(&Revocations::default(), 10), FeedStanding::NotCovered);
}

#[test]
fn a_new_incarnation_drops_what_was_known() {
    let mut feed = started();
    let restored = WatchRevocationsResponse { revision: Some(Revision { incarnation: 2, number: 3 }), events: vec![] };
    feed.apply(&restored, NOW).expect("restored");
    assert_eq!(standing(&feed, 10), FeedStanding::OtherIncarnation);
}

#[test]
fn what_can_concern_nothing_any_more_is_forgotten_and_not_before() {
    let mut feed = started();
    let until = i64::try_from(NOW.seconds()).expect("small") + 100;
    feed.apply(&message(20, vec![event(RevocationKind::Cut, 20, Some(until))]), NOW).expect("next");
    let end = NOW.after(std::time::Duration::from_secs(101)).after(SKEW);
    feed.apply(&message(21, vec![]), end).expect("next");
    assert_eq!(standing(&feed, 15), FeedStanding::Ended);
    feed.apply(&message(22, vec![]), end.after(std::time::Duration::from_secs(60))).expect("next");
    assert!(feed.is_empty());
}

#[test]
fn a_message_that_makes_no_sense_drops_everything() {
    let mut foreign = event(RevocationKind::Cut, 20, None);
    foreign.revision = Some(Revision { incarnation: 2, number: 20 });
    let mut short = event(RevocationKind::Cut, 20, None);
    short.scope_id.pop();
    let cases = [
        (WatchRevocationsResponse::default(), FeedError::Revision),
        (message(9, vec![]), FeedError::Backwards),
        (message(20, vec![foreign]), FeedError::Revision),
        (message(20, vec![short]), FeedError::Event),
        (message(20, vec![event(RevocationKind::Unspecified, 20, None)]), FeedError::Event),
    ];
    for (message, error) in cases {
        let mut feed = started();
        assert_eq!(feed.apply(&message, NOW), Err(error));
        assert_eq!((feed.last_heard(), standing(&feed, 10)), (None, FeedStanding::NotCovered));
    }
}

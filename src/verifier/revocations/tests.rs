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
    WatchRevocationsResponse { revision: Some(at(number)), events, complete: true }
}

fn partial(number: u64, events: Vec<RevocationEvent>) -> WatchRevocationsResponse {
    WatchRevocationsResponse { complete: false, ..message(number, events) }
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
fn every_decision_is_covered_once_the_beginning_is_complete_and_none_before() {
    assert_eq!(standing(&Revocations::default(), 10), FeedStanding::NotCovered);
    let mut feed = Revocations::default();
    feed.apply(&partial(5, vec![event(RevocationKind::Cut, 4, None)]), NOW).expect("first page");
    assert_eq!(standing(&feed, 3), FeedStanding::Ended);
    assert_eq!(standing(&feed, 5), FeedStanding::NotCovered);
    assert_eq!(feed.standing(&[], (1, 3)), FeedStanding::NotCovered);
    feed.apply(&message(10, vec![]), NOW).expect("last page");
    assert_eq!(standing(&feed, 4), FeedStanding::Live);
    assert_eq!(feed.standing(&[], (1, 0)), FeedStanding::Live);
}

#[test]
fn a_resumed_feed_covers_what_it_covered_before_it_broke() {
    let mut feed = started();
    assert_eq!(feed.resume_after(), Some(at(10)));
    feed.apply(&partial(11, vec![event(RevocationKind::Cut, 11, None)]), NOW).expect("resumed");
    assert_eq!(standing(&feed, 10), FeedStanding::Ended);
    assert_eq!(standing(&feed, 11), FeedStanding::Live);
    assert_eq!(feed.resume_after(), Some(at(11)));
}

#[test]
fn a_beginning_that_broke_off_starts_anew() {
    let mut feed = Revocations::default();
    feed.apply(&partial(5, vec![event(RevocationKind::Suspend, 4, None)]), NOW).expect("first page");
    assert_eq!(feed.resume_after(), None);
    assert!(feed.is_empty());
    feed.apply(&message(4, vec![]), NOW).expect("a new beginning");
    assert_eq!(standing(&feed, 4), FeedStanding::Live);
}

#[test]
fn a_new_incarnation_after_a_reset_drops_what_was_known() {
    let mut feed = started();
    feed.reset();
    let mut restored = message(3, vec![]);
    restored.revision = Some(Revision { incarnation: 2, number: 3 });
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
    let mut restored = message(20, vec![]);
    restored.revision = Some(Revision { incarnation: 2, number: 20 });
    let cases = [
        (restored, FeedError::Revision),
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

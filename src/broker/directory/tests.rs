use std::time::Duration;

use super::*;
use crate::broker::testing::founded;

#[tokio::test]
async fn who_is_active_again_has_nothing_back_that_a_mark_had_ended() {
    let (broker, hands) = founded().await;
    let told = |active| UserChange {
        user_name: Some("ann@acme.example".to_owned()),
        active: Some(active),
        ..UserChange::default()
    };
    let ann = broker.add_user(told(false), None).await.expect("added");
    hands.advance(Duration::from_secs(60));
    let (called, now) = (Called::by_name("ann@acme.example"), broker.now());
    let (id, mut mark) = broker.mark(&called, crate::broker::people::CLOSINGS_MOST, now).expect("room");
    (mark.active, mark.ended_until) = (false, now.millis());
    broker.put_people(vec![(id, mark)], Vec::new(), Vec::new(), now).await.expect("written");
    hands.advance(Duration::from_secs(60));
    broker.change_user(&ann.id.to_string(), told(true), None).await.expect("changed");
    assert!(broker.people.row(&id).is_none());
    assert!(broker.people.is_closed_to(&called, now), "what the mark had ended is back");
    assert!(!broker.people.is_closed_to(&called, broker.now()));
}

fn told(name: &str, external_id: &str) -> UserChange {
    UserChange { user_name: Some(name.to_owned()), external_id: Some(external_id.to_owned()), active: Some(true) }
}

fn by_id(id: &str) -> Called {
    Called { subjects: [id.to_owned()].into(), ..Called::default() }
}

#[tokio::test]
async fn who_is_given_the_name_of_somebody_who_was_removed_is_a_new_person() {
    let (broker, hands) = founded().await;
    let is_closed = |called: &Called| broker.people.is_closed_to(called, broker.now());
    let ann = broker.add_user(told("ann@acme.example", "e1"), None).await.expect("added");
    let renamed = UserChange { user_name: Some("ann.two@acme.example".to_owned()), ..UserChange::default() };
    broker.change_user(&ann.id.to_string(), renamed, None).await.expect("renamed");
    broker.remove_user(&ann.id.to_string(), None).await.expect("removed");
    hands.advance(Duration::from_secs(60));
    for name in ["ann@acme.example", "ann.two@acme.example"] {
        assert!(is_closed(&Called::by_name(name)));
    }
    // Somebody else of her name of before, and then of her last one.
    let other = broker.add_user(told("Ann@acme.example", "e2"), None).await.expect("added");
    hands.advance(Duration::from_secs(60));
    assert_ne!(other.id, ann.id);
    assert!(!is_closed(&Called::by_name("ann@acme.example")) && !is_closed(&by_id("e2")));
    assert!(is_closed(&by_id("e1")) && is_closed(&Called::by_name("ann.two@acme.example")));
    broker.add_user(told("ann.two@acme.example", "e3"), None).await.expect("added");
    hands.advance(Duration::from_secs(60));
    assert!(!is_closed(&Called::by_name("ann.two@acme.example")));
    assert!(is_closed(&by_id("e1")), "who was removed is back by another's name");
    // She herself, by the directory's own id, whatever she is called now.
    broker.add_user(told("ann.three@acme.example", "e1"), None).await.expect("added");
    hands.advance(Duration::from_secs(60));
    assert!(!is_closed(&by_id("e1")));
}

#[tokio::test]
async fn who_is_renamed_to_somebody_who_was_removed_may_sign_in_and_opens_nobody() {
    let (broker, hands) = founded().await;
    let ann = broker.add_user(told("ann@acme.example", "e1"), None).await.expect("added");
    let bob = broker.add_user(told("bob@acme.example", "e2"), None).await.expect("added");
    broker.remove_user(&ann.id.to_string(), None).await.expect("removed");
    hands.advance(Duration::from_secs(60));
    let renamed = UserChange { user_name: Some("ann@acme.example".to_owned()), ..UserChange::default() };
    broker.change_user(&bob.id.to_string(), renamed, None).await.expect("renamed");
    hands.advance(Duration::from_secs(60));
    let is_closed = |called: &Called| broker.people.is_closed_to(called, broker.now());
    assert!(!is_closed(&Called::by_name("ann@acme.example")) && is_closed(&by_id("e1")));
}

#[tokio::test]
async fn without_ids_the_last_name_says_who_is_back() {
    let (broker, hands) = founded().await;
    let ann = broker.add_user(told("ann@acme.example", ""), None).await.expect("added");
    broker.remove_user(&ann.id.to_string(), None).await.expect("removed");
    hands.advance(Duration::from_secs(60));
    broker.add_user(told("ann@acme.example", ""), None).await.expect("added");
    hands.advance(Duration::from_secs(60));
    assert!(!broker.people.is_closed_to(&Called::by_name("ann@acme.example"), broker.now()));
    assert_eq!(broker.people.count(), 1, "what is left of her row says nothing");
}

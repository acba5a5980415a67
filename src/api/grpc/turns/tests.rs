use std::task::Waker;

use super::{payer::LATELY_SECONDS, *};
use crate::model::TenantNumber;

const LIMITS: TurnLimits = TurnLimits { at_work: 8, beside_others: 2, waiting_per_tenant: 20, waiting: 50 };

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + seconds * 1_000)
}

fn tenant(number: u32) -> Payer {
    Payer::Tenant(TenantNumber::new(number).expect("number"))
}

/// Enters as often as asked: those at work, and those waiting.
fn entered(turns: &Turns, payer: &Payer, times: usize) -> (Vec<Turn>, Vec<Waiting>) {
    entered_at(turns, payer, times, at(0))
}

fn entered_at(turns: &Turns, payer: &Payer, times: usize, now: Timestamp) -> (Vec<Turn>, Vec<Waiting>) {
    let (mut at_work, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..times {
        match turns.enter(payer.clone(), now).expect("room") {
            Entered::AtOnce(turn) => at_work.push(turn),
            Entered::Later(later) => waiting.push(later),
        }
    }
    (at_work, waiting)
}

/// Those whose turn has come; they leave `waiting`.
fn called(waiting: &mut Vec<Waiting>) -> Vec<Turn> {
    let (mut turns, mut rest) = (Vec::new(), Vec::new());
    for mut one in waiting.drain(..) {
        match Pin::new(&mut one).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => turns.push(turn),
            Poll::Pending => rest.push(one),
        }
    }
    *waiting = rest;
    turns
}

fn is_empty(turns: &Turns) -> bool {
    let line = turns.0.lock();
    line.at_work == 0 && line.waiting == 0 && line.payers.is_empty() && line.turn.is_empty()
}

#[test]
fn one_tenant_gets_half_and_another_begins_at_once() {
    let turns = Turns::new(LIMITS);
    let (flood, queue) = entered(&turns, &tenant(1), 24);
    assert_eq!((flood.len(), queue.len()), (4, 20));
    let (others, none) = entered(&turns, &tenant(2), 2);
    assert_eq!((others.len(), none.len()), (2, 0));
    drop((flood, queue, others));
    assert!(is_empty(&turns));
}

#[test]
fn a_tenant_gets_less_while_others_ask_too_and_as_much_as_before_once_they_are_gone() {
    let turns = Turns::new(LIMITS);
    drop(entered(&turns, &tenant(2), 1));
    let (mut flood, mut queue) = entered(&turns, &tenant(1), 12);
    assert_eq!((flood.len(), queue.len()), (2, 10), "another has just asked");
    let (_, late) = entered_at(&turns, &tenant(1), 1, at(LATELY_SECONDS - 1));
    flood.pop();
    let next = called(&mut queue);
    assert_eq!((next.len(), late.len()), (1, 1), "one for one, as long as the other may come again");
    let (_, later) = entered_at(&turns, &tenant(1), 1, at(LATELY_SECONDS));
    flood.pop();
    let next = (next, called(&mut queue));
    assert_eq!((next.1.len(), later.len()), (3, 1), "what is missing to half, at once");
    drop((flood, queue, late, later, next));
    assert!(is_empty(&turns));
}

#[test]
fn what_is_at_work_when_others_come_goes_on_and_nothing_more_is_begun_until_it_is_no_more_than_the_share() {
    let turns = Turns::new(LIMITS);
    let (mut flood, mut queue) = entered(&turns, &tenant(1), 12);
    assert_eq!(flood.len(), 4);
    let (other, _) = entered(&turns, &tenant(2), 1);
    assert_eq!(other.len(), 1, "there was room left for it");
    let given: Vec<usize> = (0..4)
        .map(|_| {
            flood.pop();
            let next = called(&mut queue);
            let given = next.len();
            flood.splice(0..0, next);
            given
        })
        .collect();
    assert_eq!(given, [0, 0, 1, 1]);
}

#[test]
fn as_many_tenants_as_shares_have_all_of_it() {
    let turns = Turns::new(LIMITS);
    drop(entered(&turns, &tenant(9), 1));
    let busy: Vec<_> = (1..=4).map(|number| entered(&turns, &tenant(number), 5)).collect();
    assert!(busy.iter().all(|(at_work, waiting)| (at_work.len(), waiting.len()) == (2, 3)));
    assert_eq!(turns.0.lock().at_work, LIMITS.at_work);
}

#[test]
fn the_share_beside_others_is_one_at_least_and_half_at_most() {
    for (given, share) in [(0, 1), (1, 1), (4, 4), (5, 4), (usize::MAX, 4)] {
        let turns = Turns::new(TurnLimits { beside_others: given, ..LIMITS });
        drop(entered(&turns, &tenant(2), 1));
        assert_eq!(entered(&turns, &tenant(1), 9).0.len(), share, "{given}");
    }
}

#[test]
fn where_all_is_taken_a_newcomer_is_next_whoever_waits() {
    let turns = Turns::new(TurnLimits { beside_others: 4, ..LIMITS });
    let (mut first, mut first_waiting) = entered(&turns, &tenant(1), 20);
    let (mut second, mut second_waiting) = entered(&turns, &tenant(2), 20);
    assert_eq!((first.len(), second.len()), (4, 4));
    let (third, mut third_waiting) = entered(&turns, &tenant(3), 1);
    assert!(third.is_empty());
    // Both of the others have all that they may have, so the third is the only one in turn.
    first.pop();
    let third = called(&mut third_waiting);
    let given = (called(&mut first_waiting).len(), called(&mut second_waiting).len(), third.len());
    assert_eq!(given, (0, 0, 1));
    second.pop();
    let given = (called(&mut first_waiting).len(), called(&mut second_waiting).len());
    assert_eq!(given, (1, 0), "then who lost his turn to it");
}

#[test]
fn turns_are_given_tenant_by_tenant_and_first_come_first_served_within() {
    let turns = Turns::new(TurnLimits { at_work: 1, ..LIMITS });
    let (mut running, _) = entered(&turns, &tenant(9), 1);
    let (_, mut one) = entered(&turns, &tenant(1), 3);
    let (_, mut two) = entered(&turns, &tenant(2), 3);
    let mut order = Vec::new();
    for _ in 0..6 {
        running.pop();
        let (from_one, from_two) = (called(&mut one), called(&mut two));
        order.push((from_one.len(), from_two.len()));
        running.extend(from_one);
        running.extend(from_two);
    }
    assert_eq!(order, [(1, 0), (0, 1), (1, 0), (0, 1), (1, 0), (0, 1)]);
    drop(running);
    assert!(is_empty(&turns));
}

#[test]
fn as_many_wait_as_may_and_not_one_more_and_who_is_refused_is_told_when_to_come_again() {
    let turns = Turns::new(LIMITS);
    let (_flood, mut queue) = entered(&turns, &tenant(1), 24);
    let refused = turns.enter(tenant(1), at(0)).expect_err("full");
    assert!((ROUND_MS..=RETRY_MOST_MS).contains(&refused.retry_ms), "{refused:?}");
    queue.pop();
    assert!(turns.enter(tenant(1), at(0)).is_ok(), "a place that was given up is free again");
}

#[test]
fn a_line_full_in_all_refuses_and_still_lets_in_whom_it_has_room_for() {
    let turns = Turns::new(TurnLimits { at_work: 4, beside_others: 2, waiting_per_tenant: 20, waiting: 30 });
    let (_one, _one_waits) = entered(&turns, &tenant(1), 22);
    let mut two = Vec::new();
    while let Ok(entered) = turns.enter(tenant(2), at(0)) {
        two.push(entered);
    }
    assert_eq!(two.len(), 2 + 10);
    assert_eq!(turns.0.lock().waiting, 30);
}

#[test]
fn a_request_that_is_dropped_gives_its_turn_on_even_when_it_was_just_called() {
    let turns = Turns::new(TurnLimits { at_work: 1, ..LIMITS });
    let (mut running, _) = entered(&turns, &tenant(1), 1);
    let (_, mut waiting) = entered(&turns, &tenant(1), 3);
    let last = waiting.pop();
    // Called by this, and dropped without ever being polled again.
    running.pop();
    drop(waiting);
    assert_eq!(called(&mut last.into_iter().collect()).len(), 1);
    assert!(is_empty(&turns));
}

#[test]
fn the_advice_grows_with_the_line_and_has_an_end() {
    let advice: Vec<_> = [0, 3, 4, 400, usize::MAX].iter().map(|before| retry_ms(*before, 4)).collect();
    assert_eq!(advice, [10, 10, 20, 1_010, RETRY_MOST_MS]);
}

#[tokio::test]
async fn work_that_is_broken_off_counts_for_a_while_and_work_that_is_done_does_not() {
    let turns = Turns::new(TurnLimits { at_work: 1, ..LIMITS });
    let begin = || async { turns.enter(tenant(1), at(0)).expect("room").turn().await.working() };
    begin().await.done();
    drop(begin().await);
    assert!(matches!(turns.enter(tenant(2), at(0)), Ok(Entered::Later(_))), "it has set something going");
}

#[test]
fn where_one_may_work_one_does() {
    let turns = Turns::new(TurnLimits { at_work: 0, beside_others: 0, waiting_per_tenant: 0, waiting: 9 });
    let (one, _) = entered(&turns, &tenant(1), 1);
    assert_eq!(one.len(), 1);
    assert!(turns.enter(tenant(1), at(0)).is_err());
}

#[test]
fn who_enters_the_line_and_leaves_it_again_and_again_stands_in_turn_once() {
    let turns = Turns::new(TurnLimits { at_work: 1, ..LIMITS });
    let (running, _) = entered(&turns, &tenant(9), 1);
    for _ in 0..100 {
        drop(turns.enter(tenant(1), at(0)));
    }
    assert_eq!(turns.0.lock().turn.len(), 1);
    drop(running);
    assert!(is_empty(&turns));
}

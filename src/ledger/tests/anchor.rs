//! The anchor: what it covers, what it notices, and what it must not hold.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::harness::{Bed, Kind, partner, tenant, wait};
use crate::{
    ledger::{
        Hold, Mark, OpenError, Refused,
        anchor::{Anchor, Found},
        engine::{Op, Row, Table},
    },
    model::{Scope, Timestamp},
};

/// An anchor in memory that can be made to fail, or to wait.
#[derive(Debug)]
struct Stone {
    found: Mutex<Found>,
    writes: Mutex<u64>,
    state: Mutex<State>,
    changed: Condvar,
    patience: Mutex<Duration>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Works,
    Fails,
    Waits,
    Panics,
}

impl Stone {
    fn new() -> Arc<Self> {
        let (found, state) = (Mutex::new(Found::Absent), Mutex::new(State::Works));
        let patience = Mutex::new(Duration::MAX);
        Arc::new(Self { found, writes: Mutex::default(), state, changed: Condvar::new(), patience })
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.changed.notify_all();
    }

    fn found(&self) -> Found {
        self.found.lock().unwrap().clone()
    }

    fn put(&self, found: Found) {
        *self.found.lock().unwrap() = found;
    }

    fn mark(&self) -> Mark {
        match self.found() {
            Found::Mark(mark) => mark,
            found @ (Found::Absent | Found::Damaged(_)) => panic!("{found:?}"),
        }
    }
}

impl Anchor for Stone {
    fn read(&self) -> io::Result<Found> {
        Ok(self.found())
    }

    fn write(&self, mark: &Mark) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while *state == State::Waits {
            state = self.changed.wait(state).unwrap();
        }
        let state = *state;
        assert!(state != State::Panics, "asked for by a test");
        if state == State::Fails {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        *self.writes.lock().unwrap() += 1;
        self.put(Found::Mark(*mark));
        Ok(())
    }

    fn place(&self) -> String {
        "stone".into()
    }

    fn patience(&self) -> Duration {
        *self.patience.lock().unwrap()
    }
}

/// Lets the anchor go on, also when a test fails, so that nobody waits for ever.
struct Gate<'a>(&'a Stone);

impl<'a> Gate<'a> {
    fn close(stone: &'a Stone) -> Self {
        stone.set(State::Waits);
        Self(stone)
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.0.set(State::Works);
    }
}

/// Waits until a value holds; panics when it never does.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

fn bed() -> (Bed, Arc<Stone>) {
    let stone = Stone::new();
    (Bed::anchored(Kind::Memory, Arc::<Stone>::clone(&stone)), stone)
}

/// All rows of the store.
fn folder(bed: &mut Bed) -> Vec<(Table, Vec<Row>)> {
    Table::ALL.into_iter().map(|table| (table, bed.rows(table))).collect()
}

/// Makes the store what it was.
fn put_back(bed: &mut Bed, folder: &[(Table, Vec<Row>)]) {
    for (table, rows) in folder {
        let now = bed.rows(*table);
        bed.edit(now.into_iter().map(|(key, _)| Op::Delete(*table, key)));
        bed.edit(rows.iter().map(|(key, value)| Op::Put(*table, key.clone(), value.clone())));
    }
}

fn held(bed: &Bed) -> Option<Hold> {
    bed.ledger().holds().first()
}

fn confirm(bed: &Bed) -> Result<bool, Refused> {
    let (incarnation, _) = bed.ledger().basis();
    let event = bed.event("store.confirmed", None);
    wait(bed.ledger().confirm_store(incarnation, event, bed.now)).map(|(lifted, _)| lifted)
}

#[test]
fn an_end_is_answered_only_when_the_anchor_covers_it_and_a_beginning_does_not_wait() {
    let (bed, stone) = bed();
    let task = bed.task();
    let lease = bed.lease(&task);
    let before = bed.ledger().basis().1;
    std::thread::scope(|scope| {
        let gate = Gate::close(&stone);
        let end = scope.spawn(|| bed.cut(tenant(), false));
        // In force before it is answered: the beginnings behind it are decided after it.
        until("the cut is published", || !bed.is_live(lease.id) && bed.ledger().basis().1 > before);
        bed.lease(&bed.task());
        assert!(!end.is_finished(), "acknowledged before it was anchored");
        drop(gate);
        let cut = end.join().unwrap().unwrap();
        assert!(stone.mark().number >= cut.cut);
    });
}

#[test]
fn ends_that_wait_together_cost_one_write() {
    let (bed, stone) = bed();
    bed.cut(tenant(), false).unwrap();
    let bed = &bed;
    let scopes: Vec<_> = (0..9_u8).map(|n| Scope::SigningKey(n.to_string())).collect();
    let before = *stone.writes.lock().unwrap();
    std::thread::scope(|scope| {
        let gate = Gate::close(&stone);
        let ends: Vec<_> = scopes.iter().map(|id| scope.spawn(|| bed.cut(id.clone(), false).unwrap())).collect();
        until("all are published", || scopes.iter().all(|id| bed.ledger().scope(id.id()).cut > 0));
        drop(gate);
        ends.into_iter().for_each(|end| assert!(end.join().unwrap().changed));
    });
    // One for those that came while it waited before the first, and one for the rest; the lag may add one.
    let writes = *stone.writes.lock().unwrap() - before;
    assert!(writes <= 4, "{writes} writes for 9 ends");
}

#[test]
fn an_end_without_an_anchor_is_in_force_but_not_acknowledged_and_nothing_is_begun_meanwhile() {
    let (bed, stone) = bed();
    let lease = bed.lease(&bed.task());
    stone.set(State::Fails);
    assert_eq!(bed.cut(tenant(), true), Err(Refused::Unanchored));
    assert!(!bed.is_live(lease.id));
    assert_eq!(held(&bed), Some(Hold::Unanchored));
    stone.set(State::Works);
    // Repeated it changes nothing, and is acknowledged.
    assert!(!bed.cut(tenant(), true).unwrap().changed);
    assert_eq!(held(&bed), None);
}

#[test]
fn an_anchor_that_hangs_keeps_no_revocation_from_being_in_force() {
    let (bed, stone) = bed();
    let lease = bed.lease(&bed.task());
    let (bed, done) = (&bed, &AtomicU64::new(0));
    std::thread::scope(|scope| {
        let gate = Gate::close(&stone);
        // Far more commits than may wait in any queue.
        scope.spawn(|| {
            for _ in 0..200 {
                bed.task();
                done.fetch_add(1, Ordering::SeqCst);
            }
        });
        until("beginnings go on", || done.load(Ordering::SeqCst) == 200);
        let end = scope.spawn(|| bed.cut(tenant(), false));
        until("the cut is in force", || !bed.is_live(lease.id));
        assert!(!end.is_finished(), "acknowledged before it was anchored");
        drop(gate);
        end.join().unwrap().unwrap();
    });
}

#[test]
fn nothing_is_begun_and_no_end_is_acknowledged_while_a_write_of_the_anchor_hangs() {
    let (bed, stone) = bed();
    let (bed, lease) = (&bed, bed.lease(&bed.task()));
    std::thread::scope(|scope| {
        let gate = Gate::close(&stone);
        let end = scope.spawn(|| bed.cut(tenant(), true));
        until("the cut is in force", || !bed.is_live(lease.id));
        let behind = scope.spawn(|| bed.cut(partner(), false));
        until("so is the one behind it", || bed.ledger().scope(partner().id()).cut > 0);
        *stone.patience.lock().unwrap() = Duration::ZERO;
        until("the ends are answered", || end.is_finished() && behind.is_finished());
        assert_eq!([end, behind].map(|end| end.join().unwrap()), [Err(Refused::Unanchored), Err(Refused::Unanchored)]);
        assert_eq!(held(bed), Some(Hold::Unanchored));
        assert!(matches!(bed.issue(&bed.new_lease(&bed.new_task())), Err(Refused::Held(_))));
        *stone.patience.lock().unwrap() = Duration::MAX;
        drop(gate);
    });
    until("it goes on", || held(bed).is_none());
    assert!(!bed.cut(tenant(), true).unwrap().changed);
}

#[test]
fn without_the_anchors_thread_nothing_is_begun_and_no_end_is_acknowledged() {
    let (bed, stone) = bed();
    bed.cut(partner(), false).unwrap();
    stone.set(State::Panics);
    assert_eq!(bed.cut(tenant(), false), Err(Refused::Unanchored));
    stone.set(State::Works);
    assert_eq!(held(&bed), Some(Hold::Unanchored));
    assert_eq!(bed.cut(tenant(), false), Err(Refused::Unanchored));
    assert!(matches!(bed.issue(&bed.new_lease(&bed.new_task())), Err(Refused::Held(_))));
}

#[test]
fn a_killed_store_whose_log_retention_has_emptied_opens_without_a_hold() {
    let (mut bed, stone) = bed();
    let lease = bed.lease(&bed.task());
    bed.reopen();
    let before = stone.found();
    // Swept, so that nothing says what the audit was at the mark; and ahead of the mark, as after a kill.
    let (_, revision) = bed.ledger().basis();
    let anchored = Mark { closed: false, ..stone.mark() };
    wait(bed.ledger().sweep(Timestamp::from_seconds(0), bed.now, revision + 1)).unwrap();
    assert!(bed.ledger().basis().1 > anchored.number, "{before:?}");
    assert!(bed.rows(Table::Log).is_empty());
    stone.put(Found::Mark(anchored));
    bed.reopen();
    assert_eq!((held(&bed), bed.is_live(lease.id)), (None, true));
}

#[test]
fn a_closed_and_a_killed_store_open_without_a_hold_and_lose_nothing() {
    let (mut bed, stone) = bed();
    let lease = bed.lease(&bed.task());
    bed.reopen();
    assert_eq!((held(&bed), bed.is_live(lease.id)), (None, true));
    // Killed between the commit and the anchor: the store is ahead.
    let anchored = stone.found();
    let later = bed.lease(&bed.task());
    bed.cut(Scope::Grant("acme".parse().unwrap(), "write".parse().unwrap()), true).unwrap();
    let before = bed.ledger().basis();
    bed.close();
    stone.put(anchored);
    bed.reopen();
    assert_eq!((held(&bed), bed.is_live(lease.id), bed.is_live(later.id)), (None, true, true));
    assert_eq!(bed.ledger().cuts_and_bars(), (1, 1));
    let after = bed.ledger().basis();
    assert_eq!(after.0, before.0);
    assert!(after.1 > before.1, "lost revisions do not come again");
}

#[test]
fn a_store_that_was_put_back_is_held_under_a_new_incarnation_until_it_is_confirmed() {
    let (mut bed, _stone) = bed();
    let lease = bed.lease(&bed.task());
    let old = folder(&mut bed);
    bed.reopen();
    let (incarnation, revoked) = (bed.ledger().basis().0, bed.cut(partner(), true).unwrap().cut);
    put_back(&mut bed, &old);
    bed.reopen();
    assert_eq!(held(&bed), Some(Hold::PutBack));
    assert!(bed.ledger().doubt.is_some(), "a cut over everything is due");
    let (now, number) = bed.ledger().basis();
    assert!(now != incarnation && number > revoked);
    assert!(!bed.is_live(lease.id));
    assert!(matches!(bed.issue(&bed.new_lease(&bed.new_task())), Err(Refused::Held(_))));
    // Not lifted by a restart, nor by another one's word.
    bed.reopen();
    assert_eq!((held(&bed), bed.ledger().basis().0), (Some(Hold::PutBack), now));
    let event = bed.event("store.confirmed", None);
    assert_eq!(wait(bed.ledger().confirm_store(incarnation, event, bed.now)), Err(Refused::Moved));
    assert_eq!(confirm(&bed), Ok(true));
    assert_eq!((held(&bed), confirm(&bed)), (None, Ok(false)));
    bed.cut(Scope::Everything, false).unwrap();
    let fresh = bed.lease(&bed.task());
    bed.reopen();
    assert_eq!((held(&bed), bed.is_live(fresh.id), bed.is_live(lease.id)), (None, true, false));
}

#[test]
fn a_store_of_another_history_is_held() {
    let (mut bed, _stone) = bed();
    bed.task();
    let fork = folder(&mut bed);
    // Elsewhere, without the anchor, the copy goes its own way and further.
    let stone = bed.anchor.take();
    bed.reopen();
    for _ in 0..4 {
        bed.task();
    }
    let elsewhere = folder(&mut bed);
    put_back(&mut bed, &fork);
    bed.anchor = stone;
    bed.reopen();
    bed.cut(tenant(), false).unwrap();
    put_back(&mut bed, &elsewhere);
    bed.reopen();
    assert_eq!(held(&bed), Some(Hold::PutBack));
}

#[test]
fn a_missing_or_damaged_anchor_holds() {
    for found in [Found::Absent, Found::Damaged("bits")] {
        let (mut bed, stone) = bed();
        let lease = bed.lease(&bed.task());
        bed.close();
        stone.put(found);
        bed.reopen();
        assert_eq!((held(&bed), bed.is_live(lease.id)), (Some(Hold::AnchorLost), false));
        assert_eq!(confirm(&bed), Ok(true));
        bed.reopen();
        assert_eq!(held(&bed), None);
    }
}

#[test]
fn a_store_from_before_anchors_is_taken_as_it_is() {
    let mut bed = Bed::new(Kind::Memory);
    let lease = bed.lease(&bed.task());
    let stone = Stone::new();
    bed.anchor = Some(Arc::<Stone>::clone(&stone));
    bed.reopen();
    assert_eq!((held(&bed), bed.is_live(lease.id)), (None, true));
    bed.task();
    bed.close();
    assert!(stone.mark().closed);
    stone.put(Found::Absent);
    bed.reopen();
    assert_eq!(held(&bed), Some(Hold::AnchorLost));
}

#[test]
fn an_emptied_store_does_not_pass_for_a_new_one() {
    let (mut bed, _stone) = bed();
    put_back(&mut bed, &Table::ALL.map(|table| (table, Vec::new())));
    assert!(matches!(bed.open(1), Err(OpenError::Emptied(_))));
}

#[test]
fn a_hold_that_was_removed_outside_the_broker_ends_everything() {
    let (mut bed, stone) = bed();
    bed.task();
    bed.close();
    stone.put(Found::Absent);
    bed.reopen();
    assert_eq!(held(&bed), Some(Hold::AnchorLost));
    bed.cut(Scope::Everything, false).unwrap();
    bed.edit([Op::Delete(Table::Meta, crate::ledger::keys::HOLD.to_vec())]);
    bed.reopen();
    assert!(bed.ledger().doubt.is_some());
}

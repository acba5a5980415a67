//! Identity tokens that were used.

use std::time::Duration;

use super::{
    custody::{act, suspend},
    harness::{Bed, Kind, wait},
    on_each_engine,
};
use crate::{
    ledger::{Custody, IssueDraft, OpenDraft, Refused, Spend, engine::Table},
    model::{Digest, EndReason, Scope, Standing, Suspension, Task, TaskId},
};

on_each_engine! {
    a_token_is_spent_in_the_commit_of_its_task_and_stays_so_after_reopening,
    of_many_who_come_at_once_with_one_token_one_gets_a_task,
    a_retry_puts_a_task_in_the_place_of_the_first,
    a_retry_in_a_task_that_is_suspended_waits_for_it_and_in_one_that_is_over_is_none,
    a_use_is_remembered_until_nobody_would_take_the_token,
    a_damaged_use_counts_as_used_up,
}

fn spend(bed: &Bed, key: u8, keys: usize, asked: &[u8]) -> Spend {
    Spend {
        token: Digest::of(b"token"),
        key: Digest::of(&[key]),
        keys,
        opens: Some(Digest::of(asked)),
        until: bed.now.after(Duration::from_secs(300)),
    }
}

fn draft(bed: &Bed, spend: Spend) -> OpenDraft {
    OpenDraft { spend: Some(spend), ..bed.opening(bed.new_task()) }
}

fn open(bed: &Bed, spend: Spend) -> Result<TaskId, Refused> {
    wait(bed.ledger().open_task(draft(bed, spend))).map(|(id, _)| id)
}

fn first(task: TaskId) -> Refused {
    Refused::TokenSpent { first: Some(task) }
}

fn a_token_is_spent_in_the_commit_of_its_task_and_stays_so_after_reopening(bed: &mut Bed) {
    let task = open(bed, spend(bed, 1, 1, b"a")).unwrap();
    for _ in 0..2 {
        assert_eq!(open(bed, spend(bed, 1, 1, b"a")), Ok(task), "a lost reply");
        assert_eq!(open(bed, spend(bed, 1, 1, b"b")), Err(Refused::TokenOpened));
        assert_eq!(open(bed, spend(bed, 2, 1, b"a")), Err(first(task)));
        bed.reopen();
    }
    let two = open(bed, spend(bed, 2, 2, b"a")).unwrap();
    assert_ne!(two, task);
    assert_eq!(open(bed, spend(bed, 3, 2, b"a")), Err(first(task)));
}

fn of_many_who_come_at_once_with_one_token_one_gets_a_task(bed: &mut Bed) {
    let bed = &*bed;
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..16).map(|key| scope.spawn(move || open(bed, spend(bed, key, 1, b"a")).is_ok())).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|won| **won).count(), 1);
}

fn issue(bed: &Bed, spend: Spend) -> Result<Task, Refused> {
    let task = bed.new_task();
    let lease = bed.new_lease(&task);
    let draft = IssueDraft { new_task: Some(task.clone()), spend: Some(spend), ..bed.draft(&lease) };
    wait(bed.ledger().issue(draft)).map(|_| task)
}

fn a_retry_puts_a_task_in_the_place_of_the_first(bed: &mut Bed) {
    let before = issue(bed, spend(bed, 1, 1, b"a")).unwrap();
    assert_eq!(issue(bed, spend(bed, 2, 1, b"a")).unwrap_err(), first(before.id));
    let after = issue(bed, spend(bed, 1, 1, b"a")).unwrap();
    let standing = |bed: &Bed, task: &Task| {
        let row = bed.ledger().task(task.id).unwrap().unwrap();
        bed.ledger().task_standing(&row, bed.now).unwrap()
    };
    assert_eq!(standing(bed, &before), Standing::Ended(EndReason::Superseded));
    assert_eq!(standing(bed, &after), Standing::Live);
    bed.reopen();
    assert_eq!(issue(bed, spend(bed, 2, 1, b"a")).unwrap_err(), first(after.id));
    let on = Spend { opens: None, ..spend(bed, 1, 1, b"") };
    let lease = bed.new_lease(&after);
    wait(bed.ledger().issue(IssueDraft { spend: Some(on), ..bed.draft(&lease) })).unwrap();
    let child = bed.child(&after);
    let under = bed.new_lease(&child);
    wait(bed.ledger().issue(IssueDraft { spend: Some(on), ..bed.draft(&under) })).unwrap();
    // As far below as tasks can be.
    let deepest = (2..=Task::MAX_ANCESTORS).fold(child, |above, _| bed.child(&above));
    wait(bed.ledger().issue(IssueDraft { spend: Some(on), ..bed.draft(&bed.new_lease(&deepest)) })).unwrap();
    let other = bed.task();
    let stray = IssueDraft { spend: Some(on), ..bed.draft(&bed.new_lease(&other)) };
    assert_eq!(wait(bed.ledger().issue(stray)).map(drop), Err(Refused::TokenOpened), "in another task");
}

fn a_retry_in_a_task_that_is_suspended_waits_for_it_and_in_one_that_is_over_is_none(bed: &mut Bed) {
    let before = issue(bed, spend(bed, 1, 1, b"a")).unwrap();
    let scope = Scope::Task(before.id);
    act(bed, suspend(scope.clone(), Suspension::Dormant)).unwrap();
    assert_eq!(issue(bed, spend(bed, 1, 1, b"a")).unwrap_err(), Refused::TaskSuspended);
    let causes = [Suspension::Dormant].into_iter().collect();
    act(bed, Custody::Release { scope, causes }).unwrap();
    let after = issue(bed, spend(bed, 1, 1, b"a")).unwrap();
    assert_eq!(bed.complete(after.id), Ok(true));
    assert_eq!(issue(bed, spend(bed, 1, 1, b"a")).unwrap_err(), Refused::TokenOpened);
}

fn a_use_is_remembered_until_nobody_would_take_the_token(bed: &mut Bed) {
    let task = open(bed, spend(bed, 1, 1, b"a")).unwrap();
    bed.advance(240);
    bed.sweep();
    assert_eq!(open(bed, spend(bed, 2, 1, b"a")), Err(first(task)));
    bed.advance(3_600);
    bed.sweep();
    assert!(bed.rows(Table::Spent).is_empty(), "nothing is left behind");
    bed.reopen();
}

fn a_damaged_use_counts_as_used_up(bed: &mut Bed) {
    open(bed, spend(bed, 1, 1, b"a")).unwrap();
    bed.damage(Table::Spent);
    bed.reopen();
    for key in [1, 2] {
        assert_eq!(open(bed, spend(bed, key, 8, b"a")), Err(Refused::TokenSpent { first: None }));
    }
}

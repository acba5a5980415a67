//! The engine that fails on cue keeps its own word.

use super::{Batch, Committed, Compare, Engine, EngineError, Memory, Table, apply, ops, put};
use crate::ledger::engine::faulty::{Fault, Faulty};

#[test]
fn only_the_scripted_commits_fail_and_each_in_its_way() {
    let engine = Faulty::new(Memory::new(), |number| match number {
        2 => Fault::Full,
        3 => Fault::UnknownApplied,
        4 => Fault::UnknownLost,
        _ => Fault::None,
    });
    let commit = |n: u8| engine.commit(&ops([put(Table::Meta, &[n], b"")]));
    assert!(matches!(commit(1), Ok(Committed::Applied)));
    assert!(matches!(commit(2), Err(EngineError::Full(_))));
    assert!(matches!(commit(3), Err(EngineError::Unknown(_))));
    assert!(matches!(commit(4), Err(EngineError::Unknown(_))));
    assert!(matches!(commit(5), Ok(Committed::Applied)));

    let held = [1, 2, 3, 4, 5].map(|n: u8| engine.get(Table::Meta, &[n]).unwrap().is_some());
    assert_eq!(held, [true, false, true, false, true]);
    assert_eq!(engine.commits(), 5);
}

#[test]
fn a_conflict_stays_a_conflict_under_a_fault_that_applies() {
    let engine = Faulty::new(Memory::new(), |_| Fault::UnknownApplied);
    apply(engine.inner(), [put(Table::Meta, b"k", b"v")]);
    let compare = Compare { table: Table::Meta, key: b"k".to_vec(), expected: None };
    let batch = Batch { compares: vec![compare], ops: Vec::new() };
    assert_eq!(engine.commit(&batch).unwrap(), Committed::Conflict);
}

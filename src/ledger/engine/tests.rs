//! The laws that every engine keeps.

use std::ops::Bound::{Excluded, Included, Unbounded};

use tempfile::TempDir;

use super::{
    Batch, Committed, Compare, Engine, EngineError, Op, Order, Range, Row, Table, batch::MAX_KEY_BYTES, fjall::Fjall,
    memory::Memory, prefix_end,
};

mod damage;
mod faults;
mod model;

/// Runs each law on each engine.
macro_rules! laws {
    ($($law:ident),* $(,)?) => {
        mod memory { $(#[test] fn $law() { super::$law(&super::Memory::new()); })* }
        mod fjall { $(#[test] fn $law() { let dir = super::folder(); super::$law(&super::fjall_in(&dir)); })* }
        #[cfg(feature = "sled")]
        mod sled { $(#[test] fn $law() { let dir = super::folder(); super::$law(&super::sled_in(&dir)); })* }
    };
}

laws! {
    a_batch_over_several_tables_happens_as_a_whole,
    the_later_operation_on_a_row_wins,
    a_batch_whose_compare_fails_changes_nothing,
    tables_do_not_see_each_others_rows,
    scans_keep_every_kind_of_bound,
    a_range_that_holds_no_key_gives_no_rows,
    a_prefix_scan_ends_after_the_last_0xff,
    a_batch_beyond_the_limits_is_refused_and_changes_nothing,
    an_empty_batch_applies,
    steady_churn_stays_bounded,
    recovering_a_sound_store_keeps_every_row,
    readers_see_whole_batches,
    a_pinned_state_stays_as_it_was_while_commits_go_on,
    pinned_states_are_kept_and_let_go_each_by_itself,
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn fjall_in(dir: &TempDir) -> Fjall {
    Fjall::open(dir.path()).unwrap()
}

#[cfg(feature = "sled")]
fn sled_in(dir: &TempDir) -> super::sled::Sled {
    super::sled::Sled::open(dir.path()).unwrap()
}

fn put(table: Table, key: &[u8], value: &[u8]) -> Op {
    Op::Put(table, key.to_vec(), value.to_vec())
}

fn delete(table: Table, key: &[u8]) -> Op {
    Op::Delete(table, key.to_vec())
}

fn ops(ops: impl IntoIterator<Item = Op>) -> Batch {
    Batch { compares: Vec::new(), ops: ops.into_iter().collect() }
}

fn apply(engine: &dyn Engine, batch: impl IntoIterator<Item = Op>) {
    assert_eq!(engine.commit(&ops(batch)).unwrap(), Committed::Applied);
}

fn keys(engine: &dyn Engine, table: Table, range: Range<'_>, order: Order, limit: usize) -> Vec<Vec<u8>> {
    engine.scan(table, range, order, limit).unwrap().into_iter().map(|(key, _)| key).collect()
}

fn all(engine: &dyn Engine, table: Table) -> Vec<Row> {
    engine.scan(table, (Unbounded, Unbounded), Order::Ascending, usize::MAX).unwrap()
}

// === laws ===

fn a_batch_over_several_tables_happens_as_a_whole(engine: &dyn Engine) {
    apply(engine, Table::ALL.map(|table| put(table, b"k", table.name().as_bytes())));
    for table in Table::ALL {
        assert_eq!(engine.get(table, b"k").unwrap().unwrap(), table.name().as_bytes());
    }
    apply(engine, Table::ALL.map(|table| delete(table, b"k")));
    for table in Table::ALL {
        assert_eq!(engine.get(table, b"k").unwrap(), None);
        assert!(all(engine, table).is_empty());
    }
}

fn the_later_operation_on_a_row_wins(engine: &dyn Engine) {
    for table in [Table::Meta, Table::Leases] {
        let batch = [
            put(table, b"a", b"1"),
            put(table, b"a", b"2"),
            put(table, b"b", b"1"),
            delete(table, b"b"),
            delete(table, b"c"),
            put(table, b"c", b""),
        ];
        apply(engine, batch);
        assert_eq!(all(engine, table), [(b"a".to_vec(), b"2".to_vec()), (b"c".to_vec(), Vec::new())]);
    }
}

fn a_batch_whose_compare_fails_changes_nothing(engine: &dyn Engine) {
    apply(engine, [put(Table::Meta, b"revision", b"7"), put(Table::Leases, b"l", b"")]);
    let compare = |table, key: &[u8], expected: Option<&[u8]>| Compare {
        table,
        key: key.to_vec(),
        expected: expected.map(<[u8]>::to_vec),
    };
    let holds = compare(Table::Meta, b"revision", Some(b"7"));
    let failing = [
        compare(Table::Meta, b"revision", Some(b"8")),
        compare(Table::Meta, b"revision", None),
        compare(Table::Leases, b"l", None),
        compare(Table::Leases, b"revision", Some(b"7")),
    ];
    for fails in failing {
        for compares in [vec![fails.clone()], vec![holds.clone(), fails.clone()], vec![fails, holds.clone()]] {
            let batch = Batch { compares, ops: vec![put(Table::Tasks, b"t", b""), delete(Table::Leases, b"l")] };
            assert_eq!(engine.commit(&batch).unwrap(), Committed::Conflict);
        }
    }
    assert!(all(engine, Table::Tasks).is_empty());
    assert!(engine.get(Table::Leases, b"l").unwrap().is_some());

    let compares = vec![holds, compare(Table::Tasks, b"t", None), compare(Table::Leases, b"l", Some(b""))];
    let batch = Batch { compares, ops: vec![put(Table::Meta, b"revision", b"8")] };
    assert_eq!(engine.commit(&batch).unwrap(), Committed::Applied);
    assert_eq!(engine.commit(&batch).unwrap(), Committed::Conflict);
}

fn tables_do_not_see_each_others_rows(engine: &dyn Engine) {
    for table in Table::ALL {
        apply(engine, [put(table, &[0], b""), put(table, &[0xff, 0xff], table.name().as_bytes())]);
    }
    for table in Table::ALL {
        let expected = [vec![0], vec![0xff, 0xff]];
        assert_eq!(keys(engine, table, (Unbounded, Unbounded), Order::Ascending, 9), expected);
        assert_eq!(keys(engine, table, (Unbounded, Unbounded), Order::Descending, 1), [[0xff, 0xff]]);
        assert_eq!(keys(engine, table, (Excluded(&[0]), Unbounded), Order::Ascending, 1), [[0xff, 0xff]]);
    }
}

fn scans_keep_every_kind_of_bound(engine: &dyn Engine) {
    for table in [Table::Cuts, Table::Expiry] {
        apply(engine, [b"b", b"d", b"f", b"h"].map(|key| put(table, key, b"")));
        let check = |range: Range<'_>, limit, expected: &str| {
            let up: String =
                keys(engine, table, range, Order::Ascending, limit).concat().iter().map(|b| *b as char).collect();
            assert_eq!(up, expected, "{range:?}");
            let full = keys(engine, table, range, Order::Ascending, usize::MAX);
            let mut down = keys(engine, table, range, Order::Descending, usize::MAX);
            let first = keys(engine, table, range, Order::Descending, 1);
            assert_eq!(first, down.iter().take(1).cloned().collect::<Vec<_>>());
            down.reverse();
            assert_eq!(down, full);
        };
        check((Unbounded, Unbounded), usize::MAX, "bdfh");
        check((Unbounded, Unbounded), 3, "bdf");
        check((Unbounded, Unbounded), 0, "");
        check((Included(b"d"), Unbounded), 9, "dfh");
        check((Excluded(b"d"), Unbounded), 9, "fh");
        check((Unbounded, Included(b"f")), 9, "bdf");
        check((Unbounded, Excluded(b"f")), 9, "bd");
        check((Included(b"d"), Included(b"f")), 9, "df");
        check((Excluded(b"d"), Included(b"f")), 9, "f");
        check((Included(b"d"), Excluded(b"f")), 9, "d");
        check((Excluded(b"b"), Excluded(b"h")), 1, "d");
        check((Included(b"c"), Included(b"g")), 9, "df");
        check((Included(b"d"), Included(b"d")), 9, "d");
        check((Included(b""), Unbounded), 2, "bd");
    }
}

fn a_range_that_holds_no_key_gives_no_rows(engine: &dyn Engine) {
    for table in [Table::Bars, Table::Audit] {
        apply(engine, [put(table, b"b", b""), put(table, b"d", b"")]);
        let ranges: [Range<'_>; 6] = [
            (Included(b"d"), Included(b"b")),
            (Excluded(b"d"), Excluded(b"b")),
            (Excluded(b"b"), Excluded(b"b")),
            (Included(b"b"), Excluded(b"b")),
            (Excluded(b"b"), Excluded(b"d")),
            (Unbounded, Excluded(b"")),
        ];
        for range in ranges {
            assert!(keys(engine, table, range, Order::Ascending, 9).is_empty(), "{range:?}");
            assert!(keys(engine, table, range, Order::Descending, 9).is_empty(), "{range:?}");
        }
    }
}

fn a_pinned_state_stays_as_it_was_while_commits_go_on(engine: &dyn Engine) {
    let row = |n: u8| put(Table::Leases, &[n], &[n]);
    apply(engine, (0..20).step_by(2).map(row));
    let before = all(engine, Table::Leases);
    let pin = engine.pin().unwrap();
    // Between, over, and without what was there; in another table as well.
    apply(engine, (1..20).step_by(2).map(row));
    apply(engine, vec![put(Table::Leases, &[4], b"new"), delete(Table::Leases, &[0]), delete(Table::Leases, &[18])]);
    apply(engine, vec![put(Table::Leases, &[4], b"newer"), put(Table::Tasks, &[1], b"x")]);
    for limit in [1, 3, 100] {
        let (mut rows, mut after): (Vec<Row>, Vec<u8>) = Default::default();
        loop {
            let lower = if after.is_empty() { Unbounded } else { Excluded(after.as_slice()) };
            let page = engine.scan_pinned(pin, Table::Leases, (lower, Unbounded), limit).unwrap();
            let Some((last, _)) = page.last() else { break };
            (after, rows) = (last.clone(), [rows, page].concat());
        }
        assert_eq!(rows, before, "{limit} at a time");
    }
    assert_eq!(engine.scan_pinned(pin, Table::Tasks, (Unbounded, Unbounded), 9).unwrap(), Vec::<Row>::new());
    engine.unpin(pin);
    assert!(engine.scan_pinned(pin, Table::Leases, (Unbounded, Unbounded), 9).is_err());
}

fn pinned_states_are_kept_and_let_go_each_by_itself(engine: &dyn Engine) {
    let mut pins = Vec::new();
    for n in 0..3 {
        apply(engine, [put(Table::Leases, b"l", &[n])]);
        pins.push(engine.pin().unwrap());
    }
    apply(engine, [delete(Table::Leases, b"l")]);
    let seen = |n: usize| engine.scan_pinned(pins[n], Table::Leases, (Unbounded, Unbounded), 9);
    let state = |n: u8| vec![(b"l".to_vec(), vec![n])];
    assert_eq!([0, 1, 2].map(|n| seen(n).unwrap()), [0, 1, 2].map(state));
    engine.unpin(pins[1]);
    assert!(seen(1).is_err());
    assert_eq!([0, 2].map(|n| seen(n).unwrap()), [0, 2].map(|n| state(u8::try_from(n).unwrap())));
}

fn a_prefix_scan_ends_after_the_last_0xff(engine: &dyn Engine) {
    let stored: [&[u8]; 6] = [&[1], &[1, 0xff], &[1, 0xff, 0xff, 9], &[2], &[0xff], &[0xff, 0xff, 1]];
    for table in [Table::Children, Table::Log] {
        apply(engine, stored.map(|key| put(table, key, b"")));
        for prefix in [&[1_u8] as &[u8], &[1, 0xff], &[1, 0xff, 0xff], &[0xff], &[0xff, 0xff], &[3], &[]] {
            let end = prefix_end(prefix);
            let range = (Included(prefix), end.as_deref().map_or(Unbounded, Excluded));
            let expected: Vec<_> =
                stored.iter().filter(|key| key.starts_with(prefix)).map(|key| key.to_vec()).collect();
            assert_eq!(keys(engine, table, range, Order::Ascending, 9), expected, "{prefix:?}");
        }
    }
}

fn a_batch_beyond_the_limits_is_refused_and_changes_nothing(engine: &dyn Engine) {
    let limits = engine.limits();
    let key = |n: usize| u32::try_from(n).unwrap().to_be_bytes();
    let many = |count: usize| ops((0..count).map(|n| put(Table::Streams, &key(n), b"")));
    let large = |bytes: usize| ops([put(Table::Trust, b"k", &vec![7; bytes - 1])]);
    let long = |bytes: usize| ops([put(Table::Keys, b"first", b""), put(Table::Keys, &vec![7; bytes], b"")]);

    for refused in [many(limits.ops + 1), large(limits.bytes + 1), long(0), long(MAX_KEY_BYTES + 1)] {
        assert!(matches!(engine.commit(&refused), Err(EngineError::Io(_))));
    }
    for table in [Table::Streams, Table::Trust, Table::Keys] {
        assert!(all(engine, table).is_empty());
    }
    for taken in [many(limits.ops), large(limits.bytes), long(MAX_KEY_BYTES)] {
        assert_eq!(engine.commit(&taken).unwrap(), Committed::Applied);
    }
    assert_eq!(all(engine, Table::Streams).len(), limits.ops);
}

fn an_empty_batch_applies(engine: &dyn Engine) {
    assert_eq!(engine.commit(&Batch::default()).unwrap(), Committed::Applied);
    assert_eq!(engine.get(Table::Leases, b"").unwrap(), None);
}

/// Every batch writes 64 leases and removes the 64 of the batch before, so 64 stay.
fn steady_churn_stays_bounded(engine: &dyn Engine) {
    const MIB: u64 = 1024 * 1024;
    let mut value = [0_u8; 600];
    let mut state = 88_172_645_463_325_252_u64;
    let key = |batch: u32, n: u32| (batch * 64 + n).wrapping_mul(0x9E37_79B9).to_be_bytes();
    for batch in 1..=300 {
        let mut changes = Vec::new();
        for n in 0..64 {
            for chunk in value.chunks_mut(8) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                chunk.copy_from_slice(&state.to_be_bytes());
            }
            changes.push(put(Table::Leases, &key(batch, n), &value));
            changes.push(put(Table::Expiry, &key(batch, n), b""));
            changes.push(delete(Table::Leases, &key(batch - 1, n)));
            changes.push(delete(Table::Expiry, &key(batch - 1, n)));
        }
        apply(engine, changes);
        let usage = engine.usage();
        assert!(usage.buffered_bytes < 24 * MIB, "{usage:?}");
        assert!(usage.disk_bytes < 128 * MIB, "{usage:?}");
    }
    assert_eq!(all(engine, Table::Leases).len(), 64);
    assert_eq!(all(engine, Table::Expiry).len(), 64);
}

fn recovering_a_sound_store_keeps_every_row(engine: &dyn Engine) {
    for n in 0..10_u8 {
        apply(engine, [put(Table::Leases, &[n], b"lease"), put(Table::Meta, &[n], b"meta")]);
    }
    engine.recover().unwrap();
    apply(engine, [put(Table::Leases, &[10], b"lease")]);
    engine.recover().unwrap();
    assert_eq!(all(engine, Table::Leases).len(), 11);
    assert_eq!(all(engine, Table::Meta).len(), 10);
}

/// A page never mixes two commits. A recovery in the middle does not disturb readers.
fn readers_see_whole_batches(engine: &dyn Engine) {
    let write = |n: u8| apply(engine, (0..32_u8).map(|key| put(Table::Tasks, &[key], &[n])));
    write(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 1..40 {
                write(n);
            }
            engine.recover().unwrap();
            write(40);
        });
        while !writer.is_finished() {
            let rows = all(engine, Table::Tasks);
            assert_eq!(rows.len(), 32);
            assert!(rows.windows(2).all(|pair| pair[0].1 == pair[1].1), "{rows:?}");
        }
    });
    assert_eq!(engine.get(Table::Tasks, &[31]).unwrap().unwrap(), [40]);
}

// === engines on disk ===

fn a_reopened_store_has_every_row<E: Engine>(open: impl Fn() -> E) {
    for round in 0..3_u8 {
        let engine = open();
        for n in 0..round {
            for table in Table::ALL {
                assert_eq!(engine.get(table, &[n]).unwrap().unwrap(), [n, n]);
            }
        }
        apply(&engine, Table::ALL.map(|table| put(table, &[round], &[round, round])));
    }
}

#[test]
fn a_reopened_fjall_has_every_row() {
    let dir = folder();
    a_reopened_store_has_every_row(|| fjall_in(&dir));
}

#[test]
fn a_second_fjall_on_one_folder_is_locked_out() {
    let dir = folder();
    let first = fjall_in(&dir);
    assert!(matches!(Fjall::open(dir.path()), Err(EngineError::Locked)));
    apply(&first, [put(Table::Meta, b"k", b"v")]);
    drop(first);
    assert!(fjall_in(&dir).get(Table::Meta, b"k").unwrap().is_some());
}

#[cfg(feature = "sled")]
#[test]
fn a_reopened_sled_has_every_row() {
    let dir = folder();
    a_reopened_store_has_every_row(|| sled_in(&dir));
}

#[cfg(feature = "sled")]
#[test]
fn a_second_sled_on_one_folder_is_locked_out() {
    let dir = folder();
    let _first = sled_in(&dir);
    assert!(matches!(super::sled::Sled::open(dir.path()), Err(EngineError::Locked)));
}

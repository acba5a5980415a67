//! Random batches and scans, against the plainest model there is.

use std::{collections::BTreeMap, ops::Bound};

use proptest::{collection::vec, prelude::*};

use super::{Batch, Committed, Compare, Engine, Memory, Op, Order, Row, Table, fjall_in, folder};

type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Commit(Batch),
    Scan { table: Table, low: Bound<Vec<u8>>, high: Bound<Vec<u8>>, order: Order, limit: usize },
    Recover,
}

fn table() -> impl Strategy<Value = Table> {
    prop::sample::select(vec![Table::Meta, Table::Children, Table::Sinks, Table::Leases, Table::Expiry])
}

/// Few and short, so that steps meet; the bytes at which prefixes and orders go wrong.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop::sample::select(vec![0_u8, 1, b'a', 0xfe, 0xff]), 1..=2)
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![Just(Bound::Unbounded), key().prop_map(Bound::Included), key().prop_map(Bound::Excluded)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (table(), key(), vec(any::<u8>(), 0..4)).prop_map(|(table, key, value)| Op::Put(table, key, value)),
        2 => (table(), key()).prop_map(|(table, key)| Op::Delete(table, key)),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    (table(), key()).prop_map(|(table, key)| Compare { table, key, expected: None })
}

fn step() -> impl Strategy<Value = Step> {
    let commit = (vec(compare(), 0..2), vec(op(), 0..12)).prop_map(|(compares, ops)| Batch { compares, ops });
    let order = prop::sample::select(vec![Order::Ascending, Order::Descending]);
    let scan = (table(), bound(), bound(), order, prop::sample::select(vec![0, 1, 3, usize::MAX]));
    prop_oneof![
        12 => commit.prop_map(Step::Commit),
        12 => scan.prop_map(|(table, low, high, order, limit)| Step::Scan { table, low, high, order, limit }),
        1 => Just(Step::Recover),
    ]
}

fn commit(model: &mut Model, batch: &Batch) -> Committed {
    let holds = |compare: &Compare| model.get(&(compare.table, compare.key.clone())) == compare.expected.as_ref();
    if !batch.compares.iter().all(holds) {
        return Committed::Conflict;
    }
    for op in &batch.ops {
        match op.clone() {
            Op::Put(table, key, value) => model.insert((table, key), value),
            Op::Delete(table, key) => model.remove(&(table, key)),
        };
    }
    Committed::Applied
}

fn scan(model: &Model, table: Table, (low, high): (&Bound<Vec<u8>>, &Bound<Vec<u8>>), order: Order) -> Vec<Row> {
    let above = |key: &Vec<u8>| match low {
        Bound::Unbounded => true,
        Bound::Included(low) => key >= low,
        Bound::Excluded(low) => key > low,
    };
    let below = |key: &Vec<u8>| match high {
        Bound::Unbounded => true,
        Bound::Included(high) => key <= high,
        Bound::Excluded(high) => key < high,
    };
    let rows = model.iter().filter(|((of, key), _)| *of == table && above(key) && below(key));
    let mut rows: Vec<_> = rows.map(|((_, key), value)| (key.clone(), value.clone())).collect();
    if order == Order::Descending {
        rows.reverse();
    }
    rows
}

fn agrees_with_the_model(engine: &dyn Engine, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Commit(batch) => prop_assert_eq!(engine.commit(batch).unwrap(), commit(&mut model, batch)),
            Step::Scan { table, low, high, order, limit } => {
                let range = (low.as_ref().map(Vec::as_slice), high.as_ref().map(Vec::as_slice));
                let mut expected = scan(&model, *table, (low, high), *order);
                expected.truncate(*limit);
                prop_assert_eq!(engine.scan(*table, range, *order, *limit).unwrap(), expected);
            }
            Step::Recover => engine.recover().unwrap(),
        }
    }
    for ((table, key), value) in &model {
        prop_assert_eq!(engine.get(*table, key).unwrap(), Some(value.clone()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_agrees_with_the_model(steps in vec(step(), 1..40)) {
        agrees_with_the_model(&Memory::new(), &steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fjall_agrees_with_the_model(steps in vec(step(), 1..40)) {
        let dir = folder();
        agrees_with_the_model(&fjall_in(&dir), &steps)?;
    }

    #[cfg(feature = "sled")]
    #[test]
    fn sled_agrees_with_the_model(steps in vec(step(), 1..40)) {
        let dir = folder();
        agrees_with_the_model(&super::sled_in(&dir), &steps)?;
    }
}

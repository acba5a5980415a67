//! One state of the whole store, and what is made of it.

use std::collections::BTreeMap;

use super::{
    harness::{Bed, Kind, row_key, wait},
    on_each_engine,
};
use crate::{
    ledger::{
        Filler, Gleaned, Head, KeyCommit, Snapshot,
        engine::{Engine, Op, Table, memory::Memory},
        keys, stream_id, stream_name,
    },
    model::{Digest, TenantNumber},
    pb, records,
};

on_each_engine! {
    a_snapshot_is_one_state_of_the_whole_store_while_commits_go_on,
    what_is_gleaned_of_a_snapshot_is_where_each_stream_stands_and_the_brokers_own_keys,
}

/// All its rows, two at a time, table by table.
fn rows(snapshot: &Snapshot) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for table in Table::ALL {
        let mut after = Vec::new();
        loop {
            let page = snapshot.page(table, &after, 2).unwrap();
            let Some((last, _)) = page.last() else { break };
            after = last.clone();
            all.extend(page.into_iter().map(|(key, value)| (table, key, value)));
        }
    }
    all
}

fn a_snapshot_is_one_state_of_the_whole_store_while_commits_go_on(bed: &mut Bed) {
    let (task, basis) = (bed.task(), bed.ledger().basis());
    let before = bed.lease(&task);
    let snapshot = bed.ledger().snapshot().unwrap();
    let after = bed.lease(&task);
    bed.release(before.id).unwrap();
    assert_eq!((snapshot.meta.incarnation, snapshot.meta.revision), (basis.0, basis.1 + 1));
    let mut copy = Bed::new(Kind::Memory);
    copy.edit(rows(&snapshot).into_iter().map(|(table, key, value)| Op::Put(table, key, value)));
    copy.reopen();
    copy.now = bed.now;
    assert_eq!([before.id, after.id].map(|id| copy.is_live(id)), [true, false]);
    assert_eq!([before.id, after.id].map(|id| bed.is_live(id)), [false, true]);
}

fn what_is_gleaned_of_a_snapshot_is_where_each_stream_stands_and_the_brokers_own_keys(bed: &mut Bed) {
    bed.lease(&bed.task());
    let of = |tenant: &str| pb::Event { kind: "x".into(), tenant: tenant.into(), ..Default::default() };
    wait(bed.ledger().note(vec![of("acme"), of("globex"), of("acme")], bed.now)).unwrap();
    let put = |number: TenantNumber, use_code: u8, byte: u8| {
        let record = records::KeyRecord { key_use: use_code.into(), public_key: vec![byte; 32], ..Default::default() };
        (keys::key(number, use_code, &format!("k{byte}")), record)
    };
    let acme = TenantNumber::new(1).unwrap();
    let puts = vec![put(TenantNumber::BROKER, 1, 1), put(TenantNumber::BROKER, 2, 2), put(acme, 1, 3)];
    let (deletes, changed, events) = (Vec::new(), Vec::new(), Vec::new());
    wait(bed.ledger().step_keys(KeyCommit { puts, deletes, changed, events, now: bed.now }, || {})).unwrap();
    let gleaned = |bed: &Bed| {
        let mut gleaned = Gleaned::new(row_key());
        let all = rows(&bed.ledger().snapshot().unwrap());
        all.iter().for_each(|(table, key, value)| gleaned.take(*table, key, value));
        gleaned
    };
    let head = |bed: &Bed, tenant: &str, partner: &str| {
        let pages = bed.ledger().audit_pages(&stream_id(tenant, partner), 0, usize::MAX).unwrap();
        let sequence = pages.iter().map(|(_, page)| page.as_ref().unwrap().events.len() as u64).sum();
        let hash = Digest::from_slice(&pages.last().unwrap().1.as_ref().unwrap().after).unwrap();
        (stream_name(tenant, partner), Head { sequence, hash })
    };
    let streams = [("acme", "north"), ("acme", ""), ("globex", "")];
    let heads: BTreeMap<String, Head> = streams.map(|(tenant, partner)| head(bed, tenant, partner)).into();
    let found = gleaned(bed);
    assert_eq!(found.heads(), heads);
    assert_eq!((found.keys_for(1), found.keys_for(2)), (vec![[1; 32]], vec![[2; 32]]));
    // A stream whose last page does not read stands nobody knows where.
    let last = bed.rows(Table::Audit).into_iter().rfind(|(key, _)| key.starts_with(&stream_id("acme", "north")));
    bed.edit([Op::Put(Table::Audit, last.unwrap().0, vec![0xff])]);
    bed.reopen();
    let left = heads.into_iter().filter(|(name, _)| *name != stream_name("acme", "north")).collect();
    assert_eq!(gleaned(bed).heads(), left);
}

#[test]
fn a_store_that_is_filled_has_every_row_when_the_last_ones_are_written() {
    let (engine, rows) = (Memory::default(), 10_000_u32);
    let mut filler = Filler::new(&engine);
    for at in 0..rows {
        filler.put(Table::Leases, at.to_be_bytes().to_vec(), vec![7]).unwrap();
    }
    filler.flush().unwrap();
    for at in 0..rows {
        assert_eq!(engine.get(Table::Leases, &at.to_be_bytes()).unwrap(), Some(vec![7]), "{at}");
    }
}

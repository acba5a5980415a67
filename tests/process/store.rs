//! `mayfly store check` on folders as they lie on disk: what is damaged is named, and nothing is changed.

use std::{ops::Bound, path::Path};

use mayfly::{
    ledger::{
        engine::{Batch, Compare, Engine, Op, Order, Row, Table, fjall::Fjall},
        keys,
    },
    mint::seal::{Seal, SealKey},
    model::secret::MacKey,
    pb::CredentialKind,
    records::MetaRecord,
};
use prost::Message;

use super::{
    rig::{Said, arg, mayfly},
    world::{World, is_active, issue, request},
};

fn check(data: &Path) -> Said {
    mayfly(&["store", "check", "--dev-data", arg(data)])
}

fn open(data: &Path) -> Fjall {
    Fjall::open(&data.join("store")).expect("opens")
}

fn all(engine: &dyn Engine, table: Table) -> Vec<Row> {
    engine.scan(table, (Bound::Unbounded, Bound::Unbounded), Order::Ascending, usize::MAX).expect("reads")
}

fn rows(data: &Path) -> Vec<Vec<Row>> {
    let engine = open(data);
    Table::ALL.iter().map(|table| all(&engine, *table)).collect()
}

fn put(engine: &dyn Engine, table: Table, key: &[u8], value: Vec<u8>) {
    let compares: Vec<Compare> = Vec::new();
    engine.commit(&Batch { compares, ops: vec![Op::Put(table, key.to_vec(), value)] }).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_names_a_damaged_row_and_changes_nothing() {
    let mut world = World::new().await;
    let mut broker = world.broker("alpha").await;
    let damaged = issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    let sound = issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    let busy = check(&world.launch.data());
    assert!(busy.code == 2 && busy.errors.contains("in use"), "{busy:?}");
    assert!(world.process.stop().success());
    let data = world.launch.data();
    let clean = check(&data);
    assert!(clean.code == 0 && clean.out.contains("2 rows in leases"), "{clean:?}");

    let id = super::world::lease_of(&damaged).lease_id;
    let engine = open(&data);
    let mut found = all(&engine, Table::Leases);
    found.retain(|(key, _)| mayfly::model::LeaseId::from_bytes(key).is_some_and(|key| key.to_string() == id));
    let (key, mut value) = found.pop().expect("its row");
    let middle = value.len() / 2;
    value[middle] ^= 1;
    put(&engine, Table::Leases, &key, value);
    drop(engine);
    let before = rows(&data);
    let told = check(&data);
    assert_eq!(told.code, 4, "{told:?}");
    assert!(told.out.contains(&format!("leases row {id}")) && told.errors.contains("1 rows are damaged"), "{told:?}");
    assert!(before == rows(&data), "a check wrote");

    world.restart().await;
    let mut verifier = world.verifier("alpha").await;
    assert!(!is_active(&mut verifier, &damaged).await, "a damaged lease is live");
    assert!(is_active(&mut verifier, &sound).await, "a damaged row ended another lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_newer_schema_is_refused_and_left_as_it_is() {
    let mut world = World::new().await;
    assert!(world.process.stop().success());
    let data = world.launch.data();
    let engine = open(&data);
    let stored = engine.get(Table::Meta, keys::META).expect("reads").expect("its own row");
    let body = &stored[1..stored.len() - MacKey::TAG_BYTES];
    let record = MetaRecord { schema: 99, ..MetaRecord::decode(body).expect("a record") };
    let mut value = vec![stored[0]];
    value.extend(record.encode_to_vec());
    let seal = Seal::new(&SealKey::read(&data.join("seal.key")).expect("the key"));
    value.extend(seal.row_key().tag(&[&[Table::Meta as u8], keys::META, &value]));
    put(&engine, Table::Meta, keys::META, value);
    drop(engine);
    let before = rows(&data);
    let refused = world.launch.start().err().expect("a newer schema");
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("schema 99") && refused.stderr.contains("newer version"), "{}", refused.stderr);
    let checked = check(&data);
    assert!(checked.code != 0 && checked.errors.contains("schema 99"), "{checked:?}");
    assert!(before == rows(&data), "the refusal wrote");
}

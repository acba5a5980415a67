//! What a damaged fjall journal does, and what setting it aside keeps.

use std::{fs, path::Path};

use super::{EngineError, Fjall, Table, all, apply, fjall_in, folder, put};
use crate::ledger::engine::fjall::set_damaged_journal_aside;

/// Writes `count` leases, one commit each, whose values can be found in the journal.
fn write_leases(dir: &tempfile::TempDir, count: u8) {
    let engine = fjall_in(dir);
    for n in 0..count {
        apply(&engine, [put(Table::Leases, &[n], &value(n)), put(Table::Meta, &[n], b"")]);
    }
}

fn value(n: u8) -> Vec<u8> {
    format!("the value of lease {n:03} in full").into_bytes()
}

/// Flips one bit in the value of lease `n`.
fn flip(dir: &Path, n: u8) {
    let path = journal(dir);
    let mut bytes = fs::read(&path).unwrap();
    let needle = value(n);
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn journal(dir: &Path) -> std::path::PathBuf {
    let mut found = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    found.find(|path| path.extension().is_some_and(|extension| extension == "jnl")).unwrap()
}

#[test]
fn a_store_with_a_flipped_bit_in_its_journal_says_what_to_do() {
    let dir = folder();
    write_leases(&dir, 20);
    flip(dir.path(), 12);
    match Fjall::open(dir.path()) {
        Err(EngineError::Damaged { explanation, source }) => {
            assert!(explanation.contains("mayfly store check"), "{explanation}");
            assert!(source.is_some());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn setting_a_damaged_journal_aside_keeps_every_commit_before_the_damage() {
    let dir = folder();
    write_leases(&dir, 20);
    flip(dir.path(), 12);
    let damaged = fs::read(journal(dir.path())).unwrap();

    let moved = set_damaged_journal_aside(dir.path()).unwrap();
    assert_eq!(moved.len(), 1);
    assert!(moved[0].starts_with(dir.path().join("aside-1")));
    assert!(fs::read(&moved[0]).unwrap() == damaged, "the moved file is not as it was");

    let engine = fjall_in(&dir);
    let kept: Vec<_> = all(&engine, Table::Leases).into_iter().map(|(key, _)| key[0]).collect();
    assert_eq!(kept, (0..12).collect::<Vec<_>>());
    assert_eq!(all(&engine, Table::Meta).len(), 12);
    apply(&engine, [put(Table::Leases, &[99], b"")]);
    drop(engine);
    assert_eq!(all(&fjall_in(&dir), Table::Leases).len(), 13);
}

#[test]
fn a_sound_journal_is_left_where_it_is() {
    let dir = folder();
    write_leases(&dir, 3);
    assert!(set_damaged_journal_aside(dir.path()).unwrap().is_empty());
    assert_eq!(all(&fjall_in(&dir), Table::Leases).len(), 3);
}

#[test]
fn the_journal_of_an_open_store_is_not_touched() {
    let dir = folder();
    let _engine = fjall_in(&dir);
    assert!(matches!(set_damaged_journal_aside(dir.path()), Err(EngineError::Locked)));
}

#[test]
fn a_commit_cut_off_in_the_journal_is_dropped_as_a_whole() {
    let dir = folder();
    write_leases(&dir, 5);
    let path = journal(dir.path());
    let bytes = fs::read(&path).unwrap();
    let needle = value(4);
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    fs::write(path, &bytes[..at + 3]).unwrap();

    let engine = fjall_in(&dir);
    assert_eq!(all(&engine, Table::Leases).len(), 4);
    assert_eq!(all(&engine, Table::Meta).len(), 4);
}

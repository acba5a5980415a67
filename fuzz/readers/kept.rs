//! What lies on disks: rows, the anchor, backups, shipped audit.

use std::sync::LazyLock;

use mayfly::{
    audit::{Start, Verifier, export, verify::Coverage},
    broker::backup::file::{self, BackupError, Contents, Writer},
    ledger::{
        self, Anchor, FileAnchor, SCHEMA,
        anchor::Found,
        engine::{Batch, Engine, Op, Table, memory::Memory},
    },
    mint::seal::{SALT_BYTES, Seal, SealKey},
    model::{
        id::hex,
        secret::{MacKey, Secret},
    },
};

/// A line of an audit export, and a whole one, from its beginning and from wherever it begins.
pub fn audit_export(bytes: &[u8]) {
    let _ = export::parse(bytes);
    for start in [Start::Genesis, Start::AsGiven] {
        let verifier = Verifier::new(start, Coverage::All, Vec::new(), |_, _, _| true);
        let _ = export::verify_lines(|| Ok(bytes), verifier);
    }
}

/// A row of the store whose MAC is right: the table, the length of the key, the key, the value.
pub fn row(bytes: &[u8]) {
    let [table, length, rest @ ..] = bytes else { return };
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    let Some(table) = Table::ALL.get(usize::from(*table) % Table::ALL.len()).copied() else { return };
    let tag = mac().tag(&[&[table as u8], key, value]);
    for value in [value.to_vec(), [value, &tag].concat()] {
        let engine = Memory::new();
        let ops = vec![Op::Put(table, key.to_vec(), value)];
        if engine.commit(&Batch { compares: Vec::new(), ops }).is_err() {
            return;
        }
        let _ = ledger::check(&engine, mac(), |_, _| {});
    }
}

/// The anchor: the bytes as its file, and as what stands before a code that is right.
pub fn anchor(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("folder");
    let anchor = FileAnchor::new(folder.path().join("anchor"), mac());
    let code = hex(&mac().tag(&[bytes]));
    for whole in [bytes.to_vec(), [bytes, b"code ", code.as_bytes(), b"\n"].concat()] {
        std::fs::write(anchor.path(), whole).expect("written");
        assert_ne!(anchor.read().expect("a file"), Found::Absent, "a file that is there is none");
    }
}

/// A backup: the bytes as its file, and as the chunks of one that was sealed: the length of each in two bytes, then it.
pub fn backup(bytes: &[u8]) {
    static SEAL: LazyLock<Seal> = LazyLock::new(|| Seal::new(&SealKey::random().expect("entropy")));
    let read = |file: &[u8]| -> Result<(Contents, u64), BackupError> {
        let mut rows = 0;
        let contents = file::read(&SEAL, file, SCHEMA, |_, _, _| {
            rows += 1;
            Ok::<_, BackupError>(())
        })?;
        Ok((contents, rows))
    };
    assert!(read(bytes).is_err(), "nobody knows the key");
    let mut writer = Writer::new(&SEAL, &[7; SALT_BYTES]);
    let (mut sealed, mut rest) = (Vec::new(), bytes);
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (chunk, after) = after.split_at(usize::from(u16::from_be_bytes(*length)).min(after.len()));
        let Ok(part) = writer.put(chunk, after.is_empty()) else { return };
        sealed.extend(part);
        rest = after;
    }
    if let Ok((contents, rows)) = read(&sealed) {
        assert_eq!(contents.rows.iter().map(|(_, count)| count).sum::<u64>(), rows, "every row is counted");
    }
}

/// A key that is known.
fn mac() -> MacKey {
    let secret = Secret::<32>::try_init(|bytes| {
        bytes.fill(7);
        Ok::<_, ()>(())
    });
    MacKey::new(&secret.expect("no entropy is drawn"))
}

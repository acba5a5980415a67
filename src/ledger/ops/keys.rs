//! Key rings: rows of sealed keys, and the audit's own notes.

use crate::{
    ledger::{book::ScopeState, engine::Table, refused::Refused, tx::Tx},
    model::{Scope, Timestamp},
    pb, records,
};

/// A step of a key ring.
#[derive(Debug)]
pub struct KeyCommit {
    /// Rows to write: key and record.
    pub puts: Vec<(Vec<u8>, records::KeyRecord)>,
    /// Rows to remove: destroyed keys.
    pub deletes: Vec<Vec<u8>>,
    /// Key ids whose decisions in flight must be made anew.
    pub changed: Vec<String>,
    /// Its events.
    pub events: Vec<pb::Event>,
    /// When.
    pub now: Timestamp,
}

/// Writes a step of a key ring.
pub(in crate::ledger) fn run(tx: &mut Tx<'_>, commit: &KeyCommit) -> Result<(), Refused> {
    tx.mark_time(commit.now);
    for event in &commit.events {
        tx.audit(event)?;
    }
    for (key, record) in &commit.puts {
        tx.put_record(Table::Keys, key.clone(), record);
    }
    for key in &commit.deletes {
        tx.delete(Table::Keys, key.clone());
    }
    let number = tx.number();
    for id in commit.changed.iter().map(|kid| Scope::SigningKey(kid.clone()).id()) {
        let state = tx.scope(id);
        tx.set_scope(id, ScopeState { changed: number, changed_at: commit.now, ..state });
    }
    Ok(())
}

/// Writes events alone: refusals, uses, operator acts that change nothing.
pub(in crate::ledger) fn note(tx: &mut Tx<'_>, events: &[pb::Event], now: Timestamp) -> Result<(), Refused> {
    tx.mark_time(now);
    for event in events {
        tx.audit(event)?;
    }
    Ok(())
}

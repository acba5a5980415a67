//! Notifications that wait, and credentials that nobody here manages: rows that no decision rests on.

use super::upkeep;
use crate::{
    ledger::{engine::Table, keys, refused::Refused, tx::Tx},
    model::{GrantName, TenantNumber, Timestamp},
    pb, records,
};

/// A step of the notifier. What is put and what is removed happen together with its events, or not at all.
#[derive(Clone, Debug, Default)]
pub struct NoticeCommit {
    /// Notifications that are to wait, by their rows' keys.
    pub queued: Vec<(Vec<u8>, records::NoticeRecord)>,
    /// Keys of those that wait no more.
    pub done: Vec<Vec<u8>>,
    /// How some ways out stand.
    pub outlets: Vec<(String, records::OutletRecord)>,
    /// Ways out that are gone.
    pub forgotten: Vec<String>,
    /// Owners that are reminded with this: of which grant, for which date.
    pub reminded: Vec<(TenantNumber, GrantName, Timestamp)>,
    /// The revision up to which the audit was read.
    pub read_until: Option<u64>,
    /// Its events.
    pub events: Vec<pb::Event>,
    /// When.
    pub now: Timestamp,
}

/// Unmanaged credentials that are registered or removed, with the events of it.
#[derive(Clone, Debug, Default)]
pub struct UnmanagedCommit {
    /// Rows to write, replacing what was there.
    pub puts: Vec<records::UnmanagedRecord>,
    /// Tenant (empty for none) and name of those to remove.
    pub deletes: Vec<(String, String)>,
    /// One event each.
    pub events: Vec<pb::Event>,
    /// When.
    pub now: Timestamp,
}

/// Writes a step of the notifier.
pub(in crate::ledger) fn run(tx: &mut Tx<'_>, commit: &NoticeCommit) -> Result<(), Refused> {
    tx.mark_time(commit.now);
    commit.events.iter().try_for_each(|event| tx.audit(event))?;
    for (key, record) in &commit.queued {
        tx.put_record(Table::Notices, key.clone(), record);
    }
    for key in &commit.done {
        tx.delete(Table::Notices, key.clone());
    }
    for (name, record) in &commit.outlets {
        tx.put_record(Table::Notices, keys::outlet(name), record);
    }
    for name in &commit.forgotten {
        tx.delete(Table::Notices, keys::outlet(name));
    }
    for (tenant, grant, attest_by) in &commit.reminded {
        let record = records::ReminderRecord { attest_by: attest_by.millis() };
        tx.put_record(Table::Notices, keys::reminded(*tenant, grant), &record);
    }
    if let Some(number) = commit.read_until {
        upkeep::acknowledge(tx, READ_UNTIL, number);
    }
    Ok(())
}

/// Registers and removes unmanaged credentials.
pub(in crate::ledger) fn unmanaged(tx: &mut Tx<'_>, commit: &UnmanagedCommit) -> Result<(), Refused> {
    tx.mark_time(commit.now);
    commit.events.iter().try_for_each(|event| tx.audit(event))?;
    for record in &commit.puts {
        tx.put_record(Table::Unmanaged, keys::unmanaged(&record.tenant, &record.name), record);
    }
    for (tenant, name) in &commit.deletes {
        tx.delete(Table::Unmanaged, keys::unmanaged(tenant, name));
    }
    Ok(())
}

/// The name under which it is kept, beside the sinks' positions, how far the audit was read for notifications; no sink
/// can have it.
pub(in crate::ledger) const READ_UNTIL: &str = "\0notify";

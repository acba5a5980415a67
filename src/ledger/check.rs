//! `mayfly store check`: reads every row of a store that no daemon has open.

use std::ops::Bound;

use subtle::ConstantTimeEq;

use super::{
    codec::{Codec, Unreadable},
    engine::{Engine, EngineError, Order, Table},
    keys, migrate,
    open::OpenError,
    shared::AsideRow,
};
use crate::{
    model::{ApprovalId, LeaseId, TaskId, id::hex, secret::MacKey},
    pb, records,
};

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Rows read, by table.
    pub rows: Vec<(Table, u64)>,
    /// Rows that cannot be read, the first thousand.
    pub unreadable: Vec<AsideRow>,
    /// All of them.
    pub unreadable_total: u64,
}

/// Refuses a store that a check would misjudge: under another seal key, or of a newer schema, every row looks damaged.
///
/// # Errors
/// [`OpenError::WrongSealKey`], [`OpenError::Schema`], or when the engine cannot read.
pub fn fits(engine: &dyn Engine, row_key: MacKey, seal_check: &[u8; 32]) -> Result<(), OpenError> {
    if engine
        .get(Table::Meta, keys::FOUNDING)?
        .is_some_and(|check| !bool::from(check.as_slice().ct_eq(&seal_check[..])))
    {
        return Err(OpenError::WrongSealKey);
    }
    let meta = engine.get(Table::Meta, keys::META)?;
    let codec = Codec::new(row_key);
    let meta = meta.and_then(|row| codec.decode::<records::MetaRecord>(Table::Meta, keys::META, &row).ok());
    // One that cannot be read is for the check to report.
    if let Some(meta) = meta {
        migrate::path(meta.schema)?;
    }
    Ok(())
}

/// Reads every row. `progress` hears how many so far.
///
/// # Errors
/// When the engine cannot read at all.
pub fn check(
    engine: &dyn Engine,
    row_key: MacKey,
    mut progress: impl FnMut(Table, u64),
) -> Result<CheckReport, EngineError> {
    let codec = Codec::new(row_key);
    let mut report = CheckReport::default();
    for table in Table::ALL {
        let (mut after, mut rows) = (Vec::new(), 0);
        loop {
            let lower = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after.as_slice()) };
            let page = engine.scan(table, (lower, Bound::Unbounded), Order::Ascending, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            let next = last.clone();
            for (key, value) in &page {
                rows += 1;
                if let Err(why) = read(&codec, table, key, value) {
                    report.note(table, key, why);
                }
            }
            progress(table, rows);
            after = next;
        }
        report.rows.push((table, rows));
    }
    Ok(report)
}

impl CheckReport {
    fn note(&mut self, table: Table, key: &[u8], why: Unreadable) {
        self.unreadable_total += 1;
        if self.unreadable.len() < 1_000 {
            self.unreadable.push(AsideRow { table, key: hex(key), why });
        }
    }
}

fn read(codec: &Codec, table: Table, key: &[u8], value: &[u8]) -> Result<(), Unreadable> {
    match table {
        Table::Meta if key == keys::FOUNDING => Ok(()),
        Table::Meta if key == keys::HOLD => codec.decode::<records::HoldRecord>(table, key, value).map(drop),
        Table::Meta | Table::Sinks => codec.decode::<records::MetaRecord>(table, key, value).map(drop),
        Table::Leases => {
            let id = LeaseId::from_bytes(key).ok_or(Unreadable::Field("key"))?;
            codec.decode_lease(id, value).map(drop)
        }
        Table::Tasks => {
            let id = TaskId::from_bytes(key).ok_or(Unreadable::Field("key"))?;
            codec.decode_task(id, value).map(drop)
        }
        Table::Children | Table::Held => Ok(()),
        Table::Notices => match keys::notice_kind(key) {
            Some(keys::Notice::Queued) => codec.decode::<records::NoticeRecord>(table, key, value).map(drop),
            Some(keys::Notice::Outlet) => codec.decode::<records::OutletRecord>(table, key, value).map(drop),
            Some(keys::Notice::Reminded) => codec.decode::<records::ReminderRecord>(table, key, value).map(drop),
            None => Err(Unreadable::Field("key")),
        },
        Table::Unmanaged => codec.decode::<records::UnmanagedRecord>(table, key, value).map(drop),
        Table::Expiry => codec.decode::<records::ExpiryPage>(table, key, value).map(drop),
        Table::Cuts => codec.decode::<records::CutRecord>(table, key, value).map(drop),
        Table::Bars => codec.decode::<records::BarRecord>(table, key, value).map(drop),
        Table::Retries => codec.decode::<records::RetryRecord>(table, key, value).map(drop),
        Table::Counts => codec.decode::<records::CountRecord>(table, key, value).map(drop),
        Table::Audit => codec.decode::<records::AuditPage>(table, key, value).map(drop),
        Table::Log => codec.decode::<records::LogPage>(table, key, value).map(drop),
        Table::Streams => codec.decode::<records::StreamRecord>(table, key, value).map(drop),
        Table::Feed => codec.decode::<records::FeedRecord>(table, key, value).map(drop),
        Table::Trust if key.first() == Some(&keys::TENANT_NAMES) => Ok(()),
        Table::Trust => codec.decode::<records::TenantRecord>(table, key, value).map(drop),
        Table::Keys => codec.decode::<records::KeyRecord>(table, key, value).map(drop),
        Table::GrantStates if key.first() == Some(&keys::GRANT_USES) => {
            codec.decode::<records::GrantUseRecord>(table, key, value).map(drop)
        }
        Table::GrantStates => codec.decode::<records::GrantStateRecord>(table, key, value).map(drop),
        Table::Approvals => {
            let id = ApprovalId::from_bytes(key).ok_or(Unreadable::Field("key"))?;
            codec.decode_approval(id, value).map(drop)
        }
        Table::Secrets => codec.decode::<records::SecretRecord>(table, key, value).map(drop),
        Table::SecretValues => codec.decode::<records::SecretValueRecord>(table, key, value).map(drop),
        Table::SecretHolders => codec.decode::<records::SecretHolderRecord>(table, key, value).map(drop),
        Table::Pickups => codec.decode::<records::PickupRecord>(table, key, value).map(drop),
        Table::Appeals => codec.decode::<records::AppealRecord>(table, key, value).map(drop),
        Table::Spent => codec.decode::<records::SpentRecord>(table, key, value).map(drop),
        Table::People if key.first() == Some(&keys::SIGN_INS) => {
            codec.decode::<records::SignInRecord>(table, key, value).map(drop)
        }
        Table::People if key.first() == Some(&keys::PERSON_KEYS) => Ok(()),
        Table::People => codec.decode::<records::PersonRecord>(table, key, value).map(drop),
        Table::Checkpoints => codec.decode::<pb::Checkpoint>(table, key, value).map(drop),
    }
}

/// Rows read at a time.
const PAGE: usize = 4_096;

//! Notifications and unmanaged credentials: proposals and reads.

use std::ops::Bound;

use super::{
    engine::{Order, Table},
    keys::{self, Notice, Urgency},
    lanes::Lane,
    open::{Ledger, Receipt},
    ops::notices::{self, NoticeCommit, UnmanagedCommit},
    read::Paged,
    refused::Refused,
};
use crate::{
    model::{GrantName, TenantNumber, Timestamp},
    records,
};

/// A notification that waits, and the key of its row.
pub type Queued = (Vec<u8>, records::NoticeRecord);

/// How far the notifications of an outlet were tried in a round: the last key of each urgency; empty at its beginning.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NoticeMarks {
    /// Of alarms.
    pub first: Vec<u8>,
    /// Of all others.
    pub then: Vec<u8>,
}

impl NoticeMarks {
    /// The mark of an urgency.
    pub fn of(&mut self, urgency: Urgency) -> &mut Vec<u8> {
        match urgency {
            Urgency::First => &mut self.first,
            Urgency::Then => &mut self.then,
        }
    }
}

impl Ledger {
    /// Takes a step of the notifier, behind everything else.
    ///
    /// # Errors
    /// Refused, with nothing done.
    pub async fn step_notices(&self, commit: NoticeCommit) -> Result<Receipt, Refused> {
        Ok(self.propose(Lane::Background, move |tx| notices::run(tx, &commit)).await?.1)
    }

    /// Registers or removes unmanaged credentials.
    ///
    /// # Errors
    /// Refused, with nothing done.
    pub async fn change_unmanaged(&self, commit: UnmanagedCommit) -> Result<Receipt, Refused> {
        Ok(self.propose(Lane::End, move |tx| notices::unmanaged(tx, &commit)).await?.1)
    }

    /// The revision up to which the audit was read for notifications; `None` before the first time.
    ///
    /// # Errors
    /// When the store failed.
    pub fn notices_read_until(&self) -> Result<Option<u64>, Refused> {
        self.acknowledged(notices::READ_UNTIL)
    }

    /// Notifications that wait for an outlet (for any, when it is empty), in the order of their keys, after the row `after`.
    ///
    /// # Errors
    /// When the store failed.
    pub fn notices(&self, outlet: &str, after: &[u8], limit: usize) -> Result<Paged<Queued>, Refused> {
        let prefix = if outlet.is_empty() { vec![QUEUED] } else { keys::notices(outlet) };
        self.page(Table::Notices, &prefix, after, limit, |key, value| {
            let read = self.shared.codec.decode(Table::Notices, key, value);
            Some((key.to_vec(), read.inspect_err(|e| self.shared.aside.note(Table::Notices, key, e)).ok()?))
        })
    }

    /// What an outlet tells next, oldest first, behind its mark: alarms, and others when no alarm is left.
    ///
    /// # Errors
    /// When the store failed.
    pub fn next_notices(
        &self,
        outlet: &str,
        marks: &NoticeMarks,
        limit: usize,
    ) -> Result<(Urgency, Paged<Queued>), Refused> {
        let (from, between) = (keys::notices(outlet), keys::urgent_notices(outlet, Urgency::Then));
        let to = super::engine::prefix_end(&from);
        let upper = Bound::Excluded(between.as_slice());
        let first = self.notices_within(&from, upper, &marks.first, limit)?;
        if !first.0.is_empty() || first.1.is_some() {
            return Ok((Urgency::First, first));
        }
        let upper = to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        Ok((Urgency::Then, self.notices_within(&between, upper, &marks.then, limit)?))
    }

    fn notices_within(
        &self,
        from: &[u8],
        upper: Bound<&[u8]>,
        mark: &[u8],
        limit: usize,
    ) -> Result<Paged<Queued>, Refused> {
        let lower = if mark.is_empty() { Bound::Included(from) } else { Bound::Excluded(mark) };
        let rows = self.scan(Table::Notices, (lower, upper), Order::Ascending, limit)?;
        let next = if rows.len() == limit { rows.last().map(|(key, _)| key.clone()) } else { None };
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            let read = self.shared.codec.decode(Table::Notices, &key, &value);
            let record = read.inspect_err(|e| self.shared.aside.note(Table::Notices, &key, e)).ok()?;
            Some((key, record))
        };
        Ok((rows.into_iter().filter_map(read).collect(), next))
    }

    /// How many notifications wait for an outlet, at most `most`.
    ///
    /// # Errors
    /// When the store failed.
    pub fn notices_waiting(&self, outlet: &str, most: usize) -> Result<usize, Refused> {
        let prefix = keys::notices(outlet);
        let end = super::engine::prefix_end(&prefix);
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.scan(Table::Notices, (Bound::Included(&prefix), upper), Order::Ascending, most)?.len())
    }

    /// How an outlet stands.
    ///
    /// # Errors
    /// When the store failed or the row is damaged.
    pub fn outlet(&self, name: &str) -> Result<records::OutletRecord, Refused> {
        Ok(self.record(Table::Notices, &keys::outlet(name))?.unwrap_or_default())
    }

    /// Names of the outlets of which something is known.
    ///
    /// # Errors
    /// When the store failed.
    pub fn outlets(&self) -> Result<Vec<String>, Refused> {
        let name = |key: &[u8], _: &[u8]| String::from_utf8(key.get(1..)?.to_vec()).ok();
        Ok(self.page(Table::Notices, &[OUTLET], &[], usize::MAX, name)?.0)
    }

    /// For which date a grant's owner was reminded.
    ///
    /// # Errors
    /// When the store failed or the row is damaged.
    pub fn reminded(&self, tenant: TenantNumber, grant: &GrantName) -> Result<Option<Timestamp>, Refused> {
        let record: Option<records::ReminderRecord> = self.record(Table::Notices, &keys::reminded(tenant, grant))?;
        Ok(record.map(|record| Timestamp::from_millis(record.attest_by)))
    }

    /// Keys of reminders for dates before a time: they keep nobody from being reminded any more.
    ///
    /// # Errors
    /// When the store failed.
    pub fn reminders_before(&self, at: Timestamp) -> Result<Vec<Vec<u8>>, Refused> {
        let rows = self.page(Table::Notices, &[REMINDED], &[], usize::MAX, |key, value| {
            let read = self.shared.codec.decode::<records::ReminderRecord>(Table::Notices, key, value);
            read.is_ok_and(|record| record.attest_by < at.millis()).then(|| key.to_vec())
        });
        Ok(rows?.0)
    }

    /// Unmanaged credentials under a key prefix, in key order after `after`.
    ///
    /// # Errors
    /// When the store failed.
    pub fn unmanaged(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Paged<records::UnmanagedRecord>, Refused> {
        self.page(Table::Unmanaged, prefix, after, limit, |key, value| {
            let read = self.shared.codec.decode(Table::Unmanaged, key, value);
            read.inspect_err(|e| self.shared.aside.note(Table::Unmanaged, key, e)).ok()
        })
    }

    /// One unmanaged credential.
    ///
    /// # Errors
    /// When the store failed or the row is damaged.
    pub fn unmanaged_one(&self, tenant: &str, name: &str) -> Result<Option<records::UnmanagedRecord>, Refused> {
        self.record(Table::Unmanaged, &keys::unmanaged(tenant, name))
    }
}

const QUEUED: u8 = Notice::Queued as u8;
const OUTLET: u8 = Notice::Outlet as u8;
const REMINDED: u8 = Notice::Reminded as u8;

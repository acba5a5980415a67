//! What was told: audit pages, the log of commits, the feed of revocations, checkpoints, and who has read how far.

use std::{ops::Bound, sync::PoisonError};

use super::{
    engine::{Order, Range, Table, prefix_end},
    keys::{self, StreamId},
    open::Ledger,
    ops::upkeep,
    read::Paged,
    refused::Refused,
};
use crate::{model::Timestamp, pb, records};

/// What one commit wrote to the audit.
#[derive(Clone, Debug)]
pub struct LogRow {
    /// Its revision.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Streams and the first sequence of each page.
    pub pages: Vec<(StreamId, u64)>,
    /// Those of them that somebody may have to be told of.
    pub notable: Vec<(StreamId, u64)>,
}

impl Ledger {
    /// When the last checkpoint was signed; `None` when there is none.
    ///
    /// # Errors
    /// When the store failed.
    pub fn last_checkpoint(&self) -> Result<Option<Timestamp>, Refused> {
        let rows = self.scan(Table::Checkpoints, EVERYTHING, Order::Descending, 1)?;
        let Some((key, value)) = rows.first() else { return Ok(None) };
        let read: Result<pb::Checkpoint, _> = self.shared.codec.decode(Table::Checkpoints, key, value);
        let at = read.inspect_err(|e| self.shared.aside.note(Table::Checkpoints, key, e)).ok().and_then(|made| made.at);
        Ok(at.map(|at| Timestamp::from_seconds(u64::try_from(at.seconds).unwrap_or(0))))
    }

    /// Audit streams that moved since the last checkpoint.
    #[must_use]
    pub fn unsigned_streams(&self) -> usize {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Audit streams after `after`.
    ///
    /// # Errors
    /// When the store failed.
    pub fn streams(&self, after: &[u8], limit: usize) -> Result<Paged<(StreamId, records::StreamRecord)>, Refused> {
        self.page(Table::Streams, &[], after, limit, |key, value| {
            let id = StreamId::try_from(key).ok()?;
            let read = self.shared.codec.decode(Table::Streams, key, value);
            Some((id, read.inspect_err(|e| self.shared.aside.note(Table::Streams, key, e)).unwrap_or_default()))
        })
    }

    /// Audit pages of a stream that begin at or after sequence `from`, as stored: first sequence and record, `None` when
    /// unreadable.
    ///
    /// # Errors
    /// When the store failed.
    pub fn audit_pages(
        &self,
        stream: &StreamId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Option<records::AuditPage>)>, Refused> {
        let (lower, end) = (keys::audit(stream, from), prefix_end(stream));
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.scan(Table::Audit, (Bound::Included(&lower), upper), Order::Ascending, limit)?;
        Ok(rows.iter().filter_map(|(key, value)| self.audit_page_of(key, value)).collect())
    }

    /// The page of a stream that holds sequence `at`, or the last one before it.
    ///
    /// # Errors
    /// When the store failed.
    pub fn audit_page_at(
        &self,
        stream: &StreamId,
        at: u64,
    ) -> Result<Option<(u64, Option<records::AuditPage>)>, Refused> {
        let (lower, upper) = (keys::audit(stream, 0), keys::audit(stream, at));
        let range = (Bound::Included(lower.as_slice()), Bound::Included(upper.as_slice()));
        let rows = self.scan(Table::Audit, range, Order::Descending, 1)?;
        Ok(rows.first().and_then(|(key, value)| self.audit_page_of(key, value)))
    }

    /// What commits after revision `after` wrote to the audit.
    ///
    /// # Errors
    /// When the store failed.
    pub fn log_after(&self, after: u64, limit: usize) -> Result<Vec<LogRow>, Refused> {
        let lower = keys::revision(after);
        let range = (Bound::Excluded(lower.as_slice()), Bound::Unbounded);
        let rows = self.scan(Table::Log, range, Order::Ascending, limit)?;
        Ok(rows.iter().filter_map(|(key, value)| self.log_row(key, value)).collect())
    }

    /// The oldest commit that the log still knows.
    ///
    /// # Errors
    /// When the store failed.
    pub fn log_begin(&self) -> Result<Option<LogRow>, Refused> {
        let rows = self.scan(Table::Log, EVERYTHING, Order::Ascending, 1)?;
        Ok(rows.first().and_then(|(key, value)| self.log_row(key, value)))
    }

    /// The last commit before a time that the log still knows, by bisection over revisions; the first one when none is
    /// before it.
    ///
    /// # Errors
    /// When the store failed.
    pub fn log_before(&self, at: Timestamp) -> Result<u64, Refused> {
        let (mut low, mut high) = (self.log_begin()?.map_or(0, |row| row.number), self.shared.number());
        while low < high {
            let middle = low.midpoint(high);
            let next = self.log_after(middle, 1)?.into_iter().next();
            match next {
                Some(row) if row.at < at => low = row.number,
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }

    /// Feed rows after revision `after`: revision and record.
    ///
    /// # Errors
    /// When the store failed.
    pub fn feed_after(&self, after: u64, limit: usize) -> Result<Vec<(u64, records::FeedRecord)>, Refused> {
        let lower = keys::feed(after, u16::MAX);
        let rows = self.scan(Table::Feed, (Bound::Excluded(&lower), Bound::Unbounded), Order::Ascending, limit)?;
        Ok(rows
            .iter()
            .filter_map(|(key, value)| {
                let number = keys::leading_revision(key)?;
                let read = self.shared.codec.decode(Table::Feed, key, value);
                Some((number, read.inspect_err(|e| self.shared.aside.note(Table::Feed, key, e)).ok()?))
            })
            .collect())
    }

    /// The last revision that was removed from the feed; 0 when none was. Resuming after an older one would miss it.
    ///
    /// # Errors
    /// When the store failed.
    pub fn feed_floor(&self) -> Result<u64, Refused> {
        Ok(self.acknowledged(upkeep::FEED_FLOOR)?.unwrap_or(0))
    }

    /// Audit checkpoints after number `after`.
    ///
    /// # Errors
    /// When the store failed.
    pub fn checkpoints(&self, after: u64, limit: usize) -> Result<Vec<pb::Checkpoint>, Refused> {
        let lower = keys::revision(after);
        let range = (Bound::Excluded(lower.as_slice()), Bound::Unbounded);
        let rows = self.scan(Table::Checkpoints, range, Order::Ascending, limit)?;
        Ok(rows
            .iter()
            .filter_map(|(key, value)| {
                let read = self.shared.codec.decode(Table::Checkpoints, key, value);
                read.inspect_err(|e| self.shared.aside.note(Table::Checkpoints, key, e)).ok()
            })
            .collect())
    }

    /// How far an audit sink has acknowledged.
    ///
    /// # Errors
    /// When the store failed.
    pub fn acknowledged(&self, sink: &str) -> Result<Option<u64>, Refused> {
        Ok(self.record::<records::MetaRecord>(Table::Sinks, sink.as_bytes())?.map(|record| record.revision))
    }

    fn audit_page_of(&self, key: &[u8], value: &[u8]) -> Option<(u64, Option<records::AuditPage>)> {
        let (_, first) = keys::parse_audit(key)?;
        let read = self.shared.codec.decode(Table::Audit, key, value);
        Some((first, read.inspect_err(|e| self.shared.aside.note(Table::Audit, key, e)).ok()))
    }

    fn log_row(&self, key: &[u8], value: &[u8]) -> Option<LogRow> {
        let number = keys::leading_revision(key)?;
        let read: Result<records::LogPage, _> = self.shared.codec.decode(Table::Log, key, value);
        let page = read.inspect_err(|e| self.shared.aside.note(Table::Log, key, e)).ok()?;
        let place = |entry: &records::LogEntry| Some((entry.stream.as_slice().try_into().ok()?, entry.first_sequence));
        let pages = page.pages.iter().filter_map(place).collect();
        let notable = page.pages.iter().filter(|entry| entry.notable).filter_map(place).collect();
        Some(LogRow { number, at: Timestamp::from_millis(page.at), pages, notable })
    }
}

const EVERYTHING: Range<'static> = (Bound::Unbounded, Bound::Unbounded);

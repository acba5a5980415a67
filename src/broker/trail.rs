//! Reading the audit's pages as events.

use super::{Broker, refusal::Refusal, who::Operator};
use crate::{
    audit::{chain, page},
    ledger::{
        Ledger,
        keys::{self, StreamId},
        stream_id,
    },
    model::Timestamp,
    pb, records,
};

/// One audit stream and whose it is; empty for none.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its id.
    pub id: StreamId,
    /// The tenant.
    pub tenant: String,
    /// The partner.
    pub partner: String,
}

impl Broker {
    /// Streams of a tenant and partner (empty for all) that an operator sees, in key order, from `from` on.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn streams_of(
        &self,
        operator: &Operator,
        tenant: &str,
        partner: &str,
        from: &[u8],
    ) -> Result<Vec<Stream>, Refusal> {
        if !tenant.is_empty() && !partner.is_empty() {
            let id = stream_id(tenant, partner);
            let one = Stream { id, tenant: tenant.to_owned(), partner: partner.to_owned() };
            return Ok(if operator.sees(tenant, partner) && id.as_slice() >= from { vec![one] } else { Vec::new() });
        }
        let (mut found, mut after) = (Vec::new(), Vec::new());
        loop {
            let (rows, next) = self.ledger.streams(&after, STREAM_ROWS)?;
            found.extend(rows.into_iter().filter_map(|(id, row)| {
                let wanted = id.as_slice() >= from
                    && (tenant.is_empty() || tenant == row.tenant)
                    && (partner.is_empty() || partner == row.partner)
                    && operator.sees(&row.tenant, &row.partner);
                wanted.then_some(Stream { id, tenant: row.tenant, partner: row.partner })
            }));
            let Some(next) = next else { return Ok(found) };
            after = next;
            tokio::task::yield_now().await;
        }
    }
}

/// Events of a stream from sequence `from` on, of at most `pages` pages, and the sequence to go on at; `None` at the end.
///
/// A page that is not what was stored is still shown, event by event and without hashes: verification names it.
///
/// # Errors
/// When the store failed.
pub fn events_from(
    ledger: &Ledger,
    stream: &StreamId,
    from: u64,
    pages: usize,
) -> Result<(Vec<pb::Event>, Option<u64>), Refusal> {
    let mut found = Vec::new();
    if let Some((first, Some(record))) = ledger.audit_page_at(stream, from)?
        && first < from
    {
        found.extend(events(first, &record).into_iter().filter(|event| event.sequence >= from));
    }
    let rows = ledger.audit_pages(stream, from, pages)?;
    let full = rows.len() >= pages;
    let mut next = None;
    for (first, record) in rows {
        let count = record.as_ref().map_or(1, |record| record.events.len().max(1));
        next = Some(first.saturating_add(u64::try_from(count).unwrap_or(u64::MAX)));
        found.extend(record.map(|record| events(first, &record)).unwrap_or_default());
    }
    Ok((found, next.filter(|_| full)))
}

/// The first sequence of a page that may hold events at or after a time, by bisection.
///
/// # Errors
/// When the store failed.
pub fn sequence_at(ledger: &Ledger, stream: &StreamId, at: Timestamp) -> Result<u64, Refusal> {
    let Some((last, _)) = ledger.audit_page_at(stream, u64::MAX)? else { return Ok(1) };
    let (mut low, mut high) = (1, last);
    while low < high {
        let middle = low + (high - low) / 2;
        match ledger.audit_page_at(stream, middle)? {
            None => low = middle + 1,
            Some((first, record)) => {
                let page = record.map(|record| events(first, &record)).unwrap_or_default();
                let ends_before = page.last().is_some_and(|event| time(event) < at);
                if ends_before { low = middle + 1 } else { high = first.min(middle.saturating_sub(1)).max(low) }
            }
        }
    }
    Ok(low)
}

/// Events of a page.
#[must_use]
pub fn events(first: u64, record: &records::AuditPage) -> Vec<pb::Event> {
    page::read(record, first).unwrap_or_else(|finding| {
        tracing::warn!(stream = finding.stream, sequence = finding.sequence, "a page of the audit is damaged");
        record.events.iter().filter_map(|bytes| chain::decode_stored(bytes)).collect()
    })
}

/// The events of the page that begins at `first`, as the log names pages.
///
/// # Errors
/// When the store failed.
pub fn page_events(ledger: &Ledger, stream: &StreamId, first: u64) -> Result<Vec<pb::Event>, Refusal> {
    let rows = ledger.audit_pages(stream, first, 1)?;
    let row = rows.into_iter().find(|(found, _)| *found == first);
    Ok(row.and_then(|(first, record)| record.map(|record| events(first, &record))).unwrap_or_default())
}

/// When an event happened.
#[must_use]
pub fn time(event: &pb::Event) -> Timestamp {
    event.at.as_ref().map(super::event::unstamp).unwrap_or_default()
}

/// The key of an event's place, as page tokens have it.
#[must_use]
pub fn place(stream: &StreamId, sequence: u64) -> Vec<u8> {
    keys::audit(stream, sequence)
}

const STREAM_ROWS: usize = 4_096;

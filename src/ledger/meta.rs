//! The ledger's own row: what each commit carries on from the one before.

use super::{anchor::Mark, migrate::SCHEMA};
use crate::{
    model::{Digest, Timestamp},
    records,
};

/// The ledger's own row, between two commits.
#[derive(Clone, Debug, Default)]
pub struct MetaDraft {
    /// The row's value as stored; the next commit compares with it.
    pub stored: Option<Vec<u8>>,
    /// Random, new at init and at every restore.
    pub incarnation: u64,
    /// The number the next tenant gets.
    pub next_tenant: u32,
    /// The last commit.
    pub number: u64,
    /// Confirmed time of the last commit.
    pub now: Timestamp,
    /// Cuts and bars.
    pub authority: Authority,
    /// Hash over all audit so far.
    pub audit_head: Digest,
    /// Whether an anchor is kept for this store: from then on a missing one is noticed.
    pub anchored: bool,
}

impl MetaDraft {
    /// The row for commit `number`.
    #[must_use]
    pub fn record(&self, number: u64, now: Timestamp, authority: Authority) -> records::MetaRecord {
        records::MetaRecord {
            schema: SCHEMA,
            incarnation: self.incarnation,
            revision: number,
            time_mark: now.millis(),
            next_tenant: self.next_tenant,
            authority_rows: authority.rows,
            authority_digest: authority.digest.to_vec(),
            audit_head: self.audit_head.0.to_vec(),
            anchored: self.anchored,
        }
    }

    /// The last commit, for the anchor.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { incarnation: self.incarnation, number: self.number, audit_head: self.audit_head, closed: false }
    }
}

/// How many cuts and bars there are, and the exclusive-or of their codes: a row removed outside the broker shows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Authority {
    /// Rows.
    pub rows: u64,
    /// Exclusive-or of the rows' codes.
    pub digest: [u8; 16],
}

impl Authority {
    /// Takes one row's code out and another's in.
    pub fn replace(&mut self, old: Option<&[u8]>, new: Option<&[u8]>) {
        let mut toggle = |row: &[u8]| {
            if let Some(tag) = row.last_chunk::<16>() {
                self.digest.iter_mut().zip(tag).for_each(|(to, from)| *to ^= from);
            }
        };
        if let Some(row) = old {
            toggle(row);
            self.rows = self.rows.saturating_sub(1);
        }
        if let Some(row) = new {
            toggle(row);
            self.rows = self.rows.saturating_add(1);
        }
    }
}

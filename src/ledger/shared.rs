//! What the committer and every reader share.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use tokio::sync::broadcast;

use super::{
    book::Book,
    codec::{Codec, Unreadable},
    counts::Counts,
    custody::{Lapses, Voices},
    engine::{Engine, Table},
    lanes::Lanes,
};
use crate::{model::id::hex, records};

/// What the committer and every reader share.
#[derive(Debug)]
pub struct Shared {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) codec: Codec,
    pub(super) incarnation: u64,
    /// The last commit that is on disk and in memory.
    pub(super) published: AtomicU64,
    pub(super) book: RwLock<Book>,
    pub(super) counts: RwLock<Counts>,
    pub(super) lanes: Lanes,
    pub(super) feed: broadcast::Sender<Arc<Published>>,
    /// Unreadable rows.
    pub aside: Aside,
    /// Why nothing is begun.
    pub holds: Holds,
    /// Who knows which grants have lapsed.
    pub(super) lapses: OnceLock<Box<dyn Lapses>>,
    /// Who knows whose word still counts.
    pub(super) voices: OnceLock<Box<dyn Voices>>,
}

impl Shared {
    pub(super) fn book(&self) -> RwLockReadGuard<'_, Book> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn number(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }
}

/// What a commit tells watchers.
#[derive(Debug)]
pub struct Published {
    /// Its revision.
    pub number: u64,
    /// Ends and bars.
    pub feed: Vec<records::FeedRecord>,
    /// Audit pages.
    pub log: Vec<records::LogEntry>,
}

/// Why nothing is begun; ends always go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hold {
    /// The clock jumped further than is believable.
    Clock,
    /// The store failed and has not come back.
    StoreFailed,
    /// The store has no room.
    StoreFull,
    /// The anchor cannot be written.
    Unanchored,
    /// The store was restored from a backup.
    Restored,
    /// The store is not the newest that its anchor knows.
    PutBack,
    /// The store's anchor is missing or damaged.
    AnchorLost,
}

impl Hold {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Restored,
        Self::PutBack,
        Self::AnchorLost,
        Self::Clock,
        Self::StoreFailed,
        Self::StoreFull,
        Self::Unanchored,
    ];

    /// Those that an operator lifts by confirming the store.
    pub const STORE: [Self; 3] = [Self::Restored, Self::PutBack, Self::AnchorLost];

    /// For people.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Clock => "the clock jumped; confirm it with `mayfly time confirm`",
            Self::StoreFailed => "the store failed",
            Self::StoreFull => "no space is left for the store",
            Self::Unanchored => "the anchor cannot be written; see the log",
            Self::Restored => "restored from a backup; bar what was off-boarded since, then `mayfly confirm store`",
            Self::PutBack => "the data folder is older than its anchor; see the log, then `mayfly confirm store`",
            Self::AnchorLost => "the anchor is missing or damaged; see the log, then `mayfly confirm store`",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Clock => 1,
            Self::StoreFailed => 2,
            Self::StoreFull => 4,
            Self::Unanchored => 8,
            Self::Restored => 16,
            Self::PutBack => 32,
            Self::AnchorLost => 64,
        }
    }
}

/// The set of reasons why nothing is begun.
#[derive(Debug, Default)]
pub struct Holds(AtomicU8);

impl Holds {
    /// Adds a reason.
    pub fn set(&self, hold: Hold) {
        self.0.fetch_or(hold.bit(), Ordering::AcqRel);
    }

    /// Takes a reason away.
    pub fn clear(&self, hold: Hold) {
        self.0.fetch_and(!hold.bit(), Ordering::AcqRel);
    }

    /// Whether this reason holds.
    #[must_use]
    pub fn has(&self, hold: Hold) -> bool {
        self.0.load(Ordering::Acquire) & hold.bit() != 0
    }

    /// Whether it is in doubt what is true now: then nothing is deleted, trimmed or destroyed.
    #[must_use]
    pub fn in_doubt(&self) -> bool {
        self.has(Hold::Clock) || Hold::STORE.into_iter().any(|hold| self.has(hold))
    }

    /// The first reason that holds.
    #[must_use]
    pub fn first(&self) -> Option<Hold> {
        Hold::ALL.into_iter().find(|&hold| self.has(hold))
    }
}

/// Rows that could not be read. They are left where they are, count as ended, and are reported.
#[derive(Debug, Default)]
pub struct Aside {
    seen: Mutex<VecDeque<AsideRow>>,
    total: AtomicU64,
    by_table: Mutex<HashMap<&'static str, u64>>,
}

/// One unreadable row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AsideRow {
    /// Where.
    pub table: Table,
    /// Its key, hex.
    pub key: String,
    /// What is wrong.
    pub why: Unreadable,
}

impl Aside {
    /// Reports a row; the same row counts once while it is remembered.
    pub fn note(&self, table: Table, key: &[u8], why: &Unreadable) {
        let row = AsideRow { table, key: hex(key), why: why.clone() };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(&row) {
            return;
        }
        tracing::error!(table = table.name(), key = row.key, why = %row.why, "a row is unreadable and counts as ended");
        self.total.fetch_add(1, Ordering::Relaxed);
        *self.by_table.lock().unwrap_or_else(PoisonError::into_inner).entry(table.name()).or_default() += 1;
        if seen.len() >= Self::MOST {
            seen.pop_front();
        }
        seen.push_back(row);
    }

    /// How many were reported.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// How many of one table were reported.
    #[must_use]
    pub fn in_table(&self, table: Table) -> u64 {
        let counts = self.by_table.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(table.name()).copied().unwrap_or(0)
    }

    /// The last ones reported.
    #[must_use]
    pub fn rows(&self) -> Vec<AsideRow> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Rows remembered one by one; more are only counted.
    const MOST: usize = 1_000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_one_doubt_is_a_doubt_and_each_is_lifted_by_itself() {
        let holds = Holds::default();
        assert!(!holds.in_doubt() && holds.first().is_none());
        for hold in Hold::ALL {
            holds.set(hold);
            let doubts = hold == Hold::Clock || Hold::STORE.contains(&hold);
            assert_eq!((holds.first(), holds.in_doubt()), (Some(hold), doubts));
            assert!(Hold::ALL.into_iter().all(|other| holds.has(other) == (other == hold)));
            holds.clear(hold);
        }
        assert!(holds.first().is_none());
    }

    #[test]
    fn a_row_is_reported_once_and_no_more_than_a_thousand_are_kept() {
        let aside = Aside::default();
        for at in 0..Aside::MOST as u64 + 5 {
            for _ in 0..2 {
                aside.note(Table::Leases, &at.to_be_bytes(), &Unreadable::Mac);
            }
        }
        assert_eq!((aside.total(), aside.in_table(Table::Leases), aside.in_table(Table::Tasks)), (1_005, 1_005, 0));
        assert_eq!(aside.rows().len(), Aside::MOST);
        assert_eq!(aside.rows().last().map(|row| row.key.clone()), Some(hex(&1_004_u64.to_be_bytes())));
    }
}

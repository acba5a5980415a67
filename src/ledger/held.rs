//! Whether a store is the newest there was; the hold when it is not, and its end.

use std::ops::Bound;

use super::{
    anchor::{Anchor, Found, Mark},
    codec::Codec,
    engine::{Batch, Compare, Engine, Op, Order, Table},
    keys,
    meta::MetaDraft,
    open::OpenError,
    recall::{REVISION_GAP, fresh_incarnation},
    refused::Refused,
    shared::{Aside, Hold},
    tx::Tx,
};
use crate::{
    model::{Digest, Timestamp},
    pb, records,
};

/// A store that was read but is not open yet.
pub(super) struct Candidate<'a> {
    pub(super) engine: &'a dyn Engine,
    pub(super) codec: &'a Codec,
    pub(super) aside: &'a Aside,
    pub(super) meta: &'a mut MetaDraft,
    /// Whether it was founded just now.
    pub(super) is_new: bool,
    /// Whether its own row was damaged, so that nothing it says of itself counts.
    pub(super) is_damaged: bool,
    pub(super) now: Timestamp,
}

/// Refuses to found a store where the anchor knows of one: an emptied data folder must not pass for a new one.
pub(super) fn check_founding(engine: &dyn Engine, anchor: &dyn Anchor) -> Result<(), OpenError> {
    if engine.get(Table::Meta, keys::FOUNDING)?.is_none() && anchor.read().map_err(OpenError::Anchor)? != Found::Absent
    {
        return Err(OpenError::Emptied(anchor.place()));
    }
    Ok(())
}

impl Candidate<'_> {
    /// Compares with the anchor. A store that is not the newest goes on under a new incarnation, held; the row of the
    /// hold is on disk when this returns. `None`: nothing is held.
    pub(super) fn judge(&mut self, anchor: Option<&dyn Anchor>) -> Result<Option<records::HoldRecord>, OpenError> {
        let held = self.stored_hold()?;
        let Some(anchor) = anchor else { return Ok(held) };
        let was_anchored = std::mem::replace(&mut self.meta.anchored, true);
        let found = anchor.read().map_err(OpenError::Anchor)?;
        let (hold, explanation) = match found {
            Found::Mark(mark) if self.fits(&mark)? => {
                if !(mark.closed && mark.number == self.meta.number) {
                    // Beginnings that the anchor did not cover may be lost: their revisions must not come again.
                    self.skip(CRASH_GAP)?;
                }
                return Ok(held);
            }
            Found::Absent if self.is_new || !was_anchored => return Ok(held),
            Found::Mark(mark) => {
                self.meta.number = self.meta.number.max(mark.number);
                (Hold::PutBack, "the anchor knows a newer state, or one of another history")
            }
            Found::Absent => (Hold::AnchorLost, "it is missing"),
            Found::Damaged(why) => (Hold::AnchorLost, why),
        };
        let record = self.begin(hold, 0)?;
        tracing::error!(
            anchor = anchor.place(),
            explanation,
            revision = record.from_revision,
            "the store cannot be shown to be the newest there was: all that was issued ends, and nothing is issued \
             until `mayfly confirm store`"
        );
        Ok(Some(record))
    }

    /// Writes the row of a hold, under a new incarnation and past every revision that there can have been.
    pub(super) fn begin(&mut self, hold: Hold, backup_at: u64) -> Result<records::HoldRecord, OpenError> {
        let (from_incarnation, from_revision) = (self.meta.incarnation, self.meta.number);
        self.meta.incarnation = fresh_incarnation()?;
        self.meta.number = from_revision.saturating_add(REVISION_GAP);
        let record = records::HoldRecord {
            why: hold.code(),
            revision: self.meta.number,
            at: self.now.millis(),
            from_incarnation,
            from_revision,
            backup_at,
        };
        let before = self.engine.get(Table::Meta, keys::HOLD)?;
        let row = self.codec.encode(Table::Meta, keys::HOLD, &record);
        self.meta.authority.replace(before.as_deref(), Some(&row));
        self.write(vec![Op::Put(Table::Meta, keys::HOLD.to_vec(), row)])?;
        Ok(record)
    }

    /// Whether the store is at, or has gone on from, the state that was noted.
    fn fits(&self, mark: &Mark) -> Result<bool, OpenError> {
        if self.is_damaged || mark.incarnation != self.meta.incarnation || mark.number > self.meta.number {
            return Ok(false);
        }
        Ok(self.head_at(mark.number)? == mark.audit_head)
    }

    /// The hash over all audit up to a revision. Rows of the log say it; where none is later, it is the store's own, also
    /// when retention has removed what was before.
    fn head_at(&self, number: u64) -> Result<Digest, OpenError> {
        let at = keys::revision(number);
        let later = (Bound::Excluded(at.as_slice()), Bound::Unbounded);
        if self.engine.scan(Table::Log, later, Order::Ascending, 1)?.is_empty() {
            return Ok(self.meta.audit_head);
        }
        let range = (Bound::Unbounded, Bound::Included(at.as_slice()));
        let rows = self.engine.scan(Table::Log, range, Order::Descending, 1)?;
        let page = rows.first().map(|(key, value)| self.codec.decode::<records::LogPage>(Table::Log, key, value));
        Ok(page.and_then(Result::ok).and_then(|page| Digest::from_slice(&page.head)).unwrap_or_default())
    }

    fn skip(&mut self, gap: u64) -> Result<(), OpenError> {
        self.meta.number = self.meta.number.saturating_add(gap);
        self.write(Vec::new())
    }

    fn write(&mut self, mut ops: Vec<Op>) -> Result<(), OpenError> {
        let meta = &mut *self.meta;
        let value = self.codec.encode(Table::Meta, keys::META, &meta.record(meta.number, meta.now, meta.authority));
        ops.push(Op::Put(Table::Meta, keys::META.to_vec(), value.clone()));
        let expected = meta.stored.clone();
        let compare = Compare { table: Table::Meta, key: keys::META.to_vec(), expected };
        self.engine.commit(&Batch { compares: vec![compare], ops })?;
        meta.stored = Some(value);
        Ok(())
    }

    /// The hold that is on disk. A damaged one still holds.
    fn stored_hold(&self) -> Result<Option<records::HoldRecord>, OpenError> {
        let Some(value) = self.engine.get(Table::Meta, keys::HOLD)? else { return Ok(None) };
        let read = self.codec.decode(Table::Meta, keys::HOLD, &value);
        Ok(Some(read.unwrap_or_else(|error| {
            self.aside.note(Table::Meta, keys::HOLD, &error);
            records::HoldRecord { why: Hold::PutBack.code(), revision: self.meta.number, ..Default::default() }
        })))
    }
}

/// Ends the hold on an operator's word; false when there was none.
pub(super) fn confirm(tx: &mut Tx<'_>, incarnation: u64, event: &pb::Event, now: Timestamp) -> Result<bool, Refused> {
    if incarnation != tx.shared.incarnation {
        return Err(Refused::Moved);
    }
    if tx.get(Table::Meta, keys::HOLD)?.is_none() {
        return Ok(false);
    }
    tx.mark_time(now);
    tx.audit(event)?;
    tx.delete(Table::Meta, keys::HOLD.to_vec());
    Ok(true)
}

impl Hold {
    /// The number in [`records::HoldRecord`].
    fn code(self) -> u32 {
        match self {
            Self::Restored => 1,
            Self::PutBack => 2,
            Self::AnchorLost => 3,
            Self::Clock | Self::StoreFailed | Self::StoreFull | Self::Unanchored => 0,
        }
    }

    /// Of a stored record; what is not known holds as a store that was put back.
    pub(super) fn of(record: &records::HoldRecord) -> Self {
        match record.why {
            1 => Self::Restored,
            3 => Self::AnchorLost,
            _ => Self::PutBack,
        }
    }
}

/// More revisions than can be committed within the anchor's lag.
const CRASH_GAP: u64 = 1 << 16;

//! The one thread that writes: it merges proposals into one commit, flushes once, publishes and answers.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use super::{
    anchor::Keeper,
    ballast::Ballast,
    engine::{Batch, Committed, Table},
    journal::{Head, Heads},
    keys::{self, StreamId},
    meta::MetaDraft,
    refused::Refused,
    shared::{Hold, Published, Shared},
    tx::{Changes, Tx, Work},
};

/// The writing side of the ledger; lives on a thread of its own.
#[derive(Debug)]
pub struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) heads: Heads,
    pub(super) meta: MetaDraft,
    /// Streams that moved since the last checkpoint.
    pub(super) moved: Arc<std::sync::Mutex<HashMap<StreamId, Head>>>,
    pub(super) ballast: Ballast,
    /// A commit of which nobody knows yet whether it is on disk. Nothing is committed before that is known.
    pub(super) pending: Option<Pending>,
    /// Answers ends once the anchor covers them; none for stores without an anchor.
    pub(super) anchor: Option<Keeper>,
}

/// A commit whose outcome the store could not tell.
pub struct Pending {
    number: u64,
    /// The ledger's own row if it is on disk.
    stored: Option<Vec<u8>>,
    changes: Changes,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, meta: MetaDraft, ballast: Option<PathBuf>) -> Self {
        Self {
            shared,
            heads: Heads::default(),
            meta,
            moved: Arc::default(),
            ballast: Ballast::new(ballast),
            pending: None,
            anchor: None,
        }
    }

    /// Commits until the lanes are closed and empty.
    pub fn run(mut self) {
        while self.turn(PATIENCE) {}
    }

    /// Carries out one batch, or none after `patience`; false once the lanes are closed and empty.
    pub(super) fn turn(&mut self, patience: Duration) -> bool {
        let Some(batch) = self.shared.lanes.take(BATCH_MOST, patience) else { return false };
        if self.shared.holds.has(Hold::StoreFull) && self.ballast.restore() {
            self.shared.holds.clear(Hold::StoreFull);
        }
        self.anchor.iter().for_each(Keeper::look_after);
        if !batch.is_empty() {
            metrics::histogram!("mayfly_commit_batch").record(f64::from(u32::try_from(batch.len()).unwrap_or(0)));
            self.carry_out(batch);
        }
        true
    }

    fn carry_out(&mut self, batch: Vec<Box<dyn Work>>) {
        let mut batch = self.refuse_held(batch);
        let mut unknown = None;
        // Ends are tried again once after a failure that made room or brought the store back.
        for attempt in 0..ATTEMPTS {
            match self.attempt(&mut batch, &mut unknown) {
                Ok(number) => {
                    self.answer(batch, number);
                    return;
                }
                Err(refused) => {
                    let (ends, begins): (Vec<_>, Vec<_>) = batch.into_iter().partition(|work| work.is_end());
                    begins.into_iter().for_each(|work| work.finish(Err(refused.clone())));
                    batch = ends;
                    if batch.is_empty() {
                        return;
                    }
                    if attempt + 1 == ATTEMPTS {
                        batch.into_iter().for_each(|work| work.finish(Err(refused.clone())));
                        return;
                    }
                }
            }
        }
    }

    /// Beginnings are answered at once, ends when the anchor covers their commit.
    fn answer(&self, batch: Vec<Box<dyn Work>>, number: u64) {
        let Some(anchor) = &self.anchor else {
            batch.into_iter().for_each(|work| work.finish(Ok(number)));
            return;
        };
        let (ends, others): (Vec<_>, Vec<_>) = batch.into_iter().partition(|work| work.is_end());
        others.into_iter().for_each(|work| work.finish(Ok(number)));
        anchor.cover(self.meta.mark(), ends);
    }

    /// Commits, unless the attempt before (`unknown` is its number) turns out to be on disk after all.
    fn attempt(&mut self, works: &mut [Box<dyn Work>], unknown: &mut Option<u64>) -> Result<u64, Refused> {
        if self.pending.is_some() && !self.revive() {
            return Err(Refused::StoreFailed);
        }
        if let Some(number) = unknown.filter(|&number| number == self.meta.number) {
            return Ok(number);
        }
        let outcome = self.commit(works);
        *unknown = self.pending.as_ref().map(|pending| pending.number);
        outcome
    }

    /// Begins nothing while the store is full or failed.
    fn refuse_held(&mut self, batch: Vec<Box<dyn Work>>) -> Vec<Box<dyn Work>> {
        let refused = if self.shared.holds.has(Hold::StoreFull) {
            Refused::StoreFull
        } else if self.shared.holds.has(Hold::StoreFailed) && !self.revive() {
            Refused::StoreFailed
        } else {
            return batch;
        };
        let (ends, begins): (Vec<_>, Vec<_>) = batch.into_iter().partition(|work| work.is_end());
        begins.into_iter().for_each(|work| work.finish(Err(refused.clone())));
        ends
    }

    fn revive(&mut self) -> bool {
        let revived = self.shared.engine.recover().is_ok() && self.settle();
        if revived {
            self.shared.holds.clear(Hold::StoreFailed);
        }
        revived
    }

    /// Finds out what became of the last commit; false while that cannot be known.
    fn settle(&mut self) -> bool {
        let Ok(stored) = self.shared.engine.get(Table::Meta, keys::META) else { return false };
        if stored == self.meta.stored {
            self.pending = None;
            return true;
        }
        match self.pending.take() {
            Some(pending) if pending.stored == stored => {
                self.publish(pending);
                true
            }
            other => {
                self.pending = other;
                false
            }
        }
    }

    fn commit(&mut self, works: &mut [Box<dyn Work>]) -> Result<u64, Refused> {
        let number = self.meta.number + 1;
        let shared = Arc::clone(&self.shared);
        let mut tx = Tx::new(&shared, &self.heads, &self.meta);
        for work in works.iter_mut() {
            work.run(&mut tx);
        }
        if tx.has_failed() {
            return Err(Refused::StoreFailed);
        }
        if tx.is_empty() {
            return Ok(self.meta.number);
        }
        let (batch, changes) = tx.finish(&self.meta);
        let started = std::time::Instant::now();
        let outcome = self.shared.engine.commit(&batch);
        metrics::histogram!("mayfly_commit_seconds").record(started.elapsed().as_secs_f64());
        match outcome {
            Ok(Committed::Applied) => {
                self.publish(Pending { number, stored: last_meta(&batch), changes });
                Ok(number)
            }
            Ok(Committed::Conflict) => {
                self.shared.holds.set(Hold::StoreFailed);
                tracing::error!("another process writes to the store; this one stops issuing");
                Err(Refused::StoreFailed)
            }
            Err(error) => {
                let refused = self.shared.fault(&error);
                self.pending = Some(Pending { number, stored: last_meta(&batch), changes });
                self.resolve(number, refused)
            }
        }
    }

    /// Finds out what became of a commit whose outcome is not known, or holds everything until that can be known.
    fn resolve(&mut self, number: u64, refused: Refused) -> Result<u64, Refused> {
        if refused == Refused::StoreFull {
            self.shared.holds.set(Hold::StoreFull);
            self.ballast.release();
        }
        if self.shared.engine.recover().is_err() || !self.settle() {
            self.shared.holds.set(Hold::StoreFailed);
            return Err(refused);
        }
        if self.meta.number == number { Ok(number) } else { Err(refused) }
    }

    /// Order matters: what a check reads first (book), then what decisions are made at (revision), then the answers.
    fn publish(&mut self, committed: Pending) {
        let Pending { number, stored, changes } = committed;
        self.heads.set(&changes.heads);
        if !changes.heads.is_empty() {
            self.moved.lock().unwrap_or_else(PoisonError::into_inner).extend(changes.heads);
        }
        if !changes.scopes.is_empty() {
            let mut book = self.shared.book.write().unwrap_or_else(PoisonError::into_inner);
            changes.scopes.into_iter().for_each(|(scope, state)| book.set(scope, state));
        }
        if !changes.counts.is_empty() {
            let mut counts = self.shared.counts.write().unwrap_or_else(PoisonError::into_inner);
            for (scope, buckets) in changes.counts {
                buckets.into_iter().for_each(|(minute, live)| counts.set(scope, minute, live));
            }
        }
        changes.hooks.into_iter().for_each(|hook| hook());
        self.meta.stored = stored;
        (self.meta.number, self.meta.now, self.meta.authority) = (number, changes.now, changes.authority);
        (self.meta.next_tenant, self.meta.audit_head) = (changes.next_tenant, changes.audit_head);
        self.shared.published.store(number, Ordering::Release);
        // Nobody listening is fine.
        let _listeners = self.shared.feed.send(Arc::new(Published { number, feed: changes.feed, log: changes.log }));
    }
}

fn last_meta(batch: &Batch) -> Option<Vec<u8>> {
    batch.ops.iter().rev().find_map(|op| match op {
        super::engine::Op::Put(Table::Meta, key, value) if key == keys::META => Some(value.clone()),
        super::engine::Op::Put(..) | super::engine::Op::Delete(..) => None,
    })
}

/// Proposals merged into one commit at most.
const BATCH_MOST: usize = 256;
/// How long the committer sleeps without proposals before it looks after a full store.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often ends are tried.
const ATTEMPTS: u32 = 2;

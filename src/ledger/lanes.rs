//! What waits for the committer: two lanes and the background.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::tx::Work;
use crate::model::TenantNumber;

/// Where a proposal waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lane {
    /// Ends and bars: always first, with room of its own.
    End,
    /// Beginnings, fair between tenants.
    Begin(TenantNumber),
    /// Sweeps, clean-ups and marks: after the others, one at a time.
    Background,
}

impl Lane {
    /// Its word in metrics and spans.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Begin(_) => "begin",
            Self::Background => "background",
        }
    }
}

/// The lane is full: try again a little later.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("too many requests wait to be committed")]
pub struct LaneFull;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct LaneLimits {
    /// In the end lane.
    pub end: usize,
    /// Per tenant in the begin lane.
    pub begin_per_tenant: usize,
    /// In the begin lane in all.
    pub begin: usize,
    /// In the background.
    pub background: usize,
}

impl Default for LaneLimits {
    fn default() -> Self {
        Self { end: 16_384, begin_per_tenant: 4_096, begin: 32_768, background: 64 }
    }
}

/// The queue in front of the committer.
#[derive(Debug)]
pub struct Lanes {
    limits: LaneLimits,
    queues: Mutex<Queues>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Queues {
    end: VecDeque<Box<dyn Work>>,
    begin: HashMap<TenantNumber, VecDeque<Box<dyn Work>>>,
    /// Tenants with something in `begin`, in turn.
    turn: VecDeque<TenantNumber>,
    begin_len: usize,
    background: VecDeque<Box<dyn Work>>,
    /// How many must wait before the committer is woken; an end wakes it at once.
    wanted: usize,
    /// How many beginnings the last batch had.
    last_begun: usize,
    closed: bool,
}

impl Lanes {
    /// Empty, with these limits.
    #[must_use]
    pub fn new(limits: LaneLimits) -> Self {
        Self { limits, queues: Mutex::default(), arrived: Condvar::new() }
    }

    /// Adds a proposal; gives it back when there is no room or the committer has stopped.
    ///
    /// # Errors
    /// [`LaneFull`].
    pub fn push(&self, lane: Lane, work: Box<dyn Work>) -> Result<(), LaneFull> {
        let mut queues = self.lock();
        if queues.closed {
            return Err(LaneFull);
        }
        match lane {
            Lane::End if queues.end.len() < self.limits.end => queues.end.push_back(work),
            Lane::Begin(tenant) if queues.begin_len < self.limits.begin => {
                queues.push_begin(tenant, work, self.limits.begin_per_tenant)?;
            }
            Lane::Background if queues.background.len() < self.limits.background => queues.background.push_back(work),
            Lane::End | Lane::Begin(_) | Lane::Background => return Err(LaneFull),
        }
        let is_due = queues.is_due();
        drop(queues);
        if is_due {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Waits for proposals and takes up to `most`: ends first, then beginnings tenant by tenant, then one of the
    /// background. `None` once closed and empty; an empty batch after `patience` without any.
    ///
    /// Where many ask at once, it waits a moment for about twice as many as came last: one flush then serves them all.
    /// Where few ask, and where anything is to be ended, it does not wait.
    #[must_use]
    pub fn take(&self, most: usize, patience: Duration) -> Option<Vec<Box<dyn Work>>> {
        let mut queues = self.lock();
        if queues.is_empty() && !queues.closed {
            queues = self.arrived.wait_timeout(queues, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        if queues.is_empty() && queues.closed {
            return None;
        }
        queues.wanted = queues.expected().min(most);
        if !queues.is_due() {
            let moment = GATHERED_FOR.min(patience);
            queues = self.arrived.wait_timeout(queues, moment).unwrap_or_else(PoisonError::into_inner).0;
        }
        queues.wanted = 0;
        Some(queues.batch(most))
    }

    /// Lets nothing more in; what waits is still done.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// How many wait: end, begin, background.
    #[must_use]
    pub fn depths(&self) -> (usize, usize, usize) {
        let queues = self.lock();
        (queues.end.len(), queues.begin_len, queues.background.len())
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // A panic while holding the lock cannot leave the queues half-changed in a way that matters.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    fn is_empty(&self) -> bool {
        self.end.is_empty() && self.begin_len == 0 && self.background.is_empty()
    }

    /// Whether the committer has a reason to go on.
    fn is_due(&self) -> bool {
        self.closed || !self.end.is_empty() || self.begin_len >= self.wanted
    }

    /// How many beginnings are worth waiting for; none while few come.
    fn expected(&self) -> usize {
        if self.last_begun < MANY { 0 } else { self.last_begun * 2 }
    }

    fn push_begin(&mut self, tenant: TenantNumber, work: Box<dyn Work>, most: usize) -> Result<(), LaneFull> {
        let queue = self.begin.entry(tenant).or_default();
        if queue.len() >= most {
            return Err(LaneFull);
        }
        if queue.is_empty() {
            self.turn.push_back(tenant);
        }
        queue.push_back(work);
        self.begin_len += 1;
        Ok(())
    }

    fn batch(&mut self, most: usize) -> Vec<Box<dyn Work>> {
        let ends = self.end.len().min(most);
        let mut batch: Vec<_> = self.end.drain(..ends).collect();
        let waiting = self.begin_len;
        while batch.len() < most {
            let Some(tenant) = self.turn.pop_front() else { break };
            let Some(queue) = self.begin.get_mut(&tenant) else { continue };
            if let Some(work) = queue.pop_front() {
                self.begin_len -= 1;
                batch.push(work);
            }
            if queue.is_empty() {
                self.begin.remove(&tenant);
            } else {
                self.turn.push_back(tenant);
            }
        }
        self.last_begun = waiting - self.begin_len;
        batch.extend(self.background.pop_front());
        batch
    }
}

/// Beginnings in one batch from which on more are waited for.
const MANY: usize = 4;
/// How long they are waited for: about what a flush takes.
const GATHERED_FOR: Duration = Duration::from_micros(300);

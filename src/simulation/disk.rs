//! An engine on a disk that can be looked at from both sides of a crash.
//!
//! ```text
//! commit -> tail (written, not flushed) -> durable        a crash keeps `durable` and as much of the tail as chance says
//!              | a failed flush: undecided until `recover` works
//! ```

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use super::{chance::Chance, hands::Hands};
use crate::ledger::engine::{Batch, Committed, Engine, EngineError, Limits, Op, Order, Range, Row, Table, Usage};

pub type Tables = BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A disk; it outlives the brokers that run on it.
#[derive(Debug)]
pub struct Disk(Mutex<Platter>);

/// How often something goes wrong: once in so many commits, 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    pub faults: u64,
    pub crashes: u64,
    /// Whether commits are said to be on disk before they are: the first sabotage.
    pub lies: bool,
}

#[derive(Debug)]
struct Platter {
    durable: Tables,
    /// What readers see: `durable` and the tail.
    seen: Tables,
    /// Commits that were written and not flushed, oldest first.
    tail: Vec<Vec<Op>>,
    /// The process is dead until [`Disk::power_on`].
    down: bool,
    /// Reads fail until [`Engine::recover`] works.
    shut: bool,
    /// So many tries to recover fail.
    stuck: u64,
    trouble: Trouble,
    chance: Chance,
    clock: Arc<Hands>,
    /// What was done to commits, for the trace.
    done: Vec<&'static str>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Written,
    Slow,
    Full,
    /// Nothing, or a torn record that replay drops, reached the disk.
    FailedWrite,
    /// All was written; whether it stays is decided by `recover`.
    FailedFlush,
    /// As `FailedFlush`, and `recover` does not work for a while.
    Stuck,
    CrashBefore,
    /// Written or torn, not flushed.
    CrashWriting,
    /// On disk; nobody was told.
    CrashAfter,
}

impl Disk {
    pub fn new(tables: Tables, chance: Chance, clock: Arc<Hands>) -> Self {
        Self(Mutex::new(Platter {
            durable: tables.clone(),
            seen: tables,
            tail: Vec::new(),
            down: false,
            shut: false,
            stuck: 0,
            trouble: Trouble::default(),
            chance,
            clock,
            done: Vec::new(),
        }))
    }

    pub fn set_trouble(&self, trouble: Trouble) {
        self.platter().trouble = trouble;
    }

    pub fn is_down(&self) -> bool {
        self.platter().down
    }

    /// The process dies.
    pub fn crash(&self) {
        self.platter().down = true;
    }

    /// The process is gone; what a new one finds.
    pub fn power_on(&self) {
        let mut platter = self.platter();
        let kept = platter.tail.len() + 1;
        let kept = platter.chance.below(kept);
        platter.flush(kept);
        platter.forget_tail();
        (platter.down, platter.shut, platter.stuck) = (false, false, 0);
    }

    /// An orderly stop: all that was written is flushed.
    pub fn power_off(&self) {
        let mut platter = self.platter();
        platter.flush(usize::MAX);
        platter.forget_tail();
        (platter.shut, platter.stuck) = (false, 0);
    }

    /// Rows of a table, for who looks at the disk from outside.
    pub fn rows(&self, table: Table) -> Vec<Row> {
        self.platter().durable.get(&table).into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Changes a row from outside, with the process stopped.
    pub fn edit(&self, op: Op) {
        let mut platter = self.platter();
        put(&mut platter.durable, &op);
        put(&mut platter.seen, &op);
    }

    pub fn image(&self) -> Tables {
        self.platter().durable.clone()
    }

    /// What was done to commits since the last question.
    pub fn take_done(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.platter().done)
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }
}

impl Platter {
    fn fate(&mut self) -> Fate {
        if self.chance.one_in(self.trouble.crashes) {
            return self.chance.weighted(&[(1, Fate::CrashBefore), (2, Fate::CrashWriting), (2, Fate::CrashAfter)]);
        }
        if self.chance.one_in(self.trouble.faults) {
            return self.chance.weighted(&[
                (2, Fate::Slow),
                (2, Fate::Full),
                (2, Fate::FailedWrite),
                (3, Fate::FailedFlush),
                (2, Fate::Stuck),
            ]);
        }
        Fate::Written
    }

    fn write(&mut self, ops: &[Op]) {
        ops.iter().for_each(|op| put(&mut self.seen, op));
        self.tail.push(ops.to_vec());
    }

    fn flush(&mut self, commits: usize) {
        let commits = commits.min(self.tail.len());
        for ops in self.tail.drain(..commits) {
            ops.iter().for_each(|op| put(&mut self.durable, op));
        }
    }

    fn forget_tail(&mut self) {
        if !self.tail.is_empty() {
            self.tail.clear();
            self.seen = self.durable.clone();
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, EngineError> {
        let holds = batch.compares.iter().all(|compare| {
            self.seen.get(&compare.table).and_then(|rows| rows.get(&compare.key)) == compare.expected.as_ref()
        });
        if !holds {
            return Ok(Committed::Conflict);
        }
        let fate = self.fate();
        match fate {
            Fate::Written | Fate::Slow | Fate::CrashAfter => {
                self.write(&batch.ops);
                // A liar flushes now and then.
                if !self.trouble.lies || self.chance.one_in(4) {
                    self.flush(usize::MAX);
                }
            }
            Fate::Full | Fate::FailedWrite | Fate::CrashBefore => {}
            Fate::FailedFlush | Fate::Stuck | Fate::CrashWriting => self.write(&batch.ops),
        }
        self.done.push(match fate {
            Fate::Written => "written",
            Fate::Slow => "slow",
            Fate::Full => "full",
            Fate::FailedWrite => "failed write",
            Fate::FailedFlush => "failed flush",
            Fate::Stuck => "stuck",
            Fate::CrashBefore => "crash before the write",
            Fate::CrashWriting => "crash before the flush",
            Fate::CrashAfter => "crash after the flush",
        });
        match fate {
            Fate::Written => return Ok(Committed::Applied),
            Fate::Slow => {
                self.clock.advance(Duration::from_secs(self.chance.between(1, 20)));
                return Ok(Committed::Applied);
            }
            Fate::Full => return Err(EngineError::Full(io::Error::from(io::ErrorKind::StorageFull).into())),
            Fate::FailedWrite | Fate::FailedFlush => {}
            Fate::Stuck => (self.stuck, self.shut) = (self.chance.between(1, 4), self.chance.one_in(2)),
            Fate::CrashBefore | Fate::CrashWriting | Fate::CrashAfter => self.down = true,
        }
        Err(EngineError::Unknown(io::Error::other("a simulated fault").into()))
    }
}

fn put(tables: &mut Tables, op: &Op) {
    match op {
        Op::Put(table, key, value) => tables.entry(*table).or_default().insert(key.clone(), value.clone()),
        Op::Delete(table, key) => tables.entry(*table).or_default().remove(key),
    };
}

fn dead() -> EngineError {
    EngineError::Io(io::Error::other("the store is not there").into())
}

// === impl Engine ===

impl Engine for Disk {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let platter = self.platter();
        if platter.down || platter.shut {
            return Err(dead());
        }
        Ok(platter.seen.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(&self, table: Table, range: Range<'_>, order: Order, limit: usize) -> Result<Vec<Row>, EngineError> {
        let platter = self.platter();
        if platter.down || platter.shut {
            return Err(dead());
        }
        let Some(rows) = platter.seen.get(&table) else { return Ok(Vec::new()) };
        let is_empty = match range {
            (Bound::Included(a), Bound::Included(b)) => a > b,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Excluded(b)) => a >= b,
            (Bound::Excluded(a), Bound::Included(b)) => a >= b,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        };
        if is_empty {
            return Ok(Vec::new());
        }
        let rows = rows.range::<[u8], Range<'_>>(range);
        let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        Ok(match order {
            Order::Ascending => rows.take(limit).map(owned).collect(),
            Order::Descending => rows.rev().take(limit).map(owned).collect(),
        })
    }

    fn commit(&self, batch: &Batch) -> Result<Committed, EngineError> {
        let mut platter = self.platter();
        if platter.down || platter.shut {
            return Err(dead());
        }
        platter.commit(batch)
    }

    fn limits(&self) -> Limits {
        Limits { ops: 1 << 17, bytes: 1 << 27 }
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn recover(&self) -> Result<(), EngineError> {
        let mut platter = self.platter();
        if platter.down {
            return Err(dead());
        }
        if let Some(left) = platter.stuck.checked_sub(1) {
            platter.stuck = left;
            return Err(dead());
        }
        // What was written and not flushed stays or goes, as a whole.
        let kept = if platter.chance.one_in(2) { usize::MAX } else { 0 };
        platter.flush(kept);
        platter.forget_tail();
        platter.shut = false;
        Ok(())
    }
}

//! Opening a ledger, proposing to it, closing it.

use std::{
    ops::Bound,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, atomic::AtomicU64},
    thread::JoinHandle,
    time::Instant,
};

use subtle::ConstantTimeEq;
use tokio::sync::{broadcast, oneshot};
use tracing::Instrument as _;

use super::{
    anchor::{Anchor, Keeper},
    book::{Book, ScopeState},
    codec::Codec,
    committer::Committer,
    counts::Counts,
    engine::{Engine, EngineError, Order, Row, Table},
    held::{self, Candidate},
    keys,
    lanes::{Lane, LaneLimits, Lanes},
    migrate::{self, SchemaError},
    ops::upkeep::Moved,
    refused::Refused,
    shared::{Aside, Hold, Holds, Published, Shared},
    tx::{Authority, MetaDraft, Tx, Work},
};
use crate::{
    model::{
        Digest, EndReason, Scope, Suspension, Timestamp,
        secret::{self, EntropyUnavailable, MacKey},
    },
    records,
};

/// What is needed to open a ledger.
#[derive(Debug)]
pub struct Opening {
    /// The store.
    pub engine: Arc<dyn Engine>,
    /// The key that authenticates rows, derived from the seal key.
    pub row_key: MacKey,
    /// A value derived from the seal key, to tell a wrong key from a damaged store.
    pub seal_check: [u8; 32],
    /// Where the reserve for full disks lies; none for stores that are not on a disk.
    pub ballast: Option<PathBuf>,
    /// Where the newest state is noted outside of the store; none for stores that are not on a disk.
    pub anchor: Option<Arc<dyn Anchor>>,
    /// How much may wait.
    pub lanes: LaneLimits,
    /// Wall time, for a store that says nothing of time yet.
    pub now: Timestamp,
}

/// Why a ledger does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store was written under another seal key.
    #[error("the seal key is not the one that this data folder was made with; give the right `seal.key_file`")]
    WrongSealKey,
    /// The schema is another one.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The engine failed.
    #[error("the store cannot be opened")]
    Engine(#[from] EngineError),
    /// The store is empty, and its anchor is not.
    #[error(
        "the data folder is empty, but its anchor {0} knows a store: restore the last backup with `mayfly restore`, or \
         move the anchor away to begin anew"
    )]
    Emptied(String),
    /// The anchor cannot be read.
    #[error("the anchor cannot be read; give the daemon's user access to it and to its folder")]
    Anchor(#[source] std::io::Error),
    /// No entropy for a new store.
    #[error(transparent)]
    Entropy(#[from] EntropyUnavailable),
    /// The committer's thread could not be started.
    #[error("the committer cannot be started")]
    Thread(#[source] std::io::Error),
}

/// Proof that a commit is on disk and seen by every check.
///
/// Invariant: only the ledger builds one, after publishing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Receipt {
    incarnation: u64,
    number: u64,
}

impl Receipt {
    /// The store's incarnation.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The revision as of which it holds.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// What is true, and the one way to change it.
#[derive(Debug)]
pub struct Ledger {
    pub(super) shared: Arc<Shared>,
    pub(super) moved: Moved,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// What was wrong at opening and makes everything before it end.
    pub doubt: Option<&'static str>,
    /// The confirmed time mark that the store held at opening.
    pub opened_mark: Timestamp,
    /// Whether the store was new.
    pub is_new: bool,
}

impl Ledger {
    /// Opens the store, or begins one in an empty store, and starts the committer.
    ///
    /// Time and memory grow with cuts, bars and counted scopes, not with leases or tasks.
    ///
    /// # Errors
    /// See [`OpenError`]. An unreadable row is no error: it is set aside, closed.
    pub fn open(opening: Opening) -> Result<Self, OpenError> {
        let (ledger, committer) = Self::prepare(opening)?;
        let thread = std::thread::Builder::new().name("committer".into()).spawn(|| committer.run());
        let thread = thread.map_err(OpenError::Thread)?;
        *ledger.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(ledger)
    }

    /// Opens the store as [`Self::open`] does, and leaves it to the caller when the committer works.
    ///
    /// # Errors
    /// See [`OpenError`].
    #[cfg(test)]
    pub fn open_stepped(opening: Opening) -> Result<(Self, Stepper), OpenError> {
        Self::prepare(opening).map(|(ledger, committer)| (ledger, Stepper(committer)))
    }

    fn prepare(opening: Opening) -> Result<(Self, Committer), OpenError> {
        let Opening { engine, row_key, seal_check, ballast, anchor, lanes, now } = opening;
        let codec = Codec::new(row_key);
        if let Some(anchor) = &anchor {
            held::check_founding(engine.as_ref(), anchor.as_ref())?;
        }
        let is_new = found(engine.as_ref(), &codec, &seal_check, now)?;
        let aside = Aside::default();
        let (mut meta, meta_doubt) = read_meta(engine.as_ref(), &codec, &aside, now)?;
        let held = Candidate {
            engine: engine.as_ref(),
            codec: &codec,
            aside: &aside,
            meta: &mut meta,
            is_new,
            is_damaged: meta_doubt.is_some(),
            now,
        }
        .judge(anchor.as_deref())?;
        let (book, authority, damaged) = read_book(engine.as_ref(), &codec, &aside)?;
        let removed = authority.rows != meta.authority.rows || (authority != meta.authority && !damaged);
        let doubt = meta_doubt.or_else(|| removed.then_some("cuts or bars were changed outside the broker"));
        // Held, and what was issued before has not been ended yet.
        let unended = held.as_ref().filter(|held| book.state(Scope::Everything.id()).cut <= held.revision);
        let doubt = unended.map(|held| Hold::of(held).explanation()).or(doubt);
        let counts = read_counts(engine.as_ref(), &codec, &aside)?;
        let shared = Arc::new(Shared {
            engine,
            codec,
            incarnation: meta.incarnation,
            published: AtomicU64::new(meta.number),
            book: RwLock::new(book),
            counts: RwLock::new(counts),
            lanes: Lanes::new(lanes),
            feed: broadcast::channel(FEED_BACKLOG).0,
            aside,
            holds: Holds::default(),
            lapses: OnceLock::new(),
            voices: OnceLock::new(),
        });
        if let Some(held) = &held {
            shared.holds.set(Hold::of(held));
        }
        let (opened_mark, state) = (meta.now, meta.mark());
        let mut committer = Committer::new(Arc::clone(&shared), MetaDraft { authority, ..meta }, ballast);
        let moved = Arc::clone(&committer.moved);
        restore_moved(&shared, &moved)?;
        let keeper = anchor.map(|anchor| Keeper::start(anchor, Arc::clone(&shared), state));
        committer.anchor = keeper.transpose().map_err(OpenError::Thread)?;
        Ok((Self { shared, moved, thread: Mutex::default(), doubt, opened_mark, is_new }, committer))
    }

    /// Lets nothing more in, finishes what waits and stops the committer.
    pub fn close(&self) {
        self.shared.lanes.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the committer stopped unexpectedly");
        }
    }

    /// Proposes, and waits until it is on disk and published, or refused.
    pub(super) async fn propose<T: Send + 'static>(
        &self,
        lane: Lane,
        body: impl FnMut(&mut Tx<'_>) -> Result<T, Refused> + Send + 'static,
    ) -> Result<(T, Receipt), Refused> {
        let began = Instant::now();
        let (reply, answer) = oneshot::channel();
        let job = Job { body, outcome: None, reply, is_end: lane == Lane::End, incarnation: self.shared.incarnation };
        self.shared.lanes.push(lane, Box::new(job)).map_err(|super::lanes::LaneFull| Refused::Busy)?;
        // A dropped answer means that the committer stopped before it came to this proposal.
        let waited = answer.instrument(tracing::trace_span!(target: "mayfly::spans", "commit", lane = lane.word()));
        let done = waited.await.unwrap_or(Err(Refused::Stopping));
        if lane == Lane::End && done.is_ok() {
            metrics::histogram!("mayfly_end_seconds").record(began.elapsed().as_secs_f64());
        }
        done
    }

    /// What commits tell watchers, from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Published>> {
        self.shared.feed.subscribe()
    }
}

/// The committer of a ledger whose caller says when it works: for simulations.
#[cfg(test)]
#[derive(Debug)]
pub struct Stepper(Committer);

#[cfg(test)]
impl Stepper {
    /// Carries out one batch of what waits; nothing when nothing does.
    pub fn step(&mut self) {
        let _open = self.0.turn(std::time::Duration::ZERO);
    }

    /// Loses every cut that was read at opening: a bug put in on purpose.
    pub fn forget_cuts(&mut self) {
        self.0.shared.book.write().unwrap_or_else(PoisonError::into_inner).forget_cuts();
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.close();
    }
}

struct Job<T, F> {
    body: F,
    outcome: Option<Result<T, Refused>>,
    reply: oneshot::Sender<Result<(T, Receipt), Refused>>,
    is_end: bool,
    incarnation: u64,
}

impl<T: Send, F: FnMut(&mut Tx<'_>) -> Result<T, Refused> + Send> Work for Job<T, F> {
    fn run(&mut self, tx: &mut Tx<'_>) {
        self.outcome = Some((self.body)(tx));
    }

    fn finish(self: Box<Self>, committed: Result<u64, Refused>) {
        let answer = match (self.outcome, committed) {
            (Some(Ok(value)), Ok(number)) => Ok((value, Receipt { incarnation: self.incarnation, number })),
            (Some(Err(refused)), _) | (_, Err(refused)) => Err(refused),
            (None, Ok(_)) => Err(Refused::Stopping),
        };
        // The caller may have gone away; what is committed stays committed.
        let _gone = self.reply.send(answer);
    }

    fn is_end(&self) -> bool {
        self.is_end
    }
}

fn found(engine: &dyn Engine, codec: &Codec, seal_check: &[u8; 32], now: Timestamp) -> Result<bool, OpenError> {
    if let Some(check) = engine.get(Table::Meta, keys::FOUNDING)? {
        if !bool::from(check.as_slice().ct_eq(&seal_check[..])) {
            return Err(OpenError::WrongSealKey);
        }
        return Ok(false);
    }
    let meta = MetaDraft { incarnation: fresh_incarnation()?, next_tenant: 1, now, ..MetaDraft::default() };
    let record = meta.record(1, now, Authority::default());
    let batch = super::engine::Batch {
        compares: vec![super::engine::Compare { table: Table::Meta, key: keys::FOUNDING.to_vec(), expected: None }],
        ops: vec![
            super::engine::Op::Put(Table::Meta, keys::FOUNDING.to_vec(), seal_check.to_vec()),
            super::engine::Op::Put(Table::Meta, keys::META.to_vec(), codec.encode(Table::Meta, keys::META, &record)),
        ],
    };
    engine.commit(&batch)?;
    Ok(true)
}

/// Reads the ledger's own row. When it cannot be read, a new incarnation begins: everything before it has ended.
pub(super) fn read_meta(
    engine: &dyn Engine,
    codec: &Codec,
    aside: &Aside,
    now: Timestamp,
) -> Result<(MetaDraft, Option<&'static str>), OpenError> {
    let stored = engine.get(Table::Meta, keys::META)?;
    let record: Option<records::MetaRecord> = stored.as_deref().and_then(|value| {
        codec.decode(Table::Meta, keys::META, value).inspect_err(|e| aside.note(Table::Meta, keys::META, e)).ok()
    });
    let Some(record) = record else {
        let meta = MetaDraft {
            stored,
            incarnation: fresh_incarnation()?,
            next_tenant: last_tenant(engine)? + 1,
            number: last_revision(engine)? + REVISION_GAP,
            now,
            ..MetaDraft::default()
        };
        return Ok((meta, Some("the ledger's own row is damaged")));
    };
    for step in migrate::path(record.schema)? {
        let batch = step(engine)?;
        engine.commit(&batch)?;
    }
    let meta = MetaDraft {
        stored,
        incarnation: record.incarnation,
        next_tenant: record.next_tenant,
        number: record.revision,
        now: Timestamp::from_millis(record.time_mark),
        authority: Authority {
            rows: record.authority_rows,
            digest: record.authority_digest.try_into().unwrap_or_default(),
        },
        audit_head: Digest::from_slice(&record.audit_head).unwrap_or_default(),
        anchored: record.anchored,
    };
    Ok((meta, None))
}

/// Loads every cut and bar. A damaged cut still cuts: scope and revision are in its key. A damaged bar still bars, and
/// suspends.
fn read_book(engine: &dyn Engine, codec: &Codec, aside: &Aside) -> Result<(Book, Authority, bool), OpenError> {
    let (mut book, mut authority, mut damaged) = (Book::default(), Authority::default(), false);
    for (key, value) in all(engine, Table::Cuts)? {
        authority.replace(None, Some(&value));
        let Some((scope, number)) = keys::parse_cut(&key) else { continue };
        let state = book.state(scope);
        let read = codec.decode::<records::CutRecord>(Table::Cuts, &key, &value);
        let (why, at, until, done) = match &read {
            Ok(r) => {
                let (at, until) = (Timestamp::from_millis(r.at), Timestamp::from_millis(r.covers_until));
                (EndReason::from_code(r.why), at, until, r.done)
            }
            Err(e) => {
                aside.note(Table::Cuts, &key, e);
                damaged = true;
                let never = Timestamp::from_millis(u64::MAX);
                (Some(EndReason::Revoked), never, never, false)
            }
        };
        if number > state.cut {
            let (cut_at, covers_until) = (state.cut_at.max(at), state.covers_until.max(until));
            book.set(scope, ScopeState { cut: number, cut_at, why, covers_until, cleaned: done, ..state });
        }
    }
    for (key, value) in all(engine, Table::Bars)? {
        authority.replace(None, Some(&value));
        let Some((scope, cause)) = keys::parse_bar(&key) else { continue };
        let state = book.state(scope);
        if let Some(cause) = cause.and_then(Suspension::from_code) {
            // The reason stands in the key: a damaged one suspends all the same, and is never lifted by time.
            let revision = match codec.decode::<records::BarRecord>(Table::Bars, &key, &value) {
                Ok(record) => record.revision,
                Err(e) => {
                    aside.note(Table::Bars, &key, &e);
                    damaged = true;
                    u64::MAX
                }
            };
            let held_at = state.held_at.max(revision);
            book.set(scope, ScopeState { held: state.held.with(cause), held_at, ..state });
            continue;
        }
        let (bar, suspend) = match codec.decode::<records::BarRecord>(Table::Bars, &key, &value) {
            Ok(_) if cause.is_some() => (u64::MAX, true),
            Ok(record) => (record.revision, record.suspend),
            Err(e) => {
                aside.note(Table::Bars, &key, &e);
                damaged = true;
                (u64::MAX, true)
            }
        };
        book.set(scope, ScopeState { bar, suspend, ..state });
    }
    if let Some(value) = engine.get(Table::Meta, keys::HOLD)? {
        authority.replace(None, Some(&value));
    }
    Ok((book, authority, damaged))
}

fn read_counts(engine: &dyn Engine, codec: &Codec, aside: &Aside) -> Result<Counts, OpenError> {
    let mut counts = Counts::default();
    for (key, value) in all(engine, Table::Counts)? {
        let Some((scope, minute)) = keys::parse_count(&key) else { continue };
        match codec.decode::<records::CountRecord>(Table::Counts, &key, &value) {
            Ok(record) => counts.set(scope, minute, record.live),
            Err(e) => aside.note(Table::Counts, &key, &e),
        }
    }
    Ok(counts)
}

/// Streams that moved after the last checkpoint and before the stop: from the log, which is short.
fn restore_moved(shared: &Shared, moved: &Moved) -> Result<(), OpenError> {
    let last = shared.engine.scan(Table::Checkpoints, EVERYTHING, Order::Descending, 1)?;
    let after = last
        .first()
        .and_then(|(key, value)| shared.codec.decode::<crate::pb::Checkpoint>(Table::Checkpoints, key, value).ok())
        .and_then(|checkpoint| checkpoint.revision)
        .map_or(0, |revision| revision.number);
    let lower = keys::revision(after);
    let range = (Bound::Excluded(lower.as_slice()), Bound::Unbounded);
    let rows = shared.engine.scan(Table::Log, range, Order::Descending, MOVED_MOST)?;
    let mut moved = moved.lock().unwrap_or_else(PoisonError::into_inner);
    for (key, value) in rows {
        let Ok(page) = shared.codec.decode::<records::LogPage>(Table::Log, &key, &value) else { continue };
        for entry in page.pages {
            let Ok(id) = keys::StreamId::try_from(entry.stream.as_slice()) else { continue };
            if let std::collections::hash_map::Entry::Vacant(slot) = moved.entry(id)
                && let Ok(head) = super::journal::read_head(shared, id)
            {
                slot.insert(head);
            }
        }
    }
    Ok(())
}

fn all(engine: &dyn Engine, table: Table) -> Result<Vec<Row>, EngineError> {
    engine.scan(table, EVERYTHING, Order::Ascending, usize::MAX)
}

fn last_revision(engine: &dyn Engine) -> Result<u64, EngineError> {
    let mut last = 0;
    for table in [Table::Log, Table::Feed] {
        let row = engine.scan(table, EVERYTHING, Order::Descending, 1)?;
        last = last.max(row.first().and_then(|(key, _)| keys::leading_revision(key)).unwrap_or(0));
    }
    let cuts = all(engine, Table::Cuts)?;
    Ok(cuts.iter().filter_map(|(key, _)| keys::parse_cut(key)).map(|(_, number)| number).fold(last, u64::max))
}

fn last_tenant(engine: &dyn Engine) -> Result<u32, EngineError> {
    let upper = [keys::TENANT_NAMES];
    let range = (Bound::Unbounded, Bound::Excluded(upper.as_slice()));
    let row = engine.scan(Table::Trust, range, Order::Descending, 1)?;
    let number = row.first().and_then(|(key, _)| key.first_chunk::<4>().copied());
    Ok(number.and_then(crate::model::TenantNumber::from_bytes).map_or(0, crate::model::TenantNumber::get))
}

pub(super) fn fresh_incarnation() -> Result<u64, EntropyUnavailable> {
    let mut bytes = [0; 8];
    secret::fill(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

const EVERYTHING: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);
/// Commits that a slow watcher may lag behind before it must read the store again.
const FEED_BACKLOG: usize = 4_096;
/// How far revisions jump when the last one is not known for sure.
pub(super) const REVISION_GAP: u64 = 1 << 20;
/// Commits after the last checkpoint that are looked at; checkpoints are seconds apart.
const MOVED_MOST: usize = 100_000;

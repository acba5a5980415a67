//! Opening a ledger, proposing to it, closing it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, atomic::AtomicU64},
    thread::JoinHandle,
    time::Instant,
};

use tokio::sync::{broadcast, oneshot};
use tracing::Instrument as _;

use super::{
    anchor::{Anchor, Keeper},
    codec::Codec,
    committer::Committer,
    engine::{Engine, EngineError},
    held::{self, Candidate},
    lanes::{Lane, LaneLimits, Lanes},
    meta::MetaDraft,
    migrate::SchemaError,
    ops::upkeep::Moved,
    recall::{found, read_book, read_counts, read_meta, restore_moved},
    refused::Refused,
    shared::{Aside, Hold, Holds, Published, Shared},
    tx::{Tx, Work},
};
use crate::model::{
    Scope, Timestamp,
    secret::{EntropyUnavailable, MacKey},
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

/// Commits that a slow watcher may lag behind before it must read the store again.
const FEED_BACKLOG: usize = 4_096;

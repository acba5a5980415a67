//! Who may begin now: a bounded number of beginnings is worked on at a time, and tenants take turns.
//!
//! What waits here has cost its reading and nothing else: no decision was made for it, nothing was signed, and nothing of
//! it lies in the ledger's lanes. So the work that one tenant asks for stands in nobody else's way, and a request that
//! comes to an idle tenant's turn is the next to be worked on. Ends and questions do not wait here.
//!
//! What is at work takes processors and makes commits longer for everybody. So a tenant gets less of it where others ask
//! too, or did a moment ago, and as much as fills the processors where it is alone.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use metrics::{Counter, Gauge};
use tokio::sync::oneshot;

use self::payer::Lately;
use crate::model::Timestamp;

mod payer;

pub use payer::Payer;

/// Turns of all tenants.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: TurnLimits,
    line: Mutex<Line>,
    told: Told,
}

/// How many may be worked on, and wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TurnLimits {
    /// Worked on at a time, of which a tenant that is alone gets half.
    pub at_work: usize,
    /// Of these, what one tenant gets while others ask too; no more than half.
    pub beside_others: usize,
    /// Waiting, of one tenant.
    pub waiting_per_tenant: usize,
    /// Waiting in all.
    pub waiting: usize,
}

/// There is no room to wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LineFull {
    /// When to try again, in milliseconds.
    pub retry_ms: u32,
}

#[derive(Debug, Default)]
struct Line {
    at_work: usize,
    waiting: usize,
    next: u64,
    /// Only payers with something at work, waiting, or in turn.
    payers: HashMap<Payer, Account>,
    /// Payers whose next one may begin as soon as there is room, in turn.
    turn: VecDeque<Payer>,
    lately: Lately,
}

#[derive(Debug, Default)]
struct Account {
    at_work: usize,
    /// In order of arrival.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    /// Whether it stands in `turn`.
    in_turn: bool,
}

/// Handles of the metrics: found once, not for every request.
#[derive(Clone)]
struct Told {
    at_once: Counter,
    waited: Counter,
    refused: Counter,
    waiting: Gauge,
}

/// One request being worked on, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    shared: Arc<Shared>,
    payer: Payer,
}

/// A turn of work that may be broken off: what it has set going goes on for a while, and so long it counts as at work. So
/// who takes requests back as soon as they were begun does not begin more than others.
#[derive(Debug)]
pub struct Working(Option<Turn>);

/// One request that waits for its turn.
#[derive(Debug)]
pub struct Waiting {
    /// `None` once it was given its turn.
    place: Option<Place>,
    called: oneshot::Receiver<()>,
}

#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    payer: Payer,
    number: u64,
}

/// How a request that was let in goes on.
#[derive(Debug)]
pub enum Entered {
    /// It is its turn.
    AtOnce(Turn),
    /// It will be.
    Later(Waiting),
}

// === impl Turns ===

impl Turns {
    /// Nobody at work yet.
    #[must_use]
    pub fn new(limits: TurnLimits) -> Self {
        let limits = TurnLimits { at_work: limits.at_work.max(1), ..limits };
        Self(Arc::new(Shared { limits, line: Mutex::default(), told: Told::new() }))
    }

    /// Takes a turn, or a place in the line, at `now`.
    ///
    /// # Errors
    /// [`LineFull`] when as many wait as may, of this payer or of all.
    pub fn enter(&self, payer: Payer, now: Timestamp) -> Result<Entered, LineFull> {
        let shared = &self.0;
        let mut line = shared.lock();
        line.lately.asks(&payer, now);
        let (limits, waiting, is_free) = (shared.limits, line.waiting, line.at_work < shared.limits.at_work);
        let share = line.share(&payer, limits);
        let account = line.payers.entry(payer.clone()).or_default();
        if is_free && account.waiting.is_empty() && account.at_work < share {
            account.at_work += 1;
            line.at_work += 1;
            drop(line);
            shared.told.at_once.increment(1);
            return Ok(Entered::AtOnce(Turn { shared: Arc::clone(shared), payer }));
        }
        if account.waiting.len() >= limits.waiting_per_tenant || waiting >= limits.waiting {
            let retry_ms = retry_ms(account.waiting.len(), share);
            line.tidy(&payer);
            drop(line);
            shared.told.refused.increment(1);
            return Err(LineFull { retry_ms });
        }
        let called = line.join(&payer, share);
        let number = line.next;
        drop(line);
        shared.told.waited.increment(1);
        shared.told.waiting.increment(1);
        let place = Place { shared: Arc::clone(shared), payer, number };
        Ok(Entered::Later(Waiting { place: Some(place), called }))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Line> {
        // Nothing between the changes of one call can panic.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of the payer's is done: the next ones may begin.
    fn leave(&self, payer: &Payer) {
        let mut line = self.lock();
        line.at_work = line.at_work.saturating_sub(1);
        if let Some(account) = line.payers.get_mut(payer) {
            account.at_work = account.at_work.saturating_sub(1);
        }
        let share = line.share(payer, self.limits);
        line.stand_in(payer, share);
        line.tidy(payer);
        // One at most, but for places that were given up.
        let called = line.call(self.limits);
        drop(line);
        self.wake(called);
    }

    /// One of the payer's does not wait any longer; when it was called meanwhile, its turn goes on to the next.
    fn give_up(&self, place: &Place) {
        let mut line = self.lock();
        let waited = line.payers.get_mut(&place.payer).and_then(|account| account.waiting.remove(&place.number));
        if waited.is_none() {
            drop(line);
            return self.leave(&place.payer);
        }
        line.waiting = line.waiting.saturating_sub(1);
        line.tidy(&place.payer);
        drop(line);
        self.told.waiting.decrement(1);
    }

    fn wake(&self, called: Vec<oneshot::Sender<()>>) {
        for one in called {
            self.told.waiting.decrement(1);
            // Who has gone gives the turn back when it is dropped.
            let _gone = one.send(());
        }
    }
}

impl Line {
    /// What a payer may have at work now.
    fn share(&self, payer: &Payer, limits: TurnLimits) -> usize {
        if self.lately.others_than(payer) { limits.beside_others() } else { limits.alone() }
    }

    /// A place at the end of the payer's own line; its number is `next` after this.
    fn join(&mut self, payer: &Payer, share: usize) -> oneshot::Receiver<()> {
        let (call, called) = oneshot::channel();
        self.next += 1;
        self.waiting += 1;
        self.payers.entry(payer.clone()).or_default().waiting.insert(self.next, call);
        self.stand_in(payer, share);
        called
    }

    /// Has a payer that may begin stand in turn.
    fn stand_in(&mut self, payer: &Payer, share: usize) {
        let Some(account) = self.payers.get_mut(payer) else { return };
        if !account.in_turn && !account.waiting.is_empty() && account.at_work < share {
            account.in_turn = true;
            self.turn.push_back(payer.clone());
        }
    }

    /// Gives turns while there is room, payer by payer.
    fn call(&mut self, limits: TurnLimits) -> Vec<oneshot::Sender<()>> {
        let mut called = Vec::new();
        while self.at_work < limits.at_work {
            let Some(payer) = self.turn.pop_front() else { break };
            let share = self.share(&payer, limits);
            let Some(account) = self.payers.get_mut(&payer) else { continue };
            account.in_turn = false;
            if account.at_work < share
                && let Some((_, call)) = account.waiting.pop_first()
            {
                account.at_work += 1;
                self.at_work += 1;
                self.waiting = self.waiting.saturating_sub(1);
                called.push(call);
            }
            self.stand_in(&payer, share);
            self.tidy(&payer);
        }
        called
    }

    /// Forgets a payer with nothing left. One that stands in turn stays until it is called, or it would stand there twice.
    fn tidy(&mut self, payer: &Payer) {
        let is_idle = |account: &Account| account.at_work == 0 && account.waiting.is_empty() && !account.in_turn;
        if self.payers.get(payer).is_some_and(is_idle) {
            self.payers.remove(payer);
        }
    }
}

impl TurnLimits {
    /// What one payer may have at work where nobody else asks: half, so that a newcomer begins at once.
    fn alone(self) -> usize {
        self.at_work.div_ceil(2)
    }

    /// The same while others ask too.
    fn beside_others(self) -> usize {
        self.beside_others.clamp(1, self.alone().max(1))
    }
}

impl Entered {
    /// Returns when it is this request's turn; dropping this gives the place up.
    pub async fn turn(self) -> Turn {
        match self {
            Self::AtOnce(turn) => turn,
            Self::Later(waiting) => waiting.await,
        }
    }
}

impl Future for Waiting {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Turn> {
        // The sender is not dropped before it has sent: only a call takes it out of the line.
        if Pin::new(&mut self.called).poll(cx).is_pending() {
            return Poll::Pending;
        }
        match self.place.take() {
            Some(Place { shared, payer, .. }) => Poll::Ready(Turn { shared, payer }),
            None => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let shared = Arc::clone(&place.shared);
            shared.give_up(&place);
        }
    }
}

impl Turn {
    /// For work that may be broken off.
    #[must_use]
    pub fn working(self) -> Working {
        Working(Some(self))
    }
}

impl Working {
    /// The work is done: the next one may begin.
    pub fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let Some(turn) = self.0.take() else { return };
        // Outside of a runtime nothing goes on.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(BROKEN_OFF).await;
                drop(turn);
            });
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.leave(&self.payer);
    }
}

impl Told {
    fn new() -> Self {
        let turns = |outcome| metrics::counter!("mayfly_turns_total", "outcome" => outcome);
        Self {
            at_once: turns("at_once"),
            waited: turns("waited"),
            refused: turns("refused"),
            waiting: metrics::gauge!("mayfly_turns_waiting"),
        }
    }
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

/// When those before one will have had their turn, as far as can be said without knowing what they ask.
fn retry_ms(before: usize, share: usize) -> u32 {
    let rounds = before / share.max(1) + 1;
    u32::try_from(rounds).unwrap_or(u32::MAX).saturating_mul(ROUND_MS).min(RETRY_MOST_MS)
}

/// How long work that was broken off counts as going on: a few commits.
const BROKEN_OFF: Duration = Duration::from_millis(20);
/// How long a round of those at work is taken to last, in milliseconds: a commit under load.
const ROUND_MS: u32 = 10;
const RETRY_MOST_MS: u32 = 2_000;

#[cfg(test)]
mod tests;

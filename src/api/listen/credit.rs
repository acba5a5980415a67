//! What a caller may send that comes to nothing.
//!
//! A stack answers a stream over its limit with a reset, a ping with a ping, and waits for a request that never says what
//! it asks: each costs little, and a caller that sends nothing else costs a processor. So each caller has a credit of
//! frames over all of its connections. Every frame takes of it; every whole request, and whatever we have to say, gives
//! back more than it took. Who has spent it is read as slowly as it grows back, and the rest stands in its own buffers.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::Link;
use crate::{api::remembered::Remembered, model::Timestamp};

/// The credits of all callers. Takes memory for a bounded number: the longest idle are forgotten, and begin anew.
#[derive(Debug)]
pub(super) struct Credits {
    per_second: u32,
    /// Connections that one proven caller may have.
    share: usize,
    /// By caller, whatever certificate it comes with.
    known: Mutex<Remembered<String, Arc<Credit>>>,
}

/// One caller's credit, and how many connections it has.
#[derive(Debug)]
pub(super) struct Credit {
    per_second: u32,
    balance: Mutex<Balance>,
    /// Connections that it may have.
    share: usize,
    connections: AtomicUsize,
}

#[derive(Debug)]
struct Balance {
    /// In millionths of a frame; less than nothing when too much has come.
    left: i64,
    at: Instant,
}

/// One connection among its caller's, until it is dropped.
#[derive(Debug)]
pub(super) struct Connected(Arc<Credit>);

// === impl Credits ===

impl Credits {
    /// Each caller may send `per_second` frames a second that come to nothing, and have `share` connections.
    pub(super) fn new(per_second: u32, share: usize) -> Self {
        for reason in [SPENT, NOT_ADMITTED] {
            // To be seen before the first one.
            metrics::counter!("mayfly_reads_paused_total", "reason" => reason).increment(0);
        }
        Self { per_second, share, known: Mutex::new(Remembered::new(MOST / 2)) }
    }

    /// That of the proven caller at the other end. None for a proxy, behind which many are, and for who has proven nothing
    /// yet: whoever shares a network with it would pay for its flood. Those have half of all connections, and no longer.
    pub(super) fn of(&self, link: &Link, now: Timestamp) -> Option<Arc<Credit>> {
        let caller = match link {
            Link::Plain { .. } => return None,
            Link::Tls { .. } | Link::Unix { .. } => link.caller(now).ok().flatten()?,
        };
        Some(self.of_party(caller.party(), Instant::now()))
    }

    fn of_party(&self, party: String, now: Instant) -> Arc<Credit> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.of(party, || Arc::new(Credit::new(self.per_second, self.share, now))))
    }
}

// === impl Credit ===

impl Credit {
    pub(super) fn new(per_second: u32, share: usize, now: Instant) -> Self {
        let balance = Mutex::new(Balance { left: full(per_second), at: now });
        Self { per_second, balance, share, connections: AtomicUsize::new(0) }
    }

    /// Takes frames that came by `now`; says whether it is spent.
    pub(super) fn spend(&self, frames: u32, now: Instant) -> bool {
        let mut balance = self.grown(now);
        let lowest = i64::from(self.per_second) * FRAME * -OWED_SECONDS;
        balance.left = balance.left.saturating_sub(i64::from(frames) * FRAME).max(lowest);
        balance.left < 0
    }

    /// Gives frames back.
    pub(super) fn earn(&self, frames: u32) {
        let mut balance = self.lock();
        balance.left = balance.left.saturating_add(i64::from(frames) * FRAME).min(full(self.per_second));
    }

    /// Whether more has come than may.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        self.grown(now).left < 0
    }

    /// Counts one connection more; none when the caller has its share.
    pub(super) fn connected(self: Arc<Self>) -> Option<Connected> {
        let one_more = |open: usize| (open < self.share).then(|| open + 1);
        let taken = self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| Connected(self))
    }

    /// With what has grown back by `now`.
    fn grown(&self, now: Instant) -> MutexGuard<'_, Balance> {
        let mut balance = self.lock();
        let micros = now.saturating_duration_since(balance.at).as_micros();
        let grown = i64::try_from(micros).unwrap_or(i64::MAX).saturating_mul(i64::from(self.per_second));
        balance.left = balance.left.saturating_add(grown).min(full(self.per_second));
        // Two threads may come in another order than they looked at the clock.
        balance.at = balance.at.max(now);
        balance
    }

    fn lock(&self) -> MutexGuard<'_, Balance> {
        // Every change under the lock leaves it whole.
        self.balance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is there after a pause.
fn full(per_second: u32) -> i64 {
    i64::from(per_second) * FRAME * AT_ONCE_SECONDS
}

/// Why a connection is not read for a while: its caller has spent its credit.
pub(super) const SPENT: &str = "frames";
/// The same: a request was not admitted.
pub(super) const NOT_ADMITTED: &str = "not_admitted";
/// Callers remembered.
const MOST: usize = 100_000;
/// Parts of a frame; with what grows in a microsecond at one a second.
const FRAME: i64 = 1_000_000;
/// How long what is there after a pause has grown.
const AT_ONCE_SECONDS: i64 = 2;
/// How long the deepest debt takes to grow back.
const OWED_SECONDS: i64 = 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PER_SECOND: u32 = 100;

    fn credits() -> Credits {
        Credits::new(PER_SECOND, 3)
    }

    fn caller(name: &str) -> String {
        name.to_owned()
    }

    /// How many frames may come, one at a time, before the credit is spent.
    fn spent_after(credit: &Credit, now: Instant) -> usize {
        (0..100_000).take_while(|_| !credit.spend(1, now)).count()
    }

    #[test]
    fn what_comes_to_nothing_may_come_at_once_for_two_seconds_and_then_as_it_grows_back() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let credit = credits().of_party(caller("one"), start);
        assert_eq!(spent_after(&credit, start), 200);
        assert!(credit.is_spent(at(9)));
        assert!(!credit.is_spent(at(10)), "one has grown back");
        assert_eq!(spent_after(&credit, at(510)), 50);
        assert_eq!(spent_after(&credit, at(3_600_000)), 200, "idle time fills it, and not more");
        assert!(credit.is_spent(at(10)), "who looked at the clock earlier gains nothing");
        assert!(credit.is_spent(at(3_600_009)));
    }

    #[test]
    fn who_asks_as_much_as_it_sends_never_spends_it() {
        let now = Instant::now();
        let credit = credits().of_party(caller("one"), now);
        for _ in 0..100_000 {
            assert!(!credit.spend(8, now));
            credit.earn(8);
        }
        credit.earn(u32::MAX);
        assert_eq!(spent_after(&credit, now), 200, "nothing is saved up");
    }

    #[test]
    fn a_debt_grows_back_and_within_ten_seconds_at_most() {
        let start = Instant::now();
        let credit = credits().of_party(caller("one"), start);
        assert!(credit.spend(250, start));
        assert!(credit.is_spent(start + Duration::from_millis(499)));
        assert!(!credit.is_spent(start + Duration::from_millis(500)));
        assert!(credit.spend(u32::MAX, start));
        assert!(!credit.is_spent(start + Duration::from_millis(10_500)));
    }

    #[test]
    fn a_caller_has_one_credit_over_all_of_its_connections_and_keeps_it_when_it_comes_again() {
        let (credits, now) = (credits(), Instant::now());
        assert_eq!(spent_after(&credits.of_party(caller("one"), now), now), 200);
        assert!(credits.of_party(caller("one"), now).is_spent(now));
        assert!(!credits.of_party(caller("two"), now).is_spent(now), "nobody else is slower for it");
    }

    #[test]
    fn a_caller_has_as_many_connections_as_its_share() {
        let (credits, now) = (credits(), Instant::now());
        let connect = |party: &String, times| -> Vec<Connected> {
            (0..times).filter_map(|_| credits.of_party(party.clone(), now).connected()).collect()
        };
        let mut one = connect(&caller("one"), 4);
        assert_eq!((one.len(), connect(&caller("two"), 4).len()), (3, 3));
        one.pop();
        assert_eq!(connect(&caller("one"), 4).len(), 1, "one that has ended leaves room");
    }
}

//! Telling owners: the audit is read once, behind everything else; what concerns somebody waits in rows of its own, a way
//! out at a time, until it was delivered or given up.
//!
//! ```text
//! audit --collect--> rows that wait, by outlet --deliver--> webhook, mail
//! ```

mod ask;
mod collect;
mod deliver;
mod whose;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Broker, gauges::wide};
use crate::{
    config,
    ledger::{Ledger, NoticeCommit, NoticeMarks, Refused},
    model::Timestamp,
    notify::Outlet,
    records,
};

/// Routes, the ways out that they lead to, and how each stands.
#[derive(Debug)]
pub struct Notifier {
    config: config::Notify,
    outlets: Vec<Arc<Outlet>>,
    states: Mutex<BTreeMap<String, State>>,
    /// The revision up to which the audit was read; its row may be behind.
    read_until: AtomicU64,
    written_until: AtomicU64,
    /// Held while a test is sent: one at a time.
    testing: tokio::sync::Mutex<()>,
}

/// How a way out stands.
#[derive(Clone, Debug, Default)]
struct State {
    record: records::OutletRecord,
    waiting: usize,
    /// Rounds that failed since the last one that did not.
    failures: u32,
    /// No attempt before.
    due: Timestamp,
    /// Where the next round begins: behind what failed by itself.
    marks: NoticeMarks,
}

impl Notifier {
    /// Reads how each way out stands, and where the audit is to be read on. The first time that is now: nobody is told of
    /// what was before. What is older than anything is tried for is told nobody either.
    ///
    /// # Errors
    /// When the store failed.
    pub fn open(
        ledger: &Ledger,
        config: config::Notify,
        outlets: Vec<Outlet>,
        now: Timestamp,
    ) -> Result<Self, Refused> {
        let mut states = BTreeMap::new();
        for outlet in &outlets {
            let name = outlet.name();
            // How it stood is of no weight: a damaged row begins anew.
            let record = ledger.outlet(&name).unwrap_or_default();
            let waiting = ledger.notices_waiting(&name, WAITING_MOST)?;
            states.insert(name, State { record, waiting, ..State::default() });
        }
        let known = ledger.notices_read_until()?;
        let written = known.unwrap_or(0);
        let oldest = ledger.log_before(now.before(config.give_up))?;
        let read = known.map_or(ledger.basis().1, |known| known.max(oldest));
        Ok(Self {
            config,
            outlets: outlets.into_iter().map(Arc::new).collect(),
            states: Mutex::new(states),
            read_until: AtomicU64::new(read),
            written_until: AtomicU64::new(written),
            testing: tokio::sync::Mutex::default(),
        })
    }

    /// How long before its date an attestation is asked for; `None` when nobody is reminded.
    #[must_use]
    pub fn remind_before(&self) -> Option<Duration> {
        Some(self.config.remind_before).filter(|ahead| !ahead.is_zero() && !self.config.routes.is_empty())
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, outlet: &str, change: impl FnOnce(&mut State) -> T) -> T {
        change(self.states().entry(outlet.to_owned()).or_default())
    }

    fn outlets_of(&self, route: &str) -> impl Iterator<Item = &Arc<Outlet>> {
        self.outlets.iter().filter(move |outlet| outlet.route == route)
    }

    /// Shows how each way out stands.
    pub(super) fn show_gauges(&self) {
        for outlet in &self.outlets {
            let state = self.change(&outlet.name(), |state| state.clone());
            let labels = [("route", outlet.route.clone()), ("channel", outlet.channel.word().to_owned())];
            metrics::gauge!("mayfly_notify_waiting", &labels).set(wide(state.waiting));
            let failing = f64::from(u8::from(state.record.failing_since > 0));
            metrics::gauge!("mayfly_notify_failing", &labels).set(failing);
        }
    }

    /// Every count is there from the start, so that its first step shows.
    fn begin_counts(&self) {
        for outlet in &self.outlets {
            for name in
                ["mayfly_notify_delivered_total", "mayfly_notify_failures_total", "mayfly_notify_given_up_total"]
            {
                self.count(outlet, name, 0);
            }
        }
    }

    fn count(&self, outlet: &Outlet, name: &'static str, by: u64) {
        let labels = [("route", outlet.route.clone()), ("channel", outlet.channel.word().to_owned())];
        metrics::counter!(name, &labels).increment(by);
    }
}

impl Broker {
    /// Sets who is notified; the first stays.
    ///
    /// # Errors
    /// When the store failed.
    pub fn notify_by(&self, config: config::Notify, outlets: Vec<Outlet>) -> Result<(), Refused> {
        let notifier = Notifier::open(&self.ledger, config, outlets, self.now())?;
        // Set once, at the start.
        let _first = self.notifier.set(notifier);
        Ok(())
    }
}

/// Reads and delivers, each way out in a task of its own, until `stop`.
#[must_use]
pub fn start(broker: &Arc<Broker>, stop: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let Some(notifier) = broker.notifier.get() else { return tasks };
    notifier.begin_counts();
    let reading = Arc::clone(broker);
    let work = async move {
        if let Err(error) = reading.forget_gone_outlets().await {
            tracing::warn!(%error, "notifications of routes that are gone could not be removed");
        }
        repeat("the audit could not be read for notifications", || reading.collect_notices()).await
    };
    let stopped = stop.clone();
    tasks.spawn(async move { stopped.run_until_cancelled_owned(work).await.unwrap_or(()) });
    for outlet in &notifier.outlets {
        let (broker, outlet) = (Arc::clone(broker), Arc::clone(outlet));
        let work =
            async move { repeat("a notification's row could not be written", || broker.deliver_due(&outlet)).await };
        let stopped = stop.clone();
        tasks.spawn(async move { stopped.run_until_cancelled_owned(work).await.unwrap_or(()) });
    }
    tasks
}

async fn repeat<E: fmt::Display, F: Future<Output = Result<(), E>>>(what: &'static str, act: impl Fn() -> F) {
    loop {
        if let Err(error) = act().await {
            tracing::warn!(%error, "{what}; trying again");
            tokio::time::sleep(RETRY).await;
        }
        tokio::time::sleep(PACE).await;
    }
}

fn read(notifier: &Notifier) -> u64 {
    notifier.read_until.load(Ordering::Relaxed)
}

/// A step that only says how far the audit was read.
fn position(until: u64, now: Timestamp) -> NoticeCommit {
    NoticeCommit { read_until: Some(until), now, ..NoticeCommit::default() }
}

/// How long events may wait for others, to be told together.
const PACE: Duration = Duration::from_millis(250);
const RETRY: Duration = Duration::from_secs(2);
/// Notifications that wait for one way out at most; what comes beyond is given up at once, and told in the audit.
const WAITING_MOST: usize = 10_000;
/// Of these, only for alarms.
const KEPT_FOR_ALARMS: usize = 1_000;

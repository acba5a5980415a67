//! One issuer's keys: the set in use, and whoever waits for a newer one.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::{IssuerState, fetch::Source};
use crate::{
    config,
    identity::oidc::{KeySet, TokenFault},
    model::{Chain, IssuerRules, Timestamp},
};

/// One issuer, and its keys.
pub(super) struct Held {
    pub(super) rules: Arc<IssuerRules>,
    source: Source,
    refresh: Duration,
    stale: Duration,
    set: ArcSwapOption<Snapshot>,
    asking: Mutex<Asking>,
    /// Counts the fetches that ended.
    ended: watch::Sender<u64>,
}

/// The keys as they were fetched.
struct Snapshot {
    keys: Arc<KeySet>,
    /// When they were asked for; `None` for a file, which does not age.
    asked: Option<Timestamp>,
}

#[derive(Default)]
struct Asking {
    now: bool,
    tried: Option<Timestamp>,
    failures: u32,
    error: Option<String>,
}

impl Held {
    pub(super) fn new(issuer: &config::Issuer, source: Source, pinned: Option<KeySet>) -> Self {
        let set = pinned.map(|keys| Arc::new(Snapshot { keys: Arc::new(keys), asked: None }));
        Self {
            rules: Arc::clone(&issuer.rules),
            source,
            refresh: issuer.refresh,
            stale: issuer.stale,
            set: ArcSwapOption::from(set),
            asking: Mutex::default(),
            ended: watch::channel(0).0,
        }
    }

    /// Keys to check a token with that names this key.
    ///
    /// A key that is not there is asked for, but not more often than [`UNKNOWN_KEY_PAUSE`] allows, whoever asks: else
    /// anybody could have us ask the issuer at will.
    pub(super) async fn keys_for(self: &Arc<Self>, key_id: &str, now: Timestamp) -> Result<Arc<KeySet>, TokenFault> {
        let usable = self.usable(now);
        if let Some(keys) = &usable
            && keys.has(key_id)
        {
            return Ok(Arc::clone(keys));
        }
        if let Some(mut ended) = self.ask(now) {
            // An error means that the issuer is gone with the broker.
            let _closed = ended.changed().await;
        }
        self.usable(now).or(usable).ok_or_else(|| {
            let why = self.asking().error.clone().unwrap_or_else(|| "it was not fetched yet".to_owned());
            TokenFault::NoKeys { issuer: self.rules.name.to_string(), why }
        })
    }

    /// Asks for newer keys when those in use near their end. What is due has not waited for anyone.
    pub(super) fn refresh_if_due(self: &Arc<Self>, now: Timestamp) {
        let due = match self.set.load().as_deref() {
            Some(Snapshot { asked: Some(asked), .. }) => asked.after(self.refresh * 4 / 5) <= now,
            Some(Snapshot { asked: None, .. }) => {
                self.asking().tried.is_none_or(|tried| tried.after(self.refresh) <= now)
            }
            None => true,
        };
        if due {
            let _nobody_waits = self.ask(now);
        }
    }

    pub(super) fn state(&self, now: Timestamp) -> IssuerState {
        let set = self.set.load_full();
        let asking = self.asking();
        let fetched = set.as_ref().and_then(|set| set.asked);
        IssuerState {
            rules: Arc::clone(&self.rules),
            pinned: matches!(self.source, Source::File(_)),
            fetched,
            key_ids: set.iter().flat_map(|set| set.keys.key_ids()).map(str::to_owned).collect(),
            skipped: set.as_ref().map_or(0, |set| set.keys.skipped()),
            stale: fetched.is_some_and(|fetched| fetched.after(self.refresh) <= now),
            usable: self.usable(now).is_some(),
            tried: asking.tried,
            error: asking.error.clone(),
        }
    }

    fn usable(&self, now: Timestamp) -> Option<Arc<KeySet>> {
        let set = self.set.load();
        let set = set.as_ref()?;
        let good = set.asked.is_none_or(|asked| now < asked.after(self.refresh + self.stale));
        good.then(|| Arc::clone(&set.keys))
    }

    /// Begins to fetch, unless that is on its way or was tried just now; gives what tells its end.
    fn ask(self: &Arc<Self>, now: Timestamp) -> Option<watch::Receiver<u64>> {
        let mut asking = self.asking();
        let ended = self.ended.subscribe();
        if asking.now {
            return Some(ended);
        }
        if asking.tried.is_some_and(|tried| now < tried.after(asking.pause())) {
            return None;
        }
        (asking.now, asking.tried) = (true, Some(now));
        drop(asking);
        let on_its_way = OnItsWay(Arc::clone(self));
        tokio::spawn(async move { on_its_way.0.fetch(now).await });
        Some(ended)
    }

    async fn fetch(&self, now: Timestamp) {
        let outcome = self.source.fetch(&self.rules.url).await;
        let mut asking = self.asking();
        match outcome {
            Ok(keys) => {
                let asked = if matches!(self.source, Source::File(_)) { None } else { Some(now) };
                self.set.store(Some(Arc::new(Snapshot { keys: Arc::new(keys), asked })));
                (asking.failures, asking.error) = (0, None);
            }
            Err(error) => {
                let why = Chain(&error).to_string();
                tracing::warn!(issuer = %self.rules.name, error = %why, "the keys of an issuer were not fetched");
                metrics::counter!("mayfly_issuer_fetch_failures_total").increment(1);
                (asking.failures, asking.error) = (asking.failures.saturating_add(1), Some(why));
            }
        }
    }

    fn asking(&self) -> MutexGuard<'_, Asking> {
        // Every change under the lock leaves it whole.
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking {
    /// How long nobody is asked again: longer with each failure.
    fn pause(&self) -> Duration {
        let doubled = UNKNOWN_KEY_PAUSE * 2_u32.saturating_pow(self.failures.min(4));
        doubled.min(FAILURE_PAUSE_MOST)
    }
}

/// A fetch that has begun; says that it ended, however it did.
struct OnItsWay(Arc<Held>);

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.0.asking().now = false;
        self.0.ended.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("name", &self.rules.name).finish_non_exhaustive()
    }
}

/// How often an issuer is asked because somebody came with a key that it may have made since.
pub(super) const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(5);
const FAILURE_PAUSE_MOST: Duration = Duration::from_secs(60);

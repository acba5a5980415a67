//! Series of timed calls: closed loops, where each caller waits for its reply, and open loops at a fixed rate.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::Status;

use crate::support::Fallible;

/// What a series of calls came to.
#[derive(Default)]
pub struct Series {
    /// Microseconds of each successful call; sorted by [`Series::joined`].
    micros: Vec<u32>,
    errors: u64,
    first_error: Option<String>,
    elapsed: Duration,
}

// === impl Series ===

impl Series {
    /// A series of times that were taken elsewhere.
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut series = Self::default();
        for time in times {
            series.push(time);
            series.elapsed += time;
        }
        series.micros.sort_unstable();
        series
    }

    /// A series of calls that were made side by side within `elapsed`.
    pub fn within(times: impl IntoIterator<Item = Duration>, elapsed: Duration) -> Self {
        Self { elapsed, ..Self::of(times) }
    }

    pub fn ok(&self) -> u64 {
        self.micros.len() as u64
    }

    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Successful calls per second.
    pub fn rate(&self) -> f64 {
        self.micros.len() as f64 / self.elapsed.as_secs_f64().max(1e-6)
    }

    /// The time that `share` (0 to 1) of the successful calls did not exceed, in milliseconds.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let last = self.micros.len().saturating_sub(1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of an index is an index")]
        let at = (last as f64 * share).ceil() as usize;
        self.micros.get(at).map_or(0.0, |micros| f64::from(*micros) / 1e3)
    }

    /// Fails when no call succeeded, and tells of failed calls on standard error.
    pub fn checked(self, name: &str) -> Fallible<Self> {
        let first = self.first_error.as_deref().unwrap_or("no call was made");
        if self.micros.is_empty() {
            return Err(format!("{name}: no call succeeded: {first}").into());
        }
        if self.errors > 0 {
            eprintln!("{name}: {} calls failed, the first with: {first}", self.errors);
        }
        Ok(self)
    }

    fn push(&mut self, time: Duration) {
        self.micros.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    fn record(&mut self, started: Instant, outcome: Result<(), Status>) {
        match outcome {
            Ok(()) => self.push(started.elapsed()),
            Err(status) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| format!("{:?}: {}", status.code(), status.message()));
            }
        }
    }

    fn joined(parts: Vec<Self>, elapsed: Duration) -> Self {
        let mut whole = Self { elapsed, ..Self::default() };
        for part in parts {
            whole.micros.extend(part.micros);
            whole.errors += part.errors;
            whole.first_error = whole.first_error.or(part.first_error);
        }
        whole.micros.sort_unstable();
        whole
    }
}

/// Lets `callers` call one after the other for the length of `window`. `caller(i)` makes the i-th caller's call.
pub async fn closed_loop<C, F>(callers: usize, window: Duration, caller: impl Fn(usize) -> C) -> Fallible<Series>
where
    C: FnMut() -> F + Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let start = Instant::now();
    let mut running = JoinSet::new();
    for index in 0..callers {
        let mut call = caller(index);
        running.spawn(async move {
            let mut series = Series::default();
            while start.elapsed() < window {
                let started = Instant::now();
                let outcome = call().await;
                let failed = outcome.is_err();
                series.record(started, outcome);
                if failed {
                    // A refusing daemon must not be met with a busy loop.
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
            series
        });
    }
    let joined = tokio::time::timeout(window + STRAGGLERS, running.join_all()).await;
    let parts = joined.map_err(|_| "calls hung for more than thirty seconds")?;
    Ok(Series::joined(parts, start.elapsed()))
}

/// Starts `rate` calls a second for the length of `window`, whether earlier ones have been answered or not.
pub async fn open_loop<C, F>(rate: u32, window: Duration, mut call: C) -> Fallible<Series>
where
    C: FnMut(usize) -> F,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let start = Instant::now();
    let period = Duration::from_secs(1) / rate.max(1);
    let mut due = tokio::time::interval(period);
    let mut running = JoinSet::new();
    let mut index = 0;
    while start.elapsed() < window {
        due.tick().await;
        let future = call(index);
        running.spawn(async move {
            let mut one = Series::default();
            // The timer's own step of a millisecond is not the daemon's: time runs from the start of the call.
            let started = Instant::now();
            let outcome = future.await;
            one.record(started, outcome);
            one
        });
        index += 1;
    }
    let joined = tokio::time::timeout(STRAGGLERS, running.join_all()).await;
    let parts = joined.map_err(|_| "calls hung for more than thirty seconds")?;
    Ok(Series::joined(parts, start.elapsed()))
}

const RETRY_PAUSE: Duration = Duration::from_millis(5);
const STRAGGLERS: Duration = Duration::from_secs(30);

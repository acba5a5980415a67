//! How a measuring program runs: to its end, or until it is told to stop.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::support::Fallible;

/// Runs `work` on two workers, as whatever is measured shares the cores.
pub fn drive(work: impl Future<Output = Fallible<()>>) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // Leaving by any of these arms drops the scenario and, with it, the server that it started.
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
            _ = terminate.recv() => Err("terminated".into()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

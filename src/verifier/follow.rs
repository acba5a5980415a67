//! Keeps bundle and feed current over one channel.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use super::{Freshness, OfflineVerifier, TrustBundle};
use crate::{
    model::{Clock, secret},
    pb::{GetTrustBundleRequest, WatchRevocationsRequest, verifier_client::VerifierClient},
};

/// Fetches the bundle and follows the feed for as long as the future is polled; spawn it, and abort it to stop.
///
/// After an error it connects anew, waiting 100 ms at first and doubling up to 10 s, with jitter. Meanwhile the verifier
/// goes on with what it has, until that is too old. The feed resumes where it broke; when the broker says that this
/// revision is gone, everything known is dropped.
pub async fn follow(channel: Channel, verifier: Arc<OfflineVerifier>, clock: Arc<dyn Clock>) {
    let mut client = VerifierClient::new(channel);
    let mut failures = 0;
    loop {
        let mut progress = false;
        let Err(status) = run(&mut client, &verifier, clock.as_ref(), &mut progress).await;
        if is_gone(&status) {
            verifier.reset_feed();
        }
        failures = if progress { 1 } else { failures + 1 };
        tracing::warn!(tenant = %verifier.tenant(), code = ?status.code(), failures, "revocation feed broke");
        sleep(delay(failures)).await;
    }
}

/// One connection's life. Ends with an error only; `progress` says whether anything was received.
async fn run(
    client: &mut VerifierClient<Channel>,
    verifier: &OfflineVerifier,
    clock: &dyn Clock,
    progress: &mut bool,
) -> Result<std::convert::Infallible, Status> {
    let mut refresh = fetch(client, verifier, clock).await?;
    *progress = true;
    if verifier.freshness() == Freshness::KeySetOnly {
        loop {
            sleep_until(refresh).await;
            refresh = fetch(client, verifier, clock).await?;
        }
    }
    let after = verifier.resume_after();
    let watch = client.watch_revocations(WatchRevocationsRequest { after, tenant: verifier.tenant().to_string() });
    let mut feed = timeout(CALL, watch).await.map_err(|_| Status::deadline_exceeded("no answer"))??.into_inner();
    let mut silent_at = Instant::now() + SILENCE;
    loop {
        tokio::select! {
            message = feed.message() => {
                let message = message?.ok_or_else(|| Status::unavailable("the feed ended"))?;
                verifier.apply(&message, clock.wall()).map_err(|error| Status::data_loss(error.to_string()))?;
                silent_at = Instant::now() + SILENCE;
            }
            () = sleep_until(silent_at) => return Err(Status::deadline_exceeded("the feed is silent")),
            () = sleep_until(refresh) => refresh = fetch(client, verifier, clock).await?,
        }
    }
}

/// Fetches and installs the bundle; returns when to do so again.
async fn fetch(
    client: &mut VerifierClient<Channel>,
    verifier: &OfflineVerifier,
    clock: &dyn Clock,
) -> Result<Instant, Status> {
    // The age counts from before the call: it may have been made at any time in between.
    let asked = clock.wall();
    let call = client.get_trust_bundle(GetTrustBundleRequest { tenant: verifier.tenant().to_string() });
    let answer = timeout(CALL, call).await.map_err(|_| Status::deadline_exceeded("no answer"))??.into_inner();
    let bundle = TrustBundle::parse(&answer, verifier.tenant().clone(), asked)
        .map_err(|error| Status::data_loss(error.to_string()))?;
    let again = (bundle.max_age() / 2).max(Duration::from_secs(1));
    verifier.install(bundle);
    Ok(Instant::now() + again)
}

fn is_gone(status: &Status) -> bool {
    let reason = status.get_details_error_info().map(|info| info.reason);
    reason.as_deref() == Some("REVISION_GONE") || status.code() == Code::OutOfRange
}

/// Half of the doubled step, and up to as much again at random. Without entropy there is no jitter, which is harmless.
fn delay(failures: u32) -> Duration {
    let step = FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST);
    let mut random = [0; 1];
    let jitter = secret::fill(&mut random).map_or(0, |()| u32::from(random[0]));
    step / 2 + step / 2 * jitter / 255
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// For a unary call, and for the feed to begin.
const CALL: Duration = Duration::from_secs(10);
/// Heartbeats come more often than this.
const SILENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_cap_and_no_further() {
        for failures in [1, 2, 8, 40, u32::MAX] {
            assert!(delay(failures) <= LONGEST && delay(failures) >= FIRST / 2);
        }
    }

    #[test]
    fn only_a_gone_revision_drops_what_is_known() {
        let details =
            tonic_types::ErrorDetails::with_error_info("REVISION_GONE", "mayfly", std::collections::HashMap::new());
        assert!(is_gone(&Status::with_error_details(Code::FailedPrecondition, "gone", details)));
        assert!(!is_gone(&Status::unavailable("later")));
        assert!(!is_gone(&Status::failed_precondition("other")));
    }
}

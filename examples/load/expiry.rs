//! Many leases that expire in the same second.

use std::time::{Duration, Instant};

use crate::Options;
use crate::issue::issuing_at;
use crate::report::{Measurement, Report};
use crate::rig::{Rig, VICTIM};
use crate::support::Fallible;

/// Measures the foreground at a fixed rate, quiet and while the leases expire and are cleared away.
pub async fn run(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let leases = options.leases_or(20_000);
    issuing_at(&rig, RATE, Duration::from_secs(1)).await?.checked("warm-up")?;
    let before = issuing_at(&rig, RATE, STORM_WINDOW).await?.checked("expiry-storm-before")?;
    report.add(Measurement::new("expiry-storm-before", 1, &before, rig.usage()?));
    // Whole seconds to a common end: the leases end within the second before it.
    let end = Instant::now() + Duration::from_secs(6 + u64::from(leases / 2_000));
    let left = move || u32::try_from(end.saturating_duration_since(Instant::now()).as_secs()).unwrap_or(1).max(1);
    rig.fill(leases, VICTIM, 1, left).await?;
    let quiet = end.checked_duration_since(Instant::now() + Duration::from_secs(2));
    let quiet = quiet.ok_or("the store was filled too slowly to let all leases expire in one second")?;
    tokio::time::sleep(quiet).await;
    let during = issuing_at(&rig, RATE, STORM_WINDOW).await?.checked("expiry-storm")?;
    let ratio = during.quantile_ms(0.5) / before.quantile_ms(0.5).max(0.001);
    let during = Measurement::new("expiry-storm", 1, &during, rig.usage()?);
    report.add(during.with("leases", f64::from(leases)).with("p50_ratio", ratio));
    Ok(())
}

const RATE: u32 = 300;
/// From a second before the leases expire until well after.
const STORM_WINDOW: Duration = Duration::from_secs(6);

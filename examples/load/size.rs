//! What many live leases cost: memory, disk, start-up, latency.

use std::time::{Duration, Instant};

use mayfly::pb::CredentialKind;

use crate::Options;
use crate::introspect::asking_at;
use crate::issue::issuing_at;
use crate::report::{Measurement, Report};
use crate::rig::{Rig, STEADY, VICTIM};
use crate::series::Series;
use crate::support::Fallible;
use crate::usage::Usage;

/// Memory and disk, empty and full. The series is that of a second's calls at the full store.
pub async fn footprint(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let leases = options.leases_or(1_000_000);
    let empty = rig.usage()?;
    let series = issuing_at(&rig, STEADY_RATE, Duration::from_secs(1)).await?.checked("footprint")?;
    report.add(Measurement::new("footprint-empty", 1, &series, empty).with("leases", 0.0));
    rig.fill(leases, VICTIM, 1, || 3600).await?;
    let settled = settle(&rig).await?;
    let series = issuing_at(&rig, STEADY_RATE, Duration::from_secs(1)).await?.checked("footprint")?;
    let per_lease = |full: f64, empty: f64| (full - empty).max(0.0) * 1_048_576.0 / f64::from(leases);
    let full = Measurement::new("footprint", 1, &series, settled)
        .with("leases", f64::from(leases))
        .with("rss_bytes_per_lease", per_lease(settled.rss_mb, empty.rss_mb))
        .with("disk_bytes_per_lease", per_lease(settled.disk_mb, empty.disk_mb));
    report.add(full);
    Ok(())
}

/// Kills the daemon three times in a full store. All samples must live on.
pub async fn restart(options: &Options, report: &mut Report) -> Fallible<()> {
    let mut rig = Rig::start(options).await?;
    let leases = options.leases_or(1_000_000);
    let samples = rig.fill(leases, VICTIM, 64, || 3600).await?;
    let mut times = Vec::new();
    for _ in 0..3 {
        let killed = Instant::now();
        rig.daemon.kill()?;
        rig.daemon.start_again()?;
        first_issue(&mut rig, killed).await?;
        times.push(killed.elapsed());
        rig.reconnect().await?;
        for (index, sample) in samples.iter().enumerate() {
            if !rig.is_active(index, sample).await? {
                return Err("an acknowledged lease did not survive the restart".into());
            }
        }
    }
    let series = Series::of(times);
    report.add(Measurement::new("restart", 1, &series, rig.usage()?).with("leases", f64::from(leases)));
    Ok(())
}

/// Latency of issuing and of introspection at a fixed rate, at an empty, a quarter full, half full and full store.
pub async fn growth(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let leases = options.leases_or(1_000_000);
    let mut filled = 0;
    let mut samples = rig.fill(SAMPLES, VICTIM, SAMPLES, || 3600).await?;
    for share in [0, 1, 2, 4] {
        let wanted = leases / 4 * share;
        if wanted > filled {
            samples.extend(rig.fill(wanted - filled, VICTIM, SAMPLES, || 3600).await?);
            filled = wanted;
            settle(&rig).await?;
        }
        let of = if share == 4 { String::new() } else { format!("-{share}-of-4") };
        for (name, series) in [
            ("growth-introspect", asking_at(&rig, &samples, STEADY_RATE, options.window()).await?),
            ("growth", issuing_at(&rig, STEADY_RATE, options.window()).await?),
        ] {
            let series = series.checked(name)?;
            let taken = Measurement::new(&format!("{name}{of}"), 1, &series, rig.usage()?);
            report.add(taken.with("leases", f64::from(filled)));
        }
    }
    Ok(())
}

/// Tries until a new connection issues a token.
async fn first_issue(rig: &mut Rig, killed: Instant) -> Fallible<()> {
    loop {
        let failure = match rig.reconnect_workloads(1).await {
            Ok(()) => match rig.issue(0, STEADY, CredentialKind::Jwt).await {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        if killed.elapsed() > RESTART_LIMIT {
            return Err(format!("no issue within a minute of the kill: {failure}").into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the store has written out what the fill left behind.
async fn settle(rig: &Rig) -> Fallible<Usage> {
    let mut before = rig.usage()?;
    for _ in 0..SETTLE_SECONDS {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = rig.usage()?;
        if (now.disk_mb - before.disk_mb).abs() < 1.0 {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

const SAMPLES: u32 = 512;
const STEADY_RATE: u32 = 300;
const RESTART_LIMIT: Duration = Duration::from_secs(60);
const SETTLE_SECONDS: u32 = 20;

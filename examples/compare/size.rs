//! What many live leases cost: memory, disk, start-up.

use std::time::{Duration, Instant};

use crate::Options;
use crate::connection::Call;
use crate::report::{Measurement, Report};
use crate::rig::{Rig, STEADY, VICTIM};
use crate::series::Series;
use crate::support::Fallible;
use crate::usage::Usage;

/// Memory and disk, empty and full; then the server is killed three times. All samples must live on.
pub async fn full(options: &Options, report: &mut Report) -> Fallible<()> {
    let mut rig = Rig::start(options).await?;
    let (empty, empty_heap) = settle(&rig).await?;
    let empty_audit = rig.server.audit_bytes()?;
    let (started, leases) = (Instant::now(), f64::from(options.leases));
    let samples = rig.fill(options.leases, VICTIM, 64).await?;
    let filled = Series::of([started.elapsed()]);
    let (full, heap) = settle(&rig).await?;
    let audit = rig.server.audit_bytes()?.saturating_sub(empty_audit) as f64;
    let per_lease = |full: f64, empty: f64| (full - empty).max(0.0) * 1_048_576.0 / leases;
    let taken = Measurement::new("footprint", 1, &filled, full)
        .with("leases", leases)
        .with("rss_bytes_per_lease", per_lease(full.rss_mb, empty.rss_mb))
        .with("heap_bytes_per_lease", (heap - empty_heap).max(0.0) / leases)
        .with("disk_bytes_per_lease", per_lease(full.disk_mb, empty.disk_mb))
        .with("audit_bytes_per_lease", audit / leases);
    report.add(taken);
    let mut times = Vec::new();
    for _ in 0..3 {
        let killed = Instant::now();
        rig.server.crash()?;
        first_login(&mut rig, killed).await?;
        times.push(killed.elapsed());
        rig.connect(options.callers()).await?;
        for (index, sample) in samples.iter().enumerate() {
            if !rig.is_active(index, sample).await? {
                return Err("an acknowledged lease did not survive the restart".into());
            }
        }
    }
    let taken = Measurement::new("restart", 1, &Series::of(times), rig.server.usage()?);
    report.add(taken.with("leases", leases));
    Ok(())
}

/// Tries until a new connection brings a token.
async fn first_login(rig: &mut Rig, killed: Instant) -> Fallible<()> {
    loop {
        let failure = match rig.connect(1).await {
            Ok(()) => match rig.issue(0, STEADY).await {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        if killed.elapsed() > RESTART_LIMIT {
            return Err(format!("no login within two minutes of the kill: {failure}").into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Has garbage collected, and waits until memory and disk stay as they are. Returns them and the live heap, in bytes.
async fn settle(rig: &Rig) -> Fallible<(Usage, f64)> {
    let mut heap = collected_heap(rig).await?;
    let mut before = rig.server.usage()?;
    for _ in 0..SETTLE_STEPS {
        tokio::time::sleep(SETTLE_STEP).await;
        heap = collected_heap(rig).await?;
        let now = rig.server.usage()?;
        if (now.disk_mb - before.disk_mb).abs() < 1.0 && (now.rss_mb - before.rss_mb).abs() < 1.0 {
            return Ok((now, heap));
        }
        before = now;
    }
    Ok((before, heap))
}

/// Runs the server's garbage collector and reads the bytes that it left.
async fn collected_heap(rig: &Rig) -> Fallible<f64> {
    let call = Call::get("sys/pprof/heap?gc=1&debug=1", &rig.server.root);
    let reply = rig.connection(0)?.call(&call).await?.succeeded(&call)?;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("# HeapAlloc = "));
    Ok(line.ok_or("a heap profile without HeapAlloc")?.trim().parse()?)
}

const RESTART_LIMIT: Duration = Duration::from_secs(120);
const SETTLE_STEPS: u32 = 10;
const SETTLE_STEP: Duration = Duration::from_secs(2);

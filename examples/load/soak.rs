//! Hours of churn at a steady rate: does anything grow that should not?

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mayfly::pb::CredentialKind;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::Status;

use crate::Options;
use crate::plot::{Panel, plot};
use crate::report::{Measurement, Report};
use crate::rig::{Rig, STEADY};
use crate::series::Series;
use crate::support::Fallible;

/// Issues leases of ten seconds at `--rate`, and looks at the daemon every few seconds.
///
/// # Errors
/// When memory or open files of the last quarter are above those of the second, or a call failed.
pub async fn run(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let tally = Arc::new(Tally::default());
    let mut callers = callers(&rig, options, &tally)?;
    let (started, mut looks) = (Instant::now(), Vec::new());
    let every = (options.window() / LOOKS).max(Duration::from_secs(1));
    let mut due = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    let mut before = started;
    while started.elapsed() < options.window() {
        due.tick().await;
        let series = tally.take(before.elapsed());
        before = Instant::now();
        let taken = look(&rig, &tally, &series, started)?;
        report.add(taken.clone());
        looks.push(taken);
    }
    callers.shutdown().await;
    if let Some(file) = &options.plot {
        draw(file, &looks)?;
    }
    verdict(&looks, &tally)
}

/// What the callers have been answered since it was last looked at.
#[derive(Default)]
struct Tally {
    times: Mutex<Vec<Duration>>,
    issued: AtomicU64,
    failed: AtomicU64,
    first: Mutex<Option<String>>,
}

// === impl Tally ===

impl Tally {
    fn note(&self, time: Duration, outcome: Result<(), Status>) {
        match outcome {
            Ok(()) => {
                self.issued.fetch_add(1, Ordering::Relaxed);
                self.times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
            }
            Err(status) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| format!("{:?}: {}", status.code(), status.message()));
            }
        }
    }

    fn take(&self, elapsed: Duration) -> Series {
        let times = std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner));
        Series::within(times, elapsed)
    }
}

/// Callers that together issue at the rate asked for, or as fast as the machine lets them.
fn callers(rig: &Rig, options: &Options, tally: &Arc<Tally>) -> Fallible<JoinSet<()>> {
    let mut running = JoinSet::new();
    let callers = options.callers();
    let pause = Duration::from_secs(1) * u32::from(options.callers) / options.rate.max(1);
    for index in 0..callers {
        let mut client = rig.lane(index)?.client.clone();
        let request = rig.request(index, STEADY, CredentialKind::Jwt, TTL_SECONDS)?;
        let tally = Arc::clone(tally);
        running.spawn(async move {
            let mut due = tokio::time::interval(pause);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                due.tick().await;
                let started = Instant::now();
                let outcome = client.issue(request.clone()).await.map(drop);
                tally.note(started.elapsed(), outcome);
            }
        });
    }
    Ok(running)
}

fn look(rig: &Rig, tally: &Tally, series: &Series, started: Instant) -> Fallible<Measurement> {
    let usage = rig.usage()?;
    let issued = tally.issued.load(Ordering::Relaxed);
    Ok(Measurement::new("soak", 1, series, usage)
        .with("seconds", started.elapsed().as_secs_f64())
        .with("issued", issued as f64)
        .with("open_files", open_files_of(rig.daemon.pid())? as f64)
        .with("disk_bytes_per_issued", usage.disk_mb * 1_048_576.0 / (issued.max(1) as f64)))
}

/// Compares the last quarter with the second: in the first, buffers and caches fill.
fn verdict(looks: &[Measurement], tally: &Tally) -> Fallible<()> {
    let quarter = looks.len() / 4;
    let mut grown = Vec::new();
    for (what, read) in [("memory", memory as fn(&Measurement) -> f64), ("open files", open_files)] {
        let most = |from: usize| looks.iter().skip(from).take(quarter).map(read).fold(0.0, f64::max);
        let (second, last) = (most(quarter), most(looks.len().saturating_sub(quarter)));
        println!("{what}: at most {second:.0} in the second quarter, {last:.0} in the last");
        if last > second * GROWTH {
            grown.push(what);
        }
    }
    let failed = tally.failed.load(Ordering::Relaxed);
    if failed > 0 {
        let first = tally.first.lock().unwrap_or_else(PoisonError::into_inner);
        return Err(format!("{failed} calls failed, the first with: {}", first.as_deref().unwrap_or("-")).into());
    }
    if grown.is_empty() { Ok(()) } else { Err(format!("grew: {}", grown.join(", ")).into()) }
}

fn draw(file: &Path, looks: &[Measurement]) -> Fallible<()> {
    let of = |read: fn(&Measurement) -> f64| looks.iter().map(read).collect::<Vec<_>>();
    let panels = [
        Panel { title: "leases issued a second", values: of(|taken| taken.rate_per_s) },
        Panel { title: "issue, 99th percentile, ms", values: of(|taken| taken.p99_ms) },
        Panel { title: "resident memory, MB", values: of(memory) },
        Panel { title: "open files", values: of(open_files) },
        Panel { title: "disk, MB (the audit is kept)", values: of(|taken| taken.disk_mb) },
    ];
    let minutes = looks.last().and_then(|last| last.extra("seconds")).unwrap_or_default() / 60.0;
    std::fs::write(file, plot(&panels, minutes)).map_err(|error| format!("{}: {error}", file.display()).into())
}

/// How many files and connections a process has open.
fn open_files_of(pid: u32) -> Fallible<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

fn memory(taken: &Measurement) -> f64 {
    taken.rss_mb
}

fn open_files(taken: &Measurement) -> f64 {
    taken.extra("open_files").unwrap_or_default()
}

const TTL_SECONDS: u32 = 10;
/// Looks within the window, at most one a second.
const LOOKS: u32 = 360;
/// Compaction comes and goes; what leaks for an hour is more than this.
const GROWTH: f64 = 1.15;

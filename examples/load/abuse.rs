//! Load beyond what the daemon can take, and what becomes of everybody else meanwhile.
//!
//! A foreground of one tenant issues at a modest rate and leases are revoked, first alone and then beside each attack. The
//! attack runs on a thread and a runtime of its own. The daemon has its default limits. `--only streams --seconds 3` takes
//! about ten seconds.

mod attacks;
mod herd;
mod holds;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mayfly::pb::{CredentialKind, RevokeRequest, Scope, ScopeKind};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::attacks::{ATTACKS, Attack, Ground};
use crate::Options;
use crate::report::{Measurement, Report};
use crate::rig::{Rig, STEADY};
use crate::series::{Series, open_loop};
use crate::support::Fallible;
use crate::usage::Usage;

/// What an attack met.
#[derive(Debug, Default)]
pub struct Tally {
    /// Calls answered, or connections and requests sent.
    pub done: AtomicU64,
    /// Calls refused by a status, or connections ended by the daemon.
    pub refused: AtomicU64,
}

/// An attack under way; it ends with [`Running::stop`] or when this is dropped.
pub struct Running {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
    pub tally: Arc<Tally>,
}

/// What the foreground lives through.
struct Lived {
    issue: Series,
    revoke: Series,
}

/// Runs every attack, then fails if a bound was broken.
pub async fn run(options: &Options, report: &mut Report) -> Fallible<()> {
    if !rows().any(|name| options.wants(name)) {
        let names: Vec<_> = rows().collect();
        return Err(format!("--only fits no attack; there are {}", names.join(", ")).into());
    }
    let mut rig = Rig::limited(options).await?;
    // Warm: the first calls open files and fill caches.
    live(&rig, Duration::from_secs(1)).await?;
    let quiet = live(&rig, options.window()).await?;
    let quiet_p99 = quiet.issue.quantile_ms(0.99);
    report.add(revokes(Measurement::new("abuse-quiet", 1, &quiet.issue, rig.usage()?), &quiet.revoke));
    if options.wants(NEIGHBOUR) {
        neighbour(&rig, options, report).await?;
    }
    let mut broken = Vec::new();
    for attack in ATTACKS.into_iter().filter(|attack| options.wants(attack.name)) {
        let name = attack.name;
        if !attacked(&rig, options, attack, quiet_p99, report).await? {
            broken.push(name);
        }
    }
    if options.wants(HELD_TASKS) && !holds::run(&rig, options, quiet_p99, report).await? {
        broken.push(HELD_TASKS);
    }
    if options.wants(HERD) && !herd::run(&mut rig, report).await? {
        broken.push(HERD);
    }
    if broken.is_empty() { Ok(()) } else { Err(format!("bounds broken: {}", broken.join(", ")).into()) }
}

/// The names that `--only` may pick from.
fn rows() -> impl Iterator<Item = &'static str> {
    let attacks = ATTACKS.iter().map(|attack| attack.name);
    std::iter::once(NEIGHBOUR).chain(attacks).chain([HELD_TASKS, HERD])
}

/// The foreground beside a thread that takes as much of the processors as an attacker's does, and leaves the daemon in
/// peace: what of an attack's row is the machine's share and not the daemon's.
async fn neighbour(rig: &Rig, options: &Options, report: &mut Report) -> Fallible<()> {
    let running = Running::start(|tally| async move {
        loop {
            let until = Instant::now() + BUSY;
            while Instant::now() < until {
                tally.done.fetch_add(1, Ordering::Relaxed);
            }
            tokio::task::yield_now().await;
        }
    })?;
    let beside = live(rig, options.window()).await?;
    drop(running);
    report.add(revokes(Measurement::new(NEIGHBOUR, 1, &beside.issue, rig.usage()?), &beside.revoke));
    Ok(())
}

async fn attacked(rig: &Rig, options: &Options, attack: Attack, quiet_p99: f64, report: &mut Report) -> Fallible<bool> {
    let before = rig.usage()?;
    let ground = Ground::of(rig, options)?;
    let running = Running::start(move |tally| (attack.work)(ground, tally))?;
    // Everything is there before it is measured.
    tokio::time::sleep(BEGIN).await;
    let lived = live(rig, options.window()).await?;
    let during = rig.usage()?;
    let tally = running.stop();
    let judged = Judged { name: attack.name, callers: attack.callers, before, during, quiet_p99, memory_mb: MEMORY_MB };
    judged.report(rig, lived, &tally, report).await
}

/// A foreground beside an attack, about to be judged.
struct Judged {
    pub name: &'static str,
    pub callers: usize,
    pub before: Usage,
    pub during: Usage,
    pub quiet_p99: f64,
    /// How much more memory the daemon may have meanwhile.
    pub memory_mb: f64,
}

impl Judged {
    /// Waits until the foreground has recovered, prints the row, and says whether every bound held.
    async fn report(self, rig: &Rig, lived: Lived, tally: &Tally, report: &mut Report) -> Fallible<bool> {
        let allowed = self.quiet_p99.max(FLOOR_MS) * TIMES;
        let recovery = recovered(rig, allowed).await?;
        let after = rig.usage()?;
        let (p99, revoke) = (lived.issue.quantile_ms(0.99), lived.revoke.quantile_ms(0.99));
        let memory = self.during.rss_mb.max(after.rss_mb) - self.before.rss_mb;
        let disk = after.disk_mb - self.before.disk_mb;
        let bounds = [
            ("issue p99 within 3x", p99 <= allowed && lived.issue.ok() > 0),
            ("revoke p99 < 10 ms", revoke < REVOKE_MS && lived.revoke.ok() > 0),
            ("no call of others refused", lived.issue.errors() == 0),
            ("memory", memory <= self.memory_mb),
            ("disk", disk <= DISK_MB),
            ("recovery within 3 s", recovery <= RECOVERY),
        ];
        let broken: Vec<_> = bounds.iter().filter(|(_, held)| !held).map(|(bound, _)| *bound).collect();
        if !broken.is_empty() {
            eprintln!("{}: broken: {}", self.name, broken.join(", "));
        }
        let row = Measurement::new(self.name, self.callers, &lived.issue, after)
            .with("p99_ratio", p99 / self.quiet_p99.max(FLOOR_MS))
            .with("rss_before_mb", self.before.rss_mb)
            .with("rss_during_mb", self.during.rss_mb)
            .with("disk_before_mb", self.before.disk_mb)
            .with("attack_done", count(&tally.done))
            .with("attack_refused", count(&tally.refused))
            .with("recovery_ms", recovery.as_secs_f64() * 1e3)
            .with("held", if broken.is_empty() { 1.0 } else { 0.0 });
        report.add(revokes(row, &lived.revoke));
        Ok(broken.is_empty())
    }
}

fn revokes(row: Measurement, revoke: &Series) -> Measurement {
    row.with("revokes", revoke.ok() as f64)
        .with("revoke_p50_ms", revoke.quantile_ms(0.5))
        .with("revoke_p99_ms", revoke.quantile_ms(0.99))
}

fn count(of: &AtomicU64) -> f64 {
    of.load(Ordering::Relaxed) as f64
}

/// Issues at a modest rate and revokes beside it, for the length of `window`.
async fn live(rig: &Rig, window: Duration) -> Fallible<Lived> {
    let (issue, revoke) = tokio::join!(issuing(rig, window), revoking(rig, window));
    Ok(Lived { issue: issue?, revoke: Series::of(revoke?) })
}

async fn issuing(rig: &Rig, window: Duration) -> Fallible<Series> {
    let lane = rig.lane(OTHERS)?;
    let (client, request) = (lane.client.clone(), rig.request(OTHERS, STEADY, CredentialKind::Opaque, 300)?);
    open_loop(RATE, window, move |_| {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.issue(request).await.map(drop) }
    })
    .await
}

/// From the call of each revoke to the first refusal, as a resource server sees it.
async fn revoking(rig: &Rig, window: Duration) -> Fallible<Vec<Duration>> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < window {
        let held = rig.issue(OTHERS, STEADY, CredentialKind::Opaque).await?;
        let scope = Scope { kind: ScopeKind::Lease.into(), lease_id: held.lease_id.clone(), ..Scope::default() };
        let request = RevokeRequest { scope: Some(scope), reason: "abuse".to_owned(), ..RevokeRequest::default() };
        let called = Instant::now();
        rig.admin.clone().revoke(request).await?;
        let active = rig.is_active(0, &held).await?;
        times.push(called.elapsed());
        if active {
            return Err("a revoked credential was still active".into());
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(times)
}

/// How long it takes until the foreground is as it was.
async fn recovered(rig: &Rig, allowed_ms: f64) -> Fallible<Duration> {
    let start = Instant::now();
    loop {
        let before = start.elapsed();
        let series = issuing(rig, STEP).await?;
        if before > RECOVERY || (series.errors() == 0 && series.quantile_ms(0.99) <= allowed_ms) {
            return Ok(before);
        }
    }
}

// === impl Running ===

impl Running {
    /// Begins an attack on a thread of its own.
    pub fn start<F>(work: impl FnOnce(Arc<Tally>) -> F + Send + 'static) -> Fallible<Self>
    where
        F: Future<Output = Fallible<()>> + 'static,
    {
        let (stop, tally) = (CancellationToken::new(), Arc::<Tally>::default());
        let (stopped, met) = (stop.clone(), Arc::clone(&tally));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            let outcome = runtime.block_on(stopped.run_until_cancelled_owned(work(met)));
            if let Some(Err(error)) = outcome {
                eprintln!("an attack ended early: {error}");
            }
            runtime.shutdown_background();
        });
        Ok(Self { stop, thread: Some(thread), tally })
    }

    /// Ends it and says what it met.
    pub fn stop(mut self) -> Arc<Tally> {
        self.end();
        Arc::clone(&self.tally)
    }

    fn end(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

impl Tally {
    /// Counts one call.
    pub fn met<T>(&self, outcome: &Result<T, Status>) {
        let count = if outcome.is_ok() { &self.done } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

const NEIGHBOUR: &str = "abuse-neighbour";
const HELD_TASKS: &str = "abuse-held-tasks";
const HERD: &str = "abuse-herd";
/// The lane of the foreground; its tenant attacks nobody.
const OTHERS: usize = 1;
const RATE: u32 = 100;
const BETWEEN: Duration = Duration::from_millis(20);
const BEGIN: Duration = Duration::from_millis(700);
const BUSY: Duration = Duration::from_micros(100);
const STEP: Duration = Duration::from_millis(250);
/// Below this a p99 is noise of the machine.
const FLOOR_MS: f64 = 2.0;
const TIMES: f64 = 3.0;
const REVOKE_MS: f64 = 10.0;
const RECOVERY: Duration = Duration::from_secs(3);
const MEMORY_MB: f64 = 400.0;
const DISK_MB: f64 = 256.0;

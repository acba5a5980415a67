//! From the call of a revoke to the first refusal.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::Options;
use crate::connection::{Call, Connection};
use crate::issue::issuing;
use crate::report::{Measurement, Report};
use crate::rig::{Granted, Held, Rig, STEADY, VICTIM, is_active};
use crate::series::Series;
use crate::support::Fallible;

/// One token at a time: first beside callers that issue without pause, then alone.
pub async fn one(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    // The operator and the resource server have connections of their own, as no caller waits for another's.
    let (operator, shop) = (rig.server.target.dial().await?, rig.server.target.dial().await?);
    let survivor = rig.issue(0, STEADY).await?;
    let busy = BUSY_CALLERS.min(options.callers());
    let mut calls = Vec::new();
    for index in 0..busy {
        calls.push(rig.login(index, STEADY)?);
    }
    // The load goes on a little longer than the revokes it is there for.
    let load = issuing(&rig, &calls, options.window() + Duration::from_secs(1));
    let (times, load) = tokio::join!(revokes(&rig, &operator, &shop, options.window()), load);
    load?.checked("load beside revoke-one")?;
    report.add(Measurement::new("revoke-one-busy", busy, &Series::of(times?), rig.server.usage()?));
    let times = revokes(&rig, &operator, &shop, options.window()).await?;
    report.add(Measurement::new("revoke-one", 1, &Series::of(times), rig.server.usage()?));
    proven(rig.is_active(0, &survivor).await?, "a token that nobody revoked has ended")
}

/// Every token that a login mount handed out.
pub async fn partner(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let survivor = rig.issue(0, STEADY).await?;
    let samples = rig.fill(options.leases, VICTIM, SAMPLES).await?;
    for (index, sample) in samples.iter().enumerate() {
        proven(rig.is_active(index, sample).await?, "a sample was not active before the revoke")?;
    }
    let revoke = rig.admin(&format!("sys/leases/revoke-prefix/auth/{VICTIM}"), &json!({ "sync": options.sync }));
    let operator = rig.server.target.dial().await?;
    let called = Instant::now();
    let (outcome, refusals) = tokio::join!(
        tokio::time::timeout(options.limit(), operator.call(&revoke)),
        refusals(&rig, &samples, called, options.limit())
    );
    let refusals = refusals?;
    if let Ok(reply) = outcome {
        reply?.succeeded(&revoke)?;
    }
    let reached = refusals.len() == samples.len();
    let last = if reached { refusals.last().copied().unwrap_or_default() } else { options.limit() };
    let taken = Measurement::new("revoke-partner", 1, &Series::of([last]), rig.server.usage()?)
        .with("leases", f64::from(options.leases))
        .with("samples", samples.len() as f64)
        .with("refused", refusals.len() as f64)
        .with("first_ms", refusals.first().map_or(f64::NAN, |first| first.as_secs_f64() * 1e3));
    report.add(taken);
    proven(rig.is_active(0, &survivor).await?, "a token of another mount has ended")
}

/// Revokes fresh tokens one after the other until `window` is over.
async fn revokes(rig: &Rig, operator: &Connection, shop: &Connection, window: Duration) -> Fallible<Vec<Duration>> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < window {
        let held = operator.must::<Granted>(&rig.login(times.len(), STEADY)?).await?.auth;
        let lookup = rig.lookup(&held);
        proven(is_active(shop, &lookup).await?, "a fresh token is not active")?;
        let revoke = rig.admin("auth/token/revoke-accessor", &json!({ "accessor": held.accessor }));
        let called = Instant::now();
        operator.call(&revoke).await?.succeeded(&revoke)?;
        times.push(refused(shop, &lookup, called).await?);
    }
    Ok(times)
}

/// Asks until the token is refused, and returns the time since `called`.
async fn refused(shop: &Connection, lookup: &Call, called: Instant) -> Fallible<Duration> {
    while called.elapsed() < REFUSAL_LIMIT {
        if !is_active(shop, lookup).await? {
            return Ok(called.elapsed());
        }
    }
    Err("a revoked token was still active after ten seconds".into())
}

/// When each sample was first refused, in order; fewer than there are samples when `limit` was over before.
///
/// They are asked about with pauses: the revoke shall have the cores.
async fn refusals(rig: &Rig, samples: &[Held], called: Instant, limit: Duration) -> Fallible<Vec<Duration>> {
    let mut live: Vec<Call> = samples.iter().map(|held| rig.lookup(held)).collect();
    let mut times = Vec::new();
    while !live.is_empty() && called.elapsed() < limit {
        let mut still = Vec::new();
        for lookup in live {
            if is_active(rig.connection(0)?, &lookup).await? {
                still.push(lookup);
            } else {
                times.push(called.elapsed());
            }
        }
        live = still;
        tokio::time::sleep(if called.elapsed() < SOON { SHORT_PAUSE } else { PAUSE }).await;
    }
    Ok(times)
}

fn proven(holds: bool, otherwise: &str) -> Fallible<()> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

const BUSY_CALLERS: usize = 16;
const SAMPLES: u32 = 16;
const REFUSAL_LIMIT: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(1);
const SHORT_PAUSE: Duration = Duration::from_millis(1);
const PAUSE: Duration = Duration::from_millis(50);

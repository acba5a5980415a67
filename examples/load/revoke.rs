//! From the call of a revoke to the first refusal.

use std::time::{Duration, Instant};

use mayfly::pb::{CredentialKind, RevokeRequest, Scope, ScopeKind};
use tokio::task::JoinSet;

use crate::Options;
use crate::issue::issuing;
use crate::report::{Measurement, Report};
use crate::rig::{Held, Rig, SMALL, STEADY, VICTIM};
use crate::series::Series;
use crate::support::Fallible;

/// One lease at a time: first beside callers that issue without pause, then alone.
pub async fn one(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let survivor = rig.issue(0, STEADY, CredentialKind::Jwt).await?;
    let busy = BUSY_CALLERS.min(options.callers());
    // The load goes on a little longer than the revokes it is there for.
    let load = issuing(&rig, busy, options.window() + Duration::from_secs(1), CredentialKind::Jwt, 300);
    let (times, load) = tokio::join!(revokes(&rig, options.window()), load);
    load?.checked("load beside revoke-one")?;
    report.add(Measurement::new("revoke-one-busy", busy, &Series::of(times?), rig.usage()?));
    let times = revokes(&rig, options.window()).await?;
    report.add(Measurement::new("revoke-one", 1, &Series::of(times), rig.usage()?));
    proven(rig.is_active(0, &survivor).await?, "a lease that nobody revoked has ended")
}

/// A partner everywhere: with a hundred leases each, then one with as many as asked for.
pub async fn partner(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let survivor = rig.issue(0, STEADY, CredentialKind::Jwt).await?;
    let mut times = Vec::new();
    for partner in SMALL {
        let samples = rig.fill(100, partner, SAMPLES, || 3600).await?;
        times.push(revoke_partner(&rig, partner, &samples).await?);
    }
    let few = Measurement::new("revoke-partner-100", 1, &Series::of(times), rig.usage()?);
    report.add(few.with("leases", 100.0));
    let leases = options.leases_or(100_000);
    let samples = rig.fill(leases, VICTIM, SAMPLES, || 3600).await?;
    let time = revoke_partner(&rig, VICTIM, &samples).await?;
    let many = Measurement::new("revoke-partner", 1, &Series::of([time]), rig.usage()?);
    proven(rig.is_active(0, &survivor).await?, "a lease of another partner has ended")?;
    let barred = rig.issue(0, VICTIM, CredentialKind::Jwt).await.is_err();
    proven(barred, "the revoked partner obtained a new credential")?;
    report.add(many.with("leases", f64::from(leases)));
    Ok(())
}

/// Revokes fresh leases one after the other until `window` is over.
async fn revokes(rig: &Rig, window: Duration) -> Fallible<Vec<Duration>> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < window {
        let index = times.len();
        let held = rig.issue(index, STEADY, CredentialKind::Jwt).await?;
        proven(rig.is_active(index, &held).await?, "a fresh lease is not active")?;
        let lease_id = held.lease_id.clone();
        let called = Instant::now();
        revoke(rig, Scope { kind: ScopeKind::Lease.into(), lease_id, ..Scope::default() }).await?;
        times.push(refused(rig.verifier(index)?, held, called).await?);
    }
    Ok(times)
}

/// Revokes a partner and returns the time until the last sample was refused.
async fn revoke_partner(rig: &Rig, partner: &str, samples: &[Held]) -> Fallible<Duration> {
    for (index, sample) in samples.iter().enumerate() {
        proven(rig.is_active(index, sample).await?, "a sample was not active before the revoke")?;
    }
    let called = Instant::now();
    revoke(rig, Scope { kind: ScopeKind::Partner.into(), partner: partner.to_owned(), ..Scope::default() }).await?;
    let mut asking = JoinSet::new();
    for (index, sample) in samples.iter().enumerate() {
        asking.spawn(refused(rig.verifier(index)?, sample.clone(), called));
    }
    let mut last = Duration::ZERO;
    while let Some(time) = asking.join_next().await {
        last = last.max(time??);
    }
    Ok(last)
}

async fn revoke(rig: &Rig, scope: Scope) -> Fallible<()> {
    let request = RevokeRequest { scope: Some(scope), reason: "load test".to_owned(), ..RevokeRequest::default() };
    let reply = rig.admin.clone().revoke(request).await?.into_inner();
    proven(reply.changed, "a revoke found nothing to end")
}

/// Asks until the credential is refused, and returns the time since `called`.
async fn refused(
    mut verifier: mayfly::pb::verifier_client::VerifierClient<tonic::transport::Channel>,
    held: Held,
    called: Instant,
) -> Fallible<Duration> {
    while called.elapsed() < REFUSAL_LIMIT {
        if !verifier.introspect(held.ask.clone()).await?.into_inner().active {
            return Ok(called.elapsed());
        }
    }
    Err("a revoked credential was still active after ten seconds".into())
}

fn proven(holds: bool, otherwise: &str) -> Fallible<()> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

const BUSY_CALLERS: usize = 16;
const SAMPLES: u32 = 16;
const REFUSAL_LIMIT: Duration = Duration::from_secs(10);

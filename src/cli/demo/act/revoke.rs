//! A partner is revoked everywhere while it keeps asking, and lifted again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tonic::transport::Channel;

use crate::{
    cli::{
        cell::rfc3339,
        demo::{
            report::Report,
            stage::{Credential, Stage, request},
            trust::{Partner, Tenant},
        },
        failure::{Failure, Outcome},
    },
    pb::{
        CredentialKind, IssueResponse, LiftRequest, ListLeasesRequest, Page, RevokeRequest, Scope, ScopeKind, Standing,
        broker_client::BrokerClient,
    },
};

use super::unless;

/// Revokes drift in all tenants and lifts the bar.
pub(super) async fn play(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    for tenant in Tenant::ALL {
        for kind in [CredentialKind::Jwt, CredentialKind::Opaque, CredentialKind::X509] {
            let credential = stage.issue(tenant, request(tenant, Partner::Drift, kind)).await?;
            stage.live.push(credential);
        }
    }
    let (doomed, spared): (Vec<_>, Vec<_>) =
        std::mem::take(&mut stage.live).into_iter().partition(|one| one.lease.partner == Partner::Drift.name());
    stage.live = spared;
    let since = Instant::now();
    let broken = stage.all_welcome(&doomed).await?;
    report.prove(
        "revoke",
        format!("{} credentials of drift are taken, in both tenants", doomed.len()),
        since,
        broken,
    )?;
    dry_run(stage, report, &doomed).await?;
    execute(stage, report, &doomed).await?;

    let since = Instant::now();
    let broken = stage.all_welcome(&stage.live).await?;
    report.prove("revoke", format!("klue's {} live leases live", stage.live.len()), since, broken)?;
    lift(stage, report, &doomed).await?;
    stage.dead.extend(doomed);
    Ok(())
}

async fn dry_run(stage: &mut Stage, report: &mut Report<'_>, doomed: &[Credential]) -> Outcome {
    let since = Instant::now();
    let asked = RevokeRequest { dry_run: true, ..revocation() };
    let would = stage.admin.revoke(asked).await?.into_inner();
    let live = live_leases(stage).await?;
    let broken = unless(would.leases == live, format!("it says {}, and {live} are live", would.leases));
    report.prove("revoke", format!("a dry run says that {} leases would end", would.leases), since, broken)?;
    let broken = stage.all_welcome(doomed).await?;
    report.prove("revoke", "and ends none", since, broken)
}

async fn execute(stage: &mut Stage, report: &mut Report<'_>, doomed: &[Credential]) -> Outcome {
    let revoked = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn(ask(stage.broker(Tenant::Acme)?, Arc::clone(&revoked)));
    tokio::time::sleep(HEAD_START).await;
    let since = Instant::now();
    let reply = stage.admin.revoke(revocation()).await?.into_inner();
    revoked.store(true, Ordering::SeqCst);
    let returned = since.elapsed();
    let broken = unless(reply.changed && reply.barred, "nothing was written");
    report.prove("revoke", format!("one commit revokes drift: {} leases", reply.leases), since, broken)?;
    let broken = stage.all_refused(doomed).await?;
    let what = format!("all {} are refused; the call itself took {} ms", doomed.len(), returned.as_millis());
    report.prove("revoke", what, since, broken)?;
    for exposure in &reply.exposure {
        let until = exposure.until.as_ref().map(|until| format!(" ({})", rfc3339(until))).unwrap_or_default();
        report.tell(&format!("checked by {}: {}{until}", exposure.checked_by, exposure.explanation))?;
    }

    let asked = asking.await.map_err(|error| Failure::Internal(format!("the asking workload: {error}")))?;
    let broken = unless(asked.late == 0, format!("{} credentials were issued after the revocation", asked.late));
    let broken = broken.or_else(|| unless(asked.refused >= ASK_AGAIN, format!("only {} answers came", asked.refused)));
    report.prove(
        "revoke",
        format!("its workload asks {} more times and gets nothing", asked.refused),
        since,
        broken,
    )?;
    let mut obtained = Vec::new();
    for reply in asked.obtained {
        obtained.push(stage.take(Tenant::Acme, reply, None)?);
    }
    let since = Instant::now();
    let broken = if obtained.is_empty() { None } else { stage.all_refused(&obtained).await? };
    let what = format!("none of the {} it got while it was being revoked is live", obtained.len());
    report.prove("revoke", what, since, broken)?;
    stage.dead.append(&mut obtained);
    Ok(())
}

async fn lift(stage: &mut Stage, report: &mut Report<'_>, doomed: &[Credential]) -> Outcome {
    let since = Instant::now();
    stage.admin.lift(LiftRequest { scope: Some(scope()), reason: REASON.into(), ..Default::default() }).await?;
    let credential = stage.issue(Tenant::Acme, request(Tenant::Acme, Partner::Drift, CredentialKind::Jwt)).await?;
    let broken = stage.all_welcome(std::slice::from_ref(&credential)).await?;
    report.prove("revoke", "the bar is lifted: a new lease of drift is taken", since, broken)?;
    let since = Instant::now();
    let broken = stage.all_refused(doomed).await?;
    report.prove("revoke", "and the old ones stay dead", since, broken)?;
    stage.live.push(credential);
    Ok(())
}

/// What a workload got that kept asking.
#[derive(Default)]
struct Asked {
    obtained: Vec<IssueResponse>,
    /// Asked and obtained after the revocation had returned: must be none.
    late: usize,
    /// Asked after the revocation had returned, and refused.
    refused: usize,
}

/// Asks for drift's credential in acme, again and again, until it was refused often enough after the revocation.
async fn ask(mut broker: BrokerClient<Channel>, revoked: Arc<AtomicBool>) -> Asked {
    let mut asked = Asked::default();
    let began = Instant::now();
    while asked.refused < ASK_AGAIN && began.elapsed() < ASK_WITHIN {
        let after = revoked.load(Ordering::SeqCst);
        let reply = broker.issue(request(Tenant::Acme, Partner::Drift, CredentialKind::Opaque)).await;
        match reply {
            Ok(reply) => {
                asked.late += usize::from(after);
                asked.obtained.push(reply.into_inner());
            }
            Err(status) if !crate::client::unreachable(&status) => asked.refused += usize::from(after),
            Err(_) => {}
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    asked
}

async fn live_leases(stage: &mut Stage) -> Outcome<u64> {
    let (mut count, mut token) = (0, String::new());
    loop {
        let asked = ListLeasesRequest {
            page: Some(Page { size: 1000, token }),
            partner: Partner::Drift.name().into(),
            standing: Standing::Live.into(),
            ..ListLeasesRequest::default()
        };
        let reply = stage.admin.list_leases(asked).await?.into_inner();
        count += u64::try_from(reply.leases.len()).unwrap_or(u64::MAX);
        token = reply.next_page_token;
        if token.is_empty() {
            return Ok(count);
        }
    }
}

fn scope() -> Scope {
    Scope { kind: ScopeKind::Partner.into(), partner: Partner::Drift.name().into(), ..Scope::default() }
}

fn revocation() -> RevokeRequest {
    RevokeRequest { scope: Some(scope()), reason: REASON.into(), ..RevokeRequest::default() }
}

const REASON: &str = "demo: drift reports a break-in";
/// How often the revoked workload is refused before it gives up.
const ASK_AGAIN: usize = 50;
const ASK_EVERY: Duration = Duration::from_millis(2);
const ASK_WITHIN: Duration = Duration::from_secs(20);
/// The workload obtains some before the revocation.
const HEAD_START: Duration = Duration::from_millis(50);

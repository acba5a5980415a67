//! How leases end by themselves: with their task, with their time, with their successor.

use std::time::{Duration, Instant};

use crate::{
    cli::{
        demo::{
            report::Report,
            stage::{Credential, Stage, request},
            trust::{PURPOSE, Partner, Tenant},
            visit::Answer,
        },
        failure::Outcome,
    },
    pb::{
        CompleteTaskRequest, CredentialKind, IssueRequest, ListLeasesRequest, OpenTaskRequest, RenewRequest, Standing,
    },
};

use super::{incomplete, refusal, unless};

/// Completes a task and looks at its leases, its child's and another task's.
pub(super) async fn complete(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    let tenant = Tenant::Acme;
    let parent = open(stage, tenant, "").await?;
    let child = open(stage, tenant, &parent).await?;
    let other = open(stage, tenant, "").await?;
    let doomed = vec![
        issue_under(stage, tenant, &parent, CredentialKind::Jwt).await?,
        issue_under(stage, tenant, &parent, CredentialKind::X509).await?,
        issue_under(stage, tenant, &child, CredentialKind::Opaque).await?,
    ];
    let spared = issue_under(stage, tenant, &other, CredentialKind::Opaque).await?;
    let since = Instant::now();
    let broken = stage.all_welcome(&doomed).await?;
    report.prove("complete", "two leases of a task and one of its child task are taken", since, broken)?;

    let since = Instant::now();
    stage.broker(tenant)?.complete_task(CompleteTaskRequest { task_id: parent.clone() }).await?;
    let broken = stage.all_refused(&doomed).await?;
    report.prove("complete", "the task is complete: all three are refused at once", since, broken)?;
    let since = Instant::now();
    let broken = stage.all_welcome(std::slice::from_ref(&spared)).await?;
    report.prove("complete", "another task's lease lives", since, broken)?;
    let since = Instant::now();
    let again = IssueRequest { task_id: parent, ..request(tenant, Partner::Klue, CredentialKind::Opaque) };
    let reason = refusal(stage.broker(tenant)?.issue(again).await)?;
    let what = format!("nothing more is issued under it: {}", reason.as_deref().unwrap_or("-"));
    report.prove("complete", what, since, unless(reason.is_some(), "it got a credential"))?;
    stage.dead.extend(doomed);
    stage.live.push(spared);
    Ok(())
}

/// Lets a lease's time run out.
pub(super) async fn expire(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    let tenant = Tenant::Globex;
    let asked = IssueRequest { ttl_seconds: SHORT_SECONDS, ..request(tenant, Partner::Klue, CredentialKind::Opaque) };
    let since = Instant::now();
    let credential = stage.issue(tenant, asked).await?;
    let first = stage.answer(&credential).await?;
    report.prove(
        "expire",
        format!("a lease of {SHORT_SECONDS} s is taken"),
        since,
        unless(first == Answer::Welcome, "it was refused"),
    )?;
    let mut gone = false;
    while !gone && since.elapsed() < GONE_WITHIN {
        tokio::time::sleep(LOOK_EVERY).await;
        gone = stage.answer(&credential).await? == Answer::Refused;
    }
    let broken = unless(gone, format!("it is still taken after {} s", GONE_WITHIN.as_secs()));
    report.prove("expire", "and refused when its time has run out", since, broken)?;
    stage.dead.push(credential);
    Ok(())
}

/// Renews one lease several times at once.
pub(super) async fn renew(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    let tenant = Tenant::Globex;
    let task = open(stage, tenant, "").await?;
    let first = issue_under(stage, tenant, &task, CredentialKind::Opaque).await?;
    let broker = stage.broker(tenant)?;
    let renewal = || {
        let (mut broker, lease_id) = (broker.clone(), first.lease.lease_id.clone());
        async move { broker.renew(RenewRequest { lease_id, ..RenewRequest::default() }).await }
    };
    let since = Instant::now();
    let replies = tokio::join!(renewal(), renewal(), renewal());
    let mut all = vec![first];
    for reply in [replies.0, replies.1, replies.2].into_iter().flatten() {
        all.push(stage.take(tenant, reply.into_inner(), None)?);
    }
    let renewed = all.len() - 1;
    let mut taken = Vec::new();
    for credential in all {
        match stage.answer(&credential).await? {
            Answer::Welcome => taken.push(credential),
            Answer::Refused => stage.dead.push(credential),
        }
    }
    let broken = unless(taken.len() == 1, format!("{} credentials are taken", taken.len()))
        .or_else(|| unless(renewed == 1, format!("{renewed} succeeded")));
    report.prove(
        "renew",
        "of three renewals at once one succeeds, and its credential alone is taken",
        since,
        broken,
    )?;

    let since = Instant::now();
    let asked = ListLeasesRequest {
        tenant: tenant.name().into(),
        task_id: task,
        standing: Standing::Live.into(),
        ..Default::default()
    };
    let live = stage.admin.list_leases(asked).await?.into_inner().leases.len();
    report.prove(
        "renew",
        "the ledger knows one live lease of the task",
        since,
        unless(live == 1, format!("{live}")),
    )?;
    stage.live.append(&mut taken);
    Ok(())
}

async fn open(stage: &Stage, tenant: Tenant, parent: &str) -> Outcome<String> {
    let asked = OpenTaskRequest {
        tenant: tenant.name().into(),
        partner: Partner::Klue.name().into(),
        purpose: PURPOSE.into(),
        parent_task_id: parent.into(),
        ..OpenTaskRequest::default()
    };
    let reply = stage.broker(tenant)?.open_task(asked).await?.into_inner();
    Ok(reply.task.ok_or_else(incomplete)?.task_id)
}

async fn issue_under(stage: &Stage, tenant: Tenant, task: &str, kind: CredentialKind) -> Outcome<Credential> {
    stage.issue(tenant, IssueRequest { task_id: task.into(), ..request(tenant, Partner::Klue, kind) }).await
}

const SHORT_SECONDS: u32 = 2;
const GONE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

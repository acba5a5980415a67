//! A CI job that comes with nothing but its platform's identity token.

use std::time::Instant;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use crate::{
    cli::{
        demo::{
            report::Report,
            stage::{Credential, Stage, request},
            trust::{JOB, PURPOSE, Partner, Tenant},
        },
        failure::{Failure, Outcome},
    },
    client::{FederatedCalls, Identity},
    pb::{
        Binding, CompleteTaskRequest, CredentialKind, ExplainRequest, HoldTaskRequest, IssueRequest, ListEventsRequest,
        OpenTaskRequest, broker_client::BrokerClient,
    },
};

use super::{incomplete, refusal, unless};

type Job = BrokerClient<InterceptedService<Channel, FederatedCalls>>;

/// Turns a job's identity token into a task's credential, and shows to whom it is of no use.
pub(super) async fn play(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    let token = stage.platform.token(&[])?;
    let own = Identity::ephemeral().map_err(|why| internal(&why))?;
    let calls = carrying(&token)?;
    let mut job = connect(stage, &own, &calls).await?;
    let since = Instant::now();
    let opened = job.open_task(opening()).await?.into_inner().task.ok_or_else(incomplete)?;
    calls.carry_task(&opened.task_id, true).map_err(|why| internal(&why))?;
    let (beat, beats) = mpsc::channel(1);
    beat.send(HoldTaskRequest { task_id: opened.task_id.clone() }).await.map_err(|why| internal(&why))?;
    let mut held = job.hold_task(ReceiverStream::new(beats)).await?.into_inner();
    held.message().await?;
    let reply = job.issue(asked(&opened.task_id)).await?.into_inner();
    let credential = stage.take_unbound(Tenant::Acme, reply)?;
    let broken = stage.all_welcome(std::slice::from_ref(&credential)).await?;
    report.prove("job", "a CI job's identity token and a key of its own: a task, and a credential", since, broken)?;

    stolen(stage, report, &token, &opened.task_id).await?;
    strange(stage, report).await?;
    explained(stage, report).await?;
    finished(stage, report, job, &opened.task_id, credential).await
}

/// What malware in the job could take along.
async fn stolen(stage: &mut Stage, report: &mut Report<'_>, token: &str, task: &str) -> Outcome {
    let thief = Identity::ephemeral().map_err(|why| internal(&why))?;
    let since = Instant::now();
    let calls = carrying(token)?;
    let reason = refusal(connect(stage, &thief, &calls).await?.open_task(opening()).await)?;
    let what = format!("the same token over another key: {}", reason.as_deref().unwrap_or("-"));
    report.prove("job", what, since, unless(reason.is_some(), "it opened a task"))?;
    let since = Instant::now();
    let guess = FederatedCalls::default();
    guess.carry_task(task, true).map_err(|why| internal(&why))?;
    let reason = refusal(connect(stage, &thief, &guess).await?.issue(asked(task)).await)?;
    let what = format!("the task's id over another key: {}", reason.as_deref().unwrap_or("-"));
    report.prove("job", what, since, unless(reason.is_some(), "it got a credential"))?;
    let since = Instant::now();
    let listed = ListEventsRequest { kind_prefix: "identity.token_reused".into(), ..ListEventsRequest::default() };
    let alarms = stage.admin.list_events(listed).await?.into_inner().events.len();
    report.prove("job", "the second use is an alarm in the audit", since, unless(alarms > 0, "there is none"))
}

/// Tokens of the same platform that are not for this.
async fn strange(stage: &Stage, report: &mut Report<'_>) -> Outcome {
    let others: [(&str, &[(&str, &str)]); 3] = [
        ("another repository's job", &[("repository_id", "75")]),
        ("a job of another branch", &[("ref", "refs/heads/feature")]),
        ("a job that a fork's pull request can steer", &[("event_name", "pull_request_target")]),
    ];
    for (who, claims) in others {
        let since = Instant::now();
        let own = Identity::ephemeral().map_err(|why| internal(&why))?;
        let calls = carrying(&stage.platform.token(claims)?)?;
        let reason = refusal(connect(stage, &own, &calls).await?.open_task(opening()).await)?;
        let what = format!("{who}: {}", reason.as_deref().unwrap_or("-"));
        report.prove("job", what, since, unless(reason.is_some(), "it opened a task"))?;
    }
    Ok(())
}

/// Why the job would not get a credential for another purpose.
async fn explained(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    let since = Instant::now();
    let (tenant, partner) = (Tenant::Acme, Partner::Klue);
    let asked = IssueRequest { purpose: "export".into(), ..request(tenant, partner, CredentialKind::Opaque) };
    let asked = ExplainRequest {
        tenant: tenant.name().into(),
        partner: partner.name().into(),
        workload: JOB.into(),
        request: Some(asked),
    };
    let reply = stage.admin.explain(asked).await?.into_inner();
    let what = format!("another purpose would be refused: {}", reply.reason);
    report.prove("job", what, since, unless(!reply.allowed, "it would be allowed"))
}

/// The job is done.
async fn finished(
    stage: &mut Stage,
    report: &mut Report<'_>,
    mut job: Job,
    task: &str,
    credential: Credential,
) -> Outcome {
    let since = Instant::now();
    job.complete_task(CompleteTaskRequest { task_id: task.to_owned() }).await?;
    let broken = stage.all_refused(std::slice::from_ref(&credential)).await?;
    report.prove("job", "the job is done: its credential is refused at once", since, broken)?;
    stage.dead.push(credential);
    Ok(())
}

async fn connect(stage: &Stage, own: &Identity, calls: &FederatedCalls) -> Outcome<Job> {
    Ok(BrokerClient::with_interceptor(stage.dial_as(own.clone()).await?, calls.clone()))
}

fn carrying(token: &str) -> Outcome<FederatedCalls> {
    FederatedCalls::new(token).map_err(|why| internal(&why))
}

fn opening() -> OpenTaskRequest {
    OpenTaskRequest {
        tenant: Tenant::Acme.name().into(),
        partner: Partner::Klue.name().into(),
        purpose: PURPOSE.into(),
        hold: true,
        ..OpenTaskRequest::default()
    }
}

/// A reference token that whoever holds it may use.
fn asked(task: &str) -> IssueRequest {
    IssueRequest {
        task_id: task.to_owned(),
        binding: Binding::None.into(),
        ..request(Tenant::Acme, Partner::Klue, CredentialKind::Opaque)
    }
}

fn internal(why: &dyn std::error::Error) -> Failure {
    Failure::Internal(why.to_string())
}

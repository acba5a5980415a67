//! Opens a task, issues a token under it, has a resource server check it, completes the task, and sees the token die.
//!
//! `cargo run --example issue_and_use`, after `cargo build`.

mod support;

use mayfly::pb::introspect_request::Credential as Presented;
use mayfly::pb::issue_response::Credential;
use mayfly::pb::{CompleteTaskRequest, CredentialKind, IntrospectRequest, IssueRequest, OpenTaskRequest};
use support::{Fallible, Stage};

#[tokio::main]
async fn main() -> Fallible<()> {
    let stage = Stage::set().await?;
    let identity = stage.identity("worker")?;
    let mut broker = stage.workload(&identity).await?;

    let open = OpenTaskRequest {
        tenant: "acme".into(),
        partner: "courier".into(),
        purpose: "report".into(),
        deadline_seconds: 600,
        ..OpenTaskRequest::default()
    };
    let task = broker.open_task(open).await?.into_inner().task.ok_or("a reply without a task")?;
    println!("task {} opened", task.task_id);

    let request = IssueRequest { task_id: task.task_id.clone(), ..Stage::request(CredentialKind::Jwt) };
    let reply = broker.issue(request).await?.into_inner();
    let Some(Credential::Token(token)) = reply.credential else { return Err("a reply without a token".into()) };
    println!("lease {} issued", reply.lease.ok_or("a reply without a lease")?.lease_id);

    // The resource server passes on which certificate the token came with: a stolen token alone is worth nothing.
    let mut verifier = stage.verifier().await?;
    let ask = IntrospectRequest {
        credential: Some(Presented::Token(token)),
        audience: Stage::AUDIENCE.into(),
        presented_certificate_sha256: identity.sha256(),
    };
    let active = verifier.introspect(ask.clone()).await?.into_inner().active;
    let stolen = IntrospectRequest { presented_certificate_sha256: Vec::new(), ..ask.clone() };
    let active_when_stolen = verifier.introspect(stolen).await?.into_inner().active;
    println!("the token is active: {active}; without its certificate: {active_when_stolen}");

    broker.complete_task(CompleteTaskRequest { task_id: task.task_id }).await?;
    let active_after = verifier.introspect(ask).await?.into_inner().active;
    println!("after the task completed: {active_after}");

    if active && !active_when_stolen && !active_after { Ok(()) } else { Err("the token did not behave".into()) }
}

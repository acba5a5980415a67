//! The wall between tenants, and the tie between a token and its holder.

use std::time::Instant;

use crate::{
    cli::{
        demo::{
            report::Report,
            stage::{Stage, request},
            trust::{Partner, Tenant},
            visit::Answer,
        },
        failure::Outcome,
    },
    pb::{Binding, CredentialKind, IntrospectRequest, IssueRequest, introspect_request::Credential as Presented},
};

use super::{incomplete, refusal, unless};

/// Shows that acme's credential and workload are nothing in globex.
pub(super) async fn play(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    let (own, foreign) = (Tenant::Acme, Tenant::Globex);
    let credential = stage.issue(own, request(own, Partner::Klue, CredentialKind::Opaque)).await?;
    let since = Instant::now();
    let answer = stage.answer_at(&credential, foreign).await?;
    let broken = unless(answer == Answer::Refused, "globex's service let acme's token in");
    report.prove("tenant", "globex's service refuses acme's token", since, broken)?;

    let since = Instant::now();
    let asked = IntrospectRequest {
        credential: Some(Presented::Token(credential.token().ok_or_else(incomplete)?.to_owned())),
        audience: own.audience(),
        presented_certificate_sha256: stage.worker_sha256(own)?.0.to_vec(),
    };
    let active = stage.verifier(foreign)?.introspect(asked).await?.into_inner().active;
    let broken = unless(!active, "globex's service learns that acme's token is good");
    report.prove("tenant", "globex's service learns nothing about acme's token, even by acme's name", since, broken)?;

    let since = Instant::now();
    let asked = request(foreign, Partner::Klue, CredentialKind::Opaque);
    let reason = refusal(stage.broker(own)?.issue(asked).await)?;
    let what = format!("acme's workload gets nothing in globex: {}", reason.as_deref().unwrap_or("-"));
    report.prove("tenant", what, since, unless(reason.is_some(), "it got a credential"))?;

    let since = Instant::now();
    let broken = stage.all_welcome(std::slice::from_ref(&credential)).await?;
    report.prove("tenant", "the same token is let in at home", since, broken)?;
    stage.live.push(credential);
    Ok(())
}

/// Shows that a bound token is nothing without its certificate.
pub(super) async fn bind(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    let tenant = Tenant::Acme;
    let asked =
        IssueRequest { binding: Binding::Certificate.into(), ..request(tenant, Partner::Klue, CredentialKind::Jwt) };
    let credential = stage.issue(tenant, asked).await?;
    let since = Instant::now();
    let broken = stage.all_welcome(std::slice::from_ref(&credential)).await?;
    report.prove("bind", "a bound token is let in with its certificate", since, broken)?;
    let since = Instant::now();
    let [nobody, another] = stage.answers_to_a_thief(&credential).await?;
    let broken = unless(nobody == Answer::Refused, "it was let in");
    report.prove("bind", "and refused without", since, broken)?;
    let broken = unless(another == Answer::Refused, "it was let in");
    report.prove("bind", "and refused with another certificate of the same authority", since, broken)?;
    stage.live.push(credential);
    Ok(())
}

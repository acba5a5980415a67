//! A grant whose owner does not say in time that it is still needed.

use std::time::{Duration, Instant};

use crate::{
    cli::{
        demo::{
            report::Report,
            stage::{Stage, request},
            trust::{PURPOSE, Partner, Tenant},
            visit::Answer,
        },
        failure::Outcome,
    },
    model::time::system_wall,
    pb::{AttestRequest, CredentialKind},
};

use super::{refusal, unless};

/// Lets the date of a grant pass, and attests it again.
pub(super) async fn play(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    let (tenant, partner) = (Tenant::Globex, Partner::Klue);
    let since = Instant::now();
    attest(stage, SOON).await?;
    let credential = stage.issue(tenant, request(tenant, partner, CredentialKind::Opaque)).await?;
    let first = stage.answer(&credential).await?;
    let what = format!("klue's grant in globex has {} s until its owner must attest it", SOON.as_secs());
    report.prove("attest", what, since, unless(first == Answer::Welcome, "its credential was refused"))?;

    let mut gone = false;
    while !gone && since.elapsed() < GONE_WITHIN {
        tokio::time::sleep(LOOK_EVERY).await;
        gone = stage.answer(&credential).await? == Answer::Refused;
    }
    let broken = unless(gone, format!("it is still taken after {} s", GONE_WITHIN.as_secs()));
    report.prove("attest", "nobody did: what lives under it is suspended", since, broken)?;
    let since = Instant::now();
    let again = request(tenant, partner, CredentialKind::Opaque);
    let reason = refusal(stage.broker(tenant)?.issue(again).await)?;
    let what = format!("and nothing is issued: {}", reason.as_deref().unwrap_or("-"));
    report.prove("attest", what, since, unless(reason.is_some(), "it got a credential"))?;

    let since = Instant::now();
    attest(stage, LATER).await?;
    let broken = stage.all_welcome(std::slice::from_ref(&credential)).await?;
    report.prove("attest", "attested again: the same credential lives", since, broken)?;
    stage.live.push(credential);
    Ok(())
}

async fn attest(stage: &mut Stage, ahead: Duration) -> Outcome {
    let until = system_wall().after(ahead);
    let seconds = i64::try_from(until.seconds()).unwrap_or(i64::MAX);
    let asked = AttestRequest {
        tenant: Tenant::Globex.name().into(),
        grant: format!("{}-{PURPOSE}", Partner::Klue.name()),
        attest_by: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        reason: "demo".into(),
    };
    stage.admin.attest(asked).await?;
    Ok(())
}

const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(60 * 86_400);
const GONE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

//! Issuing at full speed.

use std::time::Duration;

use mayfly::pb::{CredentialKind, IssueResponse};
use tonic::Status;

use crate::Options;
use crate::report::{Measurement, Report};
use crate::rig::{Rig, STEADY};
use crate::series::{Series, closed_loop, open_loop};
use crate::support::Fallible;

/// Durable leased tokens that live five minutes.
pub async fn jwt(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    warm_up(&rig, options, CredentialKind::Jwt).await?;
    let series = issuing(&rig, options.callers(), options.window(), CredentialKind::Jwt, 300).await?;
    report.add(Measurement::new("issue-jwt", options.callers(), &series.checked("issue-jwt")?, rig.usage()?));
    Ok(())
}

/// The same with leases of ten seconds, measured once they expire at the rate they are issued.
pub async fn jwt_churn(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let (callers, kind) = (options.callers(), CredentialKind::Jwt);
    issuing(&rig, callers, CHURN_START, kind, CHURN_SECONDS).await?.checked("issue-jwt-churn start")?;
    let series = issuing(&rig, callers, options.window(), kind, CHURN_SECONDS).await?;
    report.add(Measurement::new("issue-jwt-churn", callers, &series.checked("issue-jwt-churn")?, rig.usage()?));
    Ok(())
}

/// Durable leased certificates for a request that was made before.
pub async fn x509(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    warm_up(&rig, options, CredentialKind::X509).await?;
    let series = issuing(&rig, options.callers(), options.window(), CredentialKind::X509, 300).await?;
    report.add(Measurement::new("sign-x509", options.callers(), &series.checked("sign-x509")?, rig.usage()?));
    Ok(())
}

/// Callers of the steady partner that issue without pause.
pub async fn issuing(
    rig: &Rig,
    callers: usize,
    window: Duration,
    kind: CredentialKind,
    ttl_seconds: u32,
) -> Fallible<Series> {
    let mut parts = Vec::new();
    for index in 0..callers {
        parts.push((rig.lane(index)?.client.clone(), rig.request(index, STEADY, kind, ttl_seconds)?));
    }
    let parts = parts.as_slice();
    closed_loop(callers, window, move |index| {
        let part = parts.get(index).cloned();
        move || {
            let part = part.clone();
            async move {
                let (mut client, request) = part.ok_or_else(|| Status::internal("a caller too many"))?;
                issued(client.issue(request).await?.into_inner())
            }
        }
    })
    .await
}

/// Issues `rate` tokens a second, whatever the answers.
pub async fn issuing_at(rig: &Rig, rate: u32, window: Duration) -> Fallible<Series> {
    let mut parts = Vec::new();
    for (index, lane) in rig.lanes.iter().enumerate() {
        parts.push((lane.client.clone(), rig.request(index, STEADY, CredentialKind::Jwt, 300)?));
    }
    open_loop(rate, window, |index| {
        let part = parts.get(index % parts.len()).cloned();
        async move {
            let (mut client, request) = part.ok_or_else(|| Status::internal("a rig without lanes"))?;
            issued(client.issue(request).await?.into_inner())
        }
    })
    .await
}

/// A reply counts when it brings a credential.
fn issued(reply: IssueResponse) -> Result<(), Status> {
    reply.credential.map(drop).ok_or_else(|| Status::internal("a reply without a credential"))
}

async fn warm_up(rig: &Rig, options: &Options, kind: CredentialKind) -> Fallible<()> {
    issuing(rig, options.callers(), Duration::from_secs(1), kind, 300).await?.checked("warm-up")?;
    Ok(())
}

const CHURN_SECONDS: u32 = 10;
const CHURN_START: Duration = Duration::from_secs(12);

//! Issuing and asking at full speed.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tonic::Status;

use crate::Options;
use crate::connection::Call;
use crate::report::{Measurement, Report};
use crate::rig::{Held, Rig, STEADY, is_active};
use crate::series::{Series, closed_loop};
use crate::support::Fallible;

/// Leased tokens that live five minutes, each for a signed proof.
pub async fn jwt(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let mut calls = Vec::new();
    for index in 0..options.callers() {
        calls.push(rig.login(index, STEADY)?);
    }
    measure("issue-jwt", &rig, options, calls, report).await
}

/// Leased tokens for callers that hold a token already.
pub async fn token(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let mut calls = Vec::new();
    for index in 0..options.callers() {
        let own = rig.issue(index, STEADY).await?.token;
        calls.push(Call::post("auth/token/create", &own, &json!({ "ttl": "200s" })));
    }
    measure("issue-token", &rig, options, calls, report).await
}

/// Leased certificates for a request that was made before.
pub async fn x509(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let mut calls = Vec::new();
    for index in 0..options.callers() {
        calls.push(rig.sign(&rig.issue(index, STEADY).await?.token));
    }
    measure("sign-x509", &rig, options, calls, report).await
}

/// Asks about live tokens, each caller with a step of its own through the pool.
pub async fn introspect(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let pool: Arc<[_]> = rig.fill(POOL, STEADY, POOL).await?.iter().map(|held| rig.lookup(held)).collect();
    let callers = options.callers();
    let connections = rig.connections.as_slice();
    let series = closed_loop(callers, options.window(), move |caller| {
        let (connection, pool) = (connections.get(caller % connections.len().max(1)).cloned(), Arc::clone(&pool));
        let mut at = caller;
        move || {
            at = (at + 61) % pool.len().max(1);
            let (connection, call) = (connection.clone(), pool.get(at).cloned());
            async move {
                let missing = || Status::internal("a caller too many");
                let live = is_active(&connection.ok_or_else(missing)?, &call.ok_or_else(missing)?).await?;
                if live { Ok(()) } else { Err(Status::internal("a live token was called inactive")) }
            }
        }
    })
    .await?;
    report.add(Measurement::new("introspect", callers, &series.checked("introspect")?, rig.server.usage()?));
    Ok(())
}

/// Warms up for a second, then measures.
async fn measure(name: &str, rig: &Rig, options: &Options, calls: Vec<Call>, report: &mut Report) -> Fallible<()> {
    issuing(rig, &calls, Duration::from_secs(1)).await?.checked("warm-up")?;
    let series = issuing(rig, &calls, options.window()).await?.checked(name)?;
    report.add(Measurement::new(name, options.callers(), &series, rig.server.usage()?));
    Ok(())
}

/// Callers that issue without pause, each its own call.
pub async fn issuing(rig: &Rig, calls: &[Call], window: Duration) -> Fallible<Series> {
    let mut parts = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        parts.push((rig.connection(index)?.clone(), call.clone()));
    }
    let parts = parts.as_slice();
    closed_loop(calls.len(), window, move |index| {
        let part = parts.get(index).cloned();
        move || {
            let part = part.clone();
            async move {
                let (connection, call) = part.ok_or_else(|| Status::internal("a caller too many"))?;
                let reply = connection.call(&call).await?.succeeded(&call)?.decode()?;
                if leased(&reply) { Ok(()) } else { Err(Status::internal("a reply without a lease")) }
            }
        }
    })
    .await
}

/// Either kind of reply, as far as a caller needs it.
#[derive(Deserialize)]
struct Issued {
    #[serde(default)]
    lease_id: String,
    auth: Option<Held>,
    data: Option<Certified>,
}

#[derive(Deserialize)]
struct Certified {
    certificate: String,
}

/// A reply counts when it brings a credential that ends: a token, or a certificate with its lease.
fn leased(reply: &Issued) -> bool {
    let token = reply.auth.as_ref().is_some_and(|auth| !auth.token.is_empty() && auth.lease_duration > 0);
    token || (!reply.lease_id.is_empty() && reply.data.as_ref().is_some_and(|data| !data.certificate.is_empty()))
}

const POOL: u32 = 2_000;
